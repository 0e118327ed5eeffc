"""The few file operations that the store rests on, and what each makes durable."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gateway.errors import GatewayError, LogError

TEMPORARY = "tmp"
"""Where `replace` writes before it renames. Only ever one at a time; opening a log removes a forgotten one."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_MOST_OPEN = 8


class StoreFull(GatewayError):  # noqa: N818 - like BlockingIOError of the standard library, a state and not a fault
    """Raised when the disk has no room. Nothing is lost by it: the caller takes the change back, and goes on."""


class Files(Protocol):
    """A folder of files. More than four methods, since its one user must say exactly what is to be durable.

    Paths are relative, with "/" between the parts; "" is the folder itself. One caller, one thread.

    After a crash, what no sync has covered may be there, be missing, or be there in part, in any order, with zeros
    where a file grew; each name likewise: what was not synced was made, renamed or removed, or was not.
    A rename within a folder happens whole or not at all.

    Every method raises StoreFull when there is no room and LogError for any other failure of the disk.
    After a failed sync nothing is known of the file: it is never tried again as it stands, but written anew.
    """

    def lock(self) -> None:
        """Take this folder for the caller alone, until `close`. Raises LogError, which says who has it."""

    def close(self) -> None:
        """Give the lock back. Makes nothing durable."""

    def names(self, folder: str) -> dict[str, int] | None:
        """Return the size of each file in a folder by its name, -1 for a folder; None when there is no such folder."""

    def size(self, path: str) -> int | None:
        """Return how many bytes a file has, None when there is no such file."""

    def read(self, path: str, start: int = 0, count: int = -1) -> bytes | None:
        """Return at most count bytes (-1: all) from start on, None when there is no such file."""

    def write(self, path: str, start: int, content: bytes) -> None:
        """Make a file end with content at start: what stood before start stays, what stood after the end is cut off.

        The bytes are durable after `sync(path)`. A new file is made, its name durable after `sync` of its folder;
        folders on the way are made and durable at once.
        """

    def sync(self, path: str) -> None:
        """Make a file's bytes and length durable, or the names in a folder."""

    def rename(self, old: str, new: str) -> None:
        """Give a file a new name; one that has it is replaced. Durable after `sync` of new's folder."""

    def remove(self, path: str) -> None:
        """Remove a file if it is there. Durable after `sync` of its folder."""


def folder_of(path: str) -> str:
    """Return the folder that a file stands in."""
    return path.rpartition("/")[0]


def replace(files: Files, path: str, content: bytes) -> None:
    """Replace a whole file, durably: after a crash it has the old content or the new.

    Raises StoreFull, and nothing has changed; LogError, and it may have.
    """
    try:
        files.write(TEMPORARY, 0, content)
        files.sync(TEMPORARY)
        files.rename(TEMPORARY, path)
    except StoreFull:
        files.remove(TEMPORARY)
        raise
    try:
        files.sync(folder_of(path))
    except StoreFull as e:
        raise LogError(f"log: {path}: replaced, but perhaps not durably: {e}") from e


