"""What a constant ratio between two figures of a meter may come from. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final


class Cause(enum.StrEnum):
    """What may explain that power and energy disagree."""

    SCALE = "scale"
    ORDER = "order"
    SIGN = "sign"
    CT_RATIO = "ct ratio"
    PARTIAL = "tariff or partial counter"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One explanation. factor: how many times as much as the power says the register counts, where that is constant."""

    cause: Cause
    text: str
    factor: float | None = None


# IEC 61869-2: preferred primary currents in A, for secondaries of 5 A and 1 A.
_PRIMARIES: Final = tuple(
    int(base * power)
    for power in (1, 10, 100, 1000)
    for base in (10, 12.5, 15, 20, 25, 30, 40, 50, 60, 75, 80)
    if base * power == int(base * power)
)
_TRANSFORMERS: Final = sorted(
    {primary / secondary: f"{primary}:{secondary}" for secondary in (1, 5) for primary in _PRIMARIES}.items()
)


def explain_ratio(ratio: float, fits: Callable[[float], bool], note: str = "") -> list[Explanation]:
    """Return what a register that counts `ratio` times what the power says may come from, the likeliest first.

    fits: whether a factor predicts what was counted. note: put after each text.
    """
    sign = -1.0 if ratio < 0 else 1.0
    turned = "; and the sign is turned" if sign < 0 else ""
    size = abs(ratio)
    found: list[Explanation] = []

    for factor, cause, text in _known(size):
        if fits(sign * factor):
            found.append(Explanation(cause=cause, text=text + turned + note, factor=sign * factor))
    if not found:
        text = f"a constant ratio of {size:.4g}: transformer ratios, or a scale, are not set alike"
        found.append(Explanation(cause=Cause.CT_RATIO, text=text + turned + note, factor=ratio))
    if sign < 0:
        found.append(Explanation(cause=Cause.SIGN, text=f"the sign is turned{note}", factor=-1.0))
    return found


def _known(size: float) -> Iterator[tuple[float, Cause, str]]:
    """Yield the factors that have a name, and what each says."""
    for exponent in (*range(1, 10), *range(-1, -10, -1)):
        yield 10.0**exponent, Cause.SCALE, _scale_text(10.0**exponent)
    for factor, unit in ((3.6, "kJ"), (3600.0, "J"), (3.6e-3, "MJ")):
        yield factor, Cause.SCALE, f"the register counts {factor:.4g} times the power: energy in {unit}"
    for factor in (3.0, 1 / 3):
        yield factor, Cause.CT_RATIO, f"a constant ratio of {size:.4g}: one phase against three"
    ratio, name = min(_TRANSFORMERS, key=lambda each: abs(each[0] / max(size, 1 / size) - 1))
    primary, secondary = ("the register", "power") if size > 1 else ("power", "the register")
    text = f"a current transformer of {name} is in {primary} and not in {secondary}: ratio {size:.4g}"
    yield ratio if size > 1 else 1 / ratio, Cause.CT_RATIO, text


def _scale_text(factor: float) -> str:
    """Return what a power of ten says."""
    times = f"{factor:,.0f} times" if factor > 1 else f"1/{1 / factor:,.0f} of"
    unit = ", as kW for W or kWh for Wh is" if factor in {1e3, 1e-3} else ""
    return (
        f"the register counts {times} what the power says{unit}: multiply the scale of energy by {1 / factor:g}, or "
        f"that of power by {factor:g}; the meter's display tells which"
    )
