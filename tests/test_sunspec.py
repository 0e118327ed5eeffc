"""SunSpec: what a device does not implement is BAD for every type, and its models are found by asking it."""

import asyncio
import contextlib
import json
import math
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from sunspec2 import mb, mdef

from gateway.cli import run
from gateway.codec.planner import Limits, plan, width
from gateway.codec.registers import Decoder, exact
from gateway.codec.sunspec import MEASURING, NO_POINT, Model, direction_of, points_of, size_of
from gateway.config import ModbusTemplate, parse_template
from gateway.config import points_of as points_of_template
from gateway.config.lint import Level, lint, overlaps
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.sunspec import definition_of, points_of_models, scan_sunspec, template_of
from gateway.errors import DeviceError
from gateway.model import Kind, Point, Quality, WireType
from tests.modbus_peers import Answer, Ask, Peer, driver_of

# SunSpec Device Information Model Specification V1.1, 4.2: written down again here, to prove the table of ours by it.
NOT_IMPLEMENTED = {
    "int16": "8000",
    "uint16": "ffff",
    "count": "ffff",
    "acc16": "0000",
    "enum16": "ffff",
    "bitfield16": "ffff",
    "int32": "80000000",
    "uint32": "ffffffff",
    "acc32": "00000000",
    "enum32": "ffffffff",
    "bitfield32": "ffffffff",
    "ipaddr": "00000000",
    "int64": "8000000000000000",
    "uint64": "ffffffffffffffff",
    "acc64": "0000000000000000",
    "float32": "7fc00000",
    "float64": "7ff8000000000000",
    "string": "0000000000000000",
    "sunssf": "8000",
    "eui48": "0000ffffffffffff",
}
IMPLEMENTED: Mapping[str, tuple[str, Any]] = {
    "int16": ("fffe", -2),
    "uint16": ("8000", 32768),
    "count": ("0003", 3),
    "acc16": ("ffff", 65535),
    "enum16": ("0004", 4),
    "bitfield16": ("7fff", 32767),
    "int32": ("ffffffff", -1),
    "uint32": ("80000000", 2**31),
    "acc32": ("ffffffff", 2**32 - 1),
    "enum32": ("00000001", 1),
    "bitfield32": ("7fffffff", 2**31 - 1),
    "ipaddr": ("c0000201", 0xC0000201),
    "int64": ("ffffffffffffffff", -1),
    "uint64": ("8000000000000000", 2**63),
    "acc64": ("0000000000000001", 1),
    "float32": ("3fc00000", 1.5),
    "float64": ("3ff8000000000000", 1.5),
    "string": ("4142000000000000", "AB"),
    "sunssf": ("fffe", -2),
    "eui48": ("0000020000000001", 0x020000000001),
}


def definition(kind: str, **more: Any) -> dict[str, Any]:
    """Return a model with a single point X behind its header."""
    head = [{"name": "ID", "type": "uint16", "size": 1}, {"name": "L", "type": "uint16", "size": 1}]
    size = 4 if kind == "string" else mb.point_type_info[kind].len
    return {"id": 9, "group": {"name": "m", "points": [*head, {"name": "X", "type": kind, "size": size, **more}]}}


def decoded(kind: str, raw: bytes) -> tuple[Any, Quality, Point]:
    (point,) = points_of(definition(kind), Model(id=9, address=40000, length=100))
    (block,) = plan([point], Limits())
    values, qualities = Decoder([point], [block]).decode([raw])
    return values[0], Quality.GOOD if qualities is None else qualities[0], point


def test_every_sunspec_type_has_its_pattern_in_these_tests() -> None:
    assert set(NOT_IMPLEMENTED) == set(IMPLEMENTED) == set(mdef_types()) - NO_POINT


def mdef_types() -> set[str]:
    return set(mdef.point_type_info)


