"""What readers of foreign register maps have in common: the entries that they find, and words for numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from gateway.config.lint_points import SPELT
from gateway.errors import ConfigError
from gateway.model import ENERGY_UNITS, Kind, Order, Point, WireType

TYPES: Final = MappingProxyType(
    {
        "uint16": WireType.U16,
        "int16": WireType.S16,
        "uint32": WireType.U32,
        "int32": WireType.S32,
        "uint64": WireType.U64,
        "int64": WireType.S64,
        "float32": WireType.F32,
        "float64": WireType.F64,
        "float": WireType.F32,
        "double": WireType.F64,
        "bool": WireType.BIT,
        "bit": WireType.BIT,
        "string": WireType.STRING,
        **{str(kind): kind for kind in WireType},
    }
)
"""What others call a type, in lower case."""

ORDERS: Final = MappingProxyType(
    {
        **{str(order): order for order in Order},
        "AB": Order.ABCD,
        "BA": Order.BADC,
        "ABCDEFGH": Order.ABCD,
        "GHEFCDAB": Order.CDAB,
        "BADCFEHG": Order.BADC,
        "HGFEDCBA": Order.DCBA,
    }
)
"""What others call a byte order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One register of a foreign file.

    line: where it stands. shown: what the file calls it.
    """

    line: int
    point: Point
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One device of a foreign file. tag: what tells it from the file's others. url: "" where the file has none."""

    tag: str
    title: str
    unit_id: int
    url: str = ""
    entries: tuple[Entry, ...]


def named(text: str) -> str:
    """Return a text as a name of ours, as far as it will go; "" for none."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:63]


def unit_of(text: str) -> str:
    """Return a unit as we spell it."""
    return SPELT.get(text.lower(), text)


def kind_of(unit: str) -> Kind:
    """Return what a unit says of a value: energies are counters."""
    return Kind.COUNTER if unit in ENERGY_UNITS else Kind.GAUGE


def whole(text: str, where: str, low: int, high: int) -> int:
    """Return a whole number, decimal or 0x hexadecimal. Raises ConfigError."""
    try:
        number = int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        number = low - 1
    if not low <= number <= high or len(text) > 24:
        raise ConfigError(f"{where}: got {text[:40]!r}, want a whole number, {low}..{high}")
    return number


def decimal(text: str, where: str) -> Decimal:
    """Return a decimal number of no more digits than a template takes. Raises ConfigError."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not re.fullmatch(r"-?[0-9]{1,14}(\.[0-9]{1,14})?", format(number, "f")[:60]):
        raise ConfigError(f"{where}: got {text[:40]!r}, want a decimal number of at most 14 digits each side")
    return number


def type_of(text: str, where: str) -> WireType:
    """Return a type of ours. Raises ConfigError."""
    found = TYPES.get(text.lower())
    if found is None:
        raise ConfigError(f"{where}: got {text[:40]!r}, want one of {', '.join(TYPES)}")
    return found


def order_of(text: str, where: str) -> Order:
    """Return a byte order of ours. Raises ConfigError."""
    found = ORDERS.get(text.upper())
    if found is None:
        raise ConfigError(f"{where}: got {text[:40]!r}, want one of {', '.join(ORDERS)}")
    return found


def unit_text(text: str, where: str) -> str:
    """Return a unit that a schema leaf can hold. Raises ConfigError."""
    if len(text) > 60 or re.search(r"[\x00-\x1f\x7f]", text):
        raise ConfigError(f"{where}: got {text[:40]!r}, want at most 60 characters, none a control character")
    return unit_of(text)


_TABLES: Final = MappingProxyType({"4": 3, "3": 4, "1": 2, "0": 1})


def register_of(text: str, where: str) -> tuple[int, int]:
    """Return the function and the PDU address of a number such as 40001, which is FC 3, address 0. Raises ConfigError.

    Five digits or six: the first one says the table, and the rest counts from 1. Up to four are a coil.
    """
    digits = text.strip()
    if re.fullmatch(r"[0-9]{1,6}", digits):
        table, rest = ("0", digits) if len(digits) < 5 else (digits[0], digits[1:])
        if table in _TABLES and 1 <= int(rest) <= 65_536:
            return _TABLES[table], int(rest) - 1
    raise ConfigError(
        f"{where}: got {digits[:40]!r}, want 40001 and up for a holding register, 30001 an input register, 10001 a "
        "discrete input, 1 a coil (or six digits, 400001): numbers count from 1, so a PDU address 0 is 40001"
    )
