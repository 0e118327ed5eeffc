"""Bodies of leaves, checked and read: whatever comes from elsewhere passes here.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.codec.agent_leaves import FRAMES_SHAPE
from gateway.codec.changes import good_changes
from gateway.codec.pack import shown
from gateway.errors import TrustError
from gateway.model import (
    ENERGY_UNITS,
    Column,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Row,
    Sample,
    Schema,
    Value,
)

_Check = Callable[[Any], bool]


def _int(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _str(value: Any) -> bool:
    return type(value) is str


def _map(value: Any) -> bool:
    return type(value) is dict


def _plain_map(value: Any) -> bool:
    return type(value) is dict and _plain(value, 8)


def _plain(value: Any, levels: int) -> bool:
    """Return whether a value is of msgpack's plain types, and nested no deeper: so a leaf always opens again."""
    if type(value) is list:
        return levels > 0 and all(_plain(item, levels - 1) for item in value)
    if type(value) is dict:
        return levels > 0 and all(_plain(item, levels - 1) for item in value.values())
    return type(value) in _SCALARS


def _list(value: Any) -> bool:
    return type(value) is list


def _id(value: Any) -> bool:
    return type(value) is bytes and len(value) == 8


_NIL = type(None)
_SCALARS = {_NIL, bool, int, float, str, bytes}


def _good_row(row: Any) -> bool:
    if type(row) is not list or len(row) != 5:
        return False
    schema_id, t_ns, values, marks, status = row
    return (
        type(schema_id) is bytes
        and len(schema_id) == 8
        and type(t_ns) is int
        and 0 <= t_ns < 2**63
        and (status is None or type(status) is str)
        and (type(values) is bytes if marks is None else _good_marks(marks, values))
    )


def _good_marks(marks: Any, values: Any) -> bool:
    """Return whether these can be qualities: only where every one is BAD are there no values."""
    return (
        type(marks) is bytes
        and len(marks) > 0
        and max(marks) <= 2
        and (type(values) is bytes or (values is None and min(marks) == 2))
    )


def _good_sample(sample: Any) -> bool:
    if type(sample) is not list or len(sample) != 5 or not _int(sample[0]) or type(sample[1]) is not bytes:
        return False
    _, _, value, quality, status = sample
    if type(quality) is not int or quality not in {0, 1, 2} or type(status) not in {str, _NIL}:
        return False
    return value is None if quality == Quality.BAD else _good_decimal(value)


def _good_decimal(text: Any) -> bool:
    """Digits, one sign, one point; no exponent, no NaN, at most 400 characters (a small float64 has many digits)."""
    if type(text) is not str or not 0 < len(text) <= 400 or not text.isascii():
        return False
    whole, _, part = text.removeprefix("-").partition(".")
    return whole.isdecimal() and (part.isdecimal() or "." not in text)


def _rows(value: Any) -> bool:
    return type(value) is list and all(map(_good_row, value))


def _samples(value: Any) -> bool:
    return type(value) is list and all(map(_good_sample, value))


def _key4(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_str, value))


_SHAPES: dict[str, tuple[dict[str, _Check], ...]] = {
    "epoch": ({"epoch": _int, "key": _str, "binding": _plain_map},),
    "schema": (
        {"id": _id, "device": _str, "columns": _list},
        {"id": _id, "line": _map, "columns": _list},
    ),
    "readings": ({"rows": _rows}, {"changes": good_changes}, FRAMES_SHAPE),
    "interval": ({"schema": _id, "t": _int, "samples": _samples},),
    "event": ({"what": _str, "t": _int, "about": _plain_map},),
    "factor": (
        {
            "key": _key4,
            "start": _int,
            "end": _int,
            "value": _good_decimal,
            "unit": lambda unit: unit == "g/kWh",
            "state": _str,
            "method": _str,
            "source": _str,
            "version": _str,
            "supersedes": _str,
        },
    ),
    "accepted": ({"gateway": _str, "checkpoint": _str},),
}


def check_body(kind: str, body: Any) -> dict[str, Any]:
    """Return the body, checked against its kind's shape. Raises TrustError when it does not fit."""
    shapes = _SHAPES.get(kind)
    if shapes is None:
        raise TrustError(f"leaf: kind: got {kind[:20]!r}, want one of {', '.join(_SHAPES)}")
    if type(body) is not dict:
        raise TrustError(f"{kind}: body: got {type(body).__name__}, want a map")
    for shape in shapes:
        if list(body) == list(shape):
            for key, fits in shape.items():
                if not fits(body[key]):
                    raise TrustError(f"{kind}: {key}: got {shown(body[key])}, which does not fit docs/log.md")
            if kind == "schema":
                to_schema(body)
            return body
    raise TrustError(f"{kind}: got keys {[str(k)[:20] for k in list(body)[:12]]}, want {[list(s) for s in shapes]}")


def to_schema(body: Mapping[str, Any]) -> Schema | LineSchema:
    """Return the schema that a schema leaf's body says; its id is checked against its columns.

    Raises TrustError when it does not fit.
    """
    try:
        made = _line_schema(body) if "line" in body else _schema(body)
    except (TypeError, ValueError, KeyError, InvalidOperation) as e:
        raise TrustError(f"schema: {e}") from e
    if made.id != body["id"]:
        raise TrustError(f"schema: id: got {body['id'].hex()}, want {made.id.hex()}, the hash of its columns")
    return made


