"""What is done with a device's readings beside queueing them: report on change, stale values, values that disagree.

Only a device that is configured for it has a `Watching`; the others' rows go straight to the outbox.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from gateway.app.outbox import Batch, Outbox
from gateway.app.ticks import NS
from gateway.codec.agreement import Confirmation, Tolerance, Twins, Verdict, reading_of
from gateway.codec.bodies import event_body
from gateway.codec.deadband import Reporter
from gateway.codec.steps import Holds, Register
from gateway.codec.watch import Fresh, Stale, Stillness
from gateway.config import DeviceSection, GatewayConfig, ModbusTemplate, Template
from gateway.config.sections import DeadbandSection
from gateway.config.templates import BacnetPointSection, ModbusPointSection, OpcuaPointSection, PointSection
from gateway.drivers import Driver, Follower
from gateway.model import Change, Column, Kind, Row, Schema, WireType

_LEAST_HOLD_NS: Final = 5 * NS
"""How long a change that a device tells by itself may be on its way, at least."""


class Counts(Protocol):
    """Where suppressed values are counted."""

    suppressed: int


class Watched(Protocol):
    """A device at work."""

    name: str
    driver: Driver
    watching: "Watching | None"


class Watching:
    """Takes the readings of one device instead of the outbox.

    twins: by column, the pairs to compare, and the other point's device and column name.
    newest: the row that was polled last.
    """

    def __init__(
        self,
        schema: Schema,
        site: "Watchers",
        *,
        reporter: Reporter | None = None,
        stillness: Stillness | None = None,
        confirmation: Confirmation | None = None,
        twins: Sequence[tuple[int, Twins]] = (),
    ) -> None:
        self.schema, self._site = schema, site
        self._reporter, self._stillness, self._confirmation = reporter, stillness, confirmation
        self.twins = twins
        self.newest: Row | None = None

    @property
    def stale(self) -> int:
        """How many points are stale."""
        return self._stillness.stale if self._stillness is not None else 0

    def take(self, row: Row) -> None:
        """Take what was polled."""
        site, self.newest = self._site, row
        if self._reporter is None:
            site.outbox.add(row)
        else:
            changes = self._reporter.take(row)
            site.counts.suppressed += max(len(row.values) - row.values.count(None) - len(changes), 0)
            if changes:
                site.outbox.tell(changes)
        if self._stillness is not None:
            self._say(self._stillness.row(row))
        if self._confirmation is not None:
            self._say(self._confirmation.row(row))
        for column, twins in self.twins:
            other = site.newest(twins.other)
            verdict = twins.compare(reading_of(row, column), reading_of(*other)) if other is not None else None
            if verdict is not None:
                self._say([verdict])

    def told(self, changes: Sequence[Change]) -> None:
        """Take what the device told by itself, and has been queued."""
        if self._reporter is not None:
            for change in changes:
                self._reporter.note(change)
        if self._stillness is not None:
            self._say(self._stillness.told(changes))
        if self._confirmation is not None:
            self._confirmation.told(changes)

    def _say(self, found: Sequence[Stale | Fresh | Verdict]) -> None:
        """Write down what has turned."""
        for finding in found:
            about = {"device": self.schema.device, **finding.about()}
            if isinstance(finding, Stale):
                about["why"] = "Stale Data"
                body = event_body("point.stale", finding.t_ns, about)
                self._site.log.warning("point.stale", **about)
            elif isinstance(finding, Fresh):
                body = event_body("point.fresh", finding.t_ns, about)
                self._site.log.info("point.fresh", **about)
            elif finding.agrees:
                body = event_body("point.agrees", finding.t_ns, about)
                self._site.log.info("point.agrees", **about)
            else:
                about["why"] = "Non-Deterministic Value"
                body = event_body("point.disagrees", finding.t_ns, about)
                self._site.log.warning("point.disagrees", **about)
            self._site.outbox.put(Batch("event", body))


class Watchers:
    """Makes the Watching of each device that wants one, and finds the other point of a pair."""

    def __init__(self, outbox: Outbox, counts: Counts, log: FilteringBoundLogger) -> None:
        self.outbox, self.counts, self.log = outbox, counts, log
        self._devices: dict[str, Watching] = {}

    def of(self, config: GatewayConfig, name: str, driver: Driver) -> Watching | None:
        """Return what takes a device's readings; None where nothing is to be done but to queue them."""
        section, schema = config.devices[name], driver.schema
        template = config.templates[section.template]
        follows = section.follow and isinstance(driver, Follower)
        if section.report is None and not section.stale_s and not section.same_as and not follows:
            return None
        registers = [_register(column, template, section) for column in schema.columns]
        return Watching(
            schema,
            self,
            reporter=Reporter(schema, section.report) if section.report is not None else None,
            stillness=Stillness(schema, registers, stale_s=section.stale_s) if section.stale_s else None,
            confirmation=_confirmation(schema, template, section) if follows else None,
            twins=_twins(config, name, schema),
        )

    def link(self, devices: Iterable[Watched]) -> None:
        """Take these as all the devices; a device that another one is compared with is watched as well."""
        found = {device.name: device for device in devices}
        for device in [*found.values()]:
            for _, twins in device.watching.twins if device.watching is not None else ():
                other = found.get(twins.other.partition(".")[0])
                if other is not None and other.watching is None:
                    other.watching = Watching(other.driver.schema, self)
        self._devices = {name: device.watching for name, device in found.items() if device.watching is not None}

    def newest(self, point: str) -> tuple[Row, int] | None:
        """Return the newest row with a point, `<device>.<point>`, and its column there; None where there is none."""
        device, _, name = point.partition(".")
        watching = self._devices.get(device)
        if watching is None or watching.newest is None:
            return None
        place = next((i for i, column in enumerate(watching.schema.columns) if column.name == name), None)
        return None if place is None else (watching.newest, place)


