"""Ticks and the circuit breaker, under clocks that stand, run, and are stepped both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.ticks import NS, Breaker, Ticker, next_tick

MS = 1_000_000
NOON = 1_760_000_400 * NS  # a whole hour, UTC
MINUTE = 60 * NS
DAY = 86_400 * NS


def ticker(period_ns: int = NS, boundary_ns: int = MINUTE, due_ns: int = NOON) -> Ticker:
    return Ticker(period_ns=period_ns, boundary_ns=boundary_ns, due_ns=due_ns)


# --- alignment ---


@pytest.mark.parametrize(
    ("now_ns", "period_ns", "want_ns"),
    [
        (NOON, NS, NOON + NS),
        (NOON + 1, NS, NOON + NS),
        (NOON - 1, NS, NOON),
        (NOON + 999 * MS, 250 * MS, NOON + NS),
        (NOON + 249 * MS, 250 * MS, NOON + 250 * MS),
        (NOON, 7 * NS, NOON - NOON % (7 * NS) + 7 * NS),
        (0, NS, NS),
    ],
)
def test_the_next_tick_is_the_first_multiple_of_the_period_after_now(now_ns: int, period_ns: int, want_ns: int) -> None:
    """Two gateways with one period read at the same instants, whenever they were started."""
    assert next_tick(now_ns, period_ns) == want_ns


def test_ticks_that_are_kept_follow_one_another_without_a_miss() -> None:
    """However late within its period each one is taken, the next stays on the grid."""
    it = ticker()
    for second in range(120):
        late = second % 10 * 99 * MS
        boundary = it.take(NOON + second * NS + late)
        assert boundary == (NOON + second * NS if second % 60 == 0 else None)
        assert it.due_ns == NOON + (second + 1) * NS
    assert it.missed == 0


def test_a_tick_that_is_taken_a_little_early_counts_as_itself() -> None:
    """A sleep may end a moment before the wall clock gets there; the boundary is not lost and not taken twice."""
    it = ticker()
    assert it.take(NOON - 1) == NOON
    assert it.due_ns == NOON + NS
    assert it.take(NOON + NS) is None
    assert it.missed == 0


# --- polls that take too long ---


def test_ticks_that_a_slow_poll_slept_through_are_counted_and_never_made_up_for() -> None:
    it = ticker()
    it.take(NOON)
    assert it.take(NOON + 5 * NS + 1) is None
    assert (it.missed, it.due_ns) == (4, NOON + 6 * NS)
    it.take(NOON + 6 * NS)
    assert it.missed == 4


def test_the_boundary_among_skipped_ticks_is_not_skipped() -> None:
    """Counters are read late rather than not at all: energy rests on the boundary alone."""
    it = ticker()
    it.take(NOON + 1)
    assert it.take(NOON + 57 * NS) is None
    assert it.take(NOON + 63 * NS + 5) == NOON + MINUTE
    assert it.take(NOON + 64 * NS) is None


def test_a_boundary_is_taken_once() -> None:
    it = ticker(period_ns=20 * NS)
    taken = [it.take(NOON + second * NS) for second in range(0, 200, 20)]
    assert [boundary for boundary in taken if boundary is not None] == [NOON + m * MINUTE for m in range(4)]


def test_a_poll_that_took_longer_than_an_interval_is_for_the_newest_boundary() -> None:
    """The older ones are closed by others as missing: a reading of now would be false there."""
    it = ticker()
    it.take(NOON)
    assert it.take(NOON + 3 * MINUTE + 10 * NS) == NOON + 3 * MINUTE
    assert it.missed == 3 * 60 + 9


def test_a_period_as_long_as_the_interval_takes_every_boundary() -> None:
    it = ticker(period_ns=MINUTE)
    assert [it.take(NOON + minute * MINUTE + 3 * NS) for minute in range(4)] == [NOON + m * MINUTE for m in range(4)]


PERIODS = st.sampled_from([MS, 250 * MS, NS, 5 * NS, 20 * NS, MINUTE])


@given(PERIODS, st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=40))
def test_no_boundary_is_ever_skipped_whatever_the_polls_take(period_ns: int, waits: list[int]) -> None:
    """The newest boundary since the last tick is returned just when there is one; the ticks add up."""
    it = ticker(period_ns=period_ns)
    now, ticks = NOON, 0
    for wait in waits:
        now = max(now, it.due_ns) + wait  # as the poll loop does: never before the tick
        due, missed = it.due_ns, it.missed
        boundary = it.take(now)
        last = it.due_ns - period_ns
        assert last == now // period_ns * period_ns
        newest = last // MINUTE * MINUTE
        assert boundary == (newest if newest >= due else None)
        ticks += 1 + it.missed - missed
        assert NOON + ticks * period_ns == it.due_ns


# --- a clock that is stepped ---


def waits_ns(it: Ticker, now_ns: int) -> int:
    """Return how long the poll loop would wait."""
    it.realign(now_ns)
    return it.due_ns - now_ns


@pytest.mark.parametrize("back_ns", [2 * NS, 30 * NS, MINUTE, 3600 * NS, DAY, 3650 * DAY])
def test_a_clock_stepped_back_is_followed_within_a_period(back_ns: int) -> None:
    """Once, a device was not polled again until the clock had come back to where it was: for ten years, if need be."""
    it = ticker()
    it.take(NOON)
    now = NOON - back_ns + 300 * MS
    assert 0 < waits_ns(it, now) <= NS
    assert it.due_ns % NS == 0
    it.take(it.due_ns)
    assert it.missed == 0
    assert waits_ns(it, now + NS) <= NS


def test_a_clock_slewed_back_by_less_than_a_second_changes_nothing() -> None:
    """The tick that was taken early, or just before the correction, is not taken again."""
    it = ticker()
    it.take(NOON - 1)
    for now in (NOON - 1, NOON - 400 * MS, NOON - 999 * MS):
        it.realign(now)
        assert it.due_ns == NOON + NS


def test_a_clock_stepped_forward_counts_the_ticks_it_jumped_and_goes_on() -> None:
    it = ticker()
    it.take(NOON)
    assert it.take(NOON + DAY + 30 * NS) == NOON + DAY
    assert (it.missed, it.due_ns) == (86_429, NOON + DAY + 31 * NS)
    assert it.take(NOON + DAY + 31 * NS) is None


def test_a_tick_taken_after_a_step_back_is_on_the_grid_even_without_realigning() -> None:
    it = ticker()
    assert it.take(NOON - DAY + 5) == NOON - DAY
    assert it.due_ns == NOON - DAY + NS


@given(PERIODS, st.lists(st.integers(-DAY, DAY) | st.integers(-2 * NS, 2 * NS), max_size=30))
def test_whatever_the_clock_does_a_device_is_due_within_a_period_and_a_second(period_ns: int, steps: list[int]) -> None:
    it = ticker(period_ns=period_ns)
    now = NOON
    for step in steps:
        now = max(0, now + step)
        wait = waits_ns(it, now)
        assert wait <= period_ns + NS
        now = max(now, it.due_ns)
        boundary = it.take(now)
        assert it.due_ns % period_ns == 0
        assert now < it.due_ns <= now + period_ns
        assert boundary is None or (boundary % MINUTE == 0 and boundary <= now)


# --- the breaker ---


def test_the_breaker_opens_at_the_second_failure_in_a_row() -> None:
    breaker = Breaker()
    assert breaker.failed(NOON) is False
    assert breaker.allows(NOON)
    assert not breaker.is_open
    assert breaker.failed(NOON) is True
    assert breaker.is_open
    assert not breaker.allows(NOON)
    assert breaker.failed(NOON) is False, "a device is down once, not at each failure"


def test_one_answer_closes_the_breaker_and_forgets_the_failures() -> None:
    breaker = Breaker()
    assert breaker.answered() is False
    breaker.failed(NOON)
    assert breaker.answered() is False, "a single failure is no outage"
    breaker.failed(NOON)
    assert not breaker.is_open
    breaker.failed(NOON)
    assert breaker.answered() is True
    assert breaker.allows(NOON)
    assert breaker.failed(NOON) is False


def test_the_breaker_waits_twice_as_long_each_time_up_to_its_bound() -> None:
    breaker = Breaker(most_s=60.0)
    now, waits = NOON, []
    breaker.failed(now)
    for _ in range(10):
        breaker.failed(now)
        waits.append((breaker.retry_ns - now) / NS)
        assert not breaker.allows(breaker.retry_ns - 1)
        assert breaker.allows(breaker.retry_ns)
        now = breaker.retry_ns
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_the_breaker_never_waits_past_its_bound_however_long_the_outage() -> None:
    """Neither does its arithmetic overflow after a million failures."""
    breaker = Breaker(tolerated=1, most_s=5.0, failures=1_000_000)
    breaker.failed(NOON)
    assert breaker.retry_ns == NOON + 5 * NS
    many = Breaker(most_s=1e9, failures=5_000)
    many.failed(NOON)
    assert many.retry_ns == NOON + 1024 * NS


@pytest.mark.parametrize("back_ns", [61 * NS, DAY, 3650 * DAY])
def test_a_clock_stepped_back_does_not_keep_a_device_from_being_asked(back_ns: int) -> None:
    breaker = Breaker(failures=9)
    breaker.failed(NOON)
    assert not breaker.allows(NOON)
    assert breaker.allows(NOON - back_ns)


@given(st.lists(st.tuples(st.booleans(), st.integers(-DAY, DAY)), max_size=50))
def test_the_breaker_asks_again_within_its_bound_whatever_happens(events: list[tuple[bool, int]]) -> None:
    breaker, now, in_a_row = Breaker(), NOON, 0
    for answered, step in events:
        now += step
        if answered:
            assert breaker.answered() is (in_a_row >= 2)
            in_a_row = 0
        else:
            in_a_row += 1
            assert breaker.failed(now) is (in_a_row == 2)
        assert breaker.is_open is (in_a_row >= 2)
        assert breaker.allows(now + 60 * NS)
        assert breaker.allows(now) or in_a_row >= 2
