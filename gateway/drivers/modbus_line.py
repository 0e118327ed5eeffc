"""One Modbus connection: a request out, its own reply in, and nothing else ever taken for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.drivers.modbus_pdu import RTU, TCP, OwedError, RefusedError, Request, SilentError
from gateway.errors import DeviceError

# Modbus Messaging on TCP/IP V1.0b, 3.1.3: unit and PDU, at most 1 + 253 bytes.
_MAX_LENGTH: Final = 254
# More than this for one request is no reply: the longest is 256 bytes.
_MAX_NOISE: Final = 2048


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
    async def ask(self, request: Request, fences: Sequence[Request]) -> bytes:
        """Return the registers or bits that the device answers.

        fences: what may be asked before, where an old reply may still come that looks like this one's: see Late.
        Raises RefusedError for an exception, SilentError when no reply came in time, OwedError where nothing was
        asked, DeviceError for a wrong reply.
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

    async def ask(self, request: Request, fences: Sequence[Request]) -> bytes:  # noqa: ARG002 - TCP has transactions
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
    """The replies that may yet come on a serial line to requests that timed out, by what they begin with.

    A serial reply does not say which request it answers: only its unit, function and size tell it from another.
    So what looks like a reply that is owed is not asked for until that one has come, or surely will not: a block is
    read in parts of other sizes meanwhile. What has no parts is asked behind a fence: a read of another size, whose
    reply shows that nothing older can follow, since a serial device answers in order.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._until: dict[bytes, list[float]] = {}

    def add(self, request: Request, now: float) -> None:
        """Note that a reply to this request may still come."""
        self._until.setdefault(request.head, []).append(now + self._lasts_s)

    def came(self, head: bytes) -> None:
        """Note that one has come that begins like this."""
        if head in self._until:
            self._until[head].pop(0)
            if not self._until[head]:
                del self._until[head]

    def forget(self, request: Request) -> None:
        """Note that none can come any more that looks like this request's."""
        self._until.pop(request.head, None)

    def heads(self, now: float) -> list[bytes]:
        """Return what those begin with that may still come."""
        if self._until:
            self._until = {head: left for head, all_ in self._until.items() if (left := [t for t in all_ if t > now])}
        return list(self._until)


@dataclass(slots=True)
class _Watched:
    """A frame to look for: what it begins with, how long it is, and from where on it has not been looked for."""

    head: bytes
    length: int
    start: int = 0


class RtuLine(Line):
    """Modbus RTU, on a serial line or over TCP: a reply is known by its unit, function, size and CRC.

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
        self._wanted: tuple[bytes, ...] = ()
        self._watched: list[_Watched] = []

    async def ask(self, request: Request, fences: Sequence[Request]) -> bytes:
        """Ask, once the line is quiet and nothing older can be taken for the reply."""
        owed = self._late.heads(asyncio.get_running_loop().time())
        if request.head in owed:
            fence = next((fence for fence in fences if fence.head not in owed), None)
            if fence is None:
                raise OwedError("left alone until an old reply has come")
            await self._ask(fence, owed)
            self._late.forget(request)
        unit_id, pdu = await self._ask(request, owed)
        try:
            return request.payload(unit_id, pdu)
        except RefusedError as e:
            if any(head[0] == unit_id for head in owed):
                raise SilentError(f"{e}, perhaps to an earlier request") from e
            raise

    async def _ask(self, request: Request, owed: list[bytes]) -> tuple[int, bytes]:
        """Send a request in a silence, and return its reply, whichever it is."""
        await self._settle()
        self._buffer = b""
        self._wanted = (request.head, request.refusal_head)
        self._watched = [_Watched(request.head, request.size + 5), _Watched(request.refusal_head, 5)]
        self._watched += [_Watched(head, head[2] + 5) for head in owed if head != request.head]
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
        self._buffer += data
        if len(self._buffer) > _MAX_NOISE:
            self._fail(SilentError(f"not Modbus RTU: {self._buffer[:16].hex(' ')}"))
            self._buffer = b""
            return
        for watched in self._watched:
            reply = self._find(watched)
            if reply is None:
                continue
            waiter = self._waiter
            if watched.head in self._wanted and waiter is not None and not waiter.done():
                waiter.set_result(reply)
            else:
                self._late.came(watched.head)

    def _find(self, watched: _Watched) -> tuple[int, bytes] | None:
        """Return the unit and the PDU of a frame in the buffer, None while it is not there.

        Noise before it is passed over. Each candidate's CRC is computed once.
        """
        at = self._buffer.find(watched.head, watched.start)
        while at >= 0 and at + watched.length <= len(self._buffer):
            watched.start = at + 1
            _, unit_id, _, pdu = RTU.decode(self._buffer[at : at + watched.length])
            if pdu:
                watched.start = at + watched.length
                return unit_id, pdu
            at = self._buffer.find(watched.head, watched.start)
        watched.start = at if at >= 0 else max(watched.start, len(self._buffer) - len(watched.head) + 1)
        return None


class SerialLine(RtuLine):
    """Modbus RTU on a serial port, whose transport does not say when it is closed."""

    async def close(self) -> None:
        """Close the port."""
        if self._transport is not None and not self._gone.is_set():
            self._transport.abort()
            self.connection_lost(None)
