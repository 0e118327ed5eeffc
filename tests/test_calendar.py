"""carbon/calendar.py and app/timezones.py: shifts by the wall clock, in UTC, over each change of the clocks."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from gateway.app.timezones import covers, rules_of
from gateway.carbon.calendar import Calendar, Shift
from gateway.config.plan import Plan, parse_plan
from gateway.errors import ConfigError

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
THREE = """
[shifts.early]
start = "06:00"
end = "14:00"
[shifts.late]
start = "14:00"
end = "22:00"
[shifts.night]
start = "22:00"
end = "06:00"
"""


def ns(text: str) -> int:
    """Return an instant with an offset in nanoseconds."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * SECOND


def calendar(text: str, timezone: str = "UTC", *, year: int = 2026) -> Calendar:
    at = ns(f"{year}-06-01T00:00:00Z")
    plan: Plan = parse_plan(f'[site]\ntimezone = "{timezone}"\n{text}', name="carbon.toml")
    return Calendar(plan, rules_of(timezone, from_ns=at, now_ns=at))


def shifts(made: Calendar, start: str, end: str, line: str = "filler") -> Sequence[Shift]:
    return list(made.shifts("gw1", line, ns(start), ns(end)))


# ---- days and names


def test_a_shift_is_named_by_the_date_on_which_it_started() -> None:
    made = calendar(THREE)
    at = {text: made.shift_at("gw1", "filler", ns(text)) for text in ("2026-03-02T05:59:59Z", "2026-03-02T06:00:00Z")}
    assert at == {"2026-03-02T05:59:59Z": "2026-03-01/night", "2026-03-02T06:00:00Z": "2026-03-02/early"}
    assert made.shift_at("gw1", "filler", ns("2026-03-02T06:00:00Z") - 1) == "2026-03-01/night", "exact to the ns"


def test_a_plan_without_shifts_has_none_and_no_boundary() -> None:
    made = calendar("")
    assert made.shift_at("gw1", "filler", 0) == ""
    assert list(made.cuts("gw1", "filler", 0, 2**62)) == []
    assert list(made.shifts("gw1", "filler", 0, 2**62)) == []


def test_a_shift_runs_on_its_days_alone() -> None:
    made = calendar('[shifts.day]\nstart = "08:00"\nend = "16:00"\ndays = ["mon", "fri"]\n')
    found = shifts(made, "2026-03-01T00:00:00Z", "2026-03-09T00:00:00Z")
    assert [shift.id for shift in found] == ["2026-03-02/day", "2026-03-06/day"]
    assert made.shift_at("gw1", "filler", ns("2026-03-03T09:00:00Z")) == ""


def test_a_night_shift_of_friday_lasts_into_saturday() -> None:
    made = calendar('[shifts.night]\nstart = "22:00"\nend = "06:00"\ndays = ["fri"]\n')
    (one,) = shifts(made, "2026-03-01T00:00:00Z", "2026-03-09T00:00:00Z")
    assert one == Shift("2026-03-06/night", ns("2026-03-06T22:00:00Z"), ns("2026-03-07T06:00:00Z"))


def test_a_shift_that_ends_when_it_starts_is_a_whole_day() -> None:
    made = calendar('[shifts.day]\nstart = "06:00"\nend = "06:00"\n')
    found = shifts(made, "2026-03-02T06:00:00Z", "2026-03-04T06:00:00Z")
    assert [(shift.id, shift.end_ns - shift.start_ns) for shift in found] == [
        ("2026-03-02/day", DAY),
        ("2026-03-03/day", DAY),
    ]


def test_on_an_exceptions_date_just_the_named_shifts_start() -> None:
    made = calendar(THREE + '[[calendar]]\ndate = "2026-12-25"\n[[calendar]]\ndate = "2026-12-26"\nshifts = ["late"]\n')
    found = shifts(made, "2026-12-24T20:00:00Z", "2026-12-27T07:00:00Z")
    assert [shift.id for shift in found] == [
        *("2026-12-24/late", "2026-12-24/night", "2026-12-26/late", "2026-12-27/early"),
    ]
    assert made.shift_at("gw1", "filler", ns("2026-12-25T05:00:00Z")) == "2026-12-24/night"
    assert made.shift_at("gw1", "filler", ns("2026-12-25T06:00:00Z")) == ""


