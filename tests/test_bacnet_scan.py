"""`wattseal scan bacnet`: everybody who answers is listed, whatever they send, and nothing but reads leaves."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from bacpypes3.apdu import IAmRequest, WritePropertyRequest
from bacpypes3.constructeddata import Any as Any_
from bacpypes3.errors import UnrecognizedService
from bacpypes3.ipv4.app import BBMDApplication, NormalApplication
from bacpypes3.local.analog import AnalogInputObject
from bacpypes3.local.device import DeviceObject
from bacpypes3.pdu import IPv4Address
from bacpypes3.primitivedata import Tag, TagClass, TagList
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import run
from gateway.config.sections import BacnetSection
from gateway.drivers.bacnet_scan import Scanner
from gateway.drivers.bacnet_scan_client import MOST_FOUND, values_of
from gateway.errors import ConfigError, DeviceError
from hil.plant import Plant
from hil.plant.bacnet import INSTANCE, BacnetDevice
from hil.plant.bacnet_objects import ROWS
from tests.bacnet_peers import READ, READ_MULTIPLE, WHO_IS, Peer, datagram, i_am, service_of
from tests.bacnet_places import free_port

ALONE = "127.0.0.1/32"
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
address = "127.0.0.1/32:{port}"
[devices.ahu]
template = "wattseal-plant-bacnet"
url = "bacnet:4401"
bacnet.address = "127.0.0.1:{port}"
[devices.chiller]
template = "wattseal-plant-bacnet"
url = "bacnet:4999"
"""


def scanner(port: int, address: str = ALONE, **more: Any) -> Scanner:
    return Scanner(BacnetSection(address=f"{address}:{port}", **more), timeout_s=0.3)


def silent_after_i_am(_network: int | None, apdu: bytes) -> list[bytes]:
    return [i_am(7)] if service_of(apdu) == WHO_IS else []


async def test_a_broadcast_finds_every_device_even_two_of_one_instance() -> None:
    """Two devices that were given one instance are the commonest fault of all: both are shown."""
    port, plant = free_port(), Plant(seed=1)
    async with (
        BacnetDevice(plant, address=f"127.44.1.1/8:{port}"),
        BacnetDevice(plant, address=f"127.44.1.2/8:{port}", instance=4402),
        BacnetDevice(plant, address=f"127.44.1.3/8:{port}", instance=4402),
        scanner(port, "127.0.0.1/8") as asking,
    ):
        found = await asking.who_is(seconds=0.6)
        assert [(one.instance, one.address) for one in found] == [
            (4401, f"127.44.1.1:{port}"),
            (4402, f"127.44.1.2:{port}"),
            (4402, f"127.44.1.3:{port}"),
        ]
        assert {(one.network, one.vendor_id, one.max_apdu, one.segmentation) for one in found} == {
            (0, 999, 1024, "segmented-both")
        }


async def test_limits_ask_only_those_within() -> None:
    """A large site is scanned in parts."""
    port, plant = free_port(), Plant(seed=1)
    async with (
        BacnetDevice(plant, address=f"127.44.1.4/8:{port}"),
        BacnetDevice(plant, address=f"127.44.1.5/8:{port}", instance=4402),
    ):
        for low, high, wanted in ((4402, None, [4402]), (None, 4401, [4401]), (4401, 4402, [4401, 4402]), (1, 2, [])):
            async with scanner(port, "127.0.0.1/8") as asking:
                assert [one.instance for one in await asking.who_is(low=low, high=high, seconds=0.4)] == wanted


