"""The six replays of the facts, each with another true cause; and what must not cause an alert."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.carbon.alerts.alert import ACCEPTED, CLEARED, LEARNED, RAISED, SHELVED, Alert, AlertEvent
from gateway.carbon.alerts.baseline import from_flat
from gateway.carbon.alerts.detect import LineWatch
from gateway.carbon.alerts.observe import MINUTE_NS
from gateway.carbon.energy import Flag
from gateway.codec.bodies import event_body
from gateway.codec.checks import check_body
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.codec.pack import unpack
from gateway.config.plan import AlertSection
from tests.line_days import (
    DAY0_NS,
    SHIFT_MIN,
    Change,
    Line,
    Truth,
    between,
    breaks,
    daily_factor,
    nights_off,
    three_products,
)

LEARNING = 3 * SHIFT_MIN
FAULT = LEARNING + 100
REPAIR = FAULT + 45
END = LEARNING + 240

COMPRESSOR: dict[str, Any] = {"compressor_kw": 585.0, "starts_per_h": 30.0, "duty": 0.85}
GRID: dict[str, Any] = {"factor": 0.5117647}
SKU: dict[str, Any] = {"kwh_per_unit": 1.455, "units_per_h": 500.0}
SLOW: dict[str, Any] = {"units_per_h": 334.88}
MIXED: dict[str, Any] = {"factor": 0.42, "units_per_h": 570.0, "compressor_kw": 493.7142857, "starts_per_h": 24.0}
NO_COUNTS: dict[str, Any] = {"counts": False}

SEEDS = pytest.mark.parametrize("seed", range(6))
STEPS = pytest.mark.parametrize("step_kwh", [0.0, 1.0], ids=["fine", "1 kWh"])


def minute(t_ns: int) -> int:
    return (t_ns - DAY0_NS) // MINUTE_NS


def watch_of(**more: Any) -> LineWatch:
    return LineWatch(AlertSection(**more), gateway="gw1", line="filling")


def told(line: Line, *changes: Change, end: int = END, watch: LineWatch | None = None) -> list[AlertEvent]:
    """Return what is said from the first minute to the last."""
    watch = watch or watch_of()
    return [event for seen in line.minutes(0, end, breaks, *changes) for event in watch.feed(seen)]


def replayed(seed: int, step_kwh: float = 0.0, *, is_told: bool = True, **fault: Any) -> tuple[Alert, Alert]:
    """Return the one alert of a fault of 45 minutes, as raised and as cleared."""
    line = Line(seed=seed, step_kwh=step_kwh, told=is_told)
    start = FAULT + 3 * seed
    events = told(line, between(start, start + 45, **fault))
    assert [event.what for event in events] == [LEARNED, RAISED, CLEARED]
    raised, cleared = events[1].alert, events[2].alert
    assert raised is not None
    assert cleared is not None
    assert 0 < minute(raised.raised_ns) - start <= 10
    assert abs(minute(raised.onset_ns) - start) <= 2
    assert 0 < minute(cleared.cleared_ns or 0) - (start + 45) <= 25
    return raised, cleared


@pytest.mark.parametrize("truth", [COMPRESSOR, GRID, SKU, SLOW, MIXED])
def test_each_replay_goes_from_068_to_087(truth: dict[str, Any]) -> None:
    assert Truth().kg_per_unit == pytest.approx(0.68)
    changed = Truth(**truth)
    assert changed.kg_per_unit == pytest.approx(0.87, abs=5e-5)


@SEEDS
@STEPS
def test_a_compressor_valve_is_named_with_its_short_cycling(seed: int, step_kwh: float) -> None:
    raised, cleared = replayed(seed, step_kwh, **COMPRESSOR)
    for alert in (raised, cleared):
        assert [cause.name for cause in alert.causes] == ["compressor"]
        assert alert.causes[0].evidence[0].startswith("short cycling, ")
        assert "instead of 6" in alert.causes[0].evidence[0]
        assert alert.causes[0].confidence > 0.9
        assert alert.before == pytest.approx(0.68, abs=0.005)
    assert raised.after == pytest.approx(0.87, abs=0.03)
    assert cleared.after == pytest.approx(0.87, abs=0.01)
    assert cleared.repaired == pytest.approx(0.68, abs=0.02)
    assert cleared.change_percent == pytest.approx(-22, abs=2)
    assert cleared.excess_kg == pytest.approx(0.19 * 450, rel=0.06)
    hours_left = (LEARNING + SHIFT_MIN - (FAULT + 3 * seed + 45)) / 60
    assert cleared.avoided_kg == pytest.approx(0.19 * 600 * hours_left, rel=0.15)


@SEEDS
@STEPS
def test_a_dirtier_grid_blames_no_asset(seed: int, step_kwh: float) -> None:
    raised, cleared = replayed(seed, step_kwh, **GRID)
    for alert in (raised, cleared):
        assert alert.kind == "grid"
        assert [cause.kind for cause in alert.causes] == ["grid"]
    assert cleared.repaired == pytest.approx(0.68, abs=0.02)


@SEEDS
@STEPS
def test_a_slow_line_is_a_slow_line(seed: int, step_kwh: float) -> None:
    raised, cleared = replayed(seed, step_kwh, **SLOW)
    for alert in (raised, cleared):
        assert alert.causes[0].kind == alert.kind == "throughput"
        assert not [cause for cause in alert.causes if cause.kind == "asset"]


@SEEDS
@STEPS
def test_three_causes_at_once_stand_in_their_order(seed: int, step_kwh: float) -> None:
    raised, cleared = replayed(seed, step_kwh, **MIXED)
    assert [cause.name for cause in raised.causes][:2] == ["compressor", "grid factor"]
    assert [cause.name for cause in cleared.causes] == ["compressor", "grid factor", "throughput"]
    parts = [cause.contribution for cause in cleared.causes]
    assert parts == pytest.approx([0.1359, 0.0377, 0.0165], abs=0.01)


@SEEDS
@STEPS
def test_a_heavier_product_without_context_is_undetermined(seed: int, step_kwh: float) -> None:
    raised, cleared = replayed(seed, step_kwh, is_told=False, **SKU)
    for alert in (raised, cleared):
        assert alert.causes[0].name == "process or product change, undetermined"
        assert not alert.causes[0].determined
        assert alert.causes[0].confidence < 0.5
        assert not [cause for cause in alert.causes if cause.kind == "asset"]


@SEEDS
def test_a_heavier_product_with_a_baseline_of_its_own_is_no_alert(seed: int) -> None:
    def product_b(number: int, truth: Truth) -> Truth:
        is_b = number % SHIFT_MIN >= 300 if number < LEARNING else FAULT <= number < REPAIR
        return between(0, END, product="B", job="J2", **SKU)(number, truth) if is_b and truth.units_per_h else truth

    events = told(Line(seed=seed), product_b)
    assert [event.what for event in events] == [LEARNED, LEARNED]


@SEEDS
def test_missing_counts_are_a_data_alert_and_no_kpi(seed: int) -> None:
    raised, cleared = replayed(seed, **NO_COUNTS)
    assert raised.kind == "data"
    assert raised.after is None
    assert raised.causes[0].name == "counts missing"
    assert cleared.repaired is None


def test_counts_that_are_back_for_five_minutes_do_not_end_their_alert() -> None:
    gaps = [between(at, at + 20, **NO_COUNTS) for at in (FAULT, FAULT + 25)]
    events = told(Line(seed=1), *gaps)
    assert [event.what for event in events] == [LEARNED, RAISED, CLEARED]
    assert minute(events[-1].t_ns) == FAULT + 55


def test_a_counter_that_stands_still_is_a_data_alert() -> None:
    line = Line(seed=1, told=False)
    stuck = [
        seen._replace(units_good=0.0) if FAULT <= minute(seen.start_ns) < REPAIR else seen
        for seen in line.minutes(0, END, breaks)
    ]
    watch = watch_of()
    alerts = [event.alert for seen in stuck for event in watch.feed(seen) if event.alert is not None]
    assert [(alert.kind, alert.why) for alert in alerts] == [("data", "count stands still")] * 2


def test_a_meter_that_is_missing_is_a_data_alert() -> None:
    watch, alerts = watch_of(), []
    for seen in Line(seed=1).minutes(0, END, breaks):
        if FAULT <= minute(seen.start_ns) < REPAIR:
            energy = {"line": seen.energy_kwh["line"]}
            seen = seen._replace(energy_kwh=energy, flags=frozenset({Flag.INCOMPLETE}))  # noqa: PLW2901
        alerts += [event.alert for event in watch.feed(seen) if event.alert is not None]
    assert [(alert.kind, alert.why) for alert in alerts] == [("data", "meters missing")] * 2


def test_no_baseline_no_alert() -> None:
    events = told(Line(seed=2), between(300, 400, **COMPRESSOR), end=2 * SHIFT_MIN)
    assert events == []
    watch = watch_of()
    told(Line(seed=2), end=2 * SHIFT_MIN, watch=watch)
    assert watch.learning() == [("A", "", 1, 3, "it has no baseline yet")]


def test_a_fixed_limit_holds_while_the_baseline_is_learned() -> None:
    watch = watch_of(limit_kg_per_unit=0.8)
    events = told(Line(seed=2), between(300, 400, **COMPRESSOR), end=2 * SHIFT_MIN, watch=watch)
    assert [event.what for event in events] == [RAISED, CLEARED]
    alert = events[0].alert
    assert alert is not None
    assert (alert.kind, alert.causes[0].determined) == ("limit", False)


def test_one_fault_is_one_alert_and_nothing_is_learned_of_it() -> None:
    watch = watch_of()
    events = told(Line(seed=4), between(FAULT, END + 600, **COMPRESSOR), end=END + 2 * SHIFT_MIN, watch=watch)
    assert [event.what for event in events][:2] == [LEARNED, RAISED]
    assert [event.what for event in events].count(RAISED) == 1
    before = watch.baselines["A", ""]
    assert before.assets["compressor"].kw == pytest.approx(300, rel=0.02)


def test_a_shelved_alert_is_quiet_until_its_time_and_never_for_ever() -> None:
    watch, line, said = watch_of(), Line(seed=5), []
    fault = between(FAULT, FAULT + 40, **COMPRESSOR)
    again = between(FAULT + 80, FAULT + 200, **COMPRESSOR)
    for seen in line.minutes(0, LEARNING + 370, fault, again):
        for event in watch.feed(seen):
            said.append((event.what, minute(event.t_ns)))
            if event.what == RAISED and event.alert is not None and len(said) == 2:
                until_ns = seen.end_ns + 150 * MINUTE_NS
                with pytest.raises(ValueError, match="within 30 days"):
                    watch.shelve(event.alert.id, until_ns=2**62, by="ann", why="valve", now_ns=seen.end_ns)
                with pytest.raises(ValueError, match="who, and why"):
                    watch.shelve(event.alert.id, until_ns=until_ns, by="ann", why=" ", now_ns=seen.end_ns)
                with pytest.raises(KeyError):
                    watch.shelve("nothing", until_ns=until_ns, by="ann", why="valve", now_ns=seen.end_ns)
                quiet = watch.shelve(event.alert.id, until_ns=until_ns, by="ann", why="valve", now_ns=seen.end_ns)
                assert quiet.what == SHELVED
                assert quiet.about()["shelved_by"] == "ann"
    raised = [at for what, at in said if what == RAISED]
    assert len(raised) == 2
    assert raised[1] >= raised[0] + 150


def test_an_accepted_fault_is_learned_as_the_new_normal() -> None:
    """It is clean from then on: nothing of the old normal, no alert while it is learned, and one of what comes next."""
    watch, said = watch_of(learn_shifts=2), []
    learned = 2 * SHIFT_MIN
    fault, worse = learned + 60, learned + 3 * SHIFT_MIN + 60
    story = (between(fault, worse, **COMPRESSOR), between(worse, worse + 60, compressor_kw=800.0, starts_per_h=45.0))
    for seen in Line(seed=5).minutes(0, worse + 60, breaks, *story):
        said += [(event.what, minute(event.t_ns)) for event in watch.feed(seen)]
        if minute(seen.end_ns) == fault + 30:
            (alert,) = watch.open_alerts
            with pytest.raises(ValueError, match="who, and why"):
                watch.accept(alert.id, by="", why="a second compressor", t_ns=seen.end_ns)
            with pytest.raises(KeyError):
                watch.accept("nothing", by="ann", why="a second compressor", t_ns=seen.end_ns)
            done = watch.accept(alert.id, by="ann", why="a second compressor", t_ns=seen.end_ns)
            about = unpack(event_body(done.what, done.t_ns, done.about()))["about"]
            assert (done.what, done.t_ns) == (ACCEPTED, seen.end_ns)
            assert (about["accepted_by"], about["accepted_why"], about["dropped_baseline"]) == (
                "ann",
                "a second compressor",
                1,
            )
            assert Alert.of(about).about() == about
            assert watch.open_alerts == ()
            assert watch.baselines == {}
            assert watch.learning() == [("A", "", 0, 2, "it has no baseline yet")]
    assert [what for what, _ in said] == [LEARNED, RAISED, LEARNED, RAISED]
    assert said[2][1] == learned + 2 * SHIFT_MIN  # what was left of the shift counts
    assert worse < said[3][1] <= worse + 10
    assert watch.baselines["A", ""].assets["compressor"].kw == pytest.approx(585, rel=0.02)
    assert watch.baselines["A", ""].number == 1


@pytest.mark.parametrize(("fault", "kind"), [(GRID, "grid"), (NO_COUNTS, "data")])
def test_only_what_rests_on_a_baseline_can_be_accepted(fault: dict[str, Any], kind: str) -> None:
    watch = watch_of()
    told(Line(seed=3), between(FAULT, FAULT + 60, **fault), end=FAULT + 30, watch=watch)
    (alert,) = watch.open_alerts
    with pytest.raises(ValueError, match=f"{kind}: want an alert of energy or throughput"):
        watch.accept(alert.id, by="ann", why="so be it", t_ns=alert.raised_ns)
    assert watch.open_alerts == (alert,)


def test_an_alert_of_a_limit_ends_when_the_plan_has_none_any_more() -> None:
    line, fault = Line(seed=2), between(300, 2 * SHIFT_MIN, **COMPRESSOR)
    limited, free = watch_of(limit_kg_per_unit=0.8), watch_of()
    seen = list(line.minutes(0, SHIFT_MIN, breaks, fault))
    (raised,) = [event.alert for one in seen[:400] for event in limited.feed(one)]
    assert raised is not None
    free.restore([raised])
    assert [event.what for one in seen[400:] for event in free.feed(one)] == [CLEARED]


def test_a_line_with_many_meters_is_watched_and_its_smallest_are_one() -> None:
    """What the fine meters add up to can be blamed as others; a meter with a name of its own still is."""
    small = [f"machine hall 3, cabinet {number:03}" for number in range(400)]

    def story(faulty_kw: float, others_kw: float) -> list[AlertEvent]:
        watch, found = watch_of(learn_shifts=1), []
        change = between(SHIFT_MIN + 60, SHIFT_MIN + 120, compressor_kw=faulty_kw)
        for number, seen in enumerate(Line(seed=8).minutes(0, SHIFT_MIN + 90, change)):
            kw = others_kw if number >= SHIFT_MIN + 60 else 100.0
            more = {name: kw / len(small) / 60 for name in small}
            energy = {**seen.energy_kwh, **more}
            found += watch.feed(seen._replace(energy_kwh=energy, co2e_kg=0.4 * sum(energy.values())))
        return found

    for faulty_kw, others_kw, name in ((585.0, 100.0, "compressor"), (300.0, 400.0, "others")):
        events = story(faulty_kw, others_kw)
        assert [event.what for event in events] == [LEARNED, RAISED]
        baseline, alert = events[0].baseline, events[1].alert
        assert baseline is not None
        assert alert is not None
        assert len(event_body(LEARNED, 5, events[0].about())) < MAX_LEAF - MAX_HEADER
        assert alert.causes[0].name == name
        assert "changed at the onset" in alert.causes[0].evidence
        assert from_flat(events[0].about()) == baseline
        assert {"", "compressor", "others"} < set(baseline.assets)
        assert 100 < len(baseline.assets) < 200
        assert baseline.covers({"", "compressor", *small})
        assert not baseline.covers({"", "compressor", *small[1:]})
        assert not baseline.covers({"", "compressor", "oven", *small})
        assert not baseline.covers({"", *small})


def test_events_stand_in_leaves_and_read_back() -> None:
    for event in told(Line(seed=6), between(FAULT, REPAIR, **MIXED)):
        body = check_body("event", unpack(event_body(event.what, event.t_ns, event.about())))
        assert not any(isinstance(value, dict) for value in body["about"].values())
        if event.alert is not None:
            read = Alert.of(body["about"])
            assert (read.id, read.kind, read.before, read.repaired) == (
                event.alert.id,
                event.alert.kind,
                event.alert.before,
                event.alert.repaired,
            )
            assert [cause.name for cause in read.causes] == [cause.name for cause in event.alert.causes]


def test_the_same_observations_say_the_same() -> None:
    first, second = (told(Line(seed=7), between(FAULT, REPAIR, **MIXED)) for _ in range(2))
    assert [(one.what, one.about()) for one in first] == [(one.what, one.about()) for one in second]


@pytest.mark.parametrize(
    ("story", "line"),
    [
        ([], Line(seed=11, alike=0.5)),
        ([three_products, daily_factor], Line(seed=12, step_kwh=1.0, alike=0.3)),
        ([nights_off, daily_factor], Line(seed=13, told=False, alike=0.5)),
    ],
    ids=["three shifts", "three products", "nights off, nothing told"],
)
def test_thirty_clean_days_cause_one_alert_at_most(story: Sequence[Change], line: Line) -> None:
    """Job changes, start-ups, lunch breaks, minutes that are alike, a register of 1 kWh."""
    events = told(line, *story, end=30 * 1440)
    assert sum(event.what == RAISED for event in events) <= 1
    assert sum(event.what == LEARNED for event in events) >= 10
