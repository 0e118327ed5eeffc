"""`[feeds.<name>]` of ledger.toml: where grid factors are fetched."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.values import Section, Text


class FeedSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[feeds.<name>]`: one provider's factors for one zone.

    zone: ours, as lines name it. region: the provider's own name for it; "" for the zone's. url: of its API.
    credentials: a file with mode 0600; without it the environment.
    """

    provider: Literal["electricitymaps", "watttime", "neso", "entsoe"]
    zone: Text
    region: Text = ""
    url: Annotated[str, Meta(pattern=r"^https?://[!-~]{1,200}\Z", description="https://...")] | None = None
    period_s: Annotated[int, Meta(ge=300, le=3600)] = 300
    signal: Literal["average", "marginal"] = "average"
    type: Literal["lifecycle", "direct"] = "lifecycle"
    credentials: Path | None = None
