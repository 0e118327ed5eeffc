"""Checks of a log's leaves, tiles and marks against each other. They read and never write."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.errors import LogError
from gateway.store.bundles import Bundles, offsets_of
from gateway.store.marks import Marks
from gateway.store.tiles import Tiles, column, tile_path
from gateway.tlog.merkle import CompactRange, leaf_hash

_LEAST_BYTES = 64 << 10
"""What a bundle counts for at least in `check_bodies`: small ones take time too."""


def check_marks(tiles: Tiles, marks: Marks) -> None:
    """Check that the tree has the root of each mark. Raises LogError."""
    for mark in marks.all:
        if tiles.root(mark.size) != mark.root:
            raise LogError(f"log: the root at size {mark.size} is not the one that was recorded")


def check_bodies(bundles: Bundles, tiles: Tiles, marks: Marks, *, most_bytes: int) -> None:
    """Check full bundles from the floor down to the newest receipt, until most_bytes were read.

    Raises LogError for a body that is missing or changed, and for a tile that is not what the level above says.
    """
    read_bytes = 0
    first, stop = marks.receipt.size // tiles.width, marks.floor.size // tiles.width
    for index in reversed(range(first, stop)):
        read_bytes += max(_LEAST_BYTES, check_bundle(bundles, tiles, index, receipted=marks.receipt.size))
        if read_bytes >= most_bytes:
            break


def check_bundle(bundles: Bundles, tiles: Tiles, index: int, *, receipted: int) -> int:
    """Check one full bundle and its tile; return how many bytes were read. Raises LogError, which names the leaf."""
    first = index * tiles.width
    if tiles.hash(1, index) != tiles.tile_root(0, index):
        raise LogError(f"log: leaf {first}: {tile_path(column(0), index)}: is not what the level above says")
    bundle = bundles.full(index)
    if bundle is None:
        if first + tiles.width > receipted:
            raise LogError(f"log: leaf {max(first, receipted)}: its body is missing, and no receipt covers it")
        return 0
    offsets = offsets_of(bundle)
    for place in range(tiles.width):
        body = bundle[offsets[place] + 2 : offsets[place + 1]]
        if body and leaf_hash(body) != tiles.hash(0, first + place):
            raise LogError(f"log: leaf {first + place}: its body is not what its hash says")
    return len(bundle)


def audit(bundles: Bundles, tiles: Tiles, marks: Marks, size: int) -> Iterator[int]:
    """Check the first size leaves, all tiles and all marks; yield how many leaves are done.

    The roots are computed from the leaf hashes alone, so that no tile above them is believed.
    Raises LogError, which names the first leaf that is wrong.
    """
    edge = CompactRange()
    roots = {mark.size: mark.root for mark in marks.all}
    for index in range(size // tiles.width):
        check_bundle(bundles, tiles, index, receipted=marks.receipt.size)
        _check_above(tiles, index)
        _extend(edge, tiles, (index + 1) * tiles.width, roots)
        yield edge.size
    for index in range(edge.size, size):
        (body,) = bundles.read(index, 1, index + 1)
        if body is not None and leaf_hash(body) != tiles.hash(0, index):
            raise LogError(f"log: leaf {index}: its body is not what its hash says")
    _extend(edge, tiles, size, roots)
    yield size


def _check_above(tiles: Tiles, index: int) -> None:
    """Check the tiles that level-0 tile index is the last part of against the levels above them."""
    level, index = 1, index + 1
    while index % tiles.width == 0:
        index //= tiles.width
        if tiles.hash(level + 1, index - 1) != tiles.tile_root(level, index - 1):
            first = (index - 1) * tiles.width ** (level + 1)
            path = tile_path(column(level), index - 1)
            raise LogError(f"log: leaf {first}: {path}: is not what the level above says")
        level += 1


def _extend(edge: CompactRange, tiles: Tiles, size: int, roots: dict[int, bytes]) -> None:
    while edge.size < size:
        edge.append(tiles.hash(0, edge.size))
        if edge.size in roots and edge.root() != roots[edge.size]:
            raise LogError(f"log: leaf {edge.size - 1}: the root of {edge.size} leaves is not the one recorded")
