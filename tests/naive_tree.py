"""RFC 6962, 2.1, word for word: slow, recursive, and written apart from gateway.tlog so that it can contradict it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def split(count: int) -> int:
    """Return k: the largest power of two smaller than count."""
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """Return MTH(D[n])."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0])
    k = split(len(leaves))
    return sha(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return PATH(m, D[n])."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return PROOF(m, D[n]), 0 < m < n."""
    return subproof(m, leaves, whole=True)


def subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """Return SUBPROOF(m, D[n], b)."""
    if m == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole=whole), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), tree_hash(leaves[:k])]


class StoredTree:
    """The full subtrees of some leaves, as a log stores them. Asking for one that is not full is an error."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels = [[sha(b"\x00" + leaf) for leaf in leaves]]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            pairs = range(0, len(below) - 1, 2)
            self.levels.append([sha(b"\x01" + below[i] + below[i + 1]) for i in pairs])

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of one full subtree."""
        assert level >= 0
        assert index >= 0
        return self.levels[level][index]


def leaves_of(count: int) -> list[bytes]:
    """Return that many leaves, each of its own."""
    return [b"leaf %d" % i for i in range(count)]
