"""The few BACnet APDUs that a reader understands. Pure; what it sends is made in bacnet_requests.

Source: ASHRAE 135-2020, clause 20 (encoding) and 21 (productions). Every decoder raises ValueError, and nothing else,
for bytes that are not what it wants. Written by hand since the generic decoder of bacpypes3 takes most of the time of
a reading (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_APDU: Final = 1476
"""The longest APDU of BACnet/IP."""
MOST_SEGMENTS: Final = 16
"""Segments of one answer that we take."""

READ_PROPERTY: Final = 12
READ_MULTIPLE: Final = 14
SUBSCRIBE_COV: Final = 5
SUBSCRIBE_COV_PROPERTY: Final = 28

I_AM: Final = 0
COV_NOTIFICATION: Final = 2
WHO_IS: Final = 8

CONFIRMED, UNCONFIRMED, SIMPLE_ACK, COMPLEX_ACK, SEGMENT_ACK, ERROR, REJECT, ABORT = range(8)

DEVICE: Final = 8
MOST_INSTANCE: Final = 4_194_303

NULL, BOOLEAN, UNSIGNED, SIGNED, REAL, DOUBLE, OCTETS, TEXT, BITS, ENUMERATED, DATE, TIME, OBJECT = range(13)
OTHER: Final = 255
"""Stands for the tag of a value that is not one plain value: a list, an array, a structure."""

_SEGMENTED, _MORE = 0x08, 0x04
_OPEN, _CLOSE = -1, -2
_MOST_DEPTH: Final = 16


class Plain(NamedTuple):
    """One value as it came.

    tag: its application tag, or OTHER. content: its bytes, big-endian; one byte 0 or 1 of a BOOLEAN; none of OTHER.
    """

    tag: int
    content: bytes


class Refusal(NamedTuple):
    """Why there is no value: BACnetError's class and code."""

    error_class: int
    code: int


class Result(NamedTuple):
    """What a device says of one property of one object. object_id: type << 22 | instance. element: of an array."""

    object_id: int
    property_id: int
    element: int | None
    value: Plain | Refusal


class Head(NamedTuple):
    """What stands before a service's parameters.

    service: the service choice; the reason of a REJECT or ABORT; none of a SEGMENT_ACK.
    segment: (number, window, more follow) of a segment of an answer, else None. body: what follows.
    """

    kind: int
    invoke: int
    service: int
    body: bytes
    segment: tuple[int, int, bool] | None = None


class IAm(NamedTuple):
    """How a device presents itself. segmentation: 0 both, 1 transmits, 2 receives, 3 none."""

    instance: int
    max_apdu: int
    segmentation: int
    vendor: int


class Notification(NamedTuple):
    """A change of value. remaining_s: how long the subscription lives, 0 for ever."""

    process: int
    device: int
    object_id: int
    remaining_s: int
    values: tuple[Result, ...]


def object_id(kind: int, instance: int) -> int:
    """Return an object identifier as one number."""
    return kind << 22 | instance


def head_of(apdu: bytes) -> Head:
    """Return what an APDU is. The invoke id of an unconfirmed one is 0."""
    if len(apdu) < 2:
        raise ValueError("APDU: too short")
    kind, flags = apdu[0] >> 4, apdu[0] & 0x0F
    if kind == UNCONFIRMED:
        return Head(kind, 0, apdu[1], apdu[2:])
    if kind == COMPLEX_ACK and flags & _SEGMENTED:
        if len(apdu) < 5:
            raise ValueError("APDU: segment too short")
        return Head(kind, apdu[1], apdu[4], apdu[5:], (apdu[2], apdu[3], bool(flags & _MORE)))
    if kind == CONFIRMED:
        at = 5 if flags & _SEGMENTED else 3
        if len(apdu) <= at:
            raise ValueError("APDU: request too short")
        return Head(kind, apdu[2], apdu[at], apdu[at + 1 :])
    if kind == SEGMENT_ACK:
        return Head(kind, apdu[1], 0, apdu[2:])
    if kind > ABORT or len(apdu) < 3:
        raise ValueError(f"APDU: got type {kind} of {len(apdu)} bytes")
    return Head(kind, apdu[1], apdu[2], apdu[3:])


def _tag(data: bytes, at: int) -> tuple[int, bool, int, int]:
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


def _plain(data: bytes, at: int) -> tuple[Plain, int]:
    """Return the application-tagged value that stands here, and where it ends."""
    number, is_context, size, at = _tag(data, at)
    if is_context:
        raise ValueError("value: got a context tag")
    if number == BOOLEAN:
        return Plain(BOOLEAN, bytes([size])), at
    return Plain(number, data[at : at + size]), at + size


def _enclosed(data: bytes, at: int, number: int) -> tuple[Plain, int]:
    """Return the value between here and the closing tag of this number, and where that ends."""
    first = data[at] if at < len(data) else 0
    size = first & 0x07
    if not first & 0x08 and size < 5 and first >> 4 > BOOLEAN and first >> 4 < 13:  # nearly always
        end = at + 1 + size
        if end < len(data) and data[end] == number << 4 | 0x0F:
            return Plain(first >> 4, data[at + 1 : end]), end + 1
    _, is_context, size, _ = _tag(data, at)
    if not is_context:
        value, end = _plain(data, at)
        closing, _, size, after = _tag(data, end)
        if size == _CLOSE and closing == number:
            return value, after
    return Plain(OTHER, b""), _skip(data, at, number)


def _skip(data: bytes, at: int, number: int) -> int:
    """Return where the closing tag of this number ends; all within must be balanced."""
    inside = [number]
    while inside:
        found, is_context, size, at = _tag(data, at)
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


