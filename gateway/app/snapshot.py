"""What the demonstration shows while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSums:
    """Energy, CO2e and units of the line, in all and per unit of late."""

    energy_kwh: float
    co2e_kg: float
    units: float
    kg_per_unit_now: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the demo shows at one moment.

    metrics: every process' own, by name. line: sums of the line over the last intervals, or None yet.
    """

    elapsed_s: float
    readings_per_s: float
    metrics: Mapping[str, float]
    line: LineSums | None
    faulty: bool
