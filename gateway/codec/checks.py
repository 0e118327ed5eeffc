"""Bodies of leaves, checked and read: whatever comes from elsewhere passes here.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Iterator, Mapping
from decimal import InvalidOperation
from typing import Any

from gateway.codec.agent_leaves import FRAMES_SHAPE
from gateway.codec.changes import good_changes
from gateway.codec.fits import Check, as_list, clean, is_binding, is_id, is_int, is_list, is_plain_map, is_text
from gateway.codec.ledger_leaves import SHAPES
from gateway.codec.line_leaves import INTERVAL_SHAPES, SCHEMA_SHAPES, to_line_schema
from gateway.codec.pack import shown
from gateway.errors import TrustError
from gateway.model import Column, LineSchema, Quality, Row, Schema, Value


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


def _rows(value: Any) -> bool:
    return type(value) is list and all(map(_good_row, value))


_SHAPES: dict[str, tuple[dict[str, Check], ...]] = {
    "epoch": ({"epoch": is_int, "key": is_text, "binding": is_binding},),
    "schema": (
        {"id": is_id, "device": is_text, "columns": is_list},
        *SCHEMA_SHAPES,
    ),
    "readings": ({"rows": _rows}, {"changes": good_changes}, FRAMES_SHAPE),
    "interval": INTERVAL_SHAPES,
    "event": ({"what": is_text, "t": is_int, "about": is_plain_map},),
    **SHAPES,
    "accepted": ({"gateway": is_text, "checkpoint": is_text},),
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
        made = to_line_schema(body) if "line" in body else _schema(body)
    except (TypeError, ValueError, KeyError, InvalidOperation) as e:
        raise TrustError(f"schema: {e}") from e
    if made.id != body["id"]:
        raise TrustError(f"schema: id: got {body['id'].hex()}, want {made.id.hex()}, the hash of its columns")
    return made


def _schema(body: Mapping[str, Any]) -> Schema:
    rows = [(clean(name), clean(unit), clean(store)) for name, unit, store in map(as_list, body["columns"])]
    columns = tuple(Column(name=name, unit=unit, store=store) for name, unit, store in rows)
    return Schema(device=clean(body["device"]), columns=columns)


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
