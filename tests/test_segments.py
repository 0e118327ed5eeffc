"""The log: appending, signing, reading, deleting and opening it again, on real files and in memory."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import LogError
from gateway.store.files import RealFiles
from gateway.store.segments import Dropped, Log, StoreFull
from gateway.tlog.merkle import EMPTY_ROOT, CompactRange, leaf_hash
from gateway.tlog.proof import verify_consistency, verify_inclusion
from tests.faulty_files import FaultyFiles

ORIGIN = "wattseal/plant-1"


def filled(files: FaultyFiles, count: int, *, height: int = 2, sign: bool = True) -> Log:
    log = Log.open(files, origin=ORIGIN, height=height)
    for number in range(count):
        log.append(b"leaf %03d" % number)
    log.commit()
    if sign:
        log.record(b"note\n", b"heads", count, log.root(count))
    return log


def reopened(files: FaultyFiles, *, height: int = 2) -> Log:
    return Log.open(files.crash("kept"), origin=ORIGIN, height=height)


def bodies(log: Log) -> list[bytes | None]:
    return log.read(0, 1 << 30, log.size)


# ---- on real files


def test_a_log_is_there_again_after_it_was_closed(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path / "log"), origin=ORIGIN)
    leaves = [os.urandom(1 + number * 91 % 65535) for number in range(700)]
    assert [log.append(leaf) for leaf in leaves[:300]] == list(range(300))
    assert log.commit() == 300
    for leaf in leaves[300:]:
        log.append(leaf)
        log.commit()
    root = log.root(700)
    log.record(b"note\n", b"heads", 700, root)
    log.record_receipt(b"receipt\n", 700)
    log.close()
    again = Log.open(RealFiles(tmp_path / "log"), origin=ORIGIN)
    assert (again.size, again.durable, again.signed, again.receipted, again.torn_bytes) == (700, 700, 700, 700, 0)
    assert (again.checkpoint, again.heads, again.receipt) == (b"note\n", b"heads", b"receipt\n")
    assert again.root(700) == root
    assert bodies(again) == leaves
    assert list(again.audit()) == [256, 512, 700]
    again.close()


def test_a_bundle_on_disk_is_what_c2sp_says(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    for number in range(257):
        log.append(b"%d" % number)
    log.append_hash(leaf_hash(b"gone"))
    log.commit()
    log.close()
    bundle = (tmp_path / "tile/entries/000").read_bytes()
    assert bundle.startswith(b"\x00\x010\x00\x011")
    assert bundle.endswith(b"\x00\x03255")
    assert (tmp_path / "tile/entries/001.part").read_bytes() == b"\x00\x03256\x00\x00"
    assert (tmp_path / "tile/0/001.part").read_bytes() == leaf_hash(b"256") + leaf_hash(b"gone")
    assert len((tmp_path / "tile/0/000").read_bytes()) == 8192


def test_nobody_else_may_read_the_log(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path / "deep" / "log"), origin=ORIGIN)
    log.append(b"x")
    log.commit()
    for path in [tmp_path / "deep" / "log", *(tmp_path / "deep" / "log").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    log.close()


def test_a_log_that_is_open_is_not_opened_twice_and_the_error_says_who_has_it(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    with pytest.raises(LogError, match=f"in use by process {os.getpid()}"):
        Log.open(RealFiles(tmp_path), origin=ORIGIN)
    log.close()
    Log.open(RealFiles(tmp_path), origin=ORIGIN).close()


def test_a_log_that_could_not_be_opened_is_not_locked(tmp_path: Path) -> None:
    Log.open(RealFiles(tmp_path), origin=ORIGIN).close()
    for _ in range(2):
        with pytest.raises(LogError, match=r"got the log of wattseal/plant-1, want wattseal/other"):
            Log.open(RealFiles(tmp_path), origin="wattseal/other")
    Log.open(RealFiles(tmp_path), origin=ORIGIN).close()


def test_a_full_file_system_is_store_full_and_the_old_checkpoint_stands(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    log.append(b"x")
    log.commit()
    log.record(b"old\n", b"", 1, log.root(1))
    (tmp_path / "tmp").symlink_to("/dev/full")
    with pytest.raises(StoreFull, match="No space left"):
        log.record(b"new\n", b"", 1, log.root(1))
    assert log.checkpoint == b"old\n"
    log.record(b"new\n", b"", 1, log.root(1))
    log.close()
    assert Log.open(RealFiles(tmp_path), origin=ORIGIN).checkpoint == b"new\n"


def test_any_other_failure_of_the_disk_stops_the_log(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    (tmp_path / "tile" / "entries" / "000.part").mkdir(parents=True)
    log.append(b"x")
    with pytest.raises(LogError, match="directory"):
        log.commit()
    with pytest.raises(LogError, match="directory"):
        log.append(b"y")
    log.close()


WRITER = """
import sys
from pathlib import Path
from gateway.store.files import RealFiles
from gateway.store.segments import Log
log = Log.open(RealFiles(Path(sys.argv[1])), origin=sys.argv[2])
print("size", log.size, flush=True)
while True:
    for _ in range(log.size % 40 + 1):
        log.append(b"%d:" % log.size + bytes(log.size * 37 % 3000))
    print(log.commit(), flush=True)
    if log.size % 3 == 0:
        log.record(b"note %d" % log.size, b"", log.size, log.root(log.size))
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for after in (1, 2, 3, 5, 20, 40):
        command = [sys.executable, "-c", WRITER, str(tmp_path), ORIGIN]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert int(writer.stdout.readline().removeprefix("size ")) >= acknowledged
            for _ in range(after):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    assert log.size >= acknowledged > 256
    assert bodies(log) == [b"%d:" % index + bytes(index * 37 % 3000) for index in range(log.size)]
    assert list(log.audit())[-1] == log.size
    log.close()


