"""The BACnet/IP driver against devices of bacpypes3, each with its faults."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from decimal import Decimal
from typing import Any

import pytest
from bacpypes3.basetypes import EngineeringUnits, Reliability, StatusFlags
from bacpypes3.errors import AbortBufferOverflow, RejectBufferOverflow, SegmentationNotSupported

from gateway.codec import bacnet_apdu as apdu
from gateway.codec import bacnet_tags as tags
from gateway.codec.bacnet_requests import i_am, read_property
from gateway.drivers import Follower
from gateway.drivers.bacnet import BacnetDriver, address_of
from gateway.errors import DeviceError
from gateway.model import Change, Kind, Quality
from tests.bacnet_devices import LOCALHOST, application, bbmd, device, driver_of, free_port, point, relay, router

GOOD, UNCERTAIN, BAD = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD
ENERGY = point("energy", "analog-input,1", unit="kWh", store="f64", kind=Kind.COUNTER)
READS = {(0x10, 8), (0x10, 0), (0x0, 12), (0x0, 14), (0x0, 5), (0x0, 28)}


async def until(true: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


class Told(list[Change]):
    """What a follower told."""

    def __call__(self, changes: Sequence[Change]) -> None:
        """Take changes."""
        self.extend(changes)

    def of(self, column: int) -> list[Any]:
        """Return the values of a column."""
        return [change.value for change in self if change.column == column]


class Following:
    """Follows a driver while the block runs."""

    def __init__(self, driver: BacnetDriver) -> None:
        self.told = Told()
        self._driver = driver

    async def __aenter__(self) -> Told:
        self.task = asyncio.create_task(self._driver.follow(self.told))
        return self.told

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def test_values_come_by_one_request_with_their_raw_bytes() -> None:
    """A poll reads all points by ReadPropertyMultiple; samples are the exact counters."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 1234.1)
        peer.add_binary(3, 1)
        points = [ENERGY, point("pump", "binary-input,3", store="bool")]
        async with driver_of(app, points, peer) as driver:
            assert isinstance(driver, Follower)
            before = time.time_ns()
            row, samples = await driver.poll(samples=True)
            assert peer.asked == {"WhoIsRequest": 1, "ReadPropertyMultipleRequest": 1}
        assert row.values == (1234.0999755859375, True)
        assert row.qualities is None
        assert row.status == ""
        assert before <= row.source_time_ns <= time.time_ns()
        (sample,) = samples
        assert sample.value == Decimal("1234.0999755859375")
        assert sample.raw.hex() == "449a4333"
        assert sample.source_time_ns == row.source_time_ns


async def test_device_without_read_property_multiple_is_read_one_by_one() -> None:
    """Refused as an unrecognised service, it is not tried again."""
    async with device() as peer, application() as (app, _):
        peer.no_multiple = True
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer) as driver:
            for _ in range(2):
                assert (await driver.poll(samples=False)).row.values == (5.0,)
            assert peer.asked["ReadPropertyMultipleRequest"] == 1


@pytest.mark.parametrize(
    ("most", "refusal"),
    [(1, AbortBufferOverflow), (4, SegmentationNotSupported), (7, RejectBufferOverflow), (7, RuntimeError)],
)
async def test_device_with_a_small_buffer_is_asked_for_less_at_once(most: int, refusal: type[Exception]) -> None:
    """Requests are halved until they pass, and stay so; below one object, properties are read one by one."""
    async with device() as peer, application() as (app, _):
        peer.most, peer.refusal = most, refusal
        for number in range(10):
            peer.add(number, float(number))
        points = [point(f"p{number}", f"analog-input,{number}", unit="kWh") for number in range(10)]
        async with driver_of(app, points, peer) as driver:
            for _ in range(3):
                assert (await driver.poll(samples=False)).row.values == tuple(map(float, range(10)))
            peer.sizes.clear()
            await driver.poll(samples=False)
            assert all(size <= most for size in peer.sizes)
            assert most == 1 or len(peer.sizes) <= 1 + 20 // (most // 2)


