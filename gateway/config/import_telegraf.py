"""Telegraf's `[[inputs.modbus]]` tables, in all three of its styles. Pure.

Its addresses are PDU addresses, from 0. FLOAT32 of the register style is no float, but a whole number to be scaled; a
float is FLOAT32-IEEE there. In the request and metric styles FLOAT32 is the float.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from gateway.codec.planner import width
from gateway.config.convert import shown
from gateway.config.import_entries import TYPES, Entry, Found, decimal, kind_of, named, order_of
from gateway.errors import ConfigError
from gateway.model import Order, Point, WireType

_REGISTERS: Final = MappingProxyType({"coil": 1, "discrete": 2, "holding": 3, "input": 4})
_LISTS: Final = MappingProxyType({"coils": 1, "discrete_inputs": 2, "holding_registers": 3, "input_registers": 4})
_FIXED: Final = MappingProxyType(
    {
        "FIXED": {1: WireType.S16, 2: WireType.S32, 4: WireType.S64},
        "UFIXED": {1: WireType.U16, 2: WireType.U32, 4: WireType.U64},
        "FLOAT32": {1: WireType.U16, 2: WireType.U32, 4: WireType.U64},
    }
)
_PARITY: Final = frozenset({"N", "E", "O"})
_MODES: Final = MappingProxyType({"": "tcp", "auto": "tcp", "tcp": "tcp", "rtuovertcp": "rtu+tcp", "rtu": "serial"})


class _Lines:
    """Where names stand in the text: the first use of a name is its first occurrence, and so on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._used: dict[str, int] = {}

    def of(self, name: str) -> int:
        """Return the line of the next use of a name; 1 where it cannot be found."""
        found = [m.start() for m in re.finditer(rf"\bname\s*=\s*[\"']{re.escape(name)}[\"']", self._text)]
        i = self._used.get(name, 0)
        self._used[name] = i + 1
        return self._text.count("\n", 0, found[i]) + 1 if i < len(found) else 1


def read_telegraf(text: str, file: str) -> Sequence[Found]:
    """Return the devices of a Telegraf configuration, one a plug-in and unit. Raises ConfigError, with the line."""
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{file}: not TOML: {e}, want a Telegraf configuration") from e
    inputs = tables.get("inputs")
    plugins = inputs.get("modbus") if isinstance(inputs, dict) else None
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise ConfigError(f"{file}: got no [[inputs.modbus]], want at least one")
    lines = _Lines(text)
    found: list[Found] = []
    for number, plugin in enumerate(plugins, 1):
        where = f"{file}: inputs.modbus {number}"
        by_unit: dict[int, list[Entry]] = {}
        for unit_id, entry in _entries(plugin, file, where, lines):
            by_unit.setdefault(unit_id, []).append(entry)
        title = str(plugin.get("name", "")) or f"Telegraf input {number}"
        url = _url(plugin, where)
        tag = named(str(plugin.get("name", ""))) or str(number)
        found += [
            Found(tag=f"{tag}-{unit}", title=title, unit_id=unit, url=url, entries=tuple(own))
            for unit, own in by_unit.items()
        ]
    tags = [device.tag for device in found]
    if len(set(tags)) < len(tags):
        raise ConfigError(f"{file}: got inputs.modbus of one name and slave_id twice, want a name of its own for each")
    return found


def _entries(plugin: Mapping[str, Any], file: str, where: str, lines: _Lines) -> Iterator[tuple[int, Entry]]:
    """Yield the unit and the entry of each register."""
    for key, function in _LISTS.items():
        for table in _tables(plugin, key, where):
            yield _unit_id(plugin, where), _of_register(table, function, file, lines)
    for style in ("request", "metric"):
        for table in _tables(plugin, style, where):
            at = f"{where}.{style}"
            for field in _tables(table, "fields", at):
                register = str((field if style == "metric" else table).get("register", "holding"))
                if register not in _REGISTERS:
                    raise ConfigError(f"{at}: register: got {register[:40]!r}, want one of {', '.join(_REGISTERS)}")
                if not field.get("omit"):
                    yield _unit_id(table, at), _of_field(field, table, _REGISTERS[register], file, lines)


def _tables(table: Mapping[str, Any], key: str, where: str) -> Sequence[Mapping[str, Any]]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConfigError(f"{where}.{key}: got {shown(found)}, want a list of tables")
    return found


def _unit_id(table: Mapping[str, Any], where: str) -> int:
    unit_id = table.get("slave_id")
    if not isinstance(unit_id, int) or not 0 <= unit_id <= 247:
        raise ConfigError(f"{where}: slave_id: got {shown(unit_id)}, want 0..247")
    return unit_id


