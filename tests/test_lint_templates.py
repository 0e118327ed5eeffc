"""The linter for device templates: each mistake is found and named, and what is right is left alone."""

import json
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.config import ModbusTemplate, parse_template
from gateway.config.lint import Finding, Level, lint, overlaps
from gateway.model import Point, WireType

GOOD = """\
title = "A meter"
verified = true
sources = ["one", "another, independent of it"]
votes = 2
function = 4
base = 30001

[points.power]
address = 0x0034
displayed = 30053
type = "f32"
unit = "W"
direction = "import"

[points.energy]
address = 0x0048
displayed = 30073
type = "u32"
unit = "kWh"
kind = "counter"
modulus = 4294967296
sentinels = [0xFFFFFFFF]
counter = "total"
direction = "import"
"""


def look(text: str) -> tuple[Finding, ...]:
    template = parse_template(text, "x")
    assert isinstance(template, ModbusTemplate)
    return lint(template, text)


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_a_good_template_has_no_finding() -> None:
    assert look(GOOD) == ()


MISTAKES = {
    "energy on power's second register": (
        [("address = 0x0048\ndisplayed = 30073", "address = 0x0035\ndisplayed = 30054")],
        "Register Offset Overflow: points.power (FC 4, f32, 52..53) and points.energy (u32, 53..54) share",
    ),
    "the maker's list counts from another number": (
        [("base = 30001", "base = 30000")],
        "base: every address is off by -1 against `displayed`",
    ),
    "one address that does not fit": (
        [("displayed = 30073", "displayed = 30074")],
        "want a difference of base = 30001",
    ),
    "displayed numbers without a base": ([("base = 30001\n", "")], "base: got none, want what `displayed` counts from"),
    "a power that counts": (
        [('type = "f32"\nunit = "W"', 'type = "f32"\nunit = "W"\nkind = "counter"')],
        'kind: got "counter" in W',
    ),
    "a modulus that the type cannot count to": (
        [("modulus = 4294967296", "modulus = 4294967297")],
        "want what a u32 can",
    ),
    "a signed type that cannot count to its modulus": (
        [('type = "u32"', 'type = "s32"'), ("sentinels = [0xFFFFFFFF]\n", "")],
        "modulus: got 4294967296, want what a s32 can count to",
    ),
    "a modulus of a float": (
        [('type = "u32"', 'type = "f32"'), ("sentinels = [0xFFFFFFFF]\n", "")],
        "for a float, of whose roll-over nobody can tell",
    ),
    "a modulus of a gauge": (
        [('unit = "kWh"\nkind = "counter"', 'unit = "V"'), ('counter = "total"\n', "")],
        "of a gauge, want none",
    ),
    "a counter kind of a gauge": ([('unit = "W"', 'unit = "W"\ncounter = "total"')], 'counter: got "total" of a gauge'),
    "a counter that only falls": (
        [('unit = "kWh"', 'unit = "kWh"\nscale = "-1"'), ("modulus = 4294967296\n", "")],
        "which would only ever fall",
    ),
    "a sentinel that the type never holds": ([("[0xFFFFFFFF]", "[0xFFFFFFFFFF]")], "which a u32 never holds"),
    "an unsigned pattern as a signed type's sentinel": (
        [('type = "f32"', 'type = "s32"\nsentinels = [0x80000000]')],
        "got 2147483648, which a s32 never holds (-2147483648 is the same pattern)",
    ),
    "a sentinel of a float": ([('type = "f32"', 'type = "f32"\nsentinels = [1]')], "want none (NaN always is one)"),
    "a sentinel of a text": (
        [('type = "f32"\nunit = "W"', 'type = "string"\nregisters = 2\nsentinels = [1]')],
        "want [0] for a string",
    ),
    "a range never to be read that cuts a point": (
        [("function = 4", "function = 4\nnever = [[4, 70, 72]]")],
        "never: [4, 70, 72] cuts points.energy at 72",
    ),
    "a range that ends before it begins": (
        [("function = 4", "function = 4\nnever = [[4, 9, 1]]")],
        "not past the last",
    ),
    "verified by one source": (
        [('["one", "another, independent of it"]', '["one"]'), ("votes = 2", "votes = 1")],
        "verified: got true with 1 votes",
    ),
    "more votes than sources": ([("votes = 2", "votes = 3")], "want no more votes than sources"),
    "no sources": (
        [('["one", "another, independent of it"]', "[]"), ("true", "false"), ("votes = 2", "votes = 0")],
        "sources: got none",
    ),
    "a bit without its number": ([('type = "f32"\nunit = "W"', 'type = "bit"')], "bit: got None, want 0..15"),
    "a bit of a whole register": ([('unit = "W"', 'unit = "W"\nbit = 3')], 'bit: got 3 of a f32, want type = "bit"'),
    "a scale factor that is a float": (
        [('unit = "W"', 'unit = "W"\nscale_point = "power"')],
        "a f32, want another point that is a whole number",
    ),
    "a value wider than a request": (
        [("function = 4", "function = 4\nmax_registers = 1")],
        "max_registers has room for",
    ),
    "a probe with nothing to compare": (
        [("[points.power]", "[probe]\naddress = 1\n[points.power]")],
        "probe: got neither",
    ),
    "a probe that its register cannot hold": (
        [("[points.power]", "[probe]\naddress = 1\nequals = [65536]\n[points.power]")],
        "probe.equals: got 65536",
    ),
    "a probe of text in a number": (
        [("[points.power]", '[probe]\naddress = 1\ntext = "B23"\n[points.power]')],
        'text goes with type = "string"',
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_an_error_that_says_what_it_wants(what: str) -> None:
    pairs, told = MISTAKES[what]
    errors = [finding.text for finding in look(changed(*pairs)) if finding.level is Level.ERROR]
    assert any(told in text for text in errors), errors


BARE = GOOD.replace("base = 30001\n", "").replace("displayed = 30053\n", "").replace("displayed = 30073\n", "")
DOUBTS = {
    "input registers that look like a list's numbers": (
        BARE.replace("0x0034", "30053").replace("0x0048", "30073"),
        "got address 30053 for FC 4, which looks like a maker's number: want PDU address 52",
    ),
    "holding registers that look like a list's numbers": (
        BARE.replace("function = 4", "function = 3").replace("0x0034", "40053").replace("0x0048", "40073"),
        "want PDU address 52, or say base = 0",
    ),
    "every address odd": (BARE.replace("0x0034", "53").replace("0x0048", "73"), "base: every address is odd"),
    "an energy of no unit": (BARE.replace('unit = "kWh"\n', ""), "unit: got '' for an energy"),
    "an energy that is never sealed": (
        BARE.replace('kind = "counter"\nmodulus = 4294967296\n', "").replace('counter = "total"\n', ""),
        'kind: got "gauge" in kWh',
    ),
    "kWh made Wh by scale": (
        BARE.replace('unit = "kWh"', 'unit = "Wh"\nscale = "1000"'),
        "makes one unit of the other",
    ),
    "Wh made kWh by scale": (
        BARE.replace('unit = "kWh"', 'unit = "kWh"\nscale = "0.001"'),
        "makes one unit of the other",
    ),
    "a size that changes nothing": (
        BARE.replace('"f32"', '"f32"\nregisters = 4'),
        "got 4 for a f32, which has its own",
    ),
    "a unit in other letters": (BARE.replace('"kWh"', '"KWH"'), "unit: got 'KWH', want 'kWh'"),
    "a counter of which nobody says what it leaves out": (
        BARE.replace('counter = "total"\n', ""),
        'counter: got nothing, want "total", "partial" or "tariff 1"',
    ),
    "a small counter that wraps": (
        BARE.replace("modulus = 4294967296\nsentinels = [0xFFFFFFFF]\n", "").replace('"u32"', '"u16"'),
        "a u16 wraps soon: want 65536",
    ),
    "a power that cannot be negative beside an export": (
        BARE.replace('type = "f32"', 'type = "u32"')
        + '[points.out]\naddress = 80\ntype = "u32"\nunit = "kWh"\nkind = "counter"\n'
        + 'counter = "total"\ndirection = "export"\n',
        "got u32, which cannot go below 0",
    ),
}


@pytest.mark.parametrize("what", DOUBTS)
def test_a_doubt_is_said_and_is_no_error(what: str) -> None:
    text, told = DOUBTS[what]
    found = look(text)
    assert not [finding for finding in found if finding.level is Level.ERROR]
    assert any(told in finding.text for finding in found if finding.level is Level.DOUBT), found


def test_odd_addresses_are_no_doubt_when_the_base_is_said() -> None:
    """Schneider's and Siemens' real addresses are all odd."""
    text = BARE.replace("0x0034", "53").replace("0x0048", "73").replace("function = 4", "function = 4\nbase = 1")
    assert look(text) == ()


def test_a_float_counter_is_noted_with_its_step() -> None:
    text = BARE.replace('"u32"', '"f32"').replace("modulus = 4294967296\nsentinels = [0xFFFFFFFF]\n", "")
    (finding,) = look(text)
    assert (finding.level, finding.rule) == (Level.NOTE, "resolution")
    assert "64 Wh at 1 GWh" in finding.text


def test_an_overlap_names_both_points_and_both_lines() -> None:
    (finding,) = look(changed(("address = 0x0048\ndisplayed = 30073", "address = 0x0035\ndisplayed = 30054")))
    assert finding.points == ("power", "energy")
    assert [GOOD.splitlines()[line - 1] for line in finding.lines] == ["[points.power]", "[points.energy]"]


def point(
    name: str, address: int, kind: WireType = WireType.U16, *, function: int = 3, bit: int | None = None
) -> Point:
    return Point(name=name, function=function, address=address, type=kind, bit=bit)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (point("a", 0, WireType.F32), point("b", 1), True),
        (point("a", 0, WireType.F32), point("b", 2), False),
        (point("a", 0, WireType.U64), point("b", 3, WireType.U64), True),
        (point("a", 5), point("b", 5), True),
        (point("a", 5), point("b", 5, function=4), False),
        (point("a", 5, WireType.BIT, bit=1), point("b", 5, WireType.BIT, bit=2), False),
        (point("a", 5, WireType.BIT, bit=1), point("b", 5, WireType.BIT, bit=1), True),
        (point("a", 5), point("b", 5, WireType.BIT, bit=1), False),
        (point("a", 5, WireType.BIT, function=1), point("b", 5, WireType.BIT, function=1), True),
    ],
)
def test_points_overlap_where_they_share_a_register_that_is_no_set_of_bits(
    first: Point, second: Point, *, both: bool
) -> None:
    assert bool(list(overlaps([first, second]))) == both
    assert bool(list(overlaps([second, first]))) == both


# ---- the command


def test_lint_fails_on_an_error_and_names_file_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(changed(("address = 0x0048\ndisplayed = 30073", "address = 0x0035\ndisplayed = 30054")))
    assert run(["lint", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path}:8 and 15: error: Register Offset Overflow: ")
    assert lines[1] == f"{path}: FAILED: 1 errors, 0 doubts"
    assert run(["lint", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["findings"][0]["lines"]) == (False, [8, 15])


def test_lint_passes_on_doubts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DOUBTS["a unit in other letters"][0])
    assert run(["lint", str(path)]) == 0
    assert "1 doubts" in capsys.readouterr().out.splitlines()[-1]


def test_lint_takes_a_name_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", "abb-b23", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"template": "abb-b23", "ok": True, "findings": []}


def test_lint_refuses_a_file_that_is_no_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("title = 1")
    assert run(["lint", str(path)]) == 2
    assert "mine.toml: title: got 1, want" in capsys.readouterr().err
