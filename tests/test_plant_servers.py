"""The plant's servers: stock clients, refusals, odd segments, hostile replies, benchmark meters."""

import asyncio
import struct
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from hil.plant import Hostile, Plant, serve, serve_serial
from hil.plant.bench import Bench, origin, serve_bench
from hil.plant.modbus import crc


class Clock:
    """A clock that only a test moves."""

    s = 1000.0

    def __call__(self) -> float:
        """Return its seconds."""
        return self.s


def a_plant() -> tuple[Plant, Clock]:
    clock = Clock()
    return Plant(clock=clock, noise=0.0), clock


async def exchange(port: int, frame: bytes, size: int, *, timeout_s: float = 5) -> bytes:
    """Send a frame and return size bytes of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(frame)
        return await asyncio.wait_for(reader.readexactly(size), timeout_s)
    finally:
        writer.close()
        await writer.wait_closed()


def mbap(pdu: bytes, *, unit: int = 1, transaction: int = 7) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def read_pdu(function: int, address: int, count: int) -> bytes:
    return struct.pack(">BHH", function, address, count)


async def test_a_stock_client_reads_all_units_over_tcp() -> None:
    plant, clock = a_plant()
    clock.s += 3600
    async with serve(plant) as server, AsyncModbusTcpClient("127.0.0.1", port=server.port) as client:
        words = (await client.read_input_registers(0x0034, count=2, device_id=1)).registers
        assert struct.unpack(">f", struct.pack(">2H", *words)) == pytest.approx((302_272.7,), rel=1e-6)
        words = (await client.read_holding_registers(0x5000, count=4, device_id=2)).registers
        assert struct.unpack(">Q", struct.pack(">4H", *words)) == (18_500_000 + 42_000,)
        words = (await client.read_holding_registers(3059, count=2, device_id=3)).registers
        assert struct.unpack(">f", struct.pack(">2H", *words)) == (60.0,)
        words = (await client.read_holding_registers(0x5B14, count=2, device_id=4)).registers
        assert struct.unpack(">i", struct.pack(">2H", *words)) == (24_000_000,)
        words = (await client.read_holding_registers(0, count=6, device_id=5)).registers
        assert struct.unpack(">2I2H", struct.pack(">6H", *words)) == (120_600, 120_612, 6, 1)
        assert (await client.read_coils(0, count=1, device_id=5)).bits[0]


async def test_each_unit_may_have_a_port_of_its_own() -> None:
    plant, _ = a_plant()
    async with serve(plant, ports="each") as server:
        assert [line["units"] for line in server.listening()] == [[1], [2], [3], [4], [5]]
        assert len(set(server.ports)) == 5
        async with AsyncModbusTcpClient("127.0.0.1", port=server.ports[4]) as client:
            assert (await client.read_holding_registers(5, count=1, device_id=5)).registers == [1]
            assert (await client.read_holding_registers(5, count=1, device_id=4)).exception_code == 0x0B


async def test_a_stock_client_reads_rtu_over_tcp() -> None:
    plant, _ = a_plant()
    async with (
        serve(plant, framing="rtu") as server,
        AsyncModbusTcpClient("127.0.0.1", port=server.port, framer=FramerType.RTU) as client,
    ):
        assert (await client.read_holding_registers(4, count=2, device_id=5)).registers == [6, 1]
        assert (await client.read_holding_registers(99, count=2, device_id=5)).exception_code == 2


async def test_a_stock_client_reads_the_serial_line(tmp_path: Path) -> None:
    plant, _ = a_plant()
    path = tmp_path / "line"
    async with serve_serial(plant, path):
        client = AsyncModbusSerialClient(str(path), timeout=5)
        assert await client.connect()
        try:
            for _ in range(3):
                assert (await client.read_holding_registers(4, count=2, device_id=5)).registers == [6, 1]
        finally:
            client.close()
    assert not path.is_symlink()


async def test_rtu_stays_silent_on_a_wrong_crc_and_answers_the_next_frame() -> None:
    plant, _ = a_plant()
    good = b"\x05" + read_pdu(3, 4, 2)
    good += crc(good).to_bytes(2, "little")
    async with serve(plant, framing="rtu") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(good[:-1] + bytes((good[-1] ^ 1,)))
        await asyncio.sleep(0.05)
        writer.write(b"\x05\x03\x00")  # never finished
        await asyncio.sleep(0.25)
        writer.write(good)
        assert (await asyncio.wait_for(reader.readexactly(9), 5))[:7] == b"\x05\x03\x04\x00\x06\x00\x01"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("pdu", "unit", "wanted"),
    [
        (struct.pack(">BHH", 6, 4, 1), 5, b"\x86\x01"),
        (struct.pack(">BHHB", 16, 4, 1, 2) + b"\0\1", 5, b"\x90\x01"),
        (b"\x2b\x0e\x01\x00", 5, b"\xab\x01"),
        (read_pdu(3, 0x34, 2), 1, b"\x83\x01"),
        (read_pdu(1, 0, 1), 1, b"\x81\x01"),
        (read_pdu(3, 15, 2), 5, b"\x83\x02"),
        (read_pdu(3, 65535, 2), 5, b"\x83\x02"),
        (read_pdu(4, 0x5000, 2), 1, b"\x84\x02"),
        (read_pdu(2, 1, 1), 5, b"\x82\x02"),
        (read_pdu(3, 0, 0), 5, b"\x83\x03"),
        (read_pdu(3, 0, 126), 5, b"\x83\x03"),
        (read_pdu(1, 0, 2001), 5, b"\x81\x03"),
        (b"\x03\x00", 5, b"\x83\x03"),
        (read_pdu(3, 0, 1), 77, b"\x83\x0b"),
    ],
)
async def test_what_cannot_be_read_is_refused_as_the_standard_says(pdu: bytes, unit: int, wanted: bytes) -> None:
    plant, _ = a_plant()
    async with serve(plant) as server:
        assert await exchange(server.port, mbap(pdu, unit=unit), 9) == mbap(wanted, unit=unit)


async def test_what_is_no_modbus_ends_the_connection() -> None:
    plant, _ = a_plant()
    async with serve(plant) as server:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", struct.pack(">HHHBB", 1, 0, 1, 1, 3)):
            with pytest.raises(asyncio.IncompleteReadError):
                await exchange(server.port, junk, 1)


async def test_requests_may_come_in_one_segment_or_byte_by_byte() -> None:
    plant, _ = a_plant()
    requests = b"".join(mbap(read_pdu(3, 4, 2), unit=5, transaction=i) for i in range(20))
    replies = b"".join(mbap(b"\x03\x04\0\6\0\1", unit=5, transaction=i) for i in range(20))
    async with serve(plant) as server:
        assert await exchange(server.port, requests, len(replies)) == replies
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in requests[:25]:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert await asyncio.wait_for(reader.readexactly(26), 5) == replies[:26]
        writer.close()
        await writer.wait_closed()


async def test_a_dead_meter_is_silent_and_the_others_are_not() -> None:
    plant, _ = a_plant()
    both = mbap(read_pdu(3, 3059, 2), unit=3) + mbap(read_pdu(3, 5, 1), unit=5)
    async with serve(plant) as server:
        plant.do("kill 3")
        assert plant.truth().dead == [3]
        assert await exchange(server.port, both, 11) == mbap(b"\x03\x02\0\1", unit=5)
        with pytest.raises(TimeoutError):
            await exchange(server.port, both, 12, timeout_s=0.2)
        plant.do("revive 3")
        assert (await exchange(server.port, both, 24))[:9] == mbap(b"\x03\x04" + b"\0" * 4, unit=3)[:9]


# --- hostile


def test_a_hostile_list_is_read_or_refused_by_name() -> None:
    assert Hostile.parse("late-every=5:2.0,cap=50,wrong-unit=0.01,one-socket,bytewise=1:0.002") == Hostile(
        late_every=5, late_s=2.0, cap=50, wrong_unit=0.01, one_socket=True, bytewise=1, byte_s=0.002
    )
    with pytest.raises(ValueError, match="got 'evil', want one of"):
        Hostile.parse("evil=1")


async def misbehave(hostile: Hostile, size: int, pdu: bytes = read_pdu(3, 4, 2)) -> bytes:
    plant, _ = a_plant()
    async with serve(plant, hostile=hostile) as server:
        return await exchange(server.port, mbap(pdu, unit=5), size, timeout_s=1)


async def test_hostile_replies_are_wrong_in_the_way_they_were_asked_to_be() -> None:
    right = mbap(b"\x03\x04\0\6\0\1", unit=5)
    assert await misbehave(Hostile(wrong_unit=1), 13) == right[:6] + b"\x06" + right[7:]
    assert await misbehave(Hostile(wrong_transaction=1), 13) == b"\0\x08" + right[2:]
    assert await misbehave(Hostile(wrong_function=1), 13) == right[:7] + b"\x04" + right[8:]
    assert await misbehave(Hostile(busy=1), 9) == mbap(b"\x83\x06", unit=5)
    assert await misbehave(Hostile(cap=1), 9) == mbap(b"\x83\x02", unit=5)
    assert await misbehave(Hostile(cap=2), 13) == right
    assert await misbehave(Hostile(bytewise=1), 13) == right
    lengths = {await misbehave(Hostile(wrong_length=1, seed=seed), 9) for seed in range(8)}
    assert lengths == {mbap(b"\x03\x02\0\6", unit=5)[:9], right[:8] + b"\x06"}
    with pytest.raises(TimeoutError):
        await misbehave(Hostile(drop=1), 1)
    with pytest.raises(asyncio.IncompleteReadError) as cut:
        await misbehave(Hostile(close=1), 13)
    assert cut.value.partial == right[:6]


async def test_hostile_late_replies_come_out_of_turn() -> None:
    plant, _ = a_plant()
    requests = b"".join(mbap(read_pdu(3, 4, 2), unit=5, transaction=i) for i in range(1, 5))
    async with serve(plant, hostile=Hostile(late_every=2, late_s=0.1)) as server:
        replies = await exchange(server.port, requests, 4 * 13)
    assert [struct.unpack_from(">H", replies, 13 * i)[0] for i in range(4)] == [1, 3, 2, 4]


async def test_hostile_one_socket_closes_the_second() -> None:
    plant, _ = a_plant()
    async with serve(plant, hostile=Hostile(one_socket=True)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(mbap(read_pdu(3, 4, 2), unit=5))
        await reader.readexactly(13)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await exchange(server.port, mbap(read_pdu(3, 4, 2), unit=5), 1)
        writer.write(mbap(read_pdu(3, 4, 2), unit=5))
        await asyncio.wait_for(reader.readexactly(13), 5)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert await exchange(server.port, mbap(read_pdu(3, 4, 2), unit=5), 13)


async def test_hostile_serial_line_spoils_the_crc() -> None:
    plant, _ = a_plant()
    request = b"\x05" + read_pdu(3, 4, 2)
    request += crc(request).to_bytes(2, "little")
    async with serve(plant, framing="rtu", hostile=Hostile(wrong_crc=1)) as server:
        reply = await exchange(server.port, request, 9)
    assert crc(reply) != 0
    assert reply[:7] == b"\x05\x03\x04\0\6\0\1"


async def test_hostility_is_repeatable() -> None:
    requests = b"".join(mbap(read_pdu(3, 4, 2), unit=5, transaction=i) for i in range(200))
    runs = []
    for _ in range(2):
        plant, _ = a_plant()
        async with serve(plant, hostile=Hostile(wrong_unit=0.1, wrong_transaction=0.1, seed=9)) as server:
            runs.append(await exchange(server.port, requests, 13 * 200))
    assert runs[0] == runs[1]
    assert 10 < sum(runs[0][13 * i + 6] != 5 for i in range(200)) < 40


# --- benchmark meters


async def test_bench_meters_say_whose_value_it_is_and_change() -> None:
    bench = Bench(meters=5)
    async with serve_bench(bench, ports=2, change_s=0.2) as server:
        assert [line["units"] for line in server.listening()] == [[1, 2], [1, 2, 3]]
        seen = []
        for _ in range(2):
            for _ in range(2):  # the second time from ready-made replies
                raw = (await exchange(server.ports[1], mbap(read_pdu(3, 0, 120), unit=2), 249))[9:]
            found = [origin(value) for value in struct.unpack(">60f", raw)]
            assert [(meter, index) for meter, index, _ in found] == [(3, index) for index in range(60)]
            seen.append(found[0][2])
            await asyncio.sleep(0.3)
        assert seen[1] > seen[0]
        part = await exchange(server.ports[0], mbap(read_pdu(4, 118, 2), unit=1), 13)
        assert origin(struct.unpack(">f", part[9:])[0])[:2] == (0, 59)
        assert (await exchange(server.port, mbap(read_pdu(3, 118, 3)), 9))[7:] == b"\x83\x02"
        assert (await exchange(server.port, mbap(read_pdu(3, 0, 126)), 9))[7:] == b"\x83\x03"
        assert (await exchange(server.port, mbap(read_pdu(1, 0, 16)), 11))[8:9] == b"\x02"


@pytest.mark.parametrize("change_s", [60, 0.003])
async def test_pipelined_bench_replies_keep_their_transactions_through_a_change(change_s: float) -> None:
    requests = b"".join(mbap(read_pdu(3, 0, 120), unit=1 + i % 3, transaction=i) for i in range(300))
    async with serve_bench(Bench(meters=3), change_s=change_s) as server:
        for _ in range(20):
            replies = await exchange(server.port, requests, 249 * 300)
            for i in range(300):
                transaction, unit, first = struct.unpack_from(">H4xBxxf", replies, 249 * i)
                assert (transaction, unit, origin(first)[0]) == (i, 1 + i % 3, i % 3)
