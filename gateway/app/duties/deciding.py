"""Deciding: seals what security officers have decided on quarantined leaves, once each."""

import os
import stat
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk
from gateway.app.standing.officers import MAX_NOTE, read_officers, waiting
from gateway.app.standing.window import window_of
from gateway.attest.decision import Ruling, verify_ruling
from gateway.carbon.exact import utc
from gateway.codec.bodies import decision_body, event_body
from gateway.errors import ConfigError, TrustError
from gateway.model import Decision

AHEAD_NS = 60_000_000_000
"""So far ahead of ours may be the clock by which a decision was made."""


class Deciding:
    """Takes the notes that wait. officers: the file of their keys, read again for each batch; None for none."""

    def __init__(
        self, state: Path, desk: Desk, log: FilteringBoundLogger, *, ledger: str, officers: Path | None
    ) -> None:
        self._state, self._desk, self._log, self._ledger, self._officers = state, desk, log, ledger, officers
        self._left: set[Path] = set()

    def take(self, now_ns: int) -> bool:
        """Seal the decisions that wait; return whether there was one. One that is refused changes nothing."""
        was_there = False
        for path in waiting(self._state, but=self._left):
            try:
                if not self._seal(_read(path), now_ns):
                    return was_there  # no room: it waits
                was_there = True
            except (TrustError, ConfigError, OSError) as e:
                self._desk.counts.decisions_refused += 1
                self._log.warning("ledger.decision_refused", file=path.name[:80], why=str(e)[:300])
            self._remove(path)
        return was_there

    def _remove(self, path: Path) -> None:
        """Remove a note that was answered. One that cannot be, as in root's folder, is left alone from here on."""
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            self._left.add(path)
            self._log.error("ledger.decision_stays", file=path.name[:80], why=str(e)[:300])

    def _seal(self, note: bytes, now_ns: int) -> bool:
        if len(note) > MAX_NOTE:
            raise TrustError(f"decision: want at most {MAX_NOTE} bytes")
        ruling = verify_ruling(
            note, () if self._officers is None else read_officers(self._officers), ledger=self._ledger
        )
        if ruling.made_ns > now_ns + AHEAD_NS:
            # It could never be undone: no later one on these leaves is made after it.
            raise TrustError(
                f"decision: made {utc(ruling.made_ns)}, and the ledger's clock says {utc(now_ns)}: want a time by now, "
                "or 60 s ahead at most; set the clock right where it is signed, and sign again"
            )
        decision = Decision(
            gateway=ruling.gateway,
            first=ruling.first,
            stop=ruling.stop,
            admit=ruling.admit,
            **self._window(ruling),
            note=note,
        )
        about = {"gateway": ruling.gateway, "first": ruling.first, "stop": ruling.stop, "admit": ruling.admit}
        event = event_body("gateway.decision", now_ns, {**about, "by": ruling.by, "reason": ruling.reason})
        if self._desk.seal_all([("decision", decision_body(decision)), ("event", event)]) is None:
            return False
        self._desk.counts.decisions += 1
        self._log.warning("ledger.decision", **about, by=ruling.by, reason=ruling.reason)
        return True

    def _window(self, ruling: Ruling) -> dict[str, int]:
        """Return the time whose cells a ruling may change. Raises TrustError where it cannot be about our leaves."""
        size = self._desk.held(ruling.gateway)
        if ruling.stop > size:
            raise TrustError(f"decision: got leaves up to {ruling.stop - 1}, and {ruling.gateway} has {size}")
        self._desk.facts.standings.check_ruling(ruling)
        with self._desk.book.reading() as connection:
            window = window_of(connection, ruling.gateway, ruling.first, ruling.stop)
        if window is None:
            raise TrustError("decision: no interval leaf is among these leaves: nothing would change")
        return {"start_ns": window[0], "end_ns": window[1]}


def _read(path: Path) -> bytes:
    """Return a note, and a byte more where it is too long. A pipe without a writer is refused, not waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - flags
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise TrustError("decision: want a plain file")
        return file.read(MAX_NOTE + 1)
