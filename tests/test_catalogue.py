"""gateway/devices: each model says who says so, passes the linter, and stands in the docs."""

import json
import re
from pathlib import Path

import pytest

from gateway.app.catalogue import Model, models
from gateway.app.load import load_gateway
from gateway.cli import run
from gateway.codec.planner import Limits, plan
from gateway.codec.registers import Decoder
from gateway.config import ModbusTemplate, points_of
from gateway.config.lint import Level, lint
from gateway.model import ENERGY_UNITS, Kind

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "catalogue.md"
ALL = [model for model in models() if isinstance(model.template, ModbusTemplate)]
METERS = [model for model in ALL if not model.simulated]


def modbus(model: Model) -> ModbusTemplate:
    assert isinstance(model.template, ModbusTemplate)
    return model.template


def table() -> str:
    """Return what docs/catalogue.md must say of the models."""
    lines = ["| template | model | | votes | energies |", "|---|---|---|---|---|"]
    for model in METERS:
        energies = [
            f"{p.direction} {p.unit}" + (f" ({p.counter})" if p.counter != "total" else "")
            for p in modbus(model).points.values()
            if p.kind is Kind.COUNTER
        ]
        mark = "verified" if model.template.verified else "UNVERIFIED"
        cells = (f"`{model.name}`", model.template.title, mark, str(model.template.votes), ", ".join(energies))
        lines.append(f"| {' | '.join(cells)} |")
    verified = sum(model.template.verified for model in METERS)
    return "\n".join([*lines, "", f"{len(METERS)} models, {verified} of them verified."]) + "\n"


def test_there_are_at_least_twenty_meters() -> None:
    assert len(METERS) >= 20


@pytest.mark.parametrize("model", ALL, ids=[model.name for model in ALL])
def test_the_linter_finds_neither_error_nor_doubt_in_a_shipped_template(model: Model) -> None:
    assert [f.text for f in lint(modbus(model), model.text) if f.level is not Level.NOTE] == []


@pytest.mark.parametrize("model", METERS, ids=[model.name for model in METERS])
def test_a_meter_says_power_and_energy_with_direction_and_counter_kind(model: Model) -> None:
    """So that a figure knows what its counter leaves out."""
    points = modbus(model).points
    assert points["active_power"].unit in {"W", "kW"}
    assert points["import_energy"].unit in ENERGY_UNITS
    for name, point in points.items():
        assert point.direction == ("export" if name.startswith("export") else "import")
        assert (point.counter is not None) == (point.kind is Kind.COUNTER)


@pytest.mark.parametrize("model", METERS, ids=[model.name for model in METERS])
def test_a_meter_says_who_says_so(model: Model) -> None:
    """Verified needs two that agree; one that is not says in its first lines what to beware of."""
    template = modbus(model)
    assert template.votes <= len(template.sources)
    assert not template.verified or template.votes >= 2
    assert model.text.startswith("# UNVERIFIED: ") == (not template.verified)


@pytest.mark.parametrize("model", METERS, ids=[model.name for model in METERS])
def test_every_address_is_checked_against_what_the_maker_prints(model: Model) -> None:
    template = modbus(model)
    assert template.base is not None
    assert all(point.displayed == point.address + template.base for point in template.points.values())


@pytest.mark.parametrize("model", ALL, ids=[model.name for model in ALL])
def test_a_shipped_template_can_be_read_in_few_requests(model: Model) -> None:
    template = modbus(model)
    limits = Limits(max_registers=template.max_registers, max_gap=template.max_gap, never=template.never)
    blocks = plan(points_of(template), limits)
    Decoder(points_of(template), blocks)
    assert len(blocks) <= 3


def test_a_meter_whose_total_is_a_tariff_says_so() -> None:
    """The Siemens PAC counts tariff 1 at 801: with a second tariff in use a figure would undercount."""
    for name in ("siemens-pac2200", "siemens-pac3200", "siemens-pac3220"):
        template = next(modbus(model) for model in METERS if model.name == name)
        assert template.points["import_energy"].counter == "tariff 1"


def test_the_catalogue_page_lists_just_the_models_there_are() -> None:
    found = re.search(r"<!-- catalogue: .*? -->\n(.*?)<!-- end of catalogue -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert found[1] == table(), table()


def test_the_page_shows_the_message_that_the_mistake_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "modbus_map.conf"
    good = re.search(r"^```\n(slave_id.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert good is not None
    path.write_text(good[1])
    assert run(["import", str(path)]) == 0
    path.write_text(good[1].replace("40003", "40002"))
    assert run(["import", str(path)]) == 2
    assert capsys.readouterr().err.strip() in PAGE.read_text("utf-8")


def test_devices_lists_the_models_with_verified_and_votes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(METERS) + 1
    for model, line in zip(METERS, lines, strict=False):
        assert line.startswith(model.name)
        assert ("UNVERIFIED" in line) == (not model.template.verified)
        assert line.endswith(f"votes {model.template.votes}")
    assert run(["devices", "--all", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["devices"]) == len(models())


def test_devices_shows_one_model_with_its_sources_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "siemens-pac1600"]) == 0
    out = capsys.readouterr().out
    assert "UNVERIFIED: compare it with the maker's manual" in out
    assert "sources conflict on the energy" in out
    assert run(["devices", "abb-b23", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["votes"], len(found["sources"]), found["verified"]) == (3, 3, True)


@pytest.mark.parametrize("name", ["nobody", "../config", "", "a/b", "x.y"])
def test_a_model_that_is_none_is_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("devices", "lint"):
        assert run([command, name]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "want one that `wattseal devices` lists" in said.err


GATEWAY = """\
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "127.0.0.1:1"
ca = "c"
cert = "c"
key = "k"
[devices.m]
template = "mine"
url = "tcp://127.0.0.1:1"
"""


def test_a_template_beside_gateway_toml_is_found_before_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    (tmp_path / "devices").mkdir()
    own = (ROOT / "gateway" / "devices" / "abb-b23.toml").read_text("utf-8")
    (tmp_path / "devices" / "mine.toml").write_text(own.replace("ABB B23", "Mine"))
    assert load_gateway(tmp_path / "gateway.toml").templates["mine"].title == "Mine"
