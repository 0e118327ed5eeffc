"""Attacks on what a TPM signed: another key's, an old one, a bent one, one for something else."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.attest.chain import Anchors, verify_device_chain
from gateway.attest.epoch import verify_epoch
from gateway.attest.evidence import Evidence, verify_evidence
from gateway.attest.verify import verify_certify, verify_counter, verify_quote
from gateway.errors import TrustError
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftAuthority, SoftDevice, challenge_for, sized

AT_S = 1_790_000_000
T_NS = AT_S * 10**9
AUTHORITY = SoftAuthority()
DEVICE = SoftDevice("WS-0001", authority=AUTHORITY)
OTHER = SoftDevice("WS-0002", authority=AUTHORITY)
ASKED = hashlib.sha256(b"question").digest()
KEY = DEVICE.key.public_key()
VKEY = Signer.generate("wattseal/gw1").verifier.vkey
CHALLENGE = challenge_for("gw1", at_s=AT_S)


def flips(good: bytes) -> Iterator[bytes]:
    """Yield the bytes with one bit flipped, at each place, another bit each time."""
    for place in range(len(good)):
        yield good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :]


def epoch_body(device: SoftDevice = DEVICE, **changes: Any) -> dict[str, Any]:
    return {"epoch": 3, "key": VKEY, "binding": device.bind(vkey=VKEY, epoch=3, t_ns=T_NS) | changes}


def answer(device: SoftDevice = DEVICE) -> Evidence:
    return Evidence.unpack(device.evidence(CHALLENGE, epoch=3, key=VKEY, log_size=7, counters={0x01800001: 2}))


@pytest.mark.parametrize("part", ["attest", "signature"])
def test_a_flipped_bit_anywhere_in_a_quote_is_seen(part: str) -> None:
    """At every byte of what was signed, and of the signature."""
    good = dict(zip(("attest", "signature"), DEVICE.quote(ASKED), strict=True))
    verify_quote(**good, key=KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    for bent in flips(good[part]):
        with pytest.raises(TrustError):
            verify_quote(**good | {part: bent}, key=KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)


@pytest.mark.parametrize("part", ["public", "attest", "signature"])
def test_a_flipped_bit_anywhere_in_a_certified_key_or_counter_is_seen(part: str) -> None:
    """In the area that is vouched for too."""
    attest, signature = DEVICE.certify(DEVICE.ak_public, ASKED)
    key = {"attest": attest, "signature": signature, "public": DEVICE.ak_public}
    for bent in flips(key[part]):
        with pytest.raises(TrustError):
            verify_certify(**key | {part: bent}, key=KEY, qualifying=ASKED)
    counter = DEVICE.counter(0x01800001, 5, ASKED)
    for bent in flips(getattr(counter, part)):
        parts = {name: getattr(counter, name) for name in ("public", "attest", "signature")} | {part: bent}
        with pytest.raises(TrustError):
            verify_counter(type(counter)(**parts), KEY, qualifying=ASKED)


def test_a_quote_cut_or_lengthened_is_refused() -> None:
    """Under a signature by the right key too: the bytes must be one quote, whole."""
    attest, signature = DEVICE.quote(ASKED)
    for end in range(len(attest)):
        with pytest.raises(TrustError):
            verify_quote(attest[:end], DEVICE.sign(attest[:end]), KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    longer = attest + b"\0"
    with pytest.raises(TrustError, match="too many"):
        verify_quote(longer, DEVICE.sign(longer), KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    for end in range(len(signature)):
        with pytest.raises(TrustError):
            verify_quote(attest, signature[:end], KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)


def test_a_changed_pcr_is_seen() -> None:
    """A device that booted something else cannot show the old values."""
    drifted = SoftDevice("WS-0003", authority=AUTHORITY)
    good = dict(drifted.pcrs)
    drifted.extend(4, hashlib.sha256(b"another kernel").digest())
    attest, signature = drifted.quote(ASKED)
    with pytest.raises(TrustError, match="other values"):
        verify_quote(attest, signature, drifted.key.public_key(), qualifying=ASKED, pcrs=good)
    verify_quote(attest, signature, drifted.key.public_key(), qualifying=ASKED, pcrs=drifted.pcrs)


def test_the_signature_of_no_key_is_refused() -> None:
    """Zeros and the group's order as r and s."""
    attest, _ = DEVICE.quote(ASKED)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for number in (b"", bytes(32), order.to_bytes(32, "big"), b"\xff" * 32, b"\xff" * 48):
        signature = b"\x00\x18\x00\x0b" + sized(number) + sized(number)
        with pytest.raises(TrustError):
            verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)


