"""drivers/agents.py and what is around it: simulated agents, a real Mosquitto with TLS, the queue, and the seal."""

import asyncio
import contextlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from gateway.app.agentkeys import read_agent_keys
from gateway.app.broker import Broker, running_broker
from gateway.app.collector import Collector
from gateway.app.counts import CollectCounts
from gateway.app.devices.agents import open_agents, source_of
from gateway.app.fleet import Fleet
from gateway.app.load import template_text
from gateway.app.outbox import MOST_FRAMES, Outbox
from gateway.codec.agent_leaves import AgentSource, frames_of
from gateway.codec.agents import AgentFrame, AgentPoint, pack_frame, parse_frame
from gateway.codec.bodies import schema_body
from gateway.codec.checks import check_body
from gateway.codec.pack import unpack
from gateway.config import GatewayConfig, parse_gateway, parse_template
from gateway.config.templates import AgentTemplate
from gateway.drivers import Courier
from gateway.drivers.agents import FRESH_S, AgentBroker, AgentDriver
from gateway.errors import ConfigError, DeviceError, LinkError, TrustError
from gateway.model import Change, Quality, Schema
from gateway.north.broker import agents_acl_text
from gateway.north.mqtt import Link
from gateway.north.pki import make_agents_ca
from hil.plant.agent import Agent, agent_endpoint, agent_key
from hil.plant.factory import Plant
from tests.links import HOST
from tests.northbound import until
from tests.sealing import BOOT, Box
from tests.test_collect import logger

AGENTS = ("press-1", "press-2")
TEMPLATE = parse_template(template_text("wattseal-plant-agent"), "wattseal-plant-agent")
assert isinstance(TEMPLATE, AgentTemplate)
SOURCE = source_of("press", "press-1", TEMPLATE)
KEY = bytes(32)
NS = 1_000_000_000
T0_NS = 1_760_000_000 * NS
SOON_S = 1.0


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents")
    make_agents_ca(folder, agents=AGENTS, collect="collect", hosts=[HOST, "localhost"])
    return folder


def agents_broker(pki: Path, folder: Path, port: int | None = None) -> contextlib.AbstractAsyncContextManager[Broker]:
    return running_broker(folder, pki=pki, ledger="collect", for_agents=True, port=port)


def config_for(pki: Path, port: int, *, more: str = "", agents: bool = True) -> GatewayConfig:
    section = f"""
[agents]
broker = "{HOST}:{port}"
ca = "{pki}/ca.pem"
cert = "{pki}/collect.pem"
key = "{pki}/collect.key"
"""
    text = f"""
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
agents = "{pki}/keys"
[forward]
broker = "b:1"
ca = "a"
cert = "b"
key = "c"
{section if agents else ""}
[devices.press]
template = "wattseal-plant-agent"
url = "agent:press-1"
{more}
"""
    return parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)


