"""Replies that are not the answer: none is ever taken for a value, and none stops the reading for long."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.registers import Limits
from gateway.drivers.modbus import Bus, ModbusDriver
from gateway.drivers.modbus_pdu import Request
from gateway.drivers.modbus_rtu import Late, RtuLine
from gateway.drivers.modbus_tcp import TcpLine
from gateway.errors import DeviceError
from gateway.model import Point, Quality, Row, WireType
from tests.modbus_peers import KINDS, Ask, Peer, driver_of, u16s, word

SERIAL = ["rtu+tcp", "serial"]


def crossed(row: Row, addresses: list[int], unit_id: int = 1) -> list[int]:
    """Return the addresses whose GOOD value is not what stands there."""
    return [
        address
        for address, value in zip(addresses, row.values, strict=True)
        if value is not None and value != word(unit_id, address)
    ]


class LateReplies:
    """A device that answers each fifth request only after the reader has given up, but in order, as devices do."""

    def __init__(self, timeout_s: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._timeout_s = timeout_s
        self.late = 0
        self.requests = 0

    async def answer(self, ask: Ask) -> AsyncIterator[bytes | None]:
        """Answer, or answer too late."""
        self.requests += 1
        if self.requests % 5 == 0:
            self.late += 1
            await asyncio.sleep(self._timeout_s * self._rng.uniform(1.02, 3))
        yield ask.reply()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("tcp", 3000),
        ("rtu+tcp", 1000),
        ("serial", 1500),
        pytest.param("tcp", 100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_late_replies_are_never_taken_for_those_of_later_requests(kind: str, wanted: int) -> None:
    """Each 5th reply comes past the time-out; all requests look alike but for their address and unit."""
    device = LateReplies(0.004, seed=5)
    addresses = [20 * i for i in range(8)]
    good = 0
    async with Peer(device.answer, kind) as peer:
        bus = Bus(peer.url, 0.004)
        drivers = [ModbusDriver(name=f"m{u}", points=u16s(*addresses), bus=bus, unit_id=u) for u in (1, 2)]
        while device.requests < wanted:
            for unit_id, driver in enumerate(drivers, 1):
                try:
                    row = (await driver.poll(samples=False)).row
                except DeviceError:
                    await asyncio.sleep(0.001)
                    continue
                assert crossed(row, addresses, unit_id) == []
                good += sum(value is not None for value in row.values)
        for driver in drivers:
            await driver.close()
    assert device.late > wanted / 10
    assert good > wanted / 10, "and the others are still read"


async def test_a_late_reply_of_one_device_is_not_taken_for_its_neighbours() -> None:
    """On a line of many units, the one that is late answers while the next is being asked."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.unit_id == 1:
            await asyncio.sleep(0.015)
        yield ask.reply()

    async with Peer(answer, "rtu+tcp") as peer:
        bus = Bus(peer.url, 0.01)
        late, prompt = (ModbusDriver(name=f"m{u}", points=u16s(0), bus=bus, unit_id=u) for u in (1, 2))
        for _ in range(30):
            with pytest.raises(DeviceError):
                await late.poll(samples=False)
            try:
                assert (await prompt.poll(samples=False)).row.values == (word(2, 0),)
            except DeviceError:
                continue
        await bus.close()


