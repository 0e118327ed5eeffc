"""Deciding: seals what security officers have decided on quarantined leaves, once each."""

from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk
from gateway.app.standing.officers import MAX_NOTE, read_officers, waiting
from gateway.app.standing.window import window_of
from gateway.attest.decision import Ruling, verify_ruling
from gateway.codec.bodies import decision_body, event_body
from gateway.errors import ConfigError, TrustError
from gateway.model import Decision


class Deciding:
    """Takes the notes that wait. officers: the file of their keys, read again for each batch; None for none."""

    def __init__(
        self, state: Path, desk: Desk, log: FilteringBoundLogger, *, ledger: str, officers: Path | None
    ) -> None:
        self._state, self._desk, self._log, self._ledger, self._officers = state, desk, log, ledger, officers

    def take(self, now_ns: int) -> bool:
        """Seal the decisions that wait; return whether there was one. One that is refused changes nothing."""
        was_there = False
        for path in waiting(self._state):
            try:
                with path.open("rb") as file:
                    note = file.read(MAX_NOTE + 1)
                if not self._seal(note, now_ns):
                    return was_there  # no room: it waits
                was_there = True
            except (TrustError, ConfigError, OSError) as e:
                self._desk.counts.decisions_refused += 1
                self._log.warning("ledger.decision_refused", file=path.name[:80], why=str(e)[:300])
            path.unlink(missing_ok=True)
        return was_there

    def _seal(self, note: bytes, now_ns: int) -> bool:
        if len(note) > MAX_NOTE:
            raise TrustError(f"decision: want at most {MAX_NOTE} bytes")
        ruling = verify_ruling(
            note, () if self._officers is None else read_officers(self._officers), ledger=self._ledger
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
