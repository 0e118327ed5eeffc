"""Why kg/unit changed: the exact Shapley value of each thing that may have changed.

CI = EF x (F/N + sum(C_a)/N + sum(u_a) + v): the grid factor EF in kg/kWh, standby F in kW, the throughput N in units/h,
each asset's C_a in kW and u_a in kWh/unit (one player an asset), the product mix v in kWh/unit.

The Shapley value is linear, and CI is a sum of products of at most three players (EF, 1/N, one of the others). A player
that is not in a product has no part in it. So the sum of the products' own Shapley values, over 3! orders each, is the
exact value of the whole: as many steps as there are assets, where going through all coalitions would take 2 ** n. There
is no division but by N; any other quantity may be zero. Where N is zero on one side there is no kg/unit: the change of
kg/h, EF x (F + sum(C_a) + N x (sum(u_a) + v)), is attributed instead.

    attribute(before: Rates, after: Rates) -> Attribution     contributions by player; they sum to the change
"""

from collections.abc import Mapping
from math import fsum
from typing import NamedTuple

GRID, THROUGHPUT, MIX, STANDBY = "grid factor", "throughput", "product mix", "standby"


class Load(NamedTuple):
    """What an asset draws: kW whatever is made, and kWh for each unit made."""

    kw: float = 0.0
    kwh_per_unit: float = 0.0


class Rates(NamedTuple):
    """What a line's intensity is made of over some time: see the formula above."""

    factor: float
    units_per_h: float
    assets: Mapping[str, Load]
    standby_kw: float = 0.0
    mix_kwh_per_unit: float = 0.0

    @property
    def kw(self) -> float:
        """Its energy a hour."""
        return (
            fsum([self.standby_kw, *(load.kw for load in self.assets.values())]) + self.units_per_h * self.kwh_per_unit
        )

    @property
    def kwh_per_unit(self) -> float:
        """The part of its energy that follows the units."""
        return fsum([self.mix_kwh_per_unit, *(load.kwh_per_unit for load in self.assets.values())])

    @property
    def kg_per_h(self) -> float:
        """Its CO2e a hour."""
        return self.factor * self.kw

    @property
    def kg_per_unit(self) -> float | None:
        """Its intensity; None while nothing is made."""
        return self.kg_per_h / self.units_per_h if self.units_per_h > 0 else None


class Attribution(NamedTuple):
    """What each player contributed to a change. unit: kg/unit, or kg/h where one side made nothing.

    assets: by asset. total: after less before, the sum of all contributions within 1e-9.
    """

    unit: str
    before: float
    after: float
    grid: float
    throughput: float
    mix: float
    standby: float
    assets: Mapping[str, float]

    @property
    def total(self) -> float:
        """The change."""
        return self.after - self.before

    @property
    def parts(self) -> list[tuple[str, float]]:
        """Return (player, contribution), assets by their names."""
        four = [(GRID, self.grid), (THROUGHPUT, self.throughput), (MIX, self.mix), (STANDBY, self.standby)]
        return [*four, *self.assets.items()]


_Change = tuple[float, float]
"""A player's value before and after."""


def attribute(before: Rates, after: Rates) -> Attribution:
    """Return the exact Shapley values of the change. Assets of one side alone count as zero on the other."""
    per_unit = before.units_per_h > 0 and after.units_per_h > 0
    ef = (before.factor, after.factor)
    n = (before.units_per_h, after.units_per_h)
    by_time: _Change = (1 / n[0], 1 / n[1]) if per_unit else (1.0, 1.0)
    by_unit: _Change = (1.0, 1.0) if per_unit else n
    grid: list[float] = []
    throughput: list[float] = []

    def own(kw: _Change, kwh_per_unit: _Change) -> float:
        first, second = _of_three(ef, by_time, kw), _of_three(ef, by_unit, kwh_per_unit)
        grid.extend((first[0], second[0]))
        throughput.extend((first[1], second[1]))
        return first[2] + second[2]

    nothing = (0.0, 0.0)
    standby = own((before.standby_kw, after.standby_kw), nothing)
    mix = own(nothing, (before.mix_kwh_per_unit, after.mix_kwh_per_unit))
    assets: dict[str, float] = {}
    for name in dict.fromkeys([*before.assets, *after.assets]):
        old, new = before.assets.get(name, Load()), after.assets.get(name, Load())
        assets[name] = own((old.kw, new.kw), (old.kwh_per_unit, new.kwh_per_unit))
    sides = [(rates.kg_per_unit or 0.0) if per_unit else rates.kg_per_h for rates in (before, after)]
    return Attribution(
        unit="kg/unit" if per_unit else "kg/h",
        before=sides[0],
        after=sides[1],
        grid=fsum(grid),
        throughput=fsum(throughput),
        mix=mix,
        standby=standby,
        assets=assets,
    )


def _of_three(a: _Change, b: _Change, c: _Change) -> tuple[float, float, float]:
    """Return the Shapley values of the players of a product of three."""
    return _share(a, b, c), _share(b, a, c), _share(c, a, b)


def _share(own: _Change, one: _Change, other: _Change) -> float:
    """Return the mean over all orders of what a player adds to own x one x other by changing."""
    mixed = one[0] * other[1] + one[1] * other[0]
    return (own[1] - own[0]) * (2 * one[0] * other[0] + mixed + 2 * one[1] * other[1]) / 6
