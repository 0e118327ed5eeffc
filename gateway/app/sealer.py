"""The seal's core: batches in, leaves and checkpoints out. No sockets: app/seal.py serves it.

A batch is known by (boot, sequence): what the log holds already is not sealed again. What must
outlive a restart stands beside the checkpoint (app/heads.py) and is brought up to date from the leaves after it.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from gateway.app.agentkeys import advanced, verified
from gateway.app.heads import MOST_LINES, recover
from gateway.app.room import Room
from gateway.app.sealcounts import SealCounts
from gateway.app.trust.epochs import Binder, Epoch, Epochs
from gateway.clock import ClockLimit, WallClock
from gateway.codec.bodies import event_body
from gateway.codec.checks import check_body, to_schema
from gateway.codec.frames import LeafHash, LogMessage
from gateway.codec.leaves import seal
from gateway.codec.pack import unpack
from gateway.errors import GatewayError, TrustError
from gateway.model import ClockState, LineSchema
from gateway.store.segments import Dropped, Log, StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Signer, Verifier

KINDS_FROM_COLLECT = frozenset({"schema", "readings", "interval", "event"})


class Sealer:
    """One gateway's log and its keys. Methods are synchronous: one caller, one order.

    signer: the key of all epochs, from a file; without it each epoch has a key of its own, which binder ties to the
    device. agent_keys: by an agent's id, the key of its frames.
    is_full: whether new leaves are refused. The budget counts whole bundles: the newest, which nothing can delete yet,
    comes on top of it.
    Raises LogError from the start when the log on disk cannot be trusted, and what the binder raises.
    """

    def __init__(
        self,
        log: Log,
        *,
        witness: Verifier,
        signer: Signer | None = None,
        binder: Binder | None = None,
        clock: WallClock | None = None,
        clock_limit: ClockLimit | None = None,
        budget_bytes: int = 1 << 30,
        keep_bytes: int = 64 << 20,
        drop_readings: bool = True,
        agent_keys: Mapping[str, bytes] | None = None,
    ) -> None:
        self._log, self._witness, self._agent_keys = log, witness, agent_keys or {}
        self.epochs = Epochs(log, signer=signer, binder=binder)
        self._room = Room(log, budget_bytes=budget_bytes, keep_bytes=keep_bytes, drop_readings=drop_readings)
        self.counts = SealCounts()
        self._heads = recover(log, file_key=self.epochs.file_key)
        self._clock = clock or WallClock(floor_ns=self._heads.t_ns, limit=clock_limit)
        self._is_open = self._has_failed = False
        self._observe()
        self._open_epoch()

    # ---- from collect

    def welcome(self, boot: bytes) -> int:
        """Return the last sequence number of this boot that the log holds durably; 0 for none."""
        self._heads.switch(boot)
        return self._heads.sequence

    def put(self, sequence: int, kind: str, body: bytes) -> None:
        """Append one batch; durable only after `commit`. One that the log holds already is passed over.

        Raises TrustError when it is malformed (it then counts as answered), StoreFull when there is no room.
        """
        if not 0 <= sequence < 2**63:
            self.counts.refused += 1
            raise TrustError(f"put: got sequence {sequence}, want one from 1")
        if sequence <= self._heads.sequence:
            self.counts.duplicates += 1
            return
        if self.is_full:
            self.counts.full += 1
            raise StoreFull(f"log: {self._log.body_bytes} bytes of leaves, budget_mb allows {self._room.budget_bytes}")
        try:
            self._seal(kind, body, sequence)
        except TrustError:
            self.counts.refused += 1
            self._heads.sequence = sequence
            raise

    def commit(self) -> None:
        """Make all that was appended durable (one group commit). Raises StoreFull; the batch is then undone."""
        try:
            self._log.commit()
        except StoreFull:
            self._undo()
            raise
        self._observe()

    def _undo(self) -> None:
        """Take back what waits for commit. The disk is fuller than the budget foresaw: give up the reserve."""
        self.counts.leaves -= self._log.size - self._log.durable
        self._log.rollback()
        boot, self._heads = self._heads.boot, recover(self._log, file_key=self.epochs.file_key)
        self._heads.switch(boot)
        self._room.give_up_reserve()
        self._observe()

    # ---- on a beat

    def sign(self) -> bool:
        """Sign a checkpoint over what is durable; return whether there was anything new to sign.

        While leaves wait for commit nothing is signed: the heads speak of these too.
        """
        size = self._log.durable
        if size <= self._log.signed or size < self._log.size or not self.epochs.may_sign:
            return False
        try:
            self.epochs.record(size, self._heads.packed())
        except StoreFull:
            self._room.give_up_reserve()
            return False  # what is durable stays so; the next beat tries again
        self._observe()
        return True

    def tidy(self) -> str:
        """Keep the disk budget, and do what there was no room for; return what was dropped, "" for nothing."""
        if not self._is_open:
            self._open_epoch()
        try:
            dropped = self._room.tidy(self._say_dropped)
        except StoreFull:
            self._undo()
            return ""
        self._observe()
        return f"{dropped.bodies} readings leaves of {dropped.first}..{dropped.stop - 1}" if dropped else ""

    def _say_dropped(self, dropped: Dropped) -> None:
        """Write the loss down before it happens, so that no crash can hide it."""
        about = {"first": dropped.first, "stop": dropped.stop, "readings_leaves": dropped.bodies, "why": "disk budget"}
        self._event("seal.dropped", about)
        self._log.commit()
        self.counts.dropped += dropped.bodies

    # ---- from epoch to epoch

    @property
    def announced(self) -> tuple[int, str]:
        """Number and key of the newest epoch leaf."""
        return self._heads.epoch, self._heads.key

    def next_epoch(self) -> tuple[int, int]:
        """Return the number of the next epoch, and the time: what `epochs.make` takes."""
        return self._heads.epoch + 1, self._clock.read().t_ns

    def renew(self, epoch: Epoch) -> bool:
        """Go over to the key of the next epoch, made by `epochs.make`; return whether there was room for its leaf."""
        try:
            self.commit()
            index = self._announce(epoch)
            self.commit()
        except StoreFull:
            return False
        self._go_over(epoch, index)
        self.sign()
        return True

    def keep_key(self, why: GatewayError) -> bool:
        """Note that there is no new key, so that the old one signs on; return whether that is news."""
        self.counts.renewals_failed += 1
        if self._has_failed:
            return False
        self._has_failed = True
        self._event("epoch.kept", {"epoch": self._heads.epoch, "why": str(why)[:300]})
        with contextlib.suppress(StoreFull):
            self.commit()
        return True

    # ---- for forward

    @property
    def signed(self) -> int:
        """Size of the newest checkpoint: what forward may be shown. While no key may sign, nothing new."""
        return self._log.signed if self.epochs.may_sign else self._log.receipted

    @property
    def receipted(self) -> int:
        """Size of the newest receipt."""
        return self._log.receipted

    def chunk(self, first: int, most_bytes: int) -> LogMessage:
        """Return leaves from first on, at least one, and a checkpoint by today's key that ends with the last of them.

        Raises TrustError when first is not below the newest checkpoint.
        """
        if not 0 <= first < self.signed:
            raise TrustError(f"read: got first {first}, want 0..{self.signed - 1}")
        bodies = self._log.read(first, most_bytes, self._log.signed)
        leaves = tuple(
            LeafHash(self._log.leaf_hash(first + place)) if body is None else body for place, body in enumerate(bodies)
        )
        checkpoint, epoch = self.epochs.checkpoint(first + len(leaves)), self.epochs.announcement(first)
        return LogMessage(first=first, leaves=leaves, checkpoint=checkpoint, epoch=epoch)

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
            self._room.store_receipt(note, receipt.size)
            self._observe()
        return self._log.receipted

    # ---- inside

    def _open_epoch(self) -> None:
        """Announce the key that signs from here on, in the first leaf of each start. Until there is room: be full."""
        about: dict[str, Any] = {"log_size": self._log.size, "last_sequence": self._heads.sequence}
        epoch = self.epochs.make(*self.next_epoch())
        index = self._announce(epoch)
        if self._log.torn_bytes:
            self._event("seal.recovered", {"torn_bytes": self._log.torn_bytes})
        self._event("seal.started", about)
        self._is_open = True
        try:
            self.commit()
            self._go_over(epoch, index)
        except StoreFull:
            self._is_open = False
        self._observe()
        self.sign()

    def _announce(self, epoch: Epoch) -> int:
        self._heads.epoch, self._heads.key = epoch.number, epoch.signer.verifier.vkey
        return self._append("epoch", epoch.body)

    def _go_over(self, epoch: Epoch, index: int) -> None:
        self.epochs.enforce(epoch, index)
        self.counts.epoch, self._has_failed = epoch.number, False

    def _event(self, what: str, about: dict[str, Any]) -> None:
        clock = self._clock.read()
        stepped_ns = self._clock.stepped_ns
        self._append("event", event_body(what, clock.t_ns, about))
        if stepped_ns:
            self._event("clock.stepped", {"by_ns": stepped_ns})

    def _seal(self, kind: str, body: bytes, sequence: int) -> None:
        if kind not in KINDS_FROM_COLLECT:
            raise TrustError(f"put: kind: got {kind[:20]!r}, want one of {', '.join(sorted(KINDS_FROM_COLLECT))}")
        checked = check_body(kind, unpack(body))
        line, schema = None, None
        seen = advanced(self._heads.agents, verified(checked, self._agent_keys))
        if kind == "schema":
            schema = to_schema(checked)
            if isinstance(schema, LineSchema) and not self._heads.has_room_for(schema):
                raise TrustError(f"put: schema: got line {schema.name!r}, want at most {MOST_LINES} lines")
        if kind == "interval":
            line = self._heads.line_of.get(checked["schema"].hex())
            if line is None:
                raise TrustError(f"put: interval: schema {checked['schema'].hex()} is no line's newest in the log")
            if misfit := line.misfit(checked):
                raise TrustError(f"put: interval: {misfit}")
        prev = None if line is None else self._heads.lines.get(line.name)
        index = self._append(kind, body, (self._heads.boot, sequence), prev)
        self._heads.sequence = sequence
        self._heads.saw(seen)
        if line is not None:
            self._heads.lines[line.name] = index
        if isinstance(schema, LineSchema):
            self._heads.adopt(schema)

    def _append(self, kind: str, body: bytes, src: tuple[bytes, int] | None = None, prev: int | None = None) -> int:
        clock = self._clock.read()
        stepped_ns = self._clock.stepped_ns
        index = self._log.append(seal(kind, body, clock=clock, src=src, prev=prev))
        self.counts.leaves += 1
        if clock.state != ClockState.SUSPECT:
            self._heads.t_ns = max(self._heads.t_ns, clock.t_ns)
        if stepped_ns:
            self._event("clock.stepped", {"by_ns": stepped_ns})
        return index

    def _observe(self) -> None:
        self.counts.log_size = self._log.durable
        self.counts.checkpoint_size = self._log.signed
        self.counts.receipt_size = self._log.receipted
        self.counts.disk_bytes = self._log.body_bytes
        self.is_full = self._room.is_over or not self._is_open
