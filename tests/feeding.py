"""What the tests of the feeds share: a ledger whose clock stands where we put it, and feeds of replay servers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from structlog.testing import CapturingLogger

from gateway.app.duties.feed import Feed
from gateway.app.duties.feeds import Feeds
from gateway.app.ledger import Ledger
from gateway.clock import WallClock
from gateway.config.feeds import FeedSection
from gateway.model import ClockState, Factor
from gateway.north.factors import SOURCES, Ask, FactorSource, Http, Secret
from gateway.store import projections as tables
from hil.plant.grid.electricity_maps import TOKEN as EMAPS
from hil.plant.grid.entsoe import TOKEN as ENTSOE
from hil.plant.grid.server import GridServer
from hil.plant.grid.watttime import PASSWORD, USER
from tests.ledgering import Hall

S = 1_000_000_000
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
NOW_S = 1_795_341_600 + 1_234  # 2026-11-22T10:20:34Z

KEYS = {"electricitymaps": EMAPS, "entsoe": ENTSOE, "watttime": f"{USER}:{PASSWORD}", "neso": ""}
REGIONS = {"electricitymaps": "DE", "entsoe": "10Y1001A1001A82H", "watttime": "DE", "neso": "GB"}
GRANULARITIES = {"electricitymaps": "PT1H", "entsoe": "PT15M", "watttime": "PT1H", "neso": "PT30M"}


@dataclass
class Stand:
    """A ledger, a clock, a provider and one feed of it."""

    folder: Path
    provider: str
    server: GridServer
    section: FeedSection
    hall: Hall
    now_s: int = NOW_S
    patience_s: float = 30.0
    said: CapturingLogger = field(default_factory=CapturingLogger)
    feeds: Feeds = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start the duty, as after a restart of the ledger."""
        self.ledger.clock = WallClock(
            wall=lambda: self.now_s * S, steady=lambda: self.now_s * S, state=lambda: (ClockState.SYNCHRONISED, 0)
        )
        log: Any = structlog.wrap_logger(
            self.said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        self.feeds = Feeds(
            {"grid": self.section},
            self.ledger,
            log,
            location=self.folder / "location.json",
            openers=dict.fromkeys(SOURCES, self._open),
            environ={"CARBON_API_KEY": KEYS[self.provider]} if environ is None else environ,
            retry_s=0.01,
        )

    def _open(self, ask: Ask, secret: Secret) -> FactorSource:
        return SOURCES[self.provider](ask, secret, http=Http(ask.base, name=self.provider, patience_s=self.patience_s))

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.hall.ledger

    @property
    def feed(self) -> Feed:
        """The feed."""
        return self.feeds.feeds["grid"]

    def pass_time(self, seconds: int) -> None:
        """Let the clock go on."""
        self.now_s += seconds

    def events(self) -> list[Mapping[str, Any]]:
        """Return the events of feeds in the ledger's log, but for since when a region holds: see regions."""
        return [
            {"event": what, **about}
            for what, about in self._sealed()
            if what.startswith(("feed.", "location.")) and what != "feed.region"
        ]

    def regions(self) -> list[tuple[int, str]]:
        """Return since when which region holds, by the ledger's log."""
        return [(about["since"], about["region"]) for what, about in self._sealed() if what == "feed.region"]

    def located(self) -> list[Mapping[str, Any]]:
        """Return what was said of locations."""
        return [about for what, about in self._sealed() if what == "location.set"]

    def _sealed(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(leaf.body["what"], leaf.body["about"]) for leaf in self.hall.own("event")]

    def whats(self, event: str) -> list[str]:
        """Return the conditions of such events."""
        return [found.get("what", "") for found in self.events() if found["event"] == event]

    def logged(self) -> list[str]:
        """Return the conditions logged, in order."""
        lines = [call.kwargs for call in self.said.calls]
        return [line.get("what", line["event"]) for line in lines]

    def factors(self, *, forecasts: bool = False) -> list[Factor]:
        """Return the feed's factors in force, in order of time."""
        with self.ledger.book.reading() as connection:
            found = {(leaf.factor.key, leaf.factor.start_ns): leaf.factor for leaf in tables.factors(connection)}
        mine = [factor for factor in found.values() if factor.key[0] == self.provider]
        kept = [factor for factor in mine if forecasts or factor.state != "forecast"]
        return sorted(kept, key=lambda factor: factor.start_ns)

    def asked(self, part: str) -> list[Mapping[str, str]]:
        """Return the queries of requests whose path holds part."""
        return [request.query for request in self.server.requests if part in request.path]


@asynccontextmanager
async def standing(folder: Path, provider: Any = "electricitymaps", **more: Any) -> AsyncIterator[Stand]:
    """Give a stand, closed at the end. more: of the feed's section."""
    holder: list[Stand] = []
    server = GridServer(provider, now_s=lambda: holder[0].now_s if holder else NOW_S, slow_s=2.0)
    async with server:
        section = FeedSection(
            provider=provider,
            zone="HOME",
            region=REGIONS[provider],
            url=server.url,
            **more,
        )
        hall = Hall(folder / "ledger")
        try:
            holder.append(Stand(folder, provider, server, section, hall))
            yield holder[0]
            await holder[0].feed.close()
        finally:
            hall.ledger.close()
