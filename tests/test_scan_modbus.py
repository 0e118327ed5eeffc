"""`wattseal scan modbus`: what it asks, whom it finds, and which model it takes them for."""

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.scan_modbus import Found, catalogue, model_of, scan
from gateway.cli import run
from gateway.codec.modelfit import Fit, Mark, Model, Reading, blocks_of, fit, ranked
from gateway.codec.planner import Block, Limits
from gateway.codec.targets import Target, parse_target, parse_units
from gateway.config import ModbusTemplate, parse_template
from gateway.errors import ConfigError
from gateway.model import Kind, Point, WireType
from tests.modbus_peers import Ask, Peer, honest
from tests.test_plant_process import process

BIN = Path(sys.executable).parent

# ---- what a person writes


@pytest.mark.parametrize(
    ("text", "urls", "units"),
    [
        ("192.0.2.10", ("tcp://192.0.2.10:502",), tuple(range(1, 248))),
        ("meter.example:5020", ("tcp://meter.example:5020",), tuple(range(1, 248))),
        ("192.0.2.10/1-3", ("tcp://192.0.2.10:502",), (1, 2, 3)),
        ("192.0.2.10:1502/7", ("tcp://192.0.2.10:1502",), (7,)),
        ("192.0.2.10/0,255,5-7,6", ("tcp://192.0.2.10:502",), (0, 5, 6, 7, 255)),
        ("192.0.2.0/30/1,2", ("tcp://192.0.2.1:502", "tcp://192.0.2.2:502"), (1, 2)),
        ("192.0.2.0/30:1502/1", ("tcp://192.0.2.1:1502", "tcp://192.0.2.2:1502"), (1,)),
        ("192.0.2.16/28-28", ("tcp://192.0.2.16:502",), (28,)),
        ("192.0.2.10/28", ("tcp://192.0.2.10:502",), (28,)),
        ("rtu+tcp://192.0.2.10:4001", ("rtu+tcp://192.0.2.10:4001",), tuple(range(1, 248))),
    ],
)
def test_a_target_says_which_hosts_and_which_units(text: str, urls: tuple[str, ...], units: tuple[int, ...]) -> None:
    assert parse_target(text) == Target(urls=urls, units=units)


def test_units_may_be_given_apart() -> None:
    serial = "serial:///dev/ttyUSB0?baudrate=9600"
    assert parse_target(serial, "1-2") == Target(urls=(serial,), units=(1, 2))
    assert parse_target("192.0.2.10", "9") == Target(urls=("tcp://192.0.2.10:502",), units=(9,))
    assert parse_target("192.0.2.0/30", "9") == parse_target("192.0.2.0/30/9")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "192.0.2.10/",
        "192.0.2.10/0-256",
        "192.0.2.10/9-3",
        "192.0.2.10/x",
        "192.0.2.10:0",
        "192.0.2.10:99999",
        "192.0.2.10:5x",
        "192.0.2.1/28/1",
        "192.0.2.0/8/1",
        "192.0.0.0/16/1",
        "a b",
        "[::1]/1",
        "opc.tcp://192.0.2.10:4840",
        "192.0.2.0/28/1/2",
        "tcp://192.0.2.10/x",
        "192.0.2.10/\u0661",
    ],
)
def test_what_is_no_target_says_what_is_wanted(text: str) -> None:
    with pytest.raises(ConfigError, match="want"):
        parse_target(text)


def test_a_network_or_a_unit_is_never_guessed() -> None:
    """A typing slip must not ask a whole network."""
    with pytest.raises(ConfigError, match=r"may be a unit or a network.*192.0.2.16/28-28.*192.0.2.16/28/1-247"):
        parse_target("192.0.2.16/28")
    with pytest.raises(ConfigError, match="units twice"):
        parse_target("192.0.2.10/5", "1-3")