@dataclass
class Site:
    """A broker, a simulated agent, and a driver that is followed."""

    port: int
    driver: Any
    agent: Agent
    frames: list[bytes] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def hand(self, source: AgentSource, frame: AgentFrame) -> None:
        """Keep a frame, as the collector's queue would."""
        assert source.agent == frame.agent
        self.frames.append(frame.raw)


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    """Run these while the block runs; fail where one ends by itself."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
        assert not [task for task in tasks if task.done()], tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def site(pki: Path, tmp_path: Path, *, every_s: float = 0.1, run_agent: bool = True) -> AsyncIterator[Site]:
    async with agents_broker(pki, tmp_path / "broker") as broker:
        driver = open_agents(config_for(pki, broker.port))["agents"]["press"]
        assert isinstance(driver, Courier)
        agent = Agent(Plant(seed=1, noise=0), "press", agent="press-1", key=agent_key(pki, "press-1"), every_s=every_s)
        made = Site(broker.port, driver, agent)
        driver.hand_to(made.hand)
        endpoint = agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1")
        async with running(driver.follow(made.changes.extend)):
            await until(lambda: not made.driver._broker.why)
            async with running(*[agent.run(endpoint)] if run_agent else []):
                yield made


# ---- through a real broker


async def test_an_agents_frames_are_handed_on_byte_for_byte_and_polled_with_their_own_time(
    pki: Path, tmp_path: Path
) -> None:
    async with site(pki, tmp_path) as made:
        await until(lambda: len(made.frames) >= 5)
        poll = await made.driver.poll(samples=True)
    frames = [parse_frame(raw) for raw in made.frames]
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
    newest = next(frame for frame in frames if frame.time_ns == poll.row.source_time_ns)
    energy, power, temperature = poll.row.values
    assert energy == newest.energy
    assert power == pytest.approx(420_000, rel=0.01)
    assert temperature == pytest.approx(46.0, rel=0.01)
    (sample,) = poll.samples
    assert (sample.point, sample.raw, sample.value) == ("energy", newest.raw, Decimal(newest.energy or 0))
    assert sample.source_time_ns == newest.time_ns


async def test_an_agent_can_send_on_no_other_topic_and_hears_nothing(pki: Path, tmp_path: Path) -> None:
    """Press 2's certificate is good: still it cannot send as press 1, and collect's cannot send at all."""
    async with site(pki, tmp_path, run_agent=False) as made:
        where = f"{HOST}:{made.port}"
        frame = made.agent.frame()
        async with (
            Link(agent_endpoint(pki, where, "press-2"), client_id="press-2") as other,
            Link(agent_endpoint(pki, where, "press-1"), client_id="press-1") as own,
        ):
            await other.subscribe("wattseal/v1/agents/#")
            await other.publish(made.agent.topic, frame)
            await own.publish(made.agent.topic.replace("frames", "other"), frame)
            await own.publish(made.agent.topic, made.agent.frame())
            await until(lambda: bool(made.frames))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(other)
        assert [parse_frame(raw).sequence for raw in made.frames] == [2]


async def test_what_collects_own_certificate_sends_reaches_nobody(pki: Path, tmp_path: Path) -> None:
    async with agents_broker(pki, tmp_path) as broker:
        endpoint = agent_endpoint(pki, f"{HOST}:{broker.port}", "collect")
        async with Link(endpoint, client_id="collect") as link:
            await link.subscribe("wattseal/v1/agents/+/frames")
            for agent in ("press-1", "collect"):
                await link.publish(f"wattseal/v1/agents/{agent}/frames", b"x")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(link)


async def test_a_frame_on_a_wrong_topic_goes_no_further(pki: Path, tmp_path: Path) -> None:
    """The broker lets press 1 send on its topic; what it sends there must be its own."""
    async with site(pki, tmp_path, run_agent=False) as made:
        endpoint = agent_endpoint(pki, f"{HOST}:{made.port}", "press-1")
        async with Link(endpoint, client_id="press-1") as link:
            posing = pack_frame(agent="press-2", boot=BOOT, sequence=1, time_ms=1, energy=1, key=KEY)
            for nonsense in (posing, b"", b"\xff" * 1000, made.agent.frame()[:-1]):
                await link.publish(made.agent.topic, nonsense)
            await until(lambda: made.driver.refused == 4)
        assert made.frames == []
        with pytest.raises(DeviceError, match=r"no frame for .* 4 messages were no frames of it"):
            await made.driver.poll(samples=False)


async def test_without_tls_or_a_certificate_nobody_gets_in_and_tls_1_2_is_the_least(pki: Path, tmp_path: Path) -> None:
    connect = bytes.fromhex("101300044d5154540402000a0007") + b"press-1"
    async with agents_broker(pki, tmp_path) as broker:

        async def answer(context: ssl.SSLContext | None) -> bytes:
            reader, writer = await asyncio.open_connection(
                HOST, broker.port, ssl=context, server_hostname=HOST if context else None
            )
            writer.write(connect)
            try:
                async with asyncio.timeout(3):
                    return await reader.read(4)
            finally:
                writer.transport.abort()

        def context(name: str | None, version: ssl.TLSVersion) -> ssl.SSLContext:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            made.load_verify_locations(pki / "ca.pem")
            made.minimum_version = made.maximum_version = version
            if name:
                made.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
            return made

        assert (await answer(context("press-1", ssl.TLSVersion.TLSv1_3)))[:1] == b"\x20"
        assert (await answer(context("press-1", ssl.TLSVersion.TLSv1_2)))[:1] == b"\x20"
        for wrong in (None, context(None, ssl.TLSVersion.TLSv1_2), context(None, ssl.TLSVersion.TLSv1_3)):
            try:
                got = await answer(wrong)
            except OSError:
                continue
            assert got == b""


async def test_silence_is_told_once_and_ends_the_polls(pki: Path, tmp_path: Path) -> None:
    async with site(pki, tmp_path) as made:
        await until(lambda: len(made.frames) >= 3)
        made.agent.faults.add("silent")
        await until(lambda: bool(made.changes))
        with pytest.raises(DeviceError, match="press-1: no frame for 2 s"):
            await made.driver.poll(samples=True)
        await asyncio.sleep(1.2)
        assert [change.column for change in made.changes] == [0, 1, 2]
        assert {(change.value, change.quality) for change in made.changes} == {(None, Quality.BAD)}
        made.agent.faults.clear()
        count = len(made.frames)
        await until(lambda: len(made.frames) > count)
        assert (await made.driver.poll(samples=False)).row.qualities is None


async def test_a_broker_that_restarts_is_found_again(pki: Path, tmp_path: Path) -> None:
    agent = Agent(Plant(), "hvac", agent="press-1", key=agent_key(pki, "press-1"), every_s=0.1)
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(agents_broker(pki, tmp_path / "1"))
        driver: Any = open_agents(config_for(pki, broker.port))["agents"]["press"]
        made = Site(broker.port, driver, agent)
        driver.hand_to(made.hand)
        endpoint = agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1")
        async with running(driver.follow(made.changes.extend), agent.run(endpoint)):
            await until(lambda: bool(made.frames))
            await stack.aclose()
            await until(lambda: bool(driver._broker.why))
            count = len(made.frames)
            async with agents_broker(pki, tmp_path / "2", made.port):
                await until(lambda: len(made.frames) > count + 2)
                assert driver._broker.why == ""


async def test_what_comes_while_collect_restarts_waits_at_the_broker(pki: Path, tmp_path: Path) -> None:
    async with agents_broker(pki, tmp_path / "broker") as broker:
        agent = Agent(Plant(), "press", agent="press-1", key=agent_key(pki, "press-1"))
        config, got = config_for(pki, broker.port), []

        async def heard(count: int) -> None:
            driver: Any = open_agents(config)["agents"]["press"]
            driver.hand_to(lambda _, frame: got.append(frame.sequence))
            async with running(driver.follow(lambda _: None)):
                await until(lambda: not driver._broker.why and len(got) >= count)

        async with Link(agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1"), client_id="press-1") as link:
            await heard(0)
            for _ in range(5):
                await link.publish(agent.topic, agent.frame())
            await heard(5)
        assert got == [1, 2, 3, 4, 5]


async def test_two_agents_share_one_connection_and_either_may_go(pki: Path, tmp_path: Path) -> None:
    second = '[devices.other]\ntemplate = "wattseal-plant-agent"\nurl = "agent:press-2"'
    async with agents_broker(pki, tmp_path / "broker") as broker:
        drivers: Any = open_agents(config_for(pki, broker.port, more=second))["agents"]
        got: dict[str, int] = dict.fromkeys(AGENTS, 0)

        def hand(source: AgentSource, _: AgentFrame) -> None:
            got[source.agent] += 1

        for driver in drivers.values():
            driver.hand_to(hand)
        agents = [Agent(Plant(), "hvac", agent=name, key=agent_key(pki, name), every_s=0.1) for name in AGENTS]
        runs = [agent.run(agent_endpoint(pki, f"{HOST}:{broker.port}", agent.agent)) for agent in agents]
        async with running(*runs, drivers["other"].follow(lambda _: None)):
            async with running(drivers["press"].follow(lambda _: None)):
                await until(lambda: min(got.values()) > 2)
            log = broker.log.read_text()
            count = got["press-2"]
            await until(lambda: got["press-2"] > count + 2)
        assert log.count("as collect") == 1, log


async def test_the_simulated_factory_runs_agents_as_a_process(pki: Path, tmp_path: Path) -> None:
    async with agents_broker(pki, tmp_path / "broker") as broker:
        where = ["--agents-broker", f"{HOST}:{broker.port}", "--agents-pki", str(pki)]
        got: list[AgentFrame] = []
        driver: Any = open_agents(config_for(pki, broker.port))["agents"]["press"]
        driver.hand_to(lambda _, frame: got.append(frame))
        plant = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hil.plant", "--agent", "press-1=press", *where), stdout=asyncio.subprocess.PIPE
        )
        try:
            async with running(driver.follow(lambda _: None)):
                await until(lambda: len(got) >= 2)
        finally:
            plant.terminate()
            assert await asyncio.wait_for(plant.wait(), 10) == 0


@pytest.mark.parametrize(
    "wanted", [["--agent", "press-1=press"], ["--agent", "press-1=oven", "--agents-broker", "b:1", "--agents-pki", "x"]]
)
async def test_an_agent_that_cannot_be_is_refused(wanted: list[str]) -> None:
    plant = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hil.plant", *wanted), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(plant.communicate(), 20)
    assert (plant.returncode, b"--agent: got" in said) == (2, True)


# ---- with the seal


@pytest.fixture
def box(tmp_path: Path, pki: Path) -> Iterator[Box]:
    made = Box.at(tmp_path / "log", agent_keys=read_agent_keys(pki / "keys", "seal.agents"))
    made.sealer.welcome(BOOT)
    made.put(("schema", schema_body(SOURCE.schema)))
    yield made
    made.log.close()


def hand_over(outbox: Outbox, box: Box) -> int:
    """Let the seal have all that the outbox holds; return how many batches it refused."""
    refused = 0
    outbox.flush()
    while messages := outbox.unsent(0):
        for _, sequence, kind, body in messages:
            try:
                box.put((kind, body))
            except TrustError:
                refused += 1
                outbox.refuse(sequence)
        box.sealer.commit()
        outbox.acknowledge(messages[-1][1])
    return refused


def sealed(box: Box) -> list[int]:
    return [
        parse_frame(raw).sequence for leaf in box.leaves() if leaf is not None for raw in leaf.body.get("frames", ())
    ]


@pytest.mark.parametrize("fault", ["replay", "duplicate", "forge"])
async def test_what_an_agent_does_wrong_costs_none_of_its_good_frames(
    pki: Path, tmp_path: Path, box: Box, fault: str
) -> None:
    """Through broker, driver, queue and seal: each good frame is in the log once, and nothing else.

    What was just here the driver drops; so for a replay of the first frame to get to the seal, more must come between.
    """
    outbox = Outbox(most_bytes=1 << 20)
    async with site(pki, tmp_path, every_s=0.05) as made:
        made.driver.hand_to(outbox.put_frame)
        for faults in (set(), {fault}, set()):
            made.agent.faults = faults
            sent = made.agent.sent
            await until(lambda sent=sent: made.agent.sent > sent + 20)  # type: ignore[misc]
        made.agent.faults = {"silent"}
        await asyncio.sleep(0.3)
        last = made.agent.sequence
    refused = hand_over(outbox, box)
    log = sealed(box)
    assert len(set(log)) == len(log)
    assert (refused > 0) == (fault != "duplicate"), "a duplicate is dropped before the seal"
    if fault == "forge":
        assert set(range(1, 20)) <= set(log) < set(range(1, last + 1))
    else:
        assert sorted(log) == list(range(1, last + 1))


def test_a_refused_batch_goes_again_frame_by_frame(box: Box, pki: Path) -> None:
    key = agent_key(pki, "press-1")
    outbox = Outbox(most_bytes=1 << 20)
    for number in range(1, 2 * MOST_FRAMES + 1):
        made = frame(number, key=KEY if number == 5 else key)
        outbox.put_frame(SOURCE, parse_frame(made))
    assert outbox.depth_bytes > 0
    assert hand_over(outbox, box) == 2, "the batch, then the one frame"
    assert sorted(sealed(box)) == [number for number in range(1, 2 * MOST_FRAMES + 1) if number != 5]
    assert outbox.is_empty
    assert outbox.depth_bytes == 0


def test_frames_are_joined_into_batches_of_one_agent() -> None:
    outbox = Outbox(most_bytes=1 << 20)
    other = source_of("other", "press-2", TEMPLATE)  # type: ignore[arg-type]
    for number in (1, 2):
        outbox.put_frame(SOURCE, parse_frame(frame(number)))
        outbox.put_frame(other, parse_frame(frame(number, agent="press-2")))
    assert not outbox.is_empty
    assert outbox.depth_bytes == 2 * len(frame()) + 2 * len(frame(agent="press-2"))
    outbox.flush()
    bodies = [check_body("readings", unpack(body)) for _, _, _, body in outbox.unsent(0)]
    assert [(body["agent"], body["schema"], len(body["frames"])) for body in bodies] == [
        ("press-1", SOURCE.schema.id, 2),
        ("press-2", other.schema.id, 2),
    ]
    schemas: dict[bytes, Schema] = {SOURCE.schema.id: SOURCE.schema}
    assert [change.value for change in frames_of(bodies[0], schemas, sealed_ns=0)] == [1.0, 1, 1.0, 2]


async def test_collect_runs_agents_like_any_other_device(pki: Path, tmp_path: Path, box: Box) -> None:
    """From the configuration to the log: frames as they came, and an interval that rests on one of them."""
    line = '[interval]\nperiod_s = 1\n[lines.filling]\nzone = "DEMO"\nenergy = ["press.energy"]'
    outbox, counts = Outbox(most_bytes=1 << 20), CollectCounts()
    async with agents_broker(pki, tmp_path / "broker") as broker:
        config = config_for(pki, broker.port, more=line)
        agent = Agent(Plant(), "press", agent="press-1", key=agent_key(pki, "press-1"), every_s=0.2)
        collector = Collector(config, outbox, counts, logger(CapturingLogger()))
        async with (
            running(agent.run(agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1")), collector.beat()),
            asyncio.TaskGroup() as tasks,
        ):
            fleet = Fleet(collector, config, tasks)
            fleet.start()
            await until(lambda: counts.frames >= 12 and counts.rows >= 2)
            await fleet.close()
    assert hand_over(outbox, box) == 0
    assert len(sealed(box)) == counts.frames
    samples = [leaf.body["samples"][0] for leaf in box.leaves() if leaf is not None and leaf.kind == "interval"]
    good = [sample for sample in samples if sample[3] == Quality.GOOD]
    assert good
    for t_ns, raw, value, _, _ in good:
        frame = parse_frame(raw)
        assert (frame.time_ns, str(frame.energy)) == (t_ns, value)


# ---- the driver alone


def frame(sequence: int = 1, *points: AgentPoint, at_s: float = 0.0, key: bytes = KEY, **other: Any) -> bytes:
    said = {"agent": "press-1", "boot": BOOT, "energy": sequence, **other}
    time_ms = said.pop("time_ms", (T0_NS + int(at_s * NS)) // 1_000_000)
    return pack_frame(sequence=sequence, time_ms=time_ms, points=points or (AgentPoint(0, 0, 1, 0),), key=key, **said)


class NoLink:
    """A broker that cannot be reached."""

    async def __aenter__(self) -> Any:
        raise LinkError("broker b:1: refused")

    async def __aexit__(self, *_: object) -> None:
        """Never entered."""


@dataclass
class Bench:
    """A driver with a clock that is moved by hand."""

    stale_s: float = 0.0
    at_s: float = 0.0
    handed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = AgentBroker(NoLink)
        self.driver = AgentDriver(
            source=SOURCE,
            counters=frozenset({"energy"}),
            broker=self.broker,
            stale_s=self.stale_s,
            clock=lambda: T0_NS + int(self.at_s * NS),
            mono=lambda: self.at_s,
        )
        self.driver.hand_to(lambda _, frame: self.handed.append(frame.sequence))
        self.broker.why = ""

    def arrive(self, raw: bytes) -> None:
        """Let a message come on the agent's own topic."""
        self.broker.arrived("wattseal/v1/agents/press-1/frames", raw)

    async def value(self) -> Any:
        """Return what a poll says of the energy register."""
        return (await self.driver.poll(samples=False)).row.values[0]


