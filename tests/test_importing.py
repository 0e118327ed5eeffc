"""Register maps of other programs: what they mean here, and what is said of a mistake.

A case is a folder in cases/import: `input`, and `expected` (the templates and sections) or `error`.
"""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import run
from gateway.config import parse_template
from gateway.config.import_entries import register_of
from gateway.config.importing import Imported, guess, import_map
from gateway.errors import ConfigError
from gateway.model import Kind, WireType

CASES = Path(__file__).parent / "cases" / "import"
NAMES = sorted(path.name for path in CASES.iterdir())
FILES = {"seed": "modbus_map.conf", "telegraf": "telegraf.conf", "csv": "registers.csv"}


def outcome(case: Path) -> tuple[str, str]:
    """Return which file of the case says what comes of it, and what does."""
    file = FILES.get(case.name.partition("_")[0], "some.txt")
    try:
        found = import_map((case / "input").read_text("utf-8"), file=file)
    except ConfigError as e:
        return "error", f"{e}\n"
    return "expected", "\n".join(f"---- {device.name}\n{device.template}----\n{device.section}" for device in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_becomes_templates_or_one_line_that_says_how_to_mend_it(name: str) -> None:
    kind, text = outcome(CASES / name)
    path = CASES / name / kind
    assert path.is_file(), text
    assert text == path.read_text("utf-8")
    assert kind == "expected" or text.count("\n") == 1


def only(text: str, file: str = "modbus_map.conf") -> Imported:
    (found,) = import_map(text, file=file)
    return found


def test_the_seeds_40001_is_holding_register_0() -> None:
    """The customer's file is taken as it is: `slave_id: 01` is unit 1, kWh is a counter."""
    device = only("slave_id: 01, register: 40001, type: float32, unit: kWh\n")
    (point,) = parse_template(device.template, "x").points.values()
    assert (point.function, point.address, point.type) == (3, 0, WireType.F32)  # type: ignore[union-attr]
    assert (point.unit, point.kind) == ("kWh", Kind.COUNTER)
    assert "unit_id = 1\n" in device.section


@pytest.mark.parametrize(
    ("register", "function", "address"),
    [
        ("40001", 3, 0),
        ("49999", 3, 9998),
        ("400001", 3, 0),
        ("465536", 3, 65535),
        ("30001", 4, 0),
        ("300054", 4, 53),
        ("10001", 2, 0),
        ("165536", 2, 65535),
        ("00001", 1, 0),
        ("1", 1, 0),
        ("9999", 1, 9998),
    ],
)
def test_a_makers_number_is_a_table_and_a_pdu_address(register: str, function: int, address: int) -> None:
    assert register_of(register, "x") == (function, address)


@pytest.mark.parametrize("register", ["40000", "0", "50001", "20001", "465537", "400000", "-1", "x", "", "4 0001"])
def test_a_number_of_no_table_is_refused_and_not_guessed(register: str) -> None:
    with pytest.raises(ConfigError, match="PDU address 0 is 40001"):
        register_of(register, "x")


def test_telegrafs_float32_of_the_old_style_is_a_whole_number() -> None:
    """Telegraf reads FLOAT32 as a scaled integer there; taking it for a float would give nonsense that looks real."""
    text = (CASES / "telegraf_registers" / "input").read_text("utf-8")
    points = parse_template(only(text, "telegraf.conf").template, "x").points
    assert points["old_float"].type is WireType.U32  # type: ignore[union-attr]
    assert points["energy"].type is WireType.F32  # type: ignore[union-attr]


def test_overlapping_registers_name_both_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        only("slave_id: 1, register: 40001, type: float32\n\nslave_id: 1, register: 40002, type: uint16\n")
    assert str(caught.value).startswith("modbus_map.conf:3: Register Offset Overflow: ")
    assert "of line 1, want" in str(caught.value)


def test_the_same_register_of_two_units_does_not_overlap() -> None:
    text = "slave_id: 1, register: 40001, type: float32\nslave_id: 2, register: 40001, type: float32\n"
    assert [device.name for device in import_map(text, file="modbus_map.conf")] == ["modbus_map-1", "modbus_map-2"]


EDE = """\
# Engineering-Data-Exchange - B.I.G.-EU
PROJECT_NAME;Hall
VERSION_OF_LAYOUT;2.3
# keyname;device obj.-instance;object-name;object-type;object-instance;description;unit-code
K2;4401;Power;0;6;Fan and pump;48
"""


def test_an_ede_file_becomes_a_bacnet_template() -> None:
    device = only(EDE, "hall.csv")
    assert parse_template(device.template, "x").protocol == "bacnet"
    assert 'url = "bacnet:4401"\n' in device.section
    with pytest.raises(ConfigError, match=r"hall\.csv: .*line 5"):
        only(EDE.replace(";0;6;", ";x!;6;"), "hall.csv")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("slave_id: 1, register: 40001", "seed"),
        ("# c\n[[inputs.modbus]]\n", "telegraf"),
        ("name;register;type", "csv"),
        (EDE, "ede"),
    ],
)
def test_the_format_is_told_from_the_first_lines(text: str, form: str) -> None:
    assert guess(text, "f") == form


