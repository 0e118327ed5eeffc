"""What the tests of app/accept.py share: a gateway that seals in memory, and the ledger's copy of its log."""

from collections.abc import Callable
from pathlib import Path

from gateway.app.accept import GatewayCopy
from gateway.app.trust.signedby import Pinned
from gateway.app.verdicts import Committed
from gateway.codec.bodies import epoch_body, event_body
from gateway.codec.frames import LeafHash, LogMessage, pack_log
from gateway.codec.leaves import seal
from gateway.model import Clock, ClockState
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer, Verifier

ORIGIN = "wattseal/gw1"
LEDGER = Signer.generate("wattseal-ledger/ledger")
WITNESS: Verifier = LEDGER.cosigner().verifier
T0_S = 1_772_000_000


def event(number: int, what: str = "device.up") -> bytes:
    """Return an event leaf."""
    t_ns = (T0_S + number) * 10**9
    clock = Clock(t_ns=t_ns, state=ClockState.SYNCHRONISED, offset_ns=0)
    return seal("event", event_body(what, t_ns, {"number": number}), clock=clock)


def epoch(vkey: str, number: int = 1) -> bytes:
    """Return an epoch leaf that announces vkey."""
    clock = Clock(t_ns=T0_S * 10**9, state=ClockState.SYNCHRONISED, offset_ns=0)
    return seal("epoch", epoch_body(number, vkey, {"type": "unattested"}), clock=clock)


class Gateway:
    """A log in memory and its key: makes the messages that a gateway would send."""

    def __init__(self, signer: Signer | None = None, *, events: int = 0) -> None:
        self.signer = signer or Signer.generate(ORIGIN)
        self.leaves = [epoch(self.signer.verifier.vkey), *map(event, range(1, events + 1))]

    def grow(self, count: int, what: str = "device.up") -> None:
        """Seal more events."""
        self.leaves += [event(len(self.leaves) + place, what) for place in range(count)]

    def checkpoint(self, size: int | None = None, *, signer: Signer | None = None, origin: str = ORIGIN) -> bytes:
        """Return the signed checkpoint of the first size leaves."""
        size = len(self.leaves) if size is None else size
        edge = CompactRange()
        edge.extend(leaf_hash(leaf) for leaf in self.leaves[:size])
        return checkpoints.sign(Checkpoint(origin=origin, size=size, root=edge.root()), signer or self.signer)

    def message(
        self, first: int, end: int | None = None, *, absent: Callable[[int], bool] = lambda _: False
    ) -> LogMessage:
        """Return leaves first..end-1 and the checkpoint that ends with them. absent: whose bodies are gone."""
        end = len(self.leaves) if end is None else end
        leaves = tuple(
            LeafHash(leaf_hash(self.leaves[index])) if absent(index) else self.leaves[index]
            for index in range(first, end)
        )
        return LogMessage(first=first, leaves=leaves, checkpoint=self.checkpoint(end))

    def payload(self, first: int, end: int | None = None) -> bytes:
        """Return the same as the bytes of a `log` message."""
        return pack_log(self.message(first, end))


class Clocks:
    """The two clocks of a GatewayCopy, moved by hand."""

    def __init__(self) -> None:
        self.t_s = float(T0_S)
        self.mono_s = 100.0


class Ledger:
    """The copy of one gateway's log in a folder, and its clocks."""

    def __init__(self, folder: Path, gateway: Gateway, *, key: Verifier | None = None) -> None:
        self.clocks = Clocks()
        self._folder = folder
        self._key = key or gateway.signer.verifier
        self.log, self.copy = self._open()

    def reopen(self) -> None:
        """Open the copy anew, as after a crash: what was not committed is gone."""
        self.log.close()
        self.log, self.copy = self._open()

    def _open(self) -> tuple[Log, GatewayCopy]:
        log = Log.open(RealFiles(self._folder), origin=ORIGIN)
        return log, GatewayCopy(
            log,
            signed_by=Pinned(self._key),
            cosigner=LEDGER.cosigner(),
            time_s=lambda: self.clocks.t_s,
            monotonic_s=lambda: self.clocks.mono_s,
        )

    def take(self, *payloads: bytes) -> Committed:
        """Accept and commit; something must have become durable."""
        for payload in payloads:
            self.copy.accept(payload)
        committed = self.copy.commit()
        assert committed is not None
        return committed

    def state(self) -> tuple[int, int, bytes, bytes | None]:
        """Return all that a refused message must not change."""
        return self.log.size, self.log.durable, self.log.root(self.log.size), self.log.checkpoint


def read_receipt(note: bytes) -> tuple[Checkpoint, int]:
    """Return what a receipt says; it must be the ledger's."""
    return checkpoints.verify_cosignature(note, origin=ORIGIN, witness=WITNESS)
