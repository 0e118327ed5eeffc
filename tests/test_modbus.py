"""The Modbus driver against devices that behave, each in its own way."""

import asyncio
import inspect
import math
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.codec.registers import Limits, encode
from gateway.drivers import Driver
from gateway.drivers.modbus import Bus, ModbusDriver
from gateway.drivers.modbus_pdu import EXCEPTIONS, READS, Request, read_pdu
from gateway.errors import ConfigError, DeviceError
from gateway.model import Kind, Order, Point, Quality, WireType
from tests.modbus_peers import KINDS, Ask, Peer, crc16, driver_of, honest, stock_server, u16s, word

GOOD, BAD = Quality.GOOD, Quality.BAD


def point(name: str, wire: WireType, address: int, function: int = 3, /, **more: Any) -> Point:
    return Point(name=name, function=function, address=address, type=wire, **more)


# What pymodbus puts into the registers, with its own encoder, and what must come out.
HOLDING = [
    (SimData(0, values=-12345, datatype=DataType.INT16), point("s16", WireType.S16, 0), -12345),
    (SimData(1, values=54321, datatype=DataType.UINT16), point("u16", WireType.U16, 1), 54321),
    (SimData(2, values=-123456789, datatype=DataType.INT32), point("s32", WireType.S32, 2), -123456789),
    (SimData(4, values=4123456789, datatype=DataType.UINT32), point("u32", WireType.U32, 4), 4123456789),
    (SimData(6, values=-(2**60) - 1, datatype=DataType.INT64), point("s64", WireType.S64, 6), -(2**60) - 1),
    (SimData(10, values=2**63 + 1, datatype=DataType.UINT64), point("u64", WireType.U64, 10), 2**63 + 1),
    (SimData(14, values=230.5, datatype=DataType.FLOAT32), point("f32", WireType.F32, 14), 230.5),
    (SimData(16, values=math.pi, datatype=DataType.FLOAT64), point("f64", WireType.F64, 16), math.pi),
    (SimData(20, values="B23 112-100", datatype=DataType.STRING), point("text", WireType.STRING, 20, registers=6), ""),
    (SimData(30, values=0x8001, datatype=DataType.REGISTERS), point("bit", WireType.BIT, 30, bit=15), True),
]
INPUT = (SimData(0, values=49.98, datatype=DataType.FLOAT64), point("hz", WireType.F64, 0, 4), 49.98)
COIL = (SimData(0, values=[True, False] * 8, datatype=DataType.BITS), point("coil", WireType.BIT, 3, 1), False)
DISCRETE = (SimData(0, values=[False, True] * 8, datatype=DataType.BITS), point("door", WireType.BIT, 3, 2), True)
ALL = [*HOLDING, INPUT, COIL, DISCRETE]
STOCK = SimDevice(id=7, simdata=([COIL[0]], [DISCRETE[0]], [row[0] for row in HOLDING], [INPUT[0]]))


def read_stock(url: str) -> Callable[[], Any]:
    async def run() -> tuple[Any, ...]:
        async with driver_of(url, [row[1] for row in ALL], unit_id=7, timeout_s=2) as driver:
            row = (await driver.poll(samples=False)).row
            return row.values, row.qualities

    return run


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stock_server_is_read_whole_over_each_transport(kind: str) -> None:
    """The server and the encoder of pymodbus are the independent peer, for all types and the four functions."""
    async with stock_server(kind, [STOCK]) as url:
        values, qualities = await read_stock(url)()
    want = ["B23 112-100" if row[1].name == "text" else row[2] for row in ALL]
    assert list(values) == want
    assert qualities is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_on_uvloop_too(kind: str) -> None:
    async def run() -> None:
        async with Peer(honest, kind) as peer, driver_of(peer.url, u16s(5, 6, 7)) as driver:
            for _ in range(3):
                assert (await driver.poll(samples=True)).row.values == (word(1, 5), word(1, 6), word(1, 7))

    uvloop.run(run())


async def test_the_driver_is_a_driver() -> None:
    driver: Driver = ModbusDriver(name="m", points=u16s(0), bus=Bus("tcp://127.0.0.1:1"), unit_id=1)
    assert driver.schema.device == "m"
    await driver.close()


