"""Leaves to figures: a pure function, the same in the ledger and in `wattseal verify`.

A line's boundaries are the times of its interval leaves, and the grid's times between them where leaves are missing.
Two boundaries that follow each other make a cell, which is cut where the line's setting changes: a job, a shift. Each
counter books amounts between two of its readings; a cell takes its part by interpolation, so what was booked over a
gap is spread over the gap's cells and sums exactly. A cell whose counters are not all settled may be given anew by a
later leaf, and then replaces what was said of it.

- A leaf whose time is not after the newest one's, or is more than MAX_AHEAD_NS after the clock of its own seal, books
  nothing: its energy is in the next one's difference, and that figure says `clock_suspect`. So a clock that ran back,
  or started in 1970, fills no wrong cell, and no boundary of a far future stops a line for good.
- A counter without a reading over more than MAX_GAP_CELLS cells starts anew, `gap_too_long`: what it counted is not
  booked, and what waits in memory has a bound. Such a hole between two leaves is one cell.
- UNCERTAIN and BAD samples are no reading.
- A column is the same counter as before when role, point, unit and serial are the same. Another serial is another
  meter: it starts anew, `replaced`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gateway.carbon.cells import Key, OpenCell, finish, key_of
from gateway.carbon.energy import (
    MWH_PLACES,
    Booking,
    CountRegister,
    EnergyRegister,
    Flag,
    LeafRef,
    Nothing,
    Reading,
    Register,
    to_mwh,
    to_thousandths,
)
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell
from gateway.errors import TrustError
from gateway.model import Interval, LineColumn, LineSchema, Quality, Role, Sample

MAX_GAP_CELLS = 44_640
"""31 days of minutes."""

MAX_AHEAD_NS = 60_000_000_000
"""A counter is read at its boundary and sealed after it, by the same machine's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalLeaf:
    """An interval leaf of one line, parsed, and where it stands."""

    gateway: str
    ref: LeafRef
    interval: Interval