@pytest.mark.parametrize("kind", NOT_IMPLEMENTED)
def test_what_a_device_does_not_implement_is_bad_and_never_a_number(kind: str) -> None:
    raw = bytes.fromhex(NOT_IMPLEMENTED[kind])
    value, quality, point = decoded(kind, raw)
    assert (value, quality) == (None, Quality.BAD)
    if point.type is not WireType.STRING:
        assert exact(point, raw) is None


@pytest.mark.parametrize("kind", NOT_IMPLEMENTED)
def test_the_patterns_are_those_of_the_alliances_own_library(kind: str) -> None:
    """Pysunspec2 makes the pattern of each type itself: that is BAD too."""
    value, quality, _ = decoded(kind, mb.create_unimpl_value(kind, 8))
    assert (value, quality) == (None, Quality.BAD)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("float32", "7f800000"),
        ("float32", "ffc00001"),
        ("float64", "fff0000000000000"),
        ("bitfield16", "8000"),
        ("bitfield32", "80000000"),
        ("eui48", "0000000000000000"),
        ("eui48", "ffffffffffffffff"),
    ],
)
def test_other_patterns_without_a_value_are_bad_too(kind: str, raw: str) -> None:
    assert decoded(kind, bytes.fromhex(raw))[:2] == (None, Quality.BAD)


@pytest.mark.parametrize("kind", IMPLEMENTED)
def test_what_a_device_does_implement_is_good(kind: str) -> None:
    """The patterns of one type are good values of others."""
    raw, expected = IMPLEMENTED[kind]
    value, quality, _ = decoded(kind, bytes.fromhex(raw))
    assert (value, quality) == (expected, Quality.GOOD)


@pytest.mark.parametrize("kind", sorted(NO_POINT))
def test_padding_and_ipv6_addresses_make_no_point(kind: str) -> None:
    assert points_of(definition(kind), Model(id=9, address=0, length=100)) == ()


@pytest.mark.parametrize("factor", [-32768, 11, -11])
async def test_a_scale_factor_that_is_none_makes_its_values_bad(factor: int) -> None:
    """A value without its scale is a number of unknown size."""
    points = points_of(factored(), Model(id=9, address=0, length=3))
    (block,) = plan(points, Limits())
    values, qualities = Decoder(points, [block]).decode([struct.pack(">hh", 230, factor)])
    assert values[0] is None
    assert qualities is not None
    assert qualities[0] is Quality.BAD


def factored() -> dict[str, Any]:
    found = definition("int16", sf="SF")
    found["group"]["points"].append({"name": "SF", "type": "sunssf", "size": 1})
    return found


def test_a_point_whose_scale_factor_lies_past_the_models_end_is_left_out() -> None:
    assert [p.name for p in points_of(factored(), Model(id=9, address=0, length=2))] == ["x", "sf"]
    assert points_of(factored(), Model(id=9, address=0, length=1)) == ()


def test_a_fixed_scale_factor_becomes_a_scale() -> None:
    (point,) = points_of(definition("int16", sf=-2), Model(id=9, address=0, length=1))
    assert (point.scale, point.scale_point) == (Decimal("0.01"), None)


def all_ids() -> list[int]:
    folder = resources.files("sunspec2").joinpath("models", "json")
    return sorted(int(f.name[6:-5]) for f in folder.iterdir() if f.name.startswith("model_"))


@pytest.mark.parametrize("model_id", all_ids())
def test_every_published_model_becomes_points_at_its_offsets(model_id: int) -> None:
    """Names are unique, registers are not shared, sizes are the definition's."""
    found = definition_of(model_id)
    assert found is not None
    fixed = sum(point["size"] for point in found["group"]["points"])
    last = list(found["group"].get("groups", []))[-1:]
    blocks = sum(point["size"] for g in last for point in g["points"])
    points = points_of(found, Model(id=model_id, address=1000, length=fixed - 2 + 2 * blocks))
    names = [point.name for point in points]
    assert len(set(names)) == len(names)
    assert list(overlaps(points)) == []
    assert {point.scale_point for point in points} - {None} <= set(names)
    assert all(p.address >= 1002 and p.address + width(p) <= 1000 + fixed + 2 * blocks for p in points)
    assert all(size_of(point) == point["size"] for point in found["group"]["points"])


