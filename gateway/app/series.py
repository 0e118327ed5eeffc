"""What points read over a time: from the readings leaves of a gateway's log, its copy at the ledger."""

import contextlib
from collections.abc import Callable, Collection, Iterable

from gateway.app.factbook import leaves_of
from gateway.codec.checks import to_schema
from gateway.codec.readings import seen_in
from gateway.errors import TrustError
from gateway.model import ClockState, Schema
from gateway.store.segments import Log

Series = list[tuple[int, float]]
"""Times in UTC ns, and values, in order of time. GOOD numbers alone."""

_SLACK_NS = 600_000_000_000
"""A leaf is sealed at most so long after what it holds was read, an outage of the seal aside."""
_PROBE_BYTES = 1 << 16


def read_series(
    log: Log,
    points: Collection[str],
    *,
    schemas: Iterable[int],
    start_ns: int,
    end_ns: int,
    counts: Callable[[int], bool],
) -> dict[str, Series]:
    """Return by `<device>.<point>` what was read in [start_ns, end_ns); bodies that were dropped are passed over.

    Only what was sealed in that time is read, so that a long log costs no more than a short one. schemas: where those
    of readings stand. counts: whether figures may rest on a leaf.
    """
    found: dict[str, Series] = {point: [] for point in points}
    known: dict[bytes, Schema] = {}
    wanted: dict[bytes, dict[int, str]] = {}
    for place in schemas:
        for _, leaf in leaves_of(log, place, place + 1):
            schema = to_schema(leaf.body)
            if isinstance(schema, Schema):
                names = {n: f"{schema.device}.{column.name}" for n, column in enumerate(schema.columns)}
                if ours := {n: name for n, name in names.items() if name in found}:
                    known[schema.id], wanted[schema.id] = schema, ours
    stop_ns = end_ns + _SLACK_NS
    for index, leaf in leaves_of(log, first_since(log, start_ns), log.durable):
        if leaf.clock.t_ns >= stop_ns and leaf.clock.state != ClockState.SUSPECT:
            break
        if leaf.kind == "readings" and start_ns <= leaf.clock.t_ns < stop_ns and counts(index):
            with contextlib.suppress(TrustError):  # a leaf that does not fit its schema says nothing
                for seen in seen_in(leaf.body, known, wanted, sealed_ns=leaf.clock.t_ns):
                    if start_ns <= seen.t_ns < end_ns and isinstance(seen.value, int | float):
                        found[wanted[seen.schema.id][seen.column]].append((seen.t_ns, float(seen.value)))
    return {point: sorted(series) for point, series in found.items()}


def first_since(log: Log, t_ns: int) -> int:
    """Return the leaf from which on a log holds all that was sealed at an instant or later.

    A clock that is not SUSPECT never falls behind what was sealed before (clock.py); so the others are passed over, and
    halving finds it. Where no clock was to be trusted it is the first leaf.
    """
    first, stop = 0, log.durable
    while first < stop:
        middle = (first + stop) // 2
        for index, leaf in leaves_of(log, middle, stop, read_bytes=_PROBE_BYTES):
            if leaf.clock.state != ClockState.SUSPECT:
                first, stop = (index + 1, stop) if leaf.clock.t_ns < t_ns else (first, middle)
                break
        else:
            stop = middle
    return first


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
