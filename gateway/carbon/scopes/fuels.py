"""Scope 1: what a fuel meter's register comes to, as heat and as CO2e.

A register is booked in whole millionths of its unit. Heat is kWh = units x correction x calorific value / 3.6; it is
rounded to whole mWh at the register (HALF_EVEN), before any difference is taken, so that parts sum exactly. CO2e is
either heat times a factor in g/kWh, whose basis (gross or net calorific value) must be the plan's, or units x
correction times a factor per unit (g/L), in which no calorific value is.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from gateway.carbon.energy import Booking, EnergyRegister, Flag, Nothing, Reading
from gateway.carbon.exact import shifted, times
from gateway.carbon.figures import G_PER_KWH
from gateway.carbon.grid.table import FactorLeaf
from gateway.config.plan import FuelSection, Plan
from gateway.config.plan.scopes import exact
from gateway.errors import ConfigError
from gateway.model import Factor, FactorKey, LineColumn, LineSchema, Role

FUEL = "fuel"
"""The signal of a fuel's factor; its zone is the fuel's name."""

UNIT = "unit"
"""The type of a factor per unit of the meter; of one per kWh it is the basis, gross or net."""

MICRO_PLACES = 6
_WRAP_PART = 100
_ROLLOVER = frozenset({Flag.ROLLOVER})


class FuelMeter(NamedTuple):
    """A fuel counter of a line and what the plan says of it.

    place: in the line's columns. fuel: "" where the plan does not name the counter. provider: whose factor counts,
    "" for any. correction: of the register's units. kwh_per_unit: with the correction; None where it is not known.
    """

    asset: str
    place: int
    fuel: str = ""
    provider: str = ""
    basis: str = ""
    correction: Decimal = Decimal(1)
    kwh_per_unit: Fraction | None = None

    def heat_mwh(self, booking: Booking, start_ns: int, end_ns: int) -> int | None:
        """Return a booking's heat within [start_ns, end_ns); parts that meet sum exactly."""
        if self.kwh_per_unit is None:
            return None
        # A millionth of a unit times kWh per unit is mWh.
        first, last = (booking.start.amount + booking.until(t_ns) for t_ns in (start_ns, end_ns))
        return round(last * self.kwh_per_unit) - round(first * self.kwh_per_unit)

    def co2e_g(self, factor: Factor, heat_mwh: int | None, micro: int) -> Decimal | None:
        """Return the CO2e of heat, or of millionths of a unit, by a factor that fits; exact."""
        if factor.unit != G_PER_KWH:
            return shifted(times(times(factor.g_per_kwh, micro), self.correction), -MICRO_PLACES)
        return None if heat_mwh is None else shifted(times(factor.g_per_kwh, heat_mwh), -MICRO_PLACES)

    def fits(self, factor: Factor, unit: str) -> bool:
        """Return whether a factor of this fuel applies to a register in a unit."""
        if factor.unit != G_PER_KWH:
            return factor.unit == f"g/{unit}"
        return factor.key[3] == self.basis and self.kwh_per_unit is not None


class FuelSpan(NamedTuple):
    """A piece of time to which one factor applies, or none, and why.

    With BASIS_MISMATCH the leaf is of a factor that must not be applied; so whoever checks the figure sees it too.
    """

    start_ns: int
    end_ns: int
    leaf: FactorLeaf | None
    flag: Flag | None = None


class FuelRegister(EnergyRegister):
    """An energy register's judgement of a fuel's, in millionths of its unit.

    A burner's rated power says nothing of its fuel's units; so a fall is a roll-over where the modulus makes it at most
    1 % of the modulus, and otherwise suspect.
    """

    def read(self, reading: Reading) -> Booking | Nothing:
        """Judge one GOOD reading."""
        if self.base is not None and self.modulus is not None and reading.amount < self.base.amount:
            wrapped = reading.amount - self.base.amount + self.modulus
            if 0 <= wrapped <= self.modulus // _WRAP_PART:
                return self._book(self.base, reading, wrapped, _ROLLOVER)
        return super().read(reading)


