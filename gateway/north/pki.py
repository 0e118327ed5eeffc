"""The one home of X.509: a certificate authority for development, and each party's certificate.

Real plants bring their own authority; what these certificates look like is then the example. P-256,
short-lived, one purpose each: the broker's may only serve, a client's may only connect. The
broker takes a client's common name as its user name, so a name is a topic level and an ACL entry.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.codec.agents import AGENT, KEY_BYTES
from gateway.errors import ConfigError
from gateway.tlog.note import Signer

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
"""What a gateway or a ledger may be called: no wildcard, no level separator, no path."""

DAYS = 90
_BACKDATED = timedelta(minutes=5)  # a peer's clock may be a little behind ours
_RESERVED = ("ca", "broker")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    """Who signs, and for which span of time."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    start: datetime
    end: datetime


def make_dev_ca(
    folder: Path,
    *,
    gateways: Sequence[str],
    ledger: str,
    hosts: Sequence[str],
    verifier: str = "",
    days: int = DAYS,
    now: datetime | None = None,
    force: bool = False,
) -> list[Path]:
    """Write an authority, all certificates and all signing keys; return the files.

    hosts: the names and addresses by which clients reach the broker. verifier: the attestation service, "" for none.
    Raises ConfigError for a bad name, and where a file stands already, unless force.
    """
    services = (ledger, verifier) if verifier else (ledger,)
    _check_names((*gateways, *services[1:]), ledger)
    start = (now or datetime.now(UTC)) - _BACKDATED
    end = start + _BACKDATED + timedelta(days=days)
    authority = _make_authority(start, end)
    files = _common(authority, hosts, (*gateways, *services))
    for name in gateways:
        signer = Signer.generate(f"wattseal/{name}")
        files |= {f"{name}.epoch.key": _line(signer.to_text()), f"{name}.vkey": _line(signer.verifier.vkey)}
    signer = Signer.generate(f"wattseal-ledger/{ledger}")
    files |= {
        f"{ledger}.sign.key": _line(signer.to_text()),
        f"{ledger}.vkey": _line(signer.cosigner().verifier.vkey),
        f"{ledger}.note.vkey": _line(signer.verifier.vkey),
    }
    if verifier:
        signer = Signer.generate(f"wattseal-verifier/{verifier}")
        files |= {f"{verifier}.sign.key": _line(signer.to_text()), f"{verifier}.vkey": _line(signer.verifier.vkey)}
    return _write(folder, files, force=force)


def make_agents_ca(
    folder: Path,
    *,
    agents: Sequence[str],
    collect: str,
    hosts: Sequence[str],
    days: int = DAYS,
    now: datetime | None = None,
    force: bool = False,
) -> list[Path]:
    """Write an authority for the OT zone with certificates for agents, collect and broker; return the files.

    The keys of the agents' frames go to the folder `keys`, which is the seal's alone in a plant.
    Raises ConfigError for a bad name, and where a file stands already, unless force.
    """
    _check_names(agents, collect)
    if too_long := [agent for agent in agents if not AGENT.match(agent.encode())]:
        raise ConfigError(f"names: got {too_long[0]!r}, want an agent's id of at most 32 characters")
    start = (now or datetime.now(UTC)) - _BACKDATED
    authority = _make_authority(start, start + _BACKDATED + timedelta(days=days))
    files = _common(authority, hosts, (*agents, collect))
    keys = {f"{agent}.key": _line(secrets.token_hex(KEY_BYTES)) for agent in agents}
    return _write(folder, files, force=force) + _write(folder / "keys", keys, force=force)


def _common(authority: _Authority, hosts: Sequence[str], clients: Sequence[str]) -> dict[str, bytes]:
    """Return what every authority has: itself, its list of the revoked, the broker's certificate and the clients'."""
    files = {
        "ca.pem": _pem(authority.certificate),
        "ca.key": _key_pem(authority.key),
        "crl.pem": _make_crl(authority, ()),
    }
    serving = x509.SubjectAlternativeName([_host(host) for host in hosts])
    files |= _issue(authority, "broker", serving, ExtendedKeyUsageOID.SERVER_AUTH)
    for name in clients:
        own = x509.SubjectAlternativeName([x509.DNSName(name)])
        files |= _issue(authority, name, own, ExtendedKeyUsageOID.CLIENT_AUTH)
    return files


def revoke(folder: Path, names: Sequence[str], *, now: datetime | None = None) -> Path:
    """Write crl.pem anew so that it names these parties' certificates; return its path.

    The broker reads it at its next start. Raises ConfigError where the authority or a certificate is missing.
    """
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        issued = [x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()) for name in names]
    except (OSError, ValueError) as e:
        raise ConfigError(f"{folder}: got no usable authority and certificates: {e}") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder}/ca.key: got another kind of key, want P-256")
    start = (now or datetime.now(UTC)) - _BACKDATED
    authority = _Authority(key=key, certificate=certificate, start=start, end=certificate.not_valid_after_utc)
    crl = _make_crl(authority, [one.serial_number for one in issued])
    return _write(folder, {"crl.pem": crl}, force=True)[0]


def _check_names(gateways: Sequence[str], ledger: str) -> None:
    names = [*gateways, ledger]
    for name in names:
        if not NAME.match(name) or name in _RESERVED:
            raise ConfigError(
                f"names: got {name!r}, want lower-case letters, digits and -, not {' or '.join(_RESERVED)}"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"names: got {names}, want each name once")


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not re.fullmatch(r"(?!-)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*", host) or len(host) > 253:
        raise ConfigError(f"hosts: got {host!r}, want an IP address or a host name")
    return x509.DNSName(host)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(start: datetime, end: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("Wattseal development CA")
    certificate = (
        _builder(name, name, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(key=key, certificate=certificate, start=start, end=end)


def _issue(
    authority: _Authority, name: str, alternatives: x509.SubjectAlternativeName, purpose: x509.ObjectIdentifier
) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.key.public_key()
    certificate = (
        _builder(_subject(name), authority.certificate.subject, key.public_key(), authority.start, authority.end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(alternatives, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return {f"{name}.pem": _pem(certificate), f"{name}.key": _key_pem(key)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _make_crl(authority: _Authority, serials: Sequence[int]) -> bytes:
    issuer = authority.key.public_key()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(authority.start)
        .next_update(authority.end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        .add_extension(x509.CRLNumber(int(authority.start.timestamp())), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(authority.start).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _line(text: str) -> bytes:
    return text.rstrip("\n").encode() + b"\n"


def _write(folder: Path, files: dict[str, bytes], *, force: bool) -> list[Path]:
    """Write the files, private ones readable by their owner alone, into a folder that only the owner may enter."""
    standing = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if standing and not force:
        raise ConfigError(f"{folder}: got {standing[0]} already, want a folder without it, or force")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, content in files.items():
            path = folder / name
            path.unlink(missing_ok=True)
            mode = 0o600 if path.suffix == ".key" else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as e:
        raise ConfigError(f"{folder}: cannot write: {e}") from e
    return [folder / name for name in files]
