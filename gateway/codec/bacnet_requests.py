"""The few BACnet APDUs that a reader sends. Pure.

Only these can be built: Who-Is, I-Am, ReadProperty, ReadPropertyMultiple, SubscribeCOV, SubscribeCOVProperty, and what
ends a transaction. No service that writes, commands, restarts or sets a clock is known here.
Source: ASHRAE 135-2020, clause 20 (encoding) and 21 (productions).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from gateway.codec.bacnet_apdu import (
    ABORT,
    CONFIRMED,
    DEVICE,
    I_AM,
    READ_MULTIPLE,
    READ_PROPERTY,
    REJECT,
    SEGMENT_ACK,
    SUBSCRIBE_COV,
    SUBSCRIBE_COV_PROPERTY,
    UNCONFIRMED,
    WHO_IS,
    IAm,
    object_id,
)
from gateway.codec.bacnet_tags import ENUMERATED, OBJECT, UNSIGNED

_SEGMENTS_AND_SIZE: Final = 0x45  # of an answer: 16 segments of 1476 bytes at most
_ACCEPTS_SEGMENTS: Final = 0x02


def _unsigned(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def _context(number: int, content: bytes) -> bytes:
    return bytes([number << 4 | 0x08 | len(content)]) + content


def _confirmed(invoke: int, service: int) -> bytes:
    return bytes([CONFIRMED << 4 | _ACCEPTS_SEGMENTS, _SEGMENTS_AND_SIZE, invoke, service])


def read_property(invoke: int, about: int, property_id: int) -> bytes:
    """Return a ReadProperty request."""
    wanted = _context(0, about.to_bytes(4, "big")) + _context(1, _unsigned(property_id))
    return _confirmed(invoke, READ_PROPERTY) + wanted


def read_multiple(wanted: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """Return the parameters of a ReadPropertyMultiple request for (object, its properties): made once, asked often."""
    parts: list[bytes] = []
    for each, properties in wanted:
        parts += [b"\x0c", each.to_bytes(4, "big"), b"\x1e"]
        parts += [_context(0, _unsigned(property_id)) for property_id in properties]
        parts.append(b"\x1f")
    return b"".join(parts)


def read_multiple_request(invoke: int, wanted: bytes) -> bytes:
    """Return a ReadPropertyMultiple request."""
    return _confirmed(invoke, READ_MULTIPLE) + wanted


def subscribe_cov(invoke: int, process: int, about: int, lifetime_s: int) -> bytes:
    """Return a SubscribeCOV request for unconfirmed notifications, for so long."""
    head = _context(0, _unsigned(process)) + _context(1, about.to_bytes(4, "big"))
    return _confirmed(invoke, SUBSCRIBE_COV) + head + b"\x29\x00" + _context(3, _unsigned(lifetime_s))


def subscribe_cov_property(
    invoke: int, process: int, about: int, lifetime_s: int, *, property_id: int, increment: float | None
) -> bytes:
    """Return a SubscribeCOVProperty request: the same for one property, with the subscriber's own increment."""
    head = _context(0, _unsigned(process)) + _context(1, about.to_bytes(4, "big"))
    wanted = b"\x4e" + _context(0, _unsigned(property_id)) + b"\x4f"
    wanted += b"" if increment is None else _context(5, struct.pack(">f", increment))
    request = _confirmed(invoke, SUBSCRIBE_COV_PROPERTY) + head + b"\x29\x00"
    return request + _context(3, _unsigned(lifetime_s)) + wanted


def who_is(low: int | None = None, high: int | None = None) -> bytes:
    """Return a Who-Is for instances low to high, or for all."""
    limits = b"" if low is None or high is None else _context(0, _unsigned(low)) + _context(1, _unsigned(high))
    return bytes([UNCONFIRMED << 4, WHO_IS]) + limits


def i_am(own: IAm) -> bytes:
    """Return an I-Am."""
    device = object_id(DEVICE, own.instance).to_bytes(4, "big")
    size, vendor = _unsigned(own.max_apdu), _unsigned(own.vendor)
    return b"".join(
        (
            bytes([UNCONFIRMED << 4, I_AM, OBJECT << 4 | 4]),
            device,
            bytes([UNSIGNED << 4 | len(size)]),
            size,
            bytes([ENUMERATED << 4 | 1, own.segmentation, UNSIGNED << 4 | len(vendor)]),
            vendor,
        )
    )


def segment_ack(invoke: int, number: int, window: int, *, again: bool = False) -> bytes:
    """Return our acknowledgement of segments up to number. again: what came was not the next one."""
    return bytes([SEGMENT_ACK << 4 | (0x02 if again else 0), invoke, number, window])


def abort(invoke: int, reason: int) -> bytes:
    """Return an abort of our own transaction."""
    return bytes([ABORT << 4, invoke, reason])


def reject(invoke: int, reason: int) -> bytes:
    """Return a refusal of a peer's request."""
    return bytes([REJECT << 4, invoke, reason])
