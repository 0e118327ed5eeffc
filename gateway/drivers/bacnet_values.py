"""What a property says: a value in the point's unit, its quality, and the device's own words. Pure."""

from __future__ import annotations

import decimal
import math
import struct
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from bacpypes3.basetypes import EngineeringUnits, ErrorCode, Reliability
from bacpypes3.primitivedata import ObjectType, PropertyIdentifier

from gateway.codec import bacnet_apdu as apdu
from gateway.codec import bacnet_tags as tags
from gateway.codec.bacnet_apdu import Refusal
from gateway.codec.bacnet_tags import Plain
from gateway.codec.units import BACNET_UNITS, convert
from gateway.errors import ConfigError
from gateway.model import Kind, Quality, Value

PRESENT_VALUE: Final = 85
STATUS_FLAGS: Final = 111
RELIABILITY: Final = 103
UNITS: Final = 117
UNKNOWN_OBJECT: Final = 31
UNKNOWN_PROPERTY: Final = 32

_NO_UNITS: Final = 95
_FLAGS: Final = ((0x80, "in-alarm"), (0x40, "fault"), (0x20, "overridden"), (0x10, "out-of-service"))
_FAULT, _DOUBTFUL = 0x40, 0x30
_CLEAR: Final = Plain(tags.BITS, b"\x04\x00")
_CHARSETS: Final = {0: "utf-8", 3: "utf-32-be", 4: "utf-16-be", 5: "latin-1"}  # ASHRAE 135-2020, 20.2.9
_REAL, _DOUBLE = struct.Struct(">f"), struct.Struct(">d")
_MOST_F32: Final = _REAL.unpack(b"\x7f\x7f\xff\xff")[0]
_MOST: Final = 10**30
# Digits enough for any double; what has more decimals than this (a conversion by 1/3) is cut there, far below any step
# of a register.
_EXACT: Final = decimal.Context(prec=4000)
_FINEST: Final = Decimal("1e-18")
_MOST_DIGITS: Final = 55


@dataclass(frozen=True, slots=True, kw_only=True)
class BacnetPoint:
    """One property of one object, and how it stands in a row.

    object_id: type << 22 | instance. unit: ours; the object's own is converted to it; "" for the object's own.
    scale, offset: value = (raw in our unit) * scale + offset. cov_increment: ours, where the device takes one.
    """

    name: str
    object_id: int
    property_id: int = PRESENT_VALUE
    unit: str = ""
    store: str = "f32"
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    kind: Kind = Kind.GAUGE
    cov_increment: float | None = None

    @property
    def has_units(self) -> bool:
        """Whether the object's own unit matters."""
        return self.property_id == PRESENT_VALUE and self.store[0] not in "bs" and self.unit != ""


class Reading(NamedTuple):
    """What one point holds. raw: the value's bytes as they came, big-endian; empty when the quality is BAD."""

    value: Value | None
    quality: Quality
    status: str = ""
    raw: bytes = b""
    exact: Decimal | None = None


def bad(status: str) -> Reading:
    """Return a reading without a value."""
    return Reading(None, Quality.BAD, status)


def named(names: Any, number: int) -> str:
    """Return a number's name in an enumeration of the library, or the number."""
    try:
        return str(names(number))
    except ValueError:
        return str(number)


def object_id_of(text: str) -> int:
    """Return the identifier of an object such as analog-input,3. Raises ConfigError."""
    kind, _, instance = text.partition(",")
    try:
        number, place = int(ObjectType(kind)), int(instance)
    except ValueError as e:
        raise ConfigError(f"object: got {text!r}, want an object such as analog-input,3") from e
    if not 0 <= place < apdu.MOST_INSTANCE:
        raise ConfigError(f"object: got {text!r}, want an instance below {apdu.MOST_INSTANCE}")
    return apdu.object_id(number, place)


def property_id_of(text: str) -> int:
    """Return the number of a property such as present-value. Raises ConfigError."""
    try:
        return int(PropertyIdentifier(text))
    except ValueError as e:
        raise ConfigError(f"property: got {text!r}, want a property such as present-value") from e


class Maths(NamedTuple):
    """value = (raw * a + b) / d, in integers: Python's own division then rounds once and rightly."""

    a: int = 1
    b: int = 0
    d: int = 1


def maths_of(point: BacnetPoint, factor: tuple[Fraction, Fraction] = (Fraction(1), Fraction(0))) -> Maths:
    """Return how a raw number becomes the point's value. factor: from the object's unit. Raises ConfigError."""
    a = factor[0] * Fraction(point.scale)
    b = factor[1] * Fraction(point.scale) + Fraction(point.offset)
    d = math.lcm(a.denominator, b.denominator)
    if a == 0 or max(abs(int(a * d)), abs(int(b * d)), d) > _MOST:
        raise ConfigError(f"point {point.name}: got scale {point.scale}, offset {point.offset}, want 1e-30..1e30")
    return Maths(int(a * d), int(b * d), d)


def units_of(point: BacnetPoint, said: Plain | Refusal) -> Maths | str:
    """Return how to convert to the point's unit, or why that is impossible.

    said: the object's unit, or that it has none: then, and for `no-units`, the template is taken at its word.
    """
    number = int.from_bytes(said.content, "big") if isinstance(said, Plain) else _NO_UNITS
    if isinstance(said, Plain) and (said.tag != tags.ENUMERATED or len(said.content) > 4):
        return "units: not an engineering unit"
    if number == _NO_UNITS:
        return maths_of(point)
    ours = BACNET_UNITS.get(number)
    factor = None if ours is None else convert(ours, point.unit)
    if factor is None:
        return f"units: {named(EngineeringUnits, number)} cannot be converted to {point.unit}"
    return maths_of(point, factor)