@pytest.mark.parametrize("order", list(Order))
async def test_the_row_follows_the_configuration_and_not_the_addresses(order: Order) -> None:
    held = {100: encode(point("a", WireType.F32, 0, order=order), 1.5), 0: encode(point("b", WireType.U16, 0), 3)}

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply(held[ask.address])

    points = [point("far", WireType.F32, 100, order=order, unit="W"), point("near", WireType.U16, 0, unit="Wh")]
    async with Peer(answer) as peer, driver_of(peer.url, points) as driver:
        row = (await driver.poll(samples=False)).row
    assert [(c.name, c.unit, c.store) for c in row.schema.columns] == [("far", "W", "f32"), ("near", "Wh", "u64")]
    assert row.values == (1.5, 3)
    assert row.status == ""


async def test_one_request_reads_what_stands_together() -> None:
    async with Peer(honest) as peer, driver_of(peer.url, u16s(*range(0, 120, 2))) as driver:
        await driver.poll(samples=False)
        assert [(a.function, a.address, a.count) for a in peer.asked] == [(3, 0, 119)]


async def test_devices_behind_one_host_share_one_connection() -> None:
    """A gateway that refuses a second socket serves all its units."""
    async with Peer(honest, only_one=True) as peer:
        bus = Bus(peer.url, 0.5)
        drivers = [ModbusDriver(name=f"m{i}", points=u16s(i), bus=bus, unit_id=i) for i in range(1, 9)]
        for _ in range(5):
            polls = await asyncio.gather(*(driver.poll(samples=False) for driver in drivers))
            assert [poll.row.values for poll in polls] == [(word(i, i),) for i in range(1, 9)]
        assert (peer.most, peer.accepted, bus.connects) == (1, 1, 1)
        for driver in drivers:
            await driver.close()
            await driver.close()
        await asyncio.sleep(0.05)
        assert peer.sockets == 0, "the last to leave closes"


async def test_a_second_bus_on_a_host_that_refuses_it_is_an_error_of_its_own() -> None:
    async with Peer(honest, only_one=True) as peer, driver_of(peer.url, u16s(0)) as first:
        await first.poll(samples=False)
        async with driver_of(peer.url, u16s(0)) as second:
            with pytest.raises(DeviceError, match="connection closed"):
                await second.poll(samples=False)
        assert (await first.poll(samples=False)).row.values == (word(1, 0),)


@asynccontextmanager
async def capped(cap: int, code: int, points: list[Point]) -> AsyncIterator[tuple[Peer, ModbusDriver]]:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply() if ask.count <= cap else ask.refusal(code)

    async with Peer(answer) as peer, driver_of(peer.url, points) as driver:
        yield peer, driver


@pytest.mark.parametrize("code", [2, 3])
async def test_a_device_that_refuses_long_reads_is_read_whole_and_remembered(code: int) -> None:
    addresses = list(range(200))
    async with capped(50, code, u16s(*addresses)) as (peer, driver):
        for poll in range(3):
            row = (await driver.poll(samples=False)).row
            assert row.values == tuple(word(1, a) for a in addresses)
            assert row.qualities is None
            asked, peer.asked = peer.asked, []
            refused = [a for a in asked if a.count > 50]
            assert bool(refused) == (poll == 0), "the refusals cost only once"
        assert len(asked) <= 8


