"""Counters at boundaries that lie between two polls: `[interval] interpolate`, where a period does not divide.

A device that is polled every 7 s shows nothing at a full minute. What its counters showed then is interpolated between
the poll before and the one after, by their own times, exactly: to a billionth of the unit, a count to whole units. The
sample says so: status `interpolated`, no raw bytes, the boundary as its source time. Both polls are in the log as rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from fractions import Fraction

from gateway.app.ticks import NS
from gateway.config import GatewayConfig
from gateway.model import INTERPOLATED, Quality, Role, Sample

PLACES = 9
_EXACT = Context(prec=100)
_SLACK_NS = 2 * NS


class Between:
    """One device's counters.

    whole: those that count units. longest_ns: two polls that lie further apart say nothing of a boundary between them.
    """

    def __init__(self, *, boundary_ns: int, longest_ns: int, whole: frozenset[str] = frozenset()) -> None:
        self._boundary_ns, self._longest_ns, self._whole = boundary_ns, longest_ns, whole
        self._before: dict[str, Sample] = {}

    def take(self, samples: Iterable[Sample]) -> list[tuple[int, list[Sample]]]:
        """Take what a poll read; return the boundaries since the poll before, in order, with a sample a counter.

        A counter that is not GOOD, or fell, in one of the two polls has none: nothing is known of it.
        """
        found: dict[int, list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.quality != Quality.GOOD:
                continue
            before = self._before.get(sample.point)
            self._before[sample.point] = sample
            if before is None or not before.source_time_ns < sample.source_time_ns <= self._latest(before):
                continue
            first = before.source_time_ns // self._boundary_ns + 1
            for number in range(first, sample.source_time_ns // self._boundary_ns + 1):
                at = interpolated(before, sample, number * self._boundary_ns, whole=sample.point in self._whole)
                if at is not None:
                    found[number * self._boundary_ns].append(at)
        return sorted(found.items())

    def _latest(self, before: Sample) -> int:
        return before.source_time_ns + self._longest_ns


def interpolated(before: Sample, after: Sample, t_ns: int, *, whole: bool = False) -> Sample | None:
    """Return what a counter showed at t_ns, between two GOOD samples; None where it fell between them.

    Rounded down, once, from the exact value: so differences telescope. whole: to whole units.
    """
    if after.source_time_ns == t_ns:
        return after
    if before.value is None or after.value is None or after.value < before.value:
        return None
    part = Fraction(t_ns - before.source_time_ns, after.source_time_ns - before.source_time_ns)
    value = Fraction(before.value) + (Fraction(after.value) - Fraction(before.value)) * part
    places = 0 if whole else PLACES
    shown = _EXACT.scaleb(Decimal(value * 10**places // 1), -places)
    return after._replace(source_time_ns=t_ns, raw=b"", value=shown, status=INTERPOLATED)


def between_of(config: GatewayConfig, device: str) -> Between | None:
    """Return what interpolates a device's counters; None where its polls fall on the boundaries."""
    boundary_ns, period_ns = config.interval.period_s * NS, round(config.period_s(device) * NS)
    if boundary_ns % period_ns == 0:
        return None
    counts = {
        column.point.partition(".")[2]
        for line in config.lines.values()
        for column in line.columns
        if column.role not in {Role.ENERGY, Role.FUEL} and column.point.partition(".")[0] == device
    }
    return Between(boundary_ns=boundary_ns, longest_ns=2 * period_ns + _SLACK_NS, whole=frozenset(counts))


def at_boundaries(
    between: Between | None, boundary_ns: int | None, samples: Sequence[Sample]
) -> Sequence[tuple[int, Sequence[Sample]]]:
    """Return a poll's samples by boundary: that of its own tick, or those since the poll before."""
    if between is not None:
        return between.take(samples)
    return [] if boundary_ns is None else [(boundary_ns, samples)]
