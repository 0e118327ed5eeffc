"""A day of a plant for the carbon benchmark: lines of 50 meters, a factor an hour, counts and three shifts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Final

from gateway.carbon.emissions import IntervalLeaf
from gateway.carbon.energy import LeafRef
from gateway.carbon.facts import PLAN, Facts, Touched
from gateway.carbon.grid.factors import version_of
from gateway.carbon.grid.table import FactorLeaf
from gateway.model import (
    Clock,
    ClockState,
    Document,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Role,
    Sample,
)

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
START_NS: Final = 1_767_571_200 * SECOND_NS
"""2026-01-05T00:00:00Z."""
METERS_A_LINE: Final = 50
ZONE: Final = "BENCH"
SHIFTS: Final = {"night": ("22:00", "06:00"), "early": ("06:00", "14:00"), "late": ("14:00", "22:00")}
_PLAN: Final = "".join(f'[shifts.{name}]\nstart = "{start}"\nend = "{end}"\n' for name, (start, end) in SHIFTS.items())


@dataclass(frozen=True, kw_only=True)
class Day:
    """So many meters over so many minutes. A meter's register has two decimals of a kWh; a line counts good units."""

    meters: int
    minutes: int = 1440

    @property
    def figures(self) -> int:
        """How many figures it has: one a meter and minute, since factors change on the hour."""
        return self.meters * self.minutes

    @cached_property
    def schemas(self) -> Mapping[bytes, LineSchema]:
        """Its lines."""
        sizes = [METERS_A_LINE] * (self.meters // METERS_A_LINE)
        made = (
            LineSchema(name=f"line{number}", site="bench", zone=ZONE, period_s=60, columns=_columns(number, size))
            for number, size in enumerate(sizes)
        )
        return {schema.id: schema for schema in made}

    def register(self, line: int, meter: int, minute: int) -> int:
        """Return what a meter shows at a boundary, in hundredths of a kWh; it draws 5 to 65 kW."""
        rate = 10 + (line * 7 + meter * 13) % 90
        return 100_000 + minute * rate + (minute * minute * (1 + meter % 5)) // 1440

    def count(self, line: int, minute: int) -> int:
        """Return how many good units a line has made by a boundary."""
        return minute * (20 + line)

    def leaves(self, line: int, first: int = 0, last: int | None = None) -> Iterator[IntervalLeaf]:
        """Yield a line's interval leaves from the boundary first to the boundary last, parsed."""
        schema = list(self.schemas.values())[line]
        for minute in range(first, (self.minutes if last is None else last) + 1):
            t_ns = START_NS + minute * MINUTE_NS
            samples = [
                Sample(column.point, t_ns + SECOND_NS, b"\0\0\0\0", Decimal(shown).scaleb(-2))
                for column, shown in zip(
                    schema.columns, (self.register(line, n, minute) for n in range(METERS_A_LINE)), strict=False
                )
            ]
            samples.append(Sample("plc.good", t_ns + SECOND_NS, b"\0\0", Decimal(self.count(line, minute))))
            clock = Clock(t_ns=t_ns + 2 * SECOND_NS, state=ClockState.SYNCHRONISED, offset_ns=250_000)
            ref = LeafRef(index=minute, hash=minute.to_bytes(32, "big"), clock=clock)
            interval = Interval(schema_id=schema.id, t_ns=t_ns, samples=tuple(samples))
            yield IntervalLeaf(gateway="bench", ref=ref, interval=interval)

    def facts(self) -> Facts:
        """Return the plan and the factors, an hour each."""
        facts = Facts()
        facts.add_document(0, Document(name=PLAN, from_ns=0, content=_PLAN.encode()))
        for hour in range(self.hours):
            facts.add_factor(FactorLeaf(factor=factor(hour), index=1 + hour, hash=bytes(32)))
        return facts

    @property
    def hours(self) -> int:
        """How many factors it has."""
        return -(-self.minutes // 60)


def restate(facts: Facts, hour: int) -> Touched | None:
    """Put another version of an hour's factor in force; return what it may change."""
    before = factor(hour)
    g_per_kwh = before.g_per_kwh + 7
    version = version_of(g_per_kwh=g_per_kwh, state="final", method="bench", model_date="")
    after = replace(before, g_per_kwh=g_per_kwh, version=version, supersedes=before.version)
    return facts.add_factor(FactorLeaf(factor=after, index=1000 + hour, hash=bytes(32)))


def grams(hour: int) -> Decimal:
    """Return an hour's factor, g/kWh."""
    return Decimal(300 + hour * 17 % 200) + Decimal("0.25")


def factor(hour: int) -> Factor:
    """Return an hour's factor."""
    start_ns, g_per_kwh = START_NS + hour * HOUR_NS, grams(hour)
    return Factor(
        key=("bench", ZONE, "average", "lifecycle", "PT1H"),
        start_ns=start_ns,
        end_ns=start_ns + HOUR_NS,
        g_per_kwh=g_per_kwh,
        state="final",
        method="bench",
        source="made up",
        version=version_of(g_per_kwh=g_per_kwh, state="final", method="bench", model_date=""),
    )


def _columns(line: int, size: int) -> tuple[LineColumn, ...]:
    meters = (
        LineColumn(point=f"m{line}_{n}.energy", unit="kWh", role=Role.ENERGY, rated_power_w=100_000, meter_class="B")
        for n in range(size)
    )
    return (*meters, LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD))