async def test_answer_fits_a_device_that_cannot_segment() -> None:
    """With the APDU of an MS/TP device nothing is refused: what is asked for at once is made to fit."""
    async with device(max_apdu=206) as peer, application() as (app, _):
        for number in range(40):
            peer.add(number, float(number))
        points = [point(f"p{number}", f"analog-input,{number}", unit="kWh") for number in range(40)]
        async with driver_of(app, points, peer) as driver:
            assert (await driver.poll(samples=False)).row.values == tuple(map(float, range(40)))
            assert len(peer.sizes) < 15
            assert peer.asked["ReadPropertyRequest"] == 0


async def test_units_are_converted_exactly_and_what_cannot_be_is_bad() -> None:
    """The object's own unit is read once; W to kW is exact, and kW from a temperature is no value."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 1500.5, units=EngineeringUnits("watts"))
        peer.add(2, 21.5, units=EngineeringUnits("degrees-celsius"))
        peer.add(3, 3.0, units=EngineeringUnits("no-units"))
        points = [
            point("power", "analog-input,1", unit="kW", store="f64", kind=Kind.COUNTER),
            point("wrong", "analog-input,2", unit="kW"),
            point("plain", "analog-input,3", unit="kWh", scale=Decimal("0.1"), store="f64"),
        ]
        async with driver_of(app, points, peer) as driver:
            row, samples = await driver.poll(samples=True)
            assert row.values == (1.5005, None, 0.3)
            assert row.qualities == (GOOD, BAD, GOOD)
            assert row.status == "wrong: units: degrees-celsius cannot be converted to kW"
            assert samples[0].value == Decimal("1.5005")
            assert samples[0].raw.hex() == "44bb9000"
            first = peer.sizes[0]
            await driver.poll(samples=False)
            assert peer.sizes[1] < first


@pytest.mark.parametrize(
    ("flags", "reliability", "quality", "status"),
    [
        ([0, 0, 0, 0], "no-fault-detected", GOOD, ""),
        ([1, 0, 0, 0], "no-fault-detected", GOOD, ""),
        ([0, 1, 0, 0], "no-sensor", BAD, "energy: fault, no-sensor"),
        ([0, 1, 0, 0], None, BAD, "energy: fault"),
        ([0, 0, 0, 0], "over-range", BAD, "energy: over-range"),
        ([0, 0, 0, 1], "no-fault-detected", UNCERTAIN, "energy: out-of-service"),
        ([1, 0, 1, 0], None, UNCERTAIN, "energy: in-alarm, overridden"),
    ],
)
async def test_status_flags_and_reliability_become_quality(
    flags: list[int], reliability: str | None, quality: Quality, status: str
) -> None:
    """A fault is BAD without a value, out of service or overridden UNCERTAIN, and the words are kept."""
    async with device() as peer, application() as (app, _):
        more = {} if reliability is None else {"reliability": Reliability(reliability)}
        peer.add(1, 5.0, statusFlags=StatusFlags(flags), **more)
        async with driver_of(app, [ENERGY], peer) as driver:
            row, (sample,) = await driver.poll(samples=True)
        assert (row.qualities or (GOOD,)) == (quality,)
        assert row.values == ((None,) if quality is BAD else (5.0,))
        assert row.status == status
        assert (sample.quality, sample.value is None, sample.raw == b"") == (quality, quality is BAD, quality is BAD)


@pytest.mark.parametrize("service", ["multiple", "single"])
async def test_one_bad_object_does_not_spoil_the_others(service: str) -> None:
    """An unknown object, a NaN and a text where a number is wanted are BAD alone, each with its reason."""
    async with device() as peer, application() as (app, _):
        peer.no_multiple = service == "single"
        peer.add(1, 5.0)
        peer.add(2, float("nan"))
        points = [
            point("absent", "analog-input,99", unit="kWh"),
            ENERGY,
            point("nan", "analog-input,2"),
            point("name", "analog-input,1", property_id=77),
            point("text", "analog-input,1", property_id=77, store="s32"),
            point("whole", "analog-input,1", store="u64"),
        ]
        async with driver_of(app, points, peer) as driver:
            row = (await driver.poll(samples=False)).row
        assert row.values == (None, 5.0, None, None, "analog-input 1", 5)
        assert row.status == "absent: unknown-object; nan: not a number; name: text, want a number"


async def test_silent_device_is_an_error_within_its_time_out() -> None:
    """No answer is a DeviceError, never an old value; when the device is back, so are its values."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer, timeout_s=0.3) as driver:
            await driver.poll(samples=False)
            peer.mute = True
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(DeviceError, match=r"^m1: no answer from 127\.0\.0\.1:\d+ within"):
                    await driver.poll(samples=False)
                assert time.monotonic() - started < 0.6
            peer.mute = False
            assert (await driver.poll(samples=False)).row.values == (5.0,)


