"""app/accept.py: how the ledger's copy of a gateway's log grows, and when it says so."""

from pathlib import Path

import pytest

from gateway.app.accept import GatewayCopy
from gateway.app.trust.signedby import Pinned
from gateway.app.verdicts import Accepted, Gap
from gateway.codec.frames import pack_log
from gateway.errors import LogError, TrustError
from gateway.store.files import RealFiles
from gateway.store.segments import Log, StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.merkle import EMPTY_ROOT
from gateway.tlog.note import Signer
from tests.copies import LEDGER, ORIGIN, T0_S, Gateway, Ledger, epoch, event, read_receipt


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(events=9)


@pytest.fixture
def ledger(tmp_path: Path, gateway: Gateway) -> Ledger:
    return Ledger(tmp_path / "copy", gateway)


def test_a_receipt_covers_what_was_accepted(gateway: Gateway, ledger: Ledger) -> None:
    """One message, one commit: the receipt is the gateway's checkpoint with the ledger's cosignature and time."""
    assert ledger.copy.accept(gateway.payload(0)) == Accepted(size=10, added=10)
    committed = ledger.copy.commit()
    assert committed is not None
    checkpoint, time_s = read_receipt(committed.receipt)
    assert (checkpoint.size, time_s, committed.size) == (10, T0_S, 10)
    assert checkpoint.root == ledger.log.root(10)
    assert checkpoints.verify(committed.receipt, origin=ORIGIN, verifier=gateway.signer.verifier) == checkpoint
    assert [(index, leaf.kind) for index, leaf in committed.leaves][:2] == [(0, "epoch"), (1, "event")]
    assert len(committed.leaves) == 10


def test_a_group_of_messages_gets_one_receipt_for_all(gateway: Gateway, ledger: Ledger) -> None:
    """Several messages, one commit: only the newest checkpoint is cosigned; all leaves are handed on, in order."""
    committed = ledger.take(gateway.payload(0, 3), gateway.payload(3, 4), gateway.payload(4, 8))
    assert read_receipt(committed.receipt)[0].size == 8
    assert [index for index, _ in committed.leaves] == list(range(8))
    assert ledger.copy.commit() is None


def test_nothing_is_durable_before_commit(gateway: Gateway, ledger: Ledger) -> None:
    """A crash between accept and commit loses the message, as if it had never come."""
    ledger.copy.accept(gateway.payload(0))
    ledger.reopen()
    assert ledger.copy.size == 0
    assert ledger.take(gateway.payload(0)).size == 10


def test_the_receipt_stands_on_disk_before_it_is_shown(gateway: Gateway, ledger: Ledger) -> None:
    """After a restart the newest receipt is the one that was handed out."""
    receipt = ledger.take(gateway.payload(0)).receipt
    ledger.reopen()
    assert ledger.copy.receipt == receipt


def test_an_empty_copy_asks_from_the_start(gateway: Gateway, ledger: Ledger) -> None:
    """A gap in front of an empty log is answered by a cosigned checkpoint of size 0."""
    answer = ledger.copy.accept(gateway.payload(4, 6))
    assert isinstance(answer, Gap)
    assert answer.receipt is not None
    checkpoint, _ = read_receipt(answer.receipt)
    assert (checkpoint.size, checkpoint.root) == (0, EMPTY_ROOT)


def test_a_gap_is_answered_by_the_newest_receipt_once_a_second(gateway: Gateway, ledger: Ledger) -> None:
    """However many messages come beyond the end, the gateway is told once a second where to go on."""
    receipt = ledger.take(gateway.payload(0, 3)).receipt
    assert ledger.copy.accept(gateway.payload(5, 6)) == Gap(receipt=receipt)
    assert ledger.copy.accept(gateway.payload(6, 7)) == Gap(receipt=None)
    ledger.clocks.mono_s += 0.9
    assert ledger.copy.accept(gateway.payload(7, 8)) == Gap(receipt=None)
    ledger.clocks.mono_s += 0.2
    assert ledger.copy.accept(gateway.payload(5, 6)) == Gap(receipt=receipt)
    assert ledger.copy.size == 3


