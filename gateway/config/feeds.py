"""`[feeds.<name>]` of ledger.toml: where grid factors are fetched."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.plan.scopes import Exact, exact
from gateway.config.values import Section, Text
from gateway.errors import ConfigError

_OFFERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "electricitymaps": (("average",), ("lifecycle", "direct")),
    "watttime": (("average", "marginal"), ("direct",)),
    "neso": (("average",), ("direct",)),
    "entsoe": (("average",), ("lifecycle", "direct")),
}
"""What a provider has: signals, and types of factors, the usual one first."""

_REGIONS = {
    "electricitymaps": (r"[A-Z0-9][A-Z0-9-]{0,39}", "a zone such as DE or US-CAL-CISO"),
    "watttime": (r"[A-Z0-9][A-Z0-9_]{0,39}", "a region such as CAISO_NORTH"),
    "neso": (r"GB|[1-9]|1[0-7]", "GB, or a region from 1 to 17"),
    "entsoe": (r"[0-9]{2}[A-Z][A-Z0-9-]{12}[A-Z0-9]", "an EIC code such as 10Y1001A1001A82H"),
}
LOCATING = ("electricitymaps", "watttime")
"""Who can say which region covers a place."""

_CLEAR = re.compile(r"http://(127\.[0-9]+\.[0-9]+\.[0-9]+|localhost|\[::1\])(:[0-9]+)?(/.*)?\Z")


class FeedSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[feeds.<name>]`: one provider's factors for one zone.

    zone: ours, as lines name it. region: the provider's own name for it; "" for the zone's. url: of its API.
    type: None for what the provider has, lifecycle where it has both. credentials: a file with mode 0600; without it
    the environment. uncertainty_pct: half of the 95 % interval of its values, as the operator knows it.
    """

    provider: Literal["electricitymaps", "watttime", "neso", "entsoe"]
    zone: Text
    region: Text = ""
    url: Annotated[str, Meta(pattern=r"^https?://[!-~]{1,200}\Z", description="https://...")] | None = None
    period_s: Annotated[int, Meta(ge=300, le=3600)] = 300
    signal: Literal["average", "marginal"] = "average"
    type: Literal["lifecycle", "direct"] | None = None
    credentials: Path | None = None
    uncertainty_pct: Exact | None = None

    @property
    def uncertainty(self) -> Decimal | None:
        """The uncertainty of its factors."""
        return None if self.uncertainty_pct is None else exact(self.uncertainty_pct)

    @property
    def asked_region(self) -> str:
        """What the provider is asked for."""
        return self.region or self.zone

    @property
    def factor_type(self) -> str:
        """The type of its factors."""
        return self.type or _OFFERS[self.provider][1][0]


def check_feeds(feeds: Mapping[str, FeedSection], where: str) -> None:
    """Refuse what no provider offers, and two feeds that say the same. Raises ConfigError."""
    seen: dict[tuple[str, ...], str] = {}
    for name, feed in feeds.items():
        signals, types = _OFFERS[feed.provider]
        if feed.signal not in signals:
            raise ConfigError(
                f"{where}.{name}.signal: got {feed.signal}, want {signals[0]}: {feed.provider} has no other"
            )
        if feed.factor_type not in types:
            raise ConfigError(f"{where}.{name}.type: got {feed.type}, want {types[0]}: {feed.provider} has no other")
        if feed.region or feed.provider not in LOCATING:  # else `set-location` may pin one
            check_region(feed.provider, feed.asked_region, f"{where}.{name}.region")
        if feed.url is not None and feed.url.startswith("http:") and not _CLEAR.match(feed.url):
            raise ConfigError(f"{where}.{name}.url: got {feed.url}, want https: a key would go in the clear")
        key = (feed.provider, feed.zone, feed.signal, feed.factor_type)
        if key in seen:
            raise ConfigError(f"{where}.{name}: got the factors of [feeds.{seen[key]}] again, want each once")
        seen[key] = name


def check_region(provider: str, region: str, where: str) -> None:
    """Refuse a region that cannot be one of the provider's. Raises ConfigError."""
    pattern, want = _REGIONS[provider]
    if not re.fullmatch(pattern, region):
        raise ConfigError(f"{where}: got {region!r}, want {want}")
