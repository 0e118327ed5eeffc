"""What the tests of the northern link share: certificates, endpoints, and a proxy that turns into a black hole."""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.north.mqtt import Endpoint
from gateway.north.pki import make_dev_ca

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

    def darken(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._light.clear()

    def lighten(self) -> None:
        """Let new bytes pass again."""
        self._light.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            await self._light.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
            for source, sink in ((reader, far_writer), (far_reader, writer)):
                task = asyncio.create_task(self._pump(source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while some := await source.read(65_536):
                await self._light.wait()
                sink.write(some)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
