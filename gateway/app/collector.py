"""Polls the devices of the OT zone at their ticks, and queues what they said (app/fleet.py runs it)."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway.app.alarms import Alarms
from gateway.app.between import Between, at_boundaries, between_of
from gateway.app.contexts import DeviceContext, contexts_of
from gateway.app.counts import CollectCounts
from gateway.app.intervals import LineIntervals, bad_row, missing
from gateway.app.outbox import Batch, Outbox
from gateway.app.ticks import NS, Breaker, Ticker, next_tick
from gateway.app.watching import Watchers, Watching
from gateway.codec.agent_leaves import AgentSource
from gateway.codec.agents import AgentFrame
from gateway.codec.bodies import event_body, interval_body, line_body, schema_body
from gateway.config import GatewayConfig, counters_of
from gateway.drivers import Cautioned, Courier, Driver, Follower
from gateway.errors import DeviceError
from gateway.model import Change, Interval, LineSchema, Row, Sample

FLUSH_S = 0.5
"""Rows are handed to the seal at least this often."""


@dataclass(slots=True)
class Device:
    """One device at work: its driver, its ticks, its breaker.

    pipeline: how many devices of its bus may be polled at once. follows: it shall tell its changes by itself.
    watching: what takes its readings instead of the outbox, where more is to be done with them.
    context: what it says of what lines are making. between: gives its counters at boundaries that no poll falls on.
    """

    name: str
    driver: Driver
    ticker: Ticker
    breaker: Breaker
    counters: tuple[str, ...]
    pipeline: int = 1
    follows: bool = False
    down: bool = False
    watching: Watching | None = None
    context: DeviceContext | None = None
    between: Between | None = None


class Collector:
    """Polls every device at its ticks; one task a bus, so that a slow bus holds up no other (app/fleet.py runs them).

    buses: the devices by the bus that they share.
    """

    def __init__(self, config: GatewayConfig, outbox: Outbox, counts: CollectCounts, log: FilteringBoundLogger) -> None:
        self._outbox, self._counts, self._log = outbox, counts, log
        self._lines: list[LineIntervals] = []
        self._boundary_ns = config.interval.period_s * NS
        self._alarms = Alarms()
        self._watchers = Watchers(outbox, counts, log)
        self._missed_before = 0
        self._asked: dict[str, list[asyncio.Future[Row]]] = {}
        self.buses: dict[str, Sequence[Device]] = {}

    def devices_of(self, config: GatewayConfig, drivers: Mapping[str, Driver]) -> list[Device]:
        """Return the devices of a bus, ready to be polled."""
        return [self._device(config, name, driver) for name, driver in drivers.items()]

    def adopt(self, bus: str, devices: Sequence[Device]) -> None:
        """Queue the devices' schemas, which must stand in the log before any reading of theirs."""
        self.buses[bus] = devices
        for device in devices:
            self._outbox.put(Batch("schema", schema_body(device.driver.schema)))
            for why in device.driver.warnings if isinstance(device.driver, Cautioned) else ():
                self._say("device.insecure", device, why)
        self._watchers.link(self._devices())
        self._link(devices)

    def drop(self, bus: str) -> Sequence[Device]:
        """Forget a bus; return its devices."""
        devices = self.buses.pop(bus)
        self._missed_before += sum(device.ticker.missed for device in devices)
        self._counts.devices_down -= sum(device.down for device in devices)
        self._watchers.link(self._devices())
        return devices

    def _devices(self) -> list[Device]:
        return [device for devices in self.buses.values() for device in devices]

    def use_lines(self, lines: Iterable[LineSchema]) -> None:
        """Gather the intervals of these lines from here on; one that does not differ goes on as it is."""
        running = {gathering.line.id: gathering for gathering in self._lines}
        known = [gathering.context for gathering in self._lines]
        self._lines = [running.get(line.id) or LineIntervals(line, known) for line in lines]
        for gathering in self._lines:
            if gathering.line.id not in running:
                self._outbox.put(Batch("schema", line_body(gathering.line)))
        self._link(self._devices())

    def _link(self, devices: Iterable[Device]) -> None:
        """Let each line know what these devices say of what it is making."""
        contexts = [gathering.context for gathering in self._lines if gathering.line.context]
        for device in devices:
            device.context = contexts_of(device.driver.schema, contexts)
        telling = {each.name for each in self._devices() if each.context is not None and each.follows}
        for gathering in self._lines:
            gathering.holds = gathering.context.rests_on(telling)

    def _device(self, config: GatewayConfig, name: str, driver: Driver) -> Device:
        section = config.devices[name]
        period_ns = round(config.period_s(name) * NS)
        due_ns = next_tick(time.time_ns(), period_ns)
        return Device(
            name=name,
            driver=driver,
            ticker=Ticker(period_ns=period_ns, boundary_ns=self._boundary_ns, due_ns=due_ns),
            breaker=Breaker(),
            counters=tuple(f"{name}.{counter}" for counter in counters_of(config.templates[section.template])),
            pipeline=section.pipeline,
            follows=section.follow and isinstance(driver, Follower),
            watching=self._watchers.of(config, name, driver),
            between=between_of(config, name),
        )

    def announce(self, config_sha256: str) -> None:
        """Queue what must stand in the log before all else: that we started, and with which configuration."""
        about = {"pid": os.getpid(), "boot": self._outbox.boot.hex(), "config": config_sha256}
        self._outbox.put(Batch("event", event_body("collect.started", time.time_ns(), about)))

    def applied(self, about: Mapping[str, Any]) -> None:
        """Queue that another configuration is in force."""
        self._outbox.put(Batch("event", event_body("config.applied", time.time_ns(), about)))

    async def poll_bus(self, devices: Sequence[Device], *, rank: int = 0) -> None:
        """Poll the devices of one bus at their ticks, as many at once as each of them allows.

        rank: of the bus among those with the same tick.
        """
        pipeline = min(device.pipeline for device in devices)
        while True:
            now_ns = time.time_ns()
            due = [device for device in devices if device.ticker.due_ns <= now_ns]
            if not due:
                await self._rest(devices, now_ns, rank)
                continue
            if len(due) > 1:
                due.sort(key=lambda device: device.breaker.failures)  # no one waits for a silent one
            if pipeline == 1 or len(due) == 1:
                for device in due:
                    await self._poll(device)
                continue
            left = iter(due)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(pipeline, len(due))):
                    tasks.create_task(self._poll_all(left), name="collect.poll")

    async def _rest(self, devices: Sequence[Device], now_ns: int, rank: int) -> None:
        """Wait for the next tick; until the next full second at most, so that a stepped clock is noticed."""
        due_ns = min([device.ticker.due_ns for device in devices])
        if due_ns - now_ns > NS:
            for device in devices:
                device.ticker.realign(now_ns)
            due_ns = min([device.ticker.due_ns for device in devices])
        await self._alarms.until(min(due_ns, next_tick(now_ns, NS)), now_ns, rank=rank)

    async def _poll_all(self, left: Iterator[Device]) -> None:
        """Poll one device after the other; several of us take from the same ones."""
        for device in left:
            await self._poll(device)

    async def _poll(self, device: Device) -> None:
        ticker, counts = device.ticker, self._counts
        now_ns, due_ns = time.time_ns(), ticker.due_ns
        boundary_ns = ticker.take(now_ns)
        if device.breaker.failures and not device.breaker.allows(now_ns):
            self._failed(device, boundary_ns, "device is down: waiting to ask again", now_ns)
            return
        counts.polls += 1
        try:
            row, samples = await device.driver.poll(samples=boundary_ns is not None or device.between is not None)
        except DeviceError as e:
            counts.errors += 1
            now_ns = time.time_ns()
            if device.breaker.failed(now_ns):
                self._turned(device, "device.down", str(e), now_ns)
            self._failed(device, boundary_ns, str(e), now_ns)
            return
        counts.rows += 1
        counts.readings += len(row.values)
        if device.breaker.failures and device.breaker.answered():
            self._turned(device, "device.up", "", row.source_time_ns)
        if device.watching is None:
            self._outbox.add(row)
        else:
            device.watching.take(row)
        if device.context is not None:
            device.context.row(row, time.time_ns())
        if self._asked:
            self._answer(device, row)
        for at_ns, found in at_boundaries(device.between, boundary_ns, samples):
            self._sampled(at_ns, [sample._replace(point=f"{device.name}.{sample.point}") for sample in found])
        counts.lag_s = lag_s = (time.time_ns() - due_ns) / NS
        counts.lag_worst_s = max(counts.lag_worst_s, lag_s)

    def _failed(self, device: Device, boundary_ns: int | None, why: str, now_ns: int) -> None:
        """Say that there is no value: a BAD row, BAD samples. Never an old value."""
        row = bad_row(device.driver.schema, now_ns, why)
        self._outbox.add(row) if device.watching is None else device.watching.take(row)
        if device.context is not None:
            device.context.row(row, now_ns)
        self._answer(device, row)
        if boundary_ns is not None and device.between is None:
            self._sampled(boundary_ns, [missing(point, now_ns, why) for point in device.counters])

    async def read(self, name: str) -> Row:
        """Return the next row of a device, which is polled within a second. Raises DeviceError where there is none."""
        device = next((each for each in self._devices() if each.name == name), None)
        if device is None:
            raise DeviceError(f"{name}: is not among the devices that are polled")
        answer: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(name, []).append(answer)
        device.ticker.due_ns = next_tick(time.time_ns(), device.ticker.period_ns) - device.ticker.period_ns
        return await answer

    def _answer(self, device: Device, row: Row) -> None:
        for answer in self._asked.pop(device.name, ()):
            if not answer.done():
                answer.set_result(row)

    def _sampled(self, boundary_ns: int, samples: Sequence[Sample]) -> None:
        for line in self._lines:
            self._close(line.take(boundary_ns, samples))

    def _turned(self, device: Device, what: str, why: str, now_ns: int) -> None:
        device.down = what == "device.down"
        self._counts.devices_down += 1 if device.down else -1
        self._log.warning(what, device=device.name, why=why) if device.down else self._log.info(
            what, device=device.name
        )
        self._outbox.put(Batch("event", event_body(what, now_ns, {"device": device.name, "why": why})))

    def _say(self, what: str, device: Device, why: str) -> None:
        about = {"device": device.name, "why": why}
        self._log.warning(what, **about)
        self._outbox.put(Batch("event", event_body(what, time.time_ns(), about)))

    def _close(self, intervals: Sequence[Interval]) -> None:
        for interval in intervals:
            self._outbox.put(Batch("interval", interval_body(interval)))

    async def follow(self, device: Device, follower: Follower) -> None:
        """Queue what a device tells by itself; where it cannot, poll it every second instead."""
        if isinstance(follower, Courier):
            follower.hand_to(partial(self._hand, device))
        try:
            await follower.follow(partial(self._tell, device))
        except DeviceError as e:
            self._say("device.polled", device, str(e))
            device.ticker.period_ns = min(device.ticker.period_ns, NS)

    def _tell(self, device: Device, changes: Sequence[Change]) -> None:
        self._counts.changes += len(changes)
        self._outbox.tell(changes)
        if device.watching is not None:
            device.watching.told(changes)
        if device.context is not None:
            device.context.told(changes, time.time_ns())

    def _hand(self, device: Device, source: AgentSource, frame: AgentFrame) -> None:
        self._counts.frames += 1
        self._outbox.put_frame(source, frame)
        if device.context is not None:
            device.context.frame(source, frame, time.time_ns())

    async def beat(self) -> None:
        """Hand over gathered rows, close boundaries whose grace is over."""
        expected_ns = next_tick(time.time_ns(), self._boundary_ns)
        while True:
            await asyncio.sleep(FLUSH_S)
            self._outbox.flush()
            now_ns = time.time_ns()
            expected_ns = min(expected_ns, next_tick(now_ns, self._boundary_ns))  # the clock may be stepped back
            if now_ns >= expected_ns:
                for line in self._lines:
                    line.expect(expected_ns)
                expected_ns = next_tick(now_ns, self._boundary_ns)
            for line in self._lines:
                self._close(line.expire(now_ns))
            self._counts.queue_bytes = self._outbox.depth_bytes
            self._counts.dropped_rows = self._outbox.dropped_rows
            devices = self._devices()
            self._counts.missed_ticks = self._missed_before + sum(device.ticker.missed for device in devices)
            self._counts.points_stale = sum(device.watching.stale for device in devices if device.watching)
