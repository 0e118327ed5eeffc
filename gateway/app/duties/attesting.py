"""Attesting: the ledger as relying party. What the verifier says of each gateway becomes a `standing` leaf of our log.

A leaf is sealed when a gateway's state or epoch changes, and holds from the size of its log at that moment on: so each
leaf of a gateway is under just one state. A new epoch waits (PENDING) from its own leaf on. The newest result decides
between TRUSTED, FAILED and UNREACHABLE; without a newer one a good result holds until it expires, and then the gateway
is STALE. `warning` is FAILED too: figures rest on what is affirmed, and on nothing less; a verifier's policy says what
it affirms. FAILED stays until a good result, or another epoch: that a gateway no longer answers is no news then.

A good result reaches back over leaves that only waited for it, at most to the start of the device: PCRs are never
undone without a reset. Epochs before its own are of the same start where they were found good in the same boot. A bad
one reaches back, too: to the size of the log that the last good one was about, as nobody vouches for what came after.
"""

from collections.abc import Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.deciding import Deciding
from gateway.app.duties.duty import Desk
from gateway.app.keys import read_verifier
from gateway.app.standing import results
from gateway.app.standing.window import window_of
from gateway.attest.ear import Result, boot_of, verify_result
from gateway.carbon.reliance import NEW_EPOCH
from gateway.codec.bodies import event_body, standing_body
from gateway.codec.standing_leaves import MAX_REASON
from gateway.config import LedgerConfig
from gateway.errors import TrustError
from gateway.model import Standing, State
from gateway.north.mqtt import result_topic
from gateway.store import projections as tables
from gateway.tlog.note import SignatureKind, Verifier

NO_RESULT = "no result yet"
PINNED = "its key is pinned in ledger.toml, and nothing attests it"
_SECOND_NS = 1_000_000_000
_EVERY_NS = _SECOND_NS
_COUNT_NS = 30 * _SECOND_NS
_QUIET_NS = 60 * _SECOND_NS


