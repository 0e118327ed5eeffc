"""Starts and loaded time of assets by minute, and what else alerts ask for: evidence beside the figures."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, func, or_, select

from gateway.carbon.alerts.cycles import Minute
from gateway.store.projections import tables
from gateway.store.projections.write import EventRow, put


class Cycled(NamedTuple):
    """What an asset did in a window. starts: from off to on. loaded_ns: running, of seen_ns."""

    starts: int
    loaded_ns: int
    seen_ns: int


def put_point_schema(connection: Connection, gateway: str, leaf_index: int) -> None:
    """Add where a schema of readings stands."""
    put(connection, tables.point_schemas, [{"gateway": gateway, "leaf_index": leaf_index}])


def point_schemas(connection: Connection, gateway: str) -> list[int]:
    """Return where a gateway's schemas of readings stand in its log, in its order."""
    table = tables.point_schemas
    query = select(table.c.leaf_index).where(table.c.gateway == gateway).order_by(table.c.leaf_index)
    return list(connection.execute(query).scalars())


def put_cycles(connection: Connection, gateway: str, line: str, asset: str, minutes: Iterable[Minute]) -> None:
    """Add an asset's minutes; one that is there is replaced."""
    key = {"gateway": gateway, "line": line, "asset": asset}
    put(connection, tables.cycles, [{**key, **asdict(minute)} for minute in minutes])


def newest_cycle(connection: Connection, gateway: str, line: str, asset: str) -> Minute | None:
    """Return the newest minute of an asset, None for none."""
    table = tables.cycles
    query = select(table).where(table.c.gateway == gateway, table.c.line == line, table.c.asset == asset)
    row = connection.execute(query.order_by(table.c.start_ns.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return Minute(
        start_ns=row.start_ns,
        starts=row.starts,
        loaded_ns=row.loaded_ns,
        seen_ns=row.seen_ns,
        last_ns=row.last_ns,
        running=row.running,
    )


def cycled(connection: Connection, gateway: str, line: str, start_ns: int, end_ns: int) -> Mapping[str, Cycled]:
    """Return by asset what was counted in the minutes that start in [start_ns, end_ns)."""
    table = tables.cycles
    query = select(
        table.c.asset, func.sum(table.c.starts), func.sum(table.c.loaded_ns), func.sum(table.c.seen_ns)
    ).where(table.c.gateway == gateway, table.c.line == line, table.c.start_ns >= start_ns, table.c.start_ns < end_ns)
    rows = connection.execute(query.group_by(table.c.asset).order_by(table.c.asset))
    return {asset: Cycled(starts, loaded_ns, seen_ns) for asset, starts, loaded_ns, seen_ns in rows}


def products_made(
    connection: Connection, gateway: str, line: str, start_ns: int, end_ns: int, *, least_ns: int
) -> set[tuple[str, str]]:
    """Return (product, recipe) of what was made for so long, at least, in a line's cells that start in a window."""
    table = tables.line_figures
    nothing = Decimal(0)
    query = select(table.c.product, table.c.recipe).where(
        table.c.gateway == gateway,
        table.c.line == line,
        table.c.start_ns >= start_ns,
        table.c.start_ns < end_ns,
        or_(table.c.units_good != nothing, table.c.units_total != nothing),
    )
    enough = func.sum(table.c.end_ns - table.c.start_ns) >= least_ns
    rows = connection.execute(query.group_by(table.c.product, table.c.recipe).having(enough))
    return {(row.product, row.recipe) for row in rows}


def events_named(connection: Connection, *names: str, log: str = "") -> list[EventRow]:
    """Return the events of these names in a log ("" is the ledger's own), in its order."""
    table = tables.events
    query = select(table).where(table.c.log == log, table.c.what.in_(names)).order_by(table.c.leaf_index)
    return [
        EventRow(log=row.log, leaf_index=row.leaf_index, what=row.what, t_ns=row.t_ns, about=row.about)
        for row in connection.execute(query)
    ]