async def test_device_of_another_instance_at_the_address_is_not_read() -> None:
    """Devices are matched by instance, also where an address is configured, and also when they are swapped later."""
    async with AsyncExitStack() as stack:
        app, _ = await stack.enter_async_context(application())
        port = free_port()
        points = [ENERGY]
        async with device(7, port=port) as peer:
            peer.add(1, 5.0)
            wrong = await stack.enter_async_context(driver_of(app, points, peer, instance=8, timeout_s=0.4))
            right = await stack.enter_async_context(driver_of(app, points, peer, timeout_s=0.4))
            with pytest.raises(DeviceError, match="is not device 8"):
                await wrong.poll(samples=False)
            await right.poll(samples=False)
        await asyncio.sleep(0.05)
        async with device(8, port=port) as other:
            other.add(1, 6.0)
            with pytest.raises(DeviceError, match="is not device 7"):
                await right.poll(samples=False)
            assert (await wrong.poll(samples=False)).row.values == (6.0,)


async def test_device_is_found_by_its_instance_and_followed_to_a_new_address() -> None:
    """Without a configured address Who-Is goes to all; an I-Am from elsewhere moves the device if the old is silent."""
    async with AsyncExitStack() as stack:
        app, _ = await stack.enter_async_context(application(bbmd=f"{LOCALHOST}:{(hub_port := free_port())}"))
        old = await stack.enter_async_context(device(7))
        old.add(1, 5.0)
        hub = await stack.enter_async_context(relay([old.address], port=hub_port))
        driver = await stack.enter_async_context(driver_of(app, [ENERGY], instance=7, timeout_s=0.4))
        assert (await driver.poll(samples=False)).row.values == (5.0,)
        assert hub.broadcasts == 1
        new = await stack.enter_async_context(device(7))
        new.add(1, 6.0)
        old.mute = True
        new.announce(app.port)
        await until(lambda: driver._station._doubted)
        assert (await driver.poll(samples=False)).row.values == (6.0,)


async def test_instance_that_answers_from_two_addresses_is_a_conflict() -> None:
    """No value of either is taken, and the error names both; when one leaves, the other is read."""
    async with AsyncExitStack() as stack:
        app, _ = await stack.enter_async_context(application(bbmd=f"{LOCALHOST}:{(hub_port := free_port())}"))
        peers = [await stack.enter_async_context(device(7)) for _ in range(2)]
        for peer in peers:
            peer.add(1, 5.0)
        await stack.enter_async_context(relay([peers[0].address], port=hub_port))
        driver = await stack.enter_async_context(driver_of(app, [ENERGY], instance=7, timeout_s=0.4))
        await driver.poll(samples=False)
        peers[1].announce(app.port)
        await until(lambda: driver._station._doubted)
        for _ in range(2):
            with pytest.raises(DeviceError, match="device 7 answers from two addresses") as caught:
                await driver.poll(samples=False)
            assert all(peer.address in str(caught.value) for peer in peers)
        peers[1].mute = True
        assert (await driver.poll(samples=False)).row.values == (5.0,)


async def test_registration_at_a_bbmd_is_renewed_in_time_and_tried_again_when_refused() -> None:
    """A foreign device renews at half of its time to live; a refusal, which the library takes for good, is not."""
    async with AsyncExitStack() as stack:
        hub_port = free_port()
        hub = await stack.enter_async_context(relay([], port=hub_port))
        hub.refuse = True
        app, _ = await stack.enter_async_context(application(bbmd=f"{LOCALHOST}:{hub_port}", ttl_s=1))
        await app.open()
        await until(lambda: len(hub.registered) >= 2)
        hub.refuse = False
        await until(lambda: app._link._foreign is not None and app._link._foreign.bbmdRegistrationStatus == 0)
        count, started = len(hub.registered), time.monotonic()
        await until(lambda: len(hub.registered) >= count + 3)
        assert 1.0 < time.monotonic() - started < 2.5
        assert set(hub.registered) == {1}


