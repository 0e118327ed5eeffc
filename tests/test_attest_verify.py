"""Quotes, certified keys and certified counters: what a TPM signed, in answer to what was asked, and nothing else."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.attest.structures import parse_public
from gateway.attest.verify import verify_attest, verify_certify, verify_counter, verify_quote
from gateway.errors import TrustError
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftDevice, public_area, sized, tls_public
from tests.tpms import make_state, running_tpm

ASKED = hashlib.sha256(b"question").digest()
DEVICE = SoftDevice()
KEY = DEVICE.key.public_key()


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    folder: Path = tmp_path_factory.mktemp("t")
    with running_tpm(make_state(folder), folder) as tcti, Tpm.open(tcti) as opened:
        yield opened


def test_what_a_real_tpm_quotes_and_certifies_holds(tpm: Tpm) -> None:
    """The verifier reads what libtpms writes: quote, key and counter."""
    ak = parse_public(tpm.ak_public())
    assert ak.is_restricted_signing
    quoted = tpm.quote(ASKED, [0, 7, 11])
    found = verify_quote(quoted.attest, quoted.signature, ak.key, qualifying=ASKED, pcrs=quoted.pcrs)
    assert found.reset_count > 0
    key = tpm.create_key()
    attest, signature = tpm.certify(key, ASKED)
    area = verify_certify(attest, signature, ak.key, qualifying=ASKED, public=key.public)
    assert area.is_own
    index = 0x01800042
    tpm.counter_define(index)
    value = tpm.counter_increment(index)
    assert verify_counter(tpm.counter_certify(index, ASKED), ak.key, qualifying=ASKED) == (index, value)


def test_a_changed_pcr_of_a_real_tpm_is_seen(tpm: Tpm) -> None:
    """An old quote does not fit new values, and a new one does not fit old values."""
    ak, before = parse_public(tpm.ak_public()), tpm.quote(ASKED, [11])
    tpm.extend(11, hashlib.sha256(b"another image").digest())
    after = tpm.quote(ASKED, [11])
    for one, other in ((before, after), (after, before)):
        with pytest.raises(TrustError, match="other values"):
            verify_quote(one.attest, one.signature, ak.key, qualifying=ASKED, pcrs=other.pcrs)


def test_a_quote_over_these_pcrs_holds() -> None:
    """It returns what the TPM said."""
    attest, signature = DEVICE.quote(ASKED)
    found = verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    assert (found.kind, found.extra, found.reset_count) == ("quote", ASKED, DEVICE.reset_count)


def test_the_order_in_which_pcrs_are_given_does_not_matter() -> None:
    """The digest is over the values in the order of their indices."""
    attest, signature = DEVICE.quote(ASKED)
    verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=dict(reversed(DEVICE.pcrs.items())))


def test_a_quote_over_other_pcrs_is_refused() -> None:
    """Fewer or more than were quoted, none, or values of another length."""
    attest, signature = DEVICE.quote(ASKED)
    fewer = {index: DEVICE.pcrs[index] for index in range(7)}
    moved = {index + 1: value for index, value in DEVICE.pcrs.items()}
    for pcrs in (fewer, DEVICE.pcrs | {8: bytes(32)}, moved, {}):
        with pytest.raises(TrustError, match="it is over PCRs"):
            verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=pcrs)
    # The same concatenation, cut at other places.
    shifted = {0: DEVICE.pcrs[0] + DEVICE.pcrs[1][:1], 1: DEVICE.pcrs[1][1:]}
    attest, signature = DEVICE.quote(ASKED, shifted)
    with pytest.raises(TrustError, match="32 bytes"):
        verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=shifted)


def test_a_quote_over_no_pcr_is_refused() -> None:
    """It would say nothing of the device's state."""
    attest, signature = DEVICE.quote(ASKED, {})
    with pytest.raises(TrustError, match="it is over PCRs"):
        verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs={})


@pytest.mark.parametrize(
    "banks",
    [
        b"\0\0\0\1\0\x04\3\xff\0\0",  # SHA-1
        b"\0\0\0\2\0\x0b\3\xff\0\0\0\x04\3\0\0\0",  # a second bank, though empty
        b"\0\0\0\2\0\x0b\3\x0f\0\0\0\x0b\3\xf0\0\0",  # the bank twice
        b"\0\0\0\0",
    ],
)
def test_a_quote_over_another_bank_is_refused(banks: bytes) -> None:
    """The SHA-256 bank, and it alone."""
    digest = hashlib.sha256(b"".join(DEVICE.pcrs[index] for index in sorted(DEVICE.pcrs))).digest()
    attest, signature = DEVICE.attest(0x8018, ASKED, banks + sized(digest))
    with pytest.raises(TrustError, match="SHA-256 bank"):
        verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)


