"""Results as EARs: what is signed comes back as it was, and any other token is refused."""

import base64
import contextlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.ear import MAX_AGE_S, MAX_TOKEN, Result, sign_result, verify_result
from gateway.errors import TrustError
from gateway.tlog.note import Signer, Verifier, open_note
from tests.ears import AUDIENCE, ISSUER, RESULT, VERIFIER
from tests.reference_files import NOW_S


def signed(result: Result = RESULT) -> str:
    return sign_result(result, issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)


def opened(token: str, *, verifier: Verifier = VERIFIER.verifier, now_s: int = NOW_S) -> Result:
    return verify_result(token, issuer=ISSUER, audience=AUDIENCE, verifier=verifier, now_s=now_s)


def refused(token: str, why: str) -> None:
    with pytest.raises(TrustError, match=why):
        opened(token)


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a token's header and claims."""
    head, payload, _ = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(one + "=" * (-len(one) % 4))) for one in (head, payload)]
    return read[0], read[1]


def forged(payload: bytes, header: bytes = b'{"alg":"Ed25519","typ":"eat+jwt"}') -> str:
    """Return a token that the verifier's key has truly signed, whatever is in it."""
    signing_input = f"{encoded(header)}.{encoded(payload)}"
    return f"{signing_input}.{encoded(VERIFIER.sign_token(signing_input))}"


def bent(change: Callable[[dict[str, Any]], object]) -> str:
    """Return a truly signed token, its claims changed."""
    claims = parts(signed())[1]
    change(claims)
    return forged(json.dumps(claims).encode())


def appraisal(claims: dict[str, Any]) -> dict[str, Any]:
    found = claims["submods"]["wattseal"]
    assert isinstance(found, dict)
    return found


def test_a_result_comes_back_as_it_was_signed() -> None:
    assert opened(signed()) == RESULT


def test_a_result_without_a_challenge_or_a_vector_comes_back_too() -> None:
    """So is said that a gateway did not answer; EAT has no empty nonce, and AR4SI no empty vector."""
    silent = replace(
        RESULT, status="none", reason="no answer", nonce=b"", device="", key="", epoch=0, log_size=0, vector={}
    )
    silent = replace(silent, verified_s=None)
    token = signed(silent)
    assert opened(token) == silent
    claims = parts(token)[1]
    assert "eat_nonce" not in claims
    assert "ear.trustworthiness-vector" not in appraisal(claims)
    failed = replace(RESULT, status="contraindicated", vector={}, verified_s=NOW_S - 3600)
    assert opened(signed(failed)) == failed


def test_the_claims_are_those_of_the_draft() -> None:
    """draft-ietf-rats-ear-04, 3: mandatory claims and their JSON names; RFC 9782 for the type."""
    header, claims = parts(signed())
    assert header == {"alg": "Ed25519", "typ": "eat+jwt"}
    assert (claims["eat_profile"], claims["iat"]) == ("tag:github.com,2023:veraison/ear", NOW_S)
    assert claims["ear.verifier-id"].keys() == {"developer", "build"}
    assert len(base64.urlsafe_b64decode(claims["eat_nonce"] + "=")) == 32
    assert appraisal(claims)["ear.status"] == "affirming"
    assert appraisal(claims)["ear.trustworthiness-vector"] == {"instance-identity": 2, "executables": 3, "hardware": 2}


