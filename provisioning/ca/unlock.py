"""What unlocks an authority's key: a password or a PIN, from a file or the environment, never from an argument."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import ConfigError

VARIABLE = "WATTSEAL_CA_UNLOCK"
MOST_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """The password of a key file, or the PIN of a token. Shown nowhere."""

    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be one: there is no default, and no key without one."""
        if not 0 < len(self.secret) <= MOST_BYTES or any(ord(c) < 32 for c in self.secret):
            raise ConfigError("unlock: got an empty text or control characters, want the key's password or PIN")

    @classmethod
    def read(cls, path: Path) -> "Unlock":
        """Return the first line of a file that its owner alone may read. Raises ConfigError, which quotes nothing."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(file.fileno())
                text = file.read(MOST_BYTES + 2)
        except OSError as e:
            raise ConfigError(f"{path}: got {e.strerror}, want a readable file with the password or PIN") from e
        if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077 or about.st_uid not in {os.geteuid(), 0}:
            raise ConfigError(f"{path}: got mode {about.st_mode & 0o777:04o}, want a file of yours, 0600")
        try:
            return cls(secret=text.decode().split("\n", 1)[0].rstrip("\r"))
        except UnicodeDecodeError as e:
            raise ConfigError(f"{path}: byte {e.start} is not UTF-8, want a password or PIN") from e

    @classmethod
    def find(cls, environ: Mapping[str, str], *, variable: str = VARIABLE) -> "Unlock | None":
        """Return what the environment has: the secret in VARIABLE, or the name of its file in VARIABLE_FILE."""
        if named := environ.get(f"{variable}_FILE"):
            return cls.read(Path(named))
        return cls(secret=environ[variable]) if environ.get(variable) else None
