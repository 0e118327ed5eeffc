"""The boundaries of a line: closed once, in order, complete or said to be missing, under any clock."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.intervals import MOST_DIGITS, LineIntervals, missing
from gateway.app.ticks import NS
from gateway.codec.bodies import interval_body
from gateway.codec.checks import check_body
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.codec.line_leaves import to_interval
from gateway.codec.pack import unpack
from gateway.model import Interval, LineColumn, LineSchema, Quality, Role, Sample

MINUTE = 60 * NS
NOON = 1_760_000_400 * NS
POINTS = ("m1.energy", "m2.energy", "plc.good")


def line(period_s: int = 60, points: Sequence[str] = POINTS) -> LineSchema:
    columns = tuple(LineColumn(point=point, unit="kWh", role=Role.ENERGY) for point in points)
    return LineSchema(name="l", site="", zone="Z", period_s=period_s, columns=columns)


def sample(point: str, value: int | str = 1, t_ns: int = NOON) -> Sample:
    return Sample(point=point, source_time_ns=t_ns, raw=b"\0\1", value=Decimal(value))


def values(interval: Interval) -> list[Decimal | None]:
    return [sample.value for sample in interval.samples]


# --- complete boundaries ---


def test_a_boundary_closes_with_its_last_meter_and_at_once() -> None:
    it = LineIntervals(line())
    assert it.take(NOON, [sample(POINTS[1], 2)]) == ()
    assert it.take(NOON, [sample(POINTS[0], 1)]) == ()
    (interval,) = it.take(NOON, [sample(POINTS[2], 3)])
    assert interval == Interval(
        schema_id=it.line.id, t_ns=NOON, samples=tuple(sample(point, n + 1) for n, point in enumerate(POINTS))
    )
    assert to_interval(check_body("interval", unpack(interval_body(interval))), it.line) == interval


def test_samples_stand_in_the_order_of_the_schema_whoever_answered_first() -> None:
    it = LineIntervals(line())
    (interval,) = it.take(NOON, [sample(POINTS[2], 3), sample(POINTS[0], 1), sample(POINTS[1], 2)])
    assert [sample.point for sample in interval.samples] == list(POINTS)


def test_counters_of_other_lines_are_left_alone() -> None:
    it = LineIntervals(line())
    assert it.take(NOON, [sample("m9.energy"), sample("m1.power")]) == ()
    assert it.take(NOON, []) == ()
    (interval,) = it.take(NOON, [sample(point) for point in (*POINTS, "m9.energy")])
    assert len(interval.samples) == 3


def test_a_closed_boundary_takes_no_more_samples() -> None:
    """A late answer must not make a second leaf of one boundary."""
    it = LineIntervals(line())
    assert len(it.take(NOON, map(sample, POINTS))) == 1
    assert it.take(NOON, map(sample, POINTS)) == ()
    assert it.take(NOON - MINUTE, map(sample, POINTS)) == ()
    it.expect(NOON)
    it.expect(NOON - MINUTE)
    assert it.expire(NOON + MINUTE) == ()


# --- missing meters ---


def test_a_meter_that_does_not_answer_in_time_is_bad_and_never_an_older_value() -> None:
    it = LineIntervals(line())
    it.take(NOON, map(sample, POINTS))
    it.take(NOON + MINUTE, [sample(POINTS[0], 5, NOON + MINUTE)])
    assert it.expire(NOON + MINUTE + it.grace_ns - 1) == ()
    (interval,) = it.expire(NOON + MINUTE + it.grace_ns)
    assert values(interval) == [5, None, None]
    absent = interval.samples[1]
    assert (absent.quality, absent.raw, absent.status) == (Quality.BAD, b"", "no answer in time")
    assert absent.source_time_ns == NOON + MINUTE


def test_a_boundary_that_was_expected_closes_even_if_no_meter_answers() -> None:
    it = LineIntervals(line())
    it.expect(NOON)
    (interval,) = it.expire(NOON + it.grace_ns)
    assert values(interval) == [None, None, None]
    assert it.expire(NOON + it.grace_ns) == ()


def test_expecting_a_boundary_does_not_forget_what_has_come() -> None:
    it = LineIntervals(line())
    it.take(NOON, [sample(POINTS[0], 7)])
    it.expect(NOON)
    assert values(it.expire(NOON + it.grace_ns)[0]) == [7, None, None]


def test_a_complete_boundary_closes_the_older_ones_first() -> None:
    """The leaves of a line stand in order: energy is the difference of neighbours."""
    it = LineIntervals(line())
    it.take(NOON, [sample(POINTS[0], 1)])
    it.expect(NOON + MINUTE)
    closed = it.take(NOON + 2 * MINUTE, map(sample, POINTS))
    assert [interval.t_ns for interval in closed] == [NOON, NOON + MINUTE, NOON + 2 * MINUTE]
    assert [values(interval) for interval in closed] == [[1, None, None], [None] * 3, [1, 1, 1]]


def test_expired_boundaries_come_oldest_first() -> None:
    it = LineIntervals(line())
    for minute in (2, 0, 1):
        it.expect(NOON + minute * MINUTE)
    assert [interval.t_ns for interval in it.expire(NOON + 3 * MINUTE)] == [NOON + m * MINUTE for m in range(3)]


@pytest.mark.parametrize(("period_s", "grace_s"), [(1, 0.8), (5, 4), (10, 8), (60, 10), (86_400, 10)])
def test_the_grace_is_shorter_than_the_period(period_s: int, grace_s: float) -> None:
    """So a boundary is closed before the next one comes."""
    assert LineIntervals(line(period_s)).grace_ns == grace_s * NS


# --- odd samples ---


@pytest.mark.parametrize("value", ["1" * (MOST_DIGITS + 1), "0." + "1" * MOST_DIGITS, "-" + "1" * MOST_DIGITS, "1E+70"])
def test_a_value_with_more_digits_than_a_counter_has_is_bad(value: str) -> None:
    """A leaf has room for so many; a float that holds garbage would have hundreds."""
    it = LineIntervals(line(points=POINTS[:1]))
    (interval,) = it.take(NOON, [sample(POINTS[0], value)])
    (only,) = interval.samples
    assert (only.value, only.quality, only.raw) == (None, Quality.BAD, b"")
    assert only.status == "more digits than a counter has"
    assert check_body("interval", unpack(interval_body(interval)))


def test_a_value_of_just_so_many_digits_is_kept() -> None:
    it = LineIntervals(line(points=POINTS[:1]))
    (interval,) = it.take(NOON, [sample(POINTS[0], "1" * MOST_DIGITS)])
    assert values(interval) == [Decimal("1" * MOST_DIGITS)]


def test_a_leaf_of_many_missing_meters_with_long_reasons_still_fits() -> None:
    """A device's own words are bounded, or one talkative meter would cost the whole line its leaf."""
    points = [f"m{n}.energy" for n in range(100)]
    it = LineIntervals(line(points=points))
    (interval,) = it.take(NOON, [missing(point, NOON, "no route to host " * 100) for point in points])
    assert all(len(sample.status) == 200 for sample in interval.samples)
    assert len(interval_body(interval)) < MAX_LEAF - MAX_HEADER


