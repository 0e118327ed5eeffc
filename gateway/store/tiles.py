"""The hashes of a log as C2SP tiles: 2**height to a tile, each tile's root one hash of the level above.

Source: https://c2sp.org/tlog-tiles, which fixes the height at 8; other heights are for tests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import LogError
from gateway.store.files import Files
from gateway.tlog.merkle import HASH_BYTES, node_hash, root_from

HEIGHT = 8
ENTRIES = "tile/entries"
PART = ".part"
_CACHED_TILES = 12  # 16 KB each at most; the ledger has a log open for each gateway


def column(level: int) -> str:
    """Return the folder of a level's tiles; level 0 holds the leaf hashes."""
    return f"tile/{level}"


def tile_path(folder: str, index: int) -> str:
    """Return the path of a full tile or bundle: groups of three digits, all but the last with an x."""
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return f"{folder}/{path}"


def tile_index(folder: str, path: str) -> int | None:
    """Return which tile or bundle of a column a path names, full or not; None for any other path."""
    groups = path.removeprefix(f"{folder}/").removesuffix(PART).split("/")
    digits = "".join(group.removeprefix("x") for group in groups)
    if not digits.isdecimal() or not digits.isascii():
        return None
    index = int(digits)
    return index if tile_path(folder, index) == path.removesuffix(PART) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a commit writes into one file.

    path: the name when full; until then it has PART behind it. start: where content goes, and the file's length before.
    """

    path: str
    start: int
    content: bytes
    full: bool


class Tile:
    """The hashes of one tile, and of the nodes within it, made when first asked for."""

    __slots__ = ("_rows",)

    def __init__(self, hashes: bytes) -> None:
        self._rows = [hashes]

    @property
    def hashes(self) -> bytes:
        """The tile as it stands on disk."""
        return self._rows[0]

    def node(self, level: int, index: int) -> bytes:
        """Return the root of 2**level of the hashes, from index * 2**level on."""
        rows = self._rows
        while len(rows) <= level:
            below = rows[-1]
            rows.append(
                b"".join(
                    node_hash(below[at : at + HASH_BYTES], below[at + HASH_BYTES : at + 2 * HASH_BYTES])
                    for at in range(0, len(below) - HASH_BYTES, 2 * HASH_BYTES)
                )
            )
        return rows[level][index * HASH_BYTES : (index + 1) * HASH_BYTES]


class Tiles:
    """The hash tree of a log: full tiles on disk, the growing edge in memory, what is not committed on top.

    size: leaves, committed or not. Memory does not grow with it. Raises LogError when a tile is not as it must be.
    """

    def __init__(self, files: Files, *, height: int = HEIGHT) -> None:
        self._files = files
        self.height = height
        self.width = 1 << height
        self.size = 0
        self._edges: list[bytearray] = [bytearray()]
        self._fresh: dict[tuple[int, int], Tile] = {}
        self._cache: OrderedDict[tuple[int, int], Tile] = OrderedDict()

    @classmethod
    def load(cls, files: Files, size: int, *, height: int = HEIGHT) -> Tiles:
        """Return the tree of the first size leaves on disk, checked along its right edge."""
        tiles = cls(files, height=height)
        tiles.size = size
        tiles._edges = []
        while count := tiles.count(level := len(tiles._edges)):
            index, rest = divmod(count, tiles.width)
            tiles._edges.append(bytearray(tiles._stored(level, index, rest) if rest else b""))
            if level and tiles.hash(level, count - 1) != tiles.tile_root(level - 1, count - 1):
                raise LogError(f"log: {tile_path(column(level - 1), count - 1)}: is not what the level above says")
        tiles._edges.append(bytearray())
        return tiles

    def count(self, level: int, size: int | None = None) -> int:
        """Return how many hashes a level has when there are size leaves."""
        return (self.size if size is None else size) >> (level * self.height)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf's hash, and each level's above that this fills."""
        level, hashed, full = 0, leaf_hash, self.width * HASH_BYTES
        while True:
            edge = self._edges[level]
            edge += hashed
            if len(edge) < full:
                break
            tile = self._fresh[level, self.count(level) >> self.height] = Tile(bytes(edge))
            edge.clear()
            hashed = tile.node(self.height, 0)
            level += 1
            if level == len(self._edges):
                self._edges.append(bytearray())
        self.size += 1

    def rollback(self, size: int) -> None:
        """Forget the leaves from size on; none of them may be settled."""
        for level, edge in enumerate(self._edges):
            index, rest = divmod(self.count(level, size), self.width)
            if index < self.count(level) >> self.height:
                edge[:] = self._fresh[level, index].hashes
            del edge[rest * HASH_BYTES :]
        self._fresh.clear()
        self.size = size

    def settle(self) -> None:
        """Say that everything appended is on disk now."""
        self._fresh.clear()

    def writes(self, durable: int) -> Iterator[Write]:
        """Yield what the disk lacks when it has the first durable leaves, level by level."""
        level = 0
        while (first := self.count(level, durable)) < (stop := self.count(level)):
            while first < stop:
                index, skip = divmod(first, self.width)
                full = self._fresh.get((level, index))
                hashes = full.hashes if full else bytes(self._edges[level])
                yield Write(
                    path=tile_path(column(level), index),
                    start=skip * HASH_BYTES,
                    content=hashes[skip * HASH_BYTES :],
                    full=full is not None,
                )
                first = min(stop, (index + 1) << self.height)
            level += 1

    def hash(self, level: int, index: int) -> bytes:
        """Return one hash of a level; level 0: of leaf index."""
        tile, place = divmod(index, self.width)
        if tile == self.count(level) >> self.height:
            return bytes(self._edges[level][place * HASH_BYTES : (place + 1) * HASH_BYTES])
        return self._tile(level, tile).node(0, place)

    def tile_root(self, level: int, tile: int) -> bytes:
        """Return the root of a full tile from its own hashes."""
        return self._tile(level, tile).node(self.height, 0)

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the full subtree of 2**level leaves from leaf index * 2**level on."""
        at, within = divmod(level, self.height)
        shift = self.height - within
        tile, place = index >> shift, index & ((1 << shift) - 1)
        if tile < self.count(at) >> self.height:
            return self._tile(at, tile).node(within, place)
        hashes = self._edges[at][(place << within) * HASH_BYTES : ((place + 1) << within) * HASH_BYTES]
        return Tile(bytes(hashes)).node(within, 0)

    def root(self, size: int) -> bytes:
        """Return the root of the first size leaves."""
        return root_from(size, self.node)

    def _tile(self, level: int, index: int) -> Tile:
        """Return a full tile, from what is not committed yet, the cache, or the disk."""
        key = level, index
        tile = self._fresh.get(key) or self._cache.get(key)
        if tile is None:
            tile = self._cache[key] = Tile(self._stored(level, index, self.width))
            if len(self._cache) > _CACHED_TILES:
                self._cache.popitem(last=False)
        elif key in self._cache:
            self._cache.move_to_end(key)
        return tile

    def _stored(self, level: int, index: int, count: int) -> bytes:
        """Return the first count hashes of a tile on disk, which may have more."""
        path = tile_path(column(level), index)
        hashes = self._files.read(path, 0, count * HASH_BYTES)
        if hashes is None:
            # Not full, or full and not renamed before the power went: opening finishes that.
            hashes = self._files.read(path + PART, 0, count * HASH_BYTES)
        if hashes is None or len(hashes) != count * HASH_BYTES:
            raise LogError(f"log: {path}: got {len(hashes or b'') // HASH_BYTES} hashes, want {count}")
        return hashes
