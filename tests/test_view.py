"""A log that is read while its writer goes on: store/view.py."""

from pathlib import Path

import pytest

from gateway.errors import LogError
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.store.view import steadily, view
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.proof import verify_inclusion

ORIGIN = "wattseal/gw1"


def grow(log: Log, count: int, *, signed: bool = True) -> None:
    for _ in range(count):
        log.append(b"leaf %d" % log.size)
    log.commit()
    if signed:
        log.record(b"note of %d" % log.size, b"", log.size, log.root(log.size))


def test_a_view_shows_what_is_below_the_checkpoint_at_every_size(tmp_path: Path) -> None:
    """Across the borders of bundles and tiles, with more leaves committed behind the checkpoint."""
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    for step in (1, 100, 154, 1, 1, 255, 300):
        grow(log, step)
        grow(log, 3, signed=False)
        seen = view(RealFiles(tmp_path), origin=ORIGIN)
        assert (seen.signed, seen.checkpoint) == (log.signed, log.checkpoint)
        assert seen.read(0, 1 << 20, log.size) == [b"leaf %d" % index for index in range(log.signed)]
        for index in {0, seen.signed // 2, seen.signed - 1}:
            proof, root = seen.inclusion(index, seen.signed), log.root(log.signed)
            hashed = leaf_hash(b"leaf %d" % index)
            verify_inclusion(index=index, size=seen.signed, leaf_hash=hashed, proof=proof, root=root)
        seen.close()
    log.close()


def test_a_view_does_not_mind_that_the_writer_has_filled_the_bundle(tmp_path: Path) -> None:
    """Leaves behind the checkpoint may have given the file its final name."""
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    grow(log, 250)
    grow(log, 10, signed=False)
    seen = view(RealFiles(tmp_path), origin=ORIGIN)
    assert len(seen.read(0, 1 << 20, 1000)) == seen.signed == 250
    log.close()


def test_a_view_can_change_nothing(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    grow(log, 5)
    seen = view(RealFiles(tmp_path), origin=ORIGIN)
    for change in (
        lambda: seen.append(b"x"),
        seen.commit,
        lambda: seen.record(b"n", b"", 5, log.root(5)),
        lambda: seen.record_receipt(b"n", 5),
        lambda: seen.prune(0),
    ):
        with pytest.raises(LogError, match="to read alone"):
            change()
    grow(log, 5)
    log.close()


def test_a_view_of_nothing_or_of_another_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is none"):
        view(RealFiles(tmp_path / "absent"), origin=ORIGIN)
    log = Log.open(RealFiles(tmp_path / "log"), origin=ORIGIN)
    grow(log, 2)
    with pytest.raises(LogError, match="got the log of"):
        view(RealFiles(tmp_path / "log"), origin="wattseal/gw2")
    log.close()


def test_a_view_of_changed_hashes_is_refused(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    grow(log, 300)
    log.close()
    tile = tmp_path / "tile" / "0" / "001.part"
    content = bytearray(tile.read_bytes())
    content[5] ^= 1
    tile.write_bytes(content)
    with pytest.raises(LogError, match="root"):
        view(RealFiles(tmp_path), origin=ORIGIN)


def test_looking_steadily_tries_again_and_then_gives_up() -> None:
    """A file that gets its final name meanwhile is an ordinary thing; a lost one is not."""
    left = [LogError("renamed"), LogError("renamed")]

    def look() -> str:
        if left:
            raise left.pop()
        return "seen"

    assert steadily(look) == "seen"
    with pytest.raises(LogError, match="lost"):
        steadily(view_of_lost, times=2)


def view_of_lost() -> None:
    raise LogError("lost")
