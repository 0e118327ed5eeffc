"""The rows of a cell that stand beside its electricity: fuels (Scope 1), and loads that no meter counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.carbon.energy import Booking, Flag, Nothing
from gateway.carbon.exact import shifted, times, total
from gateway.carbon.figures import METER, MODELLED, SCOPE_1, SCOPE_2, Figure
from gateway.carbon.scopes.fuels import MICRO_PLACES, FuelMeter, FuelSpan
from gateway.carbon.scopes.uncertainty import combined_pct

if TYPE_CHECKING:
    from gateway.carbon.cells import OpenCell
    from gateway.carbon.grid.table import FactorLeaf, Span
    from gateway.carbon.scopes.books import Books
    from gateway.carbon.scopes.fuels import FuelFactors
    from gateway.carbon.scopes.modelled import StaticAsset


def beside(
    cell: OpenCell,
    books: Books,
    *,
    said: Callable[[OpenCell, int], Booking | Nothing],
    gateway: str,
    spans: Sequence[Span],
    factors: FuelFactors,
    plan_sha256: str,
) -> tuple[Figure, ...]:
    """Return the rows of a cell's fuels, then of its modelled loads.

    said: of a cell what a column says, by its place. spans: of the grid's factors.
    """
    whole = {"gateway": gateway, "plan_sha256": plan_sha256}
    rows = [row for meter in books.fuels for row in _fuel(cell, meter, said(cell, meter.place), factors, whole)]
    if not cell.setting.shift:
        rows += [_modelled(cell, asset, span, whole) for asset in books.assets for span in spans]
    return tuple(rows)


class Sums(NamedTuple):
    """What such rows come to; see LineFigure."""

    scope1_g: Decimal | None = None
    modelled_mwh: int | None = None
    modelled_g: Decimal | None = None


def sums_of(rows: Sequence[Figure]) -> Sums:
    """Return the sums of these rows; each is None where a part of it is not known, or there is none."""
    fuels = [row for row in rows if row.scope == SCOPE_1]
    modelled = [row for row in rows if row.kind == MODELLED]
    modelled_mwh = sum(row.energy_mwh or 0 for row in modelled) if modelled else None
    return Sums(_sum(fuels), modelled_mwh, _sum(modelled))


def _sum(rows: Sequence[Figure]) -> Decimal | None:
    known = [row.co2e_g for row in rows if row.co2e_g is not None]
    return total(known) if rows and len(known) == len(rows) else None


def _fuel(
    cell: OpenCell, meter: FuelMeter, said: Booking | Nothing, factors: FuelFactors, whole: dict[str, Any]
) -> Iterator[Figure]:
    column = cell.schema.columns[meter.place]
    common = {
        **whole,
        "meter": column.point,
        "serial": column.serial,
        "meter_class": column.meter_class,
        "register_unit": column.unit,
        "asset": meter.asset,
        "kind": METER,
        "scope": SCOPE_1,
        "zone": meter.fuel,
    }
    if isinstance(said, Nothing):
        flags = frozenset({said.flag})
        span = FuelSpan(cell.start_ns, cell.end_ns, None)
        yield _row(cell, span, None, flags=flags, register_start=said.base and said.base.register, **common)
        return
    for span in factors.spans(meter, column.unit, cell.start_ns, cell.end_ns):
        yield _burnt(cell, meter, said, span, common)


def _burnt(cell: OpenCell, meter: FuelMeter, said: Booking, span: FuelSpan, common: dict[str, Any]) -> Figure:
    micro = said.between(span.start_ns, span.end_ns)
    heat_mwh = meter.heat_mwh(said, span.start_ns, span.end_ns)
    flags = set(said.flags)
    if (span.start_ns, span.end_ns) != (said.start.t_ns, said.end.t_ns):
        flags.add(Flag.TIME_ESTIMATED)
    if span.flag is not None:
        flags.add(span.flag)
    factor = None if span.leaf is None or span.flag is not None else span.leaf.factor
    return _row(
        cell,
        span,
        span.leaf,
        flags=frozenset(flags),
        register_start=said.start.register,
        register_end=said.end.register,
        start_leaf_index=said.start.leaf.index,
        end=said,
        energy_mwh=heat_mwh,
        quantity=shifted(micro, -MICRO_PLACES),
        co2e_g=None if factor is None else meter.co2e_g(factor, heat_mwh, micro),
        uncertainty_pct=None if factor is None else combined_pct(common["meter_class"], factor.uncertainty_pct),
        **common,
    )


def _modelled(cell: OpenCell, asset: StaticAsset, span: Span, whole: dict[str, Any]) -> Figure:
    energy_mwh = asset.energy_mwh(span.start_ns, span.end_ns)
    leaf = span.leaf
    doubts = {Flag.NO_FACTOR} if leaf is None else {span.fallback} - {None}
    return _row(
        cell,
        span,
        leaf,
        flags=frozenset(doubts),
        energy_mwh=energy_mwh,
        co2e_g=None if leaf is None else shifted(times(leaf.factor.g_per_kwh, energy_mwh), -MICRO_PLACES),
        meter=asset.meter,
        asset=asset.name,
        kind=MODELLED,
        scope=SCOPE_2,
        zone=cell.schema.zone,
        **whole,
    )


def _row(
    cell: OpenCell, span: Span | FuelSpan, leaf: FactorLeaf | None, *, end: Booking | None = None, **said: Any
) -> Figure:
    """Return a row over a span, by a factor's leaf if there is one. end: what was booked; else the cell's own leaf."""
    ref = cell.leaf if end is None else end.end.leaf
    factor = None if leaf is None else leaf.factor
    fields: dict[str, Any] = {
        "line": cell.schema.name,
        "site": cell.schema.site,
        "serial": "",
        "meter_class": "",
        "cell_start_ns": cell.start_ns,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "register_start": None,
        "register_end": None,
        "register_unit": "",
        "energy_mwh": None,
        "co2e_g": None,
        "factor_g_per_kwh": None if factor is None else factor.g_per_kwh,
        "factor_source": "" if factor is None else factor.source,
        "factor_type": "" if factor is None else factor.key[3],
        "factor_state": "" if factor is None else factor.state,
        "factor_version": "" if factor is None else factor.version,
        "factor_leaf_index": None if leaf is None else leaf.index,
        "factor_unit": "g/kWh" if factor is None else factor.unit,
        "factor_updated_ns": None if factor is None else factor.updated_ns,
        "gwp_set": "" if factor is None else factor.gwp_set,
        "clock_state": int(ref.clock.state),
        "clock_offset_ms": shifted(ref.clock.offset_ns, -6),
        "start_leaf_index": None,
        "end_leaf_index": ref.index,
        "leaf_hash": ref.hash,
        "setting": cell.setting,
    }
    return Figure(**{**fields, **said})
