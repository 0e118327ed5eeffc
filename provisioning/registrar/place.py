"""A registrar's folder: registrar.toml, the factory's key, the log, and the database when it is SQLite."""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gateway.app.keys import read_signer
from gateway.errors import ConfigError
from gateway.tlog.note import Signer
from provisioning.registrar.database import checked_url
from provisioning.registrar.factorylog import ORIGIN
from provisioning.registrar.registrar import Registrar

_KEYS = {"name", "database", "key", "log"}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
FILE = "registrar.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a registrar keeps what. url: SQLAlchemy's. signer: the factory's key."""

    url: str
    log: Path
    signer: Signer

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what FOLDER/registrar.toml says. Raises ConfigError."""
        path = folder / FILE
        try:
            said = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as e:
            raise ConfigError(f"{path}: {e}, want a registrar's file: provision registrar init") from e
        if said.keys() != _KEYS or not all(type(value) is str and value for value in said.values()):
            raise ConfigError(f"{path}: got {sorted(said)}, want just {sorted(_KEYS)}, all texts")
        name, database = said["name"], said["database"]
        key = folder / said["key"]
        _check_private(key)
        return cls(
            url=database if "://" in database else f"sqlite:///{(folder / database).resolve()}",
            log=folder / said["log"],
            signer=read_signer(key, f"{path}: key", name=f"{ORIGIN}{name}"),
        )

    def open(self) -> Registrar:
        """Return the registrar. Raises ConfigError, LogError."""
        return Registrar.open(self.url, log=self.log, signer=self.signer)


def make_place(folder: Path, *, name: str, database: str = "registrar.sqlite") -> Place:
    """Make a registrar's folder with a new factory key. Raises ConfigError, also where one stands already."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name: got {name[:80]!r}, want lower-case letters, digits and -")
    if '"' in database or "\\" in database or any(ord(c) < 32 for c in database):
        raise ConfigError(f"database: got {database!r}, want a file name or a URL")
    if "://" in database:
        checked_url(database)  # before anything of it is on a disk
    signer = Signer.generate(f"{ORIGIN}{name}")
    text = f'name = "{name}"\ndatabase = "{database}"\nkey = "factory.key"\nlog = "log"\n'
    files = {"factory.key": (signer.to_text(), 0o600), "factory.vkey": (signer.verifier.vkey, 0o644)}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, (content, mode) in {**files, FILE: (text.rstrip("\n"), 0o644)}.items():
            handle = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(f"{content}\n")
    except OSError as e:
        raise ConfigError(f"{folder}: {e.strerror}, want a folder without a registrar") from e
    return Place.read(folder)


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want the factory's key") from e
    if mode & 0o077:
        raise ConfigError(f"{path}: got a key that others may read, want mode 0600")
