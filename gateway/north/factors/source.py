"""The seam to whoever publishes grid factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from gateway.carbon.grid.answers import Window
from gateway.model import Factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Degrees, north and east positive."""

    latitude: Decimal
    longitude: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What a provider calls the region of a place. id: as requests name it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one source is asked for, always.

    base: of the API's URL, "" for the provider's own. zone: ours. region: the provider's, pinned.
    """

    base: str
    zone: str
    region: str
    signal: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What a provider knows us by: a user and password, or a token alone. Never shown."""

    user: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Secret(...)"


class FactorSource(Protocol):
    """One provider's factors for one region.

    All methods raise AnswerError, whose `what` names the condition, and never return a guess: a value that is null
    is no factor.
    """

    async def fetch(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return what is known of a window's past, each window of a factor once, in order of time."""
        ...

    async def forecast(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return what is forecast for a window; nothing where the provider forecasts nothing."""
        ...

    async def locate(self, place: Place) -> Region:
        """Return the region that covers a place, never that of our own address."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
