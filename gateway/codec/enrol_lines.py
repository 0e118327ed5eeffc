"""Lines between a factory's station and a unit: `<CRC-32 in hex> <JSON>`, fit for a serial line with noise and echo.

The checksum is against noise, not against an enemy: what must hold, the TPM signs. Form: docs/provisioning.md.
"""

import base64
import hmac
import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import TrustError
from gateway.tlog.lines import decode_base64

PROTOCOL = 1
MAX_LINE = 64 * 1024
NONCE_BYTES = 32
EK_KINDS = ("rsa2048", "p256", "p384")
MAX_ID = 64

_PROOF = b"wattseal-enrol/v1 credential\n"
_LINE = re.compile(rb"([0-9a-f]{8}) (\{[\x20-\x7e]*\})")

Field = Callable[[Any], Any]
"""Returns the value that a field holds. Raises ValueError or TrustError."""


def pack_line(said: Mapping[str, Any]) -> bytes:
    """Return the line, ended by a newline. Raises ValueError when it is too long."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    if len(text) + 10 > MAX_LINE:
        raise ValueError(f"a line of {len(text)} bytes is too long")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_line(line: bytes) -> dict[str, Any] | None:
    """Return what a whole line says; None for noise: no checksum, or one that is wrong. Raises TrustError for the rest.

    Noise before the checksum is cut off: a line that began in the middle of something is still a line.
    """
    if len(line) > MAX_LINE:
        raise TrustError(f"line: got {len(line)} bytes, want at most {MAX_LINE}")
    found = _LINE.search(line)
    if found is None or zlib.crc32(found[2]) != int(found[1], 16):
        return None
    try:
        said = json.loads(found[2])
    except (ValueError, RecursionError) as e:
        raise TrustError("line: this is not JSON") from e
    if type(said) is not dict or type(said.get("id")) is not str or len(said["id"]) > MAX_ID:
        raise TrustError("line: want an object with an id")
    return said


def fields_of(said: Any, fields: Mapping[str, Field], what: str) -> dict[str, Any]:
    """Return the fields of an object, each as its Field has it. Raises TrustError for one too many, few or odd."""
    if type(said) is not dict or set(said) != set(fields):
        raise TrustError(f"{what}: want just {', '.join(fields) or 'nothing'}")
    read = {}
    for name, field in fields.items():
        try:
            read[name] = field(said[name])
        except (ValueError, TrustError) as e:
            raise TrustError(f"{what}: {name}: {e}") from e
    return read


def credential_proof(secret: bytes, nonce: bytes) -> bytes:
    """Return how a unit proves that its TPM opened a credential: so the unit opens nothing for anyone else."""
    return hmac.digest(secret, _PROOF + nonce, "sha256")


def to_text(content: bytes) -> str:
    """Return bytes as they stand in a line."""
    return base64.b64encode(content).decode()


def blob(most: int, *, least: int = 1) -> Field:
    """Return a field of bytes."""

    def read(value: Any) -> bytes:
        if type(value) is not str or len(value) > most * 4 // 3 + 4:
            raise ValueError(f"want base64 of at most {most} bytes")
        content = decode_base64(value)
        if not least <= len(content) <= most:
            raise ValueError(f"got {len(content)} bytes, want {least} to {most}")
        return content

    return read


def optional(field: Field) -> Field:
    """Return a field that may be null."""
    return lambda value: None if value is None else field(value)


def name(value: Any) -> str:
    """Return a short text of printable ASCII, without spaces at its ends."""
    if type(value) is not str or not re.fullmatch(r"[!-~]([ -~]{0,198}[!-~])?", value):
        raise ValueError("want 1 to 200 printable ASCII characters")
    return value


def serial(value: Any) -> str:
    """Return a unit's serial: what may stand in a certificate, a file's name and a QR code."""
    if type(value) is not str or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError(f"got {str(value)[:70]!r}, want 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def whole(least: int, most: int) -> Field:
    """Return a field of a whole number."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"want a whole number from {least} to {most}")
        return value

    return read


def truth(value: Any) -> bool:
    """Return true or false."""
    if type(value) is not bool:
        raise ValueError("want true or false")
    return value


def digest(value: Any) -> str:
    """Return a SHA-256 in hex."""
    if type(value) is not str or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("want 64 hexadecimal digits")
    return value


def choice(*known: str) -> Field:
    """Return a field of one of these texts."""

    def read(value: Any) -> str:
        if type(value) is not str or value not in known:
            raise ValueError(f"want one of {', '.join(known)}")
        return value

    return read


def texts(value: Any) -> dict[str, str]:
    """Return a small map of text to text."""
    if type(value) is not dict or len(value) > 32:
        raise ValueError("want a map of at most 32 texts")
    if not all(type(part) is str and len(part) <= 200 and part.isprintable() for one in value.items() for part in one):
        raise ValueError("want short texts")
    return value


def indices(value: Any) -> tuple[int, ...]:
    """Return PCR indices, in order, each once."""
    if type(value) is not list or not value or not all(type(one) is int and 0 <= one < 24 for one in value):
        raise ValueError("want indices of PCRs")
    if value != sorted(set(value)):
        raise ValueError("want each PCR once, in order")
    return tuple(value)


def pcrs(value: Any) -> dict[int, bytes]:
    """Return PCRs of the SHA-256 bank by index, from pairs of index and hex."""
    if type(value) is not list or not 0 < len(value) <= 24:
        raise ValueError("want pairs of index and digest")
    if not all(type(one) is list and len(one) == 2 for one in value):
        raise ValueError("want pairs of index and digest")
    indices([index for index, _ in value])
    return {index: bytes.fromhex(digest(text)) for index, text in value}
