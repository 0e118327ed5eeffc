"""One value in registers: bytes to a number, an exact decimal, and back. Pure.

A register is big-endian (Modbus Application Protocol V1.1b3, 4.2); for a value of several registers the makers
disagree, so a point says its order. A STRING has no word order: BADC and DCBA only swap the two characters
of each of its registers.
"""

from __future__ import annotations

import decimal
import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Final

from gateway.codec.planner import width
from gateway.errors import ConfigError
from gateway.model import Order, Point, Value, WireType

# SunSpec Device Information Model Specification V1.1, "sunssf": -10 to 10.
MAX_EXPONENT: Final = 10
SWAPPED: Final = frozenset({Order.BADC, Order.CDAB})
LITTLE: Final = frozenset({Order.CDAB, Order.DCBA})
FLOATS: Final = frozenset({WireType.F32, WireType.F64})

_CODES: Final = {
    WireType.U16: "H",
    WireType.S16: "h",
    WireType.U32: "I",
    WireType.S32: "i",
    WireType.U64: "Q",
    WireType.S64: "q",
    WireType.F32: "f",
    WireType.F64: "d",
    WireType.BIT: "H",
}
# Beyond these a scale is a slip of the pen, and an overflow would have to be looked for in each reading.
_MOST: Final = 10**30
# Digits enough for any float64 with any scale: nothing is ever rounded, and if it were, it would raise.
_EXACT: Final = decimal.Context(prec=4000, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


def code_of(point: Point) -> str:
    """Return the struct code of a point's registers."""
    return f"{2 * width(point)}s" if point.type is WireType.STRING else _CODES[point.type]


def swap_bytes(raw: bytes) -> bytes:
    """Return registers with the two bytes of each swapped."""
    swapped = bytearray(len(raw))
    swapped[0::2] = raw[1::2]
    swapped[1::2] = raw[0::2]
    return bytes(swapped)


def swaps(point: Point) -> bool:
    """Return whether a point is read from swapped bytes."""
    return point.order in ({Order.BADC, Order.DCBA} if point.type is WireType.STRING else SWAPPED)


def ratio(point: Point) -> tuple[int, int, int]:
    """Return integers a, b, d such that raw * scale + offset == (raw * a + b) / d.

    Integers, because Python's own division then rounds once and rightly: 3 * 0.1 would give 0.30000000000000004.
    Raises ConfigError for a scale or offset that is no use.
    """
    scale, offset = Fraction(point.scale), Fraction(point.offset)
    sizes = (abs(scale.numerator), scale.denominator, abs(offset.numerator), offset.denominator)
    if scale == 0 or max(sizes) > _MOST:
        raise ConfigError(f"point {point.name}: got scale {point.scale}, offset {point.offset}, want 1e-30..1e30")
    d = math.lcm(scale.denominator, offset.denominator)
    return int(scale * d), int(offset * d), d


def store_of(point: Point) -> str:
    """Return how a point's value stands in a row: see `Column.store`.

    Integers stay integers where the scale and the offset are whole and every result fits; else they are f64.
    """
    if point.type is WireType.BIT:
        return "bool"
    if point.type is WireType.STRING:
        return f"s{2 * width(point)}"
    a, b, d = ratio(point)
    if point.type is WireType.F32 and (a, b, d) == (1, 0, 1) and point.scale_point is None:
        return "f32"
    if point.type in FLOATS or d != 1 or point.scale_point is not None:
        return "f64"
    bits = 16 * width(point)
    low, high = (0, 2**bits - 1) if _CODES[point.type].isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    ends = (low * a + b, high * a + b)
    if min(ends) >= 0 and max(ends) < 2**64:
        return "u64"
    return "i64" if min(ends) >= -(2**63) and max(ends) < 2**63 else "f64"


def raw_of(point: Point, raw: bytes) -> int | float:
    """Return the unscaled number in a point's registers.

    raw: in bus order; its length must match. Raises ValueError if it does not, or for a BIT or STRING.
    """
    if point.type in {WireType.BIT, WireType.STRING} or len(raw) != 2 * width(point):
        raise ValueError(f"point {point.name}: got {len(raw)} bytes for {point.type}")
    number: int | float
    order = "<" if point.order in LITTLE else ">"
    (number,) = struct.unpack(order + code_of(point), swap_bytes(raw) if swaps(point) else raw)
    return number


def exact(point: Point, raw: bytes, scale_raw: int | None = None) -> Decimal | None:
    """Return the value of a number's registers without any rounding; None where they hold none.

    scale_raw: the raw value of the point's scale_point; None where it has none or that one is BAD.
    """
    number = raw_of(point, raw)
    if number in point.sentinels or not math.isfinite(number):
        return None
    if point.scale_point is not None and (scale_raw is None or abs(scale_raw) > MAX_EXPONENT):
        return None
    value = _EXACT.add(_EXACT.multiply(Decimal(number), point.scale), point.offset)
    if point.scale_point is not None and scale_raw is not None:
        value = _EXACT.multiply(value, _EXACT.power(Decimal(10), scale_raw))
    exponent = value.as_tuple().exponent
    # Plain digits, so that its text is plain too: 12300, never 1.23E+4.
    return value.quantize(Decimal(1), context=_EXACT) if isinstance(exponent, int) and exponent > 0 else value


def encode(point: Point, value: Value, scale_raw: int = 0) -> bytes:
    """Return the registers (or the byte of a coil) that hold a value, in bus order: for simulators and tests.

    A BIT in a register leaves the other bits 0. Raises ValueError where the value does not fit.
    """
    try:
        raw = _pack(point, value, scale_raw)
    except (struct.error, OverflowError) as e:
        raise ValueError(f"point {point.name}: {value!r} does not fit {point.type}") from e
    return swap_bytes(raw) if swaps(point) and len(raw) > 1 else raw


def _pack(point: Point, value: Value, scale_raw: int) -> bytes:
    """Return the registers of a value before any swapping."""
    order = "<" if point.order in LITTLE else ">"
    if point.type is WireType.BIT:
        return bytes([bool(value)]) if point.bit is None else struct.pack(order + "H", bool(value) << point.bit)
    if point.type is WireType.STRING:
        text = str(value).encode()
        if len(text) > 2 * width(point):
            raise OverflowError(len(text))
        return text.ljust(2 * width(point), b"\0")
    number = float(value) if isinstance(value, str) else value
    if not math.isfinite(number):
        return struct.pack(order + code_of(point), number)
    raw = (Fraction(number) / Fraction(10) ** scale_raw - Fraction(point.offset)) / Fraction(point.scale)
    return struct.pack(order + code_of(point), float(raw) if point.type in FLOATS else round(raw))
