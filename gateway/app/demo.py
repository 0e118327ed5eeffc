"""`wattseal demo`: a whole site on one machine, each part a process of its own.

The simulated factory runs `SPEED` times faster than the clock, so that a figure settles within seconds.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.app.broker import running_broker
from gateway.app.demo_plant import (
    SPEED,
    ZONE,
    all_protocols,
    other_devices,
    plant_devices,
    running_agent,
    running_plant,
    trust_each_other,
)
from gateway.app.metrics import read_metrics
from gateway.app.paths import reachable
from gateway.app.snapshot import LineSums, Snapshot
from gateway.app.supervisor import Child, wattseal
from gateway.errors import GatewayError
from gateway.north.pki import make_dev_ca

GATEWAY, LEDGER = "gw1", "demo"
FACTOR_G_PER_KWH = 400
SETTLED_NS = 2_000_000_000
"""A figure counts as settled this long after the fault."""

_GATEWAY_TOML = """\
# Made by `wattseal demo`: the simulated factory, {speed} plant seconds a second.
[gateway]
id = "{gateway}"
site = "demo"
state = "gateway"

[seal]
key = "pki/{gateway}.epoch.key"
witness = "pki/{ledger}.vkey"
checkpoint_s = 0.5
{seal}
[forward]
broker = "{broker}"
ca = "pki/ca.pem"
cert = "pki/{gateway}.pem"
key = "pki/{gateway}.key"

[interval]
period_s = 1
{devices}"""

_LEDGER_TOML = """\
# Made by `wattseal demo`.
[ledger]
name = "{ledger}"
state = "ledger"
key = "pki/{ledger}.sign.key"
factors = "factors.toml"

[broker]
broker = "{broker}"
ca = "pki/ca.pem"
cert = "pki/{ledger}.pem"
key = "pki/{ledger}.key"

[gateways.{gateway}]
key = "pki/{gateway}.vkey"
"""

_FACTORS_TOML = """\
# A made-up grid for the demonstration: constant.
[[factor]]
provider = "demo"
zone = "{zone}"
signal = "average"
type = "lifecycle"
start = 2020-01-01T00:00:00Z
end = 2040-01-01T00:00:00Z
value = {factor}
unit = "g/kWh"
state = "final"
method = "constant"
source = "made up for the demonstration"
"""


@dataclass(slots=True)
class Site:
    """A running demonstration."""

    folder: Path
    control: Path
    fault_ns: int | None = None
    repair_ns: int | None = None
    children: dict[str, Child] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[int]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise GatewayError when a process has ended for good and nobody asked it to."""
        for name, task in self.tasks.items():
            if task.done() and not self.children[name].released:
                task.result()
                raise GatewayError(f"demo: {name} has ended by itself; see {self.folder / 'processes.log'}")

    @property
    def run_folder(self) -> Path:
        """Where the gateway's sockets are."""
        return self.folder / "gateway" / "run"

    async def metrics(self) -> dict[str, float]:
        """Return the metrics of all processes that answer."""
        found: dict[str, float] = {}
        sockets = [self.run_folder / f"{name}.metrics.sock" for name in ("collect", "seal", "forward")]
        for socket in (*sockets, self.folder / "ledger" / "run" / "ledger.metrics.sock"):
            with contextlib.suppress(OSError, TimeoutError):
                found |= await read_metrics(socket)
        return found

    async def command(self, line: str) -> Any:
        """Tell the plant something, such as `fault compressor-valve`."""
        with reachable(self.control) as name:
            reader, writer = await asyncio.open_unix_connection(name)
        writer.write(f"{line}\n".encode())
        answer = json.loads(await reader.readline())
        writer.close()
        return answer

    async def break_compressor(self) -> None:
        """Inject the fault that the demo is about."""
        await self.command("fault compressor-valve")
        self.fault_ns = time.time_ns()

    async def mend_compressor(self) -> None:
        """Repair it."""
        await self.command("repair compressor-valve")
        self.repair_ns = time.time_ns()


