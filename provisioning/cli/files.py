"""What the commands read and write, and how it is said when that fails."""

from pathlib import Path

import click

from gateway.errors import ConfigError

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def read(path: Path) -> bytes:
    """Return a file. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e


def write(path: Path, content: bytes) -> None:
    """Write a file, in a folder that is made if need be. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a file that can be written") from e
