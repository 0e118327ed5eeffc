"""Whether a number can be what a point is said to measure: for scans and probes, never for readings. Pure.

The ranges are wide on purpose: they tell a wrong register, type or order, which is off by powers of ten, and no more.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.model import Kind


class Likely(enum.StrEnum):
    """How well a value fits. EMPTY: it is zero, which anything may be. UNKNOWN: nothing is known of its unit."""

    YES = "plausible"
    EMPTY = "zero"
    UNKNOWN = "unknown"
    NO = "implausible"


class Finding(NamedTuple):
    """What a value is like, and why."""

    likely: Likely
    reason: str


class _Range(NamedTuple):
    """What magnitudes a unit has. signed: it may be below zero."""

    least: float
    most: float
    signed: bool = False


# From a standby load to a power station; a meter's register from 1 Wh to 100 TWh.
_POWER: Final = _Range(1e-2, 1e9, signed=True)
_ENERGY: Final = _Range(1.0, 1e14)
_RANGES: Final[Mapping[str, _Range]] = MappingProxyType(
    {
        "Hz": _Range(45.0, 65.0),
        "V": _Range(80.0, 760.0),
        "kV": _Range(0.08, 500.0),
        "A": _Range(1e-3, 2e4, signed=True),
        "kA": _Range(1e-6, 20.0, signed=True),
        "%": _Range(1e-3, 1000.0, signed=True),
        "degC": _Range(1e-3, 1000.0, signed=True),
        "K": _Range(1e-3, 2000.0),
        **{
            prefix + unit: _Range(found.least / factor, found.most / factor, signed=found.signed)
            for prefix, factor in (("", 1), ("k", 1e3), ("M", 1e6))
            for unit, found in (
                ("W", _POWER),
                ("VA", _POWER),
                ("var", _POWER),
                ("Wh", _ENERGY),
                ("VAh", _ENERGY),
                ("varh", _ENERGY),
            )
        },
    }
)
_ANY: Final = _Range(1e-6, 1e15, signed=True)


def finding(value: float, unit: str, kind: Kind = Kind.GAUGE) -> Finding:
    """Return whether a value in a unit is one that a plant has."""
    if value == 0:
        return Finding(Likely.EMPTY, "zero: nothing can be said")
    if fault := _fault(value, unit, kind):
        return Finding(Likely.NO, fault)
    if unit not in _RANGES:
        return Finding(Likely.UNKNOWN, f"no range is known for {unit or 'a number without a unit'}")
    return Finding(Likely.YES, f"within {_RANGES[unit].least:g}..{_RANGES[unit].most:g} {unit}")


def _fault(value: float, unit: str, kind: Kind) -> str:
    """Return why a value cannot be, "" where it can."""
    least, most, signed = _RANGES.get(unit, _ANY)
    what = unit or "a number"
    if not math.isfinite(value):
        return "no number"
    if value < 0 and (kind is Kind.COUNTER or not signed):
        return "below zero"
    if abs(value) < least:
        return f"too small for {what}: want {least:g} or more"
    return f"too large for {what}: want {most:g} or less" if abs(value) > most else ""
