"""Whether a certificate was revoked at a time: by a CRL of its own issuer, signed and not run out.

Source: RFC 5280, 5 and 6.3. Delta and indirect CRLs are refused. A revoked certificate is refused from the revocation
date on, or from its invalidity date, where the entry says that the key was out of control earlier.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.errors import TrustError

_HASHES = {"sha256", "sha384", "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revoked:
    """A CRL whose signature holds. dates: by the certificate's serial number, Unix seconds."""

    this_update_s: int
    next_update_s: int
    dates: Mapping[int, int]


def check_revocation(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    *,
    at_s: int,
    must: bool,
) -> None:
    """Refuse a certificate that its issuer had revoked by at_s. Raises TrustError.

    must: whether a CRL by this issuer must be there. Of several by one issuer the newest counts.
    """
    found = [_read(_Held(crl), issuer) for crl in crls]
    own = [one for one in found if one is not None]
    if not own:
        if must:
            raise TrustError(f"revocation: there are CRLs, but none by {_name(issuer)}")
        return
    newest = max(own, key=lambda one: one.this_update_s)
    if at_s > newest.next_update_s:
        end = f"ran out at {newest.next_update_s}, before {at_s}"
        raise TrustError(f"revocation: the CRL by {_name(issuer)} {end}: fetch a newer one")
    since = newest.dates.get(certificate.serial_number)
    if since is not None and since <= at_s:
        raise TrustError(f"certificate {_name(certificate)}: revoked since {since}")


class _Held:
    """A CRL as the key of a cache, by identity: it has no hash of its own, and may be of megabytes."""

    __slots__ = ("crl",)

    def __init__(self, crl: x509.CertificateRevocationList) -> None:
        self.crl = crl

    def __hash__(self) -> int:
        return id(self.crl)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.crl is self.crl


@functools.lru_cache(maxsize=64)
def _read(held: _Held, issuer: x509.Certificate) -> _Revoked | None:
    """Return what a CRL says, once this issuer's signature over it holds; None: another's. Raises TrustError."""
    crl, name = held.crl, _name(issuer)
    try:
        if crl.issuer != issuer.subject:
            return None
        key, algorithm = issuer.public_key(), crl.signature_hash_algorithm
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            raise TrustError(f"revocation: {name} must not sign CRLs")
        if not isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)) or (
            algorithm is not None and algorithm.name not in _HASHES
        ):
            raise TrustError(f"revocation: the CRL by {name} is signed in a way that is not accepted")
        if not crl.is_signature_valid(key):
            raise TrustError(f"revocation: the CRL that says it is by {name} is not signed by it")
        if any(extension.critical for extension in crl.extensions) or crl.next_update_utc is None:
            raise TrustError(f"revocation: the CRL by {name} is partial, or says no end")
        return _Revoked(
            this_update_s=int(crl.last_update_utc.timestamp()),
            next_update_s=int(crl.next_update_utc.timestamp()),
            dates={entry.serial_number: _since(entry) for entry in crl},
        )
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm) as e:
        raise TrustError(f"revocation: the CRL by {name} is malformed: {e}") from e


def _since(entry: x509.RevokedCertificate) -> int:
    dates = [entry.revocation_date_utc]
    for extension in entry.extensions:
        if isinstance(extension.value, x509.InvalidityDate):
            dates.append(extension.value.invalidity_date_utc)
        elif extension.critical:
            raise ValueError(f"an entry has the critical extension {extension.oid.dotted_string}")
    return int(min(dates).timestamp())


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:120]
