"""The simulated plant's OPC UA server: what it shows, whom it lets in, and how it fails on command."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyAes256Sha256RsaPss, SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import BadCertificateUntrusted, UaError

from gateway.app.load import template_text
from gateway.config import parse_template
from gateway.config.templates import OpcuaTemplate
from gateway.drivers.opcua_trust import TrustList, make_own
from gateway.errors import DeviceError
from hil.plant import CommandError, Plant
from hil.plant.opcua import OpcuaServer
from hil.plant.opcua_entry import URI
from hil.plant.opcua_nodes import NAMESPACE, NODES, STARTS_WH


async def index_of(client: Client) -> int:
    return int(await client.get_namespace_index(NAMESPACE))


async def read(client: Client, name: str) -> ua.DataValue:
    node = client.get_node(ua.NodeId(ua.String(name), ua.Int16(await index_of(client))))
    return await node.read_data_value(raise_on_bad_status=False)


async def until(client: Client, name: str, status: str) -> ua.DataValue:
    """Return a node's value once it has this status."""
    async with asyncio.timeout(10):
        while True:
            found = await read(client, name)
            if found.StatusCode is not None and found.StatusCode.name == status:
                return found
            await asyncio.sleep(0.05)


@asynccontextmanager
async def visit(url: str) -> AsyncIterator[Client]:
    """Connect without security, as soon as somebody listens."""
    client = Client(url)
    async with asyncio.timeout(20):
        while True:
            try:
                await client.connect()
                break
            except OSError:
                await asyncio.sleep(0.1)
    try:
        yield client
    finally:
        await client.disconnect()


def content(value: ua.DataValue) -> Any:
    assert value.Value is not None
    return value.Value.Value


async def test_the_server_shows_the_same_plant_as_the_registers(tmp_path: Path) -> None:
    at_s = 0.0
    plant = Plant(seed=1, clock=lambda: at_s)
    at_s = 3600.0
    async with OpcuaServer(plant, folder=tmp_path, none=True) as server, visit(server.url) as client:
        found = {node.id: await read(client, node.id) for node in NODES}
        truth, plc = plant.truth(), plant.devices[5]
        good, total = int.from_bytes(plc.read(3, 0, 2, 3600.0)), int.from_bytes(plc.read(3, 2, 2, 3600.0))
        assert content(found["FillingLine.Admin.ProdGoodCount"]) == good > 120_000
        assert content(found["FillingLine.Admin.ProdProcessedCount"]) == total > good
        assert content(found["FillingLine.Admin.ProdDefectiveCount"]) == total - good
        assert content(found["FillingLine.Status.StateCurrent"]) == 6
        assert content(found["FillingLine.Status.Executing"]) is True
        assert content(found["FillingLine.Status.SKU"]) == "SKU-1"
        assert content(found["FillingLine.Status.CurMachSpeed"]) == 600.0
        energy = (truth.energy_wh["compressor"] + STARTS_WH["compressor"]) / 1000
        assert content(found["Compressor.AcActiveEnergyTotalImport"]) == energy
        filler = int(truth.energy_wh["filler"] + STARTS_WH["filler"])
        assert content(found["Filler.AcActiveEnergyTotalImport"]) == filler
        dew_point = found["Compressor.AirDewPoint"]
        assert dew_point.StatusCode is not None
        assert dew_point.StatusCode.name == "UncertainSensorNotAccurate"
        types = {value.Value.VariantType.name for value in found.values() if value.Value is not None}
        assert types == {"Int32", "Boolean", "Double", "String", "UInt32", "Float", "UInt64", "UInt16"}
        unit = content(await read(client, "Compressor.AcActivePowerTotal.EngineeringUnits"))
        assert (unit.UnitId, unit.DisplayName.Text) == (5723220, "W"), "UnitId of WTT, OPC 10000-8"
        reach = content(await read(client, "Compressor.AcActivePowerTotal.EURange"))
        assert (reach.Low, reach.High) == (0.0, 1_000_000.0)
        with pytest.raises(UaError):
            await client.get_node(ua.NodeId(ua.String(NODES[0].id), ua.Int16(2))).write_value(7)


def test_the_gateway_s_template_names_the_server_s_nodes() -> None:
    template = parse_template(template_text("wattseal-plant-opcua"), "wattseal-plant-opcua")
    assert isinstance(template, OpcuaTemplate)
    nodes = {f"nsu={NAMESPACE};s={node.id}": node for node in NODES}
    assert {point.node for point in template.points.values()} == set(nodes)
    stores = {"Boolean": "bool", "String": "s32", "Float": "f32", "Double": "f64", "Int32": "i64"}
    for name, point in template.points.items():
        node = nodes[point.node]
        assert point.store == stores.get(node.type.name, "u64"), name
        assert point.unit == (node.unit or ("1" if name == "compressor_starts" else "")), name


async def test_a_dead_device_makes_its_nodes_bad_and_no_others(tmp_path: Path) -> None:
    plant = Plant()
    async with OpcuaServer(plant, folder=tmp_path, none=True, period_s=0.05) as server, visit(server.url) as client:
        plant.do("kill 1")
        value = await until(client, "Compressor.AcActivePowerTotal", "BadNoCommunication")
        assert content(value) is None
        line = await read(client, "FillingLine.Status.StateCurrent")
        assert content(line) == 6
        plant.do("revive 1")
        assert content(await until(client, "Compressor.AcActivePowerTotal", "Good")) > 0