def test_an_answer_to_another_question_is_refused() -> None:
    """Replayed, of another nonce, or of none."""
    for said in (b"", ASKED[:31], hashlib.sha256(b"yesterday").digest()):
        attest, signature = DEVICE.quote(said)
        with pytest.raises(TrustError, match="another question"):
            verify_quote(attest, signature, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)


def test_one_kind_of_attestation_does_not_pass_for_another() -> None:
    """A certified key is no quote, a quote no counter, a counter no key."""
    quote, certify = DEVICE.quote(ASKED), DEVICE.certify(DEVICE.ak_public, ASKED)
    counter = DEVICE.counter(0x01800001, 1, ASKED)
    with pytest.raises(TrustError, match="want a quote"):
        verify_quote(*certify, KEY, qualifying=ASKED, pcrs=DEVICE.pcrs)
    with pytest.raises(TrustError, match="want one of TPM2_Certify"):
        verify_certify(counter.attest, counter.signature, KEY, qualifying=ASKED, public=DEVICE.ak_public)
    swapped = type(counter)(public=counter.public, attest=quote[0], signature=quote[1])
    with pytest.raises(TrustError, match="want one of TPM2_NV_Certify"):
        verify_counter(swapped, KEY, qualifying=ASKED)


def test_only_the_certified_key_is_returned_and_only_if_the_tpm_made_it() -> None:
    """Another key's area is refused, and so is a key that was imported."""
    tls = tls_public(ec.generate_private_key(ec.SECP256R1()).public_key())
    attest, signature = DEVICE.certify(tls, ASKED)
    assert verify_certify(attest, signature, KEY, qualifying=ASKED, public=tls).packed == tls
    with pytest.raises(TrustError, match="another key"):
        verify_certify(attest, signature, KEY, qualifying=ASKED, public=DEVICE.ak_public)
    imported = public_area(KEY, attributes=0x00040040)
    with pytest.raises(TrustError, match="outside of the TPM"):
        verify_certify(*DEVICE.certify(imported, ASKED), KEY, qualifying=ASKED, public=imported)


def test_a_counter_is_the_certified_index_and_really_a_counter() -> None:
    """Another index's area, an index that can be written at will, or a part of one, is refused."""
    good = DEVICE.counter(0x01800001, 7, ASKED)
    assert verify_counter(good, KEY, qualifying=ASKED) == (0x01800001, 7)
    other = DEVICE.counter(0x01800002, 7, ASKED)
    with pytest.raises(TrustError, match="another NV index"):
        verify_counter(
            type(good)(public=other.public, attest=good.attest, signature=good.signature), KEY, qualifying=ASKED
        )
    plain = DEVICE.counter(0x01800001, 7, ASKED, attributes=0x20040004)
    with pytest.raises(TrustError, match="not a counter"):
        verify_counter(plain, KEY, qualifying=ASKED)
    name = b"\x00\x0b" + hashlib.sha256(good.public).digest()
    for body in (b"\x00\x01" + sized(bytes(8)), b"\x00\x00" + sized(bytes(7))):
        attest, signature = DEVICE.attest(0x8014, ASKED, sized(name) + body)
        with pytest.raises(TrustError, match="not shown whole"):
            verify_counter(type(good)(public=good.public, attest=attest, signature=signature), KEY, qualifying=ASKED)


def test_signatures_of_other_keys_that_tpms_have_hold() -> None:
    """RSASSA, and P-384 with SHA-384, for attestation keys of other makers."""
    attest, _ = DEVICE.quote(ASKED)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signature = b"\x00\x14\x00\x0b" + sized(key.sign(attest, padding.PKCS1v15(), hashes.SHA256()))
    assert verify_attest(attest, signature, key.public_key(), qualifying=ASKED).kind == "quote"
    curve = ec.generate_private_key(ec.SECP384R1())
    r, s = (
        sized(number.to_bytes(48, "big"))
        for number in decode_dss_signature(curve.sign(attest, ec.ECDSA(hashes.SHA384())))
    )
    assert verify_attest(attest, b"\x00\x18\x00\x0c" + r + s, curve.public_key(), qualifying=ASKED).kind == "quote"


def test_a_signature_of_another_scheme_than_the_key_is_refused() -> None:
    """An RSA key's signature under a curve's key, and the other way."""
    attest, signature = DEVICE.quote(ASKED)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(TrustError, match="want RSASSA"):
        verify_attest(attest, signature, key.public_key(), qualifying=ASKED)
    forged = b"\x00\x14\x00\x0b" + sized(key.sign(attest, padding.PKCS1v15(), hashes.SHA256()))
    with pytest.raises(TrustError, match="want ECDSA"):
        verify_attest(attest, forged, KEY, qualifying=ASKED)
