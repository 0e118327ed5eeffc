"""Gathers the counters of each line at each boundary into one interval leaf."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.app.contexts import HOLD_NS, LineContext
from gateway.app.ticks import NS
from gateway.model import Interval, LineSchema, Quality, Row, Sample, Schema

MOST_DIGITS = 60
"""A counter with more digits is no counter: its sample is BAD (it would not fit a leaf either)."""


class LineIntervals:
    """The open boundaries of one line, each waiting for its meters.

    A boundary closes when each meter has answered or failed, or when its grace is over; what is missing
    then is BAD, never an older value.

    context: what the line is making. holds: devices tell some of that by themselves, and so a bit later: a boundary
    waits for it too.
    """

    def __init__(self, line: LineSchema, before: Iterable[LineContext] = ()) -> None:
        self.line = line
        self.context = LineContext(line, before)
        self.holds = False
        self._wanted = {column.point for column in line.columns}
        self._open: dict[int, dict[str, Sample]] = {}
        self._closed_ns = 0
        self.grace_ns = min(line.period_s * NS * 4 // 5, 10 * NS)

    def take(self, boundary_ns: int, samples: Iterable[Sample]) -> Sequence[Interval]:
        """Take a device's samples; return the intervals that are complete with them, oldest first."""
        if boundary_ns <= self._closed_ns:
            return ()
        held = self._open.setdefault(boundary_ns, {})
        held.update((sample.point, _bounded(sample)) for sample in samples if sample.point in self._wanted)
        return self._close(boundary_ns) if len(held) == len(self._wanted) and not self.holds else ()

    def expire(self, now_ns: int) -> Sequence[Interval]:
        """Return the intervals whose grace is over, oldest first; to be called every second or so.

        A boundary closes only after its time. So when the newest closed one lies ahead, the clock was stepped
        back: what is open closes, and boundaries are taken anew, or a clock once wrong would end all intervals.
        """
        if now_ns < self._closed_ns - NS:
            closed = self._close(max(self._open)) if self._open else ()
            self._closed_ns = 0
            return closed
        late = [boundary for boundary, held in self._open.items() if now_ns >= boundary + self._waits_ns(held)]
        return self._close(max(late)) if late else ()

    def _waits_ns(self, held: Mapping[str, Sample]) -> int:
        """Return how long after its time a boundary closes."""
        return min(HOLD_NS, self.grace_ns) if len(held) == len(self._wanted) else self.grace_ns

    def expect(self, boundary_ns: int) -> None:
        """Open a boundary, so that it closes even if no meter answers."""
        if boundary_ns > self._closed_ns:
            self._open.setdefault(boundary_ns, {})

    def _close(self, last_ns: int) -> Sequence[Interval]:
        """Close this boundary and all before it: the leaves of a line stand in order."""
        self._closed_ns = last_ns
        return [self._interval(t_ns, self._open.pop(t_ns)) for t_ns in sorted(self._open) if t_ns <= last_ns]

    def _interval(self, t_ns: int, held: Mapping[str, Sample]) -> Interval:
        samples = tuple(held.get(column.point) or missing(column.point, t_ns) for column in self.line.columns)
        return Interval(schema_id=self.line.id, t_ns=t_ns, samples=samples, context=self.context.close(t_ns))


def missing(point: str, t_ns: int, status: str = "no answer in time") -> Sample:
    """Return the sample of a counter that could not be read."""
    return Sample(point=point, source_time_ns=t_ns, raw=b"", value=None, quality=Quality.BAD, status=status[:200])


def bad_row(schema: Schema, t_ns: int, status: str) -> Row:
    """Return a row without a single value."""
    count = len(schema.columns)
    return Row(
        schema=schema,
        source_time_ns=t_ns,
        values=(None,) * count,
        qualities=(Quality.BAD,) * count,
        status=status[:200],
    )


def _bounded(sample: Sample) -> Sample:
    if sample.value is None or len(format(sample.value, "f")) <= MOST_DIGITS:
        return sample
    return missing(sample.point, sample.source_time_ns, "more digits than a counter has")