async def test_bbmd_of_the_library_takes_us_as_a_foreign_device() -> None:
    """What the relay here stands for, with a real one."""
    async with bbmd(7) as address, application(bbmd=address) as (app, _):
        async with driver_of(app, [ENERGY], instance=7) as driver:
            assert (await driver.poll(samples=False)).row.values == (5.0,)
        assert not app._link._tasks


async def test_device_behind_a_router_is_read_by_its_network_and_mac() -> None:
    """The router is found first; then Who-Is and reads go through it."""
    port = free_port()
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(router(7, port))
        app, _ = await stack.enter_async_context(application(address=f"{LOCALHOST}/8:{port}"))
        routed = await stack.enter_async_context(
            driver_of(app, [ENERGY], name="a", instance=7, address=address_of("5:12"))
        )
        assert (await routed.poll(samples=False)).row.values == (4.5,)
        assert {apdu[0] & 0xF0 for apdu in hub.heard} == {0x10, 0x00}
        other = await stack.enter_async_context(
            driver_of(app, [ENERGY], name="b", instance=8, address=address_of("5:13"), timeout_s=0.4)
        )
        with pytest.raises(DeviceError):
            await other.poll(samples=False)
        assert (await routed.poll(samples=False)).row.values == (4.5,)


async def test_another_router_takes_over() -> None:
    """A router that fell silent is looked for anew, which the library never does by itself."""
    port = free_port()
    async with AsyncExitStack() as stack:
        app, _ = await stack.enter_async_context(application(address=f"{LOCALHOST}/8:{port}"))
        driver = await stack.enter_async_context(
            driver_of(app, [ENERGY], instance=7, address=address_of("5:12"), timeout_s=0.4)
        )
        async with router(7, port):
            await driver.poll(samples=False)
        with pytest.raises(DeviceError):
            await driver.poll(samples=False)
        async with router(7, port):
            assert (await driver.poll(samples=False)).row.values == (4.5,)


async def test_long_answers_come_in_segments_up_to_a_bound() -> None:
    """A text of seven segments is put together; one of more than we take is an error, not memory."""
    async with device(segments=64) as peer, application() as (app, _):
        peer.add(1, 5.0, description="x" * 9000)
        peer.add(2, 5.0, description="y" * 40_000)
        await app.open()
        to = address_of(peer.address)

        async def description(number: int) -> apdu.Result:
            body = await app.ask(
                to, lambda invoke: read_property(invoke, number, 28), apdu.READ_PROPERTY, timeout_s=2.0
            )
            return apdu.read_ack(body)

        assert (await description(1)).value == tags.Plain(tags.TEXT, b"\0" + b"x" * 9000)
        with pytest.raises(DeviceError, match="abort"):
            await description(2)
        assert not app._under_way


async def test_a_real_broadcast_finds_the_device() -> None:
    """In the devices' own subnet Who-Is is a broadcast to the network's broadcast address."""
    port = free_port()
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(device(7))
        peer.add(1, 5.0)
        hub = await stack.enter_async_context(relay([peer.address], host="127.255.255.255", port=port))
        app, _ = await stack.enter_async_context(application(address=f"{LOCALHOST}/8:{port}"))
        driver = await stack.enter_async_context(driver_of(app, [ENERGY], instance=7))
        assert (await driver.poll(samples=False)).row.values == (5.0,)
        assert hub.broadcasts >= 1


async def test_changes_of_value_arrive_with_the_quality_of_their_flags() -> None:
    """A follower is told the first values, and then each change, converted to the point's unit."""
    async with device() as peer, application() as (app, _):
        power = peer.add(1, 1500.0, units=EngineeringUnits("watts"))
        pump = peer.add_binary(1, 0)
        points = [
            point("power", "analog-input,1", unit="kW", store="f64"),
            point("pump", "binary-input,1", store="bool"),
        ]
        async with driver_of(app, points, peer) as driver, Following(driver) as told:
            await until(lambda: len(told) == 2)
            power.presentValue = 2500.0
            pump.presentValue = 1
            await until(lambda: told.of(0)[-1] == 2.5 and told.of(1)[-1] is True)
            power.statusFlags = StatusFlags([0, 0, 0, 1])
            await until(lambda: told[-1].quality is UNCERTAIN)
            assert told[-1].status == "out-of-service"
            power.statusFlags = StatusFlags([0, 1, 0, 0])
            await until(lambda: told[-1].quality is BAD)
            assert (told[-1].value, told[-1].status) == (None, "fault")


