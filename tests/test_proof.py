"""The two verifiers: published proofs, honest ones, and every forgery that has a name."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import TrustError
from gateway.tlog.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from,
)
from gateway.tlog.proof import verify_consistency, verify_inclusion
from tests.naive_tree import StoredTree, leaves_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rfc6962.json").read_text())
LEAVES = leaves_of(300)
TREE = StoredTree(LEAVES)
ROOTS = [root_from(size, TREE.node) for size in range(len(LEAVES) + 1)]
NO_HASHES = [b"", bytes(31), bytes(33), bytes(64), cast("bytes", "x" * 32), cast("bytes", None)]
NO_HASH_IDS = ["empty", "31", "33", "64", "str", "None"]


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """The arguments of verify_inclusion."""

    index: int
    size: int
    leaf_hash: bytes
    proof: tuple[bytes, ...]
    root: bytes

    def verify(self) -> None:
        """Hand them over."""
        verify_inclusion(index=self.index, size=self.size, leaf_hash=self.leaf_hash, proof=self.proof, root=self.root)

    def refused(self) -> TrustError:
        """Return the refusal; fail where there is none."""
        with pytest.raises(TrustError) as caught:
            self.verify()
        return caught.value


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The arguments of verify_consistency."""

    old: int
    new: int
    old_root: bytes
    new_root: bytes
    proof: tuple[bytes, ...]

    def verify(self) -> None:
        """Hand them over."""
        verify_consistency(old=self.old, new=self.new, old_root=self.old_root, new_root=self.new_root, proof=self.proof)

    def refused(self) -> TrustError:
        """Return the refusal; fail where there is none."""
        with pytest.raises(TrustError) as caught:
            self.verify()
        return caught.value


def honest_inclusion(index: int, size: int) -> Inclusion:
    proof = inclusion_proof(index, size, TREE.node)
    return Inclusion(index=index, size=size, leaf_hash=leaf_hash(LEAVES[index]), proof=proof, root=ROOTS[size])


def honest_consistency(old: int, new: int) -> Consistency:
    proof = consistency_proof(old, new, TREE.node)
    return Consistency(old=old, new=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof)


def flip(value: bytes, bit: int) -> bytes:
    """Return the value with one bit turned."""
    bit %= len(value) * 8
    return value[: bit // 8] + bytes([value[bit // 8] ^ 1 << bit % 8]) + value[bit // 8 + 1 :]


# --- published proofs ---


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']}-in-{v['size']}")
def test_published_inclusion_proofs_hold(vector: dict[str, Any]) -> None:
    Inclusion(
        index=vector["index"],
        size=vector["size"],
        leaf_hash=leaf_hash(bytes.fromhex(VECTORS["leaves"][vector["index"]])),
        proof=tuple(bytes.fromhex(one) for one in vector["proof"]),
        root=bytes.fromhex(VECTORS["roots"][vector["size"] - 1]),
    ).verify()


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old']}-to-{v['new']}")
def test_published_consistency_proofs_hold(vector: dict[str, Any]) -> None:
    Consistency(
        old=vector["old"],
        new=vector["new"],
        old_root=bytes.fromhex(VECTORS["roots"][vector["old"] - 1]),
        new_root=bytes.fromhex(VECTORS["roots"][vector["new"] - 1]),
        proof=tuple(bytes.fromhex(one) for one in vector["proof"]),
    ).verify()


# --- honest proofs ---


def test_every_honest_inclusion_proof_up_to_70_holds() -> None:
    for size in range(1, 71):
        for index in range(size):
            honest_inclusion(index, size).verify()


def test_every_honest_consistency_proof_up_to_70_holds() -> None:
    """From the empty tree on, and of each tree with itself."""
    for new in range(71):
        for old in range(new + 1):
            honest_consistency(old, new).verify()


@settings(deadline=None)
@given(st.data())
def test_larger_honest_proofs_hold(data: st.DataObject) -> None:
    size = data.draw(st.integers(71, len(LEAVES)))
    honest_inclusion(data.draw(st.integers(0, size - 1)), size).verify()
    honest_consistency(data.draw(st.integers(0, size)), size).verify()


def test_the_largest_size_that_a_checkpoint_can_say_is_taken() -> None:
    """Leaf 0 of 2**63 - 1: 63 siblings, all to the right."""
    proof = tuple(leaf_hash(leaf) for leaf in leaves_of(63))
    root = leaf_hash(b"")
    for sibling in proof:
        root = node_hash(root, sibling)
    Inclusion(index=0, size=MAX_SIZE, leaf_hash=leaf_hash(b""), proof=proof, root=root).verify()


# --- attacks on inclusion ---


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_changed_bit_anywhere_in_an_inclusion_proof_is_refused(data: st.DataObject) -> None:
    """In the leaf, the root or any hash between; and the error names the index."""
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 255))
    honest = honest_inclusion(index, size)
    forged = [replace(honest, leaf_hash=flip(honest.leaf_hash, bit)), replace(honest, root=flip(honest.root, bit))]
    for i, one in enumerate(honest.proof):
        forged.append(replace(honest, proof=(*honest.proof[:i], flip(one, bit), *honest.proof[i + 1 :])))
    assert [attempt.refused().index for attempt in forged] == [index] * len(forged)


