"""The one connection to a host or a serial port, shared by all devices behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pymodbus.transport.serialtransport import create_serial_connection

from gateway.drivers.modbus_line import Line
from gateway.drivers.modbus_pdu import OwedError, RefusedError, Request, SilentError, UnreachableError
from gateway.drivers.modbus_rtu import Late, RtuLine, SerialLine
from gateway.drivers.modbus_tcp import TcpLine
from gateway.errors import ConfigError, DeviceError

# After so many requests without a byte in reply, a TCP connection may be a dead one that nobody closed.
_MISSES: Final = 3
# Silence after trouble on RTU over TCP, where the network decides when bytes come.
_TCP_QUIET_S: Final = 0.02
# How long a serial device is thought able to answer a request that timed out: in time-outs, and at least.
_LATE: Final = 10
_LATE_S: Final = 1.0
_SERIAL: Final = {"baudrate": "9600", "parity": "N", "stopbits": "1"}


class Bus:
    """One connection to `tcp://host:port`, `rtu+tcp://host:port` or `serial:///dev/tty?baudrate=9600&parity=N&stopbits=1`.

    It connects when something is asked, first come first served.
    timeout_s: the most that a connection, and then a reply, may take.
    pipeline: how many requests may be under way at once.
    connects: how many connections there have been.
    Raises ConfigError for a URL of another form, and for a pipeline where nothing but the order tells replies apart.
    """

    def __init__(self, url: str, timeout_s: float = 1.0, *, pipeline: int = 1) -> None:
        self.url = url
        self.connects = 0
        self._timeout_s = timeout_s
        self._parts = _split(url)
        self._serial = _serial_settings(self._parts)
        if pipeline > 1 and self.is_rtu:
            raise ConfigError(f"pipeline: got {pipeline}, want 1: only Modbus/TCP tells replies apart")
        self._turns = asyncio.Lock() if pipeline == 1 else asyncio.Semaphore(pipeline)
        self._connecting = asyncio.Lock()
        self._line: Line | None = None
        self._late = Late(max(_LATE * timeout_s, _LATE_S))
        self._users = 0
        self._shut_until = 0.0
        self._why = ""

    @property
    def is_rtu(self) -> bool:
        """Whether unit 0 is a broadcast that nobody answers, and units end at 247."""
        return self._parts.scheme != "tcp"

    async def read(self, request: Request, fences: Sequence[Request] = ()) -> bytes:
        """Return the registers or bits that a device answers.

        fences: see `Line.ask`. Raises RefusedError, SilentError, OwedError, UnreachableError, or DeviceError for a
        wrong reply: that also ends the connection, so that what follows it is never taken for another.
        """
        # Not `async with`: that is two more coroutines for each request.
        await self._turns.acquire()
        line = self._line
        try:
            if line is None or line.lost:
                line = await self._connected()
            return await line.ask(request, fences)
        except (RefusedError, OwedError, UnreachableError):
            raise
        except SilentError:
            if line is not None and (line.torn or (line.misses >= _MISSES and self._serial is None)):
                await line.close()
            raise
        except DeviceError:
            if line is not None:
                await line.close()
            raise
        finally:
            self._turns.release()

    def join(self) -> None:
        """Count a device that uses this bus."""
        self._users += 1

    async def leave(self) -> None:
        """Close the connection once the last device has left."""
        self._users -= 1
        if self._users <= 0:
            await self.close()

    async def close(self) -> None:
        """Close the connection; the next read opens another."""
        line = self._line
        if line is not None:
            await line.close()
            if self._line is line:
                self._line = None

    async def _connected(self) -> Line:
        """Return an open connection: what another request has just opened, else a new one once the old one is gone."""
        async with self._connecting:
            if self._line is None or self._line.lost:
                await self.close()
                self._line = await self._connect()
            return self._line

    async def _connect(self) -> Line:
        """Open a connection.

        A failure holds for the time that it may have taken, so that many devices behind one dead host
        do not each wait for it.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._shut_until:
            raise UnreachableError(self._why)
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._open(loop)
        except (OSError, UnicodeError) as e:
            self._why = f"cannot connect to {self.url}: {str(e) or 'no answer in time'}"
            self._shut_until = loop.time() + self._timeout_s
            raise UnreachableError(self._why) from e
        self.connects += 1
        return line

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Line:
        """Open the socket or the port."""
        if self._serial is not None:
            baudrate, parity, stopbits = self._serial
            # Modbus over Serial Line V1.02, 2.5.1.1: 11 bits a character; above 19200 Bd a fixed 1.75 ms.
            gap_s = max(3.5 * 11 / baudrate, 0.00175)
            port = SerialLine(self._timeout_s, gap_s=gap_s, quiet_s=gap_s, late=self._late)
            # It does not suspend, so nothing can cancel it and leave the port locked.
            transport, _ = await create_serial_connection(
                loop, lambda: port, self._parts.path, baudrate=baudrate, bytesize=8, parity=parity, stopbits=stopbits
            )
            port.connection_made(transport)
            return port
        line: Line
        if self._parts.scheme == "tcp":
            line = TcpLine(self._timeout_s)
        else:
            line = RtuLine(self._timeout_s, gap_s=0, quiet_s=_TCP_QUIET_S, late=self._late)
        await loop.create_connection(lambda: line, self._parts.hostname or "", self._parts.port or 0)
        return line


def _split(url: str) -> SplitResult:
    """Return the parts of a URL; raises ConfigError where it is none of ours."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname and parts.port) if parts.scheme in {"tcp", "rtu+tcp"} else len(parts.path) > 1
    except ValueError as e:
        raise ConfigError(f"url: got {url}, want a host and a port") from e
    if parts.scheme not in {"tcp", "rtu+tcp", "serial"} or not good:
        raise ConfigError(f"url: got {url}, want tcp://host:port, rtu+tcp://host:port or serial:///dev/...")
    return parts


def _serial_settings(parts: SplitResult) -> tuple[int, str, float] | None:
    """Return baud rate, parity and stop bits; None where it is no serial line."""
    if parts.scheme != "serial":
        return None
    settings = _SERIAL | dict(parse_qsl(parts.query))
    try:
        baudrate, stopbits = int(settings["baudrate"]), float(settings["stopbits"])
    except ValueError as e:
        raise ConfigError(f"url: got {parts.query}, want baudrate and stopbits to be numbers") from e
    known = settings.keys() == _SERIAL.keys() and settings["parity"] in {"N", "E", "O"} and stopbits in {1, 1.5, 2}
    if not known or baudrate < 1:
        raise ConfigError(f"url: got {parts.query}, want baudrate=9600&parity=N|E|O&stopbits=1|1.5|2")
    return baudrate, settings["parity"], stopbits
