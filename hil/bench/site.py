"""A whole site under load: meters, broker, seal, forward, collect, ledger, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.app.broker import running_broker
from gateway.app.metrics import read_metrics
from gateway.app.supervisor import Child, wattseal
from gateway.errors import GatewayError
from gateway.north.pki import make_dev_ca
from hil.bench.cases import Case
from hil.bench.usage import Usage, usage_of

GATEWAY, LEDGER = "gw1", "bench"
OURS: Final = ("collect", "seal", "forward")
"""The processes of a gateway: what the targets speak of."""
_READY_S: Final = 30.0
_LAST_WORDS: Final = 2000
_PEEK_S: Final = 0.02

_GATEWAY_TOML = """\
[gateway]
id = "{gateway}"
state = "gateway"

[seal]
key = "pki/{gateway}.epoch.key"
witness = "pki/{ledger}.vkey"

[forward]
broker = "127.0.0.1:{broker_port}"
ca = "pki/ca.pem"
cert = "pki/{gateway}.pem"
key = "pki/{gateway}.key"
"""

_DEVICE_TOML = """
[devices.{name}]
template = "{template}"
url = "tcp://127.0.0.1:{port}"
unit_id = {unit_id}
period_s = {period_s}
{sharing}
"""

_LEDGER_TOML = """\
[ledger]
name = "{ledger}"
state = "ledger"
key = "pki/{ledger}.sign.key"
factors = "factors.toml"

[broker]
broker = "127.0.0.1:{broker_port}"
ca = "pki/ca.pem"
cert = "pki/{ledger}.pem"
key = "pki/{ledger}.key"

[gateways.{gateway}]
key = "pki/{gateway}.vkey"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """The simulated meters. units: port and unit id of each."""

    pid: int
    units: tuple[tuple[int, int], ...]


@asynccontextmanager
async def running_plant(case: Case) -> AsyncIterator[Plant]:
    """Run the meters of a case; end them on leaving."""
    registers = max(2, max(point.address for point in case.points) + 2 & ~1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hil.plant", "bench", "--port", "0"),
        *("--meters", str(case.meters), "--registers", str(registers)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_READY_S):
            said = await process.stdout.readline() if process.stdout else b""
        if not said:
            raise GatewayError("bench: the simulated meters did not start")
        ports = json.loads(said)["listening"]
        units = tuple((entry["port"], unit) for entry in ports for unit in entry["units"])
        yield Plant(pid=process.pid, units=units)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state of all processes at one moment. at_s: monotonic."""

    at_s: float
    metrics: Mapping[str, float]
    usage: Mapping[str, Usage]


class Site:
    """A running site. pids: of all its processes by name, those of the broker and the plant too."""

    def __init__(self, folder: Path, pids: dict[str, int]) -> None:
        self.folder, self.pids = folder, pids

    @property
    def log_folder(self) -> Path:
        """The folder of the gateway's log."""
        return self.folder / "gateway" / "log"

    async def metrics(self, *names: str) -> dict[str, float]:
        """Return the metrics of some processes; those that do not answer yet have none."""
        found: dict[str, float] = {}
        for name in names:
            state = "ledger" if name == "ledger" else "gateway"
            with suppress(OSError, TimeoutError):
                found |= await read_metrics(self.folder / state / "run" / f"{name}.metrics.sock")
        return found

    async def sample(self) -> Sample:
        """Return the state right after the ledger has taken something, so that rates are not cut in mid-beat."""
        seen, before = -1.0, time.monotonic()
        while time.monotonic() - before < _READY_S:
            rows = (await self.metrics("ledger")).get("wattseal_ledger_rows_total", 0.0)
            if 0 <= seen < rows:
                break
            seen = rows
            await asyncio.sleep(_PEEK_S)
        else:
            said = (self.folder / "processes.log").read_text(errors="replace")[-_LAST_WORDS:]
            raise GatewayError(f"bench: nothing reached the ledger in {_READY_S:g} s\n{said}")
        at_s = time.monotonic()
        usage = {name: usage_of(pid) for name, pid in self.pids.items()}
        return Sample(at_s=at_s, metrics=await self.metrics("ledger", *OURS), usage=usage)


@asynccontextmanager
async def running_site(case: Case, plant: Plant, folder: Path) -> AsyncIterator[Site]:
    """Run a site in folder; end its processes on leaving, collect first."""
    make_dev_ca(folder / "pki", gateways=[GATEWAY], ledger=LEDGER, hosts=["127.0.0.1"])
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(running_broker(folder / "broker", pki=folder / "pki", ledger=LEDGER))
        _write(case, plant, folder, broker_port=broker.port)
        log = stack.enter_context((folder / "processes.log").open("ab"))
        site = Site(folder, {"plant": plant.pid, "broker": broker.pid})
        commands = {"ledger": wattseal("ledger", "run", str(folder / "ledger.toml"))}
        commands |= {name: wattseal(name, str(folder / "gateway.toml")) for name in ("seal", "forward", "collect")}
        children = [Child(name, line, on_start=site.pids.__setitem__, errors=log) for name, line in commands.items()]
        tasks = [asyncio.create_task(child.keep(), name=f"bench.{child.name}") for child in children]
        try:
            yield site
        finally:
            for task in tasks:
                task.cancel()
            for child in reversed(children):
                await child.stop()


def _write(case: Case, plant: Plant, folder: Path, *, broker_port: int) -> None:
    names = {"gateway": GATEWAY, "ledger": LEDGER, "broker_port": broker_port}
    (folder / "gateway.toml").write_text(gateway_toml(case, plant.units, broker_port=broker_port))
    (folder / "ledger.toml").write_text(_LEDGER_TOML.format(**names))
    (folder / "factors.toml").write_text("factor = []\n")


def gateway_toml(case: Case, units: Sequence[tuple[int, int]], *, broker_port: int) -> str:
    """Return the configuration of a gateway that reads these meters. units: port and unit id of each."""
    sharing = f"pipeline = {case.pipeline}" if case.pipeline > 1 else "own_connection = true"
    about = {"template": case.template, "period_s": case.period_s, "sharing": sharing}
    devices = "".join(
        _DEVICE_TOML.format(name=f"m{index}", port=port, unit_id=unit_id, **about)
        for index, (port, unit_id) in enumerate(units)
    )
    return _GATEWAY_TOML.format(gateway=GATEWAY, ledger=LEDGER, broker_port=broker_port) + devices
