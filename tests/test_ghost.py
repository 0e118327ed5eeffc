"""Ghost load: modelled outside of shifts, beside what is measured and never in it."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.energy import Flag
from gateway.carbon.figures import MODELLED, Cell, Totals
from gateway.carbon.scopes.modelled import static_assets
from gateway.config.plan import parse_plan
from gateway.errors import ConfigError
from tests.line_leaves import MINUTE, T0, energy, factor, leaf, line, minutes
from tests.plans import cells_of, planned, rows_of

DAY_SHIFT = '[shifts.day]\nstart = "09:02"\nend = "17:00"\n'
LIGHTS = '[static-assets.lights]\nline = "gw1/filler"\nstandby_w = 250\nleakage_multiplier = "1.2"\n'
ONE = line(energy())
HOUR = 60 * MINUTE


def cells(plan: str, shown: Sequence[str] = ("0", "1", "2", "3")) -> list[Cell]:
    return cells_of(minutes(ONE, list(shown)), ONE, planned(plan))


def test_a_load_is_modelled_for_the_time_outside_of_all_shifts() -> None:
    made = cells(DAY_SHIFT + LIGHTS)
    rows = rows_of(made, "static:lights")
    # 250 W x 1.2 over two minutes before 09:02.
    assert [(row.start_ns, row.energy_mwh) for row in rows] == [(T0, 5_000_000 // 1000), (T0 + MINUTE, 5_000)]
    assert [(row.kind, row.quality, row.scope, row.asset) for row in rows] == [
        (MODELLED, "modelled", "2", "lights")
    ] * 2
    assert [row.co2e_g for row in rows] == [Decimal(2), Decimal(2)]


def test_a_modelled_load_is_not_in_the_lines_measured_energy() -> None:
    made = cells(DAY_SHIFT + LIGHTS)
    assert [cell.line.energy_mwh for cell in made] == [1_000_000] * 3
    assert [cell.line.co2e_g for cell in made] == [Decimal(400)] * 3
    assert [cell.line.modelled_mwh for cell in made] == [5_000, 5_000, None]
    assert [cell.line.modelled_g for cell in made] == [Decimal(2), Decimal(2), None]
    sums = Totals.of(made)
    assert (sums.energy_mwh, sums.co2e_g) == (3_000_000, Decimal(1200))
    assert (sums.modelled_mwh, sums.modelled_g) == (10_000, Decimal(4))
    assert [(cell.line.meters, cell.line.complete) for cell in made] == [(1, False)] * 3


def test_a_load_that_a_sub_meter_counts_is_not_modelled() -> None:
    made = cells(DAY_SHIFT + LIGHTS + 'covered_by = "m1.energy"\n')
    assert rows_of(made, "static:lights") == []
    assert [cell.line.flags for cell in made] == [frozenset()] * 3


def test_a_covering_counter_that_the_line_does_not_have_is_said_and_nothing_is_modelled() -> None:
    made = cells(DAY_SHIFT + LIGHTS + 'covered_by = "m7.energy"\n')
    assert rows_of(made, "static:lights") == []
    assert [cell.line.flags for cell in made] == [{Flag.PLAN_MISMATCH}] * 3


def test_another_lines_load_is_not_this_ones() -> None:
    assert rows_of(cells(DAY_SHIFT + LIGHTS.replace("gw1/filler", "gw1/packer")), "static:lights") == []


def test_without_a_factor_the_modelled_energy_stands_and_its_co2e_is_null() -> None:
    known = planned(DAY_SHIFT + LIGHTS, factor("400", 0, T0 + MINUTE))
    made = cells_of(minutes(ONE, ["0", "1", "2"]), ONE, known)
    second = rows_of(made, "static:lights")[1]
    assert (second.energy_mwh, second.co2e_g, set(second.flags)) == (5_000, None, {Flag.NO_FACTOR})
    assert (made[1].line.modelled_mwh, made[1].line.modelled_g) == (5_000, None)


def test_a_load_is_modelled_also_where_the_meters_are_silent() -> None:
    made = cells_of(minutes(ONE, ["0", None, "2"]), ONE, planned(DAY_SHIFT + LIGHTS))
    assert [cell.line.modelled_mwh for cell in made] == [5_000, 5_000]


def test_a_load_whose_line_has_no_shift_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^plan: static-assets\.lights\.line: got 'gw1/filler', which has no shift"):
        parse_plan(LIGHTS, name="plan")
    other = DAY_SHIFT + 'lines = ["gw1/packer"]\n'
    with pytest.raises(ConfigError, match="which has no shift"):
        parse_plan(other + LIGHTS, name="plan")


@given(
    st.floats(0, 1e6, allow_nan=False).map(lambda watts: round(watts, 3)),
    st.decimals(0, 10, places=4),
    st.lists(st.integers(1, 10**12), min_size=2, max_size=20),
)
def test_parts_sum_exactly_however_the_time_is_cut(watts: float, multiplier: Decimal, steps: list[int]) -> None:
    toml = DAY_SHIFT + LIGHTS.replace('"1.2"', f'"{multiplier:f}"').replace("standby_w = 250", f"standby_w = {watts!r}")
    (asset,) = static_assets(parse_plan(toml, name="plan"), "gw1", ONE)
    cuts = [T0]
    for step in steps:
        cuts.append(cuts[-1] + step)
    parts = [asset.energy_mwh(start, end) for start, end in pairwise(cuts)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == asset.energy_mwh(cuts[0], cuts[-1])
    whole = Decimal(repr(watts)) * multiplier * (cuts[-1] - cuts[0]) / 3_600_000_000
    assert abs(sum(parts) - whole) <= 1


def test_a_factor_that_changes_within_a_cell_splits_the_model_and_the_parts_sum() -> None:
    known = planned(
        DAY_SHIFT + LIGHTS, factor("300", 0, T0 + 20_000_000_000), factor("600", T0 + 20_000_000_000, T0 + HOUR)
    )
    (cell,) = cells_of([leaf(ONE, 1, T0, ["0"]), leaf(ONE, 2, T0 + MINUTE, ["1"])], ONE, known)
    rows = rows_of([cell], "static:lights")
    assert len(rows) == 2
    assert sum(row.energy_mwh or 0 for row in rows) == cell.line.modelled_mwh == 5_000
