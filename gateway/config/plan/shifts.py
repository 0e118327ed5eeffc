"""`[site]`, `[shifts.<name>]` and `[[calendar]]` of carbon.toml."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Section, Text
from gateway.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", description='a time such as "06:00"')]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]\Z", description='a date such as "2026-12-25"')]


class SiteSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: where the plant is. timezone: an IANA name; the wall clock of its shifts."""

    name: Text = ""
    timezone: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_+/-]{1,60}\Z", description="a name such as Europe/Berlin")] = (
        "UTC"
    )


class ShiftSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[shifts.<name>]`: on which days, by the wall clock; one that ends before it starts runs over midnight.

    lines: `<gateway>/<line>` to which it applies; all without it.
    """

    start: TimeOfDay
    end: TimeOfDay
    days: tuple[Day, ...] = EVERY_DAY
    lines: tuple[str, ...] = ()


class ExceptionSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[calendar]]`: a day on which just these shifts start; none: a holiday."""

    date: Date
    shifts: tuple[str, ...] = msgspec.field(default=())


def check_shifts(shifts: Mapping[str, ShiftSection], calendar: Sequence[ExceptionSection], name: str) -> None:
    """Refuse an exception that names a shift that there is not. Raises ConfigError."""
    for number, entry in enumerate(calendar):
        for shift in entry.shifts:
            if shift not in shifts:
                raise ConfigError(f"{name}: calendar[{number}].shifts: got {shift!r}, want names of [shifts.<name>]")
