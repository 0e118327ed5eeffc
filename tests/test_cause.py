"""The change of an intensity is attributed exactly: to each player what it adds, over all orders."""

from itertools import permutations
from math import factorial, fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.alerts.cause import GRID, MIX, STANDBY, THROUGHPUT, Load, Rates, attribute

BASE = Rates(factor=0.40, units_per_h=600, assets={"compressor": Load(300)}, standby_kw=60, mix_kwh_per_unit=1.10)
AFTER = Rates(
    factor=0.42, units_per_h=570, assets={"compressor": Load(493.7142857)}, standby_kw=60, mix_kwh_per_unit=1.10
)

some = st.floats(min_value=0, max_value=2000) | st.just(0.0)
rates = st.builds(
    lambda factor, rate, loads, standby, mix: Rates(
        factor, rate, {name: Load(*load) for name, load in zip("abc", loads, strict=False)}, standby, mix
    ),
    st.floats(min_value=0, max_value=2),
    st.floats(min_value=0.5, max_value=2000),
    st.lists(st.tuples(some, st.floats(min_value=0, max_value=5)), min_size=1, max_size=3),
    some,
    st.floats(min_value=0, max_value=5),
)


def test_the_facts_vector_comes_out() -> None:
    found = attribute(BASE, AFTER)
    assert found.grid == pytest.approx(0.037657644, abs=1e-9)
    assert found.throughput == pytest.approx(0.016459148, abs=1e-9)
    assert found.assets["compressor"] == pytest.approx(0.135883208, abs=1e-9)
    assert (found.mix, found.standby) == (0, 0)
    assert [found.before, found.after] == pytest.approx([0.68, 0.87])
    assert fsum(part for _, part in found.parts) == pytest.approx(found.total, abs=1e-9)


@given(before=rates, after=rates)
def test_contributions_sum_to_the_change(before: Rates, after: Rates) -> None:
    found = attribute(before, after)
    scale = max(1.0, abs(found.before), abs(found.after))
    assert abs(fsum(part for _, part in found.parts) - found.total) <= 1e-9 * scale


@given(before=rates, after=rates)
def test_each_contribution_is_what_all_orders_give(before: Rates, after: Rates) -> None:
    """Compare with the definition: the mean over all orders in which the players change."""
    names = sorted({*before.assets, *after.assets})
    players = [GRID, THROUGHPUT, MIX, STANDBY, *names]

    def worth(changed: set[str]) -> float:
        def of(player: str) -> Rates:
            return after if player in changed else before

        assets = {name: of(name).assets.get(name, Load()) for name in names}
        mixed = Rates(
            of(GRID).factor,
            of(THROUGHPUT).units_per_h,
            assets,
            of(STANDBY).standby_kw,
            of(MIX).mix_kwh_per_unit,
        )
        return mixed.kg_per_unit or 0.0

    if len(players) > 6:  # 7! orders would take too long here, and say no more
        return
    sums = dict.fromkeys(players, 0.0)
    for order in permutations(players):
        changed: set[str] = set()
        for player in order:
            old = worth(changed)
            changed.add(player)
            sums[player] += worth(changed) - old
    for player, part in attribute(before, after).parts:
        expected = sums[player] / factorial(len(players))
        assert part == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_zeros_are_exact_and_no_units_attribute_the_energy_instead() -> None:
    nothing = Rates(factor=0.0, units_per_h=600, assets={}, standby_kw=0, mix_kwh_per_unit=0)
    found = attribute(nothing, BASE)
    assert fsum(part for _, part in found.parts) == pytest.approx(0.68, abs=1e-9)
    stopped = BASE._replace(units_per_h=0.0)
    assert stopped.kg_per_unit is None
    found = attribute(BASE, stopped)
    assert found.unit == "kg/h"
    assert [found.before, found.after] == pytest.approx([408, 144])
    assert found.throughput == pytest.approx(-264, abs=1e-9)
    assert attribute(stopped, stopped).total == 0


def test_a_hundred_assets_take_no_longer_than_their_number() -> None:
    many = {f"a{n}": Load(float(n)) for n in range(100)}
    more = {name: Load(load.kw * 1.5) for name, load in many.items()}
    found = attribute(Rates(0.4, 600, many, 60, 1.1), Rates(0.5, 500, more, 50, 1.2))
    assert fsum(part for _, part in found.parts) == pytest.approx(found.total, abs=1e-9)
    assert len(found.assets) == 100
