"""Exact numbers and their text: nothing is rounded in silence, and one number has one text.

Two places round, both HALF_EVEN and both named here: `whole` (a register to whole mWh, before any difference is
taken) and `ratio` (a figure at output). Everything else runs in EXACT, which raises where a digit would be lost.
"""

import decimal
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import reduce

EXACT = decimal.Context(
    prec=2_000,  # a leaf's decimal has at most 400 digits; a product of three fits with room to spare
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[
        decimal.Inexact,
        decimal.InvalidOperation,
        decimal.DivisionByZero,
        decimal.Overflow,
        decimal.Underflow,
        decimal.FloatOperation,
    ],
)

OUTPUT_PLACES = 6
"""Decimal places of a figure at output, as of kg CO2e per unit."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC; aware, it would write its offset


def whole(value: Decimal) -> int:
    """Return the nearest whole number, a tie to the even one."""
    return int(value.to_integral_value(rounding=decimal.ROUND_HALF_EVEN, context=EXACT))


def scaled(value: Decimal, places: int) -> int:
    """Return value * 10 ** places as the nearest whole number, a tie to the even one."""
    # One text and one int cost half of what three Decimals do. Where digits are left over, or an exponent
    # stands in the text, no int comes of it, and the long way is taken.
    digits, _, part = str(value).partition(".")
    if len(part) <= places:
        try:
            return int(digits + part.ljust(places, "0"))
        except ValueError:
            pass
    return whole(shifted(value, places))


def times(value: Decimal, factor: Decimal | int) -> Decimal:
    """Return the exact product."""
    return EXACT.multiply(value, Decimal(factor))


def shifted(value: Decimal | int, places: int) -> Decimal:
    """Return value * 10 ** places, exact."""
    return EXACT.scaleb(Decimal(value), places)


def total(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum; 0 of nothing."""
    return reduce(EXACT.add, values, Decimal(0))


def ratio(numerator: Decimal | int, denominator: Decimal | int, places: int = OUTPUT_PLACES) -> Decimal:
    """Return the quotient with so many decimal places, a tie to the even digit: the one rounding of figures.

    Rounded once, from the exact quotient. Raises ZeroDivisionError.
    """
    scaled = Fraction(numerator) / Fraction(denominator) * 10**places
    return EXACT.scaleb(Decimal(round(scaled)), -places)


def text(value: Decimal) -> str:
    """Return the one decimal string of a number: no exponent, no needless zero, no negative zero."""
    digits = str(value)
    if "E" in digits:
        digits = format(value, "f")
    if "." in digits:
        digits = digits.rstrip("0").removesuffix(".")
    return "0" if digits == "-0" else digits


def utc(t_ns: int) -> str:
    """Return UTC nanoseconds, as a leaf may hold them, as ISO 8601 with Z; a fraction only where there is one."""
    seconds, fraction = divmod(t_ns, 1_000_000_000)
    stands = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    return f"{stands}.{fraction:09d}Z" if fraction else f"{stands}Z"