# ---- appending and signing


def test_an_empty_log_has_the_empty_root_and_no_checkpoint() -> None:
    files = FaultyFiles()
    filled(files, 0, sign=False)
    log = reopened(files)
    assert (log.size, log.signed, log.checkpoint, log.receipt, log.heads) == (0, 0, None, None, b"")
    assert log.root(0) == EMPTY_ROOT
    assert log.read(0, 100, 100) == []
    assert list(log.audit()) == [0]


@pytest.mark.parametrize("leaf", [b"", bytes(65_536)])
def test_a_leaf_that_does_not_fit_an_entry_is_not_taken(leaf: bytes) -> None:
    log = filled(FaultyFiles(), 3)
    with pytest.raises(ValueError, match="a leaf has 1 to 65535 bytes"):
        log.append(leaf)
    assert log.size == 3


@pytest.mark.parametrize("hashed", [bytes(32), b"short"])
def test_what_is_no_hash_is_not_taken_for_one(hashed: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        filled(FaultyFiles(), 3).append_hash(hashed)


def test_the_root_of_uncommitted_leaves_is_known_and_a_rollback_forgets_them() -> None:
    """So the ledger compares a root before it stores what a message brought."""
    files = FaultyFiles()
    log = filled(files, 6)
    before, root = files.contents(), log.root(6)
    for number in range(30):
        log.append(b"forged %d" % number)
    edge = CompactRange()
    edge.extend([leaf_hash(b"leaf %03d" % number) for number in range(6)])
    edge.extend([leaf_hash(b"forged %d" % number) for number in range(30)])
    assert log.root(36) == edge.root()
    assert log.read(0, 1 << 20, 36) == [b"leaf %03d" % number for number in range(6)], "only what is committed"
    log.rollback()
    assert (log.size, log.root(6), files.contents()) == (6, root, before)
    log.append(b"true")
    log.commit()
    assert bodies(reopened(files)) == [*(b"leaf %03d" % number for number in range(6)), b"true"]


def test_a_checkpoint_goes_neither_beyond_what_is_durable_nor_back_nor_over_another_root() -> None:
    log = filled(FaultyFiles(), 6)
    log.append(b"not committed")
    for size, root, why in (
        (7, log.root(7), r"got size 7, want 6\.\.6"),
        (5, log.root(5), r"got size 5, want 6\.\.6"),
        (6, log.root(5), "its root is not that of this log"),
    ):
        with pytest.raises(LogError, match=why):
            log.record(b"note\n", b"", size, root)
    assert log.signed == 6


def test_a_receipt_goes_neither_beyond_the_checkpoint_nor_back() -> None:
    log = filled(FaultyFiles(), 6)
    log.append(b"not signed")
    log.commit()
    log.record_receipt(b"receipt\n", 4)
    for size in (3, 7):
        with pytest.raises(LogError, match=rf"got size {size}, want 4\.\.6"):
            log.record_receipt(b"receipt\n", size)
    assert (log.receipted, log.receipt) == (4, b"receipt\n")


def test_proofs_of_a_log_verify() -> None:
    log = filled(FaultyFiles(), 50)
    root = log.root(50)
    for index in (0, 3, 31, 48, 49):
        proof = log.inclusion(index, 50)
        verify_inclusion(index=index, size=50, leaf_hash=log.leaf_hash(index), proof=proof, root=root)
    proof = log.consistency(17, 50)
    verify_consistency(old=17, new=50, old_root=log.root(17), new_root=root, proof=proof)


def test_a_leaf_that_is_not_there_has_no_hash_root_or_proof() -> None:
    log = filled(FaultyFiles(), 5)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            log.leaf_hash(index)
    for ask in (lambda: log.root(6), lambda: log.inclusion(2, 6), lambda: log.consistency(2, 6)):
        with pytest.raises(IndexError):
            ask()


# ---- reading


def test_a_chunk_is_as_long_as_fits_and_never_empty() -> None:
    log = filled(FaultyFiles(), 20)  # 10 bytes each on disk, counted as 34
    assert log.read(3, 34 * 6, 20) == [b"leaf %03d" % number for number in range(3, 9)]
    assert log.read(3, 1, 20) == [b"leaf 003"]
    assert log.read(18, 1 << 20, 100) == [b"leaf 018", b"leaf 019"]
    assert log.read(5, 1 << 20, 7) == [b"leaf 005", b"leaf 006"]
    assert log.read(20, 1 << 20, 100) == []


def test_a_body_that_came_as_a_hash_is_none_and_its_hash_is_there() -> None:
    files = FaultyFiles()
    log = filled(files, 5)
    gone = leaf_hash(b"gone")
    log.append_hash(gone)
    log.append(b"here")
    log.commit()
    for one in (log, reopened(files)):
        assert one.read(4, 1 << 20, 7) == [b"leaf 004", None, b"here"]
        assert one.leaf_hash(5) == gone
        assert list(one.audit()) == [4, 7]


# ---- deleting


def test_pruning_takes_whole_bundles_below_the_receipt_oldest_first_down_to_what_is_kept() -> None:
    files = FaultyFiles()
    log = filled(files, 40)
    assert log.body_bytes == 400
    assert log.prune(0) == 0, "nothing is receipted"
    log.record_receipt(b"receipt\n", 22)
    assert log.prune(330) == 80
    assert bodies(log)[:9] == [None] * 8 + [b"leaf 008"]
    assert log.prune(0) == 120
    for one in (log, reopened(files)):
        assert one.body_bytes == 200
        assert bodies(one) == [None] * 20 + [b"leaf %03d" % number for number in range(20, 40)]
        assert one.leaf_hash(3) == leaf_hash(b"leaf 003")
        assert list(one.audit())[-1] == 40


def keeps_even(leaf: bytes) -> bool:
    return int(leaf[5:]) % 2 == 0


def test_dropping_takes_unwanted_bodies_of_signed_bundles_oldest_first_and_keeps_their_hashes() -> None:
    files = FaultyFiles()
    log = filled(files, 40)
    said: list[Dropped] = []
    dropped = log.drop(keeps_even, 380, say=said.append)
    assert dropped == Dropped(first=1, stop=8, bodies=4)
    assert said == [dropped]
    assert log.body_bytes == 400 - 4 * 8
    first, stop, count = log.drop(keeps_even, 300) or (0, 0, 0)
    assert (first, stop, count) == (9, 28, 10)
    for one in (log, reopened(files)):
        assert bodies(one)[:8] == [b"leaf 000", None, b"leaf 002", None, b"leaf 004", None, b"leaf 006", None]
        assert one.leaf_hash(1) == leaf_hash(b"leaf 001")
        assert one.body_bytes == log.body_bytes
        assert list(one.audit())[-1] == 40
    assert log.drop(keeps_even, 300) is None


def test_what_is_dropped_is_said_before_it_is_gone() -> None:
    """So a crash in between can leave a leaf that says too much, and never a loss that no leaf names."""
    files = FaultyFiles()
    log = filled(files, 12)

    def say(dropped: Dropped) -> None:
        assert None not in bodies(log)
        log.append(b"seal.dropped %d" % dropped.bodies)
        log.commit()

    log.drop(keeps_even, 0, say=say)
    assert bodies(reopened(files))[-1] == b"seal.dropped 6"
    assert bodies(log).count(None) == 6


def test_leaves_that_are_not_signed_are_not_dropped() -> None:
    files = FaultyFiles()
    log = filled(files, 12, sign=False)
    assert log.drop(lambda _leaf: False, 0) is None
    log.record(b"note\n", b"", 6, log.root(6))
    assert log.drop(lambda _leaf: False, 0) == Dropped(first=0, stop=4, bodies=4)
    assert bodies(reopened(files))[4:] == [b"leaf %03d" % number for number in range(4, 12)]


def test_a_bundle_whose_bodies_are_all_dropped_is_not_taken_for_one_that_was_lost() -> None:
    """Above the receipt a missing file is a contradiction, so one without any body stays: two bytes a leaf."""
    files = FaultyFiles()
    log = filled(files, 12)
    log.drop(lambda _leaf: False, 0)
    assert files.read("tile/entries/001") == bytes(8)
    files.remove("tile/entries/001")
    with pytest.raises(LogError, match="leaf 4: its body is missing, and no receipt covers it"):
        reopened(files)


# ---- opening


def test_a_torn_tail_is_cut_off_the_disk_too() -> None:
    """Else what stands behind it could look like leaves again, once the log has grown up to it."""
    files = FaultyFiles()
    log = filled(files, 5)
    for number in range(5, 7):
        log.append(b"leaf %03d" % number)
    log.commit()
    torn = files.crash("kept")
    torn.flip("tile/entries/001.part", 12)
    again = Log.open(torn, origin=ORIGIN, height=2)
    assert (again.size, again.torn_bytes) == (5, 20)
    kept = torn.crash("lost")
    assert kept.read("tile/entries/001.part") == b"\x00\x08leaf 004"
    assert kept.read("tile/0/001.part") == leaf_hash(b"leaf 004")


def test_zeros_after_the_last_leaf_are_not_taken_for_leaves_without_a_body() -> None:
    """A crash may leave a file at its new length without its bytes; an entry of length 0 is two zero bytes."""
    files = FaultyFiles()
    log = filled(files, 5)
    log.append(b"ab")  # four bytes: as many as two entries without a body
    log.append(b"cd")
    log.commit()
    for zeroed in (4, 8):
        torn = files.crash("kept")
        entries = torn.read("tile/entries/001.part") or b""
        torn.write("tile/entries/001.part", len(entries) - zeroed, bytes(zeroed))
        again = Log.open(torn, origin=ORIGIN, height=2)
        assert again.size == 7 - zeroed // 4


def test_hashes_without_a_body_survive_from_the_commit_on() -> None:
    files = FaultyFiles()
    log = filled(files, 5)
    log.append_hash(leaf_hash(b"gone"))
    uncommitted = files.crash("kept")
    log.commit()
    assert Log.open(files.crash("lost"), origin=ORIGIN, height=2).size == 6
    assert Log.open(uncommitted, origin=ORIGIN, height=2).size == 5


@pytest.mark.parametrize("lost", ["tile/entries/009", "tile/0/009", "tile/entries/010.part", "tile/0/010.part"])
def test_opening_refuses_a_log_that_lacks_a_signed_leaf(lost: str) -> None:
    files = FaultyFiles()
    filled(files, 42)
    files.remove(lost)
    before = files.contents()
    with pytest.raises(LogError):
        reopened(files)
    assert files.contents() == before


@pytest.mark.parametrize("lost", [["checkpoint"], ["checkpoint", "tile/0/000.part", "tile/entries/000.part"]])
def test_opening_refuses_a_log_whose_checkpoint_file_is_missing(lost: list[str]) -> None:
    """It is made before the first leaf and only ever replaced whole, so that no crash can make it vanish."""
    files = FaultyFiles()
    log = filled(files, 2)
    log.record_receipt(b"receipt\n", 2)
    for path in lost:
        files.remove(path)
    with pytest.raises(LogError, match="checkpoint: is missing"):
        reopened(files)


def test_opening_finds_a_body_that_was_changed_together_with_its_hash() -> None:
    files = FaultyFiles()
    filled(files, 42)
    files.write("tile/entries/003", 0, b"".join(b"\x00\x08LEAF %03d" % number for number in range(12, 16)))
    files.write("tile/0/003", 0, b"".join(leaf_hash(b"LEAF %03d" % number) for number in range(12, 16)))
    with pytest.raises(LogError, match="leaf 12: tile/0/003: is not what the level above says"):
        reopened(files)


def test_opening_finds_a_signed_hash_without_a_body_that_was_changed() -> None:
    files = FaultyFiles()
    log = filled(files, 5)
    log.append_hash(leaf_hash(b"gone"))
    log.commit()
    log.record(b"note\n", b"", 6, log.root(6))
    files.flip("tile/0/001.part", 40)
    with pytest.raises(LogError, match="the root at size 6 is not the one that was recorded"):
        reopened(files)


def test_opening_checks_no_more_than_it_is_told_to_and_the_audit_names_the_first_wrong_leaf() -> None:
    files = FaultyFiles()
    filled(files, 150)
    files.flip("tile/entries/002", 15)
    with pytest.raises(LogError, match="leaf 9: its body is not what its hash says"):
        reopened(files)
    log = Log.open(files.crash("kept"), origin=ORIGIN, height=2, recheck_bytes=1)
    done: list[int] = []
    with pytest.raises(LogError, match="leaf 9: its body is not what its hash says"):
        done += log.audit()
    audit = log.audit()
    assert [next(audit), next(audit)] == [4, 8]


def test_the_audit_finds_a_changed_tile_of_a_level_that_opening_does_not_read() -> None:
    files = FaultyFiles()
    filled(files, 150)
    files.flip("tile/2/000", 5)
    log = reopened(files)
    with pytest.raises(LogError, match="leaf 0: tile/1/000: is not what the level above says"):
        list(log.audit())
