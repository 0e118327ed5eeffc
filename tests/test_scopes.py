"""Hierarchy, fuel and ghost load through a whole ledger: sealed plan and factors, tables, rebuild, and an export."""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.app.handover import Wish, gather
from gateway.app.load import table_text
from gateway.carbon.audit.verify import verify
from gateway.codec.bodies import line_body
from gateway.codec.ledger_leaves import to_factor
from gateway.model import LineColumn, LineSchema, Role
from gateway.store import projections as tables
from gateway.store.projections import Slice
from tests.ledgering import SIGNERS, Hall
from tests.sealing import Body, interval
from tests.test_ledger import sealed

PLAN = """
valid_from = 2026-01-01T00:00:00Z

[shifts.evening]
start = "20:00"
end = "21:00"

[lines.gw1.boilers.meters.hall]
point = "main.energy"

[lines.gw1.boilers.meters.pump]
point = "pump.energy"
parent = "hall"

[fuels.boiler]
line = "gw1/boilers"
point = "gas.volume"
fuel = "natural gas"
correction = "1.02264"
calorific_mj = "39.5"
basis = "gross"

[static-assets.lights]
line = "gw1/boilers"
standby_w = 60
"""
BOILERS = LineSchema(
    name="boilers",
    site="works",
    zone="DEMO",
    period_s=60,
    columns=(
        LineColumn(point="main.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="pump.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="gas.volume", unit="m3", role=Role.FUEL),
    ),
)
STORY: list[Body] = [("schema", line_body(BOILERS)), *(interval(number, BOILERS) for number in range(4))]
LOG = sealed(SIGNERS["gw1"], *STORY)


OWN_FUELS = table_text("fuels-desnz-2025").replace("end = 2026-01-01T00:00:00Z\n", "")
"""As an operator has it: our minutes are of 2026."""


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    more = 'plan = "carbon.toml"\ntables = ["fuels-epa-2024"]\nfuel_factors = "fuels.toml"\n'
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall" / "fuels.toml").write_text(OWN_FUELS)
    made = Hall(tmp_path / "hall", more=more, memory=False)
    yield made
    made.ledger.close()


def plan(hall: Hall, text: str) -> None:
    (hall.folder / "carbon.toml").write_text(text)
    hall.ledger.look()


def rows(hall: Hall) -> list[tuple[str, str, int | None, str]]:
    with hall.ledger._book.reading() as connection:
        found = tables.figures(connection, Slice(gateway="gw1", line="boilers"))
        return [(row.meter, row.kind, row.energy_mwh, row.scope) for row in found]


def test_a_plan_that_comes_later_computes_the_figures_anew_and_a_rebuild_gives_the_same(hall: Hall) -> None:
    hall.take("gw1", [LOG.message(0)])
    hall.ledger.look()
    assert {to_factor(leaf.body).unit for leaf in hall.own("factor")} == {"g/kWh", "g/L", "g/scf"}
    assert rows(hall)[:3] == [
        ("main.energy", "meter", 1_000_000, "2"),
        ("pump.energy", "meter", 1_000_000, "2"),
        ("gas.volume", "meter", None, "1"),
    ]
    plan(hall, PLAN)
    assert rows(hall)[:4] == [
        ("main.energy", "remainder", 0, "2"),
        ("pump.energy", "meter", 1_000_000, "2"),
        ("gas.volume", "meter", 11_220_633, "1"),
        ("static:lights", "modelled", 1_000, "2"),
    ]
    with hall.ledger._book.reading() as connection:
        sums = tables.totals(connection, Slice(gateway="gw1", line="boilers"))
        (first, *_) = tables.line_figures(connection, Slice(gateway="gw1", line="boilers"))
    assert (sums.energy_mwh, sums.co2e_g) == (3_000_000, Decimal(1200))
    assert (first.modelled_mwh, first.modelled_g, first.scope1_g) == (1_000, Decimal("0.4"), Decimal("2052.92701368"))
    assert hall.dump() == hall.dump_rebuilt()


def test_a_supplier_s_own_gas_factor_counts_and_is_read_again_when_it_changes(hall: Hall) -> None:
    """200 g/kWh of the works' own supplier; 11.220633 kWh of it are 2,244.1266 g."""
    hall.take("gw1", [LOG.message(0)])
    path = hall.folder / "fuels.toml"
    path.write_text(OWN_FUELS.replace('provider = "DESNZ"', 'provider = "Stadtwerke"').replace("0.18296", "0.2"))
    hall.ledger.beat()
    plan(hall, PLAN.replace('fuel = "natural gas"', 'fuel = "natural gas"\nprovider = "Stadtwerke"'))
    with hall.ledger._book.reading() as connection:
        (first, *_) = tables.line_figures(connection, Slice(gateway="gw1", line="boilers"))
    assert first.scope1_g == Decimal("2244.1266")
    path.write_text("[[fuel]]\n")
    hall.ledger.beat()
    said = [call.kwargs["why"] for call in hall.said.calls if call.method_name == "error"]
    assert said == ["fuels.toml: fuel[0].basis: got nothing, want a value"]


def test_a_plan_on_the_other_basis_is_refused_and_the_one_before_stays(hall: Hall) -> None:
    hall.take("gw1", [LOG.message(0)])
    plan(hall, PLAN)
    plan(hall, PLAN.replace("gross", "net"))
    said = [call.kwargs["why"] for call in hall.said.calls if call.method_name == "error"]
    assert said == ["carbon.toml: fuels.boiler.basis: got 'net', want gross, the basis of the fuel's factor"]
    assert len(hall.own("document")) == 1


@pytest.mark.parametrize("fuel", ["natural gas", "diesel"])
def test_an_export_with_fuel_and_modelled_rows_verifies_and_holds_just_the_factors_that_it_needs(
    hall: Hall, fuel: str
) -> None:
    hall.take("gw1", [LOG.message(0)])
    plan(hall, PLAN.replace("natural gas", fuel))
    files = gather(hall.config, Wish(lines=("gw1/boilers",)))
    verdict = verify(files)
    read = list(csv.DictReader(files["rows.csv"].decode().splitlines()))
    assert verdict.rows == len(read) == 12
    first = {row["meter_id"]: row for row in read if row["interval_start_utc"] == read[0]["interval_start_utc"]}
    assert first["static:lights"]["energy_quality"] == "modelled"
    assert (first["gas.volume"]["scope"], first["gas.volume"]["method"]) == ("1", "")
    assert [first[meter]["energy_kwh"] for meter in ("main.energy", "pump.energy")] == ["0", "1"]
    assert verdict.lines[0].totals.energy_mwh == 3_000_000
    assert (first["gas.volume"]["co2e_kg"] != "") is (fuel == "natural gas"), "diesel is by the litre"
    assert (b"EPA/" in files["ledger/leaves.jsonl"], len(hall.own("factor"))) == (False, 6)
