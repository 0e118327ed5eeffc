"""Counts how often an asset starts, and how long it runs loaded, from what a power gauge shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.carbon.alerts.observe import MINUTE_NS

OFF_BELOW = 0.9
"""Of the power above which it runs: only below this part of it has it stopped, so that noise is no start."""
POLLED_NS, TOLD_NS = 5 * MINUTE_NS, 60 * MINUTE_NS
"""Over a longer silence nothing is known: of a gauge that is polled, and of one that tells what is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """One minute of one asset. starts: how often it went from off to on. loaded_ns, seen_ns: running, and known.

    last_ns, running: of the newest sample in it: where the next minute takes up.
    """

    start_ns: int
    starts: int = 0
    loaded_ns: int = 0
    seen_ns: int = 0
    last_ns: int = 0
    running: bool = False


class CycleCounter:
    """One asset's gauge. running_w: above it the asset runs loaded. newest: the minute to go on from."""

    def __init__(self, running_w: float, newest: Minute | None = None) -> None:
        self.running_w = running_w
        self._open = newest
        self._done: list[Minute] = []
        self._newest_ns = 0 if newest is None else max(newest.start_ns, newest.last_ns)

    def take(self, t_ns: int, watts: float | None, longest_ns: int = POLLED_NS) -> None:
        """Take a sample; None for one that is not GOOD. What is not after the newest one is passed over.

        longest_ns: for so long a value holds, at most.
        """
        before = self._open
        if t_ns <= self._newest_ns:
            return
        self._newest_ns = t_ns
        if watts is None:
            self._forget()
            return
        was = before is not None and before.running
        known = before is not None and before.last_ns > 0 and t_ns - before.last_ns <= longest_ns
        runs = watts > self.running_w * (OFF_BELOW if was and known else 1.0)
        if before is not None and known:
            self._spread(before.last_ns, t_ns, loaded=was)
        minute = self._minute(t_ns)
        begins = runs and known and not was
        self._open = replace(minute, starts=minute.starts + begins, last_ns=t_ns, running=runs)

    def rows(self) -> Iterator[Minute]:
        """Yield the minutes that are new or have changed since the last time, the open one last."""
        done, self._done = self._done, []
        yield from done
        if self._open is not None:
            yield self._open

    def _forget(self) -> None:
        """Let the next sample begin anew."""
        if self._open is not None:
            self._open = replace(self._open, last_ns=0, running=False)

    def _minute(self, t_ns: int) -> Minute:
        start_ns = t_ns // MINUTE_NS * MINUTE_NS
        if self._open is not None and self._open.start_ns == start_ns:
            return self._open
        if self._open is not None:
            self._done.append(self._open)
        return Minute(start_ns=start_ns)

    def _spread(self, from_ns: int, to_ns: int, *, loaded: bool) -> None:
        """Add the time between two samples to the minutes in which it lies, as what the first one showed."""
        while from_ns < to_ns:
            minute = self._minute(from_ns)
            until = min(to_ns, minute.start_ns + MINUTE_NS)
            self._open = replace(
                minute,
                loaded_ns=minute.loaded_ns + (until - from_ns if loaded else 0),
                seen_ns=minute.seen_ns + until - from_ns,
                last_ns=from_ns,
                running=loaded,
            )
            from_ns = until
