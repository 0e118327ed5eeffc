"""Alerting: watches each line that the plan or a schema names, and seals what there is to be said.

It reads the cells of a line as they come to the tables, once, in order of time; a cell that is restated later raises
nothing after the event. After a restart it reads again from the newest baseline on, at most BACK_NS: what was sealed
then is not sealed again, and what is open stays so. A change of the line's plan begins like a restart. Where an
operator accepted an alert later than that baseline, it reads from there: what was usual before is not learned again.
A product that was made since BACK_NS ago and has no baseline is learned from then on, or from when an alert of it was
accepted: what lies before the newest baseline is read for that alone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway.app import learning
from gateway.app.alerts import AlertBook, LineName, cause_words, read_alerts
from gateway.app.duties.duty import Desk
from gateway.app.shelving import ACCEPT, SHELVE, Request, take
from gateway.carbon.alerts.alert import LEARNED, RAISED, AlertEvent
from gateway.carbon.alerts.detect import LineWatch
from gateway.carbon.alerts.learning import LEAST_WINDOWS
from gateway.carbon.alerts.observe import HOUR_NS, Observation, observe
from gateway.carbon.alerts.windows import WINDOW_NS
from gateway.carbon.figures import Cell
from gateway.codec.bodies import event_body
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.config.plan import LinePlan
from gateway.store import projections as tables
from gateway.store.projections import Connection, Slice

BACK_NS = 31 * 24 * HOUR_NS
MOST_S = 0.25
"""One look takes so long at most, but for one chunk of one line."""
_CHUNK_NS = 6 * HOUR_NS
_EVERY_NS = 5_000_000_000
_DISCOVER_NS = 30_000_000_000
_LATE_NS = 90_000_000_000
"""So long a cell waits for the starts that were counted in it."""


@dataclass(slots=True)
class _Line:
    """One line's watch. next_ns: from where to read on. said_ns: up to where all is sealed already."""

    name: LineName
    plan: LinePlan
    watch: LineWatch
    next_ns: int
    said_ns: int
    is_resumed: bool = False
    waiting: list[AlertEvent] = field(default_factory=list)
    shift: tuple[str, int | None] = ("", None)

    @property
    def counts_starts(self) -> bool:
        """Whether starts of any asset are counted."""
        return any(meter.power is not None and meter.running_w is not None for meter in self.plan.meters.values())