Said = Plain | Refusal | str
"""What a device said of a property: a value, an error, or why it said nothing at all."""


def words_of(said: Refusal | str) -> str:
    """Return why there is no value."""
    return said if isinstance(said, str) else named(ErrorCode, said.code)


def reading(point: BacnetPoint, maths: Maths, said: Said, flags: Said | None, reliability: Plain | None) -> Reading:
    """Return what a point holds. flags, reliability: None where the object has none, or they were not told."""
    if not isinstance(said, Plain):
        return bad(words_of(said))
    if reliability is None and flags == _CLEAR:  # nearly always
        quality, status = Quality.GOOD, ""
    else:
        quality, status = judge(flags, reliability)
    if quality is Quality.BAD:
        return bad(status)
    try:
        raw = _raw(said)
        value = _stored(point.store, raw, maths)
    except ValueError as e:
        return bad(f"{e}; {status}" if status else str(e))
    exact = _decimal(raw, maths) if point.kind is Kind.COUNTER and not isinstance(raw, str) else None
    return Reading(value, quality, status, said.content, exact)


def judge(flags: Said | None, reliability: Plain | None) -> tuple[Quality, str]:
    """Return what statusFlags and reliability make of a value.

    A fault, or any reliability but no-fault-detected, is BAD; out of service or overridden is UNCERTAIN, and so is
    what does not say its flags though it has them.
    """
    words: list[str] = []
    bits = 0
    doubtful = False
    if isinstance(flags, Plain) and flags.tag == tags.BITS and len(flags.content) == 2:
        bits = flags.content[1]
        if bits & 0xF0:
            words += [word for bit, word in _FLAGS if bits & bit]
    elif flags is not None:
        doubtful = True
        words.append(f"status-flags: {'malformed' if isinstance(flags, Plain) else words_of(flags)}")
    unreliable = reliability is not None and any(reliability.content)
    if unreliable and reliability is not None:
        words.append(named(Reliability, int.from_bytes(reliability.content[-4:], "big")))
    if unreliable or bits & _FAULT:
        return Quality.BAD, ", ".join(words)
    if doubtful or bits & _DOUBTFUL:
        return Quality.UNCERTAIN, ", ".join(words)
    return Quality.GOOD, ""


def _raw(said: Plain) -> float | str:
    """Return a plain value. Raises ValueError, with what it is, for one that is no number, truth or text."""
    tag, content = said
    size = len(content)
    if (tag == tags.REAL and size == 4) or (tag == tags.DOUBLE and size == 8):
        number: float = (_REAL if size == 4 else _DOUBLE).unpack(content)[0]
        return number
    if tag in {tags.UNSIGNED, tags.SIGNED, tags.ENUMERATED} and 1 <= size <= 8:
        return int.from_bytes(content, "big", signed=tag == tags.SIGNED)
    if tag == tags.BOOLEAN:
        return content != b"\0"
    if tag == tags.TEXT and size >= 1 and content[0] in _CHARSETS:
        return content[1:].decode(_CHARSETS[content[0]])  # its error is a ValueError
    raise ValueError("null" if tag == tags.NULL else f"a value of type {tag} and {size} bytes")


def _stored(store: str, raw: float | str, maths: Maths) -> Value:
    """Return the value as its column stores it. Raises ValueError where it cannot."""
    if store[0] == "s":
        if not isinstance(raw, str) or len(raw.encode()) > int(store[1:]):
            raise ValueError(f"want text of at most {store[1:]} bytes")
        return raw
    if isinstance(raw, str):
        raise ValueError("text, want a number")  # noqa: TRY004 - a device's fault, not a programmer's
    if store == "bool":
        if raw not in {0, 1}:
            raise ValueError(f"got {raw}, want 0 or 1")
        return bool(raw)
    if not math.isfinite(raw):
        raise ValueError("not a number")
    if store[0] == "f":
        value = float(raw) if maths == (1, 0, 1) else _divided(raw, maths)
        if store == "f32" and abs(value) > _MOST_F32:
            raise ValueError("too large for f32")
        return value
    exact = _fraction(raw, maths)
    low, high = (0, 2**64) if store == "u64" else (-(2**63), 2**63)
    if exact.denominator != 1 or not low <= exact < high:
        raise ValueError(f"got {raw:g}, want a whole number that fits {store}")
    return int(exact)


def _divided(raw: float, maths: Maths) -> float:
    numerator, denominator = raw.as_integer_ratio()
    try:
        return (numerator * maths.a + maths.b * denominator) / (denominator * maths.d)
    except OverflowError:
        raise ValueError("too large") from None


def _fraction(raw: float, maths: Maths) -> Fraction:
    return (Fraction(raw) * maths.a + maths.b) / maths.d


def _decimal(raw: float, maths: Maths) -> Decimal:
    """Return the exact value; one that has no end, or hardly one, is rounded at the 18th decimal."""
    exact = _fraction(raw, maths)
    number = _EXACT.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    if len(number.as_tuple().digits) > _MOST_DIGITS:
        return number.quantize(_FINEST, rounding=decimal.ROUND_HALF_EVEN, context=_EXACT)
    exponent = number.as_tuple().exponent
    return number.quantize(Decimal(1), context=_EXACT) if isinstance(exponent, int) and exponent > 0 else number
