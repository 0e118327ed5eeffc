"""The files of the plant's that figures rest on: looked at, checked, and sealed whole when they have changed.

A file that is wrong changes nothing, and why is said once. What is sealed already is not sealed again, nor after a
restart. A file that is gone changes nothing either: what was sealed last stays in force.
"""

from collections.abc import Callable
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk
from gateway.app.timezones import Rules, covers, rules_of
from gateway.carbon.facts import GRID_SETTINGS, PLAN
from gateway.carbon.grid.settings import parse_settings
from gateway.carbon.scopes.fuels import check_fuels
from gateway.codec.bodies import document_body
from gateway.config.ledger import LedgerSection
from gateway.config.plan import Plan, parse_plan
from gateway.errors import ConfigError
from gateway.model import Document

MAX_BYTES = 60_000
"""A leaf has room for so much, and for the rules of its time zone."""
_YEAR_NS = 365 * 86_400 * 1_000_000_000
_SAME_YEARS = 5

_Stamp = tuple[int, int, int]
_NONE: _Stamp = (0, 0, 0)


class _Watched:
    """One file. make: the document that its content is to be sealed as, None for none; raises ConfigError."""

    def __init__(self, path: Path, name: str, make: Callable[[bytes, int, str], Document | None]) -> None:
        self.path, self.name, self._make = path, name, make
        self._seen = _NONE
        self.wrong = ""

    def forget(self) -> None:
        """Look at it again, changed or not."""
        self._seen = _NONE

    def look(self, now_ns: int) -> tuple[_Stamp, Document | None] | None:
        """Return what is to be sealed of a file that has changed, and by what to know it; None where it has not.

        Raises ConfigError, once for each content.
        """
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._seen:
                return None
            content = self.path.read_bytes() if stat.st_size <= MAX_BYTES else b""
        except FileNotFoundError:
            self._seen = _NONE
            return None
        except OSError as e:
            raise ConfigError(f"{self.path.name}: {e.strerror}, want a readable file") from e
        if stat.st_size > MAX_BYTES:
            self.saw(stamp)
            raise ConfigError(f"{self.path.name}: got {stat.st_size} bytes, want {MAX_BYTES} at most")
        try:
            return stamp, self._make(content, now_ns, f"{self.path.name}, of {_owner(self.path)}")
        except (ConfigError, UnicodeDecodeError) as e:
            self.saw(stamp)
            raise ConfigError(str(e) if isinstance(e, ConfigError) else f"{self.path.name}: not UTF-8: {e}") from e

    def saw(self, stamp: _Stamp) -> None:
        """Do not look at it again until it differs."""
        self._seen = stamp


class Documents:
    """Watches carbon.toml and grid-settings.json."""

    name = "documents"

    def __init__(self, section: LedgerSection, desk: Desk, log: FilteringBoundLogger) -> None:
        self._desk, self._log = desk, log
        self._files: list[_Watched] = []
        if section.plan is not None:
            self._files.append(_Watched(section.plan, PLAN, self._plan))
        if section.grid_settings is not None:
            self._files.append(_Watched(section.grid_settings, GRID_SETTINGS, self._settings))

    def look(self, now_ns: int) -> None:
        """Seal what has changed."""
        for file in self._files:
            try:
                found = file.look(now_ns)
            except ConfigError as e:
                if str(e) != file.wrong:
                    self._log.error("ledger.document", document=file.name, why=str(e))
                file.wrong = str(e)
                continue
            if found is not None:
                self._seal(file, *found)

    async def run(self) -> None:
        """Return at once: it has no sockets."""

    def _seal(self, file: _Watched, stamp: _Stamp, document: Document | None) -> None:
        if document is not None:
            index = self._desk.seal("document", document_body(document))
            if index is None:
                return  # no room: it is looked at again
            self._log.info("ledger.document", document=file.name, leaf=index, by=document.by)
            for other in self._files:
                other.forget()  # whether settings are right may hang on the plan
        file.wrong = ""
        file.saw(stamp)

    def _plan(self, content: bytes, now_ns: int, by: str) -> Document | None:
        name = next(file.path.name for file in self._files if file.name == PLAN)
        plan = parse_plan(content.decode(), name=name)
        check_fuels(plan, self._desk.facts.fuels.factors, name)
        held = self._desk.facts.document(PLAN)
        is_new = held is None or held.content != content
        from_ns = now_ns if plan.valid_from_ns is None or not is_new else plan.valid_from_ns
        rules = rules_within(plan, from_ns=from_ns, now_ns=now_ns, name=name)
        if held is not None and not is_new and covers(rules, held.rules, now_ns, now_ns + _SAME_YEARS * _YEAR_NS):
            return None
        return Document(name=PLAN, from_ns=from_ns, content=content, by=by, rules=rules)

    def _settings(self, content: bytes, now_ns: int, by: str) -> Document | None:
        name = next(file.path.name for file in self._files if file.name == GRID_SETTINGS)
        settings = parse_settings(content, name=name)
        held = self._desk.facts.document(GRID_SETTINGS)
        if held is not None and held.content == content:
            return None
        known = self._instruments(now_ns)
        if settings.offset_id and settings.offset_id not in known:
            want = f"one of {', '.join(sorted(known))}" if known else "an instrument, and the plan has none"
            raise ConfigError(f"{name}: offset_id: got {settings.offset_id!r}, want {want}")
        return Document(name=GRID_SETTINGS, from_ns=now_ns, content=content, by=by)

    def _instruments(self, now_ns: int) -> set[str]:
        """Return those of the plan in force, and of the one sealed last, which may hold later."""
        facts = self._desk.facts
        newest = facts.document(PLAN)
        coming = parse_plan(newest.content.decode(), name=PLAN).instruments if newest is not None else {}
        return {*facts.plan_at(now_ns).plan.instruments, *coming}


def rules_within(plan: Plan, *, from_ns: int, now_ns: int, name: str) -> Rules:
    """Return the offsets of a plan's time zone. Raises ConfigError that names the plan's file."""
    try:
        return rules_of(plan.site.timezone, from_ns=from_ns, now_ns=now_ns)
    except ConfigError as e:
        raise ConfigError(f"{name}: {e}") from e


def _owner(path: Path) -> str:
    """Return the name of a file's owner, or his number where he has none."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)
