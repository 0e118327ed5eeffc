"""The ledger's feeds of grid factors, and the location that pins their regions."""

import asyncio
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk
from gateway.app.duties.feed import Feed, OpenSource
from gateway.codec.bodies import event_body
from gateway.config import LedgerConfig
from gateway.config.feeds import FeedSection
from gateway.config.location import NAME, Location, Pin, parse_location
from gateway.errors import ConfigError
from gateway.north.factors import SOURCES
from gateway.north.factors.credentials import read_secret
from gateway.store import projections as tables

RETRY_S = 15.0
"""The shortest wait after an error; it doubles up to the feed's period."""
_LOOK_BACK = 10_000
"""So many of the newest events are searched for a location that was sealed already."""


class Feeds:
    """Follows each feed in a task of its own; takes up a changed location.json within seconds.

    openers: the clients by provider; a test's own, for the real ones with another way out.
    """

    name = "feeds"

    def __init__(
        self,
        sections: Mapping[str, FeedSection],
        desk: Desk,
        log: FilteringBoundLogger,
        *,
        location: Path,
        openers: Mapping[str, OpenSource] = SOURCES,
        environ: Mapping[str, str] = os.environ,
        retry_s: float = RETRY_S,
    ) -> None:
        self._desk, self._log, self._path = desk, log, location
        self.feeds = {
            name: Feed(
                name,
                section,
                desk,
                log,
                open_source=openers[section.provider],
                read_secret=partial(
                    read_secret, section.provider, section.credentials, environ, f"feeds.{name}.credentials"
                ),
                retry_s=retry_s,
            )
            for name, section in sections.items()
        }
        self._wakes = {name: asyncio.Event() for name in sections}
        self._seen: tuple[int, int, int] | None = None
        self._wrong = ""
        self._sealed: dict[str, str] | None = None

    def look(self, now_ns: int) -> None:
        """Take up location.json, if it has changed."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            location = parse_location(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return  # no place was set: the regions of ledger.toml stay
        except (OSError, UnicodeDecodeError, ConfigError) as e:
            if str(e) != self._wrong:
                self._log.error("feeds.location", why=str(e)[:300])
            self._wrong = str(e)
            return
        self._wrong = ""
        if self._take(location, now_ns):
            self._seen = seen

    def _take(self, location: Location, now_ns: int) -> bool:
        """Pin the regions; return whether all is sealed that is new."""
        for name, pin in location.regions.items():
            feed = self.feeds.get(name)
            if feed is None or feed.section.provider != pin.provider:
                continue  # a feed of before: ledger.toml has changed since
            feed.pin(pin.region, now_ns)
            self._wakes[name].set()
            if not self._seal(name, pin, location, now_ns):
                return False
        return True

    def _seal(self, name: str, pin: Pin, location: Location, now_ns: int) -> bool:
        """Seal `location.set`, once for each time that it was set; return whether it is sealed."""
        about = {
            "feed": name,
            "provider": pin.provider,
            "region": pin.region,
            "name": pin.name,
            "latitude": location.latitude,
            "longitude": location.longitude,
            "set_at": location.set_at,
        }
        body = event_body("location.set", now_ns, about)
        if self._sealed is None:
            with self._desk.book.reading() as connection:
                events = tables.events(connection, most=_LOOK_BACK, log="")
            self._sealed = {}
            for event in events:  # the newest first
                if event.what == "location.set":
                    found = json.loads(event.about)
                    self._sealed.setdefault(found["feed"], found["set_at"])
        if self._sealed.get(name) == location.set_at:
            return True
        if self._desk.seal("event", body) is None:
            return False
        self._sealed[name] = location.set_at
        self._log.info("location.set", **about)
        return True

    async def run(self) -> None:
        """Follow the feeds until cancelled."""
        self.look(self._desk.clock.read().t_ns)
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, feed in self.feeds.items():
                    tasks.create_task(self._follow(feed, self._wakes[name]), name=f"feeds.{name}")
        finally:
            for feed in self.feeds.values():
                await feed.close()

    async def _follow(self, feed: Feed, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            wait_s = await feed.turn()
            self._desk.counts.feeds_down = sum(other.is_down for other in self.feeds.values())
            try:
                async with asyncio.timeout(wait_s):
                    await wake.wait()
            except TimeoutError:
                continue


def feeds_of(config: LedgerConfig, desk: Desk, log: FilteringBoundLogger) -> list[Feeds]:
    """Return the duty, none where nothing is to be fetched."""
    return [Feeds(config.feeds, desk, log, location=config.ledger.state / NAME)] if config.feeds else []
