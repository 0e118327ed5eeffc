"""Scope 2 by both methods from the tables: a year's load of all lines, and what the plan's instruments make of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from gateway.app.factbook import leaves_of
from gateway.carbon.exact import ratio, shifted, text, utc
from gateway.carbon.facts import Facts
from gateway.carbon.grid.table import FactorTable
from gateway.carbon.kpi.dual import (
    FINAL,
    GRID_AVERAGE,
    PROVISIONAL,
    Match,
    YearMatch,
    has_market,
    match_year,
    year_bounds,
    year_of,
)
from gateway.carbon.kpi.report import DAY_NS
from gateway.carbon.scopes.loads import LoadKey, loads_from
from gateway.carbon.scopes.marginal import Marginal, shifted_load
from gateway.carbon.scopes.market import Instrument, claimed, instruments_of
from gateway.codec.ledger_leaves import to_document
from gateway.config import LedgerConfig
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Connection, Projections
from gateway.store.view import steadily, view

_MWH = -9
_LineLoads = dict[tuple[str, str], list[tuple[LoadKey, int]]]


@contextmanager
def reading(config: LedgerConfig) -> Iterator[Connection]:
    """Yield the tables of a ledger, to read; it may run meanwhile. Raises ConfigError where there are none yet."""
    book = Projections(config.ledger.state / "projections.sqlite", new=False)
    try:
        with book.reading() as connection:
            yield connection
    finally:
        book.close()


def read_documents(config: LedgerConfig, connection: Connection) -> Facts:
    """Return the documents in force and nothing else: plans and grid settings. Raises LogError."""
    rows = tables.own_leaves(connection, "document")
    if not rows:
        return Facts()

    def read() -> Facts:
        facts = Facts()
        own = view(RealFiles(config.ledger.state / "own"), origin=config.origin)
        try:
            for row in rows:
                for index, leaf in leaves_of(own, row.leaf_index, row.leaf_index + 1):
                    facts.add_document(index, to_document(leaf.body), own.leaf_hash(index))
        finally:
            own.close()
        return facts

    return steadily(read)


def newest_end(connection: Connection) -> int | None:
    """Return where the newest cell of all lines ends, None where there is none."""
    ends = [tables.newest_cell_end(connection, *line) for line in tables.lines(connection)]
    return max((end_ns for end_ns in ends if end_ns is not None), default=None)


def read_match(
    connection: Connection, facts: Facts, *, start_ns: int, end_ns: int, until_ns: int | None = None
) -> Match | None:
    """Return the matches of the years from start_ns to end_ns; None where no plan of theirs asks for market-based.

    until_ns: how far loads are taken; to the newest cell without it.
    """
    stop_ns = (newest_end(connection) or 0) if until_ns is None else until_ns
    if stop_ns <= start_ns or end_ns <= start_ns:
        return None
    years = range(year_of(start_ns), year_of(min(end_ns, stop_ns) - 1) + 1)
    ends = (min(stop_ns, year_bounds(year)[1]) for year in years)
    if not any(has_market(facts.plan_at(year_end_ns - 1).plan) for year_end_ns in ends):
        return None
    return Match([_match(facts, _loads(connection, year, stop_ns), year, stop_ns) for year in years])


def _loads(connection: Connection, year: int, until_ns: int) -> _LineLoads:
    """Return the loads of a year by line: of the cells that start before until_ns."""
    start_ns, end_ns = year_bounds(year)
    found: _LineLoads = {}
    for line in tables.lines(connection):
        # Also of a cell, a day long at most, that starts in the year before.
        begin_ns = max(0, start_ns - DAY_NS)
        parts = tables.line_loads(connection, *line, start_ns=begin_ns, end_ns=min(end_ns, until_ns))
        found[line] = [part for part in parts if start_ns <= part[0][1] < end_ns]
    return found


def _match(facts: Facts, loads: _LineLoads, year: int, until_ns: int) -> YearMatch:
    every = loads_from(part for of_line in loads.values() for part in of_line)
    return match_year(facts, every, year=year, until_ns=until_ns)


def year_row(match: YearMatch) -> dict[str, Any]:
    """Return how a year was matched, for scripts."""
    return {
        "year": match.year,
        "method": str(match.method),
        "state": FINAL if match.is_final else PROVISIONAL,
        "matched": match.matched,
        "plan_sha256": match.plan.sha256,
        "offset_id": match.offset_id or None,
        "residual": "; ".join(match.residual(match.zones)) or GRID_AVERAGE,
    }


def list_instruments(config: LedgerConfig, *, year: int | None, clock: Callable[[], int]) -> dict[str, Any]:
    """Return each instrument of a year: volume, what is claimed and left, and which lines claim it.

    year: of their vintage; the newest cell's without it. clock: UTC ns, for a ledger without cells.
    """
    with reading(config) as connection:
        facts = read_documents(config, connection)
        newest_ns = newest_end(connection)
        until_ns = clock() if newest_ns is None else newest_ns
        asked = year_of(until_ns - 1) if year is None else year
        # A year that is still to come has its plan, and no load.
        until_ns = max(until_ns, year_bounds(asked)[0] + 1)
        loads = _loads(connection, asked, until_ns)
    match = _match(facts, loads, asked, until_ns)
    total = claimed(match.settled.values())
    lines = {
        "/".join(line): Match([match]).market({one.key: one.load_mwh for one in loads_from(parts)}).claims
        for line, parts in loads.items()
    }
    known = instruments_of(match.plan.plan)
    return {
        **year_row(match),
        "instruments": [
            _instrument(one, total.get(one.id, 0)) | {"lines": _by_line(lines, one.id)}
            for one in known
            if one.vintage == asked
        ],
        "of_other_years": [one.id for one in known if one.vintage != asked],
    }


def _instrument(one: Instrument, claimed_mwh: int) -> dict[str, Any]:
    """Return an instrument's account: claimed and left are the volume, so no more can be claimed than there is."""
    return {
        "id": one.id,
        "type": one.type,
        "zone": one.zone,
        "vintage": one.vintage,
        "valid_from": utc(one.start_ns),
        "valid_to": utc(one.end_ns),
        "g_per_kwh": text(one.g_per_kwh),
        "volume_mwh": text(shifted(one.volume_mwh, _MWH)),
        "claimed_mwh": text(shifted(claimed_mwh, _MWH)),
        "left_mwh": text(shifted(one.volume_mwh - claimed_mwh, _MWH)),
        "over_claimed": claimed_mwh > one.volume_mwh,
    }


def _by_line(lines: Mapping[str, Mapping[str, Fraction]], name: str) -> dict[str, str]:
    """Return the MWh that each line claims of an instrument, its share rounded to the milliwatt-hour."""
    parts = {line: claims[name] for line, claims in lines.items() if name in claims}
    return {line: text(ratio(mwh.numerator, mwh.denominator * 10**-_MWH, -_MWH)) for line, mwh in parts.items()}


def shift_load(config: LedgerConfig, *, zone: str, energy_mwh: int, now_ns: int, then_ns: int) -> Marginal:
    """Return what it changes to draw some energy then instead of now, by the marginal factors in force.

    Raises ConfigError where one of the times has none.
    """
    table = FactorTable()
    with reading(config) as connection:
        leaves = tables.factors(connection)
    for leaf in leaves:
        table.add(leaf)
    factors = [leaf.factor for leaf in leaves if table.in_force(leaf.factor) is leaf]
    return shifted_load(energy_mwh, zone=zone, now_ns=now_ns, then_ns=then_ns, factors=factors)
