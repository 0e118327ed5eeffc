"""When to try again what has failed, and when not to."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any


class Backoff:
    """Waits that double from least to most, each shortened by up to a half at random, so that a fleet spreads out."""

    def __init__(self, *, least_s: float = 0.2, most_s: float = 10.0, chance: random.Random | None = None) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._chance = chance or random.SystemRandom()
        self._wait_s = least_s

    def next_s(self) -> float:
        """Return how long to wait this time, in seconds."""
        wait_s = self._wait_s
        self._wait_s = min(2 * wait_s, self._most_s)
        return max(self._least_s, wait_s * self._chance.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Start again from the shortest wait: it worked."""
        self._wait_s = self._least_s


async def attempt(once: Coroutine[Any, Any, None], *, name: str) -> None:
    """Run one attempt in a task of its own; raise what it raises.

    For whoever survives its errors and tries again. Before Python 3.13 a task group that fails just when its task is
    cancelled keeps the cancellation to itself (gh-116720): the caller would never hear that it is to stop.
    """
    task = asyncio.create_task(once, name=name)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    task.result()
