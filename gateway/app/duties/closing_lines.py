"""What the closing duty keeps of a line, and when a period of it may be closed."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.carbon.exact import utc
from gateway.carbon.facts import Touched
from gateway.carbon.kpi.periods import Period
from gateway.carbon.kpi.statements import flat
from gateway.model import Statement
from gateway.store import projections as tables
from gateway.store.projections import Connection, StatementRow

HOUR_NS = 3_600_000_000_000
_SECOND_NS = 1_000_000_000
_IDLE_NS = 60 * _SECOND_NS


@dataclass(slots=True, kw_only=True)
class Stated:
    """A period's newest statement. looked_ns: when it was last computed for late leaves, by the ledger's clock."""

    period: Period
    leaf_index: int
    is_settled: bool
    looked_ns: int


@dataclass(slots=True, kw_only=True)
class ClosingLine:
    """A line. since_ns: cells before it are all in periods that are stated. end_ns: of its newest cell.

    heard_ns: when that cell came, by the ledger's clock. due_ns: nothing can be closed before.
    """

    gateway: str
    name: str
    heard_ns: int
    zones: set[str] = field(default_factory=set)
    since_ns: int = 0
    end_ns: int = 0
    due_ns: int = 0
    open: list[Period] = field(default_factory=list)
    stated: dict[str, Stated] = field(default_factory=dict)
    starts: list[tuple[int, str]] = field(default_factory=list)
    _unsettled: dict[str, None] = field(default_factory=dict)
    _longest_ns: int = 0

    def keep(self, stated: Stated) -> None:
        """Take up a period's newest statement."""
        record = stated.period.record
        before = self.stated.get(record)
        if before is not None:
            self.starts.remove((before.period.start_ns, record))
        insort(self.starts, (stated.period.start_ns, record))
        self.stated[record] = stated
        self._longest_ns = max(self._longest_ns, stated.period.end_ns - stated.period.start_ns)
        if stated.is_settled:
            self._unsettled.pop(record, None)
        else:
            self._unsettled[record] = None

    def overlapping(self, window: Touched) -> Iterator[Stated]:
        """Yield what was stated of periods that overlap a window."""
        for place in range(bisect_left(self.starts, (window.start_ns - self._longest_ns, "")), len(self.starts)):
            start_ns, record = self.starts[place]
            if start_ns >= window.end_ns:
                return
            stated = self.stated[record]
            if stated.period.end_ns > window.start_ns:
                yield stated

    def unsettled(self) -> Iterator[Stated]:
        """Yield what was stated before its cells were settled."""
        yield from [self.stated[record] for record in self._unsettled if not self.stated[record].is_settled]

    def is_of(self, window: Touched) -> bool:
        """Return whether a fact can touch this line."""
        return (
            window.gateway in {None, self.gateway}
            and window.line in {None, self.name}
            and (window.zone is None or window.zone in self.zones)
        )

    def next_look(self, now_ns: int) -> int:
        """Return when to look again: at the end of what is open; soon, and ever less often, where that has passed."""
        if not self.open and not self._unsettled:
            return now_ns + _IDLE_NS
        waits = [period.end_ns - now_ns for period in self.open]
        soonest = min(waits, default=_IDLE_NS)
        if soonest > 0 and not self._unsettled:
            return now_ns + soonest
        return now_ns + min(_IDLE_NS, max(_SECOND_NS, abs(soonest) // 8))


def closable(connection: Connection, line: ClosingLine, period: Period, now_ns: int, grace_ns: int) -> bool | None:
    """Return None where a period cannot be closed yet, else whether its cells are settled."""
    if now_ns < period.end_ns:
        return None
    has_gone_on = period.is_known or line.end_ns > period.end_ns
    if has_gone_on and tables.settles(connection, line.gateway, line.name, period.end_ns):
        return True
    is_quiet = now_ns >= max(period.end_ns, line.heard_ns) + grace_ns
    is_passed = line.end_ns >= period.end_ns + grace_ns
    return False if is_quiet or is_passed else None


def statement_of(row: StatementRow) -> Statement:
    """Return a statement as it was sealed: its maps in the order in which the closing seals them."""
    return Statement(
        record=row.record,
        version=row.version,
        supersedes=row.supersedes,
        reason=row.reason,
        subject=tuple(flat(row.subject).items()),
        figures=tuple(flat(row.figures).items()),
    )


def reason_of(connection: Connection, index: int) -> str:
    """Return what a leaf of the ledger's log says, as the reason of a restatement."""
    origin = tables.origin_of(connection, index)
    if origin.kind == "factor":
        old = ""
        if origin.supersedes:
            value = tables.factor_of_version(connection, origin.supersedes, before=index, start_ns=origin.start_ns)
            old = f"{value} ({origin.supersedes[:12]}) -> "
        new = f"{old}{origin.value} ({origin.version[:12]}), {origin.state}"
        return f"factor {origin.key} from {utc(origin.start_ns)}: {new}, leaf {index}"
    return f"{origin.kind or 'fact'} {origin.key}, leaf {index}"
