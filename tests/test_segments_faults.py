"""The log against power cuts: one long story, cut at every write, sync, rename and removal.

At each step the disk is imagined in several states that the cut could leave, the log is opened from it, and I1 to I5
of docs/log.md are checked. Tiles are 4 wide here, so that a few dozen leaves reach four levels of tiles.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.errors import LogError
from gateway.store.segments import Log, StoreFull
from gateway.store.tiles import ENTRIES, tile_index
from gateway.tlog.merkle import EMPTY_ROOT, CompactRange, leaf_hash
from tests.faulty_files import IMAGES, FaultyFiles

ORIGIN = "wattseal/cut"
HEIGHT = 2
WIDTH = 1 << HEIGHT
RECEIPTED = 45


def a_leaf(number: int) -> bytes:
    """Return a leaf of some length; every third is all zeros but for a few bytes, every seventh is bulk."""
    dice = random.Random(number)
    if number % 3 == 0:
        return bytes(dice.choice([1, 2, 4, 30])) + number.to_bytes(2, "big")
    return b"%d:" % number + dice.randbytes(dice.choice([0, 1, 5, 25, 99 if number % 7 == 0 else 40]))


def is_wanted(leaf: bytes) -> bool:
    return leaf_hash(leaf)[0] % 3 == 0


def open_log(files: FaultyFiles) -> Log:
    return Log.open(files, origin=ORIGIN, height=HEIGHT)


class Story:
    """A log at work, and what it has promised so far.

    history: each leaf appended, body and hash; body None where it came as a hash.
    acknowledged: what commit returned. signed, receipted: what is recorded; the next one while record is under way.
    """

    def __init__(self, files: FaultyFiles) -> None:
        self.files = files
        self.history: list[tuple[bytes | None, bytes]] = []
        self.acknowledged = 0
        self.signed: list[tuple[int, bytes, bytes]] = [(0, b"", b"")]
        self.receipted: list[int] = [0]
        self.may_lack: Callable[[int, bytes], bool] = lambda _index, _leaf: False
        self.log = open_log(files)
        self.number = 0

    def append(self, count: int) -> None:
        """Append leaves."""
        for _ in range(count):
            self.number += 1
            leaf = a_leaf(self.number)
            self.history.append((leaf, leaf_hash(leaf)))
            assert self.log.append(leaf) == len(self.history) - 1

    def append_hash(self, count: int) -> None:
        """Append leaves whose body is gone."""
        for _ in range(count):
            self.number += 1
            hashed = leaf_hash(a_leaf(self.number))
            self.history.append((None, hashed))
            assert self.log.append_hash(hashed) == len(self.history) - 1

    def commit(self) -> None:
        """Commit; what is appended is promised from here on."""
        assert self.log.commit() == len(self.history)
        self.acknowledged = len(self.history)

    def rollback(self) -> None:
        """Forget what is not committed."""
        self.log.rollback()
        del self.history[self.acknowledged :]

    def sign(self) -> None:
        """Record a checkpoint over what is durable; while that is under way, the one before is right too."""
        size = self.log.durable
        self.signed.append((size, b"note %d\n" % size, b"heads %d" % self.number))
        self.log.record(self.signed[-1][1], self.signed[-1][2], size, self.log.root(size))
        del self.signed[:-1]

    def receive(self, size: int) -> None:
        """Record a receipt, likewise."""
        self.receipted.append(size)
        self.log.record_receipt(b"receipt %d\n" % size, size)
        del self.receipted[:-1]

    def prune(self, keep_bytes: int) -> None:
        """Prune; from here on, receipted bodies may be gone."""
        before, below = self.may_lack, self.log.receipted // WIDTH * WIDTH
        self.may_lack = lambda index, leaf: index < below or before(index, leaf)
        self.log.prune(keep_bytes)

    def drop(self, target_bytes: int) -> None:
        """Drop; from here on, unwanted bodies of signed bundles may be gone."""
        before, below = self.may_lack, self.log.signed // WIDTH * WIDTH
        self.may_lack = lambda index, leaf: (index < below and not is_wanted(leaf)) or before(index, leaf)
        self.log.drop(is_wanted, target_bytes)

    def check(self, files: FaultyFiles) -> Log:
        """Open the log from files and check that it kept every promise; return it."""
        log = open_log(files)
        assert self.acknowledged <= log.size == log.durable <= len(self.history), "I1, I3"
        edge = CompactRange()
        roots = [EMPTY_ROOT]
        for index, (_, hashed) in enumerate(self.history[: log.size]):
            assert log.leaf_hash(index) == hashed, f"I3, I5: leaf {index}"
            edge.append(hashed)
            roots.append(edge.root())
        assert log.root(log.size) == roots[-1]
        assert (log.signed, log.checkpoint or b"", log.heads) in self.signed, "I2"
        assert log.root(log.signed) == roots[log.signed], "I2"
        assert log.receipted in self.receipted
        for index, body in enumerate(read_all(log)):
            leaf = self.history[index][0]
            assert body == leaf or (body is None and leaf is not None and self.may_lack(index, leaf)), f"I5: {index}"
        assert list(log.audit())[-1:] == [log.size]
        return log

    def go_on(self, log: Log, files: FaultyFiles) -> None:
        """Append to a log that was opened after a crash, and check that it keeps that over the next one."""
        rest = self.history[log.size :]
        more = [b"after %d" % number for number in range(WIDTH + 1)]
        promised = [hashed for _, hashed in self.history[: log.size]] + [leaf_hash(leaf) for leaf in more]
        for leaf in more:
            log.append(leaf)
        size = log.commit()
        log.record(b"after\n", b"", size, log.root(size))
        again = open_log(files.crash("lost"))
        assert [again.leaf_hash(index) for index in range(again.size)] == promised
        assert again.signed == size, f"after a cut that lost {len(rest)} leaves"


def read_all(log: Log) -> list[bytes | None]:
    bodies: list[bytes | None] = []
    while len(bodies) < log.size:
        bodies += log.read(len(bodies), 100, log.size)
    return bodies


def tell(story: Story) -> None:
    """Go through all that a log does: crossing borders of tiles at each level, in one commit and in several."""
    story.append(1)
    story.commit()
    story.sign()
    story.append(2)
    story.commit()
    story.append(1)  # fills the first tile exactly
    story.commit()
    story.sign()
    story.append(3)
    story.rollback()
    story.append(7)  # crosses two borders, ends within a tile
    story.commit()
    story.append(2)
    story.append_hash(2)
    story.append(3)
    story.commit()
    story.append(2)
    story.commit()
    story.sign()
    story.append_hash(1)
    story.commit()
    story.receive(10)
    story.append(10)
    story.prune(0)
    story.commit()
    story.sign()
    story.drop(200)
    story.append(25)  # a whole tile of level 1 and more in one commit
    story.commit()
    story.append(3)
    story.commit()
    story.sign()
    story.receive(RECEIPTED)
    story.prune(400)
    story.append(9)
    story.commit()
    story.drop(0)
    story.append(2)
    story.commit()
    story.sign()


@contextmanager
def watched(files: FaultyFiles, check: Callable[[], None]) -> Iterator[None]:
    """Call check at every step that a power cut can fall on, and once at the end."""
    files.on_step = check
    try:
        yield
    finally:
        files.on_step = None
    check()


def cut_everywhere(files: FaultyFiles, *, seeds: int, nested_every: int = 0, images: tuple[str, ...] = IMAGES) -> int:
    """Tell the story, cut it at every step, and check every image of the disk; return how many there were."""
    story = Story(files)
    numbers = itertools.count()

    def check() -> None:
        for image in images:
            for seed in range(seeds if image in {"zeros", "torn", "mixed"} else 1):
                number = next(numbers)
                cut = files.crash(image, seed=number * 7 + seed)
                log = story.check(cut)
                if nested_every and number % nested_every == 0:
                    cut_the_recovery(story, files.crash(image, seed=number * 7 + seed), number)
                if number % 3 == 0:
                    story.go_on(log, cut)

    with watched(files, check):
        tell(story)
    return next(numbers)


def cut_the_recovery(story: Story, files: FaultyFiles, number: int) -> None:
    """Open the log and cut the power at every step of that too."""
    numbers = itertools.count(number)
    with watched(files, lambda: story.check(files.crash("mixed", seed=next(numbers))).close()):
        open_log(files)


@pytest.mark.parametrize("image", IMAGES)
def test_no_cut_breaks_a_promise(image: str) -> None:
    checked = cut_everywhere(FaultyFiles(), seeds=1 + (image == "mixed"), nested_every=53, images=(image,))
    assert checked > 250


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("image", ["zeros", "torn", "mixed"])
def test_no_cut_breaks_a_promise_in_many_more_images(image: str) -> None:
    cut_everywhere(FaultyFiles(), seeds=20, nested_every=13, images=(image,))


def test_a_killed_process_leaves_a_log_that_the_next_one_makes_durable_before_it_signs() -> None:
    """Its bytes are to be seen, but not on disk: signing over them without a sync would be untrue after a cut."""
    files = FaultyFiles()
    story = Story(files)

    def check() -> None:
        if files.changes % 2:
            return
        left = files.fork()
        log = story.check(left)
        story.go_on(log, left)
        log = open_log(fork := files.fork())
        log.record(b"n", b"", log.size, root := log.root(log.size))
        again = open_log(fork.crash("lost"))
        assert again.root(again.signed) == root

    with watched(files, check):
        tell(story)


@pytest.mark.parametrize(
    "deaf_to",
    [
        pytest.param(lambda path: path.startswith("tile/entries/"), id="bodies"),
        pytest.param(lambda path: path.startswith("tile/0/"), id="hashes"),
        pytest.param(lambda path: path.startswith("tile/1/"), id="upper hashes"),
        pytest.param(lambda path: path == "tile/entries", id="names of bundles"),
        pytest.param(lambda path: path == "tile/0", id="names of tiles"),
        pytest.param(lambda path: path == "tile/1", id="names of upper tiles"),
        pytest.param(lambda path: path == "tmp", id="checkpoint"),
        pytest.param(lambda path: path == "", id="name of the checkpoint"),
    ],
)
def test_each_sync_is_needed_and_this_test_sees_when_it_is_missing(deaf_to: Callable[[str], bool]) -> None:
    files = FaultyFiles()
    files.deaf_to = deaf_to
    with pytest.raises((AssertionError, LogError)):
        cut_everywhere(files, seeds=2)


def test_signing_before_the_commit_is_refused() -> None:
    story = Story(FaultyFiles())
    story.append(3)
    with pytest.raises(LogError, match=r"got size 3, want 0\.\.0"):
        story.log.record(b"note", b"", 3, story.log.root(3))


def a_story_so_far() -> tuple[FaultyFiles, Story]:
    """Return a story that stands within a tile, with leaves that are signed, and others that are only committed."""
    files = FaultyFiles()
    story = Story(files)
    story.append(9)
    story.commit()
    story.sign()
    story.append(2)
    story.commit()
    return files, story


def an_event(story: Story) -> None:
    """Commit across three borders, with a hash among the leaves, so that the tail's mark is written too; sign."""
    story.append(7)
    story.append_hash(1)
    story.append(4)
    story.commit()
    story.sign()