def test_a_leaf_is_not_accepted_at_another_place() -> None:
    """The proof of one index does not hold for any other index of the same tree."""
    for size in range(2, 34):
        for index in range(size):
            honest = honest_inclusion(index, size)
            for other in range(size):
                if other != index:
                    replace(honest, index=other).refused()


@pytest.mark.parametrize("index", [-1, 8, 9, 2**63, 2**64])
def test_an_index_at_or_beyond_the_size_is_refused(index: int) -> None:
    replace(honest_inclusion(7, 8), index=index).refused()


def test_an_index_that_wraps_at_the_size_of_the_tree_is_refused() -> None:
    """Index + 8 takes the same turns on the way up as index does."""
    for index in range(8):
        replace(honest_inclusion(index, 8), index=index + 8).refused()


def test_an_empty_tree_includes_nothing() -> None:
    """Size 0, with an empty proof and the leaf as its own root."""
    leaf = leaf_hash(b"")
    Inclusion(index=0, size=0, leaf_hash=leaf, proof=(), root=leaf).refused()
    Inclusion(index=0, size=0, leaf_hash=EMPTY_ROOT, proof=(), root=EMPTY_ROOT).refused()


def test_a_negative_size_is_refused() -> None:
    replace(honest_inclusion(0, 1), size=-1).refused()


def test_a_size_beyond_63_bits_is_refused() -> None:
    proof = tuple(leaf_hash(leaf) for leaf in leaves_of(63))
    root = leaf_hash(b"")
    for sibling in proof:
        root = node_hash(root, sibling)
    Inclusion(index=0, size=MAX_SIZE + 1, leaf_hash=leaf_hash(b""), proof=proof, root=root).refused()


def test_an_inclusion_proof_with_a_hash_too_many_is_refused() -> None:
    """In front, behind or between, whatever the hash: also one whose hash would be the new root."""
    for size in range(1, 20):
        for index in range(size):
            honest = honest_inclusion(index, size)
            for place in range(len(honest.proof) + 1):
                for extra in (bytes(32), honest.leaf_hash, honest.root, EMPTY_ROOT):
                    longer = (*honest.proof[:place], extra, *honest.proof[place:])
                    replace(honest, proof=longer).refused()
            grown = node_hash(honest.root, bytes(32))
            replace(honest, proof=(*honest.proof, bytes(32)), root=grown).refused()


def test_an_inclusion_proof_with_a_hash_too_few_is_refused() -> None:
    for size in range(2, 20):
        for index in range(size):
            honest = honest_inclusion(index, size)
            for place in range(len(honest.proof)):
                replace(honest, proof=honest.proof[:place] + honest.proof[place + 1 :]).refused()


def test_an_inner_node_is_not_accepted_as_a_leaf() -> None:
    """The node over leaves 0 and 1, with the rest of the true path."""
    honest = honest_inclusion(0, 8)
    inner = node_hash(honest.leaf_hash, honest.proof[0])
    replace(honest, leaf_hash=inner, proof=honest.proof[1:]).refused()


