"""When other leaves count than did: a line's rows and cells again, as far as they differ."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from gateway.app.factbook import leaves_of
from gateway.carbon.emissions import IntervalLeaf, LineProjector
from gateway.carbon.energy import LeafRef
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell
from gateway.codec.leaves import Leaf
from gateway.codec.line_leaves import to_interval
from gateway.model import LineSchema
from gateway.store import projections as tables
from gateway.store.projections import Connection, IntervalRow
from gateway.store.segments import Log

_END_NS = 2**63 - 1
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A gateway's leaves, up to where they are projected, and what they are computed by."""

    name: str
    log: Log
    size: int
    schemas: Mapping[bytes, LineSchema]
    facts: Facts

    def counts(self, index: int) -> bool:
        """Return whether figures may rest on a leaf."""
        return self.facts.standings.is_affirmed(self.name, index)

    def leaves(self, rows: Iterable[IntervalRow]) -> Iterator[tuple[IntervalRow, IntervalLeaf]]:
        """Yield rows with their leaves."""
        for row in rows:
            for index, leaf in leaves_of(self.log, row.leaf_index, row.leaf_index + 1):
                yield row, place(self.name, self.log, index, leaf, self.schemas[row.schema_id])


def place(name: str, log: Log, index: int, leaf: Leaf, schema: LineSchema) -> IntervalLeaf:
    """Return a gateway's interval leaf with where it stands. Raises TrustError where its schema does not explain it."""
    ref = LeafRef(index=index, hash=log.leaf_hash(index), clock=leaf.clock)
    return IntervalLeaf(gateway=name, ref=ref, interval=to_interval(leaf.body, schema))


def judged_anew(connection: Connection, source: Source, first: int) -> dict[str, tuple[int, int]]:
    """Return by line the first and the last interval leaf from `first` on that counts now and did not, or did."""
    found: dict[str, tuple[int, int]] = {}
    for index, line, was_quarantined in tables.intervals_from(connection, source.name, first):
        if source.counts(index) == was_quarantined:
            found[line] = (found.get(line, (index, index))[0], index)
    return found


def rejudge(connection: Connection, source: Source, line: str, first: int, last: int) -> LineProjector | None:
    """Write a line's rows and cells again, after leaves from first to last were judged anew.

    A clean leaf alone determines what comes after it. So it begins with the newest one before them, and ends with the
    first one after them that was clean and still is. Returns the line's projector where there is none: it is at the
    line's end then.
    """
    base = tables.clean_before(connection, source.name, line, first)
    projector = LineProjector(schemas=source.schemas, facts=source.facts)
    cells: dict[int, Cell] = {}
    begin, start_ns, end_ns = (0, 0, _END_NS) if base is None else (base.leaf_index, base.t_ns, _END_NS)
    changed: list[IntervalRow] = []
    for row, leaf in source.leaves(_rows(connection, source, line, begin)):
        is_quarantined = not source.counts(row.leaf_index)
        if not is_quarantined:
            cells.update((cell.line.start_ns, cell) for cell in projector.feed(leaf))
        now = replace(row, quarantined=is_quarantined, clean=not is_quarantined and projector.clean)
        if now != row:
            changed.append(now)
        elif row.leaf_index > last and row.clean:
            end_ns = row.t_ns
            break
    tables.put_intervals(connection, changed)
    tables.delete_cells(connection, source.name, line, start_ns, end_ns)
    tables.put_cells(connection, [cells[start] for start in sorted(cells)])
    return projector if end_ns == _END_NS else None


def _rows(connection: Connection, source: Source, line: str, first: int) -> Iterator[IntervalRow]:
    """Yield a line's rows from a leaf on, as far as they are asked for."""
    while rows := tables.intervals(connection, source.name, line, first=first, last=source.size - 1, most=_AT_ONCE):
        yield from rows
        first = rows[-1].leaf_index + 1
