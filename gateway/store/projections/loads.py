"""A line's electricity as loads: sums of its figures, kept by the hour beside them, as a year is asked at once.

A row of `hourly_loads` is what the cells that start in an hour are part of: where the load starts and ends, its zone
and factor ("" for none). So a cell is in the sums of one hour, though a load may lie in a later hour, or be longer.
"""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    type_coerce,
)

from gateway.carbon.exact import text
from gateway.carbon.figures import MODELLED, SCOPE_2, Cell
from gateway.carbon.scopes.loads import HOUR_NS, LoadKey, key_of
from gateway.store.projections import tables

Hour = tuple[str, str, int]
"""Gateway, line, and where an hour starts."""

Sums = dict[tuple[str, str, int, int, int, str, str], int]
"""Milliwatt-hours by hour, and by the load's start, end, zone and factor."""

_LAST_NS = 2**63 - 1
_KEY = ("start_ns", "end_ns", "zone", "g_per_kwh")


def hour_of(gateway: str, line: str, cell_start_ns: int) -> Hour:
    """Return the hour in whose sums a cell is."""
    return gateway, line, cell_start_ns // HOUR_NS * HOUR_NS


def line_loads(
    connection: Connection, gateway: str, line: str, *, start_ns: int, end_ns: int
) -> list[tuple[LoadKey, int]]:
    """Return what the cells of a line that start in [start_ns, end_ns) are part of: by load, milliwatt-hours.

    The same sums as carbon/scopes/loads.py makes of their figures; in order of time. Figures are read only at the two
    ends, where an hour is not whole.
    """
    first_ns, last_ns = -(-start_ns // HOUR_NS) * HOUR_NS, end_ns // HOUR_NS * HOUR_NS
    if first_ns >= last_ns:
        spans = [(_of_figures(), start_ns, end_ns)]
    else:
        spans = [
            (_of_figures(), start_ns, first_ns),
            (_of_hours(), first_ns, last_ns),
            (_of_figures(), last_ns, end_ns),
        ]
    sums: dict[tuple[int, int, str, str], int] = defaultdict(int)
    for query, from_ns, to_ns in spans:
        if from_ns < to_ns:
            asked = {"p_gateway": gateway, "p_line": line, "p_start": from_ns, "p_end": to_ns}
            for begin_ns, stop_ns, zone, factor, mwh in connection.execute(query, asked):
                sums[begin_ns, stop_ns, zone, factor] += mwh
    return [
        ((zone, begin_ns, stop_ns, Decimal(factor) if factor else None), mwh)
        for (begin_ns, stop_ns, zone, factor), mwh in sorted(sums.items())
    ]


def held_loads(connection: Connection, keys: Iterable[tuple[str, str, int]]) -> Sums:
    """Return what cells, by gateway, line and start, are in the sums with; one query a cell."""
    sums: Sums = defaultdict(int)
    for gateway, line, start_ns in keys:
        asked = {"p_gateway": gateway, "p_line": line, "p_start": start_ns, "p_end": start_ns + 1}
        for *key, mwh in connection.execute(_of_figures(), asked):
            sums[*hour_of(gateway, line, start_ns), *key] += mwh
    return sums


def add_loads(connection: Connection, cells: Iterable[Cell], *, less: Sums | None = None) -> None:
    """Add cells to their hours' sums; they must not be in them yet. less: what the cells that they replace were."""
    found: dict[tuple[Hour, LoadKey], int] = defaultdict(int)
    for cell in cells:
        hour = hour_of(cell.line.gateway, cell.line.line, cell.line.start_ns)
        for figure in cell.figures:
            if figure.energy_mwh is not None and figure.in_line_sum:
                found[hour, key_of(figure)] += figure.energy_mwh
    sums: Sums = {
        (*hour, begin_ns, end_ns, zone, "" if factor is None else text(factor)): mwh
        for (hour, (zone, begin_ns, end_ns, factor)), mwh in found.items()
    }
    again: set[Hour] = set()
    for key, mwh in (less or {}).items():
        if key in sums:
            sums[key] -= mwh
        else:  # It may have been the last of its load.
            again.add(key[:3])
    rows = [(*key, mwh) for key, mwh in sums.items() if key[:3] not in again]
    if rows:
        connection.exec_driver_sql(_addition(connection.dialect), rows)
    remake_loads(connection, again)


def remake_loads(connection: Connection, hours: Iterable[Hour]) -> None:
    """Make hours' sums anew from the figures that are there, each hour once."""
    asked = [
        {"p_gateway": gateway, "p_line": line, "p_start": hour_ns, "p_end": min(hour_ns + HOUR_NS, _LAST_NS)}
        for gateway, line, hour_ns in sorted(set(hours))
    ]
    if asked:
        table = tables.hourly_loads
        connection.execute(delete(table).where(*_asked(table, table.c.hour_ns)), asked)
        connection.execute(_making(), asked)


def delete_loads(connection: Connection, gateway: str, line: str, start_ns: int, end_ns: int) -> None:
    """Take a line's cells that started in [start_ns, end_ns) out of the sums; they must be deleted already."""
    table = tables.hourly_loads
    first_ns, last_ns = start_ns // HOUR_NS * HOUR_NS, (end_ns - 1) // HOUR_NS * HOUR_NS
    asked = {"p_gateway": gateway, "p_line": line, "p_start": first_ns, "p_end": end_ns}
    connection.execute(delete(table).where(*_asked(table, table.c.hour_ns)), asked)
    remake_loads(connection, [(gateway, line, first_ns), (gateway, line, last_ns)])


def _asked(table: Table, time: Column[int]) -> tuple[ColumnElement[bool], ...]:
    """Return what a line's rows of a span are found by."""
    return (
        table.c.gateway == bindparam("p_gateway"),
        table.c.line == bindparam("p_line"),
        time >= bindparam("p_start"),
        time < bindparam("p_end"),
    )


@cache
def _of_hours() -> Select[Any]:
    """Return the sums of a line's whole hours."""
    table = tables.hourly_loads
    key = [table.c[name] for name in _KEY]
    return select(*key, func.sum(table.c.energy_mwh)).where(*_asked(table, table.c.hour_ns)).group_by(*key)


@cache
def _of_figures(*first: ColumnElement[Any]) -> Select[Any]:
    """Return the sums of the figures of a line's cells that start in a span; as key_of in carbon/scopes/loads.py."""
    table = tables.figures
    hour = table.c.start_ns // HOUR_NS * HOUR_NS
    within = table.c.end_ns <= hour + HOUR_NS
    parts = (
        case((within, hour), else_=table.c.start_ns),
        case((within, hour + HOUR_NS), else_=table.c.end_ns),
        table.c.zone,
        func.coalesce(type_coerce(table.c.factor_g_per_kwh, Text), ""),
    )
    key = [part.label(f"load_{name}") for part, name in zip(parts, _KEY, strict=True)]
    return (
        select(*first, *key, func.sum(table.c.energy_mwh))
        .where(
            *_asked(table, table.c.cell_start_ns),
            table.c.scope == SCOPE_2,
            table.c.kind != MODELLED,
            table.c.energy_mwh.is_not(None),
        )
        .group_by(*key)
    )


@cache
def _making() -> Insert:
    """Return an insertion of one hour's sums, from its figures."""
    table = tables.hourly_loads
    hour = zip(("gateway", "line", "start"), list(table.columns)[:3], strict=True)
    made = _of_figures(*(bindparam(f"p_{name}", type_=column.type) for name, column in hour))
    return insert(table).from_select([column.name for column in table.columns], made)


@cache
def _addition(dialect: Dialect) -> str:
    """Return an insertion that adds to a row that is there; SQLite and PostgreSQL say it alike."""
    table = tables.hourly_loads
    key = ", ".join(column.name for column in table.primary_key)
    added = f"energy_mwh = {table.name}.energy_mwh + excluded.energy_mwh"
    return f"{insert(table).compile(dialect=dialect)} ON CONFLICT ({key}) DO UPDATE SET {added}"
