"""Modbus RTU, whose replies do not say which request they answer: how each is still taken for the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.drivers.modbus_line import Line
from gateway.drivers.modbus_pdu import RTU, OwedError, RefusedError, Request, SilentError
from gateway.errors import DeviceError

# More than this for one request is no reply: the longest is 256 bytes.
_MAX_NOISE: Final = 2048


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
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._deadline = 0.0

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
                self._owe(request)
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
                self._owe(request)
        return reply

    def _owe(self, request: Request) -> None:
        """Note that the reply to a request may still come."""
        self._troubled = True
        self._busy_at = asyncio.get_running_loop().time()
        self._late.add(request, self._busy_at)

    async def _exchange(self, frame: bytes) -> tuple[int, bytes]:
        """Send the frame of a request and return the unit and the PDU of its reply."""
        if self.lost:
            raise DeviceError("connection closed")
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
            self._watched = []
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
