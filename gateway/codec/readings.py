"""What some columns read, from a readings leaf of any form: rows, changes, or an agent's frames."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from gateway.codec.agent_leaves import frames_of
from gateway.codec.changes import changes_of
from gateway.codec.checks import rows_of
from gateway.model import Change, Quality, Schema, Value


class Seen(NamedTuple):
    """One value of one column. value: None unless it is GOOD. told: the device told it by itself, as a change."""

    schema: Schema
    column: int
    t_ns: int
    value: Value | None
    told: bool


def seen_in(
    body: Mapping[str, Any], schemas: Mapping[bytes, Schema], wanted: Mapping[bytes, Collection[int]], *, sealed_ns: int
) -> Iterator[Seen]:
    """Yield what a checked readings body says of the wanted columns, by schema; other schemas cost next to nothing.

    sealed_ns: the leaf's own time, for frames without a clock. Raises TrustError for what does not fit its schema.
    """
    rows = [row for row in body.get("rows", ()) if row[0] in wanted]
    for row in rows_of({"rows": rows}, schemas):
        for column in wanted[row.schema.id]:
            good = row.qualities is None or row.qualities[column] == Quality.GOOD
            yield Seen(row.schema, column, row.source_time_ns, row.values[column] if good else None, told=False)
    groups = [group for group in body.get("changes", ()) if group[0] in wanted]
    for change in changes_of({"changes": groups}, schemas):
        yield from _of_change(change, wanted, told=True)
    if body.get("schema") in wanted:  # an agent's, at a cadence of its own
        for change in frames_of(body, schemas, sealed_ns=sealed_ns):
            yield from _of_change(change, wanted, told=False)


def _of_change(change: Change, wanted: Mapping[bytes, Collection[int]], *, told: bool) -> Iterator[Seen]:
    if change.column in wanted[change.schema.id]:
        value = change.value if change.quality == Quality.GOOD else None
        yield Seen(change.schema, change.column, change.source_time_ns, value, told)
