"""The sealer on disks that are full, that die, that lose power; and against a simple model, with all that at random.

Bundles and tiles are 4 wide here, the files in memory (tests/faulty_files.py).
"""

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.codec.bodies import event_body
from gateway.codec.leaves import Leaf, parse
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.store.segments import StoreFull
from gateway.tlog.merkle import CompactRange, leaf_hash
from tests.faulty_files import IMAGES, FaultyFiles
from tests.sealing import (
    BOOT,
    LINE,
    LINES,
    OTHER_LINE,
    SCHEMA,
    Body,
    Box,
    bodies_of,
    event,
    interval,
    readings,
    root_of,
)


def boxed(files: FaultyFiles, **options: Any) -> Box:
    """Return a box on these files, welcomed."""
    box = Box(files=lambda: files, height=2, options=options)
    box.sealer.welcome(BOOT)
    return box


def reboxed(files: FaultyFiles, **options: Any) -> Box:
    """Return a box on a copy of these files, as after a kill."""
    return boxed(files.fork(), **options)


def used(files: FaultyFiles) -> int:
    """Return how many bytes all files have."""
    return sum(map(len, files.contents().values()))


STORY = [
    *(SCHEMA, LINES[0], readings(1), interval(1), event(1)),
    *(readings(2), readings(3, rows=3), interval(2), readings(4)),
]
ENDS = {2, 5, 6, 9}
"""After these batches of the story there is a commit, and a checkpoint."""


def deliver(files: FaultyFiles) -> tuple[FaultyFiles, Box]:
    """Hand over the story as collect does: again after `full`, and again to a seal that had to restart."""
    box: Box | None = None
    for _ in range(5):
        try:
            box = box or boxed(files)
            for number, (kind, body) in enumerate(STORY, 1):
                box.sealer.put(number, kind, body)
                if number in ENDS:
                    box.sealer.commit()
                    box.sealer.sign()
        except StoreFull:
            assert box is not None
            box.sealer.tidy()
        except LogError:
            files, box = files.crash("lost"), None
        else:
            return files, box
    raise AssertionError("it is full for ever")


STEPS = range(1, deliver(FaultyFiles())[0].changes + 1)


# ---- full


def test_a_full_disk_undoes_the_batch_and_nothing_else() -> None:
    """What was acknowledged stays; what was not is not in the log, and is sealed once when there is room again."""
    files = FaultyFiles()
    box = boxed(files)
    box.put(*STORY[:2])
    box.sealer.sign()
    leaves, size = box.sealer.counts.leaves, box.log.size
    files.room = used(files) + 100
    with pytest.raises(StoreFull):
        box.put(*STORY[2:5])
    assert (box.log.size, box.log.durable, box.sealer.counts.leaves) == (size, size, leaves)
    assert reboxed(files).sealer.welcome(BOOT) == 2
    files.room, box.sequence = None, 2
    box.put(*STORY[2:5])
    assert [number for _, number in box.sources()] == [1, 2, 3, 4, 5]
    chain = [leaf.prev for leaf in box.leaves() if leaf is not None and leaf.kind == "interval"]
    assert chain == [None]


def test_an_undone_interval_is_nobodys_predecessor() -> None:
    """The next one names the last that is really in the log, by its place."""
    files = FaultyFiles()
    box = boxed(files)
    box.put(SCHEMA, LINES[0], interval(1))
    files.room = used(files)
    with pytest.raises(StoreFull):
        box.put(interval(2))
    files.room, box.sequence = None, 3
    box.put(readings(1), interval(2))
    intervals = [(at, leaf.prev) for at, leaf in enumerate(box.leaves()) if leaf and leaf.kind == "interval"]
    assert intervals == [(4, None), (6, 4)]


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_is_full_for_a_moment_loses_and_doubles_nothing(step: int) -> None:
    """At each write, sync and rename of the story in turn, also those of the start."""
    files = FaultyFiles()
    files.faults = {step: "full"}
    files, box = deliver(files)
    box.sealer.tidy()
    box.sealer.sign()
    for one in (box, reboxed(files)):
        assert [number for _, number in one.sources()] == list(range(1, len(STORY) + 1))
        assert one.kinds()[0] == "epoch"
        assert one.checkpoint().size == one.log.size


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_dies_stops_the_seal_and_keeps_what_was_acknowledged(step: int) -> None:
    files, acknowledged = FaultyFiles(), 0
    files.faults = {step: "dying"}
    with contextlib.suppress(LogError):
        box = boxed(files)
        for number, (kind, body) in enumerate(STORY, 1):
            box.sealer.put(number, kind, body)
            if number in ENDS:
                box.sealer.commit()
                acknowledged = number
                box.sealer.sign()
        pytest.fail("the seal went on")
    after = boxed(files.crash("lost"))
    found = [number for _, number in after.sources()]
    assert found == list(range(1, len(found) + 1))
    assert acknowledged <= len(found) <= len(STORY)
    assert after.sealer.welcome(BOOT) == len(found)


