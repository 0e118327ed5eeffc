"""Knows when the machine itself stood still: on a shared one, whole seconds pass in which no process runs."""

import threading
import time
from types import TracebackType
from typing import Self

_BEAT_S = 0.02
_LATE_S = 0.1


class Pulse:
    """A thread that only sleeps, and notes when it overslept. stalls: from when to when, UTC seconds."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)

    def _beat(self) -> None:
        last_s = time.time()
        while not self._stopped.wait(_BEAT_S):
            now_s = time.time()
            if now_s - last_s > _BEAT_S + _LATE_S:
                self.stalls.append((last_s, now_s))
            last_s = now_s

    def stood_still(self, began_s: float, ended_s: float) -> float:
        """Return how long of this span nothing ran, in seconds."""
        return sum(max(0.0, min(end, ended_s) - max(start, began_s)) for start, end in self.stalls)