def test_model_203_stands_where_two_public_tables_say() -> None:
    points = {p.name: p for p in points_of_models([Model(id=203, address=0, length=105)])}
    assert (points["m203_w"].address, points["m203_w_sf"].address) == (18, 22)
    assert (points["m203_totwhexp"].address, points["m203_totwhimp"].address) == (38, 46)
    assert points["m203_totwh_sf"].address == 54
    assert points["m203_totwhimp"].kind is Kind.COUNTER
    assert (direction_of("m203_totwhimp"), direction_of("m203_totwhexp")) == ("import", "export")


def test_repeated_blocks_are_as_many_as_the_length_has_room_for() -> None:
    names = [p.name for p in points_of_models([Model(id=160, address=0, length=8 + 2 * 20)])]
    assert "m160_module_2_dcw" in names
    assert "m160_module_3_dcw" not in names


def test_a_second_instance_of_a_model_has_names_of_its_own() -> None:
    models = [Model(id=203, address=0, length=105), Model(id=203, address=200, length=105)]
    names = [point.name for point in points_of_models(models)]
    assert len(set(names)) == len(names)
    assert "m203_2_w" in names


# ---- scans, against a device that answers from an image


def device(base: int, *models: tuple[int, bytes], end: bool = True) -> dict[int, int]:
    """Return the registers of a device: SunS, the models, the end."""
    image = b"SunS" + b"".join(struct.pack(">HH", i, len(body) // 2) + body for i, body in models)
    image += b"\xff\xff\0\0" if end else b""
    return {base + i: word for i, (word,) in enumerate(struct.iter_unpack(">H", image))}


def answering(registers: Mapping[int, int]) -> Answer:
    """Answer from an image, and refuse what lies outside with "Illegal Data Address"."""

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        wanted = range(ask.address, ask.address + ask.count)
        if ask.function == 3 and all(address in registers for address in wanted):
            yield ask.reply(b"".join(struct.pack(">H", registers[address]) for address in wanted))
        else:
            yield ask.refusal(2)

    return answer


def meter() -> bytes:
    """Return the registers of a model 203: 2,345 W, 123,456.7 kWh in, nothing out, no reactive energy."""
    words = [0x8000] * 105
    words[18 - 2] = 2345
    words[22 - 2] = 0
    words[38 - 2 : 40 - 2] = [0, 0]
    words[46 - 2 : 48 - 2] = list(struct.unpack(">HH", struct.pack(">I", 1_234_567)))
    words[54 - 2] = 2
    return struct.pack(">105H", *words)


COMMON = b"Maker".ljust(32, b"\0") + b"Model".ljust(32, b"\0") + bytes(64) + struct.pack(">HH", 1, 0)


async def scanned(registers: Mapping[int, int]) -> tuple[list[Model], Peer]:
    async with Peer(answering(registers)) as peer:
        bus = Bus(peer.url, 1.0)
        try:
            return list(await scan_sunspec(bus, 1)), peer
        finally:
            await bus.close()


@pytest.mark.parametrize("base", [40000, 50000, 0])
async def test_models_are_found_at_each_of_the_three_addresses(base: int) -> None:
    models, peer = await scanned(device(base, (1, COMMON), (203, meter())))
    assert models == [
        Model(id=1, address=base + 2, length=66),
        Model(id=203, address=base + 70, length=105),
    ]
    assert {ask.function for ask in peer.asked} == {3}


async def test_a_list_without_its_end_is_taken_as_it_is() -> None:
    models, _ = await scanned(device(40000, (1, COMMON), end=False))
    assert [model.id for model in models] == [1]


async def test_a_device_without_the_mark_is_none() -> None:
    with pytest.raises(DeviceError, match=r'unit 1 has no "SunS" at 40000, 50000, 0'):
        await scanned({40000: 1, 40001: 2})


async def test_a_list_that_never_ends_is_left_after_a_bounded_number_of_requests() -> None:
    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply(b"SunS" if ask.address == 40000 else b"\0\x09\0\0")

    async with Peer(answer) as peer:
        bus = Bus(peer.url, 1.0)
        with pytest.raises(DeviceError, match="and no end"):
            await scan_sunspec(bus, 1)
        await bus.close()
        assert len(peer.asked) < 300


async def test_a_model_that_leads_past_the_last_register_ends_the_scan() -> None:
    registers = {40000: 0x5375, 40001: 0x6E53, 40002: 9, 40003: 0xFFF0}
    with pytest.raises(DeviceError, match="and no end"):
        await scanned(registers)


async def test_a_host_that_is_not_there_fails_at_once() -> None:
    bus = Bus("tcp://127.0.0.1:1", 0.5)
    with pytest.raises(DeviceError, match="cannot connect"):
        await scan_sunspec(bus, 1)


async def test_a_scan_becomes_a_template_that_reads_the_device_rightly() -> None:
    """Energies exact, scale factors applied, and what the device does not implement BAD."""
    registers = device(40000, (1, COMMON), (203, meter()), (120, bytes(52)))
    models, _ = await scanned(registers)
    text = template_of(models)
    assert "# model 120 at 40177, 26 registers: Nameplate (not read)" in text
    template = parse_template(text, "scanned")
    assert isinstance(template, ModbusTemplate)
    assert [f.text for f in lint(template, text) if f.level is Level.ERROR] == []
    async with (
        Peer(answering(registers)) as peer,
        driver_of(peer.url, list(points_of_template(template))) as driver,
    ):
        poll = await driver.poll(samples=True)
    values = {c.name: v for c, v in zip(poll.row.schema.columns, poll.row.values, strict=True)}
    assert (values["m1_mn"], values["m1_md"], values["m1_sn"]) == ("Maker", "Model", None)
    assert (values["m203_w"], values["m203_totwhimp"]) == (2345, 123_456_700)
    assert values["m203_totwhexp"] is None
    assert values["m203_hz"] is None
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in values.values())
    samples = {sample.point: sample for sample in poll.samples}
    assert samples["m203_totwhimp"].value == Decimal(123_456_700)
    assert samples["m203_totwhexp"].quality is Quality.BAD
    assert {ask.function for ask in peer.asked} == {3}


def test_a_device_of_settings_alone_makes_no_template() -> None:
    with pytest.raises(DeviceError, match="want one that measures"):
        template_of([Model(id=120, address=40002, length=26)])


def test_all_models_that_measure_are_published() -> None:
    assert [model_id for model_id in MEASURING if definition_of(model_id) is None] == []


def test_a_model_of_a_maker_is_named_and_not_read() -> None:
    text = template_of([Model(id=203, address=40002, length=105), Model(id=65_000, address=40109, length=7)])
    assert "# model 65000 at 40109, 7 registers: unknown (not read)" in text


@contextlib.contextmanager
def in_thread(answer: Answer) -> Iterator[Peer]:
    """Run a device in a thread of its own, as the command has a loop of its own."""
    loop, ready, stop, peer = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), Peer(answer)

    async def serve() -> None:
        async with peer:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield peer
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_the_command_prints_a_template_and_only_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with in_thread(answering(device(40000, (1, COMMON), (203, meter())))) as peer:
        assert run(["scan", "sunspec", peer.url, "--timeout", "2"]) == 0
        assert "m203_w" in parse_template(capsys.readouterr().out, "x").points
        assert run(["scan", "sunspec", peer.url, "--json"]) == 0
        assert [m["id"] for m in json.loads(capsys.readouterr().out)["models"]] == [1, 203]
        assert {ask.function for ask in peer.asked} == {3}


def test_the_command_says_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with in_thread(answering({})) as peer:
        assert run(["scan", "sunspec", peer.url, "--timeout", "1"]) == 1
    assert 'has no "SunS" at 40000, 50000, 0 (exception 0x02' in capsys.readouterr().err
