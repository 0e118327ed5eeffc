"""From configuration to BACnet drivers, and from there to the log's own types, on both event loops."""

import asyncio
from pathlib import Path

import pytest

from gateway.app.devices import OPENERS, open_devices
from gateway.app.devices.bacnet import open_bacnet
from gateway.codec.bodies import interval_body, readings_body, schema_body
from gateway.codec.changes import changes_body, changes_of
from gateway.codec.pack import unpack
from gateway.config import GatewayConfig, parse_gateway
from gateway.drivers import Follower
from gateway.drivers.bacnet import BacnetDriver
from gateway.errors import ConfigError
from gateway.model import Change, Interval, Quality
from tests.bacnet_devices import LOCALHOST, device
from tests.loops import on_both_loops

TEMPLATE = """\
title = "A chiller"
verified = false
sources = []
votes = 0
protocol = "bacnet"

[points.energy]
object = "analog-input,1"
unit = "MWh"
kind = "counter"
store = "f64"

[points.running]
object = "binary-input,2"
store = "bool"

[points.gone]
object = "analog-value,77"
unit = "kW"
"""
CONFIG = """\
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "b:8883"
ca = "ca"
cert = "c"
key = "k"
[bacnet]
address = "127.0.0.1/32:0"
[devices.hvac]
template = "chiller"
url = "bacnet:7"
[devices.hvac.bacnet]
address = "127.0.0.1:47900"
"""


def parsed(text: str = CONFIG, template: str = TEMPLATE) -> GatewayConfig:
    return parse_gateway(text, name="gateway.toml", folder=Path("/etc/wattseal"), template_text=lambda _: template)


def test_devices_are_opened_each_on_its_own_bus_and_share_one_application() -> None:
    """Nothing is connected yet."""
    assert OPENERS["bacnet"] is open_bacnet
    second = CONFIG[CONFIG.index("[devices.hvac]") :].replace("hvac", "roof").replace("bacnet:7", "bacnet:8")
    opened = open_devices(parsed(CONFIG + second))
    assert list(opened) == ["bacnet hvac", "bacnet roof"]
    drivers = [driver for found in opened.values() for driver in found.values()]
    assert all(isinstance(driver, Follower) for driver in drivers)
    apps = [driver._station._app for driver in drivers if isinstance(driver, BacnetDriver)]
    assert len(apps) == 2
    assert apps[0] is apps[1]
    assert [column.store for column in drivers[0].schema.columns] == ["f64", "bool", "f32"]
    assert [column.unit for column in drivers[0].schema.columns] == ["MWh", "", "kW"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[bacnet]\naddress", "[collect]\n[bacnet]\nbbmd = 'b:1'\naddress"), "bacnet: got 'b:1', want an IP address"),
        (('[bacnet]\naddress = "127.0.0.1/32:0"\n', ""), "devices.hvac: got a BACnet device, want a section"),
        (("bacnet:7", "bacnet:4194303"), "devices.hvac.url: got instance 4194303, want 0..4194302"),
        (("bacnet:7", "bacnet:4194000"), "devices.hvac.url: got instance 4194000, want 0..4194302"),
        (("127.0.0.1:47900", "somewhere"), "devices.hvac: got 'somewhere', want an IP address with or without"),
        (("127.0.0.1:47900", "*"), "devices.hvac: got '[*]', want an IP address with or without"),
        (("127.0.0.1:47900", "127.0.0.300"), "devices.hvac: got '127.0.0.300', want an IP address"),
        (("127.0.0.1:47900", "127.0.0.1:99999"), "devices.hvac: got '127.0.0.1:99999', want an IP address"),
        (("127.0.0.1:47900", "0:5"), "devices.hvac: got '0:5', want an IP address"),
        (("127.0.0.1:47900", "5:300"), "devices.hvac: got '5:300', want an IP address"),
        (("analog-value,77", "no-such-object,77"), "devices.hvac: object: got 'no-such-object,77', want"),
        (("analog-value,77", "analog-value,4194303"), "devices.hvac: object: got 'analog-value,4194303', want"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_its_place(change: tuple[str, str], message: str) -> None:
    """One line: where, got, want."""
    with pytest.raises(ConfigError, match=message):
        open_bacnet(parsed(CONFIG.replace(*change), TEMPLATE.replace(*change)))


@pytest.mark.parametrize("address", ["5:12", "5:0x0a0b", "5:10.0.0.1:47808", "10.0.0.1", "10.0.0.1:47809"])
def test_addresses_of_all_kinds_are_taken(address: str) -> None:
    """Near, far, and behind a router of another medium."""
    assert open_bacnet(parsed(CONFIG.replace("127.0.0.1:47900", address)))


def test_property_that_does_not_exist_is_refused() -> None:
    """One line: where, got, want."""
    template = TEMPLATE.replace('object = "binary-input,2"', 'object = "binary-input,2"\nproperty = "no-such"')
    with pytest.raises(ConfigError, match=r"devices\.hvac: property: got 'no-such', want a property such as"):
        open_bacnet(parsed(template=template))


@on_both_loops
async def test_polls_and_changes_fit_the_log(folder: Path) -> None:
    """On asyncio's loop and on uvloop, which the processes run on: rows, samples and changes can be sealed."""
    assert folder
    async with device(7) as peer:
        energy = peer.add(1, 1234.5)
        peer.add_binary(2, 1)
        config = parsed(CONFIG.replace(f"{LOCALHOST}:47900", peer.address))
        ((found),) = open_devices(config).values()
        driver = found["hvac"]
        assert isinstance(driver, Follower)
        told: list[Change] = []
        following = asyncio.create_task(driver.follow(told.extend))
        row, samples = await driver.poll(samples=True)
        assert row.values == (1.2345, True, None)
        assert row.qualities == (Quality.GOOD, Quality.GOOD, Quality.BAD)
        assert schema_body(driver.schema)
        assert readings_body([row])
        assert interval_body(Interval(schema_id=b"12345678", t_ns=0, samples=samples))
        async with asyncio.timeout(5):
            while len(told) < 2:
                await asyncio.sleep(0.01)
            energy.presentValue = 2000.0
            while told[-1].value != 2.0:
                await asyncio.sleep(0.01)
        body = unpack(changes_body(told))
        assert [change[:5] for change in changes_of(body, {driver.schema.id: driver.schema})] == [
            change[:5] for change in told
        ]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await driver.close()
        await driver.close()
