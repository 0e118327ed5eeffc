"""Where the commands get a password or PIN from: a file, the environment, or a person at a terminal; no argument."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from provisioning.ca import Unlock

ISSUING = "WATTSEAL_CA_UNLOCK"
ROOT = "WATTSEAL_ROOT_UNLOCK"

unlock_option = click.option(
    "--unlock",
    "unlock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"A file, 0600, with the key's password or the token's PIN; else {ISSUING} or {ISSUING}_FILE is asked.",
)


def find_unlock(path: Path | None, what: str, *, variable: str = ISSUING, new: bool = False) -> "Unlock":
    """Return the password or PIN of a key. new: it is to be said twice. Raises ConfigError where nobody says it."""
    from provisioning.ca import Unlock

    found = Unlock.find(os.environ, variable=variable) if path is None else Unlock.read(path)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise ConfigError(f"{what}: got no password or PIN, want --unlock FILE, {variable} or {variable}_FILE")
    said = click.prompt(f"Password or PIN of {what}", hide_input=True, err=True, confirmation_prompt=new)
    return Unlock(secret=said)
