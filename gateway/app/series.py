"""What points read over a time: from the readings leaves of a gateway's log, its copy at the ledger."""

import contextlib
from collections.abc import Callable, Collection, Iterator

from gateway.codec.checks import to_schema
from gateway.codec.leaves import Leaf, parse
from gateway.codec.readings import seen_in
from gateway.errors import TrustError
from gateway.model import Schema
from gateway.store.segments import Log

Series = list[tuple[int, float]]
"""Times in UTC ns, and values, in order of time. GOOD numbers alone."""

_READ_BYTES = 4 << 20
_SLACK_NS = 600_000_000_000
"""A leaf is sealed at most so long after what it holds was read, an outage of the seal aside."""


def read_series(
    log: Log, points: Collection[str], *, start_ns: int, end_ns: int, counts: Callable[[int], bool]
) -> dict[str, Series]:
    """Return by `<device>.<point>` what was read in [start_ns, end_ns); bodies that were dropped are passed over.

    counts: whether figures may rest on a leaf.
    """
    found: dict[str, Series] = {point: [] for point in points}
    schemas: dict[bytes, Schema] = {}
    wanted: dict[bytes, dict[int, str]] = {}
    for index, leaf in _leaves(log):
        if leaf.kind == "schema":
            schema = to_schema(leaf.body)
            if isinstance(schema, Schema):
                schemas[schema.id] = schema
                names = {place: f"{schema.device}.{column.name}" for place, column in enumerate(schema.columns)}
                if ours := {place: name for place, name in names.items() if name in found}:
                    wanted[schema.id] = ours
        elif leaf.kind == "readings" and start_ns <= leaf.clock.t_ns < end_ns + _SLACK_NS and counts(index):
            with contextlib.suppress(TrustError):  # a leaf that does not fit its schema says nothing
                for seen in seen_in(leaf.body, schemas, wanted, sealed_ns=leaf.clock.t_ns):
                    if start_ns <= seen.t_ns < end_ns and isinstance(seen.value, int | float):
                        found[wanted[seen.schema.id][seen.column]].append((seen.t_ns, float(seen.value)))
    return {point: sorted(series) for point, series in found.items()}


def _leaves(log: Log) -> Iterator[tuple[int, Leaf]]:
    first = 0
    while first < log.durable:
        bodies = log.read(first, _READ_BYTES, log.durable)
        start, first = first, first + len(bodies)
        for index, body in enumerate(bodies, start):
            if body is None:
                continue
            try:
                yield index, parse(body)
            except TrustError:
                continue  # said when it was accepted


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