class Attesting:
    """The duty. Raises ConfigError for a verifier key that cannot be read."""

    name = "attesting"

    def __init__(self, config: LedgerConfig, desk: Desk, log: FilteringBoundLogger) -> None:
        self._state, self._origin, self._desk, self._log = config.ledger.state, config.origin, desk, log
        self._devices = {name: one.device for name, one in config.gateways.items() if one.device is not None}
        self._pinned = [name for name in config.gateways if name not in self._devices]
        self._verifier: Verifier | None = None
        officers: Path | None = None
        if config.attest is not None:
            self._verifier = read_verifier(config.attest.verifier, "attest.verifier", kind=SignatureKind.NOTE)
            officers = config.attest.officers
        self._deciding = Deciding(self._state, desk, log, ledger=config.origin, officers=officers)
        self._topics = {result_topic(name): name for name in self._devices}
        self._heard = {name: self._recall(name) for name in self._devices}
        self._said: dict[str, int] = {}
        self._due_ns = self._count_ns = 0
        now_ns = desk.clock.read().t_ns
        for name in config.gateways:
            self._see_to(name, now_ns)  # before any leaf of it is taken

    async def run(self) -> None:
        """Return at once: it has no sockets of its own."""

    @property
    def filters(self) -> Sequence[str]:
        """The topics of results."""
        return tuple(self._topics)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a result."""
        gateway = self._topics.get(topic)
        if gateway is None:
            return
        now_ns = self._desk.clock.read().t_ns
        self._announce(gateway, now_ns)
        try:
            told = results.Told(result=self._check(gateway, payload), token=payload.decode())
            heard = self._heard[gateway].take(told)
        except (TrustError, UnicodeDecodeError) as e:
            self._refuse(gateway, str(e), now_ns)
            return
        self._keep(gateway, heard)
        self._desk.counts.results += 1
        self._see_to(gateway, now_ns)

    def look(self, now_ns: int) -> None:
        """Seal what the clock alone says, and new epochs; take decisions; count."""
        if self._due_ns - _EVERY_NS <= now_ns < self._due_ns:  # a clock that was set back does not stop it
            return
        self._due_ns = now_ns + _EVERY_NS
        for gateway in (*self._devices, *self._pinned):
            self._see_to(gateway, now_ns)
        if self._deciding.take(now_ns):
            self._count_ns = 0
        if not self._count_ns - _COUNT_NS <= now_ns < self._count_ns:
            self._count()
            self._count_ns = now_ns + _COUNT_NS

    # ---- results

    def _recall(self, gateway: str) -> results.Heard:
        standings, device = self._desk.facts.standings, self._devices[gateway]
        verify = results.kept_by(gateway, device, verifier=self._verifier, ledger=self._origin, standings=standings)
        return results.read(self._state, gateway, verify, sealed=results.newest_sealed(standings, gateway))

    def _check(self, gateway: str, payload: bytes) -> Result:
        """Return a result that is about this gateway as it runs now. Raises TrustError."""
        if self._verifier is None:
            raise TrustError("result: no verifier in ledger.toml")
        name, now_s = self._verifier.name, self._desk.clock.read().t_ns // _SECOND_NS
        result = verify_result(
            payload.decode(), issuer=name, audience=self._origin, verifier=self._verifier, now_s=now_s
        )
        if result.gateway != gateway:
            raise TrustError(f"result: it is about gateway {result.gateway[:63]!r}")
        if result.status == "none":
            return result
        if result.device != self._devices[gateway]:
            want = self._devices[gateway]
            raise TrustError(f"result: it is about device {result.device[:64]!r}, and ledger.toml says {want!r}")
        epochs = self._desk.facts.standings.epochs(gateway)
        if not epochs or (result.epoch, result.key) != epochs[-1][1:]:
            got = f"epoch {result.epoch} of key {result.key[:80]}"
            raise TrustError(f"result: it is about {got}, and the log's newest is another")
        return result

    def _keep(self, gateway: str, heard: results.Heard) -> None:
        self._heard[gateway] = heard
        try:
            results.write(self._state, gateway, heard)
        except OSError as e:
            self._log.error("ledger.results", gateway=gateway, why=str(e))

    def _refuse(self, gateway: str, why: str, now_ns: int) -> None:
        self._desk.counts.results_refused += 1
        if not 0 <= now_ns - self._said.get(gateway, -_QUIET_NS) < _QUIET_NS:
            self._said[gateway] = now_ns
            self._log.warning("ledger.result_refused", gateway=gateway, why=why[:300])

    # ---- states

    def _see_to(self, gateway: str, now_ns: int) -> None:
        """Seal what has changed of a gateway. Without room it is found again at the next look."""
        if not self._announce(gateway, now_ns):
            return
        newest = self._desk.facts.standings.newest(gateway)
        if newest is None or gateway not in self._devices:
            return
        state, reason, token = self._wanted(gateway, newest, now_ns)
        if state is not newest.state:
            self._seal(gateway, state, reason, now_ns=now_ns, epoch=newest.epoch, token=token)

    def _announce(self, gateway: str, now_ns: int) -> bool:
        """Seal that a gateway is under attestation, or no longer, and which epochs began; return False without room."""
        standings = self._desk.facts.standings
        newest, epochs = standings.newest(gateway), standings.epochs(gateway)
        is_pinned = gateway in self._pinned
        if newest is None or newest.state is State.UNATTESTED:
            epoch = epochs[-1][1] if epochs else 0
            return is_pinned or self._seal(gateway, State.PENDING, NO_RESULT, now_ns=now_ns, epoch=epoch)
        known = max((index for index, number, _ in epochs if number == newest.epoch), default=newest.first - 1)
        unknown = [(index, number) for index, number, _ in epochs if index > known]
        # Of a thousand restarts in a backlog the first and the last: what lies between waits under the first, for ever.
        for index, number in (*unknown[:1], *unknown[1:][-1:]):
            if not self._seal(gateway, State.PENDING, NEW_EPOCH, now_ns=now_ns, epoch=number, first=index):
                return False
            if not is_pinned:
                self._keep(gateway, self._heard[gateway].of_epoch(number))
        return not is_pinned or self._seal(gateway, State.UNATTESTED, PINNED, now_ns=now_ns, epoch=0)

    def _wanted(self, gateway: str, held: Standing, now_ns: int) -> tuple[State, str, str]:
        """Return the state that a gateway is in, why, and the token that says so."""
        heard = self._heard[gateway]
        told = heard.newest
        if told is not None and told.may_be_sealed(now_ns):
            status, is_of_it = told.result.status, told.result.epoch == held.epoch
            if status == "none" and held.state is not State.FAILED:
                return State.UNREACHABLE, told.result.reason, told.token
            if status not in {"none", results.GOOD} and is_of_it:
                return State.FAILED, f"{status}: {told.result.reason}", told.token
            if status == results.GOOD and is_of_it and told.holds(now_ns):
                return State.TRUSTED, "", told.token
        if held.state is State.TRUSTED:
            return self._aged(heard, now_ns)
        return held.state, held.reason, ""

    def _aged(self, heard: results.Heard, now_ns: int) -> tuple[State, str, str]:
        good = heard.good
        is_newest = heard.newest is None or heard.newest.result.status == results.GOOD
        if good is not None and good.holds(now_ns) and is_newest:
            return State.TRUSTED, "", good.token
        is_ahead = good is not None and now_ns < good.result.issued_s * _SECOND_NS
        return State.STALE, "the newest good result is " + ("later than our clock" if is_ahead else "too old"), ""

    def _seal(
        self,
        gateway: str,
        state: State,
        reason: str,
        *,
        now_ns: int,
        epoch: int,
        first: int | None = None,
        token: str = "",
    ) -> bool:
        """Seal a standing and say so; return False where there is no room."""
        standings, size = self._desk.facts.standings, self._desk.held(gateway)
        before = standings.newest(gateway)
        if first is None:
            first = self._first(gateway, state, epoch, size, boot=boot_of(token))
        with self._desk.book.reading() as connection:
            window = window_of(connection, gateway, first, size)
        heard = self._heard.get(gateway)
        standing = Standing(
            gateway=gateway,
            first=first,
            size=size,
            state=state,
            reason=reason[:MAX_REASON],
            epoch=epoch,
            t_ns=now_ns,
            verified_ns=_verified_ns(heard, before),
            start_ns=None if window is None else window[0],
            end_ns=None if window is None else window[1],
            result=token,
        )
        was = "" if before is None else str(before.state)
        about = {"gateway": gateway, "state": str(state), "was": was, "reason": standing.reason}
        event = event_body("gateway.standing", now_ns, {**about, "epoch": epoch, "first": first})
        if self._desk.seal_all([("standing", standing_body(standing)), ("event", event)]) is None:
            return False
        say = self._log.info if state.is_affirmed else self._log.warning
        say("ledger.standing", **about, epoch=epoch, first=first, size=size)
        return True

    def _first(self, gateway: str, state: State, epoch: int, size: int, *, boot: str) -> int:
        """Return from which leaf on a state holds that was found at this size of the log."""
        standings = self._desk.facts.standings
        if state is State.TRUSTED:
            return standings.reach(gateway, epoch, boot, size)
        if state is not State.FAILED:
            return size
        first_epoch, proven = self._heard[gateway].proven
        if not standings.is_of(gateway, epoch, boot, first_epoch):
            first_epoch, proven = epoch, 0
        began = max((index for index, number, _ in standings.epochs(gateway) if number == first_epoch), default=size)
        return standings.reach_failed(gateway, epoch, boot, size, since=max(began, proven))

    # ---- metrics

    def _count(self) -> None:
        counts, standings = self._desk.counts, self._desk.facts.standings
        found = dict.fromkeys(State, 0)
        for gateway in (*self._devices, *self._pinned):
            newest = standings.newest(gateway)
            found[State.UNATTESTED if newest is None else newest.state] += 1
        for state, number in found.items():
            setattr(counts, f"gateways_{state.lower()}", number)
        with self._desk.book.reading() as connection:
            counts.quarantined = sum(tables.quarantined_counts(connection).values())


def _verified_ns(heard: results.Heard | None, before: Standing | None) -> int | None:
    """Return when a device was last found good: as results say, or else the standing before."""
    if heard is not None and heard.verified_ns is not None:
        return heard.verified_ns
    return None if before is None else before.verified_ns
