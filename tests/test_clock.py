"""The wall clock with its floor, on clocks that the tests turn."""

from dataclasses import dataclass

import pytest

from gateway.clock import STEP_NS, ClockLimit, WallClock, kernel_state
from gateway.model import Clock, ClockState

NS = 1_000_000_000
NOON = 1_760_000_400 * NS
YEAR = 365 * 86_400 * NS


@dataclass
class Time:
    """A wall clock, a steady one, and what a kernel would say; asked: how often."""

    wall: int = NOON
    steady: int = 5 * NS
    state: ClockState = ClockState.SYNCHRONISED
    offset_ns: int = 1500
    asked: int = 0

    def passes(self, ns: int, *, stepped_ns: int = 0) -> None:
        """Let time pass, and step the wall clock besides."""
        self.steady += ns
        self.wall += ns + stepped_ns

    def kernel(self) -> tuple[ClockState, int]:
        """Answer as `kernel_state` does."""
        self.asked += 1
        return self.state, self.offset_ns

    def clock(self, floor_ns: int = 0, limit: ClockLimit | None = None) -> WallClock:
        """Return the clock under test, on this time."""
        return WallClock(
            floor_ns=floor_ns, limit=limit, wall=lambda: self.wall, steady=lambda: self.steady, state=self.kernel
        )


def test_a_reading_is_the_wall_clock_with_what_the_kernel_knows_of_it() -> None:
    time = Time()
    clock = time.clock()
    assert clock.read() == Clock(t_ns=NOON, state=ClockState.SYNCHRONISED, offset_ns=1500)
    time.passes(NS)
    time.state, time.offset_ns = ClockState.UNSYNCHRONISED, -7
    assert clock.read() == Clock(t_ns=NOON + NS, state=ClockState.UNSYNCHRONISED, offset_ns=-7)
    assert clock.stepped_ns == 0


def test_the_kernel_is_asked_once_a_second_and_not_for_each_leaf() -> None:
    time = Time()
    clock = time.clock()
    for _ in range(1000):
        clock.read()
        time.passes(NS // 1000)
    assert time.asked == 1
    clock.read()
    assert time.asked == 2


def test_a_reading_below_the_floor_is_suspect() -> None:
    """A dead battery: the log knows of a later time than the clock."""
    time = Time()
    clock = time.clock(floor_ns=NOON + YEAR)
    for _ in range(3):
        assert clock.read() == Clock(t_ns=NOON, state=ClockState.SUSPECT, offset_ns=1500)
    time.passes(NS, stepped_ns=YEAR)
    assert clock.read().state == ClockState.SUSPECT, "the step itself"
    time.passes(NS)
    assert clock.read().state == ClockState.SYNCHRONISED


def test_a_clock_that_is_off_by_too_much_or_alone_for_too_long_is_suspect() -> None:
    """And good again as soon as it is synchronised within the limit; it still has its floor meanwhile."""
    time = Time()
    clock = time.clock(limit=ClockLimit(error_ns=2000, holdover_ns=10 * NS))
    states = []
    for offset_ns, state in ((2000, 0), (2001, 0), (0, 1), (0, 1), (0, 0), (0, 1)):
        time.passes(9 * NS)
        time.offset_ns, time.state = offset_ns, ClockState(state)
        states.append(int(clock.read().state))
    assert states == [0, 2, 1, 2, 0, 1]
    time.passes(NS // 2, stepped_ns=-NS)
    assert clock.read().state == ClockState.SUSPECT, "below the floor"


def test_a_clock_that_was_never_synchronised_is_suspect_at_once_where_that_is_wanted() -> None:
    """The real-time clock of a gateway may be ahead when it starts."""
    time = Time(state=ClockState.UNSYNCHRONISED)
    assert time.clock(limit=ClockLimit(error_ns=1, holdover_ns=0)).read().state == ClockState.SUSPECT
    assert time.clock(limit=ClockLimit(error_ns=1, holdover_ns=1)).read().state == ClockState.UNSYNCHRONISED
    assert time.clock().read().state == ClockState.UNSYNCHRONISED


def test_a_reading_at_the_floor_is_good() -> None:
    time = Time()
    assert time.clock(floor_ns=NOON).read().state == ClockState.SYNCHRONISED
    assert time.clock(floor_ns=NOON + 1).read().state == ClockState.SUSPECT


def test_the_floor_rises_with_each_good_reading() -> None:
    """So a clock that is turned back while we run is noticed too, even by less than a step."""
    time = Time()
    clock = time.clock()
    clock.read()
    time.passes(10 * NS)
    clock.read()
    time.passes(0, stepped_ns=-1)
    assert clock.read().state == ClockState.SUSPECT
    assert clock.stepped_ns == 0
    time.passes(1)
    assert clock.read().state == ClockState.SYNCHRONISED


@pytest.mark.parametrize("stepped_ns", [STEP_NS, -STEP_NS, YEAR, -YEAR, 3600 * NS])
def test_a_step_is_noticed_once_and_makes_its_reading_suspect(stepped_ns: int) -> None:
    time = Time()
    clock = time.clock()
    clock.read()
    time.passes(NS, stepped_ns=stepped_ns)
    assert clock.read() == Clock(t_ns=NOON + NS + stepped_ns, state=ClockState.SUSPECT, offset_ns=1500)
    assert clock.stepped_ns == stepped_ns
    time.passes(NS)
    clock.read()
    assert clock.stepped_ns == 0


@pytest.mark.parametrize("stepped_ns", [STEP_NS - 1, 1 - STEP_NS, 500])
def test_less_than_a_second_is_no_step(stepped_ns: int) -> None:
    """A disciplined clock is slewed all the time."""
    time = Time()
    clock = time.clock()
    clock.read()
    time.passes(10 * NS, stepped_ns=stepped_ns)
    assert clock.read().state == ClockState.SYNCHRONISED
    assert clock.stepped_ns == 0


def test_a_long_time_without_a_reading_is_no_step() -> None:
    time = Time()
    clock = time.clock()
    clock.read()
    time.passes(YEAR)
    assert clock.read().state == ClockState.SYNCHRONISED
    assert clock.stepped_ns == 0


def test_a_step_between_start_and_the_first_reading_is_noticed() -> None:
    time = Time()
    clock = time.clock()
    time.passes(NS, stepped_ns=-YEAR)
    assert clock.read().state == ClockState.SUSPECT
    assert clock.stepped_ns == -YEAR


def test_a_stepped_reading_does_not_raise_the_floor() -> None:
    """A jump into the future for one reading only, then back: what follows is good again at once."""
    time = Time()
    clock = time.clock()
    clock.read()
    time.passes(NS, stepped_ns=YEAR)
    assert clock.read().state == ClockState.SUSPECT
    time.passes(NS, stepped_ns=-YEAR)
    assert clock.read().state == ClockState.SUSPECT
    time.passes(NS)
    assert clock.read() == Clock(t_ns=NOON + 3 * NS, state=ClockState.SYNCHRONISED, offset_ns=1500)


def test_the_real_kernel_answers() -> None:
    """The layout of struct timex is ours: an offset that is no offset would show that it is wrong."""
    state, offset_ns = kernel_state()
    assert state in {ClockState.SYNCHRONISED, ClockState.UNSYNCHRONISED}
    assert abs(offset_ns) < 10 * NS
    clock = WallClock().read()
    assert clock.t_ns > NOON - YEAR
    assert clock.state == state
