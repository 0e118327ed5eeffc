"""The TPM's structures: read to the last byte, or refused."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.attest.octets import MAX_BYTES
from gateway.attest.structures import (
    Certified,
    NvCertified,
    Quoted,
    parse_attest,
    parse_nv_public,
    parse_public,
    parse_signature,
)
from gateway.errors import TrustError
from hil.plant.soft_tpm import SoftDevice, name_of, public_area, sized, tls_public

DEVICE = SoftDevice()
QUOTE, SIGNATURE = DEVICE.quote(b"question")
CERTIFY, _ = DEVICE.certify(DEVICE.ak_public, b"question")
COUNTER = DEVICE.counter(0x01800001, 42, b"question")
POINT = DEVICE.key.public_key().public_numbers()
X, Y = (sized(number.to_bytes(32, "big")) for number in (POINT.x, POINT.y))

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "quote": (parse_attest, QUOTE),
    "certify": (parse_attest, CERTIFY),
    "nv": (parse_attest, COUNTER.attest),
    "signature": (parse_signature, SIGNATURE),
    "public": (parse_public, DEVICE.ak_public),
    "nv public": (parse_nv_public, COUNTER.public),
}


def test_a_quote_is_read() -> None:
    """All fields of a quote stand where they belong."""
    found = parse_attest(QUOTE)
    assert (found.kind, found.extra, found.signer) == ("quote", b"question", name_of(DEVICE.ak_public))
    assert (found.clock_ms, found.reset_count, found.restart_count, found.is_safe) == (1000, 1, 0, True)
    assert found.firmware == 0x20240101
    assert isinstance(found.attested, Quoted)
    assert found.attested.selection == ((0x000B, frozenset(range(8))),)
    assert len(found.attested.digest) == 32


def test_a_certified_key_and_a_certified_counter_are_read() -> None:
    """The other two kinds that are known."""
    key, counter = parse_attest(CERTIFY).attested, parse_attest(COUNTER.attest).attested
    assert isinstance(key, Certified)
    assert key.name == parse_public(DEVICE.ak_public).name
    assert isinstance(counter, NvCertified)
    assert (counter.name, counter.offset) == (parse_nv_public(COUNTER.public).name, 0)
    assert int.from_bytes(counter.contents, "big") == 42


def test_a_public_area_says_what_its_key_may() -> None:
    """An attestation key is told from a key that signs anything, and from one that can be copied."""
    ak, tls = parse_public(DEVICE.ak_public), parse_public(tls_public(DEVICE.key.public_key()))
    assert ak.key == DEVICE.key.public_key()
    assert ak.is_restricted_signing
    assert ak.is_own
    assert not ak.is_restricted_decrypt
    assert tls.is_own
    assert not tls.is_restricted_signing
    copied = parse_public(public_area(DEVICE.key.public_key(), attributes=0x00050040))
    assert not copied.is_own
    assert not copied.is_restricted_signing


def test_a_counter_is_told_from_other_nv_indices() -> None:
    """Only a written counter of eight bytes is one."""
    area = parse_nv_public(COUNTER.public)
    assert (area.index, area.size, area.is_counter) == (0x01800001, 8, True)
    for attributes in (0x20040004, 0x00040014, 0x20040024):
        assert not parse_nv_public(DEVICE.counter(0x01800001, 1, b"", attributes=attributes).public).is_counter


def _shown(value: bytes | str) -> str:
    """Return what names a case: keys are new in each process, and tests must have one name in all of them."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("name", PARSERS)
def test_a_structure_cut_short_anywhere_is_refused(name: str) -> None:
    """Every prefix is refused."""
    parse, good = PARSERS[name]
    for end in range(len(good)):
        with pytest.raises(TrustError):
            parse(good[:end])


@pytest.mark.parametrize("name", PARSERS)
def test_a_structure_with_bytes_behind_it_is_refused(name: str) -> None:
    """Nothing may follow, and nothing is read that is too long to be one."""
    parse, good = PARSERS[name]
    for more in (b"\0", b"\xff" * 9, good, bytes(MAX_BYTES)):
        with pytest.raises(TrustError):
            parse(good + more)


