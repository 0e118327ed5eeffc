"""An X.509 certificate as TPM makers really write them: read by structure, a remark for each flaw that is let pass.

Only what the check of an endorsement key's path needs is read. Source: RFC 5280, 4.1; RFC 4055 (RSA algorithms); TCG,
EK Credential Profile for TPM Family 2.0, 3.1.2 (names), 2.2.1.4 (certificates in NV memory).
"""

import calendar
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.attest.der import (
    BITS,
    BOOLEAN,
    GENERALIZED_TIME,
    INTEGER,
    MAX_DER,
    OCTETS,
    OID,
    SEQUENCE,
    UTC_TIME,
    Node,
    bit_string,
    children,
    oid_text,
    read,
    read_whole,
    shaped,
)
from gateway.attest.structures import PublicKey
from gateway.errors import TrustError

_RSA_OIDS: Final = {"1.2.840.113549.1.1.1": "rsaEncryption", "1.2.840.113549.1.1.7": "RSAES-OAEP"}
_EC_OID = "1.2.840.10045.2.1"
_TPM_NAMES = ("2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3")
_USAGES = ("digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign")
_STORED = b"\x10\x01\x00"  # TCG PC Client TPM 1.2 specification, 7.3.2: some makers still write this header
_VENDOR = re.compile(r"id:([0-9A-Fa-f]{8})", re.ASCII)
_MAX_EXTENSIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate's parts. signed: the bytes under the signature. purposes: None without an extended key usage.

    issuer, subject: names in a form to compare. tpm: the TPM's maker, model and version, "" where it says none.
    usage: of the key, None where it does not say. pss_hash: the hash's OID under RSASSA-PSS, "" else.
    """

    raw: bytes
    version: int
    serial: bytes
    algorithm: str
    pss_hash: str
    signed: bytes
    signature: bytes
    issuer: tuple[tuple[str, str], ...]
    subject: tuple[tuple[str, str], ...]
    first_s: int
    last_s: int
    key: PublicKey
    is_authority: bool
    path_length: int | None
    usage: frozenset[str] | None
    purposes: tuple[str, ...] | None
    tpm: tuple[str, str, str]
    critical: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def subject_text(self) -> str:
        """The subject, for people."""
        return ", ".join(text for _, text in self.subject)[:120]

    def may(self, use: str) -> bool:
        """Return whether its key is said to be for this use."""
        return self.usage is not None and use in self.usage


def read_certificate(blob: bytes) -> Certificate:
    """Return the certificate at the start of these bytes. Raises TrustError."""
    remarks: list[str] = []
    whole = _unpadded(blob, remarks)
    signed, algorithm, bits = shaped(whole, (SEQUENCE, SEQUENCE, BITS), "certificate")
    parts = children(signed)
    version = 1
    if parts and parts[0].tag == 0xA0:
        version = int.from_bytes(read_whole(parts.pop(0).content, INTEGER).content, "big") + 1
    if len(parts) < 6 or [part.tag for part in parts[:6]] != [INTEGER, *[SEQUENCE] * 5]:
        raise TrustError("certificate: it is not of X.509's form")
    serial, inner, issuer, validity, subject, spki = parts[:6]
    if inner.raw != algorithm.raw:
        raise TrustError("certificate: its two statements of the signature's algorithm differ")
    name, pss_hash = _algorithm(algorithm)
    first_s, last_s = _validity(validity, remarks)
    extensions = _extensions(parts[6:], remarks)
    authority, path_length = _constraints(extensions)
    return Certificate(
        raw=whole.raw,
        version=version,
        serial=_serial(serial.content, remarks),
        algorithm=name,
        pss_hash=pss_hash,
        signed=signed.raw,
        signature=bit_string(bits),
        issuer=_name(issuer),
        subject=_name(subject),
        first_s=first_s,
        last_s=last_s,
        key=_key(spki, remarks),
        is_authority=authority,
        path_length=path_length,
        usage=_usage(extensions),
        purposes=_purposes(extensions),
        tpm=_tpm(extensions, subject),
        critical=tuple(oid for oid, (critical, _) in extensions.items() if critical),
        remarks=tuple(remarks),
    )


def _unpadded(blob: bytes, remarks: list[str]) -> Node:
    """Return the certificate that NV memory holds, less its header and its padding."""
    if len(blob) > MAX_DER:
        raise TrustError(f"certificate: got {len(blob)} bytes, want at most {MAX_DER}")
    if blob.startswith(_STORED):
        blob = blob[5 : 5 + int.from_bytes(blob[3:5], "big")]
        remarks.append("it stands behind a header of TPM 1.2")
    whole, rest = read(blob)
    if whole.tag != SEQUENCE:
        raise TrustError("certificate: it is not of X.509's form")
    if rest:
        if rest.strip(b"\x00") and rest.strip(b"\xff"):
            raise TrustError(f"certificate: {len(rest)} bytes follow it, which are not padding")
        remarks.append(f"{len(rest)} bytes of padding follow it")
    return whole


def _serial(content: bytes, remarks: list[str]) -> bytes:
    if not 0 < len(content) <= 64:
        raise TrustError(f"certificate: got a serial number of {len(content)} bytes, want 1 to 64")
    if content[0] & 0x80:
        remarks.append("its serial number is negative")
    if len(content) > 1 and (content[0] == 0 and not content[1] & 0x80):
        remarks.append("its serial number is not minimally encoded")
    if len(content) > 21 or not content.strip(b"\0"):
        remarks.append("its serial number is zero, or longer than 20 bytes")
    return content


def _algorithm(node: Node) -> tuple[str, str]:
    """Return the OID of a signature's algorithm, and that of the hash under RSASSA-PSS."""
    parts = children(node)
    if not parts or parts[0].tag != OID:
        raise TrustError("certificate: its signature's algorithm is not of X.509's form")
    name = oid_text(parts[0].content)
    if name != "1.2.840.113549.1.1.10" or len(parts) != 2:
        return name, ""
    fields = [part for part in children(parts[1]) if part.tag == 0xA0]
    said = children(read_whole(fields[0].content, SEQUENCE)) if fields else []
    return name, oid_text(said[0].content) if said else ""


