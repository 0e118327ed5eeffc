"""Which provider's region covers a place: asked, shown, and pinned for a ledger's feeds."""

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.app.load import load_ledger
from gateway.config import LedgerConfig
from gateway.config.feeds import LOCATING, FeedSection, check_region
from gateway.config.location import NAME, Location, Pin, format_location, parse_location
from gateway.errors import ConfigError
from gateway.north.factors import SOURCES, Ask, Place, Region
from gateway.north.factors.credentials import read_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What was found. path: of location.json. skipped: feeds whose provider knows no places."""

    location: Location
    path: Path
    skipped: tuple[str, ...]


async def locate(file: Path, place: Place, *, provider: str | None, environ: Mapping[str, str] = os.environ) -> Located:
    """Ask the providers of a ledger's feeds which region covers a place; write nothing.

    provider: ask this one alone. Raises ConfigError, and LinkError where a provider does not say.
    """
    config = load_ledger(file)
    asked = {name: feed for name, feed in config.feeds.items() if provider in {None, feed.provider}}
    if not asked:
        raise ConfigError(f"{file.name}: feeds: got none{f' of {provider}' if provider else ''}, want [feeds.<name>]")
    able = {name: feed for name, feed in asked.items() if feed.provider in LOCATING}
    if not able:
        raise ConfigError(
            f"{file.name}: feeds: {', '.join(sorted({feed.provider for feed in asked.values()}))} has no look-up of "
            f"places, want region in [feeds.{next(iter(asked))}], or a feed of {' or '.join(LOCATING)}"
        )
    pins = dict(_pinned(config))
    for name, feed in able.items():
        region = await _ask(name, feed, place, environ)
        pins[name] = Pin(provider=feed.provider, region=region.id, name=region.name)
    location = Location(
        latitude=format(place.latitude, "f"),
        longitude=format(place.longitude, "f"),
        set_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        regions={name: pin for name, pin in pins.items() if name in config.feeds},
    )
    return Located(location=location, path=config.ledger.state / NAME, skipped=tuple(sorted(set(asked) - set(able))))


def write(located: Located) -> None:
    """Write location.json, whole or not at all; a running ledger takes it up. Raises ConfigError."""
    folder = located.path.parent
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder, want the ledger's state: run it once, or make the folder")
    unfinished = located.path.with_name(f".{NAME}.new")
    try:
        owner = folder.stat()
        with unfinished.open("w", encoding="utf-8") as out:
            out.write(format_location(located.location))
            out.flush()
            os.fsync(out.fileno())
            if os.geteuid() == 0:
                os.fchown(out.fileno(), owner.st_uid, owner.st_gid)  # the ledger reads it as its own
        unfinished.replace(located.path)
    except OSError as e:
        raise ConfigError(f"{located.path}: {e.strerror}, want a folder that we may write") from e


def _pinned(config: LedgerConfig) -> Mapping[str, Pin]:
    """Return what is pinned already: another provider's pins stay."""
    try:
        return parse_location((config.ledger.state / NAME).read_text(encoding="utf-8")).regions
    except (OSError, UnicodeDecodeError, ConfigError):
        return {}  # none yet, or one of no use: it is about to be replaced


async def _ask(name: str, feed: FeedSection, place: Place, environ: Mapping[str, str]) -> Region:
    secret = read_secret(feed.provider, feed.credentials, environ, f"feeds.{name}.credentials")
    ask = Ask(base=feed.url or "", zone=feed.zone, region="", signal=feed.signal, type=feed.factor_type)
    async with AsyncExitStack() as stack:
        source = SOURCES[feed.provider](ask, secret)
        stack.push_async_callback(source.close)
        region = await source.locate(place)
    check_region(feed.provider, region.id, f"{feed.provider}: region")
    return region