def holed(*holes: int) -> Callable[[Ask], AsyncIterator[bytes | None]]:
    """Answer as a device that lacks some registers."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        bad = any(ask.address <= hole < ask.address + ask.count for hole in holes)
        yield ask.refusal(2) if bad else ask.reply()

    return answer


async def test_registers_that_do_not_exist_cost_only_once_and_the_others_are_read() -> None:
    addresses = list(range(60))
    async with Peer(holed(17, 40)) as peer, driver_of(peer.url, u16s(*addresses)) as driver:
        for poll in range(3):
            row = (await driver.poll(samples=False)).row
            assert row.values == tuple(None if a in {17, 40} else word(1, a) for a in addresses)
            assert row.qualities is not None
            assert [i for i, q in enumerate(row.qualities) if q is BAD] == [17, 40]
            assert row.status.count("exception 0x02 Illegal Data Address") == 2
            asked, peer.asked = peer.asked, []
            assert poll == 0 or len(asked) == 3, "around two holes there are three blocks"


async def test_a_hole_between_two_points_is_read_around() -> None:
    async with Peer(holed(3)) as peer, driver_of(peer.url, u16s(0, 6)) as driver:
        for _ in range(2):
            row = (await driver.poll(samples=False)).row
            assert (row.values, row.qualities) == ((word(1, 0), word(1, 6)), None)
        assert [(a.address, a.count) for a in peer.asked] == [(0, 7), (0, 1), (6, 1), (0, 1), (6, 1)]


async def test_a_cap_and_holes_together_are_read_around() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        bad = ask.count > 20 or any(ask.address <= hole < ask.address + ask.count for hole in (33, 77))
        yield ask.refusal(2) if bad else ask.reply()

    async with Peer(answer) as peer, driver_of(peer.url, u16s(*range(100))) as driver:
        for _ in range(4):
            row = (await driver.poll(samples=False)).row
            assert row.values == tuple(None if a in {33, 77} else word(1, a) for a in range(100))
            asked, peer.asked = peer.asked, []
        assert all(a.count <= 20 for a in asked), "by then everything is learnt"


async def test_what_a_device_lacked_is_asked_again_after_a_while() -> None:
    peer = Peer(holed(1))
    async with peer, driver_of(peer.url, u16s(0, 1, 2), recheck_s=0.2) as driver:
        assert (await driver.poll(samples=False)).row.values == (word(1, 0), None, word(1, 2))
        peer.answer = honest
        assert (await driver.poll(samples=False)).row.values == (word(1, 0), None, word(1, 2))
        await asyncio.sleep(0.25)
        assert (await driver.poll(samples=False)).row.values == (word(1, 0), word(1, 1), word(1, 2))


async def test_a_device_that_refuses_everything_for_a_while_is_read_as_soon_as_it_does_not() -> None:
    async def refuse(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.refusal(2)

    peer = Peer(refuse)
    async with peer, driver_of(peer.url, u16s(*range(6))) as driver:
        row = (await driver.poll(samples=False)).row
        assert row.values == (None,) * 6
        assert "Illegal Data Address" in row.status
        peer.answer = honest
        assert (await driver.poll(samples=False)).row.qualities is None


@pytest.mark.parametrize("kind", ["tcp", "rtu+tcp"])
@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x01, "Illegal Function"),
        (0x02, "Illegal Data Address"),
        (0x03, "Illegal Data Value"),
        (0x04, "Server Device Failure"),
        (0x05, "Acknowledge"),
        (0x06, "Server Device Busy"),
        (0x07, "Negative Acknowledge"),
        (0x08, "Memory Parity Error"),
        (0x0A, "Gateway Path Unavailable"),
        (0x0B, "Gateway Target Device Failed to Respond"),
    ],
)
async def test_an_exception_is_named_as_the_specification_names_it(kind: str, code: int, name: str) -> None:
    """Source: Modbus Application Protocol V1.1b3, 7."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply() if ask.address == 0 else ask.refusal(code)

    async with Peer(answer, kind) as peer, driver_of(peer.url, u16s(0, 500)) as driver:
        row = (await driver.poll(samples=False)).row
    assert row.values == (word(1, 0), None)
    assert row.qualities == (GOOD, BAD)
    assert row.status == f"FC3 500+1: exception 0x{code:02X} {name}"
    assert code in EXCEPTIONS


async def test_a_device_that_answers_only_exceptions_has_spoken_in_its_own_words() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.refusal(4)

    async with Peer(answer) as peer, driver_of(peer.url, u16s(0)) as driver:
        row = (await driver.poll(samples=False)).row
    assert (row.values, row.qualities) == ((None,), (BAD,))
    assert row.status == "FC3 0+1: exception 0x04 Server Device Failure"


