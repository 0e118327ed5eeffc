"""Several Modbus/TCP requests under way at once: each reply goes to its own, and trouble stays where it is."""

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.drivers.modbus import Bus, ModbusDriver
from gateway.drivers.modbus_pdu import Request
from gateway.drivers.modbus_tcp import TcpLine
from gateway.errors import ConfigError, DeviceError
from gateway.model import Row
from tests.modbus_peers import Ask, Peer, honest, u16s, word

ADDRESSES = (0, 1, 7)


@asynccontextmanager
async def drivers_of(
    url: str, units: int, *, pipeline: int, timeout_s: float = 0.5
) -> AsyncIterator[list[ModbusDriver]]:
    """Give drivers for units 1 and up, on one bus."""
    bus = Bus(url, timeout_s, pipeline=pipeline)
    drivers = [
        ModbusDriver(name=f"m{unit}", points=u16s(*ADDRESSES), bus=bus, unit_id=unit + 1) for unit in range(units)
    ]
    try:
        yield drivers
    finally:
        for driver in drivers:
            await driver.close()


async def polled(drivers: list[ModbusDriver]) -> list[Row | DeviceError]:
    """Poll all at once; return the row or the error of each."""

    async def one(driver: ModbusDriver) -> Row | DeviceError:
        try:
            return (await driver.poll(samples=False)).row
        except DeviceError as e:
            return e

    return await asyncio.gather(*map(one, drivers))


def right(row: Row | DeviceError, unit: int) -> bool:
    """Return whether a row holds the very numbers of a unit."""
    return isinstance(row, Row) and row.values == tuple(word(unit, a) for a in ADDRESSES)


async def test_as_many_requests_are_under_way_as_allowed_and_each_reply_finds_its_own_in_any_order() -> None:
    held: list[Ask] = []
    most = 0

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        nonlocal most
        held.append(ask)
        if len(held) == 4:
            await asyncio.sleep(0.02)
            most = max(most, len(peer.wire) // 12 - len(peer.asked) + 4)
            yield b"".join(ask.reply() for ask in reversed(held))
            held.clear()

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 12, pipeline=4) as drivers:
        for _ in range(3):
            rows = await polled(drivers)
            assert all(right(row, unit) for unit, row in enumerate(rows, 1))
    assert peer.accepted == 1
    assert most == 4


async def test_without_a_pipeline_the_next_request_waits_for_the_reply() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        await asyncio.sleep(0.005)
        assert len(peer.wire) == 12 * len(peer.asked), "another has come before this was answered"
        yield ask.reply()

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 6, pipeline=1) as drivers:
        assert all(right(row, unit) for unit, row in enumerate(await polled(drivers), 1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), pipeline=st.integers(2, 8))
def test_no_order_and_no_cut_gives_a_value_to_another_device(seed: int, pipeline: int) -> None:
    rng = random.Random(seed)

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        """Hold some back, repeat some, lose some, and send the rest in any order and in any pieces."""
        held.append(ask)
        if rng.random() < 0.5:
            return
        rng.shuffle(held)
        stream = b"".join(ask.reply() * rng.choice([1, 1, 1, 2]) for ask in held if rng.random() < 0.97)
        held.clear()
        while stream:
            cut = rng.randint(1, len(stream))
            yield stream[:cut]
            stream = stream[cut:]
            await asyncio.sleep(0)

    async def run() -> None:
        async with peer, drivers_of(peer.url, 8, pipeline=pipeline, timeout_s=0.03) as drivers:
            for _ in range(4):
                for unit, row in enumerate(await polled(drivers), 1):
                    assert isinstance(row, DeviceError) or right(row, unit)

    held: list[Ask] = []
    peer = Peer(answer)
    asyncio.run(run())


async def test_a_silent_device_costs_the_others_nothing() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.unit_id != 2:
            await asyncio.sleep(0.002)
            yield ask.reply()

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 8, pipeline=4, timeout_s=0.3) as drivers:
        began = time.monotonic()
        silent = asyncio.create_task(polled([drivers[1]]))
        others = [drivers[0], *drivers[2:]]
        for _ in range(3):
            assert not any(isinstance(row, DeviceError) for row in await polled(others))
        assert time.monotonic() - began < 0.3
        (error,) = await silent
        assert "no reply in 0.3 s" in str(error)
        assert not any(isinstance(row, DeviceError) for row in await polled(others))
    assert peer.accepted == 1, "what was silent did not end the connection"


