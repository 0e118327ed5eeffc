"""The replies to our OPC UA requests, from bytes: what was read, what was created, what has changed. Pure.

Malformed bytes raise `MALFORMED`, a service's refusal ServiceFaultError.
Source: OPC UA Part 4, 5.10.2, 5.12.2, 5.13.2, 5.13.5 and 7.33; the numbers are those of the encodings in Part 6, A.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from gateway.drivers.opcua_binary import Cut, Reader, cut_value

MOST_CHANGES: Final = 10_000
"""Changes in one notification that we ask for, at most; a server that sends more is refused."""

_FAULT, _READ, _PUBLISH, _ITEMS, _SUBSCRIPTION = 397, 634, 829, 754, 790
_DATA_CHANGE, _STATUS_CHANGE = 811, 820
_U32: Final = struct.Struct("<I")


class Notice(NamedTuple):
    """A publish response. status: of the whole subscription, where the server tells one.

    changes: client handles and values. sequence: to be acknowledged; None for a keep-alive.
    """

    subscription: int
    sequence: int | None
    changes: list[tuple[int, Cut]]
    status: int | None


class Subscribed(NamedTuple):
    """A subscription as the server has revised it."""

    id: int
    interval_ms: float
    lifetime: int
    keep_alive: int


class ServiceFaultError(Exception):
    """Raised when the reply to a whole request is a bad status code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"0x{code:08X}")
        self.code = code


def check_head(data: bytes) -> tuple[Reader, int | None, int]:
    """Return where the body of a reply begins, what it is, and its service result.

    Raises ValueError for a reply with an additional header: no service of ours has one, and it may hold anything.
    """
    reader = Reader(data)
    kind = reader.node_id()
    reader.skip(12)
    code = reader.u32()
    reader.diagnostic()
    for _ in reader.each(4):
        reader.blob()
    reader.node_id()
    if reader.u8():
        raise ValueError("a reply with an additional header")
    return reader, kind, code


def _body(data: bytes, wanted: int) -> Reader:
    reader, kind, code = check_head(data)
    if kind == _FAULT or code & 0x80000000:
        raise ServiceFaultError(code if code & 0x80000000 else 0x80000000)
    if kind != wanted:
        raise ValueError(f"got a reply of type {kind}, want {wanted}")
    return reader


def read_results(data: bytes, count: int) -> list[Cut]:
    """Return the values of a ReadResponse. Raises ServiceFaultError, and ValueError for another number than asked."""
    reader = _body(data, _READ)
    if (found := reader.count(1)) != count:
        raise ValueError(f"got {found} values, want {count}")
    data, at = reader.data, reader.at
    cuts = []
    for _ in range(count):
        cut, at = cut_value(data, at, reader)
        cuts.append(cut)
    return cuts


def created_items(data: bytes, count: int) -> list[int]:
    """Return the status codes of a CreateMonitoredItemsResponse. Raises as read_results."""
    reader = _body(data, _ITEMS)
    if (found := reader.count(23)) != count:
        raise ValueError(f"got {found} monitored items, want {count}")
    codes = []
    for _ in range(count):
        codes.append(reader.u32())
        reader.skip(16)
        reader.extension()
    return codes


def subscribed(data: bytes) -> Subscribed:
    """Return what a CreateSubscriptionResponse says. Raises as read_results."""
    reader = _body(data, _SUBSCRIPTION)
    return Subscribed(*struct.unpack_from("<IdII", data, reader.skip(20)))


def published(data: bytes) -> Notice:
    """Return what a PublishResponse says. Raises as read_results."""
    reader = _body(data, _PUBLISH)
    subscription = reader.u32()
    reader.skip(4 * reader.count(4) + 1)
    sequence = reader.u32()
    reader.skip(8)
    changes: list[tuple[int, Cut]] = []
    status = None
    parts = reader.each(3)
    for _ in parts:
        kind, body = reader.extension()
        if body is None:
            continue
        if kind == _DATA_CHANGE:
            _add_changes(body, changes)
        elif kind == _STATUS_CHANGE:
            status = body.u32()
    return Notice(subscription, sequence if parts else None, changes, status)


def _add_changes(reader: Reader, changes: list[tuple[int, Cut]]) -> None:
    data = reader.data
    count = reader.count(5)
    if len(changes) + count > MOST_CHANGES:
        raise ValueError(f"got {count} changes at once, want {MOST_CHANGES} at most")
    at = reader.at
    for _ in range(count):
        handle: int = _U32.unpack_from(data, at)[0]
        cut, at = cut_value(data, at + 4, reader)
        changes.append((handle, cut))
