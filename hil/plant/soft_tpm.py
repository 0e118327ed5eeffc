"""A device whose TPM is a few lines of Python: quotes, certified keys, counters; and a device CA that vouches for it.

For tests and benchmarks that need many devices, or a device that lies. No secrets are here, and no product uses it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.attest import epoch as epochs
from gateway.attest import evidence as evidences
from gateway.attest.chain import AK_EKU, Anchors
from gateway.attest.evidence import CertifiedKey, Challenge, Claims, Counter, Evidence
from gateway.attest.names import device_name, hardware_module_name

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
CA_END = dt.datetime(2060, 1, 1, tzinfo=dt.UTC)
NEVER = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
MODEL = "wattseal-gw"

_MAGIC = 0xFF544347
_NV, _CERTIFY, _QUOTE = 0x8014, 0x8017, 0x8018
_AK_ATTRIBUTES = 0x00050072  # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign
_TLS_ATTRIBUTES = 0x00040072
_COUNTER_ATTRIBUTES = 0x20040014  # written, authread, authwrite, counter, ownerread
_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def sized(content: bytes) -> bytes:
    """Return a TPM2B of these bytes."""
    return len(content).to_bytes(2, "big") + content


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def public_area(key: ec.EllipticCurvePublicKey, *, attributes: int = _AK_ATTRIBUTES, scheme: int = 0x0018) -> bytes:
    """Return the TPMT_PUBLIC of a signing key on P-256. scheme: ECDSA with SHA-256."""
    point = key.public_numbers()
    head = b"\x00\x23\x00\x0b" + attributes.to_bytes(4, "big") + sized(b"")
    parameters = b"\x00\x10" + scheme.to_bytes(2, "big") + b"\x00\x0b" + b"\x00\x03" + b"\x00\x10"
    return head + parameters + sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))


def tls_public(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the TPMT_PUBLIC of an unrestricted signing key that its TPM made."""
    return public_area(key, attributes=_TLS_ATTRIBUTES)


def name_of(area: bytes) -> bytes:
    """Return the name of a public area with SHA-256."""
    return b"\x00\x0b" + hashlib.sha256(area).digest()


def usage(*uses: str) -> x509.KeyUsage:
    """Return a key usage of just these."""
    return x509.KeyUsage(**{use: use in uses for use in _USES})


def authority_name(name: str) -> x509.Name:
    """Return an authority's name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@dataclass(kw_only=True)
class SoftAuthority:
    """A device CA of two tiers. root, issuing: certificates, which hold until `end`."""

    name: str = "soft device CA"
    end: dt.datetime = CA_END
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    issuing_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    root: x509.Certificate = field(init=False)
    issuing: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        """Make both certificates."""
        root, issuing = authority_name(f"{self.name} root"), authority_name(f"{self.name} issuing")
        self.root = self._authority(root, self.root_key, root, path_length=1)
        self.issuing = self._authority(issuing, self.issuing_key, root, path_length=0)

    @property
    def anchors(self) -> Anchors:
        """Its root, and no CRL."""
        return Anchors(roots=(self.root,))

    def chain(self, certificate: x509.Certificate) -> tuple[bytes, ...]:
        """Return a certificate and the issuing CA's, in DER."""
        return tuple(one.public_bytes(Encoding.DER) for one in (certificate, self.issuing))

    def issue(
        self,
        key: Any,
        serial: str,
        *,
        subject: x509.Name | None = None,
        module: str | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = (AK_EKU,),
        uses: Sequence[str] = ("digital_signature",),
        start: dt.datetime = START,
        end: dt.datetime = NEVER,
        authority: bool = False,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """Return a device's certificate for a public key, of an attestation key where nothing else is said."""
        named = subject or device_name(serial, MODEL)
        module_name = x509.SubjectAlternativeName([hardware_module_name(module or serial)])
        builder = self._builder(named, key, self.issuing.subject, start, end)
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=authority, path_length=None), True),
            (usage(*uses), True),
            (module_name, False),
            *extra,
        ]
        if purposes:
            extensions.append((x509.ExtendedKeyUsage(purposes), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.issuing_key, hashes.SHA256())

    def crl(
        self,
        revoked: Mapping[int, dt.datetime],
        *,
        made: dt.datetime = START,
        until: dt.datetime = CA_END,
        by_root: bool = False,
    ) -> x509.CertificateRevocationList:
        """Return the issuing CA's (the root's) CRL. revoked: since when, by the certificate's serial number."""
        issuer, key = (self.root, self.root_key) if by_root else (self.issuing, self.issuing_key)
        builder = x509.CertificateRevocationListBuilder(issuer.subject, made, until)
        for number, since in revoked.items():
            entry = x509.RevokedCertificateBuilder(number, since).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key, hashes.SHA256())

    def _authority(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, *, path_length: int
    ) -> x509.Certificate:
        builder = self._builder(name, key.public_key(), issuer, START, self.end)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        builder = builder.add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        return builder.sign(self.root_key, hashes.SHA256())

    @staticmethod
    def _builder(
        subject: x509.Name, key: Any, issuer: x509.Name, start: dt.datetime, end: dt.datetime
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), start, end)


