"""What the alerts see of a line: one cell's energy by asset, its CO2e, units and starts, as floats for statistics.

No figure is made from these floats: a figure is exact, and stands in the cell.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gateway.carbon.energy import Flag
from gateway.carbon.figures import REMAINDER, Cell, Figure, Flags
from gateway.carbon.setting import NO_SETTING, Setting

Amounts = Mapping[str, float]
"""Something by asset."""

HOUR_NS = 3_600_000_000_000
MINUTE_NS = 60_000_000_000

_NOT_MEASURED_HERE = frozenset({Flag.TIME_ESTIMATED, Flag.CLOCK_SUSPECT, Flag.INCOMPLETE, Flag.COUNT_RESET})


class Observation(NamedTuple):
    """One cell of a line, [start_ns, end_ns).

    energy_kwh: by asset, what was booked. rest: those assets that stand for what no meter of their own explains (the
    remainder of a main meter, or the only meter of a line). co2e_kg: location-based, of the whole
    cell; None where a part has no energy or no factor. units_good, units_total: None where nothing was counted.
    starts, loaded_s: of the assets whose starts are counted, in this cell; None where none are.
    shift_end_ns: when the shift ends in which the cell lies; None where that is not known.
    usual_factor: what the grid's usually is then, kg/kWh; the watch puts it there.
    """

    start_ns: int
    end_ns: int
    setting: Setting = NO_SETTING
    energy_kwh: Amounts = MappingProxyType({})
    rest: frozenset[str] = frozenset()
    co2e_kg: float | None = None
    units_good: float | None = None
    units_total: float | None = None
    starts: Mapping[str, int] | None = None
    loaded_s: Amounts | None = None
    flags: Flags = frozenset()
    shift_end_ns: int | None = None
    usual_factor: float | None = None

    @property
    def hours(self) -> float:
        """How long it is."""
        return (self.end_ns - self.start_ns) / HOUR_NS

    @property
    def units(self) -> float | None:
        """The units that a figure is per: the good ones; where a line does not count those, all."""
        return self.units_good if self.units_good is not None else self.units_total

    @property
    def energy(self) -> float:
        """The sum over its assets, kWh."""
        return sum(self.energy_kwh.values())

    @property
    def factor(self) -> float | None:
        """The effective factor, kg/kWh: CO2e over energy; None where one of them is not known or there is no energy."""
        energy = self.energy
        return None if self.co2e_kg is None or energy <= 0 else self.co2e_kg / energy

    @property
    def beside_usual(self) -> float:
        """The factor over the usual one; 1 where one of them is not known."""
        factor = self.factor
        return factor / self.usual_factor if factor is not None and self.usual_factor else 1.0

    @property
    def kg_per_unit(self) -> float | None:
        """The KPI of this cell; None where it is not complete or made nothing."""
        units = self.units
        return None if self.co2e_kg is None or not units or Flag.INCOMPLETE in self.flags else self.co2e_kg / units

    @property
    def measured(self) -> bool:
        """Whether energy was measured in this cell, whole and at its bounds: what is spread over a gap says nothing."""
        return bool(self.energy_kwh) and not self.flags & _NOT_MEASURED_HERE


def observe(
    cell: Cell,
    *,
    starts: Mapping[str, int] | None = None,
    loaded_s: Amounts | None = None,
    shift_end_ns: int | None = None,
) -> Observation:
    """Return what a cell shows. starts, loaded_s: as counted in the cell's time."""
    rows = [row for row in cell.figures if row.in_line_sum]
    energy: dict[str, float] = {}
    for row in rows:
        if row.energy_mwh is not None:
            energy[_name(row)] = energy.get(_name(row), 0.0) + row.energy_mwh / 1e6
    names = {_name(row) for row in rows}
    rest = {_name(row) for row in rows if row.kind == REMAINDER}
    booked = [row.co2e_g for row in rows if row.energy_mwh is not None]
    known = [float(co2e) for co2e in booked if co2e is not None]
    line = cell.line
    return Observation(
        start_ns=line.start_ns,
        end_ns=line.end_ns,
        setting=line.setting,
        energy_kwh=energy,
        rest=frozenset(rest if len(names) > 1 else names),
        co2e_kg=sum(known) / 1000 if booked and len(known) == len(booked) else None,
        units_good=None if line.units_good is None else float(line.units_good),
        units_total=None if line.units_total is None else float(line.units_total),
        starts=starts,
        loaded_s=loaded_s,
        flags=line.flags,
        shift_end_ns=shift_end_ns,
    )


def _name(row: Figure) -> str:
    return row.asset or row.meter