async def test_a_reply_that_comes_after_a_refusal_that_was_not_believed_is_not_taken_for_another() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        match len(peer.asked):
            case 1:
                return
            case 3:
                yield ask.refusal(2)  # late, to the first
                await asyncio.sleep(0.03)
        yield ask.reply()

    peer = Peer(answer, "rtu+tcp")
    async with peer, driver_of(peer.url, u16s(0, 500), timeout_s=0.1) as driver:
        with pytest.raises(DeviceError):
            await driver.poll(samples=False)
        assert [(a.address, a.count) for a in peer.asked] == [(0, 1), (500, 2), (500, 1)]
        row = await read_until(driver, lambda row: row.qualities is None)
        assert crossed(row, [0, 500]) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_late_replies_out_of_turn_are_not_taken_for_others_either(kind: str) -> None:
    """No serial device does so, but then nothing hangs on that: what is owed is not asked for, but parts of it."""
    rng = random.Random(7)
    addresses = [20 * i + j for i in range(6) for j in range(3)]
    good = late = 0

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        nonlocal late
        if ask.count == 3 and rng.random() < 0.2:
            late += 1
            asyncio.get_running_loop().call_later(rng.uniform(0.005, 0.03), peer.push, ask.reply())
        else:
            yield ask.reply()

    peer = Peer(answer, kind)
    async with peer, driver_of(peer.url, u16s(*addresses), timeout_s=0.004) as driver:
        while len(peer.asked) < 800:
            try:
                row = (await driver.poll(samples=False)).row
            except DeviceError:
                await asyncio.sleep(0.001)
                continue
            assert crossed(row, addresses) == []
            good += sum(value is not None for value in row.values)
        await asyncio.sleep(0.04)
    assert late > 20
    assert good > 600


async def test_a_block_whose_reply_is_owed_is_read_in_parts_until_it_has_come() -> None:
    late: list[bytes] = []

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) == 1:
            late.append(ask.reply())
        else:
            yield ask.reply()

    peer = Peer(answer, "rtu+tcp")
    async with peer, driver_of(peer.url, u16s(0, 1, 2), timeout_s=0.1) as driver:
        with pytest.raises(DeviceError, match=r"no reply in 0\.1 s"):
            await driver.poll(samples=False)
        for _ in range(2):
            assert (await driver.poll(samples=False)).row.qualities is None
        assert [a.count for a in peer.asked] == [3, 1, 2, 1, 2]
        peer.push(late[0])
        await asyncio.sleep(0.02)
        assert (await driver.poll(samples=False)).row.qualities is None
        assert [a.count for a in peer.asked] == [3, 1, 2, 1, 2, 3]


async def test_a_block_whose_reply_never_comes_is_read_whole_again_after_a_while() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) > 1:
            yield ask.reply()

    peer = Peer(answer, "rtu+tcp")
    async with peer, driver_of(peer.url, u16s(0, 1, 2), timeout_s=0.1) as driver:
        with pytest.raises(DeviceError):
            await driver.poll(samples=False)
        await asyncio.sleep(1.05)
        assert (await driver.poll(samples=False)).row.qualities is None
        assert [a.count for a in peer.asked] == [3, 3]


async def test_a_block_without_parts_is_asked_behind_a_fence() -> None:
    """A read of another size, whose reply shows that nothing older can follow."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) == 1:
            await asyncio.sleep(0.13)
        yield ask.reply()

    peer = Peer(answer, "rtu+tcp")
    point = Point(name="kwh", function=3, address=8, type=WireType.U32)
    async with peer, driver_of(peer.url, [point], timeout_s=0.1) as driver:
        with pytest.raises(DeviceError, match=r"no reply in 0\.1 s"):
            await driver.poll(samples=False)
        for _ in range(2):
            assert (await driver.poll(samples=False)).row.values == (word(1, 8) << 16 | word(1, 9),)
        assert [(a.address, a.count) for a in peer.asked] == [(8, 2), (8, 1), (8, 2), (8, 2)]


async def test_a_single_register_is_fenced_by_reading_the_next_one_along() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) > 1:
            yield ask.reply() if ask.count == 1 else ask.refusal(2)  # which is as good as any other answer

    peer = Peer(answer, "rtu+tcp")
    async with peer, driver_of(peer.url, u16s(8), timeout_s=0.1) as driver:
        with pytest.raises(DeviceError, match="no reply"):
            await driver.poll(samples=False)
        assert (await driver.poll(samples=False)).row.values == (word(1, 8),)
        assert [(a.address, a.count) for a in peer.asked] == [(8, 1), (8, 2), (8, 1)]


async def test_a_single_register_that_nothing_may_be_read_along_with_is_left_alone_while_a_reply_is_owed() -> None:
    """A fence is a request like any other: it keeps the limits."""
    late: list[bytes] = []

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) == 1:
            late.append(ask.reply())
        else:
            yield ask.reply()

    peer = Peer(answer, "rtu+tcp")
    limits = Limits(never=((3, 9, 9),))
    async with peer, driver_of(peer.url, u16s(8), timeout_s=0.1, limits=limits) as driver:
        for why in ("no reply", "left alone", "left alone"):
            with pytest.raises(DeviceError, match=why):
                await driver.poll(samples=False)
        peer.push(late[0])
        await asyncio.sleep(0.02)
        assert (await driver.poll(samples=False)).row.values == (word(1, 8),)
        assert [(a.address, a.count) for a in peer.asked] == [(8, 1), (8, 1)]


async def test_a_late_refusal_does_not_make_registers_absent() -> None:
    """It may be the answer to an earlier request, so it is not believed."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) != 1:
            yield ask.refusal(2) if len(peer.asked) == 2 else ask.reply()

    peer = Peer(answer, "rtu+tcp")
    async with peer, driver_of(peer.url, u16s(0, 1, 500), timeout_s=0.1) as driver:
        with pytest.raises(DeviceError, match="no reply"):
            await driver.poll(samples=False)
        assert (await driver.poll(samples=False)).row.qualities is None


