"""What opening a log reads and decides, before anything on disk is changed; and the tidying that follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import LogError
from gateway.store.bundles import offsets_of
from gateway.store.files import TEMPORARY, Files, folder_of
from gateway.store.tiles import ENTRIES, PART, Tiles, column, stored, tile_index, tile_path
from gateway.tlog.merkle import HASH_BYTES, leaf_hash

_FOLDER = 1000  # bundles or tiles to a folder, by C2SP's paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is on disk, as opening found it.

    size: leaves, at least the floor. offsets: of the entries in the floor's bundle that are below the floor.
    torn_bytes: bytes of bodies behind the last whole leaf, to be cut off.
    """

    size: int
    offsets: list[int]
    torn_bytes: int


def survey(files: Files, floor: int, *, width: int) -> Survey:
    """Find where the log ends: at the first leaf, from the floor's bundle on, that is not as its hash says.

    A body of length 0 cannot be checked, and zeros are what a crash leaves: below the floor it is a dropped body,
    above it the end of the log. Raises LogError when the end is below the floor.
    """
    index, rest = divmod(floor, width)
    offsets, torn_bytes = [0], 0
    while True:
        bundle, hashes = stored(files, ENTRIES, index) or b"", stored(files, column(0), index) or b""
        entries = offsets_of(bundle)
        whole = _whole(bundle, entries, hashes, unchecked=floor - index * width)
        size = index * width + whole
        torn_bytes += len(bundle) - entries[whole]
        if index == floor // width:
            offsets = entries[: rest + 1]
        if whole < width:
            break
        index += 1
    if size < floor:
        raise LogError(f"log: leaf {size}: is missing or changed, and below {floor}, which the log must have")
    if entries[whole + 1 : whole + 2] != [entries[whole] + 2]:  # not a hash of a commit that did not get to its mark
        _check_names(files, floor // width, index)
    return Survey(size=size, offsets=offsets, torn_bytes=torn_bytes)


def _whole(bundle: bytes, entries: list[int], hashes: bytes, *, unchecked: int) -> int:
    """Return how many leaves at the start of a bundle have the hash that stands beside them.

    unchecked: below this place an empty body is taken on trust.
    """
    most = min(len(entries) - 1, len(hashes) // HASH_BYTES)
    for place in range(most):
        body = bundle[entries[place] + 2 : entries[place + 1]]
        if not body and place < unchecked:
            continue
        if not body or leaf_hash(body) != hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]:
            return place
    return most


def _check_names(files: Files, first: int, last: int) -> None:
    """Refuse a file that is said to be full and is not: it lost its `.part` only after all before it was durable.

    first, last: the bundles that were read; all but the last are whole, and the last is not.
    """
    for folder in (ENTRIES, column(0)):
        for index, path in names_from(files, folder, first):
            if index >= last and not path.endswith(PART):
                raise LogError(f"log: {path}: is damaged, or something before it is")


def tail_leaves(files: Files, floor: int, size: int, *, width: int) -> Iterator[list[bytes]]:
    """Yield the leaves from floor to size - 1, bundle by bundle."""
    while floor < size:
        index, place = divmod(floor, width)
        until = min(size - index * width, width)
        bundle = stored(files, ENTRIES, index) or b""
        entries = offsets_of(bundle)
        yield [bundle[entries[at] + 2 : entries[at + 1]] for at in range(place, until)]
        floor = index * width + until


def open_names(files: Files, tiles: Tiles, size: int) -> None:
    """Give every file above the floor its `.part` back, and remove those beyond the end; durably.

    tiles: of the leaves below the floor. size: where the log ends.
    What a crash left beyond the end must go: when the log has grown up to it, it would look like part of it.
    """
    files.remove(TEMPORARY)
    for folder, level in _columns(tiles, size):
        beyond = -(-tiles.count(level, size) // tiles.width)
        changed = set()
        for index, path in list(names_from(files, folder, tiles.count(level) // tiles.width)):
            if index >= beyond:
                files.remove(path)
            elif not path.endswith(PART):
                files.rename(path, path + PART)
            else:
                continue
            changed.add(folder_of(path))
        for at in sorted(changed):
            files.sync(at)


def cut_ends(files: Files, tiles: Tiles, entries_end: int) -> None:
    """Cut off what stands in the growing files behind the last leaf, durably.

    entries_end: length of the growing bundle.
    """
    for folder, level in _columns(tiles, tiles.size):
        index, rest = divmod(tiles.count(level), tiles.width)
        end = entries_end if folder == ENTRIES else rest * HASH_BYTES
        path = tile_path(folder, index) + PART
        if (files.size(path) or 0) > end:
            files.write(path, end, b"")
            files.sync(path)


def _columns(tiles: Tiles, size: int) -> Iterator[tuple[str, int]]:
    """Yield the folders that a log of this size has files in, and one more, each with its level."""
    yield ENTRIES, 0
    level = 0
    while True:
        yield column(level), level
        if not tiles.count(level, size):
            return
        level += 1


def names_from(files: Files, folder: str, first: int) -> Iterator[tuple[int, str]]:
    """Yield the tiles or bundles of a column that have an index of first or more, each with its path.

    Folders are made in order and durably, so that the first one missing ends the column.
    """
    base = first - first % _FOLDER
    while True:
        at = folder_of(tile_path(folder, base))
        found = files.names(at)
        if found is None:
            return
        for name in sorted(found):
            path = f"{at}/{name}"
            index = tile_index(folder, path)
            if index is not None and index >= first:
                yield index, path
        base += _FOLDER
