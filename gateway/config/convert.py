"""From TOML to structs, with messages for people: where, got, want."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.errors import ConfigError

_T = TypeVar("_T")
_S = TypeVar("_S", bound=msgspec.Struct)

_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "a table"}


# tomllib takes quadratic time for a key of many parts: a minute for one of 60 KB.
_LONG_KEY = re.compile(r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){33}""")


def toml(text: str, name: str) -> dict[str, Any]:
    """Return what a TOML text says. Raises ConfigError."""
    if (long := _LONG_KEY.search(text)) is not None:
        raise ConfigError(f"{name}: got a key of more than 32 parts, {shown(long[0])}, want a shorter one")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        # ValueError is TOMLDecodeError, and a number of more digits than Python reads.
        raise ConfigError(f"{name}: not TOML: {e}") from e


def tables(text: str, name: str, known: set[str]) -> dict[str, Any]:
    """Return a file's sections; only known ones pass. Raises ConfigError."""
    tables = toml(text, name)
    for key, table in tables.items():
        if key not in known:
            raise ConfigError(f"{name}: {_key(key)}: got an unknown section, want one of {', '.join(sorted(known))}")
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: {key}: got {shown(table)}, want a section [{key}]")
    return tables


def section(tables: Mapping[str, Any], key: str, struct: type[_T], name: str) -> _T:
    """Return the section `[key]`, its defaults where the file has none. Raises ConfigError."""
    return convert(tables.get(key, {}), struct, f"{name}: {key}")


def named(tables: Any, struct: type[_T], where: str) -> dict[str, _T]:
    """Return the sub-tables by name. Raises ConfigError."""
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}: got {shown(tables)}, want a table")
    named = {}
    for key, table in tables.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", key):
            raise ConfigError(f"{where}: got the name {shown(key)}, want lower-case letters, digits, - and _")
        named[key] = convert(table, struct, f"{where}.{key}")
    return named


def placed(section: _S, folder: Path, *paths: str) -> _S:
    """Return the section with its relative paths joined to folder; a path that is None stays so."""
    found = {path: getattr(section, path) for path in paths}
    return msgspec.structs.replace(section, **{path: folder / value for path, value in found.items() if value})


def convert(table: Any, struct: type[_T], where: str) -> _T:
    """Return the table as the struct. Raises ConfigError.

    where: `<file>: <section>`, or `<file>:` for the file itself.
    """
    try:
        return msgspec.convert(table, struct, dec_hook=_dec_hook)
    except msgspec.ValidationError as e:
        raise ConfigError(_message(str(e), table, struct, where)) from None


def _dec_hook(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("a path")


def _message(problem: str, table: Any, struct: type, where: str) -> str:
    """Return where, got, want for what msgspec complains about; its structs hold no others."""
    if match := re.search(r"unknown field `(.*)`\Z", problem, re.DOTALL):
        known = ", ".join(found.encode_name for found in msgspec.structs.fields(struct))
        return f"{_place(where, _key(match[1]))}: got an unknown key, want one of {known}"
    if match := re.search(r"missing required field `(.+)`\Z", problem):
        return f"{_place(where, match[1])}: got nothing, want {_want(struct, match[1], 'a value')}"
    text, at, path = problem.rpartition(" - at `$")
    if not at:
        return f"{where}: got {shown(table)}, want {_words(problem)}"
    keys = re.findall(r"[^.\[\]`]+", path)
    got = table
    for key in keys:
        got = got[int(key) if isinstance(got, list) else key]
    want = _want(struct, keys[0], text) if len(keys) == 1 else _words(text)
    return f"{_place(where, *keys)}: got {shown(got)}, want {want}"


def _place(where: str, *keys: str) -> str:
    return f"{where}{' ' if where.endswith(':') else '.'}{'.'.join(keys)}"


def _key(key: str) -> str:
    """Return a key as a file would have it, on one line."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else shown(key)


def shown(value: Any) -> str:
    """Return a value as a message shows it: one line, and not a long one."""
    try:
        text = repr(value)
    except ValueError:
        return "a number too long to print"  # 0xff... of more digits than Python turns into text
    return text if len(text) <= 100 else f"{text[:97]}..."


def _want(struct: type, key: str, problem: str) -> str:
    """Return in words what the field takes: its description, a range, a choice, or the checker's own words."""
    found = next(field for field in msgspec.structs.fields(struct) if field.encode_name == key)
    description = ""
    for kind in _kinds(inspect.type_info(found.type)):
        if isinstance(kind, inspect.Metadata):
            description = (kind.extra_json_schema or {}).get("description", description)
        if description:
            return description
        if isinstance(kind, inspect.IntType | inspect.FloatType) and kind.ge is not None:
            bounds = f"{kind.ge}..{kind.le}" if kind.le is not None else f"{kind.ge} or more"
            return f"{_words(problem)}, {bounds}" if ", got" in problem else bounds
        if isinstance(kind, inspect.LiteralType):
            return "one of " + ", ".join(map(str, kind.values))
        if isinstance(kind, inspect.EnumType):
            return "one of " + ", ".join(str(member.value) for member in kind.cls)
        if isinstance(kind, inspect.CustomType):
            return "a path"
    return _words(problem)


def _kinds(kind: inspect.Type) -> Iterator[inspect.Type]:
    """Yield a type and what it is made of, the outer ones first."""
    yield kind
    for inner in kind.types if isinstance(kind, inspect.UnionType) else ():
        yield from _kinds(inner)
    if isinstance(kind, inspect.Metadata):
        yield from _kinds(kind.type)


def _words(problem: str) -> str:
    """Return what msgspec wanted, in words: `Expected `int`, got `str`` is "a whole number"."""
    want = problem.removeprefix("Expected ").partition(", got")[0].replace("`", "").removesuffix(" | null")
    return _WORDS.get(want, want).replace("array", "a list")
