"""`[site]`, `[shifts.<name>]` and `[[calendar]]` of carbon.toml."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Section, Text
from gateway.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_AFTER = (*EVERY_DAY[1:], EVERY_DAY[0])
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
    # Nearly all days are the same: each is looked at once, and each with each that follows it.
    spans = {one: (*minutes_of(shift), frozenset(shift.lines)) for one, shift in shifts.items()}
    alone: dict[tuple[str, ...], bool] = {}
    followed: dict[tuple[tuple[str, ...], tuple[str, ...]], bool] = {}
    for today, tomorrow, on in _days(shifts, exceptions):
        if today not in alone:
            alone[today] = _meet([spans[one] for one in dict.fromkeys(today)])
        if (today, tomorrow) not in followed:
            followed[today, tomorrow] = _follow([spans[one] for one in today], [spans[one] for one in tomorrow])
        if alone[today] or followed[today, tomorrow]:
            _refuse(shifts, today, tomorrow, on=on, name=name)


def _days(
    shifts: Mapping[str, ShiftSection], exceptions: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], str]]:
    """Yield which shifts start on a day, which on the next one, and its name; of all that differ."""
    starting = {day: _on(shifts, day) for day in EVERY_DAY}
    for day, after in zip(EVERY_DAY, _AFTER, strict=True):
        yield starting[day], starting[after], day
    for iso in exceptions:
        that = date.fromisoformat(iso)
        for one in (that - _ONE_DAY, that):
            today, tomorrow = (
                exceptions.get(at.isoformat(), starting[EVERY_DAY[at.weekday()]]) for at in (one, one + _ONE_DAY)
            )
            yield today, tomorrow, one.isoformat()


_Span = tuple[int, int, frozenset[str]]
"""Minutes from midnight, and the lines to which it applies; of all where there is none."""


def _meet(spans: Sequence[_Span]) -> bool:
    """Return whether two of a day's spans overlap, and share a line."""
    ordered = sorted(spans, key=lambda span: span[:2])
    for place, (_, end, lines) in enumerate(ordered):
        for begin, _, others in ordered[place + 1 :]:
            if begin >= end:
                break
            if not lines or not others or not lines.isdisjoint(others):
                return True
    return False


def _follow(today: Sequence[_Span], tomorrow: Sequence[_Span]) -> bool:
    """Return whether a span that runs over midnight overlaps one of the day after, and they share a line."""
    return any(
        begin < end - _DAY and (not lines or not others or not lines.isdisjoint(others))
        for _, end, lines in today
        if end > _DAY
        for begin, _, others in tomorrow
    )


def _is_date(text: str) -> bool:
    try:
        return date(1970, 1, 2) <= date.fromisoformat(text) < date(2262, 1, 1)
    except ValueError:
        return False


def _on(shifts: Mapping[str, ShiftSection], day: Day) -> tuple[str, ...]:
    return tuple(name for name, shift in shifts.items() if day in shift.days)


def _refuse(
    shifts: Mapping[str, ShiftSection], today: Sequence[str], tomorrow: Sequence[str], *, on: str, name: str
) -> None:
    """Say which of the shifts that start today overlaps another, or one that starts tomorrow. Raises ConfigError."""
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
