"""Interval leaves of one line for tests: a small builder of the real types, no fakes."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from gateway.carbon.emissions import IntervalLeaf
from gateway.carbon.energy import LeafRef
from gateway.carbon.facts import Facts
from gateway.carbon.grid.factors import version_of
from gateway.carbon.grid.table import FactorLeaf, FactorTable
from gateway.model import (
    Clock,
    ClockState,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Sample,
)

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
T0 = 1_767_258_000 * SECOND  # 2026-01-01T09:00:00Z

Shown = str | None


def energy(point: str = "m1.energy", **more: object) -> LineColumn:
    return LineColumn(**{"point": point, "unit": "kWh", "role": Role.ENERGY, **more})  # type: ignore[arg-type]


def good(point: str = "plc.good", **more: object) -> LineColumn:
    return LineColumn(**{"point": point, "unit": "", "role": Role.COUNT_GOOD, **more})  # type: ignore[arg-type]


def line(*columns: LineColumn, name: str = "filler", zone: str = "DEMO", period_s: int = 60) -> LineSchema:
    return LineSchema(name=name, site="works", zone=zone, period_s=period_s, columns=columns)


def schemas(*lines: LineSchema) -> Mapping[bytes, LineSchema]:
    return {one.id: one for one in lines}


def sample(shown: Shown, t_ns: int, *, quality: Quality | None = None) -> Sample:
    value = None if shown is None else Decimal(shown)
    if quality is None:
        quality = Quality.BAD if shown is None else Quality.GOOD
    return Sample(point="", source_time_ns=t_ns, raw=b"", value=value, quality=quality)


def leaf(
    schema: LineSchema,
    index: int,
    t_ns: int,
    shown: Sequence[Shown],
    *,
    state: ClockState = ClockState.SYNCHRONISED,
    gateway: str = "gw1",
    sealed_ns: int | None = None,
) -> IntervalLeaf:
    clock = Clock(t_ns=t_ns + SECOND if sealed_ns is None else sealed_ns, state=state, offset_ns=1_500_000)
    interval = Interval(schema_id=schema.id, t_ns=t_ns, samples=tuple(sample(one, t_ns) for one in shown))
    return IntervalLeaf(
        gateway=gateway, ref=LeafRef(index=index, hash=index.to_bytes(32, "big"), clock=clock), interval=interval
    )


def minutes(schema: LineSchema, rows: Sequence[Sequence[Shown] | Shown], *, t0: int = T0) -> list[IntervalLeaf]:
    """One leaf a minute; a row that is a single text is the one column's. Leaf indices are 10, 20, ..."""
    lists = [[row] if row is None or isinstance(row, str) else list(row) for row in rows]
    return [leaf(schema, 10 * (n + 1), t0 + n * MINUTE, row) for n, row in enumerate(lists)]


def factor(value: str, start_ns: int, end_ns: int, *, zone: str = "DEMO", **more: str) -> Factor:
    g_per_kwh = Decimal(value)
    state, method = more.get("state", "final"), more.get("method", "constant")
    return Factor(
        key=(
            more.get("provider", "demo"),
            zone,
            more.get("signal", "average"),
            more.get("type", "lifecycle"),
            more.get("granularity", ""),
        ),
        start_ns=start_ns,
        end_ns=end_ns,
        g_per_kwh=g_per_kwh,
        state=state,
        method=method,
        source=more.get("source", "test"),
        version=version_of(g_per_kwh=g_per_kwh, state=state, method=method, model_date=""),
        supersedes=more.get("supersedes", ""),
    )


def table(*factors: Factor) -> FactorTable:
    """Return the factors as leaves 1, 2, ... of a ledger's log."""
    made = FactorTable()
    for index, one in enumerate(factors, 1):
        made.add(FactorLeaf(factor=one, index=index, hash=bytes([index]) * 32))
    return made


def facts(*factors: Factor) -> Facts:
    """Return the factors as leaves 1, 2, ... of a ledger's log, with nothing else."""
    made = Facts()
    for index, one in enumerate(factors, 1):
        made.add_factor(FactorLeaf(factor=one, index=index, hash=bytes([index]) * 32))
    return made


CONSTANT = factor("400", 0, 2**62)
