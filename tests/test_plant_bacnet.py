"""The plant's BACnet device, seen by a client of the library that no code of ours has touched."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bacpypes3.apdu import ErrorRejectAbortNack
from bacpypes3.basetypes import EngineeringUnits
from bacpypes3.pdu import IPv4Address
from bacpypes3.primitivedata import ObjectIdentifier, Real

from gateway.app.devices.bacnet import open_bacnet
from gateway.app.load import template_text
from gateway.codec.units import BACNET_UNITS, convert
from gateway.config import parse_gateway, parse_template
from gateway.config.templates import BacnetTemplate
from gateway.drivers import Follower
from gateway.model import Change
from hil.plant import CommandError, Plant
from hil.plant.bacnet import INSTANCE, TEMPLATE, BacnetDevice
from hil.plant.bacnet_objects import ROWS, SHARE, START_WH, feel
from tests.bacnet_places import WAIT_S, free_port, plain_client

GATEWAY = """
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "localhost:8883"
ca = "a"
cert = "b"
key = "c"
[bacnet]
address = "127.0.0.1/8:{port}"
[devices.ahu]
template = "wattseal-plant-bacnet"
url = "bacnet:4401"
"""


@asynccontextmanager
async def device_and_client(plant: Plant) -> AsyncIterator[tuple[BacnetDevice, Any, IPv4Address]]:
    port = free_port()
    async with BacnetDevice(plant, address=f"127.0.0.1/32:{port}", period_s=0.05) as device, plain_client() as client:
        yield device, client, IPv4Address(f"127.0.0.1:{port}")


async def read(client: Any, where: IPv4Address, name: str, key: str) -> Any:
    return await asyncio.wait_for(client.read_property(where, name, key), WAIT_S)


async def next_value(subscription: Any) -> Any:
    """Return the next present value that the device tells."""
    while True:
        key, value = await asyncio.wait_for(subscription.get_value(), WAIT_S)
        if str(key) == "present-value":
            return value


async def gone(device: BacnetDevice) -> None:
    async with asyncio.timeout(WAIT_S):
        while device.subscriptions:
            await asyncio.sleep(0.02)


async def test_the_device_shows_the_air_handler_as_the_plant_has_it() -> None:
    """Each object's value is what the plant's sensors feel, in the object's own unit."""
    plant = Plant(seed=1, noise=0)
    async with device_and_client(plant) as (_, client, where):
        for row in ROWS:
            said = await read(client, where, row.id, "present-value")
            wanted = row.value(feel(plant))
            if isinstance(wanted, str):
                assert str(said) == wanted
            else:
                assert float(said) == pytest.approx(wanted, rel=0.01), row.name
            assert await read(client, where, row.id, "object-name") == row.name


async def test_the_energy_is_the_air_handlers_share_of_hvac() -> None:
    """The accumulator counts what the truth says, at the instant of the request."""
    plant = Plant(seed=1, speed=3600)
    async with device_and_client(plant) as (_, client, where):
        before = plant.truth().energy_wh["hvac"]
        said = await read(client, where, "accumulator,1", "present-value")
        after = plant.truth().energy_wh["hvac"]
        assert START_WH + SHARE * before - 1 <= said <= START_WH + SHARE * after


def test_the_template_is_another_encoding_of_the_same_objects() -> None:
    """Every object has a point, in a unit that the object's own converts to."""
    template = parse_template(template_text(TEMPLATE), TEMPLATE)
    assert isinstance(template, BacnetTemplate)
    points = {point.object: point for point in template.points.values()}
    assert list(points) == [row.id for row in ROWS]
    for row in ROWS:
        if row.units:
            own = BACNET_UNITS[int(EngineeringUnits(row.units))]
            assert convert(own, points[row.id].unit) is not None, row.name


async def test_a_subscriber_is_told_changes() -> None:
    """A value that moved by more than its increment is told; the first one at once."""
    plant = Plant(seed=1, speed=300)
    async with device_and_client(plant) as (device, client, where):
        name = ObjectIdentifier("analog-input,2")
        async with client.change_of_value(where, name, 7, issue_confirmed_notifications=False, lifetime=60) as told:
            first, second = await next_value(told), await next_value(told)
            assert abs(second - first) >= 0.05
            assert device.subscriptions == 1
        await gone(device)


async def test_a_state_is_told_too() -> None:
    """The library's own multi-state object fails at this."""
    async with device_and_client(Plant(seed=1)) as (_, client, where):
        name = ObjectIdentifier("multi-state-input,1")
        async with client.change_of_value(where, name, 8, issue_confirmed_notifications=True, lifetime=60) as told:
            assert await next_value(told) == 2


async def test_an_accumulator_takes_no_subscription() -> None:
    """ASHRAE 135 gives it no COV: such a point must be polled."""
    async with device_and_client(Plant(seed=1)) as (_, client, where):
        with pytest.raises(ErrorRejectAbortNack, match="cov-subscription-failed"):
            async with client.change_of_value(where, ObjectIdentifier("accumulator,1"), 9, lifetime=60):
                pass


async def test_a_lapse_forgets_subscriptions_without_a_word() -> None:
    """The device goes on answering, and tells no more."""
    async with device_and_client(Plant(seed=1, speed=300)) as (device, client, where):
        name = ObjectIdentifier("analog-input,2")
        async with client.change_of_value(where, name, 7, issue_confirmed_notifications=False, lifetime=60) as told:
            await next_value(told)
            device.do("lapse")
            assert device.subscriptions == 0
            await asyncio.sleep(0.2)
            while not told.queue.empty():
                told.queue.get_nowait()
            await asyncio.sleep(0.5)
            assert told.queue.empty()
        assert await read(client, where, "analog-input,2", "object-name") == "SupplyTemp"


