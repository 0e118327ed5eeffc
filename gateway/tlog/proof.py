"""Check the two proofs of RFC 6962. Each check returns when the proof holds, and raises TrustError for anything else.

Written from RFC 9162, 2.1.3.2 and 2.1.4.2, and not from the prover in merkle.py, so that one checks the other. Two
guards that its text leaves out stand here: every hash has 32 bytes, and a tree of size 0 proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import TrustError
from gateway.tlog.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE, node_hash


def verify_inclusion(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is leaf index of the tree of size leaves under root.

    proof: leaf side first.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise TrustError(f"leaf {index} cannot be in a tree of {size}", index=index)
    _check_hashes(leaf_hash, root, proof)
    node, last = index, size - 1  # our node at each level on the way up, and the last node of that level
    computed = leaf_hash
    for sibling in proof:
        node, last = _climb_to_sibling(node, last)
        computed = node_hash(sibling, computed) if node & 1 else node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise TrustError(f"the proof for leaf {index} in a tree of {size} is too short", index=index)
    if computed != root:
        raise TrustError(f"leaf {index} is not in the tree of {size} with this root", index=index)


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of old leaves under old_root begins the tree of new leaves under new_root.

    proof: leaf side first; empty when old is 0 or equals new.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise TrustError(f"a tree of {old} leaves cannot begin one of {new}")
    _check_hashes(old_root, new_root, proof)
    for size, root in ((old, old_root), (new, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise TrustError("this is not the root of the empty tree")
    if old in (0, new):
        if proof:
            raise TrustError(f"nothing is to prove between {old} and {new} leaves, and the proof is not empty")
        if old == new and old_root != new_root:
            raise TrustError(f"two roots for one tree of {old} leaves")
        return
    if _roots_of(old, new, old_root, proof) != (old_root, new_root):
        raise TrustError(f"the tree of {old} leaves does not begin the tree of {new} with this root")


def _roots_of(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that a proof between 0 < old < new leaves amounts to."""
    node, last = old - 1, new - 1
    while node & 1:  # up to the largest full subtree that ends the old tree: the first that both trees have
        node, last = node >> 1, last >> 1
    if node:
        if not proof:
            raise TrustError(f"the proof between {old} and {new} leaves is empty")
        start, rest = proof[0], proof[1:]
    else:  # that subtree is the whole old tree
        start, rest = old_root, proof
    in_old = in_new = start
    for sibling in rest:
        node, last = _climb_to_sibling(node, last)
        if node & 1:
            in_old = node_hash(sibling, in_old)
            in_new = node_hash(sibling, in_new)
        else:  # right of us is only what the new tree has
            in_new = node_hash(in_new, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise TrustError(f"the proof between {old} and {new} leaves is too short")
    return in_old, in_new


def _climb_to_sibling(node: int, last: int) -> tuple[int, int]:
    """Return node and last at the next level where the node has a sibling; a lone last node rises as it is."""
    while last and node == last and not node & 1:
        node, last = node >> 1, last >> 1
    if not last:
        raise TrustError("the proof has hashes to spare")
    return node, last


def _check_hashes(one: bytes, other: bytes, proof: Sequence[bytes]) -> None:
    # isinstance: these come out of decoded messages, and a str of 32 letters would otherwise be a crash.
    if len(proof) > MAX_SIZE.bit_length() + 1:
        raise TrustError(f"no proof has {len(proof)} hashes")
    for value in (one, other, *proof):
        if not isinstance(value, bytes) or len(value) != HASH_BYTES:
            raise TrustError(f"a hash in a proof does not have {HASH_BYTES} bytes")
