"""Which time's cells change when a gateway's leaves are judged anew."""

from gateway.store import projections as tables
from gateway.store.projections import Connection


def window_of(connection: Connection, gateway: str, first: int, stop: int) -> tuple[int, int] | None:
    """Return from when to when cells may change by leaves [first, stop); None where no interval leaf is among them.

    From the newest clean leaf before them to the oldest one after them: no other cell of a line rests on them.
    """
    lines = {line for index, line, _ in tables.intervals_from(connection, gateway, first) if index < stop}
    if not lines:
        return None
    newest = (tables.newest_time(connection, gateway) or 0) + 1
    before = [tables.clean_before(connection, gateway, line, first) for line in lines]
    after = [tables.clean_from(connection, gateway, line, stop) for line in lines]
    start_ns = min(0 if row is None else row.t_ns for row in before)
    end_ns = max(newest if row is None else row.t_ns for row in after)
    return (start_ns, end_ns) if start_ns < end_ns else None