def test_the_root_is_not_accepted_as_a_leaf() -> None:
    honest = honest_inclusion(0, 8)
    replace(honest, leaf_hash=honest.root, proof=()).refused()


def test_swapped_hashes_in_an_inclusion_proof_are_refused() -> None:
    honest = honest_inclusion(5, 8)
    replace(honest, proof=honest.proof[::-1]).refused()


@pytest.mark.parametrize("wrong", NO_HASHES, ids=NO_HASH_IDS)
def test_what_is_no_hash_is_refused_in_an_inclusion_proof(wrong: bytes) -> None:
    """As leaf, as root, at each place of the proof, and where leaf and root are the same wrong thing."""
    honest = honest_inclusion(5, 8)
    replace(honest, leaf_hash=wrong).refused()
    replace(honest, root=wrong).refused()
    for i in range(3):
        replace(honest, proof=(*honest.proof[:i], wrong, *honest.proof[i + 1 :])).refused()
    Inclusion(index=0, size=1, leaf_hash=wrong, proof=(), root=wrong).refused()


def test_a_split_of_two_hashes_at_another_byte_is_refused() -> None:
    """Left 31 and right 33 bytes hash to the same node as 32 and 32."""
    honest = honest_inclusion(1, 2)
    moved = honest.proof[0] + honest.leaf_hash[:1]
    shorter = replace(honest, leaf_hash=honest.leaf_hash[1:], proof=(moved,))
    assert node_hash(moved, shorter.leaf_hash) == honest.root
    shorter.refused()


def test_an_endless_inclusion_proof_is_refused_at_once() -> None:
    assert "1000000 hashes" in str(replace(honest_inclusion(0, 8), proof=(bytes(32),) * 1_000_000).refused())


# --- attacks on consistency ---


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_changed_bit_anywhere_in_a_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 70))
    old = data.draw(st.integers(1, new - 1))
    bit = data.draw(st.integers(0, 255))
    honest = honest_consistency(old, new)
    replace(honest, old_root=flip(honest.old_root, bit)).refused()
    replace(honest, new_root=flip(honest.new_root, bit)).refused()
    for i, one in enumerate(honest.proof):
        replace(honest, proof=(*honest.proof[:i], flip(one, bit), *honest.proof[i + 1 :])).refused()


def test_a_rewritten_leaf_is_refused() -> None:
    """Each leaf below the old size changed, in each pair of sizes: the forger's own best proof does not help."""
    for new in range(2, 17):
        for changed in range(new - 1):
            tree = StoredTree([*LEAVES[:changed], b"rewritten", *LEAVES[changed + 1 : new]])
            for old in range(changed + 1, new):
                forged = consistency_proof(old, new, tree.node)
                root = root_from(new, tree.node)
                Consistency(old=old, new=new, old_root=ROOTS[old], new_root=root, proof=forged).refused()


def test_a_dropped_leaf_is_refused() -> None:
    """The log continues as if one leaf had never been."""
    for old in range(2, 17):
        for dropped in range(old):
            left = LEAVES[:dropped] + LEAVES[dropped + 1 : 21]
            tree = StoredTree(left)
            forged = consistency_proof(old, 20, tree.node)
            root = root_from(20, tree.node)
            Consistency(old=old, new=20, old_root=ROOTS[old], new_root=root, proof=forged).refused()


def test_a_truncated_log_is_refused() -> None:
    """A newer checkpoint of a smaller size, proof the right way round or not."""
    honest = honest_consistency(5, 8)
    Consistency(old=8, new=5, old_root=ROOTS[8], new_root=ROOTS[5], proof=honest.proof).refused()
    Consistency(old=8, new=5, old_root=ROOTS[8], new_root=ROOTS[5], proof=()).refused()
    Consistency(old=8, new=0, old_root=ROOTS[8], new_root=EMPTY_ROOT, proof=()).refused()


def test_a_negative_old_size_is_refused() -> None:
    Consistency(old=-1, new=8, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=()).refused()


