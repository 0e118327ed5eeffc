"""Scope 1: fuel meters to heat and CO2e, and the basis on which both rest."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.load import annual_tables, table_text
from gateway.carbon.audit.rows import header, lines_of
from gateway.carbon.emissions import project
from gateway.carbon.energy import Flag
from gateway.carbon.exact import ratio, shifted, total, utc
from gateway.carbon.facts import Facts, Touched
from gateway.carbon.figures import Totals
from gateway.carbon.grid.table import FactorLeaf
from gateway.carbon.scopes.fuels import check_fuels
from gateway.carbon.scopes.fueltable import parse_fuels
from gateway.codec.bodies import factor_body
from gateway.codec.leaves import parse, seal
from gateway.codec.ledger_leaves import to_factor
from gateway.config import GatewayConfig, parse_gateway
from gateway.config.plan import FuelSection, InstrumentSection, MarketSection, StaticAssetSection, parse_plan
from gateway.config.plan.lines import MeterSection, VirtualSection
from gateway.errors import ConfigError, TrustError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Clock, ClockState, Factor, LineSchema, Role
from gateway.store import projections as tables
from gateway.store.projections import Projections, Slice
from tests.line_leaves import CONSTANT, MINUTE, T0, energy, leaf, line, minutes
from tests.plans import cells_of, gas, planned, rows_of

PUBLISHED = parse_fuels(table_text("fuels-desnz-2025"), name="fuels-desnz-2025.toml")
DESNZ = tuple(replace(one, end_ns=UNTIL_FURTHER_NOTICE_NS) for one in PUBLISHED)
"""As though it still held: our minutes are of 2026."""
EPA = parse_fuels(table_text("fuels-epa-2024"), name="fuels-epa-2024.toml")
GAS = """
[fuels.boiler]
line = "gw1/filler"
point = "gas.volume"
fuel = "natural gas"
correction = "1.02264"
calorific_mj = "39.5"
basis = "gross"
"""
M3 = line(gas())
SCF = line(gas(unit="scf"))


def scf_plan(provider: str) -> str:
    return GAS.replace("1.02264", "1").replace('calorific_mj = "39.5"\n', f'provider = "{provider}"\n')


def test_100_m3_of_gas_are_1122_063_kwh_and_205_29_kg() -> None:
    (cell,) = cells_of(minutes(M3, ["5000", "5100"]), M3, planned(GAS, *DESNZ))
    (row,) = cell.figures
    assert row.energy_mwh == 1_122_063_333  # 100 x 1.02264 x 39.5 / 3.6
    assert ratio(shifted(row.energy_mwh, -6), 1, 3) == Decimal("1122.063")
    assert row.co2e_g is not None
    assert ratio(row.co2e_g, 1000, 2) == Decimal("205.29")
    assert (row.quantity, row.register_unit, row.scope, row.asset) == (Decimal(100), "m3", "1", "boiler")
    assert (row.factor_unit, row.factor_type, row.zone, row.gwp_set) == ("g/kWh", "gross", "natural gas", "AR5")
    assert (row.factor_source, row.factor_version) == (DESNZ[0].source, DESNZ[0].version)
    assert (row.quality, set(row.flags)) == ("measured", set())


@pytest.mark.parametrize(("gwp_set", "kg"), [("AR4", "54.4957848"), ("AR5", "54.4954770"), ("AR6", "54.4981446")])
def test_1000_scf_of_gas_by_epa_2024(gwp_set: str, kg: str) -> None:
    known = planned(scf_plan(f"EPA/{gwp_set}"), *EPA)
    (cell,) = cells_of(minutes(SCF, ["0", "1000"]), SCF, known)
    (row,) = cell.figures
    assert row.co2e_g == Decimal(kg) * 1000
    assert (row.gwp_set, row.factor_unit, row.quantity) == (gwp_set, "g/scf", Decimal(1000))
    assert (row.energy_mwh, row.quality) == (None, "measured"), "without a calorific value its heat is not known"
    assert cell.line.scope1_g == row.co2e_g


def test_diesel_by_the_litre_needs_no_calorific_value() -> None:
    schema = line(gas("tank.litres", "L"))
    plan = GAS.replace("gas.volume", "tank.litres").replace("natural gas", "diesel").replace("1.02264", "1")
    for text, heat_mwh in ((plan, 109_722_222), (plan.replace('calorific_mj = "39.5"\n', ""), None)):
        (cell,) = cells_of(minutes(schema, ["0", "10"]), schema, planned(text, *DESNZ))
        (row,) = cell.figures
        assert (row.co2e_g, row.factor_unit, row.energy_mwh) == (Decimal("25708.2"), "g/L", heat_mwh)


def test_a_meter_that_counts_kwh_is_heat_already() -> None:
    schema = line(gas(unit="kWh"))
    plan = GAS.replace("1.02264", "1").replace('calorific_mj = "39.5"\n', "")
    (cell,) = cells_of(minutes(schema, ["0", "100"]), schema, planned(plan, *DESNZ))
    assert (cell.figures[0].energy_mwh, cell.line.scope1_g) == (100_000_000, Decimal(18296))


def test_fuel_is_not_in_the_lines_electricity() -> None:
    schema = line(energy(), gas())
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["1", "100"]]), schema, planned(GAS, CONSTANT, *DESNZ))
    assert (cell.line.energy_mwh, cell.line.co2e_g, cell.line.meters) == (1_000_000, Decimal(400), 1)
    assert cell.line.scope1_g is not None
    assert ratio(cell.line.scope1_g, 1000, 2) == Decimal("205.29")
    sums = Totals.of([cell])
    assert (sums.energy_mwh, sums.co2e_g, sums.scope1_g) == (1_000_000, Decimal(400), cell.line.scope1_g)


def test_a_factor_on_the_other_basis_is_refused() -> None:
    (cell,) = cells_of(minutes(M3, ["0", "100"]), M3, planned(GAS.replace("gross", "net"), *DESNZ))
    (row,) = cell.figures
    assert (row.co2e_g, set(row.flags)) == (None, {Flag.BASIS_MISMATCH})
    assert (row.factor_type, row.factor_leaf_index, row.energy_mwh) == ("gross", 1, 1_122_063_333)
    assert (cell.line.scope1_g, set(cell.line.flags)) == (None, {Flag.BASIS_MISMATCH})


def test_without_a_calorific_value_a_factor_per_kwh_does_not_apply() -> None:
    plan = GAS.replace('calorific_mj = "39.5"\n', "")
    (cell,) = cells_of(minutes(M3, ["0", "100"]), M3, planned(plan, *DESNZ))
    (row,) = cell.figures
    assert (row.energy_mwh, row.quantity, row.co2e_g, set(row.flags)) == (None, Decimal(100), None, {Flag.NO_CALORIFIC})


def test_without_a_factor_the_heat_stands() -> None:
    (cell,) = cells_of(minutes(M3, ["0", "100"]), M3, planned(GAS))
    (row,) = cell.figures
    assert (row.energy_mwh, row.co2e_g, set(row.flags)) == (1_122_063_333, None, {Flag.NO_FACTOR})


def test_a_fuel_counter_that_the_plan_does_not_name_has_its_quantity_alone() -> None:
    (cell,) = cells_of(minutes(M3, ["0", "100"]), M3, planned("", *DESNZ))
    (row,) = cell.figures
    assert (row.asset, row.quantity, row.energy_mwh, row.co2e_g) == ("gas.volume", Decimal(100), None, None)
    assert row.flags == {Flag.NO_FACTOR}


def test_a_fuel_that_the_line_does_not_have_is_said() -> None:
    (cell,) = cells_of(minutes(line(energy()), ["0", "1"]), line(energy()), planned(GAS, CONSTANT))
    assert cell.line.flags == {Flag.PLAN_MISMATCH}


def test_a_fuel_register_wraps_and_is_replaced_as_others_are() -> None:
    schema = line(gas(modulus=Decimal(1_000_000)))
    cells = cells_of(minutes(schema, ["999990", "10", "20"]), schema, planned(GAS, *DESNZ))
    assert [row.quantity for row in rows_of(cells)] == [Decimal(20), Decimal(10)]
    assert [row.energy_mwh for row in rows_of(cells)] == [224_412_667, 112_206_334]
    assert Flag.ROLLOVER in cells[0].line.flags
    old, new = line(gas(serial="A")), line(gas(serial="B"))
    leaves = [
        *minutes(old, ["10", "20"]),
        leaf(new, 99, T0 + 2 * MINUTE, ["5"]),
        leaf(new, 100, T0 + 3 * MINUTE, ["6"]),
    ]
    known = planned(GAS, *DESNZ)
    made = list(project(leaves, schemas={old.id: old, new.id: new}, facts=known).values())
    assert [row.quantity for row in rows_of(made)] == [Decimal(10), None, Decimal(1)]
    assert made[1].line.flags == {Flag.REPLACED}


def test_a_fuel_register_that_falls_far_is_suspect() -> None:
    schema = line(gas(modulus=Decimal(1_000_000)))
    (cell,) = cells_of(minutes(schema, ["500000", "10"]), schema, planned(GAS, *DESNZ))
    assert cell.figures[0].quantity is None
    assert cell.line.flags == {Flag.SUSPECT}


def test_a_new_years_factor_applies_from_its_start_and_an_open_window_ends_there() -> None:
    turn = T0 + 30_000_000_000
    after = replace(DESNZ[0], start_ns=turn, g_per_kwh=Decimal(200), version="cd" * 32)
    (cell,) = cells_of(minutes(M3, ["0", "100"]), M3, planned(GAS, DESNZ[0], after))
    assert [(row.end_ns, row.factor_g_per_kwh) for row in cell.figures] == [
        (turn, Decimal("182.96")),
        (T0 + MINUTE, Decimal(200)),
    ]
    assert sum(row.energy_mwh or 0 for row in cell.figures) == 1_122_063_333
    assert total(row.quantity for row in cell.figures if row.quantity is not None) == 100
    assert {row.quality for row in cell.figures} == {"time_estimated"}


def test_a_row_is_the_same_where_only_the_factors_that_rows_name_are_shown() -> None:
    """As in an export: the others are left out."""
    other = replace(DESNZ[0], key=("OTHER", "natural gas", "fuel", "net", "P1Y"), version="ef" * 32)
    for plan in (GAS, GAS.replace("gross", "net"), GAS.replace('calorific_mj = "39.5"\n', "")):
        for factors in ((*DESNZ, *EPA), (*DESNZ, *EPA, other)):
            rows = rows_of(cells_of(minutes(M3, ["0", "100"]), M3, planned(plan, *factors)))
            used = {row.factor_leaf_index for row in rows}
            shown = [one for index, one in enumerate(factors, 1) if index in used] or [CONSTANT]
            again = rows_of(cells_of(minutes(M3, ["0", "100"]), M3, planned(plan, *shown)))
            assert [row._replace(factor_leaf_index=None) for row in again] == [
                row._replace(factor_leaf_index=None) for row in rows
            ]


def test_fuel_and_modelled_rows_come_out_of_the_tables_as_they_went_in(tmp_path: Path) -> None:
    schema = line(energy(), gas())
    plan = GAS + '[shifts.day]\nstart = "20:00"\nend = "21:00"\n'
    plan += '[static-assets.fan]\nline = "gw1/filler"\nstandby_w = 40\n'
    cells = cells_of(minutes(schema, [["0", "0"], ["1", "100"]]), schema, planned(plan, CONSTANT, *DESNZ))
    assert [row.kind for row in rows_of(cells)] == ["meter", "meter", "modelled"]
    book = Projections(tmp_path / "projections.sqlite")
    with book.writing() as connection:
        tables.put_cells(connection, cells)
        tables.put_factors(connection, [FactorLeaf(factor=EPA[0], index=7, hash=b"\7" * 32)])
    with book.reading() as connection:
        assert list(tables.cells(connection, Slice())) == cells
        assert [leaf.factor for leaf in tables.factors(connection)] == [EPA[0]]
    book.close()


def test_a_fuels_row_of_an_export_names_its_unit_and_no_scope_2_method() -> None:
    (cell,) = cells_of(minutes(SCF, ["0", "1000"]), SCF, planned(scf_plan("EPA/AR5"), *EPA))
    names = header().rstrip().split(",")
    row = dict(zip(names, next(csv.reader(lines_of([cell]))), strict=True))
    assert (row["scope"], row["method"], row["factor_unit"]) == ("1", "", "g/scf")
    assert (row["energy_kwh"], row["co2e_kg"], row["register_unit"]) == ("", "54.495477", "scf")


def test_a_fuels_factor_touches_lines_of_every_grid_zone() -> None:
    facts = Facts()
    touched = facts.add_factor(FactorLeaf(factor=DESNZ[0], index=1, hash=b"\1" * 32))
    assert touched == Touched(DESNZ[0].start_ns, DESNZ[0].end_ns)
    assert facts.factors.at("natural gas", T0) is None, "it is no grid zone"


def test_a_fuels_factor_goes_through_its_leaf_and_names_its_unit() -> None:
    clock = Clock(t_ns=T0, state=ClockState.SYNCHRONISED, offset_ns=0)
    for one in (*DESNZ, *EPA):
        assert to_factor(parse(seal("factor", factor_body(one), clock=clock)).body) == one
    grid = replace(CONSTANT, unit="g/L")
    with pytest.raises(TrustError, match="want g/kWh for all but fuels"):
        to_factor(parse(seal("factor", factor_body(grid), clock=clock)).body)
    with pytest.raises(TrustError):
        parse(seal("factor", factor_body(replace(DESNZ[0], unit="g/mile")), clock=clock))


def test_every_table_of_fuels_has_source_and_validity() -> None:
    names = [name for name in annual_tables() if name.startswith("fuels-")]
    assert names == ["fuels-desnz-2025", "fuels-epa-2024"]
    for one in (*DESNZ, *EPA):
        assert one.source
        assert one.model_date
        assert one.key[4] == "P1Y"
    assert len({one.key for one in (*DESNZ, *EPA)}) == 5
    assert len({one.version for one in (*DESNZ, *EPA)}) == 5


def test_the_factors_of_a_year_end_with_it_and_a_row_after_it_says_so() -> None:
    """As the electricity of the same set does: 2025's are never silently 2026's."""
    assert {utc(one.end_ns) for one in PUBLISHED} == {"2026-01-01T00:00:00Z"}
    (cell,) = cells_of(minutes(M3, ["5000", "5100"]), M3, planned(GAS, *PUBLISHED))
    (row,) = cell.figures
    assert (row.co2e_g, row.energy_mwh, Flag.NO_FACTOR in row.flags) == (None, 1_122_063_333, True)
    (cell,) = cells_of(minutes(M3, ["5000", "5100"], t0=T0 - 300 * 24 * 60 * MINUTE), M3, planned(GAS, *PUBLISHED))
    assert cell.figures[0].co2e_g is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[fuel]]", "[[fuels]]", "f.toml: got fuels, want [[fuel]] tables, and [gwp.<set>] of gases"),
        ("[[fuel]]", "[[fuel]", "f.toml: Expected"),
        ('basis = "gross"', 'basis = "unit"', "f.toml: fuel[0].basis: got 'unit' for g/kWh, want gross or net"),
        ('unit = "L"', 'unit = "gal"', "f.toml: fuel[1].unit: got 'gal', want one of kWh, "),
        ('source = "DESNZ 2025, UK', 'source = ""\nx = "', "f.toml: fuel[0].x: got a key that is not known"),
        ("kg = 0.18296", 'kg = "much"', "f.toml: fuel[0].kg: got much, want a number of at least 0"),
        ("kg = 0.18296", "kg = -1", "f.toml: fuel[0].kg: got -1, want a number of at least 0"),
        ("kg = 0.18296", "", "f.toml: fuel[0]: got none of kg and gases, want kg, or co2_kg, ch4_g"),
        ("kg = 0.18296", "kg = 1\nco2_kg = 1", "f.toml: fuel[0]: got both of kg and gases"),
        (
            "kg = 0.18296",
            "co2_kg = 1",
            "f.toml: fuel[0]: got co2_kg, want co2_kg, ch4_g, n2o_g, mmbtu_per_unit, and [gwp",
        ),
        ("00Z", "00", "f.toml: fuel[0].start: got '2025-01-01 00:00:00', want a date and time with Z"),
        ("end = 2026", "end = 2024", "f.toml: fuel[0].end: got 2024-01-01T00:00:00Z, want a time after 2025"),
        (
            'fuel = "diesel"\nbasis = "unit"\nunit = "L"',
            'fuel = "natural gas"\nbasis = "gross"\nunit = "kWh"',
            "f.toml: fuel[1].start: got 2025-01-01T00:00:00Z, which lies in the window of fuel[0]",
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused_and_says_where(old: str, new: str, said: str) -> None:
    text = table_text("fuels-desnz-2025")
    assert old in text
    with pytest.raises(ConfigError) as caught:
        parse_fuels(text.replace(old, new), name="f.toml")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("plan", "factors", "message"),
    [
        (
            GAS,
            (),
            "plan: fuels.boiler.fuel: got 'natural gas', want a table of fuels in ledger.toml: tables, or fuel_factors",
        ),
        (
            GAS.replace("natural gas", "coal"),
            DESNZ,
            "plan: fuels.boiler.fuel: got 'coal', want one of 'diesel' of DESNZ, 'natural gas' of DESNZ",
        ),
        (
            GAS.replace("gross", "net"),
            DESNZ,
            "plan: fuels.boiler.basis: got 'net', want gross, the basis of the fuel's factor",
        ),
        (
            scf_plan("DESNZ/AR9"),
            EPA,
            "plan: fuels.boiler.fuel: got 'natural gas', want one of "
            + ", ".join(f"'natural gas' of EPA/{gwp_set}" for gwp_set in ("AR4", "AR5", "AR6")),
        ),
    ],
)
def test_a_plan_whose_fuel_no_factor_fits_is_refused(plan: str, factors: Sequence[Factor], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fuels(parse_plan(plan, name="plan"), factors, "plan")
    assert str(caught.value) == message


def test_a_plan_whose_fuels_fit_is_taken() -> None:
    check_fuels(parse_plan(GAS, name="plan"), DESNZ, "plan")
    check_fuels(parse_plan(scf_plan("EPA/AR6"), name="plan"), EPA, "plan")


def test_a_counter_of_two_fuels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^plan: fuels\.kiln\.point: got 'gas\.volume', as 'boiler' has"):
        parse_plan(GAS + GAS.replace("boiler", "kiln"), name="plan")


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    calorific=st.decimals("0.001", 60, places=3),
    correction=st.decimals("0.5", "1.5", places=5),
    cut=st.integers(1, 59),
)
def test_heat_sums_exactly_however_time_and_factors_cut_it(
    steps: list[int], calorific: Decimal, correction: Decimal, cut: int
) -> None:
    plan = GAS.replace("39.5", str(calorific)).replace("1.02264", str(correction))
    shown = [Decimal(0)]
    for step in steps:
        shown.append(shown[-1] + step * Decimal("0.001"))
    after = replace(DESNZ[0], start_ns=T0 + cut * 1_000_000_000, version="cd" * 32)
    schema: LineSchema = M3
    cells = cells_of(minutes(schema, [str(one) for one in shown]), schema, planned(plan, DESNZ[0], after))
    rows = rows_of(cells)
    exact = shown[-1] * 1_000_000 * correction * calorific * 10 / 36
    assert abs(sum(row.energy_mwh or 0 for row in rows) - exact) <= Decimal("0.5")
    assert total(row.quantity for row in rows if row.quantity is not None) == shown[-1]
    for row in rows:
        assert row.co2e_g is not None
        assert row.co2e_g * 1_000_000 == (row.energy_mwh or 0) * (row.factor_g_per_kwh or 0)


def test_the_scopes_page_shows_a_plan_that_parses_and_whose_fuel_has_a_factor() -> None:
    page = (Path(__file__).parent.parent / "docs" / "scopes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    plan = parse_plan("".join(blocks), name="docs/scopes.md")
    check_fuels(plan, DESNZ, "docs/scopes.md")
    assert set(plan.line("gw1", "filling").meters) == {"hall", "compressor"}
    sections = (FuelSection, InstrumentSection, MarketSection, StaticAssetSection, MeterSection, VirtualSection)
    for section in sections:
        for field in msgspec.structs.fields(section):
            assert field.name in page or field.name in {"load", "power", "running_w"}, field.name
    for flag in ("plan_mismatch", "incomplete", "negative_remainder", "basis_mismatch", "no_calorific_value"):
        assert f"`{flag}`" in page


def gateway(fuel: str, unit: str = "m3") -> GatewayConfig:
    text = '[gateway]\nid = "gw1"\n[seal]\nkey = "k"\nwitness = "w"\n'
    text += '[forward]\nbroker = "b:1"\nca = "a"\ncert = "c"\nkey = "k"\n'
    text += '[devices.gas]\ntemplate = "t"\nurl = "tcp://127.0.0.1:1"\nrated_power_w = 9\nmeter_class = "1.5"\n'
    text += f'[lines.filler]\nzone = "DEMO"\nenergy = ["gas.energy"]\nfuel = {fuel}\n'
    template = 'title = "t"\nverified = true\nsources = ["s"]\nvotes = 1\nfunction = 3\n'
    for address, (name, of) in enumerate((("energy", "kWh"), ("volume", unit))):
        template += f'[points.{name}]\naddress = {2 * address}\ntype = "u32"\nunit = "{of}"\nkind = "counter"\n'
        template += 'scale = "0.01"\nmodulus = 100000000\n'
    return parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: template)


def test_a_line_names_its_fuel_counters() -> None:
    columns = gateway('["gas.volume"]').lines["filler"].columns
    assert [column.role for column in columns] == [Role.ENERGY, Role.FUEL]
    assert columns[1] == gas(modulus=Decimal(1_000_000), meter_class="1.5"), "a rated power is of electricity"


@pytest.mark.parametrize(
    ("fuel", "unit", "message"),
    [
        ('["gas.volume"]', "bar", "lines.filler.fuel: got 'gas.volume' in 'bar', want one of m3, scf, L, kg, kWh"),
        ('["gas.heat"]', "m3", "lines.filler.fuel: got 'gas.heat', want <device>.<point> of a counter"),
        ('["gas.energy"]', "m3", "want each point once, or it would count twice"),
    ],
)
def test_a_fuel_that_cannot_be_is_refused(fuel: str, unit: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gateway(fuel, unit)
    assert message in str(caught.value)
