"""app/collector.py and app/seallink.py: what is read when, what is said of silence, and how it reaches the seal."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger

from gateway.app.channel import Channel, listen
from gateway.app.collector import Collector
from gateway.app.counts import CollectCounts
from gateway.app.outbox import MOST_IN_FLIGHT, Batch, Outbox
from gateway.app.seal import SealServer
from gateway.app.seallink import SealLink
from gateway.codec.bodies import event_body
from gateway.codec.checks import check_body, rows_of, to_schema
from gateway.codec.frames import Message
from gateway.codec.line_leaves import to_interval
from gateway.codec.pack import unpack
from gateway.codec.registers import store_of
from gateway.config import GatewayConfig, Template, parse_gateway, points_of
from gateway.drivers import Driver, Poll
from gateway.errors import DeviceError
from gateway.model import Column, Interval, Kind, LineSchema, Quality, Row, Sample, Schema
from tests.loops import on_both_loops
from tests.modbus_peers import Peer, honest
from tests.sealing import Box

NS = 1_000_000_000
PERIOD_S = 0.1
PATIENCE_S = 10.0

TEMPLATE = """
title = "Test meter"
verified = true
sources = ["these tests"]
votes = 1
function = 3
[points.power]
address = 0
type = "u16"
unit = "W"
[points.energy]
address = 2
type = "u16"
unit = "kWh"
kind = "counter"
"""


def configured(folder: Path, *devices: str, url: str = "tcp://127.0.0.1:1", own: str = "") -> GatewayConfig:
    """Return a gateway with these devices on one bus, and one on another; a line of all their energies."""
    text = '[gateway]\nid = "gw1"\nstate = "."\n[seal]\nkey = "k"\nwitness = "w"\n[interval]\nperiod_s = 1\n'
    text += '[forward]\nbroker = "127.0.0.1:1"\nca = "a"\ncert = "b"\nkey = "c"\n'
    names = [*devices, *([own] if own else [])]
    for name in names:
        text += f'[devices.{name}]\ntemplate = "test"\nurl = "{url}"\nperiod_s = {PERIOD_S}\ntimeout_s = 0.3\n'
        text += "own_connection = true\n" if name == own else ""
    energies = ", ".join(f'"{name}.energy"' for name in names)
    text += f'[lines.filling]\nzone = "DEMO"\nenergy = [{energies}]\n'
    return parse_gateway(text, name="gateway.toml", folder=folder, template_text=lambda _: TEMPLATE)


class Meter:
    """A device that does as it is told. Implements Driver.

    fault: what it raises, or None. slow_s: how long it takes. polls: when it was asked, and whether for samples.
    """

    def __init__(self, name: str, template: Template) -> None:
        self._points = points_of(template)
        columns = tuple(Column(name=point.name, unit=point.unit, store=store_of(point)) for point in self._points)
        self.schema = Schema(device=name, columns=columns)
        self.fault: Exception | None = None
        self.slow_s = 0.0
        self.polls: list[tuple[int, bool]] = []
        self.answers = 0
        self.closed = 0

    async def poll(self, *, samples: bool) -> Poll:
        """Answer with numbers that rise by one each time."""
        self.polls.append((time.time_ns(), samples))
        await asyncio.sleep(self.slow_s)
        if self.fault is not None:
            raise self.fault
        self.answers += 1
        t_ns = time.time_ns()
        taken = tuple(
            Sample(point=point.name, source_time_ns=t_ns, raw=b"\0\1", value=Decimal(self.answers))
            for point in self._points
            if samples and point.kind == Kind.COUNTER
        )
        values = (self.answers,) * len(self._points)
        return Poll(row=Row(schema=self.schema, source_time_ns=t_ns, values=values), samples=taken)

    async def close(self) -> None:
        """Note it."""
        self.closed += 1


@dataclass
class Site:
    """A collector with meters, and all that it has queued."""

    config: GatewayConfig
    outbox: Outbox = field(default_factory=lambda: Outbox(most_bytes=1 << 20))
    counts: CollectCounts = field(default_factory=CollectCounts)
    meters: dict[str, Meter] = field(default_factory=dict)
    said: CapturingLogger = field(default_factory=CapturingLogger)
    queued: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    collector: Collector = field(init=False)

    def __post_init__(self) -> None:
        self.collector = Collector(self.config, self.outbox, self.counts, logger(self.said))
        self.collector.announce("abcd")
        for bus, drivers in self.drivers(self.config).items():
            self.collector.adopt(bus, self.collector.devices_of(self.config, drivers))
        self.collector.use_lines(self.config.lines.values())

    def drivers(self, config: GatewayConfig) -> Mapping[str, Mapping[str, Driver]]:
        """Make meters instead of real drivers."""
        templates = config.templates
        self.meters = {name: Meter(name, templates[section.template]) for name, section in config.devices.items()}
        buses: dict[str, dict[str, Driver]] = {}
        for name, section in config.devices.items():
            buses.setdefault(name if section.own_connection else section.url, {})[name] = self.meters[name]
        return buses

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll and beat, as run_collect does; on leaving, note what has been queued."""
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(self.collector.beat())]
            started += [
                tasks.create_task(self.collector.poll_bus(devices)) for devices in self.collector.buses.values()
            ]
            try:
                yield
            finally:
                for task in started:
                    task.cancel()
                self.take()

    def take(self) -> None:
        """Note what has been queued since the last time, its bodies checked."""
        self.outbox.flush()
        while messages := self.outbox.unsent(time.time_ns()):
            self.queued += [(kind, check_body(kind, unpack(body))) for _, _, kind, body in messages]
            self.outbox.acknowledge(messages[-1][1])

    def rows(self, device: str) -> list[Row]:
        """Return the queued rows of a device."""
        schemas = {meter.schema.id: meter.schema for meter in self.meters.values()}
        found = [row for kind, body in self.queued if kind == "readings" for row in rows_of(body, schemas)]
        return [row for row in found if row.schema.device == device]

    def intervals(self) -> list[Interval]:
        """Return the queued intervals."""
        line = self.config.lines["filling"]
        return [to_interval(body, line) for kind, body in self.queued if kind == "interval"]

    def events(self, what: str) -> list[dict[str, Any]]:
        """Return what the queued events of this name are about."""
        return [body["about"] for kind, body in self.queued if kind == "event" and body["what"] == what]


