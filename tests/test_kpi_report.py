"""Cells to report rows: sums over sums, states and assets apart, the overhead pool, what is not known."""

from decimal import Decimal

import pytest

from gateway.carbon.energy import Flag
from gateway.carbon.figures import MODELLED, Cell, Figure, LineFigure, Totals
from gateway.carbon.kpi.oee import UNKNOWN
from gateway.carbon.kpi.report import Amount, Tally, change_pct, report
from gateway.carbon.kpi.statements import OTHERS, largest, said
from gateway.carbon.setting import Setting
from tests.line_leaves import MINUTE, T0

PLAIN = Setting(state="producing", product="cola", job="J1", shift="2026-01-01/early")


def row(n: int, kwh: str | None, kg: str | None, *, asset: str = "m1", **more: object) -> Figure:
    start = T0 + n * MINUTE
    fields = {
        "gateway": "gw1",
        "line": "filler",
        "site": "works",
        "meter": f"{asset}.energy",
        "serial": "",
        "meter_class": "",
        "cell_start_ns": start,
        "start_ns": start,
        "end_ns": start + MINUTE,
        "register_start": None,
        "register_end": None,
        "register_unit": "kWh",
        "energy_mwh": None if kwh is None else int(Decimal(kwh) * 10**6),
        "flags": frozenset(),
        "zone": "DEMO",
        "factor_g_per_kwh": None if kg is None else Decimal(400),
        "factor_source": "test",
        "factor_type": "lifecycle",
        "factor_state": "" if kg is None else "final",
        "factor_version": "" if kg is None else "v1",
        "factor_leaf_index": None if kg is None else 1,
        "co2e_g": None if kg is None else Decimal(kg) * 1000,
        "clock_state": 0,
        "clock_offset_ms": Decimal(0),
        "start_leaf_index": n,
        "end_leaf_index": n + 1,
        "leaf_hash": b"",
        "asset": asset,
        **more,
    }
    return Figure(**fields)  # type: ignore[arg-type]


def cell(
    n: int,
    *rows: Figure,
    good: str | None = "0",
    total: str | None = None,
    setting: Setting = PLAIN,
    line: str = "filler",
) -> Cell:
    summed = [one for one in rows if one.in_line_sum]
    booked = [one for one in summed if one.energy_mwh is not None]
    known = [one.co2e_g for one in booked if one.co2e_g is not None]
    return Cell(
        line=LineFigure(
            gateway="gw1",
            line=line,
            site="works",
            start_ns=T0 + n * MINUTE,
            end_ns=T0 + (n + 1) * MINUTE,
            energy_mwh=sum(one.energy_mwh or 0 for one in booked) if booked else None,
            meters=len(summed),
            meters_booked=len(booked),
            co2e_g=sum(known, Decimal(0)) if known and len(known) == len(booked) else None,
            units_good=None if good is None else Decimal(good),
            units_total=None if total is None else Decimal(total),
            flags=frozenset(flag for one in rows for flag in one.flags),
            leaf_index=n + 1,
            setting=setting,
        ),
        figures=rows,
    )


def one_row(*cells: Cell) -> Tally:
    (found,) = report(cells, ())
    return found


def test_100_units_at_0_5_and_10_at_0_9_are_0_536364_never_0_7() -> None:
    found = one_row(cell(0, row(0, "125", "50"), good="100"), cell(1, row(1, "22.5", "9"), good="10"))
    assert found.kg_per_unit == Decimal("0.536364")


def test_energy_by_state_and_by_asset_each_sum_to_the_whole() -> None:
    cells = [
        cell(0, row(0, "6", "2.4"), row(0, "1", "0.4", asset="comp"), good="10"),
        cell(1, row(1, "2", "0.8"), row(1, "1", "0.4", asset="comp"), setting=Setting(state="idle")),
        cell(2, row(2, "1", "0.4"), row(2, "0.5", "0.2", asset="comp"), setting=Setting()),
    ]
    found = one_row(*cells)
    assert {state: amount.energy_mwh for state, amount in found.by_state.items()} == {
        "producing": 7_000_000,
        "idle": 3_000_000,
        "unknown": 1_500_000,
    }
    assert {asset: amount.energy_mwh for asset, amount in found.by_asset.items()} == {
        "m1": 9_000_000,
        "comp": 2_500_000,
    }
    assert found.metered.energy_mwh == 11_500_000
    assert found.metered.co2e_g == Decimal(4600)
    assert {state: amount.time_ns for state, amount in found.by_state.items()} == dict.fromkeys(
        ("producing", "idle", "unknown"), MINUTE
    )
    assert found.kg_per_unit == Decimal("0.46"), "idle energy is in the KPI"


