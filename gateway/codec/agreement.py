"""Values that contradict each other: told and polled, or of two points that are one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.model import Change, Quality, Row, Schema, Value

_GOOD: Final = Quality.GOOD


class Reading(NamedTuple):
    """One value with its time and quality; None is BAD."""

    value: Value | None
    t_ns: int
    quality: Quality = _GOOD


class Tolerance(NamedTuple):
    """By how much two values may differ: the larger of both. percent: of the larger value."""

    absolute: float = 0.0
    percent: float = 0.0

    def allows(self, one: Value, other: Value) -> bool:
        """Return whether two values agree; texts and bits must be equal."""
        if one == other:
            return True
        if isinstance(one, str | bool) or isinstance(other, str | bool):
            return False
        return abs(one - other) <= max(self.absolute, self.percent / 100 * max(abs(one), abs(other)))


class Verdict(NamedTuple):
    """Two readings of one thing disagree, or agree again. other: "poll", or `<device>.<point>`."""

    agrees: bool
    point: str
    other: str
    mine: Reading
    theirs: Reading

    @property
    def t_ns(self) -> int:
        """Since when this is known."""
        return max(self.mine.t_ns, self.theirs.t_ns)

    def about(self) -> dict[str, Any]:
        """Return what an event says of it."""
        return {
            "point": self.point,
            "value": self.mine.value,
            "t_ns": self.mine.t_ns,
            "quality": self.mine.quality.name,
            "other": self.other,
            "other_value": self.theirs.value,
            "other_t_ns": self.theirs.t_ns,
            "other_quality": self.theirs.quality.name,
        }


class Confirmation:
    """Compares what a device told by itself with the polls that confirm it.

    A value that was told holds until the next change. So when a poll reads another one, and a later poll still does,
    hold_ns on or more, and nothing was told in between, the two contradict each other: a change was lost, or made up.

    tolerances: one a column; None where it is not known how much may go untold.
    hold_ns: how long a change may be on its way, one a column.
    """

    def __init__(self, schema: Schema, tolerances: Sequence[Tolerance | None], hold_ns: Sequence[int]) -> None:
        self._schema, self._tolerances, self._hold_ns = schema, tolerances, hold_ns
        self._told: dict[int, Change] = {}
        self._suspect_ns: dict[int, int] = {}
        self._differs: set[int] = set()

    def told(self, changes: Sequence[Change]) -> None:
        """Take what the device told by itself."""
        for change in changes:
            self._told[change.column] = change
            if self._suspect_ns:
                self._suspect_ns.pop(change.column, None)

    def row(self, row: Row) -> Sequence[Verdict]:
        """Take a poll's row; return what it contradicts, and what it does not any more."""
        found = []
        for i, told in self._told.items():
            tolerance, value, t_ns = self._tolerances[i], row.values[i], row.source_time_ns
            if tolerance is None or told.value is None or value is None or told.source_time_ns > t_ns:
                self._suspect_ns.pop(i, None)
            elif tolerance.allows(told.value, value):
                self._suspect_ns.pop(i, None)
                if i in self._differs:
                    self._differs.discard(i)
                    found.append(self._verdict(told, row, agrees=True))
            else:
                since_ns = self._suspect_ns.setdefault(i, t_ns)
                if i not in self._differs and t_ns > since_ns and t_ns - since_ns >= self._hold_ns[i]:
                    self._differs.add(i)
                    found.append(self._verdict(told, row, agrees=False))
        return found

    def _verdict(self, told: Change, row: Row, *, agrees: bool) -> Verdict:
        mine = Reading(told.value, told.source_time_ns, told.quality)
        name = self._schema.columns[told.column].name
        return Verdict(agrees, name, "poll", mine, reading_of(row, told.column))


class Twins:
    """Compares two points that must agree, as they are polled.

    A verdict changes when more than `polls` pairs in a row contradict it. A pair is two values, none seen before, and
    taken no more than window_ns apart; where one of them is BAD, there is nothing to compare.
    """

    def __init__(self, *, point: str, other: str, tolerance: Tolerance, polls: int, window_ns: int) -> None:
        self.point, self.other = point, other
        self._tolerance, self._polls, self._window_ns = tolerance, polls, window_ns
        self._seen = (-1, -1)
        self._agree = True
        self._against = 0

    def compare(self, mine: Reading, theirs: Reading) -> Verdict | None:
        """Take the newest reading of each; return a verdict that has changed."""
        if mine.value is None or theirs.value is None or abs(mine.t_ns - theirs.t_ns) > self._window_ns:
            return None
        if mine.t_ns == self._seen[0] or theirs.t_ns == self._seen[1]:
            return None
        self._seen = mine.t_ns, theirs.t_ns
        if self._tolerance.allows(mine.value, theirs.value) == self._agree:
            self._against = 0
            return None
        self._against += 1
        if self._against <= self._polls:
            return None
        self._agree, self._against = not self._agree, 0
        return Verdict(self._agree, self.point, self.other, mine, theirs)


def reading_of(row: Row, column: int) -> Reading:
    """Return one column of a row."""
    quality = row.qualities[column] if row.qualities else _GOOD
    return Reading(row.values[column], row.source_time_ns, quality)
