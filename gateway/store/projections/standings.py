"""Which interval leaves are quarantined, and where gateways' epochs begin."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from gateway.store.projections import tables
from gateway.store.projections.read import Slice
from gateway.store.projections.write import IntervalRow, put


class Quarantined(NamedTuple):
    """A line's quarantined interval leaves that follow each other without another one between.

    first, last: of them, in the gateway's log. start_ns, end_ns: their earliest and latest time.
    """

    gateway: str
    line: str
    first: int
    last: int
    leaves: int
    start_ns: int
    end_ns: int


def put_epochs(connection: Connection, rows: Iterable[tuple[str, int, int, str, str]]) -> None:
    """Add epoch leaves: gateway, leaf, number, key, type of binding."""
    put(connection, tables.epochs, [dict(zip(tables.epochs.c.keys(), row, strict=True)) for row in rows])


def epochs(connection: Connection) -> list[tuple[str, int, int, str, str]]:
    """Return all gateways' epoch leaves in the order of each one's log."""
    table = tables.epochs
    query = select(table).order_by(table.c.gateway, table.c.leaf_index)
    return [(row.gateway, row.leaf_index, row.epoch, row.key, row.binding) for row in connection.execute(query)]


def intervals_from(connection: Connection, gateway: str, first: int) -> Iterator[tuple[int, str, bool]]:
    """Yield leaf, line, and whether it is quarantined, of a gateway's interval leaves from one on, in its order."""
    table = tables.intervals
    query = select(table.c.leaf_index, table.c.line, table.c.quarantined).where(
        table.c.gateway == gateway, table.c.leaf_index >= first
    )
    for row in connection.execute(query.order_by(table.c.leaf_index)):
        yield row.leaf_index, row.line, row.quarantined


def clean_before(connection: Connection, gateway: str, line: str, index: int) -> IntervalRow | None:
    """Return a line's newest clean interval leaf before an index, None for none."""
    return _clean(connection, gateway, line, index, newest=True)


def clean_from(connection: Connection, gateway: str, line: str, index: int) -> IntervalRow | None:
    """Return a line's oldest clean interval leaf from an index on, None for none."""
    return _clean(connection, gateway, line, index, newest=False)


def _clean(connection: Connection, gateway: str, line: str, index: int, *, newest: bool) -> IntervalRow | None:
    table = tables.intervals
    query = select(table).where(table.c.gateway == gateway, table.c.line == line, table.c.clean)
    if newest:
        query = query.where(table.c.leaf_index < index).order_by(table.c.leaf_index.desc())
    else:
        query = query.where(table.c.leaf_index >= index).order_by(table.c.leaf_index)
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else IntervalRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def leaves_between(connection: Connection, gateway: str, start_ns: int, end_ns: int) -> tuple[int, int] | None:
    """Return the first and the last of a gateway's interval leaves whose time is in (start_ns, end_ns]; None for none.

    An interval leaf closes the interval before it.
    """
    table = tables.intervals
    query = select(func.min(table.c.leaf_index), func.max(table.c.leaf_index)).where(
        table.c.gateway == gateway, table.c.t_ns > start_ns, table.c.t_ns <= end_ns
    )
    first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def newest_time(connection: Connection, gateway: str) -> int | None:
    """Return the latest time of a gateway's interval leaves, None for none."""
    table = tables.intervals
    found: int | None = connection.execute(
        select(func.max(table.c.t_ns)).where(table.c.gateway == gateway)
    ).scalar_one()
    return found


def quarantined_counts(connection: Connection) -> dict[str, int]:
    """Return how many interval leaves are quarantined, by gateway; those alone that have some."""
    table = tables.intervals
    query = select(table.c.gateway, func.count()).where(table.c.quarantined).group_by(table.c.gateway)
    return {row[0]: row[1] for row in connection.execute(query.order_by(table.c.gateway))}


def quarantined(connection: Connection, where: Slice) -> list[Quarantined]:
    """Return the runs of quarantined leaves of lines whose time is in (start_ns, end_ns], by gateway, line, leaf.

    An interval leaf closes the interval before it: so those are the ones that such cells would rest on.
    """
    table = tables.intervals
    query = select(table).where(table.c.t_ns > where.start_ns, table.c.t_ns <= where.end_ns)
    if where.gateway is not None:
        query = query.where(table.c.gateway == where.gateway)
    if where.line is not None:
        query = query.where(table.c.line == where.line)
    found: list[Quarantined] = []
    before: tuple[str, str] | None = None
    for row in connection.execute(query.order_by(table.c.gateway, table.c.line, table.c.leaf_index)):
        line, t_ns = (row.gateway, row.line), row.t_ns
        if not row.quarantined:
            before = None
        elif before == line:
            run = found[-1]
            found[-1] = run._replace(
                last=row.leaf_index,
                leaves=run.leaves + 1,
                start_ns=min(run.start_ns, t_ns),
                end_ns=max(run.end_ns, t_ns),
            )
        else:
            found.append(Quarantined(*line, row.leaf_index, row.leaf_index, 1, t_ns, t_ns))
            before = line
    return found
