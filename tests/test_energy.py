"""Registers to energy: the vectors of the carbon facts, the state machine, and exact sums."""

import struct
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.energy import (
    MWH_PLACES,
    UNIT_PLACES,
    Booking,
    CountRegister,
    EnergyRegister,
    Flag,
    LeafRef,
    Nothing,
    Reading,
)
from gateway.carbon.exact import EXACT, ratio, scaled, text, utc
from gateway.model import Clock, ClockState
from tests.line_leaves import MINUTE, T0

U32_WH = 2**32 * 1000


def reading(amount: int, minute: float, *, state: ClockState = ClockState.SYNCHRONISED) -> Reading:
    t_ns = T0 + round(minute * MINUTE)
    ref = LeafRef(index=round(minute), hash=bytes(32), clock=Clock(t_ns=t_ns, state=state, offset_ns=0))
    return Reading(amount=amount, register=Decimal(amount), t_ns=t_ns, source_ns=t_ns, leaf=ref)


def run(register: EnergyRegister | CountRegister, amounts: list[int]) -> list[Booking | Nothing]:
    return [register.read(reading(amount, minute)) for minute, amount in enumerate(amounts)]


def booked(said: list[Booking | Nothing]) -> int:
    return sum(one.amount for one in said if isinstance(one, Booking))


def mwh(value: Decimal, unit: str) -> int:
    """As a line's projector reads a register."""
    return scaled(value, MWH_PLACES[unit])


def kwh(*shown: str) -> list[int]:
    return [mwh(Decimal(one), "kWh") for one in shown]


def meter(rated_power_w: int | None = 10_000, modulus: int | None = None) -> EnergyRegister:
    return EnergyRegister(modulus=modulus, rated_power_w=rated_power_w)


def test_uint32_wh_register_that_wraps_books_1000_wh() -> None:
    said = run(meter(60_000, U32_WH), [4_294_967_000_000, 704_000])
    assert [one.amount for one in said if isinstance(one, Booking)] == [1_000_000]
    assert isinstance(said[1], Booking)
    assert said[1].flags == {Flag.ROLLOVER}


def test_a_wrap_that_the_load_could_not_have_drawn_is_suspect() -> None:
    said = run(meter(10_000, U32_WH), [4_294_967_000_000, 704_000])
    assert said[1] == Nothing(flag=Flag.SUSPECT, base=reading(4_294_967_000_000, 0))


def test_a_fall_without_rated_power_is_never_taken_for_a_wrap() -> None:
    assert isinstance(run(meter(None, U32_WH), [4_294_967_000_000, 704_000])[1], Nothing)


def test_a_register_without_modulus_never_wraps() -> None:
    assert isinstance(run(meter(10**9, None), [4_294_967_000_000, 704_000])[1], Nothing)


@pytest.mark.parametrize("rated", [10_000, None])
def test_glitch_100_0_100_1_books_0_1_kwh(rated: int | None) -> None:
    said = run(meter(rated), kwh("100", "0", "100.1"))
    assert booked(said) == 100_000
    assert isinstance(said[1], Nothing)
    assert isinstance(said[2], Booking)
    assert said[2].flags == {Flag.GLITCH}
    assert said[2].start.register == Decimal(100_000_000)


def test_glitch_upwards_books_nothing_of_it() -> None:
    assert booked(run(meter(), kwh("100", "200", "100.1", "100.2"))) == 200_000


def test_a_glitch_that_stays_for_several_readings_is_passed_over() -> None:
    assert booked(run(meter(None), kwh("100", "0", "0", "0", "0", "100.1"))) == 100_000


@pytest.mark.parametrize("rated", [10_000, None])
def test_a_register_that_was_reset_unannounced_is_believed_at_the_third_reading(rated: int | None) -> None:
    register = meter(rated)
    said = run(register, kwh("100", "0", "0.1", "0.2", "0.3"))
    assert [isinstance(one, Booking) for one in said] == [False, False, False, True, True]
    assert booked(said) == 300_000
    assert isinstance(said[3], Booking)
    assert said[3].flags == {Flag.REBASED}
    assert said[3].start.amount == 0


def test_a_register_that_jumped_up_unannounced_is_believed_at_the_third_reading() -> None:
    assert booked(run(meter(), kwh("100", "900", "900.1", "900.2", "900.3"))) == 300_000


