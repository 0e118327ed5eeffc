"""The seam between HTTPS and whoever takes production context; nothing of a web framework in it."""

from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError


class BusyError(GatewayError):
    """Raised when what is well and good cannot be taken now; to be sent again as it is.

    retry_s: when. crowded: the asker sent too much; else there is no room.
    """

    def __init__(self, why: str, *, retry_s: int, crowded: bool) -> None:
        super().__init__(why)
        self.retry_s, self.crowded = retry_s, crowded


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Which leaves of the ledger's log hold the facts of a message: sealed by it, or known from before."""

    sealed: list[int]
    known: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a system said last of a matter. since: ISO 8601, UTC."""

    value: str
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineNow:
    """A line that has sealed an interval.

    said: by matter, what systems said last and holds now. figure_end: until when there are figures, UTC; state to
    shift: what applied there, of all that controllers and systems said and the plan makes of it; "" where unknown.
    """

    gateway: str
    line: str
    site: str
    said: dict[str, Word]
    figure_end: str
    state: str
    product: str
    recipe: str
    job: str
    shift: str


class Clerk(Protocol):
    """Who takes context. All calls come from one loop."""

    def system_of(self, token: str) -> str:
        """Return which system speaks with a token. Raises TrustError for none."""
        ...

    async def take(self, system: str, body: bytes) -> Taken:
        """Seal what is new in a message. Raises MessageError, and then nothing is sealed; BusyError."""
        ...

    def lines(self) -> list[LineNow]:
        """Return the lines that can be spoken of."""
        ...
