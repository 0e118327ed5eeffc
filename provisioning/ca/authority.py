"""An authority: a key that signs, its certificate, and the book of what it signed."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.attest.names import HW_TYPE, check_hw_type
from gateway.errors import ConfigError, TrustError
from provisioning.ca import keyfile
from provisioning.ca.book import WAIT_S, Book, Issued
from provisioning.ca.profiles import (
    BACKDATED,
    FOREVER,
    Kind,
    Role,
    authority_builder,
    client_builder,
    device_builder,
    server_builder,
)
from provisioning.ca.requests import read_public_key, read_request
from provisioning.ca.token import open_key
from provisioning.ca.unlock import Unlock
from provisioning.turn import turn

REASONS = tuple(reason.value for reason in x509.ReasonFlags if reason is not x509.ReasonFlags.remove_from_crl)
SUBJECTS = (Kind.AK, Kind.IDEVID, Kind.LDEVID, Kind.ENROL)
CRL_DAYS = 7
ROOT_CRL_DAYS = 366
ISSUING_YEARS = 10
_KEPT = timedelta(days=31)
"""So long a certificate stays on the list after its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an authority's folder says of it. key: `ca.key`, or a PKCS#11 URI. hw_type: of the devices, 802.1AR's."""

    name: str
    role: Role
    key: str
    hw_type: str = HW_TYPE

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return it. Raises ConfigError."""
        path = folder / "authority.json"
        try:
            said = json.loads(path.read_text("utf-8"))
            hw_type = check_hw_type(said.get("hw_type", HW_TYPE))
            return cls(name=str(said["name"]), role=Role(said["role"]), key=str(said["key"]), hw_type=hw_type)
        except (TrustError, OSError, ValueError, KeyError, TypeError) as e:
            raise ConfigError(f"{path}: {e}, want an authority's folder: provision ca init") from e

    def text(self) -> str:
        """Return the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def load_key(folder: Path, about: About, unlock: Unlock) -> ec.EllipticCurvePrivateKey:
    """Return an authority's key. Raises ConfigError: a wrong password, a key that others may read, no token."""
    if about.key.startswith("pkcs11:"):
        return open_key(about.key, unlock)
    path = folder / "ca.key"
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: got a key that others may read, want mode 0600")
        return keyfile.decrypt(path.read_bytes(), unlock, str(path))
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want the authority's key") from e


def load_chain(folder: Path) -> list[x509.Certificate]:
    """Return an authority's certificate and those above it. Raises ConfigError."""
    path = folder / "chain.pem"
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: {e}, want the authority's certificate: provision ca accept") from e


def write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file whole, durably; with this mode, whatever the umask: a broker reads lists. Raises ConfigError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as e:
        raise ConfigError(f"{path}: cannot write: {e}") from e