def test_openssl_finds_the_signature_right(tmp_path: Path) -> None:
    head, payload, signature = signed().split(".")
    key = Ed25519PublicKey.from_public_bytes(VERIFIER.verifier.public_key)
    (tmp_path / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text(f"{head}.{payload}")
    (tmp_path / "signature").write_bytes(base64.urlsafe_b64decode(signature + "=="))
    command = "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in text -sigfile signature"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_key_signs_notes_and_tokens_and_neither_passes_for_the_other() -> None:
    """A note's text ends in a newline, and a token's signing input holds none."""
    with pytest.raises(ValueError, match="not what a JWS signs"):
        VERIFIER.sign_token("a.b\n")
    for text in ("", "a", "a.b.c", "a.b=", "cosignature/v1\ntime 1\na.b"):
        with pytest.raises(ValueError, match="not what a JWS signs"):
            VERIFIER.sign_token(text)
    with pytest.raises(ValueError, match="cannot stand in a note"):
        VERIFIER.line(signed().rpartition(".")[0])
    signing_input = signed().rpartition(".")[0]
    line = base64.b64encode(VERIFIER.verifier.key_id + VERIFIER.sign_token(signing_input)).decode()
    note = f"{signing_input}\n\n\N{EM DASH} {VERIFIER.name} {line}\n".encode()
    with pytest.raises(TrustError):
        open_note(note, [VERIFIER.verifier])


def test_a_cosigners_key_verifies_no_token() -> None:
    with pytest.raises(TrustError, match="cosignatures"):
        opened(signed(), verifier=VERIFIER.cosigner().verifier)


def test_clocks_may_differ_by_a_minute() -> None:
    token = signed()
    for now_s, good in ((NOW_S - 60, True), (NOW_S - 61, False), (NOW_S + 659, True), (NOW_S + 660, False)):
        with contextlib.nullcontext() if good else pytest.raises(TrustError):
            opened(token, now_s=now_s)


def set_to(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda claims: claims.__setitem__(name, value)


def in_appraisal(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda claims: appraisal(claims).__setitem__(name, value)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a claim more": (set_to("nbf", NOW_S), "and no other"),
    "a claim less": (lambda claims: claims.pop("aud"), "and no other"),
    "an appraisal's claim more": (in_appraisal("ear.raw-evidence", ""), "and no other"),
    "an appraisal's claim less": (lambda claims: appraisal(claims).pop("wattseal.epoch"), "and no other"),
    "another profile": (set_to("eat_profile", "tag:other"), "eat_profile does not fit"),
    "several audiences": (set_to("aud", [AUDIENCE]), "aud does not fit"),
    "an issuer that is none": (set_to("iss", None), "iss does not fit"),
    "a time that is text": (set_to("iat", str(NOW_S)), "iat does not fit"),
    "a time that is a fraction": (set_to("iat", NOW_S + 0.5), "whole numbers"),
    "a time that is true": (set_to("iat", True), "iat does not fit"),
    "a time below zero": (set_to("iat", -1), "iat does not fit"),
    "an end that is not a number": (set_to("exp", float("nan")), "whole numbers"),
    "a life that is too long": (set_to("exp", NOW_S + MAX_AGE_S + 1), "want 1..900"),
    "an end before the beginning": (set_to("exp", NOW_S), "want 1..900"),
    "a short nonce": (set_to("eat_nonce", "AAAA"), "eat_nonce does not fit"),
    "a nonce in another spelling": (set_to("eat_nonce", "A" * 42 + "B"), "not base64url"),
    "another verifier's software": (set_to("ear.verifier-id", {"developer": "x", "build": "y"}), "ear.verifier-id"),
    "two submodules": (lambda claims: claims["submods"].update(other={}), "submods does not fit"),
    "a submodule that is a list": (lambda claims: claims["submods"].update(wattseal=[]), "appraisal: want the claims"),
    "an unknown status": (in_appraisal("ear.status", "good"), "ear.status does not fit"),
    "a status by number": (in_appraisal("ear.status", 2), "ear.status does not fit"),
    "an unknown claim of trust": (in_appraisal("ear.trustworthiness-vector", {"colour": 2}), "vector does not fit"),
    "an empty vector": (in_appraisal("ear.trustworthiness-vector", {}), "vector does not fit"),
    "a claim of trust out of range": (in_appraisal("ear.trustworthiness-vector", {"hardware": 128}), "does not fit"),
    "a status better than its vector": (in_appraisal("ear.trustworthiness-vector", {"hardware": 32}), "says warning"),
    "affirming, and nothing affirmed": (in_appraisal("ear.trustworthiness-vector", {"hardware": 0}), "says none"),
    "affirming without a vector": (
        lambda claims: appraisal(claims).pop("ear.trustworthiness-vector"),
        "affirming, though its vector says none",
    ),
    "a gateway that is none": (in_appraisal("wattseal.gateway", "GW 1"), "wattseal.gateway does not fit"),
    "an epoch below zero": (in_appraisal("wattseal.epoch", -1), "wattseal.epoch does not fit"),
    "a log too large": (in_appraisal("wattseal.log-size", 2**63), "wattseal.log-size does not fit"),
    "a reason of two lines": (in_appraisal("wattseal.reason", "a\nb"), "wattseal.reason does not fit"),
    "found good in the future": (in_appraisal("wattseal.verified", NOW_S + 1), "after it was issued"),
    "found good at true": (in_appraisal("wattseal.verified", True), "wattseal.verified does not fit"),
}


@pytest.mark.parametrize(("change", "why"), CHANGES.values(), ids=list(CHANGES))
def test_claims_that_the_verifiers_key_signed_and_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], object], why: str
) -> None:
    refused(bent(change), why)


