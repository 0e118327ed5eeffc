"""Which key signs a gateway's log, from which leaf on, and what binds it to the device.

Without a TPM the key is a file, and each start is an epoch of it. With one, each epoch has a key of its own, in memory
alone: it is gone with the process, or with the next epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.codec.bodies import epoch_body
from gateway.codec.checks import check_body
from gateway.codec.pack import unpack
from gateway.errors import LogError
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer, Verifier


class Binder(Protocol):
    """What binds a key to the device."""

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> Mapping[str, Any]:
        """Return the binding of an epoch leaf (docs/log.md, section 1). It may take a second, and be called on a
        thread of its own.

        t_ns: now, by the log's clock. Raises ConfigError when the device cannot be reached, TrustError when it refuses.
        """


class Unattested:
    """No device at all: the key is a file, which anybody may have copied."""

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> Mapping[str, Any]:  # noqa: ARG002 (the Protocol's)
        """Return the binding that says so."""
        return {"type": "unattested"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A key that signs from its leaf on. body: of that leaf."""

    number: int
    signer: Signer
    body: bytes


class Epochs:
    """The keys of one log, one after the other.

    signer: the one of all epochs, from a file; without it each epoch has a new one, which the binder ties to the
    device.
    """

    def __init__(self, log: Log, *, signer: Signer | None, binder: Binder | None) -> None:
        self._log, self._file_signer, self._binder = log, signer, binder or Unattested()
        self._coming: Epoch | None = None
        self._current: Epoch | None = None
        self._index = 0
        self._own_note = log.checkpoint if signer is not None else None

    @property
    def file_key(self) -> Verifier | None:
        """The key of all epochs, where it is one."""
        return None if self._file_signer is None else self._file_signer.verifier

    @property
    def _signer(self) -> Signer | None:
        return self._file_signer if self._current is None else self._current.signer

    @property
    def may_sign(self) -> bool:
        """Whether there is a key that signs: a file's always, any other once its leaf is durable."""
        return self._signer is not None

    def make(self, number: int, t_ns: int) -> Epoch:
        """Return an epoch, whose leaf may be sealed; the same one again for a number that did not come into force.

        Raises what the binder raises, and TrustError for a binding that no leaf can hold.
        """
        if self._coming is None or self._coming.number != number:
            signer = self._file_signer or Signer.generate(self._log.origin)
            vkey = signer.verifier.vkey
            body = epoch_body(number, vkey, self._binder.bind(vkey=vkey, epoch=number, t_ns=t_ns))
            check_body("epoch", unpack(body))
            self._coming = Epoch(number=number, signer=signer, body=body)
        return self._coming

    def enforce(self, epoch: Epoch, index: int) -> None:
        """Sign with this epoch's key from here on: its leaf is durable. The key before it is gone."""
        self._current, self._index, self._coming = epoch, index, None
        if self._file_signer is None:
            self._own_note = None

    def record(self, size: int, heads: bytes) -> None:
        """Sign the first size leaves, and store that with heads beside it. Raises StoreFull, and nothing is signed."""
        note, root = self._sign(size), self._log.root(size)
        self._log.record(note, heads, size, root)
        self._own_note = note

    def checkpoint(self, size: int) -> bytes:
        """Return a checkpoint of the first size leaves, no more than are signed, by the key of today."""
        if size == self._log.signed and self._own_note is not None:
            return self._own_note
        return self._sign(size)

    def _sign(self, size: int) -> bytes:
        signer = self._signer
        if signer is None:
            raise LogError(f"{self._log.origin}: nothing can be signed before the leaf that announces the key")
        made = Checkpoint(origin=self._log.origin, size=size, root=self._log.root(size))
        return checkpoints.sign(made, signer)

    def announcement(self, first: int) -> bytes:
        """Return what leaves from first on must be accompanied by: the epoch leaf's body, unless it is below first.

        So whoever has all leaves below first knows whose signature counts before reading the leaves. b"" for a file
        key, which its readers have pinned.
        """
        if self._file_signer is not None or self._current is None or self._index < first:
            return b""
        return self._current.body