async def test_a_reboot_is_a_silence_and_then_another_life() -> None:
    """While it boots nobody answers; then it does, without the subscriptions of before."""
    async with device_and_client(Plant(seed=1)) as (device, client, where):
        subscription = client.change_of_value(where, ObjectIdentifier("analog-input,2"), 7, lifetime=60)
        await subscription.refresh_subscription()
        assert device.subscriptions == 1
        device.do("reboot 0.3")
        assert device.subscriptions == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.read_property(where, "analog-input,2", "object-name"), 0.2)
        assert await read(client, where, "analog-input,2", "object-name") == "SupplyTemp"
        assert device.subscriptions == 0
        subscription.refresh_subscription_handle.cancel()


async def test_a_rebooted_device_says_who_it_is() -> None:
    """An I-Am to all after each start: what a subscriber waits for to subscribe anew."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ear.bind(("127.255.255.255", port))
        ear.setblocking(False)
        loop = asyncio.get_running_loop()
        async with BacnetDevice(Plant(seed=1), address=f"127.44.0.1/8:{port}") as device:
            for start in ("first", "second"):
                datagram = await asyncio.wait_for(loop.sock_recv(ear, 1500), WAIT_S)
                assert b"\x10\x00\xc4" + (0x0200_0000 | INSTANCE).to_bytes(4, "big") in datagram, start
                device.do("reboot 0.05")


async def test_the_gateways_driver_finds_it_by_its_instance_and_follows_it_through_a_reboot(tmp_path: Path) -> None:
    """Beside each other on the loopback, at one port: found by broadcast, told changes, told again after the I-Am."""
    port = free_port()
    config = parse_gateway(GATEWAY.format(port=port), name="gateway.toml", folder=tmp_path, template_text=template_text)
    ((driver,),) = (bus.values() for bus in open_bacnet(config).values())
    assert isinstance(driver, Follower)
    told: list[Change] = []
    async with BacnetDevice(Plant(seed=1, speed=300), address=f"127.44.3.1/8:{port}", period_s=0.1) as device:
        following = asyncio.create_task(driver.follow(told.extend))
        try:
            for _ in range(2):
                told.clear()
                async with asyncio.timeout(15):
                    while device.subscriptions < len(ROWS) - 1 or sum(change.column == 1 for change in told) < 3:
                        await asyncio.sleep(0.02)
                device.do("reboot 0.1")
            poll = await driver.poll(samples=True)
            assert [sample.point for sample in poll.samples] == ["energy"]
            assert poll.row.qualities is None
            assert not device.writes
        finally:
            following.cancel()
            await asyncio.wait([following])
            await driver.close()


async def test_a_fault_shows_in_flags_and_reliability() -> None:
    """A broken sensor says so, and its value is not to be trusted."""
    async with device_and_client(Plant(seed=1)) as (device, client, where):
        for command, flags, reliability in (("fault", 1, "no-sensor"), ("repair", 0, "no-fault-detected")):
            device.do(f"{command} ReturnTemp")
            async with asyncio.timeout(WAIT_S):
                while str(await read(client, where, "analog-input,3", "reliability")) != reliability:
                    await asyncio.sleep(0.02)
            assert (await read(client, where, "analog-input,3", "status-flags"))[1] == flags


async def test_writes_are_refused_and_remembered() -> None:
    """Whoever writes to the device is found out."""
    async with device_and_client(Plant(seed=1)) as (device, client, where):
        with pytest.raises(ErrorRejectAbortNack, match="write-access-denied"):
            await asyncio.wait_for(client.write_property(where, "analog-value,1", "present-value", Real(30.0)), WAIT_S)
        assert device.writes == ["WritePropertyRequest"]
        assert await read(client, where, "analog-value,1", "present-value") == 20.0


@pytest.mark.parametrize("command", ["reboot soon", "lapse 1", "fault Unknown", "repair", ""])
def test_what_is_no_command_is_refused(command: str) -> None:
    """The message says what there is."""
    with pytest.raises(CommandError, match=r"want bacnet reboot .* OBJECT OutdoorTemp, "):
        BacnetDevice(Plant(), address="127.0.0.1/32:1").check(command)


async def test_an_address_that_is_taken_is_an_error_at_once() -> None:
    """The library would try again for ever, or share the port in silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            async with BacnetDevice(Plant(), address=f"127.0.0.1/32:{other.getsockname()[1]}"):
                pass


async def test_the_process_announces_the_device_and_obeys(tmp_path: Path) -> None:
    """`python -m hil.plant --bacnet` says where it is, and its control socket takes the device's commands."""
    port, control = free_port(), tmp_path / "control.sock"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hil.plant", "--bacnet", f"127.0.0.1/32:{port}", "--control", str(control)),
        *("--timetable", "60s:bacnet lapse"),
        stdout=subprocess.PIPE,
        env={**os.environ},
    )
    try:
        assert process.stdout is not None
        about = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        assert about["bacnet"] == {"address": f"127.0.0.1/32:{port}", "instance": INSTANCE, "template": TEMPLATE}
        async with plain_client() as client:
            where = IPv4Address(f"127.0.0.1:{port}")
            assert await read(client, where, f"device,{INSTANCE}", "object-name") == "AirHandler"
        reader, writer = await asyncio.open_unix_connection(str(control))
        for command, ok in (("bacnet lapse", True), ("bacnet nonsense", False)):
            writer.write(f"{command}\n".encode())
            assert json.loads(await asyncio.wait_for(reader.readline(), WAIT_S))["ok"] is ok
        writer.close()
        await writer.wait_closed()
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)