def test_a_repetition_adds_nothing_and_is_answered_by_the_receipt(gateway: Gateway, ledger: Ledger) -> None:
    """A gateway whose receipt was lost sends again, and gets the same receipt again."""
    receipt = ledger.take(gateway.payload(0, 8)).receipt
    before = ledger.state()
    for first, end in ((0, 8), (0, 3), (3, 5), (8, 8), (0, 0)):
        assert ledger.copy.accept(gateway.payload(first, end)) == Gap(receipt=receipt)
        ledger.clocks.mono_s += 1.1
    assert ledger.copy.commit() is None
    assert ledger.state() == before


def test_an_overlap_adds_only_what_is_new(gateway: Gateway, ledger: Ledger) -> None:
    """Chunks cut at other places than before fit all the same."""
    ledger.take(gateway.payload(0, 6))
    assert ledger.copy.accept(gateway.payload(2, 9)) == Accepted(size=9, added=3)
    committed = ledger.copy.commit()
    assert committed is not None
    assert [index for index, _ in committed.leaves] == [6, 7, 8]


def test_a_repetition_within_a_group_waits_for_its_commit(gateway: Gateway, ledger: Ledger) -> None:
    """No old receipt goes out while a newer one is about to."""
    ledger.copy.accept(gateway.payload(0, 5))
    assert ledger.copy.accept(gateway.payload(0, 5)) == Accepted(size=5, added=0)
    assert ledger.copy.accept(gateway.payload(0, 2)) == Accepted(size=5, added=0)
    committed = ledger.copy.commit()
    assert committed is not None
    assert committed.size == 5


def test_every_cut_of_a_log_into_messages_gives_the_same_copy(gateway: Gateway, tmp_path: Path) -> None:
    """Sizes on both sides of powers of two: one leaf at a time, or any two messages, with any overlap."""
    size = len(gateway.leaves)
    root = Ledger(tmp_path / "whole", gateway)
    root.take(gateway.payload(0))
    for cut in range(1, size):
        for overlap in range(cut + 1):
            ledger = Ledger(tmp_path / f"{cut}-{overlap}", gateway)
            ledger.take(gateway.payload(0, cut), gateway.payload(cut - overlap, size))
            assert ledger.state()[:3] == root.state()[:3]


def test_a_crash_between_commit_and_receipt_is_made_good_by_the_next_repetition(
    gateway: Gateway, ledger: Ledger
) -> None:
    """Leaves without a receipt on disk: the same message again gets one."""
    ledger.take(gateway.payload(0, 4))
    ledger.copy.accept(gateway.payload(4, 7))
    ledger.log.commit()
    ledger.reopen()
    assert (ledger.log.signed, ledger.copy.size) == (4, 7)
    assert ledger.copy.accept(gateway.payload(4, 6)) == Accepted(size=7, added=0)
    assert ledger.take(gateway.payload(4, 7)).size == 7
    assert ledger.take(gateway.payload(7, 8)).size == 8


def test_an_epoch_leaf_counts_from_the_moment_it_is_durable(gateway: Gateway, ledger: Ledger) -> None:
    """After a crash before the very first receipt the log goes on without a repetition."""
    ledger.copy.accept(gateway.payload(0, 4))
    ledger.log.commit()
    ledger.reopen()
    assert ledger.copy.accept(gateway.payload(4, 7)) == Accepted(size=7, added=3)
    assert ledger.take(gateway.payload(7, 8)).size == 8


def test_dropped_bodies_leave_their_hashes(gateway: Gateway, ledger: Ledger) -> None:
    """A body that the gateway no longer has is named as absent; the tree is the same."""
    committed = ledger.take(pack_log(gateway.message(0, absent=lambda index: index in {2, 5})))
    assert committed.absent == (2, 5)
    assert [index for index, _ in committed.leaves] == [0, 1, 3, 4, 6, 7, 8, 9]
    assert ledger.log.read(2, 1000, 3) == [None]
    assert isinstance(ledger.copy.accept(gateway.payload(0)), Gap)


def test_a_leaf_that_nobody_can_read_is_part_of_the_log_and_said(gateway: Gateway, ledger: Ledger) -> None:
    """A signed leaf with nonsense in it is kept, named, and handed to nobody; the rest of the chunk counts."""
    gateway.leaves[3] = b"\xc1 no msgpack"
    gateway.leaves[6] = event(6)[:-1]
    committed = ledger.take(gateway.payload(0))
    assert [found.index for found in committed.unusable] == [3, 6]
    assert all(found.why for found in committed.unusable)
    assert [index for index, _ in committed.leaves] == [0, 1, 2, 4, 5, 7, 8, 9]
    assert ledger.log.read(3, 1, 4) == [b"\xc1 no msgpack"]


