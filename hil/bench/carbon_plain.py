"""The same calculation as the carbon benchmark's, written plainly in polars: float64, nothing remembered."""

from __future__ import annotations

import polars as pl

from hil.bench.carbon_day import HOUR_NS, METERS_A_LINE, MINUTE_NS, START_NS, Day, grams


def frames(day: Day) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return a day's registers, counts and factors as a plant would have them in a database."""
    lines, boundaries = range(len(day.schemas)), range(day.minutes + 1)
    places = [(line, n, minute) for line in lines for n in range(METERS_A_LINE) for minute in boundaries]
    registers = pl.DataFrame(
        {
            "line": [line for line, _, _ in places],
            "meter": [n for _, n, _ in places],
            "t_ns": [START_NS + minute * MINUTE_NS for _, _, minute in places],
            "kwh": [day.register(*place) / 100 for place in places],
        }
    )
    counted = [(line, minute) for line in lines for minute in boundaries]
    counts = pl.DataFrame(
        {
            "line": [line for line, _ in counted],
            "t_ns": [START_NS + minute * MINUTE_NS for _, minute in counted],
            "units": [float(day.count(*place)) for place in counted],
        }
    )
    factors = pl.DataFrame(
        {
            "t_ns": [START_NS + hour * HOUR_NS for hour in range(day.hours)],
            "g_per_kwh": [float(grams(hour)) for hour in range(day.hours)],
        }
    )
    return registers, counts, factors


def per_shift(registers: pl.DataFrame, counts: pl.DataFrame, factors: pl.DataFrame) -> pl.DataFrame:
    """Return kg and units by line and shift. A shift is told by how many eight hours have passed since 22:00."""
    shift = ((pl.col("t_ns") - START_NS + 2 * HOUR_NS) // (8 * HOUR_NS)).alias("shift")
    figures = (
        registers.sort("line", "meter", "t_ns")
        .with_columns(used=pl.col("kwh").shift(-1).over("line", "meter") - pl.col("kwh"))
        .drop_nulls("used")
        .sort("t_ns")
        .join_asof(factors, on="t_ns")
        .with_columns(kg=pl.col("used") * pl.col("g_per_kwh") / 1000)
    )
    made = (
        counts.sort("line", "t_ns")
        .with_columns(made=pl.col("units").shift(-1).over("line") - pl.col("units"))
        .drop_nulls("made")
    )
    return (
        figures.group_by("line", shift)
        .agg(pl.col("kg").sum())
        .join(made.group_by("line", shift).agg(pl.col("made").sum()), on=("line", "shift"))
        .with_columns(kg_per_unit=pl.col("kg") / pl.col("made"))
        .sort("line", "shift")
    )
