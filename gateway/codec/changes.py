"""Changes as they stand in a readings leaf: columns side by side, so that a change costs a few bytes.

Normative form: docs/log.md, section 1, "readings".
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.codec.pack import pack
from gateway.errors import TrustError
from gateway.model import Change, Quality, Schema, Value

_FIXED = 2 + 8 + 1
"""Bytes of a change beside its value: its column, its time, its quality."""
GROUP_BYTES = 64
"""Bytes that each schema takes beside its changes, at most."""


def size_of(change: Change) -> int:
    """Return how many bytes of a leaf a change takes, at most."""
    size = _FIXED + change.schema.cells[change.column].size
    size += len(change.status.encode()) + 8 if change.status else 0
    return size if change.low is None else size + 2 * change.schema.cells[change.column].size + 12


def changes_body(changes: Sequence[Change]) -> bytes:
    """Return the body of a readings leaf: the changes of each schema in order."""
    groups: dict[bytes, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.schema.id, []).append(change)
    return pack({"changes": [_group(group) for group in groups.values()]})


def _group(changes: Sequence[Change]) -> list[Any]:
    count = len(changes)
    cells = changes[0].schema.cells
    qualities = bytes(change.quality for change in changes)
    return [
        changes[0].schema.id,
        struct.pack(f">{count}H", *[change.column for change in changes]),
        struct.pack(f">{count}Q", *[change.source_time_ns for change in changes]),
        b"".join([_cell(cells[change.column], change.value) for change in changes]),
        qualities if any(qualities) else None,
        [[place, change.status] for place, change in enumerate(changes) if change.status] or None,
        [
            [place, _cell(cells[change.column], change.low), _cell(cells[change.column], change.high)]
            for place, change in enumerate(changes)
            if change.low is not None
        ]
        or None,
    ]


def _cell(cell: struct.Struct, value: Value | None) -> bytes:
    if value is None:
        return bytes(cell.size)
    return cell.pack(value.encode() if isinstance(value, str) else value)


def good_changes(value: Any) -> bool:
    """Return whether this can be what stands under "changes": all but what only the schemas can tell."""
    return type(value) is list and all(map(_good_group, value))


def _good_group(group: Any) -> bool:
    if type(group) is not list or len(group) != 7:
        return False
    schema_id, columns, times, values, qualities, statuses, extremes = group
    if type(schema_id) is not bytes or len(schema_id) != 8 or type(columns) is not bytes or len(columns) % 2:
        return False
    count = len(columns) // 2
    return (
        count > 0
        and type(times) is bytes
        and len(times) == 8 * count
        and max(times[::8]) < 0x80  # all below 2**63
        and type(values) is bytes
        and (qualities is None or (type(qualities) is bytes and len(qualities) == count and max(qualities) <= 2))
        and _good_notes(statuses, count, (str,))
        and _good_notes(extremes, count, (bytes, bytes))
    )


def _good_notes(notes: Any, count: int, kinds: tuple[type, ...]) -> bool:
    """Return whether these are notes on some of the changes, in their order, each once."""
    if notes is None:
        return True
    if type(notes) is not list or not notes:
        return False
    last = -1
    for note in notes:
        if type(note) is not list or tuple(map(type, note)) != (int, *kinds) or not last < note[0] < count:
            return False
        last = note[0]
    return True


def changes_of(body: Mapping[str, Any], schemas: Mapping[bytes, Schema]) -> Iterator[Change]:
    """Yield the changes of a checked readings body. Raises TrustError for what does not fit its schema."""
    for schema_id, columns, times, values, qualities, statuses, extremes in body.get("changes", ()):
        schema = schemas.get(schema_id)
        if schema is None:
            raise TrustError(f"readings: schema {schema_id.hex()} is not in the log before this leaf")
        count = len(columns) // 2
        places = struct.unpack(f">{count}H", columns)
        if max(places) >= len(schema.columns):
            raise TrustError(f"readings: column: got {max(places)}, want one of {len(schema.columns)}")
        if len(values) != sum(schema.cells[place].size for place in places):
            raise TrustError(f"readings: got {len(values)} bytes of values, which do not fit their columns")
        marks = qualities or bytes(count)
        said = dict(statuses or ())
        seen = {place: (low, high) for place, low, high in extremes or ()}
        at = 0
        for number, (place, t_ns) in enumerate(zip(places, struct.unpack(f">{count}Q", times), strict=True)):
            cell, quality = schema.cells[place], Quality(marks[number])
            low, high = (_value(cell, packed) for packed in seen[number]) if number in seen else (None, None)
            yield Change(
                schema=schema,
                column=place,
                source_time_ns=t_ns,
                value=None if quality is Quality.BAD else _value(cell, values[at : at + cell.size]),
                quality=quality,
                status=said.get(number, ""),
                low=low,
                high=high,
            )
            at += cell.size


def _value(cell: struct.Struct, packed: bytes) -> Value:
    if len(packed) != cell.size:
        raise TrustError(f"readings: got {len(packed)} bytes of a value, want {cell.size}")
    value: Value | bytes = cell.unpack(packed)[0]
    if not isinstance(value, bytes):
        return value
    try:
        return value.rstrip(b"\0").decode()
    except UnicodeDecodeError as e:
        raise TrustError("readings: a text column is not UTF-8") from e