class FuelFactors:
    """The factors of fuels in force, in the order of the ledger's log."""

    def __init__(self) -> None:
        self._leaves: dict[str, dict[tuple[FactorKey, int], FactorLeaf]] = {}

    @property
    def factors(self) -> tuple[Factor, ...]:
        """All of them."""
        return tuple(leaf.factor for leaves in self._leaves.values() for leaf in leaves.values())

    def add(self, leaf: FactorLeaf) -> None:
        """Take one that a FactorTable has let in; another version of its window replaces the one before."""
        factor = leaf.factor
        self._leaves.setdefault(factor.key[1], {})[factor.key, factor.start_ns] = leaf

    def spans(self, meter: FuelMeter, unit: str, start_ns: int, end_ns: int) -> Iterator[FuelSpan]:
        """Cut [start_ns, end_ns) where the factor of a meter changes; yield the pieces in order.

        Of several that fit the shortest window has precedence, then the first key in order.
        """
        leaves = [
            leaf
            for leaf in self._leaves.get(meter.fuel, {}).values()
            if meter.provider in {"", leaf.factor.key[0]}
            and leaf.factor.start_ns < end_ns
            and start_ns < leaf.factor.end_ns
        ]
        cuts = {t for leaf in leaves for t in (leaf.factor.start_ns, leaf.factor.end_ns) if start_ns < t < end_ns}
        begun, held = start_ns, _choice(meter, unit, leaves, start_ns)
        for cut in sorted(cuts):
            then = _choice(meter, unit, leaves, cut)
            if then != held:
                yield FuelSpan(begun, cut, *held)
                begun, held = cut, then
        yield FuelSpan(begun, end_ns, *held)


def _choice(
    meter: FuelMeter, unit: str, leaves: Sequence[FactorLeaf], t_ns: int
) -> tuple[FactorLeaf | None, Flag | None]:
    held: dict[FactorKey, FactorLeaf] = {}
    for leaf in sorted(leaves, key=lambda leaf: leaf.factor.start_ns):
        if leaf.factor.start_ns <= t_ns < leaf.factor.end_ns:
            held[leaf.factor.key] = leaf  # a window that is open at its end is ended by the next one of its key
    there = list(held.values())
    fitting = [leaf for leaf in there if meter.fits(leaf.factor, unit)]
    if fitting:
        return min(fitting, key=_precedence), None
    # The answer must be the same where factors that no figure names are not shown, as in an export.
    if meter.fuel and meter.kwh_per_unit is None:
        return None, Flag.NO_CALORIFIC
    others = [leaf for leaf in there if leaf.factor.unit == G_PER_KWH]
    return (min(others, key=_precedence), Flag.BASIS_MISMATCH) if others else (None, Flag.NO_FACTOR)


def _precedence(leaf: FactorLeaf) -> tuple[int, FactorKey]:
    return leaf.factor.end_ns - leaf.factor.start_ns, leaf.factor.key


def fuel_meters(plan: Plan, gateway: str, schema: LineSchema) -> tuple[FuelMeter, ...]:
    """Return a line's fuel counters in its order, each with what the plan says of it."""
    said = {one.point: (name, one) for name, one in plan.fuels.items() if one.line == f"{gateway}/{schema.name}"}
    return tuple(
        _meter(place, column, *said[column.point]) if column.point in said else FuelMeter(column.point, place)
        for place, column in enumerate(schema.columns)
        if column.role == Role.FUEL
    )


def _meter(place: int, column: LineColumn, name: str, said: FuelSection) -> FuelMeter:
    correction, calorific = exact(said.correction), said.calorific_mj
    kwh_per_unit = Fraction(correction) if column.unit == "kWh" else None
    if calorific is not None and column.unit != "kWh":
        kwh_per_unit = Fraction(correction) * Fraction(exact(calorific)) * 10 / 36
    return FuelMeter(name, place, said.fuel, said.provider, said.basis, correction, kwh_per_unit)


def check_fuels(plan: Plan, factors: Sequence[Factor], name: str) -> None:
    """Refuse a plan whose fuel no factor fits: unknown, or on the other basis. Raises ConfigError.

    factors: those that are or will be in force. A fuel meter's unit is not known here; so a factor per unit passes,
    but not instead of one per kWh where the plan says a calorific value.
    """
    for key, said in plan.fuels.items():
        where = f"{name}: fuels.{key}"
        known = [factor for factor in factors if factor.key[2] == FUEL]
        named = [one for one in known if one.key[1] == said.fuel and said.provider in {"", one.key[0]}]
        if not named:
            of = sorted({f"{one.key[1]!r} of {one.key[0]}" for one in known})
            want = f"one of {', '.join(of)}" if of else "a table of fuels in ledger.toml: tables, or fuel_factors"
            raise ConfigError(f"{where}.fuel: got {said.fuel!r}, want {want}")
        bases = sorted({one.key[3] for one in named} - {UNIT})
        by_unit = said.calorific_mj is None and len(bases) < len({one.key[3] for one in named})
        if bases and said.basis not in bases and not by_unit:
            want = " or ".join(bases)
            raise ConfigError(f"{where}.basis: got {said.basis!r}, want {want}, the basis of the fuel's factor")
