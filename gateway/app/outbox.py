"""What collect holds until the seal has it: bounded, in order, sent again after a break.

Polling never waits for the seal. When the bound is reached the oldest readings go first, counted, and an
event leaf says what went.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gateway.codec.agent_leaves import AgentSource, frames_body, split_frames
from gateway.codec.agents import AgentFrame
from gateway.codec.bodies import PackedRow, event_body, packed_row, packed_rows_body
from gateway.codec.changes import GROUP_BYTES, changes_body, size_of
from gateway.codec.frames import Message
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.model import Change, Row

MOST_IN_FLIGHT = 16
MOST_BODY = MAX_LEAF - MAX_HEADER
MOST_FRAMES = 32
"""Frames in one batch. One that the seal refuses is sent again frame by frame: so many, at most, for one forged one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One leaf's body on its way. rows, first_ns: how many rows or changes, from when."""

    kind: str
    body: bytes
    rows: int = 0
    first_ns: int = 0


@dataclass(slots=True)
class Dropped:
    """What was dropped since it was last written down."""

    batches: int = 0
    rows: int = 0
    since_ns: int = 0
    kinds: set[str] = field(default_factory=set)


class Outbox:
    """The bounded queue between polling and the seal.

    Batches get their sequence number when they are first sent; from then on they are never dropped.
    """

    def __init__(self, *, most_bytes: int) -> None:
        self.boot = secrets.token_bytes(8)
        self._most_bytes = most_bytes
        self._rows: list[PackedRow] = []
        self._row_bytes = 0
        self._changes: list[Change] = []
        self._change_bytes = 0
        self._told: set[bytes] = set()
        self._frames: dict[bytes, tuple[AgentSource, list[AgentFrame]]] = {}
        self._frame_bytes = 0
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._flying: deque[tuple[int, Batch]] = deque()
        self._sequence = 0
        self._dropped = Dropped()
        self.dropped_rows = 0
        self.filled = asyncio.Event()
        self._answered = asyncio.Event()

    @property
    def depth_bytes(self) -> int:
        """Bytes that wait or are under way."""
        return (
            self._waiting_bytes
            + self._row_bytes
            + self._change_bytes
            + self._frame_bytes
            + sum(len(batch.body) for _, batch in self._flying)
        )

    @property
    def is_empty(self) -> bool:
        """Return whether all that was put has been answered."""
        return not (self._rows or self._changes or self._frames or self._waiting or self._flying)

    async def emptied(self) -> None:
        """Wait until all that was put has been answered."""
        while not self.is_empty:
            self._answered.clear()
            await self._answered.wait()

    def add(self, row: Row) -> None:
        """Queue one row; rows are joined into batches as large as a leaf may be, or at `flush`."""
        status = len(row.status.encode()) if row.status else 0
        size = row.schema.layout.size + 48 + status + (len(row.qualities) if row.qualities else 0)
        if self._row_bytes + size > MOST_BODY:
            self.flush()
        self._rows.append(packed_row(row))
        self._row_bytes += size

    def tell(self, changes: Iterable[Change]) -> None:
        """Queue changes; joined like rows, into batches of their own."""
        for change in changes:
            size = size_of(change)
            if self._change_bytes + size + GROUP_BYTES > MOST_BODY:
                self.flush()
            if change.schema.id not in self._told:
                self._told.add(change.schema.id)
                size += GROUP_BYTES
            self._changes.append(change)
            self._change_bytes += size

    def put_frame(self, source: AgentSource, frame: AgentFrame) -> None:
        """Queue one frame of an agent; those of one agent are joined into batches of their own."""
        _, frames = self._frames.setdefault(source.schema.id, (source, []))
        frames.append(frame)
        self._frame_bytes += len(frame.raw)
        if len(frames) == MOST_FRAMES:
            self._put_frames(*self._frames.pop(source.schema.id))

    def _put_frames(self, source: AgentSource, frames: list[AgentFrame]) -> None:
        raw = [frame.raw for frame in frames]
        self._frame_bytes -= sum(map(len, raw))
        first_ns = frames[0].time_ns if frames[0].clock_set else 0
        self.put(Batch("readings", frames_body(source, raw), len(raw), first_ns))

    def flush(self) -> None:
        """Close the batches that have gathered."""
        if self._rows:
            rows, self._rows, self._row_bytes = self._rows, [], 0
            self.put(Batch("readings", packed_rows_body(rows), len(rows), rows[0][1]))
        if self._changes:
            changes, self._changes, self._change_bytes = self._changes, [], 0
            self._told.clear()
            self.put(Batch("readings", changes_body(changes), len(changes), changes[0].source_time_ns))
        gathered, self._frames = self._frames, {}
        for source, frames in gathered.values():
            self._put_frames(source, frames)

    def put(self, batch: Batch) -> None:
        """Queue one batch; the oldest readings go when the bound is reached."""
        self._waiting.append(batch)
        self._waiting_bytes += len(batch.body)
        while self._waiting_bytes > self._most_bytes and len(self._waiting) > 1 and self._drop_one():
            pass
        self.filled.set()

    def _drop_one(self) -> bool:
        """Drop the oldest readings, else the oldest of the rest; False when only schemas are left.

        A schema is never dropped: without it nothing that names it can be read.
        """
        place = next((i for i, batch in enumerate(self._waiting) if batch.kind == "readings"), None)
        if place is None:
            place = next((i for i, batch in enumerate(self._waiting) if batch.kind != "schema"), None)
        if place is not None:
            self._drop(place)
        return place is not None

    def _drop(self, place: int) -> None:
        batch = self._waiting[place]
        del self._waiting[place]
        self._waiting_bytes -= len(batch.body)
        gone = self._dropped
        gone.batches, gone.rows = gone.batches + 1, gone.rows + batch.rows
        gone.since_ns = gone.since_ns or batch.first_ns
        gone.kinds.add(batch.kind)
        self.dropped_rows += batch.rows

    # ---- towards the seal

    def resume(self, last: int) -> list[Message]:
        """Return what must be sent again, given the last sequence number that the log holds."""
        self.acknowledge(last)
        return self.in_flight()

    def in_flight(self) -> list[Message]:
        """Return what was sent and not answered, as it was sent."""
        return [self._message(sequence, batch) for sequence, batch in self._flying]

    def acknowledge(self, last: int) -> int:
        """Forget all up to this sequence number: it is durable. Return how many batches that were."""
        before = len(self._flying)
        while self._flying and self._flying[0][0] <= last:
            self._flying.popleft()
        self._wake()
        return before - len(self._flying)

    def refuse(self, sequence: int) -> None:
        """Forget one batch that will never be sealed. Of several frames, send each alone: only one may be forged."""
        found = [batch for number, batch in self._flying if number == sequence]
        self._flying = deque((s, b) for s, b in self._flying if s != sequence)
        for batch in found:
            parts = [replace(batch, body=body, rows=1) for body in split_frames(batch.body)]
            self._waiting.extendleft(reversed(parts))
            self._waiting_bytes += sum(len(part.body) for part in parts)
        self._wake()

    def unsent(self, now_ns: int) -> list[Message]:
        """Return the next batches to send, as many as may be under way; and what was dropped, said first.

        It is said only when it can go at once: if it waited, it could be dropped itself.
        """
        if self._dropped.batches and len(self._flying) < MOST_IN_FLIGHT:
            self._waiting.appendleft(said := self._said(now_ns))
            self._waiting_bytes += len(said.body)
        messages = []
        while self._waiting and len(self._flying) < MOST_IN_FLIGHT:
            batch = self._waiting.popleft()
            self._waiting_bytes -= len(batch.body)
            self._sequence += 1
            self._flying.append((self._sequence, batch))
            messages.append(self._message(self._sequence, batch))
        self.filled.clear()
        return messages

    def _said(self, now_ns: int) -> Batch:
        gone, self._dropped = self._dropped, Dropped()
        about = {
            "batches": gone.batches,
            "rows": gone.rows,
            "since": gone.since_ns,
            "kinds": sorted(gone.kinds),
            "why": "the queue to the seal was full",
        }
        return Batch("event", event_body("collect.dropped", now_ns, about))

    def _wake(self) -> None:
        self._answered.set()
        if self._waiting and len(self._flying) < MOST_IN_FLIGHT:
            self.filled.set()

    @staticmethod
    def _message(sequence: int, batch: Batch) -> Message:
        return ["put", sequence, batch.kind, batch.body]
