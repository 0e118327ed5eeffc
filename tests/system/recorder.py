"""Stands between collect and seal and notes what was handed over and what was acknowledged.

So what the seal has promised is known from elsewhere than from its own disk.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.app.paths import reachable
from gateway.codec.frames import FrameReader

_READ = 1 << 20


@dataclass(slots=True)
class Boot:
    """What one start of collect did.

    puts: kind and body by sequence number, as first sent. acked: all up to here are durable, says the seal.
    """

    puts: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    acked: int = 0
    first_ns: int = 0
    last_put_ns: int = 0


class Recorder:
    """A relay from the socket listen to the socket target. What it cannot hand on, it closes, as a kill would.

    boots: by boot id, in the order in which they came. faults: refusals, nonsense, and what was sent again changed.
    handed: set by each batch on its way to the seal.
    """

    def __init__(self, listen: Path, target: Path) -> None:
        self.boots: dict[bytes, Boot] = {}
        self.faults: list[str] = []
        self.fulls = 0
        self.handed = asyncio.Event()
        self._listen, self._target = listen, target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def acked(self) -> int:
        """Batches acknowledged, over all boots."""
        return sum(boot.acked for boot in self.boots.values())

    async def __aenter__(self) -> Self:
        self._listen.parent.mkdir(parents=True, exist_ok=True)
        with reachable(self._listen) as name:
            self._server = await asyncio.start_unix_server(self._accept, name)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer), name="recorder.relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with reachable(self._target) as name:
                seal_reader, seal_writer = await asyncio.open_unix_connection(name)
        except OSError:
            writer.close()
            return
        call = _Call(self)
        pumps = {
            asyncio.create_task(_pump(reader, seal_writer, call.from_collect), name="recorder.in"),
            asyncio.create_task(_pump(seal_reader, writer, call.from_seal), name="recorder.out"),
        }
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            seal_writer.close()


class _Call:
    """One connection's messages, in both directions."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._boot = Boot()
        self._in, self._out = FrameReader(), FrameReader()

    def from_collect(self, some: bytes) -> None:
        """Note what collect hands over."""
        for message in self._in.feed(some):
            match message:
                case ["hello", 1, bytes(boot)]:
                    self._boot = self._recorder.boots.setdefault(boot, Boot(first_ns=time.time_ns()))
                case ["put", int(sequence), str(kind), bytes(body)]:
                    if self._boot.puts.setdefault(sequence, (kind, body)) != (kind, body):
                        self._recorder.faults.append(f"collect sends {sequence} again, with other bytes")
                    self._boot.last_put_ns = time.time_ns()
                    self._recorder.handed.set()
                case _:
                    self._recorder.faults.append(f"collect says {str(message)[:200]}")

    def from_seal(self, some: bytes) -> None:
        """Note what the seal answers."""
        for message in self._out.feed(some):
            match message:
                case ["ack" | "welcome", int(last)]:
                    self._boot.acked = max(self._boot.acked, last)
                case ["full", int()]:
                    self._recorder.fulls += 1
                case _:
                    self._recorder.faults.append(f"seal says {str(message)[:200]}")


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while some := await source.read(_READ):
            note(some)
            sink.write(some)
            await sink.drain()
