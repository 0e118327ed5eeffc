"""SunSpec models to points of ours. Pure: the definitions come in as the tables that the alliance publishes.

Source: SunSpec Device Information Model Specification V1.1, 4.2 (types) and 6 (models and repeating blocks).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from gateway.model import Kind, Point, WireType

MARK: Final = b"SunS"
BASES: Final = (40000, 50000, 0)
END: Final = 0xFFFF
HEADER: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that a device says it has.

    address: PDU address of its ID register. length: its registers after the two of the header.
    """

    id: int
    address: int
    length: int


class Form(NamedTuple):
    """How a SunSpec type stands in registers of ours, and the raw values that mean "not implemented"."""

    type: WireType
    sentinels: frozenset[int]
    kind: Kind = Kind.GAUGE
    modulus: int | None = None


_U16: Final = frozenset({0xFFFF})
_U32: Final = frozenset({0xFFFF_FFFF})
_ZERO: Final = frozenset({0})
FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "int16": Form(WireType.S16, frozenset({-(2**15)})),
        "int32": Form(WireType.S32, frozenset({-(2**31)})),
        "int64": Form(WireType.S64, frozenset({-(2**63)})),
        "uint16": Form(WireType.U16, _U16),
        "uint32": Form(WireType.U32, _U32),
        "uint64": Form(WireType.U64, frozenset({2**64 - 1})),
        "count": Form(WireType.U16, _U16),
        "enum16": Form(WireType.U16, _U16),
        "enum32": Form(WireType.U32, _U32),
        # A field's top bit alone says the same: its values end below it.
        "bitfield16": Form(WireType.U16, _U16 | {0x8000}),
        "bitfield32": Form(WireType.U32, _U32 | {0x8000_0000}),
        "acc16": Form(WireType.U16, _ZERO, Kind.COUNTER, 2**16),
        "acc32": Form(WireType.U32, _ZERO, Kind.COUNTER, 2**32),
        "acc64": Form(WireType.U64, _ZERO, Kind.COUNTER, 2**63),
        "sunssf": Form(WireType.S16, frozenset({-(2**15)})),
        "float32": Form(WireType.F32, frozenset()),
        "float64": Form(WireType.F64, frozenset()),
        "string": Form(WireType.STRING, _ZERO),
        "ipaddr": Form(WireType.U32, _ZERO),
        # Six bytes in the last three of four registers.
        "eui48": Form(WireType.U64, frozenset({0, 2**48 - 1, 2**64 - 1})),
    }
)
"""By SunSpec type. A pad holds nothing, and an ipv6addr no number: they make no points."""

NO_POINT: Final = frozenset({"pad", "ipv6addr"})
_SIZES: Final = MappingProxyType({"ipv6addr": 8, "eui48": 4})
_WORDS: Final = MappingProxyType(
    {WireType.U32: 2, WireType.S32: 2, WireType.F32: 2, WireType.U64: 4, WireType.S64: 4, WireType.F64: 4}
)
_UNITS: Final = MappingProxyType(
    {"WH": "Wh", "Varh": "varh", "Var": "var", "Pct": "%", "Secs": "s", "PF": "", "SF": ""}
)
_COUNTERS: Final = re.compile(r"Tot(Wh|VAh|VArh|Varh|varh)|WH\Z|DCWH\Z")


class _Cell(NamedTuple):
    """One point of a definition, and where it stands.

    block: what goes before its name in a repeated block: `module_2_`. group: the names beside it.
    """

    definition: Mapping[str, Any]
    offset: int
    block: str
    group: frozenset[str]


def points_of(definition: Mapping[str, Any], model: Model, *, prefix: str = "") -> tuple[Point, ...]:
    """Return what of a model a gateway reads, in the order of its registers: no header, no padding.

    Points that stand past the length that the device gave are left out, and so are those whose scale factor does.
    """
    cells = [cell for cell in _cells(definition, model.length) if _fits(cell, model.length)]
    names = {f"{cell.block}{cell.definition['name']}" for cell in cells}
    found = (_point(cell, model, prefix, names) for cell in cells if cell.offset >= HEADER)
    return tuple(point for point in found if point is not None)


def _cells(definition: Mapping[str, Any], length: int) -> Iterator[_Cell]:
    """Yield all points with their offsets from the ID register."""
    top = definition["group"]
    offset = 0
    own = frozenset(point["name"] for point in top["points"])
    for point in top["points"]:
        yield _Cell(point, offset, "", own)
        offset += size_of(point)
    groups = top.get("groups", ())
    for group in groups:
        size = sum(size_of(point) for point in group["points"])
        counted = isinstance(group.get("count"), int) and group["count"] > 0
        if group.get("groups") or not size or not (counted or group is groups[-1]):
            return  # where it ends depends on what stands in it; no model that measures has such
        names = frozenset(point["name"] for point in group["points"])
        # A count of 0 or of a point's name: as many as the length has room for.
        count = group["count"] if counted else max(length + HEADER - offset, 0) // size
        for number in range(1, count + 1):
            for point in group["points"]:
                yield _Cell(point, offset, f"{group['name']}_{number}_", names)
                offset += size_of(point)


def size_of(point: Mapping[str, Any]) -> int:
    """Return how many registers a defined point takes."""
    kind = point["type"]
    if kind == "string":
        return int(point["size"])
    form = FORMS.get(kind)
    return _SIZES[kind] if kind in _SIZES else _WORDS.get(form.type, 1) if form else int(point.get("size", 1))


def _fits(cell: _Cell, length: int) -> bool:
    return cell.offset + size_of(cell.definition) <= length + HEADER


def _point(cell: _Cell, model: Model, prefix: str, names: set[str]) -> Point | None:
    definition, name = cell.definition, cell.definition["name"]
    if definition["type"] in NO_POINT:
        return None
    form = FORMS[definition["type"]]
    factor = definition.get("sf")
    factor_name = None
    if isinstance(factor, str):
        factor_name = (cell.block if factor in cell.group else "") + factor
        if factor_name not in names:
            return None
    unit = str(definition.get("units", "") or "")
    counts = form.kind is Kind.COUNTER or (definition["type"] != "sunssf" and bool(_COUNTERS.match(name)))
    return Point(
        name=_named(prefix + cell.block + name),
        function=3,
        address=model.address + cell.offset,
        type=form.type,
        registers=size_of(definition) if form.type is WireType.STRING else 0,
        unit=_UNITS.get(unit, unit),
        scale=Decimal(10) ** factor if isinstance(factor, int) else Decimal(1),
        scale_point=None if factor_name is None else _named(prefix + factor_name),
        sentinels=form.sentinels,
        kind=Kind.COUNTER if counts else Kind.GAUGE,
        modulus=None if factor_name is not None else form.modulus,
    )


def _named(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")[:63]


def direction_of(name: str) -> str:
    """Return which way an energy counts, by its SunSpec name in lower case; "" where that says nothing."""
    match = re.search(r"totv?a?r?wh_?(imp|abs|exp|inj)", name)
    return {"imp": "import", "abs": "import", "exp": "export", "inj": "export"}[match[1]] if match else ""


MEASURING: Final[Sequence[int]] = (
    1,
    *range(101, 104),
    *range(111, 114),
    160,
    *range(201, 205),
    *range(211, 215),
    *range(302, 309),
    *range(401, 405),
    *range(501, 503),
    701,
    714,
)
"""The models that say who a device is, or measure; others hold settings and commands."""