@pytest.mark.parametrize("stop", ["[1]", "3", "1.5", '"x"'])
def test_a_serial_line_of_nonsense_is_refused(stop: str) -> None:
    text = (CASES / "telegraf_requests" / "input").read_text("utf-8").replace("stop_bits = 1", f"stop_bits = {stop}")
    with pytest.raises(ConfigError, match="stop bits, want numbers"):
        import_map(text, file="telegraf.conf")


def test_names_that_no_device_can_have_are_refused() -> None:
    text = (CASES / "telegraf_requests" / "input").read_text("utf-8").replace('"line"', f'"{"x" * 70}"')
    with pytest.raises(ConfigError, match=r"--name: got .* want at most 63"):
        import_map(text, file="telegraf.conf")


# ---- the command


def test_what_is_printed_for_one_device_is_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "modbus_map.conf"
    path.write_text("slave_id: 01, register: 40001, type: float32, unit: kWh\n")
    assert run(["import", str(path), "--name", "meter"]) == 0
    out = capsys.readouterr().out
    assert "# [devices.meter]\n" in out
    assert list(parse_template(out, "meter").points) == ["kwh_0"]


def test_out_writes_templates_and_prints_the_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "modbus_map.conf"
    path.write_text("slave_id: 1, register: 40001, type: int16\nslave_id: 2, register: 40001, type: int16\n")
    out = tmp_path / "devices"
    assert run(["import", str(path), "--out", str(out), "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().out
    assert not out.exists()
    assert run(["import", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert set(tomllib.loads(printed)["devices"]) == {"modbus_map-1", "modbus_map-2"}
    for name in ("modbus_map-1", "modbus_map-2"):
        parse_template((out / f"{name}.toml").read_text("utf-8"), name)
    assert run(["import", str(path), "--out", str(out)]) == 2
    assert "want another --name, or --force" in capsys.readouterr().err
    assert run(["import", str(path), "--out", str(out), "--force"]) == 0


@pytest.mark.parametrize("name", ["Meter", "a/b", "..", "x" * 60])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "modbus_map.conf"
    path.write_text("slave_id: 1, register: 40001, type: int16\n")
    assert run(["import", str(path), "--name", name, "--out", str(tmp_path)]) == 2
    assert "--name: got" in capsys.readouterr().err


PIECES = [
    *"\n,:;=[]{}\"' \x00é",
    "slave_id: 1",
    "register: 40001",
    "type: float32",
    "unit: ",
    "[[inputs.modbus]]\n",
    "holding_registers = [",
    "{ name = 'a', address = [0] }",
    "slave_id = 1\n",
    "name,address,type\n",
    "a,3,u16\n",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30), st.sampled_from(["seed", "telegraf", "csv", "ede"]))
def test_any_text_is_imported_or_refused_in_one_line(parts: list[str], form: str) -> None:
    said = ""
    try:
        for device in import_map("".join(parts), file="f", form=form):
            parse_template(device.template, device.name)
            tomllib.loads(device.section)
    except ConfigError as e:
        said = str(e)
    assert "\n" not in said
