"""EDE files: what a BACnet project hands over becomes a template, and what is wrong in them is named by its line."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import parse_template
from gateway.config.ede import from_ede
from gateway.errors import ConfigError

HEAD = """\
# Engineering-Data-Exchange - B.I.G.-EU
PROJECT_NAME;North hall
VERSION_OF_REFERENCEFILE;7
TIMESTAMP_OF_LAST_CHANGE;2024-03-01
AUTHOR_OF_LAST_CHANGE;A. Planner
VERSION_OF_LAYOUT;2.3
#mandatory;mandatory;mandatory;mandatory;mandatory;optional;optional;optional;optional;optional;optional;optional
# keyname;device obj.-instance;object-name;object-type;object-instance;description;present-value-default;\
min-present-value;max-present-value;settable;supports COV;hi-limit;low-limit;state-text-reference;unit-code;\
vendor-specific-address
"""
ROWS = """\
K1;4401;OutdoorTemp;0;1;"Outside; north wall";;;;N;Y;;;;64;
K2;4401;Power;0;6;Fan and pump;;;;N;Y;;;;48;
K3;4401;Energy;23;1;Electricity;;;4294967295;N;N;;;;18;
K4;4401;MeterReading;2;9;;;;;N;N;;;;19;
K5;4401;FanRunning;3;1;;;;;N;Y;;;3;;
K6;4401;Mode;13;1;;;;;N;Y;;;4;;
K7;4401;Schedule;17;1;;;;;N;N;;;;;
K8;4401;AirHandler;8;4401;;;;;N;N;;;;;
"""


def points(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = tomllib.loads(text)["points"]
    return found


def row(**cells: str) -> str:
    known = {"key": "K", "device": "4401", "name": "X", "type": "0", "instance": "1", "unit": ""} | cells
    middle = ";".join([known["key"], known["device"], known["name"], known["type"], known["instance"]])
    return f"{middle};;;;;N;Y;;;;{known['unit']};\n"


def test_an_ede_file_becomes_a_template_that_parses() -> None:
    """Objects keep their numbers; energy is a counter, an accumulator wraps after its greatest value."""
    text = from_ede(HEAD + ROWS, name="north-hall")
    template = parse_template(text, "north-hall")
    assert template.protocol == "bacnet"
    assert not template.verified
    assert points(text) == {
        "outdoor_temp": {"object": "analog-input,1", "unit": "degF"},
        "power": {"object": "analog-input,6", "unit": "kW"},
        "energy": {
            "object": "accumulator,1",
            "store": "u64",
            "unit": "Wh",
            "kind": "counter",
            "modulus": 4294967296,
        },
        "meter_reading": {"object": "analog-value,9", "store": "f64", "unit": "kWh", "kind": "counter"},
        "fan_running": {"object": "binary-input,1", "store": "bool"},
        "mode": {"object": "multi-state-input,1", "store": "u64"},
    }


def test_the_template_says_whence_it_is_and_what_it_leaves_out() -> None:
    """A reader sees the project, the device's URL, the descriptions, and which objects are not read."""
    text = from_ede(HEAD + ROWS, name="north-hall")
    assert tomllib.loads(text)["sources"] == ["EDE file: North hall, 7, 2024-03-01"]
    assert 'url = "bacnet:4401"' in text
    assert "# Outside; north wall" in text
    assert "1 of type 17, 1 of type 8" in text


@pytest.mark.parametrize("separator", [",", "\t"])
def test_other_separators_are_understood(separator: str) -> None:
    """A spreadsheet in another country writes other separators."""
    text = (HEAD + ROWS.replace("Outside; north wall", "Outside")).replace(";", separator)
    assert len(points(from_ede(text, name="north-hall"))) == 6


def test_a_byte_order_mark_and_crlf_do_no_harm() -> None:
    """Spreadsheets on Windows write both."""
    text = "\ufeff" + (HEAD + ROWS).replace("\n", "\r\n")
    assert from_ede(text, name="north-hall") == from_ede(HEAD + ROWS, name="north-hall")


def test_objects_of_one_name_get_names_of_their_own() -> None:
    """Object names are unique in a device, but not once they are lower-case letters and digits."""
    text = HEAD + row(name="Temp°1", instance="1") + row(name="Temp 1", instance="2") + row(name="温度", instance="3")
    assert list(points(from_ede(text, name="x"))) == ["temp_1", "temp_1_2", "analog-input-3"]


def test_a_makers_own_unit_is_told_and_not_claimed() -> None:
    """Numbers from 256 on are the maker's: no reading could be checked against such a unit."""
    text = HEAD + row(unit="47900")
    assert "# Its unit is number 47900, which is none of ours." in from_ede(text, name="x")
    named = from_ede(text, name="x", units="# Code;Text\n47900;kWh/t\n")
    assert "# Its unit is number 47900 (kWh/t), which is none of ours." in named
    assert "unit" not in points(named)["x"]


def test_types_may_be_named() -> None:
    """Some tools write names where the layout wants numbers."""
    assert points(from_ede(HEAD + row(type="Analog Value"), name="x"))["x"]["object"] == "analog-value,1"


def test_one_of_several_devices_is_chosen() -> None:
    """A project's file holds all its devices; a template is for one."""
    text = HEAD + row() + row(device="4402", name="Y")
    assert list(points(from_ede(text, name="x", device=4402))) == ["y"]
    with pytest.raises(ConfigError, match=r"got the objects of 2 devices \(4401, 4402\), want --device with one"):
        from_ede(text, name="x")
    with pytest.raises(ConfigError, match="got device 4403, want one of the file: 4401, 4402"):
        from_ede(text, name="x", device=4403)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 0: got no line of columns, want one with device obj.-instance, object-name"),
        ("a;b;c\n1;2;3\n", "line 2: got no line of columns"),
        (HEAD, "got no object that a template can read"),
        (HEAD + row(type="17"), "got no object that a template can read"),
        (HEAD + row(type="0x1"), "line 9: object-type: got '0x1', want its number"),
        (HEAD + row(instance="-1"), r"line 9: object-instance: got '-1', want 0\.\.4194302"),
        (HEAD + row(instance="4194303"), "line 9: object-instance: got '4194303'"),
        (HEAD + row(device=""), "line 9: device obj.-instance: got ''"),
        (HEAD + row(unit="kWh"), "line 9: unit-code: got 'kWh', want the number of a unit"),
        (HEAD + row() + row(name="Y"), "line 10: got analog-input,1 again, want each object once: line 9 has it"),
        (HEAD + row(name='"open'), "line 9: got .*, want cells with ';' between them"),
        (HEAD + "K1;4401\n", "line 9: got 2 cells, want at least 5"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(text: str, message: str) -> None:
    """The line, what it holds, and what it should."""
    with pytest.raises(ConfigError, match=message):
        from_ede(text, name="x")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=100)
def test_whatever_a_name_or_description_holds_the_template_parses(said: str) -> None:
    """Quotes, back-slashes and control characters of a project are data, never TOML."""
    cell = '"' + said.replace('"', '""').replace("\n", " ") + '"'
    text = HEAD + f"K;4401;{cell};0;1;{cell};;;;N;Y;;;;62;\n"
    try:
        assert len(points(from_ede(text, name="x"))) == 1
    except ConfigError as e:
        assert "line 9" in str(e) or "line 10" in str(e)  # noqa: PT017 - a line break within a cell


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text_at_all_is_a_template_or_an_error(said: str) -> None:
    """A decoder of foreign files never fails in another way."""
    for text in (said, HEAD + said):
        try:
            from_ede(text, name="x")
        except ConfigError:
            continue