async def test_a_reply_with_another_transaction_is_dropped_and_the_right_one_awaited() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        wrong = bytes([3, 2, 0xDE, 0xAD])
        yield ask.frame(wrong, transaction=ask.transaction ^ 1) + ask.frame(wrong, transaction=0)
        await asyncio.sleep(0.01)
        yield ask.reply()

    async with Peer(answer) as peer, driver_of(peer.url, u16s(4)) as driver:
        for _ in range(3):
            assert (await driver.poll(samples=False)).row.values == (word(1, 4),)
        assert peer.accepted == 1


async def test_only_replies_with_another_transaction_end_at_the_time_out() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        for _ in range(3):
            yield ask.frame(bytes([3, 2, 0xDE, 0xAD]), transaction=ask.transaction + 1)

    async with Peer(answer) as peer, driver_of(peer.url, u16s(4), timeout_s=0.05) as driver:
        with pytest.raises(DeviceError, match=r"no reply in 0\.05 s, 3 replies to other transactions"):
            await driver.poll(samples=False)


def wrong_unit(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function, len(ask.payload)]) + ask.payload, unit_id=ask.unit_id + 1)


def wrong_function(ask: Ask) -> bytes:
    return ask.frame(bytes([4, len(ask.payload)]) + ask.payload)


def one_for_two(ask: Ask) -> bytes:
    return ask.reply(ask.payload[:2])


def three_for_two(ask: Ask) -> bytes:
    return ask.reply(ask.payload + b"\0\1")


def count_of_more(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function, len(ask.payload) + 2]) + ask.payload)


def count_of_less(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function, len(ask.payload) - 2]) + ask.payload)


def no_bytes(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function, 0]))


def another_refusal(ask: Ask) -> bytes:
    return ask.frame(bytes([0x84, 2]))


def long_refusal(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function | 0x80, 2, 0]))


def nothing_but_a_function(ask: Ask) -> bytes:
    return ask.frame(bytes([ask.function]))


def an_echo(ask: Ask) -> bytes:
    return ask.raw


