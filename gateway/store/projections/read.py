"""What the ledger, its status and its exports ask."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, select, tuple_

from gateway.carbon.exact import text
from gateway.carbon.figures import Cell, Figure, LineFigure, Totals, flag_text
from gateway.carbon.grid.table import FactorLeaf
from gateway.carbon.setting import Setting
from gateway.model import ContextColumn, Factor, LineColumn, LineSchema, Role, What
from gateway.store.projections import tables
from gateway.store.projections.write import EventRow, GatewayState, IntervalRow, OwnLeafRow, StatementRow

_SETTING = Figure._fields.index("setting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Which cells: those that start in [start_ns, end_ns), of one gateway or line, or of all."""

    start_ns: int = 0
    end_ns: int = 2**63 - 1
    gateway: str | None = None
    line: str | None = None


def gateways(connection: Connection) -> list[GatewayState]:
    """Return each gateway's state."""
    rows = connection.execute(select(tables.gateways).order_by(tables.gateways.c.gateway))
    return [GatewayState(**_mapping(row)) for row in rows]


def lines(connection: Connection) -> list[tuple[str, str]]:
    """Return (gateway, line) of all lines that have sealed an interval."""
    # From each to the next along the index: DISTINCT would read every interval.
    table = tables.intervals
    line = tuple_(table.c.gateway, table.c.line)
    query = select(table.c.gateway, table.c.line).order_by(table.c.gateway, table.c.line).limit(1)
    found: list[tuple[str, str]] = []
    row = connection.execute(query).one_or_none()
    while row is not None:
        found.append((row.gateway, row.line))
        row = connection.execute(query.where(line > tuple_(row.gateway, row.line))).one_or_none()
    return found


def schemas(connection: Connection, gateway: str) -> list[tuple[int, LineSchema]]:
    """Return a gateway's line schemas with their leaf indices, in the order of the log."""
    table = tables.line_schemas
    found = connection.execute(select(table).where(table.c.gateway == gateway).order_by(table.c.leaf_index))
    return [(row.leaf_index, _schema(row)) for row in found]


def factors(connection: Connection) -> list[FactorLeaf]:
    """Return all factor leaves in the order of the ledger's log: what a FactorTable takes."""
    found = connection.execute(select(tables.factors).order_by(tables.factors.c.leaf_index))
    return [_factor(row) for row in found]


def intervals(
    connection: Connection, gateway: str, line: str, *, first: int = 0, last: int = 2**63 - 1, most: int | None = None
) -> list[IntervalRow]:
    """Return a line's interval leaves with an index from first to last, in the order of the log; the first of them."""
    table = tables.intervals
    query = select(table).where(
        table.c.gateway == gateway, table.c.line == line, table.c.leaf_index >= first, table.c.leaf_index <= last
    )
    return [IntervalRow(**_mapping(row)) for row in connection.execute(query.order_by(table.c.leaf_index).limit(most))]


def settled_range(
    connection: Connection, gateway: str, line: str, *, start_ns: int, end_ns: int
) -> tuple[int, int] | None:
    """Return the first and the last interval leaf on which a line's cells from start_ns to end_ns rest.

    The first is the newest clean one at or before start_ns, else the line's first. The last is the oldest clean one
    at or after end_ns, else the line's newest: then the end is not settled yet. None for an unknown line.
    """
    table = tables.intervals

    def found(query: Select[Any]) -> int | None:
        said: int | None = connection.execute(query.where(table.c.gateway == gateway, table.c.line == line)).scalar()
        return said

    # Clean leaves ascend in time as in the log. So each of these reads a row or two, however long the line is; the
    # whole line is read only where there is no clean one.
    clean = select(table.c.leaf_index).where(table.c.clean).limit(1)
    before = found(clean.where(table.c.t_ns <= start_ns).order_by(table.c.t_ns.desc()))
    after = found(clean.where(table.c.t_ns >= end_ns).order_by(table.c.t_ns))
    first = found(select(func.min(table.c.leaf_index))) if before is None else before
    last = found(select(func.max(table.c.leaf_index))) if after is None else after
    return None if first is None or last is None else (first, last)