class SoftDevice:
    """A device with an attestation key and its certificate.

    pcrs: the SHA-256 bank, to be changed at will. reset_count, clock_ms: of its TPM. chain: DER, its own certificate
    first. authority: who vouches for it; one of its own where none is given, which costs some milliseconds.
    """

    def __init__(
        self, serial: str = "WS-0001", *, authority: SoftAuthority | None = None, gateway: str = "gw1"
    ) -> None:
        self.serial, self.gateway = serial, gateway
        self.authority = authority or SoftAuthority()
        self.key = new_key()
        self.certificate = self.authority.issue(self.key.public_key(), serial)
        self.chain = self.authority.chain(self.certificate)
        self.ak_public = public_area(self.key.public_key())
        self.pcrs = {index: hashlib.sha256(f"pcr {index}".encode()).digest() for index in range(8)}
        self.reset_count, self.restart_count, self.clock_ms, self.firmware = 1, 0, 1000, 0x20240101

    @property
    def anchors(self) -> Anchors:
        """The root of its authority, and no CRL."""
        return self.authority.anchors

    def extend(self, index: int, digest: bytes) -> None:
        """Extend a PCR."""
        self.pcrs[index] = hashlib.sha256(self.pcrs[index] + digest).digest()

    def quote(self, qualifying: bytes, pcrs: Mapping[int, bytes] | None = None) -> tuple[bytes, bytes]:
        """Return a quote over these PCR values (its own): TPMS_ATTEST, TPMT_SIGNATURE."""
        values = self.pcrs if pcrs is None else pcrs
        bits = sum(1 << index for index in values).to_bytes(3, "little")
        digest = hashlib.sha256(b"".join(values[index] for index in sorted(values))).digest()
        return self.attest(_QUOTE, qualifying, b"\x00\x00\x00\x01\x00\x0b\x03" + bits + sized(digest))

    def certify(self, public: bytes, qualifying: bytes) -> tuple[bytes, bytes]:
        """Return its word that a key, by its TPMT_PUBLIC, is in its TPM."""
        return self.attest(_CERTIFY, qualifying, sized(name_of(public)) + sized(name_of(b"\x00\x0b" + public)))

    def counter(self, index: int, value: int, qualifying: bytes, *, attributes: int = _COUNTER_ATTRIBUTES) -> Counter:
        """Return an NV counter's value, certified."""
        public = index.to_bytes(4, "big") + b"\x00\x0b" + attributes.to_bytes(4, "big") + sized(b"") + b"\x00\x08"
        body = sized(name_of(public)) + b"\x00\x00" + sized(value.to_bytes(8, "big"))
        attest, signature = self.attest(_NV, qualifying, body)
        return Counter(public=public, attest=attest, signature=signature)

    def attest(self, kind: int, qualifying: bytes, attested: bytes, *, safe: int = 1) -> tuple[bytes, bytes]:
        """Return a TPMS_ATTEST of any kind and body, signed."""
        times = self.clock_ms.to_bytes(8, "big") + b"".join(
            n.to_bytes(4, "big") for n in (self.reset_count, self.restart_count)
        )
        head = _MAGIC.to_bytes(4, "big") + kind.to_bytes(2, "big") + sized(name_of(self.ak_public)) + sized(qualifying)
        blob = head + times + bytes([safe]) + self.firmware.to_bytes(8, "big") + attested
        return blob, self.sign(blob)

    def sign(self, blob: bytes) -> bytes:
        """Return a TPMT_SIGNATURE over any bytes, which a real TPM's restricted key would refuse."""
        r, s = decode_dss_signature(self.key.sign(blob, ec.ECDSA(hashes.SHA256())))
        return b"\x00\x18\x00\x0b" + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> dict[str, Any]:
        """Return the binding of an epoch leaf."""
        attest, signature = self.quote(epochs.qualifying(vkey=vkey, epoch=epoch, t_ns=t_ns))
        return epochs.quote_binding(t_ns=t_ns, attest=attest, signature=signature, pcrs=self.pcrs, chain=self.chain)

    def evidence(
        self,
        challenge: Challenge,
        *,
        epoch: int,
        key: str,
        log_size: int,
        bound: bytes = b"",
        about: Mapping[str, str] | None = None,
        event_log: bytes = b"",
        counters: Mapping[int, int] | None = None,
        public: bytes = b"",
    ) -> bytes:
        """Return the packed evidence that answers a challenge.

        counters: value by NV index. public: TPMT_PUBLIC of a key to certify.
        """
        claims = Claims(
            gateway=self.gateway,
            nonce=challenge.nonce,
            epoch=epoch,
            key=key,
            log_size=log_size,
            bound=bound,
            about=about or {},
        ).pack()
        said = evidences.qualifying(challenge.nonce, claims)
        attest, signature = self.quote(said)
        vouched = self.certify(public, said)
        return Evidence(
            claims=claims,
            attest=attest,
            signature=signature,
            pcrs=dict(self.pcrs),
            chain=self.chain,
            event_log=event_log,
            counters=tuple(self.counter(index, value, said) for index, value in (counters or {}).items()),
            key=CertifiedKey(public=public, attest=vouched[0], signature=vouched[1]) if public else None,
        ).pack()


def challenge_for(gateway: str, *, at_s: int, purpose: str = "attest", seconds: int = 30) -> Challenge:
    """Return a challenge with a fresh nonce."""
    return Challenge(
        gateway=gateway, purpose=purpose, nonce=secrets.token_bytes(32), issued_s=at_s, deadline_s=at_s + seconds
    )
