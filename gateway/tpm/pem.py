"""`TSS2 PRIVATE KEY`: the file in which OpenSSL's tpm2 provider expects a key that only one TPM can load.

Source: "ASN.1 Specification for TPM 2.0 Key Files" (James Bottomley), sections 3.1 and 4: SEQUENCE { OID
2.23.133.10.1.3, [0] EXPLICIT BOOLEAN emptyAuth, INTEGER parent, OCTET STRING TPM2B_PUBLIC, OCTET STRING TPM2B_PRIVATE
}.
"""

import base64
import binascii
import re

from gateway.attest import der
from gateway.attest.octets import sized
from gateway.errors import TrustError

MAX_PEM = 8192
_LABEL = "TSS2 PRIVATE KEY"
_PATTERN = re.compile(rf"-----BEGIN {_LABEL}-----\n([A-Za-z0-9+/=\n]+)\n-----END {_LABEL}-----\n?")
_EXPLICIT_0 = 0xA0
_LOADABLE = bytes.fromhex("6781050a0103")
_EMPTY_AUTH = bytes((_EXPLICIT_0, 3, der.BOOLEAN, 1, 0xFF))


def write(*, public: bytes, private: bytes, parent: int) -> str:
    """Return the file. public: TPMT_PUBLIC. private: what a TPM2B_PRIVATE holds. parent: a handle."""
    number = parent.to_bytes(5, "big").lstrip(b"\0")
    if number[0] & 0x80:
        number = b"\0" + number
    inner = (
        der.encode(der.OID, _LOADABLE)
        + _EMPTY_AUTH
        + der.encode(der.INTEGER, number)
        + der.encode(der.OCTETS, sized(public))
        + der.encode(der.OCTETS, sized(private))
    )
    text = base64.b64encode(der.encode(der.SEQUENCE, inner)).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""])


def read(text: str) -> tuple[bytes, bytes, int]:
    """Return (public, private, parent) of a file such as write makes. Raises TrustError for any other."""
    found = _PATTERN.fullmatch(text) if len(text) <= MAX_PEM else None
    if found is None:
        raise TrustError(f"key file: this is not one PEM block of {_LABEL}")
    try:
        packed = base64.b64decode(found[1].replace("\n", ""), validate=True)
    except binascii.Error as e:
        raise TrustError("key file: this is not base64") from e
    inner, rest = _take(der.SEQUENCE, packed)
    kind, inner = _take(der.OID, inner)
    if rest or kind != _LOADABLE or not inner.startswith(_EMPTY_AUTH):
        raise TrustError("key file: want a loadable key without a password")
    number, inner = _take(der.INTEGER, inner[len(_EMPTY_AUTH) :])
    public, inner = _take(der.OCTETS, inner)
    private, rest = _take(der.OCTETS, inner)
    if rest or not 1 <= len(number) <= 5:
        raise TrustError("key file: this is not a TPM key without extras")
    made = _unsized(public), _unsized(private), int.from_bytes(number, "big")
    if write(public=made[0], private=made[1], parent=made[2]).split() != text.split():
        raise TrustError("key file: this is not DER")
    return made


def _take(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """Return (content, rest) of the element that data begins with."""
    node, rest = der.read(data)
    if node.tag != tag:
        raise TrustError(f"key file: want an ASN.1 element 0x{tag:02x}")
    return node.content, rest


def _unsized(data: bytes) -> bytes:
    if len(data) < 2 or int.from_bytes(data[:2], "big") != len(data) - 2:
        raise TrustError("key file: a part has a wrong length")
    return data[2:]
