"""Commissioning: what agrees, what does not, and which fault explains it."""

import contextlib
import json
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.devices import open_devices
from gateway.app.load import load_gateway
from gateway.cli import run
from gateway.codec.bodies import readings_body
from gateway.codec.commission import Cause, Instant, Judgement, Series, Verdict, judge
from gateway.codec.commission_series import Words, other_ways, series_of, step_of
from gateway.codec.leaves import seal
from gateway.codec.number import encode, raw_of
from gateway.model import Clock, ClockState, Kind, Order, Point, Row, WireType
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from tests.test_plant_process import process

ROOT = Path(__file__).parent.parent

POWER = Point(name="active_power", function=3, address=0, type=WireType.F32, unit="kW")
ENERGY = Point(
    name="import_energy", function=3, address=2, type=WireType.U32, unit="kWh", scale=Decimal("0.01"), kind=Kind.COUNTER
)
STEP_WH = 10.0

# ---- simulated meters


def load(t_s: float) -> float:
    """Return the watts of a load that goes up and down."""
    return 50_000 + 30_000 * math.sin(t_s / 50)


def used_wh(t_s: float) -> float:
    """Return the integral of `load`."""
    return (50_000 * t_s + 30_000 * 50 * (1 - math.cos(t_s / 50))) / 3600


def simulated(
    *,
    seconds: int = 900,
    power: Callable[[float], float] = load,
    energy: Callable[[float], float] = used_wh,
    step_wh: float = STEP_WH,
    start_wh: float = 1_234_560,
) -> Series:
    """Return what a meter says each second, its energy in whole steps."""
    return Series(
        instants=tuple(
            Instant(float(t), power(t), step_wh * math.floor((start_wh + energy(t)) / step_wh))
            for t in range(seconds + 1)
        ),
        step_wh=step_wh,
    )


def judged(**how: object) -> Judgement:
    return judge(simulated(**how))  # type: ignore[arg-type]


def first(judgement: Judgement) -> tuple[Cause, float | None]:
    assert judgement.verdict is Verdict.DISAGREE, judgement
    explanation = judgement.explanations[0]
    return explanation.cause, explanation.factor


# ---- what agrees


def test_a_sound_meter_agrees_and_the_figures_are_given() -> None:
    judgement = judged()
    assert judgement.verdict is Verdict.AGREE, judgement
    assert judgement.explanations == ()
    assert judgement.integral_wh == pytest.approx(used_wh(900), rel=1e-4)
    assert judgement.counted_wh == pytest.approx(used_wh(900), abs=10)
    assert judgement.tolerance_wh == pytest.approx(0.02 * judgement.integral_wh + 10)
    assert (judgement.seconds, judgement.readings) == (900, 901)


@settings(max_examples=100)
@given(
    mean_w=st.floats(10, 1e7),
    swing=st.floats(0, 1),
    step_wh=st.sampled_from([0.1, 1.0, 10.0, 1000.0]),
    start_wh=st.floats(0, 1e9),
    seconds=st.integers(20, 900),
)
def test_a_sound_meter_never_disagrees(
    mean_w: float, swing: float, step_wh: float, start_wh: float, seconds: int
) -> None:
    """Whatever its step, its load and the time: at worst there is too little to tell."""
    judgement = judged(
        seconds=seconds,
        power=lambda t: mean_w * (1 + swing * math.sin(t / 40)),
        energy=lambda t: mean_w * (t + swing * 40 * (1 - math.cos(t / 40))) / 3600,
        step_wh=step_wh,
        start_wh=start_wh,
    )
    assert judgement.verdict is not Verdict.DISAGREE, judgement
    assert judgement.verdict is Verdict.AGREE or judgement.step_wh > 0.07 * judgement.integral_wh