@settings(max_examples=100)
@given(text=st.text(alphabet="0123456789./:-,abtcp", max_size=30))
def test_any_text_is_a_target_or_a_config_error(text: str) -> None:
    try:
        target = parse_target(text)
    except ConfigError:
        return
    assert target.urls
    assert len(target.urls) <= 254
    assert all(0 <= unit <= 255 for unit in target.units)


@given(units=st.sets(st.integers(0, 255), min_size=1))
def test_units_are_read_as_they_are_written(units: set[int]) -> None:
    assert parse_units(",".join(map(str, units))) == tuple(sorted(units))


# ---- which model

HZ = Point(name="frequency", function=3, address=0, type=WireType.F32, unit="Hz")
VOLT = Point(name="voltage", function=3, address=2, type=WireType.F32, unit="V")
KWH = Point(name="import_energy", function=3, address=100, type=WireType.F32, unit="kWh", kind=Kind.COUNTER)
STATE = Point(name="state", function=3, address=300, type=WireType.U16)


def model(*points: Point, name: str = "m", verified: bool = True, mark: Mark | None = None) -> Model:
    return Model(template=name, title=name, verified=verified, points=points, limits=Limits(), mark=mark)


def fitted(which: Model, *replies: bytes | None, refused: bool = False) -> Fit:
    readings = [
        Reading(block, reply, "" if reply else "silent", refused=refused and reply is None)
        for block, reply in zip(blocks_of(which), replies, strict=False)
    ]
    return fit(which, readings)


def floats(*values: float) -> bytes:
    return struct.pack(f">{len(values)}f", *values)


def test_only_points_whose_unit_says_something_are_read() -> None:
    blocks = blocks_of(model(HZ, VOLT, STATE, KWH))
    assert [(block.address, block.count) for block in blocks] == [(0, 4), (100, 2)]


def test_plausible_values_speak_for_a_model_and_each_is_a_reason() -> None:
    found = fitted(model(HZ, VOLT, KWH), floats(50.01, 231.2), floats(1234.5))
    assert found.score == 9
    assert found.reasons == (
        "frequency 50.01 Hz: plausible",
        "voltage 231.2 V: plausible",
        "import_energy 1,234.5 kWh: plausible",
    )


@pytest.mark.parametrize("values", [(0.0, 0.0), (1e-30, 231.2), (50.0, float("nan")), (float("inf"), 1.0)])
def test_zeros_and_absurd_values_are_no_model(values: tuple[float, float]) -> None:
    assert not ranked([fitted(model(HZ, VOLT, KWH), floats(*values), None, refused=True)])


def test_what_is_not_there_speaks_against_a_model() -> None:
    whole, half = (fitted(model(HZ, VOLT, KWH), floats(50, 230), reply, refused=True) for reply in (floats(5), None))
    assert whole.score > half.score
    assert "import_energy: silent" in half.reasons


def test_a_models_own_mark_outweighs_all_else() -> None:
    where = Point(name="its own mark", function=3, address=11, type=WireType.U16)
    right, wrong = (model(HZ, mark=Mark(point=where, equals=frozenset({n}))) for n in (1648, 1649))
    readings = (1648).to_bytes(2, "big"), floats(50)
    assert fitted(right, *readings).score > 20
    assert fitted(wrong, *readings).score < 0
    assert "its own mark, FC 3 11, is not there: got 1648" in fitted(wrong, *readings).reasons


def test_a_mark_of_text_is_told_by_its_beginning() -> None:
    where = Point(name="its own mark", function=3, address=11, type=WireType.STRING, registers=4)
    marked = model(HZ, mark=Mark(point=where, text="UMG"))
    assert fitted(marked, b"UMG 96RM", floats(50)).score > 20
    assert fitted(marked, b"PAC 3200", floats(50)).score < 0


def test_of_two_that_fit_alike_the_verified_one_comes_first() -> None:
    fits = [fitted(model(HZ, name=name, verified=name == "b"), floats(50)) for name in "abc"]
    assert [each.template for each in ranked(fits)] == ["b", "a", "c"]


