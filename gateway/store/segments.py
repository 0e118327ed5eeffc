"""One durable transparency log in a folder: what docs/log.md promises, sections 3 and 4.

The seal keeps its own log so, and the ledger its own and a copy of each gateway's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import LogError
from gateway.store.batches import Batch
from gateway.store.bundles import MOST_LEAF_BYTES, Bundles
from gateway.store.checks import audit, check_bodies, check_marks
from gateway.store.files import Files, StoreFull
from gateway.store.marks import Mark, Marks
from gateway.store.recovery import cut_ends, open_names, survey, tail_leaves
from gateway.store.retention import Dropped, Retention, Wanted
from gateway.store.tiles import HEIGHT, Tiles
from gateway.tlog.merkle import HASH_BYTES, consistency_proof, inclusion_proof, leaf_hash

__all__ = ["Dropped", "Log", "StoreFull"]

RECHECK_BYTES = 256 << 20
_NO_HASH = bytes(HASH_BYTES)


class Log:
    """One log, one writer: it holds the folder's lock from `open` to `close`. Not for several threads at once.

    append and append_hash gather leaves in memory, commit makes them durable in one go, record stores what was signed
    over them. LogError from any of them means that the disk can no longer be trusted: the process must stop, and open
    the log anew. StoreFull means that there is no room: everything stands as before the call.

    torn_bytes: how many bytes of bodies opening has cut off behind the last whole leaf.
    """

    def __init__(
        self, files: Files, marks: Marks, tiles: Tiles, bundles: Bundles, *, failed: LogError | None = None
    ) -> None:
        """Use `open`, or `view`."""
        self._files, self._marks, self._tiles, self._bundles = files, marks, tiles, bundles
        self._retention = Retention(files, bundles, width=tiles.width)
        self._durable = tiles.size
        self._hash_only = False
        self._failed = failed
        self.torn_bytes = 0

    @classmethod
    def open(cls, files: Files, *, origin: str, height: int = HEIGHT, recheck_bytes: int = RECHECK_BYTES) -> Log:
        """Return the log in a folder, recovered from whatever a crash left; an empty one in an empty folder.

        files: the log's own from here on; closed when this raises.
        height: of a tile; other than 8 in tests only.
        recheck_bytes: how much of the older bodies is checked, down to the newest receipt; `audit` checks the rest.
        Raises LogError, with the disk unchanged, when it contradicts a mark (docs/log.md, I4). The note is for the
        caller to verify.
        """
        try:
            files.lock()
            marks = Marks.load(files, origin=origin)
            floor = marks.floor.size
            found = survey(files, floor, width=1 << height)
            tiles = Tiles.load(files, floor, height=height)
            check_marks(tiles, marks)
            bundles = Bundles(files, floor, found.offsets, height=height)
            check_bodies(bundles, tiles, marks, most_bytes=recheck_bytes)
            log = cls(files, marks, tiles, bundles)
            log._recover(found.size)
            log.torn_bytes = found.torn_bytes
        except StoreFull as e:
            files.close()
            raise LogError(f"log: there is no room to finish opening: {e}") from e
        except BaseException:
            files.close()
            raise
        return log

    def _recover(self, size: int) -> None:
        """Commit the leaves above the floor once more, and cut off what is behind them.

        They are written anew, not only synced: after a sync that failed, the kernel shows bytes that are not on disk.
        """
        open_names(self._files, self._tiles, size)
        for leaves in tail_leaves(self._files, self._durable, size, width=self._tiles.width):
            for leaf in leaves:
                self.append(leaf)
            Batch(self._files, [*self._bundles.writes(), *self._tiles.writes(self._durable)]).apply()
            self._settle()
        cut_ends(self._files, self._tiles, self._bundles.end)

    def close(self) -> None:
        """Give the folder back. What was not committed is gone."""
        self._failed = LogError("log: is closed")
        self._files.close()

    # ---- what it holds

    @property
    def origin(self) -> str:
        """The origin line of its checkpoints."""
        return self._marks.checkpoint.origin

    @property
    def size(self) -> int:
        """Leaves appended, committed or not."""
        return self._tiles.size

    @property
    def durable(self) -> int:
        """Leaves committed."""
        return self._durable

    @property
    def signed(self) -> int:
        """Size of the newest recorded checkpoint, 0 without one."""
        return self._marks.checkpoint.size

    @property
    def checkpoint(self) -> bytes | None:
        """The newest recorded checkpoint's note."""
        return self._marks.checkpoint.note or None

    @property
    def heads(self) -> bytes:
        """What was recorded beside the checkpoint."""
        return self._marks.checkpoint.heads

    @property
    def receipted(self) -> int:
        """Size of the newest recorded receipt, 0 without one."""
        return self._marks.receipt.size

    @property
    def receipt(self) -> bytes | None:
        """The newest recorded receipt's note."""
        return self._marks.receipt.note or None

    @property
    def body_bytes(self) -> int:
        """Bytes of leaf bodies on disk."""
        return self._retention.body_bytes

    @property
    def growing_bytes(self) -> int:
        """Bytes of the newest bundle, which is not full: nothing of it can be pruned or dropped yet."""
        return self._bundles.end

    # ---- writing

    def append(self, leaf: bytes) -> int:
        """Add a leaf and return its index; durable after `commit`. It must have 1 to 65,535 bytes."""
        if not 0 < len(leaf) <= MOST_LEAF_BYTES:
            raise ValueError(f"a leaf has 1 to {MOST_LEAF_BYTES} bytes, this one has {len(leaf)}")
        return self._append(leaf, leaf_hash(leaf))

    def append_hash(self, leaf_hash: bytes) -> int:
        """Add a leaf whose body was dropped upstream; as `append`."""
        if len(leaf_hash) != HASH_BYTES or leaf_hash == _NO_HASH:
            raise ValueError("a leaf's hash has 32 bytes, and not all of them are zero")
        self._hash_only = True
        return self._append(b"", leaf_hash)

    def _append(self, leaf: bytes, hashed: bytes) -> int:
        if self._failed is not None:
            raise self._failed
        self._tiles.append(hashed)
        self._bundles.append(leaf)
        return self._tiles.size - 1

    def commit(self) -> int:
        """Make all appended leaves durable, and return how many the log has.

        Raises StoreFull when there is no room: none of them is durable then; `rollback`, or commit again later.
        """
        with self._stopping():
            if self._durable == self.size:
                return self._durable
            batch = Batch(self._files, [*self._bundles.writes(), *self._tiles.writes(self._durable)])
            try:
                batch.apply()
                if self._hash_only:
                    self._marks.tail = self._save("tail", self.size, self.root(self.size))
            except StoreFull:
                batch.undo()
                raise
            self._settle()
        return self._durable

    def rollback(self) -> None:
        """Forget what was appended and not committed."""
        self._tiles.rollback(self._durable)
        self._bundles.rollback()
        self._hash_only = False

    def record(self, note: bytes, heads: bytes, size: int, root: bytes) -> None:
        """Store a signed checkpoint of the first size leaves, and heads beside it, durably and in one step.

        To be shown to nobody before this returns. Raises StoreFull, and the one before stands; LogError when the root
        is not this log's, or size is more than what is durable or less than what was signed.
        """
        if not self.signed <= size <= self._durable:
            raise LogError(f"log: checkpoint: got size {size}, want {self.signed}..{self._durable}: signed..durable")
        if root != self.root(size):
            raise LogError(f"log: checkpoint: its root is not that of this log at size {size}")
        with self._stopping():
            self._marks.checkpoint = self._save("checkpoint", size, root, note, heads)

    def record_receipt(self, note: bytes, size: int) -> None:
        """Store a receipt for the first size leaves, durably. Bodies below it may be pruned from here on.

        Raises StoreFull, and the one before stands; LogError when size is more than what was signed, or goes back.
        """
        if not self.receipted <= size <= self.signed:
            raise LogError(f"log: receipt: got size {size}, want {self.receipted}..{self.signed}: receipted..signed")
        with self._stopping():
            self._marks.receipt = self._save("receipt", size, self.root(size), note)

    def _save(self, name: str, size: int, root: bytes, note: bytes = b"", heads: bytes = b"") -> Mark:
        mark = Mark(origin=self.origin, size=size, root=root, note=note, heads=heads)
        mark.save(self._files, name)
        return mark

    def _settle(self) -> None:
        self._retention.grew(self._bundles.settle())
        self._tiles.settle()
        self._hash_only = False
        self._durable = self.size

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Refuse to go on after a LogError: what the disk holds is then unknown, until it is opened anew."""
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except LogError as e:
            self._failed = e
            raise

    # ---- reading

    def root(self, size: int) -> bytes:
        """Return the root of the first size leaves, committed or not."""
        return self._tiles.root(self._within(size))

    def _within(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise IndexError(f"the log has {self.size} leaves, not {size}")
        return size

    def leaf_hash(self, index: int) -> bytes:
        """Return the hash of a leaf, committed or not, whether or not its body is here."""
        if not 0 <= index < self.size:
            raise IndexError(f"the log has {self.size} leaves, and no leaf {index}")
        return self._tiles.hash(0, index)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the proof that a leaf is among the first size leaves."""
        return inclusion_proof(index, self._within(size), self._tiles.node)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the proof that the log of old leaves begins the log of new ones."""
        return consistency_proof(old, self._within(new), self._tiles.node)

    def read(self, first: int, most_bytes: int, stop: int) -> list[bytes | None]:
        """Return committed leaves from first to stop - 1, as many as fit into most_bytes, at least one.

        None stands for a body that was pruned or dropped; it counts as 34 bytes, as its hash takes its place.
        Empty when first is at stop, or at what is durable.
        """
        return self._bundles.read(first, most_bytes, min(stop, self._durable))

    def audit(self) -> Iterator[int]:
        """Check all leaves, tiles and marks; yield how many are done. Raises LogError, which names the first bad."""
        return audit(self._bundles, self._tiles, self._marks, self._durable)

    # ---- deleting

    def prune(self, keep_bytes: int) -> int:
        """Remove the oldest bodies that the receipt covers, bundle by bundle, until keep_bytes are left.

        Return how many bytes were removed.
        """
        with self._stopping():
            return self._retention.prune(keep_bytes, below=self.receipted)

    def drop(
        self, wanted: Wanted, target_bytes: int, *, say: Callable[[Dropped], None] | None = None
    ) -> Dropped | None:
        """Drop signed bodies that are not wanted, oldest bundles first, until target_bytes are left.

        Return what was dropped, None for nothing. wanted must answer the same for a leaf each time.
        say: called before anything is dropped; appending and committing a leaf in it lets no crash hide the loss.
        Raises StoreFull when there is no room for a bundle's new copy; what was dropped until then stays so.
        """
        with self._stopping():
            return self._retention.drop(wanted, target_bytes, below=self.signed, say=say)