def test_a_seal_that_starts_on_a_full_disk_still_serves_and_recovers_by_receipts() -> None:
    """Without room for its epoch leaf it takes nothing new; forward can read, and receipts make the room."""
    files = FaultyFiles()
    box = boxed(files, keep_bytes=1 << 20)
    for number in range(12):
        box.put(SCHEMA if not number else readings(number, rows=3))
    box.sealer.sign()
    box.sealer.receive(box.receipt(8))
    box.log.close()
    files.room = used(files)
    full = boxed(files, keep_bytes=1 << 20)
    assert full.sealer.is_full
    files.room += 200
    with pytest.raises(StoreFull):
        full.sealer.put(13, *event(1))
    full.sealer.commit()
    files.room -= 200
    assert [len(message.leaves) for message in full.chunks()] == [box.log.size]
    size = full.log.size
    full.sealer.receive(full.receipt())
    full.sealer.tidy()
    assert not full.sealer.is_full
    assert full.sealer.receipted == size
    leaf = full.leaves()[size]
    assert leaf is not None
    assert (leaf.kind, leaf.body["epoch"]) == ("epoch", 2)
    full.sealer.put(13, *event(1))
    full.sealer.commit()


def test_a_receipt_that_there_was_no_room_for_is_stored_later() -> None:
    """Forward has no reason to bring it again: nothing new is sealed while the disk is full."""
    files = FaultyFiles()
    box = boxed(files)
    box.put(SCHEMA, readings(1))
    box.sealer.sign()
    files.room = 0
    assert box.sealer.receive(box.receipt()) == 0
    box.sealer.tidy()
    assert box.sealer.receipted == 0
    files.room = None
    box.sealer.tidy()
    assert box.sealer.receipted == box.sealer.counts.receipt_size == 4
    assert reboxed(files).sealer.receipted == 4


def test_a_full_disk_gives_up_the_reserve() -> None:
    """The disk is smaller than the budget says: what has a receipt goes, all of it."""
    files = FaultyFiles()
    box = boxed(files, keep_bytes=1 << 20)
    for number in range(20):
        box.put(SCHEMA if not number else readings(number, rows=3))
    box.sealer.sign()
    box.sealer.receive(box.receipt())
    assert "" not in box.kinds()
    files.room, sequence = used(files), box.sequence
    with pytest.raises(StoreFull):
        box.put(readings(20))
    assert box.kinds().count("") == 20
    box.sequence = sequence
    box.put(readings(20))


def test_a_checkpoint_that_there_is_no_room_for_is_signed_later() -> None:
    files = FaultyFiles()
    box = boxed(files)
    box.put(SCHEMA)
    files.room = used(files)
    assert not box.sealer.sign()
    assert box.checkpoint().size == 2
    files.room = None
    assert box.sealer.sign()
    assert box.checkpoint().size == 3


def crowded() -> tuple[FaultyFiles, Box]:
    """Return a box whose budget is used up by readings without a receipt, all signed."""
    files = FaultyFiles()
    box = boxed(files, budget_bytes=1500)
    box.put(SCHEMA, *(readings(number, rows=3) for number in range(16)))
    box.sealer.sign()
    assert box.sealer.is_full
    return files, box


def test_no_crash_hides_a_loss() -> None:
    """Cut at each step of the disk-full policy, in every way: what is missing, an event in the log names."""
    files, box = crowded()
    lefts: list[FaultyFiles] = []
    files.on_step = lambda: lefts.extend([files.fork(), *(files.crash(image, seed=len(lefts)) for image in IMAGES)])
    assert box.sealer.tidy()
    files.on_step = None
    assert len(lefts) > 20
    losses = 0
    for left in lefts:
        after = boxed(left, budget_bytes=1500)
        missing = [at for at, kind in enumerate(after.kinds()) if not kind]
        told = after.events("seal.dropped")
        assert all(any(about["first"] <= at < about["stop"] for about in told) for at in missing)
        losses += bool(missing)
    assert losses


