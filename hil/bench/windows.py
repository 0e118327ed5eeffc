"""A steady window of a client: what its values took of its own CPU, and of its peer's."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from hil.bench.usage import Spent, Watch, usage_of

_READY_S: Final = 40.0
_SETTLE_S: Final = 0.3
_LOOK_S: Final = 0.05

About = Mapping[str, Any]
"""What a stage is told, such as the `points`, the `seconds` of its window, and the process id of its `peer`."""
Both = Mapping[str, Spent]
Count = Callable[[], int]
Ready = Callable[[], bool]


class FilledOutbox:
    """Our own outbox, flushed as collect does it; and how many values came by it. seen: the columns that were told."""

    def __init__(self) -> None:
        from gateway.app.outbox import Outbox  # noqa: PLC0415 - the bare library shall not pay for it

        self.outbox = Outbox(most_bytes=1 << 20)
        self.values = 0
        self.seen: set[tuple[bytes, int]] = set()
        self._all = False

    def tell(self, changes: Sequence[Any]) -> None:
        """Take changes; those without a value do not count."""
        self.values += len([1 for change in changes if change.value is not None])
        if not self._all:
            self.seen.update((change.schema.id, change.column) for change in changes if change.value is not None)
        self.outbox.tell(changes)

    def seen_all(self, points: int) -> bool:
        """Return whether so many columns have told a value."""
        self._all = len(self.seen) == points
        return self._all

    async def beat(self) -> None:
        """Close batches for ever."""
        from gateway.app.collector import FLUSH_S  # noqa: PLC0415

        while True:
            await asyncio.sleep(FLUSH_S)
            self.outbox.flush()


class Window(Watch):
    """A stop-watch for the client, and for the CPU of its peer: about's process id `peer`."""

    def __init__(self, about: About) -> None:
        super().__init__()
        self._peer, self._peer_cpu_s = about["peer"], 0.0

    def __enter__(self) -> None:
        self._peer_cpu_s -= usage_of(self._peer).cpu_s
        super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._peer_cpu_s += usage_of(self._peer).cpu_s

    def both(self, points: int) -> Both:
        """Return what the points took of the client, and of the peer. Raises RuntimeError when there were none."""
        if not points:
            raise RuntimeError("no value came")
        used = usage_of(self._peer)
        peer = Spent(points=points, seconds=self.seconds, cpu_s=self._peer_cpu_s, rss_mb=used.rss_mb)
        return {"client": self.spent(points), "peer": peer}


async def told(tasks: Sequence[Coroutine[Any, Any, None]], ready: Ready, count: Count, about: About) -> Both:
    """Measure while these run: once all points have told something, let the peer change them, and count."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(each) for each in tasks]
        async with asyncio.timeout(_READY_S):
            while not ready():  # noqa: ASYNC110 - a library's handler has no event to set
                await asyncio.sleep(_LOOK_S)
        os.kill(about["peer"], signal.SIGUSR1)
        await asyncio.sleep(_SETTLE_S)
        window, before = Window(about), count()
        with window:
            await asyncio.sleep(about["seconds"])
        both = window.both(count() - before)
        for task in running:
            task.cancel()
    return both


async def asked(asks: Sequence[Callable[[], Coroutine[Any, Any, None]]], count: Count, about: About) -> Both:
    """Ask all at once, each again and again, and to the end of an answer: no value counts whose cost does not."""

    async def keep_asking(ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while time.perf_counter() < end:
            await ask()

    before, window, end = count(), Window(about), time.perf_counter() + about["seconds"]
    with window:
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                group.create_task(keep_asking(ask))
    return window.both(count() - before)
