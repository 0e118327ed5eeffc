"""A TPM's endorsement key certificate, checked up to its maker's root; lenient where real ones need it, and says so.

Real certificates break X.509 in known ways: padding behind them in the TPM's memory, serial numbers that are negative
or too long, RSA keys said to be for OAEP alone, critical extensions of the maker's own. These are accepted and named as
remarks. Signatures, times, and who may issue are never taken lightly; makers' revocation lists are not consulted.

Source: TCG, EK Credential Profile for TPM Family 2.0, version 2.5, 3; RFC 5280.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from gateway.attest.lenient import Certificate, read_certificate
from gateway.attest.structures import Public, PublicKey, parse_public
from gateway.errors import TrustError

EK_EKU: Final = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""

MAX_AUTHORITIES: Final = 64
_MAX_DEPTH = 5
_KEY_USAGE, _CONSTRAINTS, _EKU, _NAMES = "2.5.29.15", "2.5.29.19", "2.5.29.37", "2.5.29.17"
_HARMLESS = {_KEY_USAGE, _CONSTRAINTS, _EKU, _NAMES, "2.5.29.32", "2.5.29.14", "2.5.29.35", "2.5.29.31", "2.5.29.9"}
_ECDSA: Final = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}
_RSA: Final = {
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_PSS: Final = "1.2.840.113549.1.1.10"
_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ek:
    """A TPM that its maker vouches for. maker, model, version: as the certificate has them, "" where it says none.

    maker: the four letters of TCG's vendor registry where they are letters, such as IFX. serial: of the certificate,
    hexadecimal. remarks: what in the certificates is not as it should be, and was accepted.
    """

    key: PublicKey
    maker: str
    model: str
    version: str
    serial: str
    certificate: bytes
    remarks: tuple[str, ...]


def verify_ek_chain(ek: bytes, intermediates: Sequence[bytes], roots: Sequence[bytes], *, at_s: int) -> Ek:
    """Return the TPM whose endorsement key certificate this is, as of at_s (Unix seconds). Raises TrustError.

    ek: as it stands in the TPM's memory, padding and all. intermediates, roots: DER; of the roots one must have issued
    the path, and is trusted as it stands.
    """
    if len(intermediates) + len(roots) > MAX_AUTHORITIES:
        raise TrustError(f"EK certificate: got more than {MAX_AUTHORITIES} authorities")
    found = read_certificate(ek)
    remarks = [f"EK certificate: {remark}" for remark in found.remarks]
    _check_end(found, remarks)
    trusted = [read_certificate(root) for root in roots]
    known = [read_certificate(one) for one in intermediates]
    current, below = found, 0
    _check_time(current, at_s)
    while True:
        issuer = _issuer_of(current, trusted) or _issuer_of(current, known)
        if issuer is None:
            raise TrustError(f"EK certificate: no root or issuing authority at hand issued {current.subject_text!r}")
        remarks += _check_issuer(issuer, below=below, pinned=issuer in trusted)
        _check_time(issuer, at_s)
        if issuer in trusted:
            break
        current, below = issuer, below + 1
        if below >= _MAX_DEPTH:
            raise TrustError("EK certificate: its path is too long")
    maker, model, version = found.tpm
    if not maker:
        remarks.append("EK certificate: it does not name the TPM's maker")
    return Ek(
        key=found.key,
        maker=maker,
        model=model,
        version=version,
        serial=found.serial.hex(),
        certificate=found.raw,
        remarks=tuple(remarks),
    )


def roots_of(authorities: Iterable[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return (roots, those between) of makers' certificates in DER: a root's issuer is itself. Raises TrustError."""
    roots: list[bytes] = []
    between: list[bytes] = []
    for one in authorities:
        found = read_certificate(one)
        (roots if found.subject == found.issuer else between).append(one)
    return tuple(roots), tuple(between)