def test_growth_up_to_rated_power_times_dt_times_1_2_is_energy_and_1_mwh_more_is_suspect() -> None:
    limit = 10_000 * 1000 * 60 * 12 // 36_000  # 10 kW for a minute, and a fifth
    assert limit == 200_000
    assert booked(run(meter(10_000), [0, limit])) == limit
    assert isinstance(run(meter(10_000), [0, limit + 1])[1], Nothing)


def test_a_late_answer_counts_as_the_time_it_took() -> None:
    register = meter(10_000)
    register.read(reading(0, 0))
    late = reading(300_000, 1)
    late = Reading(
        amount=late.amount, register=late.register, t_ns=late.t_ns, source_ns=late.t_ns + MINUTE, leaf=late.leaf
    )
    assert isinstance(register.read(late), Booking)


def test_a_coarse_register_loses_nothing() -> None:
    """A 1 kWh step is more than 6 kW can draw in a minute; it is booked when it can have been drawn."""
    shown = [str(int(Decimal("0.1") * minute)) for minute in range(100)]
    said = run(meter(6_000), kwh(*shown))
    assert booked(said) == 9_000_000
    assert all(
        one.amount * 3 <= 6_000 * (one.end.t_ns - one.start.t_ns) // 10**9 for one in said if isinstance(one, Booking)
    )


def test_float32_register_that_stands_still_between_its_steps_is_no_fault() -> None:
    """10 kW on a float32 Wh register at 1e9: steps of 64 Wh look frozen for 23 s."""
    shown = [struct.unpack(">f", struct.pack(">f", 1e9 + 10_000 / 3600 * second))[0] for second in range(0, 600, 5)]
    register = meter(100_000)
    said = [register.read(reading(mwh(Decimal(one), "Wh"), n / 12)) for n, one in enumerate(shown)]
    assert all(isinstance(one, Booking) for one in said[1:])
    assert {one.amount for one in said if isinstance(one, Booking)} == {0, 64_000}
    assert booked(said) == round((shown[-1] - shown[0]) * 1000)


def test_more_than_a_terawatt_hour_in_a_step_is_no_energy() -> None:
    assert isinstance(run(meter(None), [0, 10**15 + 1])[1], Nothing)
    assert booked(run(meter(None), [0, 10**15])) == 10**15


def test_a_missed_reading_books_nothing_and_the_next_books_all() -> None:
    register = meter()
    register.read(reading(0, 0))
    assert register.miss() == Nothing(flag=Flag.NO_VALUE, base=reading(0, 0))
    assert not register.settled
    said = register.read(reading(150_000, 2))
    assert isinstance(said, Booking)
    assert (said.amount, said.start.t_ns, said.end.t_ns) == (150_000, T0, T0 + 2 * MINUTE)
    assert register.settled


def test_a_doubtful_clock_marks_the_energy_before_and_after_it() -> None:
    register = meter()
    register.read(reading(0, 0))
    suspect = register.read(reading(1, 1, state=ClockState.SUSPECT))
    after, later = register.read(reading(2, 2)), register.read(reading(3, 3))
    assert [Flag.CLOCK_SUSPECT in one.flags for one in (suspect, after, later) if isinstance(one, Booking)] == [
        True,
        True,
        False,
    ]


def test_count_register_wraps_where_the_wrap_is_small() -> None:
    said = run(CountRegister(modulus=65_536_000), [65_530_000, 12_000])
    assert isinstance(said[1], Booking)
    assert said[1].amount == 18_000
    assert said[1].flags == {Flag.ROLLOVER}


@pytest.mark.parametrize("modulus", [None, 65_536_000])
def test_count_register_that_starts_anew_books_what_it_shows(modulus: int | None) -> None:
    said = run(CountRegister(modulus=modulus), [30_000_000, 12_000, 15_000])
    assert booked(said) == 15_000
    assert isinstance(said[1], Booking)
    assert said[1].amount == 12_000
    assert said[1].flags == {Flag.COUNT_RESET}


def test_whole_units_stay_whole_when_a_gap_is_spread() -> None:
    register = CountRegister(modulus=None)
    register.read(reading(0, 0))
    register.miss()
    register.miss()
    said = register.read(reading(10_000, 3))
    assert isinstance(said, Booking)
    parts = [said.between(T0 + n * MINUTE, T0 + (n + 1) * MINUTE) for n in range(3)]
    assert parts == [3_000, 3_000, 4_000]