def _of_register(table: Mapping[str, Any], function: int, file: str, lines: _Lines) -> Entry:
    """Return an entry of the register style: { name, byte_order, data_type, scale, address = [0, 1] }."""
    name, line, where = _name(table, file, lines)
    addresses = table.get("address")
    count = len(addresses) if isinstance(addresses, list) else 0
    if not count or not all(isinstance(a, int) for a in addresses or ()):
        raise ConfigError(f"{where}: address: got {shown(addresses)}, want a list such as [0, 1]")
    first = addresses[0]  # type: ignore[index]
    if addresses != list(range(first, first + count)):
        raise ConfigError(f"{where}: address: got {shown(addresses)}, want registers in a row, the lowest first")
    word = str(table.get("data_type", "BIT" if function < 3 else ""))
    kind = _FIXED[word].get(count) if word in _FIXED else _type(word.removesuffix("-IEEE"), where)
    if kind is None:
        raise ConfigError(f"{where}: data_type: got {word} of {count} registers, want 1, 2 or 4")
    point = _point(
        table,
        where,
        name,
        function=function,
        address=first,
        kind=kind,
        order=str(table.get("byte_order", "ABCD")),
        count=count,
    )
    if function >= 3 and width(point) != count:
        raise ConfigError(f"{where}: address: got {count} registers for {word}, want {width(point)}")
    return Entry(line, point, f"address {shown(addresses)}")


def _of_field(field: Mapping[str, Any], table: Mapping[str, Any], function: int, file: str, lines: _Lines) -> Entry:
    """Return an entry of the request or metric style: { address = 0, name, type, scale }."""
    name, line, where = _name(field, file, lines)
    address = field.get("address")
    kind = WireType.BIT if function < 3 else _type(str(field.get("type", "")), where)
    count = field.get("length", 0)
    if not isinstance(address, int) or not isinstance(count, int):
        raise ConfigError(f"{where}: got address {shown(address)}, length {shown(count)}, want whole numbers")
    order = str(table.get("byte_order", "ABCD"))
    point = _point(field, where, name, function=function, address=address, kind=kind, order=order, count=count)
    return Entry(line, point, f"address {address}")


def _name(table: Mapping[str, Any], file: str, lines: _Lines) -> tuple[str, int, str]:
    said = table.get("name")
    if not isinstance(said, str) or not named(said):
        raise ConfigError(f"{file}: got a register with name {shown(said)}, want a name with a letter or digit")
    line = lines.of(said)
    return named(said), line, f"{file}:{line}"


def _type(word: str, where: str) -> WireType:
    found = TYPES.get(word.lower())
    if found is None:
        raise ConfigError(
            f"{where}: type: got {word[:40]!r}, which no template has, "
            "want one of INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT32, FLOAT64, BIT, STRING"
        )
    return found


def _point(
    table: Mapping[str, Any],
    where: str,
    name: str,
    *,
    function: int,
    address: int,
    kind: WireType,
    order: str,
    count: int,
) -> Point:
    if not 0 <= address <= 65_535:
        raise ConfigError(f"{where}: address: got {address}, want 0..65535")
    scale = decimal(str(table.get("scale") or 1), f"{where}: scale")
    bit = table.get("bit", 0) if kind is WireType.BIT and function >= 3 else None
    if bit is not None and bit not in range(16):
        raise ConfigError(f"{where}: bit: got {shown(bit)}, want 0..15")
    return Point(
        name=name,
        function=function,
        address=address,
        type=kind,
        order=Order.ABCD if kind is WireType.BIT else order_of(order, f"{where}: byte_order"),
        registers=count if kind is WireType.STRING else 0,
        bit=bit,
        unit="",
        scale=scale,
        kind=kind_of(""),
    )


def _url(plugin: Mapping[str, Any], where: str) -> str:
    """Return where a device is, as a URL of ours; "" where it is on a machine of another kind. Raises ConfigError."""
    controller = str(plugin.get("controller", ""))
    mode = str(plugin.get("transmission_mode", "")).lower()
    if mode not in _MODES:
        raise ConfigError(
            f"{where}: transmission_mode: got {mode!r}, want TCP, RTU or RTUoverTCP: we do not speak ASCII"
        )
    if match := re.fullmatch(r"tcp://([A-Za-z0-9._-]+:[0-9]{1,5})/?", controller):
        return f"{'rtu+tcp' if _MODES[mode] == 'rtu+tcp' else 'tcp'}://{match[1]}"
    if match := re.fullmatch(r"(?:file|serial)://(/[!-~]{1,120})", controller):
        parity = str(plugin.get("parity", "N"))[:1].upper()
        speed, stop = plugin.get("baud_rate", 9600), plugin.get("stop_bits", 1)
        if parity not in _PARITY or not isinstance(speed, int) or str(stop) not in {"1", "2"}:
            raise ConfigError(
                f"{where}: got {speed} Bd, parity {parity}, {stop} stop bits, want numbers, N, E or O, 1 or 2"
            )
        return f"serial://{match[1]}?baudrate={speed}&parity={parity}&stopbits={stop}"
    return ""
