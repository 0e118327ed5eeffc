"""One Modbus connection: a request out, its own reply in, and nothing else ever taken for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any

from gateway.drivers.modbus_pdu import Request
from gateway.errors import DeviceError


class Line(asyncio.Protocol, ABC):
    """One open connection.

    lost: nothing more can be asked. misses: requests in a row without a single byte in reply.
    torn: a part of a reply has come that the next reply must not complete.
    """

    def __init__(self, timeout_s: float) -> None:
        self.lost = False
        self.misses = 0
        self.torn = False
        self._timeout_s = timeout_s
        self._transport: Any = None
        self._gone = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; called by the loop."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way; called by the loop."""
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
    def ask(self, request: Request, fences: Sequence[Request]) -> Awaitable[bytes]:
        """Return the registers or bits that the device answers.

        fences: what may be asked before, where an old reply may still come that looks like this one's: see Late.
        Raises RefusedError for an exception, SilentError when no reply came in time, OwedError where nothing was
        asked, DeviceError for a wrong reply.
        """

    @abstractmethod
    def _fail(self, error: DeviceError) -> None:
        """End what is under way with an error."""