def test_energy_without_a_job_goes_to_the_overhead_pool() -> None:
    cells = [
        cell(0, row(0, "6", "2.4"), good="10"),
        cell(1, row(1, "2", "0.8"), setting=PLAIN._replace(job="")),
        cell(2, row(2, "3", "1.2"), good="5", setting=PLAIN._replace(job="J2")),
    ]
    found = {dict(one.group)["job"]: one for one in report(cells, ("job",))}
    assert {job: one.metered.energy_mwh for job, one in found.items()} == {
        "J1": 6_000_000,
        "overhead": 2_000_000,
        "J2": 3_000_000,
    }
    assert found["overhead"].kg_per_unit is None
    assert sum(one.metered.energy_mwh for one in found.values()) == one_row(*cells).metered.energy_mwh


def test_zero_units_make_the_kpi_null_and_the_energy_is_booked() -> None:
    found = one_row(cell(0, row(0, "6", "2.4")))
    figures = said(found, UNKNOWN)
    assert (figures["kg_per_unit"], figures["energy_kwh"], figures["co2e_kg"]) == ("", "6", "2.4")


def test_a_cell_without_a_count_is_in_the_energy_and_not_in_the_kpi() -> None:
    found = one_row(cell(0, row(0, "5", "2"), good="10"), cell(1, row(1, "5", "2"), good=None))
    assert (found.metered.energy_mwh, found.kg_per_unit) == (10_000_000, Decimal("0.2"))


def test_scrap_is_in_the_kpi_and_its_share_is_shown_apart() -> None:
    found = one_row(cell(0, row(0, "100", "40"), good="80", total="100"))
    assert (found.kg_per_unit, found.units_scrap, found.scrap_co2e_kg) == (Decimal("0.5"), Decimal(20), Decimal(8))


def test_where_a_part_of_the_time_counts_all_units_alone_nothing_is_scrap_and_kinds_are_not_mixed() -> None:
    """An hour with 95 good of 100, one with 100 in all: 5 are scrap, never 105; 50 kg are over 95, never over 195."""
    both, total_only = (
        cell(0, row(0, "50", "50"), good="95", total="100"),
        cell(1, row(1, "50", "50"), good=None, total="100"),
    )
    found = one_row(both, total_only)
    assert (found.units_good, found.units_total, found.units_scrap) == (Decimal(95), Decimal(200), Decimal(5))
    assert (found.kg_per_unit, found.scrap_co2e_kg) == (Decimal("0.526316"), Decimal("2.5"))
    assert Flag.UNITS_MIXED in found.flags
    assert one_row(total_only).kg_per_unit == Decimal("0.5")
    for alone in (one_row(both), one_row(total_only)):
        assert Flag.UNITS_MIXED not in alone.flags
    assert change_pct(one_row(both), one_row(total_only)) is None
    totals = Totals.of([both, total_only])
    assert (totals.kg_per_unit, totals.units_mixed) == (Decimal("0.526316"), True)
    assert not Totals.of([both]).units_mixed


def test_scrap_s_share_is_of_the_cells_that_count_it() -> None:
    found = one_row(cell(0, row(0, "9", "40"), good="80", total="100"), cell(1, row(1, "9", "60"), good="120"))
    assert (found.kg_per_unit, found.units_scrap, found.scrap_co2e_kg) == (Decimal("0.5"), Decimal(20), Decimal(8))


def test_modelled_loads_and_fuels_stand_apart() -> None:
    cells = [
        cell(
            0,
            row(0, "10", "4"),
            row(0, "1", "0.4", asset="lights", kind=MODELLED),
            row(0, "7", "1.3", asset="boiler", scope="1", quantity=Decimal(1)),
            good="10",
        )
    ]
    figures = said(one_row(*cells), UNKNOWN)
    assert (figures["energy_kwh"], figures["co2e_kg"], figures["kg_per_unit"]) == ("10", "4", "0.4")
    assert (figures["modelled_kwh"], figures["modelled_co2e_kg"]) == ("1", "0.4")
    assert (figures["scope1_kwh"], figures["scope1_co2e_kg"]) == ("7", "1.3")
    assert "asset.lights.kwh" not in figures