def test_a_shift_of_other_lines_is_none_of_this_ones() -> None:
    made = calendar(THREE.replace('end = "14:00"', 'end = "14:00"\nlines = ["gw1/filler"]'))
    at = ns("2026-03-02T07:00:00Z")
    said = [made.shift_at(*line, at) for line in (("gw1", "filler"), ("gw2", "filler"), ("gw1", "press"))]
    assert said == ["2026-03-02/early", "", ""]


def test_cuts_are_where_shifts_begin_and_end_and_nowhere_else() -> None:
    made = calendar('[shifts.day]\nstart = "08:00"\nend = "16:00"\ndays = ["mon", "fri"]\n')
    start, end = ns("2026-03-02T08:00:00Z"), ns("2026-03-06T16:00:00Z")
    assert list(made.cuts("gw1", "filler", start, end)) == [ns("2026-03-02T16:00:00Z"), ns("2026-03-06T08:00:00Z")]
    assert list(made.cuts("gw1", "filler", start + 1, start + HOUR)) == []


# ---- the clocks change


@pytest.mark.parametrize(
    ("timezone", "start", "end", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00", 7),
        ("Europe/Berlin", "2026-10-24T22:00:00+02:00", "2026-10-25T06:00:00+01:00", 9),
        ("Europe/Berlin", "2026-07-01T22:00:00+02:00", "2026-07-02T06:00:00+02:00", 8),
        ("America/New_York", "2026-03-07T22:00:00-05:00", "2026-03-08T06:00:00-04:00", 7),
        ("America/New_York", "2026-10-31T22:00:00-04:00", "2026-11-01T06:00:00-05:00", 9),
        ("Asia/Kolkata", "2026-03-28T22:00:00+05:30", "2026-03-29T06:00:00+05:30", 8),
        ("UTC", "2026-03-28T22:00:00+00:00", "2026-03-29T06:00:00+00:00", 8),
    ],
)
def test_a_night_shift_is_as_long_as_the_night(timezone: str, start: str, end: str, hours: int) -> None:
    made = calendar(THREE, timezone)
    name = f"{start[:10]}/night"
    assert made.shift_at("gw1", "filler", ns(start)) == name
    assert made.shift_at("gw1", "filler", ns(start) - 1) == f"{start[:10]}/late"
    assert made.shift_at("gw1", "filler", ns(end) - 1) == name
    assert made.shift_at("gw1", "filler", ns(end)) == f"{end[:10]}/early"
    (night,) = [shift for shift in made.shifts("gw1", "filler", ns(start), ns(end)) if shift.id == name]
    assert night == Shift(name, ns(start), ns(end))
    assert night.end_ns - night.start_ns == hours * HOUR


HALF = '[shifts.a]\nstart = "00:00"\nend = "02:30"\n[shifts.b]\nstart = "02:30"\nend = "08:00"\n'


def test_a_boundary_that_the_clock_leaps_over_is_at_the_leap() -> None:
    """Berlin, 2026-03-29: 02:00 CET is 03:00 CEST; 02:30 does not exist."""
    made = calendar(HALF, "Europe/Berlin")
    found = shifts(made, "2026-03-29T00:00:00+01:00", "2026-03-29T08:00:00+02:00")
    leap = ns("2026-03-29T01:00:00Z")
    assert [(one.id[-1], one.end_ns - one.start_ns) for one in found] == [("a", 2 * HOUR), ("b", 5 * HOUR)]
    assert found[0].end_ns == found[1].start_ns == leap


