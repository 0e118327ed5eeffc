"""codec/watch.py and codec/agreement.py: what stands still and should not, and what contradicts itself; said once."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.agreement import Confirmation, Reading, Tolerance, Twins
from gateway.codec.steps import Holds, Register, power_of, step_of
from gateway.codec.watch import Fresh, Stale, Stillness
from gateway.model import Change, Column, Quality, Row, Schema, Value

NS = 1_000_000_000
GOOD, UNCERTAIN, BAD = Quality
COUNTER = Register(counter=True, holds=Holds.F32)


def f32(value: float) -> float:
    found: float = struct.unpack(">f", struct.pack(">f", value))[0]
    return found


class Watch:
    """A device under watch, polled each second. columns: name to unit."""

    def __init__(self, stale_s: float, columns: dict[str, str], **registers: Register) -> None:
        found = tuple(Column(name=name, unit=unit, store="f64") for name, unit in columns.items())
        self.schema = Schema(device="m1", columns=found)
        known = [registers.get(name, Register()) for name in columns]
        self.subject = Stillness(self.schema, known, stale_s=stale_s)
        self.second = 0

    def poll(self, *values: Value | None) -> list[tuple[str, str]]:
        """Take the next row; return what was found: ("stale" or "fresh", point)."""
        self.second += 1
        return brief(self.row(*values))

    def row(self, *values: Value | None) -> Sequence[Stale | Fresh]:
        """Take a row now."""
        qualities = tuple(BAD if value is None else GOOD for value in values)
        return self.subject.row(Row(self.schema, self.second * NS, values, qualities if any(qualities) else None))

    def polls(self, count: int, *values: Value | None) -> list[tuple[int, str, str]]:
        """Take the same row so often; return what was found, and in which second."""
        return [(self.second, *found) for _ in range(count) for found in self.poll(*values)]


def brief(found: Sequence[Stale | Fresh]) -> list[tuple[str, str]]:
    return [(type(each).__name__.lower(), each.point) for each in found]


# --- what stands still ---


def test_a_value_that_stands_still_is_stale_once_and_fresh_when_it_moves() -> None:
    watch = Watch(10, {"level": "m", "flow": "m3/h"})
    found = []
    for second in range(1, 31):
        found += [(second, *each) for each in watch.poll(7.0, float(second))]
    assert found == [(11, "stale", "level")]
    assert watch.subject.stale == 1
    assert watch.poll(7.5, 31.0) == [("fresh", "level")]
    assert watch.subject.stale == 0
    assert watch.polls(20, 7.5, 31.0) == [(41, "stale", "level"), (41, "stale", "flow")]


def test_the_event_says_the_point_the_age_and_the_last_good_value() -> None:
    watch = Watch(10, {"level": "m"})
    watch.polls(10, 7.0)
    watch.second += 1
    (found,) = watch.row(7.0)
    assert isinstance(found, Stale)
    assert found.about() == {"point": "level", "value": 7.0, "since_ns": NS, "age_s": 10.0}
    watch.second += 1
    (found,) = watch.row(8.0)
    assert (type(found), found.t_ns, found.about()) == (
        Fresh,
        12 * NS,
        {"point": "level", "value": 8.0, "since_ns": NS},
    )


def test_a_device_that_answers_nothing_has_no_stale_points_and_its_silence_is_no_age() -> None:
    watch = Watch(10, {"level": "m"})
    watch.polls(6, 7.0)
    assert watch.polls(100, None) == []
    assert watch.polls(20, 7.0) == [(112, "stale", "level")], "5 s before, 5 s after"


def test_a_point_that_is_bad_ages_no_more_than_a_silent_device() -> None:
    watch = Watch(10, {"level": "m", "clock": "s"}, clock=Register(may_stand=True))
    watch.polls(6, 7.0, 1)
    assert watch.polls(50, None, 1) == []
    assert watch.polls(20, 7.0, 1) == [(62, "stale", "level")]


def test_a_point_that_may_stand_still_does() -> None:
    watch = Watch(10, {"ratio": "1"}, ratio=Register(may_stand=True))
    assert watch.polls(100, 40.0) == []


def test_a_clock_that_is_stepped_back_makes_nothing_stale_and_nothing_immortal() -> None:
    watch = Watch(10, {"level": "m"})
    watch.second = 1000
    watch.polls(6, 7.0)
    watch.second = 10
    assert watch.polls(20, 7.0) == [(16, "stale", "level")]


def test_what_a_device_tells_by_itself_is_movement() -> None:
    watch = Watch(10, {"level": "m"})
    watch.polls(11, 7.0)
    assert watch.subject.stale == 1
    assert brief(watch.subject.told([Change(watch.schema, 0, 12 * NS, 8.0)])) == [("fresh", "level")]
    watch.second = 12
    assert watch.polls(20, 8.0)[0][0] in {21, 22}


# --- counters: the resolution of a float, and what should have moved it ---


def consume(
    watch: Watch, seconds: int, *, load_w: float, start: float, frozen_at: int = 10**9
) -> list[tuple[int, str, str]]:
    """Poll a power and a float32 register of Wh; return what was found. frozen_at: from then on the register stands."""
    found, energy = [], start
    for second in range(seconds):
        energy += load_w / 3600 if second < frozen_at else 0.0
        found += [(second, *each) for each in watch.poll(load_w + second % 2, f32(energy))]
    return [each for each in found if each[2] == "energy"]


def test_a_float_register_of_1e9_wh_that_steps_by_64_is_not_stale() -> None:
    """A load of 10 kW leaves it unmoved for 23 s (facts/carbon.md): with stale_s = 5 nothing is said, for an hour."""
    watch = Watch(5, {"power": "W", "energy": "Wh"}, energy=COUNTER)
    assert consume(watch, 3600, load_w=10_000, start=1e9) == []


def test_the_same_register_is_stale_when_the_load_would_have_moved_it_by_two_steps() -> None:
    watch = Watch(5, {"power": "W", "energy": "Wh"}, energy=COUNTER)
    found = consume(watch, 600, load_w=10_000, start=1e9, frozen_at=300)
    assert len(found) == 1
    assert found[0][1] == "stale"
    assert 300 + 23 <= found[0][0] <= 300 + 3 * 24, "two steps of 64 Wh at 10 kW are 46 s"


def test_a_frozen_register_of_a_small_step_is_found_after_stale_s() -> None:
    watch = Watch(30, {"power": "W", "energy": "kWh"}, energy=COUNTER)
    found = []
    for second in range(200):
        energy = f32(12.5 + min(second, 100) * 10 / 3600)
        found += [(second, *each) for each in watch.poll(10_000.0 + second % 2, energy)]
    assert found == [(130, "stale", "energy")]


def test_a_counter_of_a_machine_that_stands_is_not_stale() -> None:
    watch = Watch(5, {"power": "W", "energy": "kWh"}, power=Register(may_stand=True), energy=COUNTER)
    for second in range(60):
        assert watch.poll(1000.0, 12.5 + second / 3600) == []
    assert watch.polls(10_000, 0.0, 12.6) == []


@pytest.mark.parametrize("step_wh", [1, 10, 100])
def test_a_meter_that_counts_in_coarse_steps_of_its_own_is_not_stale(step_wh: int) -> None:
    """Its register could hold more digits, but the meter moves it in whole steps; from its first one on."""
    watch = Watch(5, {"power": "kW", "energy": "kWh"}, power=Register(may_stand=True), energy=COUNTER)
    for second in range(1800):
        energy_wh = 5_000_000 + 2_000 * second / 3600
        assert watch.poll(2.0, f32(energy_wh // step_wh * step_wh / 1000)) == []


def test_a_counter_of_the_other_direction_is_not_stale() -> None:
    registers = {"export": Register(counter=True, holds=Holds.F32, outward=True), "power": Register(may_stand=True)}
    watch = Watch(5, {"power": "W", "energy": "kWh", "export": "kWh"}, energy=COUNTER, **registers)
    for second in range(600):
        assert watch.poll(5000.0, f32(10 + second * 5 / 3600), 77.25) == []
    assert [point for _, kind, point in watch.polls(100, -5000.0, 10.8, 77.25) if kind == "stale"] == ["export"]


def test_a_tariff_that_does_not_count_is_not_stale_while_another_one_does() -> None:
    registers = {"power": Register(may_stand=True), "tariff_2": COUNTER}
    watch = Watch(5, {"power": "W", "energy": "kWh", "tariff_2": "kWh"}, energy=COUNTER, **registers)
    for second in range(600):
        assert watch.poll(5000.0, f32(10 + second * 5 / 3600), 55.5) == []
    assert [each[1:] for each in watch.polls(100, 5000.0, 10.8, 55.5)] == [("stale", "energy")]


def test_without_a_power_a_counter_is_judged_by_its_own_pace() -> None:
    watch = Watch(10, {"good": "1"}, good=Register(counter=True, holds=Holds.WHOLE))
    assert watch.polls(60, 999) == [(11, "stale", "good")], "nobody knows its pace yet"
    assert watch.poll(1000) == [("fresh", "good")]
    found = []
    for second in range(1, 600):
        found += watch.poll(1000 + second // 60)
    assert found == [], "one piece a minute is no standstill of 10 s"
    assert watch.polls(200, 1009)[0][0] == pytest.approx(600 + 122, abs=8)


def test_without_a_power_an_energy_counter_that_has_not_moved_yet_waits_for_a_load_of_100_w() -> None:
    coarse = Watch(10, {"energy": "Wh"}, energy=COUNTER)
    assert [each[0] for each in coarse.polls(7200, f32(1e9))] == [2 * 64 * 36 + 2]
    fine = Watch(10, {"energy": "Wh"}, energy=COUNTER)
    assert [each[0] for each in fine.polls(200, f32(12.34))] == [11]


def test_a_counter_that_rolls_over_or_is_replaced_has_moved() -> None:
    watch = Watch(30, {"power": "W", "energy": "kWh"}, power=Register(may_stand=True), energy=COUNTER)
    for second in range(100):
        assert watch.poll(10_000.0, f32((999_990 + second) % 1_000_000)) == []


@pytest.mark.parametrize(
    ("value", "register", "smallest", "step"),
    [
        (1e9, COUNTER, 64.0, 64.0),
        (1e9, COUNTER, None, 64.0),
        (f32(1234.5), COUNTER, None, 0.1),
        (f32(1234.56), COUNTER, None, 0.01),
        (1234.0, COUNTER, None, 1.0),
        (1200.0, COUNTER, 0.25, 0.25),
        (0.0, COUNTER, None, 1.0),
        (f32(1234.5), COUNTER, 1e-9, 2.0**-13),
        (10.0, Register(counter=True, holds=Holds.WHOLE, scale=0.01), None, 0.01),
        (10.0, Register(counter=True, holds=Holds.WHOLE, scale=0.01), 0.05, 0.05),
        (1e6, Register(counter=True, holds=Holds.F32, scale=0.001), None, 1.0),
        (1e6, Register(counter=True, holds=Holds.F32, scale=0.001), 1e-6, 0.064),
        (1e9, Register(counter=True, holds=Holds.F64), 1e-12, math.ulp(1e9)),
        (1e9, Register(counter=True), 1e-12, 64.0),
        (1e9 + 0.3, Register(counter=True), 1e-12, math.ulp(1e9)),
        (1e300, Register(counter=True), None, math.ulp(1e300)),
    ],
)
def test_a_step_is_the_registers_or_the_smallest_seen(
    value: float, register: Register, smallest: float | None, step: float
) -> None:
    assert step_of(value, register, smallest) == pytest.approx(step)


@settings(max_examples=100)
@given(
    st.floats(min_value=0.0, max_value=2.0**127, width=32), st.floats(min_value=2.0**-120, max_value=2.0**126, width=32)
)
def test_a_floats_step_is_never_less_than_what_moves_it(value: float, added: float) -> None:
    step = step_of(value, COUNTER, 1e-300)
    moved = f32(value + added) - value
    assert moved == 0 or moved >= step * 0.999


def test_the_power_of_a_device_is_the_usual_one_or_the_only_one() -> None:
    def found(**units: str) -> int | None:
        return power_of(
            Schema(device="m", columns=tuple(Column(name=n, unit=u, store="f32") for n, u in units.items()))
        )

    assert found(l1_power="W", active_power="W") == 1
    assert found(energy="kWh", drawn="kW") == 1
    assert found(l1_power="W", l2_power="W") is None
    assert found(energy="kWh") is None


VALUES = st.sampled_from([1.0, 1.5, 2.0, None])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 20), VALUES, VALUES, VALUES), max_size=60), st.sampled_from([1.0, 10.0]))
def test_whatever_is_read_each_turn_is_said_once(rows: list[tuple[Any, ...]], stale_s: float) -> None:
    watch = Watch(stale_s, {"power": "W", "energy": "Wh", "level": "m"}, energy=COUNTER)
    turns: dict[str, list[str]] = {}
    for after_s, *values in rows:
        watch.second += after_s
        for kind, point in brief(watch.row(*values)):
            turns.setdefault(point, []).append(kind)
    for kinds in turns.values():
        assert kinds == [("stale", "fresh")[n % 2] for n in range(len(kinds))]
    assert watch.subject.stale == sum(kinds[-1] == "stale" for kinds in turns.values())


# --- told and polled ---


class Followed:
    """A device of one column that tells its changes, and is polled."""

    def __init__(self, tolerance: Tolerance | None, hold_s: int = 5) -> None:
        self.schema = Schema(device="plc", columns=(Column(name="speed", unit="rpm", store="f64"),))
        self.subject = Confirmation(self.schema, [tolerance], [hold_s * NS])

    def told(self, second: int, value: Value | None) -> None:
        """Take a change."""
        self.subject.told([Change(self.schema, 0, second * NS, value, BAD if value is None else GOOD)])

    def polled(self, second: int, value: Value | None) -> list[bool]:
        """Take a poll; return the verdicts."""
        bad = (BAD,) if value is None else None
        return [verdict.agrees for verdict in self.subject.row(Row(self.schema, second * NS, (value,), bad))]


def test_a_poll_that_goes_on_to_contradict_what_was_told_is_said_once_and_so_is_its_end() -> None:
    device = Followed(Tolerance(absolute=1.0))
    device.told(1, 100.0)
    assert device.polled(10, 101.0) == []
    assert device.polled(20, 150.0) == [], "a change may be on its way"
    assert device.polled(24, 150.0) == []
    assert device.polled(25, 150.0) == [False]
    assert device.polled(30, 150.0) == []
    assert device.polled(40, 100.5) == [True]
    assert device.polled(50, 100.5) == []


def test_a_verdict_says_both_values_with_times_and_qualities() -> None:
    device = Followed(Tolerance())
    device.told(1, 100.0)
    device.polled(10, 101.0)
    (verdict,) = device.subject.row(Row(device.schema, 20 * NS, (101.0,), (UNCERTAIN,), "sensor"))
    assert (verdict.t_ns, verdict.about()) == (
        20 * NS,
        {
            "point": "speed",
            "value": 100.0,
            "t_ns": NS,
            "quality": "GOOD",
            "other": "poll",
            "other_value": 101.0,
            "other_t_ns": 20 * NS,
            "other_quality": "UNCERTAIN",
        },
    )


def test_a_change_that_was_on_its_way_contradicts_nothing() -> None:
    device = Followed(Tolerance())
    device.told(1, 100.0)
    assert device.polled(20, 150.0) == []
    device.told(19, 150.0)
    assert [device.polled(second, 150.0) for second in (30, 40)] == [[], []]
    device.told(60, 1.0)
    assert device.polled(50, 150.0) == [], "the poll is older than what was told"


def test_what_is_bad_on_either_side_or_cannot_be_judged_is_not_compared() -> None:
    device = Followed(Tolerance())
    device.told(1, 100.0)
    device.polled(10, 5.0)
    assert device.polled(20, None) == []
    assert device.polled(30, 5.0) == []
    device.told(31, None)
    assert [device.polled(second, 5.0) for second in (40, 50, 60)] == [[], [], []]
    unknown = Followed(None)
    unknown.told(1, 100.0)
    assert [unknown.polled(second, 5.0) for second in (10, 20, 30)] == [[], [], []]
    untold = Followed(Tolerance())
    assert [untold.polled(second, 5.0) for second in (10, 20, 30)] == [[], [], []]


# --- two points that are one ---


def twins(polls: int = 3, window_s: int = 1, **tolerance: float) -> Twins:
    return Twins(
        point="energy", other="m2.energy", tolerance=Tolerance(**tolerance), polls=polls, window_ns=window_s * NS
    )


def test_two_points_disagree_after_more_than_so_many_pairs_and_it_is_said_once() -> None:
    subject, said = twins(absolute=0.5), []
    theirs = [0.0, 0.5, 9, 9, 9, 0, 9, 9, 9, 9, 9, 9, 0, 0, 9, 0, 0, 0, 0, 0]
    for second, value in enumerate(theirs):
        verdict = subject.compare(Reading(0.0, second * NS), Reading(float(value), second * NS))
        said += [(second, verdict.agrees)] if verdict is not None else []
    assert said == [(9, False), (18, True)]


def test_an_old_value_is_no_witness_and_the_same_one_is_none_twice() -> None:
    subject = twins(polls=0)
    assert subject.compare(Reading(0.0, 10 * NS), Reading(5.0, 8 * NS)) is None
    assert subject.compare(Reading(None, 10 * NS, BAD), Reading(5.0, 10 * NS)) is None
    assert subject.compare(Reading(0.0, 10 * NS), Reading(None, 10 * NS, BAD)) is None
    slow = twins(polls=1, window_s=60)
    assert [slow.compare(Reading(0.0, second * NS), Reading(5.0, 0)) for second in range(60)] == [None] * 60
    verdict = slow.compare(Reading(0.0, 61 * NS), Reading(5.0, 60 * NS))
    assert verdict is not None
    assert (verdict.agrees, verdict.point, verdict.other) == (False, "energy", "m2.energy")


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (100.0, 105.0, True),
        (105.0, 100.0, True),
        (100.0, 106.0, False),
        (1000, 1100, True),
        (1000, 1112, False),
        ("a", "a", True),
        ("a", "b", False),
        (True, False, False),
    ],
)
def test_values_agree_within_the_larger_tolerance_and_texts_when_equal(
    one: Value, other: Value, *, agree: bool
) -> None:
    assert Tolerance(absolute=5.0, percent=10.0 if isinstance(one, int) else 0.0).allows(one, other) is agree
