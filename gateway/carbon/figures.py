"""What a figure says: plain rows, each naming the leaves that it rests on.

A cell is one interval of a line's grid, [start, end). Its energy stands in one `Figure` a meter and factor window;
its sums stand in one `LineFigure`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from gateway.carbon.energy import UNIT_PLACES, Flag
from gateway.carbon.exact import ratio, shifted, times, total
from gateway.carbon.setting import NO_SETTING, Setting

CALC_VERSION = "3"
"""Raised whenever the same leaves would give another figure."""

METHOD = "LB"

METER, REMAINDER, VIRTUAL, MODELLED = "meter", "remainder", "virtual", "modelled"
"""Kinds of figures."""

SCOPE_1, SCOPE_2 = "1", "2"
G_PER_KWH = "g/kWh"

Flags = frozenset[Flag]


class Figure(NamedTuple):
    """Energy and CO2e of one meter over [start_ns, end_ns), within one cell and one factor window.

    A tuple, since a day of 1,000 meters has 1.4 million of them; what is a meter's own stands in one run: plain.py.

    cell_start_ns: where the cell starts. energy_mwh: None exactly where nothing was booked, or where a fuel's heat is
        not known; why is in the flags.
    co2e_g: exact, unrounded; None where there is no energy or no factor, never 0 for that.
    register_start, register_end, start_leaf_index, end_leaf_index: the two readings between which the energy was
        measured, in the register's unit; they lie outside of [start_ns, end_ns) where it was spread or split. Where
        nothing was booked: the newest reading that was believed, and the leaf at or after the cell's end.
    leaf_hash, clock_state, clock_offset_ms: of the end leaf.
    asset: what the meter stands for. kind: meter; remainder, what a main meter counts and its sub-meters do not;
        virtual, a sum and difference of meters; or modelled, where there is no meter. Registers and leaves are then
        those of the first meter in it.
    setting: what the line was doing. plan_sha256: of the plan in force, "" for none.
    scope: 2 for electricity, 1 for a fuel. quantity: of a fuel alone, in the register's unit, exact.
    factor_g_per_kwh: in factor_unit, which for a fuel may be g/L and the like.
    uncertainty_pct: of meter and factor combined (uncertainty.py), None where one of them is not known.
    """

    gateway: str
    line: str
    site: str
    cell_start_ns: int
    start_ns: int
    end_ns: int
    zone: str
    factor_g_per_kwh: Decimal | None
    factor_source: str
    factor_type: str
    factor_state: str
    factor_version: str
    factor_leaf_index: int | None
    clock_state: int
    clock_offset_ms: Decimal
    start_leaf_index: int | None
    end_leaf_index: int
    leaf_hash: bytes
    meter: str
    serial: str
    meter_class: str
    register_start: Decimal | None
    register_end: Decimal | None
    register_unit: str
    energy_mwh: int | None
    flags: Flags
    co2e_g: Decimal | None
    asset: str = ""
    kind: str = METER
    uncertainty_pct: Decimal | None = None
    scope: str = "2"
    factor_updated_ns: int | None = None
    gwp_set: str = ""
    setting: Setting = NO_SETTING
    plan_sha256: str = ""
    factor_unit: str = G_PER_KWH
    quantity: Decimal | None = None

    @property
    def in_line_sum(self) -> bool:
        """Whether it is part of the line's energy and CO2e: electricity, and measured. Fuels and models stand apart."""
        return self.scope == SCOPE_2 and self.kind != MODELLED

    @property
    def quality(self) -> str:
        """How it came about: measured, time_estimated (measured in total), modelled or missing."""
        if self.energy_mwh is None and self.quantity is None:
            return "missing"
        if self.kind == MODELLED:
            return "modelled"
        return "time_estimated" if Flag.TIME_ESTIMATED in self.flags else "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFigure:
    """One line over one cell: sums over its meters and counters.

    energy_mwh: the sum of what was booked; None where nothing was. meters, meters_booked: how many energy meters the
    line has, and how many of them have energy here. co2e_g: None where any booked part has no factor.
    units_good, units_total: None where no such counter has a count here. units_good may be below 0: see cells.py.
    Of electricity, and measured. What is beside it has sums of its own, None where there is nothing of the kind, or a
    part of it is not known: scope1_g, CO2e of fuels; modelled_mwh, modelled_g, of loads that no meter counts.
    """

    gateway: str
    line: str
    site: str
    start_ns: int
    end_ns: int
    energy_mwh: int | None
    meters: int
    meters_booked: int
    co2e_g: Decimal | None
    units_good: Decimal | None
    units_total: Decimal | None
    flags: Flags
    leaf_index: int
    setting: Setting = NO_SETTING
    scope1_g: Decimal | None = None
    modelled_mwh: int | None = None
    modelled_g: Decimal | None = None

    @property
    def units(self) -> Decimal | None:
        """The units that a figure is per: the good ones; where a line does not count those, all."""
        return self.units_good if self.units_good is not None else self.units_total

    @property
    def complete(self) -> bool:
        """Whether energy, CO2e and units are all known, so that the cell may enter a ratio."""
        return self.meters_booked == self.meters and self.co2e_g is not None and self.units is not None

    @property
    def kg_per_unit(self) -> Decimal | None:
        """CO2e in kg for one unit, rounded at output; None where the cell is not complete or made nothing."""
        if not self.complete or self.co2e_g is None or self.units is None or self.units <= 0:
            return None
        return _kg_per_unit(self.co2e_g, self.units)

    @property
    def coverage_pct(self) -> Decimal:
        """How many of the line's meters have energy here, in percent, to two places."""
        return _pct(self.meters_booked, self.meters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All that is said of one cell. A later Cell with the same start replaces it whole."""

    line: LineFigure
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over cells; every sum exact.

    co2e_g: the sum of the rows that have it; rows_without_co2e says how many do not.
    energy_mwh, co2e_g: of electricity that was measured. scope1_g: of fuels. modelled_mwh, modelled_g: of loads that
    no meter counts.
    shared_co2e_g, shared_units: over the complete cells of one kind of unit alone (see per_unit), so that their ratio
    compares like with like. units_mixed: whether others were left out.
    """

    cells: int
    complete_cells: int
    rows: int
    rows_without_co2e: int
    meters: int
    meters_booked: int
    energy_mwh: int
    co2e_g: Decimal
    units_good: Decimal
    units_total: Decimal
    shared_co2e_g: Decimal
    shared_units: Decimal
    units_mixed: bool = False
    scope1_g: Decimal = Decimal(0)
    modelled_mwh: int = 0
    modelled_g: Decimal = Decimal(0)

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> "Totals":
        """Return the sums of these cells."""
        held = list(cells)
        lines = [cell.line for cell in held]
        rows = [row for cell in held for row in cell.figures]
        complete = [line for line in lines if line.complete]
        shared = per_unit(complete)
        return cls(
            cells=len(lines),
            complete_cells=len(complete),
            rows=len(rows),
            rows_without_co2e=sum(row.co2e_g is None for row in rows),
            meters=sum(line.meters for line in lines),
            meters_booked=sum(line.meters_booked for line in lines),
            energy_mwh=sum(row.energy_mwh for row in rows if row.in_line_sum and row.energy_mwh is not None),
            co2e_g=total(row.co2e_g for row in rows if row.in_line_sum and row.co2e_g is not None),
            units_good=total(line.units_good for line in lines if line.units_good is not None),
            units_total=total(line.units_total for line in lines if line.units_total is not None),
            shared_co2e_g=total(line.co2e_g for line in shared if line.co2e_g is not None),
            shared_units=total(line.units for line in shared if line.units is not None),
            units_mixed=len(shared) < len(complete),
            scope1_g=total(row.co2e_g for row in rows if row.scope == SCOPE_1 and row.co2e_g is not None),
            modelled_mwh=sum(row.energy_mwh or 0 for row in rows if row.kind == MODELLED),
            modelled_g=total(row.co2e_g for row in rows if row.kind == MODELLED and row.co2e_g is not None),
        )

    @property
    def kg_per_unit(self) -> Decimal | None:
        """CO2e in kg for one unit: sum over sum, never a mean of ratios; None without units. Rounded here."""
        return _kg_per_unit(self.shared_co2e_g, self.shared_units) if self.shared_units > 0 else None

    @property
    def coverage_pct(self) -> Decimal:
        """How many of the meters' cells have energy, in percent, to two places."""
        return _pct(self.meters_booked, self.meters)


def per_unit(complete: Sequence[LineFigure]) -> Sequence[LineFigure]:
    """Return the complete cells that enter a ratio: those that count good units, and where none does, all."""
    return [line for line in complete if line.units_good is not None] or complete


def units_of(thousandths: int) -> Decimal:
    """Return a count as units, whole where it is whole."""
    whole, part = divmod(thousandths, 10**UNIT_PLACES)
    return shifted(thousandths, -UNIT_PLACES) if part else Decimal(whole)


def flag_text(flags: Flags) -> str:
    """Return flags as one word list, in the order of Flag, joined by semicolons."""
    return ";".join(flag for flag in Flag if flag in flags)


def _kg_per_unit(co2e_g: Decimal, units: Decimal) -> Decimal:
    return ratio(co2e_g, times(units, 1000))


def _pct(part: int, whole: int) -> Decimal:
    return ratio(100 * part, whole, 2) if whole else Decimal(0)
