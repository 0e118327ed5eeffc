"""What the closing of shifts asks: how far a line is, which periods it has cells in, and what was stated."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, case, func, select

from gateway.store.projections import tables

_DAY_NS = 86_400_000_000_000


class HeldPeriod(NamedTuple):
    """A shift, or where shift is "" a UTC day, in which a line has cells: from the first one's start to an end."""

    shift: str
    start_ns: int
    end_ns: int


class NewestStatement(NamedTuple):
    """A record's newest statement. is_settled: no leaf that was still to come could change it."""

    record: str
    version: int
    leaf_index: int
    subject: str
    is_settled: bool


class Origin(NamedTuple):
    """What sealed a fact: a factor of a key and window, another version's successor; or a leaf of another kind."""

    kind: str
    key: str = ""
    start_ns: int = 0
    value: str = ""
    state: str = ""
    version: str = ""
    supersedes: str = ""


def line_zones(connection: Connection) -> list[tuple[str, str, str]]:
    """Return (gateway, line, grid zone) of all that any schema names."""
    table = tables.line_schemas
    query = select(table.c.gateway, table.c.line, table.c.zone).distinct()
    rows = connection.execute(query.order_by(table.c.gateway, table.c.line, table.c.zone))
    return [(row.gateway, row.line, row.zone) for row in rows]


def own_size(connection: Connection) -> int:
    """Return how far the ledger's own log is projected."""
    query = select(tables.gateways.c.size).where(tables.gateways.c.gateway == "")
    return int(connection.execute(query).scalar_one_or_none() or 0)


def newest_cell_end(connection: Connection, gateway: str, line: str) -> int | None:
    """Return where a line's newest cell ends, None where it has none."""
    table = tables.line_figures
    query = select(table.c.end_ns).where(table.c.gateway == gateway, table.c.line == line)
    found: int | None = connection.execute(query.order_by(table.c.start_ns.desc()).limit(1)).scalar_one_or_none()
    return found


def settles(connection: Connection, gateway: str, line: str, t_ns: int) -> bool:
    """Return whether a clean leaf stands at or after an instant: then no later one changes a cell before it."""
    table = tables.intervals
    query = select(table.c.leaf_index).where(
        table.c.gateway == gateway, table.c.line == line, table.c.t_ns >= t_ns, table.c.clean
    )
    return connection.execute(query.order_by(table.c.t_ns).limit(1)).first() is not None


def held_periods(connection: Connection, gateway: str, line: str, *, since_ns: int) -> list[HeldPeriod]:
    """Return the periods of a line's cells that start at since_ns or later, by their start."""
    table = tables.line_figures
    day = case((table.c.shift == "", table.c.start_ns // _DAY_NS), else_=0)
    query = (
        select(table.c.shift, func.min(table.c.start_ns), func.max(table.c.end_ns))
        .where(table.c.gateway == gateway, table.c.line == line, table.c.start_ns >= since_ns)
        .group_by(table.c.shift, day)
    )
    return sorted((HeldPeriod(*row) for row in connection.execute(query)), key=lambda held: held.start_ns)


def newest_statements(connection: Connection) -> list[NewestStatement]:
    """Return each record's newest statement, without its figures."""
    table = tables.statements
    newest = select(table.c.record, func.max(table.c.version).label("version")).group_by(table.c.record).subquery()
    query = select(
        table.c.record,
        table.c.version,
        table.c.leaf_index,
        table.c.subject,
        table.c.figures.contains('"provisional_because":"unsettled').label("unsettled"),
    ).join(newest, (table.c.record == newest.c.record) & (table.c.version == newest.c.version))
    rows = connection.execute(query.order_by(table.c.record))
    return [NewestStatement(r.record, r.version, r.leaf_index, r.subject, not r.unsettled) for r in rows]


def origin_of(connection: Connection, index: int) -> Origin:
    """Return what a leaf of the ledger's log is; the empty kind where the tables do not name it."""
    factors, others = tables.factors, tables.own_leaves
    row = connection.execute(select(factors).where(factors.c.leaf_index == index)).first()
    if row is not None:
        key = "/".join(part for part in (row.provider, row.zone, row.signal, row.type, row.granularity) if part)
        value = f"{row.g_per_kwh:f}"
        return Origin("factor", key, row.start_ns, value, row.state, row.version, row.supersedes)
    other = connection.execute(select(others).where(others.c.leaf_index == index)).first()
    return Origin("") if other is None else Origin(other.kind, other.chain)


def factor_of_version(connection: Connection, version: str, *, before: int, start_ns: int) -> str:
    """Return the value of a version of a factor's window that was sealed before a leaf, "" where none was."""
    table = tables.factors
    query = select(table.c.g_per_kwh).where(
        table.c.version == version, table.c.start_ns == start_ns, table.c.leaf_index < before
    )
    found = connection.execute(query.limit(1)).scalar_one_or_none()
    return "" if found is None else f"{found:f}"


class FigureKey(NamedTuple):
    """What a row's record is made of, and the start of its cell."""

    gateway: str
    line: str
    meter: str
    start_ns: int
    cell_start_ns: int


def figure_keys(connection: Connection, gateway: str, line: str, *, start_ns: int, end_ns: int) -> Iterator[FigureKey]:
    """Yield the keys of the rows of a line's cells that start in [start_ns, end_ns), the newest first."""
    table = tables.figures
    start = table.c.cell_start_ns
    query = select(*(table.c[name] for name in FigureKey._fields)).where(
        table.c.gateway == gateway, table.c.line == line, start >= start_ns, start < end_ns
    )
    for row in connection.execute(query.order_by(start.desc())):
        yield FigureKey._make(row)
