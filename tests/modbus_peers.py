"""Modbus devices to test against: one that answers as it is told, and pymodbus's own server."""

import asyncio
import os
import struct
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import SimDevice

from gateway.drivers.modbus import Bus, ModbusDriver
from gateway.model import Point, WireType

KINDS = ["tcp", "rtu+tcp", "serial"]


def word(unit_id: int, address: int) -> int:
    """Return what every register of every device here holds: no two neighbours or units agree."""
    return (address * 40503 + unit_id * 257 + 1) & 0xFFFF


def words(unit_id: int, address: int, count: int) -> bytes:
    return struct.pack(f">{count}H", *(word(unit_id, a) for a in range(address, address + count)))


def crc16(frame: bytes) -> bytes:
    """Source: Modbus over Serial Line V1.02, 6.2.2."""
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request as it came."""

    raw: bytes
    rtu: bool
    transaction: int
    unit_id: int
    function: int
    address: int
    count: int

    @property
    def payload(self) -> bytes:
        """What a good device answers."""
        if self.function in {1, 2}:
            bits = sum((word(self.unit_id, self.address + i) & 1) << i for i in range(self.count))
            return bits.to_bytes((self.count + 7) // 8, "little")
        return words(self.unit_id, self.address, self.count)

    def frame(self, pdu: bytes, *, unit_id: int | None = None, transaction: int | None = None) -> bytes:
        """Frame a PDU as a reply to this request."""
        body = bytes([self.unit_id if unit_id is None else unit_id]) + pdu
        if self.rtu:
            return body + crc16(body)
        head = struct.pack(">HHH", self.transaction if transaction is None else transaction, 0, len(body))
        return head + body

    def reply(self, payload: bytes | None = None) -> bytes:
        """Return a good reply, or one with another payload."""
        payload = self.payload if payload is None else payload
        return self.frame(bytes([self.function, len(payload)]) + payload)

    def refusal(self, code: int) -> bytes:
        """Return an exception."""
        return self.frame(bytes([self.function | 0x80, code]))


Answer = Callable[[Ask], AsyncIterator[bytes | None]]


async def honest(ask: Ask) -> AsyncIterator[bytes | None]:
    """Answer every read as a good device."""
    yield ask.reply()


class Peer:
    """A server that answers each request, one after the other, as `answer` says: chunk by chunk; None hangs up.

    asked: the requests so far. wire: all bytes that ever came. sockets: how many are open; most: at one time.
    """

    def __init__(self, answer: Answer, kind: str = "tcp", *, only_one: bool = False, port: int = 0) -> None:
        self.answer = answer
        self.kind = kind
        self.asked: list[Ask] = []
        self.wire = bytearray()
        self.sockets = self.most = self.accepted = 0
        self.only_one = only_one
        self.port = port
        self._write: Callable[[bytes], object] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._fds: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where a bus reaches it."""
        if self._fds is not None:
            return f"serial://{os.ttyname(self._fds[1])}?baudrate=115200"
        return f"{self.kind}://127.0.0.1:{self.port}"

    def push(self, frame: bytes) -> None:
        """Send something out of turn."""
        if self._write is not None:
            self._write(frame)

    async def __aenter__(self) -> Self:
        if self.kind == "serial":
            self._open_pty()
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            # asyncio leaves open what it is just accepting when a server is closed.
            while accepting := [
                t for t in asyncio.all_tasks() if "accept_conn" in getattr(t.get_coro(), "__name__", "")
            ]:
                await asyncio.wait(accepting)
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next turn
        if self._fds is not None:
            asyncio.get_running_loop().remove_reader(self._fds[0])
            for fd in self._fds:
                os.close(fd)

    def _open_pty(self) -> None:
        self._fds = os.openpty()
        master = self._fds[0]
        tty.setraw(self._fds[1])
        incoming: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(master, lambda: incoming.put_nowait(os.read(master, 4096)))

        async def write(chunk: bytes) -> None:
            os.write(master, chunk)

        self._write = lambda frame: os.write(master, frame)
        task = asyncio.create_task(self._serve(incoming.get, write))
        self._tasks.add(task)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.sockets += 1
        self.most = max(self.most, self.sockets)
        self._write = writer.write
        self._writers.append(writer)
        self._tasks.add(asyncio.create_task(self._talk(reader, writer)))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(chunk: bytes) -> None:
            writer.write(chunk)
            await writer.drain()

        try:
            if not (self.only_one and self.sockets > 1):
                with suppress(ConnectionError):
                    await self._serve(lambda: reader.read(4096), write)
        finally:
            self.sockets -= 1
            writer.transport.abort()

    async def _serve(self, read: Callable[[], object], write: Callable[[bytes], object]) -> None:
        rest = b""
        while True:
            data: bytes = await read()  # type: ignore[misc]
            if not data:
                return
            self.wire += data
            rest += data
            while (ask := self._cut(rest)) is not None:
                rest = rest[len(ask.raw) :]
                self.asked.append(ask)
                async for chunk in self.answer(ask):
                    if chunk is None:
                        return
                    await write(chunk)  # type: ignore[misc]

    def _cut(self, buffer: bytes) -> Ask | None:
        """Return the first request in a buffer."""
        rtu = self.kind != "tcp"
        if len(buffer) < (8 if rtu else 12):
            return None
        raw = buffer[:8] if rtu else buffer[:12]
        assert not rtu or raw[-2:] == crc16(raw[:-2])
        unit_id, function, address, count = struct.unpack(">BBHH", raw[:6] if rtu else raw[6:])
        transaction = 0 if rtu else int.from_bytes(raw[:2], "big")
        return Ask(
            raw=raw, rtu=rtu, transaction=transaction, unit_id=unit_id, function=function, address=address, count=count
        )