def steps_of_an_event() -> list[int]:
    files, story = a_story_so_far()
    first = files.changes
    an_event(story)
    return list(range(first + 1, files.changes + 1))


@pytest.mark.parametrize("step", steps_of_an_event())
def test_a_full_disk_at_any_step_takes_nothing_and_leaves_nothing_behind(step: int) -> None:
    files, story = a_story_so_far()
    before, size = files.contents(), story.log.durable
    files.faults[step] = "full"
    image = "lost" if step % 2 else "mixed"
    with watched(files, lambda: story.check(files.crash(image, seed=step)).close()):
        try:
            an_event(story)
        except StoreFull:
            assert story.acknowledged == story.log.durable
            if story.log.durable == size:
                assert files.contents() == before, "a commit that did not fit is undone"
                if step % 2:
                    story.rollback()
                    assert story.log.size == size
                else:
                    story.commit()
                story.append(1)
            an_event(story)
        except LogError as e:
            # Replaced, and perhaps not durably: that cannot be undone, so the process must stop.
            assert "perhaps not durably" in str(e)  # noqa: PT017 - StoreFull is as good here
            story.check(files.fork())
            return
        story.sign()
    story.check(files.crash("lost"))


@pytest.mark.parametrize("step", steps_of_an_event())
def test_after_a_sync_or_a_write_that_failed_the_log_stops_and_the_next_process_believes_no_cache(step: int) -> None:
    """A kernel may show bytes that it failed to write, as if they were on disk, and say so only once."""
    files, story = a_story_so_far()
    files.faults[step] = "dying"
    with pytest.raises(LogError, match="Input/output"):
        an_event(story)
    with pytest.raises(LogError, match="Input/output"):
        story.log.append(b"x")
    with pytest.raises(LogError, match="Input/output"):
        story.log.commit()
    with pytest.raises(LogError, match="Input/output"):
        story.log.prune(0)
    for left in (files.fork(), files.crash("lost"), files.crash("mixed", seed=step)):
        story.go_on(story.check(left), left)