def logger(said: CapturingLogger) -> Any:
    """Return a logger that only remembers."""
    return structlog.wrap_logger(said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))


def count(said: CapturingLogger, event: str) -> int:
    """Return how often this was logged."""
    return sum(call.kwargs.get("event") == event for call in said.calls)


async def at_next_second(plus_s: float = 0.0) -> int:
    """Wait for the next full second and a bit; return it, in ns."""
    second = time.time_ns() // NS + 1
    while (left_s := second + plus_s - time.time()) > 0:
        await asyncio.sleep(left_s)
    return second * NS


# ---- polling


def test_what_explains_the_readings_is_queued_before_any(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", "m2"))
    site.take()
    assert [kind for kind, _ in site.queued] == ["event", "schema", "schema", "schema"]
    assert site.events("collect.started") == [{"pid": os.getpid(), "boot": site.outbox.boot.hex(), "config": "abcd"}]
    schemas = [to_schema(body) for kind, body in site.queued if kind == "schema"]
    assert [schema.device if isinstance(schema, Schema) else schema.name for schema in schemas] == [
        "m1",
        "m2",
        "filling",
    ]
    assert isinstance(schemas[2], LineSchema)
    assert [column.point for column in schemas[2].columns] == ["m1.energy", "m2.energy"]


async def test_each_device_is_polled_at_each_tick(tmp_path: Path) -> None:
    """Ticks stand on the wall clock; each is polled once, or counted as missed."""
    site = Site(configured(tmp_path, "m1", "m2", own="m3"))
    began_ns = time.time_ns()
    async with site.running():
        await asyncio.sleep(1.3)
        ended_ns = time.time_ns()
    period_ns = int(PERIOD_S * NS)
    ticks = ended_ns // period_ns - began_ns // period_ns
    polls = {name: [t_ns for t_ns, _ in meter.polls] for name, meter in site.meters.items()}
    assert 3 * ticks - 3 <= sum(map(len, polls.values())) + site.counts.missed_ticks <= 3 * ticks
    for times in polls.values():
        assert len({t_ns // period_ns for t_ns in times}) == len(times), "no tick is polled twice"
        assert sum(t_ns % period_ns < period_ns // 2 for t_ns in times) > len(times) // 2
    assert site.counts.polls == sum(map(len, polls.values()))
    for name, meter in site.meters.items():
        assert [row.values[0] for row in site.rows(name)] == list(range(1, meter.answers + 1))
    assert site.counts.rows == sum(meter.answers for meter in site.meters.values())


async def test_a_bus_with_a_pipeline_is_asked_for_several_devices_at_once_and_no_more(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(6)]
    site = Site(configured(tmp_path, *names))
    for device in site.collector.buses["tcp://127.0.0.1:1"]:
        device.pipeline = 3 if device.name != "m5" else 4
    for meter in site.meters.values():
        meter.slow_s = 0.03
    async with site.running():
        await asyncio.sleep(1.0)
    polls = sorted(t_ns for meter in site.meters.values() for t_ns, _ in meter.polls)
    under_way = [sum(t_ns <= other < t_ns + 0.029 * NS for other in polls) for t_ns in polls]
    assert max(under_way) == 3
    assert site.counts.polls > 30, "each tick of 0.1 s has time for two rounds of three"


async def test_counters_are_sampled_at_each_boundary_and_become_one_interval(tmp_path: Path) -> None:
    await at_next_second(0.5)
    site = Site(configured(tmp_path, "m1", "m2"))
    async with site.running():
        first_ns = await at_next_second(1.4)
    intervals = site.intervals()
    assert [interval.t_ns for interval in intervals] == [first_ns, first_ns + NS]
    for meter in site.meters.values():
        assert sum(samples for _, samples in meter.polls) == 2
    for interval in intervals:
        assert [sample.point for sample in interval.samples] == ["m1.energy", "m2.energy"]
        for sample in interval.samples:
            assert sample.quality == Quality.GOOD
            assert sample.value is not None
            assert interval.t_ns <= sample.source_time_ns < interval.t_ns + NS


async def test_a_dead_device_gives_bad_rows_and_holds_up_nobody(tmp_path: Path) -> None:
    """At each of its ticks a row says that there is no value, and why; never an old one. Its bus goes on."""
    site = Site(configured(tmp_path, "m1", "m2"))
    async with site.running():
        await asyncio.sleep(0.35)
        dead, good = site.meters["m1"], site.meters["m2"]
        dead.fault, answers = DeviceError("no answer in 0.3 s"), dead.answers
        await asyncio.sleep(1.0)
    bad = [row for row in site.rows("m1") if row.qualities is not None]
    assert len(bad) >= 5
    assert all(row.values == (None, None) and set(row.qualities or ()) == {Quality.BAD} for row in bad)
    assert bad[0].status == "no answer in 0.3 s"
    assert all(row.status for row in bad)
    times = [row.source_time_ns for row in bad]
    assert times == sorted(set(times))
    assert [row.values[0] for row in site.rows("m1") if row.qualities is None] == list(range(1, answers + 1))
    assert good.answers + site.counts.missed_ticks >= 10
    assert all(row.qualities is None for row in site.rows("m2"))


async def test_a_device_that_is_down_is_asked_less_often_and_each_turn_is_said_once(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", "m2"))
    site.meters["m1"].fault = DeviceError("gone")
    async with site.running():
        await asyncio.sleep(0.9)
        assert len(site.meters["m1"].polls) == 2
        assert site.counts.devices_down == 1
        site.meters["m1"].fault = None
        async with asyncio.timeout(PATIENCE_S):
            while not site.meters["m1"].answers:
                await asyncio.sleep(0.02)
        first, second, third = (t_ns for t_ns, _ in site.meters["m1"].polls[:3])
        assert second - first < 0.9 * NS < third - second
        await asyncio.sleep(0.25)
    assert [about["device"] for about in site.events("device.down")] == ["m1"]
    assert site.events("device.down")[0]["why"] == "gone"
    assert [about["device"] for about in site.events("device.up")] == ["m1"]
    assert (count(site.said, "device.down"), count(site.said, "device.up")) == (1, 1)
    assert (site.counts.devices_down, site.counts.errors) == (0, 2)


async def test_one_failure_is_no_outage(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1"))
    async with site.running():
        site.meters["m1"].fault = DeviceError("once")
        while not site.meters["m1"].polls:
            await asyncio.sleep(0.005)
        site.meters["m1"].fault = None
        await asyncio.sleep(0.3)
    assert len(site.meters["m1"].polls) >= 3
    assert site.events("device.down") == site.events("device.up") == []


async def test_an_interval_closes_without_a_dead_meter(tmp_path: Path) -> None:
    """Its sample is BAD and has no value; the others keep theirs. The energy is not booked, and not lost either."""
    await at_next_second(0.5)
    site = Site(configured(tmp_path, "m1", "m2"))
    site.meters["m1"].fault = DeviceError("gone")
    async with site.running():
        await at_next_second(1.4)
    assert len(site.intervals()) == 2
    for interval in site.intervals():
        missing, there = interval.samples
        assert (missing.quality, missing.value, missing.raw) == (Quality.BAD, None, b"")
        assert missing.status
        assert there.quality == Quality.GOOD


async def test_an_interval_does_not_wait_for_a_meter_that_hangs(tmp_path: Path) -> None:
    """Its grace over, it closes, and says so; what the meter answers afterwards is no part of it."""
    await at_next_second(0.5)
    site = Site(configured(tmp_path, "m1", own="m2"))
    site.meters["m2"].slow_s = 2.5
    async with site.running():
        boundary_ns = await at_next_second(1.9)
    first = site.intervals()[0]
    assert first.t_ns == boundary_ns
    assert [sample.quality for sample in first.samples] == [Quality.GOOD, Quality.BAD]
    assert first.samples[1].status == "no answer in time"


async def test_a_slow_bus_holds_up_no_other_and_its_ticks_are_counted_as_missed(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", own="m2"))
    site.meters["m2"].slow_s = 0.45
    async with site.running():
        await asyncio.sleep(1.4)
    assert site.meters["m1"].answers >= 9
    assert site.meters["m2"].answers <= 3
    assert site.counts.missed_ticks >= 6
    assert site.counts.lag_worst_s >= 0.45


async def test_an_error_that_no_device_can_cause_stops_everything(tmp_path: Path) -> None:
    """It is a bug: nobody must go on as if nothing were."""
    site = Site(configured(tmp_path, "m1", own="m2"))
    site.meters["m1"].fault = ZeroDivisionError()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(PATIENCE_S), site.running():
            await asyncio.sleep(PATIENCE_S)
    assert caught.group_contains(ZeroDivisionError)


# ---- to the seal


@dataclass
class Handover:
    """A link to the seal at work on an outbox."""

    folder: Path
    outbox: Outbox = field(default_factory=lambda: Outbox(most_bytes=1 << 20))
    counts: CollectCounts = field(default_factory=CollectCounts)
    said: CapturingLogger = field(default_factory=CapturingLogger)
    link: SealLink = field(init=False)

    def __post_init__(self) -> None:
        self.link = SealLink(self.folder / "inlet.sock", self.outbox, self.counts, logger(self.said))

    def put(self, *numbers: int) -> None:
        """Queue events."""
        for number in numbers:
            self.outbox.put(Batch("event", event_body("test", number, {"number": number})))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the link."""
        task = asyncio.create_task(self.link.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def seal_at(folder: Path, box: Box) -> AsyncIterator[list[Channel]]:
    """Serve a sealer on inlet.sock, as the seal does; give its connections."""
    server = SealServer(box.sealer, structlog.get_logger())
    channels: list[Channel] = []

    async def serve(channel: Channel) -> None:
        channels.append(channel)
        await server.inlet(channel)

    listener = await listen(folder / "inlet.sock", serve, failed=server.failed)
    try:
        yield channels
    finally:
        server.close()
        listener.close()
        for channel in channels:
            channel.close()
        await asyncio.sleep(0.02)
        assert not server.failed.done()


@asynccontextmanager
async def scripted(folder: Path, *answers: list[Message]) -> AsyncIterator[list[list[Message]]]:
    """Play a seal: at each message in turn send the next answers; give what arrived, connection by connection."""
    arrived: list[list[Message]] = []
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(channel: Channel) -> None:
        mine: list[Message] = []
        arrived.append(mine)
        left = list(answers)
        while True:
            for message in await channel.receive():
                mine.append(message)
                if left:
                    await channel.send(*left.pop(0))
                elif answers:
                    return

    listener = await listen(folder / "inlet.sock", serve, failed=failed)
    try:
        yield arrived
    finally:
        listener.close()
        assert not failed.done()


def numbers_in(box: Box) -> list[int]:
    """Return the numbers of the events in the log, in its order."""
    return [about["number"] for about in box.events("test")]


@on_both_loops
async def test_what_is_queued_gets_sealed_in_order(tmp_path: Path) -> None:
    """Also what waits beyond the number that may be under way."""
    box, handover = Box.at(tmp_path / "log"), Handover(tmp_path)
    handover.put(*range(3 * MOST_IN_FLIGHT))
    async with seal_at(tmp_path, box), handover.running():
        await asyncio.wait_for(handover.outbox.emptied(), PATIENCE_S)
        handover.put(100)
        await asyncio.wait_for(handover.outbox.emptied(), PATIENCE_S)
    assert numbers_in(box) == [*range(3 * MOST_IN_FLIGHT), 100]
    assert handover.counts.sealed == 3 * MOST_IN_FLIGHT + 1
    box.log.close()


@on_both_loops
async def test_a_seal_that_restarts_gets_what_it_lacks_once_and_in_order(tmp_path: Path) -> None:
    box, handover = Box.at(tmp_path / "log"), Handover(tmp_path)
    async with handover.running():
        for start in range(0, 60, 20):
            async with seal_at(tmp_path, box):
                handover.put(*range(start, start + 20))
                await asyncio.sleep(0.03)
            (tmp_path / "inlet.sock").unlink()
            box.restart()
        async with seal_at(tmp_path, box):
            await asyncio.wait_for(handover.outbox.emptied(), PATIENCE_S)
    assert numbers_in(box) == list(range(60))
    box.log.close()


@on_both_loops
async def test_a_full_seal_gets_the_same_batches_again(tmp_path: Path) -> None:
    """After a second, all that has no answer, in order."""
    handover = Handover(tmp_path)
    handover.put(1, 2)
    script: list[list[Message]] = [[["welcome", 0]], [["full", 1]], [], [["ack", 2]]]
    async with scripted(tmp_path, *script) as arrived, handover.running():
        began_s = time.monotonic()
        await asyncio.wait_for(handover.outbox.emptied(), PATIENCE_S)
        assert time.monotonic() - began_s > 0.9
        assert [message[1] for message in arrived[0]] == [1, 1, 2, 1, 2][: len(arrived[0])]
    assert handover.counts.sealed == 2


@on_both_loops
async def test_a_refused_batch_is_counted_and_forgotten(tmp_path: Path) -> None:
    handover = Handover(tmp_path)
    handover.put(1, 2)
    script: list[list[Message]] = [[["welcome", 0]], [], [["refused", 1, "malformed"], ["ack", 2]]]
    async with scripted(tmp_path, *script), handover.running():
        await asyncio.wait_for(handover.outbox.emptied(), PATIENCE_S)
    assert (handover.counts.refused, handover.counts.sealed) == (1, 1)
    assert count(handover.said, "collect.refused") == 1


@pytest.mark.parametrize(
    "answers",
    [
        [[["ack", 1]]],
        [[["error", "go away"]]],
        [[["welcome", "x"]]],
        [[["welcome", 0], ["welcome", 0]]],
        [[["welcome", 0]], [["nonsense"]]],
        [[["welcome", 0]], [["ack", "x"]]],
        [[["welcome", 0]], [["error", "no"]]],
    ],
)
async def test_a_seal_that_talks_nonsense_is_left_and_tried_again(tmp_path: Path, answers: list[list[Message]]) -> None:
    """Nothing is lost by it, and it is said once, however often it happens."""
    handover = Handover(tmp_path)
    handover.put(1)
    async with scripted(tmp_path, *answers) as arrived, handover.running():
        async with asyncio.timeout(PATIENCE_S):
            while len(arrived) < 3:
                await asyncio.sleep(0.02)
    assert not handover.outbox.is_empty
    assert count(handover.said, "collect.seal_lost") == 1


@on_both_loops
async def test_a_stop_that_comes_together_with_a_lost_seal_is_not_lost(tmp_path: Path) -> None:
    """Before Python 3.13 a task group forgets it, and the process would go on for ever."""
    handover = Handover(tmp_path)
    async with scripted(tmp_path, [["welcome", 0]]) as arrived:
        task = asyncio.create_task(handover.link.run())
        while not arrived:
            await asyncio.sleep(0.005)
        handover.put(1)
        while len(arrived[0]) < 2:
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.wait({task}, timeout=PATIENCE_S) == ({task}, set())
        assert task.cancelled()


@on_both_loops
async def test_what_is_left_is_handed_over_before_the_end(tmp_path: Path) -> None:
    """Rows that wait for the next flush, too: the process ends, and its queue with it."""
    site, box = Site(configured(tmp_path, "m1")), Box.at(tmp_path / "log")
    handover = Handover(tmp_path, outbox=site.outbox)
    site.outbox.add((await site.meters["m1"].poll(samples=False)).row)
    async with seal_at(tmp_path, box):
        began_s = time.monotonic()
        await handover.link.drain(within_s=5)
        assert time.monotonic() - began_s < 4
    assert site.outbox.is_empty
    assert box.kinds()[2:] == ["event", "schema", "schema", "readings"]
    box.log.close()


@on_both_loops
async def test_the_end_does_not_wait_for_a_seal_that_is_away(tmp_path: Path) -> None:
    handover = Handover(tmp_path)
    handover.put(1)
    began_s = time.monotonic()
    await handover.link.drain(within_s=0.3)
    assert time.monotonic() - began_s < 2
    assert count(handover.said, "collect.left") == 1


# ---- the process


async def test_sigterm_ends_the_process_with_all_that_it_read_in_the_log(tmp_path: Path) -> None:
    """A real process, a real device, a real seal: exit code 0, and the newest row is no older than a period or two."""
    box = Box.at(tmp_path / "log")
    async with Peer(honest) as device, seal_at(tmp_path / "run", box):
        write_toml(tmp_path, device.url)
        errors = (tmp_path / "errors.log").open("wb")
        with errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "collect", str(tmp_path / "gateway.toml")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        try:
            async with asyncio.timeout(30):
                while box.kinds().count("readings") < 3:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            asked = len(device.asked)
            process.send_signal(signal.SIGTERM)
            ended_ns = time.time_ns()
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    said = (tmp_path / "errors.log").read_text()
    assert "Traceback" not in said
    assert "collect.left" not in said
    leaves = [leaf for leaf in box.leaves() if leaf is not None]
    schema = next(to_schema(leaf.body) for leaf in leaves if leaf.kind == "schema")
    assert isinstance(schema, Schema)
    rows = [row for leaf in leaves if leaf.kind == "readings" for row in rows_of(leaf.body, {schema.id: schema})]
    assert len(rows) >= asked - 1
    assert ended_ns - rows[-1].source_time_ns < 0.35 * NS
    assert all(row.qualities is None for row in rows)
    box.log.close()


def write_toml(folder: Path, url: str) -> None:
    """Write a configuration of one device, with a template that the package has."""
    text = '[gateway]\nid = "gw1"\nstate = "."\n[seal]\nkey = "k"\nwitness = "w"\n[interval]\nperiod_s = 1\n'
    text += '[forward]\nbroker = "127.0.0.1:1"\nca = "a"\ncert = "b"\nkey = "c"\n'
    text += f'[devices.m1]\ntemplate = "wattseal-bench-1u16"\nurl = "{url}"\nperiod_s = {PERIOD_S}\n'
    (folder / "gateway.toml").write_text(text)
