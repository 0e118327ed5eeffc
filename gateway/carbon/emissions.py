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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from gateway.carbon.cells import Key, OpenCell, finish, key_of
from gateway.carbon.energy import (
    MWH_PLACES,
    UNIT_PLACES,
    Booking,
    CountRegister,
    EnergyRegister,
    Flag,
    LeafRef,
    Nothing,
    Reading,
    Register,
)
from gateway.carbon.exact import scaled
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell
from gateway.carbon.scopes.fuels import MICRO_PLACES, FuelRegister
from gateway.errors import TrustError
from gateway.model import INTERPOLATED, Interval, LineColumn, LineSchema, Quality, Role

MAX_GAP_CELLS = 44_640
"""31 days of minutes."""

_GOOD = Quality.GOOD

MAX_AHEAD_NS = 60_000_000_000
"""A counter is read at its boundary and sealed after it, by the same machine's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalLeaf:
    """An interval leaf of one line, parsed, and where it stands."""

    gateway: str
    ref: LeafRef
    interval: Interval


class _Counters(NamedTuple):
    """What is the same for all leaves of one schema. places: 10 ** this many whole parts make a column's unit."""

    schema: LineSchema
    columns: tuple[LineColumn, ...]
    keys: tuple[Key, ...]
    places: tuple[int, ...]


