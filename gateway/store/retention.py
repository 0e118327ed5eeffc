"""What may be deleted: bodies below the receipt, and unwanted ones by the disk-full policy. Never a hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.store.bundles import Bundles, entry, offsets_of
from gateway.store.files import Files, replace
from gateway.store.tiles import ENTRIES, tile_index, tile_path

Wanted = Callable[[bytes], bool]


class Dropped(NamedTuple):
    """How many bodies were dropped, all of them among leaves first to stop - 1."""

    first: int
    stop: int
    bodies: int


class Retention:
    """Keeps count of the bodies on disk, and deletes them, oldest first."""

    def __init__(self, files: Files, bundles: Bundles, *, width: int) -> None:
        self._files, self._bundles, self._width = files, bundles, width
        self._bytes: int | None = None
        self._oldest = self._unpicked = 0

    @property
    def body_bytes(self) -> int:
        """Bytes of bodies on disk; the first call looks at every bundle's size."""
        if self._bytes is None:
            self._bytes, self._oldest = 0, self._bundles.size // self._width
            for index, size in self._on_disk(ENTRIES):
                self._bytes += size
                self._oldest = min(self._oldest, index)
        return self._bytes

    def grew(self, by_bytes: int) -> None:
        """Say that a commit added bodies."""
        if self._bytes is not None:
            self._bytes += by_bytes

    def prune(self, keep_bytes: int, *, below: int) -> int:
        """Remove bundles wholly below a leaf, oldest first, until keep_bytes or less are left; return bytes removed."""
        before = self.body_bytes
        while self.body_bytes > keep_bytes and (self._oldest + 1) * self._width <= below:
            path = tile_path(ENTRIES, self._oldest)
            size = self._files.size(path)
            if size is not None:
                self._files.remove(path)
                self._bundles.forget(self._oldest)
                self.grew(-size)
            self._oldest += 1
        return before - self.body_bytes

    def drop(
        self, wanted: Wanted, target_bytes: int, *, below: int, say: Callable[[Dropped], None] | None
    ) -> Dropped | None:
        """Drop the bodies that are not wanted, of bundles wholly below a leaf, oldest first, down to target_bytes.

        say: called with what will be dropped, before any of it is.
        A bundle that holds wanted bodies alone is not looked at again: wanted must answer the same each time.
        """
        found = self._choose(wanted, target_bytes, below)
        if not found:
            return None
        dropped = Dropped(found[min(found)][0], found[max(found)][-1] + 1, sum(map(len, found.values())))
        if say is not None:
            say(dropped)
        for index, leaves in found.items():
            self._rewrite(index, set(leaves))
            self._unpicked = index + 1
        return dropped

    def _choose(self, wanted: Wanted, target_bytes: int, below: int) -> dict[int, list[int]]:
        """Return the leaves to drop, by bundle."""
        excess = self.body_bytes - target_bytes
        found: dict[int, list[int]] = {}
        index = max(self._unpicked, self._oldest)
        while excess > 0 and (index + 1) * self._width <= below:
            leaves = [leaf for leaf, body in self._bodies(index) if body and not wanted(body)]
            if leaves:
                found[index] = leaves
                offsets = self._bundles.offsets(index) or []
                excess -= sum(offsets[at + 1] - offsets[at] - 2 for at in (leaf % self._width for leaf in leaves))
            elif not found:
                self._unpicked = index + 1
            index += 1
        return found

    def _rewrite(self, index: int, without: set[int]) -> None:
        path = tile_path(ENTRIES, index)
        content = b"".join(entry(b"" if leaf in without else body) for leaf, body in self._bodies(index))
        before = self._files.size(path) or 0
        replace(self._files, path, content)
        self._bundles.forget(index)
        self.grew(len(content) - before)

    def _bodies(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Yield the leaves of a full bundle and their bodies, b"" where there is none; nothing for a pruned bundle."""
        bundle = self._bundles.full(index)
        if bundle is None:
            return
        offsets = offsets_of(bundle)
        for place in range(self._width):
            yield index * self._width + place, bundle[offsets[place] + 2 : offsets[place + 1]]

    def _on_disk(self, folder: str) -> Iterator[tuple[int, int]]:
        """Yield each bundle's index and size."""
        for name, size in (self._files.names(folder) or {}).items():
            path = f"{folder}/{name}"
            if size < 0:
                yield from self._on_disk(path)
            elif (index := tile_index(ENTRIES, path)) is not None:
                yield index, size