async def test_objects_come_with_name_unit_and_value() -> None:
    """All that a template needs."""
    port, plant = free_port(), Plant(seed=1, noise=0)
    async with BacnetDevice(plant, address=f"{ALONE}:{port}"), scanner(port) as asking:
        (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
        about = await asking.about(found, objects=True)
        assert (about.name, about.vendor, about.model) == ("AirHandler", "wattseal hil", "plant air handler")
        assert about.total == len(ROWS)
        assert [(seen.object, seen.name) for seen in about.objects] == [(row.id, row.name) for row in ROWS]
        by_name = {seen.name: seen for seen in about.objects}
        assert by_name["Power"].unit == "kW"
        assert by_name["Power"].value == pytest.approx(24)
        assert (by_name["Mode"].unit, by_name["Mode"].value) == ("", 2)
        assert all(seen.value is not None and not seen.status for seen in about.objects)


async def test_the_list_of_objects_is_bounded() -> None:
    """A device with thousands of objects is cut off where the user says, and the whole number is told."""
    port = free_port()
    async with BacnetDevice(Plant(seed=1), address=f"{ALONE}:{port}"), scanner(port) as asking:
        (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
        about = await asking.about(found, objects=True, most=3)
        assert (len(about.objects), about.total) == (3, len(ROWS))


class NoMultiple(NormalApplication):  # type: ignore[misc]
    """A device without ReadPropertyMultiple, as small ones are."""

    async def do_ReadPropertyMultipleRequest(self, apdu: Any) -> None:  # noqa: ARG002, N802
        """Refuse."""
        raise UnrecognizedService("none")


async def test_a_device_without_read_property_multiple_is_read_one_by_one() -> None:
    """What a device refuses is asked in another way; what an object does not have is left empty."""
    port = free_port()
    device = DeviceObject(objectIdentifier=("device", 5), objectName="small\x1b[2J", vendorIdentifier=999)
    app = NoMultiple(device, IPv4Address(f"{ALONE}:{port}"))
    flags = {"statusFlags": [0, 0, 0, 0], "eventState": "normal", "outOfService": False}
    app.add_object(
        AnalogInputObject(
            objectIdentifier="analog-input,3", objectName="t", presentValue=1.5, units="degrees-celsius", **flags
        )
    )
    try:
        async with scanner(port) as asking:
            (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
            about = await asking.about(found, objects=True)
            assert about.name == "small?[2J"
            (seen,) = about.objects
            assert (seen.object, seen.name, seen.unit, seen.value) == ("analog-input,3", "t", "degC", 1.5)
    finally:
        app.close()


async def test_a_device_that_only_says_i_am_is_listed_with_its_problem() -> None:
    """Its reads end in time, and say so."""
    async with Peer(silent_after_i_am) as peer, scanner(peer.port) as asking:
        (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
        began = time.monotonic()
        assert (await asking.about(found, objects=True)).problem == "no-response"
        assert time.monotonic() - began < 3


async def test_only_who_is_and_reads_ever_leave() -> None:
    """Each service that a device was asked for, by capture; and the client refuses to send any other."""

    def refuse(_network: int | None, apdu: bytes) -> list[bytes]:
        if service_of(apdu) == WHO_IS:
            return [i_am(7)]
        return [datagram(b"\x01\x00\x60" + apdu[2:3] + b"\x09")]  # Reject: unrecognized service

    async with Peer(refuse) as peer, scanner(peer.port) as asking:
        (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
        about = await asking.about(found, objects=True)
        assert about.problem == "unrecognized-service"
        assert peer.services() == {WHO_IS, READ, READ_MULTIPLE}
        with pytest.raises(TypeError, match="never sends WritePropertyRequest"):
            asking._client.request(WritePropertyRequest())


async def test_a_device_behind_a_router_is_listed_and_asked_through_it() -> None:
    """Its network and MAC are its address; requests go to the router with that network in them."""

    def route(network: int | None, apdu: bytes) -> list[bytes]:
        return [i_am(7, source=b"\x00\x05\x01\x0a")] if service_of(apdu) == WHO_IS or network is None else []

    async with Peer(route) as peer, scanner(peer.port) as asking:
        (found,) = await asking.who_is(ask=["127.0.0.1"], seconds=0.4)
        assert (found.instance, found.address, found.network) == (7, "5:10", 5)
        await asking.about(found)
        assert (5, READ_MULTIPLE) in {(network, service_of(apdu)) for network, apdu in peer.received}


async def test_malformed_datagrams_hide_nobody() -> None:
    """Noise before and after an I-Am: the I-Am counts."""
    good = i_am(7)
    noise = [b"", b"\x81", good[:-1], good[:9], good[:6], datagram(b"\x01\x00" + bytes(range(256))), bytes(64)]
    noise += [good[:n] + bytes([byte]) + good[n + 1 :] for n in range(4, len(good)) for byte in (0, 0x10, 0x91, 0xFF)]

    def answer(_network: int | None, apdu: bytes) -> list[bytes]:
        return [*noise, good, *noise] if service_of(apdu) == WHO_IS else []

    async with Peer(answer) as peer, scanner(peer.port) as asking:
        found = await asking.who_is(ask=["127.0.0.1"], seconds=0.4, low=7, high=7)
        assert [one.instance for one in found] == [7]


async def test_a_flood_of_i_am_is_kept_within_bounds() -> None:
    """However many instances a peer makes up, no more than so many are kept."""
    async with scanner(free_port()) as asking:
        for instance in range(MOST_FOUND + 50):
            said = IAmRequest(
                iAmDeviceIdentifier=("device", instance),
                maxAPDULengthAccepted=480,
                segmentationSupported="no-segmentation",
                vendorID=15,
            )
            said.pduSource = IPv4Address("127.0.0.1:1")
            await asking._client.indication(said)
        assert len(asking._client.found) == MOST_FOUND


async def test_a_foreign_device_scans_through_a_bbmd() -> None:
    """From another subnet, broadcasts go through the BBMD that took us in."""
    port = free_port()
    device = DeviceObject(objectIdentifier=("device", 77), objectName="bbmd", vendorIdentifier=999)
    bbmd = BBMDApplication(device, IPv4Address(f"{ALONE}:{port}"))
    try:
        async with scanner(port, bbmd=f"localhost:{port}") as asking:
            assert [one.instance for one in await asking.who_is(seconds=0.6)] == [77]
    finally:
        bbmd.close()


async def test_a_bbmd_that_does_not_answer_or_refuses_is_named() -> None:
    """Otherwise a scan would just find nobody."""
    with pytest.raises(DeviceError, match=r"BBMD 127.0.0.1:.* does not answer"):
        async with scanner(47808, bbmd=f"127.0.0.1:{free_port()}"):
            pass
    async with Peer(lambda *_: [b"\x81\x00\x00\x06\x00\x30"]) as peer:
        with pytest.raises(DeviceError, match="refuses us with result 0x0030"):
            async with scanner(47808, bbmd=f"127.0.0.1:{peer.port}"):
                pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("203.0.113.7/24", "got 203.0.113.7, want an address of this machine"),
        ("127.0.0.1/40", "got '127.0.0.1/40', want e.g. 192.0.2.5/24"),
        ("127.0.0.1/8:0", r"got port 0, want 1\.\.65535"),
        ("127.0.0.1/8:65536", r"got port 65536, want 1\.\.65535"),
    ],
)
def test_a_place_that_cannot_be_taken_is_named(address: str, message: str) -> None:
    """The library would try for ever."""
    with pytest.raises(ConfigError, match=message):
        Scanner(BacnetSection(address=address))


@pytest.mark.parametrize("ask", ["host.example", "127.0.0.1:99999", "300.0.0.1", "5:", "5:0x0", "-1:3", "99999:1", ""])
async def test_an_address_that_is_none_is_named(ask: str) -> None:
    """Before anything is sent."""
    async with scanner(free_port()) as asking:
        with pytest.raises(ConfigError, match="want an address such as"):
            await asking.who_is(ask=[ask], seconds=0.2)


async def test_without_a_broadcast_there_is_nobody_to_ask() -> None:
    """A /32 has none: the message says so instead of finding nobody."""
    async with scanner(free_port()) as asking:
        with pytest.raises(ConfigError, match="has no broadcast: want the bits of the network"):
            await asking.who_is(seconds=0.2)


@given(st.lists(st.tuples(st.integers(0, 15), st.binary(max_size=12)), max_size=4))
@settings(max_examples=100)
def test_a_value_of_any_bytes_is_a_value_or_an_error(tags: list[tuple[int, bytes]]) -> None:
    """What a device puts into an answer never stops a scan."""
    content = Any_(TagList([Tag(TagClass.application, number, len(data), data) for number, data in tags]))
    with contextlib.suppress(DeviceError):
        assert all(isinstance(value, bool | int | float | str) for value in values_of(content))


async def scanned(*arguments: str) -> int:
    return await asyncio.wait_for(asyncio.to_thread(run, ["scan", "bacnet", *arguments]), 20)


async def test_the_command_lists_devices_and_names_those_that_are_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a file: our names for the devices, and which of them did not answer."""
    port = free_port()
    file = tmp_path / "gateway.toml"
    file.write_text(GATEWAY.format(port=port), encoding="utf-8")
    async with BacnetDevice(Plant(seed=1), address=f"{ALONE}:{port}"):
        assert await scanned(str(file), "--seconds", "0.5", "--objects", "--most", "2") == 0
        said = capsys.readouterr().out
        assert "4401" in said
        assert "AirHandler  = ahu" in said
        assert "chiller: does not answer (bacnet:4999)" in said
        assert "2 of 12 objects: see --most" in said
        assert await scanned("--address", f"{ALONE}:{port}", "--ask", "127.0.0.1", "--seconds", "0.5", "--json") == 0
        (device,) = json.loads(capsys.readouterr().out)["devices"]
        assert (device["instance"], device["name"], device["device"]) == (INSTANCE, "AirHandler", None)


async def test_the_command_says_why_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 when there is nobody; exit 2 when the arguments are wrong."""
    assert await scanned("--address", f"{ALONE}:{free_port()}", "--ask", "127.0.0.1", "--seconds", "0.2") == 1
    assert "nobody answered at port" in capsys.readouterr().err
    assert await scanned() == 2
    assert "want a FILE with [bacnet], or --address" in capsys.readouterr().err
    assert await scanned("--address", "192.0.2.5") == 2
    assert "address: got '192.0.2.5', want an address such as 192.0.2.5/24:47808" in capsys.readouterr().err
    assert await scanned("--address", f"{ALONE}", "--low", "9", "--high", "1") == 2
