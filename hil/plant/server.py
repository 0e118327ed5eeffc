"""Ports that serve units: Modbus TCP, RTU over TCP, and RTU on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, cast

from hil.plant.hostile import Hostile, Mischief, Outlet
from hil.plant.modbus import (
    TARGET_SILENT,
    FrameError,
    Framing,
    Request,
    RtuFraming,
    Source,
    TcpFraming,
    answer,
    exception,
)

FRAMINGS: Mapping[str, type[TcpFraming | RtuFraming]] = {"tcp": TcpFraming, "rtu": RtuFraming}
_FRAME_GAP_S = 0.1
"""Half an RTU request that is this old was never finished. The standard's 3.5 characters are too tight for TCP."""
_REQUEST = 12
"""Bytes of an MBAP frame that reads: all of them are as long, which is what makes the fast path possible."""
_CACHE_MOST = 65_536


class Port:
    """What one listening socket, or serial line, has behind it.

    cache: request frame without its transaction number -> reply frame without it; None where replies
        change from one instant to the next. Whoever changes what the units read clears it.
    """

    def __init__(self, units: Mapping[int, Source], *, framing: Framing, hostile: Hostile | None, cached: bool) -> None:
        self.units, self.framing = units, framing
        self.mischief = Mischief(hostile) if hostile else None
        self.cache: dict[bytes, bytes] | None = {}
        if self.mischief or not cached or not isinstance(framing, TcpFraming):
            self.cache = None
        self.connections: set[Connection] = set()

    def reply(self, request: Request) -> bytes | None:
        """Return the PDU that answers a request; None for silence."""
        source = self.units.get(request.unit)
        if source is None:
            return None if self.framing.silent_when_unknown else exception(request.pdu[0], TARGET_SILENT)
        if not source.alive:
            return None
        if self.mischief and (refusal := self.mischief.refusal(request.pdu)):
            return refusal
        return answer(request.pdu, source)


class Connection(asyncio.Protocol):
    """One client. Answers all requests of a segment in one write.

    The fast path slices bytes: for pieces this short that costs less than a memoryview does.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._stream = bytearray()
        self._last_s = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving, unless this is a second client where one is the limit."""
        self.transport = cast("asyncio.Transport", transport)
        mischief = self._port.mischief
        self._outlet = Outlet(mischief, write=self.transport.write, close=self.transport.close) if mischief else None
        if mischief and mischief.hostile.one_socket and self._port.connections:
            self.transport.abort()
            return
        self._port.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface has it
        """Forget the client."""
        self._port.connections.discard(self)
        if self._outlet:
            self._outlet.stop()

    def pause_writing(self) -> None:
        """Take no requests while the client does not take replies."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer what has come in whole."""
        cache = self._port.cache
        if cache is not None and not self._stream:
            if len(data) == _REQUEST and (tail := cache.get(data[2:])) is not None:
                self.transport.write(data[:2] + tail)
                return
            data = self._fast(data, cache)
        if data:
            self._slow(data)

    def _fast(self, data: bytes, cache: dict[bytes, bytes]) -> bytes:
        """Answer requests from the cache; return what is left from the first that is not there."""
        out: list[bytes] = []
        start = 0
        for start in range(0, len(data) - _REQUEST + 1, _REQUEST):
            tail = cache.get(data[start + 2 : start + _REQUEST])
            if tail is None:
                break
            out += (data[start : start + 2], tail)
        else:
            start = len(data) - len(data) % _REQUEST
        if out:
            self.transport.write(b"".join(out))
        return data[start:]

    def _slow(self, data: bytes) -> None:
        port, framing = self._port, self._port.framing
        if self._stream and framing.silent_when_unknown and self._loop.time() - self._last_s > _FRAME_GAP_S:
            self._stream.clear()
        self._last_s = self._loop.time()
        self._stream += data
        out: list[bytes] = []
        try:
            for request in framing.split(self._stream):
                pdu = port.reply(request)
                if pdu is None:
                    continue
                if self._outlet:
                    self._outlet.send(request, pdu, framing)
                    continue
                frame = framing.frame(request, request.unit, pdu)
                out.append(frame)
                if port.cache is not None and pdu[0] < 0x80 and len(port.cache) < _CACHE_MOST:
                    # A read that succeeded had a PDU of five bytes, so its key is the ten bytes after the number.
                    port.cache[b"\0\0\0\6" + bytes((request.unit,)) + request.pdu] = frame[2:]
        except FrameError:
            self.transport.write(b"".join(out))
            self.transport.close()
            return
        if out:
            self.transport.write(b"".join(out))


class Server:
    """Listening ports; an async context manager.

    units: one mapping a port. port: the first port number, 0 for free ones.
    """

    def __init__(
        self,
        units: Sequence[Mapping[int, Source]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        framing: Literal["tcp", "rtu"] = "tcp",
        hostile: Hostile | None = None,
        cached: bool = False,
    ) -> None:
        self.host, self._first = host, port
        self.framing = framing
        self.lines = [Port(each, framing=FRAMINGS[framing](), hostile=hostile, cached=cached) for each in units]
        self._listeners: list[asyncio.Server] = []
        self.ports: tuple[int, ...] = ()

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    def listening(self) -> list[dict[str, object]]:
        """Return what listens where, as JSON can hold it."""
        return [
            {"host": self.host, "port": port, "framing": self.framing, "units": sorted(line.units)}
            for port, line in zip(self.ports, self.lines, strict=True)
        ]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            for i, line in enumerate(self.lines):
                number = self._first + i if self._first else 0
                self._listeners.append(
                    await loop.create_server(lambda line=line: Connection(line), self.host, number)  # type: ignore[misc]
                )
        except OSError:
            await self.__aexit__()
            raise
        self.ports = tuple(listener.sockets[0].getsockname()[1] for listener in self._listeners)
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        for line in self.lines:
            for connection in tuple(line.connections):
                connection.transport.abort()
        for listener in self._listeners:
            await listener.wait_closed()


class SerialServer:
    """The same units on one RTU line: a pseudo-terminal, with a symbolic link to it at path."""

    def __init__(self, units: Mapping[int, Source], path: Path, *, hostile: Hostile | None = None) -> None:
        self.path = path
        self._port = Port(units, framing=RtuFraming(), hostile=hostile, cached=False)

    async def __aenter__(self) -> Self:
        # Our own end of the slave stays open, so that the master does not fail while no client has it open.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        if self.path.is_symlink():
            self.path.unlink()
        self.path.symlink_to(os.ttyname(self._slave))
        self._connection = Connection(self._port)
        self._connection.connection_made(_Line(self._master))
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        self._connection.connection_lost(None)
        self.path.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 4096)
        except BlockingIOError:
            return
        self._connection.data_received(data)


class _Line(asyncio.Transport):
    """A transport onto a serial line, which loses what nobody takes."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            os.write(self._fd, data)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Stay open: a serial line has no end to close."""