def _schema(body: Mapping[str, Any]) -> Schema:
    rows = [(_clean(name), _clean(unit), _clean(store)) for name, unit, store in map(_array, body["columns"])]
    columns = tuple(Column(name=name, unit=unit, store=store) for name, unit, store in rows)
    return Schema(device=_clean(body["device"]), columns=columns)


def _line_schema(body: Mapping[str, Any]) -> LineSchema:
    head = body["line"]
    if list(head) != ["name", "site", "zone", "period_s"] or not _int(head["period_s"]) or head["period_s"] < 1:
        raise ValueError("line: want name, site, zone and period_s")
    columns = []
    for point, unit, role, modulus, rated_power_w, meter_class, serial in map(_array, body["columns"]):
        if modulus is not None and not _good_decimal(modulus):
            raise ValueError("modulus: want a decimal string or nil")
        if rated_power_w is not None and not _int(rated_power_w):
            raise ValueError("rated_power_w: want a whole number or nil")
        if role == Role.ENERGY and unit not in ENERGY_UNITS:
            raise ValueError(f"unit: want one of {', '.join(ENERGY_UNITS)} for energy")
        columns.append(
            LineColumn(
                point=_clean(point),
                unit=_clean(unit),
                role=Role(role),
                modulus=None if modulus is None else Decimal(modulus),
                rated_power_w=rated_power_w,
                meter_class=_clean(meter_class),
                serial=_clean(serial),
            )
        )
    if len({(column.role, column.point) for column in columns}) < len(columns):
        raise ValueError("columns: want each counter once, or it would count twice")
    return LineSchema(
        name=_clean(head["name"]),
        site=_clean(head["site"]),
        zone=_clean(head["zone"]),
        period_s=head["period_s"],
        columns=tuple(columns),
    )


def _array(column: Any) -> list[Any]:
    if type(column) is not list:
        raise ValueError("column: want an array")
    return column


def _clean(text: Any) -> str:
    if type(text) is not str or len(text) > 200 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("want a string of at most 200 characters, without control characters")
    return text


def to_interval(body: Mapping[str, Any], line: LineSchema) -> Interval:
    """Return the interval that a checked body says. Raises TrustError when the line's does not fit."""
    if body["schema"] != line.id or len(body["samples"]) != len(line.columns):
        raise TrustError(f"interval: does not fit the schema of line {line.name!r}")
    if body["t"] % (line.period_s * 1_000_000_000):
        raise TrustError(f"interval: t: got {body['t']}, want a multiple of {line.period_s} s")
    samples = tuple(
        Sample(
            point=column.point,
            source_time_ns=t_ns,
            raw=raw,
            value=None if value is None else Decimal(value),
            quality=Quality(quality),
            status=status or "",
        )
        for column, (t_ns, raw, value, quality, status) in zip(line.columns, body["samples"], strict=True)
    )
    return Interval(schema_id=line.id, t_ns=body["t"], samples=samples)


def to_factor(body: Mapping[str, Any]) -> Factor:
    """Return the factor that a checked body says. Raises TrustError for an empty window."""
    if body["end"] <= body["start"]:
        raise TrustError("factor: end: want a time after start")
    provider, zone, signal, factor_type = body["key"]
    return Factor(
        key=(provider, zone, signal, factor_type),
        start_ns=body["start"],
        end_ns=body["end"],
        g_per_kwh=Decimal(body["value"]),
        state=body["state"],
        method=body["method"],
        source=body["source"],
        version=body["version"],
        supersedes=body["supersedes"],
    )


def rows_of(body: Mapping[str, Any], schemas: Mapping[bytes, Schema]) -> Iterator[Row]:
    """Yield the rows of a checked readings body. Raises TrustError for an unknown schema or a wrong length."""
    for schema_id, t_ns, packed, marks, status in body.get("rows", ()):
        schema = schemas.get(schema_id)
        if schema is None:
            raise TrustError(f"readings: schema {schema_id.hex()} is not in the log before this leaf")
        if packed is not None and len(packed) != schema.layout.size:
            raise TrustError(f"readings: got {len(packed)} bytes of values, want {schema.layout.size}")
        if marks is not None and len(marks) != len(schema.columns):
            raise TrustError(f"readings: got {len(marks)} qualities, want {len(schema.columns)}")
        qualities = None if marks is None else tuple(map(Quality, marks))
        yield Row(
            schema=schema,
            source_time_ns=t_ns,
            values=_values(schema, packed, qualities),
            qualities=qualities,
            status=status or "",
        )


def _values(schema: Schema, packed: bytes | None, qualities: tuple[Quality, ...] | None) -> tuple[Value | None, ...]:
    if packed is None:
        return (None,) * len(schema.columns)
    try:
        values = [v.rstrip(b"\0").decode() if isinstance(v, bytes) else v for v in schema.layout.unpack(packed)]
    except UnicodeDecodeError as e:
        raise TrustError("readings: a text column is not UTF-8") from e
    if qualities is None:
        return tuple(values)
    return tuple(None if q == Quality.BAD else v for v, q in zip(values, qualities, strict=True))
