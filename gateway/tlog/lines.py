"""The form of a signed note (C2SP signed-note): text, key names, signature lines, well-formed or refused."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from gateway.errors import TrustError

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 16  # C2SP: at least 16 must be accepted
MAX_NAME_BYTES = 255

_LINE_START = "\N{EM DASH} "
# All but line feed. C2SP refuses those below U+0020; the others steer terminals as well. A surrogate is no text at all.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureLine:
    """A well-formed signature line, not verified. signature: what stands behind the key id."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """Return the line as it stands in a note."""
        return f"{_LINE_START}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


def split_note(note: bytes) -> tuple[str, tuple[SignatureLine, ...]]:
    """Return a note's text and its lines, well-formed but not verified. Raises TrustError if it is malformed."""
    if len(note) > MAX_NOTE_BYTES:
        raise TrustError(f"the note has {len(note)} bytes, more than {MAX_NOTE_BYTES}")
    split = note.rfind(b"\n\n")
    if split < 0 or not note.endswith(b"\n"):
        raise TrustError("the note is not text, an empty line, and signature lines, each ended by a newline")
    if note.count(b"\n", split + 2) > MAX_SIGNATURES:
        raise TrustError(f"the note has more than {MAX_SIGNATURES} signature lines")
    try:
        whole = note.decode()
    except UnicodeDecodeError as e:
        raise TrustError("the note is not UTF-8") from e
    if CONTROL.search(whole):
        raise TrustError("the note holds a control character")
    head, _, tail = whole.rpartition("\n\n")
    lines = tuple(_parse_line(line) for line in tail.removesuffix("\n").split("\n"))
    if len({(line.name, line.key_id) for line in lines}) != len(lines):
        raise TrustError("the note has two signature lines of one key")
    return head + "\n", lines


def check_name(name: str) -> None:
    """Raise TrustError unless C2SP lets this be a key's name, and it is at most 255 bytes."""
    if not name or "+" in name or any(c.isspace() for c in name) or CONTROL.search(name):
        raise TrustError("a key name is empty, or has a space, a plus or a control character")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise TrustError(f"a key name is longer than {MAX_NAME_BYTES} bytes")


def decode_base64(text: str) -> bytes:
    """Return the bytes that this base64 stands for. Raises TrustError unless it is the one canonical text for them."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as e:
        raise TrustError("this is not base64") from e
    if base64.b64encode(content).decode() != text:
        raise TrustError("this base64 is not canonical")
    return content


def _parse_line(line: str) -> SignatureLine:
    parts = line.removeprefix(_LINE_START).split(" ")
    if not line.startswith(_LINE_START) or len(parts) != 2:
        raise TrustError("a signature line is not a dash, a key name and a signature")
    check_name(parts[0])
    content = decode_base64(parts[1])
    if len(content) <= 4:
        raise TrustError(f"the signature line of {parts[0]} holds no signature")
    return SignatureLine(name=parts[0], key_id=content[:4], signature=content[4:])
