"""Files in memory whose power can be cut: what is durable is kept apart from what only seems to be.

The model is the contract of gateway.store.files.Files, taken at its worst. A file remembers what its last sync made
durable and which bytes were written since; a folder, the names that its last sync covered and the changes since.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import LogError
from gateway.store.files import StoreFull, folder_of


@dataclass(slots=True)
class Inode:
    """One file: what a reader sees, what is surely on disk, which bytes of it the kernel still has to write.

    shortest: the least length since the last sync; what was durable behind it is gone, or reads as zeros.
    """

    seen: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: set[int] = field(default_factory=set)
    shortest: int = 0

    def copy(self) -> Inode:
        """Return an independent copy."""
        return Inode(bytearray(self.seen), self.durable, set(self.dirty), self.shortest)

    def is_synced(self) -> bool:
        """Return whether a crash can change nothing."""
        return not self.dirty and self.shortest == len(self.seen) == len(self.durable)

    def written(self) -> bytes:
        """Return what is on disk once the kernel has written all that it still means to."""
        after = bytearray(self.durable[: self.shortest].ljust(len(self.seen), b"\0"))
        for at in self.dirty:
            if at < len(after):
                after[at] = self.seen[at]
        return bytes(after)

    def sync(self) -> None:
        """Make what is to be seen durable, as far as the kernel still has to write it."""
        self.durable = self.written()
        self.dirty.clear()
        self.shortest = len(self.durable)


@dataclass(frozen=True, slots=True)
class Naming:
    """One change of names not synced yet: name gets an inode, or none; another name loses it in the same step."""

    folder: str
    path: str
    inode: int | None
    without: str = ""


Choice = Callable[[random.Random, Inode], bytes]


class FaultyFiles:
    """Implements Files in memory.

    room: bytes that all files may have together; a write that does not fit is done in part, and raises StoreFull.
    deaf_to: sync of such a path does nothing: a fault to be found by whoever tests with this.
    on_step: called after every change that a crash could undo, and between two syncs.
    faults: which change (see `changes`) finds the disk `full`, and raises StoreFull, or `dying`, and raises LogError.
        A write is then done by half; what a sync was to write never gets to the disk, though it is still to be seen.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.deaf_to: Callable[[str], bool] | None = None
        self.on_step: Callable[[], None] | None = None
        self.faults: dict[int, str] = {}
        self.locked = False
        self.changes = 0
        self._checked = False
        self._inodes: dict[int, Inode] = {}
        self._names: dict[str, int] = {}
        self._durable_names: dict[str, int] = {}
        self._namings: list[Naming] = []
        self._folders: set[str] = {""}
        self._next = 0

    # ---- Files

    def lock(self) -> None:
        """Take the files."""
        if self.locked:
            raise LogError("log: is in use by process 1")
        self.locked = True

    def close(self) -> None:
        """Give them back."""
        self.locked = False

    def names(self, folder: str) -> dict[str, int] | None:
        """Return what a folder holds."""
        if folder not in self._folders:
            return None
        below = f"{folder}/" if folder else ""
        found = {path[len(below) :]: -1 for path in self._folders if path.startswith(below) and path != folder}
        found |= {
            path[len(below) :]: len(self._inodes[inode].seen)
            for path, inode in self._names.items()
            if path.startswith(below)
        }
        return {name: size for name, size in found.items() if "/" not in name}

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        inode = self._names.get(path)
        return None if inode is None else len(self._inodes[inode].seen)

    def read(self, path: str, start: int = 0, count: int = -1) -> bytes | None:
        """Return bytes of a file."""
        inode = self._names.get(path)
        if inode is None:
            return None
        seen = self._inodes[inode].seen
        return bytes(seen[start:] if count < 0 else seen[start : start + count])

    def write(self, path: str, start: int, content: bytes) -> None:
        """Write, to be seen at once and durable after sync; refuse to leave a hole."""
        folder = folder_of(path)
        while folder not in self._folders:
            self._folders.add(folder)
            folder = folder_of(folder)
        if path not in self._names:
            self._next += 1
            self._inodes[self._next] = Inode()
            self._name(Naming(folder_of(path), path, self._next))
            self._step()
        inode = self._inodes[self._names[path]]
        if start > len(inode.seen):
            raise AssertionError(f"{path}: a write at {start} leaves a hole behind {len(inode.seen)}")
        lacking, growth = 0, start + len(content) - len(inode.seen)
        if self.room is not None and growth > 0:
            used = sum(len(self._inodes[one].seen) for one in set(self._names.values()))
            lacking = max(0, used + growth - self.room)
        done = content[: max(0, len(content) - lacking)]
        if self.changes + 1 in self.faults:
            done, lacking = content[: len(content) // 2], 1
        inode.seen[start : start + len(done)] = done
        inode.dirty.update(range(start, start + len(done)))
        if not lacking:
            del inode.seen[start + len(done) :]
            inode.shortest = min(inode.shortest, len(inode.seen))
        self._step()
        if lacking:
            raise StoreFull(f"log: {path}: No space left on device")

    def sync(self, path: str) -> None:
        """Make a file's bytes or a folder's names durable."""
        if self.changes + 1 in self.faults and path in self._names:
            self._inodes[self._names[path]].dirty.clear()
        self._step(changed=False)
        if self.deaf_to is not None and self.deaf_to(path):
            return
        self._checked = False
        if path in self._folders:
            for naming in [naming for naming in self._namings if naming.folder == path]:
                self._apply(naming, self._durable_names)
                self._namings.remove(naming)
        elif path in self._names:
            self._inodes[self._names[path]].sync()
        else:
            raise AssertionError(f"{path}: a sync of a file that is not there")

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        if old not in self._names:
            raise AssertionError(f"{old}: a rename of a file that is not there")
        if self.changes + 1 not in self.faults:
            self._name(Naming(folder_of(new), new, self._names[old], without=old))
        self._step()

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        if path in self._names:
            self._name(Naming(folder_of(path), path, None))
            self._step()

    # ---- faults

    def fork(self) -> FaultyFiles:
        """Return a copy as a killed process leaves it: all is to be seen, what was not synced is still not durable."""
        copy = FaultyFiles()
        copy._inodes = {number: inode.copy() for number, inode in self._inodes.items()}
        copy._names, copy._durable_names = dict(self._names), dict(self._durable_names)
        copy._namings, copy._folders, copy._next = list(self._namings), set(self._folders), self._next
        return copy

    def crash(self, image: str, seed: int = 0) -> FaultyFiles:
        """Return what is on disk after a power cut.

        image: `lost` (only what was synced), `kept` (everything), `names` (all names, no bytes: files are empty or
        short), `zeros` (all names and lengths, new bytes zero), `torn` (each file's changes up to some byte),
        `mixed` (each name kept or not, each byte old, new or zero, each length between).
        """
        dice = random.Random(seed)
        names = dict(self._durable_names)
        for naming in self._namings:
            if image != "lost" and (image != "mixed" or dice.random() < 0.6):
                self._apply(naming, names, torn=image == "mixed" and dice.random() < 0.3)
        after = FaultyFiles()
        after._folders, after._next = set(self._folders), self._next
        after._names, after._durable_names = names, dict(names)
        for number in set(names.values()):
            inode = self._inodes[number]
            content = inode.durable if inode.is_synced() else _images[image](dice, inode)
            after._inodes[number] = Inode(bytearray(content), content, shortest=len(content))
        return after

    def flip(self, path: str, at: int) -> None:
        """Change one bit of a file, as a bad disk or an intruder does."""
        inode = self._inodes[self._names[path]]
        inode.seen[at] ^= 1
        inode.durable = bytes(inode.seen)

    def paths(self) -> list[str]:
        """Return the paths of all files."""
        return sorted(self._names)

    def contents(self) -> dict[str, bytes]:
        """Return all that is to be seen, by path."""
        return {path: bytes(self._inodes[inode].seen) for path, inode in self._names.items()}

    def _name(self, naming: Naming) -> None:
        self._namings.append(naming)
        self._apply(naming, self._names)

    @staticmethod
    def _apply(naming: Naming, names: dict[str, int], *, torn: bool = False) -> None:
        """Do one change of names. torn: a rename from one folder to another leaves the old name too."""
        if naming.inode is None:
            names.pop(naming.path, None)
        else:
            names[naming.path] = naming.inode
        if naming.without and not (torn and folder_of(naming.without) != naming.folder):
            names.pop(naming.without, None)

    def _step(self, *, changed: bool = True) -> None:
        self.changes += 1
        if self.on_step is not None and (changed or not self._checked):
            self.on_step()
        self._checked = True
        if (fault := self.faults.get(self.changes)) is not None:
            raise StoreFull("log: No space left on device") if fault == "full" else LogError("log: Input/output error")


def _torn(dice: random.Random, inode: Inode) -> bytes:
    """Write what is new in the order of the bytes, up to some byte, and no further."""
    written = inode.written()
    upto = dice.randint(0, len(written))
    return written[:upto] + inode.durable[upto : max(upto, len(inode.durable))]


def _zeros(dice: random.Random, inode: Inode) -> bytes:
    """Have the new length, and zeros where the bytes did not make it."""
    written = inode.written()
    least = min(inode.shortest, len(written))
    keep = dice.choice([least, dice.randint(least, len(written))])
    return written[:keep].ljust(len(written), b"\0")


def _mixed(dice: random.Random, inode: Inode) -> bytes:
    """Have, in blocks, the old bytes, the new or zeros; zeros only where nothing durable was left to stand."""
    written, durable = inode.written(), inode.durable
    shorter, longer = sorted((len(durable), len(written)))
    length = dice.choice([len(durable), len(written), dice.randint(shorter, longer)])
    block = dice.choice([1, 3, 32, 512])
    content = bytearray()
    while (at := len(content)) < length:
        choice = dice.randrange(3)
        for place in range(at, min(at + block, length)):
            old = durable[place] if place < len(durable) else 0
            new = written[place] if place < len(written) else old
            content.append((old, new, new if place < inode.shortest else 0)[choice])
    return bytes(content)


_images: dict[str, Choice] = {
    "lost": lambda _, inode: inode.durable,
    "kept": lambda _, inode: inode.written(),
    "names": lambda _, inode: inode.durable[: inode.shortest],
    "zeros": _zeros,
    "torn": _torn,
    "mixed": _mixed,
}
IMAGES = tuple(_images)