class LineProjector:
    """One line's leaves, one at a time, to its cells. State in memory; the same leaves give the same cells.

    schemas: the line's schemas by identifier; more may be added while this runs. facts: those in force.
    make: from what is booked in a cell to what it says; whoever explains a figure looks at both.
    """

    def __init__(
        self,
        *,
        schemas: Mapping[bytes, LineSchema],
        facts: Facts,
        max_gap_cells: int = MAX_GAP_CELLS,
        make: Callable[[OpenCell, str, Facts], Cell] = finish,
    ) -> None:
        self._make = make
        self._schemas = schemas
        self._facts = facts
        self._max_gap_cells = max_gap_cells
        self._known: dict[bytes, _Counters] = {}
        self._counters: _Counters | None = None
        self._registers: list[Register] = []
        self._open: list[OpenCell] = []
        self._waiting: list[int] = []  # where the boundaries lie of which the open cells are pieces
        self._last_ns: int | None = None
        self._passed_over = False

    @property
    def open_ns(self) -> int | None:
        """Where the first cell starts that a later leaf may change; None where there is none."""
        return self._open[0].start_ns if self._open else None

    @property
    def clean(self) -> bool:
        """Whether the newest leaf alone determines what comes: a new projector may start with it instead."""
        return not self._passed_over and all(register.settled for register in self._registers)

    def again(self, gateway: str, start_ns: int, end_ns: int) -> tuple[Cell, ...]:
        """Return those of the cells from open_ns on that overlap [start_ns, end_ns), as when a factor has changed.

        For facts that move no cell's bounds, and with what was fed until now.
        """
        touched = (cell for cell in self._open if cell.start_ns < end_ns and start_ns < cell.end_ns)
        return tuple([self._make(cell, gateway, self._facts) for cell in touched])

    def feed(self, leaf: IntervalLeaf) -> tuple[Cell, ...]:
        """Return the cells that this leaf says something new about, in order of time.

        leaf: the line's next, in the order of the log. Raises TrustError for one that its schema does not explain;
        nothing has changed then.
        """
        counters, readings = self.check(leaf)
        t_ns = leaf.interval.t_ns
        ahead = t_ns > leaf.ref.clock.t_ns + MAX_AHEAD_NS
        if ahead or (self._last_ns is not None and t_ns <= self._last_ns):
            self._passed_over = True
            return ()
        self._adopt(counters)
        bounds = self._bounds(counters.schema, t_ns)
        cut, told = self._facts.pieces, leaf.interval.context
        pieces = [piece for one in pairwise(bounds) for piece in cut(leaf.gateway, counters.schema, *one, told)]
        self._waiting += bounds[:-1]
        judged = self._judge(counters, readings)
        changed = self._book(counters, judged)
        self._open += [
            OpenCell(
                start_ns=piece.start_ns,
                end_ns=piece.end_ns,
                schema=counters.schema,
                leaf=leaf.ref,
                setting=piece.setting,
                said=dict(zip(counters.keys, judged, strict=True)),
            )
            for piece in pieces
        ]
        self._last_ns, self._passed_over = t_ns, False
        cells = tuple([self._make(cell, leaf.gateway, self._facts) for cell in self._open[changed:]])
        self._close()
        return cells

    def check(self, leaf: IntervalLeaf) -> tuple[_Counters, list[Reading | None]]:
        """Return what a leaf reads, and feed nothing. Raises TrustError for one that its schema does not explain."""
        counters = self._counters_of(leaf)
        return counters, self._readings(counters, leaf)

    def _counters_of(self, leaf: IntervalLeaf) -> _Counters:
        counters = self._known.get(leaf.interval.schema_id)
        if counters is None:
            schema = self._schemas.get(leaf.interval.schema_id)
            if schema is None:
                raise TrustError(f"interval: schema {leaf.interval.schema_id.hex()} is not known", index=leaf.ref.index)
            counters = self._known[schema.id] = _counters(schema, leaf.ref.index)
        if len(leaf.interval.samples) != len(counters.keys):
            name = counters.schema.name
            raise TrustError(f"interval: does not fit the columns of line {name!r}", index=leaf.ref.index)
        return counters

    def _readings(self, counters: _Counters, leaf: IntervalLeaf) -> list[Reading | None]:
        t_ns, ref, late = leaf.interval.t_ns, leaf.ref, self._passed_over
        return [
            None
            if sample.value is None or sample.quality != _GOOD
            else Reading(
                scaled(sample.value, places),
                sample.value,
                t_ns,
                sample.source_time_ns,
                ref,
                late,
                sample.status == INTERPOLATED,
            )
            for places, sample in zip(counters.places, leaf.interval.samples, strict=True)
        ]

    def _adopt(self, counters: _Counters) -> None:
        """Carry over the counters that are the same under the new schema."""
        if self._counters is counters:
            return
        before = {} if self._counters is None else dict(zip(self._counters.keys, self._counters.columns, strict=True))
        held = {} if self._counters is None else dict(zip(self._counters.keys, self._registers, strict=True))
        registers: list[Register] = []
        for key, column in zip(counters.keys, counters.columns, strict=True):
            old = before.get(key)
            if old is not None and (old.unit, old.serial) == (column.unit, column.serial):
                held[key].retune(modulus=_modulus(column), rated_power_w=column.rated_power_w)
                registers.append(held[key])
            else:
                registers.append(_register(column, Flag.NO_VALUE if old is None else Flag.REPLACED))
        self._registers, self._counters = registers, counters

    def _bounds(self, schema: LineSchema, t_ns: int) -> list[int]:
        """Return the boundaries since the last leaf, and t_ns: each two that follow each other make a cell."""
        if self._last_ns is None:
            return []
        period_ns = schema.period_s * 1_000_000_000
        inner = range((self._last_ns // period_ns + 1) * period_ns, t_ns, period_ns)
        if len(inner) >= self._max_gap_cells:
            self._registers = [_register(column, Flag.GAP_TOO_LONG) for column in schema.columns]
            inner = range(0)
        return [self._last_ns, *inner, t_ns]

    def _judge(self, counters: _Counters, readings: list[Reading | None]) -> list[Booking | Nothing]:
        """Give each column's reading to its register."""
        judged = [
            register.miss() if reading is None else register.read(reading)
            for register, reading in zip(self._registers, readings, strict=True)
        ]
        for place, said in enumerate(judged):
            # The base of what books nothing may lie far back, and all cells since then wait for it. How they are cut
            # does not count: else what a register booked would hang on when a fact came.
            if isinstance(said, Booking) or said.base is None:
                continue
            if len(self._waiting) - bisect_left(self._waiting, said.base.t_ns) > self._max_gap_cells:
                self._registers[place] = _register(counters.columns[place], Flag.NO_VALUE)
                judged[place] = Nothing(flag=Flag.GAP_TOO_LONG, base=said.base)
        return judged

    def _book(self, counters: _Counters, judged: list[Booking | Nothing]) -> int:
        """Put bookings into the open cells that they reach back to; return the place of the first."""
        changed = len(self._open)
        for key, said in zip(counters.keys, judged, strict=True) if changed else ():
            if isinstance(said, Booking):
                first = self._place(said.start.t_ns)
                changed = min(changed, first)
                for cell in self._open[first:]:
                    cell.said[key] = said
        return changed

    def _place(self, t_ns: int) -> int:
        return bisect_left(self._open, t_ns, key=lambda cell: cell.start_ns)

    def _close(self) -> None:
        """Forget the cells of which no register has more to say."""
        waits = [register.base.t_ns for register in self._registers if register.base and not register.settled]
        del self._open[: self._place(min(waits)) if waits else len(self._open)]
        del self._waiting[: bisect_left(self._waiting, min(waits)) if waits else len(self._waiting)]


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


def _counters(schema: LineSchema, index: int) -> _Counters:
    """Return what a schema's columns are known by. Raises TrustError, for the leaf at index, where it is unclear."""
    keys = tuple(key_of(column) for column in schema.columns)
    if len(set(keys)) != len(keys):
        raise TrustError(f"interval: does not fit the columns of line {schema.name!r}", index=index)
    for column in schema.columns:
        if column.role == Role.ENERGY and column.unit not in MWH_PLACES:
            known = ", ".join(MWH_PLACES)
            raise TrustError(f"{column.point}: got unit {column.unit!r}, want one of {known}", index=index)
    return _Counters(schema=schema, columns=schema.columns, keys=keys, places=tuple(map(_places, schema.columns)))


def _places(column: LineColumn) -> int:
    if column.role == Role.ENERGY:
        return MWH_PLACES[column.unit]
    return MICRO_PLACES if column.role == Role.FUEL else UNIT_PLACES


def _modulus(column: LineColumn) -> int | None:
    return None if column.modulus is None else scaled(column.modulus, _places(column))


def _register(column: LineColumn, first: Flag) -> Register:
    if column.role == Role.ENERGY:
        return EnergyRegister(modulus=_modulus(column), rated_power_w=column.rated_power_w, first=first)
    if column.role == Role.FUEL:
        return FuelRegister(modulus=_modulus(column), rated_power_w=None, first=first)
    return CountRegister(modulus=_modulus(column), first=first)
