"""Power over time: what a series of readings adds up to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

_NO_NUMBER: Final = 1e30


class Instant(NamedTuple):
    """What a meter said at one instant: power in W, its energy register in Wh."""

    t_s: float
    power_w: float
    energy_wh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Readings of a meter, oldest first. step_wh: the least that its energy register can move by."""

    instants: tuple[Instant, ...]
    step_wh: float


class Sums(NamedTuple):
    """What a series adds up to. falls: how often the register fell, and did not roll over."""

    seconds: float
    integral_wh: float
    counted_wh: float
    falls: int


def sums(instants: Sequence[Instant], modulus_wh: float | None = None) -> Sums:
    """Return the integral of power by trapezoids, and what the register counted; a roll-over counts as what it is."""
    integral_ws = counted_wh = 0.0
    falls = 0
    for before, after in pairwise(instants):
        integral_ws += (before.power_w + after.power_w) / 2 * (after.t_s - before.t_s)
        moved_wh = after.energy_wh - before.energy_wh
        if moved_wh < 0 and modulus_wh is not None and moved_wh + modulus_wh < modulus_wh / 2:
            moved_wh += modulus_wh
        falls += moved_wh < 0
        counted_wh += moved_wh
    seconds = instants[-1].t_s - instants[0].t_s if instants else 0.0
    return Sums(seconds, integral_ws / 3600, counted_wh, falls)


def is_number(instant: Instant) -> bool:
    """Return whether both are numbers that a meter can have: not NaN, nor what a wrong type makes of them."""
    return abs(instant.power_w) < _NO_NUMBER and abs(instant.energy_wh) < _NO_NUMBER  # NaN is neither
