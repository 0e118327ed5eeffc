"""The simulated plant: its physics, its faults and its registers."""

import itertools
import statistics
from pathlib import Path
from typing import Any

import pytest

from gateway.codec.registers import exact
from gateway.config import parse_template, points_of
from gateway.model import Kind, Point
from hil.plant import CommandError, Plant
from hil.plant.control import parse_timetable

EF = 0.40
TEMPLATES = Path(__file__).parent.parent / "gateway" / "devices"
HOUR = 3600.0


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        """Return its seconds."""
        return self.s


def a_plant(**options: Any) -> tuple[Plant, Clock]:
    clock = Clock()
    return Plant(clock=clock, **{"noise": 0.0, **options}), clock


def intensity(plant: Plant, clock: Clock, seconds: float = HOUR) -> float:
    """Return kilograms a good unit over the next seconds of the clock."""
    before = plant.truth()
    clock.s += seconds
    after = plant.truth()
    kwh = (sum(after.energy_wh.values()) - sum(before.energy_wh.values())) / 1000
    return EF * kwh / (after.good - before.good)


def points(template: str) -> dict[str, Point]:
    text = (TEMPLATES / f"{template}.toml").read_text()
    return {point.name: point for point in points_of(parse_template(text, template))}


WIDTH = {"u16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4}


def shown(plant: Plant, unit: int, name: str) -> float:
    """Return what the gateway's template and codec make of a device's registers."""
    device = plant.devices[unit]
    point = points(device.template)[name]
    raw = device.read(point.function, point.address, WIDTH[point.type], plant.now())
    value = exact(point, raw, None)
    assert value is not None
    return float(value)


# --- physics


def test_base_case_is_0_68_kg_a_unit_exactly() -> None:
    assert intensity(*a_plant()) == pytest.approx(0.68, rel=1e-9)


@pytest.mark.parametrize("fault", ["compressor-valve", "slow-line", "heavy-sku"])
def test_each_seed_fault_makes_0_87_kg_a_unit(fault: str) -> None:
    plant, clock = a_plant()
    plant.do(f"fault {fault}")
    # 100 h, so that whole units are fine enough a measure of 334.88 an hour
    assert intensity(plant, clock, 100 * HOUR) == pytest.approx(0.87, rel=2e-5)


def test_a_repaired_valve_is_back_at_0_68() -> None:
    plant, clock = a_plant()
    plant.do("fault compressor-valve")
    clock.s += HOUR
    plant.do("repair compressor-valve")
    assert intensity(plant, clock) == pytest.approx(0.68, rel=1e-9)


def test_a_fault_takes_another_value() -> None:
    """The mixed case of the attribution vector: C 493.7142857 kW, N 570 an hour."""
    plant, clock = a_plant()
    plant.do("fault compressor-valve 493.7142857")
    plant.do("fault slow-line 570")
    assert intensity(plant, clock, 10 * HOUR) / EF * 0.42 == pytest.approx(0.87, rel=1e-6)


def test_a_broken_valve_starts_the_compressor_30_times_an_hour_instead_of_6() -> None:
    plant, clock = a_plant()
    clock.s += 10 * HOUR
    assert plant.truth().starts == 60
    plant.do("fault compressor-valve")
    clock.s += 10 * HOUR
    assert plant.truth().starts == 360


def test_minute_averages_of_the_compressor_settle_although_it_cycles() -> None:
    plant, clock = a_plant()
    powers, minutes = [], []
    for _ in range(60):
        before = plant.truth()
        for _ in range(60):
            clock.s += 1
            powers.append(plant.truth().power_w["compressor"])
        minutes.append((plant.truth().energy_wh["compressor"] - before.energy_wh["compressor"]) * 60 / 1000)
    assert min(powers) == 75_000
    assert sum(b > a for a, b in itertools.pairwise(powers)) == 6, "one reload a cycle"
    assert statistics.mean(minutes) == pytest.approx(300, rel=1e-9)
    assert max(abs(minute - 300) for minute in minutes) < 25, "of 1,020 kW in all"


def test_noise_moves_power_by_2_percent_but_not_the_energy() -> None:
    plant, clock = a_plant(noise=0.02, seed=7)
    powers = []
    for _ in range(7200):
        clock.s += 1
        powers.append(plant.truth().power_w["hvac"])
    assert statistics.pstdev(powers) / 60_000 == pytest.approx(0.02, rel=0.15)
    assert plant.truth().energy_wh["hvac"] == pytest.approx(120_000, rel=1e-9)
    plant.do("fault compressor-valve")
    assert intensity(plant, clock) == pytest.approx(0.87, rel=1e-3)


@pytest.mark.parametrize("asset", ["compressor", "press", "hvac", "filler"])
def test_energy_is_the_integral_of_power(asset: str) -> None:
    plant, clock = a_plant(noise=0.02)
    clock.s += 17.3
    plant.do("fault compressor-valve")
    before, area, step = plant.truth(), 0.0, 0.05
    for _ in range(int(300 / step)):
        clock.s += step / 2
        area += plant.truth().power_w[asset] * step / 3600
        clock.s += step / 2
    assert plant.truth().energy_wh[asset] - before.energy_wh[asset] == pytest.approx(area, rel=1e-3)


def test_energy_never_falls() -> None:
    plant, clock = a_plant(noise=0.1)
    last = plant.truth().energy_wh
    for i in range(4000):
        clock.s += 0.37
        if i % 500 == 250:
            plant.do("fault compressor-valve" if i % 1000 < 500 else "repair compressor-valve")
        now = plant.truth().energy_wh
        assert all(now[asset] >= last[asset] for asset in now)
        last = now


def test_speed_makes_plant_time_of_clock_time_but_leaves_power_as_it_is() -> None:
    plant, clock = a_plant(speed=300)
    clock.s += 12
    truth = plant.truth()
    assert (truth.plant_s, truth.wall_s, truth.good) == (3600, 12, 600)
    assert truth.energy_wh["hvac"] == pytest.approx(60_000)
    assert truth.power_w["hvac"] == 60_000


def test_same_seed_same_registers_whoever_looks_how_often() -> None:
    often, often_clock = a_plant(noise=0.02, seed=3)
    once, once_clock = a_plant(noise=0.02, seed=3)
    other, other_clock = a_plant(noise=0.02, seed=4)
    for plant in (often, once, other):
        plant.schedule(100, "fault compressor-valve")
        plant.schedule(200, "repair compressor-valve")
    for _ in range(300):
        often_clock.s += 1
        often.truth()
    once_clock.s += 300
    other_clock.s += 300
    assert often.truth() == once.truth()
    assert other.truth() != once.truth()


def test_timetable_takes_effect_at_its_instant_not_when_somebody_looks() -> None:
    plant, clock = a_plant(speed=300)
    plant.schedule(40, "repair compressor-valve")
    plant.schedule(12, "fault compressor-valve")
    clock.s += 50
    kwh = plant.truth().energy_wh["compressor"] / 1000
    assert kwh == pytest.approx((22 * 300 + 28 * 585) * 300 / 3600, rel=1e-3)
    assert plant.truth().faults == {}


# --- registers and faults


def test_templates_and_simulator_agree_on_every_register() -> None:
    """Two encodings, written apart: the simulator's structs against the gateway's templates and codec."""
    plant, clock = a_plant(noise=0.02)
    clock.s += 1234.5
    truth = plant.truth()
    starts_kwh = {1: 12_000, 2: 185_000, 3: 94_000, 4: 106_000}
    for unit, device in list(plant.devices.items())[:4]:
        found = points(device.template)
        power, energy = shown(plant, unit, "active_power"), shown(plant, unit, "import_energy")
        power_w = power * (1000 if found["active_power"].unit == "kW" else 1)
        energy_kwh = energy / (1000 if found["import_energy"].unit == "Wh" else 1)
        assert power_w == pytest.approx(truth.power_w[device.asset], rel=1e-6)
        assert energy_kwh - starts_kwh[unit] == pytest.approx(truth.energy_wh[device.asset] / 1000, abs=0.0101)
        assert found["import_energy"].kind == Kind.COUNTER
    assert shown(plant, 5, "good_count") == 120_000 + truth.good
    assert shown(plant, 5, "total_count") == 120_000 + truth.total
    assert (shown(plant, 5, "state"), shown(plant, 5, "sku")) == (6, 1)


def test_phoenix_template_and_simulator_agree() -> None:
    plant, clock = a_plant(filler="phoenix-eem-ma370")
    clock.s += HOUR
    assert shown(plant, 4, "active_power") == 240_000
    assert shown(plant, 4, "import_energy") == 106_000 + 240


def test_every_template_parses_and_says_where_it_is_from() -> None:
    paths = sorted(TEMPLATES.glob("*.toml"))
    assert {path.stem for path in paths} >= {d.template for d in a_plant()[0].devices.values()}
    for path in paths:
        template = parse_template(path.read_text(), path.stem)
        assert template.sources
        ours = path.stem.startswith("wattseal-")
        assert template.verified == (ours or template.votes >= 2), path.stem


def test_stopped_line_stops_press_filler_and_counts() -> None:
    plant, clock = a_plant(noise=0.02)
    plant.do("fault stopped")
    before = plant.truth()
    clock.s += HOUR
    after = plant.truth()
    assert after.good == before.good
    assert after.state == shown(plant, 5, "state") == 2
    assert after.power_w["press"] == after.power_w["filler"] == 0
    assert after.energy_wh["hvac"] > before.energy_wh["hvac"]


def test_heavy_sku_is_said_by_the_controller() -> None:
    plant, _ = a_plant()
    plant.do("fault heavy-sku")
    assert shown(plant, 5, "sku") == 2


def test_a_job_brings_its_product_and_recipe_and_does_not_start_the_line() -> None:
    plant, clock = a_plant()
    assert [shown(plant, 5, name) for name in ("job", "sku", "recipe", "state")] == [1001, 1, 10, 6]
    plant.do("setup")
    plant.do("job 70000 2")
    assert [shown(plant, 5, name) for name in ("job", "sku", "recipe", "state")] == [70_000, 2, 20, 15]
    before = plant.truth()
    clock.s += HOUR
    after = plant.truth()
    assert (after.good, after.power_w["press"], after.mode) == (before.good, 0, 3)
    assert after.energy_wh["compressor"] > before.energy_wh["compressor"], "set-up takes energy all the same"
    plant.do("run")
    assert intensity(plant, clock, 100 * HOUR) == pytest.approx(0.87, rel=2e-5), "the heavy product, with no fault"
    plant.do("idle")
    assert (plant.truth().state, plant.truth().mode) == (4, 1)


@pytest.mark.parametrize(
    "command", ["job", "job x", "job 0", "job 5 3", "job 5 2 1", "job 4294967296", "run 5", "halt"]
)
def test_a_job_that_is_none_is_refused(command: str) -> None:
    plant, _ = a_plant()
    with pytest.raises(CommandError, match=r"want .*job NUMBER \[PRODUCT\] \| run \| idle \| setup"):
        plant.do(command)


def test_frozen_counters_go_on_from_where_they_stopped() -> None:
    plant, clock = a_plant()
    clock.s += HOUR
    plant.do("fault no-counts")
    clock.s += HOUR
    assert shown(plant, 5, "good_count") == 120_600
    assert plant.truth().good == 1200
    plant.do("repair no-counts")
    clock.s += HOUR
    assert shown(plant, 5, "good_count") == 121_200
    assert plant.truth().good == 1800


@pytest.mark.parametrize("unit", [1, 2, 3, 4])
def test_a_swapped_meter_starts_at_0(unit: int) -> None:
    plant, clock = a_plant()
    clock.s += HOUR
    before = plant.truth()
    plant.do(f"swap {unit}")
    assert shown(plant, unit, "import_energy") == 0
    clock.s += HOUR
    asset = plant.devices[unit].asset
    scale = 1 if unit == 3 else 1000
    gained = plant.truth().energy_wh[asset] - before.energy_wh[asset]
    assert shown(plant, unit, "import_energy") * scale == pytest.approx(gained, abs=10.1)


def test_integer_registers_roll_over_and_floats_refuse_to() -> None:
    plant, clock = a_plant(starts={2: "wrap", 3: "wrap", 4: "wrap", 5: "wrap"}, filler="phoenix-eem-ma370")
    assert shown(plant, 4, "import_energy") == 2**32 - 5
    assert shown(plant, 5, "good_count") == 2**32 - 20
    clock.s += HOUR
    assert shown(plant, 2, "import_energy") == pytest.approx(420 - 5)
    assert shown(plant, 3, "import_energy") == 60_000 - 5_000
    assert shown(plant, 4, "import_energy") == 240 - 5
    assert shown(plant, 5, "good_count") == 600 - 20
    with pytest.raises(ValueError, match="float register never wraps"):
        Plant(starts={1: "wrap"})


@pytest.mark.parametrize("command", ["", "fault", "fault nothing", "fault slow-line x", "kill 9", "repair", "kill 1 2"])
def test_a_command_that_is_not_understood_says_what_is(command: str) -> None:
    plant, _ = a_plant()
    with pytest.raises(CommandError, match="want fault NAME"):
        plant.do(command)
    with pytest.raises(CommandError):
        plant.schedule(1, command)
    assert plant.truth().faults == {}


def test_timetable_text() -> None:
    assert parse_timetable("12s:fault slow-line 500, 1.5m:repair slow-line,250ms:kill 3,") == [
        (12, "fault slow-line 500"),
        (90, "repair slow-line"),
        (0.25, "kill 3"),
    ]
    for wrong in ("12:kill 3", "kill 3", "s:kill 3", "12s:", "-1s:kill 3"):
        with pytest.raises(CommandError, match="want e"):
            parse_timetable(wrong)
