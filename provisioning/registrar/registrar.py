"""The registrar: the book of all units, kept twice. The factory's log is the truth, the database a projection of it.

A change goes into the database's transaction first, where the constraints judge it, then into the log, durably; then
the transaction is committed. A crash between the two leaves the log ahead, and the next opening catches up.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from gateway.errors import ConfigError, LogError, TrustError
from gateway.tlog.note import Signer
from provisioning.registrar import changes
from provisioning.registrar.database import opened_engine, read_unit, read_units
from provisioning.registrar.factorylog import FactoryLog, check_signer, opened
from provisioning.registrar.tables import METADATA, meta
from provisioning.registrar.unit import IDEVID, State, Unit, checked_serial, checked_text


class Registrar:
    """Registers units. `open` it; each change is one leaf and one transaction. For several threads and processes.

    Raises TrustError for what is not allowed, LogError when log and database contradict each other.
    """

    def __init__(self, engine: Engine, log: Path, signer: Signer) -> None:
        self._engine, self._folder, self._signer = engine, log, signer
        self._one = threading.RLock()
        self._held: FactoryLog | None = None

    @classmethod
    def open(cls, url: str, *, log: Path, signer: Signer) -> Self:
        """Return the registrar on a database (SQLAlchemy's URL: sqlite or postgresql+psycopg) and its factory's log.

        Makes both where there are none, and brings the database up to the log. Raises ConfigError, LogError.
        """
        check_signer(signer)
        engine = opened_engine(url)
        registrar = cls(engine, log, signer)
        try:
            with engine.begin() as connection:
                METADATA.create_all(connection)
            with registrar.session():
                pass
        except SQLAlchemyError as e:
            registrar.close()
            raise ConfigError(f"database: {e}, want the URL of one that can be reached") from e
        except BaseException:
            registrar.close()
            raise
        return registrar

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @property
    def signer(self) -> Signer:
        """The factory's key: it signs birth records too."""
        return self._signer

    @contextlib.contextmanager
    def session(self) -> Iterator[FactoryLog]:
        """Keep the log for several changes: quicker, and every other station waits. May be entered again."""
        with self._one:
            if self._held is not None:
                yield self._held
                return
            with opened(self._folder, self._signer) as log:
                self._catch_up(log)
                self._held = log
                try:
                    yield log
                finally:
                    self._held = None

    # ---- changes

    def begin(self, serial: str, *, model: str, order: str, operator: str) -> Unit:
        """Take up a unit; one that was begun for the same order goes on. TrustError for a serial that was ever used."""
        about = {"serial": serial, "model": model, "order": order, "operator": operator}
        with self.session():
            unit = self._find(serial)
            if unit is not None and (unit.state, unit.model, unit.order) == (State.BEGUN, model, order):
                return unit
            if unit is not None and unit.state is not State.BEGUN:
                raise TrustError(f"unit {serial}: is {unit.state} already, and cannot be enrolled again")
            if unit is not None:
                was = f"{unit.model!r} for order {unit.order!r}"
                raise TrustError(f"unit {serial}: was begun already as {was}, want the same, or it revoked first")
            return self._event("unit.begun", about)

    def step(self, serial: str, name: str, result: Mapping[str, str]) -> Unit:
        """Keep the result of a step; the same again changes nothing. `ek` and `ak` in it are the unit's for ever."""
        checked = changes.checked_result(result)
        with self.session():
            unit = self._find(serial)
            if unit is not None and unit.state is State.BEGUN and unit.steps.get(name) == checked:
                return unit
            return self._event("unit.step", {"serial": serial, "name": checked_text("step", name), "result": checked})

    def complete(self, serial: str, birth: bytes) -> Unit:
        """Take a unit's birth record, signed by this factory's key: from here on it is ENROLLED."""
        with self.session():
            unit = self._find(serial)
            if unit is not None and unit.birth == birth and unit.state is State.ENROLLED:
                return unit
            by = "" if unit is None else unit.operator
            return self._change(serial, lambda log: log.birth(serial, birth, by))

    def renew(self, serial: str, idevid: str, certify: Mapping[str, str]) -> Unit:
        """Say which IDevID a unit has from here on, by its SHA-256. certify: what its TPM signed about the new key."""
        checked = changes.checked_result(certify)
        with self.session():
            unit = self.unit(serial)
            if unit.certificates.get(IDEVID) == idevid:
                return unit
            return self._event("unit.renewed", {"serial": serial, IDEVID: idevid, "certify": checked})

    def onboard(self, serial: str, owner: str, gateway: str) -> Unit:
        """Give an enrolled unit to its first owner, as this gateway."""
        return self._owner(serial, "unit.onboarded", owner, gateway)

    def transfer(self, serial: str, owner: str, gateway: str | None = None) -> Unit:
        """Give it to another owner. gateway: its new id; the old one without it."""
        unit = self.unit(serial)
        return self._owner(serial, "unit.transferred", owner, gateway or unit.gateway)

    def _owner(self, serial: str, what: str, owner: str, gateway: str) -> Unit:
        with self.session():
            unit = self.unit(serial)
            if (unit.state, unit.owner, unit.gateway) == (State.ONBOARDED, owner, gateway):
                return unit
            return self._event(what, {"serial": serial, "owner": owner, "gateway": gateway})

    def revoke(self, serial: str, reason: str) -> Unit:
        """Say that its identity is not to be believed any more. Only decommissioning is left then."""
        with self.session():
            unit = self.unit(serial)
            if unit.state is State.REVOKED:
                return unit
            return self._event("unit.revoked", {"serial": serial, "reason": reason})

    def decommission(self, serial: str, reason: str = "cessationOfOperation") -> Unit:
        """End it: a tombstone stays, and its serial, EK and AK never enrol again."""
        with self.session():
            unit = self.unit(serial)
            if unit.state is State.DECOMMISSIONED:
                return unit
            return self._event("unit.decommissioned", {"serial": serial, "reason": reason})

    # ---- what it knows

    def unit(self, serial: str) -> Unit:
        """Return a unit. Raises TrustError when there is none."""
        unit = self._find(serial)
        if unit is None:
            raise TrustError(f"unit {serial}: there is none of this serial")
        return unit

    def units(self) -> list[Unit]:
        """Return all units by serial."""
        with self._reading() as connection:
            return read_units(connection)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as e:
            raise LogError(f"database: {e.orig}") from e

    def _find(self, serial: str) -> Unit | None:
        checked_serial(serial)
        with self._reading() as connection:
            return read_unit(connection, serial)

    # ---- how it changes

    def _event(self, what: str, about: Mapping[str, Any]) -> Unit:
        for name, text in about.items():
            if isinstance(text, str):
                checked_text(name, text)  # also what no leaf could hold: a shell's bytes that are no UTF-8
        return self._change(str(about["serial"]), lambda log: log.event(what, about))

    def _change(self, serial: str, append: Callable[[FactoryLog], tuple[int, bytes]]) -> Unit:
        """Make one change: judged by the database, kept by the log, then by the database."""
        with self.session() as log:
            try:
                with self._reading() as connection:
                    connection.execute(select(meta).with_for_update())
                    self._check(connection, log)
                    index, leaf = append(log)
                    changes.apply(connection, index, leaf, verifier=self._signer.verifier)
                    log.commit()
                    self._mark(connection, log)
            finally:
                log.log.rollback()  # of what a refusal left; nothing, when all went well
            return self.unit(serial)

    def _catch_up(self, log: FactoryLog) -> None:
        """Put the leaves that a crash kept from the database into it."""
        with self._reading() as connection:
            first = self._check(connection, log)
            for index, leaf in log.leaves(first):
                try:
                    changes.apply(connection, index, leaf, verifier=self._signer.verifier)
                except TrustError as e:
                    raise LogError(f"{log.log.origin}: leaf {index}: {e}") from e
            if first < log.log.durable:
                self._mark(connection, log)

    def _check(self, connection: Connection, log: FactoryLog) -> int:
        """Return how many leaves the tables hold, when they are of this very log. Raises LogError."""
        said = changes.marks(connection)
        size = changes.applied(connection)
        if said.get("origin", log.log.origin) != log.log.origin:
            raise LogError(f"database: got that of {said['origin']}, want that of {log.log.origin}")
        if size > log.log.durable:
            raise LogError(f"database: holds {size} leaves, but the log {log.log.durable}: one of them is an old copy")
        if size != int(said.get("size", "0")) or said.get("root", log.log.root(0).hex()) != log.log.root(size).hex():
            raise LogError("database: was not made from this log: provision registrar verify says where")
        return size

    def _mark(self, connection: Connection, log: FactoryLog) -> None:
        size = log.log.size
        root = log.log.root(size).hex()
        changes.mark(connection, {"origin": log.log.origin, "size": str(size), "root": root})