async def test_subscriptions_have_a_lifetime_and_are_renewed_at_half_of_it() -> None:
    """Renewed again and again; what did not change is not told again."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer, lifetime_s=1.0) as driver, Following(driver) as told:
            started = time.monotonic()
            await until(lambda: len(peer.lifetimes) >= 4)
            assert 1.2 < time.monotonic() - started < 3.0
            assert set(peer.lifetimes) == {1}
            assert told.of(0) == [5.0]


async def test_restarted_device_is_subscribed_anew() -> None:
    """A device that lost its subscriptions says I-Am: they are made again long before the renewal."""
    async with device() as peer, application() as (app, _):
        energy = peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer) as driver, Following(driver) as told:
            await until(lambda: told.of(0) == [5.0])
            await asyncio.sleep(0.2)
            peer.forget()
            energy.presentValue = 6.0
            await asyncio.sleep(0.1)
            assert told.of(0) == [5.0]
            peer.announce(app.port)
            await until(lambda: told.of(0) == [5.0, 6.0])
            energy.presentValue = 7.0
            await until(lambda: told.of(0)[-1] == 7.0)


async def test_lost_device_is_told_bad_once_and_found_again() -> None:
    """What was told is BAD once, with the reason, however often the renewal fails; then values come again."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        peer.add(2, 6.0)
        points = [ENERGY, point("b", "analog-input,2")]
        async with (
            driver_of(app, points, peer, lifetime_s=0.6, timeout_s=0.2) as driver,
            Following(driver) as told,
        ):
            await until(lambda: len(told) == 2)
            peer.mute = True
            await until(lambda: len(told) == 4)
            await asyncio.sleep(1.0)
            assert [(change.column, change.value, change.quality) for change in told[2:]] == [
                (0, None, BAD),
                (1, None, BAD),
            ]
            assert told[2].status.startswith("no answer from")
            peer.mute = False
            await until(lambda: len(told) == 6)
            assert [change.value for change in told[4:]] == [5.0, 6.0]


async def test_failed_poll_makes_the_follower_look_at_once() -> None:
    """A device that a poll finds silent is told BAD at once, not only at half of a long lifetime."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer, timeout_s=0.2) as driver, Following(driver) as told:
            await until(lambda: len(told) == 1)
            peer.mute = True
            with pytest.raises(DeviceError):
                await driver.poll(samples=False)
            await until(lambda: told[-1].quality is BAD, 2.0)


async def test_device_that_knows_no_cov_is_asked_once() -> None:
    """An unrecognised service is not tried for each of a thousand points."""
    async with device() as peer, application() as (app, _):
        points = []
        for number in range(30):
            peer.add(number, 5.0)
            points.append(point(f"p{number}", f"analog-input,{number}", cov_increment=1.0))
        async with driver_of(app, points, peer) as driver:
            with pytest.raises(DeviceError, match="no subscription is taken: reject unrecognized-service"):
                await asyncio.wait_for(driver.follow(Told()), 5)
            assert peer.asked["SubscribeCOVPropertyRequest"] == 1


async def test_objects_without_cov_are_only_polled() -> None:
    """A refused subscription is no error as long as any is taken; none at all is a DeviceError."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        peer.add(2, 6.0)
        peer.no_cov = {"analog-input,2"}
        points = [ENERGY, point("b", "analog-input,2")]
        async with driver_of(app, points, peer) as driver:
            async with Following(driver) as told:
                await until(lambda: told.of(0) == [5.0])
                assert told.of(1) == []
                assert (await driver.poll(samples=False)).row.values == (5.0, 6.0)
            peer.no_cov = {"analog-input,1", "analog-input,2"}
        async with driver_of(app, points, peer) as driver:
            with pytest.raises(DeviceError, match="no subscription is taken: error cov-subscription-failed"):
                await asyncio.wait_for(driver.follow(Told()), 5)


