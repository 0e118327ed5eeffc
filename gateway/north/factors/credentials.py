"""What a provider knows us by: from a file of mode 0600, or from the environment. No message quotes it."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gateway.errors import ConfigError
from gateway.north.factors.source import Secret

VARIABLE = "CARBON_API_KEY"
USER_VARIABLE, PASSWORD_VARIABLE = "WATTTIME_USER", "WATTTIME_PASSWORD"
_MOST_BYTES = 4_096
_NEEDS = {"electricitymaps": "token", "entsoe": "token", "watttime": "user:password", "neso": ""}


def read_secret(provider: str, path: Path | None, environ: Mapping[str, str], where: str) -> Secret:
    """Return a provider's credentials; empty ones for a provider that needs none.

    path: of the file; None: the environment. where: of the configuration, for messages. Raises ConfigError.
    """
    form = _NEEDS[provider]
    if not form:
        return Secret()
    if path is not None:
        return _parsed(_content(path, where), form, f"{where}: got {path}")
    if provider == "watttime" and environ.get(USER_VARIABLE):
        text = f"{environ[USER_VARIABLE]}:{environ.get(PASSWORD_VARIABLE, '')}"
        return _parsed(text, form, f"{USER_VARIABLE}, {PASSWORD_VARIABLE}")
    if environ.get(VARIABLE):
        return _parsed(environ[VARIABLE], form, VARIABLE)
    names = VARIABLE if provider != "watttime" else f"{USER_VARIABLE} and {PASSWORD_VARIABLE}, or {VARIABLE}"
    raise ConfigError(
        f"{where}: got nothing, want a file of mode 0600 with {provider}'s {form}, or {names} in the environment"
    )


def _content(path: Path, where: str) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise ConfigError(
                    f"{where}: got {path} with mode {stat.S_IMODE(mode):04o}, want a file of mode 0600: "
                    f"chmod 600 {path}"
                )
            content = os.read(handle, _MOST_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as e:
        raise ConfigError(f"{where}: got {path}: {e.strerror}, want a readable file of mode 0600") from e
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{where}: got {path}, more than {_MOST_BYTES} bytes, want one line")
    return content.decode("utf-8", "replace").strip()


def _parsed(text: str, form: str, where: str) -> Secret:
    fits = 0 < len(text) <= _MOST_BYTES and text.isascii() and text.isprintable()
    if form == "token":
        if not fits or " " in text:
            raise ConfigError(f"{where}: want one token, printable and without a space")
        return Secret(token=text)
    user, colon, password = text.partition(":")
    if not fits or not user or not colon or not password:
        raise ConfigError(f"{where}: want user:password, printable")
    return Secret(user=user, token=password)
