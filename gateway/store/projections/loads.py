"""A line's electricity as loads, summed by the database: a year of it is asked at once."""

from sqlalchemy import Connection, case, func, select

from gateway.carbon.figures import MODELLED, SCOPE_2
from gateway.carbon.loads import HOUR_NS, LoadKey
from gateway.store.projections import tables


def line_loads(
    connection: Connection, gateway: str, line: str, *, start_ns: int, end_ns: int
) -> list[tuple[LoadKey, int]]:
    """Return what the cells of a line that start in [start_ns, end_ns) are part of: by load, milliwatt-hours.

    The same sums as carbon/loads.py makes of their figures; in order of time.
    """
    table = tables.figures
    hour = table.c.start_ns // HOUR_NS * HOUR_NS
    within = table.c.end_ns <= hour + HOUR_NS
    begin = case((within, hour), else_=table.c.start_ns).label("begin")
    end = case((within, hour + HOUR_NS), else_=table.c.end_ns).label("end")
    key = (table.c.zone, begin, end, table.c.factor_g_per_kwh)
    query = (
        select(*key, func.sum(table.c.energy_mwh))
        .where(
            table.c.gateway == gateway,
            table.c.line == line,
            table.c.cell_start_ns >= start_ns,
            table.c.cell_start_ns < end_ns,
            table.c.scope == SCOPE_2,
            table.c.kind != MODELLED,
            table.c.energy_mwh.is_not(None),
        )
        .group_by(*key)
        .order_by(begin, end, table.c.zone, table.c.factor_g_per_kwh)
    )
    return [((row[0], row[1], row[2], row[3]), row[4]) for row in connection.execute(query)]
