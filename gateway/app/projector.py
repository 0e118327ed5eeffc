"""From accepted leaves to tables: the ledger's only way into its database, live and in a rebuild alike.

The database says how far each log is projected; whatever the logs hold beyond is projected at the start. So
it may lag, or be deleted, and comes out the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.app.cycles import CycleBook
from gateway.app.factbook import OWN, FactBook, leaves_of
from gateway.app.standing.rejudge import Source, judged_anew, place, rejudge
from gateway.app.verdicts import Committed
from gateway.carbon.emissions import LineProjector, figures_for
from gateway.carbon.facts import Facts, Touched, joined
from gateway.carbon.figures import Cell
from gateway.codec.checks import to_schema
from gateway.codec.leaves import Leaf
from gateway.errors import TrustError
from gateway.model import Factor, LineSchema
from gateway.store import projections as tables
from gateway.store.projections import Connection, EventRow, GatewayState, IntervalRow, Projections, Slice
from gateway.store.segments import Log


@dataclass(slots=True)
class _Gateway:
    """What is known of one gateway's lines, and what waits to be written."""

    log: Log
    size: int = 0
    schemas: dict[bytes, LineSchema] = field(default_factory=dict)
    lines: dict[str, LineProjector] = field(default_factory=dict)


class Projector:
    """Writes the tables. One transaction a flush; what it raises leaves the tables as they were.

    rows: rows, changes and frames of readings seen. ends: where each line's newest cell ends, by gateway and line.
    """

    def __init__(self, book: Projections, *, own: Log, copies: Mapping[str, Log]) -> None:
        self._book, self._own = book, own
        self._gateways = {name: _Gateway(log=log) for name, log in copies.items()}
        self._facts = FactBook(own)
        self._cycles = {name: CycleBook(name, self._facts.facts) for name in copies}
        self._own_size = 0
        self.rows = self._unusable = 0
        self.ends: dict[tuple[str, str], int] = {}
        with book.reading() as connection:
            self._load(connection)

    @property
    def facts(self) -> Facts:
        """What is in force."""
        return self._facts.facts

    @property
    def touched(self) -> Sequence[tuple[int, Touched]]:
        """What each fact may change, by its leaf's index in the ledger's log, in its order."""
        return self._facts.touched

    @property
    def unusable(self) -> int:
        """How many leaves did not fit."""
        return self._unusable + self._facts.unusable

    # ---- at the start

    def _load(self, connection: Connection) -> None:
        """Take up where the tables stand."""
        self._facts.load(connection)
        for state in tables.gateways(connection):
            if state.gateway == OWN:
                self._own_size = state.size
            elif state.gateway in self._gateways:
                self._gateways[state.gateway].size = state.size
        for name, gateway in self._gateways.items():
            gateway.schemas = {schema.id: schema for _, schema in tables.schemas(connection, name)}
            for index in tables.point_schemas(connection, name):
                for _, leaf in leaves_of(gateway.log, index, index + 1):
                    self._cycles[name].adopt(to_schema(leaf.body))
        for name, line in tables.lines(connection):
            if name in self._gateways:
                self._resume(connection, name, line)
                if (end_ns := tables.newest_cell_end(connection, name, line)) is not None:
                    self.ends[name, line] = end_ns

    def _resume(self, connection: Connection, name: str, line: str) -> None:
        """Bring a line's projector to where it was: its newest clean leaf and those after it determine that."""
        gateway = self._gateways[name]
        last = gateway.size - 1
        span = tables.settled_range(connection, name, line, start_ns=2**63 - 2, end_ns=2**63 - 1)
        first = 0 if span is None else span[0]
        for row in tables.intervals(connection, name, line, first=first, last=last):
            for index, leaf in leaves_of(gateway.log, row.leaf_index, row.leaf_index + 1):
                if not row.quarantined:
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
            self._project(name, leaves_of(gateway.log, gateway.size, stop), size=stop, receipt=receipt)

    # ---- the ledger's own log

    def news(self, factors: Iterable[Factor]) -> Sequence[Factor]:
        """Return those that are not in force yet: see FactBook.news."""
        return self._facts.news(factors)

    def _project_own(self, connection: Connection) -> None:
        touched = self._facts.project(connection, leaves_of(self._own, self._own_size, self._own.durable))
        for window in joined(touched):
            self._restate(connection, window)
        for name, first in self._facts.judged.items():
            if name in self._gateways:
                self._rejudge(connection, name, first)
        self._facts.judged.clear()
        self._own_size = self._own.durable
        receipt = self._own.checkpoint
        state = GatewayState(gateway=OWN, size=self._own_size, receipt=receipt.decode() if receipt else None)
        tables.put_gateway(connection, state)

    def _restate(self, connection: Connection, touched: Touched) -> None:
        """Write the cells that a new fact may change anew, and only these."""
        for name, line in tables.lines(connection):
            if name not in self._gateways or touched.gateway not in {None, name} or touched.line not in {None, line}:
                continue
            if touched.zone is not None and not self._is_in(name, line, touched.zone):
                continue
            where = Slice(start_ns=touched.start_ns, end_ns=touched.end_ns, gateway=name, line=line)
            span = tables.cell_span(connection, where)
            if span is None:
                continue
            projector = self._gateways[name].lines.get(line)
            open_ns = None if projector is None else projector.open_ns
            if projector is not None and open_ns is not None and open_ns <= span[0] and touched.zone is not None:
                # A factor moves no bounds, and these cells are in memory: of a dead meter, up to a month of them.
                tables.put_cells(connection, projector.again(name, *span))
                continue
            tables.delete_cells(connection, name, line, *span)
            tables.put_cells(connection, self._again(connection, name, line, *span))
            if open_ns is not None and open_ns < span[1]:
                del self._gateways[name].lines[line]
                self._resume(connection, name, line)

    def _rejudge(self, connection: Connection, name: str, first: int) -> None:
        """See to it that just those leaves from `first` on are in figures that may be."""
        source = self._source(name)
        for line, (start, last) in judged_anew(connection, source, first).items():
            projector = rejudge(connection, source, line, start, last)
            if projector is not None:
                self._gateways[name].lines[line] = projector
            self.ends.pop((name, line), None)
            if (end_ns := tables.newest_cell_end(connection, name, line)) is not None:
                self.ends[name, line] = end_ns

    def _source(self, name: str) -> Source:
        gateway = self._gateways[name]
        return Source(name=name, log=gateway.log, size=gateway.size, schemas=gateway.schemas, facts=self._facts.facts)

    def _is_in(self, name: str, line: str, zone: str) -> bool:
        """Return whether a line stands, or ever stood, in a grid zone."""
        return any(one.name == line and one.zone == zone for one in self._gateways[name].schemas.values())

    def _again(self, connection: Connection, name: str, line: str, start_ns: int, end_ns: int) -> Sequence[Cell]:
        """Return a line's cells in a window anew."""
        span = tables.settled_range(connection, name, line, start_ns=start_ns, end_ns=end_ns)
        if span is None:
            return ()
        source = self._source(name)
        rows = tables.intervals(connection, name, line, first=span[0], last=span[1])
        leaves = (leaf for _, leaf in source.leaves(row for row in rows if not row.quarantined))
        return figures_for(leaves, schemas=source.schemas, facts=source.facts, start_ns=start_ns, end_ns=end_ns)

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
        epochs: list[tuple[str, int, int, str, str]] = []
        with self._book.writing() as connection:
            for index, leaf in leaves:
                if leaf.kind == "readings":
                    self._count(connection, name, index, leaf)
                elif leaf.kind == "schema":
                    self._adopt(connection, name, index, leaf)
                elif leaf.kind == "epoch":
                    body = leaf.body
                    epochs.append((name, index, body["epoch"], body["key"], body["binding"]["type"]))
                    self.facts.standings.note_epoch(*epochs[-1])
                elif leaf.kind == "event":
                    events.append(EventRow.of(name, index, leaf.body))
                elif leaf.kind == "interval" and (fed := self._feed(name, index, leaf)) is not None:
                    intervals.append(fed[0])
                    cells += fed[1]
            tables.put_epochs(connection, epochs)
            tables.put_intervals(connection, intervals)
            tables.put_events(connection, events)
            tables.put_cells(connection, cells)
            self._cycles[name].write(connection)
            text = receipt.decode() if receipt else None
            tables.put_gateway(connection, GatewayState(gateway=name, size=size, receipt=text))
        gateway.size = size
        for cell in cells:
            key = (name, cell.line.line)
            self.ends[key] = max(cell.line.end_ns, self.ends.get(key, cell.line.end_ns))

    def _count(self, connection: Connection, name: str, index: int, leaf: Leaf) -> None:
        """Count what a readings leaf holds, and the starts in it, where its gateway is affirmed."""
        self.rows += len(leaf.body.get("rows", ()))
        self.rows += sum(len(group[1]) // 2 for group in leaf.body.get("changes", ()))
        self.rows += len(leaf.body.get("frames", ()))
        if self.facts.standings.is_affirmed(name, index):
            self._cycles[name].take(connection, leaf)

    def _adopt(self, connection: Connection, name: str, index: int, leaf: Leaf) -> None:
        schema = to_schema(leaf.body)
        gateway = self._gateways[name]
        if not isinstance(schema, LineSchema):
            if self._cycles[name].adopt(schema):
                tables.put_point_schema(connection, name, index)
        elif schema.id not in gateway.schemas:
            gateway.schemas[schema.id] = schema
            tables.put_schema(connection, name, index, schema)

    def _feed(self, name: str, index: int, leaf: Leaf) -> tuple[IntervalRow, Sequence[Cell]] | None:
        """Give an interval leaf to its line, unless it is quarantined; None when it does not fit, and then never."""
        gateway = self._gateways[name]
        schema = gateway.schemas.get(leaf.body["schema"])
        if schema is None or (leaf.prev is not None and leaf.prev >= index):
            self._unusable += 1
            return None
        if schema.name not in gateway.lines:
            gateway.lines[schema.name] = LineProjector(schemas=gateway.schemas, facts=self._facts.facts)
        projector = gateway.lines[schema.name]
        is_quarantined = not self.facts.standings.is_affirmed(name, index)
        try:
            placed = place(name, gateway.log, index, leaf, schema)
            cells = () if is_quarantined else projector.feed(placed)
            if is_quarantined:
                projector.check(placed)
        except TrustError:
            self._unusable += 1
            return None
        clean = not is_quarantined and projector.clean
        row = IntervalRow.of(placed, line=schema.name, prev=leaf.prev, clean=clean, quarantined=is_quarantined)
        return row, cells
