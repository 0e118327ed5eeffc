"""Windows: a few minutes of production put together, on which baselines and alerts rest.

One minute's energy says little: a register steps by 1 kWh or by what its float holds, counters tick in whole units,
and neighbours in time are alike. So cells are added up to WINDOW_NS of production before anything is judged.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import fsum
from statistics import fmean, median
from typing import NamedTuple, TypeVar

from gateway.carbon.alerts.observe import HOUR_NS, MINUTE_NS, Observation

WINDOW_NS = 5 * MINUTE_NS
REST = ""
"""The name of all assets of a line's rest, put together."""

_Number = TypeVar("_Number", int, float)


class Window(NamedTuple):
    """Some production of one product and recipe. energy_kwh: by asset, the rest under REST. hours: net of stops.

    co2e_kg, units: None where a cell has none. usual_co2e_kg: at the grid's usual factor. starts, loaded_h: of the
    assets of which any cell has them.
    """

    start_ns: int
    end_ns: int
    hours: float
    energy_kwh: Mapping[str, float]
    units: float | None
    co2e_kg: float | None
    starts: Mapping[str, int]
    loaded_h: Mapping[str, float]
    usual_co2e_kg: float | None = None

    @property
    def energy(self) -> float:
        """The sum, kWh."""
        return fsum(self.energy_kwh.values())

    @property
    def kw(self) -> float:
        """Mean power."""
        return self.energy / self.hours

    @property
    def units_per_h(self) -> float:
        """The throughput; 0 where it is not known."""
        return (self.units or 0.0) / self.hours

    @property
    def factor(self) -> float | None:
        """The effective factor, kg/kWh."""
        return None if self.co2e_kg is None or self.energy <= 0 else self.co2e_kg / self.energy

    @property
    def usual_factor(self) -> float | None:
        """What the factor usually is at this time, kg/kWh."""
        return None if self.usual_co2e_kg is None or self.energy <= 0 else self.usual_co2e_kg / self.energy


def window_of(cells: Sequence[Observation]) -> Window:
    """Return cells as one. cells: at least one, of any length above 0."""
    energy: dict[str, float] = {}
    for cell in cells:
        for asset, kwh in cell.energy_kwh.items():
            name = REST if asset in cell.rest else asset
            energy[name] = energy.get(name, 0.0) + kwh
    return Window(
        start_ns=cells[0].start_ns,
        end_ns=cells[-1].end_ns,
        hours=sum(cell.end_ns - cell.start_ns for cell in cells) / HOUR_NS,
        energy_kwh=energy,
        units=_sum(cell.units for cell in cells),
        co2e_kg=_sum(cell.co2e_kg for cell in cells),
        starts=_sums([cell.starts for cell in cells]),
        loaded_h={asset: seconds / 3600 for asset, seconds in _sums([cell.loaded_s for cell in cells]).items()},
        usual_co2e_kg=_sum(None if cell.usual_factor is None else cell.energy * cell.usual_factor for cell in cells),
    )


def joined(one: Window, other: Window) -> Window:
    """Return two windows as one."""
    energy = {name: one.energy_kwh.get(name, 0.0) + kwh for name, kwh in other.energy_kwh.items()}
    return Window(
        start_ns=min(one.start_ns, other.start_ns),
        end_ns=max(one.end_ns, other.end_ns),
        hours=one.hours + other.hours,
        energy_kwh={**one.energy_kwh, **energy},
        units=_sum((one.units, other.units)),
        co2e_kg=_sum((one.co2e_kg, other.co2e_kg)),
        starts=_sums([one.starts, other.starts]),
        loaded_h=_sums([one.loaded_h, other.loaded_h]),
        usual_co2e_kg=_sum((one.usual_co2e_kg, other.usual_co2e_kg)),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return fsum(known) if len(known) == len(found) else None


def _sums(maps: Sequence[Mapping[str, _Number] | None]) -> dict[str, _Number]:
    """Return sums by name. What is not known of a cell counts as nothing, in a baseline as in an alert."""
    names = dict.fromkeys(name for one in maps if one for name in one)
    return {name: sum(one[name] for one in maps if one and name in one) for name in names}


def quantile(values: Iterable[float], part: float) -> float:
    """Return the value below which a part of these lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def middle(values: Iterable[float]) -> float:
    """Return the mean of the half that lies in the middle.

    As sure against odd values as a quarter of them allows; and, other than a median, not bound to a counter's steps.
    """
    ordered = sorted(values)
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])


def quantum(values: Iterable[float]) -> float:
    """Return the step in which a register seems to count, 0 where its steps cannot be seen.

    Seen where few different values come again and again.
    """
    found = [round(value, 6) for value in values]
    distinct = sorted(set(found))
    if len(distinct) < 2 or len(distinct) * 3 > len(found):
        return 0.0
    return float(median(high - low for low, high in pairwise(distinct)))


def spread(residuals: Sequence[float]) -> float:
    """Return the standard deviation of residuals about zero, by the median and by the 90th percentile of their sizes.

    The median forgives half of them; but a register of coarse steps has a median of 0, where the percentile has not.
    """
    sizes = [abs(value) for value in residuals]
    return max(1.4826 * median(sizes), quantile(sizes, 0.9) / 1.645)


def inflation(windows: Sequence[Window], residuals: Sequence[float]) -> float:
    """Return by how much slower means of these settle than those of independent ones: sqrt((1 + r) / (1 - r)).

    r: the correlation of neighbours, from 0 to 0.8.
    """
    pairs = [
        (residuals[at - 1], residuals[at])
        for at in range(1, len(residuals))
        if 0 <= windows[at].start_ns - windows[at - 1].end_ns <= WINDOW_NS
    ]
    square = fsum(value * value for value in residuals) / max(1, len(residuals))
    if len(pairs) < 10 or square == 0:
        return 1.0
    r = min(0.8, max(0.0, fsum(one * two for one, two in pairs) / len(pairs) / square))
    return float(((1 + r) / (1 - r)) ** 0.5)