def _name(node: Node) -> tuple[tuple[str, str], ...]:
    """Return a name's attributes in order: OID and text, whatever string type it is in, without outer spaces."""
    found = []
    for attributes in children(node):
        for attribute in children(attributes):
            kind, value = shaped(attribute, (OID, None), "name")
            found.append((oid_text(kind.content), _text(value)))
    return tuple(found)


def _text(node: Node) -> str:
    codec = {0x1E: "utf-16-be", 0x14: "latin-1"}.get(node.tag, "utf-8")
    return node.content.decode(codec, "backslashreplace").strip()


def _validity(node: Node, remarks: list[str]) -> tuple[int, int]:
    first, last = shaped(node, (None, None), "validity")
    return _time(first, remarks), _time(last, remarks)


def _time(node: Node, remarks: list[str]) -> int:
    """Return Unix seconds. Source: RFC 5280, 4.1.2.5: two-digit years before 50 are of this century."""
    digits = node.content.removesuffix(b"Z")
    most = {UTC_TIME: 12, GENERALIZED_TIME: 14}.get(node.tag, 0)
    if not digits.isdigit() or len(digits) not in {most, most - 2} or not node.content.endswith(b"Z"):
        raise TrustError("certificate: a time is not of X.509's form")
    if len(digits) < most:
        remarks.append("a time has no seconds")
        digits += b"00"
    if node.tag == UTC_TIME:
        digits = (b"20" if digits[0] < ord("5") else b"19") + digits
    year = int(digits[:4])
    month, day, hour, minute, second = (int(digits[n : n + 2]) for n in range(4, 14, 2))
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise TrustError("certificate: this time is none")
    return calendar.timegm((year, month, day, hour, minute, second))


def _key(spki: Node, remarks: list[str]) -> PublicKey:
    algorithm, bits = shaped(spki, (SEQUENCE, BITS), "public key")
    parts = children(algorithm)
    name = oid_text(parts[0].content) if parts and parts[0].tag == OID else ""
    try:
        if name in _RSA_OIDS:
            if _RSA_OIDS[name] != "rsaEncryption":
                remarks.append(f"its key is said to be for {_RSA_OIDS[name]}")
            modulus, exponent = shaped(read_whole(bit_string(bits), SEQUENCE), (INTEGER, INTEGER), "RSA key")
            numbers = (int.from_bytes(part.content, "big") for part in (exponent, modulus))
            return rsa.RSAPublicNumbers(*numbers).public_key()
        if name == _EC_OID:
            key = load_der_public_key(spki.raw)
            if isinstance(key, ec.EllipticCurvePublicKey):
                return key
    except (ValueError, UnsupportedAlgorithm) as e:
        raise TrustError(f"certificate: its key is malformed: {e}") from e
    raise TrustError(f"certificate: its key is of kind {name or 'unknown'}, want RSA or ECC")


