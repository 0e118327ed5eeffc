"""Report on change: which of a device's polled values are worth telling. Pure: all times come with the rows.

Only readings pass through here. The counters of intervals are the polls' own samples: no figure rests on what was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nextafter
from typing import Final, NamedTuple

from gateway.config.sections import DeadbandSection, ReportSection
from gateway.model import Change, Quality, Row, Schema, Value

_NS: Final = 1_000_000_000
_GOOD: Final = Quality.GOOD
_NONE: Final = DeadbandSection()
_NO_EXTREMES: Final = (None, None)


class _Band(NamedTuple):
    """The deadband of one column. percent: as a fraction, so that whole numbers are compared exactly."""

    absolute: float | None
    percent: float | None
    ratio: tuple[int, int]
    bypass: float | None
    numeric: bool


class Reporter:
    """What one device has told, and so what of its next row is worth telling.

    A value is told when it is the first; when it differs from the value told last by more than its deadband, which is
    the larger one where both kinds are set, and 0 where none is; when its quality differs; when its column has told
    nothing for heartbeat_s; and when it differs from the value just before by `bypass` or more: then that one is told
    as well, and counts among its own extremes, as it was held back at first. The status alone makes no change, for a
    device's words may differ each time: what is told carries the newest.
    """

    def __init__(self, schema: Schema, section: ReportSection) -> None:
        count = len(schema.columns)
        self._schema = schema
        self._heartbeat_ns = round(section.heartbeat_s * _NS)
        self._bands = [_band(column.store, section.points.get(column.name, _NONE)) for column in schema.columns]
        self._last: Row | None = None
        self._fresh: set[int] = set()  # what the last row told
        self._due_ns = 0  # no heartbeat is due before
        self._all_good = True  # of what was told
        self._told: list[Value | None] = [None] * count
        self._told_ns = [0] * count
        self._qualities: list[Quality] = [_GOOD] * count
        self._edges: list[tuple[Value, Value]] = [(inf, -inf)] * count  # what is no change, seen from the value told
        self._extremes: list[tuple[Value, Value] | None] = [None] * count  # of the GOOD values that were not told
        # Between these nothing at all is left to do. They hold nothing (inf, -inf) or just what _extremes hold.
        self._lows: list[Value] = [inf] * count
        self._highs: list[Value] = [-inf] * count

    def take(self, row: Row) -> Sequence[Change]:
        """Return what of the device's next row is worth telling, by column; of one column the older first."""
        last, t_ns = self._last, row.source_time_ns
        if last is None:
            return self._begin(row)
        if t_ns < last.source_time_ns:
            self._step_back(t_ns)
        self._last = row
        if row.values == last.values and row.qualities == last.qualities and t_ns < self._due_ns:
            for i in self._fresh:
                self._fold(i, row.values[i])
            self._fresh.clear()
            return ()
        changes: list[Change] = []
        if row.qualities is None and self._all_good:
            # The usual case, kept short: no look at a column whose value is within what is known of it.
            for i, (low, value, high) in enumerate(zip(self._lows, row.values, self._highs, strict=True)):
                if not low <= value <= high:  # type: ignore[operator]
                    self._look(i, row, last, changes)
        else:
            self._compare(row, last, changes)
        if t_ns >= self._due_ns:
            self._beat(row, changes)
        self._settle(changes)
        return changes

    def note(self, change: Change) -> None:
        """Take what the device told by itself: the value told last, from here on."""
        self._set(change.column, change.value, change.quality, change.source_time_ns)
        self._all_good = self._all_good and change.quality is _GOOD
        self._fresh.add(change.column)
        self._due_ns = 0  # the next row is compared, even if it is like the last one

    def _begin(self, row: Row) -> Sequence[Change]:
        """Tell the whole of the first row."""
        changes: list[Change] = []
        for i in range(len(row.values)):
            self._tell(i, row, changes)
        self._last = row
        self._settle(changes)
        return changes

    def _settle(self, changes: Sequence[Change]) -> None:
        """Note what a row told."""
        self._fresh = {change.column for change in changes}
        if changes:
            self._all_good = not any(self._qualities)
            self._due_ns = min(self._told_ns, default=0) + self._heartbeat_ns

    def _compare(self, row: Row, last: Row, changes: list[Change]) -> None:
        """Compare a row with BAD or UNCERTAIN columns, or one after such a row."""
        qualities = row.qualities or (_GOOD,) * len(row.values)
        for i, (value, quality) in enumerate(zip(row.values, qualities, strict=True)):
            if quality != self._qualities[i]:
                self._tell(i, row, changes)
            elif value is not None and not self._lows[i] <= value <= self._highs[i]:  # type: ignore[operator]
                self._look(i, row, last, changes)

    def _look(self, i: int, row: Row, last: Row, changes: list[Change]) -> None:
        """Look at a value that is new since the last change."""
        value, before, band = row.values[i], last.values[i], self._bands[i]
        if band.bypass is not None and before is not None and abs(value - before) >= band.bypass:  # type: ignore[operator]
            if i not in self._fresh:
                self._tell(i, last, changes)
            self._tell(i, row, changes)
            return
        low, high = self._edges[i]
        silent_ns = row.source_time_ns - self._told_ns[i]
        if low <= value <= high and silent_ns < self._heartbeat_ns:  # type: ignore[operator]
            self._fold(i, value)
        else:
            self._tell(i, row, changes)

    def _fold(self, i: int, value: Value | None) -> None:
        """Widen the extremes of what was not told."""
        if value is None or self._qualities[i] is not _GOOD or not self._bands[i].numeric:
            return
        extremes = self._extremes[i]
        extremes = (min(extremes[0], value), max(extremes[1], value)) if extremes else (value, value)
        self._extremes[i] = extremes
        if self._bands[i].bypass is None:  # else each value is compared with the one before it
            self._lows[i], self._highs[i] = extremes

    def _beat(self, row: Row, changes: list[Change]) -> None:
        """Tell what has told nothing for too long."""
        for i, told_ns in enumerate(self._told_ns):
            if row.source_time_ns - told_ns >= self._heartbeat_ns:
                self._tell(i, row, changes)
        self._due_ns = min(self._told_ns, default=0) + self._heartbeat_ns

    def _step_back(self, t_ns: int) -> None:
        """Come back from a future that a clock stepped back has left behind."""
        self._told_ns = [min(told_ns, t_ns) for told_ns in self._told_ns]
        self._due_ns = min(self._told_ns, default=0) + self._heartbeat_ns

    def _tell(self, i: int, row: Row, changes: list[Change]) -> None:
        """Tell a column of a row."""
        quality = row.qualities[i] if row.qualities else _GOOD
        value, extremes = row.values[i], self._extremes[i]
        if extremes is not None and extremes[0] == extremes[1] == self._told[i]:
            extremes = None  # nothing but the value told, again and again
        low, high = extremes or _NO_EXTREMES
        status = row.status if quality else ""
        changes.append(Change(self._schema, i, row.source_time_ns, value, quality, status, low, high))
        self._set(i, value, quality, row.source_time_ns)

    def _set(self, i: int, value: Value | None, quality: Quality, t_ns: int) -> None:
        """Take a value as the one told last."""
        band = self._bands[i]
        self._told[i], self._told_ns[i], self._qualities[i], self._extremes[i] = value, t_ns, quality, None
        self._lows[i], self._highs[i] = inf, -inf
        if value is None:
            self._edges[i] = inf, -inf
        elif band.absolute is None and band.percent is None:
            self._edges[i] = value, value
            if band.bypass is None:
                self._lows[i], self._highs[i] = value, value  # repeats alone pass, and they need no note
        else:
            self._edges[i] = _edges(value, band)  # type: ignore[arg-type]


def _band(store: str, section: DeadbandSection) -> _Band:
    """Return a column's deadband; texts and bits have none."""
    if store == "bool" or store[0] == "s":
        return _Band(None, None, (0, 1), None, numeric=False)
    numerator, denominator = (section.percent or 0.0).as_integer_ratio()
    return _Band(section.absolute, section.percent, (numerator, 100 * denominator), section.bypass, numeric=True)


def _edges(told: float, band: _Band) -> tuple[float, float]:
    """Return the least and the greatest value that is no change: never further from the one told than its deadband."""
    absolute = band.absolute or 0.0
    if absolute == inf:
        return -inf, inf
    if isinstance(told, int):
        numerator, denominator = band.ratio
        whole = max(int(absolute), abs(told) * numerator // denominator)
        return told - whole, told + whole
    width = max(absolute, abs(told) * (band.percent or 0.0) / 100)
    return -_sum_below(-told, width), _sum_below(told, width)


def _sum_below(a: float, b: float) -> float:
    """Return a + b, rounded down. Source: Knuth, TAOCP 2, 4.2.2, theorem B: a sum's error is a float itself."""
    total = a + b
    other = total - a
    error = (a - (total - other)) + (b - other)
    return nextafter(total, -inf) if error < 0 else total
