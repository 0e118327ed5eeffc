"""Values that stand still: which of them should have moved. Pure: rows and changes with their times in, findings out.

A counter that stands still because nothing flows, or because its register's step is large, is not stale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gateway.codec.steps import WATTS, Register, power_of, step_of
from gateway.model import Change, Row, Schema, Value

_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _NS
_WATT_HOURS: Final = {"Wh": 1.0, "kWh": 1e3, "MWh": 1e6}
_SMALL_LOAD_W: Final = 100.0
"""What a meter's load is taken to be until it has been seen to count, where its power is not read."""


class Stale(NamedTuple):
    """A value has not moved for too long. age_ns: how long it stood still while it was read."""

    point: str
    t_ns: int
    value: Value
    since_ns: int
    age_ns: int

    def about(self) -> dict[str, Any]:
        """Return what an event says of it."""
        age_s = round(self.age_ns / _NS, 3)
        return {"point": self.point, "value": self.value, "since_ns": self.since_ns, "age_s": age_s}


class Fresh(NamedTuple):
    """A value that was stale has moved. since_ns: since when it had stood still."""

    point: str
    t_ns: int
    value: Value
    since_ns: int

    def about(self) -> dict[str, Any]:
        """Return what an event says of it."""
        return {"point": self.point, "value": self.value, "since_ns": self.since_ns}


class _Odometer(NamedTuple):
    """What has passed while the device answered: time, and the energy that its power says flowed in and out."""

    clock_ns: int = 0
    in_wh: float = 0.0
    out_wh: float = 0.0

    def since(self, start: _Odometer) -> _Odometer:
        return _Odometer(self.clock_ns - start.clock_ns, self.in_wh - start.in_wh, self.out_wh - start.out_wh)

    def plus(self, other: _Odometer) -> _Odometer:
        return _Odometer(self.clock_ns + other.clock_ns, self.in_wh + other.in_wh, self.out_wh + other.out_wh)


@dataclass(slots=True)
class _Column:
    """What one column did.

    since_ns, base: when it took its value, and the odometer then. lost: the odometer when it became BAD.
    first, first_clock_ns: where its pace is measured from. smallest: the smallest movement of a counter.
    others: the energy counters of the row, in Wh, when this one last moved.
    """

    value: Value | None = None
    since_ns: int = 0
    base: _Odometer = field(default_factory=_Odometer)
    lost: _Odometer | None = None
    stale: bool = False
    first: float | None = None
    first_clock_ns: int = 0
    smallest: float | None = None
    others: tuple[float | None, ...] = ()