def test_a_new_epoch_with_the_same_key_goes_on(gateway: Gateway, ledger: Ledger) -> None:
    """Each start of the sealer writes an epoch leaf."""
    ledger.take(gateway.payload(0))
    gateway.leaves.append(epoch(gateway.signer.verifier.vkey, 2))
    gateway.grow(2)
    assert ledger.take(gateway.payload(10)).size == 13


def test_a_key_that_the_operator_exchanged_takes_over_with_its_epoch_leaf(gateway: Gateway, tmp_path: Path) -> None:
    """The new key signs once the log announces it; the old receipt stays as it was."""
    receipt = Ledger(tmp_path, gateway)
    old = receipt.take(gateway.payload(0)).receipt
    receipt.log.close()
    successor = Signer.generate(ORIGIN)
    ledger = Ledger(tmp_path, gateway, key=successor.verifier)
    assert ledger.copy.receipt == old
    gateway.signer = successor
    gateway.grow(1)
    with pytest.raises(TrustError, match="the newest epoch leaf announces"):
        ledger.copy.accept(gateway.payload(10))
    gateway.leaves[10:] = [epoch(successor.verifier.vkey, 2), event(11)]
    assert ledger.take(gateway.payload(10)).size == 12
    ledger.reopen()
    gateway.grow(1)
    assert ledger.take(gateway.payload(12)).size == 13


def test_lines_of_unknown_keys_do_not_reach_the_receipt(gateway: Gateway, ledger: Ledger) -> None:
    """The receipt has two lines: the gateway's and the ledger's, whatever else was on the checkpoint."""
    message = gateway.message(0)
    stranger = Signer.generate("somebody.example/else")
    text = message.checkpoint.split(b"\n\n")[0].decode() + "\n"
    crowded = message.checkpoint + stranger.line(text).encode()
    payload = pack_log(type(message)(first=0, leaves=message.leaves, checkpoint=crowded))
    assert ledger.take(payload).receipt.count(b"\xe2\x80\x94 ") == 2


def test_what_waits_for_commit_is_counted(gateway: Gateway, ledger: Ledger) -> None:
    """So that the caller can bound it."""
    ledger.copy.accept(gateway.payload(0))
    assert ledger.copy.pending_bytes == sum(map(len, gateway.leaves))
    ledger.copy.commit()
    assert ledger.copy.pending_bytes == 0


def test_rollback_forgets_the_group(gateway: Gateway, ledger: Ledger) -> None:
    """What was accepted and not committed can be accepted again."""
    ledger.take(gateway.payload(0, 3))
    ledger.copy.accept(gateway.payload(3, 6))
    ledger.copy.rollback()
    assert (ledger.copy.size, ledger.copy.commit()) == (3, None)
    assert ledger.take(gateway.payload(3, 6)).size == 6


class FullDisk(RealFiles):
    """A folder whose disk has no room while `full`."""

    full = False

    def write(self, path: str, start: int, content: bytes) -> None:
        """Refuse whatever would take room."""
        if self.full and content:
            raise StoreFull("no room")
        super().write(path, start, content)


def test_a_full_disk_loses_nothing_that_has_a_receipt(gateway: Gateway, tmp_path: Path) -> None:
    """Without room a commit fails, gives no receipt, and leaves the copy fit to take the same message later."""
    files = FullDisk(tmp_path)
    copy = GatewayCopy(
        Log.open(files, origin=ORIGIN),
        signed_by=Pinned(gateway.signer.verifier),
        cosigner=LEDGER.cosigner(),
        time_s=lambda: T0_S,
    )
    copy.accept(gateway.payload(0, 3))
    copy.commit()
    files.full = True
    copy.accept(gateway.payload(3, 6))
    with pytest.raises(StoreFull):
        copy.commit()
    assert copy.size == 3
    files.full = False
    assert copy.accept(gateway.payload(3, 6)) == Accepted(size=6, added=3)
    committed = copy.commit()
    assert committed is not None
    assert committed.size == 6


def test_a_foreign_receipt_on_disk_stops_the_ledger(gateway: Gateway, ledger: Ledger) -> None:
    """What stands beside the log must be a checkpoint of this log."""
    ledger.take(gateway.payload(0))
    ledger.log.record(b"nonsense", b"", 10, ledger.log.root(10))
    with pytest.raises(LogError, match="cannot be read"):
        ledger.reopen()
    ledger.log.close()
