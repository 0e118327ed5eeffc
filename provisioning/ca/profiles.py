"""What each certificate looks like: extensions, names and times. The signing is authority.py's.

Sources: RFC 5280; IEEE 802.1AR-2018, section 8 (IDevID, LDevID); the TCG's credential profiles.
"""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.attest.chain import AK_EKU
from gateway.attest.names import device_name, hardware_module_name
from gateway.errors import ConfigError

FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Without an end, as RFC 5280, 4.1.2.5 and IEEE 802.1AR, 8.8 write it."""
BACKDATED = timedelta(minutes=5)
"""A peer's clock may be a little behind ours."""
MOST_SERVER_DAYS = 398

_GATEWAY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TEXT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+&,'()/-]{0,62}[A-Za-z0-9.)])?")
_HOST = re.compile(r"(?!-)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*")


class Role(StrEnum):
    """What an authority is for. An issuing one signs nothing of another role."""

    ROOT = "root"
    DEVICES = "devices"
    OPERATION = "operation"


class Kind(StrEnum):
    """What a certificate is."""

    AUTHORITY = "authority"
    AK = "ak"
    IDEVID = "idevid"
    LDEVID = "ldevid"
    ENROL = "enrol"
    SERVER = "server"


MOST_HOURS = {Kind.LDEVID: 398 * 24, Kind.ENROL: 3660 * 24}
"""A gateway's own lasts days; a ledger that renews by hand may want a year. One for asking stays in its image."""


_PURPOSES = {
    Role.DEVICES: [AK_EKU],
    Role.OPERATION: [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
}
"""So a TLS peer that trusts the root refuses what the authority for devices signed: an AK, an IDevID."""


def check_gateway(gateway: str) -> str:
    """Return a gateway's id, which is a topic level. Raises ConfigError."""
    if not _GATEWAY.fullmatch(gateway) or gateway in {"ca", "broker", "agents", "context", "enrol"}:
        raise ConfigError(f"gateway: got {gateway[:80]!r}, want lower-case letters, digits and -, and no reserved word")
    return gateway


def check_text(where: str, text: str) -> str:
    """Return a short text for a name. Raises ConfigError."""
    if not _TEXT.fullmatch(text):
        raise ConfigError(f"{where}: got {text[:80]!r}, want 1 to 64 letters, digits and plain punctuation")
    return text


def authority_builder(
    *, name: str, role: Role, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime, issuer: x509.Name | None
) -> x509.CertificateBuilder:
    """Return an authority's certificate to sign. issuer: None for the root, which signs itself."""
    subject = authority_name(name, role)
    depth = 1 if role is Role.ROOT else 0
    builder = (
        _builder(subject, issuer or subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    if role in _PURPOSES:
        builder = builder.add_extension(x509.ExtendedKeyUsage(_PURPOSES[role]), critical=False)
    return builder


def authority_name(name: str, role: Role) -> x509.Name:
    """Return an authority's subject."""
    said = {Role.ROOT: "Root CA", Role.DEVICES: "Device CA", Role.OPERATION: "Operation CA"}[role]
    check_text("name", name)
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {said}"[:64]),
        ]
    )


def device_builder(
    kind: Kind,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    *,
    serial: str,
    model: str,
    hw_type: str,
    start: datetime,
) -> x509.CertificateBuilder:
    """Return an AK's or an IDevID's certificate to sign: the device's serial three times, and no end."""
    subject = device_name(serial, model)
    names = x509.SubjectAlternativeName([hardware_module_name(serial, hw_type)])
    builder = _leaf(subject, issuer, key, start, FOREVER).add_extension(names, critical=False)
    if kind is Kind.AK:
        builder = builder.add_extension(x509.ExtendedKeyUsage([AK_EKU]), critical=False)
    return builder


def client_builder(
    kind: Kind, key: ec.EllipticCurvePublicKey, issuer: x509.Certificate, *, gateway: str, start: datetime, hours: float
) -> x509.CertificateBuilder:
    """Return an LDevID to sign; of kind ENROL, one that may only ask for another."""
    if not 0 < hours <= MOST_HOURS[kind]:
        raise ConfigError(f"hours: got {hours}, want more than 0, up to {MOST_HOURS[kind]}")
    name = check_gateway(gateway) if kind is Kind.LDEVID else f"enrol_{check_gateway(gateway)}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = min(start + BACKDATED + timedelta(hours=hours), issuer.not_valid_after_utc)
    return (
        _leaf(subject, issuer, key, start, end)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(gateway)]), critical=False)
    )


def server_builder(
    key: ec.EllipticCurvePublicKey, issuer: x509.Certificate, *, hosts: Sequence[str], start: datetime, days: int
) -> x509.CertificateBuilder:
    """Return the broker's certificate to sign. hosts: names and addresses by which clients reach it."""
    if not 1 <= days <= MOST_SERVER_DAYS:
        raise ConfigError(f"days: got {days}, want 1..{MOST_SERVER_DAYS}")
    if not hosts:
        raise ConfigError("host: got none, want a name or an address of the server")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    end = min(start + BACKDATED + timedelta(days=days), issuer.not_valid_after_utc)
    return (
        _leaf(subject, issuer, key, start, end)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise ConfigError(f"host: got {host[:80]!r}, want an IP address or a host name")
    return x509.DNSName(host)


def _leaf(
    subject: x509.Name, issuer: x509.Certificate, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        _builder(subject, issuer.subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
    )


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


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
