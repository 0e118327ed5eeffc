"""Modbus requests that only read, and what a reply to one must look like.

The framing and the encoding are pymodbus's, but for cutting Modbus/TCP replies apart (modbus_tcp.py). Its client is not
used: it takes a reply of another function code or length for the answer, sends again what timed out, and costs several
times as much (its ADR has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadCoilsResponse,
    ReadDiscreteInputsRequest,
    ReadDiscreteInputsResponse,
)
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
)

from gateway.codec.planner import SPACE, size_of
from gateway.errors import ConfigError, DeviceError

# The only requests there are. Nothing else in the gateway makes a Modbus PDU.
READS: Final = MappingProxyType(
    {
        1: (ReadCoilsRequest, ReadCoilsResponse),
        2: (ReadDiscreteInputsRequest, ReadDiscreteInputsResponse),
        3: (ReadHoldingRegistersRequest, ReadHoldingRegistersResponse),
        4: (ReadInputRegistersRequest, ReadInputRegistersResponse),
    }
)

# Modbus Application Protocol V1.1b3, 7; 0x07 from its predecessor (PI-MBUS-300); 0x09 was never given out.
EXCEPTIONS: Final = MappingProxyType(
    {
        0x01: "Illegal Function",
        0x02: "Illegal Data Address",
        0x03: "Illegal Data Value",
        0x04: "Server Device Failure",
        0x05: "Acknowledge",
        0x06: "Server Device Busy",
        0x07: "Negative Acknowledge",
        0x08: "Memory Parity Error",
        0x0A: "Gateway Path Unavailable",
        0x0B: "Gateway Target Device Failed to Respond",
    }
)


class RefusedError(DeviceError):
    """Raised when the device answers with an exception; a block that is too long is then read in parts.

    code: 0x01 to 0xFF.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exception 0x{code:02X} {EXCEPTIONS.get(code, 'unknown')}")
        self.code = code


class SilentError(DeviceError):
    """Raised when no reply came in time; asking on would hold up the other devices of the bus."""


class OwedError(DeviceError):
    """Raised when an old reply may still come that looks like the one asked for; its parts can be asked for."""


class UnreachableError(DeviceError):
    """Raised when there is no connection; there is no use in asking on."""


class _Reads(DecodePDU):
    """pymodbus's table of replies, cut down to those that a read can have."""

    def __init__(self) -> None:
        super().__init__(is_server=False)
        self.pdu_table = dict(READS)


REPLIES: Final = _Reads()
TCP: Final = FramerSocket(REPLIES)
RTU: Final = FramerRTU(REPLIES)


def read_pdu(function: int, address: int, count: int) -> bytes:
    """Return the request that reads registers or bits: the only place where a PDU to send is made.

    Raises ConfigError for any function code but 1 to 4, and for what no device could have.
    """
    if function not in READS:
        raise ConfigError(f"function: got {function}, want a read, 1..4")
    if not 0 <= address <= SPACE - count:
        raise ConfigError(f"address: got {address} for {count}, want less than {SPACE} in all")
    try:
        return bytes([function]) + READS[function][0](address=address, count=count).encode()
    except ValueError as e:
        raise ConfigError(f"count: got {count}, want what one request of FC {function} may ask") from e


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One read, with its bytes made once.

    size: how many bytes of registers or bits the reply holds.
    tail: the Modbus/TCP frame without its transaction, which the sender puts before it. rtu: the frame.
    """

    unit_id: int
    function: int
    address: int
    count: int
    size: int = field(init=False)
    tail: bytes = field(init=False)
    rtu: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Make the bytes; raises ConfigError where this is no read."""
        if not 0 <= self.unit_id <= 255:
            raise ConfigError(f"unit_id: got {self.unit_id}, want 0..255")
        pdu = read_pdu(self.function, self.address, self.count)
        object.__setattr__(self, "size", size_of(self.function, self.count))
        object.__setattr__(self, "tail", TCP.encode(pdu, self.unit_id, 0)[2:])
        object.__setattr__(self, "rtu", RTU.encode(pdu, self.unit_id, 0))

    @property
    def head(self) -> bytes:
        """The first three bytes that a good reply has on a serial line: unit, function, byte count."""
        return bytes([self.unit_id, self.function, self.size])

    @property
    def refusal_head(self) -> bytes:
        """The first two bytes that an exception has on a serial line: unit, function with the top bit."""
        return bytes([self.unit_id, self.function | 0x80])

    def payload(self, unit_id: int, pdu: bytes) -> bytes:
        """Return the registers or bits in a reply.

        Raises Refused for an exception, DeviceError for a reply that does not answer this request.
        """
        function, size = self.function, self.size
        if unit_id == self.unit_id and len(pdu) == size + 2 and pdu[0] == function and pdu[1] == size:
            return pdu[2:]
        if unit_id != self.unit_id:
            raise DeviceError(f"wrong reply: unit {unit_id}, asked {self.unit_id}")
        if len(pdu) == 2 and pdu[0] == function | 0x80:
            raise RefusedError(pdu[1])
        if not pdu or pdu[0] != function:
            raise DeviceError(f"wrong reply: function {pdu[:1].hex() or 'none'}, asked {function:02x}")
        raise DeviceError(f"wrong reply: {len(pdu) - 2} bytes, byte count {pdu[1:2].hex()}, asked {size}")