async def test_a_late_reply_is_dropped_and_counted() -> None:
    """It must neither be taken for a later request of the same device, nor disturb another's."""
    late: list[Ask] = []

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.unit_id == 1 and not late:
            late.append(ask)
            return
        if late and ask.unit_id == 2:
            yield late[0].reply(b"\xff" * 16)
        yield ask.reply()

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 2, pipeline=2, timeout_s=0.05) as drivers:
        first, second = await polled(drivers)
        assert right(second, 2)
        if isinstance(first, DeviceError):
            assert right((await polled(drivers[:1]))[0], 1)
        for _ in range(3):
            assert all(right(row, unit) for unit, row in enumerate(await polled(drivers), 1))


async def test_a_wrong_reply_ends_the_connection_and_what_was_under_way_and_the_next_polls_are_right() -> None:
    held: list[Ask] = []
    wrong = True

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        nonlocal wrong
        held.append(ask)
        if len(held) == 4:
            first = held[0]
            replies = [first.frame(b"\3\2\0\1") if wrong else first.reply(), *(ask.reply() for ask in held[1:])]
            held.clear()
            wrong = False
            yield b"".join(replies)

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 4, pipeline=4) as drivers:
        rows = await polled(drivers)
        assert "wrong reply" in str(rows[0])
        assert all(right(row, unit) for unit, row in enumerate(rows[1:], 2)), "they had come with it, and were right"
        assert all(right(row, unit) for unit, row in enumerate(await polled(drivers), 1))
    assert (peer.accepted, peer.most) == (2, 1), "the old connection is gone before there is a new one"


async def test_a_host_that_hangs_up_fails_what_is_under_way_at_once_and_is_connected_to_once() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply() if len(peer.asked) != 3 else None

    peer = Peer(answer)
    async with peer, drivers_of(peer.url, 6, pipeline=6, timeout_s=2) as drivers:
        began = time.monotonic()
        rows = await polled(drivers)
        assert sum("connection closed" in str(row) for row in rows) == 4
        assert all(right(row, unit) for unit, row in enumerate(await polled(drivers), 1))
        assert time.monotonic() - began < 1
    assert (peer.accepted, peer.most) == (2, 1)


async def test_a_host_that_is_not_there_costs_one_attempt_for_all() -> None:
    async with Peer(honest) as peer:
        url = peer.url
    async with drivers_of(url, 8, pipeline=8) as drivers:
        rows = await polled(drivers)
    assert len({str(row).partition(": ")[2] for row in rows}) == 1
    assert "cannot connect" in str(rows[0])


class Deaf(asyncio.Transport):
    """A transport that only notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Note it."""
        self.written.append(bytes(data))

    def abort(self) -> None:
        """Do nothing."""


async def test_requests_of_one_turn_of_the_loop_leave_together() -> None:
    line, transport = TcpLine(1), Deaf()
    line.connection_made(transport)
    asked = [line.ask(Request(unit_id=unit, function=3, address=0, count=1), ()) for unit in range(1, 9)]
    await asyncio.sleep(0)
    assert [len(data) for data in transport.written] == [12, 7 * 12]
    for data in b"".join(transport.written)[::12], b"".join(transport.written)[6::12]:
        assert len(data) == 8
    assert not any(reply.done() for reply in asked)
    line.connection_lost(None)
    assert all(isinstance(reply.exception(), DeviceError) for reply in asked)


async def test_a_transaction_that_is_under_way_is_not_given_again() -> None:
    line, transport = TcpLine(1), Deaf()
    line.connection_made(transport)
    request = Request(unit_id=1, function=3, address=0, count=1)
    line._transaction = 0xFFFE
    asked = [line.ask(request, ()) for _ in range(2)]
    line._transaction = 0xFFFE
    asked += [line.ask(request, ()) for _ in range(2)]
    await asyncio.sleep(0)
    sent = b"".join(transport.written)
    numbers = [struct.unpack_from(">H", sent, at)[0] for at in range(0, len(sent), 12)]
    assert numbers == [0xFFFF, 1, 2, 3]
    line.connection_lost(None)
    assert all(reply.exception() for reply in asked)


@pytest.mark.parametrize("url", ["rtu+tcp://h:1", "serial:///dev/ttyS0"])
def test_only_modbus_tcp_can_have_a_pipeline(url: str) -> None:
    with pytest.raises(ConfigError, match="pipeline: got 2, want 1"):
        Bus(url, pipeline=2)
