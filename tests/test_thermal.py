"""A room's model: fitted from leaves, asked before a set-point is changed, held against the building afterwards."""

import asyncio
import json
import math
from pathlib import Path

import pytest

from gateway.app.load import load_ledger
from gateway.app.rooms import factor_now
from gateway.app.series import means
from gateway.carbon.thermal import Change, Fit, PoorFitError, Reading, fit, predict, step
from gateway.cli import run
from hil.plant.building import C_KWH_PER_K, COP, R_K_PER_KW, Building
from hil.replay.rig import GATEWAY, MINUTE_NS, PlantTime, Rig

KNOWN = Fit(
    r_k_per_kw=0.5,
    c_kwh_per_k=40.0,
    r_error=0.02,
    c_error=0.05,
    correlation=0.0,
    rmse_k=0.1,
    explained=0.99,
    hours=72.0,
    samples=288,
)
LOWER = Change(from_c=21.0, to_c=20.0, outdoor_c=0.0, hours=24.0, cop=3.0, kg_per_kwh=0.4)


class Seconds:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.t = 0.0

    def __call__(self) -> float:
        """Return the second."""
        return self.t


def lived(building: Building, clock: Seconds, hours: float) -> list[Reading]:
    """Let a building live, and return means of a quarter of an hour as its sensors show them."""
    found, minutes = [], []
    for _ in range(round(hours * 60)):
        clock.t += 60
        building.now()
        minutes.append((building.shown_c, building.outdoor_c(), building.heat_kw))
        if len(minutes) == 15:
            found.append(Reading(*(sum(column) / 15 for column in zip(*minutes, strict=True))))
            minutes = []
    return found


def test_the_vector_of_a_hall_that_is_set_one_degree_lower() -> None:
    """facts/carbon.md: R 0.5, C 40, Tout 0, 21 -> 20 C, COP 3, 0.4 kg/kWh."""
    made = predict(KNOWN, LOWER)
    assert math.isclose(KNOWN.tau_h, 20.0)
    assert round(made.coast_h, 6) == 0.975803
    assert round(made.deferred_kwh, 4) == 13.6612
    assert math.isclose(made.kg_per_day, 6.4)
    assert made.low_kg < made.saved_kg < made.high_kg


def test_a_step_goes_towards_where_heat_and_weather_settle() -> None:
    after = step(Reading(21.0, 0.0, 0.0), 21.0, r_k_per_kw=0.5, c_kwh_per_k=40.0, dt_h=KNOWN.tau_h)
    assert math.isclose(after, 21.0 / math.e)
    held = step(Reading(21.0, 0.0, 42.0), 21.0, r_k_per_kw=0.5, c_kwh_per_k=40.0, dt_h=5.0)
    assert math.isclose(held, 21.0)


def test_a_higher_set_point_costs_what_the_room_then_holds() -> None:
    lower, higher = predict(KNOWN, LOWER), predict(KNOWN, Change(**{**_fields(LOWER), "from_c": 20.0, "to_c": 21.0}))
    assert higher.saved_kg < 0
    # Down and up again is not for nothing, but close to it: what was held is given back.
    assert math.isclose(lower.saved_kwh, -higher.saved_kwh, rel_tol=0.05)


def _fields(change: Change) -> dict[str, float]:
    return {name: getattr(change, name) for name in Change.__dataclass_fields__}


@pytest.mark.parametrize("seed", range(8))
def test_a_fit_finds_the_building_again_within_its_own_errors(seed: int) -> None:
    clock = Seconds()
    found = fit(lived(Building(seed=seed, clock=clock), clock, 72), dt_h=0.25)
    assert abs(found.r_k_per_kw / R_K_PER_KW - 1) < 3 * found.r_error
    assert abs(found.c_kwh_per_k / C_KWH_PER_K - 1) < 3 * found.c_error
    assert found.explained > 0.98


@pytest.mark.parametrize("hidden_kw", [30.0, 60.0])
def test_a_room_that_something_else_heats_is_refused(hidden_kw: float) -> None:
    clock = Seconds()
    with pytest.raises(PoorFitError, match="something else heats or cools this room"):
        fit(lived(Building(seed=1, clock=clock, hidden_kw=hidden_kw), clock, 72), dt_h=0.25)


def test_too_few_readings_are_refused() -> None:
    clock = Seconds()
    with pytest.raises(PoorFitError, match=r"got 32 readings over 8\.0 h, want 48 over 12 h"):
        fit(lived(Building(seed=1, clock=clock), clock, 8), dt_h=0.25)


def test_a_room_that_never_changes_says_nothing() -> None:
    with pytest.raises(PoorFitError, match="hardly moves"):
        fit([Reading(21.0, 0.0, 42.0)] * 100, dt_h=0.25)


def test_swapped_points_are_refused() -> None:
    """Heat that cools: somebody took the cooling's power for the heating's, or two sensors for each other."""
    clock = Seconds()
    readings = [Reading(one.outdoor_c, one.indoor_c, one.heat_kw) for one in lived(Building(clock=clock), clock, 48)]
    with pytest.raises(PoorFitError):
        fit(readings, dt_h=0.25)


