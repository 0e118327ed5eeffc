"""What an OPC UA application certificate says, and the making of our own.

Thumbprints are SHA-1 in hexadecimal, since that is what OPC UA's own tools show; trust never rests on one, but on
the whole certificate.
"""

import hashlib
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import ConfigError

DAYS = 5 * 365
"""How long a certificate of our own lives: a plant renews it by hand."""
_KEY_BITS = 3072
_BACKDATED = timedelta(hours=1)  # a server's clock may be behind ours
_HOST = re.compile(r"(?!-)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*\Z")
_UNPRINTABLE = re.compile(r"[^ -~]")
_UNUSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An application certificate as a person and a check need it.

    der: its own bytes, without the rest of a chain. uris: the ApplicationUri, exactly one in a sound certificate.
    signed_with: its signature's hash. key_bits: of an RSA key; 0 for another kind.
    may_serve: whether its key usages allow what an OPC UA server does with it.
    """

    der: bytes
    thumbprint: str
    subject: str
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    start: datetime
    end: datetime
    key_bits: int
    signed_with: str
    may_serve: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnIdentity:
    """Who we are to servers. uri: our ApplicationUri; cert: DER or PEM; key: PEM."""

    uri: str
    cert: Path
    key: Path


def thumbprint_of(der: bytes) -> str:
    """Return a certificate's thumbprint in OPC UA's sense: SHA-1, lower-case hexadecimal."""
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()


def parse(content: bytes) -> Certificate:
    """Return what a certificate says: DER, the first of a DER chain, or PEM. Raises ValueError."""
    try:
        if content.lstrip().startswith(b"-----"):
            return _said(x509.load_pem_x509_certificate(content))
        return _said(x509.load_der_x509_certificate(_first(content)))
    except _UNUSABLE as e:
        raise ValueError(_printed(str(e)) or type(e).__name__) from e


def _said(found: x509.Certificate) -> Certificate:
    """Return what a certificate says. Raises one of _UNUSABLE."""
    extensions = found.extensions
    names = _extension(extensions, x509.SubjectAlternativeName)
    alternatives = names if names is not None else x509.SubjectAlternativeName([])
    der = found.public_bytes(serialization.Encoding.DER)
    key = found.public_key()
    dns = alternatives.get_values_for_type(x509.DNSName)
    signed_with = found.signature_hash_algorithm
    return Certificate(
        der=der,
        thumbprint=thumbprint_of(der),
        subject=_printed(found.subject.rfc4514_string()),
        uris=tuple(map(_printed, alternatives.get_values_for_type(x509.UniformResourceIdentifier))),
        hosts=tuple(map(_printed, (*dns, *map(str, alternatives.get_values_for_type(x509.IPAddress))))),
        start=found.not_valid_before_utc,
        end=found.not_valid_after_utc,
        key_bits=key.key_size if isinstance(key, rsa.RSAPublicKey) else 0,
        signed_with=signed_with.name if signed_with is not None else "",
        may_serve=_may_serve(extensions),
    )


def read(path: Path) -> Certificate:
    """Return the certificate in a file. Raises ConfigError."""
    try:
        return parse(path.read_bytes())
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable certificate") from e
    except ValueError as e:
        raise ConfigError(f"{path}: got no certificate ({e}), want one as DER or PEM") from e


def own_identity(cert: Path, key: Path) -> OwnIdentity:
    """Return who we are. Raises ConfigError when there is no certificate and key that belong together."""
    mend = "make one with `wattseal opcua own gateway.toml`"
    if not cert.exists() or not key.exists():
        missing = key if cert.exists() else cert
        raise ConfigError(f"opcua: got no file {missing}, want our application certificate and its key: {mend}")
    own = read(cert)
    if len(own.uris) != 1:
        raise ConfigError(f"{cert}: got {len(own.uris)} URIs in its subject's alternative names, want one: {mend}")
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as e:
        raise ConfigError(f"{key}: {e.strerror}, want a readable key") from e
    except (ValueError, TypeError) as e:
        raise ConfigError(f"{key}: got no usable key, want RSA as PEM without a password: {mend}") from e
    public = x509.load_der_x509_certificate(own.der).public_key()
    if not isinstance(private, rsa.RSAPrivateKey) or private.public_key() != public:
        raise ConfigError(f"{key}: got a key that is not that of {cert}, want the one it was made with: {mend} --force")
    return OwnIdentity(uri=own.uris[0], cert=cert, key=key)


def make_own(
    cert: Path,
    key: Path,
    *,
    gateway: str,
    hosts: Sequence[str],
    days: int = DAYS,
    now: datetime | None = None,
    force: bool = False,
) -> Certificate:
    """Write a self-signed application certificate and its key, readable by its owner alone; return the certificate.

    hosts: our names and addresses; the first stands in the URI, urn:<host>:wattseal:<gateway>. A cert named *.pem is
    written as PEM, any other as DER. Raises ConfigError for a bad host, and where a file stands already, unless force.
    Source: OPC 10000-6 (1.05), 6.2.2: the key usages and names of an application instance certificate.
    """
    standing = [path for path in (cert, key) if path.exists() or path.is_symlink()]
    if standing and not force:
        raise ConfigError(f"{standing[0]}: stands there already; servers trust it, so think before you use --force")
    if not hosts:
        raise ConfigError("hosts: got none, want at least one name or address of this machine")
    private = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    start = (now or datetime.now(UTC)) - _BACKDATED
    made = _self_signed(private, gateway=gateway, hosts=hosts, start=start, end=start + _BACKDATED + timedelta(days))
    encoding = serialization.Encoding.PEM if cert.suffix == ".pem" else serialization.Encoding.DER
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(key, pem, mode=0o600)
    write(cert, made.public_bytes(encoding))
    return parse(made.public_bytes(serialization.Encoding.DER))


def write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all; a folder that it needs is its owner's alone. Raises ConfigError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot write: {e.strerror}") from e


def _self_signed(
    private: rsa.RSAPrivateKey, *, gateway: str, hosts: Sequence[str], start: datetime, end: datetime
) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"wattseal {gateway}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wattseal"),
        ]
    )
    uri = x509.UniformResourceIdentifier(f"urn:{hosts[0].replace(':', '-')}:wattseal:{gateway}")
    public = private.public_key()
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_cert_sign=True,  # the standard wants it of a certificate that signs itself
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri, *map(_host, hosts)]), critical=False)
        .sign(private, hashes.SHA256())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.match(host) or len(host) > 253:
        raise ConfigError(f"hosts: got {host!r}, want an IP address or a host name")
    return x509.DNSName(host)


def _first(der: bytes) -> bytes:
    """Return the first certificate of a chain: a server sends its issuers' after its own."""
    if len(der) < 4 or der[1] != 0x82:  # a sequence of 256 to 65,535 bytes, as every certificate with an RSA key is
        return der
    return der[: 4 + int.from_bytes(der[2:4], "big")]


def _extension(extensions: x509.Extensions, kind: type[_T]) -> _T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _may_serve(extensions: x509.Extensions) -> bool:
    """Return whether the key may sign and decrypt for a server, as far as the certificate limits it at all."""
    usage = _extension(extensions, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature and (usage.key_encipherment or usage.data_encipherment)):
        return False
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    serving = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return purposes is None or bool(serving & set(purposes))


def _printed(text: str) -> str:
    """Return text of a stranger as one line that a terminal shows and does not obey."""
    return _UNPRINTABLE.sub("?", text)[:200]
