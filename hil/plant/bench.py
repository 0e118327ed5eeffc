"""Many equal meters for benchmarks: 60 float32 in registers 0 to 119 each, served from ready-made replies.

Each number says whose it is and when it was made, so a reader can count crossed and stale values:
value = (meter * floats + index) * GENERATIONS + generation % GENERATIONS, an integer that a float32
holds exactly up to 2**24 (meter 8,737 with 60 floats).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from hil.plant.hostile import Hostile
from hil.plant.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GENERATIONS = 32
MOST_UNITS = 247
"""Unit ids of a line."""


class BenchMeter:
    """One meter; the same image for FC 1 to 4."""

    functions = frozenset({1, 2, 3, 4})
    alive = True

    def __init__(self, bench: Bench, index: int) -> None:
        self._bench, self._index = bench, index
        self._generation = -1
        self._image = b""

    def read(self, function: int, address: int, count: int) -> bytes:
        """Return registers, or the same bytes as bits. Raises LookupError beyond the last."""
        if self._generation != self._bench.generation:
            self._generation = self._bench.generation
            self._image = self._bench.image(self._index)
        if function < 3:
            if address + count > 8 * len(self._image):
                raise LookupError
            bits = int.from_bytes(self._image, "little") >> address & ((1 << count) - 1)
            return bits.to_bytes((count + 7) // 8, "little")
        if 2 * (address + count) > len(self._image):
            raise LookupError
        return self._image[2 * address : 2 * (address + count)]


class Bench:
    """All meters of a benchmark, and the generation that they are at."""

    def __init__(self, *, meters: int, registers: int = 120) -> None:
        if meters < 1 or registers < 2 or registers % 2:
            raise ValueError(f"got {meters} meters of {registers} registers, want at least 1 of an even number")
        self.generation = 0
        self.floats = registers // 2
        self._layout = struct.Struct(f">{self.floats}f")
        self.meters = [BenchMeter(self, index) for index in range(meters)]

    def image(self, index: int) -> bytes:
        """Return all registers of a meter, now."""
        first = index * self.floats * GENERATIONS + self.generation % GENERATIONS
        return self._layout.pack(*range(first, first + self.floats * GENERATIONS, GENERATIONS))

    def lines(self, ports: int) -> Iterator[dict[int, BenchMeter]]:
        """Share the meters out evenly over ports, in order, with unit ids from 1 on each."""
        start = 0
        for i in range(ports):
            stop = (i + 1) * len(self.meters) // ports
            yield dict(enumerate(self.meters[start:stop], 1))
            start = stop


def origin(value: float, floats: int = 60) -> tuple[int, int, int]:
    """Return (meter, index, generation modulo GENERATIONS) of a number that was read."""
    place, generation = divmod(int(value), GENERATIONS)
    return *divmod(place, floats), generation


@asynccontextmanager
async def serve_bench(
    bench: Bench,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ports: int = 1,
    change_s: float = 1.0,
    framing: Literal["tcp", "rtu"] = "tcp",
    hostile: Hostile | None = None,
) -> AsyncIterator[Server]:
    """Serve the meters; every number changes each change_s seconds."""
    ports = max(ports, -(-len(bench.meters) // MOST_UNITS))
    server = Server([*bench.lines(ports)], host=host, port=port, framing=framing, hostile=hostile, cached=True)
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def change() -> None:
        nonlocal timer
        bench.generation += 1
        for line in server.lines:
            if line.cache is not None:
                line.cache.clear()
        timer = loop.call_later(change_s, change)

    async with server:
        timer = loop.call_later(change_s, change)
        try:
            yield server
        finally:
            timer.cancel()