def test_co2e_that_is_not_known_is_empty_never_0() -> None:
    found = said(one_row(cell(0, row(0, "5", None), good="1")), UNKNOWN)
    assert (found["energy_kwh"], found["co2e_kg"], found["energy_without_factor_kwh"]) == ("5", "", "5")
    assert (found["kg_per_unit"], found["factor_state"]) == ("", "missing")
    fuel = row(0, None, None, scope="1", quantity=Decimal(3))
    assert said(one_row(cell(0, fuel)), UNKNOWN)["scope1_co2e_kg"] == ""


def test_coverage_counts_meters_over_time_and_the_time_without_cells() -> None:
    found = one_row(
        cell(0, row(0, "5", "2"), row(0, None, None, asset="comp")), cell(1, row(1, "5", "2"), row(1, "1", "1"))
    )
    assert found.coverage_pct() == Decimal(75)
    assert found.coverage_pct(4 * MINUTE) == Decimal("37.5")
    assert Tally().coverage_pct() == 0


def test_quality_factor_state_fallbacks_and_uncertainty_are_weighted_by_energy() -> None:
    flags = frozenset({Flag.TIME_ESTIMATED, Flag.FACTOR_LAST_GOOD})
    estimated = row(1, "10", "1", uncertainty_pct=Decimal(4), flags=flags, factor_state="estimated")
    found = one_row(
        cell(0, row(0, "30", "1", uncertainty_pct=Decimal(2))),
        cell(1, estimated),
    )
    assert found.quality_pct() == {"measured": Decimal(75), "time_estimated": Decimal(25)}
    assert found.weakest_factor_state == "estimated"
    assert found.fallbacks == ("factor_last_good",)
    assert found.uncertainty_pct == Decimal("2.5")
    assert one_row(cell(0, row(0, "5", "2"))).uncertainty_pct is None


def test_sums_are_exact_and_rounded_once() -> None:
    tiny = "0.000000000000000000000000000001"
    found = one_row(*(cell(n, row(n, "0.000001", tiny), good="1") for n in range(3)))
    assert said(found, UNKNOWN)["co2e_kg"] == "0.000000000000000000000000000003"
    assert said(found, UNKNOWN)["energy_kwh"] == "0.000003"


def test_rows_are_grouped_by_any_of_the_names_and_no_other() -> None:
    cells = [
        cell(0, row(0, "1", "1"), setting=PLAIN._replace(product="b")),
        cell(1, row(1, "1", "1"), setting=PLAIN._replace(product="a", shift="")),
        cell(24 * 60, row(24 * 60, "1", "1"), setting=PLAIN._replace(product="a", shift="")),
    ]
    groups = [one.group for one in report(cells, ("line", "product"))]
    assert groups == [(("line", "gw1/filler"), ("product", "a")), (("line", "gw1/filler"), ("product", "b"))]
    shifts = [dict(one.group)["shift"] for one in report(cells, ("shift",))]
    assert shifts == ["2026-01-01", "2026-01-01/early", "2026-01-02"], "outside of shifts: by UTC day"
    assert [dict(one.group)["day"] for one in report(cells, ("day",))] == ["2026-01-01", "2026-01-02"]
    with pytest.raises(ValueError, match="by: got 'colour'"):
        report(cells, ("colour",))


def test_from_0_87_to_0_68_is_minus_21_84_percent() -> None:
    before = one_row(cell(0, row(0, "1", "87"), good="100"))
    after = one_row(cell(0, row(0, "1", "68"), good="100"))
    assert change_pct(after, before) == Decimal("-21.84")
    assert change_pct(after, one_row(cell(0, row(0, "1", "87")))) is None


def test_what_is_beyond_the_largest_assets_stands_as_one() -> None:
    amounts = {f"a{n}": Amount(energy_mwh=n, co2e_g=Decimal(n)) for n in range(5)}
    assert [(name, amount.energy_mwh) for name, amount in largest(amounts, 2)] == [("a4", 4), ("a3", 3), (OTHERS, 3)]


def test_a_good_count_below_0_is_made_good_by_the_sum() -> None:
    """A unit of an earlier cell turned out to be scrap."""
    found = one_row(cell(0, row(0, "5", "2"), good="11"), cell(1, row(1, "5", "2"), good="-1"))
    assert (found.units_good, found.kg_per_unit) == (Decimal(10), Decimal("0.4"))
