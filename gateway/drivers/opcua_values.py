"""From what an OPC UA server says to what stands in a row: values, qualities, status texts and times. Pure."""

from __future__ import annotations

import base64
import decimal
import math
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from asyncua.ua import Int16, NodeId, NodeIdType
from asyncua.ua.status_codes import get_name_and_doc

from gateway.drivers.opcua_binary import ARRAY, BOOLEAN, LOCALIZED, NULL, STRING, Cut
from gateway.errors import ConfigError
from gateway.model import Kind, Quality, Value

# The numbers of the built-in types are their places here: Part 6, 5.1.2.
_TYPES: Final = """Null Boolean SByte Byte Int16 UInt16 Int32 UInt32 Int64 UInt64 Float Double String DateTime Guid
ByteString XmlElement NodeId ExpandedNodeId StatusCode QualifiedName LocalizedText ExtensionObject DataValue Variant
DiagnosticInfo""".split()  # noqa: SIM905 - a list of 26 lines says no more
_INTEGERS: Final = range(2, 10)
_NUMBERS: Final = range(2, 12)
_RANGES: Final = {"i64": (-(2**63), 2**63 - 1), "u64": (0, 2**64 - 1)}
_EPOCH: Final = 116_444_736_000_000_000  # 1970 in 100 ns since 1601
_MOST_SCALE: Final = Decimal(10) ** 30
_EXACT: Final = decimal.Context(prec=4000, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])
_MOST_DIGITS: Final = 400  # docs/log.md, "interval"
_KINDS: Final = {"i": NodeIdType.Numeric, "s": NodeIdType.String, "g": NodeIdType.Guid, "b": NodeIdType.ByteString}

Convert = Callable[[int, Any], Value]
"""From a Variant's kind and value to what stands in a column; raises ValueError where it does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcuaPoint:
    """One node whose value is read.

    node: `nsu=<namespace URI>;s=<identifier>`, or i=, g=, b=; without a URI it is of OPC UA's own namespace.
    scale, offset: value = raw * scale + offset, exact. sampling_s: how often the server looks; None as the device's.
    absolute: the server's deadband, in `unit`. percent: of the node's EURange. Not both.
    """

    name: str
    node: str
    store: str = "f64"
    unit: str = ""
    kind: Kind = Kind.GAUGE
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    sampling_s: float | None = None
    absolute: float | None = None
    percent: float | None = None


class Told(NamedTuple):
    """A value as it stands in a row or a change."""

    value: Value | None
    quality: Quality
    status: str


class Node:
    """A point made ready: its node, and how its values are converted. Raises ConfigError where it makes no sense."""

    def __init__(self, point: OpcuaPoint) -> None:
        self.point = point
        self.uri, self._form, self._identifier = _parsed(point)
        self.convert = _converter(point)

    def node_id(self, index: int) -> NodeId:
        """Return the node's identifier, with the number that its namespace has in this session."""
        return NodeId(self._identifier, Int16(index), self._form)

    def tell(self, cut: Cut) -> Told:
        """Return what a DataValue says; a value that does not fit is BAD, never a wrong number."""
        code = cut[2]
        if code >= 0x80000000:
            return Told(None, Quality.BAD, f"{self.point.name}: {status_text(code)}")
        try:
            value = self.convert(cut[0], cut[1])
        except (ValueError, OverflowError) as e:
            return Told(None, Quality.BAD, f"{self.point.name}: {e}")
        if not code:
            return Told(value, Quality.GOOD, "")
        quality = Quality.UNCERTAIN if code >= 0x40000000 else Quality.GOOD
        return Told(value, quality, f"{self.point.name}: {status_text(code)}")

    def exact(self, cut: Cut) -> Decimal:
        """Return a number's value without any rounding. Raises ValueError where it is none."""
        _plain(cut.kind, cut.value)
        raw = Decimal(cut.value)  # type: ignore[arg-type]  # a number, or it had raised
        value = _EXACT.add(_EXACT.multiply(raw, self.point.scale), self.point.offset)
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and exponent > 0:
            value = value.quantize(Decimal(1), context=_EXACT)
        if len(format(value, "f")) > _MOST_DIGITS:
            raise ValueError(f"is {raw:.6e}, which has too many digits for a counter")
        return value


def status_text(code: int) -> str:
    """Return a status code's name and number: `BadNodeIdUnknown (0x80340000)`."""
    name, _ = get_name_and_doc(code & 0xFFFF0000)
    return f"{name if name.isidentifier() and not name.startswith('Unknown') else 'status'} (0x{code:08X})"


def printable(text: str, most: int = 200) -> str:
    """Return a foreign text as it may stand in a log."""
    return "".join(c for c in text[:most] if c.isprintable())


