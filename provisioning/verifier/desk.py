"""The verifier without its network: whom to ask, what an answer is worth, what to tell the ledger."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import SystemRandom

from structlog.typing import FilteringBoundLogger

from gateway.app.metrics import counter, gauge
from gateway.attest.ear import sign_result
from gateway.attest.evidence import MAX_EVIDENCE, NONCE_BYTES, Challenge, OwnWordError, sign_challenge
from gateway.errors import TrustError
from gateway.model.standing import State
from gateway.tlog.note import Signer
from provisioning.verifier.records import Marks, Outcome, Record, missed, unknown
from provisioning.verifier.rounds import Rounds, Wrong
from provisioning.verifier.store import Store
from provisioning.verifier.trust import TrustFiles
from provisioning.verifier.weighing import weigh


@dataclass(slots=True)
class VerifierCounts:
    """What the verifier counts."""

    challenges: int = counter("challenges sent")
    hellos: int = counter("gateways that asked to be challenged, having just connected")
    evidence: int = counter("answers that were the device's own")
    refused: int = counter("answers that were noise, malformed, or not surely the device's")
    unasked: int = counter("answers that came too late, or that nobody had asked for")
    unknown: int = counter("messages of gateways that are not in verifier.toml")
    missed: int = counter("challenges that no good answer came to in time")
    results: int = counter("results published")
    dropped: int = counter("messages from the broker that came faster than they were verified")
    reconnects: int = counter("connections to the broker")
    connected: int = gauge("1 while connected to the broker")
    bad_files: int = gauge("1 while a changed file is bad, and the one before it in force")
    blind: int = gauge("1 while an issuer's newest list of the revoked, or the last root, has run out: nobody is asked")
    open: int = gauge("challenges that wait for an answer")
    gateways: int = gauge("gateways in verifier.toml")
    trusted: int = gauge("gateways found good within result_s")
    pending: int = gauge("gateways not asked yet")
    stale: int = gauge("gateways whose newest good result has run out")
    unreachable: int = gauge("gateways that did not answer in time")
    failed: int = gauge("gateways found wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What time it is. steady_s: seconds that never go back. wall_s: Unix seconds. chance: in [0, 1)."""

    steady_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time
    chance: Callable[[], float] = field(default_factory=lambda: SystemRandom().random)
    nonce: Callable[[], bytes] = field(default=lambda: secrets.token_bytes(NONCE_BYTES))


