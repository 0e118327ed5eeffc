"""From TOML to structs, with messages for people: where, got, want."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.errors import ConfigError

_T = TypeVar("_T")
_S = TypeVar("_S", bound=msgspec.Struct)


def toml(text: str, name: str) -> dict[str, Any]:
    """Return what a TOML text says. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{name}: not TOML: {e}") from e


def tables(text: str, name: str, known: set[str]) -> dict[str, Any]:
    """Return a file's sections; only known ones pass. Raises ConfigError."""
    tables = toml(text, name)
    for key, table in tables.items():
        if key not in known:
            raise ConfigError(f"{name}: {key}: got an unknown section, want one of {', '.join(sorted(known))}")
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: {key}: got {table!r}, want a section [{key}]")
    return tables


def section(tables: Mapping[str, Any], key: str, struct: type[_T], name: str) -> _T:
    """Return the section `[key]`, its defaults where the file has none. Raises ConfigError."""
    return convert(tables.get(key, {}), struct, f"{name}: {key}")


def named(tables: Mapping[str, Any], struct: type[_T], where: str) -> dict[str, _T]:
    """Return the sub-tables by name. Raises ConfigError."""
    named = {}
    for key, table in tables.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", key):
            raise ConfigError(f"{where}: got the name {key!r}, want lower-case letters, digits, - and _")
        named[key] = convert(table, struct, f"{where}.{key}")
    return named


def placed(section: _S, folder: Path, *paths: str) -> _S:
    """Return the section with its relative paths joined to folder."""
    return msgspec.structs.replace(section, **{path: folder / getattr(section, path) for path in paths})


def convert(table: Any, struct: type[_T], where: str) -> _T:
    """Return the table as the struct. Raises ConfigError."""
    try:
        return msgspec.convert(table, struct, dec_hook=_dec_hook)
    except msgspec.ValidationError as e:
        raise ConfigError(_message(str(e), table, struct, where)) from None


def _dec_hook(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("want text")


def _message(problem: str, table: Any, struct: type, where: str) -> str:
    known = ", ".join(found.encode_name for found in msgspec.structs.fields(struct))
    if match := re.search(r"unknown field `(.+?)`", problem):
        return f"{where}.{match[1]}: got an unknown key, want one of {known}"
    if match := re.search(r"missing required field `(.+?)`", problem):
        return f"{where}.{match[1]}: got nothing, want a value"
    text, _, path = problem.partition(" - at `$")
    keys = [key for key in re.split(r"[.\[\]]", path.rstrip("`")) if key and key != "..."]
    got = table
    for key in keys:
        got = got[int(key)] if isinstance(got, list) else got.get(key) if isinstance(got, dict) else got
    place = ".".join([where, *keys])
    return f"{place}: got {got!r}, want {_want(struct, keys[0], text) if keys else text}"


def _want(struct: type, key: str, problem: str) -> str:
    """Return in words what the field takes: a range, a choice, or the checker's own words."""
    for found in msgspec.structs.fields(struct):
        if found.encode_name == key:
            kind = inspect.type_info(found.type)
            if isinstance(kind, inspect.Metadata):
                kind = kind.type
            if isinstance(kind, inspect.IntType | inspect.FloatType) and kind.ge is not None:
                return f"{kind.ge}..{kind.le}" if kind.le is not None else f"{kind.ge} or more"
            if isinstance(kind, inspect.LiteralType):
                return "one of " + ", ".join(map(str, kind.values))
            if isinstance(kind, inspect.EnumType):
                return "one of " + ", ".join(str(member.value) for member in kind.cls)
            description = next((m.description for m in getattr(found.type, "__metadata__", ()) if m.description), None)
            if description:
                return str(description)
    return problem.removeprefix("Expected ").replace("`", "")
