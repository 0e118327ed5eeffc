"""The ledger's side of a gateway's log: bytes in, leaves and receipts out. No sockets.

The order of docs/wire.md, section 2, is what keeps the ledger honest: signature, then root, then history, and only
then are leaves looked into, and only then does anything reach the log. What is refused leaves no trace in it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.app.trust.seenepochs import SigningEpoch
from gateway.app.trust.signedby import SignedBy
from gateway.app.verdicts import Accepted, Committed, Gap, Unusable
from gateway.codec.frames import LeafHash, LogMessage, unpack_log
from gateway.codec.leaves import Leaf, parse
from gateway.errors import LogError, TrustError
from gateway.store.segments import Log, StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.lines import split_note
from gateway.tlog.merkle import EMPTY_ROOT, CompactRange, leaf_hash
from gateway.tlog.note import Cosigner, Verifier

RESEND_S = 1.0
"""A gap or a repetition is answered at most this often."""

_SCAN_BYTES = 1 << 20
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """A checkpoint that was verified and is not yet cosigned. note: with the gateway's own line alone."""

    checkpoint: Checkpoint
    note: bytes


class GatewayCopy:
    """One gateway's log, as the ledger holds it. One caller: accept any number of times, then commit.

    signed_by: whose signature counts. time_s: Unix time; monotonic_s: for the pace of repetitions.
    fork: the last checkpoint that the gateway has signed and that contradicts what it signed before: evidence.
    pending_bytes: of leaves that wait for commit; the caller bounds them by committing.
    Raises LogError from the start when what stands beside the log is not of this log.
    """

    def __init__(
        self,
        log: Log,
        *,
        signed_by: SignedBy,
        cosigner: Cosigner,
        time_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._signed_by, self._cosigner = log, signed_by, cosigner
        self._time_s, self._monotonic_s = time_s, monotonic_s
        self._repeated_s: float | None = None
        self.fork: bytes | None = None
        self._check_mark()
        self._start_group()

    def _start_group(self) -> None:
        self._newest: _Signed | None = None
        self._leaves: list[tuple[int, Leaf]] = []
        self._unusable: list[Unusable] = []
        self._absent: list[int] = []
        self._signed_by.restore(self._log.heads, self._epochs_since())
        self.pending_bytes = 0

    @property
    def log(self) -> Log:
        """The copy itself, to read."""
        return self._log

    @property
    def size(self) -> int:
        """Leaves taken, committed or not."""
        return self._log.size

    @property
    def epoch(self) -> SigningEpoch | None:
        """The newest epoch that signed what was taken, durable after commit; None where a pinned key signs."""
        return self._signed_by.epoch

    @property
    def receipt(self) -> bytes:
        """The newest receipt."""
        if self._log.checkpoint is not None:
            return self._log.checkpoint
        empty = Checkpoint(origin=self._log.origin, size=0, root=EMPTY_ROOT)
        return checkpoints.cosign(empty, self._cosigner, time_s=int(self._time_s()))

    # ---- one message

    def accept(self, payload: bytes) -> Accepted | Gap:
        """Take one `log` message; nothing of it is durable, or may be acknowledged, before `commit`.

        Raises TrustError when it is malformed, not signed by the gateway's key, altered, or of another history
        (a fork, or a split view); the copy then stands as if it had never come.
        """
        message = unpack_log(payload)
        if message.first > self._log.size:
            return self._repeat()
        signed = self._verify(message, self._signed_by.key(message))
        hashes = [_hash(message, place) for place in range(len(message.leaves))]
        known = min(len(hashes), self._log.size - message.first)
        self._compare(message.first, hashes, known, signed)
        if known == len(hashes):
            return self._take_repetition(message, signed)
        return self._take_new(message, known, signed)

    def _verify(self, message: LogMessage, key: Verifier) -> _Signed:
        checkpoint = checkpoints.verify(message.checkpoint, origin=self._log.origin, verifier=key)
        if checkpoint.size != message.end:
            raise TrustError(
                f"{self._log.origin}: got leaves {message.first}..{message.end - 1} with a checkpoint of size "
                f"{checkpoint.size}, want one that ends with them"
            )
        # A line of an unknown key could pass for our cosignature, or leave no room for it.
        text, lines = split_note(message.checkpoint)
        own = [str(line) for line in lines if (line.name, line.key_id) == (key.name, key.key_id)]
        return _Signed(checkpoint=checkpoint, note=f"{text}\n{''.join(own)}".encode())

    def _compare(self, first: int, hashes: Sequence[bytes], known: int, signed: _Signed) -> None:
        """Raise TrustError unless the leaves lead from our own history to the signed root.

        known: how many of them we have. fork is set where the gateway itself must have signed both.
        """
        edge = _edge(self._log, first)
        edge.extend(hashes)
        own = (self._log.leaf_hash(first + place) for place in range(known))
        differs = next((first + place for place, one in enumerate(own) if one != hashes[place]), None)
        size, root = signed.checkpoint.size, signed.checkpoint.root
        leads = edge.root() == root
        if (leads and differs is not None) or (size <= self._log.size and self._log.root(size) != root):
            self.fork = signed.note
            where = f"a log of {size} leaves" if differs is None else f"leaf {differs}"
            raise TrustError(
                f"{self._log.origin}: the log forks: its key has signed two versions of {where} (a split view)",
                index=differs,
            )
        if not leads:
            raise TrustError(
                f"{self._log.origin}: leaves {first}..{size - 1} do not lead to the signed root: "
                "altered on the way, or the log forks before them (a split view)",
                index=differs,
            )

    def _take_repetition(self, message: LogMessage, signed: _Signed) -> Accepted | Gap:
        """Take a message all of whose leaves are here: its checkpoint counts if it is newer than the receipt.

        That is so within a group, and after a crash between commit and receipt.
        """
        if signed.checkpoint.size > (self._newest.checkpoint.size if self._newest else self._log.signed):
            self._signed_by.follow(message, self._log.size, ())
            self._newest = signed
        return Accepted(size=self._log.size, added=0) if self._newest else self._repeat()

    def _take_new(self, message: LogMessage, known: int, signed: _Signed) -> Accepted:
        start, new = self._log.size, message.leaves[known:]
        leaves, unusable = _read(start, new)
        self._signed_by.follow(message, start, leaves)
        for leaf in new:
            if isinstance(leaf, LeafHash):
                self._absent.append(self._log.append_hash(leaf))
            else:
                self._log.append(leaf)
                self.pending_bytes += len(leaf)
        self._leaves += leaves
        self._unusable += unusable
        self._newest = signed
        return Accepted(size=self._log.size, added=len(new))

    def _repeat(self) -> Gap:
        now_s = self._monotonic_s()
        if self._repeated_s is not None and now_s - self._repeated_s < RESEND_S:
            return Gap(receipt=None)
        self._repeated_s = now_s
        return Gap(receipt=self.receipt)

    # ---- a group of messages

    def commit(self) -> Committed | None:
        """Make all that was accepted durable, cosign the newest checkpoint over it, and store it; None for nothing.

        Raises StoreFull when the disk has no room: what is not durable is then forgotten, and the gateway will send
        it again; LogError when the disk cannot be trusted.
        """
        if self._newest is None:
            return None
        signed = self._newest
        try:
            self._log.commit()
            receipt = checkpoints.cosign(signed.note, self._cosigner, time_s=int(self._time_s()))
            self._log.record(receipt, self._signed_by.packed(), signed.checkpoint.size, signed.checkpoint.root)
        except StoreFull:
            self.rollback()
            raise
        committed = Committed(
            receipt=receipt,
            size=signed.checkpoint.size,
            leaves=tuple(self._leaves),
            unusable=tuple(self._unusable),
            absent=tuple(self._absent),
        )
        self._start_group()
        return committed

    def rollback(self) -> None:
        """Forget what was accepted since the last commit."""
        self._log.rollback()
        self._start_group()

    # ---- at the start

    def _check_mark(self) -> None:
        """Compare the receipt on disk with the log. Its signatures are history: either key may have changed since."""
        if self._log.checkpoint is None:
            return
        try:
            found = checkpoints.read_unverified(self._log.checkpoint, origin=self._log.origin)
        except TrustError as e:
            raise LogError(f"{self._log.origin}: the receipt on disk cannot be read: {e}") from e
        if found.size != self._log.signed or found.root != self._log.root(found.size):
            raise LogError(f"{self._log.origin}: the receipt on disk is not of this log")

    def _epochs_since(self) -> list[tuple[int, Leaf]]:
        """Return the epoch leaves that are durable and that no receipt covers: a crash came between the two."""
        found: list[tuple[int, Leaf]] = []
        index = self._log.signed
        while index < self._log.durable:
            bodies = self._log.read(index, _SCAN_BYTES, self._log.durable)
            leaves, _ = _read(index, [LeafHash() if body is None else body for body in bodies])
            found += [(place, leaf) for place, leaf in leaves if leaf.kind == "epoch"]
            index += len(bodies)
        return found


def _hash(message: LogMessage, place: int) -> bytes:
    leaf = message.leaves[place]
    if not isinstance(leaf, LeafHash):
        return leaf_hash(leaf)
    if leaf == _NO_HASH:
        raise TrustError(f"leaf {message.first + place}: got zeros for its hash", index=message.first + place)
    return leaf


def _edge(log: Log, size: int) -> CompactRange:
    """Return the right edge of the first size leaves: left of the last one stands just its inclusion proof."""
    if size == 0:
        return CompactRange()
    edge = CompactRange(size=size - 1, hashes=reversed(log.inclusion(size - 1, size)))
    edge.append(log.leaf_hash(size - 1))
    return edge


def _read(start: int, leaves: Sequence[bytes | LeafHash]) -> tuple[list[tuple[int, Leaf]], list[Unusable]]:
    """Return the leaves that can be read, each with its index, and those that cannot."""
    read: list[tuple[int, Leaf]] = []
    unusable: list[Unusable] = []
    for index, leaf in enumerate(leaves, start):
        if isinstance(leaf, LeafHash):
            continue
        try:
            read.append((index, parse(leaf)))
        except TrustError as e:
            unusable.append(Unusable(index=index, why=str(e)))
    return read, unusable
