"""Three things that are watched of a line: energy and throughput against its baseline, the grid's factor against usual.

The factor is known as it is, and suspected wherever it is off. The others are two-sided CUSUMs over windows. A CUSUM
with k 0.5 and h 5 alone would call once in some 465 windows of pure noise, every other day. So what is found is only
suspected: the beginning is looked for (the best split in two of the last hour), and an alert is raised if, from there
on, the mean has stayed off by at least `least` for the dwell time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from gateway.carbon.alerts.alert import ENERGY, GRID, RATE
from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.observe import Observation
from gateway.carbon.alerts.usual import UsualFactor
from gateway.carbon.alerts.windows import Window

MOST_Z = 20.0
"""A single window counts for no more."""
SURE = 3.5
"""Standard deviations of one window that the mean since the onset must be off."""


class Off(NamedTuple):
    """How far a stream is off. z: in standard deviations of one window. effect: on the intensity, 0.1 is 10 % more.

    least: the effect from which it matters.
    """

    z: float
    effect: float
    least: float

    @property
    def matters(self) -> bool:
        """Whether it is out of the ordinary."""
        return abs(self.effect) >= self.least


def off(window: Window, baseline: Baseline, least: float) -> dict[str, Off]:
    """Return how far a window's energy and throughput are off. least: effect, at least."""
    rate, kw, usual = window.units_per_h, window.kw, baseline.units_per_h
    expected = baseline.expected_kw(rate)
    found = {}
    if expected > 0 and window.units is not None:
        noise = baseline.sigma_kw / expected
        found[ENERGY] = Off((kw - expected) / baseline.sigma_kw, kw / expected - 1, max(least, SURE * noise))
    if usual > 0 and window.units is not None:
        slower = max(usual - baseline.units_sigma, usual / 100)
        noise = abs(_by_rate(baseline, slower))
        found[RATE] = Off((rate - usual) / baseline.units_sigma, _by_rate(baseline, rate), max(least, SURE * noise))
    return found


def grid_off(window: Window, usual: UsualFactor, least: float) -> Off | None:
    """Return how far the grid's factor is off in a window; None where it is not known. least: effect, at least."""
    factor, level = window.factor, window.usual_factor
    if factor is None or not level:
        return None
    sigma = usual.sigma(window.start_ns, level)
    return Off((factor - level) / sigma, factor / level - 1, max(least, SURE * sigma / level))


def _by_rate(baseline: Baseline, rate: float) -> float:
    """Return what a throughput other than the usual does to the energy of a unit."""
    usual = baseline.units_per_h
    if rate <= 0:
        return inf
    return baseline.expected_kw(rate) / rate / (baseline.expected_kw(usual) / usual) - 1


@dataclass(slots=True)
class Cusum:
    """Two sums, one for each side: each window adds its z less k, and neither falls below 0."""

    k: float
    h: float
    up: float = 0.0
    down: float = 0.0

    def step(self, z: float) -> bool:
        """Take a window; return whether one of the sums is above h."""
        z = max(-MOST_Z, min(MOST_Z, z))
        self.up = max(0.0, self.up + z - self.k)
        self.down = max(0.0, self.down - z - self.k)
        return self.up > self.h or self.down > self.h

    def reset(self) -> None:
        """Begin anew."""
        self.up = self.down = 0.0


def split(values: Sequence[float]) -> int:
    """Return where a series is best cut in two of different means: the index of the second part's first value."""
    total, left, best, at = sum(values), 0.0, -1.0, 0
    count = len(values)
    for place in range(1, count):
        left += values[place - 1]
        apart = left / place - (total - left) / (count - place)
        between = place * (count - place) * apart * apart
        if between > best:
            best, at = between, place
    return at


def series(cells: Sequence[Observation], stream: str, baseline: Baseline) -> list[float]:
    """Return what a stream shows cell by cell, as split takes it."""
    if stream == RATE:
        return [(cell.units or 0.0) / cell.hours for cell in cells]
    if stream == GRID:
        return [cell.beside_usual for cell in cells]
    return [(cell.energy / cell.hours) - baseline.expected_kw((cell.units or 0.0) / cell.hours) for cell in cells]
