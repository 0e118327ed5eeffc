"""A baseline is learned from clean shifts, stands up to odd windows, and reads back from its leaf."""

import random

import pytest

from gateway.carbon.alerts.baseline import Baseline, from_flat, learn, to_flat
from gateway.carbon.alerts.windows import REST, WINDOW_NS, Window, quantum
from gateway.codec.bodies import event_body
from gateway.codec.checks import check_body
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.codec.pack import unpack

HOURS = 5 / 60


def window(number: int, rate: float, rest_kw: float, compressor_kw: float = 300.0, starts: int = 0) -> Window:
    energy = {REST: rest_kw * HOURS, "compressor": compressor_kw * HOURS}
    start_ns = number * WINDOW_NS
    return Window(
        start_ns=start_ns,
        end_ns=start_ns + WINDOW_NS,
        hours=HOURS,
        energy_kwh=energy,
        units=rate * HOURS,
        co2e_kg=0.4 * sum(energy.values()),
        starts={"compressor": starts},
        loaded_h={"compressor": HOURS / 2},
    )


def varied(seed: int = 1, count: int = 96) -> list[Window]:
    chance = random.Random(seed)
    found = []
    for number in range(count):
        rate = chance.uniform(400, 700)
        found.append(window(number, rate, (60 + 1.1 * rate) * chance.gauss(1, 0.01), 300 * chance.gauss(1, 0.01)))
    return found


def learned(windows: list[Window], idle: list[Window] | None = None, **loads: str) -> Baseline:
    return learn(windows, idle or [], shifts=3, loads=loads, product="A")


def test_the_slope_and_the_fixed_part_are_found() -> None:
    rest = learned(varied()).assets[REST]
    assert rest.kw == pytest.approx(60, abs=15)
    assert rest.kwh_per_unit == pytest.approx(1.10, abs=0.03)


def test_a_fifth_of_odd_windows_does_not_move_it() -> None:
    windows = varied()
    for at in range(0, len(windows), 5):
        windows[at] = window(at, windows[at].units_per_h, 3000.0, 900.0)
    norm = learned(windows)
    assert norm.assets["compressor"].kw == pytest.approx(300, rel=0.02)
    assert norm.assets[REST].kwh_per_unit == pytest.approx(1.10, abs=0.06)


def test_a_steady_line_takes_its_fixed_part_from_a_standstill() -> None:
    steady = [window(n, 600.0, 720.0) for n in range(40)]
    assert learned(steady, [window(50, 0.0, 60.0)]).assets[REST].kw == pytest.approx(60)
    assert learned(steady, [window(50, 0.0, 60.0)]).assets[REST].kwh_per_unit == pytest.approx(1.1)
    alone = learned(steady)
    assert [alone.assets[REST].kw, alone.assets[REST].kwh_per_unit] == pytest.approx([0, 1.2])
    assert alone.assets["compressor"].kwh_per_unit == 0
    assert learned(steady, compressor="units").assets["compressor"].kwh_per_unit == pytest.approx(0.5)


def test_coarse_registers_have_a_sigma_that_their_steps_explain() -> None:
    """A 1 kWh register of a 4 kW load shows 0 in most windows: the median of what is left over is no noise at all."""
    shown = [window(n, 600.0, 720.0, (1.0 if n % 3 == 0 else 0.0) / HOURS) for n in range(60)]
    assert quantum(one.energy_kwh["compressor"] for one in shown) == pytest.approx(1.0)
    assert learned(shown).assets["compressor"].sigma_kw >= 1 / 6**0.5 / HOURS


def test_noise_that_is_alike_from_window_to_window_counts_for_more() -> None:
    chance, mood, drifting = random.Random(3), 0.0, []
    for number in range(200):
        mood = 0.8 * mood + 0.6 * chance.gauss(0, 1)
        drifting.append(window(number, 600.0, 720.0 * (1 + 0.01 * mood)))
    assert learned(drifting).sigma_kw > 1.5 * 7.2


def test_it_reads_back_from_its_leaf() -> None:
    baseline = learned(varied())
    flat = {"gateway": "gw1", "line": "filling", **to_flat(baseline)}
    body = check_body("event", unpack(event_body("baseline.learned", 5, flat)))
    assert all(type(value) is str for value in body["about"].values())
    assert from_flat(body["about"]) == baseline
    with pytest.raises(KeyError):
        from_flat({"product": "A"})


def test_starts_and_duty_are_learned() -> None:
    norm = learned([window(n, 600.0, 720.0, starts=n % 2) for n in range(40)]).assets["compressor"]
    assert norm.starts_per_h == pytest.approx(6)
    assert norm.duty == pytest.approx(0.5)


def test_assets_that_are_too_many_for_a_leaf_are_pooled_the_largest_and_the_counted_keep_their_names() -> None:
    energy = {f"meter {number:03} {'x' * 150}": float(number) for number in range(500)} | {REST: 0.0, "others": 1e6}
    counted = min(name for name in energy if name)
    windows = [one._replace(energy_kwh=energy, starts={counted: 1}) for one in varied()]
    week = ",".join(f"0.{30_000 + at}" for at in range(7 * 96))
    baseline = learned(windows, [windows[0]], **dict.fromkeys(energy, "units"))._replace(factors=f"1963000,{week}")
    flat = {"gateway": "g" * 64, "line": "l" * 200, **to_flat(baseline)}
    assert len(event_body("baseline.learned", 5, flat)) < MAX_LEAF - MAX_HEADER
    assert from_flat(flat) == baseline
    assert baseline.covers(energy)
    assert not baseline.covers(baseline.assets)
    assert baseline.kept == set(baseline.assets) - {"others"}
    largest = sorted(set(energy) - {REST, "others", counted}, reverse=True)
    assert baseline.kept == {REST, counted, *largest[: len(baseline.kept) - 2]}
    pooled_kwh = sum(energy.values()) - sum(energy[name] for name in baseline.kept)
    assert baseline.assets["others"].expected_kw(600.0) == pytest.approx(pooled_kwh / HOURS)
    assert baseline.expected_kw(600.0) == pytest.approx(windows[0].kw)
