"""Production lines: their counters, their context, and what both showed at a boundary."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from gateway.model.points import Quality


class Sample(NamedTuple):
    """An exact counter reading, for an interval leaf. A tuple, since one is made for each counter at each boundary.

    raw: the register bytes as they came, in bus order; empty when the quality is BAD.
    value: raw * scale + offset, exact, in the point's unit; None exactly when the quality is BAD.
    status: the protocol's own words, or INTERPOLATED.
    """

    point: str
    source_time_ns: int
    raw: bytes
    value: Decimal | None
    quality: Quality = Quality.GOOD
    status: str = ""


INTERPOLATED = "interpolated"
"""The status of a sample that lies between two polls; its raw is empty, its source time the boundary itself."""


class Role(enum.StrEnum):
    """What a counter of a line says."""

    ENERGY = "energy"
    FUEL = "fuel"
    COUNT_GOOD = "count_good"
    COUNT_TOTAL = "count_total"
    COUNT_SCRAP = "count_scrap"


ENERGY_UNITS = ("Wh", "kWh", "MWh")
FUEL_UNITS = ("m3", "scf", "L", "kg", "kWh")
"""Of a fuel meter: volumes, a mass, or heat on the basis that the plan says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineColumn:
    """One counter of a production line.

    point: `<device>.<point>`.
    modulus: where the register wraps, in `unit`; None where it never does.
    rated_power_w: the most that the metered load can draw; None where unknown. Decides whether
        a falling register wrapped or was replaced.
    """

    point: str
    unit: str
    role: Role
    modulus: Decimal | None = None
    rated_power_w: int | None = None
    meter_class: str = ""
    serial: str = ""


class What(enum.StrEnum):
    """What a piece of production context says of a line."""

    STATE = "state"
    PRODUCT = "product"
    RECIPE = "recipe"
    JOB = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextColumn:
    """One thing that a line's controllers say of its production. point: `<device>.<point>`."""

    point: str
    what: What


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSchema:
    """The counters that make up one line's figure, and the grid zone whose factor applies.

    context: what the line's controllers say of its production, if anything; each What at most once.
    """

    name: str
    site: str
    zone: str
    period_s: int
    columns: tuple[LineColumn, ...]
    context: tuple[ContextColumn, ...] = ()
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Derive the 8-byte identifier (see docs/log.md, "schema")."""
        head = f"{self.name}\t{self.site}\t{self.zone}\t{self.period_s}"
        rows = [
            "\t".join(
                "" if part is None else format(part, "f") if isinstance(part, Decimal) else str(part)
                for part in (c.point, c.unit, c.role, c.modulus, c.rated_power_w, c.meter_class, c.serial)
            )
            for c in self.columns
        ]
        rows += [f"context\t{c.point}\t{c.what}" for c in self.context]
        object.__setattr__(self, "id", hashlib.sha256("\n".join([head, *rows]).encode()).digest()[:8])


class Told(NamedTuple):
    """A value of production context since an instant: as its controller writes it; None where it is not known."""

    t_ns: int
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The counters of one line at one boundary: what a figure rests on.

    t_ns: the boundary, UTC, a multiple of the line's period.
    samples: one a column of the line's schema, in its order.
    context: one a context column of the line's schema, in its order: what was in force after the previous boundary,
        with the instant since when, then each change up to this boundary, in order of time.
    """

    schema_id: bytes
    t_ns: int
    samples: tuple[Sample, ...]
    context: tuple[tuple[Told, ...], ...] = ()
