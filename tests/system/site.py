"""A whole site as real processes, each of which a test can kill, hold down, freeze and start again."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.app.broker import running_broker
from gateway.app.demo import GATEWAY, LEDGER, write_site
from gateway.app.demo import Site as DemoSite
from gateway.app.demo_plant import plant_devices, running_plant
from gateway.app.metrics import read_metrics
from gateway.app.supervisor import Child, wattseal
from gateway.north.pki import make_dev_ca
from tests import links
from tests.system.pulse import Pulse
from tests.system.recorder import Recorder

RESTART_S = 0.2
PARTS = ("collect", "seal", "forward", "ledger")
LOCAL = "127.0.0.1"
MOST_GATHERED = 1024
"""Bytes of rows that the simulated factory yields from one hand-over to the next."""


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, within_s: float, what: str, every_s: float = 0.1
) -> float:
    """Wait until condition holds; return how long it took, in seconds."""
    began_s = time.monotonic()
    while not await condition():
        assert time.monotonic() - began_s < within_s, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(every_s)
    return time.monotonic() - began_s


class Part:
    """One process, kept running by the product's own supervisor.

    killed_ns: when it was killed.
    """

    def __init__(self, name: str, command: Sequence[str], *, errors: IO[bytes]) -> None:
        self.name = name
        self.killed_ns: list[int] = []
        self._child = Child(name, command, on_start=self._keep, errors=errors, most_wait_s=RESTART_S)
        self._runs: list[asyncio.subprocess.Process] = []
        self._ended: set[int] = set()
        self._task: asyncio.Task[int] | None = None

    def _keep(self, _name: str, _pid: int) -> None:
        assert self._child.process is not None
        self._runs.append(self._child.process)

    @property
    def pids(self) -> list[int]:
        """Of all its starts."""
        return [run.pid for run in self._runs]

    @property
    def pid(self) -> int:
        """Of the newest start."""
        return self._runs[-1].pid

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._task = asyncio.create_task(self._child.keep(), name=f"site.{self.name}")

    async def kill(self) -> None:
        """End it without warning, as soon as it runs; it is started again."""

        async def is_running() -> bool:
            return bool(self._runs) and len(self._runs) - 1 not in self._ended

        await eventually(is_running, within_s=30, what=f"{self.name} starts again", every_s=0.02)
        self._ended.add(len(self._runs) - 1)
        self.killed_ns.append(time.time_ns())
        os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it politely, for good or until `start`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            self.thaw()
            if self._runs and self._runs[-1].returncode is None:
                self._ended.add(len(self._runs) - 1)
            await self._child.stop()

    def freeze(self) -> None:
        """Stop it in its tracks; nobody is told."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._runs and self._runs[-1].returncode is None:
            self._runs[-1].send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Fail if it ever ended by itself; to be called once it is stopped."""
        strays = {run.pid: run.returncode for place, run in enumerate(self._runs) if place not in self._ended}
        assert not strays, f"{self.name} ended by itself, by pid and exit code: {strays}; see processes.log"


class BrokerPart:
    """Mosquitto. It comes back on another port, and whoever connects through a proxy does not notice."""

    def __init__(self, folder: Path, proxies: Sequence["Proxy"]) -> None:
        self.name = "broker"
        self.pid = 0
        self._folder, self._proxies = folder, proxies
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start it."""
        broker = await self._stack.enter_async_context(
            running_broker(self._folder / "broker", pki=self._folder / "pki", ledger=LEDGER)
        )
        self.pid = broker.pid
        for proxy in self._proxies:
            proxy.aim(broker.port)

    async def stop(self) -> None:
        """End it."""
        await self._stack.aclose()

    async def kill(self) -> None:
        """End it without warning, and start another."""
        os.kill(self.pid, signal.SIGKILL)
        await self.stop()
        await self.start()


class Proxy(links.Proxy):
    """A relay to the broker that can be cut, and whose darkness hides the end of a connection too.

    moved: set whenever something passes.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.moved = asyncio.Event()

    def cut(self) -> None:
        """End all connections, on both sides."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while some := await source.read(65_536):
                await self._light.wait()
                sink.write(some)
                self.moved.set()
                await sink.drain()
        await self._light.wait()
        sink.close()