@given(st.integers(0, 2**62), st.lists(st.integers(1, 10**13), min_size=1, max_size=30), st.sampled_from([1, 1000]))
def test_parts_sum_exactly_however_an_interval_is_cut(amount: int, steps: list[int], quantum: int) -> None:
    bounds = [T0]
    for step in steps:
        bounds.append(bounds[-1] + step)
    amount -= amount % quantum
    start, end = reading(0, 0), reading(0, (bounds[-1] - T0) / MINUTE)
    end = Reading(amount=0, register=Decimal(0), t_ns=bounds[-1], source_ns=0, leaf=end.leaf)
    one = Booking(start=start, end=end, amount=amount, quantum=quantum)
    parts = [one.between(a, b) for a, b in pairwise(bounds)]
    assert sum(parts) == amount
    assert all(part >= 0 and part % quantum == 0 for part in parts)
    for part, (a, b) in zip(parts, pairwise(bounds), strict=True):
        exact = amount * (b - a) / (bounds[-1] - T0)
        assert abs(part - exact) <= max(quantum, exact * 1e-9)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=50))
def test_differences_of_a_float_register_telescope(steps: list[float]) -> None:
    """Rounding comes before the difference, so the sum is last - first to the mWh, whatever lies between."""
    shown = [Decimal(0)]
    for step in steps:
        shown.append(EXACT.add(shown[-1], Decimal(step)))
    register = meter(None)
    said = [register.read(reading(mwh(one, "kWh"), n)) for n, one in enumerate(shown)]
    assert booked(said) == mwh(shown[-1], "kWh") - mwh(shown[0], "kWh")


@given(
    st.lists(st.integers(0, 2**33), max_size=40), st.sampled_from([None, 5_000, 10**7]), st.sampled_from([None, U32_WH])
)
def test_no_sequence_of_readings_books_less_than_nothing_or_more_than_the_load_can_draw(
    amounts: list[int], rated: int | None, modulus: int | None
) -> None:
    for one in run(EnergyRegister(modulus=modulus, rated_power_w=rated), [amount * 1000 for amount in amounts]):
        if isinstance(one, Booking):
            assert 0 <= one.amount <= 10**15
            if rated is not None and Flag.REBASED not in one.flags:
                assert one.amount * 3 * 10**9 <= rated * (one.end.t_ns - one.start.t_ns)


@pytest.mark.parametrize(
    ("shown", "unit", "amount"),
    [
        ("1", "Wh", 1_000),
        ("0.0005", "Wh", 0),
        ("0.0015", "Wh", 2),
        ("0.0025", "Wh", 2),
        ("1234.56005859375", "kWh", 1_234_560_059),
        ("-0.1", "MWh", -100_000_000),
        ("9" * 400, "MWh", int("9" * 400) * 10**9),
        ("0." + "0" * 397 + "1", "kWh", 0),
    ],
)
def test_a_register_rounds_to_whole_mwh_half_to_even(shown: str, unit: str, amount: int) -> None:
    assert mwh(Decimal(shown), unit) == amount


def test_counts_are_thousandths() -> None:
    assert scaled(Decimal("12.0005"), UNIT_PLACES) == 12_000
    assert scaled(Decimal("12.3456"), UNIT_PLACES) == 12_346


def test_output_rounds_once_and_half_to_even() -> None:
    assert ratio(59, 110) == Decimal("0.536364")
    assert ratio(1, 2, 0) == 0
    assert ratio(3, 2, 0) == 2
    assert ratio(Decimal("2.5"), 1_000_000) == Decimal("0.000002")
    assert ratio(Decimal("2.500000000000000000000000000001"), 1_000_000) == Decimal("0.000003")
    with pytest.raises(ZeroDivisionError):
        ratio(1, 0)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_one_number_has_one_text(value: Decimal) -> None:
    shown = text(value)
    assert Decimal(shown) == value
    assert shown == text(EXACT.multiply(value, Decimal("1.000")))
    assert "E" not in shown
    assert shown != "-0"


def test_exact_arithmetic_refuses_to_lose_a_digit() -> None:
    assert EXACT.add(Decimal("1e-400"), Decimal("1e400")) != Decimal("1e400")
    with pytest.raises(ArithmeticError):
        EXACT.divide(Decimal(1), Decimal(3))


def test_utc_says_iso_8601() -> None:
    assert utc(T0) == "2026-01-01T09:00:00Z"
    assert utc(T0 + 1) == "2026-01-01T09:00:00.000000001Z"
    assert utc(0) == "1970-01-01T00:00:00Z"
    assert utc(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"
