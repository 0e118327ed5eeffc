"""One feed: what it asks for when, what it offers to the ledger, and how it stands."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway.app.backoff import Backoff
from gateway.app.duties.duty import Desk
from gateway.carbon.grid.answers import DAY_NS, HOUR_NS, AnswerError, Window
from gateway.carbon.grid.regions import Regions
from gateway.carbon.grid.repoll import due
from gateway.codec.bodies import event_body
from gateway.config.feeds import FeedSection, check_region
from gateway.errors import ConfigError
from gateway.model import Factor
from gateway.north.factors import Ask, FactorSource, Secret
from gateway.store import projections as tables

MOST_BACK_NS = 30 * DAY_NS
"""After a stop, so far back is asked for what was missed."""
MOST_DUE = 64
"""So many windows of history wait at most; the oldest go first."""

# A provider's last day begins somewhere within its first hours.
_OVERLAP_NS = 2 * HOUR_NS

# These last until somebody acts: the rest of history and the forecasts may go without, while the feed itself is up.
_LASTING = frozenset({"unauthorised", "forbidden", "unknown", "refused", "empty"})

OpenSource = Callable[[Ask, Secret], FactorSource]


class Feed:
    """Polls when told to. Errors are conditions: each is said once as long as it lasts, and nothing stays stuck.

    open_source: makes the client. read_secret: reads the credentials anew; raises ConfigError.
    """

    def __init__(
        self,
        name: str,
        section: FeedSection,
        desk: Desk,
        log: FilteringBoundLogger,
        *,
        open_source: OpenSource,
        read_secret: Callable[[], Secret],
        retry_s: float,
    ) -> None:
        self.name, self.section, self._desk, self._log = name, section, desk, log
        self._open_source, self._read_secret = open_source, read_secret
        self._backoff = Backoff(least_s=retry_s, most_s=max(retry_s, float(section.period_s)))
        self._region = section.asked_region
        self._asked_ns: int | None = None
        self._regions = Regions()
        self._sources: dict[str, FactorSource] = {}
        self._said: dict[str, set[str]] = {}
        self._since_ns: int | None = None
        self._oldest_ns = self._repolled_ns = 0
        self._is_given_up = False
        self._hour_ns = 0
        self._due: list[tuple[str, Window]] = []

    @property
    def is_down(self) -> bool:
        """Whether the newest poll failed."""
        return "latest" in self._said

    def pin(self, region: str, now_ns: int) -> None:
        """Ask for this region from the next poll on; for what was before, the one before."""
        if region != self._region:
            self._region, self._asked_ns, self._hour_ns = region, now_ns, 0

    async def close(self) -> None:
        """Close the connections."""
        sources, self._sources = self._sources, {}
        for source in sources.values():
            await source.close()

    async def turn(self) -> float:
        """Ask for what is due; return after how many seconds to come again."""
        counts, now_ns = self._desk.counts, self._desk.clock.read().t_ns
        counts.feed_polls += 1
        try:
            source = self._opened(self._region)
            await self._latest(source, now_ns)
        except (AnswerError, ConfigError) as e:
            counts.feed_errors += 1
            return await self._failed(e)
        if self._recovered("latest"):
            self._say("feed.up", {"part": "latest"})
        self._backoff.reset()
        wait_s = 0.0
        if now_ns - self._hour_ns >= HOUR_NS:
            self._hour_ns = now_ns
            wait_s = await self._forecast(source, now_ns)
            if not self._due:  # what the last day has of the region before
                before = Window(start_ns=_hour(now_ns - DAY_NS), end_ns=self._regions.since_ns)
                self._due += self._regions.within(before)
        if not wait_s:  # else the account is to be left alone, for history as well
            wait_s = await self._history(now_ns)
        return max(float(self.section.period_s), wait_s)

    def _opened(self, region: str) -> FactorSource:
        """Return the client of a region. Raises ConfigError."""
        section = self.section
        if region not in self._sources:
            check_region(section.provider, region, f"feeds.{self.name}.region")
            ask = Ask(
                base=section.url or "",
                zone=section.zone,
                region=region,
                signal=section.signal,
                type=section.factor_type,
            )
            self._sources[region] = self._open_source(ask, self._read_secret())
        return self._sources[region]

    # ---- what is asked for

    async def _latest(self, source: FactorSource, now_ns: int) -> None:
        """Ask for the last day, and take what is of the time since when the region holds."""
        if self._since_ns is None:
            self._oldest_ns, self._since_ns, self._repolled_ns = self._known(now_ns)
        if self._asked_ns is None:
            self._asked_ns = now_ns
        newest_ns, start_ns = self._since_ns, _hour(now_ns - DAY_NS)
        found = await source.fetch(Window(start_ns=start_ns, end_ns=now_ns), now_ns)
        if not found:
            raise AnswerError(f"{self.section.provider}: no value of the last day", what="empty")
        if self._region != self._regions.newest:  # only now: one that never answered must hold for no time
            self._take_up(now_ns, self._asked_ns)
        found = self._own(found)
        self._offer(found)
        self._oldest_ns = min([self._oldest_ns, *(factor.start_ns for factor in found)])
        if newest_ns < start_ns + _OVERLAP_NS:
            missed_ns = max(_hour(newest_ns), _hour(now_ns - MOST_BACK_NS))
            self._due += self._regions.within(Window(start_ns=missed_ns, end_ns=start_ns + _OVERLAP_NS))
        for window in due(self._repolled_ns, now_ns):
            if window.end_ns > self._oldest_ns:  # what we never had is no revision
                known = replace(window, start_ns=max(window.start_ns, self._oldest_ns))
                self._due += self._regions.within(known)
        self._since_ns = self._repolled_ns = now_ns

    def _take_up(self, now_ns: int, asked_ns: int) -> None:
        """Seal since when the region holds: as a restart, an auditor and an edit of ledger.toml find it."""
        since_ns = self._regions.start(asked_ns)
        about = {**self._key, "region": self._region, "since": since_ns}
        if self._desk.seal("event", event_body("feed.region", now_ns, about)) is None:
            raise AnswerError("the ledger has no room", what="no-room")
        self._regions.take(self._region, since_ns)

    def _own(self, found: Sequence[Factor]) -> Sequence[Factor]:
        """Return those of the time since when the newest region holds."""
        return [factor for factor in found if factor.start_ns >= self._regions.since_ns]

    async def _forecast(self, source: FactorSource, now_ns: int) -> float:
        """Ask for the next day; return for how many seconds the provider wants to be left alone."""
        try:
            self._offer(self._own(await source.forecast(Window(start_ns=now_ns, end_ns=now_ns + DAY_NS), now_ns)))
        except (AnswerError, ConfigError) as e:
            return self._refused("forecast", e, self._region)
        self._recovered("forecast")
        return 0.0

    async def _history(self, now_ns: int) -> float:
        """Ask again for days that may have been revised, each of its own region, and seal that all was answered.

        What fails stays due; what is given up for now is due again after a restart. Returns for how many seconds the
        provider wants to be left alone.
        """
        was_due = bool(self._due)
        self._is_given_up |= len(self._due) > MOST_DUE
        del self._due[:-MOST_DUE]
        while self._due:
            region, window = self._due[0]
            part = "history" if region == self._region else f"history of {region}"
            try:
                source = self._opened(region)
                for day_ns in range(window.start_ns, window.end_ns, DAY_NS):
                    piece = Window(start_ns=day_ns, end_ns=min(day_ns + DAY_NS, window.end_ns))
                    self._offer(await source.fetch(piece, now_ns))
            except (AnswerError, ConfigError) as e:
                wait_s = self._refused(part, e, region)
                if isinstance(e, AnswerError) and e.what not in _LASTING:
                    return wait_s
                self._due = [one for one in self._due if one[0] != region]
                self._is_given_up = True
                continue
            self._due.pop(0)
            self._recovered(part)
        if was_due and not self._is_given_up:
            self._desk.seal("event", event_body("feed.repolled", now_ns, self._key))
        return 0.0

    @property
    def _key(self) -> dict[str, str]:
        """What its factors are known by."""
        section = self.section
        key = {"provider": section.provider, "zone": section.zone}
        return key | {"signal": section.signal, "type": section.factor_type}

    def _known(self, now_ns: int) -> tuple[int, int, int]:
        """Return how the feed stands by the ledger's log, each at most now.

        That is the start of its oldest factor, the end of its newest, and until when all that was due was answered:
        where that was never sealed, since its oldest factor nothing was. Which regions it had is taken up too.
        """
        key = tuple(self._key.values())
        with self._desk.book.reading() as connection:
            factors = [leaf.factor for leaf in tables.factors(connection)]
            events = tables.events_named(connection, "feed.repolled")
            taken = [json.loads(event.about) for event in tables.events_named(connection, "feed.region")]
        for about in taken:
            region, since_ns = about.pop("region"), about.pop("since")
            if about == self._key:
                self._regions.take(region, since_ns)
        known = [factor for factor in factors if factor.key[:4] == key and factor.state != "forecast"]
        oldest_ns = min((factor.start_ns for factor in known), default=now_ns)
        newest_ns = max((factor.end_ns for factor in known), default=now_ns)
        repolled = [event.t_ns for event in events if json.loads(event.about) == self._key]
        if repolled:  # what was missed by then was fetched, what was missed later maybe not
            newest_ns = min(newest_ns, repolled[-1])
        return oldest_ns, min(newest_ns, now_ns), min(repolled[-1] if repolled else oldest_ns, now_ns)

    def _offer(self, factors: Iterable[Factor]) -> None:
        """Offer each window once; a forecast never replaces what is better."""
        table = self._desk.facts.factors
        offered: dict[tuple[Sequence[str], int], Factor] = {}
        for given in factors:
            factor = replace(given, uncertainty_pct=self.section.uncertainty)
            held = table.in_force(factor)
            if factor.state != "forecast" or held is None or held.factor.state == "forecast":
                offered[factor.key, factor.start_ns] = factor
        self._desk.counts.feed_factors += self._desk.offer(list(offered.values()))
        if any(table.in_force(factor) is None for factor in offered.values()):
            raise AnswerError("the ledger has no room", what="no-room")

    # ---- how it stands

    async def _failed(self, e: AnswerError | ConfigError) -> float:
        if about := self._condition("latest", e):
            self._say("feed.down", about)
        wait_s = self._backoff.next_s()
        if isinstance(e, ConfigError):
            return wait_s
        if e.what in {"unauthorised", "forbidden"}:
            await self.close()  # the credentials are read again: they may have been mended
        return max(wait_s, e.wait_s)

    def _refused(self, part: str, e: AnswerError | ConfigError, region: str) -> float:
        """Say once that a part is refused; return for how many seconds the provider wants to be left alone."""
        if about := self._condition(part, e):
            self._say("feed.refused", {**about, "region": region})
        return e.wait_s if isinstance(e, AnswerError) else 0.0

    def _condition(self, part: str, e: AnswerError | ConfigError) -> dict[str, str]:
        """Return what to say of a condition; nothing where it was said, and the part has not recovered since."""
        what = e.what if isinstance(e, AnswerError) else "config"
        said = self._said.setdefault(part, set())
        if what in said:
            return {}
        said.add(what)
        return {"part": part, "what": what, "why": str(e)[:300]}

    def _recovered(self, part: str) -> bool:
        """Return whether a part had failed; it has no longer."""
        return self._said.pop(part, None) is not None

    def _say(self, event: str, about: Mapping[str, Any]) -> None:
        known = {"feed": self.name, "provider": self.section.provider, "region": self._region, **about}
        self._log.warning(event, **known) if event != "feed.up" else self._log.info(event, **known)
        self._desk.seal("event", event_body(event, self._desk.clock.read().t_ns, known))


def _hour(t_ns: int) -> int:
    return t_ns // HOUR_NS * HOUR_NS