def told_by(process: int, instance: int, value: bytes) -> bytes:
    """Return a COV notification of analog-input 1 in a datagram."""
    about = (instance | 8 << 22).to_bytes(4, "big")
    body = b"\x0c" + process.to_bytes(4, "big") + b"\x1c" + about + b"\x2c" + bytes([0, 0, 0, 1]) + b"\x39\x00"
    body += b"\x4e\x09\x55\x2e\x44" + value + b"\x2f\x09\x6f\x2e\x82\x04\x00\x2f\x4f"
    return framed(b"\x10\x02" + body)


def framed(data: bytes) -> bytes:
    return b"\x81\x0a" + (len(data) + 6).to_bytes(2, "big") + b"\x01\x00" + data


async def test_notifications_that_nobody_subscribed_to_are_ignored() -> None:
    """Of another process, another device, or from another address."""
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer) as driver, Following(driver) as told:
            await until(lambda: len(told) == 1)
            own = driver._subscriptions._process
            peer.send(told_by(own + 1, 7, b"\x41\x20\0\0"), app.port)
            peer.send(told_by(own, 9, b"\x41\x20\0\0"), app.port)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(told_by(own, 7, b"\x41\x20\0\0"), (LOCALHOST, app.port))
            await asyncio.sleep(0.2)
            assert told.of(0) == [5.0]
            peer.send(told_by(own, 7, b"\x41\x20\0\0"), app.port)
            await until(lambda: told.of(0) == [5.0, 10.0])


async def test_flood_of_i_am_is_bounded() -> None:
    """Thousands of I-Ams, of strangers and in our device's name, cost a few subscriptions and no memory."""
    async with device() as peer, application() as (app, sent):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer, soonest_s=0.5) as driver, Following(driver) as told:
            await until(lambda: len(told) == 1)
            before, started = len(sent), time.monotonic()
            for number in range(6000):
                instance = 7 if number % 3 == 0 else 1000 + number
                peer.send(framed(i_am(apdu.IAm(instance, 1024, 3, 999))), app.port)
                if number % 100 == 0:
                    await asyncio.sleep(0)
                    assert app._link._socket is not None
                    assert app._link._socket._waiting.qsize() <= 1024
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for _ in range(1000):
                    stranger.sendto(framed(i_am(apdu.IAm(7, 1024, 3, 999))), (LOCALHOST, app.port))
            await asyncio.sleep(0.3)
            assert (await driver.poll(samples=False)).row.values == (5.0,)
            assert len(driver._station._suspects) <= 4
            assert len(app._places) == 1
            rounds = 2 + (time.monotonic() - started) / 0.5
            assert len(sent) - before < 8 * rounds
        assert peer.lifetimes


async def test_malformed_datagrams_neither_crash_nor_hang() -> None:
    """Whatever comes to our port, from anybody, the next poll is as good as ever."""
    answers = [
        bytes.fromhex(text)
        for text in (
            "30",
            "3001",
            "30010e0c",
            "30010e0c000000011e0955",
            "30010e0c000000011e09554e",
            "30010e0c000000011e09554e25ff",
            "38010e",
            "38010000",
            "3c0100080e",
            "50010c",
            "6001",
            "7001",
            "f0f0f0",
            "1000c402",
            "100209",
            "1008",
            "00",
        )
    ]
    async with device() as peer, application() as (app, _):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer) as driver:
            await driver.poll(samples=False)
            for data in answers:
                for junk in (framed(data), data, b"\x81" + data, b"\x81\x0a\x00\x04", b"\x81\x04\x00\x06\x01\x02"):
                    peer.send(junk, app.port)
            for kind in range(256):  # network layer messages, among them Network-Number-Is and routing tables
                peer.send(b"\x81\x0a\x00\x09\x01\x80" + bytes([kind, 0, 5]), app.port)
            started = time.monotonic()
            assert (await driver.poll(samples=False)).row.values == (5.0,)
            assert time.monotonic() - started < 1.0


async def test_late_and_foreign_answers_are_not_taken() -> None:
    """An answer from another address, or to another request, is nobody's."""
    async with device() as peer, application() as (app, sent):
        peer.add(1, 5.0)
        async with driver_of(app, [ENERGY], peer, timeout_s=0.5) as driver:
            await driver.poll(samples=False)
            peer.mute = True
            asking = asyncio.create_task(driver.poll(samples=False))
            await asyncio.sleep(0.05)
            invoke = sent[-1][8]
            answer = bytes.fromhex("0c000000011e09554e44412000004f096f4e8204004f1f")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(framed(bytes([0x30, invoke, 14]) + answer), (LOCALHOST, app.port))
            peer.send(framed(bytes([0x30, (invoke + 1) & 0xFF, 14]) + answer), app.port)
            peer.send(framed(bytes([0x30, invoke, 12]) + answer), app.port)
            with pytest.raises(DeviceError, match="no answer"):
                await asking


