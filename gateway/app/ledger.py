"""The ledger process: takes what gateways publish, keeps it, cosigns it, computes figures.

Messages that wait together are committed together: one fsync, one cosignature a gateway, one receipt.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.accept import GatewayCopy
from gateway.app.chains import append_all
from gateway.app.duties import duties_of
from gateway.app.factorfile import factor_files
from gateway.app.keys import read_signer
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.ownlog import OwnLog
from gateway.app.projector import Projector
from gateway.app.trust.signers import signers_of
from gateway.app.verdicts import Accepted, Committed
from gateway.carbon.facts import Facts, Touched
from gateway.carbon.grid.news import restated
from gateway.clock import WallClock
from gateway.codec.bodies import accepted_body, factor_body
from gateway.config import LedgerConfig
from gateway.errors import TrustError
from gateway.model import Factor
from gateway.store.files import Files, RealFiles
from gateway.store.projections import Projections
from gateway.store.segments import Log, StoreFull

MOST_MESSAGES = 64
"""So many messages are committed together at most."""
QUIET_S = 60.0
"""A gateway whose messages are refused is written down at most this often."""
BEAT_S = 5.0
"""How often the factor file is looked at."""
LOOK_BACK = 4096
"""So many leaves of our own log are searched at the start for what a crash kept out of it."""


class Ledger:
    """All that the ledger knows, without sockets: accept any number of messages, then commit.

    files: how a log's folder is opened. clock: the time; a simulation brings its own.
    Raises LogError when a log cannot be trusted, ConfigError for a useless key, StoreFull when there is no room to
    start.
    """

    def __init__(
        self,
        config: LedgerConfig,
        *,
        counts: LedgerCounts,
        log: FilteringBoundLogger,
        files: Callable[[Path], Files] = RealFiles,
        clock: WallClock | None = None,
    ) -> None:
        self.counts, self._log = counts, log
        self.clock = clock or WallClock()
        signer = read_signer(config.ledger.key, "ledger.key", name=config.origin)
        signers = signers_of(
            config, say=lambda why: log.error("ledger.anchors", why=why), now_s=lambda: self.clock.read().t_ns / 1e9
        )
        folder = config.ledger.state
        self.own = OwnLog(Log.open(files(folder / "own"), origin=config.origin), signer=signer, clock=self.clock)
        self.copies = {
            gateway: GatewayCopy(
                Log.open(files(folder / "gateways" / gateway), origin=f"wattseal/{gateway}"),
                signed_by=signed_by,
                cosigner=signer.cosigner(),
                time_s=lambda: self.clock.read().t_ns / 1e9,
            )
            for gateway, signed_by in signers.items()
        }
        self._touched: set[str] = set()
        self._said: dict[str, float] = {}
        self._factors = factor_files(config.ledger, say=lambda why: log.error("ledger.factors", why=why))
        self._note_receipts()
        self._book = Projections(folder / "projections.sqlite")
        self._projector = self._caught_up()
        self.counts.rows, self.counts.unusable = self._projector.rows, self._projector.unusable
        self._is_behind = False
        self._settle({})
        self.load_factors()
        self.duties = duties_of(config, self, log)

    @property
    def facts(self) -> Facts:
        """What is in force."""
        return self._projector.facts

    @property
    def touched(self) -> Sequence[tuple[int, Touched]]:
        """What each fact may change, by its leaf's index in our own log, in its order."""
        return self._projector.touched

    @property
    def ends(self) -> Mapping[tuple[str, str], int]:
        """Where each line's newest cell ends, by gateway and line."""
        return self._projector.ends

    @property
    def book(self) -> Projections:
        """The tables, to read."""
        return self._book

    def held(self, gateway: str) -> int:
        """Return how many leaves of a gateway are durable here; 0 for one that is not in ledger.toml."""
        return self.copies[gateway].log.durable if gateway in self.copies else 0

    def close(self) -> None:
        """Give everything back. What was not committed is gone."""
        self._book.close()
        for log in (self.own.log, *(copy.log for copy in self.copies.values())):
            log.close()

    def _note_receipts(self) -> None:
        """Write down the receipts that a crash kept out of our own log: an export rests on them."""
        noted: dict[str, bytes] = {}
        for leaf in self.own.leaves(max(0, self.own.log.durable - LOOK_BACK)):
            if leaf.kind == "accepted":
                noted[leaf.body["gateway"]] = leaf.body["checkpoint"].encode()
        for gateway, copy in self.copies.items():
            if copy.log.checkpoint is not None and noted.get(gateway) != copy.log.checkpoint:
                self.own.append("accepted", accepted_body(gateway, copy.log.checkpoint))
        self.own.commit()

    def _caught_up(self) -> Projector:
        copies = {gateway: copy.log for gateway, copy in self.copies.items()}
        projector = Projector(self._book, own=self.own.log, copies=copies)
        projector.catch_up()
        return projector

    # ---- factors

    def load_factors(self) -> int:
        """Seal what is new in the files of factors that have changed; return how many versions that was."""
        if self._is_behind:
            return 0  # what is in force is not known until the tables are up to date
        return sum(self._enforce(file.news(self._projector.news)) for file in self._factors)

    def offer(self, factors: Sequence[Factor]) -> int:
        """Seal what is new among factors, compute what they touch; return how many. Raises ConfigError."""
        return 0 if self._is_behind else self._enforce(self._projector.news(factors))

    def _enforce(self, news: Sequence[Factor]) -> int:
        for factor in news:
            old = self.facts.factors.in_force(factor)
            self.own.append("factor", factor_body(factor))
            if old is not None:
                self.own.event("factor.restated", restated(old.factor, factor))
        if news:
            self._settle({})
            self._log.info("ledger.factors", versions=len(news))
        return len(news)

    def seal(self, kind: str, body: bytes) -> int | None:
        """Seal a leaf in our own log and compute with it; return its index, None where there is no room."""
        indices = self.seal_all([(kind, body)])
        return indices[0] if indices else None

    def seal_all(self, leaves: Sequence[tuple[str, bytes]]) -> list[int] | None:
        """Seal leaves, as kind and body, together; return their indices, None where there is no room."""
        if self._is_behind:
            return None
        indices = append_all(self.own, self._book, leaves)
        self._settle({})
        return None if self._is_behind else indices

    # ---- messages

    def take(self, gateway: str, payload: bytes) -> bytes | None:
        """Take one message; return a receipt to publish at once (the answer to a gap), else None."""
        self.counts.messages += 1
        copy = self.copies.get(gateway)
        if copy is None:
            self._refused(gateway, "not a gateway of ledger.toml")
            return None
        try:
            result = copy.accept(payload)
        except TrustError as e:
            self._refused(gateway, str(e))
            return None
        if isinstance(result, Accepted):
            self._touched.add(gateway)
            return None
        self.counts.gaps += 1
        return result.receipt

    def _refused(self, gateway: str, why: str) -> None:
        self.counts.refused += 1
        known = gateway if gateway in self.copies else ""
        if self._may_say(f"refused {known}"):
            self._log.warning("ledger.refused", gateway=gateway[:63], why=why[:300])
            if known:
                self.own.event("ledger.refused", {"gateway": gateway, "why": why[:300]})

    def _full(self, of: str, why: StoreFull) -> None:
        self.counts.full += 1
        if self._may_say(f"full {of}"):
            self._log.error("ledger.full", of=of, why=str(why))

    def _may_say(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(what, -QUIET_S) < QUIET_S:
            return False
        self._said[what] = now
        return True

    def commit(self) -> dict[str, bytes]:
        """Make durable what was taken, cosign it, compute; return the receipts to publish, by gateway."""
        groups: dict[str, Committed] = {}
        touched, self._touched = self._touched, set()
        for gateway in sorted(touched):
            try:
                committed = self.copies[gateway].commit()
            except StoreFull as e:
                self._full(gateway, e)
                continue
            if committed is None:
                continue
            groups[gateway] = committed
            self.own.append("accepted", accepted_body(gateway, committed.receipt))
            self.counts.leaves += len(committed.leaves)
            self.counts.unusable += len(committed.unusable)
            self.counts.absent += len(committed.absent)
        self._settle(groups)
        return {gateway: committed.receipt for gateway, committed in groups.items()}

    def _settle(self, groups: Mapping[str, Committed]) -> None:
        """Make our own log durable and bring the tables up to date. Without room they lag, and are caught up later."""
        self.counts.size = sum(copy.size for copy in self.copies.values())
        self.counts.disk_bytes = sum(copy.log.body_bytes for copy in self.copies.values())
        before = (self._projector.rows, self._projector.unusable)
        try:
            self.own.commit()
            if self._is_behind:
                self._projector, before = self._caught_up(), (0, 0)
                self._is_behind = False
            for gateway, committed in groups.items():
                self._projector.take(gateway, committed)
            self._projector.catch_up_own()
        except StoreFull as e:
            self._is_behind = True
            self._full("own", e)
            return
        self.counts.rows += self._projector.rows - before[0]
        self.counts.unusable += self._projector.unusable - before[1]

    def beat(self) -> None:
        """Do what no message asks for: read changed factors, catch up with what there was no room for."""
        if self._is_behind:
            self._settle({})
        self.load_factors()
        self.look()

    def look(self) -> None:
        """Let each duty do what is due."""
        now_ns = self.clock.read().t_ns
        for duty in self.duties:
            duty.look(now_ns)
