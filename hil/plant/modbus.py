"""The server side of Modbus: what a PDU is answered with, and how TCP and RTU frame it.

Source: Modbus Application Protocol V1.1b3; Modbus Messaging on TCP/IP V1.0b; Modbus over Serial Line V1.02.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
TARGET_SILENT = 0x0B

_MBAP = struct.Struct(">HHHB")
_RANGE = struct.Struct(">HH")


class Source(Protocol):
    """What stands behind one unit id."""

    @property
    def functions(self) -> frozenset[int]:
        """The function codes that it knows, of 1 to 4."""

    @property
    def alive(self) -> bool:
        """Whether it answers at all."""

    def read(self, function: int, address: int, count: int) -> bytes:
        """Return count registers (FC 3, 4) or bits (FC 1, 2) from there. Raises LookupError where there are none."""


class Request(NamedTuple):
    """One request as it came. transaction: 0 on a serial line."""

    transaction: int
    unit: int
    pdu: bytes


class FrameError(ValueError):
    """Raised when what came is no frame, so that nothing after it can be trusted either."""


def exception(function: int, code: int) -> bytes:
    """Return the PDU that refuses a function."""
    return bytes((function & 0x7F | 0x80, code))


def answer(pdu: bytes, source: Source) -> bytes:
    """Return the PDU that answers a request PDU of at least one byte."""
    function = pdu[0]
    if function not in source.functions:
        return exception(function, ILLEGAL_FUNCTION)
    if len(pdu) != 5:
        return exception(function, ILLEGAL_VALUE)
    address, count = _RANGE.unpack_from(pdu, 1)
    if not 1 <= count <= (2000 if function < 3 else 125):
        return exception(function, ILLEGAL_VALUE)
    if address + count > 65536:
        return exception(function, ILLEGAL_ADDRESS)
    try:
        values = source.read(function, address, count)
    except LookupError:
        return exception(function, ILLEGAL_ADDRESS)
    return bytes((function, len(values))) + values


class Framing(Protocol):
    """How requests stand in a byte stream, and replies."""

    silent_when_unknown: bool
    """Whether an unknown unit id is answered by silence, as on a serial line."""

    def split(self, stream: bytearray) -> Iterator[Request]:
        """Take the whole requests off the stream's head, in order. Raises FrameError."""

    def frame(self, request: Request, unit: int, pdu: bytes) -> bytes:
        """Return the bytes of a reply."""


class TcpFraming:
    """MBAP: a header with a transaction number and a length."""

    silent_when_unknown = False

    def split(self, stream: bytearray) -> Iterator[Request]:
        """Take the whole requests off the stream's head, in order. Raises FrameError."""
        while len(stream) >= 8:
            transaction, protocol, length, unit = _MBAP.unpack_from(stream)
            if protocol or not 2 <= length <= 254:
                raise FrameError(f"got protocol {protocol} and length {length}, want 0 and 2..254")
            if len(stream) < 6 + length:
                return
            pdu = bytes(stream[7 : 6 + length])
            del stream[: 6 + length]
            yield Request(transaction, unit, pdu)

    def frame(self, request: Request, unit: int, pdu: bytes) -> bytes:
        """Return the bytes of a reply."""
        return _MBAP.pack(request.transaction, 0, len(pdu) + 1, unit) + pdu


class RtuFraming:
    """Unit, PDU, CRC. A frame with a wrong CRC is not for us: everything read so far goes, nobody answers."""

    silent_when_unknown = True

    def split(self, stream: bytearray) -> Iterator[Request]:
        """Take the whole requests off the stream's head, in order."""
        while len(stream) >= 4:
            size = _rtu_size(stream)
            if len(stream) < size:
                return
            frame = bytes(stream[:size])
            if crc(frame):
                stream.clear()
                return
            del stream[:size]
            yield Request(0, frame[0], frame[1:-2])

    def frame(self, request: Request, unit: int, pdu: bytes) -> bytes:  # noqa: ARG002 - a serial line numbers nothing
        """Return the bytes of a reply."""
        head = bytes((unit,)) + pdu
        return head + crc(head).to_bytes(2, "little")


def _rtu_size(stream: bytearray) -> int:
    """Return the length of the request at the stream's head, CRC included."""
    match stream[1]:
        case 1 | 2 | 3 | 4 | 5 | 6 | 8:
            return 8
        case 7 | 11 | 12 | 17:
            return 4
        case 15 | 16:
            return 9 + stream[6] if len(stream) > 6 else 9
        case 22:
            return 10
        case 23:
            return 13 + stream[10] if len(stream) > 10 else 13
    return len(stream)  # unknown to us: on a serial line the silence after it would tell


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc(frame: bytes) -> int:
    """Return the CRC-16 of a frame: 0 for one that ends in its own CRC, low byte first."""
    value = 0xFFFF
    for byte in frame:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value
