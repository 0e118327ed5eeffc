"""The registrar against its own log: is the database what the signed log says; where not; and make it so again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, delete, select
from sqlalchemy.exc import SQLAlchemyError

from gateway.attest.birth import read_birth
from gateway.errors import LogError, TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Signer
from provisioning.registrar import changes
from provisioning.registrar.database import opened_engine, read_units
from provisioning.registrar.evidence import has_evidence, verify_evidence
from provisioning.registrar.factorylog import FactoryLog, opened
from provisioning.registrar.tables import METADATA, meta
from provisioning.registrar.unit import Unit

_COMPARED = [table for table in METADATA.sorted_tables if table is not meta]
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What held. size: leaves of the log. checkpoint: the signed note over them, to be kept somewhere else.

    quotes: units whose golden quote is there, and holds.
    """

    units: int
    quotes: int
    size: int
    checkpoint: bytes


def verify(url: str, *, log: Path, signer: Signer, since: bytes | None = None) -> Held:
    """Check each leaf, the checkpoint's signature, every change in turn, each row of the database,
    and what each unit's TPM signed.

    since: an earlier checkpoint, which this log must go on from. Raises LogError for the log, naming the leaf, and
    TrustError for the database, naming the row, and for what a TPM did not sign so, naming the unit.
    """
    engine = opened_engine(url)
    try:
        with opened(log, signer) as own:
            for _ in own.log.audit():
                pass
            if since is not None:
                _check_since(own, since, signer)
            ours = _replayed(own, signer)
            with engine.begin() as connection:
                differences = list(_differences(ours, connection))
                units = read_units(connection)
            if differences:
                more = f", and {len(differences) - MOST_NAMED} more" if len(differences) > MOST_NAMED else ""
                raise TrustError(f"database: {'; '.join(differences[:MOST_NAMED])}{more}")
            quotes = _check_evidence(units, signer)
            return Held(units=len(units), quotes=quotes, size=own.log.size, checkpoint=own.log.checkpoint or b"")
    except SQLAlchemyError as e:
        raise LogError(f"database: {e}") from e
    finally:
        engine.dispose()


def _check_evidence(units: list[Unit], signer: Signer) -> int:
    """Return how many units have a golden quote; all of them hold."""
    found = [(unit, unit.birth) for unit in units if unit.birth is not None and has_evidence(unit)]
    for unit, note in found:
        verify_evidence(unit, read_birth(note, verifier=signer.verifier))
    return len(found)


def rebuild(url: str, *, log: Path, signer: Signer) -> int:
    """Make the database anew from the log, in one transaction; return how many leaves that took."""
    engine = opened_engine(url)
    try:
        with opened(log, signer) as own, engine.begin() as connection:
            METADATA.create_all(connection)
            for table in reversed(METADATA.sorted_tables):
                connection.execute(delete(table))
            _replay(connection, own, signer)
            root = own.log.root(own.log.size).hex()
            changes.mark(connection, {"origin": own.log.origin, "size": str(own.log.size), "root": root})
            return own.log.size
    except SQLAlchemyError as e:
        raise LogError(f"database: {e}") from e
    finally:
        engine.dispose()


def _check_since(own: FactoryLog, since: bytes, signer: Signer) -> None:
    earlier = checkpoints.verify(since, origin=own.log.origin, verifier=signer.verifier)
    if earlier.size > own.log.size or own.log.root(earlier.size) != earlier.root:
        raise LogError(f"{own.log.origin}: does not go on from its own checkpoint of {earlier.size} leaves")


def _replayed(own: FactoryLog, signer: Signer) -> dict[str, list[dict[str, Any]]]:
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            METADATA.create_all(connection)
            _replay(connection, own, signer)
            return {table.name: _rows(connection, table) for table in _COMPARED}
    finally:
        engine.dispose()


def _replay(connection: Connection, own: FactoryLog, signer: Signer) -> None:
    for index, leaf in own.leaves(0):
        try:
            changes.apply(connection, index, leaf, verifier=signer.verifier)
        except TrustError as e:
            raise LogError(f"{own.log.origin}: leaf {index}: {e}") from e


def _rows(connection: Connection, table: Table) -> list[dict[str, Any]]:
    rows = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings().all()
    return [dict(row) for row in rows]


def _differences(ours: dict[str, list[dict[str, Any]]], connection: Connection) -> "list[str]":
    """Return in words where the database is not what the log says."""
    found = []
    for table in _COMPARED:
        names = [column.name for column in table.primary_key.columns]
        want = {_key(row, names): row for row in ours[table.name]}
        got = {_key(row, names): row for row in _rows(connection, table)}
        for key in sorted(want.keys() | got.keys()):
            where = f"{table.name} {' '.join(key)}"
            if key not in got:
                found.append(f"{where}: is missing")
            elif key not in want:
                found.append(f"{where}: no leaf of the log says so")
            else:
                pairs = ((name, got[key][name], value) for name, value in want[key].items())
                found += [f"{where}: {name}: got {_shown(a)}, want {_shown(b)}" for name, a, b in pairs if a != b]
    return found


def _key(row: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in names)


def _shown(value: Any) -> str:
    return repr(value)[:80]