@pytest.mark.parametrize(("field", "value"), [("hours", 0.0), ("cop", 0.0), ("kg_per_kwh", -0.1), ("to_c", 0.0)])
def test_a_change_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="want"):
        predict(KNOWN, Change(**{**_fields(LOWER), field: value}))


def test_means_hold_a_value_until_the_next_and_no_longer_than_they_may() -> None:
    series = [(0, 10.0), (50, 20.0), (100, 30.0)]
    assert means(series, start_ns=0, step_ns=100, steps=4, hold_ns=100) == [15.0, 30.0, None, None]
    assert means([], start_ns=0, step_ns=100, steps=2, hold_ns=100) == [None, None]
    assert means([(-50, 4.0)], start_ns=0, step_ns=100, steps=1, hold_ns=1000) == [4.0]


DEVICES = """
[devices.hall]
template = "wattseal-plant-building"
url = "tcp://127.0.0.1:1"
period_s = 60.0
rated_power_w = 50000

[lines.heating]
zone = "DEMO"
energy = ["hall.import_energy"]
"""
PLAN = f"""
[thermal.hall]
gateway = "{GATEWAY}"
zone = "DEMO"
indoor = "hall.indoor"
outdoor = "hall.outdoor"
power = "hall.power"
cop = {COP}
"""
FACTORS = """
[[factor]]
provider = "ended"
zone = "DEMO"
signal = "average"
type = "lifecycle"
start = 2026-03-01T00:00:00Z
end = 2026-03-01T01:00:00Z
value = 900
unit = "g/kWh"
state = "final"
method = "an hour that is over"
source = "test"

[[factor]]
provider = "test"
zone = "DEMO"
signal = "average"
type = "lifecycle"
start = 2020-01-01T00:00:00Z
end = 2040-01-01T00:00:00Z
value = 400
unit = "g/kWh"
state = "final"
method = "constant"
source = "test"
"""
BEGIN_NS = 1_772_409_600 * 10**9  # 2026-03-02 00:00 UTC
DAY_MINUTES = 1440


async def _live(rig: Rig, minutes: int) -> None:
    for number in range(minutes):
        await rig.minute()
        if number % 60 == 59:
            rig.hand_over()


def test_a_set_back_is_foretold_from_leaves_and_holds_in_the_building_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three days of sealed readings, a prediction for a day at one degree less; then that day, with and without."""
    spent: dict[float, float] = {}
    made: dict[str, float] = {}
    for set_back in (0.0, 1.0):
        folder, time = tmp_path / str(set_back), PlantTime(BEGIN_NS)
        building = Building(seed=5, clock=time.seconds, swing_c=4.0)
        files = {"factors.toml": FACTORS, "carbon.toml": PLAN}
        rig = Rig(folder, plant=building, time=time, files=files, devices=DEVICES, fast=("hall",), fast_s=60)
        try:
            asyncio.run(_live(rig, 3 * DAY_MINUTES))
            if set_back:
                arguments = ["thermal", "predict", str(folder / "ledger.toml"), "hall", "--outdoor", "0", "--json"]
                arguments += ["--set-point", "21", "--to-set-point", "20"]
                capsys.readouterr()
                assert run([*arguments, "--from", "2026-03-02", "--to", "2026-03-05"]) == 0
                made = json.loads(capsys.readouterr().out)["prediction"]
            building.night_c = building.day_c
            asyncio.run(_live(rig, DAY_MINUTES))
            building.day_c = building.night_c = building.day_c - set_back
            before = building.heat_kwh
            asyncio.run(_live(rig, DAY_MINUTES))
            spent[set_back] = (building.heat_kwh - before) / COP
        finally:
            rig.close()
    saved_kg = (spent[0.0] - spent[1.0]) * 0.4
    assert abs(made["saved_kg"] / saved_kg - 1) < 0.15
    assert made["low_kg"] < saved_kg < made["high_kg"]


def test_the_command_refuses_a_room_that_is_not_in_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = PlantTime(BEGIN_NS)
    building = Building(clock=time.seconds)
    files = {"factors.toml": FACTORS, "carbon.toml": PLAN}
    rig = Rig(tmp_path, plant=building, time=time, files=files, devices=DEVICES, fast=("hall",), fast_s=60)
    try:
        time.t_ns += MINUTE_NS
        asyncio.run(_live(rig, 60))
        config = load_ledger(tmp_path / "ledger.toml")
        assert factor_now(config, "DEMO") == 0.4
        assert factor_now(config, "ELSEWHERE") is None
        assert run(["thermal", "fit", str(tmp_path / "ledger.toml"), "cellar"]) == 2
        assert "thermal: got 'cellar', want one of hall" in capsys.readouterr().err
        assert run(["thermal", "fit", str(tmp_path / "ledger.toml"), "hall", "--to", "2026-03-02T02:00:00Z"]) == 1
        assert "want 48 over 12 h" in capsys.readouterr().err
    finally:
        rig.close()
