"""What the ledger writes: whole rows, again and again the same, in the caller's transaction."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, delete, insert

from gateway.carbon.emissions import IntervalLeaf
from gateway.carbon.grid.table import FactorLeaf
from gateway.codec.ledger_leaves import chain_of
from gateway.model import LineSchema, Statement
from gateway.store.projections import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """How far a gateway's log is projected, and the newest receipt, if any."""

    gateway: str
    size: int
    receipt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRow:
    """Where an interval leaf stands. clean: an export may begin or end with it; see LineProjector.clean.

    quarantined: no figure rests on it (Standings.is_affirmed); then it is not clean.
    """

    gateway: str
    leaf_index: int
    line: str
    t_ns: int
    schema_id: bytes
    prev: int | None
    clean: bool
    quarantined: bool = False

    @classmethod
    def of(
        cls, leaf: IntervalLeaf, *, line: str, prev: int | None, clean: bool, quarantined: bool = False
    ) -> "IntervalRow":
        """Return the row of a leaf."""
        return cls(
            gateway=leaf.gateway,
            leaf_index=leaf.ref.index,
            line=line,
            t_ns=leaf.interval.t_ns,
            schema_id=leaf.interval.schema_id,
            prev=prev,
            clean=clean,
            quarantined=quarantined,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event leaf. log: the gateway, or "" for the ledger's own log. about: canonical JSON."""

    log: str
    leaf_index: int
    what: str
    t_ns: int
    about: str

    @classmethod
    def of(cls, log: str, leaf_index: int, body: Mapping[str, Any]) -> "EventRow":
        """Return the row of an event leaf's checked body."""
        about = json.dumps(body["about"], sort_keys=True, separators=(",", ":"), default=bytes.hex)
        return cls(log=log, leaf_index=leaf_index, what=body["what"], t_ns=body["t"], about=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLeafRow:
    """Where a leaf of a chained kind of the ledger's log stands. chain: what its `prev` runs along."""

    leaf_index: int
    kind: str
    chain: str
    prev: int | None

    @classmethod
    def of(cls, leaf_index: int, kind: str, prev: int | None, body: Mapping[str, Any]) -> "OwnLeafRow":
        """Return the row of a checked body."""
        return cls(leaf_index=leaf_index, kind=kind, chain=chain_of(kind, body), prev=prev)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRow:
    """A statement. subject, figures: canonical JSON of flat maps."""

    record: str
    version: int
    leaf_index: int
    supersedes: str
    reason: str
    subject: str
    figures: str

    @classmethod
    def of(cls, leaf_index: int, statement: Statement) -> "StatementRow":
        """Return the row of a statement."""
        return cls(
            record=statement.record,
            version=statement.version,
            leaf_index=leaf_index,
            supersedes=statement.supersedes,
            reason=statement.reason,
            subject=_flat(statement.subject),
            figures=_flat(statement.figures),
        )


def _flat(pairs: Iterable[tuple[str, str]]) -> str:
    return json.dumps(dict(pairs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def put_gateway(connection: Connection, state: GatewayState) -> None:
    """Say how far a gateway's log is projected."""
    put(connection, tables.gateways, [asdict(state)])


def put_schema(connection: Connection, gateway: str, leaf_index: int, schema: LineSchema) -> None:
    """Add a schema leaf of a line."""
    # As in the leaf, digit by digit: the schema's identifier is a hash of it.
    moduli = [None if column.modulus is None else format(column.modulus, "f") for column in schema.columns]
    columns = [
        [c.point, c.unit, c.role, modulus, c.rated_power_w, c.meter_class, c.serial]
        for c, modulus in zip(schema.columns, moduli, strict=True)
    ]
    row = {
        "gateway": gateway,
        "leaf_index": leaf_index,
        "schema_id": schema.id,
        "line": schema.name,
        "site": schema.site,
        "zone": schema.zone,
        "period_s": schema.period_s,
        "columns": json.dumps(columns, separators=(",", ":")),
        "context": json.dumps([[c.point, c.what] for c in schema.context], separators=(",", ":")),
    }
    put(connection, tables.line_schemas, [row])


def put_intervals(connection: Connection, rows: Iterable[IntervalRow]) -> None:
    """Add interval leaves."""
    put(connection, tables.intervals, map(asdict, rows))


def put_factors(connection: Connection, leaves: Iterable[FactorLeaf]) -> None:
    """Add factor leaves of the ledger's log."""
    put(connection, tables.factors, map(_factor_row, leaves))


def put_events(connection: Connection, rows: Iterable[EventRow]) -> None:
    """Add event leaves."""
    put(connection, tables.events, map(asdict, rows))


def put_own_leaves(connection: Connection, rows: Iterable[OwnLeafRow]) -> None:
    """Add documents, context and statements of the ledger's log: where they stand."""
    put(connection, tables.own_leaves, map(asdict, rows))


def put_statements(connection: Connection, rows: Iterable[StatementRow]) -> None:
    """Add statements."""
    put(connection, tables.statements, map(asdict, rows))


def _factor_row(leaf: FactorLeaf) -> dict[str, Any]:
    factor = leaf.factor
    provider, zone, signal, factor_type, granularity = factor.key
    return {
        "leaf_index": leaf.index,
        "leaf_hash": leaf.hash,
        "provider": provider,
        "zone": zone,
        "signal": signal,
        "type": factor_type,
        "granularity": granularity,
        **{name: getattr(factor, name) for name in _FACTOR_FIELDS},
    }


_FACTOR_FIELDS = (
    "start_ns",
    "end_ns",
    "g_per_kwh",
    "unit",
    "state",
    "method",
    "source",
    "version",
    "supersedes",
    "model_date",
    "updated_ns",
    "gwp_set",
    "uncertainty_pct",
)


def put(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Replace rows by primary key: what is written twice is there once."""
    listed = list(rows)
    if not listed:
        return
    keys = [column.name for column in table.primary_key]
    same: ColumnElement[bool] = and_(*(table.c[key] == bindparam(f"p_{key}") for key in keys))
    connection.execute(delete(table).where(same), [{f"p_{key}": row[key] for key in keys} for row in listed])
    connection.execute(insert(table), listed)
