"""From the ledger's own leaves to the facts in force: factors, plans, context, and what was stated."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.carbon.facts import Facts, Touched
from gateway.carbon.grid.news import news_of
from gateway.carbon.grid.table import FactorLeaf
from gateway.carbon.standings import Standings
from gateway.codec.leaves import Leaf, parse
from gateway.codec.ledger_leaves import to_context, to_counts, to_document, to_factor, to_statement
from gateway.codec.standing_leaves import to_decision, to_standing
from gateway.errors import TrustError
from gateway.model import Factor
from gateway.store import projections as tables
from gateway.store.projections import Connection, EventRow, OwnLeafRow, StatementRow
from gateway.store.segments import Log

STANDINGS = {"standing", "decision"}
FACTS = {"factor", "document", "context", "counts", *STANDINGS}
OWN = ""
"""The ledger's own log, where the tables name a gateway."""

_READ_BYTES = 4 << 20


@dataclass(slots=True)
class _Rows:
    """What is to be written in one transaction, each table at once."""

    events: list[EventRow] = field(default_factory=list)
    statements: list[StatementRow] = field(default_factory=list)
    factors: list[FactorLeaf] = field(default_factory=list)
    leaves: list[OwnLeafRow] = field(default_factory=list)


class FactBook:
    """The facts of the ledger's own log, in its order.

    unusable: leaves of it that do not fit; they change nothing. touched: by leaf index, what each fact may change.
    judged: by gateway, from which of its leaves on figures may rest on others now; to be emptied by whoever sees to it.
    """

    def __init__(self, own: Log) -> None:
        self._own = own
        self.facts = Facts()
        self.unusable = 0
        self.touched: list[tuple[int, Touched]] = []
        self.judged: dict[str, int] = {}

    def load(self, connection: Connection) -> None:
        """Take up what the tables say was projected."""
        placed = [(row.leaf_index, row.kind) for row in tables.own_leaves(connection)]
        placed += [(leaf.index, "factor") for leaf in tables.factors(connection)]
        for index, kind in sorted(placed):
            for _, leaf in leaves_of(self._own, index, index + 1) if kind in FACTS else ():
                self._enforce(index, leaf)
        for epoch in tables.epochs(connection):
            self.facts.standings.note_epoch(*epoch)

    def project(self, connection: Connection, leaves: Iterable[tuple[int, Leaf]]) -> list[Touched]:
        """Write down what leaves say, the next of the log; return what they may change, `judged` aside."""
        found: list[Touched] = []
        rows = _Rows()
        for index, leaf in leaves:
            try:
                touched = self._take(rows, index, leaf)
            except TrustError:
                self.unusable += 1
                continue
            if leaf.kind in STANDINGS:
                name, first = leaf.body["gateway"], leaf.body["first"]
                self.judged[name] = min(first, self.judged.get(name, first))
            elif touched is not None:
                found.append(touched)
        tables.put_events(connection, rows.events)
        tables.put_statements(connection, rows.statements)
        tables.put_factors(connection, rows.factors)
        tables.put_own_leaves(connection, rows.leaves)
        return found

    def _take(self, rows: _Rows, index: int, leaf: Leaf) -> Touched | None:
        """Note what a leaf says; return what it may change. Raises TrustError for one that does not fit."""
        if leaf.kind == "event":
            rows.events.append(EventRow.of(OWN, index, leaf.body))
            return None
        statement = StatementRow.of(index, to_statement(leaf.body)) if leaf.kind == "statement" else None
        touched = self._enforce(index, leaf)
        if statement is not None:
            rows.statements.append(statement)
        if leaf.kind == "factor" and touched is not None:
            rows.factors.append(self._placed(index, leaf))
        elif leaf.kind in {"document", "context", "counts", "statement", *STANDINGS}:
            rows.leaves.append(OwnLeafRow.of(index, leaf.kind, leaf.prev, leaf.body))
        return touched

    def _enforce(self, index: int, leaf: Leaf) -> Touched | None:
        touched = self._standing(index, leaf) if leaf.kind in STANDINGS else self._fact(index, leaf)
        if touched is not None:
            self.touched.append((index, touched))
        return touched

    def _fact(self, index: int, leaf: Leaf) -> Touched | None:
        match leaf.kind:
            case "factor":
                return self.facts.add_factor(self._placed(index, leaf))
            case "document":
                return self.facts.add_document(index, to_document(leaf.body), self._own.leaf_hash(index))
            case "context":
                return self.facts.add_context(index, to_context(leaf.body))
            case "counts":
                return self.facts.add_counts(index, to_counts(leaf.body))
        return None

    def _standing(self, index: int, leaf: Leaf) -> Touched | None:
        if leaf.kind == "standing":
            return self.facts.add_standing(index, to_standing(leaf.body))
        return self.facts.add_decision(index, to_decision(leaf.body))

    def _placed(self, index: int, leaf: Leaf) -> FactorLeaf:
        return FactorLeaf(factor=to_factor(leaf.body), index=index, hash=self._own.leaf_hash(index))

    def news(self, factors: Iterable[Factor]) -> Sequence[Factor]:
        """Return those that are not in force yet: see news_of."""
        return news_of(self.facts.factors, factors)


def read_standings(own: Log, connection: Connection) -> Standings:
    """Return what the ledger holds of its gateways, as far as the tables go: without all other facts."""
    found = Facts()
    for row in tables.own_leaves(connection, *STANDINGS):
        for index, leaf in leaves_of(own, row.leaf_index, row.leaf_index + 1):
            if leaf.kind == "standing":
                found.add_standing(index, to_standing(leaf.body))
            else:
                found.add_decision(index, to_decision(leaf.body))
    for epoch in tables.epochs(connection):
        found.standings.note_epoch(*epoch)
    return found.standings


def leaves_of(log: Log, first: int, stop: int, *, read_bytes: int = _READ_BYTES) -> Iterator[tuple[int, Leaf]]:
    """Yield the leaves that can be read, with their indices. read_bytes: how much is read at once, at most."""
    while first < stop:
        bodies = log.read(first, read_bytes, stop)
        for index, body in enumerate(bodies, first):
            if body is None:
                continue
            try:
                leaf = parse(body)
            except TrustError:
                continue  # said when it was accepted (app/accept.py); part of the log, of no figure
            yield index, leaf
        first += len(bodies)
