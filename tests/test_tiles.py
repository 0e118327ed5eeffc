"""The hash tiles: their paths, their growth, and that they give the hashes of RFC 6962."""

from __future__ import annotations

import hashlib

import pytest

from gateway.errors import LogError
from gateway.store.tiles import ENTRIES, HEIGHT, Tile, Tiles, tile_index, tile_path
from gateway.tlog.merkle import CompactRange, consistency_proof, inclusion_proof, leaf_hash
from gateway.tlog.proof import verify_consistency, verify_inclusion
from tests.faulty_files import FaultyFiles

HASHES = [leaf_hash(b"%d" % number) for number in range(700)]


def roots(count: int) -> list[bytes]:
    edge = CompactRange()
    found = [edge.root()]
    for hashed in HASHES[:count]:
        edge.append(hashed)
        found.append(edge.root())
    return found


def settle(files: FaultyFiles, tiles: Tiles, durable: int) -> int:
    """Write what the disk lacks, as a commit does."""
    for write in list(tiles.writes(durable)):
        files.write(write.path + ".part", write.start, write.content)
        if write.full:
            files.rename(write.path + ".part", write.path)
    tiles.settle()
    return tiles.size


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (10**9, "x001/x000/x000/000")],
)
def test_a_tile_has_the_path_that_c2sp_gives_it(index: int, path: str) -> None:
    """The example of a tile 1234067 is the specification's own."""
    assert tile_path("tile/0", index) == f"tile/0/{path}"
    assert tile_index("tile/0", f"tile/0/{path}") == index
    assert tile_index("tile/0", f"tile/0/{path}.part") == index


@pytest.mark.parametrize("path", ["x001", "1", "0001", "x001/0", "tmp", "000.tmp", "x000/000", "\u0660\u0660\u0661"])
def test_nothing_else_is_taken_for_a_tile(path: str) -> None:
    assert tile_index(ENTRIES, f"{ENTRIES}/{path}") is None


def test_a_tile_of_full_height_is_the_concatenated_leaf_hashes_and_its_root_stands_one_level_up() -> None:
    files = FaultyFiles()
    tiles = Tiles(files)
    for hashed in HASHES:
        tiles.append(hashed)
    settle(files, tiles, 0)
    assert HEIGHT == 8
    assert files.read("tile/0/001") == b"".join(HASHES[256:512])
    assert files.read("tile/0/002.part") == b"".join(HASHES[512:])
    assert files.read("tile/1/000.part") == tree(HASHES[:256]) + tree(HASHES[256:512])
    assert files.paths() == ["tile/0/000", "tile/0/001", "tile/0/002.part", "tile/1/000.part"]


def tree(hashes: list[bytes]) -> bytes:
    """Return the root over 2**n hashes, written without the code under test."""
    if len(hashes) == 1:
        return hashes[0]
    half = len(hashes) // 2
    return hashlib.sha256(b"\x01" + tree(hashes[:half]) + tree(hashes[half:])).digest()


@pytest.mark.parametrize("height", [1, 2, 3, 8])
def test_every_root_is_that_of_the_tree_whether_its_tiles_are_on_disk_or_not(height: int) -> None:
    files = FaultyFiles()
    tiles = Tiles(files, height=height)
    wanted, durable = roots(300), 0
    for size, hashed in enumerate(HASHES[:300], 1):
        tiles.append(hashed)
        assert tiles.root(size) == wanted[size]
        if size % 37 == 0:
            durable = settle(files, tiles, durable)
    settle(files, tiles, durable)
    loaded = Tiles.load(files, 300, height=height)
    assert [loaded.root(size) for size in range(301)] == wanted
    assert [loaded.hash(0, index) for index in range(300)] == HASHES[:300]


@pytest.mark.parametrize("height", [1, 2, 8])
def test_a_rollback_leaves_no_trace_wherever_the_borders_fall(height: int) -> None:
    wanted = roots(60)
    for durable in range(40):
        for more in (1, 2, 3, 17):
            files = FaultyFiles()
            tiles = Tiles(files, height=height)
            for hashed in HASHES[:durable]:
                tiles.append(hashed)
            settle(files, tiles, 0)
            for hashed in HASHES[500 : 500 + more]:
                tiles.append(hashed)
            tiles.rollback(durable)
            for hashed in HASHES[durable : durable + more]:
                tiles.append(hashed)
            assert tiles.root(durable) == wanted[durable]
            assert tiles.root(durable + more) == wanted[durable + more]
            settle(files, tiles, durable)
            assert Tiles.load(files, durable + more, height=height).root(durable + more) == wanted[durable + more]


def test_proofs_from_tiles_verify() -> None:
    tiles = Tiles(FaultyFiles(), height=2)
    for hashed in HASHES[:90]:
        tiles.append(hashed)
    root = tiles.root(90)
    for index in range(90):
        proof = inclusion_proof(index, 90, tiles.node)
        verify_inclusion(index=index, size=90, leaf_hash=HASHES[index], proof=proof, root=root)
    for old in range(1, 90):
        proof = consistency_proof(old, 90, tiles.node)
        verify_consistency(old=old, new=90, old_root=tiles.root(old), new_root=root, proof=proof)


def test_a_node_within_a_tile_is_the_root_of_its_hashes() -> None:
    tile = Tile(b"".join(HASHES[:16]))
    assert tile.node(4, 0) == tree(HASHES[:16])
    assert tile.node(2, 3) == tree(HASHES[12:16])


def written(height: int, count: int) -> FaultyFiles:
    files = FaultyFiles()
    tiles = Tiles(files, height=height)
    for hashed in HASHES[:count]:
        tiles.append(hashed)
    settle(files, tiles, 0)
    return files


@pytest.mark.parametrize("path", ["tile/0/022", "tile/1/004", "tile/1/005.part"])
def test_loading_refuses_a_right_edge_that_contradicts_itself(path: str) -> None:
    files = written(2, 92)
    files.flip(path, (files.size(path) or 0) - 1)
    with pytest.raises(LogError, match="is not what the level above says"):
        Tiles.load(files, 92, height=2)


@pytest.mark.parametrize("path", ["tile/0/022", "tile/1/005.part", "tile/2/001.part", "tile/3/000.part"])
def test_loading_refuses_a_right_edge_that_is_too_short(path: str) -> None:
    files = written(2, 92)
    files.write(path, (files.size(path) or 0) - 1, b"")
    with pytest.raises(LogError, match=r"got \d hashes, want \d"):
        Tiles.load(files, 92, height=2)