async def test_a_duplicate_is_dropped_and_an_older_frame_is_handed_on_but_not_polled() -> None:
    bench = Bench()
    for number in (1, 3, 3, 2):
        bench.arrive(frame(number))
    assert bench.handed == [1, 3, 2], "whether the older one is a replay is the seal's to say"
    assert await bench.value() == 3


async def test_an_older_boot_does_not_replace_a_newer_one() -> None:
    bench = Bench()
    bench.arrive(frame(5, at_s=0.0, boot=b"new boot"))
    bench.arrive(frame(6, at_s=-10.0))
    assert await bench.value() == 5
    bench.arrive(frame(1, at_s=1.0, boot=b"3rd boot"))
    assert await bench.value() == 1


@pytest.mark.parametrize(
    ("stale_s", "cadence_s", "fresh_s"), [(0, None, FRESH_S), (0, 5.0, 15.0), (0, 0.1, 2.0), (7.0, 5.0, 7.0)]
)
async def test_a_frame_is_fresh_for_so_long(stale_s: float, cadence_s: float | None, fresh_s: float) -> None:
    """What the file says, else three times the agent's own cadence; a burst after an outage does not shorten it."""
    bench = Bench(stale_s=stale_s)
    bench.arrive(frame(1))
    if cadence_s is not None:
        for number in (2, 3):
            bench.arrive(frame(number, at_s=cadence_s * (number - 1)))
        bench.at_s = cadence_s * 2
    start = bench.at_s
    bench.driver._arrived_s = start
    assert bench.driver.fresh_s == pytest.approx(fresh_s)
    bench.at_s = start + fresh_s - 0.01
    assert await bench.value() is not None
    bench.at_s = start + fresh_s + 0.01
    with pytest.raises(DeviceError, match="no frame for"):
        await bench.value()


