"""One cell of a line: from bookings and factors to the rows of its figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.carbon.energy import Booking, Flag, LeafRef, Nothing
from gateway.carbon.exact import shifted, times, total
from gateway.carbon.facts import Facts
from gateway.carbon.figures import REMAINDER, Cell, Figure, Flags, LineFigure, units_of
from gateway.carbon.grid.table import Span
from gateway.carbon.plain import Plain
from gateway.carbon.scopes.beside import beside, sums_of
from gateway.carbon.scopes.books import Books
from gateway.carbon.scopes.hierarchy import Account, falls_short
from gateway.carbon.scopes.uncertainty import combined_of_parts
from gateway.carbon.setting import Setting
from gateway.model import ClockState, LineColumn, LineSchema, Role

Key = str
"""What one counter of a line is known by: role and point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCell:
    """A cell, and by column, in their order, what is booked in it so far, or why nothing is."""

    start_ns: int
    end_ns: int
    schema: LineSchema
    leaf: LeafRef
    setting: Setting
    said: dict[Key, Booking | Nothing]


def key_of(column: LineColumn) -> Key:
    """Return what a column's counter is known by."""
    return f"{column.role} {column.point}"


def co2e_g(energy_mwh: int, g_per_kwh: Decimal) -> Decimal:
    """Return grams of CO2e, exact: 1 kWh is 10 ** 6 mWh."""
    return shifted(times(g_per_kwh, energy_mwh), -6)


def finish(cell: OpenCell, gateway: str, facts: Facts) -> Cell:
    """Return what a cell says, with the facts in force."""
    schema, plan = cell.schema, facts.plan_at(cell.start_ns)
    books = facts.books(plan, gateway, schema)
    accounts = books.accounts
    spans = facts.factors.spans(schema.zone, cell.start_ns, cell.end_ns, plan.plan.grid.get(schema.zone))
    parts = list(cell.said.values())
    exact = [part if isinstance(part, Booking) and _spans_cell(part, cell) else None for part in parts]
    figures = _all_figures(cell, books, exact, gateway=gateway, spans=spans, plan=plan.sha256)
    booked = [figure for figure in figures if figure.energy_mwh is not None]
    known = [figure.co2e_g for figure in booked if figure.co2e_g is not None]
    meters_booked = 0
    for place, account in zip(books.alone, accounts, strict=True):
        if place is not None and exact[place]:
            meters_booked += 1
        else:
            meters_booked += all(isinstance(_said(cell, one), Booking) for one in _places(cell, account))
    flags = set(books.flags)
    for part, booking in zip(parts, exact, strict=True):
        if booking is None or booking.flags:
            flags |= _flags(part, cell)
    rows: Sequence[Figure] = ()
    if books.fuels or books.assets:
        rows = beside(
            cell, books, said=_said, gateway=gateway, spans=spans, factors=facts.fuels, plan_sha256=plan.sha256
        )
    sums = sums_of(rows)
    for figure in (*figures, *rows):
        if figure.flags:
            flags |= figure.flags
    if meters_booked < len(accounts):
        flags.add(Flag.INCOMPLETE)
    counted = facts.counted(gateway, schema, cell.start_ns, cell.end_ns)
    if counted is not None and not counted.whole:
        flags.add(Flag.TIME_ESTIMATED)
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
        units_good=_good(cell) if counted is None else counted.good,
        units_total=_units(cell, Role.COUNT_TOTAL) if counted is None else counted.total,
        flags=frozenset(flags),
        leaf_index=cell.leaf.index,
        setting=cell.setting,
        scope1_g=sums.scope1_g,
        modelled_mwh=sums.modelled_mwh,
        modelled_g=sums.modelled_g,
    )
    return Cell(line=line, figures=(*figures, *rows))


def _said(cell: OpenCell, place: int) -> Booking | Nothing:
    return cell.said[key_of(cell.schema.columns[place])]


def _all_figures(
    cell: OpenCell,
    books: Books,
    exact: Sequence[Booking | None],
    *,
    gateway: str,
    spans: Sequence[Span],
    plan: str,
) -> list[Figure]:
    """Return the figures of all accounts. exact: by column what it booked over just this cell, None for all else."""
    made: list[Figure] = []
    plain: Plain | None = None
    for account, place in zip(books.accounts, books.alone, strict=True):
        booking = None if place is None else exact[place]
        if place is None or booking is None or len(spans) > 1:
            made += _figures(cell, account, gateway, spans, plan)
        elif plain is None:
            made += _figures(cell, account, gateway, spans, plan)
            plain = Plain(made[-1], cell.schema.columns, spans[0], _flags_of_span(spans[0]))
        else:
            made.append(plain.figure(account, place, booking))
    return made


def _spans_cell(said: Booking, cell: OpenCell) -> bool:
    return said.start.t_ns == cell.start_ns and said.end.t_ns == cell.end_ns


