"""Read-only, proven by capture: over all protocols, with the gateway and the commands in use, nothing writes."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from socket import inet_aton
from typing import Any

import pytest

from gateway.app.demo_plant import plant_devices, running_plant
from gateway.app.metrics import read_metrics
from gateway.app.supervisor import wattseal
from tests.system.site import Part, eventually
from tests.system.wiretap import (
    BACNET_READS,
    MODBUS_READS,
    OPCUA_READS,
    Tap,
    bacnet_service,
    modbus_functions,
    opcua_requests,
)
from tests.system.zones import NotPermittedError, entry, namespaces, tapped, wire

PLANT, COLLECT = "10.78.1.1", "10.78.1.2"
PATIENCE_S = 90.0

HEAD = """\
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "127.0.0.1:1"
ca = "a"
cert = "b"
key = "c"
[interval]
period_s = 1
"""

OTHERS = """
[devices.server]
template = "wattseal-plant-opcua"
url = "{url}"
[devices.server.opcua]
security = "None"
mode = "None"
[bacnet]
address = "{collect}/24:47808"
[devices.air]
template = "wattseal-plant-bacnet"
url = "bacnet:{instance}"
"""


async def test_no_frame_of_a_gateway_or_of_its_commands_writes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        with namespaces("plant", "collect") as names:
            wire(names["plant"], names["collect"], name="ot", addresses=(f"{PLANT}/24", f"{COLLECT}/24"))
            tap = Tap(inet_aton(COLLECT))
            with tapped(entry(names["collect"]), "ot", tap.hear):
                about = await _busy(tmp_path, names)
    except NotPermittedError as e:
        pytest.skip(f"network namespaces need root: {e}")
    functions = Counter(f for stream in tap.streams(about["listening"][0]["port"]) for f in modbus_functions(stream))
    opcua_port = int(about["opcua"]["url"].split(":")[2].split("/")[0])
    requests = Counter(number for stream in tap.streams(opcua_port) for number in opcua_requests(stream))
    services = Counter(bacnet_service(datagram) for port in (47808, 47809) for datagram in tap.datagrams.get(port, ()))
    assert functions.keys() <= MODBUS_READS
    assert requests.keys() <= OPCUA_READS.keys()
    assert {service for service in services if service[0] in {"confirmed", "unconfirmed"}} <= BACNET_READS.keys()
    assert {service[0] for service in services} <= {"confirmed", "unconfirmed", "answer", "network"}
    assert functions.total() > 50, "the gateway was idle, or we are deaf"
    assert {requests[number] > 0 for number in (527, 631, 751, 826)} == {True}, "browsed, read, subscribed, told"
    assert {services["confirmed", number] > 0 for number in (5, 14)} == {True}
    assert set(tap.datagrams) <= {47808, 47809}
    with capfd.disabled():
        said = [f"FC{function} {count}" for function, count in sorted(functions.items())]
        said += [f"{OPCUA_READS[number]} {count}" for number, count in sorted(requests.items())]
        said += [f"{BACNET_READS.get(key, key[0])} {count}" for key, count in sorted(services.items())]
        print(f"\nread-only: {tap.packets} packets from the gateway's side: {', '.join(said)}")  # noqa: T201


async def _busy(folder: Path, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Run plant and collect in their zones, and every command that speaks to devices; return what the plant said."""
    within = {name: ("ip", "netns", "exec", full) for name, full in names.items()}
    (folder / "opcua").mkdir()
    also = ["--opcua-port", "0", "--opcua-none", "--opcua-folder", str(folder / "opcua")]
    also += ["--bacnet", f"{PLANT}/24:47808"]
    async with AsyncExitStack() as stack:
        plant = await stack.enter_async_context(
            running_plant(folder, seed=1, host=PLANT, within=within["plant"], also=also)
        )
        url, instance = plant.about["opcua"]["url"], plant.about["bacnet"]["instance"]
        file = folder / "gateway.toml"
        others = OTHERS.format(url=url, instance=instance, collect=COLLECT)
        file.write_text(HEAD + plant_devices(f"{PLANT}:{plant.port}") + others)
        log = stack.enter_context((folder / "collect.log").open("ab"))
        collect = Part("collect", [*within["collect"], *wattseal("collect", str(file))], errors=log)
        collect.start()
        stack.push_async_callback(collect.stop)
        socket = folder / "state" / "run" / "collect.metrics.sock"
        await eventually(lambda: _told(socket), within_s=PATIENCE_S, what="both servers tell changes")
        for line in _commands(str(file), f"{PLANT}:{plant.port}", url):
            await _run([*within["collect"], *wattseal(*line)])
        return plant.about


def _commands(file: str, modbus: str, url: str) -> Iterable[list[str]]:
    """Yield every command that sends something to a device."""
    for device in ("compressor", "plc", "server", "air"):
        yield ["read", file, device]
    yield ["probe", file, "compressor.active_power", "--pause", "0.1"]
    yield ["scan", "modbus", f"{modbus}/1-6", "--pause", "0.005", "--timeout", "0.2"]
    yield ["scan", "sunspec", f"tcp://{modbus}"]
    yield ["commission", file, "compressor", "--minutes", "0.05", "--period", "0.2"]
    yield ["browse", url, "--none"]
    yield [
        "scan",
        "bacnet",
        "--address",
        f"{COLLECT}/24:47809",
        "--ask",
        f"{PLANT}:47808",
        "--objects",
        "--seconds",
        "1",
    ]
    yield ["plan", file]
    yield ["apply", file]


async def _told(socket: Path) -> bool:
    try:
        metrics = await read_metrics(socket)
    except (OSError, TimeoutError):
        return False
    return metrics["wattseal_collect_changes_total"] > 60 and metrics["wattseal_collect_rows_total"] > 30


async def _run(line: list[str]) -> None:
    """Run a command to its end. It may find a fault with the plant (1), not with its own arguments (2)."""
    process = await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    text = said.decode(errors="replace")
    assert process.returncode in {0, 1}, f"{line}: {process.returncode}: {text[-500:]}"
    assert "Traceback" not in text, f"{line}: {text[-1500:]}"
    sys.stdout.write(f"{json.dumps(line[4:])}: {process.returncode}: {text[:300]}\n")
