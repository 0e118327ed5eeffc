"""Who may say what a line makes: the file of `[context] tokens`, read again when it changes.

A line is `<system> <SHA-256 of its token>`, so the file lets nobody speak over HTTPS. The hash is the key of the
system's HMAC on the broker: whoever reads the file can speak there, hence mode 0600.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.codec.mes import SYSTEM
from gateway.errors import ConfigError, TrustError

TOKEN_BYTES = 32
_HASH = re.compile(r"[0-9a-f]{64}\Z")

Keys = Mapping[str, tuple[bytes, ...]]
"""By system the hashes of its tokens: two, while one is being changed."""


class TokenFile:
    """The file, looked at as often as wanted. Raises ConfigError where it is wrong from the start.

    say: told what is wrong with it later, once for each mistake; the tokens in force stay as they are.
    """

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._wrong = ""
        self._seen = _seen(path)
        self.keys: Keys = read_tokens(path)

    def look(self) -> None:
        """Read the file again if it has changed."""
        try:
            seen = _seen(self._path)
            if seen == self._seen:
                return
            self._seen = seen
            self.keys, self._wrong = read_tokens(self._path), ""
        except ConfigError as e:
            if str(e) != self._wrong:
                self._say(str(e))
            self._wrong = str(e)

    def system_of(self, token: str) -> str:
        """Return whose token this is. Raises TrustError for nobody's."""
        found = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        for system, hashes in self.keys.items():
            if any([hmac.compare_digest(one, found) for one in hashes]):  # noqa: C419 (all of them, whichever it is)
                return system
        raise TrustError("token: got one of nobody, want one that `wattseal context-token` made")


def read_tokens(path: Path) -> Keys:
    """Return what a tokens file says. Raises ConfigError; no message quotes a hash."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise ConfigError(f"{path}: got mode {stat.S_IMODE(mode):04o}, want a file of mode 0600")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    keys: dict[str, tuple[bytes, ...]] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not SYSTEM.match(words[0]) or not _HASH.match(words[1]):
            raise ConfigError(f"{path}: line {number}: want <system> <SHA-256 of its token>")
        keys[words[0]] = (*keys.get(words[0], ()), bytes.fromhex(words[1]))
    return keys


def make_token(system: str) -> tuple[str, str]:
    """Return a new token, and its line for a tokens file. Raises ConfigError for a system that cannot be."""
    if not SYSTEM.match(system):
        raise ConfigError(f"system: got {system!r}, want lower-case letters, digits and -, not log or receipt")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, f"{system} {hashlib.sha256(token.encode()).hexdigest()}"


def add_token(path: Path, line: str) -> None:
    """Add a line to a tokens file, made with mode 0600 where there is none. Raises ConfigError."""
    try:
        if path.exists():
            read_tokens(path)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8") as file:
            before = file.read()
            file.write(("\n" if before and not before.endswith("\n") else "") + line + "\n")
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a file that we may write") from e


def _seen(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    return found.st_mtime_ns, found.st_size, found.st_mode
