"""What points read over a time: from the readings leaves of a gateway's log, its copy at the ledger."""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain

from gateway.codec.agent_leaves import frames_of
from gateway.codec.changes import changes_of
from gateway.codec.checks import rows_of, to_schema
from gateway.codec.leaves import Leaf, parse
from gateway.errors import TrustError
from gateway.model import Change, Quality, Row, Schema
from gateway.store.segments import Log

Series = list[tuple[int, float]]
"""Times in UTC ns, and values, in order of time. GOOD numbers alone."""

_READ_BYTES = 4 << 20
_SLACK_NS = 600_000_000_000
"""A leaf is sealed at most so long after what it holds was read, an outage of the seal aside."""


def read_series(log: Log, points: Collection[str], *, start_ns: int, end_ns: int) -> dict[str, Series]:
    """Return by `<device>.<point>` what was read in [start_ns, end_ns); bodies that were dropped are passed over."""
    found: dict[str, Series] = {point: [] for point in points}
    schemas: dict[bytes, Schema] = {}
    for leaf in _leaves(log):
        if leaf.kind == "schema":
            schema = to_schema(leaf.body)
            if isinstance(schema, Schema):
                schemas[schema.id] = schema
        elif leaf.kind == "readings" and start_ns <= leaf.clock.t_ns < end_ns + _SLACK_NS:
            for point, t_ns, value in _told(leaf, schemas, found):
                if start_ns <= t_ns < end_ns:
                    found[point].append((t_ns, value))
    return {point: sorted(series) for point, series in found.items()}


def _leaves(log: Log) -> Iterator[Leaf]:
    first = 0
    while first < log.durable:
        bodies = log.read(first, _READ_BYTES, log.durable)
        first += len(bodies)
        for body in bodies:
            if body is None:
                continue
            try:
                yield parse(body)
            except TrustError:
                continue  # said when it was accepted


def _told(leaf: Leaf, schemas: Mapping[bytes, Schema], points: Collection[str]) -> Iterator[tuple[str, int, float]]:
    try:
        for row in rows_of(leaf.body, schemas):
            yield from _of_row(row, points)
        frames = frames_of(leaf.body, schemas, sealed_ns=leaf.clock.t_ns) if "frames" in leaf.body else ()
        for change in chain(changes_of(leaf.body, schemas), frames):
            yield from _of_change(change, points)
    except TrustError:
        return  # a leaf that does not fit its schema says nothing


def _of_row(row: Row, points: Collection[str]) -> Iterator[tuple[str, int, float]]:
    for place, column in enumerate(row.schema.columns):
        point, value = f"{row.schema.device}.{column.name}", row.values[place]
        good = row.qualities is None or row.qualities[place] == Quality.GOOD
        if point in points and good and isinstance(value, int | float):
            yield point, row.source_time_ns, float(value)


def _of_change(change: Change, points: Collection[str]) -> Iterator[tuple[str, int, float]]:
    point = f"{change.schema.device}.{change.schema.columns[change.column].name}"
    if point in points and change.quality == Quality.GOOD and isinstance(change.value, int | float):
        yield point, change.source_time_ns, float(change.value)


def means(series: Series, *, start_ns: int, step_ns: int, steps: int, hold_ns: int) -> list[float | None]:
    """Return the mean of each step, each value holding until the next one, hold_ns at most; None where none does."""
    found: list[float | None] = []
    place, held = 0, None
    for number in range(steps):
        begin, end = start_ns + number * step_ns, start_ns + (number + 1) * step_ns
        area = covered = 0.0
        while True:
            following = series[place][0] if place < len(series) else end
            if held is not None:
                low, high = max(begin, held[0]), min(end, following, held[0] + hold_ns)
                if high > low:
                    area, covered = area + held[1] * (high - low), covered + high - low
            if place >= len(series) or series[place][0] >= end:
                break
            held = series[place]
            place += 1
        found.append(area / covered if covered >= step_ns / 2 else None)
    return found