def test_another_devices_attestation_key_is_refused() -> None:
    """Its quote under this device's certificate, and its certificate with this device's quote."""
    attest, signature = OTHER.quote(ASKED, DEVICE.pcrs)
    with pytest.raises(TrustError, match="not signed by this attestation key"):
        verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    with pytest.raises(TrustError, match="not signed by this attestation key"):
        verify_epoch(epoch_body(chain=list(OTHER.chain)), AUTHORITY.anchors)


def test_a_key_that_no_authority_vouches_for_is_refused() -> None:
    """A forger with an authority of his own, of the same name."""
    forger = SoftDevice("WS-0001", authority=SoftAuthority())
    assert verify_epoch(epoch_body(forger), forger.anchors).device.serial == "WS-0001"
    with pytest.raises(TrustError, match="no trust anchor"):
        verify_epoch(epoch_body(forger), AUTHORITY.anchors)
    with pytest.raises(TrustError, match="did not issue"):
        verify_epoch(epoch_body(forger, chain=[forger.chain[0], DEVICE.chain[1]]), AUTHORITY.anchors)


def test_a_quote_binds_one_key_one_epoch_and_one_time() -> None:
    """None of the three can be exchanged."""
    good = epoch_body()
    assert verify_epoch(good, AUTHORITY.anchors).epoch == 3
    another = Signer.generate("wattseal/gw1").verifier.vkey
    for changes in ({"epoch": 4}, {"key": another}, {"binding": good["binding"] | {"t": T_NS + 1}}):
        with pytest.raises(TrustError, match="another question"):
            verify_epoch(good | changes, AUTHORITY.anchors)


def test_evidence_for_a_challenge_is_no_binding_of_an_epoch_and_the_other_way() -> None:
    """Each has a label of its own under the quote."""
    given = answer()
    swapped = epoch_body(attest=given.attest, signature=given.signature)
    with pytest.raises(TrustError, match="another question"):
        verify_epoch(swapped, AUTHORITY.anchors)
    attest, signature = epoch_body()["binding"]["attest"], epoch_body()["binding"]["signature"]
    forged = Evidence(claims=given.claims, attest=attest, signature=signature, pcrs=given.pcrs, chain=given.chain)
    with pytest.raises(TrustError):
        verify_evidence(forged, AUTHORITY.anchors, nonce=CHALLENGE.nonce, at_s=AT_S)


def test_evidence_with_another_nonce_is_refused() -> None:
    """A replay of an old answer, to a new challenge."""
    given = answer()
    assert verify_evidence(given, AUTHORITY.anchors, nonce=CHALLENGE.nonce, at_s=AT_S).claims.log_size == 7
    with pytest.raises(TrustError, match="another question"):
        verify_evidence(given, AUTHORITY.anchors, nonce=challenge_for("gw1", at_s=AT_S).nonce, at_s=AT_S)


def check(given: Evidence) -> None:
    verify_evidence(given, AUTHORITY.anchors, nonce=CHALLENGE.nonce, at_s=AT_S)


def test_a_flipped_bit_anywhere_in_claims_is_seen() -> None:
    """The quote covers all that a device says of itself."""
    given = answer()
    for bent in flips(given.claims):
        with pytest.raises(TrustError):
            check(dataclasses.replace(given, claims=bent))


def test_a_flipped_bit_in_evidence_raises_nothing_but_a_refusal() -> None:
    """What the quote does not cover (counters, the event log) may pass; nothing else happens."""
    packed = answer().pack()
    passed = 0
    for bent in flips(packed):
        try:
            check(Evidence.unpack(bent))
        except TrustError:
            continue
        passed += 1
    assert passed < len(packed) / 4, "only the counters, which verify_counter checks"


def test_an_attestation_key_that_is_not_known_to_the_chain_has_no_device() -> None:
    """No chain, no device: whatever the quote says."""
    with pytest.raises(TrustError):
        verify_epoch(epoch_body(chain=[]), AUTHORITY.anchors)
    with pytest.raises(TrustError):
        verify_device_chain(DEVICE.chain, Anchors(roots=()), at_s=AT_S)