@pytest.mark.parametrize("fault", ["full", "dying"])
def test_the_disk_full_policy_survives_a_full_disk(fault: str) -> None:
    """At each of its own steps. It costs some beats, or the process; the log stays what was signed."""
    files, box = crowded()
    before, sealed = files.changes, box.sources()
    box.sealer.tidy()
    for step in range(1, files.changes - before + 1):
        files, box = crowded()
        files.faults = {files.changes + step: fault}
        try:
            box.sealer.tidy()
        except LogError:
            box = boxed(files.crash("lost"), budget_bytes=1500)
        for _ in range(70):
            box.sealer.tidy()
            box.sealer.sign()
        assert not box.sealer.is_full
        root = root_of(tuple(leaf for message in box.chunks() for leaf in message.leaves))
        assert root == box.checkpoint().root
        left = {number for _, number in box.sources()}
        assert {1} <= left <= {number for _, number in sealed}
        assert box.sealer.counts.leaves >= 0


def test_a_policy_that_finds_no_room_itself_does_not_fill_the_log_with_its_events() -> None:
    """There is room to say that readings go, and none for the new copy of their bundle: so they stay, for now."""
    files = FaultyFiles()
    box = boxed(files, budget_bytes=1500)
    bulky = ("event", event_body("test", 1, {"bytes": bytes(1000)}))
    box.put(SCHEMA, LINES[0], *[bulky, bulky, bulky, readings(2)] * 3)
    box.sealer.sign()
    files.room = used(files) + 2500
    for _ in range(30):
        assert box.sealer.tidy() == ""
        box.sealer.sign()
    assert len(box.events("seal.dropped")) == 1
    assert "" not in box.kinds()
    files.room = None
    while not box.sealer.tidy():
        box.sealer.sign()
    assert "" in box.kinds()


def test_a_loss_that_could_not_be_said_did_not_happen_and_is_not_said_later() -> None:
    files, box = crowded()
    files.room = used(files)
    assert box.sealer.tidy() == ""
    assert box.log.size == box.log.durable == box.log.signed
    assert "" not in box.kinds()
    files.room = None
    assert box.events("seal.dropped") == []
    assert box.sealer.counts.dropped == 0


# ---- against a model
# ruff: noqa: D102 - the name of a rule or an invariant is its sentence


