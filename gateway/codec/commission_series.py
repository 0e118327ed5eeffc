"""From the registers of power and energy to the series that are judged, and to all other ways to read them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.codec.commission import Other
from gateway.codec.integral import Instant, Series
from gateway.codec.number import FLOATS, exact
from gateway.codec.planner import width
from gateway.model import Order, Point, WireType

POWER_UNITS: Final = {"W": 1.0, "kW": 1e3, "MW": 1e6}
ENERGY_UNITS: Final = {"Wh": 1.0, "kWh": 1e3, "MWh": 1e6}
_TWINS: Final = {
    WireType.U16: WireType.S16,
    WireType.S16: WireType.U16,
    WireType.U32: WireType.S32,
    WireType.S32: WireType.U32,
    WireType.U64: WireType.S64,
    WireType.S64: WireType.U64,
}


class Words(NamedTuple):
    """The registers of both points at one instant."""

    t_s: float
    power: bytes
    energy: bytes


def step_of(point: Point, value: float, exponent: int = 0) -> float:
    """Return the least by which a counter's register can move, in the point's unit.

    value: where it stands; a float's step grows with it. exponent: of its scale factor, where it has one.
    """
    scale = abs(float(point.scale)) * 10.0**exponent
    if point.type not in FLOATS:
        return scale
    raw = abs(value / scale)
    return scale * (math.ulp(raw) if point.type is WireType.F64 else math.ulp(raw) * 2.0**29)


def series_of(instants: Sequence[Instant], step_wh: float) -> Series:
    """Return the series, with the step that the register is seen to take where that is a coarser one.

    A meter that computes in a float, or renews its register now and then, moves by more than the format's step: when it
    stands still at most readings, its smallest move is taken.
    """
    moves = [move for before, after in pairwise(instants) if (move := after.energy_wh - before.energy_wh) > 0]
    coarse = 2 * len(moves) < len(instants) - 1
    return Series(instants=tuple(instants), step_wh=max(step_wh, min(moves)) if moves and coarse else step_wh)


def other_ways(power: Point, energy: Point, words: Sequence[Words]) -> Iterator[Other]:
    """Yield what power and energy would be in each other order, and with a sign or without; one changed before both.

    Left out is what holds no number. Points that a scale factor of SunSpec multiplies are only read as they are set.
    """
    powers = _read_all(power, [each.power for each in words])
    energies = _read_all(energy, [each.energy for each in words])
    both = [(p, e) for p in powers for e in energies if (p, e) != (power, energy)]
    for p, e in sorted(both, key=lambda pair: pair[0] != power and pair[1] != energy):
        instants = [
            instant_of(power, energy, each.t_s, drawn, counted)
            for each, drawn, counted in zip(words, powers[p], energies[e], strict=True)
        ]
        how = " and ".join(_how(new, old) for new, old in ((p, power), (e, energy)) if new != old)
        yield Other(how=how, series=series_of(instants, format_step_wh(e, instants)))


def _read_all(point: Point, registers: Sequence[bytes]) -> dict[Point, list[float]]:
    """Return the values in each way that the registers can be read; without those in which one holds no number."""
    found = {}
    for way in _ways(point):
        values = [exact(way, raw) if raw else None for raw in registers]
        if values and None not in values:
            found[way] = [float(value) for value in values if value is not None]
    return found


def _ways(point: Point) -> list[Point]:
    if point.scale_point is not None or point.type in {WireType.BIT, WireType.STRING}:
        return [point]
    orders = list(Order) if width(point) > 1 else [Order.ABCD, Order.BADC]
    types = [point.type, *([_TWINS[point.type]] if point.type in _TWINS else [])]
    return [replace(point, order=order, type=kind) for order in orders for kind in types]


def _how(new: Point, old: Point) -> str:
    said = [f'order = "{new.order}"'] if new.order != old.order else []
    said += [f'type = "{new.type}"'] if new.type != old.type else []
    return f"{new.name} with {' and '.join(said)}"


def instant_of(power: Point, energy: Point, t_s: float, drawn: float, counted: float) -> Instant:
    """Return a reading in W and Wh, from values in the points' units."""
    return Instant(t_s, drawn * POWER_UNITS[power.unit], counted * ENERGY_UNITS[energy.unit])


def format_step_wh(energy: Point, instants: Sequence[Instant], exponent: int = 0) -> float:
    """Return the step that the register's format allows where it stands at the end; exponent: see `step_of`."""
    factor = ENERGY_UNITS[energy.unit]
    last_wh = next((each.energy_wh for each in reversed(instants) if math.isfinite(each.energy_wh)), 0.0)
    return step_of(energy, last_wh / factor, exponent) * factor
