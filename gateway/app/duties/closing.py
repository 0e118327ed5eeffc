"""Closing: each shift of a line is stated once it is over, and again whenever what it rests on has changed.

A shift is closed when its end has passed and no leaf that is still to come can change a cell of it. Where that does not
come about, as with a meter that is dead or a gateway that is away, it is closed when GRACE_NS of time is over, and is
`provisional`. What lies outside of all shifts is closed by UTC day.

What is closed is a `statement` leaf of the ledger's log, and stays as it is. A fact that touches it, or a late leaf,
has it computed again; where that gives other figures, the next version is sealed beside it, with the reason.

All state comes from leaves: after a restart, the facts that were sealed after a statement are looked at again.
"""

import time
from bisect import bisect_right
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from gateway.app.dual import read_match
from gateway.app.duties.closing_lines import HOUR_NS, ClosingLine, Stated, closable, reason_of, statement_of
from gateway.app.duties.duty import Desk
from gateway.carbon.facts import Touched
from gateway.carbon.figures import CALC_VERSION
from gateway.carbon.kpi.periods import Period, period_of, window_of
from gateway.carbon.kpi.report import DAY_NS
from gateway.carbon.kpi.statements import figures_of_period, first_statement, flat, next_statement, without_market
from gateway.codec.bodies import statement_body
from gateway.model import Statement
from gateway.store import projections as tables
from gateway.store.projections import Connection, Slice

GRACE_NS = HOUR_NS
MOST_S = 0.25
"""One look takes so long at most, but for one period; the rest waits for the next."""
_DISCOVER_NS = 10_000_000_000
_BACK_NS = 2 * DAY_NS
"""No period that is still open began so long before the end of one that is closed."""


