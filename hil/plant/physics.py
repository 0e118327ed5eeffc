"""Power as an exact function of plant time: what a meter shows now, and what it has counted since.

Nothing here steps. A rate and its integral are closed formulas of plant time, so two reads at one
instant agree, a loaded server does not drift, and any clock can drive it.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

_MASK = (1 << 64) - 1
_BINS_S = (1.0, 60.0)
"""Noise lives on two scales: a fast one, so that a gauge moves, and one that minute averages keep."""


class Noise:
    """A relative disturbance with mean zero, whose integral is known at every instant.

    sigma: standard deviation, as a share of the mean. Values are uniform, so they stay within
        2.45 sigma. Time is cut into pairs of bins that carry +e and -e: the integral comes back
        to zero after each pair, so that what is disturbed still averages to its mean exactly.
    """

    def __init__(self, *, seed: int, channel: str, sigma: float) -> None:
        self._reach = sigma * math.sqrt(3 / len(_BINS_S))
        self._key = (seed * 0x9E3779B97F4A7C15 + zlib.crc32(channel.encode())) & _MASK

    def at(self, t: float) -> float:
        """Return the disturbance at plant second t."""
        if not self._reach:
            return 0.0
        return sum(e if phase < width else -e for e, phase, width in map(self._bin, _BINS_S, (t, t)))

    def integral(self, t: float) -> float:
        """Return the integral from plant second 0 to t, in seconds."""
        if not self._reach:
            return 0.0
        return sum(
            e * (phase if phase < width else 2 * width - phase) for e, phase, width in map(self._bin, _BINS_S, (t, t))
        )

    def _bin(self, width: float, t: float) -> tuple[float, float, float]:
        pair, phase = divmod(t, 2 * width)
        return self._draw(int(pair), int(width)), phase, width

    def _draw(self, pair: int, width: int) -> float:
        """Return the value of one pair. The mixing steps are SplitMix64's."""
        x = (self._key ^ (pair * 0xD1342543DE82EF95 + width)) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return self._reach * (((x ^ (x >> 31)) >> 11) / (1 << 52) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a rate runs: steady, or loading and unloading in turn around the same mean.

    period_s: length of a cycle; 0 for a steady rate.
    low, low_s: the rate while unloaded, and for how long at the end of each cycle.
    """

    mean: float
    period_s: float = 0.0
    low: float = 0.0
    low_s: float = 0.0

    @property
    def high(self) -> float:
        """The rate while loaded: what makes the cycle's mean exact."""
        if not self.period_s:
            return self.mean
        return (self.mean * self.period_s - self.low * self.low_s) / (self.period_s - self.low_s)

    def rate(self, s: float) -> float:
        """Return the rate s seconds after the first cycle began."""
        if self.period_s and s % self.period_s >= self.period_s - self.low_s:
            return self.low
        return self.high

    def integral(self, s: float) -> float:
        """Return the rate's integral over the first s seconds."""
        if not self.period_s:
            return self.mean * s
        cycles, rest = divmod(s, self.period_s)
        loaded = min(rest, self.period_s - self.low_s)
        return cycles * self.mean * self.period_s + loaded * self.high + (rest - loaded) * self.low


class Flow:
    """A rate per hour (W, or units/h) over plant time, and its exact total (Wh, or units)."""

    def __init__(self, shape: Shape, noise: Noise | None = None) -> None:
        self.shape = shape
        self._noise = noise
        self._from = 0.0
        self._total = 0.0
        self._noise_from = 0.0
        self._cycles = 0

    def change(self, shape: Shape, t: float) -> None:
        """Go on with another shape from plant second t, which must not lie before the last change."""
        if shape == self.shape:
            return
        self._total, self._cycles = self.total(t), self.cycles(t)
        self._from, self.shape = t, shape
        self._noise_from = self._noise.integral(t) if self._noise else 0.0

    def rate(self, t: float) -> float:
        """Return the rate at plant second t."""
        noise = self.shape.mean * self._noise.at(t) if self._noise else 0.0
        return self.shape.rate(t - self._from) + noise

    def total(self, t: float) -> float:
        """Return the rate's integral from plant second 0 to t, in rate times hours."""
        noise = self.shape.mean * (self._noise.integral(t) - self._noise_from) if self._noise else 0.0
        return self._total + (self.shape.integral(t - self._from) + noise) / 3600

    def cycles(self, t: float) -> int:
        """Return how many cycles were completed: a compressor's starts."""
        period_s = self.shape.period_s
        return self._cycles + (int((t - self._from) / period_s) if period_s else 0)
