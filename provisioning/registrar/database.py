"""The registrar's database: SQLite in a file, or PostgreSQL; and reading units from it."""

import json
from collections import defaultdict
from typing import Any

from sqlalchemy import URL, Connection, Engine, RowMapping, Select, Table, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError

from gateway.errors import ConfigError
from provisioning.registrar.tables import certificates, records, steps, units
from provisioning.registrar.unit import State, Unit

KINDS = ("sqlite", "postgresql+psycopg")


def checked_url(text: str) -> URL:
    """Return the URL of a database. ConfigError for another kind, and for a password in it, which it does not quote."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as e:
        raise ConfigError("database: got no URL, want sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from e
    if url.drivername not in KINDS:
        raise ConfigError(f"database: got {url.drivername}, want one of {', '.join(KINDS)}")
    if url.password is not None or any("password" in key.lower() for key in url.query):
        raise ConfigError("database: got a password in the URL, want it in PGPASSFILE")
    return url


def opened_engine(text: str) -> Engine:
    """Return the engine of a database by its URL. Raises ConfigError."""
    url = checked_url(text)
    try:
        engine = create_engine(url)
    except ImportError as e:
        raise ConfigError(f"database: {e}, want the package wattseal[provisioning]") from e
    if url.drivername == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, record: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    connection.isolation_level = None  # sqlite3 would begin a transaction only at the first write: _on_begin does
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 30000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def read_unit(connection: Connection, serial: str) -> Unit | None:
    """Return a unit, None when there is none."""
    found = read_units(connection, serial=serial)
    return found[0] if found else None


def read_units(connection: Connection, *, serial: str | None = None) -> list[Unit]:
    """Return all units by serial, or the one of this serial."""

    def of(table: Table) -> Select[Any]:
        return select(table) if serial is None else select(table).where(table.c.serial == serial)

    done: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for one in connection.execute(of(steps).order_by(steps.c.leaf)):
        done[one.serial][one.name] = json.loads(one.result)
    own: dict[str, dict[str, str]] = defaultdict(dict)
    for one in connection.execute(of(certificates).order_by(certificates.c.kind)):
        own[one.serial][one.kind] = one.sha256
    about: dict[str, list[int]] = defaultdict(list)
    for one in connection.execute(of(records).order_by(records.c.leaf)):
        about[one.serial].append(one.leaf)
    rows = connection.execute(of(units).order_by(units.c.serial)).mappings().all()
    return [_unit(row, done[row["serial"]], own[row["serial"]], about[row["serial"]]) for row in rows]


def _unit(row: RowMapping, done: dict[str, dict[str, str]], own: dict[str, str], about: list[int]) -> Unit:
    said = {name: value for name, value in row.items() if name != "folded"}
    said["state"] = State(said["state"])
    return Unit(**said, steps=done, certificates=own, leaves=tuple(about))
