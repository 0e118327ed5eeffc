"""Meters that a test serves itself, so that it can silence one of them and knows what each ever said."""

import asyncio
import bisect
import contextlib
import time
from collections.abc import AsyncIterator

from gateway.model import Quality
from hil.plant.bench import GENERATIONS, Bench, origin
from hil.plant.server import Server
from tests.system.books import Placed

TEMPLATE = "wattseal-bench-60f32"
CHANGE_S = 0.5
"""All numbers of all meters are new so often, and say of which meter, point and moment they are."""

_DEVICE_TOML = """
[devices.{name}]
template = "{template}"
url = "tcp://127.0.0.1:{port}"
unit_id = {unit_id}
period_s = {period_s}
timeout_s = {timeout_s}
own_connection = {own_connection}
"""


class Meters:
    """Running meters m0, m1, ... of 60 numbers each, on one port or more."""

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench, self._server = bench, server
        self._since: list[float] = []
        self._numbers: list[int] = []

    @property
    def names(self) -> list[str]:
        """Of all devices, in order."""
        return [f"m{index}" for index in range(len(self._bench.meters))]

    def devices(
        self, *, period_s: float, timeout_s: float = 1.0, own_connection: bool = False, prefix: str = ""
    ) -> str:
        """Return the sections of gateway.toml that name them all."""
        text, index = "", 0
        for port, line in zip(self._server.ports, self._server.lines, strict=True):
            for unit_id in sorted(line.units):
                text += _DEVICE_TOML.format(
                    name=f"{prefix}m{index}",
                    template=TEMPLATE,
                    port=port,
                    unit_id=unit_id,
                    period_s=period_s,
                    timeout_s=timeout_s,
                    own_connection=str(own_connection).lower(),
                )
                index += 1
        return text

    def silence(self, index: int) -> float:
        """Let a meter answer nothing any more; return since when, UTC seconds."""
        self._bench.meters[index].alive = False
        return time.time()

    def revive(self, index: int) -> float:
        """Let it answer again; return since when, UTC seconds."""
        self._bench.meters[index].alive = True
        return time.time()

    async def stop(self) -> None:
        """End all connections, and take no more."""
        await self._server.__aexit__()

    async def change(self) -> None:
        """Give all meters new numbers, again and again, until cancelled."""
        while True:
            self._bench.generation += 1
            self._since.append(time.time())
            self._numbers.append(self._bench.generation)
            await asyncio.sleep(CHANGE_S)

    def check(self, index: int, placed: Placed, *, within_s: float) -> None:
        """Fail unless each value of a row is this meter's own, of that point, and was true within_s before its time."""
        last = bisect.bisect_right(self._since, placed.t_s)
        first = max(0, bisect.bisect_right(self._since, placed.t_s - within_s) - 1)
        fresh = {number % GENERATIONS for number in self._numbers[first:last]}
        for place, value in enumerate(placed.row.values):
            if placed.row.qualities is not None and placed.row.qualities[place] != Quality.GOOD:
                continue
            assert isinstance(value, float)
            meter, point, generation = origin(value)
            assert (meter, point) == (index, place), f"m{index} shows a value of m{meter}, point {point}"
            assert generation in fresh, f"m{index}: generation {generation} at {placed.t_s}, want one of {fresh}"


@contextlib.asynccontextmanager
async def serving_meters(count: int, *, ports: int) -> AsyncIterator[Meters]:
    """Serve meters on so many ports of the loopback interface."""
    bench = Bench(meters=count)
    async with Server([*bench.lines(ports)]) as server:
        meters = Meters(bench, server)
        changing = asyncio.create_task(meters.change(), name="meters.change")
        try:
            yield meters
        finally:
            changing.cancel()
