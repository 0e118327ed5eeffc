"""BACnet's tagged values: what every APDU is made of. Pure; strict bounds.

Source: ASHRAE 135-2020, clause 20.2. Every reader raises ValueError, and nothing else, for bytes that are not what it
wants.
"""

from typing import Final, NamedTuple

NULL, BOOLEAN, UNSIGNED, SIGNED, REAL, DOUBLE, OCTETS, TEXT, BITS, ENUMERATED, DATE, TIME, OBJECT = range(13)
OTHER: Final = 255
"""Stands for the tag of a value that is not one plain value: a list, an array, a structure."""

_OPEN, _CLOSE = -1, -2
_MOST_DEPTH: Final = 16


class Plain(NamedTuple):
    """One value as it came.

    tag: its application tag, or OTHER. content: its bytes, big-endian; one byte 0 or 1 of a BOOLEAN; none of OTHER.
    """

    tag: int
    content: bytes


def tag_at(data: bytes, at: int) -> tuple[int, bool, int, int]:
    """Return a tag's number, whether it is a context tag, its length (or _OPEN, _CLOSE), and where its content begins.

    An application BOOLEAN has its value for a length.
    """
    try:
        first = data[at]
        at += 1
        number, size = first >> 4, first & 0x07
        is_context = bool(first & 0x08)
        if number == 15:
            number = data[at]
            at += 1
        if size >= 6:
            if not is_context:
                raise ValueError("tag: an opening or closing tag of no context")
            return number, True, _OPEN if size == 6 else _CLOSE, at
        if size == 5:
            size = data[at]
            at += 1
            if size >= 254:
                wide = 2 if size == 254 else 4
                size = int.from_bytes(data[at : at + wide], "big")
                at += wide
    except IndexError:
        raise ValueError("tag: cut short") from None
    if not is_context and number == BOOLEAN:
        if size > 1:
            raise ValueError("tag: a BOOLEAN that is neither")
    elif at + size > len(data):
        raise ValueError("tag: its content is cut short")
    return number, is_context, size, at


def plain_at(data: bytes, at: int) -> tuple[Plain, int]:
    """Return the application-tagged value that stands here, and where it ends."""
    number, is_context, size, at = tag_at(data, at)
    if is_context:
        raise ValueError("value: got a context tag")
    if number == BOOLEAN:
        return Plain(BOOLEAN, bytes([size])), at
    return Plain(number, data[at : at + size]), at + size


def enclosed_at(data: bytes, at: int, number: int) -> tuple[Plain, int]:
    """Return the value between here and the closing tag of this number, and where that ends."""
    first = data[at] if at < len(data) else 0
    size = first & 0x07
    if not first & 0x08 and size < 5 and first >> 4 > BOOLEAN and first >> 4 < 13:  # nearly always
        end = at + 1 + size
        if end < len(data) and data[end] == number << 4 | 0x0F:
            return Plain(first >> 4, data[at + 1 : end]), end + 1
    _, is_context, size, _ = tag_at(data, at)
    if not is_context:
        value, end = plain_at(data, at)
        closing, _, size, after = tag_at(data, end)
        if size == _CLOSE and closing == number:
            return value, after
    return Plain(OTHER, b""), skip(data, at, number)


def skip(data: bytes, at: int, number: int) -> int:
    """Return where the closing tag of this number ends; all within must be balanced."""
    inside = [number]
    while inside:
        found, is_context, size, at = tag_at(data, at)
        if size == _OPEN:
            inside.append(found)
            if len(inside) > _MOST_DEPTH:
                raise ValueError("value: too deep")
        elif size == _CLOSE:
            if inside.pop() != found:
                raise ValueError("value: a closing tag of another")
        elif is_context or found != BOOLEAN:
            at += size
    return at


def number_at(data: bytes, at: int, number: int, most_bytes: int = 4) -> tuple[int, int]:
    """Return the unsigned number, or object identifier, in the context tag of this number, and where it ends."""
    found, is_context, size, at = tag_at(data, at)
    if not is_context or found != number or not 1 <= size <= most_bytes:
        raise ValueError(f"want context tag {number} with 1 to {most_bytes} bytes")
    return int.from_bytes(data[at : at + size], "big"), at + size


def object_at(data: bytes, at: int, number: int) -> tuple[int, int]:
    """Return the object identifier in context tag number, and where it ends."""
    value, end = number_at(data, at, number)
    if end - at != 5:
        raise ValueError(f"want an object identifier in context tag {number}")
    return value, end


def is_octet(data: bytes, at: int, octet: int) -> bool:
    """Return whether this octet stands here."""
    return at < len(data) and data[at] == octet


def context_is(data: bytes, at: int, number: int) -> bool:
    """Return whether a context tag of this number, with a plain value, begins here."""
    return at < len(data) and data[at] >> 3 == number << 1 | 1 and data[at] & 0x07 < 6


def wants(data: bytes, at: int, octet: int) -> int:
    """Return where what follows this octet begins."""
    if not is_octet(data, at, octet):
        raise ValueError(f"want tag {octet:#04x}")
    return at + 1