class Heard:
    """A subscription's handler that keeps the status names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def datachange_notification(self, _node: Any, _value: Any, event: Any) -> None:  # noqa: D102 - the library's name
        self.names.append(event.monitored_item.Value.StatusCode.name)


async def test_a_node_can_be_lost_and_a_restart_numbers_the_namespaces_anew(tmp_path: Path) -> None:
    name = "Compressor.Starts"
    async with OpcuaServer(Plant(), folder=tmp_path, none=True, period_s=0.05) as server:
        url, thumbprint = server.url, server.thumbprint
        async with visit(url) as client:
            before = await index_of(client)
            heard = Heard()
            subscription = await client.create_subscription(50, heard)
            node = client.get_node(ua.NodeId(ua.String(name), ua.Int16(before)))
            await subscription.subscribe_data_change(node)
            server.do(f"drop-node {name}")
            await until(client, name, "BadNodeIdUnknown")
            async with asyncio.timeout(5):
                while "BadNodeIdUnknown" not in heard.names:
                    await asyncio.sleep(0.05)
            server.do("restart")
            async with asyncio.timeout(10):
                while True:
                    try:
                        await read(client, name)
                        await asyncio.sleep(0.05)
                    except (UaError, OSError, TimeoutError):
                        break
        async with visit(url) as client:
            assert await index_of(client) != before
            await until(client, name, "BadNodeIdUnknown")
            server.do(f"restore-node {name}")
            assert content(await until(client, name, "Good")) == 0
        assert (server.url, server.thumbprint) == (url, thumbprint)
        server.do("renew")
        async with asyncio.timeout(20):
            while server.thumbprint == thumbprint:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("command", ["", "explode", "restart soon", "drop-node Everything"])
def test_a_wrong_command_says_what_is_wanted(command: str) -> None:
    with pytest.raises(CommandError, match=r"want opcua restart .*NODE FillingLine"):
        OpcuaServer.check(command)


async def test_a_secured_server_takes_the_clients_that_it_trusts_and_the_user_that_it_knows(tmp_path: Path) -> None:
    own, key, clients = tmp_path / "own.der", tmp_path / "own.key.pem", tmp_path / "clients"
    us = make_own(own, key, gateway="gw1", hosts=["localhost"])
    clients.mkdir()
    folder = tmp_path / "server"
    async with OpcuaServer(Plant(), folder=folder, clients=clients, users={"gw": "pass"}) as server:
        trust = TrustList(trusted=tmp_path / "trusted", rejected=tmp_path / "rejected")
        with pytest.raises(DeviceError, match="is not trusted"):
            trust.check(server.certificate.read_bytes(), uri=URI, host="127.0.0.1")
        trust.accept(server.thumbprint)
        trust.check(server.certificate.read_bytes(), uri=URI, host="127.0.0.1")

        async def connect(policy: Any, password: str) -> Client:
            client = Client(server.url)
            client.application_uri = us.uris[0]
            client.set_user("gw")
            client.set_password(password)
            await client.set_security(policy, own, key, server_certificate=server.certificate.read_bytes())
            await client.connect()
            return client

        with pytest.raises(BadCertificateUntrusted):
            await connect(SecurityPolicyBasic256Sha256, "pass")
        (clients / "gw1.der").write_bytes(us.der)
        for policy in (SecurityPolicyBasic256Sha256, SecurityPolicyAes256Sha256RsaPss):
            client = await connect(policy, "pass")
            assert content(await read(client, "FillingLine.Status.StateCurrent")) == 6
            await client.disconnect()
        with pytest.raises(UaError):
            await connect(SecurityPolicyBasic256Sha256, "word")
        with pytest.raises(UaError):
            await Client(server.url).connect()  # no security, and nobody
        endpoints = await Client(server.url).connect_and_get_server_endpoints()
        assert {e.SecurityMode.name for e in endpoints} == {"Sign", "SignAndEncrypt"}


def plant_process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hil.plant", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_the_process_announces_the_server_and_obeys_its_commands(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with plant_process("--opcua-port", "0", "--opcua-none", "--control", str(control)) as running:
        try:
            assert running.stdout is not None
            about = json.loads(running.stdout.readline())["opcua"]
            assert about["namespace"] == NAMESPACE
            assert about["thumbprint"]
            async with visit(about["url"]) as client:
                assert content(await read(client, "FillingLine.Status.StateCurrent")) == 6
                dropped, wrong = await ask(control, ["opcua drop-node Compressor.Starts", "opcua explode"])
                assert dropped["ok"]
                assert "want opcua restart" in str(wrong["error"])
                await until(client, "Compressor.Starts", "BadNodeIdUnknown")
            await ask(control, ["stop"])
            assert await asyncio.to_thread(running.wait, 10) == 0
        finally:
            running.kill()


async def ask(path: Path, commands: Sequence[str]) -> list[dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for command in commands:
        writer.write(command.encode() + b"\n")
        answers.append(json.loads(await asyncio.wait_for(reader.readline(), 5)))
    writer.close()
    return answers


def test_an_opcua_command_in_a_timetable_wants_the_server() -> None:
    with plant_process("--timetable", "1s:opcua restart") as running:
        assert running.stderr is not None
        assert "want --opcua-port with it" in running.stderr.read()
        assert running.wait(10) == 2
