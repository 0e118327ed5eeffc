"""The demonstration's OT side: the simulated factory over Modbus, OPC UA and BACnet/IP; an agent with its broker."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.app.broker import running_broker
from gateway.app.isolation import die_with_us
from gateway.drivers.opcua_cert import make_own
from gateway.drivers.opcua_trust import TrustList
from gateway.errors import GatewayError
from gateway.north.pki import make_agents_ca

SPEED = 300
LINE, ZONE = "filling", "DEMO"
AGENT = "press-agent"

_LINE_TOML = """
[lines.{line}]
zone = "{zone}"
energy = ["compressor.import_energy", "press.import_energy", "hvac.import_energy", "filler.import_energy"]
count_good = "plc.good_count"
count_total = "plc.total_count"
"""

_CONTEXT_TOML = """\
state = "plc.state"
product = "plc.sku"
recipe = "plc.recipe"
job = "plc.job"
"""

_DEVICE_TOML = """
[devices.{name}]
template = "{template}"
url = "tcp://{plant}"
unit_id = {unit_id}
period_s = {period_s}
"""

_OTHERS_TOML = """
# The same factory by its OPC UA server: the server tells what changes, and a poll a second confirms it.
[devices.line-server]
template = "wattseal-plant-opcua"
url = "{opcua_url}"

[devices.line-server.opcua]
sampling_s = 0.25
publishing_s = 0.25

# Its air handler by BACnet/IP: change of value.
[bacnet]
address = "127.0.0.1/32:{bacnet_port}"

[devices.air]
template = "wattseal-plant-bacnet"
url = "bacnet:{bacnet_instance}"

[devices.air.bacnet]
address = "{bacnet_address}"

# An agent at the press: it signs its frames itself, and the seal checks that.
[agents]
broker = "127.0.0.1:{agents_port}"
ca = "agents/ca.pem"
cert = "agents/collect.pem"
key = "agents/collect.key"

[devices.{agent}]
template = "wattseal-plant-agent"
url = "agent:{agent}"
"""

_DEVICES = (
    # name, template, unit id, rated power in W (of the plant's time)
    ("compressor", "eastron-sdm630", 1, 700_000),
    ("press", "abb-b23", 2, 1_200_000),
    ("hvac", "schneider-iem3000", 3, 200_000),
    ("filler", "abb-b23", 4, 800_000),
    ("plc", "wattseal-plant-plc", 5, None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPlant:
    """The simulated factory. port: of Modbus. control: its socket for commands. about: what it said at its start."""

    port: int
    control: Path
    about: Mapping[str, Any]


def plant_devices(plant: str, *, period_s: float = 0.2, speed: int = SPEED, context: bool = True) -> str:
    """Return the sections of gateway.toml for the simulated factory's meters at host:port plant, and its line.

    speed: plant seconds a second: so much faster do registers move than powers say. context: whether the line's
    controller says what it makes.
    """
    devices, common = "", {"plant": plant, "period_s": period_s}
    for name, template, unit_id, rated_w in _DEVICES:
        devices += _DEVICE_TOML.format(name=name, template=template, unit_id=unit_id, **common)
        devices += f"rated_power_w = {rated_w * speed}  # {rated_w} W, {speed} times as fast\n" if rated_w else ""
    return devices + _LINE_TOML.format(line=LINE, zone=ZONE) + (_CONTEXT_TOML if context else "")


def other_devices(about: Mapping[str, Any], *, agents_port: int) -> str:
    """Return the sections of gateway.toml for the other protocols. about: what the plant said at its start."""
    return _OTHERS_TOML.format(
        opcua_url=about["opcua"]["url"],
        bacnet_port=_free_udp_port(),
        bacnet_instance=about["bacnet"]["instance"],
        bacnet_address=about["bacnet"]["address"].replace("/32", ""),
        agents_port=agents_port,
        agent=AGENT,
    )


def trust_each_other(folder: Path, about: Mapping[str, Any], *, gateway: str) -> None:
    """Make the gateway's OPC UA certificate in folder/opcua, and put the plant's on its trust list."""
    own = folder / "opcua"
    make_own(own / "own.der", own / "own.key.pem", gateway=gateway, hosts=["localhost", "127.0.0.1"])
    server = Path(about["opcua"]["certificate"])
    rejected = own / "rejected"
    rejected.mkdir(parents=True, exist_ok=True)
    (rejected / f"{about['opcua']['thumbprint']}.der").write_bytes(server.read_bytes())
    TrustList(trusted=own / "trusted", rejected=rejected).accept(about["opcua"]["thumbprint"])


@contextlib.asynccontextmanager
async def running_plant(
    folder: Path, *, seed: int, host: str = "127.0.0.1", within: Sequence[str] = (), also: Sequence[str] = ()
) -> AsyncIterator[RunningPlant]:
    """Run the simulated factory. within: a command that runs it, if any. also: more options for it."""
    control = folder / "plant.sock"
    with (folder / "plant.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*within, sys.executable, "-m", "hil.plant", "--host", host, "--port", "0", "--speed", str(SPEED)),
            *("--seed", str(seed), "--control", control.name),  # a short name: the folder's may be too long
            *also,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=die_with_us,
        )
    try:
        async with asyncio.timeout(30):
            said = await process.stdout.readline() if process.stdout else b""
        if not said:
            raise GatewayError(f"demo: the simulated factory did not start; see {folder / 'plant.log'}")
        about = json.loads(said)
        yield RunningPlant(port=about["listening"][0]["port"], control=control, about=about)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def all_protocols(folder: Path) -> list[str]:
    """Return the options with which the plant speaks them all. folder: its OPC UA certificate goes there."""
    folder.mkdir(parents=True, exist_ok=True)
    bacnet = f"127.0.0.1/32:{_free_udp_port()}"
    return ["--opcua-port", "0", "--opcua-folder", str(folder), "--bacnet", bacnet]


@contextlib.asynccontextmanager
async def running_agent(folder: Path, *, seed: int) -> AsyncIterator[int]:
    """Run an agent and the broker that it sends to, with a development authority of theirs; yield the broker's port."""
    pki = folder / "agents"
    make_agents_ca(pki, agents=[AGENT], collect="collect", hosts=["127.0.0.1", "localhost"])
    async with running_broker(folder / "agents-broker", pki=pki, ledger="collect", for_agents=True) as broker:
        with (folder / "agent.log").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hil.plant.agent", "--broker", f"127.0.0.1:{broker.port}", "--pki", str(pki)),
                *("--agent", AGENT, "--asset", "press", "--speed", str(SPEED), "--seed", str(seed), "--every", "0.5"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                preexec_fn=die_with_us,
            )
        try:
            yield broker.port
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _free_udp_port() -> int:
    """Return a UDP port of the loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
