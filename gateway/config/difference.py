"""What differs between two configurations of a gateway, and what of it can change while it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.config.sections import GatewayConfig
from gateway.model import LineSchema

_RESTART: Final = ("gateway", "collect", "seal", "attest", "forward", "interval", "opcua", "bacnet", "agents")
"""Sections that a process reads once, at its start."""

WHATS: Final = ("added", "removed", "changed")

Keys = Mapping[str, tuple[Any, Any]]
"""By key: what it was and what it will be; None where it is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One device or line that differs. name: as in the file, `devices.m1`. what: added, removed or changed."""

    name: str
    what: str
    keys: Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """From one configuration to another.

    changes: devices first, then lines, each in the order of their names. restart: what only a restart can change.
    """

    changes: tuple[Delta, ...]
    restart: tuple[Delta, ...]

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.changes or self.restart)


def difference(old: GatewayConfig, new: GatewayConfig) -> Difference:
    """Return what differs from old to new. A device also differs where its template does."""
    return Difference(
        changes=(
            *_between("devices.", _devices(old), _devices(new)),
            *_between("lines.", _lines(old), _lines(new)),
        ),
        restart=tuple(_between("", _sections(old), _sections(new))),
    )


def _between(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Delta]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before != after:
            what = "added" if before is None else "removed" if after is None else "changed"
            yield Delta(name=f"{prefix}{name}", what=what, keys=dict(_keys("", before or {}, after or {})))


def _keys(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _keys(f"{prefix}{key}.", before, after)
        else:
            yield f"{prefix}{key}", (before, after)


def _devices(config: GatewayConfig) -> dict[str, Any]:
    return {
        name: _plain(section) | {"map": _plain(config.templates[section.template])}
        for name, section in config.devices.items()
    }


def _lines(config: GatewayConfig) -> dict[str, Any]:
    return {name: _line(line) for name, line in config.lines.items()}


def _line(line: LineSchema) -> dict[str, Any]:
    columns = {
        f"{column.role}.{column.point}": {
            "unit": column.unit,
            "modulus": None if column.modulus is None else str(column.modulus),
            "rated_power_w": column.rated_power_w,
            "meter_class": column.meter_class,
            "serial": column.serial,
        }
        for column in line.columns
    }
    context = {str(column.what): column.point for column in line.context}
    return {"site": line.site, "zone": line.zone, "period_s": line.period_s, "columns": columns, **context}


def _sections(config: GatewayConfig) -> dict[str, Any]:
    return {key: _plain(section) for key in _RESTART if (section := getattr(config, key)) is not None}


def _plain(section: msgspec.Struct) -> dict[str, Any]:
    """Return a section as tables and plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(section, enc_hook=str)
    return plain