def cell_span(connection: Connection, where: Slice) -> tuple[int, int] | None:
    """Return the start of the first and the end of the last cell of a line that overlaps a slice; None for none."""
    table = tables.line_figures
    of_line = select(table.c.start_ns, table.c.end_ns).where(
        table.c.gateway == where.gateway, table.c.line == where.line, table.c.start_ns < where.end_ns
    )
    # A line's cells do not overlap: so two of them say it, and those far before the slice are not read.
    begun = of_line.where(table.c.start_ns <= where.start_ns).order_by(table.c.start_ns.desc()).limit(1)
    first = connection.execute(begun).one_or_none()
    if first is None or first.end_ns <= where.start_ns:
        after = of_line.where(table.c.start_ns > where.start_ns).order_by(table.c.start_ns).limit(1)
        first = connection.execute(after).one_or_none()
    last = connection.execute(of_line.order_by(table.c.start_ns.desc()).limit(1)).one_or_none()
    return None if first is None or last is None else (first.start_ns, last.end_ns)


def own_leaves(connection: Connection, *kinds: str) -> list[OwnLeafRow]:
    """Return where documents, context and statements stand in the ledger's log, in its order; of some kinds or all."""
    table = tables.own_leaves
    query = select(table).order_by(table.c.leaf_index)
    rows = connection.execute(query.where(table.c.kind.in_(kinds)) if kinds else query)
    return [OwnLeafRow(**_mapping(row)) for row in rows]


def newest_of_chain(connection: Connection, kind: str, chain: str) -> int | None:
    """Return the index of the newest leaf of a chain, None for none."""
    table = tables.own_leaves
    query = select(func.max(table.c.leaf_index)).where(table.c.kind == kind, table.c.chain == chain)
    found: int | None = connection.execute(query).scalar_one()
    return found


def statements(connection: Connection, *, record: str | None = None) -> list[StatementRow]:
    """Return statements by record and version; of one record or of all."""
    table = tables.statements
    query = select(table).order_by(table.c.record, table.c.version)
    rows = connection.execute(query if record is None else query.where(table.c.record == record))
    return [StatementRow(**_mapping(row)) for row in rows]


def figures(connection: Connection, where: Slice) -> Iterator[Figure]:
    """Yield meters' rows by gateway, line, time, and the meter's place in the line."""
    table = tables.figures
    query = _sliced(table, table.c.cell_start_ns, where).order_by(
        table.c.gateway, table.c.line, table.c.cell_start_ns, table.c.place
    )
    names = [column.name for column in table.columns]
    before, after = (
        itemgetter(*map(names.index, part)) for part in (Figure._fields[:_SETTING], Figure._fields[_SETTING + 1 :])
    )
    setting = itemgetter(*map(names.index, Setting._fields))
    for row in connection.execute(query):
        yield Figure._make((*before(row), Setting._make(setting(row)), *after(row)))


def line_figures(connection: Connection, where: Slice) -> Iterator[LineFigure]:
    """Yield lines' cells by gateway, line and time."""
    table = tables.line_figures
    query = _sliced(table, table.c.start_ns, where).order_by(table.c.gateway, table.c.line, table.c.start_ns)
    for row in connection.execute(query):
        yield LineFigure(**_with_setting(_mapping(row)))


def cells(connection: Connection, where: Slice) -> Iterator[Cell]:
    """Yield whole cells by gateway, line and time."""
    grouped = groupby(figures(connection, where), key=lambda row: (row.gateway, row.line, row.cell_start_ns))
    held = next(grouped, None)
    for line in line_figures(connection, where):
        rows: tuple[Figure, ...] = ()
        if held is not None and held[0] == (line.gateway, line.line, line.start_ns):
            rows = tuple(held[1])
            held = next(grouped, None)
        yield Cell(line=line, figures=rows)