def _register(column: Column, template: Template, section: DeviceSection) -> Register:
    """Return what is known of a column. A state (text, bit) may stand still, and so may a scale factor."""
    point = template.points.get(column.name)
    if point is None:
        return Register(may_stand=True)
    may_stand = column.store == "bool" or column.store[0] == "s" or column.name in section.still
    outward, holds = "export" in column.name, Holds.ANY
    if isinstance(template, ModbusTemplate) and isinstance(point, ModbusPointSection):
        may_stand = may_stand or any(other.scale_point == column.name for other in template.points.values())
        outward = outward if point.direction is None else point.direction == "export"
        holds = _held(point)
    elif column.store in {"i64", "u64"}:
        holds = Holds.WHOLE
    return Register(
        may_stand=may_stand,
        counter=point.kind == Kind.COUNTER,
        holds=holds,
        scale=float(point.scale),
        outward=outward,
    )


def _held(point: ModbusPointSection) -> Holds:
    if point.type in {WireType.F32, WireType.F64}:
        return Holds(point.type)
    return Holds.ANY if point.scale_point is not None else Holds.WHOLE


def _confirmation(schema: Schema, template: Template, section: DeviceSection) -> Confirmation:
    reported = section.report.points if section.report is not None else {}
    points = [template.points.get(column.name) for column in schema.columns]
    return Confirmation(
        schema,
        [
            _tolerance(column, point, reported.get(column.name))
            for column, point in zip(schema.columns, points, strict=True)
        ],
        [_hold_ns(point, section) for point in points],
    )


def _tolerance(column: Column, point: PointSection | None, band: DeadbandSection | None) -> Tolerance | None:
    """Return by how much a value may differ from the one told; None where only the device knows."""
    absolute, percent = (band.absolute or 0.0, band.percent or 0.0) if band is not None else (0.0, 0.0)
    known = band is not None
    if isinstance(point, OpcuaPointSection):
        known = known or point.percent is None  # a percentage there is of a range that is not ours to know
        absolute = max(absolute, point.absolute or 0.0)
    elif isinstance(point, BacnetPointSection) and column.store in {"f32", "f64"}:
        known = known or point.cov_increment is not None
        absolute = max(absolute, point.cov_increment or 0.0)
    else:
        known = True
    return Tolerance(absolute, percent) if known else None


def _hold_ns(point: PointSection | None, section: DeviceSection) -> int:
    """Return how long a change may be on its way: two rounds of sampling and publishing."""
    if not isinstance(point, OpcuaPointSection):
        return _LEAST_HOLD_NS
    sampling_s = section.opcua.sampling_s if point.sampling_s is None else point.sampling_s
    return max(_LEAST_HOLD_NS, round(2 * (sampling_s + section.opcua.publishing_s) * NS))


def _twins(config: GatewayConfig, name: str, schema: Schema) -> list[tuple[int, Twins]]:
    places = {column.name: i for i, column in enumerate(schema.columns)}
    return [
        (
            places[point],
            Twins(
                point=point,
                other=same.point,
                tolerance=Tolerance(same.absolute, same.percent),
                polls=same.polls,
                # The newest value of the other device is one period old, and its reply may be late: so two of them.
                window_ns=round(2 * max(config.period_s(name), config.period_s(same.point.partition(".")[0])) * NS),
            ),
        )
        for point, same in config.devices[name].same_as.items()
        if point in places
    ]
