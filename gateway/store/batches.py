"""One group commit: many appends to files, all durable or none."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import LogError
from gateway.store.files import Files, StoreFull, folder_of
from gateway.store.tiles import PART, Write


class Batch:
    """What one commit writes, in an order that a crash cannot turn against the log.

    1. every byte goes into a `.part` file; 2. each file is synced; 3. the names of new files are synced;
    4. full files lose their `.part`; 5. those names are synced.
    So a file without `.part` is whole, durable, and so is every file before it: recovery and I4 rest on that.
    """

    def __init__(self, files: Files, writes: Iterable[Write]) -> None:
        self._files = files
        self._writes = tuple(writes)
        self._started: list[Write] = []
        self._renamed: list[Write] = []

    def apply(self) -> None:
        """Do all of it. Raises StoreFull, after which `undo` must follow, or another `apply`."""
        for write in self._writes:
            self._started.append(write)
            self._files.write(write.path + PART, write.start, write.content)
        for write in self._writes:
            self._files.sync(write.path + PART)
        self._sync_folders(write for write in self._writes if not write.start)
        full = [write for write in self._writes if write.full]
        for write in full:
            self._files.rename(write.path + PART, write.path)
            self._renamed.append(write)
        self._sync_folders(full)

    def undo(self) -> None:
        """Take back what a failed `apply` did, durably, so that it cannot come back by a crash.

        Names first, contents after: else a crash in between could leave a full name on a file that is not.
        """
        try:
            for write in self._renamed:
                self._files.rename(write.path, write.path + PART)
            self._sync_folders(self._renamed)
            for write in self._started:
                if write.start:
                    self._files.write(write.path + PART, write.start, b"")
                    self._files.sync(write.path + PART)
                else:
                    self._files.remove(write.path + PART)
            self._sync_folders(write for write in self._started if not write.start)
        except StoreFull as e:
            raise LogError(f"log: a commit could not be taken back: {e}") from e

    def _sync_folders(self, writes: Iterable[Write]) -> None:
        for folder in sorted({folder_of(write.path) for write in writes}):
            self._files.sync(folder)