def totals(connection: Connection, where: Slice) -> Totals:
    """Return exact sums."""
    return Totals.of(cells(connection, where))


def latest(connection: Connection, *, known: bool = False) -> list[LineFigure]:
    """Return each line's newest cell; known: its newest with CO2e."""
    table = tables.line_figures
    newest = select(table.c.gateway, table.c.line, func.max(table.c.start_ns).label("start_ns"))
    if known:
        newest = newest.where(table.c.co2e_g.is_not(None))
    found = newest.group_by(table.c.gateway, table.c.line).subquery()
    query = select(table).join(
        found,
        (table.c.gateway == found.c.gateway) & (table.c.line == found.c.line) & (table.c.start_ns == found.c.start_ns),
    )
    found_rows = connection.execute(query.order_by(table.c.gateway, table.c.line))
    return [LineFigure(**_with_setting(_mapping(row))) for row in found_rows]


def events(connection: Connection, *, most: int, log: str | None = None) -> list[EventRow]:
    """Return the newest events, newest first; of one log ("" is the ledger's own) or of all."""
    table = tables.events
    query = select(table) if log is None else select(table).where(table.c.log == log)
    query = query.order_by(table.c.t_ns.desc(), table.c.log, table.c.leaf_index.desc()).limit(most)
    return [EventRow(**_mapping(row)) for row in connection.execute(query)]


def dump(connection: Connection) -> Iterator[str]:
    """Yield the tables as text, a line a row, in one order: two builds from the same logs give the same lines.

    But for `cycles`: starts are counted live by the plan as it was known then, in a rebuild by one that may have been
    sealed later. They are evidence of alerts, which are leaves of their own; no figure rests on them.
    """
    for table in tables.METADATA.sorted_tables:
        if table is tables.cycles:
            continue
        yield json.dumps([table.name, *(column.name for column in table.columns)], separators=(",", ":"))
        for row in connection.execute(select(table).order_by(*table.primary_key)):
            yield json.dumps([_plain(value) for value in row], separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return text(value)
    if isinstance(value, bytes):
        return value.hex()
    return flag_text(value) if isinstance(value, frozenset) else value


def _sliced(table: Table, start: Any, where: Slice) -> Select[Any]:
    query = select(table).where(start >= where.start_ns, start < where.end_ns)
    if where.gateway is not None:
        query = query.where(table.c.gateway == where.gateway)
    return query if where.line is None else query.where(table.c.line == where.line)


def _with_setting(found: dict[str, Any]) -> dict[str, Any]:
    """Return a figure's columns with those of its setting as one."""
    setting = Setting(*(found.pop(name) for name in Setting._fields))
    return {**found, "setting": setting}


def _mapping(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def _schema(row: Row[Any]) -> LineSchema:
    return LineSchema(
        name=row.line,
        site=row.site,
        zone=row.zone,
        period_s=row.period_s,
        columns=tuple(
            LineColumn(
                point=point,
                unit=unit,
                role=Role(role),
                modulus=None if modulus is None else Decimal(modulus),
                rated_power_w=rated_power_w,
                meter_class=meter_class,
                serial=serial,
            )
            for point, unit, role, modulus, rated_power_w, meter_class, serial in json.loads(row.columns)
        ),
        context=tuple(ContextColumn(point=point, what=What(what)) for point, what in json.loads(row.context)),
    )


def _factor(row: Row[Any]) -> FactorLeaf:
    factor = Factor(
        key=(row.provider, row.zone, row.signal, row.type, row.granularity),
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        g_per_kwh=row.g_per_kwh,
        unit=row.unit,
        state=row.state,
        method=row.method,
        source=row.source,
        version=row.version,
        supersedes=row.supersedes,
        model_date=row.model_date,
        updated_ns=row.updated_ns,
        gwp_set=row.gwp_set,
        uncertainty_pct=row.uncertainty_pct,
    )
    return FactorLeaf(factor=factor, index=row.leaf_index, hash=row.leaf_hash)