async def test_a_gateway_without_its_device_is_a_device_that_did_not_answer() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.refusal(0x0B)

    async with Peer(answer) as peer, driver_of(peer.url, u16s(0, 500, 900)) as driver:
        with pytest.raises(DeviceError, match="meter: exception 0x0B Gateway Target"):
            await driver.poll(samples=False)
        assert len(peer.asked) == 2, "the third block is not asked for"


async def test_a_silent_device_costs_two_time_outs_at_most_and_its_neighbours_go_on() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.unit_id != 9:
            yield ask.reply()

    async with Peer(answer) as peer:
        bus = Bus(peer.url, 0.2)
        dead = ModbusDriver(name="dead", points=u16s(0, 100, 200, 300), bus=bus, unit_id=9)
        alive = ModbusDriver(name="alive", points=u16s(0, 100), bus=bus, unit_id=1)
        started = time.monotonic()
        got = await asyncio.gather(dead.poll(samples=False), alive.poll(samples=False), return_exceptions=True)
        assert time.monotonic() - started < 0.75
        assert isinstance(got[0], DeviceError)
        assert not isinstance(got[1], BaseException)
        assert got[1].row.qualities is None
        await dead.close()
        await alive.close()


async def test_blocks_that_are_silent_do_not_starve_the_others() -> None:
    """Some devices say nothing, where others would refuse."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.address >= 200:
            yield ask.reply()

    async with Peer(answer) as peer, driver_of(peer.url, u16s(0, 100, 200, 300), timeout_s=0.15) as driver:
        with pytest.raises(DeviceError, match=r"no reply in 0\.15 s"):
            await driver.poll(samples=False)
        row = (await driver.poll(samples=False)).row
        assert row.values == (None, None, word(1, 200), word(1, 300))
        assert row.status.count("no reply in 0.15 s") == 2


async def test_no_connection_is_an_error_at_once_and_not_for_each_device() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but it does not listen
        bus = Bus(f"tcp://127.0.0.1:{held.getsockname()[1]}", 0.5)
        drivers = [ModbusDriver(name=f"m{i}", points=u16s(0, 500, 900), bus=bus, unit_id=i) for i in range(20)]
        started = time.monotonic()
        for driver in drivers:
            with pytest.raises(DeviceError, match="cannot connect to tcp://127"):
                await driver.poll(samples=False)
        assert time.monotonic() - started < 2


async def test_a_host_that_does_not_answer_a_connection_costs_one_time_out_for_all_its_devices() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.socket() as filler:
            filler.connect(full.getsockname())  # the queue is full: further connections hang
            bus = Bus(f"tcp://127.0.0.1:{full.getsockname()[1]}", 0.2)
            drivers = [ModbusDriver(name=f"m{i}", points=u16s(0), bus=bus, unit_id=i) for i in range(5)]
            started = time.monotonic()
            polls = [driver.poll(samples=False) for driver in drivers]
            got = await asyncio.gather(*polls, return_exceptions=True)
            assert all(isinstance(error, DeviceError) for error in got)
            assert time.monotonic() - started < 0.9
            await bus.close()


async def test_a_name_that_nobody_knows_is_an_error_of_the_device() -> None:
    for host in ("no-such-host.invalid", "a" * 70):
        async with driver_of(f"tcp://{host}:502", u16s(0)) as driver:
            with pytest.raises(DeviceError, match="cannot connect"):
                await driver.poll(samples=False)


async def test_a_serial_port_that_is_not_there_is_an_error_of_the_device() -> None:
    async with driver_of("serial:///dev/no-such-tty?baudrate=9600", u16s(0)) as driver:
        with pytest.raises(DeviceError, match="cannot connect"):
            await driver.poll(samples=False)


async def test_a_poll_that_is_cancelled_while_it_connects_leaves_no_port_locked() -> None:
    async with Peer(honest, "serial") as peer, driver_of(peer.url, u16s(3)) as driver:
        for turns in range(6):
            poll = asyncio.create_task(driver.poll(samples=False))
            for _ in range(turns):
                await asyncio.sleep(0)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            await driver._bus.close()
        assert (await driver.poll(samples=False)).row.values == (word(1, 3),)


async def test_a_device_that_comes_back_is_read_again() -> None:
    async with Peer(honest) as peer, driver_of(peer.url, u16s(3), timeout_s=0.1) as driver:
        port = peer.port
        assert (await driver.poll(samples=False)).row.values == (word(1, 3),)
        await peer.__aexit__()
        for _ in range(2):
            with pytest.raises(DeviceError):
                await driver.poll(samples=False)
        async with Peer(honest, port=port):
            await asyncio.sleep(0.12)
            assert (await driver.poll(samples=False)).row.values == (word(1, 3),)


async def test_a_connection_that_a_device_closed_while_idle_is_no_fault() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply()
        yield None

    async with Peer(answer) as peer, driver_of(peer.url, u16s(3)) as driver:
        for _ in range(5):
            assert (await driver.poll(samples=False)).row.qualities is None
            await asyncio.sleep(0.01)
        assert peer.accepted == 5


async def test_a_dead_connection_that_nobody_closed_is_given_up() -> None:
    """A device that was replaced, behind a firewall that drops: the old connection never ends by itself."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if peer.accepted > 1:
            yield ask.reply()

    peer = Peer(answer)
    async with peer, driver_of(peer.url, u16s(3), timeout_s=0.2) as driver:
        for _ in range(3):
            with pytest.raises(DeviceError, match="no reply"):
                await driver.poll(samples=False)
        assert (await driver.poll(samples=False)).row.values == (word(1, 3),)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_never_carries_an_old_value(kind: str) -> None:
    async def nothing(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.address == 0:
            yield ask.reply()

    peer = Peer(honest, kind)
    async with peer, driver_of(peer.url, u16s(0, 500), timeout_s=0.2) as driver:
        assert (await driver.poll(samples=False)).row.values == (word(1, 0), word(1, 500))
        peer.answer = nothing
        for _ in range(2):
            row = (await driver.poll(samples=False)).row
            assert (row.values, row.qualities) == ((word(1, 0), None), (GOOD, BAD))
            assert "FC3 500+1: no reply in 0.2 s" in row.status
        peer.answer = honest
        row = (await driver.poll(samples=False)).row
        assert (row.values, row.qualities, row.status) == ((word(1, 0), word(1, 500)), None, "")


async def test_the_source_time_is_when_the_last_reply_came() -> None:
    ticks = iter(range(100, 200))
    async with Peer(honest) as peer, driver_of(peer.url, u16s(0, 500, 900), clock=lambda: next(ticks)) as driver:
        assert (await driver.poll(samples=False)).row.source_time_ns == 102
        assert (await driver.poll(samples=False)).row.source_time_ns == 105


async def test_a_time_out_does_not_make_a_row_look_newer_than_its_replies() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.address == 0:
            yield ask.reply()

    async with Peer(answer) as peer, driver_of(peer.url, u16s(0, 500), timeout_s=1) as driver:
        started = time.time_ns()
        row = (await driver.poll(samples=False)).row
        assert started <= row.source_time_ns < started + 900_000_000


COUNTERS = [
    point("kwh", WireType.F32, 0, kind=Kind.COUNTER),
    point("wh", WireType.U32, 2, kind=Kind.COUNTER, scale_point="sf"),
    point("sf", WireType.S16, 4),
    point("count", WireType.U64, 5, kind=Kind.COUNTER, scale=Decimal("0.01"), order=Order.CDAB),
    point("w", WireType.F32, 9),
    point("far", WireType.U32, 900, kind=Kind.COUNTER),
]


async def test_counters_are_sampled_exactly_and_only_when_asked_for() -> None:
    count = encode(point("", WireType.U64, 0, order=Order.CDAB), 2**60 + 1)
    near = struct.pack(">fIh", 1234.1, 4000000001, -3) + count + struct.pack(">f", 5.0)

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply(near) if ask.address == 0 else ask.refusal(4)

    async with Peer(answer) as peer, driver_of(peer.url, COUNTERS, clock=lambda: 77) as driver:
        assert (await driver.poll(samples=False)).samples == ()
        kwh, wh, counted, far = (await driver.poll(samples=True)).samples
    assert (kwh.point, kwh.raw, kwh.value) == ("kwh", near[:4], Decimal(struct.unpack(">f", near[:4])[0]))
    assert (wh.raw, wh.value, wh.source_time_ns) == (near[4:8], Decimal("4000000.001"), 77)
    assert (counted.raw, counted.value, counted.quality) == (count, Decimal(2**60 + 1) / 100, GOOD)
    assert (far.raw, far.value, far.quality) == (b"", None, BAD)
    assert far.status == "exception 0x04 Server Device Failure"


async def test_a_counter_that_is_not_a_number_is_a_bad_sample_without_a_value() -> None:
    near = struct.pack(">fIh", math.nan, 1, -(2**15)) + bytes(8) + struct.pack(">f", 5.0)

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply(near if ask.address == 0 else None)

    async with Peer(answer) as peer, driver_of(peer.url, COUNTERS) as driver:
        poll = await driver.poll(samples=True)
    assert [(s.value, s.quality, s.status) for s in poll.samples[:2]] == [(None, BAD, "no value")] * 2
    assert poll.samples[2].value == 0
    assert poll.row.status == "no value: kwh, wh"
    assert poll.row.values[2:5] == (-(2**15), 0.0, 5.0)


async def test_a_cancelled_poll_does_not_spoil_the_next() -> None:
    for kind in KINDS:

        async def slow(ask: Ask) -> AsyncIterator[bytes | None]:
            await asyncio.sleep(0.05)
            yield ask.reply()

        async with Peer(slow, kind) as peer, driver_of(peer.url, u16s(1, 500), timeout_s=3) as driver:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(driver.poll(samples=False), 0.03)
                assert (await driver.poll(samples=False)).row.values == (word(1, 1), word(1, 500))


async def test_a_serial_line_is_silent_for_three_and_a_half_characters_before_each_request() -> None:
    gaps: list[float] = []
    last = 0.0

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        nonlocal last
        gaps.append(time.monotonic() - last)
        reply = ask.reply()
        last = time.monotonic()
        yield reply

    async with Peer(answer, "serial") as peer, driver_of(peer.url.replace("115200", "1200"), u16s(0)) as driver:
        for _ in range(5):
            await driver.poll(samples=False)
    assert len(gaps) == 5
    assert min(gaps[1:]) >= 3.5 * 11 / 1200 * 0.9


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:502",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:port",
        "udp://127.0.0.1:502",
        "serial://",
        "serial:///dev/ttyS0?baudrate=fast",
        "serial:///dev/ttyS0?parity=X",
        "serial:///dev/ttyS0?stopbits=3",
        "serial:///dev/ttyS0?baudrate=0",
        "serial:///dev/ttyS0?bautrate=9600",
    ],
)
def test_a_url_that_is_none_says_what_it_should_be(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url: got .*, want"):
        Bus(url)


@pytest.mark.parametrize(
    ("url", "unit_id"), [("tcp://h:1", 256), ("tcp://h:1", -1), ("rtu+tcp://h:1", 0), ("serial:///dev/x", 248)]
)
def test_a_unit_that_cannot_be_is_a_configuration_error(url: str, unit_id: int) -> None:
    with pytest.raises(ConfigError, match="unit_id"):
        ModbusDriver(name="m", points=u16s(0), bus=Bus(url), unit_id=unit_id)


def test_a_device_without_points_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no points"):
        ModbusDriver(name="m", points=[], bus=Bus("tcp://h:1"), unit_id=1)


@pytest.mark.parametrize("function", range(256))
def test_no_function_code_but_the_four_reads_can_be_built(function: int) -> None:
    if function in {1, 2, 3, 4}:
        assert read_pdu(function, 1, 2) == bytes([function, 0, 1, 0, 2])
        return
    with pytest.raises(ConfigError, match=f"got {function}, want"):
        read_pdu(function, 1, 2)
    with pytest.raises(ConfigError, match=f"got {function}, want"):
        Request(unit_id=1, function=function, address=1, count=2)
    with pytest.raises(ConfigError, match=f"got {function}, want"):
        ModbusDriver(
            name="m", points=[point("p", WireType.U16, 0, function)], bus=Bus("tcp://h:1"), unit_id=1, limits=Limits()
        )


@given(st.integers(-10, 300), st.integers(-10, 70000), st.integers(-10, 3000))
def test_what_is_built_is_a_read_and_nothing_else(function: int, address: int, count: int) -> None:
    try:
        request = Request(unit_id=1, function=function, address=address, count=count)
    except ConfigError:
        assert (
            function not in {1, 2, 3, 4}
            or not 1 <= count <= (2000 if function < 3 else 125)
            or (not 0 <= address <= 65536 - count)
        )
        return
    body = struct.pack(">BHH", function, address, count)
    assert request.tail == b"\0\0\0\6\1" + body
    assert request.rtu[:-2] == b"\1" + body
    assert function in {1, 2, 3, 4}


def test_the_table_of_requests_cannot_be_added_to() -> None:
    with pytest.raises(TypeError):
        READS[6] = READS[3]  # type: ignore[index]


PUBLIC = {
    ModbusDriver: {"poll", "close", "schema"},
    Bus: {"read", "join", "leave", "close", "is_rtu", "url", "connects"},
}


@pytest.mark.parametrize("owner", list(PUBLIC))
def test_every_public_method_is_in_the_busy_run_below(owner: type) -> None:
    """A method that is added must be added to the run that captures the wire, too."""
    assert {name for name, _ in inspect.getmembers(owner) if not name.startswith("_")} <= PUBLIC[owner]


def tricked(ask: Ask, trick: str, extra: bytes) -> list[bytes | None]:
    tricks: dict[str, list[bytes | None]] = {
        "good": [ask.reply()],
        "refuse": [ask.refusal(extra[0] if extra else 2)],
        "silent": [],
        "garbage": [extra],
        "wrong": [ask.frame(bytes([ask.function % 4 + 1, 2, 0, 1]))],
        "close": [] if ask.rtu else [None],
    }
    return tricks[trick]


async def busy_run(peer: Peer, functions: list[int]) -> None:
    """Call every public method of a driver and of its bus, whatever the device answers."""
    points = [point(f"p{i}", WireType.BIT if f < 3 else WireType.U16, 300 * i, f) for i, f in enumerate(functions)]
    async with peer:
        bus = Bus(peer.url, 0.01)
        driver = ModbusDriver(name="m", points=[*points, *u16s(*range(20))], bus=bus, unit_id=1)
        for _ in range(3):
            try:
                await driver.poll(samples=True)
                await bus.read(Request(unit_id=2, function=4, address=9, count=3))
            except DeviceError:
                continue
        await bus.close()
        await driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_only_reads_are_ever_on_the_wire(kind: str) -> None:
    """Whatever a device answers, each byte that leaves belongs to a request with function code 1 to 4."""
    size = 12 if kind == "tcp" else 8
    seen: set[int] = set()
    tricks = st.sampled_from(["good", "refuse", "silent", "garbage", "wrong", "close"])
    scripts = st.lists(st.tuples(tricks, st.binary(max_size=12)), min_size=1, max_size=25)

    @settings(max_examples=20, deadline=None)
    @given(scripts, st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=6))
    def run(script: list[tuple[str, bytes]], functions: list[int]) -> None:
        async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
            trick, extra = script[len(peer.asked) % len(script)]
            for chunk in tricked(ask, trick, extra):
                yield chunk

        peer = Peer(answer, kind)
        asyncio.run(busy_run(peer, functions))
        assert len(peer.wire) % size == 0, "there is no byte that is not part of a request"
        for at in range(0, len(peer.wire), size):
            frame = bytes(peer.wire[at : at + size])
            assert frame[2:6] == b"\0\0\0\6" if kind == "tcp" else frame[-2:] == crc16(frame[:-2])
            seen.add(frame[7 if kind == "tcp" else 1])

    run()
    assert seen == {1, 2, 3, 4}
