"""Tells a line's production from its standstills, and the first minutes after one from what is usual."""

from collections.abc import Iterator

from gateway.carbon.alerts.observe import MINUTE_NS, Observation
from gateway.carbon.alerts.windows import WINDOW_NS, Window, window_of

SETTLE_NS = 10 * MINUTE_NS
"""After a stop, another product or another shift a line is not yet what it usually is."""
STOP_NS = 5 * MINUTE_NS
"""A shorter stop is none."""


class Pace:
    """Takes cells in order. A line whose state is not told stands still when it makes nothing for STOP_NS."""

    def __init__(self) -> None:
        self._pending: list[Observation] = []
        self._idle: list[Observation] = []
        self._windows: list[Window] = []
        self._stopped_ns = 0
        self._settled_ns = 0

    @property
    def stopped(self) -> bool:
        """Whether it stands still, for long enough to call it a stop."""
        return self._stopped_ns >= STOP_NS

    def production(self, seen: Observation) -> Iterator[Observation]:
        """Yield the cells of production that this one settles: itself, and those before it of which it was not sure."""
        state = seen.setting.state
        if state == "" and not seen.units:
            self._pending.append(seen)
            if seen.end_ns - self._pending[0].start_ns >= STOP_NS:
                self._stand()
            return
        if state not in {"", "producing"}:
            self._pending.append(seen)
            self._stand()
            return
        if self.stopped:
            self._settled_ns = max(self._settled_ns, seen.start_ns + SETTLE_NS)
        self._stopped_ns = 0
        self._idle.clear()
        yield from self._pending
        self._pending.clear()
        yield seen

    def unsettle(self, t_ns: int) -> None:
        """Say that something changed after which a line needs time to be as usual."""
        self._settled_ns = max(self._settled_ns, t_ns + SETTLE_NS)

    def is_settled(self, seen: Observation) -> bool:
        """Return whether a cell of production says what is usual."""
        return seen.start_ns >= self._settled_ns

    def take_idle(self) -> list[Window]:
        """Return the windows of standstill that are complete."""
        taken, self._windows = self._windows, []
        return taken

    def _stand(self) -> None:
        """Take what is pending as a standstill. Its first minutes, in which a line runs down, say nothing."""
        for cell in self._pending:
            self._stopped_ns += cell.end_ns - cell.start_ns
            if self.stopped:
                self._idle.append(cell)
        self._pending.clear()
        if self._idle and self._idle[-1].end_ns - self._idle[0].start_ns >= WINDOW_NS:
            self._windows.append(window_of(self._idle))
            self._idle = []