@dataclass(slots=True, kw_only=True)
class Site(DemoSite):
    """A running site.

    proxies: what `forward` and `ledger` reach the broker through. recorder: stands between collect and seal.
    at_rest_ns: when collect was ended. pulse: tells when the machine stood still.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    broker: BrokerPart | None = None
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    recorder: Recorder | None = None
    at_rest_ns: int = 0
    pulse: Pulse = field(default_factory=Pulse)

    async def metrics(self) -> dict[str, float]:
        """Return the metrics of all processes that answer."""
        found = await DemoSite.metrics(self)
        with suppress(OSError, TimeoutError):
            found |= await read_metrics(self.folder / "south" / "run" / "collect.metrics.sock")
        return found

    async def until(self, condition: Callable[[dict[str, float]], bool], *, within_s: float, what: str) -> float:
        """Wait until the metrics are so; return how long it took, in seconds."""

        async def holds() -> bool:
            return condition(await self.metrics())

        return await eventually(holds, within_s=within_s, what=what)

    async def flows(self, within_s: float = 30.0) -> None:
        """Wait until readings have a receipt."""
        await self.until(lambda m: m.get("wattseal_seal_receipt_size", 0) > 12, within_s=within_s, what="readings flow")

    async def hands_over(self) -> None:
        """Wait until the seal has taken what collect holds: a collect that is told to end waits 2 s for it, no more."""
        await self.until(
            lambda m: (
                "wattseal_seal_log_size" in m and m.get("wattseal_collect_queue_bytes", MOST_GATHERED) < MOST_GATHERED
            ),
            within_s=30,
            what="collect hands over what it holds",
        )

    async def settle(self, within_s: float = 40.0) -> dict[str, float]:
        """End collect, wait until every leaf has a receipt, then end all; return the last metrics."""
        before = await self.metrics()
        self.at_rest_ns = time.time_ns()
        await self.parts["collect"].stop()

        def is_settled(metrics: Mapping[str, float]) -> bool:
            size = metrics.get("wattseal_seal_log_size", 0)
            return size > 0 and size == metrics.get("wattseal_seal_receipt_size", -1)

        await self.until(is_settled, within_s=within_s, what="every leaf has a receipt")
        metrics = before | await self.metrics()
        await self.end()
        for part in self.parts.values():
            part.check()
        said = (self.folder / "processes.log").read_text(encoding="utf-8", errors="replace")
        assert "Traceback" not in said, said[said.index("Traceback") :][:4000]
        return metrics

    async def end(self) -> None:
        """End our processes, collect first."""
        for name in PARTS:
            if name in self.parts:
                await self.parts[name].stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """Where the parts stand when they do not share one machine: addresses, and the command that runs a part there."""

    plant_host: str
    broker_host: str
    within: Mapping[str, Sequence[str]]


def commands(folder: Path, *, collect_file: str) -> dict[str, list[str]]:
    """Return each part's command line."""
    gateway_file = str(folder / "gateway.toml")
    return {
        "ledger": wattseal("ledger", "run", str(folder / "ledger.toml")),
        "seal": wattseal("seal", gateway_file),
        "forward": wattseal("forward", gateway_file),
        "collect": wattseal("collect", str(folder / collect_file)),
    }


@asynccontextmanager
async def running_site(
    folder: Path,
    *,
    devices: str | None = None,
    period_s: float = 0.5,
    more: str = "",
    ledger: str = "",
    own: str = "",
    seed: int = 1,
) -> AsyncIterator[Site]:
    """Run a site on this machine, with everything in between that a test may want; end it on leaving.

    devices: sections of gateway.toml for meters that the test itself serves; the simulated factory's when None,
    polled each period_s. more: further sections. ledger: further sections of ledger.toml. own: further keys of its
    [ledger].
    """
    make_dev_ca(folder / "pki", gateways=[GATEWAY], ledger=LEDGER, hosts=[LOCAL])
    async with AsyncExitStack() as stack:
        proxies = {name: await stack.enter_async_context(Proxy(0)) for name in ("forward", "ledger")}
        broker = BrokerPart(folder, [*proxies.values()])
        stack.push_async_callback(broker.stop)
        await broker.start()
        if devices is None:
            plant = await stack.enter_async_context(running_plant(folder, seed=seed))
            devices = plant_devices(f"{LOCAL}:{plant.port}", period_s=period_s)
        write_site(folder, broker=f"{LOCAL}:{proxies['forward'].port}", devices=devices + more)
        _change(folder / "ledger.toml", f":{proxies['forward'].port}", f":{proxies['ledger'].port}")
        _change(folder / "ledger.toml", 'state = "ledger"\n', f'state = "ledger"\n{own}')
        with (folder / "ledger.toml").open("a", encoding="utf-8") as file:
            file.write(ledger)
        _change(folder / "gateway.toml", 'state = "gateway"', 'state = "south"', to=folder / "collect.toml")
        site = Site(folder=folder, control=folder / "plant.sock", broker=broker, proxies=proxies)
        site.recorder = await stack.enter_async_context(
            Recorder(folder / "south" / "run" / "inlet.sock", site.run_folder / "inlet.sock")
        )
        await _start(stack, site, commands(folder, collect_file="collect.toml"))
        yield site


@asynccontextmanager
async def running_zones(folder: Path, zones: Zones, *, seed: int = 1) -> AsyncIterator[Site]:
    """Run a site whose parts stand in zones of their own, with nothing of ours between them; end it on leaving."""
    make_dev_ca(folder / "pki", gateways=[GATEWAY], ledger=LEDGER, hosts=[zones.broker_host])
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            running_broker(
                folder / "broker",
                pki=folder / "pki",
                ledger=LEDGER,
                port=8883,
                bind=zones.broker_host,
                within=zones.within["broker"],
            )
        )
        plant = await stack.enter_async_context(
            running_plant(folder, seed=seed, host=zones.plant_host, within=zones.within["plant"])
        )
        devices = plant_devices(f"{zones.plant_host}:{plant.port}")
        write_site(folder, broker=f"{zones.broker_host}:{broker.port}", devices=devices)
        site = Site(folder=folder, control=plant.control)
        lines = commands(folder, collect_file="gateway.toml")
        await _start(stack, site, {name: [*zones.within[name], *line] for name, line in lines.items()})
        yield site


async def _start(stack: AsyncExitStack, site: Site, lines: Mapping[str, Sequence[str]]) -> None:
    stack.enter_context(site.pulse)
    log = stack.enter_context((site.folder / "processes.log").open("ab"))
    site.parts = {name: Part(name, line, errors=log) for name, line in lines.items()}
    stack.push_async_callback(site.end)
    for part in site.parts.values():
        part.start()


def _change(path: Path, old: str, new: str, *, to: Path | None = None) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    (to or path).write_text(text.replace(old, new), encoding="utf-8")