@pytest.mark.parametrize(("at_s", "why"), [(-3600.0, "3600 s old"), (3600.0, "3600 s ahead of our clock")])
async def test_a_frame_that_just_came_but_is_not_of_now_is_not_polled(at_s: float, why: str) -> None:
    """A replay, a backlog, or a wrong clock: an old value never gets a new time."""
    bench = Bench()
    bench.arrive(frame(1, at_s=at_s))
    with pytest.raises(DeviceError, match=why):
        await bench.value()
    assert bench.handed == [1], "with its own time it is worth keeping"


async def test_an_agent_without_a_clock_is_polled_by_its_arrival_and_never_good() -> None:
    bench = Bench(at_s=5.0)
    bench.arrive(frame(1, clock_set=False, time_ms=77))
    poll = await bench.driver.poll(samples=True)
    assert poll.row.source_time_ns == T0_NS + 5 * NS
    assert poll.row.qualities == (Quality.UNCERTAIN, Quality.UNCERTAIN, Quality.BAD)
    assert "the agent's clock is not set" in poll.row.status
    assert poll.samples[0].quality == Quality.UNCERTAIN


async def test_what_is_not_in_the_newest_frame_is_bad() -> None:
    bench = Bench()
    bench.arrive(frame(1, AgentPoint(0, 0, 1, 0), AgentPoint(1, 0, 1, 0)))
    assert (await bench.driver.poll(samples=False)).row.qualities is None
    bench.arrive(frame(2, AgentPoint(0, 0, 0, 0, Quality.BAD), energy=None))
    poll = await bench.driver.poll(samples=True)
    assert poll.row.values == (None, None, None)
    assert poll.row.status == (
        "energy: the agent has no energy register; power: the agent says BAD; "
        "temperature: not in the agent's newest frame"
    )
    assert (poll.samples[0].raw, poll.samples[0].value, poll.samples[0].quality) == (b"", None, Quality.BAD)


