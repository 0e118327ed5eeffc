"""The collect process: polls the OT zone and hands what it read to the seal. No log key, no disk, no DMZ."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from structlog.typing import FilteringBoundLogger

from gateway.app.alarms import Alarms
from gateway.app.devices import open_devices
from gateway.app.entry import settle
from gateway.app.intervals import LineIntervals, missing
from gateway.app.logs import start_logs
from gateway.app.metrics import counter, gauge, serve_metrics
from gateway.app.outbox import Batch, Outbox
from gateway.app.seallink import SealLink
from gateway.app.ticks import NS, Breaker, Ticker, next_tick
from gateway.codec.bodies import event_body, interval_body, line_body, schema_body
from gateway.config import GatewayConfig, counters_of
from gateway.drivers import Driver, Follower
from gateway.errors import DeviceError
from gateway.model import Change, Interval, Quality, Row, Sample, Schema

Drivers = Callable[[GatewayConfig], Mapping[str, Mapping[str, Driver]]]

FLUSH_S = 0.5
"""Rows are handed to the seal at least this often."""


@dataclass(slots=True)
class CollectCounts:
    """What collect counts."""

    polls: int = counter("polls of a device")
    errors: int = counter("polls that a device did not answer")
    rows: int = counter("rows read")
    readings: int = counter("values read")
    changes: int = counter("changes that devices told by themselves")
    missed_ticks: int = counter("ticks that were skipped because a poll took too long")
    devices_down: int = gauge("devices whose circuit breaker is open")
    lag_s: float = gauge("how long after its tick the latest poll ended")
    lag_worst_s: float = gauge("the worst lag since the start")
    queue_bytes: int = gauge("bytes that wait for the seal")
    dropped_rows: int = counter("rows dropped because the queue to the seal was full")
    sealed: int = counter("batches that the seal acknowledged")
    refused: int = counter("batches that the seal refused")
    reconnects: int = counter("connections made to the seal")


@dataclass(slots=True)
class Device:
    """One device at work: its driver, its ticks, its breaker.

    pipeline: how many devices of its bus may be polled at once. follows: it shall tell its changes by itself.
    """

    name: str
    driver: Driver
    ticker: Ticker
    breaker: Breaker
    counters: tuple[str, ...]
    pipeline: int = 1
    follows: bool = False
    down: bool = False


class Collector:
    """Polls every device at its ticks; one task a bus, so that a slow bus holds up no other.

    drivers: makes the drivers, bus by bus.
    """

    def __init__(
        self,
        config: GatewayConfig,
        outbox: Outbox,
        counts: CollectCounts,
        log: FilteringBoundLogger,
        *,
        drivers: Drivers = open_devices,
    ) -> None:
        self._outbox, self._counts, self._log = outbox, counts, log
        self._lines = [LineIntervals(line) for line in config.lines.values()]
        self._boundary_ns = config.interval.period_s * NS
        self._alarms = Alarms()
        self.buses = {
            bus: [self._device(config, name, driver) for name, driver in found.items()]
            for bus, found in drivers(config).items()
        }

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
            follows=section.follow,
        )

    def announce(self) -> None:
        """Queue what must stand in the log before any reading: that we started, and the schemas."""
        about = {"pid": os.getpid(), "boot": self._outbox.boot.hex()}
        self._outbox.put(Batch("event", event_body("collect.started", time.time_ns(), about)))
        for devices in self.buses.values():
            for device in devices:
                self._outbox.put(Batch("schema", schema_body(device.driver.schema)))
        for line in self._lines:
            self._outbox.put(Batch("schema", line_body(line.line)))

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
                due.sort(key=_failures)  # no one waits for a silent one
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
            row, samples = await device.driver.poll(samples=boundary_ns is not None)
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
        self._outbox.add(row)
        if boundary_ns is not None:
            self._sampled(boundary_ns, [replace(sample, point=f"{device.name}.{sample.point}") for sample in samples])
        counts.lag_s = lag_s = (time.time_ns() - due_ns) / NS
        counts.lag_worst_s = max(counts.lag_worst_s, lag_s)

    def _failed(self, device: Device, boundary_ns: int | None, why: str, now_ns: int) -> None:
        """Say that there is no value: a BAD row, BAD samples. Never an old value."""
        self._outbox.add(bad_row(device.driver.schema, now_ns, why))
        if boundary_ns is not None:
            self._sampled(boundary_ns, [missing(point, now_ns, why) for point in device.counters])

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

    def _close(self, intervals: Sequence[Interval]) -> None:
        for interval in intervals:
            self._outbox.put(Batch("interval", interval_body(interval)))

    async def follow(self, device: Device, follower: Follower) -> None:
        """Queue what a device tells by itself; where it cannot, poll it every second instead."""
        try:
            await follower.follow(self._tell)
        except DeviceError as e:
            about = {"device": device.name, "why": str(e)}
            self._log.warning("device.polled", **about)
            self._outbox.put(Batch("event", event_body("device.polled", time.time_ns(), about)))
            device.ticker.period_ns = min(device.ticker.period_ns, NS)

    def _tell(self, changes: Sequence[Change]) -> None:
        self._counts.changes += len(changes)
        self._outbox.tell(changes)

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
            self._counts.missed_ticks = sum(
                device.ticker.missed for devices in self.buses.values() for device in devices
            )

    async def close(self) -> None:
        """Close every driver."""
        for devices in self.buses.values():
            for device in devices:
                await device.driver.close()


def _failures(device: Device) -> int:
    return device.breaker.failures


def bad_row(schema: Schema, t_ns: int, status: str) -> Row:
    """Return a row without a single value."""
    count = len(schema.columns)
    return Row(
        schema=schema,
        source_time_ns=t_ns,
        values=(None,) * count,
        qualities=(Quality.BAD,) * count,
        status=status[:200],
    )


async def run_collect(config: GatewayConfig) -> None:
    """Run collect until it is cancelled."""
    log = start_logs("collect")
    counts = CollectCounts()
    outbox = Outbox(most_bytes=config.collect.queue_mb << 20)
    collector = Collector(config, outbox, counts, log)
    link = SealLink(config.run_folder / "inlet.sock", outbox, counts, log)
    collector.announce()
    socket = config.run_folder / "collect.metrics.sock"
    metrics = await serve_metrics("collect", counts, socket=socket, address=config.collect.metrics)
    settle()
    log.info("collect.ready", devices=len(config.devices), buses=len(collector.buses))
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run(), name="collect.seal")
            tasks.create_task(collector.beat(), name="collect.beat")
            for rank, (bus, devices) in enumerate(collector.buses.items()):
                tasks.create_task(collector.poll_bus(devices, rank=rank), name=f"collect.bus {bus}")
                for device in devices:
                    if device.follows and isinstance(device.driver, Follower):
                        tasks.create_task(collector.follow(device, device.driver), name=f"collect.follow {device.name}")
    finally:
        await link.drain(within_s=2.0)
        await collector.close()
        for server in metrics:
            server.close()
