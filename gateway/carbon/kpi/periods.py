"""Periods that are closed: a shift of a line; and, outside of all shifts, a UTC day of it."""

import hashlib
from typing import NamedTuple

from gateway.carbon.exact import utc
from gateway.carbon.facts import Facts
from gateway.carbon.kpi.report import DAY_NS, day_of

_NEAR_NS = 2 * DAY_NS
"""No shift is longer than a day, so its bounds are at most so far from any instant in it."""


class Period(NamedTuple):
    """What one statement is about. shift: `<date>/<name>`, or `<date>` for the rest of a UTC day.

    start_ns, end_ns: by the calendar, or of the cells alone where it does not know the shift (is_known).
    """

    gateway: str
    line: str
    shift: str
    start_ns: int
    end_ns: int
    is_known: bool = True

    @property
    def record(self) -> str:
        """The record of its statements: the same for the same gateway, line and shift."""
        return record_of(self.gateway, self.line, self.shift)

    @property
    def setting_shift(self) -> str:
        """What its cells' settings say: "" for the rest of a day."""
        return self.shift if "/" in self.shift else ""

    def holds(self, start_ns: int, shift: str) -> bool:
        """Return whether a cell that starts then, and whose setting says this shift, belongs to it."""
        return shift == self.setting_shift and (shift != "" or day_of(start_ns) == self.shift)


def record_of(gateway: str, line: str, shift: str) -> str:
    """Return the record of a period's statements: half a SHA-256, in hexadecimal."""
    return hashlib.sha256(f"shift\n{gateway}\n{line}\n{shift}".encode()).hexdigest()[:32]


def period_of(facts: Facts, gateway: str, line: str, *, shift: str, start_ns: int, end_ns: int) -> Period:
    """Return the period of cells from start_ns to end_ns whose settings say a shift, "" for none."""
    if not shift:
        day_ns = start_ns // DAY_NS * DAY_NS
        return Period(gateway, line, utc(day_ns)[:10], day_ns, day_ns + DAY_NS)
    bounds = shift_bounds(facts, gateway, line, shift=shift, near_ns=start_ns)
    if bounds is None:
        return Period(gateway, line, shift, start_ns, end_ns, is_known=False)
    return Period(gateway, line, shift, *bounds)


def window_of(before: Period, after: Period) -> tuple[int, int]:
    """Return where to look for the cells of a period that was stated before and may have moved since."""
    start_ns, end_ns = min(before.start_ns, after.start_ns), max(before.end_ns, after.end_ns)
    return (start_ns, end_ns) if after.is_known else (max(0, start_ns - DAY_NS), end_ns + DAY_NS)


def shift_bounds(facts: Facts, gateway: str, line: str, *, shift: str, near_ns: int) -> tuple[int, int] | None:
    """Return when a shift of a line begins and ends, by the plan in force at an instant in it; None if it has none."""
    calendar = facts.plan_at(near_ns).calendar
    near = calendar.shifts(gateway, line, max(0, near_ns - _NEAR_NS), near_ns + _NEAR_NS)
    return next(((one.start_ns, one.end_ns) for one in near if one.id == shift), None)