class Closing:
    """The duty. steady: a monotonic clock, in seconds."""

    name = "closing"

    def __init__(self, desk: Desk, log: FilteringBoundLogger, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._desk, self._log, self._steady = desk, log, steady
        self._lines: dict[tuple[str, str], ClosingLine] = {}
        self._dirty: dict[str, tuple[ClosingLine, list[int]]] = {}
        self._seen = -1
        self._discover_ns = self._looked_ns = 0
        self._is_loaded = False

    async def run(self) -> None:
        """Nothing is to be served or fetched."""

    def look(self, now_ns: int) -> None:
        """Close what is due, and state anew what was touched."""
        if now_ns < self._looked_ns - DAY_NS:
            self._begin_again(now_ns)
        self._looked_ns = now_ns
        if now_ns >= self._discover_ns:
            self._discover(now_ns)
            self._discover_ns = now_ns + _DISCOVER_NS
        self._hear_facts()
        stop_s = self._steady() + MOST_S
        for line in self._lines.values():
            if now_ns >= line.due_ns and not self._close(line, now_ns, stop_s):
                return
        while self._dirty:
            record, (line, indices) = next(iter(self._dirty.items()))
            if not self._restate(line, line.stated[record], indices):
                return
            del self._dirty[record]
            if self._steady() >= stop_s:
                return

    def _begin_again(self, now_ns: int) -> None:
        """Wait for nothing that was to come by a clock that was set back by more than a day since."""
        self._discover_ns = 0
        for line in self._lines.values():
            line.due_ns, line.heard_ns = 0, min(line.heard_ns, now_ns)
            for stated in line.stated.values():
                stated.looked_ns = min(stated.looked_ns, now_ns)

    # ---- what there is

    def _discover(self, now_ns: int) -> None:
        """Take up lines that are new; at the first time also what was stated of them."""
        with self._desk.book.reading() as connection:
            for gateway, name, zone in tables.line_zones(connection):
                line = self._line(gateway, name, now_ns)
                line.zones.add(zone)
            if not self._is_loaded:
                self._load(connection, now_ns)
                self._is_loaded = True

    def _line(self, gateway: str, name: str, now_ns: int) -> ClosingLine:
        return self._lines.setdefault((gateway, name), ClosingLine(gateway=gateway, name=name, heard_ns=now_ns))

    def _load(self, connection: Connection, now_ns: int) -> None:
        for row in tables.newest_statements(connection):
            subject = flat(row.subject)
            if "shift" not in subject:
                continue
            line = self._line(subject["gateway"], subject["line"], now_ns)
            start_ns, end_ns = int(subject["start"]), int(subject["end"])
            period = Period(line.gateway, line.name, subject["shift"], start_ns, end_ns)
            stated = Stated(period=period, leaf_index=row.leaf_index, is_settled=row.is_settled, looked_ns=now_ns)
            line.keep(stated)
            line.since_ns = max(line.since_ns, end_ns - _BACK_NS)
            if subject.get("calc_version") != CALC_VERSION:
                self._touch(line, stated, None)

    # ---- what touches what was stated

    def _hear_facts(self) -> None:
        """Note which statements a new fact may change."""
        touched = self._desk.touched
        first = bisect_right(touched, self._seen, key=lambda one: one[0])
        for index, window in touched[first:]:
            is_plan = window.zone is None and window.line is None and self._is_document(index)
            for line in self._lines.values():
                if line.is_of(window):
                    self._hear(line, index, window, is_plan=is_plan)
            self._seen = index

    def _is_document(self, index: int) -> bool:
        with self._desk.book.reading() as connection:
            return tables.origin_of(connection, index).kind == "document"

    def _hear(self, line: ClosingLine, index: int, window: Touched, *, is_plan: bool) -> None:
        for stated in line.overlapping(window):
            if stated.leaf_index < index:
                self._touch(line, stated, index)
        if is_plan and index > max((stated.leaf_index for stated in line.stated.values()), default=-1):
            # There may be shifts where there were none.
            line.since_ns = max(0, min(line.since_ns, window.start_ns - _BACK_NS))
            line.open, line.due_ns = [], 0

    def _touch(self, line: ClosingLine, stated: Stated, index: int | None) -> None:
        _, indices = self._dirty.setdefault(stated.period.record, (line, []))
        if index is not None:
            indices.append(index)

    # ---- closing

    def _close(self, line: ClosingLine, now_ns: int, stop_s: float) -> bool:
        """Close what can be of a line; return False where the rest has to wait for the next look."""
        with self._desk.book.reading() as connection:
            end_ns = tables.newest_cell_end(connection, line.gateway, line.name)
            if end_ns is None:
                line.due_ns = now_ns + _DISCOVER_NS
                return True
            if end_ns != line.end_ns or not line.open:
                line.heard_ns = now_ns if end_ns != line.end_ns else line.heard_ns
                line.end_ns = end_ns
                self._list_open(connection, line)
            ready = [
                (period, settled)
                for period in line.open
                if (settled := closable(connection, line, period, now_ns, GRACE_NS)) is not None
            ]
            self._wait_for_late(connection, line, now_ns)
        for period, settled in ready:
            if not self._state(line, period, now_ns, settled=settled):
                return False
            line.open.remove(period)
            if self._steady() >= stop_s:
                return False
        line.since_ns = min((period.start_ns for period in line.open), default=line.end_ns)
        line.due_ns = line.next_look(now_ns)
        return True

    def _list_open(self, connection: Connection, line: ClosingLine) -> None:
        facts = self._desk.facts
        held = tables.held_periods(connection, line.gateway, line.name, since_ns=line.since_ns)
        periods = [
            period_of(facts, line.gateway, line.name, shift=one.shift, start_ns=one.start_ns, end_ns=one.end_ns)
            for one in held
        ]
        line.open = [period for period in periods if period.record not in line.stated]

    def _wait_for_late(self, connection: Connection, line: ClosingLine, now_ns: int) -> None:
        """Note those that were closed before their time whose late leaves have come."""
        for stated in line.unsettled():
            settled = tables.settles(connection, line.gateway, line.name, stated.period.end_ns)
            if settled or (now_ns >= stated.looked_ns + GRACE_NS and line.heard_ns > stated.looked_ns):
                stated.looked_ns = now_ns
                self._touch(line, stated, None)

    def _state(self, line: ClosingLine, period: Period, now_ns: int, *, settled: bool) -> bool:
        """Seal the first statement of a period; return False where there is no room."""
        figures = self._figures(period, period.start_ns, period.end_ns, settled=settled, is_market=True)
        statement = first_statement(period, figures, plan_sha256=self._desk.facts.plan_at(period.start_ns).sha256)
        return self._seal(line, period, statement, settled=settled, now_ns=now_ns)

    def _restate(self, line: ClosingLine, stated: Stated, indices: list[int]) -> bool:
        """Compute a statement again and seal what differs; return False where there is no room."""
        old, facts = stated.period, self._desk.facts
        period = period_of(
            facts, line.gateway, line.name, shift=old.setting_shift, start_ns=old.start_ns, end_ns=old.end_ns
        )
        start_ns, end_ns = window_of(old, period)
        with self._desk.book.reading() as connection:
            settled = tables.settles(connection, line.gateway, line.name, max(old.end_ns, period.end_ns))
            before = statement_of(tables.statements(connection, record=old.record)[-1])
            reasons = [reason_of(connection, index) for index in indices]
        figures = self._figures(period, start_ns, end_ns, settled=settled)
        if without_market(dict(before.figures)) != figures:  # only then is the year's match asked
            figures = self._figures(period, start_ns, end_ns, settled=settled, is_market=True)
        if dict(before.figures).get("last_leaf") != figures["last_leaf"] or settled != stated.is_settled:
            reasons.append(f"late leaf {figures['last_leaf']} of {line.gateway}")
        sha256 = facts.plan_at(period.start_ns).sha256
        statement = next_statement(before, period, figures, plan_sha256=sha256, reasons=reasons)
        if statement is None:
            stated.is_settled = settled
            return True
        return self._seal(line, period, statement, settled=settled, now_ns=stated.looked_ns)

    def _figures(
        self, period: Period, start_ns: int, end_ns: int, *, settled: bool, is_market: bool = False
    ) -> dict[str, str]:
        """Return a period's figures. is_market: with the market-based ones, by the match of the year up to end_ns."""
        facts = self._desk.facts
        plan = facts.plan_at(period.start_ns).plan.line(period.gateway, period.line)
        where = Slice(start_ns=start_ns, end_ns=end_ns, gateway=period.gateway, line=period.line)
        with self._desk.book.reading() as connection:
            match = None
            if is_market:
                match = read_match(connection, facts, start_ns=start_ns, end_ns=end_ns, until_ns=end_ns)
            return figures_of_period(
                tables.cells(connection, where),
                period,
                settled=settled,
                ideal_per_hour=plan.ideal_units_per_hour,
                match=match,
            )

    def _seal(self, line: ClosingLine, period: Period, statement: Statement, *, settled: bool, now_ns: int) -> bool:
        index = self._desk.seal("statement", statement_body(statement))
        if index is None:
            return False
        line.keep(Stated(period=period, leaf_index=index, is_settled=settled, looked_ns=now_ns))
        self._log.info(
            "ledger.statement",
            gateway=period.gateway,
            line=period.line,
            shift=period.shift,
            version=statement.version,
            state=dict(statement.figures)["state"],
            reason=statement.reason,
        )
        return True
