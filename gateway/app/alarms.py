"""Sleeping until a time of the wall clock."""

import asyncio
from collections.abc import Sequence
from math import ceil
from operator import itemgetter
from typing import Final

# About as many as a small machine polls in that time.
_AT_ONCE: Final = 50
_APART_S: Final = 0.005


class Alarms:
    """One timer for all who wait for the same time.

    Devices share their ticks, and a timer of its own would cost each of them as much as to decode what it reads.
    """

    def __init__(self) -> None:
        self._sleepers: dict[int, list[tuple[int, asyncio.Future[None]]]] = {}

    def until(self, t_ns: int, now_ns: int, *, rank: int = 0) -> asyncio.Future[None]:
        """Return what is done at t_ns, if the clock is not stepped meanwhile.

        It may be up to a millisecond off, on either side: the loop's timers are no finer.
        rank: who comes first, each time; of very many, only so many wake at once. So a thousand devices are asked in
        the same order at each tick, no faster than they answer, and the time between two readings of one is even.
        """
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        sleepers = self._sleepers.get(t_ns)
        if sleepers is None:
            sleepers = self._sleepers[t_ns] = []
            loop.call_later(ceil((t_ns - now_ns) / 1_000_000) / 1000, self._ring, t_ns)
        sleepers.append((rank, sleeper))
        return sleeper

    def _ring(self, t_ns: int) -> None:
        self._wake([sleeper for _, sleeper in sorted(self._sleepers.pop(t_ns), key=itemgetter(0))])

    def _wake(self, sleepers: Sequence[asyncio.Future[None]]) -> None:
        for sleeper in sleepers[:_AT_ONCE]:
            if not sleeper.done():
                sleeper.set_result(None)
        if len(sleepers) > _AT_ONCE:
            asyncio.get_running_loop().call_later(_APART_S, self._wake, sleepers[_AT_ONCE:])
