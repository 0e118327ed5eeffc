"""A unit's identity folder: what the factory leaves on a device. Public but for one key, which only its TPM can use."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import ConfigError

ANCHORS = ("device-ca.pem", "verifier.vkey", "ledger.vkey", "factory.vkey")
"""Whom the device trusts: the device authority, the attestation service, the ledger, the factory."""
AK_CHAIN, IDEVID_CHAIN, BIRTH = "ak-chain.pem", "idevid-chain.pem", "birth.note"
GIVEN = (AK_CHAIN, IDEVID_CHAIN, BIRTH)
"""What the device gets last of all."""
TLS_KEY, SERIAL, MARKER = "idevid.key", "serial", "enrolled"
_SECRET = {TLS_KEY}
_TEMPORARY = ".new"
_PLAIN = os.O_NOFOLLOW | os.O_CLOEXEC
"""A link that somebody left in the folder leads nowhere: `install` gives back what it reads."""


class Identity:
    """The files of a unit's identity in one folder. Raises ConfigError for whatever the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the folder alone: two stations never enrol one unit at once."""
        with _narrowed(self._folder):
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | _PLAIN, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as e:
            raise ConfigError(f"{self._folder}: another `wattseal enrol` is at work, want one at a time") from e
        finally:
            os.close(handle)

    def path(self, name: str) -> Path:
        """Return where a file stands."""
        return self._folder / name

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None when there is none."""
        with _narrowed(self._folder / name):
            try:
                handle = os.open(self._folder / name, os.O_RDONLY | _PLAIN)
            except FileNotFoundError:
                return None
            with os.fdopen(handle, "rb") as file:
                return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Replace a file, durably and whole: after a loss of power it has the old content or the new."""
        new, path = self._folder / (name + _TEMPORARY), self._folder / name
        with _narrowed(path):
            new.unlink(missing_ok=True)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(handle, 0o600 if name in _SECRET else 0o644)
                file.flush()
                os.fsync(handle)
            new.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @property
    def is_enrolled(self) -> bool:
        """Whether the factory is done with this unit: only a factory reset, which empties the folder, undoes it."""
        return self.read(MARKER) is not None and self.read(IDEVID_CHAIN) is not None


@contextmanager
def _narrowed(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}, want a folder that this process may write") from e