def _extensions(parts: Sequence[Node], remarks: list[str]) -> dict[str, tuple[bool, bytes]]:
    """Return the extensions by OID: whether critical, and the value. Raises TrustError where one stands twice."""
    found: dict[str, tuple[bool, bytes]] = {}
    listed = [part for part in parts if part.tag == 0xA3]
    entries = children(read_whole(listed[0].content, SEQUENCE)) if listed else []
    if len(listed) > 1 or len(entries) > _MAX_EXTENSIONS:
        raise TrustError("certificate: it has too many extensions")
    for entry in entries:
        fields = children(entry)
        if len(fields) < 2:
            raise TrustError("certificate: an extension is not of X.509's form")
        kind, *middle, value = fields
        if kind.tag != OID or value.tag != OCTETS or [part.tag for part in middle] not in ([], [BOOLEAN]):
            raise TrustError("certificate: an extension is not of X.509's form")
        oid = oid_text(kind.content)
        if oid in found:
            raise TrustError(f"certificate: extension {oid} stands twice")
        critical = bool(middle and middle[0].content.strip(b"\0"))
        if middle and middle[0].content != b"\xff":
            remarks.append(f"extension {oid}: whether it is critical is not in DER")
        found[oid] = (critical, value.content)
    return found


def _constraints(extensions: dict[str, tuple[bool, bytes]]) -> tuple[bool, int | None]:
    """Return whether it is an authority's, and how many authorities may stand below it."""
    _, value = extensions.get("2.5.29.19", (False, b"\x30\x00"))
    parts = children(read_whole(value, SEQUENCE))
    authority = bool(parts and parts[0].tag == BOOLEAN and parts[0].content.strip(b"\0"))
    lengths = [int.from_bytes(part.content, "big") for part in parts if part.tag == INTEGER]
    return authority, lengths[0] if lengths else None


def _usage(extensions: dict[str, tuple[bool, bytes]]) -> frozenset[str] | None:
    if "2.5.29.15" not in extensions:
        return None
    bits = bit_string(read_whole(extensions["2.5.29.15"][1], BITS), whole=False)
    return frozenset(name for n, name in enumerate(_USAGES) if bits and bits[0] << n & 0x80)


def _purposes(extensions: dict[str, tuple[bool, bytes]]) -> tuple[str, ...] | None:
    if "2.5.29.37" not in extensions:
        return None
    return tuple(oid_text(part.content) for part in children(read_whole(extensions["2.5.29.37"][1], SEQUENCE)))


def _tpm(extensions: dict[str, tuple[bool, bytes]], subject: Node) -> tuple[str, str, str]:
    """Return the TPM's maker, model and version: from the alternative name; from the subject where there is none."""
    found: dict[str, str] = {}
    places = [subject]
    if "2.5.29.17" in extensions:
        places.insert(0, read_whole(extensions["2.5.29.17"][1], SEQUENCE))
    for place in places:
        for oid, text in _attributes(place, 8):
            found.setdefault(oid, text)
    maker, model, version = (found.get(oid, "")[:64] for oid in _TPM_NAMES)
    vendor = _VENDOR.fullmatch(maker)
    if vendor:
        letters = bytes.fromhex(vendor[1]).rstrip(b"\0 ")
        maker = letters.decode("latin-1") if letters.isalnum() else maker
    return maker, model, version


def _attributes(node: Node, levels: int) -> Iterator[tuple[str, str]]:
    """Yield a TPM's attributes, however deep they stand: makers nest them differently."""
    if not levels or not node.tag & 0x20:
        return
    parts = children(node)
    if len(parts) == 2 and parts[0].tag == OID and oid_text(parts[0].content) in _TPM_NAMES:
        yield oid_text(parts[0].content), _text(parts[1])
        return
    for part in parts:
        yield from _attributes(part, levels - 1)
