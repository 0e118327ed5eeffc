"""What stands behind a column: by how much a register moves at once, and which column is a device's power. Pure."""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gateway.model import Schema

WATTS: Final = {"W": 1.0, "kW": 1e3, "MW": 1e6}
_TOTALS: Final = ("active_power", "total_active_power", "power", "total_power")


class Holds(enum.StrEnum):
    """What a device keeps a value in; ANY where that is not known."""

    F32 = "f32"
    F64 = "f64"
    WHOLE = "whole"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """What is known of a column beside its schema.

    may_stand: it is no finding when it never moves.
    outward: a counter of what flows out; a power that is positive when it flows out.
    """

    may_stand: bool = False
    counter: bool = False
    holds: Holds = Holds.ANY
    scale: float = 1.0
    outward: bool = False


def power_of(schema: Schema) -> int | None:
    """Return which column is the power of the whole device: one with a usual name, else the only one; None for none."""
    powers = {column.name: i for i, column in enumerate(schema.columns) if column.unit in WATTS}
    named = [powers[name] for name in _TOTALS if name in powers]
    return named[0] if named else next(iter(powers.values())) if len(powers) == 1 else None


def step_of(value: float, register: Register, smallest: float | None) -> float:
    """Return by how much a counter moves at once, at least; an estimate that is rather too large than too small.

    smallest: the smallest movement seen, None for none.
    """
    scale = abs(register.scale)
    if register.holds is Holds.WHOLE:
        return max(scale, smallest or 0.0)
    raw = value / scale
    if register.holds is Holds.F32 or (register.holds is Holds.ANY and _as_f32(raw) == raw):
        step = _ulp32(raw) * scale
    else:
        step = math.ulp(raw) * scale
    return max(step, _last_place(value) if smallest is None else smallest)


def _as_f32(value: float) -> float:
    try:
        found: float = struct.unpack(">f", struct.pack(">f", value))[0]
    except OverflowError:
        return math.inf
    return found


def _ulp32(value: float) -> float:
    """Return the step of a float32 at a value. Source: IEEE 754, binary32: 24 bits of precision."""
    return math.ldexp(1.0, max(math.frexp(value)[1] - 24, -149) if value else -149)


def _last_place(value: float) -> float:
    """Return the last decimal place of a value as a meter would show it: 0.01 of 12.34; 1 of a whole number."""
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    text = next((text for text in texts if _as_f32(float(text)) == _as_f32(value)), repr(value))
    exponent = Decimal(text).normalize().as_tuple().exponent
    return 10.0 ** min(int(exponent), 0)
