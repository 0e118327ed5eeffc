"""Units: published relations, exact both ways, and nothing converted that has no exact way."""

from fractions import Fraction

import pytest
from bacpypes3.basetypes import EngineeringUnits
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.units import BACNET_UNITS, UNECE_UNITS, convert, unece_code

EVERY = sorted({*BACNET_UNITS.values(), *UNECE_UNITS.values()})


def to(value: str, have: str, want: str) -> Fraction:
    way = convert(have, want)
    assert way is not None, f"{have} to {want}"
    scale, offset = way
    return Fraction(value) * scale + offset


@pytest.mark.parametrize(
    ("value", "have", "want", "expected"),
    [
        ("1", "kWh", "MJ", "3.6"),
        ("1", "MWh", "kWh", "1000"),
        ("1", "BTU", "J", "1055.05585262"),  # NIST SP 811, B.8
        ("1", "hp", "W", "745.69987158227022"),  # NIST SP 811, B.8: 550 ft lbf/s
        ("12000", "BTU/h", "ton_refrigeration", "1"),
        ("25", "degC", "K", "298.15"),
        ("32", "degF", "degC", "0"),
        ("212", "degF", "degC", "100"),
        ("-40", "degC", "degF", "-40"),
        ("0", "K", "degF", "-459.67"),
        ("9", "delta_degF", "delta_K", "5"),
        ("1", "mmHg", "Pa", "133.322387415"),  # the conventional millimetre of mercury
        ("1", "mmH2O", "Pa", "9.80665"),
        ("1", "bar", "hPa", "1000"),
        ("1", "gal_us", "l", "3.785411784"),  # NIST SP 811, B.8
        ("1", "gal_uk", "l", "4.54609"),
        ("1", "ft3", "l", "28.316846592"),
        ("1", "l/s", "m3/h", "3.6"),
        ("1", "mi/h", "km/h", "1.609344"),
        ("60", "rpm", "Hz", "1"),
        ("50", "%", "1", "0.5"),
        ("1", "kvarh", "varh", "1000"),
    ],
)
def test_published_relations_hold_exactly(value: str, have: str, want: str, expected: str) -> None:
    """What NIST SP 811 and the definitions say is what comes out, to the last digit."""
    assert to(value, have, want) == Fraction(expected)


def test_a_pound_a_square_inch_is_6894_757_pascal() -> None:
    """NIST SP 811 gives seven digits of a number that has no end."""
    assert round(to("1", "psi", "Pa"), 3) == Fraction("6894.757")


@given(st.sampled_from(EVERY), st.sampled_from(EVERY), st.fractions(max_denominator=10**6))
@settings(max_examples=100)
def test_there_and_back_is_the_same_number(have: str, want: str, value: Fraction) -> None:
    """A way there has a way back, and loses nothing."""
    there, back = convert(have, want), convert(want, have)
    assert (there is None) == (back is None)
    if there and back:
        assert (value * there[0] + there[1]) * back[0] + back[1] == value


@pytest.mark.parametrize("unit", EVERY)
def test_a_unit_is_itself(unit: str) -> None:
    """The same unit needs nothing, whether we know its size or not."""
    assert convert(unit, unit) == (Fraction(1), Fraction(0))


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("kWh", "kW"),
        ("kWh", "kvarh"),
        ("kVA", "kW"),
        ("delta_K", "degC"),
        ("K", "delta_K"),
        ("ton", "t"),  # short, long or metric: ASHRAE 135 does not say
        ("therm", "kWh"),
        ("mo", "d"),
        ("deg", "rad"),
        ("W", "w"),
        ("1", "kWh"),
        ("", "kWh"),
        ("furlong", "m"),
    ],
)
def test_what_has_no_exact_way_is_not_converted(have: str, want: str) -> None:
    """Another dimension, another kind of power, a unit with two definitions: none of them is guessed."""
    assert convert(have, want) is None


def test_no_unit_is_the_number_one() -> None:
    """A point without a unit takes a number without one."""
    assert convert("1", "") == convert("", "1") == (Fraction(1), Fraction(0))


def test_spellings_with_signs_are_understood() -> None:
    """An operator writes what the keyboard has."""
    assert convert("°C", "degC") == (Fraction(1), Fraction(0))
    assert convert("m³/h", "l/h") == (Fraction(1000), Fraction(0))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("watts", "W"),
        ("kilowatts", "kW"),
        ("megawatts", "MW"),
        ("kilowatt-hours", "kWh"),
        ("megawatt-hours", "MWh"),
        ("kilojoules", "kJ"),
        ("megajoules", "MJ"),
        ("degrees-celsius", "degC"),
        ("degrees-fahrenheit", "degF"),
        ("percent-relative-humidity", "%RH"),
        ("cubic-meters-per-hour", "m3/h"),
        ("liters-per-hour", "l/h"),
        ("kilovolt-ampere-hours-reactive", "kvarh"),
        ("bars", "bar"),
        ("no-units", "1"),
        ("hundredths-seconds", "cs"),
        ("tons-per-hour", "ton/h"),
    ],
)
def test_a_bacnet_number_is_the_unit_of_its_name(name: str, unit: str) -> None:
    """Our numbers are the library's, which were taken from the standard apart from ours."""
    assert BACNET_UNITS[int(EngineeringUnits(name))] == unit


def test_every_bacnet_number_is_one_of_the_standard() -> None:
    """No number of ours is one that the standard does not have."""
    known = {int(number) for number in EngineeringUnits._enum_map.values()}
    assert set(BACNET_UNITS) <= known
    assert len(BACNET_UNITS) >= 60


def test_a_unece_number_is_its_code() -> None:
    """OPC UA part 8 gives MTR as 5067858; milo's table gives radian as 4405297."""
    assert unece_code(5067858) == "MTR"
    assert UNECE_UNITS[unece_code(4405297)] == "rad"
    assert UNECE_UNITS[unece_code(int.from_bytes(b"KWH", "big"))] == "kWh"


@pytest.mark.parametrize("number", [-1, 0, 1, 2**32, 2**40])
def test_a_number_that_is_no_code_is_none(number: int) -> None:
    """A server that leaves the unit out says -1 or 0."""
    assert unece_code(number) == ""
