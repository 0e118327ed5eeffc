"""One Modbus connection: a request out, its own reply in, and nothing else ever taken for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Final

from gateway.codec.planner import MAX_BITS, MAX_REGISTERS, SPACE, is_bits, size_of
from gateway.drivers.modbus_pdu import RTU, TCP, Request, SilentError
from gateway.errors import DeviceError

# Modbus Messaging on TCP/IP V1.0b, 3.1.3: unit and PDU, at most 1 + 253 bytes.
_MAX_LENGTH: Final = 254
# More than this for one request is no reply: the longest is 256 bytes.
_MAX_NOISE: Final = 2048
# How long a serial device is thought able to answer a request that timed out.
_LATE_S: Final = 30.0


class Line(asyncio.Protocol, ABC):
    """One open connection with at most one request under way.

    lost: nothing more can be asked. misses: requests in a row without a single byte in reply.
    torn: a part of a reply has come that the next reply must not complete.
    """

    def __init__(self, timeout_s: float) -> None:
        self.lost = False
        self.misses = 0
        self.torn = False
        self._timeout_s = timeout_s
        self._transport: Any = None
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._gone = asyncio.Event()
        self._deadline = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; called by the loop."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way; called by the loop."""
        self.lost = True
        self._gone.set()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._fail(DeviceError(f"connection closed{f': {exc}' if exc else ''}"))

    async def close(self) -> None:
        """Close, and wait until the socket is really gone: some devices accept only one."""
        self.lost = True
        if self._transport is not None and not self._gone.is_set():
            self._transport.abort()
            await self._gone.wait()

    @abstractmethod
    async def ask(self, request: Request) -> bytes:
        """Return the registers or bits that the device answers.

        Raises Refused for an exception, Silent when no reply came in time, DeviceError for a wrong one.
        """

    def _dropped(self) -> str:
        """Say what came that was no reply to the request, "" if nothing did."""
        return ""

    async def _exchange(self, frame: bytes) -> tuple[int, bytes]:
        """Send the frame of a request and return the unit and the PDU of its reply."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self._waiter = waiter
        self._deadline = loop.time() + self._timeout_s
        if self._watch is None:
            self._watch = loop.call_at(self._deadline, self._expire, loop)
        self.misses += 1
        self._transport.write(frame)
        try:
            return await waiter
        finally:
            self._waiter = None

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """End a request that is past its deadline.

        One timer outlives many requests, because making one for each costs as much as all else here.
        """
        self._watch = None
        if self._waiter is None:
            return
        if loop.time() < self._deadline:
            self._watch = loop.call_at(self._deadline, self._expire, loop)
        else:
            self._fail(SilentError(f"no reply in {self._timeout_s:g} s{self._dropped()}"))

    def _fail(self, error: DeviceError) -> None:
        """End the request under way, if there is one, with an error."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class TcpLine(Line):
    """Modbus/TCP: a reply is known by its transaction."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._transaction = 0
        self._others = 0
        self._rest = b""

    async def ask(self, request: Request) -> bytes:
        """Ask; a reply with another transaction is a late one and dropped."""
        self._transaction = self._transaction % 0xFFFF + 1
        self._others = 0
        unit_id, pdu = await self._exchange(self._transaction.to_bytes(2, "big") + request.tcp[2:])
        return request.payload(unit_id, pdu)

    def _dropped(self) -> str:
        others = f", {self._others} replies to other transactions" if self._others else ""
        return others + (f", but {self._rest[:16].hex(' ')}" if self._rest else "")

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames; called by the loop."""
        self.misses = 0
        buffer = self._rest + data
        at = 0
        while len(buffer) - at >= TCP.MIN_SIZE:
            # The protocol identifier, always 0, and the length, as one number.
            length = int.from_bytes(buffer[at + 2 : at + 6], "big")
            if not 2 <= length <= _MAX_LENGTH:
                self._fail(DeviceError(f"not Modbus/TCP: {buffer[at : at + 8].hex(' ')}"))
                self._rest = b""
                self._transport.abort()
                return
            if len(buffer) - at < length + 6:
                break
            _, unit_id, transaction, pdu = TCP.decode(buffer[at : at + length + 6])
            at += length + 6
            waiter = self._waiter
            if transaction == self._transaction and waiter is not None and not waiter.done():
                waiter.set_result((unit_id, pdu))
            else:
                self._others += 1
        self._rest = buffer[at:]
        self.torn = at < len(buffer)


