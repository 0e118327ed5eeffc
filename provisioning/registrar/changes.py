"""What a leaf of the factory's log does to the registrar's tables: the one place where a unit changes.

The same code takes a change as it is made, catches up after a crash, rebuilds, and makes what `verify` compares with.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.attest.birth import read_birth
from gateway.codec.leaves import Leaf, parse
from gateway.codec.ledger_leaves import to_document
from gateway.errors import TrustError
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Verifier
from provisioning.registrar.factorylog import BIRTH
from provisioning.registrar.tables import certificates, meta, owners, records, steps, units
from provisioning.registrar.unit import AK, EK, IDEVID, State, checked_serial, checked_text

MOST_RESULTS = 32
MOST_RESULT = 4096
_ALIVE = (State.BEGUN, State.ENROLLED, State.ONBOARDED)
_CLASHES = {"folded": "serial", "ek": "EK", "ak": "AK"}


class Change:
    """One leaf that is being put into the tables, inside the caller's transaction."""

    def __init__(self, connection: Connection, index: int, leaf: Leaf, verifier: Verifier) -> None:
        self._db, self._index, self._leaf, self._verifier = connection, index, leaf, verifier
        self._t_ns = leaf.clock.t_ns

    def apply(self) -> tuple[str, str]:
        """Put it in; return what it was, and which unit's. Raises TrustError for a step that is not allowed."""
        match self._leaf.kind:
            case "epoch":
                return "epoch", ""
            case "document":
                document = to_document(self._leaf.body)
                serial = document.name.removeprefix(BIRTH)
                if f"{BIRTH}{serial}" != document.name:
                    raise TrustError(f"leaf: got a document {document.name[:80]!r}, want {BIRTH}<serial>")
                self._born(serial, document.content)
                return "unit.enrolled", serial
            case "event" if change := _EVENTS.get(self._leaf.body["what"]):
                about = self._leaf.body["about"]
                serial = checked_serial(_text(about, "serial"))
                change(self, serial, about)
                return str(self._leaf.body["what"]), serial
        raise TrustError(f"leaf: got a {self._leaf.kind} leaf that no factory writes")

    # ---- one method for each kind of change

    def _begun(self, serial: str, about: Mapping[str, Any]) -> None:
        row = {name: _text(about, name) for name in ("model", "order", "operator")}
        empty = {"owner": "", "gateway": "", "reason": "", "began_ns": self._t_ns, "changed_ns": self._t_ns}
        self._db.execute(
            insert(units).values(serial=serial, folded=serial.casefold(), state=State.BEGUN, **row, **empty)
        )

    def _stepped(self, serial: str, about: Mapping[str, Any]) -> None:
        unit = self._in(serial, State.BEGUN)
        name, result = _text(about, "name"), checked_result(about.get("result"))
        for column in (EK, AK):
            if column in result:
                self._own(unit, column, result[column])
        self._keep(serial, name, result)

    def _born(self, serial: str, note: bytes) -> None:
        unit = self._in(serial, State.BEGUN)
        birth = read_birth(note, verifier=self._verifier)
        if (birth.serial, birth.model, birth.order) != (serial, unit["model"], unit["order"]):
            raise TrustError(f"unit {serial}: the birth record is of another unit, model or order")
        self._own(unit, EK, hashlib.sha256(birth.ek_certificate).hexdigest())
        self._own(unit, AK, birth.ak_name.hex())
        own = {"ak": birth.ak_certificate_sha256, IDEVID: birth.idevid_sha256}
        for kind, sha256 in own.items():
            self._db.execute(insert(certificates).values(sha256=sha256, serial=serial, kind=kind))
        self._set(serial, state=State.ENROLLED, birth=note, birth_leaf=self._index)

    def _renewed(self, serial: str, about: Mapping[str, Any]) -> None:
        self._in(serial, State.ENROLLED, State.ONBOARDED)
        mine = certificates.c.serial == serial, certificates.c.kind == IDEVID
        self._db.execute(delete(certificates).where(*mine))
        self._db.execute(insert(certificates).values(sha256=_text(about, IDEVID), serial=serial, kind=IDEVID))
        self._keep(serial, "certify", checked_result(about.get("certify")))
        self._set(serial)

    def _onboarded(self, serial: str, about: Mapping[str, Any]) -> None:
        self._in(serial, State.ENROLLED)
        self._owned(serial, about)

    def _transferred(self, serial: str, about: Mapping[str, Any]) -> None:
        self._in(serial, State.ONBOARDED)
        self._owned(serial, about)

    def _owned(self, serial: str, about: Mapping[str, Any]) -> None:
        owner, gateway = _text(about, "owner"), _text(about, "gateway")
        self._set(serial, state=State.ONBOARDED, owner=owner, gateway=gateway)
        self._db.execute(
            insert(owners).values(serial=serial, leaf=self._index, owner=owner, gateway=gateway, since_ns=self._t_ns)
        )

    def _revoked(self, serial: str, about: Mapping[str, Any]) -> None:
        self._in(serial, *_ALIVE)
        self._set(serial, state=State.REVOKED, reason=_text(about, "reason"))

    def _ended(self, serial: str, about: Mapping[str, Any]) -> None:
        self._in(serial, *_ALIVE, State.REVOKED)
        self._set(serial, state=State.DECOMMISSIONED, reason=_text(about, "reason"))

    # ---- what they share

    def _in(self, serial: str, *states: State) -> dict[str, Any]:
        """Return the unit's row, when it is in one of these states."""
        found = self._db.execute(select(units).where(units.c.serial == serial)).mappings().one_or_none()
        if found is None:
            raise TrustError(f"unit {serial}: there is none of this serial")
        if found["state"] not in states:
            raise TrustError(f"unit {serial}: got it {found['state']}, want it {' or '.join(states)}")
        return dict(found)

    def _own(self, unit: dict[str, Any], column: str, value: str) -> None:
        """Give the unit an EK or AK of its own; the constraint refuses another unit's."""
        if unit[column] not in {None, value}:
            raise TrustError(f"unit {unit['serial']}: got another {column.upper()} than before: this is another device")
        self._set(unit["serial"], **{column: value})
        unit[column] = value

    def _keep(self, serial: str, name: str, result: Mapping[str, str]) -> None:
        """Keep a step's result; of each step the newest counts."""
        self._db.execute(delete(steps).where(steps.c.serial == serial, steps.c.name == name))
        self._db.execute(
            insert(steps).values(serial=serial, name=name, result=json.dumps(result, sort_keys=True), leaf=self._index)
        )

    def _set(self, serial: str, **values: Any) -> None:
        self._db.execute(update(units).where(units.c.serial == serial).values(**values, changed_ns=self._t_ns))