def test_a_boundary_that_comes_twice_is_the_first_of_the_two() -> None:
    """Berlin, 2026-10-25: 03:00 CEST is 02:00 CET; 02:30 comes twice."""
    made = calendar(HALF, "Europe/Berlin")
    found = shifts(made, "2026-10-25T00:00:00+02:00", "2026-10-25T08:00:00+01:00")
    assert [(one.id[-1], one.end_ns - one.start_ns) for one in found] == [("a", 5 * HOUR // 2), ("b", 13 * HOUR // 2)]
    assert found[1].start_ns == ns("2026-10-25T02:30:00+02:00")


def test_a_shift_within_the_hour_that_is_left_out_does_not_take_place() -> None:
    made = calendar('[shifts.short]\nstart = "02:10"\nend = "02:50"\n', "Europe/Berlin")
    found = shifts(made, "2026-03-28T00:00:00+01:00", "2026-03-31T00:00:00+02:00")
    assert [one.id for one in found] == ["2026-03-28/short", "2026-03-30/short"]


@pytest.mark.parametrize(
    "timezone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC", "Australia/Lord_Howe", "Pacific/Apia"]
)
def test_three_shifts_cover_each_year_without_gap_and_agree_with_the_wall_clock(timezone: str) -> None:
    made, zone = calendar(THREE, timezone), ZoneInfo(timezone)
    start, end = ns("2025-12-31T00:00:00Z"), ns("2027-01-03T00:00:00Z")
    found = list(made.shifts("gw1", "filler", start, end))
    assert all(one.end_ns == other.start_ns for one, other in pairwise(found))
    assert found[0].start_ns <= start
    assert found[-1].end_ns >= end
    assert [one.start_ns for one in found[1:]] == list(made.cuts("gw1", "filler", start, end))
    chance = random.Random(7)
    for _ in range(2000):
        t_ns = chance.randrange(start, end)
        wall = datetime.fromtimestamp(t_ns // SECOND, UTC).astimezone(zone)
        name = "early" if 6 <= wall.hour < 14 else "late" if 14 <= wall.hour < 22 else "night"
        on = (wall - timedelta(days=1) if wall.hour < 6 else wall).date()
        assert made.shift_at("gw1", "filler", t_ns) == f"{on.isoformat()}/{name}"


# ---- rules


def test_rules_hold_the_changes_of_some_years_to_the_second() -> None:
    now = ns("2026-06-01T00:00:00Z")
    rules = rules_of("Europe/Berlin", from_ns=now, now_ns=now)
    assert rules[0] == (ns("2023-01-01T00:00:00Z"), 3600)
    assert (ns("2026-03-29T01:00:00Z"), 7200) in rules
    assert (ns("2026-10-25T01:00:00Z"), 3600) in rules
    assert rules[-1][0] > ns("2035-10-01T00:00:00Z")
    assert list(rules) == sorted(rules)
    assert rules_of("Asia/Kolkata", from_ns=now, now_ns=now) == ((ns("2023-01-01T00:00:00Z"), 19_800),)


def test_rules_of_a_later_year_say_the_same_where_they_overlap() -> None:
    at, later = ns("2026-06-01T00:00:00Z"), ns("2027-06-01T00:00:00Z")
    old, new = (rules_of("Europe/Berlin", from_ns=now, now_ns=now) for now in (at, later))
    assert old != new
    assert covers(old, new, later, later + 5 * 365 * DAY)
    assert not covers(old, new, later, later + 20 * 365 * DAY)
    assert not covers(old, rules_of("UTC", from_ns=at, now_ns=at), at, at + DAY)


@pytest.mark.parametrize("name", ["Europe/Berln", "Europe", "/etc/passwd", "../etc/passwd", ""])
def test_a_time_zone_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.timezone: got .*, want an IANA name such as Europe/Berlin"):
        rules_of(name, from_ns=0, now_ns=0)


def test_before_the_first_rule_it_is_utc() -> None:
    made = calendar(THREE, "Asia/Kolkata")
    assert made.shift_at("gw1", "filler", ns("2001-01-01T06:00:00Z")) == "2001-01-01/early"
