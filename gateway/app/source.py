"""Where a gateway's configuration comes from: one file, and beside it the text that was applied last.

A file that is wrong at a start does not stop a gateway that ran: what was applied last goes on, and that is said.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.app.load import parse_file, read_text
from gateway.config import GatewayConfig
from gateway.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A configuration and its text. sha256: of the text, in hexadecimal."""

    text: str
    config: GatewayConfig

    @property
    def sha256(self) -> str:
        """The hash that event leaves name it by."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def applied_path(file: Path) -> Path:
    """Return where the text that was applied last stands."""
    return file.with_name(f"{file.name}.applied")


def before_path(file: Path) -> Path:
    """Return where the text that was applied before that stands."""
    return file.with_name(f"{file.name}.before")


def read_source(file: Path) -> Source:
    """Return what the file says. Raises ConfigError."""
    return source_of(read_text(file), file)


def source_of(text: str, file: Path) -> Source:
    """Return what a text says, as if it stood in the file. Raises ConfigError."""
    return Source(text=text, config=parse_file(text, file))


def kept_source(file: Path, say: Callable[[str], object]) -> Source:
    """Return what the file says, or, where it is wrong, what was applied last; say so then. Raises ConfigError."""
    try:
        return read_source(file)
    except ConfigError as e:
        try:
            kept = source_of(read_text(applied_path(file)), file)
        except ConfigError:
            raise e from None
        say(f"{e}; going on with {applied_path(file).name}")
        return kept


def store_applied(file: Path, text: str) -> None:
    """Keep a text that was applied; the one before it is kept too. Raises ConfigError where that cannot be written."""
    applied, before = applied_path(file), before_path(file)
    try:
        if applied.exists():
            if applied.read_text(encoding="utf-8") == text:
                return
            applied.replace(before)
        write_whole(applied, text)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{applied}: {e}, want a file that we may write") from e


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
