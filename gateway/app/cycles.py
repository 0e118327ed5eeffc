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
from gateway.codec.agent_leaves import frames_of
from gateway.codec.changes import changes_of
from gateway.codec.checks import rows_of
from gateway.codec.leaves import Leaf
from gateway.errors import TrustError
from gateway.model import Change, LineSchema, Quality, Schema, Value
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
        rows = [row for row in leaf.body.get("rows", ()) if row[0] in self._wanted]
        groups = [group for group in leaf.body.get("changes", ()) if group[0] in self._wanted]
        try:
            for row in rows_of({"rows": rows}, self._schemas):
                for column, gauges in self._wanted[row.schema.id].items():
                    good = row.qualities is None or row.qualities[column] == Quality.GOOD
                    value = row.values[column] if good else None
                    self._count(connection, gauges, row.source_time_ns, value, POLLED_NS)
            for change in changes_of({"changes": groups}, self._schemas):
                self._count_change(connection, change, TOLD_NS)
            if leaf.body.get("schema") in self._wanted:  # an agent's, at a cadence of its own
                for change in frames_of(leaf.body, self._schemas, sealed_ns=leaf.clock.t_ns):
                    self._count_change(connection, change, POLLED_NS)
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

    def _count_change(self, connection: Connection, change: Change, longest_ns: int) -> None:
        gauges = self._wanted[change.schema.id].get(change.column, [])
        value = change.value if change.quality == Quality.GOOD else None
        self._count(connection, gauges, change.source_time_ns, value, longest_ns)

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
