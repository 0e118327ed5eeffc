"""From accepted leaves to tables: the ledger's only way into its database, live and in a rebuild alike.

The database says how far each log is projected; whatever the logs hold beyond is projected at the start. So
it may lag, or be deleted, and comes out the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.app.verdicts import Committed
from gateway.carbon.emissions import IntervalLeaf, LineProjector, figures_for
from gateway.carbon.energy import LeafRef
from gateway.carbon.exact import utc
from gateway.carbon.figures import Cell
from gateway.carbon.grid.table import FactorLeaf, FactorTable
from gateway.codec.checks import to_factor, to_interval, to_schema
from gateway.codec.leaves import Leaf, parse
from gateway.errors import ConfigError, TrustError
from gateway.model import Factor, LineSchema
from gateway.store import projections as tables
from gateway.store.projections import Connection, EventRow, GatewayState, IntervalRow, Projections
from gateway.store.segments import Log

OWN = ""
"""The ledger's own log, where the tables name a gateway."""

_READ_BYTES = 4 << 20


@dataclass(slots=True)
class _Gateway:
    """What is known of one gateway's lines, and what waits to be written."""

    log: Log
    size: int = 0
    schemas: dict[bytes, LineSchema] = field(default_factory=dict)
    lines: dict[str, LineProjector] = field(default_factory=dict)


