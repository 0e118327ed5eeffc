"""Leaves of production lines: their schemas and their intervals.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.codec.fits import Check, as_list, clean, is_decimal, is_id, is_int, is_list, is_map
from gateway.errors import TrustError
from gateway.model import (
    ENERGY_UNITS,
    FUEL_UNITS,
    ContextColumn,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Sample,
    Told,
    What,
)

_QUALITIES = tuple(Quality)
MOST_TOLD = 33
"""Of one context column in one interval: what was in force, and 32 changes."""
MOST_VALUE = 200
"""Characters of a value of context."""


def _good_sample(sample: Any) -> bool:
    if type(sample) is not list or len(sample) != 5 or not is_int(sample[0]) or type(sample[1]) is not bytes:
        return False
    _, _, value, quality, status = sample
    if type(quality) is not int or quality not in {0, 1, 2} or type(status) not in {str, type(None)}:
        return False
    return value is None if quality == Quality.BAD else is_decimal(value)


def _samples(value: Any) -> bool:
    return type(value) is list and all(map(_good_sample, value))


def _good_context(value: Any) -> bool:
    return type(value) is list and len(value) > 0 and all(map(_good_told, value))


def _good_told(column: Any) -> bool:
    if type(column) is not list or len(column) > MOST_TOLD:
        return False
    before = -1
    for told in column:
        if type(told) is not list or len(told) != 2 or not is_int(told[0]) or told[0] <= before:
            return False
        if told[1] is not None and (type(told[1]) is not str or len(told[1]) > MOST_VALUE):
            return False
        before = told[0]
    return True


SCHEMA_SHAPES: tuple[dict[str, Check], ...] = (
    {"id": is_id, "line": is_map, "columns": is_list},
    {"id": is_id, "line": is_map, "columns": is_list, "context": is_list},
)
INTERVAL_SHAPES: tuple[dict[str, Check], ...] = (
    {"schema": is_id, "t": is_int, "samples": _samples},
    {"schema": is_id, "t": is_int, "samples": _samples, "context": _good_context},
)


def to_line_schema(body: Mapping[str, Any]) -> LineSchema:
    """Return the schema of a line that a checked body says. Raises ValueError, TypeError or KeyError."""
    head = body["line"]
    if list(head) != ["name", "site", "zone", "period_s"] or not is_int(head["period_s"]) or head["period_s"] < 1:
        raise ValueError("line: want name, site, zone and period_s")
    columns = []
    for point, unit, role, modulus, rated_power_w, meter_class, serial in map(as_list, body["columns"]):
        if modulus is not None and not is_decimal(modulus):
            raise ValueError("modulus: want a decimal string or nil")
        if rated_power_w is not None and not is_int(rated_power_w):
            raise ValueError("rated_power_w: want a whole number or nil")
        if role == Role.ENERGY and unit not in ENERGY_UNITS:
            raise ValueError(f"unit: want one of {', '.join(ENERGY_UNITS)} for energy")
        if role == Role.FUEL and unit not in FUEL_UNITS:
            raise ValueError(f"unit: want one of {', '.join(FUEL_UNITS)} for fuel")
        columns.append(
            LineColumn(
                point=clean(point),
                unit=clean(unit),
                role=Role(role),
                modulus=None if modulus is None else Decimal(modulus),
                rated_power_w=rated_power_w,
                meter_class=clean(meter_class),
                serial=clean(serial),
            )
        )
    if len({(column.role, column.point) for column in columns}) < len(columns):
        raise ValueError("columns: want each counter once, or it would count twice")
    context = tuple(
        ContextColumn(point=clean(point), what=What(what)) for point, what in map(as_list, body.get("context", ()))
    )
    if len({column.what for column in context}) < len(context) or ("context" in body and not context):
        raise ValueError("context: want each of state, product, recipe and job at most once, or no context")
    return LineSchema(
        name=clean(head["name"]),
        site=clean(head["site"]),
        zone=clean(head["zone"]),
        period_s=head["period_s"],
        columns=tuple(columns),
        context=context,
    )


def to_interval(body: Mapping[str, Any], line: LineSchema) -> Interval:
    """Return the interval that a checked body says. Raises TrustError when the line's does not fit."""
    if body["schema"] != line.id or len(body["samples"]) != len(line.columns):
        raise TrustError(f"interval: does not fit the schema of line {line.name!r}")
    context = body.get("context", ())
    if len(context) != len(line.context):
        raise TrustError(f"interval: does not fit the context of line {line.name!r}")
    if body["t"] % (line.period_s * 1_000_000_000):
        raise TrustError(f"interval: t: got {body['t']}, want a multiple of {line.period_s} s")
    samples = tuple(
        Sample(column.point, t_ns, raw, None if value is None else Decimal(value), _QUALITIES[quality], status or "")
        for column, (t_ns, raw, value, quality, status) in zip(line.columns, body["samples"], strict=True)
    )
    told = tuple(tuple(Told(t_ns, value) for t_ns, value in column) for column in context)
    return Interval(schema_id=line.id, t_ns=body["t"], samples=samples, context=told)