class Desk:
    """All of a verifier but its connection. Methods are synchronous: one caller, one order.

    What an answer comes to is written before it is told: a verifier that starts again knows what it has said.
    """

    def __init__(
        self,
        files: TrustFiles,
        store: Store,
        signer: Signer,
        *,
        log: FilteringBoundLogger,
        clocks: Clocks | None = None,
    ) -> None:
        self.counts = VerifierCounts()
        self._files, self._store, self._signer, self._log = files, store, signer, log
        self._clocks = clocks or Clocks()
        head = files.config.verifier
        self._deadline_s, self._result_s, self._audience = head.deadline_s, head.result_s, head.ledger
        self._rounds = Rounds(period_s=head.period_s, deadline_s=head.deadline_s, chance=self._clocks.chance)
        self._records = store.read()
        self._outcomes: list[Outcome] = []
        self._asked: dict[str, bytes] = {}  # challenges under way that may be sent once more
        self._again: list[tuple[str, bytes]] = []
        self._was_ahead = False
        self._enlist()
        self.look()

    @property
    def records(self) -> dict[str, Record]:
        """What is known of each gateway."""
        return dict(self._records)

    def marks(self, gateway: str) -> Marks | None:
        """Return how far a gateway's device has come, None before its first answer."""
        record = self._records.get(gateway)
        return None if record is None else record.marks

    # ---- asking

    def challenges(self) -> list[tuple[str, bytes]]:
        """Open the rounds that are due; return each challenge, a signed note, with its gateway.

        With those under way whose gateway connected only after they were sent: nobody kept them for it.
        """
        if self._is_blind():
            return []
        now_s, asked = self._clocks.steady_s(), self._again
        self._again = []
        for gateway in self._rounds.due(now_s):
            nonce = self._clocks.nonce()
            self._rounds.ask(gateway, nonce, now_s)
            issued_s = int(self._clocks.wall_s())
            challenge = Challenge(
                gateway=gateway,
                purpose="attest",
                nonce=nonce,
                issued_s=issued_s,
                deadline_s=issued_s + max(1, int(self._deadline_s)),
            )
            self._asked[gateway] = sign_challenge(challenge, self._signer)
            asked.append((gateway, self._asked[gateway]))
        self.counts.challenges += len(asked)
        return asked

    def _is_blind(self) -> bool:
        """Return whether lists or roots have run out: then no gateway can be found good, and none is to blame."""
        why = self._files.trust.ended(self._clocks.wall_s())
        is_blind = bool(why)
        if is_blind and not self.counts.blind:
            self._log.error("verifier.blind", why=f"{why}: nobody is asked until there is a newer one")
        self.counts.blind = int(is_blind)
        if is_blind:
            self.disconnected()
        return is_blind

    def next_s(self) -> float | None:
        """Return in how many seconds there is something to do without an answer; None for never."""
        due_s = self._rounds.next_s()
        return None if due_s is None else max(0.0, due_s - self._clocks.steady_s())

    def disconnected(self) -> None:
        """Forget what was asked: it is we who cannot hear, and no gateway is to blame."""
        self._rounds.withdraw(self._clocks.steady_s())
        self._asked.clear()
        self._again.clear()

    # ---- answers

    def is_answer(self, gateway: str, payload: bytes) -> bool:
        """Return whether this may be the answer that is waited for: all else costs nothing to take."""
        nonce = self._rounds.nonce(gateway)
        return nonce is not None and len(payload) <= MAX_EVIDENCE and nonce in payload

    def take(self, gateway: str, payload: bytes) -> None:
        """Take a message of a gateway's evidence topic; what it comes to, `settle` tells."""
        if gateway not in self._rounds:
            self.counts.unknown += 1
            return
        if not payload:
            self.counts.hellos += 1
            self._hello(gateway)
            return
        nonce = None if self._is_blind() else self._rounds.nonce(gateway)
        if nonce is None:
            self.counts.unasked += 1
            self._hello(gateway)  # it is there: late, or asked by one before us
            return
        if not self.is_answer(gateway, payload):
            self.counts.refused += 1
            self._rounds.wrong(gateway, "evidence: not for the open challenge: late, a replay, or noise", Wrong.NOISE)
            return
        try:
            now_s, record = int(self._clocks.wall_s()), self._records[gateway]
            outcome = weigh(payload, record, self._files.trust, nonce=nonce, now_s=now_s)
        except TrustError as e:
            self.counts.refused += 1
            what = Wrong.OWN if isinstance(e, OwnWordError) else Wrong.UNPROVEN
            self._rounds.wrong(gateway, str(e), what, size=len(payload))
            return
        self.counts.evidence += 1
        self._rounds.answered(gateway, self._clocks.steady_s())
        self._found(outcome)

    def _hello(self, gateway: str) -> None:
        """Ask a gateway that is there: soon, or again what it may not have heard. Its deadline stays."""
        if note := self._asked.pop(gateway, b""):
            self._again.append((gateway, note))
        else:
            self._rounds.hello(gateway, self._clocks.steady_s())

    def settle(self) -> list[tuple[str, bytes]]:
        """Close the rounds that are past their deadline; write what was found; return each result with its gateway."""
        now_s = int(self._clocks.wall_s())
        for one in self._rounds.missed(self._clocks.steady_s()):
            self.counts.missed += 1
            record = self._records[one.gateway]
            self._found(missed(record, one, now_s, deadline_s=self._deadline_s))
        outcomes, self._outcomes = self._outcomes, []
        self._store.put([*{one.record.gateway: one.record for one in outcomes}.values()])
        self.counts.open = self._rounds.open
        return [(one.record.gateway, self._sign(one)) for one in outcomes if one.record.gateway in self._rounds]

    def _sign(self, outcome: Outcome) -> bytes:
        result = outcome.result(result_s=self._result_s, policy=self._files.trust.references.policy)
        return sign_result(result, issuer=self._signer.name, audience=self._audience, signer=self._signer).encode()

    def _found(self, outcome: Outcome) -> None:
        before, now = self._records[outcome.record.gateway], outcome.record
        self._asked.pop(now.gateway, None)
        self._records[now.gateway] = now
        self._outcomes.append(outcome)
        if before.state is now.state and (now.state is State.TRUSTED or before.reason == now.reason):
            return
        say = self._log.info if now.state is State.TRUSTED else self._log.warning
        say(
            "verifier.found",
            gateway=now.gateway,
            state=now.state.value,
            reason=now.reason,
            was=before.state.value,
            verified_s=now.verified_s,
        )

    # ---- now and then

    def refresh(self) -> None:
        """Read again the files that have changed."""
        if self._files.refresh():
            self._enlist()
        self.counts.bad_files = int(self._files.is_bad)

    def look(self) -> None:
        """Count the gateways by state."""
        now_s, states = int(self._clocks.wall_s()), dict.fromkeys(State, 0)
        for record in self._records.values():
            states[record.shown(now_s, result_s=self._result_s)] += 1
        counts = self.counts
        counts.gateways, counts.trusted, counts.pending = (
            len(self._records),
            states[State.TRUSTED],
            states[State.PENDING],
        )
        counts.stale, counts.failed = states[State.STALE], states[State.FAILED]
        counts.unreachable = states[State.UNREACHABLE]
        ahead = sum(record.is_ahead(now_s) for record in self._records.values())
        if ahead and not self._was_ahead:
            self._log.warning(
                "verifier.clock_put_back",
                gateways=ahead,
                why="these were last judged at a time to come: the next result of each is of the time it is now",
            )
        self._was_ahead = bool(ahead)

    def _enlist(self) -> None:
        """Ask whom the file names, and no others. Another device in a gateway's place has no history."""
        trust, now_s = self._files.trust, int(self._clocks.wall_s())
        gone = [one.gateway for one in self._records.values() if trust.devices.get(one.gateway) != one.device]
        for gateway in gone:
            self._log.warning("verifier.forgotten", gateway=gateway, device=self._records[gateway].device)
            del self._records[gateway]
            self._asked.pop(gateway, None)
            if gateway in self._rounds:
                self._rounds.remove(gateway)
        self._store.forget(gone)
        new = [gateway for gateway in trust.devices if gateway not in self._records]
        self._records |= {gateway: unknown(gateway, trust.devices[gateway], now_s) for gateway in new}
        self._store.put([self._records[gateway] for gateway in new])
        waiting = [gateway for gateway in trust.devices if gateway not in self._rounds]
        for gateway in waiting:
            self._rounds.add(gateway, self._clocks.steady_s(), among=len(waiting))
