"""How far a figure may be from the truth: the meter's class and the factor's uncertainty, combined.

A class is taken as half the width of the 95 % interval, in percent of the energy: the class index of IEC 62053 (0.5S,
1, 2), or the class of the Measuring Instruments Directive (A 2 %, B 1 %, C 0.5 %). These are the limits at reference
conditions, and say nothing of a current transformer before the meter, which has a class of its own.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import isqrt

from gateway.carbon.exact import shifted

_MID = {"A": Decimal(2), "B": Decimal(1), "C": Decimal("0.5")}
_INDEX = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,2})?)S?")
PLACES = 2


@lru_cache(maxsize=256)
def percent_of_class(meter_class: str) -> Decimal | None:
    """Return what a meter's class allows, in percent; None for one that is not known."""
    said = meter_class.strip().upper().removeprefix("CLASS").removeprefix("CL.").strip()
    if said in _MID:
        return _MID[said]
    match = _INDEX.fullmatch(said)
    return Decimal(match[1]) if match and 0 < Decimal(match[1]) <= 10 else None


@lru_cache(maxsize=4096)
def combined_pct(meter_class: str, factor_pct: Decimal | None) -> Decimal | None:
    """Return sqrt(meter^2 + factor^2) in percent, to two places, HALF_EVEN; None unless both are known."""
    percent = percent_of_class(meter_class)
    if percent is None or factor_pct is None:
        return None
    return root(Fraction(percent) ** 2 + Fraction(factor_pct) ** 2)


def combined_of_parts(parts: Sequence[tuple[str, int]], factor_pct: Decimal | None) -> Decimal | None:
    """Return the same for a sum or difference of meters, their errors independent.

    parts: each meter's class, and its amount in any one unit, negative where it is taken off. None where a class or
    the factor's uncertainty is not known, and where the parts come to nothing.
    """
    if len(parts) == 1:
        return combined_pct(parts[0][0], factor_pct)  # of one meter alone, its share of the sum is all
    energy = sum(amount for _, amount in parts)
    percents = [percent_of_class(meter_class) for meter_class, _ in parts]
    if factor_pct is None or not energy:
        return None
    squares = Fraction(0)
    for percent, (_, amount) in zip(percents, parts, strict=True):
        if percent is None:
            return None
        squares += (Fraction(percent) * amount) ** 2
    return root(squares / energy**2 + Fraction(factor_pct) ** 2)


def root(square: Fraction) -> Decimal:
    """Return the square root to two places, a tie to the even digit: rounded once, from the exact square."""
    scaled = square * 10 ** (2 * PLACES)
    low = isqrt(int(scaled))
    # sqrt(scaled) lies above low + 1/2 exactly where scaled lies above low^2 + low + 1/4.
    half = Fraction(low * low + low) + Fraction(1, 4)
    nearest = low + (scaled > half or (scaled == half and low % 2 == 1))
    return shifted(nearest, -PLACES)