class Sealing(RuleBasedStateMachine):
    """Collect's side of the contract against a sealer that is restarted, killed, cut off and starved.

    The model is collect's: sent holds each good batch by boot and number; held, those without an answer yet, which are
    sent again after anything that may have lost them. seen: every leaf that was ever durable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files = FaultyFiles()
        self.box = boxed(self.files, budget_bytes=3000, keep_bytes=500)
        self.boot, self.boots = BOOT, 1
        self.sent: dict[tuple[bytes, int], Body] = {}
        self.refused: set[tuple[bytes, int]] = set()
        self.held: list[int] = []
        self.acknowledged: list[tuple[bytes, int]] = []
        self.number = 0
        self.seen: list[tuple[Leaf, bytes]] = []
        self.receipted = 0
        self.starts = 1

    @initialize()
    def announce(self) -> None:
        for body in (SCHEMA, *LINES):
            self.send(body)
        self.commit()

    # ---- collect

    def send(self, body: Body) -> None:
        self.number += 1
        self.sent[self.boot, self.number] = body
        self.held.append(self.number)
        if len(self.held) == 1 or self.underway:
            self.offer([self.number])

    def offer(self, numbers: list[int]) -> None:
        """Put batches in order; after a `full` the rest waits."""
        self.underway = True
        for number in numbers:
            try:
                self.box.sealer.put(number, *self.sent[self.boot, number])
            except StoreFull:
                self.underway = False
                return

    underway = True

    @rule(rows=st.integers(1, 3))
    def reading(self, rows: int) -> None:
        self.send(readings(self.number, rows=rows))

    @rule(line=st.sampled_from([0, 1]))
    def interval(self, line: int) -> None:
        self.send(interval(self.number, (LINE, OTHER_LINE)[line]))

    @rule()
    def event(self) -> None:
        self.send(event(self.number))

    @precondition(lambda self: not self.held)
    @rule(bad=st.sampled_from([("event", b""), ("nonsense", pack({})), ("event", pack({"what": 1}))]))
    def malformed(self, bad: Body) -> None:
        self.number += 1
        self.refused.add((self.boot, self.number))
        if not self.box.sealer.is_full:
            with contextlib.suppress(StoreFull), pytest.raises(TrustError):
                self.box.sealer.put(self.number, *bad)

    @rule()
    def commit(self) -> None:
        """All that was put is acknowledged, or all of it comes again."""
        put = self.held if self.underway else []
        try:
            self.box.sealer.commit()
        except StoreFull:
            self.underway = False
            return
        if self.underway:
            self.acknowledged += [(self.boot, number) for number in put]
            self.held = []
        self.look()

    @precondition(lambda self: not self.underway)
    @rule()
    def again(self) -> None:
        """Collect was told `full`, and sends all of it again."""
        self.box.sealer.commit()
        self.offer(list(self.held))

    @precondition(lambda self: self.acknowledged and not self.held)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send a batch twice: the answer was lost."""
        mine = [number for boot, number in self.acknowledged if boot == self.boot]
        if mine:
            number = data.draw(st.sampled_from(mine))
            self.box.sealer.put(number, *self.sent[self.boot, number])

    @precondition(lambda self: not self.held)
    @rule()
    def another_boot(self) -> None:
        self.boots += 1
        self.boot, self.number = self.boots.to_bytes(8, "big"), 0
        assert self.box.sealer.welcome(self.boot) == 0
        self.announce()

    def reconnect(self) -> None:
        """Collect says hello again: it forgets what the log has and sends the rest."""
        self.starts += 1
        last = self.box.sealer.welcome(self.boot)
        known = [number for boot, number in self.acknowledged if boot == self.boot]
        assert last >= max(known, default=0)
        self.acknowledged += [(self.boot, number) for number in self.held if number <= last]
        self.held = [number for number in self.held if number > last]
        self.offer(list(self.held))
        self.look()

    # ---- the seal's own

    @rule()
    def sign(self) -> None:
        if self.box.sealer.sign():
            assert self.box.checkpoint().root == self.box.log.root(self.box.checkpoint().size)

    @rule()
    def tidy(self) -> None:
        if not self.held:
            self.box.sealer.tidy()
            self.look()

    @precondition(lambda self: self.box.log.signed)
    @rule(data=st.data())
    def receipt(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(0, self.box.log.signed))
        self.receipted = max(self.receipted, self.box.sealer.receive(self.box.receipt(size)))
        assert self.box.sealer.receipted == self.receipted

    # ---- faults

    def restart_on(self, files: FaultyFiles) -> None:
        files.room = None
        self.files = files
        self.box = boxed(files, budget_bytes=3000, keep_bytes=500)
        self.reconnect()

    @rule(sign=st.booleans())
    def kill(self, *, sign: bool) -> None:
        if sign:
            self.box.sealer.sign()
        self.restart_on(self.files.fork())

    @rule(image=st.sampled_from(IMAGES), seed=st.integers(0, 1000))
    def power_cut(self, image: str, seed: int) -> None:
        self.restart_on(self.files.crash(image, seed))

    @rule(bytes_=st.integers(0, 600))
    def fill_disk(self, bytes_: int) -> None:
        self.files.room = used(self.files) + bytes_

    @rule()
    def empty_disk(self) -> None:
        self.files.room = None

    # ---- what must hold

    def look(self) -> None:
        """Take note of every durable leaf; none that was there before may have changed."""
        for at, body in enumerate(bodies_of(self.box.log)):
            if at < len(self.seen):
                assert self.box.log.leaf_hash(at) == self.seen[at][1]
            else:
                assert body is not None, "a leaf was dropped before it was signed"
                self.seen.append((parse(body), leaf_hash(body)))

    @invariant()
    def what_is_acknowledged_is_sealed_once_and_in_order(self) -> None:
        found = [leaf.src for leaf, _ in self.seen if leaf.src is not None]
        assert len(found) == len(set(found))
        for boot in {boot for boot, _ in found}:
            numbers = [number for by, number in found if by == boot]
            assert numbers == sorted(numbers)
        assert set(self.acknowledged) <= set(found)
        assert not self.refused & set(found)

    @invariant()
    def leaves_say_what_was_handed_over(self) -> None:
        for leaf, _ in self.seen:
            if leaf.src is not None:
                kind, body = self.sent[leaf.src]
                assert (leaf.kind, leaf.body) == (kind, unpack(body))

    @invariant()
    def each_interval_names_the_one_before_it(self) -> None:
        newest: dict[bytes, int] = {}
        for at, (leaf, _) in enumerate(self.seen):
            if leaf.kind == "interval":
                assert leaf.prev == newest.get(leaf.body["schema"])
                newest[leaf.body["schema"]] = at

    @invariant()
    def epochs_rise_and_the_first_leaf_is_one(self) -> None:
        epochs = [leaf.body["epoch"] for leaf, _ in self.seen if leaf.kind == "epoch"]
        assert epochs == sorted(set(epochs))
        assert not self.seen or self.seen[0][0].kind == "epoch"

    @invariant()
    def the_checkpoint_is_of_the_leaves_that_were_seen(self) -> None:
        edge = CompactRange()
        found = self.box.checkpoint()
        edge.extend(hashed for _, hashed in self.seen[: found.size])
        if found.size <= len(self.seen):
            assert found.root == edge.root()


TestSealing = Sealing.TestCase
TestSealing.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
