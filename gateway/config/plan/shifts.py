"""`[site]`, `[shifts.<name>]` and `[[calendar]]` of carbon.toml."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Section, Text
from gateway.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_ONE_DAY = timedelta(days=1)
TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", description='a time such as "06:00"')]
LineRef = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,63}/[a-z0-9_-]{1,63}\Z", description="<gateway>/<line>")]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]\Z", description='a date such as "2026-12-25"')]


class SiteSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: where the plant is. timezone: an IANA name; the wall clock of its shifts."""

    name: Text = ""
    timezone: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_+/-]{1,60}\Z", description="a name such as Europe/Berlin")] = (
        "UTC"
    )


class ShiftSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[shifts.<name>]`: on which days, by the wall clock; one that ends before it starts runs over midnight.

    days: on which it starts; none for one that just exceptions name. lines: to which it applies; all without it.
    """

    start: TimeOfDay
    end: TimeOfDay
    days: tuple[Day, ...] = EVERY_DAY
    lines: tuple[LineRef, ...] = ()


class ExceptionSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[calendar]]`: a day on which just these shifts start; none: a holiday."""

    date: Date
    shifts: tuple[str, ...] = msgspec.field(default=())


def minutes_of(shift: ShiftSection) -> tuple[int, int]:
    """Return where a shift begins and ends, in minutes of the wall clock since its date's midnight.

    One that ends when it starts, or before, ends on the next day.
    """
    start, end = (int(at[:2]) * 60 + int(at[3:]) for at in (shift.start, shift.end))
    return start, end if end > start else end + _DAY


def check_shifts(shifts: Mapping[str, ShiftSection], calendar: Sequence[ExceptionSection], name: str) -> None:
    """Refuse shifts of one line that overlap, on any day, and exceptions that cannot be. Raises ConfigError."""
    exceptions: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(calendar):
        where = f"{name}: calendar[{number}]"
        for shift in entry.shifts:
            if shift not in shifts:
                raise ConfigError(f"{where}.shifts: got {shift!r}, want names of [shifts.<name>]")
        if entry.date in exceptions or not _is_date(entry.date):
            raise ConfigError(f"{where}.date: got {entry.date!r}, want a date that there is, each once")
        exceptions[entry.date] = entry.shifts
    for place, day in enumerate(EVERY_DAY):
        after = EVERY_DAY[(place + 1) % 7]
        _check_days(shifts, _on(shifts, day), _on(shifts, after), on=day, name=name)
    for iso in exceptions:
        that = date.fromisoformat(iso)
        for one in (that - _ONE_DAY, that):
            starting = [
                exceptions.get(at.isoformat(), _on(shifts, EVERY_DAY[at.weekday()])) for at in (one, one + _ONE_DAY)
            ]
            _check_days(shifts, *starting, on=one.isoformat(), name=name)


def _is_date(text: str) -> bool:
    try:
        return date(1970, 1, 2) <= date.fromisoformat(text) < date(2262, 1, 1)
    except ValueError:
        return False


def _on(shifts: Mapping[str, ShiftSection], day: Day) -> tuple[str, ...]:
    return tuple(name for name, shift in shifts.items() if day in shift.days)


def _check_days(
    shifts: Mapping[str, ShiftSection], today: Sequence[str], tomorrow: Sequence[str], *, on: str, name: str
) -> None:
    """Refuse an overlap among the shifts that start today, or of these with those that start tomorrow."""
    spans = [(minutes_of(shifts[one]), one) for one in dict.fromkeys(today)]
    spans += [((minutes_of(shifts[one])[0] + _DAY, minutes_of(shifts[one])[1] + _DAY), one) for one in tomorrow]
    for place, ((start, end), one) in enumerate(spans[: len(set(today))]):
        for (begin, stop), other in spans[place + 1 :]:
            lines, others = shifts[one].lines, shifts[other].lines
            shared = not lines or not others or set(lines) & set(others)
            if shared and start < stop and begin < end and (one, start) != (other, begin):
                raise ConfigError(
                    f"{name}: shifts.{other}: got {shifts[other].start} to {shifts[other].end}, which overlaps "
                    f"{one!r}, {shifts[one].start} to {shifts[one].end}, of {on}, want shifts of a line one after "
                    "the other"
                )
