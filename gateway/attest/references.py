"""Reference values: what a device of a model looks like that runs one of our releases. Read from reference.toml.

Several releases may be good at once, as they are while an update goes round. docs/references.md has the format.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.attest.eventlog import TYPES
from gateway.config.convert import convert, shown, toml
from gateway.config.reference import EventSection, ReleaseSection
from gateway.errors import ConfigError

MAX_TEXT = 4 * 1024 * 1024
MAX_RELEASES = 1000
MAX_VALUES = 256
MAX_RULES = 64
_TYPES = {name: number for number, name in TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """What the events of one PCR must be. rule: required, forbidden or only. type: None for any.

    A type is not measured: whoever hands in a log may call an event what they like. So only `required`, which a type
    makes stricter, may ask for one.
    """

    pcr: int
    rule: str
    digests: frozenset[bytes]
    type: int | None
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release for one model. Good from from_s on and before until_s, Unix seconds; None is for ever.

    pcrs: what each may be; others are not judged. counters: the least value by NV index. resets: None for any.
    """

    name: str
    version: str
    model: str
    from_s: int
    until_s: int | None
    pcrs: Mapping[int, frozenset[bytes]]
    events: tuple[EventRule, ...]
    tls: frozenset[str]
    counters: Mapping[int, int]
    resets: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """All releases that a verifier knows. policy: the file's name and hash, which results carry."""

    releases: tuple[Release, ...]
    policy: str


def parse_references(text: str, *, name: str) -> References:
    """Return what a reference.toml says. name: the file's, for messages. Raises ConfigError."""
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{name}: got {len(text)} characters, want at most {MAX_TEXT}")
    table = toml(text, name)
    for key in table:
        if key != "release":
            raise ConfigError(f"{name}: {shown(key)}: got an unknown section, want [[release]]")
    found = table.get("release")
    if type(found) is not list or not 1 <= len(found) <= MAX_RELEASES:
        raise ConfigError(f"{name}: release: got {shown(found)}, want 1 to {MAX_RELEASES} sections [[release]]")
    releases: dict[tuple[str, str], Release] = {}
    for number, one in enumerate(found):
        release = _release(one, f"{name}: release[{number}]")
        if releases.setdefault((release.model, release.name), release) is not release:
            raise ConfigError(
                f"{name}: release[{number}].name: got {release.name} for {release.model} again, want each once"
            )
    policy = f"{_last_part(name)} sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
    return References(releases=tuple(releases.values()), policy=policy)


def _last_part(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2])[:60]


def _release(table: Any, where: str) -> Release:
    section = convert(table, ReleaseSection, where)
    from_s = int(section.from_.timestamp())
    until_s = None if section.until is None else int(section.until.timestamp())
    if until_s is not None and until_s <= from_s:
        raise ConfigError(f"{where}.until: got {section.until}, want a time after `from`")
    return Release(
        name=section.name,
        version=section.version,
        model=section.model,
        from_s=from_s,
        until_s=until_s,
        pcrs=_pcrs(section.pcrs, f"{where}.pcrs"),
        events=_rules(section.event, f"{where}.event"),
        tls=frozenset(section.tls),
        counters=_counters(section.counters, f"{where}.counters"),
        resets=section.resets,
    )


def _pcrs(table: Mapping[str, Any], where: str) -> dict[int, frozenset[bytes]]:
    found = {}
    if not table:
        raise ConfigError(f"{where}: got none, want at least one PCR: a release is known by them")
    for key, values in table.items():
        if not re.fullmatch(r"[0-9]|1[0-9]|2[0-3]", key):
            raise ConfigError(f"{where}: got the key {shown(key)}, want a PCR's index, 0..23")
        found[int(key)] = _digests([values] if isinstance(values, str) else values, f"{where}.{key}")
    return dict(sorted(found.items()))


def _digests(values: Any, where: str) -> frozenset[bytes]:
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise ConfigError(f"{where}: got {shown(values)}, want a list of 1 to {MAX_VALUES} digests")
    for text in values:
        if type(text) is not str or not re.fullmatch("[0-9a-f]{64}", text):
            raise ConfigError(f"{where}: got {shown(text)}, want SHA-256 in 64 lower-case hexadecimal digits")
    return frozenset(map(bytes.fromhex, values))


def _rules(tables: Any, where: str) -> tuple[EventRule, ...]:
    if not isinstance(tables, list | tuple) or len(tables) > MAX_RULES:
        raise ConfigError(f"{where}: got {shown(tables)}, want at most {MAX_RULES} sections [[release.event]]")
    return tuple(_rule(one, f"{where}[{number}]") for number, one in enumerate(tables))


def _rule(table: Any, where: str) -> EventRule:
    section = convert(table, EventSection, where)
    if section.type is not None and section.rule != "required":
        raise ConfigError(f"{where}.type: got {section.type}, want none: a log may call an event what it likes")
    if section.type is not None and section.type not in _TYPES:
        raise ConfigError(f"{where}.type: got {section.type}, want one that the TCG's profile names")
    return EventRule(
        pcr=section.pcr,
        rule=section.rule,
        digests=_digests(section.digests, f"{where}.digests"),
        type=None if section.type is None else _TYPES[section.type],
        about=section.about,
    )


def _counters(table: Mapping[str, Any], where: str) -> dict[int, int]:
    """Return the floors. An NV index stands in hexadecimal, as tpm2-tools print it."""
    found = {}
    for key, least in table.items():
        if not re.fullmatch(r"0x01[0-9a-f]{6}", key):
            raise ConfigError(f"{where}: got the key {shown(key)}, want an NV index such as 0x01800001")
        if type(least) is not int or not 0 <= least < 2**63:
            raise ConfigError(f"{where}.{key}: got {shown(least)}, want a whole number from 0")
        found[int(key, 16)] = least
    return dict(sorted(found.items()))
