"""The database of projections: disposable, always made again from the logs."""

import contextlib
import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Dialect, create_engine, event, insert, inspect, select
from sqlalchemy.exc import DatabaseError, OperationalError

from gateway.carbon.figures import CALC_VERSION
from gateway.errors import ConfigError
from gateway.store.files import StoreFull
from gateway.store.projections.tables import METADATA, PROJECTION_VERSION, meta

_COMPILED: dict[Any, Any] = {}
"""Statements in SQLite's words, by their form: made once a process, however often a database is opened."""
_VERSIONS = {"projection_version": PROJECTION_VERSION, "calc_version": CALC_VERSION}


class Projections:
    """One SQLite file. Opening it makes the tables, and makes them anew where another version made them.

    new: whether they may be made; a reader must not. fresh: they are empty and wait to be filled from the logs.
    Any number of readers, in any process, may read beside one writer. Raises ConfigError for a file that is no such
    database, and, unless new, where there is none of this version.
    """

    def __init__(self, path: Path, *, new: bool = True) -> None:
        self._path = path
        if not new and not path.is_file():
            raise ConfigError(f"{path}: got no database, want one that the ledger has made")
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)), execution_options={"compiled_cache": _COMPILED}
        )
        self._engine.dialect = _dialect()
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        try:
            with self._engine.begin() as connection:
                self.fresh = _versions(connection) != _VERSIONS
                if self.fresh and new:
                    reset(connection)
        except DatabaseError as e:
            self._engine.dispose()
            raise ConfigError(f"{path}: {e.orig}: want a database of projections; delete it to have it rebuilt") from e
        if self.fresh and not new:
            self._engine.dispose()
            raise ConfigError(f"{path}: got tables of another version, want `wattseal ledger rebuild`")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction: all that is done in it is there afterwards, or, when it raises, nothing is.

        Raises StoreFull when the disk has no room for it.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as e:
            if getattr(e.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
                raise
            raise StoreFull(f"{self._path}: {e.orig}") from e

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database throughout."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def reset(connection: Connection) -> None:
    """Drop all tables of any version and make them anew, empty."""
    for name in inspect(connection).get_table_names():
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"DROP TABLE {quoted}")
    METADATA.create_all(connection)
    connection.execute(insert(meta), [{"key": key, "value": value} for key, value in _VERSIONS.items()])


@cache
def _dialect() -> Dialect:
    """Return the dialect that all engines share, ready for use: what is compiled is known by it."""
    engine = create_engine("sqlite://")
    with engine.connect():
        pass
    engine.dispose()
    return engine.dialect


def _versions(connection: Connection) -> dict[str, str]:
    if not inspect(connection).has_table(meta.name):
        return {}
    return {row.key: row.value for row in connection.execute(select(meta))}


def _on_connect(connection: Any, record: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # sqlite3 would begin a transaction only at the first write, and none for a reader or a CREATE: _on_begin does.
    connection.isolation_level = None
    # WAL lets readers read while the ledger writes. NORMAL may lose the last transactions at a power cut, never the
    # order of them: the ledger projects again from the size that the database says.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
