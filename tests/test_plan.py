"""config/plan: carbon.toml, its mistakes (where, got, want), and its page."""

import re
from pathlib import Path

import msgspec
import pytest

from gateway.config import plan
from gateway.config.plan import parse_plan
from gateway.config.plan.lines import MeterSection, VirtualSection
from gateway.errors import ConfigError

PAGE = Path(__file__).parent.parent / "docs" / "plan.md"
DAY = '[shifts.day]\nstart = "06:00"\nend = "14:00"\n'
NIGHT = '[shifts.night]\nstart = "22:00"\nend = "06:00"\n'


def parse(text: str) -> plan.Plan:
    return parse_plan(text, name="carbon.toml")


def test_an_empty_plan_is_one() -> None:
    found = parse("")
    assert (found.site.timezone, found.shifts, found.grid, found.valid_from_ns) == ("UTC", {}, {}, None)


def test_a_time_is_taken_as_utc() -> None:
    assert parse("valid_from = 2026-01-01T01:00:00+01:00\n").valid_from_ns == 1_767_225_600 * 10**9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[shiftz.day]\n", r"carbon\.toml: shiftz: got an unknown section, want one of calendar, fuels, grid"),
        ("shifts = 1\n", r"carbon\.toml: shifts: got 1, want a table"),
        ("valid_from = 2026-01-01\n", r"carbon\.toml: valid_from: got '2026-01-01', want a date and time with Z"),
        ("valid_from = 2026-01-01T00:00:00\n", r"valid_from: got .*, want a date and time with Z"),
        ("valid_from = 1960-01-01T00:00:00Z\n", r"valid_from: got .*, want a time from 1970 to 2262"),
        (
            '[site]\ntimezone = "Europe Berlin"\n',
            r"carbon\.toml: site\.timezone: got 'Europe Berlin', want a name such",
        ),
        ("[site]\nzone = 1\n", r"carbon\.toml: site\.zone: got an unknown key, want one of name, timezone"),
        (
            '[shifts.Day]\nstart = "06:00"\nend = "14:00"\n',
            r"carbon\.toml: shifts: got the name 'Day', want lower-case",
        ),
        ('[shifts.day]\nstart = "06:00"\n', r"carbon\.toml: shifts\.day\.end: got nothing, want a time such as"),
        ('[shifts.day]\nstart = "6:00"\nend = "14:00"\n', r"shifts\.day\.start: got '6:00', want a time such as"),
        ('[shifts.day]\nstart = "06:00"\nend = "24:00"\n', r"shifts\.day\.end: got '24:00', want a time such as"),
        (DAY + 'days = ["monday"]\n', r"carbon\.toml: shifts\.day\.days\.0: got 'monday', want"),
        (DAY + 'lines = ["filling"]\n', r"carbon\.toml: shifts\.day\.lines\.0: got 'filling', want"),
        ("calendar = 1\n", r"carbon\.toml: calendar: got 1, want \[\[calendar\]\] tables"),
        ('[[calendar]]\ndate = "25.12."\n', r"carbon\.toml: calendar\[0\]\.date: got '25\.12\.', want a date such as"),
        ('[[calendar]]\ndate = "2026-02-30"\n', r"calendar\[0\]\.date: got '2026-02-30', want a date that there is"),
        ('[[calendar]]\ndate = "2026-12-25"\n' * 2, r"calendar\[1\]\.date: got '2026-12-25', want .*, each once"),
        ('[[calendar]]\ndate = "2026-12-25"\nshifts = ["x"]\n', r"calendar\[0\]\.shifts: got 'x', want names of"),
        ("[grid]\nDE = 1\n", r"carbon\.toml: grid\.DE: got 1, want a table"),
        ('[grid."a\\nb"]\n', r"carbon\.toml: grid: got the zone 'a\\nb', want printable text"),
        ("[grid.DE]\nlast_good_h = 745\n", r"carbon\.toml: grid\.DE\.last_good_h: got 745, want 0\.\.744"),
        (
            '[grid.DE]\ntype = "marginal"\n',
            r"carbon\.toml: grid\.DE\.type: got 'marginal', want one of direct, lifecycle",
        ),
        ('[grid.DE]\norder = ["maps", "maps"]\n', r"carbon\.toml: grid\.DE\.order: got .*, want each provider once"),
        ("[lines]\ngw1 = 1\n", r"carbon\.toml: lines: got .*, want \[lines\.<gateway>\.<line>\]"),
        ("[lines.gw1.filling]\nx = 1\n", r"carbon\.toml: lines\.gw1\.filling\.x: got an unknown key"),
    ],
)
def test_a_mistake_says_where_got_and_want(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


# ---- shifts that overlap


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            DAY + '[shifts.late]\nstart = "13:30"\nend = "22:00"\n',
            r"carbon\.toml: shifts\.late: got 13:30 to 22:00, which overlaps 'day', 06:00 to 14:00, of mon",
        ),
        (NIGHT + '[shifts.day]\nstart = "05:00"\nend = "14:00"\n', r"shifts\.day: got 05:00 to 14:00, .* 'night'"),
        (
            '[shifts.sun]\nstart = "22:00"\nend = "06:00"\ndays = ["sun"]\n'  # noqa: ISC004 - one text
            '[shifts.mon]\nstart = "05:00"\nend = "08:00"\ndays = ["mon"]\n',
            r"shifts\.mon: got 05:00 to 08:00, which overlaps 'sun', 22:00 to 06:00, of sun",
        ),
        (DAY + '[shifts.all]\nstart = "10:00"\nend = "11:00"\nlines = ["gw1/filling"]\n', r"shifts\.all: got"),
    ],
)
def test_shifts_of_one_line_that_overlap_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        DAY + NIGHT + '[shifts.late]\nstart = "14:00"\nend = "22:00"\n',
        '[shifts.day]\nstart = "06:00"\nend = "06:00"\n',
        DAY + '[shifts.other]\nstart = "10:00"\nend = "18:00"\ndays = []\n',
        DAY + 'days = ["mon"]\n[shifts.other]\nstart = "10:00"\nend = "18:00"\ndays = ["tue"]\n',
        DAY + 'lines = ["gw1/a"]\n[shifts.other]\nstart = "10:00"\nend = "18:00"\nlines = ["gw1/b"]\n',
    ],
)
def test_shifts_that_never_meet_on_a_line_are_taken(text: str) -> None:
    assert parse(text).shifts


