"""The factory's own transparency log: the same kind as a gateway's, with one leaf for each change of a unit.

Stations of one machine take turns at it. docs/lifecycle.md says what its leaves mean.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.clock import WallClock
from gateway.codec.bodies import document_body, epoch_body, event_body
from gateway.codec.leaves import seal
from gateway.codec.pack import pack
from gateway.errors import ConfigError, LogError, TrustError
from gateway.model import Document
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer
from provisioning.turn import turn

ORIGIN = "wattseal-factory/"
BIRTH = "birth/"
WAIT_S = 60.0
_CHUNK = 1 << 20
_EPOCH = 1


class FactoryLog:
    """An open log. `commit` makes durable what was appended, and signs it. LogError when it cannot be trusted."""

    def __init__(self, log: Log, signer: Signer) -> None:
        self.log, self._signer, self._clock = log, signer, WallClock()
        if log.checkpoint is not None:
            try:
                checkpoints.verify(log.checkpoint, origin=log.origin, verifier=signer.verifier)
            except TrustError as e:
                raise LogError(f"{log.origin}: the checkpoint on disk is not by this factory's key: {e}") from e
        if not log.size:
            self._append("epoch", epoch_body(_EPOCH, signer.verifier.vkey, {"type": "unattested"}))
        self.commit()

    def event(self, what: str, about: Mapping[str, Any]) -> tuple[int, bytes]:
        """Append an event; return its index and its bytes."""
        return self._append("event", event_body(what, self._clock.read().t_ns, about))

    def birth(self, serial: str, note: bytes, by: str) -> tuple[int, bytes]:
        """Append a unit's birth record, as it was signed; return its index and its bytes."""
        now_ns = self._clock.read().t_ns
        document = Document(name=f"{BIRTH}{serial}", from_ns=now_ns, content=note, by=by, rules=())
        return self._append("document", document_body(document))

    def _append(self, kind: str, body: bytes) -> tuple[int, bytes]:
        leaf = seal(kind, body, clock=self._clock.read())
        return self.log.append(leaf), leaf

    def commit(self) -> None:
        """Make durable what was appended, then sign it. Raises StoreFull when there is no room."""
        size = self.log.commit()
        if size == self.log.signed:
            return
        root = self.log.root(size)
        note = checkpoints.sign(Checkpoint(origin=self.log.origin, size=size, root=root), self._signer)
        self.log.record(note, pack(_EPOCH), size, root)

    def leaves(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Yield the durable leaves from first on, with their indices. Raises LogError for one that is not there."""
        while first < self.log.durable:
            for body in self.log.read(first, _CHUNK, self.log.durable):
                if body is None:
                    raise LogError(f"{self.log.origin}: leaf {first}: its body is missing")
                yield first, body
                first += 1


def check_signer(signer: Signer) -> str:
    """Return the origin that a factory's key signs for. Raises ConfigError for the key of anyone else."""
    if not signer.name.startswith(ORIGIN) or len(signer.name) == len(ORIGIN):
        raise ConfigError(f"key: got the key of {signer.name}, want one of {ORIGIN}<name>")
    return signer.name


@contextmanager
def opened(folder: Path, signer: Signer, *, wait_s: float = WAIT_S) -> Iterator[FactoryLog]:
    """Give the log of a folder, when it is our turn. Raises LogError, also when the turn does not come."""
    origin = check_signer(signer)
    with turn(folder.with_name(f"{folder.name}.turn"), wait_s=wait_s, error=LogError):
        # Bodies were checked when they were appended; `verify` checks them all again.
        log = Log.open(RealFiles(folder), origin=origin, recheck_bytes=1)
        try:
            yield FactoryLog(log, signer)
        finally:
            log.close()