class Projector:
    """Writes the tables. One transaction a flush; what it raises leaves the tables as they were.

    rows: rows, changes and frames of readings seen.
    unusable: interval, schema and factor leaves that do not fit; they enter no figure.
    """

    def __init__(self, book: Projections, *, own: Log, copies: Mapping[str, Log]) -> None:
        self._book, self._own = book, own
        self._gateways = {name: _Gateway(log=log) for name, log in copies.items()}
        self._factors = FactorTable()
        self._own_size = 0
        self.rows = self.unusable = 0
        with book.reading() as connection:
            self._load(connection)

    # ---- at the start

    def _load(self, connection: Connection) -> None:
        """Take up where the tables stand."""
        for leaf in tables.factors(connection):
            self._factors.add(leaf)
        for state in tables.gateways(connection):
            if state.gateway == OWN:
                self._own_size = state.size
            elif state.gateway in self._gateways:
                self._gateways[state.gateway].size = state.size
        for name, gateway in self._gateways.items():
            gateway.schemas = {schema.id: schema for _, schema in tables.schemas(connection, name)}
        for name, line in tables.lines(connection):
            if name in self._gateways:
                self._resume(connection, name, line)

    def _resume(self, connection: Connection, name: str, line: str) -> None:
        """Bring a line's projector to where it was: its newest clean leaf and those after it determine that."""
        gateway = self._gateways[name]
        last = gateway.size - 1
        span = tables.settled_range(connection, name, line, start_ns=2**63 - 2, end_ns=2**63 - 1)
        first = 0 if span is None else span[0]
        for row in tables.intervals(connection, name, line, first=first, last=last):
            for index, leaf in _leaves(gateway.log, row.leaf_index, row.leaf_index + 1):
                self._feed(name, index, leaf)

    def catch_up(self) -> None:
        """Project whatever the logs hold and the tables do not."""
        self.catch_up_own()
        for name, gateway in self._gateways.items():
            self._catch_up(name, gateway.log.durable, gateway.log.checkpoint)

    def catch_up_own(self) -> None:
        """Project what is new in the ledger's own log: factors and events."""
        with self._book.writing() as connection:
            self._project_own(connection)

    def _catch_up(self, name: str, size: int, receipt: bytes | None) -> None:
        gateway = self._gateways[name]
        while gateway.size < size:
            stop = min(gateway.size + 4096, size)
            self._project(name, _leaves(gateway.log, gateway.size, stop), size=stop, receipt=receipt)

    # ---- factors and events of the ledger's own log

    def news(self, factors: Iterable[Factor]) -> Sequence[Factor]:
        """Return those that are not in force yet, each naming the version that it supersedes.

        Raises ConfigError for a window that overlaps another in force: leaves are for ever, and one that cannot come
        in force has no place in the log.
        """
        news = []
        for factor in factors:
            held = self._factors.in_force(factor)
            if held is None and self._factors.overlaps(factor):
                window = f"{'/'.join(factor.key)} from {utc(factor.start_ns)} to {utc(factor.end_ns)}"
                raise ConfigError(f"factors: got {window}, want the window in force, or one beside it")
            if held is None:
                news.append(factor)
            elif held.factor.version != factor.version:
                news.append(replace(factor, supersedes=held.factor.version))
        return news

    def _project_own(self, connection: Connection) -> None:
        changed: list[Factor] = []
        for index, leaf in _leaves(self._own, self._own_size, self._own.durable):
            if leaf.kind == "event":
                tables.put_events(connection, [EventRow.of(OWN, index, leaf.body)])
            elif leaf.kind == "factor" and (placed := self._enforce(index, leaf)) is not None:
                tables.put_factors(connection, [placed])
                changed.append(placed.factor)
        for name, line in tables.lines(connection) if changed else ():
            for factor in changed:
                tables.put_cells(connection, self._again(connection, name, line, factor))
        self._own_size = self._own.durable
        receipt = self._own.checkpoint
        state = GatewayState(gateway=OWN, size=self._own_size, receipt=receipt.decode() if receipt else None)
        tables.put_gateway(connection, state)

    def _enforce(self, index: int, leaf: Leaf) -> FactorLeaf | None:
        """Put a factor leaf in force; None when that changes nothing, or the leaf does not fit."""
        try:
            placed = FactorLeaf(factor=to_factor(leaf.body), index=index, hash=self._own.leaf_hash(index))
            return placed if self._factors.add(placed) else None
        except TrustError:
            self.unusable += 1
            return None

    def _again(self, connection: Connection, name: str, line: str, factor: Factor) -> Sequence[Cell]:
        """Return a line's cells in a factor's window anew."""
        span = tables.settled_range(connection, name, line, start_ns=factor.start_ns, end_ns=factor.end_ns)
        if span is None or name not in self._gateways:
            return ()
        gateway = self._gateways[name]
        rows = tables.intervals(connection, name, line, first=span[0], last=span[1])
        leaves = (
            self._placed(name, index, leaf, gateway.schemas[row.schema_id])
            for row in rows
            for index, leaf in _leaves(gateway.log, row.leaf_index, row.leaf_index + 1)
        )
        return figures_for(
            leaves,
            schemas=gateway.schemas,
            factors=self._factors,
            start_ns=factor.start_ns,
            end_ns=factor.end_ns,
        )

    # ---- gateways' leaves

    def take(self, name: str, committed: Committed) -> None:
        """Project what a gateway's copy has just made durable."""
        new = len(committed.leaves) + len(committed.unusable) + len(committed.absent)
        if self._gateways[name].size == committed.size - new:
            self._project(name, committed.leaves, size=committed.size, receipt=committed.receipt)
        else:
            self._catch_up(name, committed.size, committed.receipt)

    def _project(self, name: str, leaves: Iterable[tuple[int, Leaf]], *, size: int, receipt: bytes | None) -> None:
        """Write what these leaves say, the next of a gateway's log up to size."""
        gateway = self._gateways[name]
        cells: list[Cell] = []
        intervals: list[IntervalRow] = []
        events: list[EventRow] = []
        with self._book.writing() as connection:
            for index, leaf in leaves:
                if leaf.kind == "readings":
                    self.rows += len(leaf.body.get("rows", ()))
                    self.rows += sum(len(group[1]) // 2 for group in leaf.body.get("changes", ()))
                    self.rows += len(leaf.body.get("frames", ()))
                elif leaf.kind == "schema":
                    self._adopt(connection, name, index, leaf)
                elif leaf.kind == "event":
                    events.append(EventRow.of(name, index, leaf.body))
                elif leaf.kind == "interval" and (fed := self._feed(name, index, leaf)) is not None:
                    intervals.append(fed[0])
                    cells += fed[1]
            tables.put_intervals(connection, intervals)
            tables.put_events(connection, events)
            tables.put_cells(connection, cells)
            text = receipt.decode() if receipt else None
            tables.put_gateway(connection, GatewayState(gateway=name, size=size, receipt=text))
        gateway.size = size

    def _adopt(self, connection: Connection, name: str, index: int, leaf: Leaf) -> None:
        schema = to_schema(leaf.body)
        gateway = self._gateways[name]
        if isinstance(schema, LineSchema) and schema.id not in gateway.schemas:
            gateway.schemas[schema.id] = schema
            tables.put_schema(connection, name, index, schema)

    def _feed(self, name: str, index: int, leaf: Leaf) -> tuple[IntervalRow, Sequence[Cell]] | None:
        """Give an interval leaf to its line; None when it does not fit, and then it enters no figure."""
        gateway = self._gateways[name]
        schema = gateway.schemas.get(leaf.body["schema"])
        if schema is None or (leaf.prev is not None and leaf.prev >= index):
            self.unusable += 1
            return None
        if schema.name not in gateway.lines:
            gateway.lines[schema.name] = LineProjector(schemas=gateway.schemas, factors=self._factors)
        projector = gateway.lines[schema.name]
        try:
            placed = self._placed(name, index, leaf, schema)
            cells = projector.feed(placed)
        except TrustError:
            self.unusable += 1
            return None
        return IntervalRow.of(placed, line=schema.name, prev=leaf.prev, clean=projector.clean), cells

    def _placed(self, name: str, index: int, leaf: Leaf, schema: LineSchema) -> IntervalLeaf:
        ref = LeafRef(index=index, hash=self._gateways[name].log.leaf_hash(index), clock=leaf.clock)
        return IntervalLeaf(gateway=name, ref=ref, interval=to_interval(leaf.body, schema))


def _leaves(log: Log, first: int, stop: int) -> Iterator[tuple[int, Leaf]]:
    """Yield the leaves that can be read, with their indices."""
    while first < stop:
        bodies = log.read(first, _READ_BYTES, stop)
        for index, body in enumerate(bodies, first):
            if body is None:
                continue
            try:
                leaf = parse(body)
            except TrustError:
                continue  # said when it was accepted (app/accept.py); part of the log, of no figure
            yield index, leaf
        first += len(bodies)
