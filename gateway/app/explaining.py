"""`wattseal explain`: a row or a statement, computed again from the leaves in the ledger's logs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.app.dual import reading
from gateway.app.duties.closing_lines import statement_of
from gateway.app.factbook import FactBook, leaves_of
from gateway.app.reporting import lines_named
from gateway.carbon.audit.explain import Explanation, explain
from gateway.carbon.audit.rows import record_id
from gateway.carbon.emissions import IntervalLeaf, figures_for
from gateway.carbon.energy import LeafRef
from gateway.carbon.exact import shifted, text, utc
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Figure
from gateway.carbon.grid.settings import parse_settings
from gateway.carbon.grid.table import FactorLeaf
from gateway.carbon.kpi.periods import Period, period_of, window_of
from gateway.carbon.kpi.report import DAY_NS
from gateway.carbon.kpi.statements import changed, figures_of_period, flat, sha256_of, without_market
from gateway.codec.checks import to_schema
from gateway.codec.leaves import Leaf
from gateway.codec.ledger_leaves import to_document, to_factor, to_statement
from gateway.codec.line_leaves import to_interval
from gateway.config import LedgerConfig
from gateway.errors import ConfigError, TrustError
from gateway.model import LineSchema
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Connection, FigureKey, Projections, Slice, StatementRow
from gateway.store.segments import Log
from gateway.store.view import steadily, view

MOST_ROWS = 10
"""So many of a statement's rows are named, those with the most energy."""

_SECOND_NS = 1_000_000_000


def explain_record(
    config: LedgerConfig,
    record: str,
    *,
    line: str | None = None,
    at_ns: int | None = None,
    tell: Callable[[int, int], None] = lambda done, days: None,  # noqa: ARG005
) -> Explanation:
    """Return how a row or a statement came about; the ledger may run meanwhile.

    line, at_ns: of a row, its line and the second in which it starts: where they are known, nothing is searched.
    tell: called with how many days were searched, and of how many.
    Raises ConfigError for a record that the tables do not know, LogError for a log that cannot be trusted.
    """
    with reading(config) as connection:
        stated = bool(tables.statements(connection, record=record))
        key = None if stated else _find(connection, record, line=line, at_ns=at_ns, tell=tell)
    return steadily(lambda: _explain(config, record, key))


def _explain(config: LedgerConfig, record: str, key: FigureKey | None) -> Explanation:
    folder = config.ledger.state
    book = Projections(folder / "projections.sqlite", new=False)
    opened: dict[str, Log] = {}
    try:
        with book.reading() as connection:
            # The tables first: the logs may only be newer than they are.
            stated = tables.statements(connection, record=record) if key is None else []
            figure = None if key is None else _figure(connection, record, key)
            name = flat(stated[-1].subject).get("gateway", "") if figure is None else figure.gateway
            own = opened["own"] = view(RealFiles(folder / "own"), origin=config.origin)
            copy = opened["copy"] = view(RealFiles(folder / "gateways" / name), origin=f"wattseal/{name}")
            source = _Source(connection, name, own=own, copy=copy)
            return source.row(figure) if figure is not None else source.statement(stated)
    finally:
        book.close()
        for log in opened.values():
            log.close()


def _find(
    connection: Connection, record: str, *, line: str | None, at_ns: int | None, tell: Callable[[int, int], None]
) -> FigureKey:
    """Return where the row of a record stands: it is a hash, so that every row's is made until one fits.

    Day by day over all lines, the newest first.
    """
    start_ns, end_ns = (0, 2**63 - 1) if at_ns is None else (at_ns, at_ns + _SECOND_NS)
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for gateway, name in lines_named(connection, line):
        where = Slice(start_ns=start_ns, end_ns=end_ns, gateway=gateway, line=name)
        if (span := tables.cell_span(connection, where)) is not None:
            spans[gateway, name] = span
    oldest_ns = min((first_ns for first_ns, _ in spans.values()), default=0)
    newest_ns = max((last_ns for _, last_ns in spans.values()), default=0)
    days = range(newest_ns, oldest_ns, -DAY_NS)
    for done, day_end_ns in enumerate(days):
        tell(done, len(days))
        for (gateway, name), (first_ns, last_ns) in spans.items():
            bounds = {"start_ns": max(first_ns, day_end_ns - DAY_NS), "end_ns": min(last_ns, day_end_ns)}
            for key in tables.figure_keys(connection, gateway, name, **bounds):
                if record_id(key.gateway, key.line, key.meter, key.start_ns) == record:
                    return key
    raise _unknown(record, "" if line is None and at_ns is None else "; --line and --at may be wrong")


def _figure(connection: Connection, record: str, key: FigureKey) -> Figure:
    where = Slice(start_ns=key.cell_start_ns, end_ns=key.cell_start_ns + 1, gateway=key.gateway, line=key.line)
    for figure in tables.figures(connection, where):
        if (figure.meter, figure.start_ns) == (key.meter, key.start_ns):
            return figure
    raise _unknown(record)


def _unknown(record: str, hint: str = "") -> ConfigError:
    return ConfigError(f"record: got {record!r}, want the record_id of a row or the record of a statement{hint}")