class Authority:
    """Signs, and writes down first what it signed. One key in one folder; `open` it."""

    def __init__(
        self,
        folder: Path,
        about: About,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self.folder, self.about = folder, about
        self.certificate = chain[0]
        self.chain = tuple(one.public_bytes(serialization.Encoding.DER) for one in chain)
        self._key, self._now = key, now
        self._book = Book.make(folder / "issued.sqlite")

    @classmethod
    def open(cls, folder: Path, *, unlock: Unlock, now: Callable[[], datetime] | None = None) -> Self:
        """Return the authority in a folder. Raises ConfigError: no authority, a wrong password or PIN."""
        about = About.read(folder)
        chain = load_chain(folder)
        key = load_key(folder, about, unlock)
        if key.public_key() != chain[0].public_key():
            raise ConfigError(f"{folder}: the key and the certificate of {about.name!r} are not a pair")
        return cls(folder, about, key, chain, now=now or (lambda: datetime.now(UTC)))

    # ---- issuing

    def issue_ak(self, public_key: ec.EllipticCurvePublicKey | bytes, *, serial: str, model: str) -> bytes:
        """Return the certificate (DER) of a device's attestation key, whose TPM has shown that it holds it.

        public_key: also as SubjectPublicKeyInfo in DER. Raises ConfigError, TrustError.
        """
        return self._device(Kind.AK, read_public_key(public_key), serial, model)

    def issue_idevid(self, csr: bytes, *, serial: str, model: str) -> bytes:
        """Return the IDevID (DER) for the key of a request. Raises ConfigError, TrustError."""
        return self._device(Kind.IDEVID, read_request(csr), serial, model)

    def _device(self, kind: Kind, key: ec.EllipticCurvePublicKey, serial: str, model: str) -> bytes:
        self._want(Role.DEVICES)
        hw_type, start = self.about.hw_type, self._start()
        builder = device_builder(kind, key, self.certificate, serial=serial, model=model, hw_type=hw_type, start=start)
        return self._sign(kind, serial, builder)

    def issue_ldevid(self, csr: bytes, *, gateway: str, hours: float, enrol: bool = False) -> bytes:
        """Return a gateway's client certificate (DER); with enrol, one for `enrol_<gateway>` that asks for such."""
        self._want(Role.OPERATION)
        kind = Kind.ENROL if enrol else Kind.LDEVID
        key = read_request(csr)
        start = self._start()
        builder = client_builder(kind, key, self.certificate, gateway=gateway, start=start, hours=hours)
        return self._sign(kind, gateway, builder)

    def issue_server(self, csr: bytes, *, hosts: Sequence[str], days: int) -> bytes:
        """Return the broker's certificate (DER)."""
        self._want(Role.OPERATION)
        key = read_request(csr)
        builder = server_builder(key, self.certificate, hosts=hosts, start=self._start(), days=days)
        return self._sign(Kind.SERVER, hosts[0], builder)

    def issue_authority(self, csr: bytes, *, name: str, role: Role, years: int = ISSUING_YEARS) -> bytes:
        """Return the certificate (DER) of an issuing authority. For devices without an end, as theirs are."""
        self._want(Role.ROOT)
        if role is Role.ROOT:
            raise ConfigError("role: got root, want devices or operation")
        key = read_request(csr, curves=("secp256r1", "secp384r1"))
        start = self._start()
        end = FOREVER if role is Role.DEVICES else start + BACKDATED + timedelta(days=366 * years)
        issuer = self.certificate.subject
        builder = authority_builder(name=name, role=role, key=key, start=start, end=end, issuer=issuer)
        return self._sign(Kind.AUTHORITY, f"{name} {role}", builder)

    def _sign(self, kind: Kind, subject: str, builder: x509.CertificateBuilder) -> bytes:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = builder.add_extension(issuer, critical=False).sign(self._key, digest_of(self._key))
        der = made.public_bytes(serialization.Encoding.DER)
        self._book.add(
            Issued(
                number=f"{made.serial_number:040x}",
                kind=kind,
                subject=subject,
                sha256=hashlib.sha256(der).hexdigest(),
                start_s=int(made.not_valid_before_utc.timestamp()),
                end_s=int(made.not_valid_after_utc.timestamp()),
                der=der,
            )
        )
        return der

    def _want(self, role: Role) -> None:
        if self.about.role is not role:
            raise ConfigError(f"{self.folder}: got the authority for {self.about.role}, want the one for {role}")
        if not self.certificate.not_valid_before_utc <= self._now() <= self.certificate.not_valid_after_utc:
            raise TrustError(f"{self.folder}: the authority's own certificate is not valid now")

    def _start(self) -> datetime:
        return self._now().replace(microsecond=0) - BACKDATED

    # ---- revoking

    def issued(self, *, subject: str | None = None) -> list[Issued]:
        """Return what it signed; of one device, gateway or host. Oldest first."""
        return self._book.find(subject=subject)

    def revoke(self, certificate_serial: int | str, reason: str) -> None:
        """Revoke the certificate of this number (hexadecimal as a text). Raises ConfigError: no such, no such reason.

        Peers learn it from the next `crl`.
        """
        number = f"{certificate_serial:040x}" if isinstance(certificate_serial, int) else _number(certificate_serial)
        if not self._book.find(number=number):
            raise ConfigError(f"certificate: got {number}, want one that {self.about.name!r} signed")
        self._revoke([number], reason)

    def revoke_subject(self, subject: str, reason: str, *, kinds: Sequence[Kind] = SUBJECTS) -> list[Issued]:
        """Revoke all certificates of a device's serial or a gateway; return those that were not yet. Idempotent."""
        found = [one for one in self._book.find(subject=subject) if one.revoked_s is None and one.kind in kinds]
        self._revoke([one.number for one in found], reason)
        return found

    def _revoke(self, numbers: Sequence[str], reason: str) -> None:
        if reason not in REASONS:
            raise ConfigError(f"reason: got {reason[:40]!r}, want one of {', '.join(REASONS)}")
        self._book.revoke(numbers, at_s=int(self._now().timestamp()), reason=reason)

    def crl(self, *, days: int | None = None) -> bytes:
        """Return a new list of what is revoked (PEM), also left in the folder as crl.pem. Raises ConfigError.

        days: how long it lasts; a peer without a newer one then refuses everybody.
        """
        days = days or (ROOT_CRL_DAYS if self.about.role is Role.ROOT else CRL_DAYS)
        if not 1 <= days <= 3660:
            raise ConfigError(f"days: got {days}, want 1..3660")
        with turn(
            self.folder / "crl.turn", wait_s=WAIT_S, error=ConfigError
        ):  # or of two that are made at once, the older one might be written last
            number, made_s, next_s = self._book.next_crl(now_s=int(self._start().timestamp()), lasts_s=days * 86_400)
            pem = self._list(number, made_s, next_s)
            write(self.folder / "crl.pem", pem)
        return pem

    def _list(self, number: int, made_s: int, next_s: int) -> bytes:
        key = self._key.public_key()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(datetime.fromtimestamp(made_s, UTC))
            .next_update(datetime.fromtimestamp(next_s, UTC))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key), critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        gone_s = int((self._now() - _KEPT).timestamp())
        for one in self._book.find():
            if one.revoked_s is not None and one.end_s > gone_s:
                builder = builder.add_revoked_certificate(_entry(one))
        return builder.sign(self._key, digest_of(self._key)).public_bytes(serialization.Encoding.PEM)

    def newest_crl(self) -> tuple[int, int, int] | None:
        """Return the number of the newest list, its date and its end in Unix seconds; None without one."""
        return self._book.newest_crl()


def digest_of(key: ec.EllipticCurvePrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the digest to sign with: SHA-384 on P-384, else SHA-256."""
    return hashes.SHA384() if key.key_size == 384 else hashes.SHA256()


def _number(text: str) -> str:
    try:
        return f"{int(text.replace(':', ''), 16):040x}"
    except ValueError as e:
        raise ConfigError(f"certificate: got {text[:60]!r}, want a serial number in hexadecimal") from e


def _entry(issued: Issued) -> x509.RevokedCertificate:
    date = datetime.fromtimestamp(issued.revoked_s or 0, UTC)
    builder = x509.RevokedCertificateBuilder().serial_number(int(issued.number, 16)).revocation_date(date)
    if issued.reason != x509.ReasonFlags.unspecified.value:  # RFC 5280, 5.3.1: rather leave it out
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(issued.reason)), critical=False)
    return builder.build()