def _flags_of_span(span: Span) -> Flags:
    flags = {Flag.NO_FACTOR} if span.leaf is None else set()
    return frozenset(flags if span.fallback is None else {*flags, span.fallback})


def _places(cell: OpenCell, account: Account) -> Sequence[int]:
    """Return the columns of an account in this cell: those added, then those taken off."""
    if not account.minus:
        return account.plus
    return (*account.plus, *account.less(lambda place: isinstance(_said(cell, place), Booking)))


def _figures(
    cell: OpenCell, account: Account, gateway: str, spans: Sequence[Span], plan_sha256: str
) -> Iterator[Figure]:
    places = _places(cell, account)
    said = [_said(cell, place) for place in places]
    if any(isinstance(part, Nothing) for part in said):
        spans = [Span(start_ns=cell.start_ns, end_ns=cell.end_ns, leaf=None)]
    for span in spans:
        yield _figure(cell, account, said, places=places, gateway=gateway, span=span, plan=plan_sha256)


def _figure(
    cell: OpenCell,
    account: Account,
    parts: Sequence[Booking | Nothing],
    *,
    places: Sequence[int],
    gateway: str,
    span: Span,
    plan: str,
) -> Figure:
    column, said = cell.schema.columns[account.plus[0]], parts[0]
    flags = {flag for part in parts for flag in _flags(part, cell)}
    bookings = [part for part in parts if isinstance(part, Booking)]
    energy_mwh = uncertainty_pct = None
    factor = None if span.leaf is None else span.leaf.factor
    if len(bookings) == len(parts):
        amounts = [booking.between(span.start_ns, span.end_ns) for booking in bookings]
        energy_mwh = sum(amounts[: len(account.plus)]) - sum(amounts[len(account.plus) :])
        columns = [cell.schema.columns[place] for place in places]
        if account.minus:
            flags |= _doubts(account, energy_mwh, list(zip(columns, bookings, amounts, strict=True)))
        if factor is not None and factor.uncertainty_pct is not None:
            signed = [-one if n >= len(account.plus) else one for n, one in enumerate(amounts)]
            classes = [one.meter_class for one in columns]
            uncertainty_pct = combined_of_parts(list(zip(classes, signed, strict=True)), factor.uncertainty_pct)
        if any((span.start_ns, span.end_ns) != (one.start.t_ns, one.end.t_ns) for one in bookings):
            flags.add(Flag.TIME_ESTIMATED)
        flags |= _flags_of_span(span)
    start, end = (said.start, said.end) if isinstance(said, Booking) else (said.base, None)
    leaf = cell.leaf if end is None else end.leaf
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
        uncertainty_pct=uncertainty_pct,
    )


def _doubts(account: Account, energy_mwh: int, parts: Sequence[tuple[LineColumn, Booking, int]]) -> set[Flag]:
    """Return what a remainder must say: it is less than it can be, or holds what a silent sub-meter counted."""
    doubts: set[Flag] = set()
    if account.kind == REMAINDER:
        if falls_short(energy_mwh, parts):
            doubts.add(Flag.NEGATIVE_REMAINDER)
        if len(parts) < 1 + len(account.minus):
            doubts.add(Flag.INCOMPLETE)
    return doubts


def _flags(said: Booking | Nothing, cell: OpenCell) -> Flags:
    if isinstance(said, Nothing):
        suspect = cell.leaf.clock.state == ClockState.SUSPECT
        return frozenset({said.flag, Flag.CLOCK_SUSPECT} if suspect else {said.flag})
    return said.flags if _spans_cell(said, cell) else said.flags | {Flag.TIME_ESTIMATED}


def _good(cell: OpenCell) -> Decimal | None:
    """Return the good units: those counted as such; where nothing counts them, all less the scrap.

    Below 0 where a unit of an earlier cell turned out to be scrap; so sums over cells are exact.
    """
    if any(column.role == Role.COUNT_GOOD for column in cell.schema.columns):
        return _units(cell, Role.COUNT_GOOD)
    made, scrap = _counted(cell, Role.COUNT_TOTAL), _counted(cell, Role.COUNT_SCRAP)
    return None if made is None or scrap is None else units_of(made - scrap)


def _units(cell: OpenCell, role: Role) -> Decimal | None:
    counted = _counted(cell, role)
    return None if counted is None else units_of(counted)


def _counted(cell: OpenCell, role: Role) -> int | None:
    """Return the count of a role in thousandths, None where it has no counter or one of them has no value here."""
    counters = [cell.said[key_of(column)] for column in cell.schema.columns if column.role == role]
    bookings = [said for said in counters if isinstance(said, Booking)]
    if not counters or len(bookings) < len(counters):
        return None
    return sum(said.between(cell.start_ns, cell.end_ns) for said in bookings)
