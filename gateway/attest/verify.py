"""What a TPM signed, verified: the signature first, then the bytes, then that they answer the question that was asked.

Source: TCG, Trusted Platform Module Library, Part 3: Commands, 18 (TPM2_Certify, TPM2_Quote), 31.16 (TPM2_NV_Certify).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from gateway.attest.octets import MAX_BYTES
from gateway.attest.structures import (
    ECDSA,
    SHA256,
    Attest,
    Certified,
    NvCertified,
    Public,
    PublicKey,
    Quoted,
    parse_attest,
    parse_nv_public,
    parse_public,
    parse_signature,
)
from gateway.errors import TrustError

if TYPE_CHECKING:
    from gateway.attest.evidence import Counter

_HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}


def verify_attest(attest: bytes, signature: bytes, key: PublicKey, *, qualifying: bytes) -> Attest:
    """Return what the TPM that holds key attests, in answer to qualifying. Raises TrustError.

    signature: TPMT_SIGNATURE. key: an attestation key, restricted: such a key signs nothing that only looks like it.
    """
    if len(attest) > MAX_BYTES:
        raise TrustError(f"attest: got {len(attest)} bytes, want at most {MAX_BYTES}")
    said = parse_signature(signature)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if said.scheme != ECDSA:
                raise TrustError("signature: got RSASSA, want ECDSA, as the key is")
            key.verify(said.packed, attest, ec.ECDSA(_HASHES[said.digest]))
        else:
            if said.scheme == ECDSA:
                raise TrustError("signature: got ECDSA, want RSASSA, as the key is")
            key.verify(said.packed, attest, padding.PKCS1v15(), _HASHES[said.digest])
    except InvalidSignature as e:
        raise TrustError("attest: it is not signed by this attestation key") from e
    found = parse_attest(attest)
    if found.extra != qualifying:
        raise TrustError("attest: it answers another question (its qualifying data differs)")
    return found


def verify_quote(
    attest: bytes, signature: bytes, key: PublicKey, *, qualifying: bytes, pcrs: Mapping[int, bytes]
) -> Attest:
    """Return a quote over just these PCRs of the SHA-256 bank. Raises TrustError."""
    found = verify_attest(attest, signature, key, qualifying=qualifying)
    quoted = found.attested
    if not isinstance(quoted, Quoted):
        raise TrustError(f"attest: got one of kind {found.kind}, want a quote")
    if len(quoted.selection) != 1 or quoted.selection[0][0] != SHA256:
        raise TrustError("quote: want the SHA-256 bank, and no other")
    selected = quoted.selection[0][1]
    if selected != pcrs.keys() or not selected:
        raise TrustError(f"quote: it is over PCRs {sorted(selected)}, the values are of {sorted(pcrs)}")
    if any(len(value) != 32 for value in pcrs.values()):
        raise TrustError("quote: a PCR's value has 32 bytes")
    if hashlib.sha256(b"".join(pcrs[index] for index in sorted(pcrs))).digest() != quoted.digest:
        raise TrustError("quote: the PCRs had other values")
    return found


def verify_certify(attest: bytes, signature: bytes, key: PublicKey, *, qualifying: bytes, public: bytes) -> Public:
    """Return the key that the TPM holding `key` vouches for: made in that TPM, never let out. Raises TrustError.

    public: its TPMT_PUBLIC.
    """
    found = verify_attest(attest, signature, key, qualifying=qualifying)
    if not isinstance(found.attested, Certified):
        raise TrustError(f"attest: got one of kind {found.kind}, want one of TPM2_Certify")
    area = parse_public(public)
    if area.name != found.attested.name:
        raise TrustError("certify: the TPM vouches for another key")
    if not area.is_own:
        raise TrustError("certify: this key can be had outside of the TPM, or came from there")
    return area


def verify_counter(counter: Counter, key: PublicKey, *, qualifying: bytes) -> tuple[int, int]:
    """Return the NV index and the value of a counter in the TPM that holds key. Raises TrustError."""
    found = verify_attest(counter.attest, counter.signature, key, qualifying=qualifying)
    certified = found.attested
    if not isinstance(certified, NvCertified):
        raise TrustError(f"attest: got one of kind {found.kind}, want one of TPM2_NV_Certify")
    area = parse_nv_public(counter.public)
    if area.name != certified.name:
        raise TrustError("counter: the TPM vouches for another NV index")
    if not area.is_counter or certified.offset or len(certified.contents) != 8:
        raise TrustError(f"counter: NV index 0x{area.index:08x} is not a counter, or not shown whole")
    return area.index, int.from_bytes(certified.contents, "big")