def test_a_new_size_beyond_63_bits_is_refused() -> None:
    Consistency(old=0, new=MAX_SIZE + 1, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=()).refused()
    Consistency(old=0, new=MAX_SIZE, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=()).verify()


def test_a_proof_from_the_empty_tree_must_be_empty() -> None:
    """Size 0 is where a check that forgets it accepts any root: the proof's first hash is taken for both roots."""
    Consistency(old=0, new=8, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=(ROOTS[8],)).refused()
    Consistency(old=0, new=8, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=honest_consistency(1, 8).proof).refused()
    Consistency(old=0, new=1, old_root=ROOTS[1], new_root=ROOTS[1], proof=(ROOTS[1],)).refused()


def test_an_empty_tree_with_another_root_is_refused() -> None:
    Consistency(old=0, new=8, old_root=ROOTS[8], new_root=ROOTS[8], proof=()).refused()
    Consistency(old=0, new=0, old_root=ROOTS[8], new_root=ROOTS[8], proof=()).refused()
    Consistency(old=0, new=0, old_root=EMPTY_ROOT, new_root=ROOTS[8], proof=()).refused()


def test_two_roots_for_one_size_are_refused() -> None:
    """A split view."""
    Consistency(old=8, new=8, old_root=ROOTS[8], new_root=ROOTS[9], proof=()).refused()


def test_a_proof_between_equal_sizes_must_be_empty() -> None:
    Consistency(old=8, new=8, old_root=ROOTS[8], new_root=ROOTS[8], proof=(ROOTS[8],)).refused()


def test_an_empty_proof_between_two_sizes_is_refused() -> None:
    """Also with one root for both."""
    for new in range(2, 20):
        for old in range(1, new):
            Consistency(old=old, new=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=()).refused()
            Consistency(old=old, new=new, old_root=ROOTS[new], new_root=ROOTS[new], proof=()).refused()


def test_swapped_roots_are_refused() -> None:
    for new in range(2, 20):
        for old in range(1, new):
            honest = honest_consistency(old, new)
            replace(honest, old_root=honest.new_root, new_root=honest.old_root).refused()


def test_a_consistency_proof_with_a_hash_too_many_is_refused() -> None:
    for new in range(2, 20):
        for old in range(1, new):
            honest = honest_consistency(old, new)
            for place in range(len(honest.proof) + 1):
                for extra in (bytes(32), honest.old_root, honest.new_root, EMPTY_ROOT):
                    longer = (*honest.proof[:place], extra, *honest.proof[place:])
                    replace(honest, proof=longer).refused()


def test_a_consistency_proof_with_a_hash_too_few_is_refused() -> None:
    for new in range(2, 20):
        for old in range(1, new):
            honest = honest_consistency(old, new)
            for place in range(len(honest.proof)):
                replace(honest, proof=honest.proof[:place] + honest.proof[place + 1 :]).refused()


def test_a_consistency_proof_is_not_accepted_for_another_old_size() -> None:
    for new in range(3, 20):
        for old in range(1, new):
            honest = honest_consistency(old, new)
            for other in range(1, new):
                if other != old:
                    replace(honest, old=other).refused()


@pytest.mark.parametrize("wrong", NO_HASHES, ids=NO_HASH_IDS)
@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 8), (4, 8), (6, 8), (8, 8)])
def test_what_is_no_hash_is_refused_in_a_consistency_proof(wrong: bytes, old: int, new: int) -> None:
    """As either root or both, and at each place of the proof."""
    honest = honest_consistency(old, new)
    replace(honest, old_root=wrong).refused()
    replace(honest, new_root=wrong).refused()
    replace(honest, old_root=wrong, new_root=wrong).refused()
    for i in range(len(honest.proof)):
        replace(honest, proof=(*honest.proof[:i], wrong, *honest.proof[i + 1 :])).refused()


def test_an_endless_consistency_proof_is_refused_at_once() -> None:
    assert "1000000 hashes" in str(replace(honest_consistency(6, 8), proof=(bytes(32),) * 1_000_000).refused())