class RealFiles:
    """Files in a folder of the local file system: folders 0700, files 0600.

    Rests on fdatasync (a file's bytes and length) and on fsync of a folder (its names), as Linux has them.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - must be a str: joined at each call
        self._open: dict[str, int] = {}
        self._lock: int | None = None
        self._durable_folders: set[str] = set()

    def lock(self) -> None:
        """Take the folder by flock on its file `lock`, which holds the process id of who has it."""
        if self._lock is not None:
            raise LogError(f"log: {self._root}: is open in this process already")
        with _narrowed(self._root):
            self._make_folder("")
            lock = os.open(self._at("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            who = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "another process"
            os.close(lock)
            raise LogError(f"log: {self._root}: is in use by process {who}") from e
        self._lock = lock
        with _narrowed("lock"):
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Close what is open, the lock last."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self, folder: str) -> dict[str, int] | None:
        """Return the sizes of what a folder holds, None when it is not there."""
        try:
            with _narrowed(folder), os.scandir(self._at(folder)) as entries:
                return {
                    entry.name: -1 if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
                    for entry in entries
                }
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int | None:
        """Return a file's size, None when it is not there."""
        try:
            with _narrowed(path):
                return os.stat(self._at(path)).st_size  # noqa: PTH116 - a str, as everywhere here
        except FileNotFoundError:
            return None

    def read(self, path: str, start: int = 0, count: int = -1) -> bytes | None:
        """Return bytes of a file, None when it is not there."""
        try:
            with _narrowed(path):
                handle = self._open.get(path)
                if handle is not None:
                    return _read(handle, start, count)
                handle = os.open(self._at(path), os.O_RDONLY)  # all that a reader beside the writer may do
                try:
                    return _read(handle, start, count)
                finally:
                    os.close(handle)
        except FileNotFoundError:
            return None

    def write(self, path: str, start: int, content: bytes) -> None:
        """Write content at start and cut the file off behind it."""
        with _narrowed(path):
            if (folder := folder_of(path)) not in self._durable_folders:
                self._make_folder(folder)
            handle = self._handle(path)
            rest, place = memoryview(content), start
            while rest:
                done = os.pwrite(handle, rest, place)
                rest, place = rest[done:], place + done
            if os.fstat(handle).st_size != place:
                os.ftruncate(handle, place)

    def sync(self, path: str) -> None:
        """Sync a file by fdatasync, a folder by fsync."""
        with _narrowed(path):
            # The handle that was written through is still among the open ones, unless a batch was very large;
            # Linux (4.16 and later) tells an error of the write-back to a later handle too, if to none before.
            handle = self._open.get(path)
            if handle is None:
                _fsync(self._at(path))
            else:
                os.fdatasync(handle)

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        with _narrowed(old):
            os.rename(self._at(old), self._at(new))  # noqa: PTH104 - strings, as everywhere here
        self._forget(old)
        self._forget(new)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        self._forget(path)
        try:
            with _narrowed(path):
                os.unlink(self._at(path))  # noqa: PTH108 - a str, as everywhere here
        except FileNotFoundError:
            return

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _handle(self, path: str) -> int:
        handle = self._open.pop(path, None)
        if handle is None:
            handle = os.open(self._at(path), os.O_RDWR | os.O_CREAT, 0o600)
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = handle
        return handle

    def _forget(self, path: str) -> None:
        handle = self._open.pop(path, None)
        if handle is not None:
            os.close(handle)

    def _make_folder(self, folder: str) -> None:
        """Make a folder and those above it, and sync their names: a killed process may not have got to that."""
        if not folder:
            root = Path(self._root)
            if not root.exists():
                root.mkdir(mode=0o700, parents=True)
                _fsync(str(root.parent))
        else:
            above = folder_of(folder)
            self._make_folder(above)
            if folder not in self._durable_folders:
                Path(self._at(folder)).mkdir(mode=0o700, exist_ok=True)
                _fsync(self._at(above))
        self._durable_folders.add(folder)


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(handle: int, start: int, count: int) -> bytes:
    """Read until count bytes or the end of the file: one pread may return less."""
    if count < 0:
        count = max(0, os.fstat(handle).st_size - start)
    content = os.pread(handle, count, start)
    if len(content) in {0, count}:
        return content
    pieces = [content]
    while content:
        start, count = start + len(content), count - len(content)
        content = os.pread(handle, count, start)
        pieces.append(content)
    return b"".join(pieces)


@contextmanager
def _narrowed(path: str) -> Iterator[None]:
    """Raise what the system says of the disk as ours; that a file is not there is for the caller to judge."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as e:
        kind = StoreFull if e.errno in _NO_ROOM else LogError
        raise kind(f"log: {path}: {e.strerror or e}") from e