def test_an_exception_must_not_make_shifts_overlap_on_its_day_or_the_next() -> None:
    special = DAY + NIGHT + '[shifts.long]\nstart = "10:00"\nend = "08:00"\ndays = []\n'
    with pytest.raises(ConfigError, match=r"shifts\.long: got 10:00 to 08:00, .* 'day', .* of 2026-12-24"):
        parse(special + '[[calendar]]\ndate = "2026-12-24"\nshifts = ["day", "long"]\n')
    with pytest.raises(ConfigError, match=r"shifts\.day: .* 'long', .* of 2026-12-24"):
        parse(special + '[[calendar]]\ndate = "2026-12-24"\nshifts = ["long"]\n')
    text = special + '[[calendar]]\ndate = "2026-12-24"\nshifts = ["long"]\n[[calendar]]\ndate = "2026-12-25"\n'
    assert len(parse(text).calendar) == 2
    early = '[shifts.early]\nstart = "04:00"\nend = "05:00"\ndays = []\n'
    with pytest.raises(ConfigError, match=r"shifts\.early: .* 'night', .* of 2026-12-23"):
        parse(DAY + NIGHT + early + '[[calendar]]\ndate = "2026-12-24"\nshifts = ["early"]\n')


# ---- its page


def blocks() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_shows_a_plan_that_parses() -> None:
    found = parse(blocks()[0])
    assert set(found.shifts) == {"early", "late", "night"}
    assert found.grid["DE"].order
    assert found.instruments
    assert found.lines


@pytest.mark.parametrize(
    "section",
    [
        *(plan.SiteSection, plan.ShiftSection, plan.ExceptionSection, plan.GridSection, plan.InstrumentSection),
        *(plan.MarketSection, plan.FuelSection, plan.StaticAssetSection, plan.ThermalSection, plan.LinePlan),
        *(plan.AlertSection, MeterSection, VirtualSection),
    ],
)
def test_each_key_is_on_the_page(section: type[msgspec.Struct]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [f.name for f in msgspec.structs.fields(section) if not re.search(rf"\b{f.name}\b", text)]
    assert not missing, f"docs/plan.md does not name {missing}"
