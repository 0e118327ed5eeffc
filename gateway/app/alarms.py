"""Sleeping until a time of the wall clock."""

import asyncio
from math import ceil


class Alarms:
    """One timer for all who wait for the same time.

    Devices share their ticks, and a timer of its own would cost each of them as much as to decode what it reads.
    """

    def __init__(self) -> None:
        self._sleepers: dict[int, list[asyncio.Future[None]]] = {}

    def until(self, t_ns: int, now_ns: int) -> "asyncio.Future[None]":
        """Return what is done at t_ns, if the clock is not stepped meanwhile.

        It may be up to a millisecond off, on either side: the loop's timers are no finer.
        """
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        sleepers = self._sleepers.get(t_ns)
        if sleepers is None:
            sleepers = self._sleepers[t_ns] = []
            loop.call_later(ceil((t_ns - now_ns) / 1_000_000) / 1000, self._ring, t_ns)
        sleepers.append(sleeper)
        return sleeper

    def _ring(self, t_ns: int) -> None:
        for sleeper in self._sleepers.pop(t_ns):
            if not sleeper.done():
                sleeper.set_result(None)
