"""The seam between the ledger and its duties."""

from collections.abc import Sequence
from typing import Protocol

from gateway.carbon.facts import Facts
from gateway.clock import WallClock
from gateway.model import Factor
from gateway.store.projections import Projections


class Desk(Protocol):
    """What a duty may use: the ledger itself. All calls come from the ledger's own loop, between messages.

    facts: in force. book: the tables, to read.
    """

    clock: WallClock

    @property
    def facts(self) -> Facts:
        """What is in force."""
        ...

    @property
    def book(self) -> Projections:
        """The tables, to read."""
        ...

    def offer(self, factors: Sequence[Factor]) -> int:
        """Seal those that are new, compute what they touch; return how many. Raises ConfigError: see FactBook.news."""
        ...

    def seal(self, kind: str, body: bytes) -> int | None:
        """Seal a leaf in the ledger's log, durable and computed with when this returns; return its index.

        `prev` is found by the leaf's chain. None, where there is no room: to be offered again.
        """
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