@settings(max_examples=60)
@given(replies=st.lists(st.one_of(st.none(), st.binary(min_size=8, max_size=8)), min_size=1, max_size=2))
def test_no_reply_makes_a_fit_fail(replies: list[bytes | None]) -> None:
    points = (HZ, VOLT, KWH)
    blocks = [Block((HZ, VOLT)), Block((KWH,))]
    readings = [Reading(b, r and r[: b.size], "x") for b, r in zip(blocks, replies, strict=False)]
    assert isinstance(fit(model(*points), readings).score, float)


def test_every_template_of_the_catalogue_can_be_scanned_for() -> None:
    models = catalogue()
    assert len(models) > 5
    assert all(blocks_of(each) for each in models if any(point.unit in {"W", "kW", "kWh"} for point in each.points))
    assert not [each.template for each in models if "bench" in each.template]


def test_a_templates_probe_becomes_its_mark() -> None:
    text = (
        'title = "x"\nverified = true\nsources = []\nvotes = 0\nfunction = 4\n'
        '[probe]\naddress = 11\nequals = [1648]\n[points.p]\naddress = 0\ntype = "f32"\nunit = "W"\n'
    )
    template = parse_template(text, "x")
    assert isinstance(template, ModbusTemplate)
    mark = model_of("x", template).mark
    assert mark is not None
    assert (mark.point.function, mark.point.address, mark.equals) == (4, 11, frozenset({1648}))


# ---- what is asked


async def found_at(peer: Peer, *units: int, models: list[Model] | None = None, timeout_s: float = 0.2) -> Found:
    found = Found()
    target = Target(urls=(peer.url,), units=units)
    await scan(target, found, models=models or [], timeout_s=timeout_s, pause_s=0)
    return found