def _number(data: bytes, at: int, number: int, most_bytes: int = 4) -> tuple[int, int]:
    """Return the unsigned number, or object identifier, in the context tag of this number, and where it ends."""
    found, is_context, size, at = _tag(data, at)
    if not is_context or found != number or not 1 <= size <= most_bytes:
        raise ValueError(f"want context tag {number} with 1 to {most_bytes} bytes")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _object(data: bytes, at: int, number: int) -> tuple[int, int]:
    value, end = _number(data, at, number)
    if end - at != 5:
        raise ValueError(f"want an object identifier in context tag {number}")
    return value, end


def _is(data: bytes, at: int, octet: int) -> bool:
    return at < len(data) and data[at] == octet


def _context_is(data: bytes, at: int, number: int) -> bool:
    return at < len(data) and data[at] >> 3 == number << 1 | 1 and data[at] & 0x07 < 6


def _wants(data: bytes, at: int, octet: int) -> int:
    if not _is(data, at, octet):
        raise ValueError(f"want tag {octet:#04x}")
    return at + 1


def _refusal(data: bytes, at: int) -> tuple[Refusal, int]:
    error_class, at = _plain(data, at)
    code, at = _plain(data, at)
    if error_class.tag != ENUMERATED or code.tag != ENUMERATED or max(len(error_class[1]), len(code[1])) > 4:
        raise ValueError("error: want two enumerations")
    return Refusal(int.from_bytes(error_class.content, "big"), int.from_bytes(code.content, "big")), at


def error_of(body: bytes) -> Refusal:
    """Return what an ERROR says."""
    return _refusal(body, 0)[0]


def read_ack(body: bytes) -> Result:
    """Return what a ReadProperty-ACK says."""
    about, at = _object(body, 0, 0)
    property_id, at = _number(body, at, 1)
    element = None
    if _context_is(body, at, 2):
        element, at = _number(body, at, 2)
    value, at = _enclosed(body, _wants(body, at, 0x3E), 3)
    if at != len(body):
        raise ValueError("ReadProperty-ACK: bytes behind its end")
    return Result(about, property_id, element, value)


def read_multiple_ack(body: bytes) -> list[Result]:
    """Return what a ReadPropertyMultiple-ACK says, property by property."""
    results: list[Result] = []
    at, end = 0, len(body)
    try:
        while at < end:
            about, at = _object(body, at, 0)
            at = _wants(body, at, 0x1E)
            while (octet := body[at]) != 0x1F:
                if octet == 0x29 and body[at + 2] == 0x4E:  # nearly always: a property below 256, one short value
                    first = body[at + 3]
                    close = at + 4 + (first & 0x07)
                    if 0x20 <= first < 0xD0 and first & 0x0F < 5 and body[close] == 0x4F:
                        value = Plain(first >> 4, body[at + 4 : close])
                        results.append(Result(about, body[at + 1], None, value))
                        at = close + 1
                        continue
                result, at = _property(body, at, about)
                results.append(result)
            at += 1
    except IndexError:
        raise ValueError("ReadPropertyMultiple-ACK: cut short") from None
    return results


def _property(body: bytes, at: int, about: int) -> tuple[Result, int]:
    """Return what is said of one property, whatever it is, and where that ends."""
    property_id, at = _number(body, at, 2)
    element = None
    if _context_is(body, at, 3):
        element, at = _number(body, at, 3)
    value: Plain | Refusal
    if _is(body, at, 0x4E):
        value, at = _enclosed(body, at + 1, 4)
    else:
        value, at = _refusal(body, _wants(body, at, 0x5E))
        at = _wants(body, at, 0x5F)
    return Result(about, property_id, element, value), at


def notification(body: bytes) -> Notification:
    """Return what a COV notification says."""
    process, at = _number(body, 0, 0)
    device, at = _object(body, at, 1)
    about, at = _object(body, at, 2)
    remaining_s, at = _number(body, at, 3)
    at = _wants(body, at, 0x4E)
    values = []
    while not _is(body, at, 0x4F):
        property_id, at = _number(body, at, 0)
        element = None
        if _context_is(body, at, 1):
            element, at = _number(body, at, 1)
        value, at = _enclosed(body, _wants(body, at, 0x2E), 2)
        if _context_is(body, at, 3):
            _, at = _number(body, at, 3)
        values.append(Result(about, property_id, element, value))
    if at + 1 != len(body) or device >> 22 != DEVICE:
        raise ValueError("COV notification: bytes behind its end, or not from a device")
    return Notification(process, device & MOST_INSTANCE, about, remaining_s, tuple(values))


def i_am_of(body: bytes) -> IAm:
    """Return what an I-Am says."""
    at, found = 0, []
    for tag in (OBJECT, UNSIGNED, ENUMERATED, UNSIGNED):
        value, at = _plain(body, at)
        if value.tag != tag or not 1 <= len(value.content) <= 4:
            raise ValueError("I-Am: a parameter of another type")
        found.append(int.from_bytes(value.content, "big"))
    device, max_apdu, segmentation, vendor = found
    if device >> 22 != DEVICE or segmentation > 3 or at != len(body):
        raise ValueError("I-Am: not from a device, or bytes behind its end")
    return IAm(device & MOST_INSTANCE, max_apdu, segmentation, vendor)


def who_is_of(body: bytes) -> tuple[int, int]:
    """Return the limits of a Who-Is."""
    if not body:
        return 0, MOST_INSTANCE
    low, at = _number(body, 0, 0)
    high, at = _number(body, at, 1)
    if at != len(body):
        raise ValueError("Who-Is: bytes behind its end")
    return low, high