@asynccontextmanager
async def stock_server(kind: str, devices: list[SimDevice]) -> AsyncIterator[str]:
    """Run pymodbus's own server, and give the URL to reach it by."""
    server: ModbusTcpServer | ModbusSerialServer
    if kind == "serial":
        ours, theirs = os.openpty(), os.openpty()
        for _, slave in (ours, theirs):
            tty.setraw(slave)
        loop = asyncio.get_running_loop()
        # Two pseudo terminals, back to back, are a null modem cable.
        loop.add_reader(ours[0], lambda: os.write(theirs[0], os.read(ours[0], 4096)))
        loop.add_reader(theirs[0], lambda: os.write(ours[0], os.read(theirs[0], 4096)))
        server = ModbusSerialServer(devices, framer=FramerType.RTU, port=os.ttyname(theirs[1]), baudrate=115200)
        await server.serve_forever(background=True)
        try:
            yield f"serial://{os.ttyname(ours[1])}?baudrate=115200&parity=N&stopbits=1"
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]
            for master, slave in (ours, theirs):
                loop.remove_reader(master)
                os.close(master)
                os.close(slave)
        return
    framer = FramerType.SOCKET if kind == "tcp" else FramerType.RTU
    server = ModbusTcpServer(devices, framer=framer, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        yield f"{kind}://127.0.0.1:{port}"
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


def u16s(*addresses: int, function: int = 3) -> list[Point]:
    """Return points of single registers, named by their address."""
    return [Point(name=f"r{a}", function=function, address=a, type=WireType.U16) for a in addresses]


@asynccontextmanager
async def driver_of(
    url: str, points: list[Point], *, unit_id: int = 1, timeout_s: float = 0.5, **more: object
) -> AsyncIterator[ModbusDriver]:
    """Give a driver on a bus of its own."""
    driver = ModbusDriver(name="meter", points=points, bus=Bus(url, timeout_s), unit_id=unit_id, **more)  # type: ignore[arg-type]
    try:
        yield driver
    finally:
        await driver.close()