class Stillness:
    """Finds the points of one device whose value has not moved for stale_s; only the time counts in which it was read.

    A counter must also have had reason to move by more than two of its steps since its last movement:
    - an energy counter of a device whose power is read (`power_of`): by the integral of that power, in the counter's
      direction, and no other energy counter of that direction has booked half of it or more (a tariff, a phase);
    - any other: by its own mean pace; an energy counter that has not moved yet, by a load of 100 W; where neither is
      known, stale_s alone decides.
    Its step is its register's (a unit in the last place of the float at its value, or a whole number, times the scale)
    or the smallest movement seen, if that is larger; and until one was seen, the last decimal place of its value.

    stale: how many points are stale.
    """

    def __init__(self, schema: Schema, registers: Sequence[Register], *, stale_s: float) -> None:
        self._schema, self._registers = schema, registers
        self._stale_ns = round(stale_s * _NS)
        self._watched = [i for i, register in enumerate(registers) if not register.may_stand]
        self._columns = [_Column() for _ in registers]
        self._power = power_of(schema)
        self._watts: float | None = None
        self._watts_ns = 0
        self._energies = {
            i: _WATT_HOURS[column.unit]
            for i, column in enumerate(schema.columns)
            if registers[i].counter and column.unit in _WATT_HOURS
        }
        self._now = self._before = _Odometer()
        self._due_ns = 0  # by the odometer's clock: before, nothing becomes stale
        self._last: Row | None = None
        self.stale = 0

    def row(self, row: Row) -> Sequence[Stale | Fresh]:
        """Take a poll's row; return what it shows."""
        last, self._last = self._last, row
        if row.qualities is not None and all(value is None for value in row.values):
            self._last = self._watts = None
            return ()  # nothing answered: that is the device's trouble, and no point's
        elapsed_ns = max(row.source_time_ns - last.source_time_ns, 0) if last is not None else 0
        self._before = self._now
        self._now = self._now._replace(clock_ns=self._now.clock_ns + elapsed_ns)
        if self._power is not None:
            self._flow(row.values[self._power], row.source_time_ns)
        if last is not None and row.values == last.values and self._now.clock_ns < self._due_ns:
            return ()
        found: list[Stale | Fresh] = []
        for i in self._watched:
            self._see(i, row.values[i], row.source_time_ns, found)
        if self._now.clock_ns >= self._due_ns:
            self._judge(row.source_time_ns, found)
        return found

    def told(self, changes: Sequence[Change]) -> Sequence[Stale | Fresh]:
        """Take what the device told by itself: it counts as movement, and polls confirm that it was read."""
        found: list[Stale | Fresh] = []
        self._before = self._now
        for change in changes:
            if change.column == self._power:
                self._flow(change.value, change.source_time_ns)
            if not self._registers[change.column].may_stand:
                self._see(change.column, change.value, change.source_time_ns, found)
        self._due_ns = 0  # the next row is looked at, even if it is like the last one
        return found

    def _flow(self, power: Value | None, t_ns: int) -> None:
        """Add the energy since the power was last read: at the smaller of both, and none where its sign changed."""
        before, hours = self._watts, max(t_ns - self._watts_ns, 0) / _HOUR_NS
        self._watts_ns = t_ns
        assert self._power is not None  # noqa: S101 (a device without a power has no flow)
        if power is None or isinstance(power, str):
            self._watts = None
            return
        self._watts = watts = power * WATTS[self._schema.columns[self._power].unit]
        if before is None or before * watts <= 0:
            return
        flowed_wh = min(abs(before), abs(watts)) * hours
        outward = (watts < 0) != self._registers[self._power].outward
        now = self._now
        self._now = (
            now._replace(out_wh=now.out_wh + flowed_wh) if outward else now._replace(in_wh=now.in_wh + flowed_wh)
        )

    def _see(self, i: int, value: Value | None, t_ns: int, found: list[Stale | Fresh]) -> None:
        """Take a column's newest value; None is BAD."""
        column = self._columns[i]
        if value is None:
            column.lost = column.lost or self._before
            return
        if column.lost is not None:
            column.base, column.lost = column.base.plus(self._now.since(column.lost)), None
            self._due_ns = 0
        if value == column.value:
            return
        before, since_ns = column.value, column.since_ns
        column.value, column.since_ns, column.base = value, t_ns, self._now
        if self._registers[i].counter and not isinstance(value, str):
            self._count(i, column, value, before)
        self._due_ns = min(self._due_ns, self._now.clock_ns + self._stale_ns)
        if column.stale:
            column.stale = False
            self.stale -= 1
            found.append(Fresh(self._schema.columns[i].name, t_ns, value, since_ns))

    def _count(self, i: int, column: _Column, value: float, before: Value | None) -> None:
        """Note how a counter moves."""
        if column.first is None or isinstance(before, str) or before is None or value < before:
            column.first, column.first_clock_ns = value, self._now.clock_ns
        else:
            moved = value - before
            column.smallest = moved if column.smallest is None else min(column.smallest, moved)
        if i in self._energies:
            column.others = self._booked()

    def _booked(self) -> tuple[float | None, ...]:
        """Return the energy counters in Wh."""
        values = ((self._columns[i].value, factor) for i, factor in self._energies.items())
        return tuple(None if value is None or isinstance(value, str) else value * factor for value, factor in values)

    def _judge(self, t_ns: int, found: list[Stale | Fresh]) -> None:
        """Find what has become stale."""
        due_ns: float = math.inf
        for i in self._watched:
            column = self._columns[i]
            if column.value is None or column.lost is not None or column.stale:
                continue
            passed = self._now.since(column.base)
            if passed.clock_ns < self._stale_ns:
                due_ns = min(due_ns, column.base.clock_ns + self._stale_ns)
            elif self._registers[i].counter and not self._should_have_moved(i, column, passed):
                due_ns = 0
            else:
                column.stale = True
                self.stale += 1
                name = self._schema.columns[i].name
                found.append(Stale(name, t_ns, column.value, column.since_ns, passed.clock_ns))
        self._due_ns = int(due_ns) if due_ns < math.inf else self._now.clock_ns + self._stale_ns

    def _should_have_moved(self, i: int, column: _Column, passed: _Odometer) -> bool:
        """Return whether a counter had reason to move by more than two steps."""
        register, value, factor = self._registers[i], column.value, self._energies.get(i)
        assert isinstance(value, int | float)  # noqa: S101 (a counter is no text)
        step = step_of(value, register, column.smallest)
        if factor is not None and self._power is not None:
            flowed_wh = passed.out_wh if register.outward else passed.in_wh
            return flowed_wh > 2 * step * factor and not self._booked_elsewhere(i, column, flowed_wh / 2)
        paced_ns = column.base.clock_ns - column.first_clock_ns
        if column.first is not None and column.first != value and paced_ns > 0:
            return (value - column.first) / paced_ns * passed.clock_ns > 2 * step
        return factor is None or _SMALL_LOAD_W * passed.clock_ns / _HOUR_NS > 2 * step * factor

    def _booked_elsewhere(self, i: int, column: _Column, least_wh: float) -> bool:
        """Return whether another energy counter has moved by so much since this one did."""
        outward = self._registers[i].outward
        return any(
            now - then >= least_wh
            for j, then, now in zip(self._energies, column.others, self._booked(), strict=True)
            if j != i and then is not None and now is not None and self._registers[j].outward == outward
        )