def test_when_a_full_commit_cannot_be_undone_the_log_stops() -> None:
    for step, later in itertools.product(steps_of_an_event(), (1, 2, 3, 5, 8)):
        files, story = a_story_so_far()
        files.faults = {step: "full", step + later: "full"}
        for _ in range(3):
            try:
                an_event(story)
            except StoreFull:
                story.rollback()
            except LogError:
                break
        for left in (files.fork(), files.crash("lost"), files.crash("mixed", seed=step)):
            story.go_on(story.check(left), left)


def a_finished_story() -> FaultyFiles:
    files = FaultyFiles()
    tell(Story(files))
    files.close()
    return files


def test_no_flipped_bit_is_overlooked() -> None:
    """Opening finds it or, in what the ledger has receipted, the audit; opening that refuses changes nothing."""
    disk = a_finished_story()
    for path in disk.paths():
        for at in range(0, disk.size(path) or 0, 5):
            files = disk.crash("kept")
            files.flip(path, at)
            before = files.contents()
            with pytest.raises(LogError):  # noqa: PT012 - either of two
                try:
                    log = open_log(files)
                except LogError:
                    assert files.contents() == before
                    raise
                list(log.audit())


def test_no_missing_or_shortened_file_is_overlooked() -> None:
    disk = a_finished_story()
    for path in disk.paths():
        if path in {"receipt", "tail"}:
            continue  # these come again: without them the log trusts less, and keeps more
        for cut in (None, 1, 40):
            files = disk.crash("kept")
            bundle = tile_index(ENTRIES, path)
            if cut is None and bundle is not None and bundle < RECEIPTED // WIDTH:
                continue  # as pruning does
            if cut is None:
                files.remove(path)
            else:
                files.write(path, max(0, (files.size(path) or 0) - cut), b"")
            before = files.contents()
            with pytest.raises(LogError):  # noqa: PT012 - either of two
                try:
                    log = open_log(files)
                except LogError:
                    assert files.contents() == before
                    raise
                list(log.audit())


def test_an_older_checkpoint_put_back_is_refused_when_a_receipt_is_newer() -> None:
    files = FaultyFiles()
    story = Story(files)
    story.append(5)
    story.commit()
    story.sign()
    old = files.contents()["checkpoint"]
    story.append(1)
    story.commit()
    story.sign()
    story.receive(6)
    files.write("checkpoint", 0, old)
    with pytest.raises(LogError, match="older than what was receipted"):
        open_log(files.crash("kept"))