class _Source:
    """A gateway's copy and the ledger's own log, at one state of the tables."""

    def __init__(self, connection: Connection, gateway: str, *, own: Log, copy: Log) -> None:
        self._connection, self._gateway, self._own, self._copy = connection, gateway, own, copy
        book = FactBook(own)
        book.load(connection)
        self._facts: Facts = book.facts
        self._schemas = {schema.id: schema for schema in self._sealed_schemas()}

    def row(self, stored: Figure) -> Explanation:
        """Return how a row came about."""
        leaves = self._leaves(stored.line, stored.cell_start_ns, stored.end_ns)
        factor = None if stored.factor_leaf_index is None else self._factor(stored.factor_leaf_index)
        return {
            "kind": "row",
            **explain(stored, leaves, schemas=self._schemas, facts=self._facts, factor=factor),
        }

    def statement(self, rows: Sequence[StatementRow]) -> Explanation:
        """Return all versions of a statement, what changed and why, and its largest rows."""
        newest, subject = rows[-1], flat(rows[-1].subject)
        if "shift" not in subject:
            raise ConfigError(f"record: got a statement of {sorted(subject)}, want one of a shift")
        old = Period(subject["gateway"], subject["line"], subject["shift"], int(subject["start"]), int(subject["end"]))
        period = period_of(
            self._facts,
            old.gateway,
            old.line,
            shift=old.setting_shift,
            start_ns=old.start_ns,
            end_ns=old.end_ns,
        )
        start_ns, end_ns = window_of(old, period)
        cells = self._cells(old.line, start_ns, end_ns)
        plan = self._facts.plan_at(period.start_ns).plan.line(old.gateway, old.line)
        again = figures_of_period(
            cells,
            period,
            settled=tables.settles(self._connection, old.gateway, old.line, max(old.end_ns, period.end_ns)),
            ideal_per_hour=plan.ideal_units_per_hour,
        )
        stored = without_market(flat(newest.figures))
        return {
            "kind": "statement",
            "record": newest.record,
            "subject": subject,
            "start": utc(old.start_ns),
            "end": utc(old.end_ns),
            "versions": self._versions(rows),
            "rows": _largest(cells, period),
            "recomputed": {"energy_kwh": again["energy_kwh"], "co2e_kg": again["co2e_kg"]},
            "equal": again == stored,
            "differences": {name: list(pair) for name, pair in changed(stored, again).items()},
        }

    def _versions(self, rows: Sequence[StatementRow]) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        before: StatementRow | None = None
        for row in rows:
            leaf = self._leaf(self._own, row.leaf_index)
            sha256 = "" if before is None else sha256_of(statement_of(before))
            as_sealed = to_statement(leaf.body)
            said.append(
                {
                    "version": row.version,
                    "leaf": row.leaf_index,
                    "sealed_at": utc(leaf.clock.t_ns),
                    "reason": row.reason,
                    "supersedes": row.supersedes,
                    "chain_holds": row.supersedes == sha256 and leaf.prev == (before and before.leaf_index),
                    "as_sealed": statement_of(row) == as_sealed,
                    "figures": flat(row.figures),
                    "changed": {}
                    if before is None
                    else {name: list(pair) for name, pair in changed(flat(before.figures), flat(row.figures)).items()},
                }
            )
            before = row
        return said

    # ---- from the logs

    def _sealed_schemas(self) -> list[LineSchema]:
        found = [
            to_schema(self._leaf(self._copy, index).body)
            for index, _ in tables.schemas(self._connection, self._gateway)
        ]
        return [schema for schema in found if isinstance(schema, LineSchema)]

    def _leaf(self, log: Log, index: int) -> Leaf:
        for _, leaf in leaves_of(log, index, index + 1):
            return leaf
        raise TrustError(f"explain: leaf {index} of {log.origin} cannot be read", index=index)

    def _leaves(self, line: str, start_ns: int, end_ns: int) -> list[IntervalLeaf]:
        span = tables.settled_range(self._connection, self._gateway, line, start_ns=start_ns, end_ns=end_ns)
        if span is None:
            return []
        found = []
        for row in tables.intervals(self._connection, self._gateway, line, first=span[0], last=span[1]):
            if row.quarantined:
                continue
            leaf = self._leaf(self._copy, row.leaf_index)
            ref = LeafRef(index=row.leaf_index, hash=self._copy.leaf_hash(row.leaf_index), clock=leaf.clock)
            interval = to_interval(leaf.body, self._schemas[row.schema_id])
            found.append(IntervalLeaf(gateway=self._gateway, ref=ref, interval=interval))
        return found

    def _cells(self, line: str, start_ns: int, end_ns: int) -> tuple[Cell, ...]:
        leaves = self._leaves(line, start_ns, end_ns)
        return figures_for(leaves, schemas=self._schemas, facts=self._facts, start_ns=start_ns, end_ns=end_ns)

    def _factor(self, index: int) -> FactorLeaf | None:
        """Return the factor that a leaf says: a provider's, or the operator's in grid-settings.json."""
        leaf = self._leaf(self._own, index)
        if leaf.kind == "factor":
            return FactorLeaf(factor=to_factor(leaf.body), index=index, hash=self._own.leaf_hash(index))
        document = to_document(leaf.body)
        factor = parse_settings(document.content, name=document.name).factor(document.from_ns)
        return None if factor is None else FactorLeaf(factor=factor, index=index, hash=self._own.leaf_hash(index))


def _largest(cells: Sequence[Cell], period: Period) -> list[Mapping[str, str]]:
    rows = [
        row
        for cell in cells
        if period.holds(cell.line.start_ns, cell.line.setting.shift)
        for row in cell.figures
        if row.energy_mwh is not None
    ]
    rows.sort(key=lambda row: (-(row.energy_mwh or 0), row.start_ns, row.asset))
    return [
        {
            "record": record_id(row.gateway, row.line, row.meter, row.start_ns),
            "asset": row.asset,
            "start": utc(row.start_ns),
            "energy_kwh": text(shifted(row.energy_mwh or 0, -6)),
            "co2e_kg": "" if row.co2e_g is None else text(shifted(row.co2e_g, -3)),
        }
        for row in rows[:MOST_ROWS]
    ]
