"""Attacks on what evidence means: changed, rolled-back and half-shown states, logs that lie, stolen results."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey

from gateway.attest.appraisal import appraise
from gateway.attest.ear import sign_result, verify_result
from gateway.attest.eventlog import replay
from gateway.errors import TrustError
from gateway.tlog.note import Signer
from tests.appraising import LOG, appraised, booted, evidence_of, sha256, verified
from tests.ears import AUDIENCE, ISSUER, RESULT, VERIFIER
from tests.event_logs import OFF, ON, boot_log, event
from tests.reference_files import DAY_S, NOW_S, references, release, rule

GOLDEN = dict(replay(LOG).pcrs)
SECURE_BOOT = rule("required", 7, sha256(ON), about="secure boot on") + rule(
    "forbidden", 7, sha256(OFF), about="secure boot off"
)


def test_a_changed_pcr_is_contraindicated_and_named() -> None:
    device = booted()
    device.extend(7, sha256(b"a boot kit"))
    found = appraised(references(release(GOLDEN)), device, event_log=b"")
    assert (found.status, found.vector["executables"]) == ("contraindicated", 96)
    assert f"PCR 7: got {device.pcrs[7].hex()[:16]}, want {GOLDEN[7].hex()[:16]}" in found.reason


def test_a_rolled_back_release_is_contraindicated_once_its_time_is_over() -> None:
    """Its PCRs are known and its software was good once: that is why it has an end."""
    old = release(GOLDEN, name="old", until_s=NOW_S)
    new = release(dict(replay(boot_log(kernel=b"kernel 2")).pcrs), name="new", from_s=NOW_S - DAY_S)
    found = appraised(references(old, new))
    assert (found.status, found.reason) == ("contraindicated", "release old ended on 2026-11-22")


def test_a_pcr_that_is_left_out_of_the_quote_is_contraindicated() -> None:
    """The device chooses what it quotes; the reference values choose what they want."""
    device = booted()
    del device.pcrs[4]
    found = appraised(references(release(GOLDEN)), device)
    assert found.status == "contraindicated"
    assert f"PCR 4: got nothing, want {GOLDEN[4].hex()[:16]}" in found.reason


def test_an_event_log_of_another_boot_is_contraindicated() -> None:
    """Even where the PCRs alone would do: who sends a false log has something to hide."""
    found = appraised(references(release(GOLDEN)), event_log=boot_log(kernel=b"kernel 2"))
    assert (found.status, found.vector["configuration"]) == ("contraindicated", 99)
    assert found.reason == "the event log does not replay to the quoted PCR 4"


def test_a_shortened_event_log_is_contraindicated() -> None:
    device = booted(LOG + event(4, "EV_ACTION", b"one more"))
    found = appraised(references(release({0: GOLDEN[0]})), device, event_log=LOG)
    assert found.reason == "the event log does not replay to the quoted PCR 4"


def test_a_malformed_event_log_is_contraindicated_and_told() -> None:
    found = appraised(references(release(GOLDEN)), event_log=LOG[:-1])
    assert (found.status, found.vector["configuration"]) == ("contraindicated", 99)
    assert "event log: event 12" in found.reason


def test_secure_boot_that_is_off_is_seen_though_the_log_calls_the_event_something_else() -> None:
    """Types are in no PCR: so what is forbidden is known by its digest, and what is measured later does not undo it."""
    off = boot_log(secure_boot=OFF)
    tables = references(release({0: GOLDEN[0]}, tables=SECURE_BOOT))
    assert appraised(tables).status == "affirming"
    lied = off + event(7, "EV_EFI_VARIABLE_DRIVER_CONFIG", ON)
    lied = lied.replace((0x80000001).to_bytes(4, "little"), (0x0000000D).to_bytes(4, "little"), 1)
    device = booted(lied)
    found = appraised(tables, device, event_log=lied)
    assert (found.status, found.reason) == ("contraindicated", "PCR 7: secure boot off: rule `forbidden` is broken")


def test_a_counter_that_another_tpm_certified_is_contraindicated() -> None:
    floor = references(release(GOLDEN, tables="[release.counters]\n0x01800001 = 3\n"))
    good = verified(evidence_of(booted(), counters={0x01800001: 5}))
    assert appraise(good, floor, now_s=NOW_S).status == "affirming"
    stolen = booted().counter(0x01800001, 5, bytes(32))
    bad = replace(good, evidence=replace(good.evidence, counters=(stolen,)))
    found = appraise(bad, floor, now_s=NOW_S)
    assert (found.status, found.vector["configuration"]) == ("contraindicated", 99)


def test_a_result_for_another_ledger_by_another_verifier_or_of_another_key_is_refused() -> None:
    token = sign_result(RESULT, issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)
    with pytest.raises(TrustError, match="want one for 'wattseal-ledger/other'"):
        verify_result(token, issuer=ISSUER, audience="wattseal-ledger/other", verifier=VERIFIER.verifier, now_s=NOW_S)
    with pytest.raises(TrustError, match="want one by 'wattseal-verifier/other'"):
        verify_result(
            token, issuer="wattseal-verifier/other", audience=AUDIENCE, verifier=VERIFIER.verifier, now_s=NOW_S
        )
    other = Signer.generate(ISSUER).verifier
    with pytest.raises(TrustError, match="signature"):
        verify_result(token, issuer=ISSUER, audience=AUDIENCE, verifier=other, now_s=NOW_S)


def test_a_result_of_another_gateway_says_so_and_cannot_be_relabelled() -> None:
    """Whoever takes it compares the gateway with the topic; the signature covers it."""
    token = sign_result(replace(RESULT, gateway="gw2"), issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)
    found = verify_result(token, issuer=ISSUER, audience=AUDIENCE, verifier=VERIFIER.verifier, now_s=NOW_S)
    assert found.gateway == "gw2"
    head, payload, signature = token.split(".")
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).replace(b'"gw2"', b'"gw1"')
    bent = ".".join((head, base64.urlsafe_b64encode(claims).decode().rstrip("="), signature))
    with pytest.raises(TrustError, match="signature"):
        verify_result(bent, issuer=ISSUER, audience=AUDIENCE, verifier=VERIFIER.verifier, now_s=NOW_S)


def test_a_result_is_refused_after_its_time_and_long_before_it() -> None:
    token = sign_result(RESULT, issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)
    for now_s, why in ((RESULT.expires_s + 60, "expired"), (RESULT.issued_s - 61, "from now")):
        with pytest.raises(TrustError, match=why):
            verify_result(token, issuer=ISSUER, audience=AUDIENCE, verifier=VERIFIER.verifier, now_s=now_s)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.filterwarnings("ignore")
def test_a_token_may_not_choose_its_algorithm() -> None:
    """None, a MAC with the public key as its secret, and every name but the one."""
    token = sign_result(RESULT, issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)
    _, payload, signature = token.split(".")
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    secret = OctKey.import_key(VERIFIER.verifier.public_key)
    forged = [
        f"{part({'alg': 'none', 'typ': 'eat+jwt'})}.{payload}.",
        f"{part({'alg': 'none', 'typ': 'eat+jwt'})}.{payload}.{signature}",
        jws.serialize_compact({"alg": "HS256", "typ": "eat+jwt"}, claims, secret, algorithms=["HS256"]),
        *(f"{part({'alg': alg, 'typ': 'eat+jwt'})}.{payload}.{signature}" for alg in ("EdDSA", "ES256", "ed25519")),
    ]
    for one in forged:
        with pytest.raises(TrustError, match=r"header|not a signed token"):
            verify_result(one, issuer=ISSUER, audience=AUDIENCE, verifier=VERIFIER.verifier, now_s=NOW_S)
