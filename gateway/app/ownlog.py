"""The ledger's own log: factors, accepted checkpoints, decisions. The same kind of log as a gateway's."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.clock import WallClock
from gateway.codec.bodies import epoch_body, event_body
from gateway.codec.leaves import Leaf, parse, seal
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer


class OwnLog:
    """One writer. `commit` makes durable what was appended, and signs it. Raises LogError when it cannot be trusted."""

    def __init__(self, log: Log, *, signer: Signer, clock: WallClock | None = None) -> None:
        self.log, self._signer = log, signer
        self._clock = clock or WallClock()
        if log.checkpoint is not None:
            try:
                checkpoints.verify(log.checkpoint, origin=log.origin, verifier=signer.verifier)
            except TrustError as e:
                raise LogError(f"{log.origin}: the checkpoint on disk is not by this ledger's key: {e}") from e
        self._epoch = self._last_epoch() + 1
        self.append("epoch", epoch_body(self._epoch, signer.verifier.vkey, {"type": "unattested"}))
        self.append("event", event_body("ledger.started", self._clock.read().t_ns, {"log_size": log.durable}))
        self.commit()

    def append(self, kind: str, body: bytes, prev: int | None = None) -> int:
        """Add a leaf and return its index; durable after `commit`. prev: of a chained kind, the one before it."""
        return self.log.append(seal(kind, body, clock=self._clock.read(), prev=prev))

    def event(self, what: str, about: Mapping[str, Any]) -> int:
        """Add an event leaf."""
        return self.append("event", event_body(what, self._clock.read().t_ns, about))

    def commit(self) -> None:
        """Make durable what was appended, then sign it. Raises StoreFull when there is no room."""
        size = self.log.commit()
        if size == self.log.signed:
            return
        root = self.log.root(size)
        note = checkpoints.sign(Checkpoint(origin=self.log.origin, size=size, root=root), self._signer)
        self.log.record(note, pack(self._epoch), size, root)

    def _last_epoch(self) -> int:
        """Return the number of the newest epoch: as recorded, or in a leaf that no checkpoint covers yet."""
        try:
            epoch = unpack(self.log.heads) if self.log.heads else 0
        except TrustError as e:
            raise LogError(f"{self.log.origin}: the heads beside the checkpoint cannot be read: {e}") from e
        if type(epoch) is not int or not 0 <= epoch < 2**63:
            raise LogError(f"{self.log.origin}: the heads beside the checkpoint are no epoch")
        later = [leaf.body["epoch"] for leaf in self.leaves(self.log.signed) if leaf.kind == "epoch"]
        newest: int = max([epoch, *later])
        return newest

    def leaves(self, first: int) -> Iterator[Leaf]:
        """Yield the durable leaves from first on. Raises LogError for one that we cannot have made."""
        while first < self.log.durable:
            for body in self.log.read(first, 1 << 20, self.log.durable):
                try:
                    yield parse(body or b"")
                except TrustError as e:
                    raise LogError(f"{self.log.origin}: leaf {first}: {e}") from e
                first += 1
