"""The few BACnet APDUs that a reader understands. Pure; what it sends is made in bacnet_requests.

Source: ASHRAE 135-2020, clause 20 (encoding) and 21 (productions). Every decoder raises ValueError, and nothing else,
for bytes that are not what it wants. Written by hand since the generic decoder of bacpypes3 takes most of the time of
a reading (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.codec.bacnet_tags import (
    ENUMERATED,
    OBJECT,
    UNSIGNED,
    Plain,
    context_is,
    enclosed_at,
    is_octet,
    number_at,
    object_at,
    plain_at,
    wants,
)

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

_SEGMENTED, _MORE = 0x08, 0x04


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


def _refusal(data: bytes, at: int) -> tuple[Refusal, int]:
    error_class, at = plain_at(data, at)
    code, at = plain_at(data, at)
    if error_class.tag != ENUMERATED or code.tag != ENUMERATED or max(len(error_class[1]), len(code[1])) > 4:
        raise ValueError("error: want two enumerations")
    return Refusal(int.from_bytes(error_class.content, "big"), int.from_bytes(code.content, "big")), at


def error_of(body: bytes) -> Refusal:
    """Return what an ERROR says."""
    return _refusal(body, 0)[0]


def read_ack(body: bytes) -> Result:
    """Return what a ReadProperty-ACK says."""
    about, at = object_at(body, 0, 0)
    property_id, at = number_at(body, at, 1)
    element = None
    if context_is(body, at, 2):
        element, at = number_at(body, at, 2)
    value, at = enclosed_at(body, wants(body, at, 0x3E), 3)
    if at != len(body):
        raise ValueError("ReadProperty-ACK: bytes behind its end")
    return Result(about, property_id, element, value)


def read_multiple_ack(body: bytes) -> list[Result]:
    """Return what a ReadPropertyMultiple-ACK says, property by property."""
    results: list[Result] = []
    at, end = 0, len(body)
    try:
        while at < end:
            about, at = object_at(body, at, 0)
            at = wants(body, at, 0x1E)
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
    property_id, at = number_at(body, at, 2)
    element = None
    if context_is(body, at, 3):
        element, at = number_at(body, at, 3)
    value: Plain | Refusal
    if is_octet(body, at, 0x4E):
        value, at = enclosed_at(body, at + 1, 4)
    else:
        value, at = _refusal(body, wants(body, at, 0x5E))
        at = wants(body, at, 0x5F)
    return Result(about, property_id, element, value), at


def notification(body: bytes) -> Notification:
    """Return what a COV notification says."""
    process, at = number_at(body, 0, 0)
    device, at = object_at(body, at, 1)
    about, at = object_at(body, at, 2)
    remaining_s, at = number_at(body, at, 3)
    at = wants(body, at, 0x4E)
    values = []
    while not is_octet(body, at, 0x4F):
        property_id, at = number_at(body, at, 0)
        element = None
        if context_is(body, at, 1):
            element, at = number_at(body, at, 1)
        value, at = enclosed_at(body, wants(body, at, 0x2E), 2)
        if context_is(body, at, 3):
            _, at = number_at(body, at, 3)
        values.append(Result(about, property_id, element, value))
    if at + 1 != len(body) or device >> 22 != DEVICE:
        raise ValueError("COV notification: bytes behind its end, or not from a device")
    return Notification(process, device & MOST_INSTANCE, about, remaining_s, tuple(values))


def i_am_of(body: bytes) -> IAm:
    """Return what an I-Am says."""
    at, found = 0, []
    for tag in (OBJECT, UNSIGNED, ENUMERATED, UNSIGNED):
        value, at = plain_at(body, at)
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
    low, at = number_at(body, 0, 0)
    high, at = number_at(body, at, 1)
    if at != len(body):
        raise ValueError("Who-Is: bytes behind its end")
    return low, high
