"""One Modbus connection: a request out, its own reply in, and nothing else ever taken for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from gateway.drivers.modbus_pdu import TCP, Request, SilentError
from gateway.errors import DeviceError

# Modbus Messaging on TCP/IP V1.0b, 3.1.3: unit and PDU, at most 1 + 253 bytes.
_MAX_LENGTH: Final = 254


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
