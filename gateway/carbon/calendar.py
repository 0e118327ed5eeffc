"""Shifts: which one holds at an instant, and where they begin and end. By the wall clock of the plant, in UTC.

A boundary such as 06:00 is the first instant of its date at which the wall clock shows that time or a later one. So
where clocks go forward over it, it is the instant of the change, and where they go back, the first of the two. What
meets on the wall clock meets in UTC: a night shift over the change is 7 or 9 h long, and none is lost or doubled. A
shift that lies wholly in the hour that is left out does not take place.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from gateway.config.plan import Plan, ShiftSection
from gateway.config.plan.shifts import EVERY_DAY, minutes_of

_SECOND_NS = 1_000_000_000
_DAY_NS = 86_400 * _SECOND_NS
_EPOCH = date(1970, 1, 1).toordinal()
_MOST_DAYS = 4096
"""So many days are remembered at most."""


class Shift(NamedTuple):
    """One shift of one date, [start_ns, end_ns). id: `<date>/<name>`, the date on which it started."""

    id: str
    start_ns: int
    end_ns: int


class Calendar:
    """The shifts of a plan.

    rules: the UTC offsets of its time zone, as (since ns, seconds east), in order; before the first, UTC.
    """

    def __init__(self, plan: Plan, rules: tuple[tuple[int, int], ...]) -> None:
        self._shifts = plan.shifts
        self._exceptions = {entry.date: entry.shifts for entry in plan.calendar}
        self._since = [-(2**63), *(since_ns for since_ns, _ in rules)]
        self._offsets = [0, *(offset_s * _SECOND_NS for _, offset_s in rules)]
        self._days: dict[tuple[frozenset[str], int], tuple[Shift, ...]] = {}
        self._of_line: dict[tuple[str, str], Mapping[str, ShiftSection]] = {}
        self._near: dict[tuple[str, str], Shift] = {}

    def shift_at(self, gateway: str, line: str, t_ns: int) -> str:
        """Return the shift of a line at an instant, as `<date>/<name>`; "" outside of all."""
        return self._around(gateway, line, t_ns).id if self._shifts else ""

    def cuts(self, gateway: str, line: str, start_ns: int, end_ns: int) -> Sequence[int]:
        """Return the instants within (start_ns, end_ns) at which a shift of the line begins or ends, in order."""
        if not self._shifts:
            return ()
        until = self._around(gateway, line, start_ns).end_ns
        if until >= end_ns:
            return ()
        found = [until]
        while (until := self._around(gateway, line, until).end_ns) < end_ns:
            found.append(until)
        return found

    def shifts(self, gateway: str, line: str, start_ns: int, end_ns: int) -> Iterator[Shift]:
        """Yield the line's shifts that overlap [start_ns, end_ns), whole, in order of time."""
        if not self._shifts:
            return
        newest = -(2**63)
        for day in range(start_ns // _DAY_NS, (end_ns - 1) // _DAY_NS + 1):
            for shift in self._day(gateway, line, day):
                if newest < shift.start_ns < end_ns and start_ns < shift.end_ns:
                    newest = shift.start_ns
                    yield shift

    def _around(self, gateway: str, line: str, t_ns: int) -> Shift:
        """Return the shift at an instant; outside of all one without an id, from and up to where it is known."""
        near = self._near.get((gateway, line))
        if near is None or not near.start_ns <= t_ns < near.end_ns:
            near = self._near[gateway, line] = self._find(gateway, line, t_ns)
        return near

    def _find(self, gateway: str, line: str, t_ns: int) -> Shift:
        if not self._sections(gateway, line):
            return Shift("", -(2**63), 2**63 - 1)
        day = t_ns // (_DAY_NS)
        begun, found = day * _DAY_NS, self._day(gateway, line, day)
        for shift in found:
            if shift.start_ns <= t_ns < shift.end_ns:
                return shift
            if t_ns < shift.start_ns:
                return Shift("", begun, shift.start_ns)
            begun = shift.end_ns
        # Nothing is known of the next day yet: an end here would be a boundary of no shift, so look on.
        return Shift("", begun, self._next_start(gateway, line, day + 1))

    def _next_start(self, gateway: str, line: str, day: int) -> int:
        for number in range(day, day + 400):
            for shift in self._day(gateway, line, number):
                return shift.start_ns
        return (day + 400) * _DAY_NS

    def _sections(self, gateway: str, line: str) -> Mapping[str, ShiftSection]:
        found = self._of_line.get((gateway, line))
        if found is None:
            ref = f"{gateway}/{line}"
            found = {name: shift for name, shift in self._shifts.items() if not shift.lines or ref in shift.lines}
            self._of_line[gateway, line] = found
        return found

    def _day(self, gateway: str, line: str, day: int) -> tuple[Shift, ...]:
        """Return a line's shifts that overlap a day of UTC, in order of time. day: since 1970."""
        sections = self._sections(gateway, line)
        key = (frozenset(sections), day)
        found = self._days.get(key)
        if found is None:
            if len(self._days) >= _MOST_DAYS:
                self._days.clear()
            begin_ns, end_ns = day * _DAY_NS, (day + 1) * _DAY_NS
            # Local dates are up to 26 h away from those of UTC, and a shift ends up to a day after its date.
            started = (shift for at in range(day - 3, day + 3) for shift in self._started(sections, at))
            found = tuple(sorted((s for s in started if s.start_ns < end_ns and begin_ns < s.end_ns), key=_by_start))
            self._days[key] = found
        return found

    def _started(self, sections: Mapping[str, ShiftSection], day: int) -> Iterator[Shift]:
        """Yield the shifts that start on a date of the plant. day: since 1970."""
        if day + _EPOCH < 1:
            return
        on = date.fromordinal(day + _EPOCH)
        named = self._exceptions.get(on.isoformat())
        for name, section in sections.items():
            if name in named if named is not None else EVERY_DAY[on.weekday()] in section.days:
                start, end = minutes_of(section)
                start_ns, end_ns = (self._utc(day * _DAY_NS + at * 60 * _SECOND_NS) for at in (start, end))
                if start_ns < end_ns:
                    yield Shift(f"{on.isoformat()}/{name}", start_ns, end_ns)

    def _utc(self, wall_ns: int) -> int:
        """Return the first instant at which the wall clock shows a time or a later one. wall_ns: as if it were UTC."""
        place = max(0, bisect_right(self._since, wall_ns - 2 * _DAY_NS) - 1)
        while True:
            t_ns = max(self._since[place], wall_ns - self._offsets[place])
            if place + 1 == len(self._since) or t_ns < self._since[place + 1]:
                return t_ns
            place += 1


def _by_start(shift: Shift) -> tuple[int, str]:
    return shift.start_ns, shift.id
