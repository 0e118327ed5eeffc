"""The tree: published vectors first, then every size up to 70 and larger ones at random against the RFC's recursion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tlog.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_from,
    root_from,
)
from tests import naive_tree
from tests.naive_tree import StoredTree, leaves_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rfc6962.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
MOST = 70


def test_published_hash_of_the_empty_tree() -> None:
    """The root of no leaf is the hash of nothing, and not the hash of an empty leaf."""
    assert bytes.fromhex(VECTORS["empty_root"]) == EMPTY_ROOT == CompactRange().root()
    assert leaf_hash(b"") != EMPTY_ROOT


def test_published_leaf_hash() -> None:
    assert leaf_hash(bytes.fromhex(VECTORS["leaf"]["content"])).hex() == VECTORS["leaf"]["hash"]


def test_published_node_hash() -> None:
    node = VECTORS["node"]
    assert node_hash(bytes.fromhex(node["left"]), bytes.fromhex(node["right"])).hex() == node["hash"]


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    """Growing leaf by leaf and reading a stored tree both give the published root of every size."""
    edge = CompactRange()
    edge.extend(leaf_hash(leaf) for leaf in LEAVES[:size])
    assert edge.root().hex() == VECTORS["roots"][size - 1]
    assert root_from(size, StoredTree(LEAVES).node).hex() == VECTORS["roots"][size - 1]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']}-in-{v['size']}")
def test_published_inclusion_proofs(vector: dict[str, Any]) -> None:
    made = inclusion_proof(vector["index"], vector["size"], StoredTree(LEAVES).node)
    assert [one.hex() for one in made] == vector["proof"]


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old']}-to-{v['new']}")
def test_published_consistency_proofs(vector: dict[str, Any]) -> None:
    made = consistency_proof(vector["old"], vector["new"], StoredTree(LEAVES).node)
    assert [one.hex() for one in made] == vector["proof"]


def test_every_root_up_to_70_is_that_of_the_rfc() -> None:
    """The edge that grows, the edge read from a stored tree and the root read from it agree at every size."""
    leaves = leaves_of(MOST)
    tree = StoredTree(leaves)
    edge = CompactRange()
    for size in range(MOST + 1):
        expected = naive_tree.tree_hash(leaves[:size])
        assert edge.size == size
        assert edge.root() == expected
        assert root_from(size, tree.node) == expected
        assert range_from(size, tree.node).hashes == edge.hashes
        if size < MOST:
            edge.append(leaf_hash(leaves[size]))


def test_every_inclusion_proof_up_to_70_is_that_of_the_rfc() -> None:
    leaves = leaves_of(MOST)
    tree = StoredTree(leaves)
    for size in range(1, MOST + 1):
        # A prover that read past the size would not fail against the larger tree, but would differ from the RFC.
        for index in range(0, size, 1 if size < 34 else 7):
            assert list(inclusion_proof(index, size, tree.node)) == naive_tree.path(index, leaves[:size])


def test_every_consistency_proof_up_to_70_is_that_of_the_rfc() -> None:
    leaves = leaves_of(MOST)
    tree = StoredTree(leaves)
    for new in range(1, MOST + 1):
        for old in range(1, new, 1 if new < 34 else 7):
            assert list(consistency_proof(old, new, tree.node)) == naive_tree.proof(old, leaves[:new])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_larger_trees_are_those_of_the_rfc(data: st.DataObject) -> None:
    """Roots and proofs of a random tree, read from a stored tree of exactly its size."""
    size = data.draw(st.integers(71, 1500))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    leaves = leaves_of(size)
    tree = StoredTree(leaves)
    edge = CompactRange()
    edge.extend(leaf_hash(leaf) for leaf in leaves)
    assert edge.root() == root_from(size, tree.node) == naive_tree.tree_hash(leaves)
    assert list(inclusion_proof(index, size, tree.node)) == naive_tree.path(index, leaves)
    assert list(consistency_proof(old, size, tree.node)) == naive_tree.proof(old, leaves)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_an_edge_can_be_put_down_and_taken_up(before: int, after: int) -> None:
    """Size and hashes are the whole state: an edge made of them grows to the same root."""
    hashes = [leaf_hash(leaf) for leaf in leaves_of(before + after)]
    whole = CompactRange()
    whole.extend(hashes)
    first = CompactRange()
    first.extend(hashes[:before])
    second = CompactRange(size=first.size, hashes=first.hashes)
    second.extend(hashes[before:])
    assert (second.size, second.hashes, second.root()) == (whole.size, whole.hashes, whole.root())


def test_a_copy_grows_alone() -> None:
    edge = CompactRange()
    edge.extend(leaf_hash(leaf) for leaf in leaves_of(5))
    root = edge.root()
    copy = edge.copy()
    copy.append(leaf_hash(b"more"))
    assert (edge.size, edge.root()) == (5, root)
    assert copy.size == 6
    assert copy.root() != root


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_an_edge_refuses_what_is_no_hash_and_stays_as_it_was(length: int) -> None:
    edge = CompactRange()
    edge.extend(leaf_hash(leaf) for leaf in leaves_of(3))
    before = (edge.size, edge.hashes)
    with pytest.raises(ValueError, match="32 bytes"):
        edge.append(bytes(length))
    assert (edge.size, edge.hashes) == before


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(-1, ()), (0, (bytes(32),)), (1, ()), (3, (bytes(32),)), (4, (bytes(32),) * 2), (1, (bytes(31),))],
)
def test_an_edge_of_hashes_that_its_size_does_not_have_cannot_be_built(size: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match=r"full subtrees|32 bytes"):
        CompactRange(size=size, hashes=hashes)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (4, 3), (0, 0)])
def test_there_is_no_proof_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not in a tree"):
        inclusion_proof(index, size, StoredTree(LEAVES).node)


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3), (1, 0)])
def test_there_is_no_proof_that_a_larger_tree_begins_a_smaller_one(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="does not begin"):
        consistency_proof(old, new, StoredTree(LEAVES).node)


def test_nothing_is_to_prove_of_an_empty_or_an_unchanged_tree() -> None:
    node = StoredTree(LEAVES).node
    assert [consistency_proof(0, new, node) for new in range(9)] == [()] * 9
    assert [consistency_proof(size, size, node) for size in range(9)] == [()] * 9


def test_a_tree_of_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        root_from(-1, StoredTree(LEAVES).node)
