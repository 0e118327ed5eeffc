"""`wattseal explain` of what no electricity meter counts: whoever has a pencil comes to the same figure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from gateway.carbon.audit.rows import record_id
from gateway.cli import run
from tests.plans import gas
from tests.shifts import DAY, FILLING, HOUR, MINUTE, PLAN, SIX, Shop, hours
from tests.test_fuels import DESNZ, GAS

BEGIN = SIX - HOUR
DIESEL = """
[fuels.generator]
line = "gw1/filling"
point = "tank.litres"
fuel = "diesel"
correction = "0.999"
basis = "gross"
"""
LIGHTS = """
[static-assets.lights]
line = "gw1/filling"
standby_w = 250.5
leakage_multiplier = "1.2"
"""


@dataclass(frozen=True)
class Explained:
    """A row's explanation: as text, and as JSON."""

    text: str
    found: Mapping[str, Any]


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the ledger.toml of a line with a boiler, a generator and lights: half an hour before the early shift."""
    folder = tmp_path_factory.mktemp("shop")
    columns = (*FILLING.columns, gas(), gas("tank.litres", "L"), gas("tank.spare", "L"))
    made = Shop(folder, now_ns=BEGIN, memory=False, schema=replace(FILLING, columns=columns))
    (folder / "ledger.toml").write_text(made.hall.toml)
    made.plan(PLAN + GAS.replace("gw1/filler", "gw1/filling") + DIESEL + LIGHTS)
    fuels = [replace(one, start_ns=BEGIN - DAY, end_ns=BEGIN + DAY) for one in DESNZ]
    made.offer([*hours(*["400"] * 3, start_ns=BEGIN), *fuels])
    made.counters = [Decimal(text) for text in ("0", "0", "0", "0", "5000.5", "70", "8")]
    made.shows()
    made.give()
    for _ in range(2):
        made.now_ns += 15 * MINUTE
        steps = ("10", "5", "20", "25", "7.25", "3", "1")
        made.counters = [held + Decimal(step) for held, step in zip(made.counters, steps, strict=True)]
        made.shows()
        made.give()
    made.hall.ledger.close()
    return str(folder / "ledger.toml")


def explained(toml: str, meter: str, capsys: pytest.CaptureFixture[str]) -> Explained:
    """Return how the second quarter's row came about; it must come out again."""
    record = record_id("gw1", "filling", meter, BEGIN + 15 * MINUTE)
    capsys.readouterr()
    assert run(["explain", toml, record]) == 0
    text = capsys.readouterr().out
    assert run(["explain", toml, record, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    return Explained(text, found)


def test_a_modelled_load_says_watts_multiplier_and_time(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = explained(toml, "static:lights", capsys)
    said = row.found["planned"]
    assert (said["standby_w"], said["leakage_multiplier"], said["seconds"]) == ("250.5", "1.2", "900")
    watts = Fraction(said["standby_w"]) * Fraction(said["leakage_multiplier"])
    since = [int(watts * t_ns / 3_600_000_000) for t_ns in (BEGIN + 15 * MINUTE, BEGIN + 30 * MINUTE)]
    assert said["mwh_since_1970"] == since
    assert since[1] - since[0] == 75_150
    assert (row.found["recomputed"]["energy_kwh"], row.found["co2e"]["g"]) == ("0.07515", "30.06")
    for text in (
        "no meter, a model, by the plan's static-assets.lights: 250.5 W x 1.2 x 900 s / 3.6 J/mWh",
        f"{since[1]} - {since[0]} = 75150 mWh = 0.07515 kWh",
        "0.07515 kWh x 400 g/kWh = 30.06 g",
    ):
        assert text in row.text, text


def test_a_fuels_heat_says_correction_calorific_value_and_basis(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = explained(toml, "gas.volume", capsys)
    said = row.found["planned"]
    assert (said["fuel"], said["correction"], said["calorific_mj"]) == ("natural gas", "1.02264", "39.5")
    assert (said["basis"], row.found["factor"]["type"], said["register"]) == ("gross", "gross", ["5007.75", "5015"])
    per_m3 = Fraction(said["correction"]) * Fraction(said["calorific_mj"]) / Fraction("3.6")
    heat = [round(Fraction(shown) * per_m3 * 10**6) for shown in said["register"]]
    assert said["register_mwh"] == heat
    kwh = Decimal(heat[1] - heat[0]).scaleb(-6)
    assert Decimal(row.found["recomputed"]["energy_kwh"]) == kwh
    assert Decimal(row.found["co2e"]["g"]) == kwh * Decimal("182.96")
    for text in (
        "heat of the fuel, by the plan's fuels.boiler: (5015 - 5007.75) m3 x correction 1.02264",
        " x 39.5 MJ/m3 (gross) / 3.6 MJ/kWh",
        f"{heat[1]} - {heat[0]} = {heat[1] - heat[0]} mWh = {kwh} kWh",
        f"{kwh} kWh x 182.96 g/kWh = ",
    ):
        assert text in row.text, text


def test_a_fuel_by_the_unit_says_its_correction_in_the_product(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = explained(toml, "tank.litres", capsys)
    said = row.found["planned"]
    assert (said["correction"], said["calorific_mj"], said["register_mwh"]) == ("0.999", None, None)
    assert row.found["co2e"]["formula"] == "3 L x correction 0.999 x 2570.82 g/L = 7704.74754 g"
    assert Decimal(3) * Decimal("0.999") * Decimal("2570.82") == Decimal("7704.74754")
    assert "(76 - 73) L x correction 0.999; its heat is not known, as the plan says no calorific value" in row.text
    assert row.found["co2e"]["formula"] in row.text


def test_a_fuel_that_the_plan_does_not_name_says_so(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = explained(toml, "tank.spare", capsys)
    assert "(10 - 9) L x correction 1; its heat is not known, as the plan does not name this counter" in row.text
    assert row.found["co2e"]["kg"] is None


def test_a_meter_of_electricity_has_nothing_planned(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(toml, "m1.energy", capsys).found["planned"] is None
