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


def stored(files: Files, folder: str, index: int, start: int = 0, count: int = -1) -> bytes | None:
    """Return bytes of a tile or bundle, full or not; None when it is not there.

    The growing name first: who reads beside the writer then misses none that gets its full name just now.
    """
    path = tile_path(folder, index)
    growing = files.read(path + PART, start, count)
    return files.read(path, start, count) if growing is None else growing


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
    """The hashes of one tile, full or growing, and those of the nodes within it, made when first asked for."""

    __slots__ = ("_rows",)

    def __init__(self, hashes: bytes = b"") -> None:
        self._rows = [bytearray(hashes)]

    def __len__(self) -> int:
        return len(self._rows[0]) // HASH_BYTES

    @property
    def hashes(self) -> bytes:
        """The tile as it stands on disk."""
        return bytes(self._rows[0])

    def append(self, hashed: bytes) -> None:
        """Add one hash."""
        self._rows[0] += hashed

    def cut(self, count: int) -> None:
        """Keep only the first count hashes."""
        for level, row in enumerate(self._rows):
            del row[(count >> level) * HASH_BYTES :]

    def node(self, level: int, index: int) -> bytes:
        """Return the root of 2**level of the hashes, from index * 2**level on; all of them must be there."""
        rows = self._rows
        for above in range(1, level + 1):
            if above == len(rows):
                rows.append(bytearray())
            row, below = rows[above], rows[above - 1]
            for at in range(2 * len(row), len(below) - 2 * HASH_BYTES + 1, 2 * HASH_BYTES):
                row += node_hash(
                    bytes(below[at : at + HASH_BYTES]), bytes(below[at + HASH_BYTES : at + 2 * HASH_BYTES])
                )
        return bytes(rows[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])


class Tiles:
    """The hash tree of a log: full tiles on disk, the growing edge in memory, what is not committed on top.

    size: leaves, committed or not. Memory does not grow with it. Raises LogError when a tile is not as it must be.
    """

    def __init__(self, files: Files, *, height: int = HEIGHT) -> None:
        self._files = files
        self.height = height
        self.width = 1 << height
        self.size = 0
        self._edges: list[Tile] = [Tile()]
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
            tiles._edges.append(Tile(tiles._stored(level, index, rest) if rest else b""))
            if level and tiles.hash(level, count - 1) != tiles.tile_root(level - 1, count - 1):
                raise LogError(f"log: {tile_path(column(level - 1), count - 1)}: is not what the level above says")
        tiles._edges.append(Tile())
        return tiles

    def count(self, level: int, size: int | None = None) -> int:
        """Return how many hashes a level has when there are size leaves."""
        return (self.size if size is None else size) >> (level * self.height)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf's hash, and each level's above that this fills."""
        level, hashed = 0, leaf_hash
        while True:
            edge = self._edges[level]
            edge.append(hashed)
            if len(edge) < self.width:
                break
            self._fresh[level, self.count(level) >> self.height] = edge
            self._edges[level] = Tile()
            hashed = edge.node(self.height, 0)
            level += 1
            if level == len(self._edges):
                self._edges.append(Tile())
        self.size += 1

    def rollback(self, size: int) -> None:
        """Forget the leaves from size on; none of them may be settled."""
        for level in range(len(self._edges)):
            index, rest = divmod(self.count(level, size), self.width)
            edge = self._edges[level] = self._fresh.get((level, index), self._edges[level])
            edge.cut(rest)
        self._fresh.clear()
        self.size = size

    def settle(self) -> None:
        """Say that everything appended is on disk now."""
        for key, tile in self._fresh.items():
            self._keep(key, tile)
        self._fresh.clear()

    def writes(self, durable: int) -> Iterator[Write]:
        """Yield what the disk lacks when it has the first durable leaves, level by level."""
        level = 0
        while (first := self.count(level, durable)) < (stop := self.count(level)):
            while first < stop:
                index, skip = divmod(first, self.width)
                tile = self._fresh.get((level, index), self._edges[level])
                yield Write(
                    path=tile_path(column(level), index),
                    start=skip * HASH_BYTES,
                    content=tile.hashes[skip * HASH_BYTES :],
                    full=len(tile) == self.width,
                )
                first = min(stop, (index + 1) << self.height)
            level += 1

    def hash(self, level: int, index: int) -> bytes:
        """Return one hash of a level; level 0: of leaf index."""
        return self._tile(level, index >> self.height).node(0, index & (self.width - 1))

    def tile_root(self, level: int, tile: int) -> bytes:
        """Return the root of a full tile from its own hashes."""
        return self._tile(level, tile).node(self.height, 0)

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the full subtree of 2**level leaves from leaf index * 2**level on."""
        at, within = divmod(level, self.height)
        shift = self.height - within
        return self._tile(at, index >> shift).node(within, index & ((1 << shift) - 1))

    def root(self, size: int) -> bytes:
        """Return the root of the first size leaves."""
        return root_from(size, self.node)

    def _tile(self, level: int, index: int) -> Tile:
        """Return a tile: the growing one, or a full one from what is not committed yet, the cache, or the disk."""
        if index == self.count(level) >> self.height:
            return self._edges[level]
        key = level, index
        tile = self._fresh.get(key)
        if tile is None:
            tile = self._cache.pop(key, None) or Tile(self._stored(level, index, self.width))
            self._keep(key, tile)
        return tile

    def _keep(self, key: tuple[int, int], tile: Tile) -> None:
        self._cache[key] = tile
        if len(self._cache) > _CACHED_TILES:
            self._cache.popitem(last=False)

    def _stored(self, level: int, index: int, count: int) -> bytes:
        """Return the first count hashes of a tile on disk, which may have more."""
        hashes = stored(self._files, column(level), index, 0, count * HASH_BYTES) or b""
        if len(hashes) != count * HASH_BYTES:
            path = tile_path(column(level), index)
            raise LogError(f"log: {path}: got {len(hashes) // HASH_BYTES} hashes, want {count}")
        return hashes
