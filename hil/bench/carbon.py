"""The case `carbon1000`: a day of 1,000 meters from leaves to figures, beside the same in polars, and a restatement."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from gateway.carbon.emissions import LineProjector, figures_for
from gateway.carbon.facts import Facts, Touched
from gateway.carbon.figures import Cell
from gateway.errors import GatewayError
from hil.bench.carbon_day import MINUTE_NS, START_NS, Day, restate
from hil.bench.carbon_plain import frames, per_shift

Sums = Mapping[tuple[str, str], tuple[Decimal, Decimal]]
"""By line and shift: g of CO2e, units."""

MOST_APART: Final = 1e-6
_QUICK_S: Final = 2.0
_QUICK_MINUTES: Final = 120
_RESTATED_HOURS: Final = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class CarbonCase:
    """A day at several sizes, the last of which is compared and restated. about: what it is, for people."""

    name: str
    about: str
    meters: tuple[int, ...]


CARBON: Final = {
    case.name: case
    for case in (
        CarbonCase(
            name="carbon1000",
            about="a day of 1,000 meters at 1 min, from leaves to figures: 20 lines, hourly factors, counts, 3 shifts",
            meters=(250, 500, 1000),
        ),
    )
}


def measure_carbon(case: CarbonCase, *, seconds: float) -> dict[str, Any]:
    """Return a case's figures. seconds: a whole day takes as long as it takes; below 2, some hours stand for it.

    Raises GatewayError where polars says something else than the figures do.
    """
    minutes = Day.minutes if seconds >= _QUICK_S else _QUICK_MINUTES
    days: list[dict[str, Any]] = []
    sums: Sums = {}
    for meters in case.meters:
        day = Day(meters=meters, minutes=minutes)
        used, sums = calculated(day)
        days.append({"meters": meters, **_shared(used, day.figures)})
    day = Day(meters=case.meters[-1], minutes=minutes)
    used, apart = _plain(day, sums)
    plain = {**_shared(used, day.figures), "most_apart": apart}
    plain["ratio"] = round(days[-1]["cpu_s"] / max(used.cpu_s, 1e-9), 1)
    restated = [_restated(day, hours) for hours in _RESTATED_HOURS if hours * 60 < minutes]
    return {"about": case.about, "minutes": minutes, "days": days, "polars": plain, "restated": restated}


@dataclass(slots=True)
class Used:
    """Time that something took, and the CPU of all its threads."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @contextmanager
    def by(self) -> Iterator[None]:
        """Add what is done within."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu


def calculated(day: Day) -> tuple[Used, Sums]:
    """Calculate a day, a line after another; return what that took, without making up its leaves, and its sums."""
    used, facts = Used(), day.facts()
    sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = defaultdict(lambda: (Decimal(0), Decimal(0)))
    for line in range(len(day.schemas)):
        leaves = list(day.leaves(line))
        with used.by():
            projector = LineProjector(schemas=day.schemas, facts=facts)
            for leaf in leaves:
                for cell in projector.feed(leaf):
                    if cell.line.co2e_g is None or cell.line.units_good is None:
                        raise GatewayError(f"bench: {cell.line.line}: got no CO2e or units, want both in each cell")
                    key = (cell.line.line, cell.line.setting.shift)
                    g, units = sums[key]
                    sums[key] = (g + cell.line.co2e_g, units + cell.line.units_good)
    return used, sums


def _plain(day: Day, sums: Sums) -> tuple[Used, float]:
    """Return what polars takes for the same, and by how much its kg a line and shift differ at most, relative."""
    parts, used = frames(day), Used()
    with used.by():
        found = per_shift(*parts)
    ours = [sums[key] for key in sorted(sums, key=lambda key: (int(key[0].removeprefix("line")), _begun(key[1])))]
    theirs = list(found.select("kg", "made").iter_rows())
    if len(ours) != len(theirs) or any(
        float(units) != made for (_, units), (_, made) in zip(ours, theirs, strict=True)
    ):
        raise GatewayError("bench: polars: got other shifts or units than the figures have")
    apart = max(abs(kg / (float(g) / 1000) - 1) for (g, _), (kg, _) in zip(ours, theirs, strict=True))
    if apart > MOST_APART:
        raise GatewayError(f"bench: polars: got kg that differ by {apart:g}, want at most {MOST_APART:g}")
    return used, apart


def _begun(shift: str) -> tuple[str, int]:
    """Return what orders shifts by time: the date on which each started, and its place in that date."""
    date, name = shift.split("/")
    return date, ("early", "late", "night").index(name)


def _restated(day: Day, hours: int) -> dict[str, Any]:
    """Restate so many hours' factors, and calculate what that touches."""
    facts = day.facts()
    windows = [touched for hour in range(hours) if (touched := restate(facts, hour)) is not None]
    used, cells, figures = Used(), 0, 0
    for line in range(len(day.schemas)):
        for window in windows:
            made = _again(day, facts, line, window, used)
            cells += len(made)
            figures += sum(len(cell.figures) for cell in made)
    return {"hours": hours, "cells": cells, **_shared(used, figures)}


def _again(day: Day, facts: Facts, line: int, window: Touched, used: Used) -> tuple[Cell, ...]:
    # As the ledger does: the leaves from the last clean one before the window to the first after it.
    start_ns, end_ns = window.start_ns, window.end_ns
    first, last = ((at - START_NS) // MINUTE_NS for at in (start_ns, end_ns))
    leaves = list(day.leaves(line, first, last))
    with used.by():
        return figures_for(leaves, schemas=day.schemas, facts=facts, start_ns=start_ns, end_ns=end_ns)


def _shared(used: Used, figures: int) -> dict[str, Any]:
    return {
        "figures": figures,
        "wall_s": round(used.wall_s, 3),
        "cpu_s": round(used.cpu_s, 3),
        "cpu_us_per_figure": round(used.cpu_s / figures * 1e6, 3),
    }


_HEAD: Final = f"{'':22}{'figures':>12}{'s':>10}{'CPU s':>10}{'CPU us/figure':>16}"


def carbon_lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a case as a table."""
    yield f"{name}: {found['about']}" + ("" if found["minutes"] == Day.minutes else f"; {found['minutes']} min of it")
    yield _HEAD
    for day in found["days"]:
        yield _line(f"{day['meters']:,} meters", day)
    yield _line("polars, the last", found["polars"])
    for one in found["restated"]:
        yield _line(f"restated: {one['hours']} h", one)
    plain = found["polars"]
    yield f"  exact and with its origin, a figure takes {plain['ratio']:,.0f} times the CPU of polars' float64"
    yield f"  polars' kg by line and shift differ from ours by {plain['most_apart']:.1g} at most, relative"


def _line(name: str, used: Mapping[str, Any]) -> str:
    figures, wall, cpu, each = (used[key] for key in ("figures", "wall_s", "cpu_s", "cpu_us_per_figure"))
    return f"{name:22}{figures:12,}{wall:10.3f}{cpu:10.3f}{each:16.3f}"
