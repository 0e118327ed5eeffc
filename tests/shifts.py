"""A line with shifts, states, products and jobs for tests: its leaves as a gateway seals them, and its plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from gateway.clock import WallClock
from gateway.codec.bodies import context_body, document_body, epoch_body, interval_body, line_body
from gateway.codec.leaves import seal
from gateway.model import (
    Clock,
    ClockState,
    ContextColumn,
    ContextFact,
    Document,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Sample,
    Told,
    What,
)
from tests.ledgering import SIGNERS, Hall, Scroll
from tests.line_leaves import factor

SECOND = 1_000_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
DAY = 24 * HOUR
MONDAY = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp()) * SECOND
SIX = MONDAY + 6 * HOUR

PLAN = """
[shifts.early]
start = "06:00"
end = "14:00"
days = ["mon", "tue", "wed", "thu", "fri"]
[shifts.late]
start = "14:00"
end = "22:00"
days = ["mon", "tue", "wed", "thu", "fri"]
[lines.gw1.filling]
ideal_units_per_hour = 100
states = { producing = ["6"], idle = ["4"], down = ["9"], setup = ["3"] }
"""

FILLING = LineSchema(
    name="filling",
    site="works",
    zone="DEMO",
    period_s=900,
    columns=(
        LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="m2.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD),
        LineColumn(point="plc.total", unit="", role=Role.COUNT_TOTAL),
    ),
    context=(ContextColumn(point="plc.state", what=What.STATE), ContextColumn(point="plc.sku", what=What.PRODUCT)),
)


def hours(*values: str, provider: str = "demo", start_ns: int = SIX, state: str = "measured") -> list[Factor]:
    """Return a factor an hour from an instant on."""
    return [
        factor(value, start_ns + n * HOUR, start_ns + (n + 1) * HOUR, provider=provider, state=state)
        for n, value in enumerate(values)
    ]


@dataclass
class Shop:
    """A gateway's log of one line, and a ledger with a clock that is set."""

    folder: Path
    now_ns: int = SIX
    memory: bool = True
    schema: LineSchema = FILLING
    leaves: list[bytes] = field(default_factory=list)
    hall: Hall = field(init=False)
    given: int = 0
    state: str | None = "6"
    sku: str | None = "cola"
    counters: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 4)
    _prev: int | None = None

    def __post_init__(self) -> None:
        steady = WallClock(
            wall=lambda: self.now_ns, steady=lambda: self.now_ns, state=lambda: (ClockState.SYNCHRONISED, 0)
        )
        self.hall = Hall(self.folder, clock=steady, memory=self.memory)
        self._add("epoch", epoch_body(1, SIGNERS["gw1"].verifier.vkey, {"type": "unattested"}))
        self._add("schema", line_body(self.schema))

    def _add(self, kind: str, body: bytes, prev: int | None = None, clock: ClockState | None = None) -> None:
        state = ClockState.SYNCHRONISED if clock is None else clock
        self.leaves.append(
            seal(kind, body, clock=Clock(t_ns=self.now_ns + SECOND, state=state, offset_ns=0), prev=prev)
        )

    def plan(self, content: str = PLAN, from_ns: int = MONDAY) -> None:
        """Seal a plan."""
        self.hall.ledger.seal(
            "document", document_body(Document(name="plan", from_ns=from_ns, content=content.encode()))
        )

    def offer(self, factors: Sequence[Factor]) -> int:
        """Offer factors."""
        return self.hall.ledger.offer(factors)

    def say(self, what: What, t_ns: int, value: str, number: str = "1") -> None:
        """Seal a piece of context of an MES."""
        fact = ContextFact(gateway="gw1", line="filling", what=what, t_ns=t_ns, value=value, source="mes", id=number)
        self.hall.ledger.seal("context", context_body(fact))

    def shows(self, *, bad: Sequence[int] = (), clock: ClockState | None = None) -> None:
        """Seal an interval at the time that it is; bad: places of columns without a value."""
        samples = tuple(
            Sample(point=column.point, source_time_ns=self.now_ns, raw=b"\0\1", value=value)
            if place not in bad
            else missing(column.point, self.now_ns)
            for place, (column, value) in enumerate(zip(self.schema.columns, self.counters, strict=True))
        )
        # In force since the boundary before.
        since = self.now_ns - 15 * MINUTE
        told = tuple((Told(since, value),) for value in (self.state, self.sku))
        self._add(
            "interval",
            interval_body(Interval(schema_id=self.schema.id, t_ns=self.now_ns, samples=samples, context=told)),
            self._prev,
            clock,
        )
        self._prev = len(self.leaves) - 1

    def give(self) -> None:
        """Hand the ledger what is new, as the broker does."""
        if self.given < len(self.leaves):
            self.hall.take("gw1", [Scroll(SIGNERS["gw1"], list(self.leaves)).message(self.given)])
            self.given = len(self.leaves)
        self.look()

    def look(self) -> None:
        """Let the duties look."""
        self.hall.ledger.look()

    def quarters(
        self, number: int, *, kwh: tuple[str, str] = ("10", "5"), good: str = "20", total: str = "25"
    ) -> Iterator[int]:
        """Run so many quarters of an hour, an interval each, and hand them over; yield their numbers."""
        for quarter in range(number):
            self.now_ns += 15 * MINUTE
            steps = (*kwh, good, total)
            self.counters = [held + Decimal(step) for held, step in zip(self.counters, steps, strict=True)]
            yield quarter
            self.shows()
            self.give()

    def run(self, number: int, **more: str) -> None:
        """Run so many quarters of an hour."""
        for _ in self.quarters(number, **more):  # type: ignore[arg-type]
            pass


def missing(point: str, t_ns: int) -> Sample:
    """Return a sample without a value."""
    return Sample(point=point, source_time_ns=t_ns, raw=b"", value=None, quality=Quality.BAD)
