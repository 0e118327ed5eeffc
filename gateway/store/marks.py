"""Marks: the small files that say how far a log goes, each replaced whole."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from gateway.errors import LogError
from gateway.store.files import Files, replace
from gateway.tlog.merkle import EMPTY_ROOT

_MAGIC = "wattseal-mark/1"
_SUM_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A size and a root that the log must have, and the note that says so.

    note: b"" where nothing signed says so. heads: the owner's own bytes, stored in the same step.
    """

    origin: str
    size: int = 0
    root: bytes = EMPTY_ROOT
    note: bytes = b""
    heads: bytes = b""

    def save(self, files: Files, name: str) -> None:
        """Replace the file, durably. Raises StoreFull, and the old one stands."""
        replace(files, name, self.packed(name))

    def packed(self, name: str) -> bytes:
        """Return the file: one line of text, the note, the heads, and the SHA-256 of all that."""
        root = base64.b64encode(self.root).decode()
        line = f"{_MAGIC} {name} {self.origin} {self.size} {root} {len(self.note)} {len(self.heads)}\n"
        content = line.encode() + self.note + self.heads
        return content + hashlib.sha256(content).digest()


def load_mark(files: Files, name: str, *, origin: str) -> Mark | None:
    """Return the mark in a file, None when there is no such file.

    Raises LogError when it is not whole: a file that is only ever replaced whole cannot be torn by a crash.
    """
    packed = files.read(name)
    if packed is None:
        return None
    content = packed[:-_SUM_BYTES]
    if hashlib.sha256(content).digest() != packed[-_SUM_BYTES:]:
        raise LogError(f"log: {name}: its checksum is wrong")
    line, _, rest = content.partition(b"\n")
    try:
        magic, about, of, size, root, note, _heads = line.decode().split(" ")
        mark = Mark(
            origin=of,
            size=int(size),
            root=base64.b64decode(root, validate=True),
            note=rest[: int(note)],
            heads=rest[int(note) :],
        )
    except (ValueError, binascii.Error) as e:
        raise LogError(f"log: {name}: cannot be read: {e}") from e
    if magic != _MAGIC or about != name or mark.packed(name) != packed:
        raise LogError(f"log: {name}: is not a {name} of format {_MAGIC}")
    if of != origin:
        raise LogError(f"log: {name}: got the log of {of}, want {origin}")
    return mark


@dataclass(slots=True, kw_only=True)
class Marks:
    """The three marks of one log.

    checkpoint: the newest signed one. receipt: the newest receipt; never beyond the checkpoint.
    tail: after the newest commit that held hashes without a body, which nothing else could prove whole.
    """

    checkpoint: Mark
    receipt: Mark
    tail: Mark

    @classmethod
    def load(cls, files: Files, *, origin: str) -> Marks:
        """Return the marks on disk; those of an empty log, on disk from here on, where there is none.

        The checkpoint file is made before the first leaf and only ever replaced whole. So when it is missing
        and anything else is there, it was lost: LogError. A folder that was emptied altogether looks new; that is
        for the ledger to notice, which holds a longer log.
        """
        checkpoint, receipt, tail = (
            load_mark(files, name, origin=origin) for name in ("checkpoint", "receipt", "tail")
        )
        empty = Mark(origin=origin)
        if checkpoint is None:
            if receipt or tail or any(files.names(folder) for folder in ("tile/entries", "tile/0")):
                raise LogError(f"log: checkpoint: is missing, but the log of {origin} has been written to")
            empty.save(files, "checkpoint")
        marks = cls(checkpoint=checkpoint or empty, receipt=receipt or empty, tail=tail or empty)
        if marks.receipt.size > marks.checkpoint.size:
            sizes = f"{marks.checkpoint.size} leaves, but the receipt {marks.receipt.size}"
            raise LogError(f"log: checkpoint: is older than what was receipted: it says {sizes}")
        return marks

    @property
    def all(self) -> tuple[Mark, Mark, Mark]:
        """The marks, smallest first."""
        first, second, third = sorted((self.receipt, self.checkpoint, self.tail), key=lambda mark: mark.size)
        return first, second, third

    @property
    def floor(self) -> Mark:
        """The longest log that the marks vouch for: opening never cuts below it."""
        return self.all[-1]