WRONG = [
    wrong_unit,
    wrong_function,
    one_for_two,
    three_for_two,
    count_of_more,
    count_of_less,
    no_bytes,
    another_refusal,
    long_refusal,
    nothing_but_a_function,
    an_echo,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_reply_to_another_question_is_no_value(wrong: object, kind: str) -> None:
    """Pymodbus's client takes some of these for good; what follows a wrong reply is read rightly again."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield wrong(ask) if ask.address in {500, 501} and spoil else ask.reply()  # type: ignore[operator]

    spoil = True
    addresses = [0, 1, 500, 501, 900, 901]
    others = (word(1, 0), word(1, 1), word(1, 900), word(1, 901))
    async with Peer(answer, kind) as peer, driver_of(peer.url, u16s(*addresses), timeout_s=0.1) as driver:
        row = await read_until(driver, lambda row: row.values[:2] + row.values[4:] == others)
        assert crossed(row, addresses) == []
        assert row.values[2] is None or wrong is one_for_two, "of a part, one for two is the right one"
        assert "FC3 50" in row.status
        spoil = False
        row = await read_until(driver, lambda row: row.qualities is None)
        assert crossed(row, addresses) == []


async def read_until(driver: ModbusDriver, good: Callable[[Row], bool]) -> Row:
    """Poll until a row is as it should be: on a busy machine even an honest reply may come too late."""
    for _ in range(20):
        try:
            row = (await driver.poll(samples=False)).row
        except DeviceError:
            await asyncio.sleep(0.02)
            continue
        if good(row):
            return row
    pytest.fail("it never came")


@pytest.mark.parametrize("wrong", [wrong_unit, wrong_function, one_for_two, three_for_two, an_echo])
async def test_a_wrong_reply_ends_the_connection(wrong: object) -> None:
    """Nothing that comes after it on that connection can then be taken for a later reply."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if len(peer.asked) > 1:
            yield ask.reply()
        else:
            yield wrong(ask)  # type: ignore[operator]
            yield ask.reply()

    peer = Peer(answer)
    async with peer, driver_of(peer.url, u16s(0, 1)) as driver:
        with pytest.raises(DeviceError, match=r"wrong reply|not Modbus"):
            await driver.poll(samples=False)
        assert (await driver.poll(samples=False)).row.qualities is None
        assert peer.accepted == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reply_that_comes_byte_by_byte_is_put_together(kind: str) -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        for byte in ask.reply():
            yield bytes([byte])
            await asyncio.sleep(0)

    addresses = list(range(30))
    async with Peer(answer, kind) as peer, driver_of(peer.url, u16s(*addresses)) as driver:
        for _ in range(5):
            row = (await driver.poll(samples=False)).row
            assert (crossed(row, addresses), row.qualities) == ([], None)


@pytest.mark.parametrize("kind", ["tcp", "rtu+tcp"])
@pytest.mark.parametrize("sent", [0, 1, 4, 7, 10])
async def test_a_device_that_hangs_up_in_the_middle_gives_an_error_and_then_works(kind: str, sent: int) -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if peer.accepted == 1:
            yield ask.reply()[:sent]
            yield None
        yield ask.reply()

    peer = Peer(answer, kind)
    async with peer, driver_of(peer.url, u16s(0, 1, 2), timeout_s=3) as driver:
        started = time.monotonic()
        with pytest.raises(DeviceError, match="connection closed"):
            await driver.poll(samples=False)
        assert time.monotonic() - started < 2, "there is nothing to wait for"
        assert (await driver.poll(samples=False)).row.qualities is None


async def test_a_connection_that_is_lost_while_the_line_settles_is_an_error_at_once() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.address == 0:
            yield ask.reply()

    async with Peer(answer, "rtu+tcp") as peer, driver_of(peer.url, u16s(0, 500), timeout_s=1) as driver:
        assert (await driver.poll(samples=False)).row.values == (word(1, 0), None)
        poll = asyncio.create_task(driver.poll(samples=False))
        await asyncio.sleep(0)
        started = time.monotonic()
        await peer.__aexit__()
        with pytest.raises(DeviceError, match="connection closed"):
            await poll
        assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("kind", SERIAL)
async def test_noise_around_a_serial_reply_does_no_harm(kind: str) -> None:
    rng = random.Random(3)

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield rng.randbytes(rng.randint(0, 9)) + ask.reply()[: rng.randint(0, 6)]
        yield ask.reply() + rng.randbytes(rng.randint(0, 9))

    addresses = [0, 40, 80, 120]
    async with Peer(answer, kind) as peer, driver_of(peer.url, u16s(*addresses)) as driver:
        for _ in range(50):
            row = (await driver.poll(samples=False)).row
            assert (crossed(row, addresses), row.qualities) == ([], None)


@pytest.mark.parametrize("kind", SERIAL)
async def test_a_serial_reply_with_any_flipped_bit_is_no_value(kind: str) -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        frame = bytearray(ask.reply())
        bit = len(peer.asked) % (8 * len(frame))
        frame[bit // 8] ^= 1 << bit % 8
        yield bytes(frame)

    peer = Peer(answer, kind)
    async with peer, driver_of(peer.url, u16s(0, 1), timeout_s=0.002) as driver:
        for _ in range(80):
            with pytest.raises(DeviceError):
                await driver.poll(samples=False)


@pytest.mark.parametrize("kind", ["tcp", "rtu+tcp"])
async def test_a_device_that_never_stops_talking_ends_at_the_time_out(kind: str) -> None:
    """Whatever it says, and however much: the time and the memory are bounded."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        chunk = ask.frame(bytes([ask.function, 8]) + bytes(8), transaction=ask.transaction ^ 7) * 50
        while True:
            yield chunk
            await asyncio.sleep(0)

    async with Peer(answer, kind) as peer, driver_of(peer.url, u16s(0, 1), timeout_s=0.1) as driver:
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(DeviceError):
                await driver.poll(samples=False)
        assert time.monotonic() - started < 3


GARBAGE = st.binary(min_size=1, max_size=40)
SPOILT = st.one_of(
    st.tuples(st.just("garbage"), GARBAGE),
    st.tuples(st.just("cut"), st.integers(0, 12)),
    st.tuples(st.just("head"), st.tuples(st.integers(0, 8), st.integers(1, 255))),
    st.tuples(st.just("other"), st.integers(1, 65535)),
    st.tuples(st.just("refused"), st.integers(0, 255)),
    st.tuples(st.just("good"), st.none()),
)


def spoilt(ask: Ask, how: str, what: object) -> bytes:
    """Return a reply gone wrong. The values in it are left alone: on TCP nothing but the kernel guards those."""
    frame = bytearray(ask.reply())
    match how, what:
        case "garbage", bytes() as noise:
            return noise
        case "cut", int() as size:
            return bytes(frame[:size])
        case "head", (int() as at, int() as flip):
            frame[at if not ask.rtu else at % 3] ^= flip
        case "other", int() as more if not ask.rtu:
            return ask.frame(bytes([ask.function, 2, 0, 9]), transaction=(ask.transaction + more) % 65536)
        case "refused", int() as code:
            return ask.refusal(code)
    return bytes(frame)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(script=st.lists(st.lists(SPOILT, max_size=3), min_size=1, max_size=5))
def test_whatever_a_device_replies_no_value_is_wrong_and_good_replies_are_read_again(
    kind: str, script: list[list[tuple[str, object]]]
) -> None:
    addresses = [0, 1, 2, 500]

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        for how, what in script[len(peer.asked) - 1] if len(peer.asked) <= len(script) else [("good", None)]:
            yield spoilt(ask, how, what)
            if how == "cut" or (ask.rtu and how in {"good", "other", "refused"}):
                # What follows a cut reply would stand where values belong; and on a serial line nothing whatever
                # tells a reply that is sent twice from that to the next request.
                return

    async def run() -> None:
        async with peer, driver_of(peer.url, u16s(*addresses), timeout_s=0.04, recheck_s=0) as driver:
            for attempt in range(12):
                started = time.monotonic()
                try:
                    row = (await driver.poll(samples=False)).row
                except DeviceError as e:
                    row = None
                    if "cannot connect" in str(e):  # a busy machine; then it waits before it tries again
                        await asyncio.sleep(0.1)
                assert time.monotonic() - started < 3, "no hang, be the machine ever so busy"
                assert row is None or crossed(row, addresses) == []
                if row is not None and row.qualities is None and attempt >= len(script):
                    return
            pytest.fail("good replies are not read again")

    peer = Peer(answer, kind)
    asyncio.run(run())


class Deaf(asyncio.Transport):
    """A transport that takes everything and says nothing."""

    def write(self, data: object) -> None:
        """Forget it."""

    def abort(self) -> None:
        """Stay as it is."""


@pytest.mark.parametrize("line_type", [TcpLine, RtuLine])
@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.binary(max_size=300), max_size=20))
def test_no_bytes_whatever_crash_a_line(line_type: type, chunks: list[bytes]) -> None:
    request = Request(unit_id=1, function=3, address=0, count=2)

    async def run() -> None:
        line: TcpLine | RtuLine
        line = TcpLine(0.001) if line_type is TcpLine else RtuLine(0.001, gap_s=0, quiet_s=0, late=Late(1))
        line.connection_made(Deaf())
        asked = asyncio.ensure_future(line.ask(request, ()))
        await asyncio.sleep(0)
        for chunk in chunks:
            line.data_received(chunk)
        with pytest.raises(DeviceError):
            await asked
        line.data_received(b"\0" * 9)
        line.connection_lost(None)

    asyncio.run(run())


async def test_a_serial_line_that_babbles_is_not_listened_to_any_longer() -> None:
    line = RtuLine(5, gap_s=0, quiet_s=0, late=Late(1))
    line.connection_made(Deaf())
    asked = asyncio.create_task(line.ask(Request(unit_id=1, function=3, address=0, count=125), ()))
    await asyncio.sleep(0)
    started = time.monotonic()
    for _ in range(1000):
        line.data_received(b"\1\3\xfa" * 100)
    with pytest.raises(DeviceError, match="not Modbus RTU: 01 03 fa"):
        await asked
    assert time.monotonic() - started < 4
    assert len(line._buffer) < 4096


def test_the_old_connection_is_gone_before_there_is_a_new_one() -> None:
    """A device with one socket would refuse the second."""
    overlaps = []

    def device(listener: socket.socket) -> None:
        for _ in range(20):
            old, _ = listener.accept()
            old.sendall(old.recv(12))  # an echo is a wrong reply
            new, _ = listener.accept()
            try:
                overlaps.append(old.recv(1, socket.MSG_DONTWAIT) != b"")
            except BlockingIOError:
                overlaps.append(True)
            new.sendall(new.recv(12))
            old.close()
            new.recv(1)
            new.close()

    async def run(url: str) -> None:
        for _ in range(20):
            async with driver_of(url, u16s(0, 500)) as driver:
                with pytest.raises(DeviceError, match="wrong reply"):
                    await driver.poll(samples=False)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=device, args=(listener,))
        thread.start()
        asyncio.run(run(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join(5)
    assert overlaps == [False] * 20


async def test_a_reply_cut_short_is_not_completed_by_the_next_one() -> None:
    """The rest of a cut reply never comes; the connection is given up with it."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply()[: 10 if len(peer.asked) == 1 else None]

    peer = Peer(answer)
    async with peer, driver_of(peer.url, u16s(0, 500), timeout_s=0.2) as driver:
        row = (await driver.poll(samples=False)).row
        assert row.values == (None, word(1, 500))
        assert row.status == "FC3 0+1: no reply in 0.2 s, but 00 01 00 00 00 05 01 03 02 01"
        assert (await driver.poll(samples=False)).row.qualities is None
        assert peer.accepted == 2


async def test_a_row_of_a_fuzzed_device_says_what_was_wrong() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield wrong_unit(ask) if ask.address else ask.reply()

    async with Peer(answer) as peer, driver_of(peer.url, u16s(0, 500)) as driver:
        row = (await driver.poll(samples=False)).row
    assert row.qualities == (Quality.GOOD, Quality.BAD)
    assert row.status == "FC3 500+1: wrong reply: unit 2, asked 1"