class Alerting:
    """The duty. state: the ledger's folder. steady: a monotonic clock, in seconds."""

    name = "alerting"

    def __init__(
        self, state: Path, desk: Desk, log: FilteringBoundLogger, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._desk, self._log, self._steady = state, desk, log, steady
        self._lines: dict[LineName, _Line] = {}
        self._due_ns = self._discover_ns = 0
        self._learning: list[dict[str, Any]] | None = None

    async def run(self) -> None:
        """Nothing is to be served or fetched."""

    def look(self, now_ns: int) -> None:
        """Read what is new of each line, and seal what it says."""
        if self._due_ns - _EVERY_NS <= now_ns < self._due_ns:  # a clock that was set back does not stop it
            return
        stop_s = self._steady() + MOST_S
        is_done = True
        if not self._discover_ns - _DISCOVER_NS <= now_ns < self._discover_ns:
            is_done = self._discover(now_ns, stop_s)
            self._discover_ns = now_ns + _DISCOVER_NS if is_done else 0
        for line in list(self._lines.values()):
            is_done = is_done and self._read_on(line, now_ns, stop_s)
        if is_done:  # not while a line is as it was long ago
            self._take_requests(now_ns)
            self._write_learning()
        self._due_ns = now_ns + _EVERY_NS if is_done else now_ns

    @property
    def open_alerts(self) -> int:
        """How many are open."""
        return sum(len(line.watch.open_alerts) for line in self._lines.values())

    # ---- lines

    def _discover(self, now_ns: int, stop_s: float) -> bool:
        """Take up lines that are new, and those whose plan has changed; return False where some have to wait."""
        plan = self._desk.facts.plan_at(now_ns).plan
        with self._desk.book.reading() as connection:
            names = {(gateway, line) for gateway, line, _ in tables.line_zones(connection)}
            new = [name for name in sorted(names) if self._is_new(name, plan.line(*name))]
            book = read_alerts(connection) if new else AlertBook()
            for name in new:
                self._lines[name] = self._resumed(connection, name, plan.line(*name), book)
                if self._steady() >= stop_s:
                    return name == new[-1]
        return True

    def _is_new(self, name: LineName, plan: LinePlan) -> bool:
        held = self._lines.get(name)
        return held is None or (held.plan != plan and not held.waiting)

    def _resumed(self, connection: Connection, name: LineName, plan: LinePlan, book: AlertBook) -> _Line:
        """Return a line as it was before a restart, to be read again from its newest baseline on."""
        gateway, line = name
        baselines = book.baselines.get(name, {})
        span = tables.cell_span(connection, Slice(gateway=gateway, line=line))
        first, last = (0, 0) if span is None else span
        back_ns = max(first, last - BACK_NS)
        learned = max((one.until_ns for one in baselines.values()), default=0)
        anew = {key: one.cleared_ns or 0 for key, one in book.learning.get(name, {}).items()}
        judged_ns = max([back_ns, learned, *anew.values()])
        made = tables.products_made(connection, *name, back_ns, judged_ns, least_ns=LEAST_WINDOWS * WINDOW_NS)
        from_ns = min([judged_ns, *(anew.get(key, 0) for key in made if key not in baselines)])
        loads = {asset: meter.load for asset, meter in plan.meters.items()}
        loads |= {asset: virtual.load for asset, virtual in plan.virtual.items()}
        watch = LineWatch(
            plan.alerts,
            gateway=gateway,
            line=line,
            loads=loads,
            baselines=baselines,
            past=book.of(name),
            judged_ns=judged_ns,
        )
        return _Line(
            name=name,
            plan=plan,
            watch=watch,
            next_ns=max(back_ns, from_ns),
            said_ns=book.said_ns.get(name, 0),
        )

    # ---- cells

    def _read_on(self, line: _Line, now_ns: int, stop_s: float) -> bool:
        """Feed a line what is new; return False where the rest has to wait."""
        while self._seal_waiting(line):
            if self._steady() >= stop_s:
                return False
            seen = self._chunk(line, now_ns)
            if not seen:
                if not line.is_resumed and line.next_ns >= line.said_ns:
                    self._resume(line)
                return True
            for one in seen:
                if not line.is_resumed and one.end_ns > line.said_ns:
                    self._resume(line)
                said = line.watch.feed(one)  # a baseline that was sealed is not learned again
                line.waiting += [event for event in said if event.t_ns > line.said_ns or event.what == LEARNED]
                line.next_ns = one.end_ns
        return False

    def _resume(self, line: _Line) -> None:
        with self._desk.book.reading() as connection:
            book = read_alerts(connection)
        if line.said_ns:
            line.watch.restore(book.of(line.name))
        line.is_resumed = True

    def _chunk(self, line: _Line, now_ns: int) -> list[Observation]:
        """Return some hours of a line, from where it was left; none where there is nothing new."""
        gateway, name = line.name
        newest = self._desk.ends.get(line.name)
        if newest is None or newest <= line.next_ns:
            return []
        with self._desk.book.reading() as connection:
            where = Slice(start_ns=line.next_ns, end_ns=line.next_ns + _CHUNK_NS, gateway=gateway, line=name)
            cells = list(tables.cells(connection, where))
            if not cells:
                later = Slice(start_ns=line.next_ns, gateway=gateway, line=name)
                span = tables.cell_span(connection, later)
                line.next_ns = newest if span is None else max(line.next_ns, span[0])
                where = Slice(start_ns=line.next_ns, end_ns=line.next_ns + _CHUNK_NS, gateway=gateway, line=name)
                cells = list(tables.cells(connection, where))
            return list(self._observed(connection, line, cells, now_ns))

    def _observed(self, connection: Connection, line: _Line, cells: list[Cell], now_ns: int) -> Iterator[Observation]:
        gateway, name = line.name
        for cell in cells:
            start_ns, end_ns = cell.line.start_ns, cell.line.end_ns
            starts = loaded_s = None
            if line.counts_starts:
                if now_ns < end_ns + _LATE_NS and not tables.cycled(connection, gateway, name, end_ns, 2**63 - 1):
                    return
                found = tables.cycled(connection, gateway, name, start_ns, end_ns)
                starts = {asset: one.starts for asset, one in found.items()}
                loaded_s = {asset: one.loaded_ns / 1e9 for asset, one in found.items()}
            yield observe(cell, starts=starts, loaded_s=loaded_s, shift_end_ns=self._shift_end(line, cell))

    def _shift_end(self, line: _Line, cell: Cell) -> int | None:
        shift, start_ns = cell.line.setting.shift, cell.line.start_ns
        if not shift:
            return None
        if line.shift[0] != shift:
            calendar = self._desk.facts.plan_at(start_ns).calendar
            ends = [one.end_ns for one in calendar.shifts(*line.name, start_ns, start_ns + 1) if one.id == shift]
            line.shift = (shift, ends[0] if ends else None)
        return line.shift[1]

    def _write_learning(self) -> None:
        """Write down what is learned, where that has changed."""
        rows = [
            {"gateway": line.name[0], "line": line.name[1], **one._asdict()}
            for line in self._lines.values()
            for one in line.watch.learning()
        ]
        if rows == self._learning:
            return
        try:
            learning.write(self._state, rows)
        except OSError as e:
            self._log.error("ledger.learning", why=str(e))
        self._learning = rows

    # ---- events

    def _seal_waiting(self, line: _Line) -> bool:
        """Seal what a line has said; return False where there is no room."""
        while line.waiting:
            event = line.waiting[0]
            body = event_body(event.what, event.t_ns, event.about())
            if len(body) > MAX_LEAF - MAX_HEADER:  # causes without end: no alert that anyone reads
                self._log.error("ledger.alert_too_long", what=event.what, gateway=line.name[0], line=line.name[1])
            elif self._desk.seal("event", body) is None:
                return False
            else:
                self._say(event)
            del line.waiting[0]
        return True

    def _say(self, event: AlertEvent) -> None:
        alert = event.alert
        if event.what == LEARNED or alert is None:
            self._log.info("ledger.baseline", gateway=event.gateway, line=event.line)
            return
        say = self._log.warning if event.what == RAISED else self._log.info
        cause = cause_words(alert.causes[0], alert.unit) if alert.causes else ""
        say("ledger.alert", what=event.what, alert=alert.id, gateway=alert.gateway, line=alert.line, cause=cause)

    def _take_requests(self, now_ns: int) -> None:
        for request in take(self._state):
            why = request if isinstance(request, str) else self._do(request, now_ns)
            if why:
                is_accept = isinstance(request, Request) and request.what == ACCEPT
                self._log.warning("ledger.accept" if is_accept else "ledger.shelve", why=why[:300])

    def _do(self, request: Request, now_ns: int) -> str:
        """Shelve or accept an alert; return why it cannot be, "" where it is."""
        for line in self._lines.values():
            if any(alert.id == request.alert for alert in line.watch.open_alerts):
                try:
                    line.waiting.append(_asked(line, request, now_ns))
                except ValueError as e:
                    return str(e)
                self._seal_waiting(line)
                return ""
        return f"{request.alert}: no such alert is open"


def _asked(line: _Line, request: Request, now_ns: int) -> AlertEvent:
    """Do what is asked with a line's open alert. Raises ValueError where that cannot be."""
    if request.what == SHELVE:
        return line.watch.shelve(
            request.alert, until_ns=request.until_ns, by=request.by, why=request.why, now_ns=now_ns
        )
    return line.watch.accept(request.alert, by=request.by, why=request.why, t_ns=line.next_ns)
