"""What is wrong, or doubtful, in single points of a Modbus device template. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from gateway.codec.planner import is_bits
from gateway.config.templates import ModbusPointSection, ModbusTemplate
from gateway.model import Kind, WireType

UNSIGNED: Final = frozenset({WireType.U16, WireType.U32, WireType.U64})
SIGNED: Final = frozenset({WireType.S16, WireType.S32, WireType.S64})
FLOATS: Final = frozenset({WireType.F32, WireType.F64})
NO_NUMBERS: Final = frozenset({WireType.BIT, WireType.STRING})
_WIDTHS: Final = MappingProxyType(
    {WireType.U32: 2, WireType.S32: 2, WireType.F32: 2, WireType.U64: 4, WireType.S64: 4, WireType.F64: 4}
)
ENERGY: Final = frozenset({"Wh", "kWh", "MWh", "GWh", "varh", "kvarh", "Mvarh", "VAh", "kVAh", "MVAh"})
POWER: Final = frozenset({"W", "kW", "MW", "var", "kvar", "Mvar", "VA", "kVA", "MVA"})
SPELT: Final = MappingProxyType({unit.lower(): unit for unit in (*ENERGY, *POWER) if unit[0] != "M"})


class Level(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    DOUBT = "doubt"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Problem:
    """What a rule has against a point, with the key that it is about."""

    level: Level
    rule: str
    text: str


def registers_of(entry: ModbusPointSection) -> int:
    """Return how many registers (or bits) a point takes."""
    return (entry.registers or 1) if entry.type == WireType.STRING else _WIDTHS.get(entry.type, 1)


def fits(number: int, kind: WireType) -> bool:
    """Return whether a whole number's type can hold a raw number."""
    bits = 16 * _WIDTHS.get(kind, 1)
    low, high = (0, 2**bits) if kind in UNSIGNED else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return bool(low <= number < high)


def _unit(name: str, entry: ModbusPointSection, template: ModbusTemplate) -> Iterator[Problem]:
    counter = entry.kind == Kind.COUNTER
    right = SPELT.get(entry.unit.lower())
    if right is not None and entry.unit not in ENERGY | POWER:
        yield Problem(Level.DOUBT, "unit", f"unit: got {entry.unit!r}, want {right!r}, or figures will not know it")
    if counter and entry.unit in POWER:
        yield Problem(Level.ERROR, "unit", f'kind: got "counter" in {entry.unit}, want "gauge": power is no count')
    if not counter and entry.unit in ENERGY:
        yield Problem(Level.DOUBT, "unit", f'kind: got "gauge" in {entry.unit}, want "counter", or it is never sealed')
    if counter and right is None and re.search(r"energy|kwh", name):
        yield Problem(Level.DOUBT, "unit", f"unit: got {entry.unit!r} for an energy, want Wh, kWh or MWh")
    if counter and entry.unit in ENERGY and abs(Decimal(entry.scale)) in {Decimal(1000), Decimal("0.001")}:
        text = f'scale: got "{entry.scale}" with {entry.unit}, which makes one unit of the other: '
        yield Problem(Level.DOUBT, "unit", text + "want the unit that the register holds, and no such scale")
    if counter and entry.unit in ENERGY and entry.counter is None:
        yield Problem(Level.DOUBT, "counter", 'counter: got nothing, want "total", "partial" or "tariff 1"')
    exports = any(other.direction == "export" for other in template.points.values())
    if exports and entry.unit in POWER and entry.direction is not None and entry.type in UNSIGNED:
        yield Problem(Level.DOUBT, "sign", f"type: got {entry.type}, which cannot go below 0 when energy is exported")


def _counter(_: str, entry: ModbusPointSection, __: ModbusTemplate) -> Iterator[Problem]:
    counter = entry.kind == Kind.COUNTER
    if counter and Decimal(entry.scale) < 0:
        yield Problem(Level.ERROR, "sign", f'scale: got "{entry.scale}" for a counter, which would only ever fall')
    if not counter and entry.counter is not None:
        yield Problem(Level.ERROR, "counter", f'counter: got "{entry.counter}" of a gauge, want kind = "counter"')
    modulus = entry.modulus
    if modulus is not None and not counter:
        yield Problem(Level.ERROR, "modulus", f"modulus: got {modulus} of a gauge, want none")
    elif modulus is not None and entry.type in FLOATS:
        yield Problem(Level.ERROR, "modulus", f"modulus: got {modulus} for a float, of whose roll-over nobody can tell")
    elif modulus is not None and entry.type not in NO_NUMBERS and not fits(modulus - 1, entry.type):
        yield Problem(Level.ERROR, "modulus", f"modulus: got {modulus}, want what a {entry.type} can count to")
    if counter and modulus is None and entry.type in {WireType.U16, WireType.S16}:
        yield Problem(Level.DOUBT, "modulus", f"modulus: got none, and a {entry.type} wraps soon: want 65536")
    if counter and entry.type == WireType.F32 and entry.unit in ENERGY:
        text = "type: got f32: its step doubles as it grows, to 64 Wh at 1 GWh"
        yield Problem(Level.NOTE, "resolution", text)


def _sentinels(_: str, entry: ModbusPointSection, __: ModbusTemplate) -> Iterator[Problem]:
    if not entry.sentinels:
        return
    if entry.type == WireType.STRING:
        if set(entry.sentinels) != {0}:
            yield Problem(Level.ERROR, "sentinels", "sentinels: want [0] for a string: all its bytes 0")
    elif entry.type in FLOATS | {WireType.BIT}:
        yield Problem(
            Level.ERROR, "sentinels", f"sentinels: got some for a {entry.type}, want none (NaN always is one)"
        )
    else:
        for number in entry.sentinels:
            if not fits(number, entry.type):
                hint = number - 2 ** (16 * _WIDTHS.get(entry.type, 1))
                want = f"{hint} is the same pattern" if entry.type in SIGNED and fits(hint, entry.type) else "less"
                text = f"sentinels: got {number}, which a {entry.type} never holds ({want})"
                yield Problem(Level.ERROR, "sentinels", text)


def _reading(name: str, entry: ModbusPointSection, template: ModbusTemplate) -> Iterator[Problem]:
    count = registers_of(entry)
    if entry.type == WireType.STRING and count > template.max_registers:
        yield Problem(Level.ERROR, "limits", f"registers: got {count}, want max_registers = {template.max_registers}")
    elif count > template.max_registers and not is_bits(entry.function or template.function):
        yield Problem(Level.ERROR, "limits", f"type: got {entry.type}, want what max_registers has room for")
    if entry.registers is not None and entry.type != WireType.STRING:
        yield Problem(
            Level.DOUBT, "type", f"registers: got {entry.registers} for a {entry.type}, which has its own size"
        )
    if entry.bit is not None and entry.type != WireType.BIT:
        yield Problem(Level.ERROR, "type", f'bit: got {entry.bit} of a {entry.type}, want type = "bit"')
    if entry.scale_point is not None:
        factor = template.points[entry.scale_point]
        if factor.type in FLOATS | NO_NUMBERS or entry.scale_point == name:
            text = f"scale_point: got {entry.scale_point}, a {factor.type}, want another point that is a whole number"
            yield Problem(Level.ERROR, "scale", text)


Rule = Callable[[str, ModbusPointSection, ModbusTemplate], Iterator[Problem]]
POINT_RULES: Final[tuple[Rule, ...]] = (_unit, _counter, _sentinels, _reading)