def time_ns(cut: Cut, arrived_ns: int) -> int:
    """Return since when a value stands: its source's word, else the server's, else when it arrived."""
    ticks = cut[3] if cut[3] > _EPOCH else cut[4]
    t_ns = (ticks - _EPOCH) * 100
    return t_ns if 0 < t_ns < 2**63 else arrived_ns


def _parsed(point: OpcuaPoint) -> tuple[str | None, NodeIdType, Any]:
    text, uri = point.node, None
    if text.startswith("nsu="):
        uri, _, text = text.removeprefix("nsu=").partition(";")
    form, _, body = text.partition("=")
    try:
        return uri, _KINDS[form], _identifier(form, body)
    except (ValueError, KeyError):
        raise ConfigError(
            f"points.{point.name}.node: got {point.node!r}, want nsu=<namespace URI>; with s=<text>, i=<number>, "
            "g=<GUID> or b=<base64>"
        ) from None


def _identifier(form: str, text: str) -> int | str | bytes | uuid.UUID:
    if form == "i":
        if not text.isdecimal() or int(text) >= 2**32:
            raise ValueError(text)
        return int(text)
    if form == "g":
        return uuid.UUID(text)
    return base64.b64decode(text, validate=True) if form == "b" else text


def _converter(point: OpcuaPoint) -> Convert:
    """Return how the values of a point become those of its column."""
    plain = point.scale == 1 and point.offset == 0
    if point.absolute is not None and point.percent is not None:
        raise ConfigError(f"points.{point.name}: got both absolute and percent, want one of them")
    if point.store == "bool" or point.store[0] == "s":
        if not plain:
            raise ConfigError(f"points.{point.name}.scale: got one with store {point.store}, want a number's store")
        return _boolean if point.store == "bool" else _text(int(point.store[1:]))
    if not 1 / _MOST_SCALE <= abs(point.scale) <= _MOST_SCALE or abs(point.offset) > _MOST_SCALE:
        raise ConfigError(f"points.{point.name}: got scale {point.scale}, offset {point.offset}, want 1e-30..1e30")
    scale, offset = Fraction(point.scale), Fraction(point.offset)
    d = math.lcm(scale.denominator, offset.denominator)
    a, b = int(scale * d), int(offset * d)
    if point.store in _RANGES:
        return _integer(point.store, a, b, d)
    number = _plain if plain else _scaled(a, b, d)
    return number if point.store == "f64" else _single(number)


def _misfit(kind: int, wanted: str) -> str:
    if kind == NULL:
        return "holds no value"
    name = _TYPES[kind & 0x3F] if kind & 0x3F < len(_TYPES) else f"type {kind & 0x3F}"
    return f"holds {'an array of ' if kind & ARRAY else ''}{name}, want {wanted}"


def _plain(kind: int, raw: Any) -> Value:
    if kind not in _NUMBERS:
        raise ValueError(_misfit(kind, "a number"))
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(f"is {value}")
    return value


def _scaled(a: int, b: int, d: int) -> Convert:
    """Return value = (raw * a + b) / d, rounded once."""

    def convert(kind: int, raw: Any) -> Value:
        if kind in _INTEGERS:
            return float((raw * a + b) / d)
        value = float(_plain(kind, raw))
        return float((Fraction(value) * a + b) / d)

    return convert


def _single(number: Convert) -> Convert:
    def convert(kind: int, raw: Any) -> Value:
        return struct.unpack("<f", struct.pack("<f", number(kind, raw)))[0]  # type: ignore[no-any-return]

    return convert


def _integer(store: str, a: int, b: int, d: int) -> Convert:
    low, high = _RANGES[store]

    def convert(kind: int, raw: Any) -> Value:
        if kind not in _INTEGERS:
            raise ValueError(_misfit(kind, f"an integer for {store}"))
        value, rest = divmod(raw * a + b, d)
        if rest:
            raise ValueError(f"is {raw}, which is no whole number once scaled, want store f64")
        if not low <= value <= high:
            raise ValueError(f"is {value}, which does not fit {store}")
        return int(value)

    return convert


def _boolean(kind: int, raw: Any) -> Value:
    if kind != BOOLEAN:
        raise ValueError(_misfit(kind, "a Boolean"))
    return bool(raw)


def _text(most: int) -> Convert:
    def convert(kind: int, raw: Any) -> Value:
        if kind not in {STRING, LOCALIZED}:
            raise ValueError(_misfit(kind, "a String"))
        if raw is None:
            raise ValueError("holds no text")
        if isinstance(raw, bytes) or "\0" in raw:
            raise ValueError("holds a text with bytes that are none")
        size = len(raw.encode())
        if size > most:
            raise ValueError(f"holds a text of {size} bytes, want {most} at most")
        return str(raw)

    return convert
