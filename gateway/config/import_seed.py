"""Register maps of one line a register: the customer's modbus_map.conf, and CSV with a header. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from gateway.config.import_entries import (
    Entry,
    Found,
    decimal,
    kind_of,
    named,
    order_of,
    register_of,
    type_of,
    unit_text,
    whole,
)
from gateway.errors import ConfigError
from gateway.model import Kind, Order, Point, WireType

_SEED_KEYS: Final = ("slave_id", "register", "type", "unit", "name", "order", "scale", "kind")
_CSV_KEYS: Final = (
    "name",
    "function",
    "address",
    "register",
    "type",
    "order",
    "unit",
    "scale",
    "offset",
    "kind",
    "modulus",
    "registers",
    "bit",
    "unit_id",
)
_FUNCTIONS: Final = MappingProxyType(
    {
        "1": 1,
        "2": 2,
        "3": 3,
        "4": 4,
        "coil": 1,
        "coils": 1,
        "discrete": 2,
        "discrete_input": 2,
        "holding": 3,
        "holding_register": 3,
        "input": 4,
        "input_register": 4,
    }
)


def read_seed(text: str, file: str) -> Sequence[Found]:
    """Return the devices of lines such as `slave_id: 01, register: 40001, type: float32, unit: kWh`.

    Raises ConfigError, with the line.
    """
    rows: list[tuple[int, Entry]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if content:
            rows.append(_seed_line(content, f"{file}:{number}", number))
    return _grouped(rows)


def _seed_line(content: str, where: str, number: int) -> tuple[int, Entry]:
    fields: dict[str, str] = {}
    for part in content.rstrip(",").split(","):
        key, colon, value = (side.strip() for side in part.partition(":"))
        if not colon or key not in _SEED_KEYS:
            raise ConfigError(
                f"{where}: got {part.strip()[:60]!r}, want `key: value`, the key one of {', '.join(_SEED_KEYS)}"
            )
        if key in fields:
            raise ConfigError(f"{where}: {key}: got it twice, want it once")
        fields[key] = value.strip("\"'")
    for key in ("slave_id", "register", "type"):
        if not fields.get(key):
            raise ConfigError(
                f"{where}: {key}: got nothing, want it in each line, "
                "as in `slave_id: 01, register: 40001, type: float32, unit: kWh`"
            )
    unit_id = whole(fields["slave_id"], f"{where}: slave_id", 0, 247)
    function, address = register_of(fields["register"], f"{where}: register")
    return unit_id, _entry(
        fields, where, number=number, function=function, address=address, shown=f"register {fields['register']}"
    )


def read_csv(text: str, file: str) -> Sequence[Found]:
    """Return the devices of a table with a header: name, function, address (or register), type and more.

    Raises ConfigError, with the line.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",")
    header: list[str] = []
    rows: list[tuple[int, Entry]] = []
    try:
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if header:
                rows.append(_csv_line(cells, header, where, reader.line_num))
            else:
                header = _header(cells, where)
    except csv.Error as e:
        raise ConfigError(f"{file}:{reader.line_num}: got a line that is no CSV: {e}, want cells between commas") from e
    return _grouped(rows)


def _header(cells: Sequence[str], where: str) -> list[str]:
    header = [cell.strip().lower().lstrip("\ufeff") for cell in cells]
    for name in header:
        if name not in _CSV_KEYS or header.count(name) > 1:
            raise ConfigError(f"{where}: got column {name[:40]!r}, want each of {', '.join(_CSV_KEYS)} at most once")
    if "type" not in header or ("address" in header) == ("register" in header):
        raise ConfigError(
            f"{where}: got {','.join(header)[:200]}, want type, and either address (PDU) or register (40001)"
        )
    return header


def _csv_line(cells: Sequence[str], header: Sequence[str], where: str, number: int) -> tuple[int, Entry]:
    if len(cells) != len(header):
        raise ConfigError(f"{where}: got {len(cells)} cells, want {len(header)} as in the header")
    fields = {key: cell.strip() for key, cell in zip(header, cells, strict=True) if cell.strip()}
    unit_id = whole(fields.get("unit_id", "1"), f"{where}: unit_id", 0, 247)
    if "register" in header:
        function, address = register_of(fields.get("register", ""), f"{where}: register")
        return unit_id, _entry(
            fields, where, number=number, function=function, address=address, shown=f"register {fields['register']}"
        )
    word = fields.get("function", "3").lower().replace(" ", "_")
    if word not in _FUNCTIONS:
        raise ConfigError(f"{where}: function: got {word[:40]!r}, want one of {', '.join(_FUNCTIONS)}")
    address = whole(fields.get("address", ""), f"{where}: address", 0, 65_535)
    return unit_id, _entry(
        fields, where, number=number, function=_FUNCTIONS[word], address=address, shown=f"address {fields['address']}"
    )


def _entry(fields: Mapping[str, str], where: str, *, number: int, function: int, address: int, shown: str) -> Entry:
    """Return the entry that a line's fields describe. Raises ConfigError."""
    kind = type_of(fields.get("type", ""), f"{where}: type")
    if (function in {1, 2}) != (kind is WireType.BIT and "bit" not in fields):
        want = "bool, as it is one bit" if function in {1, 2} else "a type of whole registers, or a bit with its number"
        raise ConfigError(f"{where}: type: got {fields['type']!r} for FC {function}, want {want}")
    unit = unit_text(fields.get("unit", ""), f"{where}: unit")
    if "kind" in fields and fields["kind"] not in list(Kind):
        raise ConfigError(f"{where}: kind: got {fields['kind']!r}, want gauge or counter")
    scale = decimal(fields.get("scale", "1"), f"{where}: scale")
    if not scale:
        raise ConfigError(f"{where}: scale: got 0, want another number")
    default = f"{named(unit)}_{address}" if re.fullmatch("[A-Za-z]{1,8}", unit) else f"r{address}"
    name = named(fields.get("name", "")) or (default if function == 3 else f"fc{function}_{default}")
    point = Point(
        name=name,
        function=function,
        address=address,
        type=kind,
        order=order_of(fields["order"], f"{where}: order") if "order" in fields else Order.ABCD,
        registers=whole(fields["registers"], f"{where}: registers", 1, 125) if "registers" in fields else 0,
        bit=whole(fields["bit"], f"{where}: bit", 0, 15) if "bit" in fields else None,
        unit=unit,
        scale=scale,
        offset=decimal(fields["offset"], f"{where}: offset") if "offset" in fields else Decimal(0),
        kind=Kind(fields["kind"]) if "kind" in fields else kind_of(unit),
        modulus=whole(fields["modulus"], f"{where}: modulus", 2, 2**64) if "modulus" in fields else None,
    )
    return Entry(number, point, shown)


def _grouped(rows: Sequence[tuple[int, Entry]]) -> Sequence[Found]:
    """Return the entries by unit id, in the order of the first of each."""
    by_unit: dict[int, list[Entry]] = {}
    for unit_id, entry in rows:
        by_unit.setdefault(unit_id, []).append(entry)
    return [
        Found(tag=str(unit_id), title=f"Imported device, unit {unit_id}", unit_id=unit_id, entries=tuple(entries))
        for unit_id, entries in by_unit.items()
    ]
