"""A line's electricity as loads: sums of its figures, kept by the hour beside them, as a year is asked at once.

A row of `hourly_loads` is what the cells that start in an hour are part of: where the load starts and ends, its zone and
factor ("" for none). So a cell is in the sums of one hour, though a load may lie in a later hour or across several.
"""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Connection, Dialect, Select, bindparam, case, delete, func, insert, select

from gateway.carbon.exact import text
from gateway.carbon.figures import MODELLED, SCOPE_2, Cell
from gateway.carbon.scopes.loads import HOUR_NS, LoadKey, key_of
from gateway.store.projections import tables

Hour = tuple[str, str, int]
"""Gateway, line, where an hour starts."""

_Sums = dict[tuple[int, int, str, str], int]
"""Milliwatt-hours by start, end, zone and factor."""


def hour_of(gateway: str, line: str, cell_start_ns: int) -> Hour:
    """Return in which hour's sums a cell is."""
    return gateway, line, cell_start_ns // HOUR_NS * HOUR_NS


def line_loads(
    connection: Connection, gateway: str, line: str, *, start_ns: int, end_ns: int
) -> list[tuple[LoadKey, int]]:
    """Return what the cells of a line that start in [start_ns, end_ns) are part of: by load, milliwatt-hours.

    The same sums as carbon/scopes/loads.py makes of their figures; in order of time. Figures are read for an hour that
    is not whole alone, so for two at most.
    """
    first_ns, last_ns = -(-start_ns // HOUR_NS) * HOUR_NS, end_ns // HOUR_NS * HOUR_NS
    if first_ns < last_ns:
        edges, between = ((start_ns, first_ns), (last_ns, end_ns)), (first_ns, last_ns)
    else:
        edges, between = ((start_ns, end_ns),), None
    sums: _Sums = defaultdict(int)
    for edge in edges:
        if edge[0] < edge[1]:
            _collect(connection, _of_figures(), gateway, line, edge, sums)
    if between is not None:
        _collect(connection, _of_hours(), gateway, line, between, sums)
    return [
        ((zone, begin_ns, stop_ns, Decimal(factor) if factor else None), mwh)
        for (begin_ns, stop_ns, zone, factor), mwh in sorted(sums.items())
    ]


def add_loads(connection: Connection, cells: Iterable[Cell]) -> None:
    """Add cells to their hours' sums; they must not be in them yet."""
    sums: dict[tuple[Any, ...], int] = defaultdict(int)
    for cell in cells:
        hour = hour_of(cell.line.gateway, cell.line.line, cell.line.start_ns)
        for figure in cell.figures:
            if figure.energy_mwh is not None and figure.in_line_sum:
                sums[hour, key_of(figure)] += figure.energy_mwh
    rows = [
        (*hour, begin_ns, end_ns, zone, "" if factor is None else text(factor), mwh)
        for (hour, (zone, begin_ns, end_ns, factor)), mwh in sums.items()
    ]
    if rows:
        connection.exec_driver_sql(_addition(connection.dialect), rows)


def remake_loads(connection: Connection, hours: Iterable[Hour]) -> None:
    """Make the sums of hours anew from the figures that are there, each hour once."""
    asked = [
        {"p_gateway": gateway, "p_line": line, "p_start": hour_ns, "p_end": hour_ns + HOUR_NS}
        for gateway, line, hour_ns in sorted(set(hours))
    ]
    if not asked:
        return
    connection.execute(_removal(), asked)
    connection.execute(_making(), asked)


def _collect(
    connection: Connection, query: Select[Any], gateway: str, line: str, span: tuple[int, int], sums: _Sums
) -> None:
    asked = {"p_gateway": gateway, "p_line": line, "p_start": span[0], "p_end": span[1]}
    for *key, mwh in connection.execute(query, asked):
        sums[tuple(key)] += mwh


@cache
def _of_figures() -> Select[Any]:
    """Return the sums of the figures of a line's cells that start in a span; as carbon/scopes/loads.py has it."""
    table = tables.figures
    hour = table.c.start_ns // HOUR_NS * HOUR_NS
    within = table.c.end_ns <= hour + HOUR_NS
    key = (
        case((within, hour), else_=table.c.start_ns),
        case((within, hour + HOUR_NS), else_=table.c.end_ns),
        table.c.zone,
        func.coalesce(type_coerce(table.c.factor_g_per_kwh, Text), ""),
    )
    key = tuple(part.label(name) for part, name in zip(key, _KEY, strict=True))
    return (
        select(*key, func.sum(table.c.energy_mwh))
        .where(
            table.c.gateway == bindparam("p_gateway"),
            table.c.line == bindparam("p_line"),
            table.c.cell_start_ns >= bindparam("p_start"),
            table.c.cell_start_ns < bindparam("p_end"),
            table.c.scope == SCOPE_2,
            table.c.kind != MODELLED,
            table.c.energy_mwh.is_not(None),
        )
        .group_by(*key)
    )
