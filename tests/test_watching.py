"""What a watch says of a fault: the evidence of each cause, what is shelved, and what becomes of an open alert."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gateway.carbon.alerts.alert import CLEARED, LEARNED, RAISED, UPDATED, Alert, AlertEvent
from gateway.carbon.alerts.detect import LineWatch
from gateway.carbon.alerts.observe import MINUTE_NS
from gateway.config.plan import AlertSection
from tests.line_days import DAY0_NS, SHIFT_MIN, Change, Line, Truth, between

FAULT = SHIFT_MIN + 60
COMPRESSOR: dict[str, Any] = {"compressor_kw": 585.0, "starts_per_h": 30.0, "duty": 0.85}
LEAK: dict[str, Any] = {"compressor_kw": 585.0, "starts_per_h": 0.0, "duty": 1.0}


def watch_of(**more: Any) -> LineWatch:
    return LineWatch(AlertSection(learn_shifts=1, **more), gateway="gw1", line="filling")


def fed(watch: LineWatch, line: Line, first: int, last: int, *changes: Change) -> list[AlertEvent]:
    """Return what is said from a minute to another."""
    return [event for seen in line.minutes(first, last, *changes) for event in watch.feed(seen)]


def minute(t_ns: int | None) -> int:
    return ((t_ns or 0) - DAY0_NS) // MINUTE_NS


def alerts(events: Sequence[AlertEvent], what: str) -> list[Alert]:
    return [event.alert for event in events if event.what == what and event.alert is not None]


def raised(*changes: Change, seed: int = 3, last: int = FAULT + 30) -> Alert:
    """Return the one alert that a story raises."""
    (alert,) = alerts(fed(watch_of(), Line(seed=seed), 0, last, *changes), RAISED)
    return alert


@pytest.mark.parametrize("seed", range(4))
def test_a_compressor_that_runs_through_is_said_to_be_loaded_all_the_time(seed: int) -> None:
    """A leak: it starts no more, so there is no short cycling."""
    alert = raised(between(FAULT, FAULT + 60, **LEAK), seed=seed)
    (cause,) = alert.causes
    assert cause.name == "compressor"
    assert cause.evidence[0] == "loaded 100% of the time instead of 45%"
    assert cause.confidence > 0.9
    (cleared,) = alerts(fed(watch_of(), Line(seed=seed), 0, FAULT + 120, between(FAULT, FAULT + 60, **LEAK)), CLEARED)
    assert cleared.causes[0].evidence[0] == "0 starts/h instead of 6, loaded 100% of the time instead of 45%"


def test_cycles_as_usual_are_no_evidence() -> None:
    (cause,) = raised(between(FAULT, FAULT + 60, compressor_kw=585.0)).causes
    assert cause.evidence[0].startswith("585")
    assert not [text for text in cause.evidence if "starts" in text or "loaded" in text]


def test_loaded_time_that_does_not_explain_the_energy_is_said_behind_it() -> None:
    events = fed(watch_of(), Line(seed=3), 0, FAULT + 120, between(FAULT, FAULT + 60, compressor_kw=585.0, duty=0.05))
    (cause,) = alerts(events, CLEARED)[0].causes
    assert cause.evidence[1] == "loaded 5% of the time instead of 45%"
    assert cause.confidence < 0.75


def test_a_job_that_began_with_the_fault_stands_beside_the_asset_until_the_alert_is_over() -> None:
    fault = between(FAULT, FAULT + 90, **COMPRESSOR)
    jobs = between(FAULT, FAULT + 400, job="J2")

    def many_jobs(number: int, truth: Truth) -> Truth:
        return replace(truth, job=f"J{number}") if number > FAULT + 20 and number % 7 == 0 else truth

    events = fed(watch_of(), Line(seed=3), 0, FAULT + 150, fault, jobs, many_jobs)
    for alert in (*alerts(events, RAISED), *alerts(events, CLEARED)):
        assert alert.causes[0].name == "compressor"
        assert [text for text in alert.causes[0].evidence if text.startswith("job")] == ["job J2 after J1 at the onset"]


def test_a_process_change_that_was_told_stays_one_when_many_jobs_came_after_it() -> None:
    fault = between(FAULT, FAULT + 90, kwh_per_unit=1.455, job="J2")

    def many_jobs(number: int, truth: Truth) -> Truth:
        return replace(truth, job=f"J{number}") if number > FAULT + 20 and number % 7 == 0 else truth

    events = fed(watch_of(), Line(seed=3), 0, FAULT + 150, fault, many_jobs)
    for alert in (*alerts(events, RAISED), *alerts(events, CLEARED)):
        assert alert.causes[0].determined
        assert "job J2 after J1 at the onset" in alert.causes[0].evidence


def test_a_grid_factor_that_moved_with_an_asset_stands_beside_it_and_else_does_not() -> None:
    start = 3 * SHIFT_MIN + 60  # the second day: the grid's usual factor is that of the day before
    both = raised(between(start, start + 60, **COMPRESSOR, factor=0.46), last=start + 30)
    evidence = next(cause.evidence for cause in both.causes if cause.name == "compressor")
    assert [text for text in evidence if text.startswith("grid")] == [
        "grid factor 0.46 instead of 0.4 kg/kWh, changed at the onset"
    ]
    alone = raised(between(start, start + 60, **COMPRESSOR), last=start + 30)
    assert not [text for text in alone.causes[0].evidence if text.startswith("grid")]


def test_missing_counts_that_began_while_shelved_are_raised_when_the_shelf_ends() -> None:
    watch, line = watch_of(), Line(seed=3)
    first = between(FAULT, FAULT + 20, counts=False)
    second = between(FAULT + 60, FAULT + 240, counts=False)
    (alert,) = alerts(fed(watch, line, 0, FAULT + 10, first, second), RAISED)
    now_ns = DAY0_NS + (FAULT + 10) * MINUTE_NS
    watch.shelve(alert.id, until_ns=now_ns + 110 * MINUTE_NS, by="ann", why="cable", now_ns=now_ns)
    events = fed(watch, line, FAULT + 10, FAULT + 300, first, second)
    assert [event.what for event in events] == [CLEARED, RAISED, CLEARED]
    (again,) = alerts(events, RAISED)
    assert (minute(again.onset_ns), minute(again.raised_ns)) == (FAULT + 60, FAULT + 120)


@pytest.mark.parametrize("kind", ["energy", "data"])
def test_a_shelf_outlives_its_alert_and_a_restart(kind: str) -> None:
    fault: dict[str, Any] = {"counts": False} if kind == "data" else COMPRESSOR
    story = (between(FAULT, FAULT + 20, **fault), between(FAULT + 60, FAULT + 240, **fault))
    watch, line = watch_of(), Line(seed=3)
    (alert,) = alerts(fed(watch, line, 0, FAULT + 15, *story), RAISED)
    now_ns, until = DAY0_NS + (FAULT + 15) * MINUTE_NS, FAULT + 165
    shelved = watch.shelve(alert.id, until_ns=DAY0_NS + until * MINUTE_NS, by="ann", why="valve", now_ns=now_ns).alert
    assert shelved is not None
    (cleared,) = alerts(fed(watch, line, FAULT + 15, FAULT + 55, *story), CLEARED)
    after = LineWatch(AlertSection(learn_shifts=1), gateway="gw1", line="filling", baselines=watch.baselines)
    after.restore([cleared])
    assert after.open_alerts == ()
    (again,) = alerts(fed(after, line, FAULT + 55, FAULT + 230, *story), RAISED)
    assert minute(again.raised_ns) >= until

    accepted = LineWatch(AlertSection(learn_shifts=1), gateway="gw1", line="filling", baselines=watch.baselines)
    accepted.restore([replace(cleared, accepted_by="ann", accepted_why="so be it")])
    (again,) = alerts(fed(accepted, line, FAULT + 55, FAULT + 230, *story), RAISED)
    assert minute(again.raised_ns) < until


def test_a_line_that_counts_nothing_is_said_not_to_be_watched() -> None:
    watch = watch_of()
    assert watch.learning() == []
    fed(watch, Line(seed=3), 0, 30, between(0, 30, counts=False))
    assert watch.learning() == [("", "", 0, 1, "no units are counted: it is not watched")]
    assert fed(watch, Line(seed=3), 30, 31) == []
    assert watch.learning() == [("", "", 0, 1, "nothing was made for five minutes yet")]


def test_what_is_learned_waits_for_the_end_of_an_alert_and_is_of_the_meters_that_there_are() -> None:
    watch, line = watch_of(limit_kg_per_unit=0.8), Line(seed=3)
    (alert,) = alerts(fed(watch, line, 0, 120, between(60, 120, **COMPRESSOR)), RAISED)
    assert watch.learning() == [("A", "", 0, 1, f"it has no baseline yet; it waits until {alert.id} is over")]
    fed(watch, line, 120, 2 * SHIFT_MIN + 10)
    assert watch.learning() == []
    for seen in line.minutes(2 * SHIFT_MIN + 10, 2 * SHIFT_MIN + 40):
        watch.feed(seen._replace(energy_kwh={**seen.energy_kwh, "oven": 1.0}))
    (one,) = watch.learning()
    assert one.why == "its meters are others than those that its baseline was learned with"


@pytest.mark.parametrize("accepted_by", ["", "ann"])
@pytest.mark.parametrize("is_known", [True, False])
def test_what_was_wrong_or_accepted_is_not_learned_when_it_is_read_again(accepted_by: str, is_known: bool) -> None:  # noqa: FBT001
    """A shift before the newest baseline is read to learn another product from: no alert is raised there again."""
    alert = raised(between(FAULT, FAULT + 60, **COMPRESSOR))
    ended = replace(alert, cleared_ns=DAY0_NS + 2 * SHIFT_MIN * MINUTE_NS, accepted_by=accepted_by)
    past = [ended] if is_known else []
    judged_ns = DAY0_NS + 3 * SHIFT_MIN * MINUTE_NS
    watch = LineWatch(AlertSection(learn_shifts=1), gateway="gw1", line="filling", past=past, judged_ns=judged_ns)
    events = fed(watch, Line(seed=3), SHIFT_MIN, 2 * SHIFT_MIN + 1, between(FAULT, 2 * SHIFT_MIN, **COMPRESSOR))
    assert [event.what for event in events] == ([] if is_known else [LEARNED])
    events = fed(watch, Line(seed=3), 2 * SHIFT_MIN + 1, 3 * SHIFT_MIN + 1)
    assert [event.what for event in events] == (
        [LEARNED] if is_known else []
    )  # else it has drifted from the faulty one


def test_an_open_alert_is_said_anew_at_each_shift_end_and_when_another_cause_comes_first() -> None:
    watch, line = watch_of(), Line(seed=3)
    worse, last = 3 * SHIFT_MIN + 60, 5 * SHIFT_MIN + 60
    story = (between(FAULT, last, **COMPRESSOR), between(worse, last, kwh_per_unit=2.2))
    events = fed(watch, line, 0, last, *story)
    assert [event.what for event in events] == [LEARNED, RAISED, UPDATED, UPDATED, UPDATED, UPDATED, UPDATED]
    said = alerts(events, UPDATED)
    at = [minute(event.t_ns) for event in events if event.what == UPDATED]
    assert at[:2] == [2 * SHIFT_MIN, 3 * SHIFT_MIN]
    assert worse < at[2] < worse + 120
    assert at[3:] == [4 * SHIFT_MIN, 5 * SHIFT_MIN]
    assert [one.causes[0].name for one in said] == [
        *["compressor"] * 2,
        *["process or product change, undetermined"] * 3,
    ]
    assert "compressor" in {cause.name for cause in said[-1].causes}
    hours = (2 * SHIFT_MIN - FAULT - 30) / 60
    assert said[0].excess_kg == pytest.approx(0.19 * 600 * hours, rel=0.03)
    assert said[0].after == pytest.approx(0.87, abs=0.01)
    assert said[-1].after == pytest.approx(0.87 + 0.44, abs=0.02)
    assert [one.excess_kg for one in said] == sorted(one.excess_kg or 0.0 for one in said)
    assert watch.open_alerts == (said[-1],)
    again = LineWatch(AlertSection(learn_shifts=1), gateway="gw1", line="filling", baselines=watch.baselines)
    again.restore([said[-1]])
    (cleared,) = alerts(fed(again, line, last, last + 60), CLEARED)
    assert (cleared.excess_kg or 0.0) >= (said[-1].excess_kg or 0.0) - 1
    assert [cause.name for cause in cleared.causes] == [cause.name for cause in said[-1].causes]


def test_an_alert_is_said_anew_though_another_product_has_just_begun() -> None:
    story = (between(FAULT, 3 * SHIFT_MIN, **COMPRESSOR), between(2 * SHIFT_MIN - 5, 3 * SHIFT_MIN, product="B"))
    (said,) = alerts(fed(watch_of(), Line(seed=3), 0, 2 * SHIFT_MIN + 30, *story), UPDATED)
    assert said.causes[0].name == "compressor"


def test_two_causes_that_change_places_are_said_once_an_hour_at_most() -> None:
    def see_saw(number: int, truth: Truth) -> Truth:
        if number < FAULT:
            return truth
        return replace(truth, compressor_kw=700.0) if number // 10 % 2 else replace(truth, kwh_per_unit=1.8)

    events = fed(watch_of(), Line(seed=3), 0, 4 * SHIFT_MIN, see_saw)
    times = [minute(event.t_ns) for event in events if event.what == UPDATED and minute(event.t_ns) % SHIFT_MIN]
    assert all(later - sooner >= 60 for sooner, later in pairwise(times))


def test_an_open_alert_of_a_limit_is_said_anew_without_a_baseline_too() -> None:
    watch = LineWatch(AlertSection(limit_kg_per_unit=0.8), gateway="gw1", line="filling")
    events = fed(
        watch,
        Line(seed=3),
        0,
        2 * SHIFT_MIN + 1,
        between(60, SHIFT_MIN, **COMPRESSOR),
        between(SHIFT_MIN, 3 * SHIFT_MIN, compressor_kw=900.0),
    )
    first, second = alerts(events, UPDATED)
    assert first.after == pytest.approx(0.87, abs=0.02)
    assert second.after == pytest.approx(1.08, abs=0.02)
    assert second.causes[0].evidence[0].endswith("is above the limit of 0.8")
    assert 0 < (first.excess_kg or 0) < (second.excess_kg or 0)