class LineProjector:
    """One line's leaves, one at a time, to its cells. State in memory; the same leaves give the same cells.

    schemas: the line's schemas by identifier; more may be added while this runs. facts: those in force.
    """

    def __init__(
        self,
        *,
        schemas: Mapping[bytes, LineSchema],
        facts: Facts,
        max_gap_cells: int = MAX_GAP_CELLS,
    ) -> None:
        self._schemas = schemas
        self._facts = facts
        self._max_gap_cells = max_gap_cells
        self._schema: LineSchema | None = None
        self._registers: dict[Key, Register] = {}
        self._open: list[OpenCell] = []
        self._last_ns: int | None = None
        self._passed_over = False

    @property
    def open_ns(self) -> int | None:
        """Where the first cell starts that a later leaf may change; None where there is none."""
        return self._open[0].start_ns if self._open else None

    @property
    def clean(self) -> bool:
        """Whether the newest leaf alone determines what comes: a new projector may start with it instead."""
        return not self._passed_over and all(register.settled for register in self._registers.values())

    def feed(self, leaf: IntervalLeaf) -> tuple[Cell, ...]:
        """Return the cells that this leaf says something new about, in order of time.

        leaf: the line's next, in the order of the log. Raises TrustError for one that its schema does not explain;
        nothing has changed then.
        """
        schema = self._schema_of(leaf)
        t_ns, samples = leaf.interval.t_ns, leaf.interval.samples
        readings = [self._reading(c, s, leaf) for c, s in zip(schema.columns, samples, strict=True)]
        ahead = t_ns > leaf.ref.clock.t_ns + MAX_AHEAD_NS
        if ahead or (self._last_ns is not None and t_ns <= self._last_ns):
            self._passed_over = True
            return ()
        self._adopt(schema)
        new = self._cut(leaf, schema)
        self._open += new
        changed = len(self._open) - len(new)
        for column, reading in zip(schema.columns, readings, strict=True):
            changed = min(changed, self._judge(column, reading, len(new)))
        self._last_ns, self._passed_over = t_ns, False
        cells = tuple(finish(cell, leaf.gateway, self._facts) for cell in self._open[changed:])
        self._close()
        return cells

    def _schema_of(self, leaf: IntervalLeaf) -> LineSchema:
        schema = self._schemas.get(leaf.interval.schema_id)
        if schema is None:
            raise TrustError(f"interval: schema {leaf.interval.schema_id.hex()} is not known", index=leaf.ref.index)
        keys = {key_of(column) for column in schema.columns}
        if len(keys) != len(schema.columns) or len(leaf.interval.samples) != len(schema.columns):
            raise TrustError(f"interval: does not fit the columns of line {schema.name!r}", index=leaf.ref.index)
        for column in schema.columns:
            if column.role == Role.ENERGY and column.unit not in MWH_PLACES:
                known = ", ".join(MWH_PLACES)
                raise TrustError(f"{column.point}: got unit {column.unit!r}, want one of {known}", index=leaf.ref.index)
        return schema

    def _reading(self, column: LineColumn, sample: Sample, leaf: IntervalLeaf) -> Reading | None:
        if sample.value is None or sample.quality != Quality.GOOD:
            return None
        energy = column.role == Role.ENERGY
        return Reading(
            amount=to_mwh(sample.value, column.unit) if energy else to_thousandths(sample.value),
            register=sample.value,
            t_ns=leaf.interval.t_ns,
            source_ns=sample.source_time_ns,
            leaf=leaf.ref,
            late=self._passed_over,
        )

    def _adopt(self, schema: LineSchema) -> None:
        """Carry over the counters that are the same under the new schema."""
        if self._schema is not None and self._schema.id == schema.id:
            return
        before = {} if self._schema is None else {key_of(column): column for column in self._schema.columns}
        registers: dict[Key, Register] = {}
        for column in schema.columns:
            key, old = key_of(column), before.get(key_of(column))
            if old is not None and (old.unit, old.serial) == (column.unit, column.serial):
                registers[key] = self._registers[key]
                registers[key].retune(modulus=_modulus(column), rated_power_w=column.rated_power_w)
            else:
                registers[key] = _register(column, Flag.NO_VALUE if old is None else Flag.REPLACED)
        self._registers, self._schema = registers, schema

    def _cut(self, leaf: IntervalLeaf, schema: LineSchema) -> list[OpenCell]:
        if self._last_ns is None:
            return []
        t_ns, told = leaf.interval.t_ns, leaf.interval.context
        period_ns = schema.period_s * 1_000_000_000
        inner = range((self._last_ns // period_ns + 1) * period_ns, t_ns, period_ns)
        if len(inner) >= self._max_gap_cells:
            self._registers = {key_of(column): _register(column, Flag.GAP_TOO_LONG) for column in schema.columns}
            inner = range(0)
        bounds = pairwise([self._last_ns, *inner, t_ns])
        return [
            OpenCell(
                start_ns=piece.start_ns,
                end_ns=piece.end_ns,
                schema=schema,
                leaf=leaf.ref,
                setting=piece.setting,
                said={},
            )
            for start, end in bounds
            for piece in self._facts.pieces(leaf.gateway, schema, start, end, told)
        ]

    def _judge(self, column: LineColumn, reading: Reading | None, new: int) -> int:
        """Give one column's reading to its register; return the place of the first open cell that gained by it."""
        key = key_of(column)
        register = self._registers[key]
        said = register.miss() if reading is None else register.read(reading)
        if isinstance(said, Booking):
            first = self._place(said.start.t_ns)
        else:
            first = len(self._open) - new
            if said.base is not None and len(self._open) - self._place(said.base.t_ns) > self._max_gap_cells:
                self._registers[key] = _register(column, Flag.NO_VALUE)
                said = Nothing(flag=Flag.GAP_TOO_LONG, base=said.base)
        for cell in self._open[first:]:
            cell.said[key] = said
        return first

    def _place(self, t_ns: int) -> int:
        return bisect_left(self._open, t_ns, key=lambda cell: cell.start_ns)

    def _close(self) -> None:
        """Forget the cells of which no register has more to say."""
        waits = [register.base.t_ns for register in self._registers.values() if register.base and not register.settled]
        del self._open[: self._place(min(waits)) if waits else len(self._open)]


def project(leaves: Iterable[IntervalLeaf], *, schemas: Mapping[bytes, LineSchema], facts: Facts) -> dict[int, Cell]:
    """Return one line's cells by their start, in order of time. Raises TrustError as LineProjector does."""
    projector = LineProjector(schemas=schemas, facts=facts)
    cells = {cell.line.start_ns: cell for leaf in leaves for cell in projector.feed(leaf)}
    return dict(sorted(cells.items()))


def figures_for(
    leaves: Iterable[IntervalLeaf],
    *,
    schemas: Mapping[bytes, LineSchema],
    facts: Facts,
    start_ns: int,
    end_ns: int,
) -> tuple[Cell, ...]:
    """Return the cells that overlap [start_ns, end_ns), as when a fact of this window has changed.

    leaves: of one line, from a clean one at or before the window to one after which the window's cells are settled.
    """
    cells = project(leaves, schemas=schemas, facts=facts).values()
    return tuple(cell for cell in cells if cell.line.start_ns < end_ns and start_ns < cell.line.end_ns)


def _modulus(column: LineColumn) -> int | None:
    if column.modulus is None:
        return None
    return to_mwh(column.modulus, column.unit) if column.role == Role.ENERGY else to_thousandths(column.modulus)


def _register(column: LineColumn, first: Flag) -> Register:
    if column.role == Role.ENERGY:
        return EnergyRegister(modulus=_modulus(column), rated_power_w=column.rated_power_w, first=first)
    return CountRegister(modulus=_modulus(column), first=first)
