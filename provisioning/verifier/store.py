"""What the verifier remembers over a restart: one row a gateway, with the marks that nothing may fall below."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Column, Integer, MetaData, Table, Text, create_engine, delete, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import DatabaseError

from gateway.errors import ConfigError
from gateway.model.standing import State
from provisioning.verifier.records import Marks, Record

VERSION = 1
_METADATA = MetaData()
_RECORDS = Table(
    "records",
    _METADATA,
    Column("gateway", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_s", Integer, nullable=False),
    Column("told_s", Integer, nullable=False),
    Column("verified_s", Integer),
    Column("ak", Text),
    Column("reset_count", Integer),
    Column("restart_count", Integer),
    Column("clock_ms", Integer),
    Column("epoch", Integer),
    Column("key", Text),
    Column("log_size", Integer),
)
_INSERT = insert(_RECORDS)
_PUT = _INSERT.on_conflict_do_update(
    index_elements=["gateway"],
    set_={column.name: _INSERT.excluded[column.name] for column in _RECORDS.columns if column.name != "gateway"},
)


class Store:
    """One SQLite file; one writer, any number of readers beside it.

    new: whether it may be made; a reader must not. Raises ConfigError for a file that is no such database.
    """

    def __init__(self, path: Path, *, new: bool = True) -> None:
        if not new and not path.is_file():
            raise ConfigError(f"{path}: got no database, want one that the verifier has made")
        self._path = path
        self._engine = create_engine(URL.create("sqlite", database=str(path)))
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        try:
            if new:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._engine.begin() as connection:
                found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if found == 0 and new:
                    _METADATA.create_all(connection)
                    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
                    found = VERSION
        except (OSError, DatabaseError) as e:
            self._engine.dispose()
            raise ConfigError(f"{path}: {e}, want a database that the verifier has made") from e
        if found != VERSION:
            self._engine.dispose()
            raise ConfigError(f"{path}: got version {found}, want {VERSION}")

    def read(self) -> dict[str, Record]:
        """Return all records by gateway."""
        with self._engine.connect() as connection:
            return {row.gateway: _record(row) for row in connection.execute(select(_RECORDS).order_by("gateway"))}

    def put(self, records: Sequence[Record]) -> None:
        """Write these, all or none: once it returns, they survive a crash of the process."""
        if records:
            with self._writing() as connection:
                connection.execute(_PUT, [_row(record) for record in records])

    def forget(self, gateways: Sequence[str]) -> None:
        """Delete what is known of these."""
        if gateways:
            with self._writing() as connection:
                connection.execute(delete(_RECORDS).where(_RECORDS.c.gateway.in_(gateways)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as e:
            raise ConfigError(f"{self._path}: cannot write: {e.orig}, want room, and a file of ours") from e


def _row(record: Record) -> dict[str, Any]:
    marks = record.marks
    return {
        "gateway": record.gateway,
        "device": record.device,
        "state": record.state.value,
        "reason": record.reason,
        "since_s": record.since_s,
        "told_s": record.told_s,
        "verified_s": record.verified_s,
        "ak": marks.device if marks else None,
        "reset_count": marks.reset_count if marks else None,
        "restart_count": marks.restart_count if marks else None,
        "clock_ms": marks.clock_ms if marks else None,
        "epoch": marks.epoch if marks else None,
        "key": marks.key if marks else None,
        "log_size": marks.log_size if marks else None,
    }


def _record(row: Row[Any]) -> Record:
    marks = None
    if row.ak is not None:
        marks = Marks(
            device=row.ak,
            reset_count=row.reset_count,
            restart_count=row.restart_count,
            clock_ms=row.clock_ms,
            epoch=row.epoch,
            key=row.key,
            log_size=row.log_size,
        )
    return Record(
        gateway=row.gateway,
        device=row.device,
        state=State(row.state),
        reason=row.reason,
        since_s=row.since_s,
        told_s=row.told_s,
        verified_s=row.verified_s,
        marks=marks,
    )


def _on_connect(connection: Any, record: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    connection.isolation_level = None  # sqlite3 would begin a transaction only at the first write: _on_begin does
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
