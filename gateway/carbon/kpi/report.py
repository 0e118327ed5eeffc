"""Cells to the rows of a report: energy, CO2e and units of a line, a shift, a product, a job, a recipe or a day.

Energy goes where the time went: a cell holds one setting, so all of it belongs to one state, product, job and shift.
Where no job runs it belongs to the overhead pool. Without units the KPI is null, and the energy is booked all the same.

CO2e per unit is a sum over a sum, never a mean of ratios, over the cells where energy, factor and units are all known.
The units of a row are of one kind: good ones; all, where no cell of it counts the good. Where some do, the others do
not enter the ratio, and the row says `units_mixed`. Scrap is of the cells that count both; what it took is shown apart:
its share of their CO2e, by units.

Electricity that meters count (Scope 2, location-based) is the report's energy. Fuels (Scope 1) and loads that are only
modelled stand apart, and enter neither the KPI nor the coverage.

Uncertainty is the mean of the rows' uncertainties, weighted by energy. That is the worst case: errors that all go the
same way, as those of one factor do. Independent meters would err less.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from gateway.carbon.energy import Flag
from gateway.carbon.exact import EXACT, ratio, times, utc
from gateway.carbon.figures import MODELLED, Cell, Figure, LineFigure
from gateway.carbon.scopes.loads import LoadKey, key_of

DAY_NS = 86_400_000_000_000
BY = ("line", "shift", "product", "job", "recipe", "day")
STATES = ("producing", "idle", "setup", "down", "standby", "unknown")
OVERHEAD = "overhead"
"""The job of the energy that no job took."""
FACTOR_STATES = ("missing", "forecast", "estimated", "measured", "final")
"""From the weakest to the best."""
_FALLBACKS = ("factor_secondary", "factor_last_good", "factor_annual")

Group = tuple[tuple[str, str], ...]
"""What a row is about: (by, value) pairs, in the order that was asked for."""


@dataclass(slots=True)
class Amount:
    """Energy and its CO2e. co2e_g: of what has a factor; without_factor_mwh, rows_without_co2e: what has none."""

    energy_mwh: int = 0
    co2e_g: Decimal = Decimal(0)
    without_factor_mwh: int = 0
    rows_without_co2e: int = 0
    time_ns: int = 0

    def add(self, figure: Figure) -> None:
        """Add what a row booked."""
        energy_mwh = figure.energy_mwh or 0
        self.energy_mwh += energy_mwh
        if figure.co2e_g is None:
            self.without_factor_mwh += energy_mwh
            self.rows_without_co2e += figure.energy_mwh is not None or figure.quantity is not None
        else:
            self.co2e_g = EXACT.add(self.co2e_g, figure.co2e_g)


@dataclass(slots=True)
class Ratio:
    """CO2e and units of complete cells. made: all units, of cells where `units` are the good ones."""

    cells: int = 0
    co2e_g: Decimal = Decimal(0)
    units: Decimal = Decimal(0)
    made: Decimal = Decimal(0)

    def add(self, co2e_g: Decimal, units: Decimal, made: Decimal | None = None) -> None:
        """Add a cell."""
        self.cells += 1
        self.co2e_g, self.units = EXACT.add(self.co2e_g, co2e_g), EXACT.add(self.units, units)
        self.made = EXACT.add(self.made, made or Decimal(0))


@dataclass(slots=True, kw_only=True)
class Tally:
    """One row of a report, as cells are added; every sum exact.

    metered: Scope 2 by meters. by_state, by_asset: the same, split. modelled, scope1: apart from it.
    quality: metered energy in mWh by how it came about.
    meter_ns, booked_ns: meters times time, and that of it which has energy. lines: whose cells these are.
    units_good, units_total: None while no cell counts them. units_scrap: of the cells that count both. by_load: the
    metered energy by the load that it is part of.
    """

    group: Group = ()
    start_ns: int = 2**63 - 1
    end_ns: int = 0
    cells: int = 0
    time_ns: int = 0
    metered: Amount = field(default_factory=Amount)
    modelled: Amount = field(default_factory=Amount)
    scope1: Amount = field(default_factory=Amount)
    by_state: dict[str, Amount] = field(default_factory=dict)
    by_asset: dict[str, Amount] = field(default_factory=dict)
    by_load: dict[LoadKey, int] = field(default_factory=dict)
    units_good: Decimal | None = None
    units_total: Decimal | None = None
    units_scrap: Decimal | None = None
    meter_ns: int = 0
    booked_ns: int = 0
    quality: dict[str, int] = field(default_factory=dict)
    factor_states: set[str] = field(default_factory=set)
    factor_versions: set[str] = field(default_factory=set)
    flags: set[Flag] = field(default_factory=set)
    lines: set[tuple[str, str]] = field(default_factory=set)
    shifts: set[tuple[str, str, str]] = field(default_factory=set)
    first_leaf: int | None = None
    last_leaf: int = 0
    _per_good: Ratio = field(default_factory=Ratio)
    _per_made: Ratio = field(default_factory=Ratio)
    _scrapped: Ratio = field(default_factory=Ratio)
    _meters: int = 0
    _weighted: Decimal = Decimal(0)
    _weight_mwh: int = 0

    def add(self, cell: Cell) -> None:
        """Add a cell."""
        line, ns = cell.line, cell.line.end_ns - cell.line.start_ns
        self.start_ns, self.end_ns = min(self.start_ns, line.start_ns), max(self.end_ns, line.end_ns)
        self.cells, self.time_ns, self._meters = self.cells + 1, self.time_ns + ns, line.meters
        self.meter_ns += ns * line.meters
        self.booked_ns += ns * line.meters_booked
        self.flags |= line.flags
        self.lines.add((line.gateway, line.line))
        self.shifts.add((line.gateway, line.line, line.setting.shift))
        self.last_leaf = max(self.last_leaf, line.leaf_index)
        self.units_good = _sum(self.units_good, line.units_good)
        self.units_total = _sum(self.units_total, line.units_total)
        if line.units_good is not None and line.units_total is not None:
            self.units_scrap = _sum(self.units_scrap, EXACT.subtract(line.units_total, line.units_good))
        state = self.by_state.setdefault(line.setting.state or "unknown", Amount())
        state.time_ns += ns
        for figure in cell.figures:
            if figure.in_line_sum:
                state.add(figure)
                self._add_metered(figure)
            else:
                (self.modelled if figure.kind == MODELLED else self.scope1).add(figure)
        self._add_kpi(line)

    def _add_metered(self, figure: Figure) -> None:
        self.metered.add(figure)
        self.by_asset.setdefault(figure.asset or figure.meter, Amount()).add(figure)
        self.flags |= figure.flags
        for index in (figure.start_leaf_index, figure.end_leaf_index):
            if index is not None:
                self.first_leaf = index if self.first_leaf is None else min(self.first_leaf, index)
        if figure.energy_mwh is None:
            return
        key = key_of(figure)
        self.by_load[key] = self.by_load.get(key, 0) + figure.energy_mwh
        self.quality[figure.quality] = self.quality.get(figure.quality, 0) + figure.energy_mwh
        self.factor_states.add(figure.factor_state or "missing")
        if figure.factor_version:
            self.factor_versions.add(figure.factor_version)
        if figure.uncertainty_pct is not None:
            self._weighted = EXACT.add(self._weighted, times(figure.uncertainty_pct, figure.energy_mwh))
            self._weight_mwh += figure.energy_mwh

    def _add_kpi(self, line: LineFigure) -> None:
        if not line.complete or line.co2e_g is None or line.units is None:
            return
        (self._per_made if line.units_good is None else self._per_good).add(line.co2e_g, line.units)
        if line.units_good is not None and line.units_total is not None:
            self._scrapped.add(line.co2e_g, line.units_good, line.units_total)
        if self.is_per_good and self._per_made.cells:
            self.flags.add(Flag.UNITS_MIXED)

    @property
    def is_per_good(self) -> bool:
        """Whether its units are the good ones."""
        return self._per_good.cells > 0

    @property
    def kpi(self) -> Ratio:
        """The complete cells of one kind of unit: good ones; all, where no cell counts the good."""
        return self._per_good if self.is_per_good else self._per_made

    @property
    def kg_per_unit(self) -> Decimal | None:
        """CO2e in kg for one good unit, scrap's share in it; of all units where the good are not counted."""
        kpi = self.kpi
        return ratio(kpi.co2e_g, times(kpi.units, 1000)) if kpi.units > 0 else None

    @property
    def scrap_co2e_kg(self) -> Decimal | None:
        """The part of the CO2e that scrap took, by units, over the cells that count both; rounded here."""
        both = self._scrapped
        if not both.made or both.made < both.units:
            return None
        return ratio(times(both.co2e_g, EXACT.subtract(both.made, both.units)), times(both.made, 1000))

    def coverage_pct(self, period_ns: int | None = None) -> Decimal:
        """Return how much of the meters' time has energy, in percent to two places.

        period_ns: how long it should have been; what no cell stands for counts as not covered.
        """
        absent_ns = 0 if period_ns is None else max(0, period_ns - self.time_ns)
        whole = self.meter_ns + absent_ns * max(1, self._meters)
        return ratio(100 * self.booked_ns, whole, 2) if whole else Decimal(0)

    def quality_pct(self) -> dict[str, Decimal]:
        """Return the parts of the metered energy by how it came about, in percent to two places."""
        whole = sum(self.quality.values())
        return {name: ratio(100 * mwh, whole, 2) for name, mwh in sorted(self.quality.items()) if whole}

    @property
    def weakest_factor_state(self) -> str:
        """The weakest state of a factor in it: missing, forecast, estimated, measured, final; "" without energy."""
        known = [state for state in FACTOR_STATES if state in self.factor_states]
        others = sorted(self.factor_states - set(FACTOR_STATES))
        return next(iter([*known[:1], *others]), "")

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Flags that say that another factor than the first choice stands in."""
        return tuple(str(flag) for flag in Flag if flag in self.flags and flag in _FALLBACKS)

    @property
    def uncertainty_pct(self) -> Decimal | None:
        """The energy-weighted mean, to two places; None where no row says one."""
        return ratio(self._weighted, self._weight_mwh, 2) if self._weight_mwh > 0 else None


def report(cells: Iterable[Cell], by: Sequence[str]) -> list[Tally]:
    """Return one row a group, in the order of the groups' names.

    by: any of BY; none of them: one row of all. Raises ValueError for another word.
    """
    for name in by:
        if name not in BY:
            raise ValueError(f"by: got {name!r}, want any of {', '.join(BY)}")
    rows: dict[Group, Tally] = {}
    for cell in cells:
        group = tuple((name, _value(cell, name)) for name in by)
        row = rows.get(group)
        if row is None:
            row = rows[group] = Tally(group=group)
        row.add(cell)
    return [rows[group] for group in sorted(rows)]


def change_pct(now: Tally, before: Tally) -> Decimal | None:
    """Return by how much CO2e per unit has changed, in percent to two places, from the exact sums; None without both.

    Nor is there a change from all units to good ones, or back.
    0.87 -> 0.68 kg per unit is -21.84 %.
    """
    then, here = before.kpi, now.kpi
    if here.units <= 0 or then.units <= 0 or not then.co2e_g or now.is_per_good != before.is_per_good:
        return None
    was = Fraction(then.co2e_g) / Fraction(then.units)
    change = (Fraction(here.co2e_g) / Fraction(here.units) / was - 1) * 100
    return ratio(EXACT.create_decimal(change.numerator), EXACT.create_decimal(change.denominator), 2)


def day_of(t_ns: int) -> str:
    """Return the UTC date of an instant."""
    return utc(t_ns)[:10]


def _value(cell: Cell, by: str) -> str:
    line, setting = cell.line, cell.line.setting
    match by:
        case "line":
            return f"{line.gateway}/{line.line}"
        case "day":
            return day_of(line.start_ns)
        case "shift":
            return setting.shift or day_of(line.start_ns)
        case "job":
            return setting.job or OVERHEAD
        case "product":
            return setting.product
    return setting.recipe


def _sum(held: Decimal | None, more: Decimal | None) -> Decimal | None:
    if more is None:
        return held
    return more if held is None else EXACT.add(held, more)