def test_a_register_that_rolls_over_within_the_time_agrees() -> None:
    series = simulated(start_wh=0)
    wrapped = Series(
        instants=tuple(
            each._replace(energy_wh=(each.energy_wh + 99_990_000) % 100_000_000) for each in series.instants
        ),
        step_wh=STEP_WH,
    )
    assert judge(wrapped, modulus_wh=100_000_000).verdict is Verdict.AGREE
    assert judge(wrapped).explanations[0].cause is Cause.PARTIAL


def test_a_register_that_is_renewed_every_half_minute_agrees() -> None:
    """Its format could show 1 Wh, but it moves by a half minute's energy: that is its step."""
    instants = simulated(energy=lambda t: used_wh(30 * (t // 30)), step_wh=1.0).instants
    series = series_of(instants, 1.0)
    assert series.step_wh > 100
    assert judge(series).verdict is Verdict.AGREE


# ---- what cannot be told


def test_a_load_that_is_off_is_undecided() -> None:
    judgement = judged(power=lambda _: 0.0, energy=lambda _: 0.0)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "while it runs" in judgement.why


def test_too_little_energy_for_the_step_says_how_long_it_would_take() -> None:
    judgement = judged(seconds=60, power=lambda _: 6_000.0, energy=lambda t: 6_000 * t / 3600, step_wh=100.0)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "want 12.5 minutes or more" in judgement.why
    longer = judged(seconds=800, power=lambda _: 6_000.0, energy=lambda t: 6_000 * t / 3600, step_wh=100.0)
    assert longer.verdict is Verdict.AGREE


def test_an_integral_over_a_gap_is_not_trusted() -> None:
    instants = [each for each in simulated().instants if not 300 < each.t_s < 600]
    judgement = judge(Series(instants=tuple(instants), step_wh=STEP_WH))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "no readings for 300 of 900 s" in judgement.why


def test_a_meter_that_mostly_did_not_answer_is_undecided() -> None:
    """Though what it did say agrees: it was lost after the first minute of fifteen."""
    judgement = judge(simulated(seconds=60), failed=840)
    assert (judgement.verdict, judgement.why) == (Verdict.UNDECIDED, "840 of 901 readings failed")
    assert judge(simulated(), failed=9).verdict is Verdict.AGREE


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_readings_are_too_few(count: int) -> None:
    series = simulated()
    judgement = judge(Series(instants=series.instants[:count], step_wh=STEP_WH))
    assert judgement.verdict is Verdict.UNDECIDED
    assert f"got {count} good readings" in judgement.why


# ---- what explains a failure


@settings(max_examples=60)
@given(exponent=st.integers(-3, 6).filter(bool), share=st.floats(0.985, 1.015))
def test_a_wrong_power_of_ten_is_a_scale(exponent: int, share: float) -> None:
    """Also when the meter is a per cent off besides; the register's own step is scaled with it."""
    cause, factor = first(judged(power=lambda t: load(t) / 10.0**exponent, energy=lambda t: share * used_wh(t)))
    assert cause is Cause.SCALE
    assert factor == pytest.approx(10.0**exponent)


@pytest.mark.parametrize(
    ("ratio", "name"),
    [(40, "200:5"), (1 / 40, "200:5"), (30, "150:5"), (20, "100:5"), (160, "800:5"), (1 / 60, "300:5")],
)
def test_a_constant_ratio_is_named_as_the_transformer_that_it_is(ratio: float, name: str) -> None:
    judgement = judged(power=lambda t: load(t) / ratio)
    cause, factor = first(judgement)
    assert cause is Cause.CT_RATIO
    assert factor == pytest.approx(ratio, rel=0.02)
    assert name in judgement.explanations[0].text


def test_ten_times_may_be_a_scale_or_a_transformer() -> None:
    judgement = judged(power=lambda t: load(t) / 10)
    assert [each.cause for each in judgement.explanations] == [Cause.SCALE, Cause.CT_RATIO]
    assert "50:5" in judgement.explanations[1].text


def test_one_phase_for_three_is_named() -> None:
    judgement = judged(power=lambda t: load(t) / 3)
    assert first(judgement)[0] is Cause.CT_RATIO
    assert "one phase against three" in judgement.explanations[0].text


def test_joules_are_a_scale() -> None:
    judgement = judged(energy=lambda t: 3600 * used_wh(t))
    assert first(judgement) == (Cause.SCALE, 3600.0)
    assert "energy in J" in judgement.explanations[0].text


def test_rated_power_tells_which_of_the_two_is_wrong() -> None:
    judgement = judge(simulated(power=lambda t: 1000 * load(t)), rated_w=100_000)
    assert first(judgement)[0] is Cause.SCALE
    assert "power is the wrong one" in judgement.explanations[0].text


def test_negative_power_while_the_register_counts_is_a_sign() -> None:
    assert first(judged(power=lambda t: -load(t))) == (Cause.SIGN, -1.0)


def test_negative_power_while_the_register_stands_is_a_sign_too() -> None:
    """A turned transformer: the export register counts, and this is the import one."""
    assert first(judged(power=lambda t: -load(t), energy=lambda _: 0.0)) == (Cause.SIGN, None)


def test_a_sign_and_a_scale_are_both_named() -> None:
    judgement = judged(power=lambda t: -load(t) / 1000)
    assert {Cause.SCALE, Cause.SIGN} <= {each.cause for each in judgement.explanations}


def test_a_register_that_does_not_move_is_another_tariff() -> None:
    judgement = judged(energy=lambda _: 0.0)
    assert first(judgement) == (Cause.PARTIAL, 0.0)
    assert "did not move" in judgement.explanations[0].text


@pytest.mark.parametrize("until_s", [300, 450, 700])
def test_a_register_that_moves_part_of_the_time_is_a_tariff(until_s: int) -> None:
    judgement = judged(energy=lambda t: used_wh(min(t, until_s)))
    assert first(judgement)[0] is Cause.PARTIAL
    assert "one tariff of several" in judgement.explanations[0].text


def test_a_register_that_is_reset_is_a_partial_counter() -> None:
    judgement = judged(energy=lambda t: used_wh(t) - (1_234_560 if t > 400 else 0))
    assert first(judgement)[0] is Cause.PARTIAL
    assert "fell 1 times" in judgement.explanations[0].text


def test_power_of_another_circuit_is_explained_by_nothing() -> None:
    """The verdict says so, with the ratio piece by piece."""
    judgement = judged(power=lambda t: 50_000 + 49_000 * math.sin(t / 80 + 2))
    assert first(judgement)[0] is Cause.UNKNOWN
    assert "piece by piece" in judgement.explanations[0].text


def test_power_that_stays_at_zero_is_a_wrong_register() -> None:
    judgement = judged(power=lambda _: 0.0)
    assert first(judgement)[0] is Cause.UNKNOWN
    assert "power stays at zero" in judgement.explanations[0].text


# ---- orders


def words_of(power: Point, energy: Point, seconds: int = 100) -> list[Words]:
    """Return what a meter's registers hold each second."""
    return [
        Words(float(t), encode(power, load(t) / 1e3), encode(energy, 123_456 + used_wh(t) / 1e3))
        for t in range(seconds + 1)
    ]


def read_as(power: Point, energy: Point, words: list[Words]) -> Judgement:
    """Judge registers as two points read them."""
    instants = [
        Instant(
            each.t_s,
            float(raw_of(power, each.power)) * float(power.scale) * 1e3,
            float(raw_of(energy, each.energy)) * float(energy.scale) * 1e3,
        )
        for each in words
    ]
    step_wh = step_of(energy, instants[-1].energy_wh / 1e3) * 1e3
    return judge(series_of(instants, step_wh), others=other_ways(power, energy, words))


@settings(max_examples=64, derandomize=True)
@given(
    p=st.sampled_from(list(Order)),
    e=st.sampled_from(list(Order)),
    kind=st.sampled_from([WireType.F32, WireType.S32, WireType.F64]),
)
def test_a_wrong_order_of_either_register_is_named_as_the_line_to_write(p: Order, e: Order, kind: WireType) -> None:
    configured = replace(POWER, type=kind, scale=Decimal(1) if kind != WireType.S32 else Decimal("0.001"))
    true_power, true_energy = replace(configured, order=p), replace(ENERGY, order=e)
    judgement = read_as(configured, ENERGY, words_of(true_power, true_energy))
    if p is e is Order.ABCD:
        assert judgement.verdict is Verdict.AGREE
        return
    assert first(judgement)[0] is Cause.ORDER, judgement
    text = judgement.explanations[0].text
    assert (f'active_power with order = "{p}"' in text) is (p is not Order.ABCD)
    assert (f'import_energy with order = "{e}"' in text) is (e is not Order.ABCD)


def test_a_register_without_a_number_is_never_agreed_with() -> None:
    """NaN compares as neither more nor less than what is allowed."""
    for nothing in (math.nan, math.inf, 1e38):
        judgement = judged(power=lambda _: nothing)  # noqa: B023 - used at once
        assert first(judgement)[0] is Cause.UNKNOWN
        assert "901 of 901 readings hold no number" in judgement.why


def test_a_signed_power_that_is_read_unsigned_is_named() -> None:
    unsigned = replace(POWER, type=WireType.U32)
    words = [
        Words(float(t), encode(replace(unsigned, type=WireType.S32), load(t) / 1e3 - 60), encode(ENERGY, 9e5))
        for t in range(60)
    ]
    assert any('type = "s32"' in other.how for other in other_ways(unsigned, ENERGY, words))


def test_the_step_of_a_float_register_grows_with_it() -> None:
    kwh = replace(ENERGY, type=WireType.F32, scale=Decimal(1))
    assert step_of(kwh, 12_000) == 2**-10
    assert step_of(kwh, 20_000) == 2**-9
    assert step_of(replace(kwh, type=WireType.F64), 12_000) == math.ulp(12_000.0)
    assert step_of(ENERGY, 12_000) == pytest.approx(0.01)


# ---- against the simulated plant

SITE = """\
[gateway]
id = "gw1"
[seal]
key = "gw1.key"
witness = "ledger.vkey"
[forward]
broker = "127.0.0.1:1"
ca = "ca.pem"
cert = "gw1.pem"
key = "gw1.pem.key"
"""
DEVICE = """
[devices.{name}]
template = "{template}"
url = "tcp://127.0.0.1:{port}"
unit_id = {unit}
rated_power_w = 2000000
"""
METERS = {"comp": ("eastron-sdm630", 1), "press": ("abb-b23", 2), "hvac": ("schneider-iem3000", 3)}


@pytest.fixture(scope="module")
def plant() -> Iterator[int]:
    """Run the simulated plant in real time; give its port."""
    with process("--seed", "7") as (_, about):
        yield int(about["listening"][0]["port"])


@pytest.fixture
def site(tmp_path: Path, plant: int) -> Path:
    """Return a gateway.toml of the plant's meters, and one whose template has the wrong word order and kW for W."""
    devices = "".join(
        DEVICE.format(name=name, template=template, port=plant, unit=unit) for name, (template, unit) in METERS.items()
    )
    devices += DEVICE.format(name="swapped", template="own-swapped", port=plant, unit=1)
    devices += DEVICE.format(name="kilo", template="own-kilo", port=plant, unit=3)
    devices += DEVICE.format(name="plc", template="wattseal-plant-plc", port=plant, unit=5)
    (tmp_path / "gateway.toml").write_text(SITE + devices)
    own = tmp_path / "devices"
    own.mkdir()
    sdm, iem = (ROOT / "gateway" / "devices" / f"{name}.toml" for name in ("eastron-sdm630", "schneider-iem3000"))
    swapped = sdm.read_text().replace('type = "f32"', 'type = "f32"\norder = "CDAB"')
    (own / "own-swapped.toml").write_text(swapped)
    (own / "own-kilo.toml").write_text(iem.read_text().replace('unit = "kW"', 'unit = "W"'))
    return tmp_path / "gateway.toml"


def commission(site: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(["commission", str(site), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


FAST = ("--minutes", "0.05", "--period", "0.05")


@pytest.mark.parametrize("device", ["comp", "hvac"])
def test_a_meter_of_the_plant_is_commissioned(device: str, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = commission(site, device, *FAST, "--json", capsys=capsys)
    assert (code, err) == (0, ""), out
    said = json.loads(out)
    assert said["verdict"] == "agree"
    assert said["ratio"] == pytest.approx(1, abs=0.02)
    assert said["readings"] >= 50
    assert "does not prove" in said["not_proven"]


def test_a_wrong_word_order_is_found_against_the_plant(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = commission(site, "swapped", *FAST, capsys=capsys)
    assert code == 1
    assert out.startswith("swapped: FAILED: ")
    assert 'order: read active_power with order = "ABCD" and import_energy with order = "ABCD", they agree' in out


def test_a_wrong_unit_is_found_against_the_plant(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = commission(site, "kilo", *FAST, capsys=capsys)
    assert code == 1
    assert "scale: the register counts 1,000 times what the power says" in out


def test_a_device_without_power_and_energy_says_what_it_wants(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commission(site, "plc", capsys=capsys)[0] == 2
    code, _, err = commission(site, "comp", "--power", "import_energy", capsys=capsys)
    assert code == 2
    assert "--power: got 'import_energy', want one of active_power" in err
    assert commission(site, "nothing", capsys=capsys)[0] == 2


def test_a_meter_that_does_not_answer_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        device = DEVICE.format(name="comp", template="eastron-sdm630", port=free.getsockname()[1], unit=1)
    (tmp_path / "gateway.toml").write_text(SITE + device)
    code, out, err = commission(tmp_path / "gateway.toml", "comp", *FAST, capsys=capsys)
    assert (code, out) == (1, "")
    assert "cannot connect" in err


def test_ctrl_c_judges_what_is_there(site: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "wattseal"),
        "commission",
        str(site),
        "comp",
        "--period",
        "0.1",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(4)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert json.loads(out)["readings"] > 5


def test_the_gateways_own_log_is_commissioned_too(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest rows of the device as it is set up, and no others."""
    config = load_gateway(site)
    schema = next(bus["hvac"].schema for bus in open_devices(config).values() if "hvac" in bus)
    assert commission(site, "hvac", "--from-log", capsys=capsys)[0] == 1, "there is no log yet"
    names = [column.name for column in schema.columns]
    clock = Clock(t_ns=2 * 10**18, state=ClockState.SYNCHRONISED, offset_ns=0)
    with contextlib.closing(Log.open(RealFiles(config.log_folder), origin=config.origin)) as log:
        for second in range(1800):
            # Before the last 15 minutes, the register stood still.
            held = {"active_power": load(second) / 1e3, "import_energy": round(used_wh(max(second, 900)))}
            values = tuple(held.get(name, 0) for name in names)
            row = Row(schema=schema, source_time_ns=10**18 + second * 10**9, values=values)
            log.append(seal("readings", readings_body([row]), clock=clock))
        size = log.commit()
        log.record(b"note", b"", size, log.root(size))
    code, out, _ = commission(site, "hvac", "--from-log", "--minutes", "14", "--json", capsys=capsys)
    said = json.loads(out)
    assert (code, said["readings"], said["verdict"]) == (0, 841, "agree")
    code, out, _ = commission(site, "hvac", "--from-log", "--minutes", "29", "--json", capsys=capsys)
    assert (code, json.loads(out)["explanations"][0]["cause"]) == (1, "tariff or partial counter")
