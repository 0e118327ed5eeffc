"""The seam between the ledger and its duties."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway.carbon.facts import Facts, Touched
from gateway.clock import WallClock
from gateway.model import Factor
from gateway.store.projections import Projections

if TYPE_CHECKING:
    from gateway.app.ledgercounts import LedgerCounts


class Desk(Protocol):
    """What a duty may use: the ledger itself. All calls come from the ledger's own loop, between messages.

    facts: in force. book: the tables, to read. counts: what the metrics show.
    """

    clock: WallClock
    counts: "LedgerCounts"

    @property
    def facts(self) -> Facts:
        """What is in force."""
        ...

    @property
    def touched(self) -> Sequence[tuple[int, Touched]]:
        """What each fact may change, by its leaf's index in the ledger's log, in its order."""
        ...

    @property
    def ends(self) -> Mapping[tuple[str, str], int]:
        """Where each line's newest cell ends, by gateway and line: whether there is anything new, without a query."""
        ...

    @property
    def book(self) -> Projections:
        """The tables, to read."""
        ...

    def held(self, gateway: str) -> int:
        """Return how many leaves of a gateway are durable here; 0 for one that is not in ledger.toml."""
        ...

    def offer(self, factors: Sequence[Factor]) -> int:
        """Seal those that are new, compute what they touch; return how many. Raises ConfigError: see FactBook.news."""
        ...

    def seal(self, kind: str, body: bytes) -> int | None:
        """Seal a leaf in the ledger's log, durable and computed with when this returns; return its index.

        `prev` is found by the leaf's chain. None, where there is no room: to be offered again.
        """
        ...

    def seal_all(self, leaves: Sequence[tuple[str, bytes]]) -> list[int] | None:
        """Seal leaves, as kind and body, as `seal` does, all at once."""
        ...


class Duty(Protocol):
    """Something that the ledger does beside its messages."""

    name: str

    def look(self, now_ns: int) -> None:
        """Do what is due: called after each commit, and every few seconds. Must be quick; may seal."""
        ...

    async def run(self) -> None:
        """Serve or fetch until cancelled; a duty without sockets returns at once."""
        ...


@runtime_checkable
class Listener(Protocol):
    """A duty that hears messages of the broker, beside those of the gateways."""

    @property
    def filters(self) -> Sequence[str]:
        """The topics to subscribe to."""
        ...

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message that is no gateway's, if the topic is ours. Must be quick."""
        ...
