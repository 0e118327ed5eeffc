"""The bodies of a log as C2SP entry bundles: each leaf behind its length as a big-endian uint16.

Length 0 stands for a body that is not here: it was dropped, and its hash stays.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from gateway.errors import LogError
from gateway.store.files import Files
from gateway.store.tiles import ENTRIES, HEIGHT, Write, stored, tile_path

MOST_LEAF_BYTES = 65_535
DROPPED_COST = 34
"""What a leaf without a body counts for in a chunk: its hash goes in its stead."""

_CACHED_OFFSETS = 4  # of full bundles


def entry(leaf: bytes) -> bytes:
    """Return a leaf as it stands in a bundle; b"" stands for a dropped body."""
    return len(leaf).to_bytes(2, "big") + leaf


def offsets_of(bundle: bytes) -> list[int]:
    """Return where each entry starts, and where the last whole one ends; what is torn off after it is not counted."""
    offsets, at, end = [0], 0, len(bundle)
    while at + 2 <= end:
        at += 2 + (bundle[at] << 8 | bundle[at + 1])
        if at > end:
            break
        offsets.append(at)
    return offsets


class Bundles:
    """The bodies on disk, and those appended and not committed.

    size: leaves, committed or not. offsets: of the entries in the bundle that is not full.
    """

    def __init__(self, files: Files, size: int, offsets: list[int], *, height: int = HEIGHT) -> None:
        self._files = files
        self._width = 1 << height
        self.size = self._settled = size
        self._edge = offsets
        self._pieces: list[bytes] = []
        self._fresh: dict[int, list[int]] = {}
        self._cache: OrderedDict[int, Sequence[int]] = OrderedDict()

    def append(self, leaf: bytes) -> None:
        """Add one leaf's body, b"" for one that was dropped. The bytes are not copied."""
        self._pieces += (len(leaf).to_bytes(2, "big"), leaf)
        self._edge.append(self._edge[-1] + 2 + len(leaf))
        self.size += 1
        if len(self._edge) > self._width:
            self._fresh[self.size // self._width - 1] = self._edge
            self._edge = [0]

    def rollback(self) -> None:
        """Forget what was appended since the last `settle`."""
        index, rest = divmod(self._settled, self._width)
        edge = self._fresh.get(index, self._edge)
        del edge[rest + 1 :]
        self._edge = edge
        self._fresh.clear()
        self._pieces.clear()
        self.size = self._settled

    @property
    def end(self) -> int:
        """Length of the bundle that is not full."""
        return self._edge[-1]

    def settle(self) -> int:
        """Say that everything appended is on disk now; return how many bytes that was."""
        grown_bytes = sum(map(len, self._pieces))
        for index, offsets in self._fresh.items():
            self._keep(index, offsets)
        self._fresh.clear()
        self._pieces.clear()
        self._settled = self.size
        return grown_bytes

    def writes(self) -> Iterator[Write]:
        """Yield what the disk lacks, bundle by bundle: one joined write each."""
        first = self._settled
        while first < self.size:
            index, skip = divmod(first, self._width)
            until = min(self.size, (index + 1) * self._width)
            offsets = self._fresh.get(index, self._edge)
            pieces = self._pieces[2 * (first - self._settled) : 2 * (until - self._settled)]
            yield Write(
                path=tile_path(ENTRIES, index),
                start=offsets[skip],
                content=b"".join(pieces),
                full=until == (index + 1) * self._width,
            )
            first = until

    def read(self, first: int, most_bytes: int, stop: int) -> list[bytes | None]:
        """Return leaves from first to stop - 1, as many as fit, at least one; None where there is no body."""
        leaves: list[bytes | None] = []
        while first < stop:
            index, place = divmod(first, self._width)
            until = min(stop - index * self._width, self._width)
            found, room = self._chunk(index, place, until, most_bytes, at_least=not leaves)
            leaves += found
            first += len(found)
            most_bytes = room
            if place + len(found) < until:
                break
        return leaves

    def _chunk(
        self, index: int, place: int, until: int, room: int, *, at_least: bool
    ) -> tuple[list[bytes | None], int]:
        """Return what fits of one bundle's entries place to until - 1, and the room that is left."""
        offsets = self.offsets(index)
        last = place
        while last < until:
            cost = DROPPED_COST if offsets is None else max(DROPPED_COST, offsets[last + 1] - offsets[last])
            if cost > room and not (at_least and last == place):
                break
            room -= cost
            last += 1
        if offsets is None or last == place:
            return [None] * (last - place), room
        start = offsets[place]
        content = stored(self._files, ENTRIES, index, start, offsets[last] - start)
        if content is None or len(content) != offsets[last] - start:
            raise LogError(f"log: {tile_path(ENTRIES, index)}: is shorter than it was")
        return [content[offsets[at] + 2 - start : offsets[at + 1] - start] or None for at in range(place, last)], room

    def offsets(self, index: int) -> Sequence[int] | None:
        """Return where the entries of a committed bundle start; None when the bundle was pruned."""
        if index == self._settled // self._width:
            return self._fresh.get(index, self._edge)
        offsets = self._cache.get(index)
        if offsets is not None:
            self._cache.move_to_end(index)
            return offsets
        bundle = self.full(index)
        return None if bundle is None else self._keep(index, offsets_of(bundle))

    def full(self, index: int) -> bytes | None:
        """Return a full bundle's bytes, None when it was pruned. Raises LogError when it is not whole."""
        path = tile_path(ENTRIES, index)
        bundle = self._files.read(path)
        if bundle is not None:
            offsets = offsets_of(bundle)
            if len(offsets) != self._width + 1 or offsets[-1] != len(bundle):
                raise LogError(f"log: {path}: got {len(offsets) - 1} whole entries, want {self._width} and no more")
        return bundle

    def forget(self, index: int) -> None:
        """Say that a full bundle was rewritten or removed."""
        self._cache.pop(index, None)

    def _keep(self, index: int, offsets: list[int]) -> Sequence[int]:
        kept = self._cache[index] = array("I", offsets)  # an eighth of a list's memory
        if len(self._cache) > _CACHED_OFFSETS:
            self._cache.popitem(last=False)
        return kept