def write_site(folder: Path, *, broker: str, devices: str, seal: str = "") -> None:
    """Write the configuration files of a site whose broker is at host:port broker.

    devices: the sections of gateway.toml that say which meters there are, and which lines. seal: more for [seal].
    """
    names = {"gateway": GATEWAY, "ledger": LEDGER, "zone": ZONE, "broker": broker}
    texts = {
        "gateway.toml": _GATEWAY_TOML.format(**names, devices=devices, seal=seal, speed=SPEED),
        "ledger.toml": _LEDGER_TOML.format(**names),
        "factors.toml": _FACTORS_TOML.format(**names, factor=FACTOR_G_PER_KWH),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


@contextlib.asynccontextmanager
async def running_site(folder: Path, *, seed: int = 1) -> AsyncIterator[Site]:
    """Run plant, broker, ledger and gateway in folder; end them all on leaving, collect first."""
    make_dev_ca(folder / "pki", gateways=[GATEWAY], ledger=LEDGER, hosts=["127.0.0.1", "localhost"])
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(running_broker(folder / "broker", pki=folder / "pki", ledger=LEDGER))
        plant = await stack.enter_async_context(
            running_plant(folder, seed=seed, also=all_protocols(folder / "plant-opcua"))
        )
        agents_port = await stack.enter_async_context(running_agent(folder, seed=seed))
        trust_each_other(folder, plant.about, gateway=GATEWAY)
        devices = plant_devices(f"127.0.0.1:{plant.port}") + other_devices(plant.about, agents_port=agents_port)
        write_site(folder, broker=f"127.0.0.1:{broker.port}", devices=devices, seal='agents = "agents/keys"\n')
        site = Site(folder=folder, control=plant.control)
        commands = {
            "ledger": wattseal("ledger", "run", str(folder / "ledger.toml")),
            **{name: wattseal(name, str(folder / "gateway.toml")) for name in ("seal", "forward", "collect")},
        }
        log = stack.enter_context((folder / "processes.log").open("ab"))
        for name, command in commands.items():
            child = Child(name, command, on_start=lambda *_: None, errors=log)
            site.children[name] = child
            site.tasks[name] = asyncio.create_task(child.keep(), name=f"demo.{name}")
        try:
            yield site
        finally:
            for task in site.tasks.values():
                task.cancel()
            for name in ("collect", "seal", "forward", "ledger"):
                await site.children[name].stop()


async def settled(site: Site, *, within_s: float = 20.0) -> dict[str, float]:
    """End collect, then wait until the ledger has a receipt out for every leaf; return the last metrics."""
    before = await site.metrics()
    site.children["collect"].released = True
    await site.children["collect"].stop()
    metrics: dict[str, float] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                metrics = await site.metrics()
                size = metrics.get("wattseal_seal_log_size", -1)
                if size > 0 and size == metrics.get("wattseal_seal_receipt_size"):
                    break
                await asyncio.sleep(0.1)
    return {**before, **metrics}


async def run_demo(
    folder: Path,
    *,
    seconds: float | None,
    fault_after_s: float,
    lasts_s: float,
    show: Callable[[Snapshot], None],
    look: Callable[[Path], LineSums | None],
) -> tuple[Site, dict[str, float]]:
    """Run the demonstration for some seconds, or until cancelled; return the site and the last metrics.

    lasts_s: how long the fault lasts.
    look: reads the line's sums from the ledger's folder.
    """
    async with running_site(folder) as site:
        began, readings, asked = time.monotonic(), 0.0, time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            while seconds is None or time.monotonic() - began < seconds:
                await asyncio.sleep(0.5)
                site.check()
                metrics, now = await site.metrics(), time.monotonic()
                total = metrics.get("wattseal_collect_readings_total", 0.0)
                show(
                    Snapshot(
                        elapsed_s=now - began,
                        readings_per_s=(total - readings) / (now - asked),
                        metrics=metrics,
                        line=look(folder),
                        faulty=site.fault_ns is not None and site.repair_ns is None,
                    )
                )
                readings, asked = total, now
                if site.fault_ns is None and now - began >= fault_after_s:
                    await site.break_compressor()
                elif site.repair_ns is None and now - began >= fault_after_s + lasts_s:
                    await site.mend_compressor()
        return site, await settled(site)
