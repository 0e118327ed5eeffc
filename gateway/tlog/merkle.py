"""The Merkle tree of RFC 6962: hashes, the growing edge of a tree, and the proofs that a log gives.

Nothing here stores a tree: a caller passes node(level, index), which returns the hash of the full subtree
of 2**level leaves that starts at leaf index * 2**level. Only full subtrees are ever asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

Node = Callable[[int, int], bytes]

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1  # the largest tree that a proof or a checkpoint may speak of
EMPTY_ROOT = hashlib.sha256().digest()

_sha256 = hashlib.sha256


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of one leaf (RFC 6962, 2.1)."""
    return _sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children (RFC 6962, 2.1)."""
    return _sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The right edge of a tree: its size, and the roots of its full subtrees, largest first.

    Enough to append to a tree and to know its root, in memory that grows with log2(size).
    Raises ValueError for hashes that cannot be those of this size.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, *, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._hashes = list(hashes)
        if size < 0 or len(self._hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves does not have {len(self._hashes)} full subtrees")
        if any(len(h) != HASH_BYTES for h in self._hashes):
            raise ValueError(f"a hash has {HASH_BYTES} bytes")

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the full subtrees, largest first: one for each bit that is set in the size."""
        return tuple(self._hashes)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf by its hash. Hashes one node on average, at most log2(size)."""
        if len(leaf_hash) != HASH_BYTES:
            raise ValueError(f"a hash has {HASH_BYTES} bytes, this one has {len(leaf_hash)}")
        hashes = self._hashes
        full = self.size
        # node_hash is written out here and the size kept local: this is the hot path of seal and ledger.
        while full & 1:
            leaf_hash = _sha256(b"\x01" + hashes.pop() + leaf_hash).digest()
            full >>= 1
        hashes.append(leaf_hash)
        self.size += 1

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add leaves by their hashes, in order."""
        append = self.append
        for one in leaf_hashes:
            append(one)

    def root(self) -> bytes:
        """Return the root of the whole tree, EMPTY_ROOT when it has no leaf."""
        if not self._hashes:
            return EMPTY_ROOT
        *lefts, root = self._hashes
        for left in reversed(lefts):
            root = node_hash(left, root)
        return root

    def copy(self) -> CompactRange:
        """Return an independent edge of the same tree."""
        return CompactRange(size=self.size, hashes=self._hashes)


def range_from(size: int, node: Node) -> CompactRange:
    """Return the edge of the first size leaves of a stored tree."""
    if size < 0:
        raise ValueError(f"a tree cannot have {size} leaves")
    levels = (level for level in reversed(range(size.bit_length())) if size >> level & 1)
    return CompactRange(size=size, hashes=[node(level, (size >> level) - 1) for level in levels])


def root_from(size: int, node: Node) -> bytes:
    """Return the root of the first size leaves of a stored tree."""
    return range_from(size, node).root()


def inclusion_proof(index: int, size: int, node: Node) -> tuple[bytes, ...]:
    """Return the proof that leaf index is in the tree of size leaves (RFC 6962, 2.1.1), leaf side first.

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    start, end = 0, size
    proof: list[bytes] = []
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            proof.append(_subroot(split, end, node))
            end = split
        else:
            proof.append(_subroot(start, split, node))
            start = split
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: Node) -> tuple[bytes, ...]:
    """Return the proof that the tree of old leaves begins the tree of new ones (RFC 6962, 2.1.2), leaf side first.

    Empty when old is 0, of which nothing can be said, and when old equals new.
    Raises ValueError unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves does not begin one of {new}")
    if old == 0:
        return ()
    start, end = 0, new
    proof: list[bytes] = []
    while old != end:
        split = _split(start, end)
        if old <= split:
            proof.append(_subroot(split, end, node))
            end = split
        else:
            proof.append(_subroot(start, split, node))
            start = split
    if start:  # where it is 0, this subtree is the whole old tree, whose root the verifier has
        proof.append(_subroot(start, end, node))
    return tuple(reversed(proof))


def _split(start: int, end: int) -> int:
    """Return where the subtree of leaves start..end-1 divides: after the largest power of two below its size."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _subroot(start: int, end: int, node: Node) -> bytes:
    """Return the root over leaves start..end-1 from full subtrees; start is aligned as RFC 6962's splits make it."""
    count = end - start
    level = (count & -count).bit_length() - 1
    end -= 1 << level
    root = node(level, end >> level)
    while end > start:
        count = end - start
        level = (count & -count).bit_length() - 1
        end -= 1 << level
        root = node_hash(node(level, end >> level), root)
    return root
