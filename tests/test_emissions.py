"""Leaves to figures: the vectors of the carbon facts, gaps, swaps, clocks, and determinism."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.emissions import IntervalLeaf, LineProjector, figures_for, project
from gateway.carbon.energy import Flag
from gateway.carbon.exact import total
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Figure, Totals, flag_text
from gateway.carbon.grid.table import FactorLeaf
from gateway.errors import TrustError
from gateway.model import ClockState, ContextFact, LineSchema, Quality, Role, What
from tests.line_leaves import (
    CONSTANT,
    MINUTE,
    SECOND,
    T0,
    energy,
    factor,
    facts,
    good,
    leaf,
    line,
    minutes,
    sample,
    schemas,
)

ONE = line(energy(rated_power_w=10_000))
COUNTED = line(energy(rated_power_w=10_000), good())


def cells_of(leaves: Iterable[IntervalLeaf], *lines: LineSchema, known: Facts | None = None) -> list[Cell]:
    made = project(leaves, schemas=schemas(*lines), facts=facts(CONSTANT) if known is None else known)
    return list(made.values())


def rows_of(cells: Sequence[Cell]) -> list[Figure]:
    return [row for cell in cells for row in cell.figures]


def energies(cells: Sequence[Cell]) -> list[int | None]:
    return [cell.line.energy_mwh for cell in cells]


def flags(cells: Sequence[Cell]) -> list[str]:
    return [flag_text(cell.line.flags) for cell in cells]


def test_6_kwh_over_an_hour_boundary_splits_into_2_8_and_3_2_kwh_and_3363_6_g() -> None:
    """6 kWh over 08:53-09:08Z at 583 and then 541 g/kWh."""
    schema = line(energy(), period_s=900)
    start, hour, end = T0 - 7 * MINUTE, T0, T0 + 8 * MINUTE
    # 08:53 is on no grid of 15 min; two boundaries of a line are where its leaves are.
    leaves = [leaf(schema, 1, start, ["100"]), leaf(schema, 2, end, ["106"])]
    known = facts(factor("583", hour - 60 * MINUTE, hour), factor("541", hour, hour + 60 * MINUTE))
    rows = rows_of(cells_of(leaves, schema, known=known))
    assert [(row.start_ns, row.end_ns, row.energy_mwh) for row in rows] == [
        (start, hour, 2_800_000),
        (hour, end, 3_200_000),
    ]
    assert total(row.co2e_g for row in rows if row.co2e_g is not None) == Decimal("3363.6")
    assert [row.factor_leaf_index for row in rows] == [1, 2]
    assert {row.quality for row in rows} == {"time_estimated"}, "each part's share is by interpolation"


def test_an_ordinary_minute_is_measured_and_names_all_it_rests_on() -> None:
    schema = line(energy(serial="S1", meter_class="B", unit="Wh"))
    (cell,) = cells_of(minutes(schema, ["1000", "1100.5"]), schema)
    (row,) = cell.figures
    assert (row.quality, row.flags, row.energy_mwh) == ("measured", frozenset(), 100_500)
    assert (row.start_ns, row.end_ns, row.cell_start_ns) == (T0, T0 + MINUTE, T0)
    assert (row.start_leaf_index, row.end_leaf_index, row.leaf_hash) == (10, 20, (20).to_bytes(32, "big"))
    assert (row.register_start, row.register_end, row.register_unit) == (Decimal(1000), Decimal("1100.5"), "Wh")
    assert (row.gateway, row.line, row.site, row.zone) == ("gw1", "filler", "works", "DEMO")
    assert (row.meter, row.serial, row.meter_class) == ("m1.energy", "S1", "B")
    assert (row.factor_g_per_kwh, row.factor_leaf_index, row.factor_version) == (Decimal(400), 1, CONSTANT.version)
    assert (row.factor_source, row.factor_type, row.factor_state) == ("test", "lifecycle", "final")
    assert row.co2e_g == Decimal("40.2")
    assert (row.clock_state, row.clock_offset_ms) == (0, Decimal("1.5"))
    assert (cell.line.energy_mwh, cell.line.co2e_g, cell.line.coverage_pct) == (100_500, Decimal("40.2"), Decimal(100))


def test_uint32_wh_register_that_wraps_books_1000_wh() -> None:
    schema = line(energy(unit="Wh", modulus=Decimal(2**32), rated_power_w=100_000))
    cells = cells_of(minutes(schema, ["4294967000", "704", "804"]), schema)
    assert energies(cells) == [1_000_000, 100_000]
    assert flags(cells) == ["rollover", ""]


def test_glitch_100_0_100_1_books_0_1_kwh_in_total_and_spreads_it() -> None:
    cells = cells_of(minutes(ONE, ["100", "0", "100.1"]), ONE)
    assert energies(cells) == [50_000, 50_000]
    assert flags(cells) == ["glitch_passed_over;time_estimated"] * 2


def test_a_suspect_reading_books_nothing_until_a_later_one_explains_it() -> None:
    cells = cells_of(minutes(ONE, ["100", "0"]), ONE)
    assert (energies(cells), flags(cells)) == ([None], ["suspect;incomplete"])
    (row,) = rows_of(cells)
    assert (row.energy_mwh, row.co2e_g, row.quality, row.register_start, row.register_end) == (
        None,
        None,
        "missing",
        Decimal(100),
        None,
    )


def test_a_swapped_meter_starts_anew_when_the_serial_changes() -> None:
    old, new = line(energy(serial="A")), line(energy(serial="B"))
    for first in ("5", "100.05", "7000"):
        shown = [first, str(Decimal(first) + 1)]
        leaves = minutes(old, ["100", "100.1"]) + [
            leaf(new, 100 + n, T0 + (2 + n) * MINUTE, [one]) for n, one in enumerate(shown)
        ]
        cells = cells_of(leaves, old, new)
        assert energies(cells) == [100_000, None, 1_000_000]
        assert flags(cells) == ["", "replaced;incomplete", ""]
        assert [row.serial for row in rows_of(cells)] == ["A", "B", "B"]


def test_a_schema_that_changes_no_meter_interrupts_nothing() -> None:
    before, after = line(energy(serial="A")), line(energy(serial="A", meter_class="C"), good())
    leaves = [*minutes(before, ["100", "100.1"]), leaf(after, 99, T0 + 2 * MINUTE, ["100.3", "7"])]
    cells = cells_of(leaves, before, after)
    assert energies(cells) == [100_000, 200_000]
    assert [cell.line.units_good for cell in cells] == [None, None]


def test_a_gap_is_measured_in_total_and_spread_over_the_grid() -> None:
    leaves = [leaf(ONE, 1, T0, ["10"]), leaf(ONE, 2, T0 + 3 * MINUTE, ["10.1"])]
    cells = cells_of(leaves, ONE)
    assert energies(cells) == [33_333, 33_333, 33_334]
    assert flags(cells) == ["time_estimated"] * 3
    assert [(row.start_leaf_index, row.end_leaf_index) for row in rows_of(cells)] == [(1, 2)] * 3


def test_bad_samples_have_no_value_and_the_energy_comes_when_the_meter_is_back() -> None:
    leaves = minutes(ONE, ["10", None, None, "10.1"])
    assert energies(cells_of(leaves[:3], ONE)) == [None, None]
    assert flags(cells_of(leaves[:3], ONE)) == ["no_value;incomplete"] * 2
    assert energies(cells_of(leaves, ONE)) == [33_333, 33_333, 33_334]


def test_an_uncertain_sample_feeds_no_figure() -> None:
    leaves = minutes(ONE, ["10", "10.1"])
    doubted = replace(leaves[1].interval, samples=(sample("10.1", T0 + MINUTE, quality=Quality.UNCERTAIN),))
    assert energies(cells_of([leaves[0], replace(leaves[1], interval=doubted)], ONE)) == [None]


def test_one_dead_meter_leaves_the_others_of_its_line_as_they_are() -> None:
    schema = line(energy("m1.energy"), energy("m2.energy"), good())
    rows: list[list[str | None]] = [["1", "1", "0"], ["2", None, "5"], ["3", None, "10"], ["4", "7", "15"]]
    dead = cells_of(minutes(schema, rows[:3]), schema)
    assert energies(dead) == [1_000_000, 1_000_000]
    assert [cell.line.coverage_pct for cell in dead] == [50, 50]
    assert [cell.line.kg_per_unit for cell in dead] == [None, None], "half of the energy is no figure per unit"
    back = cells_of(minutes(schema, rows), schema)
    assert energies(back) == [3_000_000, 3_000_000, 3_000_000]
    assert {cell.line.kg_per_unit for cell in back} == {Decimal("0.24")}


def test_a_figure_per_unit_is_sum_over_sum() -> None:
    """100 units at 0.5 kg and 10 units at 0.9 kg are 0.536364 kg a unit, never 0.7."""
    schema = line(energy(), good())
    cells = cells_of(minutes(schema, [["0", "0"], ["125", "100"], ["147.5", "110"]]), schema)
    assert [cell.line.kg_per_unit for cell in cells] == [Decimal("0.5"), Decimal("0.9")]
    assert Totals.of(cells).kg_per_unit == Decimal("0.536364")


def test_no_units_made_gives_no_figure_per_unit_and_books_the_energy() -> None:
    (cell,) = cells_of(minutes(COUNTED, [["0", "5"], ["0.1", "5"]]), COUNTED)
    assert (cell.line.units_good, cell.line.kg_per_unit, cell.line.energy_mwh) == (Decimal(0), None, 100_000)
    assert Totals.of([cell]).kg_per_unit is None


def test_units_without_a_good_counter_are_all_units() -> None:
    schema = line(energy(), good("plc.total", role=Role.COUNT_TOTAL))
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["1", "4"]]), schema)
    assert (cell.line.units_good, cell.line.units_total, cell.line.kg_per_unit) == (None, Decimal(4), Decimal("0.1"))


def test_a_counter_that_a_plc_restart_set_to_0_books_what_it_shows() -> None:
    cells = cells_of(minutes(COUNTED, [["0", "500"], ["0.1", "7"], ["0.2", "17"]]), COUNTED)
    assert [cell.line.units_good for cell in cells] == [7, 10]
    assert flags(cells) == ["count_reset", ""]


def test_without_a_factor_energy_is_booked_and_co2e_is_null() -> None:
    for known in (facts(), facts(factor("400", 0, 2**62, zone="OTHER"))):
        (cell,) = cells_of(minutes(ONE, ["10", "10.1"]), ONE, known=known)
        (row,) = cell.figures
        assert (row.energy_mwh, row.co2e_g, row.factor_g_per_kwh, row.factor_leaf_index) == (100_000, None, None, None)
        assert row.flags == {Flag.NO_FACTOR}
        assert (cell.line.co2e_g, cell.line.kg_per_unit) == (None, None)
        assert Totals.of([cell]).rows_without_co2e == 1


def test_a_factor_that_covers_half_a_cell_leaves_the_cell_without_co2e_and_the_row_with_it() -> None:
    (cell,) = cells_of(minutes(ONE, ["10", "10.1"]), ONE, known=facts(factor("400", 0, T0 + MINUTE // 2)))
    assert [row.co2e_g for row in cell.figures] == [20, None]
    assert cell.line.co2e_g is None


def test_a_suspect_clock_is_said_on_both_sides() -> None:
    leaves = minutes(ONE, ["10", "10.1", "10.2", "10.3"])
    leaves[1] = leaf(ONE, 20, T0 + MINUTE, ["10.1"], state=ClockState.SUSPECT)
    assert flags(cells_of(leaves, ONE)) == ["clock_suspect", "clock_suspect", ""]


def test_a_clock_that_ran_back_books_nothing_to_the_past() -> None:
    """Booted at 1970: the leaf books nothing, and the next one with the right time has all."""
    leaves = [
        leaf(ONE, 1, T0, ["10"]),
        leaf(ONE, 2, 60 * SECOND, ["10.05"], state=ClockState.SUSPECT),
        leaf(ONE, 3, T0, ["10.06"], state=ClockState.SUSPECT),
        leaf(ONE, 4, T0 + 2 * MINUTE, ["10.1"]),
    ]
    cells = cells_of(leaves, ONE)
    assert [cell.line.start_ns for cell in cells] == [T0, T0 + MINUTE]
    assert energies(cells) == [50_000, 50_000]
    assert flags(cells) == ["clock_suspect;time_estimated"] * 2


def test_a_boundary_of_the_future_stops_no_line() -> None:
    """A boundary that its seal cannot have seen yet is passed over, be it the first leaf or a later one."""
    late, soon = T0 + 100 * 365 * 24 * 60 * MINUTE, T0 + 2 * MINUTE
    leaves = [
        leaf(ONE, 1, late, ["9"], sealed_ns=T0),
        leaf(ONE, 2, T0, ["10"]),
        leaf(ONE, 3, late, ["10.05"], sealed_ns=T0 + MINUTE),
        leaf(ONE, 4, soon, ["10.1"], sealed_ns=soon - MINUTE),
        leaf(ONE, 5, soon + MINUTE, ["10.2"]),
    ]
    cells = cells_of(leaves, ONE)
    assert energies(cells) == [50_000, 50_000, 100_000]
    assert flags(cells) == ["clock_suspect;time_estimated"] * 2 + [""]


def test_a_first_leaf_of_1970_fills_no_half_century_with_cells() -> None:
    leaves = [leaf(ONE, 1, 60 * SECOND, ["10"]), leaf(ONE, 2, T0, ["10.1"]), leaf(ONE, 3, T0 + MINUTE, ["10.2"])]
    cells = cells_of(leaves, ONE)
    assert energies(cells) == [None, 100_000]
    assert flags(cells) == ["gap_too_long;incomplete", ""]
    assert (cells[0].line.start_ns, cells[0].line.end_ns) == (60 * SECOND, T0)


def test_a_meter_dead_for_longer_than_the_limit_starts_anew() -> None:
    schema = line(energy("m1.energy"), energy("m2.energy"))
    projector = LineProjector(schemas=schemas(schema), facts=facts(CONSTANT), max_gap_cells=4)
    rows: list[list[str | None]] = [["1", "1"], *([["2", None]] * 7), ["2", "9"], ["2", "9.5"]]
    made = {cell.line.start_ns: cell for one in minutes(schema, rows) for cell in projector.feed(one)}
    cells = [made[start] for start in sorted(made)]
    m1, m2 = ([row for row in rows_of(cells) if row.meter == name] for name in ("m1.energy", "m2.energy"))
    assert [row.energy_mwh for row in m2] == [None] * 8 + [500_000]
    assert [flag_text(row.flags) for row in m2] == [*["no_value"] * 4, "gap_too_long", *["no_value"] * 3, ""]
    assert [row.energy_mwh for row in m1] == [1_000_000] + [0] * 8
    assert projector.clean


def test_leaves_that_are_too_far_apart_are_one_cell_without_energy() -> None:
    projector = LineProjector(schemas=schemas(ONE), facts=facts(CONSTANT), max_gap_cells=4)
    times = [0, 4, 9, 10]
    cells = [cell for n, t in enumerate(times) for cell in projector.feed(leaf(ONE, n, T0 + t * MINUTE, [f"{t / 10}"]))]
    assert energies(cells) == [100_000] * 4 + [None, 100_000]
    assert (cells[4].line.start_ns, cells[4].line.end_ns) == (T0 + 4 * MINUTE, T0 + 9 * MINUTE)
    assert flags(cells)[4] == "gap_too_long;incomplete"


@pytest.mark.parametrize("wrong", [line(energy(), name="other"), line(energy(), energy()), line(energy(unit="gal"))])
def test_a_leaf_that_no_schema_explains_is_refused_and_changes_nothing(wrong: LineSchema) -> None:
    known = schemas(ONE) if wrong.name == "other" else schemas(ONE, wrong)
    projector = LineProjector(schemas=known, facts=facts(CONSTANT))
    projector.feed(leaf(ONE, 1, T0, ["10"]))
    with pytest.raises(TrustError) as caught:
        projector.feed(leaf(wrong, 2, T0 + MINUTE, ["10.1"] * len(wrong.columns)))
    assert caught.value.index == 2
    assert energies(list(projector.feed(leaf(ONE, 3, T0 + MINUTE, ["10.1"])))) == [100_000]


def test_a_new_factor_changes_only_the_cells_that_it_touches() -> None:
    old = [factor("400", T0, T0 + 2 * MINUTE), factor("500", T0 + 2 * MINUTE, T0 + 9 * MINUTE)]
    known = facts(*old)
    leaves = minutes(ONE, ["0", "0.1", "0.2", "0.3", "0.4"])
    before = cells_of(leaves, ONE, known=known)
    new = factor("450", T0, T0 + 2 * MINUTE, supersedes=old[0].version)
    known.add_factor(FactorLeaf(factor=new, index=7, hash=bytes(32)))
    touched = figures_for(leaves, schemas=schemas(ONE), facts=known, start_ns=new.start_ns, end_ns=new.end_ns)
    assert [cell.line.start_ns for cell in touched] == [T0, T0 + MINUTE]
    assert [row.factor_leaf_index for row in rows_of(touched)] == [7, 7]
    after = cells_of(leaves, ONE, known=known)
    assert [*touched, *before[2:]] == after


READINGS = st.one_of(
    st.none(),
    st.integers(0, 400).map(lambda n: str(Decimal(n) / 10)),
    st.sampled_from(["0", "4294967.2", "1000000"]),
)
MAKE = line(
    energy("m1.energy", rated_power_w=60_000, modulus=Decimal("4294967.296"), serial="A"),
    energy("m2.energy"),
    good(modulus=Decimal(65_536)),
)
SWAP = line(*(replace(column, serial="B") for column in MAKE.columns), period_s=120)


@st.composite
def histories(draw: st.DrawFn) -> list[IntervalLeaf]:
    leaves, minute = [], 0
    for index in range(draw(st.integers(1, 14))):
        minute += draw(st.sampled_from([1, 1, 1, 2, 5, 0, -3]))
        schema: LineSchema = draw(st.sampled_from([MAKE, MAKE, MAKE, SWAP]))
        state = draw(st.sampled_from([ClockState.SYNCHRONISED] * 4 + [ClockState.SUSPECT]))
        shown = draw(st.tuples(READINGS, READINGS, READINGS))
        sealed = T0 + (minute + draw(st.sampled_from([0, 0, 0, 0, -2]))) * MINUTE
        leaves.append(leaf(schema, index * 3, T0 + minute * MINUTE, shown, state=state, sealed_ns=sealed))
    return leaves


FACTORS = facts(
    factor("400", T0, T0 + 3 * MINUTE + 1), factor("333.3333", T0 + 3 * MINUTE + 1, T0 + 7 * MINUTE), factor("1", 0, T0)
)
BOTH: Mapping[bytes, LineSchema] = schemas(MAKE, SWAP)


@settings(max_examples=150)
@given(histories())
def test_a_projector_may_start_anew_at_any_clean_leaf(leaves: list[IntervalLeaf]) -> None:
    """What comes after a clean leaf rests on nothing older and changes nothing older: an export may end there too."""
    projector = LineProjector(schemas=BOTH, facts=FACTORS)
    for place, one in enumerate(leaves):
        projector.feed(one)
        if projector.clean:
            whole = project(leaves, schemas=BOTH, facts=FACTORS)
            rest = project(leaves[place:], schemas=BOTH, facts=FACTORS)
            assert rest == {start: cell for start, cell in whole.items() if start >= one.interval.t_ns}
            until = project(leaves[: place + 1], schemas=BOTH, facts=FACTORS)
            assert until == {start: cell for start, cell in whole.items() if start < one.interval.t_ns}


@settings(max_examples=150)
@given(histories())
def test_cells_tile_the_time_and_lines_sum_their_rows(leaves: list[IntervalLeaf]) -> None:
    cells = list(project(leaves, schemas=BOTH, facts=FACTORS).values())
    assert all(a.line.end_ns == b.line.start_ns for a, b in pairwise(cells))
    for cell in cells:
        booked = [row for row in cell.figures if row.energy_mwh is not None]
        assert cell.line.energy_mwh == (sum(row.energy_mwh or 0 for row in booked) if booked else None)
        assert all((row.co2e_g is None) == (row.factor_leaf_index is None) for row in booked)
        assert all(row.co2e_g is None for row in cell.figures if row.energy_mwh is None)
        for row in cell.figures:
            assert row.co2e_g is None or row.co2e_g * 1_000_000 == row.energy_mwh * row.factor_g_per_kwh  # type: ignore[operator]
            assert cell.line.start_ns <= row.start_ns < row.end_ns <= cell.line.end_ns


@settings(max_examples=100)
@given(histories())
def test_what_is_booked_between_two_readings_is_their_difference_wherever_factors_cut_it(
    leaves: list[IntervalLeaf],
) -> None:
    """Rows that rest on the same two leaves sum to the same energy with any factors, or none."""
    sums = []
    for known in (FACTORS, facts()):
        by_leaves: dict[tuple[str, int | None, int], int] = {}
        for row in rows_of(list(project(leaves, schemas=BOTH, facts=known).values())):
            if row.energy_mwh is not None:
                key = (row.meter, row.start_leaf_index, row.end_leaf_index)
                by_leaves[key] = by_leaves.get(key, 0) + row.energy_mwh
        sums.append(by_leaves)
    assert sums[0] == sums[1]


@pytest.mark.parametrize("before", [True, False])
def test_how_long_a_meter_may_be_silent_does_not_hang_on_how_finely_its_time_is_cut(*, before: bool) -> None:
    """A word of an MES that comes later than the leaves, as in the ledger, or before them, as in a rebuild."""
    made = facts(CONSTANT)
    for number in range(9):
        fact = ContextFact(
            gateway="gw1",
            line="filler",
            what=What.JOB,
            t_ns=T0 + number * MINUTE + 30 * SECOND,
            value=str(number),
            source="mes",
            id=str(number),
        )
        if before:
            made.add_context(number + 10, fact)
    projector = LineProjector(schemas=schemas(ONE), facts=made, max_gap_cells=12)
    cells: dict[int, Cell] = {}
    for one in minutes(ONE, ["0", *[None] * 8, "0.9"]):
        cells |= {cell.line.start_ns: cell for cell in projector.feed(one)}
    assert len(cells) == (18 if before else 9)
    assert sum(cell.line.energy_mwh or 0 for cell in cells.values()) == 900_000