def check_ek_public(ek: Ek, public: bytes) -> Public:
    """Return a TPM's endorsement key, if it is the certificate's and of a kind that can only decrypt. TrustError.

    public: TPMT_PUBLIC.
    """
    area = parse_public(public)
    if area.key != ek.key:
        raise TrustError("EK: the TPM's key is not the one in its certificate")
    if not area.is_restricted_decrypt:
        raise TrustError("EK: the key is not of an endorsement key's kind")
    return area


def _check_end(found: Certificate, remarks: list[str]) -> None:
    """Refuse a certificate that is no endorsement key's."""
    if isinstance(found.key, rsa.RSAPublicKey) and found.key.key_size < 2048:
        raise TrustError("EK certificate: its key is too short")
    if found.is_authority:
        raise TrustError("EK certificate: it is an authority's")
    if found.purposes is not None and EK_EKU.dotted_string not in found.purposes:
        raise TrustError(f"EK certificate: it is for {', '.join(found.purposes) or 'nothing'}, not for an EK")
    if found.purposes is None:
        remarks.append("EK certificate: it has no extended key usage")
    if found.usage is None:
        remarks.append("EK certificate: it has no key usage")
    elif not found.may("keyEncipherment" if isinstance(found.key, rsa.RSAPublicKey) else "keyAgreement"):
        remarks.append("EK certificate: its key usage is not an endorsement key's")
    remarks += [f"EK certificate: extension {oid} is critical" for oid in found.critical if oid not in _HARMLESS]


def _check_issuer(issuer: Certificate, *, below: int, pinned: bool) -> list[str]:
    """Return the remarks on an authority. Raises TrustError where it must not issue."""
    name = issuer.subject_text
    if isinstance(issuer.key, rsa.RSAPublicKey) and issuer.key.key_size < 2048:
        raise TrustError(f"EK authority {name!r}: its key is too short")
    if not issuer.is_authority and not (pinned and issuer.version == 1):
        raise TrustError(f"EK authority {name!r}: it is not an authority's certificate")
    if issuer.usage is not None and not issuer.may("keyCertSign"):
        raise TrustError(f"EK authority {name!r}: it must not sign certificates")
    if issuer.path_length is not None and below > issuer.path_length:
        raise TrustError(f"EK authority {name!r}: it allows {issuer.path_length} authorities below it, got {below}")
    unknown = [oid for oid in issuer.critical if oid not in _HARMLESS]
    if unknown:
        raise TrustError(f"EK authority {name!r}: extension {unknown[0]} is critical, and not known here")
    return [f"EK authority {name!r}: {remark}" for remark in issuer.remarks]


def _check_time(certificate: Certificate, at_s: int) -> None:
    if not certificate.first_s <= at_s <= certificate.last_s:
        when = "not yet valid" if at_s < certificate.first_s else "expired"
        raise TrustError(f"EK certificate {certificate.subject_text!r}: {when} at {at_s}")


def _issuer_of(certificate: Certificate, authorities: Sequence[Certificate]) -> Certificate | None:
    """Return the authority of that name whose key signed it."""
    for authority in authorities:
        if authority.subject == certificate.issuer and authority.raw != certificate.raw:
            try:
                _verify(certificate, authority.key)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError):
                continue
            return authority
    return None


def _verify(certificate: Certificate, key: PublicKey) -> None:
    """Raise InvalidSignature, or ValueError for an algorithm that is not accepted."""
    algorithm, signature, signed = certificate.algorithm, certificate.signature, certificate.signed
    if isinstance(key, ec.EllipticCurvePublicKey):
        if algorithm not in _ECDSA:
            raise ValueError(algorithm)
        key.verify(signature, signed, ec.ECDSA(_ECDSA[algorithm]))
    elif algorithm == _PSS:
        digest = _HASHES.get(certificate.pss_hash)
        if digest is None:
            raise ValueError(algorithm)
        key.verify(signature, signed, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
    elif algorithm in _RSA:
        key.verify(signature, signed, padding.PKCS1v15(), _RSA[algorithm])
    else:
        raise ValueError(algorithm)