class Late:
    """The requests on a serial line that timed out, and whose replies may yet come.

    A serial reply does not say which request it answers. So a device that owes replies is first asked something
    whose reply looks different (a fence): once that one is there, nothing older can follow, since a serial device
    answers in order.
    """

    def __init__(self) -> None:
        self._heads: dict[int, dict[bytes, float]] = {}

    def add(self, request: Request, now: float) -> None:
        """Note that a reply to this request may still come."""
        self._heads.setdefault(request.unit_id, {})[request.head] = now + _LATE_S

    def owes(self, unit_id: int, now: float) -> bool:
        """Return whether a device may still send old replies."""
        heads = self._heads.get(unit_id)
        if heads is None:
            return False
        if all(until < now for until in heads.values()):
            del self._heads[unit_id]
            return False
        return True

    def forget(self, unit_id: int) -> None:
        """Note that no old reply of a device can come any more."""
        self._heads.pop(unit_id, None)

    def fence(self, request: Request) -> Request:
        """Return a read of about the same registers whose reply is like none of those that may come.

        Raises SilentError where there is none left.
        """
        heads = self._heads[request.unit_id]
        most = MAX_BITS if is_bits(request.function) else MAX_REGISTERS
        for count in (*range(request.count - 1, 0, -1), *range(request.count + 1, most + 1)):
            head = bytes([request.unit_id, request.function, size_of(request.function, count)])
            if head not in heads and request.address + count <= SPACE:
                return Request(unit_id=request.unit_id, function=request.function, address=request.address, count=count)
        raise SilentError("left alone until its late replies are over")


class RtuLine(Line):
    """Modbus RTU, on a serial line or over TCP: a reply is known by its unit, function, length and CRC.

    gap_s: the silence before each request; quiet_s: the silence before the next one after trouble.
    late: shared by all connections to the same line.
    """

    def __init__(self, timeout_s: float, *, gap_s: float, quiet_s: float, late: Late) -> None:
        super().__init__(timeout_s)
        self._gap_s = gap_s
        self._quiet_s = quiet_s
        self._late = late
        self._troubled = False
        self._busy_at = 0.0
        self._buffer = b""
        self._wanted: list[list[Any]] = []

    async def ask(self, request: Request) -> bytes:
        """Ask, once the line is quiet and nothing older can be taken for the reply."""
        if self._late.owes(request.unit_id, asyncio.get_running_loop().time()):
            await self._ask(self._late.fence(request))
            self._late.forget(request.unit_id)
        unit_id, pdu = await self._ask(request)
        return request.payload(unit_id, pdu)

    async def _ask(self, request: Request) -> tuple[int, bytes]:
        """Send a request in a silence, and return its reply, whichever it is."""
        await self._settle()
        self._buffer = b""
        # What the reply can begin with, how long it then is, and from where on it has not been looked for.
        self._wanted = [[request.head, request.size + 5, 0], [request.refusal_head, 5, 0]]
        self._troubled = True
        try:
            reply = await self._exchange(request.rtu)
            self._troubled = False
        finally:
            if self._troubled:
                now = asyncio.get_running_loop().time()
                self._busy_at = now
                self._late.add(request, now)
        return reply

    async def _settle(self) -> None:
        """Wait until nothing has come for long enough. Raises SilentError where that does not happen."""
        loop = asyncio.get_running_loop()
        hold_s = self._quiet_s if self._troubled else self._gap_s
        end = loop.time() + self._timeout_s + hold_s
        while (wait_s := self._busy_at + hold_s - loop.time()) > 0:
            if loop.time() > end:
                raise SilentError("the line is never quiet")
            await asyncio.sleep(wait_s)

    def _dropped(self) -> str:
        return f", but {self._buffer[:16].hex(' ')}" if self._buffer else ""

    def data_received(self, data: bytes) -> None:
        """Look for the reply in what came; called by the loop."""
        self.misses = 0
        self._busy_at = asyncio.get_running_loop().time()
        if self._waiter is None or self._waiter.done():
            return
        self._buffer += data
        if len(self._buffer) > _MAX_NOISE:
            self._fail(SilentError(f"not Modbus RTU: {self._buffer[:16].hex(' ')}"))
            return
        reply = self._find()
        if reply is not None:
            self._waiter.set_result(reply)

    def _find(self) -> tuple[int, bytes] | None:
        """Return the unit and the PDU of the reply in the buffer, None while there is none.

        Noise before it, and replies to other requests, are passed over. Each candidate's CRC is computed once.
        """
        for wanted in self._wanted:
            head, length, start = wanted
            at = self._buffer.find(head, start)
            while at >= 0 and at + length <= len(self._buffer):
                _, unit_id, _, pdu = RTU.decode(self._buffer[at : at + length])
                if pdu:
                    return unit_id, pdu
                at = self._buffer.find(head, at + 1)
            wanted[2] = at if at >= 0 else max(start, len(self._buffer) - len(head) + 1)
        return None


class SerialLine(RtuLine):
    """Modbus RTU on a serial port, whose transport does not say when it is closed."""

    async def close(self) -> None:
        """Close the port."""
        if self._transport is not None and not self._gone.is_set():
            self._transport.abort()
            self.connection_lost(None)