_EVENTS: dict[str, Callable[[Change, str, Mapping[str, Any]], None]] = {
    "unit.begun": Change._begun,  # noqa: SLF001 - its own methods, by the event's name
    "unit.step": Change._stepped,  # noqa: SLF001
    "unit.renewed": Change._renewed,  # noqa: SLF001
    "unit.onboarded": Change._onboarded,  # noqa: SLF001
    "unit.transferred": Change._transferred,  # noqa: SLF001
    "unit.revoked": Change._revoked,  # noqa: SLF001
    "unit.decommissioned": Change._ended,  # noqa: SLF001
}


def apply(connection: Connection, index: int, leaf: bytes, *, verifier: Verifier) -> None:
    """Put a leaf into the tables. Raises TrustError: malformed, not allowed now, or what another unit has already."""
    parsed = parse(leaf)
    try:
        what, serial = Change(connection, index, parsed, verifier).apply()
        row = {"leaf": index, "sha256": leaf_hash(leaf).hex(), "what": what, "serial": serial}
        connection.execute(insert(records).values(**row, t_ns=parsed.clock.t_ns))
    except IntegrityError as e:
        raise TrustError(f"unit {_serial_of(parsed)}: {_clash(str(e.orig))}") from e


def applied(connection: Connection) -> int:
    """Return how many leaves of the log are in the tables."""
    count = connection.execute(select(func.coalesce(func.max(records.c.leaf) + 1, 0))).scalar_one()
    return int(count)


def mark(connection: Connection, values: Mapping[str, str]) -> None:
    """Write what the tables were made from."""
    for key, value in values.items():
        if not connection.execute(update(meta).where(meta.c.key == key).values(value=value)).rowcount:
            connection.execute(insert(meta).values(key=key, value=value))


def marks(connection: Connection) -> dict[str, str]:
    """Return what `mark` wrote; empty for new tables."""
    return {row.key: row.value for row in connection.execute(select(meta))}


def checked_result(result: Any) -> dict[str, str]:
    """Return a step's result: some texts by name. Raises TrustError."""
    if not isinstance(result, Mapping) or len(result) > MOST_RESULTS:
        raise TrustError(f"step: want a result of at most {MOST_RESULTS} texts by name")
    for key, value in result.items():
        if type(key) is not str or type(value) is not str or len(key) > 64 or len(value) > MOST_RESULT:
            raise TrustError(f"step: want a result of texts, each of at most {MOST_RESULT} characters")
        if not (key + value).isprintable():  # a TPM maker's texts come to people's terminals
            raise TrustError("step: want a result of printable characters")
    return dict(result)


def _text(about: Mapping[str, Any], name: str) -> str:
    return checked_text(name, about.get(name))


def _serial_of(leaf: Leaf) -> str:
    about = leaf.body.get("about", {})
    return str(about.get("serial", leaf.body.get("name", ""))).removeprefix(BIRTH)


def _clash(said: str) -> str:
    """Return which constraint refused it, in a person's words. SQLite and PostgreSQL both name the column."""
    if "gateway" in said:
        return "another unit is this gateway"
    for column, word in _CLASHES.items():
        if f"units.{column}" in said or f"units_{column}" in said:
            return f"another unit has this {word} already, or had it"
    return "another unit has this serial or certificate already, or had it"
