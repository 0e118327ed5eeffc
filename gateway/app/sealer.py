"""The seal's core: batches in, leaves and checkpoints out. No sockets: app/seal.py serves it.

A batch is known by (boot, sequence): what the log holds already is not sealed again. What must
outlive a restart stands beside the checkpoint (the heads) and is brought up to date from the leaves after it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.app.metrics import counter, gauge
from gateway.clock import WallClock
from gateway.codec.bodies import epoch_body, event_body
from gateway.codec.checks import check_body, to_schema
from gateway.codec.frames import LeafHash
from gateway.codec.leaves import parse, seal
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.model import LineSchema
from gateway.store.segments import Dropped, Log, StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer, Verifier

KINDS_FROM_COLLECT = frozenset({"schema", "readings", "interval", "event"})


@dataclass(slots=True)
class SealCounts:
    """What the seal counts."""

    leaves: int = counter("leaves sealed since the start")
    refused: int = counter("batches refused as malformed")
    duplicates: int = counter("batches that the log held already")
    full: int = counter("batches turned away because the disk budget was used up")
    log_size: int = gauge("leaves in the log, durable")
    checkpoint_size: int = gauge("size of the newest checkpoint")
    receipt_size: int = gauge("size of the newest receipt")
    disk_bytes: int = gauge("bytes of leaf bodies on disk")
    dropped: int = counter("leaf bodies dropped by the disk-full policy")
    isolated: int = gauge("1 when the process has no network")


@dataclass(slots=True)
class Heads:
    """What the seal remembers beside its checkpoint.

    boot, sequence: the newest batch. lines: per line the index of its newest interval leaf.
    line_of: which line an interval schema belongs to. t_ns: the newest trusted time.
    """

    boot: bytes = b""
    sequence: int = 0
    epoch: int = 0
    t_ns: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    line_of: dict[str, str] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return the heads as bytes."""
        return pack([self.boot, self.sequence, self.epoch, self.t_ns, self.lines, self.line_of])

    @classmethod
    def unpacked(cls, packed: bytes) -> "Heads":
        """Return the heads that packed says. Raises LogError when it does not fit."""
        try:
            return cls(*unpack(packed)) if packed else cls()
        except (TrustError, TypeError) as e:
            raise LogError(f"log: the heads beside the checkpoint cannot be read: {e}") from e