async def test_segments_without_end_are_cut_off() -> None:
    """A device that keeps sending segments is aborted, and holds no more memory than a few of them."""
    async with device() as peer, application() as (app, sent):
        peer.mute = True
        await app.open()
        to = address_of(peer.address)
        asking = asyncio.create_task(
            app.ask(to, lambda invoke: read_property(invoke, 1, 28), apdu.READ_PROPERTY, timeout_s=2.0)
        )
        await until(lambda: sent)
        invoke = sent[-1][8]
        for number in range(40):
            head = bytes([0x3C, invoke, number, 1, 12])
            peer.send(framed(head + b"z" * 1000), app.port)
            peer.send(framed(head + b"z" * 1000), app.port)
        with pytest.raises(DeviceError, match="abort buffer-overflow"):
            await asking
        await until(lambda: any(datagram[6:8] == bytes([0x70, invoke]) for datagram in sent))
        assert len(sent) <= 1 + 2 * apdu.MOST_SEGMENTS + 1


async def test_our_application_answers_next_to_nothing() -> None:
    """It says who it is; every confirmed request is rejected; and that not without end."""
    async with application() as (app, sent):
        await app.open()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            stranger.bind((LOCALHOST, 0))
            stranger.sendto(framed(b"\x10\x08"), (LOCALHOST, app.port))
            assert (await asyncio.wait_for(loop.sock_recv(stranger, 100), 2))[6:8] == b"\x10\x00"
            for service in (12, 14, 15, 16, 17, 20, 5):
                stranger.sendto(framed(bytes([0x02, 0x05, 9, service])), (LOCALHOST, app.port))
                assert (await asyncio.wait_for(loop.sock_recv(stranger, 100), 2))[6:] == b"\x60\x09\x09"
            sent.clear()
            for _ in range(100):
                stranger.sendto(framed(bytes([0x02, 0x05, 9, 15])), (LOCALHOST, app.port))
            await asyncio.sleep(0.2)
            assert len(sent) <= 20


async def test_nothing_but_reads_and_subscriptions_is_ever_sent() -> None:
    """Each datagram of a run with everything in it: searches, polls, subscriptions, refusals, losses."""
    async with device() as peer, application() as (app, sent):
        peer.add(1, 5.0)
        points = [ENERGY, point("b", "analog-input,1", cov_increment=0.5), point("gone", "analog-input,5")]
        async with driver_of(app, points, peer, lifetime_s=0.6, timeout_s=0.3) as driver, Following(driver) as told:
            await until(lambda: told)
            for fault in ("mute", "no_multiple"):
                setattr(peer, fault, True)
                with suppress(DeviceError):
                    await driver.poll(samples=True)
                peer.mute = False
            await until(lambda: len(peer.lifetimes) > 2)
    assert {(datagram[6] & 0xF0, datagram[9 if datagram[6] < 0x10 else 7]) for datagram in sent} == READS - {(0x10, 0)}


async def test_address_that_cannot_be_bound_is_an_error_with_its_reason() -> None:
    """No silent retry, and no sharing of a port that another program has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOCALHOST, 0))
        async with (
            application(address=f"{LOCALHOST}/32:{taken.getsockname()[1]}") as (app, _),
            driver_of(app, [ENERGY], instance=7) as driver,
        ):
            with pytest.raises(DeviceError, match="Address already in use"):
                await driver.poll(samples=False)


async def test_unknown_network_is_an_error_and_no_hang() -> None:
    """A device behind a router that is not there."""
    port = free_port()
    async with application(address=f"{LOCALHOST}/8:{port}") as (app, _):
        address = address_of("5:12")
        driver = BacnetDriver(name="m1", points=[ENERGY], app=app, instance=7, address=address, timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(DeviceError, match="no way to 5:12"):
            await driver.poll(samples=False)
        assert time.monotonic() - started < 1
        await driver.close()
