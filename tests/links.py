"""What the tests of the northern link share: certificates, endpoints, and a proxy that turns into a black hole."""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.north.pki import make_dev_ca
from gateway.north.tls import Endpoint

HOST = "127.0.0.1"
LEDGER = "ledger"


def make_pki(folder: Path, *gateways: str) -> Path:
    """Return a folder with all certificates and keys for these gateways and a broker on the loopback address."""
    make_dev_ca(folder, gateways=gateways or ("gw1", "gw2"), ledger=LEDGER, hosts=[HOST, "localhost"])
    return folder


def endpoint(pki: Path, port: int, name: str, *, host: str = HOST, ca: Path | None = None) -> Endpoint:
    """Return the broker's place, and name's certificate."""
    return Endpoint(host=host, port=port, ca=(ca or pki) / "ca.pem", cert=pki / f"{name}.pem", key=pki / f"{name}.key")


class Proxy:
    """A TCP relay on the loopback interface. In the dark it neither forwards nor closes anything: a black hole."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.connections = 0
        self._target_port = target_port
        self._light = asyncio.Event()
        self._light.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def aim(self, target_port: int) -> None:
        """Relay new connections to this port."""
        self._target_port = target_port

    def darken(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._light.clear()

    def lighten(self) -> None:
        """Let new bytes pass again."""
        self._light.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._light.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.close()
            return
        self._writers.append(far_writer)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while some := await source.read(65_536):
                await self._light.wait()
                sink.write(some)
                await sink.drain()
        sink.close()
