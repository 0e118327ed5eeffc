"""location.json: which region of a provider's each feed is pinned to, as `set-location` asked for it."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from gateway.config.feeds import LOCATING, check_region
from gateway.errors import ConfigError

NAME = "location.json"
"""Beside the ledger's logs, in its state folder."""

_KEYS = {"latitude", "longitude", "set_at", "regions"}
_PIN_KEYS = {"provider", "region", "name"}
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A provider's region. name: for people."""

    provider: str
    region: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place in degrees, as decimal text; when it was set, ISO 8601 in UTC; and the region of each feed."""

    latitude: str
    longitude: str
    set_at: str
    regions: Mapping[str, Pin]


def degrees(text: str, most: int, where: str) -> str:
    """Return a number of degrees from -most to most, as decimal text. Raises ConfigError."""
    if not re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{1,12})?", text) or abs(Decimal(text)) > most:
        raise ConfigError(f"{where}: got {text!r:.40}, want a number of degrees from -{most} to {most}")
    return text


def format_location(location: Location) -> str:
    """Return the file's content."""
    return json.dumps(asdict(location), indent=2, sort_keys=True) + "\n"


def parse_location(content: str) -> Location:
    """Return what the file says. Raises ConfigError."""
    try:
        found = json.loads(content) if len(content) <= _MOST_BYTES else None
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{NAME}: not JSON: {e}") from e
    if not isinstance(found, dict) or set(found) != _KEYS or not isinstance(found["regions"], dict):
        raise ConfigError(f"{NAME}: want an object with {', '.join(sorted(_KEYS))}, as `set-location` writes it")
    return Location(
        latitude=degrees(_text(found["latitude"], "latitude"), 90, f"{NAME}: latitude"),
        longitude=degrees(_text(found["longitude"], "longitude"), 180, f"{NAME}: longitude"),
        set_at=_text(found["set_at"], "set_at"),
        regions={_name(name): _pin(pin, f"regions.{name}") for name, pin in found["regions"].items()},
    )


def _pin(found: Any, where: str) -> Pin:
    if not isinstance(found, dict) or set(found) != _PIN_KEYS:
        raise ConfigError(f"{NAME}: {where}: want an object with {', '.join(sorted(_PIN_KEYS))}")
    provider = _text(found["provider"], f"{where}.provider")
    if provider not in LOCATING:
        raise ConfigError(f"{NAME}: {where}.provider: got {provider!r}, want one of {', '.join(LOCATING)}")
    region = _text(found["region"], f"{where}.region")
    check_region(provider, region, f"{NAME}: {where}.region")
    return Pin(provider=provider, region=region, name=_text(found["name"], f"{where}.name"))


def _name(found: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", found):
        raise ConfigError(f"{NAME}: regions: got the name {found!r:.70}, want that of a feed")
    return found


def _text(found: Any, where: str) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= 60 or not found.isprintable():
        raise ConfigError(f"{NAME}: {where}: got {found!r:.70}, want text of 1 to 60 characters")
    return found