async def test_nothing_is_polled_before_the_first_frame_and_the_broker_is_named() -> None:
    bench = Bench()
    bench.broker.why = "broker b:1: refused"
    with pytest.raises(DeviceError, match="broker b:1: refused"):
        await bench.value()


def test_messages_of_unknown_agents_and_topics_are_counted() -> None:
    bench = Bench()
    for topic in ("wattseal/v1/agents/press-9/frames", "wattseal/v1/agents/press-1/frames/x", "x", ""):
        bench.broker.arrived(topic, frame())
    assert (bench.broker.strays, bench.handed) == (4, [])


async def test_a_broker_out_of_reach_is_tried_again_and_costs_nothing() -> None:
    bench = Bench()
    began = time.process_time()
    async with running(bench.driver.follow(lambda _: None)):
        await until(lambda: bench.broker.why == "broker b:1: refused")
        await asyncio.sleep(0.5)
    assert time.process_time() - began < SOON_S


# ---- configuration


@pytest.mark.parametrize(
    ("more", "agents", "why"),
    [
        ("", False, r"agents: got no section, want \[agents\]"),
        ("follow = false", True, "devices.press.follow: got false, want true"),
        (
            '[devices.two]\ntemplate = "wattseal-plant-agent"\nurl = "agent:press-1"',
            True,
            "another agent than devices.press",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(pki: Path, more: str, why: str, *, agents: bool) -> None:
    with pytest.raises(ConfigError, match=why):
        open_agents(config_for(pki, 1, more=more, agents=agents))


def test_the_page_shows_files_that_parse() -> None:
    page = (Path(__file__).parent.parent / "docs" / "agents.md").read_text(encoding="utf-8")
    file, template = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    config = parse_gateway(file, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    assert config.seal.agents == Path("/site/agents/keys")
    assert open_agents(config)["agents"].keys() == {"press"}
    parsed = parse_template(template, "shown")
    assert isinstance(parsed, AgentTemplate)
    assert [column.number for column in source_of("press", "press-1", parsed).columns] == [None, 0]


def test_two_points_of_one_place_are_refused() -> None:
    text = template_text("wattseal-plant-agent")
    for twice in (text.replace("index = 1", "index = 0"), text.replace("index = 1", "")):
        template = parse_template(twice, "t")
        assert isinstance(template, AgentTemplate)
        with pytest.raises(ConfigError, match="which points"):
            source_of("press", "press-1", template)


def test_an_agents_id_is_no_longer_than_a_frame_can_say(pki: Path) -> None:
    with pytest.raises(ConfigError, match="url"):
        config_for(pki, 1, more=f'[devices.two]\ntemplate = "wattseal-plant-agent"\nurl = "agent:{"a" * 33}"')


def test_the_keys_folder_is_the_seals_and_no_certificate_names_another(pki: Path, tmp_path: Path) -> None:
    assert set(read_agent_keys(pki / "keys", "seal.agents")) == set(AGENTS)
    assert config_for(pki, 1).seal.agents == pki / "keys"
    with pytest.raises(ConfigError, match="at most 32"):
        make_agents_ca(tmp_path, agents=["a" * 33], collect="collect", hosts=[HOST])
    with pytest.raises(ConfigError, match="collect"):
        agents_acl_text(collect="+")
