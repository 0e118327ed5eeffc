"""Probing one point, and reading a device once by whatever protocol it speaks."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.look import looks_of
from gateway.app.probe import probe_address
from gateway.cli import run
from gateway.codec.candidates import TYPES, best, candidates, toml_of
from gateway.codec.number import encode, raw_of
from gateway.codec.planner import width
from gateway.codec.plausible import Likely, finding
from gateway.config import parse_template, points_of
from gateway.errors import ConfigError, DeviceError
from gateway.model import Column, Kind, Order, Point, Quality, Row, Schema, WireType
from tests.modbus_peers import Ask, Peer, honest
from tests.test_commission import DEVICE, SITE
from tests.test_plant_process import process

POWER = Point(name="active_power", function=4, address=0x34, type=WireType.F32, unit="W")
WH = Point(name="import_energy", function=3, address=0, type=WireType.U32, unit="Wh", kind=Kind.COUNTER)


def registers(point: Point, *values: float) -> list[bytes]:
    """Return what the registers hold at each reading, zeros behind the point."""
    return [encode(point, value).ljust(8, b"\0") for value in values]


# ---- the table


@settings(max_examples=100)
@given(raw=st.binary(min_size=8, max_size=8), unit=st.sampled_from(["", "W", "kWh", "Hz"]))
def test_every_type_in_every_order_is_what_the_codec_says(raw: bytes, unit: str) -> None:
    """One codec: a probe never shows what a reading would not."""
    found = candidates(replace(POWER, unit=unit), [raw])
    assert [(each.type, each.order) for each in found] == [(kind, order) for kind in TYPES for order in Order]
    for each in found:
        point = replace(POWER, type=each.type, order=each.order)
        want = raw_of(point, raw[: 2 * width(point)])
        (got,) = each.values
        assert got == float(want) or (math.isnan(got) and math.isnan(want))
        assert not (math.isnan(got) or math.isinf(got)) or each.doubt


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(
    ("kind", "unit", "values"),
    [
        (WireType.F32, "W", (299_612.0, 303_527.0)),
        (WireType.F32, "V", (229.7, 230.1)),
        (WireType.F32, "Hz", (49.98, 50.01)),
        (WireType.S32, "W", (3_000, 3_010)),
        (WireType.F64, "W", (12_345.6, 12_400.2)),
    ],
)
def test_the_right_type_and_order_is_the_likeliest(
    kind: WireType, unit: str, values: tuple[float, ...], order: Order
) -> None:
    point = replace(POWER, type=kind, unit=unit, order=order)
    found = best(candidates(replace(point, type=WireType.U16, order=Order.ABCD), registers(point, *values)))
    assert found is not None
    assert (found.type, found.order) == (kind, order)


def test_a_long_counter_is_found_behind_its_zeros() -> None:
    point = replace(WH, type=WireType.U64)
    found = best(candidates(WH, registers(point, 94_000_185, 94_000_202)))
    assert found is not None
    assert (found.type, found.order) == (WireType.U64, Order.ABCD)


def test_what_a_person_has_set_stays_while_it_is_plausible() -> None:
    found = candidates(POWER, registers(replace(POWER, type=WireType.S32), 3_000))
    present = next(each for each in found if (each.type, each.order) == (WireType.U32, Order.ABCD))
    assert best(found) != present
    assert best(found, present) == present


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        (WireType.U16, b"\xff\xff"),
        (WireType.S16, b"\x80\x00"),
        (WireType.U32, b"\xff\xff\xff\xff"),
        (WireType.S32, b"\x80\x00\x00\x00"),
        (WireType.S32, b"\x7f\xff\xff\xff"),
        (WireType.U64, b"\xff" * 8),
        (WireType.F32, b"\x7f\xc0\x00\x00"),
    ],
)
def test_a_pattern_for_not_implemented_is_named(kind: WireType, pattern: bytes) -> None:
    found = candidates(replace(POWER, unit=""), [pattern.ljust(8, b"\0")])
    assert next(each for each in found if (each.type, each.order) == (kind, Order.ABCD)).doubt == "not implemented"


def test_a_counter_that_falls_or_leaps_is_in_doubt() -> None:
    for values, doubt in (((500, 499), "a counter that falls"), ((500, 50_000), "a counter that leaps")):
        found = candidates(WH, registers(WH, *values))
        assert next(each for each in found if (each.type, each.order) == (WH.type, WH.order)).doubt == doubt


@given(value=st.floats())
def test_no_number_is_both_plausible_and_none(value: float) -> None:
    for unit in ("", "W", "V", "Hz", "kWh", "furlong"):
        found = finding(value, unit, Kind.COUNTER if unit == "kWh" else Kind.GAUGE)
        assert found.reason
        if not math.isfinite(value):
            assert found.likely is Likely.NO


def test_the_lines_to_write_read_the_point_again() -> None:
    point = replace(WH, scale=Decimal("0.01"), order=Order.CDAB, unit="kWh")
    head = 'title = "x"\nverified = false\nsources = []\nvotes = 0\n'
    template = parse_template(head + toml_of(point), "x")
    assert points_of(template) == (point,)


# ---- against devices


@pytest.fixture(scope="module")
def plant() -> Iterator[int]:
    with process("--seed", "3") as (_, about):
        yield int(about["listening"][0]["port"])


@pytest.fixture
def site(tmp_path: Path, plant: int) -> Path:
    devices = DEVICE.format(name="comp", template="eastron-sdm630", port=plant, unit=1)
    devices += DEVICE.format(name="swapped", template="own-swapped", port=plant, unit=1)
    devices += '[devices.ua]\ntemplate = "own-ua"\nurl = "opc.tcp://127.0.0.1:1"\n'
    (tmp_path / "gateway.toml").write_text(SITE + devices)
    (tmp_path / "devices").mkdir()
    sdm = Path(__file__).parent.parent / "gateway" / "devices" / "eastron-sdm630.toml"
    (tmp_path / "devices" / "own-swapped.toml").write_text(
        sdm.read_text().replace('type = "f32"', 'type = "f32"\norder = "CDAB"')
    )
    (tmp_path / "devices" / "own-ua.toml").write_text(
        'title = "x"\nprotocol = "opcua"\nverified = false\nsources = []\nvotes = 0\n'
        '[points.power]\nnode = "nsu=urn:x;s=power"\n'
    )
    return tmp_path / "gateway.toml"


def test_a_wrong_order_is_seen_and_the_line_to_write_is_given(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", str(site), "swapped.active_power", "--pause", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "as set, f32 CDAB: " in out
    assert ": implausible: too small for W" in out
    assert "likeliest, f32 ABCD: " in out
    assert '  type = "f32"\n  unit = "W"' in out


def test_a_right_point_is_left_alone(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", str(site), "comp.import_energy", "--pause", "0.1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["present"] == said["likeliest"]
    assert (said["present"]["type"], said["present"]["order"], said["present"]["doubt"]) == ("f32", "ABCD", "")
    assert len(said["candidates"]) == 32
    assert len(said["words"]) == 2


def test_an_address_is_probed_without_a_file(plant: int, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"tcp://127.0.0.1:{plant}"
    arguments = ["--unit", "3", "--address", "0x0C83", "--as-unit", "Wh", "--counter", "--pause", "0"]
    assert run(["probe", url, *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["likeliest"]["type"], said["address"]) == ("u64", 3203)
    assert 'kind = "counter"' in said["toml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["comp"], "got point ''"),
        (["comp.nothing"], "want one of active_power"),
        (["nothing.x"], "got device 'nothing'"),
        ([], "want DEVICE.POINT"),
        (["ua.power"], "want one of modbus"),
    ],
)
def test_what_cannot_be_probed_says_what_is_wanted(
    arguments: list[str], told: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["probe", str(site), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_url_wants_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "tcp://127.0.0.1:1"]) == 2
    assert "want --address" in capsys.readouterr().err
    assert run(["probe", "tcp://127.0.0.1:1", "--address", "x"]) == 2


async def test_a_device_with_fewer_registers_is_read_in_shorter_reads() -> None:
    """And it is only read: FC 3, at this address, and no longer than four registers."""

    async def short(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.refusal(2) if ask.count > 2 else ask.reply()

    async with Peer(short) as peer:
        probed = await probe_address(peer.url, unit_id=1, function=3, address=7, pause_s=0)
    assert probed.refused == "4 registers: exception 0x02 Illegal Data Address"
    assert {each.type for each in probed.found} == set(TYPES) - {WireType.U64, WireType.S64, WireType.F64}
    assert [(ask.function, ask.address, ask.count) for ask in peer.asked] == [(3, 7, 4), (3, 7, 2), (3, 7, 2)]


async def test_a_register_that_is_not_there_is_an_error() -> None:
    async def none(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.refusal(2)

    async with Peer(none) as peer:
        with pytest.raises(DeviceError, match="FC3 7: 1 registers: exception 0x02"):
            await probe_address(peer.url, unit_id=1, function=3, address=7, pause_s=0)
    with pytest.raises(ConfigError, match="want 3 or 4"):
        await probe_address("tcp://127.0.0.1:1", unit_id=1, function=6, address=7)


async def test_the_last_registers_of_the_address_space_are_probed() -> None:
    async with Peer(honest) as peer:
        probed = await probe_address(peer.url, unit_id=1, function=4, address=65_534, pause_s=0)
    assert len(probed.replies[0]) == 4


# ---- read, by another protocol


def test_a_row_is_shown_point_by_point_with_its_own_words() -> None:
    schema = Schema(device="ua", columns=tuple(Column(name=name, unit="W", store="f64") for name in ("p", "q", "r")))
    row = Row(
        schema=schema,
        source_time_ns=1_700_000_000_123_000_000,
        values=(1.5, None, 2.5),
        qualities=(Quality.GOOD, Quality.BAD, Quality.UNCERTAIN),
        status="q: BadNodeIdUnknown; r: UncertainLastUsableValue",
    )
    looks = looks_of(row)
    assert [(each.point, each.value, each.quality.name, each.status) for each in looks] == [
        ("p", 1.5, "GOOD", ""),
        ("q", None, "BAD", "q: BadNodeIdUnknown"),
        ("r", 2.5, "UNCERTAIN", "r: UncertainLastUsableValue"),
    ]
    assert {each.source_time_ns for each in looks} == {1_700_000_000_123_000_000}


def test_the_modbus_output_has_no_time_and_keeps_its_shape(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["read", str(site), "comp.active_power", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["device", "points"]
    assert list(said["points"][0]) == ["point", "value", "unit", "quality", "words", "status"]


def test_a_probe_ends_when_it_is_cancelled(plant: int) -> None:
    """The connection is given back, as a device may take only one."""

    async def cancelled() -> None:
        url = f"tcp://127.0.0.1:{plant}"
        task = asyncio.create_task(probe_address(url, unit_id=1, function=4, address=0, pause_s=60))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