class Sealer:
    """One gateway's log and its key. Methods are synchronous: one caller, one order.

    Raises LogError from the start when the log on disk cannot be trusted.
    """

    def __init__(
        self,
        log: Log,
        *,
        signer: Signer,
        witness: Verifier,
        clock: WallClock | None = None,
        budget_bytes: int = 1 << 30,
        keep_bytes: int = 64 << 20,
        drop_readings: bool = True,
    ) -> None:
        self._log, self._signer, self._witness = log, signer, witness
        self._budget_bytes, self._keep_bytes, self._drop_readings = budget_bytes, keep_bytes, drop_readings
        self.counts = SealCounts()
        self._heads = self._recover()
        self._clock = clock or WallClock(floor_ns=self._heads.t_ns)
        self._start()

    # ---- from collect

    def welcome(self, boot: bytes) -> int:
        """Return the last sequence number of this boot that the log holds durably; 0 for none."""
        if self._heads.boot != boot:
            self._heads.boot, self._heads.sequence = boot, 0
        return self._heads.sequence

    def put(self, sequence: int, kind: str, body: bytes) -> None:
        """Append one batch; durable only after `commit`. One that the log holds already is passed over.

        Raises TrustError when it is malformed (it then counts as answered), StoreFull when there is no room.
        """
        if not 0 <= sequence < 2**63:
            raise TrustError(f"put: got sequence {sequence}, want one from 1")
        if sequence <= self._heads.sequence:
            self.counts.duplicates += 1
            return
        if self.is_full():
            self.counts.full += 1
            raise StoreFull(f"log: {self._log.body_bytes} bytes of leaves, budget_mb allows {self._budget_bytes}")
        try:
            self._seal(kind, body, sequence)
        except TrustError:
            self.counts.refused += 1
            self._heads.sequence = int(sequence)
            raise

    def commit(self) -> None:
        """Make all that was appended durable (one group commit). Raises StoreFull; the batch is then undone."""
        try:
            self._log.commit()
        except StoreFull:
            self._log.rollback()
            boot, self._heads = self._heads.boot, self._recover()
            self.welcome(boot)
            raise
        self._observe()

    # ---- on a beat

    def sign(self) -> bool:
        """Sign a checkpoint over what is durable; return whether there was anything new to sign."""
        size = self._log.durable
        if size <= self._log.signed:
            return False
        root = self._log.root(size)
        note = checkpoints.sign(Checkpoint(origin=self._log.origin, size=size, root=root), self._signer)
        try:
            self._log.record(note, self._heads.packed(), size, root)
        except StoreFull:
            return False  # what is durable stays so; the next beat tries again
        self._observe()
        return True

    def tidy(self) -> str:
        """Keep the bodies within the budget; return what was done, "" for nothing."""
        if self._log.body_bytes <= self._budget_bytes:
            return ""
        self._log.prune(self._keep_bytes)
        if self._log.body_bytes <= self._budget_bytes or not self._drop_readings:
            return ""
        dropped = self._log.drop(_is_kept, self._budget_bytes * 9 // 10, say=self._say_dropped)
        self._observe()
        return f"{dropped.bodies} readings leaves of {dropped.first}..{dropped.stop - 1}" if dropped else ""

    def _say_dropped(self, dropped: Dropped) -> None:
        """Write the loss down before it happens, so that no crash can hide it."""
        self.counts.dropped += dropped.bodies
        about = {"first": dropped.first, "stop": dropped.stop, "readings_leaves": dropped.bodies, "why": "disk budget"}
        self._event("seal.dropped", about)
        self._log.commit()

    def is_full(self) -> bool:
        """Return whether new leaves are refused because the budget is used up."""
        return self._log.body_bytes > self._budget_bytes

    # ---- for forward

    @property
    def signed(self) -> int:
        """Size of the newest checkpoint: what forward may be shown."""
        return self._log.signed

    @property
    def receipted(self) -> int:
        """Size of the newest receipt."""
        return self._log.receipted

    def chunk(self, first: int, most_bytes: int) -> tuple[Sequence[bytes | LeafHash], bytes]:
        """Return leaves from first on, at least one, and a checkpoint that ends with the last of them.

        Raises TrustError when first is not below the newest checkpoint.
        """
        if not 0 <= first < self._log.signed:
            raise TrustError(f"read: got first {first}, want 0..{self._log.signed - 1}")
        bodies = self._log.read(first, most_bytes, self._log.signed)
        leaves = [
            LeafHash(self._log.leaf_hash(first + place)) if body is None else body for place, body in enumerate(bodies)
        ]
        size = first + len(leaves)
        if size == self._log.signed and self._log.checkpoint is not None:
            return leaves, self._log.checkpoint
        made = Checkpoint(origin=self._log.origin, size=size, root=self._log.root(size))
        return leaves, checkpoints.sign(made, self._signer)

    def receive(self, note: bytes) -> int:
        """Take a receipt: a cosigned checkpoint of ours. Return the size of the newest receipt.

        Raises TrustError when it is not the witness's, or not of this log.
        """
        receipt, _ = checkpoints.verify_cosignature(note, origin=self._log.origin, witness=self._witness)
        if receipt.size > self._log.signed:
            raise TrustError(
                f"receipt: got size {receipt.size}, want at most {self._log.signed}, the newest checkpoint"
            )
        if receipt.size and self._log.root(receipt.size) != receipt.root:
            raise TrustError(f"receipt: the root at size {receipt.size} is not this log's", index=receipt.size)
        if receipt.size > self._log.receipted:
            with contextlib.suppress(StoreFull):  # the receipt will come again
                self._log.record_receipt(note, receipt.size)
                self._log.prune(self._keep_bytes)
            self._observe()
        return self._log.receipted

    # ---- inside

    def _recover(self) -> Heads:
        """Return the heads as of the last leaf, from those beside the checkpoint and the leaves after it."""
        if self._log.checkpoint is not None:
            found = checkpoints.verify(self._log.checkpoint, origin=self._log.origin, verifier=self._signer.verifier)
            if found.size != self._log.signed:
                raise LogError(f"log: the checkpoint says {found.size} leaves, the disk {self._log.signed}")
        heads = Heads.unpacked(self._log.heads)
        index = self._log.signed
        while index < self._log.size:
            for body in self._log.read(index, 1 << 20, self._log.size):
                if body is not None:
                    self._follow(heads, index, body)
                index += 1
        return heads

    @staticmethod
    def _follow(heads: Heads, index: int, body: bytes) -> None:
        leaf = parse(body)
        if leaf.src is not None:
            heads.boot, heads.sequence = leaf.src
        if leaf.kind == "epoch":
            heads.epoch = leaf.body["epoch"]
        if leaf.kind == "schema" and "line" in leaf.body:
            heads.line_of[leaf.body["id"].hex()] = leaf.body["line"]["name"]
        if leaf.kind == "interval":
            heads.lines[heads.line_of[leaf.body["schema"].hex()]] = index
        if leaf.clock.state != 2:
            heads.t_ns = max(heads.t_ns, leaf.clock.t_ns)

    def _start(self) -> None:
        """Open an epoch: the first leaf of each start announces the key that signs from here on."""
        recovered = self._log.size
        self._heads.epoch += 1
        body = epoch_body(self._heads.epoch, self._signer.verifier.vkey, {"type": "unattested"})
        self._append("epoch", body)
        about: dict[str, Any] = {"log_size": recovered, "last_sequence": self._heads.sequence}
        self._event("seal.started", about)
        self.commit()
        self.sign()

    def _event(self, what: str, about: dict[str, Any]) -> None:
        self._append("event", event_body(what, self._clock.read().t_ns, about))

    def _seal(self, kind: str, body: bytes, sequence: int) -> None:
        if kind not in KINDS_FROM_COLLECT:
            raise TrustError(f"put: kind: got {kind[:20]!r}, want one of {', '.join(sorted(KINDS_FROM_COLLECT))}")
        checked = check_body(kind, unpack(body))
        line = None
        if kind == "schema" and "line" in checked:
            schema = to_schema(checked)
            if isinstance(schema, LineSchema):
                self._heads.line_of[schema.id.hex()] = schema.name
        if kind == "interval":
            line = self._heads.line_of.get(checked["schema"].hex())
            if line is None:
                raise TrustError(f"put: interval: schema {checked['schema'].hex()} is not in the log")
        prev = self._heads.lines.get(line) if line is not None else None
        index = self._append(kind, body, (self._heads.boot, sequence), prev)
        self._heads.sequence = sequence
        if line is not None:
            self._heads.lines[line] = index

    def _append(self, kind: str, body: bytes, src: tuple[bytes, int] | None = None, prev: int | None = None) -> int:
        clock = self._clock.read()
        stepped_ns = self._clock.stepped_ns
        index = self._log.append(seal(kind, body, clock=clock, src=src, prev=prev))
        self.counts.leaves += 1
        if clock.state != 2:
            self._heads.t_ns = max(self._heads.t_ns, clock.t_ns)
        if stepped_ns:
            self._event("clock.stepped", {"by_ns": stepped_ns})
        return index

    def _observe(self) -> None:
        self.counts.log_size = self._log.durable
        self.counts.checkpoint_size = self._log.signed
        self.counts.receipt_size = self._log.receipted
        self.counts.disk_bytes = self._log.body_bytes


def _is_kept(leaf: bytes) -> bool:
    """Return whether the disk-full policy must keep this leaf: all but bulk readings."""
    return parse(leaf).kind != "readings"