async def test_an_exception_is_an_answer_and_silence_is_none() -> None:
    async def some(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.unit_id == 3:
            yield ask.reply()
        if ask.unit_id == 5:
            yield ask.refusal(2)

    async with Peer(some) as peer:
        found = await found_at(peer, 3, 4, 5)
    assert [(unit.unit_id, unit.said) for unit in found.units] == [
        (3, f"FC 3, register 0: 0x{(3 * 257 + 1):04x}"),
        (5, "FC 3, register 0: exception 0x02 Illegal Data Address"),
    ]
    assert found.asked == 3


async def test_a_device_that_is_silent_to_one_function_is_asked_by_the_other() -> None:
    async def inputs(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.function == 4:
            yield ask.reply()

    async with Peer(inputs) as peer:
        found = await found_at(peer, 1)
    assert [unit.said[:4] for unit in found.units] == ["FC 4"]


@pytest.mark.parametrize("code", [0x0A, 0x0B])
async def test_a_gateway_that_answers_for_nobody_is_no_device(code: int) -> None:
    async def gateway(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply() if ask.unit_id == 2 else ask.refusal(code)

    async with Peer(gateway) as peer:
        found = await found_at(peer, 1, 2, 3)
    assert [unit.unit_id for unit in found.units] == [2]
    assert found.gateways == {peer.url: 2}


async def test_a_reply_of_another_unit_is_said_as_it_is() -> None:
    async def always_one(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.frame(bytes([ask.function, 2]) + b"\0\1", unit_id=1)

    async with Peer(always_one) as peer:
        found = await found_at(peer, 1, 9)
    assert [unit.said for unit in found.units] == [
        "FC 3, register 0: 0x0001",
        "FC 3, register 0: wrong reply: unit 1, asked 9",
    ]


async def test_a_peer_that_hangs_up_on_a_unit_is_no_device_and_is_asked_on() -> None:
    async def leaves(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply() if ask.unit_id == 3 else None

    async with Peer(leaves) as peer:
        found = await found_at(peer, 1, 2, 3)
    assert [unit.unit_id for unit in found.units] == [3]


async def test_a_scan_reads_and_nothing_else() -> None:
    """All that went out, byte by byte: FC 3 and 4, on one connection at a time, whatever the catalogue holds."""
    async with Peer(honest) as peer:
        await found_at(peer, 1, 2, models=catalogue())
        assert peer.most == 1
    assert {ask.function for ask in peer.asked} <= {3, 4}
    assert len(peer.wire) == 12 * len(peer.asked)
    keys = [(ask.unit_id, ask.function, ask.address, ask.count) for ask in peer.asked]
    assert len(set(keys[1:])) >= len(keys) - 3, "no block is read twice for two models"


async def test_a_pause_bounds_the_rate() -> None:
    async with Peer(honest) as peer:
        found, began_s = Found(), time.monotonic()
        await scan(Target(urls=(peer.url,), units=tuple(range(1, 11))), found, models=[], pause_s=0.05)
    assert time.monotonic() - began_s > 0.45
    assert found.requests == 10


async def test_a_unit_that_falls_silent_is_not_asked_for_every_model() -> None:
    async def once(ask: Ask) -> AsyncIterator[bytes | None]:
        if ask.count == 1:
            yield ask.reply()

    async with Peer(once) as peer:
        began_s = time.monotonic()
        found = await found_at(peer, 1, models=catalogue(), timeout_s=0.1)
    assert time.monotonic() - began_s < 3
    assert found.units[0].fits == ()


# ---- the command


@pytest.fixture(scope="module")
def plant() -> Iterator[int]:
    with process("--seed", "5") as (_, about):
        yield int(about["listening"][0]["port"])


def test_the_plants_meters_are_found_and_named(plant: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "modbus", f"127.0.0.1:{plant}/1-8", "--pause", "0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [unit["unit_id"] for unit in said["units"]] == [1, 2, 3, 4, 5]
    best = {unit["unit_id"]: [each["template"] for each in unit["fits"][:2]] for unit in said["units"]}
    for unit_id, template in {1: "eastron-sdm630", 2: "abb-b23", 3: "schneider-iem3000", 4: "abb-b23"}.items():
        assert template in best[unit_id], best
    assert said["gateway_says_nobody"] == {f"tcp://127.0.0.1:{plant}": 3}
    assert (said["asked"], said["stopped"]) == (8, False)


def test_the_command_says_it_in_lines_too(plant: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "modbus", f"127.0.0.1:{plant}/1", "--pause", "0"]) == 0
    said = capsys.readouterr()
    assert f"tcp://127.0.0.1:{plant} unit 1: FC 3, register 0: exception 0x01 Illegal Function" in said.out
    assert "active_power" in said.out
    assert "1 of 1 unit ids answer" in said.out
    assert "nothing written" in said.out
    assert said.err == ""


def test_nobody_there_is_exit_1_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert run(["scan", "modbus", f"127.0.0.1:{free.getsockname()[1]}/1-3", "--timeout", "0.3"]) == 1
    assert "no unit id answered: cannot connect to tcp://127.0.0.1:" in capsys.readouterr().err


def test_a_wrong_target_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "modbus", "192.0.2.0/28"]) == 2
    assert "may be a unit or a network" in capsys.readouterr().err


def test_ctrl_c_shows_what_was_found(plant: int) -> None:
    command = [
        str(BIN / "wattseal"),
        "scan",
        "modbus",
        f"127.0.0.1:{plant}/1-247",
        "--pause",
        "0.2",
        "--no-models",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(3)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    said = json.loads(out)
    assert said["stopped"]
    assert 0 < said["asked"] < 247
    assert said["units"]


def test_a_scan_that_is_cancelled_gives_its_connection_back() -> None:
    async def stopped() -> None:
        async with Peer(honest, only_one=True) as peer:
            task = asyncio.create_task(found_at(peer, *range(1, 248)))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.05)
            assert peer.sockets == 0

    asyncio.run(stopped())
