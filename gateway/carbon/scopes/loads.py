"""What was drawn from the grid, as the market-based method asks it: by zone, hour and location factor."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from gateway.carbon.figures import Figure

HOUR_NS = 3_600_000_000_000

LoadKey = tuple[str, int, int, Decimal | None]
"""Which load a figure is part of: zone, start, end, location factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was drawn from one zone's grid over a period, milliwatt-hours. location_g_per_kwh: None where not known."""

    zone: str
    start_ns: int
    end_ns: int
    load_mwh: int
    location_g_per_kwh: Decimal | None

    @property
    def key(self) -> LoadKey:
        """Which load it is."""
        return self.zone, self.start_ns, self.end_ns, self.location_g_per_kwh


def key_of(row: Figure) -> LoadKey:
    """Return which load a figure is part of: its hour's, or one of its own where it is longer than its hour."""
    hour_ns = row.start_ns // HOUR_NS * HOUR_NS
    if row.end_ns <= hour_ns + HOUR_NS:
        return row.zone, hour_ns, hour_ns + HOUR_NS, row.factor_g_per_kwh
    return row.zone, row.start_ns, row.end_ns, row.factor_g_per_kwh


def loads_of(figures: Iterable[Figure]) -> tuple[Load, ...]:
    """Return the electricity of figures as loads: one for each zone, hour and factor, in the order in which they come.

    Of what was measured and booked alone.
    """
    sums: dict[LoadKey, int] = defaultdict(int)
    for row in figures:
        if row.in_line_sum and row.energy_mwh is not None:
            sums[key_of(row)] += row.energy_mwh
    return loads_from(sums.items())


def loads_from(parts: Iterable[tuple[LoadKey, int]]) -> tuple[Load, ...]:
    """Return parts of loads as loads, each once: parts of one key are summed, in the order in which they come."""
    sums: dict[LoadKey, int] = defaultdict(int)
    for key, mwh in parts:
        sums[key] += mwh
    return tuple(
        Load(zone=zone, start_ns=start_ns, end_ns=end_ns, load_mwh=mwh, location_g_per_kwh=factor)
        for (zone, start_ns, end_ns, factor), mwh in sums.items()
    )
