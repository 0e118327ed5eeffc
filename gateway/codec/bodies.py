"""Bodies of leaves, made from the model's types.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from gateway.codec.pack import pack
from gateway.model import (
    ContextFact,
    CountFact,
    Decision,
    Document,
    Factor,
    Interval,
    LineSchema,
    Quality,
    Row,
    Schema,
    Standing,
    Statement,
    Value,
)

PackedRow = list[Any]
"""A row as it stands in a readings leaf: a fraction of the memory that its values take."""


def readings_body(rows: Iterable[Row]) -> bytes:
    """Return the body of a readings leaf: the rows in order."""
    return packed_rows_body([packed_row(row) for row in rows])


def packed_rows_body(rows: Sequence[PackedRow]) -> bytes:
    """Return the body of a readings leaf from rows that are packed."""
    return pack({"rows": rows})


def packed_row(row: Row) -> PackedRow:
    """Return a row with its values as one struct."""
    schema, qualities = row.schema, row.qualities
    if qualities is None:
        values = schema.layout.pack(*_plain(row)) if schema.has_text else schema.layout.pack(*row.values)
        return [schema.id, row.source_time_ns, values, None, row.status or None]
    packed = None if all(q == Quality.BAD for q in qualities) else schema.layout.pack(*_plain(row))
    return [schema.id, row.source_time_ns, packed, bytes(qualities), row.status or None]


def _plain(row: Row) -> Iterator[Value | bytes]:
    for value, column in zip(row.values, row.schema.columns, strict=True):
        if column.store[0] == "s":
            yield b"" if value is None else str(value).encode()
        else:
            yield 0 if value is None else value


def schema_body(schema: Schema) -> bytes:
    """Return the body of a schema leaf for readings."""
    columns = [[c.name, c.unit, c.store] for c in schema.columns]
    return pack({"id": schema.id, "device": schema.device, "columns": columns})


def line_body(line: LineSchema) -> bytes:
    """Return the body of a schema leaf for intervals."""
    columns = [
        [c.point, c.unit, str(c.role), _text(c.modulus), c.rated_power_w, c.meter_class, c.serial] for c in line.columns
    ]
    head = {"name": line.name, "site": line.site, "zone": line.zone, "period_s": line.period_s}
    body = {"id": line.id, "line": head, "columns": columns}
    if line.context:
        body["context"] = [[c.point, str(c.what)] for c in line.context]
    return pack(body)


def interval_body(interval: Interval) -> bytes:
    """Return the body of an interval leaf."""
    samples = [[s.source_time_ns, s.raw, _text(s.value), int(s.quality), s.status or None] for s in interval.samples]
    body = {"schema": interval.schema_id, "t": interval.t_ns, "samples": samples}
    if interval.context:
        body["context"] = [[list(told) for told in column] for column in interval.context]
    return pack(body)


def event_body(what: str, t_ns: int, about: Mapping[str, Any]) -> bytes:
    """Return the body of an event leaf. about: strings, numbers, and lists of them."""
    return pack({"what": what, "t": t_ns, "about": dict(about)})


def epoch_body(epoch: int, vkey: str, binding: Mapping[str, Any]) -> bytes:
    """Return the body of an epoch leaf: vkey signs from here on."""
    return pack({"epoch": epoch, "key": vkey, "binding": dict(binding)})


def factor_body(factor: Factor) -> bytes:
    """Return the body of a factor leaf."""
    return pack(
        {
            "key": list(factor.key),
            "start": factor.start_ns,
            "end": factor.end_ns,
            "value": _text(factor.g_per_kwh),
            "unit": factor.unit,
            "state": factor.state,
            "method": factor.method,
            "source": factor.source,
            "version": factor.version,
            "supersedes": factor.supersedes,
            "model_date": factor.model_date,
            "updated": factor.updated_ns,
            "gwp_set": factor.gwp_set,
            "uncertainty_pct": _text(factor.uncertainty_pct),
        }
    )


def document_body(document: Document) -> bytes:
    """Return the body of a document leaf."""
    return pack(
        {
            "name": document.name,
            "from": document.from_ns,
            "content": document.content,
            "by": document.by,
            "rules": [list(rule) for rule in document.rules],
        }
    )


def context_body(fact: ContextFact) -> bytes:
    """Return the body of a context leaf."""
    return pack(
        {
            "gateway": fact.gateway,
            "line": fact.line,
            "what": str(fact.what),
            "t": fact.t_ns,
            "value": fact.value,
            "source": fact.source,
            "id": fact.id,
        }
    )


def counts_body(fact: CountFact) -> bytes:
    """Return the body of a counts leaf."""
    return pack(
        {
            "gateway": fact.gateway,
            "line": fact.line,
            "start": fact.start_ns,
            "end": fact.end_ns,
            "good": fact.good,
            "total": fact.total,
            "source": fact.source,
            "id": fact.id,
        }
    )


def statement_body(statement: Statement) -> bytes:
    """Return the body of a statement leaf."""
    return pack(
        {
            "record": statement.record,
            "version": statement.version,
            "supersedes": statement.supersedes,
            "reason": statement.reason,
            "subject": dict(statement.subject),
            "figures": dict(statement.figures),
        }
    )


def standing_body(standing: Standing) -> bytes:
    """Return the body of a standing leaf."""
    return pack(
        {
            "gateway": standing.gateway,
            "first": standing.first,
            "size": standing.size,
            "state": str(standing.state),
            "reason": standing.reason,
            "epoch": standing.epoch,
            "t": standing.t_ns,
            "verified": standing.verified_ns,
            "start": standing.start_ns,
            "end": standing.end_ns,
            "result": standing.result,
        }
    )


def decision_body(decision: Decision) -> bytes:
    """Return the body of a decision leaf."""
    return pack(
        {
            "gateway": decision.gateway,
            "first": decision.first,
            "stop": decision.stop,
            "admit": decision.admit,
            "start": decision.start_ns,
            "end": decision.end_ns,
            "note": decision.note,
        }
    )


def accepted_body(gateway: str, note: bytes) -> bytes:
    """Return the body of an accepted leaf: the ledger holds all below this checkpoint."""
    return pack({"gateway": gateway, "checkpoint": note.decode()})


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")
