"""Points of devices and what is read of them."""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

Value = float | int | bool | str


class Quality(enum.IntEnum):
    """How far a value may be trusted; the three severities of an OPC UA status code."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class WireType(enum.StrEnum):
    """What a register holds. `STRING` is two bytes a register; `BIT` is a coil or one bit."""

    U16 = "u16"
    S16 = "s16"
    U32 = "u32"
    S32 = "s32"
    U64 = "u64"
    S64 = "s64"
    F32 = "f32"
    F64 = "f64"
    BIT = "bit"
    STRING = "string"


class Order(enum.StrEnum):
    """Byte and word order of a value of several registers, A the most significant byte."""

    ABCD = "ABCD"
    CDAB = "CDAB"
    BADC = "BADC"
    DCBA = "DCBA"


class Kind(enum.StrEnum):
    """What a point measures: a `COUNTER` only grows (until it wraps), a `GAUGE` moves freely."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of a device and where in its registers it stands.

    address: zero-based PDU address of the first register (FC 3, 4) or bit (FC 1, 2).
    registers: how many registers a STRING takes; derived from the type for all others.
    bit: bit number 0 (least significant) to 15 of a BIT that stands in a register; else None.
    scale, offset: value = raw * scale + offset, exact.
    scale_point: name of a point of the same device that holds a SunSpec scale factor: the value
        is further multiplied by 10 ** that point's raw value.
    sentinels: raw integers (as read, unscaled, unsigned for u*, signed for s*) that mean "not
        implemented"; a float's NaN always does. 0 of a STRING means that all its bytes are 0.
    modulus: a counter's roll-over, in raw units: 2**32 for a plain u32; None where it never wraps.
    """

    name: str
    function: int
    address: int
    type: WireType
    order: Order = Order.ABCD
    registers: int = 0
    bit: int | None = None
    unit: str = ""
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    scale_point: str | None = None
    sentinels: frozenset[int] = frozenset()
    kind: Kind = Kind.GAUGE
    modulus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a schema.

    store: how the value stands in a row: f32, f64, i64, u64, bool, or s<n> (n bytes, UTF-8,
        zero padded). All numbers are big-endian.
    """

    name: str
    unit: str
    store: str


_CODES = {"f32": "f", "f64": "d", "i64": "q", "u64": "Q", "bool": "?"}


def _code_of(store: str) -> str:
    if store in _CODES:
        return _CODES[store]
    if store[:1] == "s" and store[1:].isascii() and store[1:].isdecimal() and 0 < int(store[1:]) <= 250:
        return f"{int(store[1:])}s"
    raise ValueError(f"store: got {store!r}, want one of {', '.join(_CODES)} or s<1..250>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns of one device's rows. Its identifier is a hash of all that it says."""

    device: str
    columns: tuple[Column, ...]
    id: bytes = field(init=False)
    layout: struct.Struct = field(init=False, repr=False, compare=False)
    cells: tuple[struct.Struct, ...] = field(init=False, repr=False, compare=False)
    has_text: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive the 8-byte identifier (see docs/log.md, "schema"), the layout of a row, and of each column alone.

        Raises ValueError for a store that does not exist.
        """
        text = "\n".join([self.device, *(f"{c.name}\t{c.unit}\t{c.store}" for c in self.columns)])
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).digest()[:8])
        codes = [_code_of(column.store) for column in self.columns]
        object.__setattr__(self, "layout", struct.Struct(">" + "".join(codes)))
        object.__setattr__(self, "cells", tuple(struct.Struct(">" + code) for code in codes))
        object.__setattr__(self, "has_text", any(c.store[0] == "s" for c in self.columns))

    def __hash__(self) -> int:
        return hash(self.id)


class Row(NamedTuple):
    """One reading of all columns of a schema, at one instant. A tuple, since one is made for each poll.

    source_time_ns: when the device's last reply of this row arrived, UTC; never when we passed
        it on.
    values: one a column, in the column's unit; None exactly where the quality is BAD.
    qualities: one a column, or None when all are GOOD.
    status: the raw status in the protocol's own words where something was not good, else "".
    """

    schema: Schema
    source_time_ns: int
    values: tuple[Value | None, ...]
    qualities: tuple[Quality, ...] | None = None
    status: str = ""


class Change(NamedTuple):
    """A new value, or a new quality, of one column of a schema: told by the device, or found by comparing.

    column: its place in the schema. source_time_ns: since when, in the device's own words, or when its reply arrived.
    value: None exactly when the quality is BAD. status: as a row's.
    low, high: the extremes of the GOOD values of this column that were not told since its last change; None for none.
    """

    schema: Schema
    column: int
    source_time_ns: int
    value: Value | None
    quality: Quality = Quality.GOOD
    status: str = ""
    low: Value | None = None
    high: Value | None = None


class ClockState(enum.IntEnum):
    """What the sealer knew of its clock."""

    SYNCHRONISED = 0
    UNSYNCHRONISED = 1
    SUSPECT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The sealer's time and what it knew of it.

    t_ns: UTC nanoseconds. offset_ns: the estimated error.
    """

    t_ns: int
    state: ClockState
    offset_ns: int
