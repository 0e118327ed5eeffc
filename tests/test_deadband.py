"""codec/deadband.py: what is told stays within the deadband of what was read; no spike, quality or silence is lost."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.changes import changes_body, changes_of
from gateway.codec.checks import check_body
from gateway.codec.deadband import Reporter
from gateway.codec.pack import unpack
from gateway.config.sections import DeadbandSection, ReportSection
from gateway.model import Change, Column, Quality, Row, Schema, Value

NS = 1_000_000_000
GOOD, UNCERTAIN, BAD = Quality


def schema_of(*stores: str) -> Schema:
    return Schema(device="m1", columns=tuple(Column(name=f"p{n}", unit="", store=s) for n, s in enumerate(stores)))


def reporter(*stores: str, heartbeat_s: float = 60.0, **deadband: float) -> Reporter:
    """Return one whose first column has this deadband."""
    points = {"p0": DeadbandSection(**deadband)} if deadband else {}
    return Reporter(schema_of(*stores), ReportSection(heartbeat_s=heartbeat_s, points=points))


class Feed:
    """Rows into a reporter, one a second; None is BAD."""

    def __init__(self, *stores: str, heartbeat_s: float = 60.0, **deadband: float) -> None:
        self.reporter = reporter(*stores, heartbeat_s=heartbeat_s, **deadband)
        self.schema, self.second = schema_of(*stores), 0

    def __call__(
        self, *values: Value | None, quality: Quality | None = None, status: str = ""
    ) -> list[tuple[Any, ...]]:
        """Take the next row; return (column, second, value, low, high) of what is told."""
        self.second += 1
        return [(c.column, c.source_time_ns // NS, c.value, c.low, c.high) for c in self.take(values, quality, status)]

    def take(self, values: Sequence[Value | None], quality: Quality | None, status: str = "") -> Sequence[Change]:
        """Take a row as it is."""
        qualities = tuple(BAD if v is None else quality or GOOD for v in values)
        told = self.reporter.take(
            Row(self.schema, self.second * NS, tuple(values), qualities if any(qualities) else None, status)
        )
        assert all((change.value is None) == (change.quality is BAD) for change in told)
        return told


def test_the_first_row_is_told_whole() -> None:
    feed = Feed("f64", "bool", "s8", "u64")
    assert feed(1.0, True, "run", None) == [
        (0, 1, 1.0, None, None),
        (1, 1, True, None, None),
        (2, 1, "run", None, None),
        (3, 1, None, None, None),
    ]


def test_a_column_without_a_deadband_is_told_on_any_change_and_the_others_are_not() -> None:
    feed = Feed("f64", "bool", "s8", "u64", absolute=5.0)
    feed(1.0, True, "run", 7)
    assert feed(1.0, True, "run", 7) == []
    assert feed(1.0, False, "run", 7) == [(1, 3, False, None, None)]
    assert feed(1.0, False, "stop", 8) == [(2, 4, "stop", None, None), (3, 4, 8, None, None)]
    assert feed(1.0, False, "stop", 8) == []


def test_a_change_is_told_when_it_is_larger_than_the_deadband_and_says_what_was_left_out() -> None:
    feed = Feed("f64", absolute=5.0)
    feed(100.0)
    assert [feed(value) for value in (103.0, 105.0, 95.0, 101.0)] == [[], [], [], []]
    assert feed(105.5) == [(0, 6, 105.5, 95.0, 105.0)]
    assert feed(100.4) == [(0, 7, 100.4, None, None)]


def test_repeats_of_the_value_told_are_no_news_but_bound_what_was_left_out() -> None:
    feed = Feed("f64", "u64", absolute=5.0)
    feed(100.0, 0)
    feed(100.0, 1)
    assert feed(110.0, 1) == [(0, 3, 110.0, None, None)]
    feed(110.0, 1)
    feed(112.0, 1)
    assert feed(120.0, 1) == [(0, 6, 120.0, 110.0, 112.0)]


def test_a_percentage_is_of_the_value_told_last() -> None:
    feed = Feed("f64", percent=10.0)
    feed(100.0)
    assert feed(110.0) == []
    assert feed(111.0) == [(0, 3, 111.0, 110.0, 110.0)]
    assert feed(100.0) == []
    assert feed(0.0) == [(0, 5, 0.0, 100.0, 100.0)]
    assert feed(1e-9) == [(0, 6, 1e-9, None, None)]


def test_of_two_deadbands_the_larger_one_counts() -> None:
    feed = Feed("f64", absolute=1.0, percent=10.0)
    feed(0.0)
    assert feed(1.0) == []
    assert feed(100.0) != []
    assert feed(109.0) == []


def test_whole_numbers_beyond_a_floats_digits_are_compared_exactly() -> None:
    feed = Feed("u64", absolute=1.5)
    feed(2**63)
    assert feed(2**63 + 1) == []
    assert feed(2**63 + 2) == [(0, 3, 2**63 + 2, 2**63 + 1, 2**63 + 1)]


@pytest.mark.parametrize("quality", [None, UNCERTAIN])
def test_a_quality_is_told_in_both_directions_whatever_the_deadband(quality: Quality | None) -> None:
    feed = Feed("f64", "f64", absolute=1000.0)
    feed(1.0, 2.0)
    feed(1.5, 2.0)
    feed.second += 1
    told = feed.take((None, 2.0) if quality is None else (1.5, 2.0), quality, "7: no answer")
    assert [(c.column, c.quality, c.status) for c in told] == [
        (n, quality or BAD, "7: no answer") for n in ((0,) if quality is None else (0, 1))
    ]
    assert (told[0].low, told[0].high) == (1.5, 1.5)
    feed.second += 1
    assert not feed.take((None, 2.0) if quality is None else (1.5, 2.0), quality, "other words")
    feed.second += 1
    back = feed.take((1.5, 2.0), None)
    assert back[0][1:6] == (0, feed.second * NS, 1.5, GOOD, "")
    assert len(back) == len(told)


def test_what_was_uncertain_is_no_part_of_the_extremes() -> None:
    feed = Feed("f64", absolute=10.0)
    feed(100.0)
    feed(101.0)
    assert feed(105.0, quality=UNCERTAIN) == [(0, 3, 105.0, 101.0, 101.0)]
    assert feed(107.0, quality=UNCERTAIN) == []
    assert feed(106.0) == [(0, 5, 106.0, None, None)]


def test_a_heartbeat_tells_the_value_with_its_new_time() -> None:
    feed = Feed("f64", "f64", heartbeat_s=3.0, absolute=5.0)
    feed(1.0, 1.0)
    feed(2.0, 9.0)
    assert feed(2.0, 9.0) == []
    assert feed(2.0, 9.0) == [(0, 4, 2.0, 2.0, 2.0)]
    assert feed(3.0, 9.0) == [(1, 5, 9.0, None, None)]
    assert [feed(3.0, 9.0), feed(3.0, 9.0)] == [[], [(0, 7, 3.0, 3.0, 3.0)]]


def test_a_heartbeat_tells_of_a_device_that_stays_silent() -> None:
    feed = Feed("f64", heartbeat_s=3.0)
    feed(None)
    assert [feed(None), feed(None), feed(None)] == [[], [], [(0, 4, None, None, None)]]


def test_a_clock_that_is_stepped_back_silences_nothing() -> None:
    feed = Feed("f64", heartbeat_s=3.0)
    feed.second = 1_000_000
    feed(1.0)
    feed.second = 10
    assert [feed(1.0), feed(1.0), feed(1.0), feed(1.0)] == [[], [], [], [(0, 14, 1.0, None, None)]]


def test_a_spike_is_told_with_its_foot_and_its_end() -> None:
    """However short it is, and though the foot is within the deadband: nothing smears it."""
    feed = Feed("f64", absolute=50.0, bypass=30.0)
    feed(0.0)
    feed(10.0)
    feed(20.0)
    assert feed(500.0) == [(0, 3, 20.0, 10.0, 20.0), (0, 4, 500.0, None, None)]
    assert feed(21.0) == [(0, 5, 21.0, None, None)]
    assert feed(22.0) == []


def test_a_step_within_the_deadband_is_told_where_a_bypass_says_so() -> None:
    feed = Feed("f64", absolute=50.0, bypass=30.0)
    feed(0.0)
    feed(-20.0)
    assert feed(20.0) == [(0, 2, -20.0, -20.0, -20.0), (0, 3, 20.0, None, None)]
    assert [feed(45.0), feed(69.0)] == [[], []], "a slope is no step"
    assert feed(90.0) == [(0, 6, 90.0, 45.0, 69.0)]


def test_after_a_gap_no_step_is_made_up() -> None:
    feed = Feed("f64", absolute=50.0, bypass=30.0)
    feed(0.0)
    feed(None)
    assert feed(500.0) == [(0, 3, 500.0, None, None)]


def test_what_a_device_tells_by_itself_is_what_was_told_last() -> None:
    feed = Feed("f64", absolute=5.0)
    feed(100.0)
    feed(101.0)
    feed.reporter.note(Change(feed.schema, 0, 2 * NS + 1, 110.0))
    assert feed(110.0) == []
    assert feed(101.0) == [(0, 4, 101.0, None, None)]
    feed.reporter.note(Change(feed.schema, 0, 4 * NS + 1, 200.0))
    assert feed(101.0) == [(0, 5, 101.0, None, None)], "the row is like the last one, and yet it is news"
    feed.reporter.note(Change(feed.schema, 0, 5 * NS + 1, None, BAD))
    assert feed(101.0) == [(0, 6, 101.0, None, None)]
    assert feed(102.0) == []


# --- whatever is read ---


@st.composite
def readings(draw: st.DrawFn) -> tuple[str, DeadbandSection, float, list[tuple[int, Value | None, Quality]]]:
    """Draw a store, a deadband, a heartbeat, and readings with their times."""
    store = draw(st.sampled_from(["f64", "f32", "u64"]))
    if store == "u64":
        value: st.SearchStrategy[Any] = st.integers(0, 40) | st.integers(0, 2**64 - 1)
    else:
        value = st.integers(-40, 40).map(float) | st.floats(
            allow_nan=False, allow_infinity=False, width=32 if store == "f32" else 64
        )
    absolute = draw(st.none() | st.floats(0, 30))
    percent = draw(st.none() | st.floats(0, 100))
    bypass = draw(st.none() | st.floats(1, 100))
    moments = draw(
        st.lists(st.tuples(st.integers(-2, 9), value, st.sampled_from([GOOD, GOOD, GOOD, UNCERTAIN, BAD])), max_size=30)
    )
    t_s, rows = 100, []
    for after_s, drawn, quality in moments:
        t_s += after_s
        rows.append((t_s * NS, None if quality is BAD else drawn, quality))
    return store, DeadbandSection(absolute=absolute, percent=percent, bypass=bypass), draw(st.floats(1, 30)), rows


def tolerated(told: Value, band: DeadbandSection) -> Fraction:
    """Return how far a value may be from the one told; a percentage of a float is a float."""
    assert not isinstance(told, str)
    share = Fraction(band.percent or 0) * abs(Fraction(told)) / 100
    if isinstance(told, float):
        share = share * (1 + Fraction(1, 2**50)) + Fraction(5e-324)
    return max(Fraction(band.absolute or 0), share)


@settings(max_examples=100)
@given(readings())
def test_at_each_time_the_value_told_last_is_within_its_deadband_of_the_true_one(
    drawn: tuple[str, DeadbandSection, float, list[tuple[int, Value | None, Quality]]],
) -> None:
    """And the qualities are equal, the extremes bound just what was left out, and no silence exceeds the heartbeat."""
    store, band, heartbeat_s, rows = drawn
    schema = schema_of(store)
    subject = Reporter(schema, ReportSection(heartbeat_s=heartbeat_s, points={"p0": band}))
    told: Change | None = None
    left_out: list[float] = []
    for t_ns, value, quality in rows:
        changes = subject.take(Row(schema, t_ns, (value,), (quality,) if quality else None, "why" if quality else ""))
        assert len(changes) <= 2
        assert len(changes) < 2 or changes[0].value in left_out or not left_out
        for change in changes:
            if change.low is None:
                assert told is None or all(each == told.value for each in left_out)
            else:
                assert (change.low, change.high) == (min(left_out), max(left_out))
            told, left_out = change, []
        assert told is not None
        assert told.quality == quality
        assert bool(told.status) == bool(quality)
        if changes:
            assert (told.source_time_ns, told.value) == (t_ns, value)
        elif value is not None:
            assert told.value is not None
            assert not isinstance(value, str)
            assert not isinstance(told.value, str)
            assert abs(Fraction(value) - Fraction(told.value)) <= tolerated(told.value, band)
            if quality is GOOD:
                left_out.append(value)
        assert t_ns - told.source_time_ns < heartbeat_s * NS + 1


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 5.0, None])] * 3, st.sampled_from(["a", "b", None]))))
def test_each_column_is_told_as_if_it_were_alone_and_survives_a_leaf(rows: list[tuple[Value | None, ...]]) -> None:
    stores = ("f64", "f64", "f64", "s8")
    together = Feed(*stores, heartbeat_s=4.0, absolute=0.6)
    alone = [Feed(store, heartbeat_s=4.0, **({"absolute": 0.6} if n == 0 else {})) for n, store in enumerate(stores)]
    changes: list[Change] = []
    for row in rows:
        together.second += 1
        told = together.take(row, None)
        changes += told
        for n, feed in enumerate(alone):
            assert feed(row[n]) == [(0, c.source_time_ns // NS, c.value, c.low, c.high) for c in told if c.column == n]
    if changes:
        body = check_body("readings", unpack(changes_body(changes)))
        assert list(changes_of(body, {together.schema.id: together.schema})) == changes
