"""One cell of a line: from bookings and factors to the rows of its figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.carbon.energy import Booking, Flag, LeafRef, Nothing
from gateway.carbon.exact import shifted, times, total
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Figure, Flags, LineFigure, units_of
from gateway.carbon.grid.table import Span
from gateway.carbon.hierarchy import Account, accounts_of
from gateway.carbon.setting import Setting
from gateway.model import ClockState, LineColumn, LineSchema, Role

Key = tuple[Role, str]
"""What one counter of a line is known by: role and point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCell:
    """A cell, and by column what is booked in it so far, or why nothing is."""

    start_ns: int
    end_ns: int
    schema: LineSchema
    leaf: LeafRef
    setting: Setting
    said: dict[Key, Booking | Nothing]


def key_of(column: LineColumn) -> Key:
    """Return what a column's counter is known by."""
    return column.role, column.point


def co2e_g(energy_mwh: int, g_per_kwh: Decimal) -> Decimal:
    """Return grams of CO2e, exact: 1 kWh is 10 ** 6 mWh."""
    return shifted(times(g_per_kwh, energy_mwh), -6)


def finish(cell: OpenCell, gateway: str, facts: Facts) -> Cell:
    """Return what a cell says, with the facts in force."""
    schema, plan = cell.schema, facts.plan_at(cell.start_ns)
    accounts = accounts_of(plan.plan.line(gateway, schema.name), schema.columns)
    spans = tuple(facts.factors.spans(schema.zone, cell.start_ns, cell.end_ns))
    figures = tuple(figure for account in accounts for figure in _figures(cell, account, gateway, spans, plan.sha256))
    booked = [figure for figure in figures if figure.energy_mwh is not None]
    known = [figure.co2e_g for figure in booked if figure.co2e_g is not None]
    said = [[cell.said[key_of(schema.columns[place])] for place in (*one.plus, *one.minus)] for one in accounts]
    meters_booked = sum(all(isinstance(part, Booking) for part in parts) for parts in said)
    flags = {flag for part in cell.said.values() for flag in _flags(part, cell)}
    flags |= {flag for figure in figures for flag in figure.flags}
    if meters_booked < len(accounts):
        flags.add(Flag.INCOMPLETE)
    line = LineFigure(
        gateway=gateway,
        line=schema.name,
        site=schema.site,
        start_ns=cell.start_ns,
        end_ns=cell.end_ns,
        energy_mwh=sum(figure.energy_mwh or 0 for figure in booked) if booked else None,
        meters=len(accounts),
        meters_booked=meters_booked,
        co2e_g=total(known) if booked and len(known) == len(booked) else None,
        units_good=_units(cell, Role.COUNT_GOOD),
        units_total=_units(cell, Role.COUNT_TOTAL),
        flags=frozenset(flags),
        leaf_index=cell.leaf.index,
        setting=cell.setting,
    )
    return Cell(line=line, figures=figures)


def _figures(
    cell: OpenCell, account: Account, gateway: str, spans: Sequence[Span], plan_sha256: str
) -> Iterator[Figure]:
    said = [cell.said[key_of(cell.schema.columns[place])] for place in (*account.plus, *account.minus)]
    if any(isinstance(part, Nothing) for part in said):
        spans = [Span(start_ns=cell.start_ns, end_ns=cell.end_ns, leaf=None)]
    for span in spans:
        yield _figure(cell, account, said, gateway=gateway, span=span, plan=plan_sha256)


def _figure(
    cell: OpenCell, account: Account, parts: Sequence[Booking | Nothing], *, gateway: str, span: Span, plan: str
) -> Figure:
    column, said = cell.schema.columns[account.plus[0]], parts[0]
    flags = {flag for part in parts for flag in _flags(part, cell)}
    bookings = [part for part in parts if isinstance(part, Booking)]
    energy_mwh = None
    if len(bookings) == len(parts):
        amounts = [booking.between(span.start_ns, span.end_ns) for booking in bookings]
        energy_mwh = sum(amounts[: len(account.plus)]) - sum(amounts[len(account.plus) :])
        if any((span.start_ns, span.end_ns) != (one.start.t_ns, one.end.t_ns) for one in bookings):
            flags.add(Flag.TIME_ESTIMATED)
        if span.leaf is None:
            flags.add(Flag.NO_FACTOR)
    start, end = (said.start, said.end) if isinstance(said, Booking) else (said.base, None)
    leaf = cell.leaf if end is None else end.leaf
    factor = None if span.leaf is None else span.leaf.factor
    return Figure(
        gateway=gateway,
        line=cell.schema.name,
        site=cell.schema.site,
        meter=column.point,
        serial=column.serial,
        meter_class=column.meter_class,
        cell_start_ns=cell.start_ns,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        register_start=None if start is None else start.register,
        register_end=None if end is None else end.register,
        register_unit=column.unit,
        energy_mwh=energy_mwh,
        flags=frozenset(flags),
        zone=cell.schema.zone,
        factor_g_per_kwh=None if factor is None else factor.g_per_kwh,
        factor_source="" if factor is None else factor.source,
        factor_type="" if factor is None else factor.key[3],
        factor_state="" if factor is None else factor.state,
        factor_version="" if factor is None else factor.version,
        factor_leaf_index=None if span.leaf is None else span.leaf.index,
        co2e_g=None if factor is None or energy_mwh is None else co2e_g(energy_mwh, factor.g_per_kwh),
        clock_state=int(leaf.clock.state),
        clock_offset_ms=shifted(leaf.clock.offset_ns, -6),
        start_leaf_index=None if start is None else start.leaf.index,
        end_leaf_index=leaf.index,
        leaf_hash=leaf.hash,
        asset=account.asset,
        kind=account.kind,
        factor_updated_ns=None if factor is None else factor.updated_ns,
        gwp_set="" if factor is None else factor.gwp_set,
        setting=cell.setting,
        plan_sha256=plan,
    )


def _flags(said: Booking | Nothing, cell: OpenCell) -> Flags:
    if isinstance(said, Nothing):
        suspect = cell.leaf.clock.state == ClockState.SUSPECT
        return frozenset({said.flag, Flag.CLOCK_SUSPECT} if suspect else {said.flag})
    if (said.start.t_ns, said.end.t_ns) != (cell.start_ns, cell.end_ns):
        return said.flags | {Flag.TIME_ESTIMATED}
    return said.flags


def _units(cell: OpenCell, role: Role) -> Decimal | None:
    """Return the count of a role, None where it has no counter or one of them has no value here."""
    counters = [cell.said[key_of(column)] for column in cell.schema.columns if column.role == role]
    bookings = [said for said in counters if isinstance(said, Booking)]
    if not counters or len(bookings) < len(counters):
        return None
    return units_of(sum(said.between(cell.start_ns, cell.end_ns) for said in bookings))
