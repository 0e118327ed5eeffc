"""A device's certificates, checked up to its maker's own roots: path, time, revocation, purpose and names.

Parsing and signatures are remembered, for each gateway shows the same chain for years. Time and revocation are not:
they are compared on each call. Source: RFC 5280, 4.2 and 6.1, less what our own authority never writes (policies, name
constraints, indirect and delta CRLs: all refused where they are critical).
"""

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from gateway.attest.der import MAX_DER, SEQUENCE, read, read_whole
from gateway.attest.names import read_device_name
from gateway.attest.revocation import check_revocation
from gateway.errors import TrustError

AK_EKU: Final = x509.ObjectIdentifier("2.23.133.8.3")
"""tcg-kp-AIKCertificate: for an attestation key."""
CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH

MAX_CHAIN: Final = 4
_ALGORITHMS: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "300a06082a8648ce3d040302",  # ecdsa-with-SHA256
        "300a06082a8648ce3d040303",  # ecdsa-with-SHA384
        "300a06082a8648ce3d040304",  # ecdsa-with-SHA512
        "300d06092a864886f70d01010b0500",  # sha256WithRSAEncryption
        "300d06092a864886f70d01010c0500",  # sha384WithRSAEncryption
        "300d06092a864886f70d01010d0500",  # sha512WithRSAEncryption
        "300506032b6570",  # Ed25519
    )
)
_VERSION_3: Final = bytes.fromhex("a003020102")
_KNOWN: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_CRL_BEGIN = b"-----BEGIN X509 CRL"
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_MAX_CRLS = 16
_MALFORMED = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)
_Value = TypeVar("_Value", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What is trusted without proof: roots of a device maker; and what they have revoked.

    Without any CRL nothing is revoked. With one, there must be one by each device's issuer, and it must not have
    run out.
    """

    roots: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    @classmethod
    def read(cls, pem_roots: bytes, pem_crls: bytes = b"") -> "Anchors":
        """Return the anchors in these PEM texts. Raises TrustError."""
        try:
            roots = x509.load_pem_x509_certificates(pem_roots)
            crls = [x509.load_pem_x509_crl(text) for text in _PEM_CRL.findall(pem_crls)]
            for root in roots:
                _check_authority(root, below=0)
        except _MALFORMED as e:
            raise TrustError(f"trust anchors: these are no PEM certificates or CRLs: {e}") from e
        if len(crls) != pem_crls.count(_CRL_BEGIN) or (pem_crls.strip() and not crls):
            raise TrustError("trust anchors: the text of CRLs holds none, or one that was cut short")
        if len(crls) > _MAX_CRLS:
            raise TrustError(f"trust anchors: got {len(crls)} CRLs, want at most {_MAX_CRLS}")
        return cls(roots=tuple(roots), crls=tuple(crls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device, by its certificate. fingerprint: SHA-256 of that, in hexadecimal. key: on P-256."""

    serial: str
    model: str
    key: ec.EllipticCurvePublicKey
    fingerprint: str
    not_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """A certificate of a path and its issuer; itself where it is the anchor. Times: Unix seconds."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    first_s: int
    last_s: int


def verify_device_chain(
    chain: Sequence[bytes], anchors: Anchors, *, at_s: int, purpose: x509.ObjectIdentifier | None = AK_EKU
) -> Device:
    """Return the device whose certificate for this purpose comes first in the chain, as of at_s. Raises TrustError.

    chain: DER; each certificate is followed by its issuer's, and the last is an anchor or issued by one.
    A certificate is refused when it was revoked at at_s or before. purpose: the one extended key usage that it has;
    None for an IDevID, which has none.
    """
    links, device = _path(tuple(chain), anchors.roots, purpose)
    for link in links:
        if not link.first_s <= at_s <= link.last_s:
            when = "not yet valid" if at_s < link.first_s else "expired"
            span = f"it holds from {link.first_s} to {link.last_s}"
            raise TrustError(f"certificate {_name(link.certificate)}: {when} at {at_s}: {span}")
    if anchors.crls:
        for link in links:
            if link.certificate is not link.issuer:
                check_revocation(link.certificate, link.issuer, anchors.crls, at_s=at_s, must=link is links[0])
    return device


def named_device(chain: Sequence[bytes], anchors: Anchors) -> Device:
    """Return whom a chain names, as verify_device_chain does, also when a certificate ran out or was revoked.

    For telling whose word something is, and not for trusting it. Raises TrustError.
    """
    return _path(tuple(chain), anchors.roots, AK_EKU)[1]


def forget() -> None:
    """Forget all paths, for who measures what the first one costs."""
    _path.cache_clear()
    _authorities.cache_clear()


@functools.lru_cache(maxsize=16_384)
def _path(
    chain: tuple[bytes, ...], roots: tuple[x509.Certificate, ...], purpose: x509.ObjectIdentifier | None
) -> tuple[tuple[_Link, ...], Device]:
    """Return the path from the chain's first to an anchor, and whom it names: all that no clock and no CRL changes."""
    if not 0 < len(chain) <= MAX_CHAIN:
        raise TrustError(f"chain: got {len(chain)} certificates, want 1 to {MAX_CHAIN}")
    try:
        certificate = _load(chain[0])
        if certificate in roots:
            raise TrustError("chain: an anchor is no device")
        above = _authorities(chain[1:], roots) if len(chain) > 1 else (_anchor_of(certificate, roots, below=0),)
        issuer = above[0].certificate
        if len(chain) > 1:
            _check_issued(certificate, issuer)
        for link in above:
            _check_purposes(link.certificate, purpose or AK_EKU)
        return (_link(certificate, issuer), *above), _device(certificate, purpose)
    except _MALFORMED as e:
        raise TrustError(f"chain: a certificate is malformed: {e}") from e


@functools.lru_cache(maxsize=64)
def _authorities(chain: tuple[bytes, ...], roots: tuple[x509.Certificate, ...]) -> tuple[_Link, ...]:
    """Return the part of a path that many devices share: from who issued theirs to an anchor."""
    certificates = [_load(der) for der in chain]
    for below, certificate in enumerate(certificates):
        _check_authority(certificate, below=below)
    for certificate, issuer in itertools.pairwise(certificates):
        _check_issued(certificate, issuer)
    last = certificates[-1]
    anchor = _link(last, last) if last in roots else _anchor_of(last, roots, below=len(certificates))
    links = [_link(certificate, issuer) for certificate, issuer in itertools.pairwise(certificates)]
    return (*links, anchor) if last in roots else (*links, _link(last, anchor.certificate), anchor)


def _load(der: bytes) -> x509.Certificate:
    """Parse a certificate, if it is of the strict form that our own authority writes."""
    if len(der) > MAX_DER:
        raise TrustError(f"chain: got a certificate of {len(der)} bytes, want at most {MAX_DER}")
    signed, rest = read(read_whole(der, SEQUENCE).content)
    algorithm, _ = read(rest)
    version, rest = read(signed.content)
    serial, rest = read(rest)
    inner, _ = read(rest)
    if version.raw != _VERSION_3:
        raise TrustError("chain: this is no X.509 certificate of version 3")
    if algorithm.raw not in _ALGORITHMS or inner.raw != algorithm.raw:
        raise TrustError("chain: a certificate is signed in a way that is not accepted")
    if not serial.content or serial.content[0] & 0x80:
        raise TrustError("chain: a certificate's serial number is not positive")
    return x509.load_der_x509_certificate(der)


def _anchor_of(certificate: x509.Certificate, roots: Sequence[x509.Certificate], *, below: int) -> _Link:
    """Return the anchor whose key signed it; several may have one name, as when a root was renewed."""
    for root in roots:
        try:
            certificate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        _check_authority(root, below=below)
        return _link(root, root)
    raise TrustError(f"chain: no trust anchor of ours issued {_name(certificate)}")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as e:
        raise TrustError(f"chain: {_name(issuer)} did not issue {_name(certificate)}") from e


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    """Refuse a certificate that must not issue others, or not with this many authorities below it."""
    _check_critical(certificate)
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
        raise TrustError(f"certificate {_name(certificate)}: it is not an authority's")
    most = constraints.path_length
    if most is not None and below > most:
        raise TrustError(f"certificate {_name(certificate)}: it allows {most} authorities below it, got {below}")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise TrustError(f"certificate {_name(certificate)}: its key is too short")


def _check_purposes(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    """Refuse an authority that is kept to other purposes, as one that signs TLS certificates day by day is."""
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and purpose not in purposes:
        raise TrustError(f"certificate {_name(certificate)}: it must not issue for {purpose.dotted_string}")


def _device(certificate: x509.Certificate, purpose: x509.ObjectIdentifier | None) -> Device:
    key = certificate.public_key()
    _check_critical(certificate)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(f"certificate {_name(certificate)}: want a key on P-256")
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or usage is None or usage.key_cert_sign:
        raise TrustError(f"certificate {_name(certificate)}: it is an authority's, or does not say what for")
    if not usage.digital_signature:
        raise TrustError(f"certificate {_name(certificate)}: its key is not for signatures")
    purposes = [*(_extension(certificate, x509.ExtendedKeyUsage) or ())]
    if purposes != ([purpose] if purpose else []):
        said = ", ".join(one.dotted_string for one in purposes) or "nothing that it says"
        want = purpose.dotted_string if purpose else "no such word"
        raise TrustError(f"certificate {_name(certificate)}: it is for {said}, want {want}")
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    if alternative is None:
        raise TrustError(f"certificate {_name(certificate)}: it has no hardwareModuleName")
    serial, model = read_device_name(certificate, alternative)
    return Device(
        serial=serial,
        model=model,
        key=key,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
    )


def _link(certificate: x509.Certificate, issuer: x509.Certificate) -> _Link:
    return _Link(
        certificate=certificate,
        issuer=issuer,
        first_s=int(certificate.not_valid_before_utc.timestamp()),
        last_s=int(certificate.not_valid_after_utc.timestamp()),
    )


def _check_critical(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN:
            oid = extension.oid.dotted_string
            raise TrustError(f"certificate {_name(certificate)}: extension {oid} is critical, and not known here")


def _extension(certificate: x509.Certificate, kind: type[_Value]) -> _Value | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:120]
