"""From readings leaves to starts and loaded time, of the assets alone whose power gauge the plan names.

Counted are rows and changes of a gateway's own devices, and agents' frames. These rows are evidence of alerts, no
figure rests on them. A leaf is counted by the plan in force when it was sealed, as far as it is known when the leaf is
projected: a rebuild may know one that was sealed later, and counts by that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.carbon.alerts.cycles import POLLED_NS, TOLD_NS, CycleCounter
from gateway.carbon.facts import NO_PLAN, Facts, PlanLeaf
from gateway.codec.leaves import Leaf
from gateway.codec.readings import seen_in
from gateway.errors import TrustError
from gateway.model import LineSchema, Schema, Value
from gateway.store import projections as tables
from gateway.store.projections import Connection

_WATTS = {"W": 1.0, "kW": 1e3, "MW": 1e6}


class _Gauge(NamedTuple):
    """A column that is counted: for whom, and how many watts one of its unit is."""

    line: str
    asset: str
    running_w: float
    watts: float


_Gauges = dict[int, list[_Gauge]]


@dataclass(slots=True)
class CycleBook:
    """What is counted of one gateway. unusable: leaves that do not fit their schemas; they count nothing."""

    gateway: str
    facts: Facts
    unusable: int = 0
    _schemas: dict[bytes, Schema] = field(default_factory=dict)
    _counters: dict[tuple[str, str], CycleCounter] = field(default_factory=dict)
    _plan: PlanLeaf = NO_PLAN
    _wanted: dict[bytes, _Gauges] = field(default_factory=dict)
    _touched: set[tuple[str, str]] = field(default_factory=set)

    def adopt(self, schema: Schema | LineSchema) -> bool:
        """Take a schema of readings; return whether it is one, and new."""
        if isinstance(schema, LineSchema) or schema.id in self._schemas:
            return False
        self._schemas[schema.id] = schema
        self._want(schema)
        return True

    def take(self, connection: Connection, leaf: Leaf) -> None:
        """Count what a readings leaf shows."""
        plan = self.facts.plan_at(leaf.clock.t_ns)
        if plan is not self._plan:
            self._plan, self._wanted = plan, {}
            for schema in self._schemas.values():
                self._want(schema)
        if not self._wanted:
            return
        try:
            for schema, column, t_ns, value, told in seen_in(
                leaf.body, self._schemas, self._wanted, sealed_ns=leaf.clock.t_ns
            ):
                gauges = self._wanted[schema.id][column]
                self._count(connection, gauges, t_ns, value, TOLD_NS if told else POLLED_NS)
        except TrustError:
            self.unusable += 1

    def write(self, connection: Connection) -> None:
        """Write the minutes that have changed."""
        for line, asset in sorted(self._touched):
            tables.put_cycles(connection, self.gateway, line, asset, self._counters[line, asset].rows())
        self._touched.clear()

    def _want(self, schema: Schema) -> None:
        wanted: _Gauges = {}
        for (gateway, line), plan in self._plan.plan.lines.items():
            for asset, meter in plan.meters.items() if gateway == self.gateway else ():
                if meter.power is None or meter.running_w is None:
                    continue
                for place, column in enumerate(schema.columns):
                    if f"{schema.device}.{column.name}" == meter.power and column.unit in _WATTS:
                        gauge = _Gauge(line, asset, meter.running_w, _WATTS[column.unit])
                        wanted.setdefault(place, []).append(gauge)
        if wanted:
            self._wanted[schema.id] = wanted

    def _count(
        self, connection: Connection, gauges: Iterable[_Gauge], t_ns: int, value: Value | None, longest_ns: int
    ) -> None:
        for gauge in gauges:
            key = (gauge.line, gauge.asset)
            counter = self._counters.get(key)
            if counter is None:
                newest = tables.newest_cycle(connection, self.gateway, *key)
                counter = self._counters[key] = CycleCounter(gauge.running_w, newest)
            counter.running_w = gauge.running_w
            watts = float(value) * gauge.watts if isinstance(value, (int, float)) else None
            counter.take(t_ns, watts, longest_ns)
            self._touched.add(key)