HEADERS = {
    "another type": b'{"alg":"Ed25519","typ":"JWT"}',
    "no type": b'{"alg":"Ed25519"}',
    "a key of its own": b'{"alg":"Ed25519","typ":"eat+jwt","jwk":{"kty":"OKP"}}',
    "a key's name": b'{"alg":"Ed25519","typ":"eat+jwt","kid":"x"}',
    "a critical extension": b'{"alg":"Ed25519","typ":"eat+jwt","crit":["b64"],"b64":false}',
    "the deprecated name": b'{"alg":"EdDSA","typ":"eat+jwt"}',
    "two algorithms": b'{"alg":"none","alg":"Ed25519","typ":"eat+jwt"}',
    "a list": b'["alg"]',
    "no JSON": b"alg",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))
def test_a_header_other_than_ours_is_refused_before_any_key_is_used(header: bytes) -> None:
    payload = json.dumps(parts(signed())[1]).encode()
    assert opened(forged(payload)) == RESULT
    with pytest.raises(TrustError, match=r"header|JSON|object"):
        opened(forged(payload, header))


def test_keys_that_come_twice_are_refused_at_every_depth() -> None:
    text = json.dumps(parts(signed())[1])
    refused(forged(text.replace('"iat"', f'"iat": {NOW_S}, "iat"', 1).encode()), "each key once")
    refused(forged(text.replace('"ear.status"', '"ear.status": "none", "ear.status"', 1).encode()), "each key once")


def test_a_token_that_is_no_token_is_refused() -> None:
    token = signed()
    head, payload, signature = token.split(".")
    refused("a" * (MAX_TOKEN + 1), "want at most 16384")
    for text in ("", "..", f"{head}.{payload}", f"{token}.", f" {token}", f"{token}\n", f"{token}=", "é.é.é"):
        refused(text, "not a signed token")
    refused(f"{head}.{payload}.{signature[:-2]}", "signature")
    refused(f"{head}.{payload}.{'A' * 86}", "signature")
    last = signature[:-1] + chr(ord(signature[-1]) + 1)
    refused(f"{head}.{payload}.{last}", "signature")
    refused(forged(b"[" * 9000), "whole numbers")
    refused(forged(b"[]"), "want a JSON object")
    refused(forged(b'{"a": ' + b"9" * 5000 + b"}"), "whole numbers")
    refused(forged(b"\xff{}"), "whole numbers")


def test_a_result_that_no_one_would_take_is_not_signed() -> None:
    """A device's word may be in it: so this is a matter of trust, and no bug."""
    for wrong in (
        replace(RESULT, key="k" * 301),
        replace(RESULT, expires_s=NOW_S + 901),
        replace(RESULT, status="affirming", vector={"hardware": 97}),
        replace(RESULT, gateway="../gw"),
    ):
        with pytest.raises(TrustError):
            signed(wrong)
    long = opened(signed(replace(RESULT, status="warning", reason="why\n" * 500)))
    assert long.reason.startswith("why?why?")
    assert len(long.reason) == 500


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_token_that_is_bent_in_any_way_is_refused(data: st.DataObject) -> None:
    token = signed()
    at = data.draw(st.integers(0, len(token) - 1))
    alphabet = st.characters(codec="ascii", exclude_characters=token[at])
    changed = token[:at] + data.draw(alphabet) + token[at + 1 :]
    with pytest.raises(TrustError):
        opened(changed)


@settings(max_examples=80, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), st.lists, max_leaves=9))
def test_any_json_that_the_key_signed_is_a_result_or_a_trust_error(value: Any) -> None:
    for name in ("submods", "iat", "ear.verifier-id", "eat_nonce"):
        with pytest.raises(TrustError):
            opened(bent(set_to(name, value)))


def test_another_key_under_the_same_name_is_refused() -> None:
    with pytest.raises(TrustError, match="signature of wattseal-verifier/site is wrong"):
        opened(signed(), verifier=Signer.generate(ISSUER).verifier)