# --- a clock that is stepped ---


@pytest.mark.parametrize("back", [2, 10, 24 * 60, 10 * 365 * 24 * 60])
def test_a_clock_stepped_back_does_not_end_the_intervals(back: int) -> None:
    """A clock that was years ahead and was then set right: once, every line was silent until a restart."""
    it = LineIntervals(line())
    it.take(NOON, map(sample, POINTS))
    now = NOON - back * MINUTE
    assert it.expire(now) == ()
    (interval,) = it.take(now // MINUTE * MINUTE, map(sample, POINTS))
    assert interval.t_ns == now // MINUTE * MINUTE
    assert it.take(interval.t_ns, map(sample, POINTS)) == (), "closed once, then as now"


def test_what_was_open_when_the_clock_was_stepped_back_closes_as_it_stands() -> None:
    it = LineIntervals(line())
    it.take(NOON, map(sample, POINTS))
    it.take(NOON + MINUTE, [sample(POINTS[0], 8)])
    closed = it.expire(NOON - 60 * MINUTE)
    assert [(interval.t_ns, values(interval)) for interval in closed] == [(NOON + MINUTE, [8, None, None])]


def test_a_clock_slewed_by_less_than_a_second_changes_nothing() -> None:
    it = LineIntervals(line())
    it.take(NOON, map(sample, POINTS))
    assert it.expire(NOON - NS) == ()
    assert it.take(NOON, map(sample, POINTS)) == ()


EVENTS = st.lists(
    st.tuples(st.sampled_from(["take", "expect", "expire"]), st.integers(0, 12), st.sets(st.sampled_from(POINTS))),
    max_size=40,
)


@given(EVENTS)
def test_boundaries_close_once_and_in_order_whatever_comes_when(
    events: list[tuple[str, int, set[str]]],
) -> None:
    """Under a clock that only runs forward: no boundary twice, none out of order, none open for ever."""
    it, now, closed, opened = LineIntervals(line()), NOON, list[int](), set[int]()
    for what, minute, points in events:
        boundary = NOON + minute * MINUTE
        now = max(now, boundary)
        if what == "take":
            closed += [interval.t_ns for interval in it.take(boundary, [sample(point) for point in points])]
        elif what == "expect":
            it.expect(boundary)
        else:
            closed += [interval.t_ns for interval in it.expire(now)]
        if what != "expire" and boundary > max(closed, default=0):
            opened.add(boundary)
    closed += [interval.t_ns for interval in it.expire(now + MINUTE)]
    assert closed == sorted(set(closed))
    assert opened <= set(closed)