@pytest.mark.parametrize("name", PARSERS)
@given(place=st.integers(min_value=0, max_value=400), value=st.binary(min_size=1, max_size=4))
def test_a_bent_structure_is_read_or_refused(name: str, place: int, value: bytes) -> None:
    """Whatever bytes are written over it, no other error comes out."""
    parse, good = PARSERS[name]
    at = place % len(good)
    with contextlib.suppress(TrustError):
        parse(good[:at] + value + good[at + len(value) :])


@given(blob=st.binary(max_size=300))
@example(blob=b"\xffTCG\x80\x18" + bytes(200))
@example(blob=b"\x00\x01\x00\x0b" + bytes(60))
def test_any_bytes_are_read_or_refused(blob: bytes) -> None:
    """The parsers take bytes from a stranger."""
    for parse, _ in PARSERS.values():
        with contextlib.suppress(TrustError):
            parse(blob)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(0x8014, "cut short"), (0x801C, "type 0x801c"), (0x8019, "type 0x8019"), (0x8016, "type 0x8016")],
)
def test_other_kinds_of_attestation_are_refused(kind: int, said: str) -> None:
    """Time, session audit and creation data have no meaning here; nor has a quote's body as an NV index's."""
    with pytest.raises(TrustError, match=said):
        parse_attest(DEVICE.attest(kind, b"", b"\0\0\0\0")[0])


def test_what_no_tpm_made_is_refused() -> None:
    """The magic number comes first; a truth value is 0 or 1; a list of banks has an end."""
    with pytest.raises(TrustError, match="not made by a TPM"):
        parse_attest(b"\0" + QUOTE[1:])
    with pytest.raises(TrustError, match="safe: got 2"):
        parse_attest(DEVICE.attest(0x8018, b"", bytes(6), safe=2)[0])
    with pytest.raises(TrustError, match="PCR banks"):
        parse_attest(DEVICE.attest(0x8018, b"", b"\xff\xff\xff\xff")[0])
    with pytest.raises(TrustError, match="selection of 5 bytes"):
        parse_attest(DEVICE.attest(0x8018, b"", b"\0\0\0\1\0\x0b\5" + bytes(7))[0])


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"\x00\x16\x00\x0b" + sized(bytes(256)), "scheme 0x0016"),
        (b"\x00\x18\x00\x04" + sized(b"\1") + sized(b"\1"), "hash 0x0004"),
        (b"\x00\x18\x00\x0b" + sized(bytes(49)) + sized(b"\1"), "49 bytes"),
        (b"\x00\x14\x00\x0b" + sized(bytes(513)), "513 bytes"),
    ],
    ids=_shown,
)
def test_a_signature_of_another_form_is_refused(blob: bytes, said: str) -> None:
    """PSS, SHA-1 and overlong numbers."""
    with pytest.raises(TrustError, match=said):
        parse_signature(blob)


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"\x00\x08" + DEVICE.ak_public[2:], "type 0x0008"),
        (b"\x00\x23\x00\x04" + DEVICE.ak_public[4:], "name algorithm 0x0004"),
        (DEVICE.ak_public.replace(b"\x00\x03\x00\x10", b"\x00\x05\x00\x10"), "curve 0x0005"),
        (DEVICE.ak_public.replace(b"\x00\x10\x00\x18", b"\x00\x10\x00\x99"), "scheme 0x0099"),
        (DEVICE.ak_public.replace(Y, X), "no point"),
        (bytes.fromhex("0001000b000300b20000" + "0010" + "0010" + "0400" + "00000000" + "0080") + b"\xff" * 128, "RSA"),
        (bytes.fromhex("0001000b000300b20000" + "0010" + "0010" + "0800" + "00000002" + "0100") + b"\xff" * 256, "RSA"),
        (bytes.fromhex("0001000b000300b20000" + "000600800042" + "0010" + "0800" + "00000000"), "AES-CFB"),
    ],
    ids=_shown,
)
def test_a_key_of_another_kind_is_refused(blob: bytes, said: str) -> None:
    """Symmetric keys, SHA-1 names, unknown curves and schemes, points off the curve, short RSA keys."""
    with pytest.raises(TrustError, match=said):
        parse_public(blob)


def test_an_nv_public_area_is_of_an_nv_index() -> None:
    """A PCR's handle is no NV index."""
    with pytest.raises(TrustError, match="NV index"):
        parse_nv_public(b"\0" + COUNTER.public[1:])
