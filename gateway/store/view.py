"""A log as another process may see it while its writer goes on: all below the newest checkpoint, to read alone."""

import time
from collections.abc import Callable
from typing import TypeVar

from gateway.errors import LogError
from gateway.store.bundles import Bundles, offsets_of
from gateway.store.files import Files
from gateway.store.marks import Mark, Marks, load_mark
from gateway.store.segments import Log
from gateway.store.tiles import ENTRIES, Tiles, stored, tile_path

_T = TypeVar("_T")
_PAUSE_S = 0.3


def view(files: Files, *, origin: str) -> Log:
    """Return a log at its newest checkpoint, without its lock; every change is refused.

    What is below a checkpoint never changes, but its file may get its final name at any moment: see `steadily`.
    Raises LogError where there is no such log, or it is not what its checkpoint says.
    """
    mark = load_mark(files, "checkpoint", origin=origin)
    if mark is None:
        raise LogError(f"log: there is none of {origin}")
    tiles = Tiles.load(files, mark.size)
    if tiles.root(mark.size) != mark.root:
        raise LogError(f"log: the root of {origin} at size {mark.size} is not the checkpoint's")
    index, rest = divmod(mark.size, tiles.width)
    path = tile_path(ENTRIES, index)
    bundle = stored(files, ENTRIES, index) if rest else b""
    offsets = offsets_of(bundle or b"")[: rest + 1]
    if len(offsets) != rest + 1:
        raise LogError(f"log: {path}: is shorter than the checkpoint says")
    none = Mark(origin=origin)
    marks = Marks(checkpoint=mark, receipt=none, tail=none)
    return Log(files, marks, tiles, Bundles(files, mark.size, offsets), failed=LogError("log: is opened to read alone"))


def steadily(look: Callable[[], _T], *, times: int = 5) -> _T:
    """Return what look returns; again when a file got its final name under it. Raises its last LogError."""
    for left in range(times - 1, -1, -1):
        try:
            return look()
        except LogError:
            if not left:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError  # never: the last attempt returns or raises
