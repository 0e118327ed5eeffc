"""DER, read as far as certificates need it, and lenient where real endorsement certificates are not quite DER.

Source: ITU-T X.690. Lengths may be longer than they need be; indefinite ones and long tags are refused. What is read
here is never encoded anew: signatures are checked over the bytes as they came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import TrustError

BOOLEAN, INTEGER, BITS, OCTETS, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31
MAX_DER: Final = 8192


@dataclass(frozen=True, slots=True)
class Node:
    """One value. raw: with its tag and length."""

    tag: int
    content: bytes
    raw: bytes


def read(blob: bytes) -> tuple[Node, bytes]:
    """Return the value at the start, and what follows it. Raises TrustError."""
    if len(blob) < 2 or blob[0] & 0x1F == 0x1F:
        raise TrustError("DER: cut short, or of an unknown form")
    length, start = blob[1], 2
    if length & 0x80:
        start += length & 0x7F
        if not 2 < start <= 6 or start > len(blob):
            raise TrustError("DER: a length is of an unknown form")
        length = int.from_bytes(blob[2:start], "big")
    end = start + length
    if end > len(blob):
        raise TrustError("DER: cut short")
    return Node(blob[0], blob[start:end], blob[:end]), blob[end:]


def read_whole(blob: bytes, tag: int) -> Node:
    """Return the one value of this tag that these bytes are. Raises TrustError."""
    if len(blob) > MAX_DER:
        raise TrustError(f"DER: got {len(blob)} bytes, want at most {MAX_DER}")
    node, rest = read(blob)
    if rest or node.tag != tag:
        raise TrustError(f"DER: want one value of tag 0x{tag:02x}")
    return node


def children(node: Node) -> list[Node]:
    """Return what a constructed value holds, in order. Raises TrustError."""
    found, rest = [], node.content
    while rest:
        part, rest = read(rest)
        found.append(part)
    return found


def bit_string(node: Node, *, whole: bool = True) -> bytes:
    """Return a bit string's bytes; whole: refuse one that ends within a byte. Raises TrustError."""
    if not node.content or (node.content[0] and whole) or node.content[0] > 7:
        raise TrustError("DER: a bit string is malformed")
    return node.content[1:]


def shaped(node: Node, tags: Sequence[int | None], what: str) -> list[Node]:
    """Return what a constructed value holds, if it is of these tags (None: any). Raises TrustError."""
    parts = children(node)
    if len(parts) != len(tags) or any(tag not in {None, part.tag} for part, tag in zip(parts, tags, strict=True)):
        raise TrustError(f"{what}: it is not of X.509's form")
    return parts


def oid_text(content: bytes) -> str:
    """Return an object identifier with dots. Raises TrustError."""
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise TrustError("DER: this is no object identifier")
    arcs, arc = [], 0
    for byte in content:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(number) for number in (first, arcs[0] - 40 * first, *arcs[1:]))


def encode(tag: int, content: bytes) -> bytes:
    """Return a value in DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
