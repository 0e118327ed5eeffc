"""What BACnet properties say, as values, qualities and exact counters."""

import math
import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec import bacnet_tags as tags
from gateway.codec.bacnet_apdu import Refusal
from gateway.codec.bacnet_tags import Plain
from gateway.drivers.bacnet_values import BacnetPoint, Maths, maths_of, reading, units_of
from gateway.errors import ConfigError
from gateway.model import Column, Kind, Quality, Schema

CLEAR = Plain(tags.BITS, b"\x04\x00")
KWH, JOULE, CELSIUS, NONE, VENDOR = 19, 16, 62, 95, 4711


def point(store: str = "f64", **more: object) -> BacnetPoint:
    return BacnetPoint(**({"name": "p", "object_id": 1, "store": store, "kind": Kind.COUNTER} | more))  # type: ignore[arg-type]


def unit(number: int) -> Plain:
    return Plain(tags.ENUMERATED, number.to_bytes(2, "big"))


@pytest.mark.parametrize(
    ("store", "said", "value"),
    [
        ("f32", Plain(tags.REAL, b"\x41\x20\0\0"), 10.0),
        ("f64", Plain(tags.DOUBLE, struct.pack(">d", math.pi)), math.pi),
        ("u64", Plain(tags.UNSIGNED, b"\xff" * 8), 2**64 - 1),
        ("i64", Plain(tags.SIGNED, b"\xff"), -1),
        ("i64", Plain(tags.REAL, b"\x41\x20\0\0"), 10),
        ("bool", Plain(tags.ENUMERATED, b"\x01"), True),
        ("bool", Plain(tags.BOOLEAN, b"\0"), False),
        ("s32", Plain(tags.TEXT, b"\0" + "höhe".encode()), "höhe"),
        ("s32", Plain(tags.TEXT, b"\x04" + "höhe".encode("utf-16-be")), "höhe"),
        ("s32", Plain(tags.TEXT, b"\x05" + "höhe".encode("latin-1")), "höhe"),
    ],
)
def test_values_of_all_types_fit_their_columns(store: str, said: Plain, value: object) -> None:
    """Each type that a device may use for a column."""
    got = reading(point(store), Maths(), said, CLEAR, None)
    assert (got.value, got.quality, got.raw) == (value, Quality.GOOD, said.content)
    assert type(got.value) is type(value)


@pytest.mark.parametrize(
    ("store", "said", "why"),
    [
        ("f64", Plain(tags.NULL, b""), "null"),
        ("f64", Plain(tags.REAL, b"\x7f\xc0\0\0"), "not a number"),
        ("f64", Plain(tags.REAL, b"\x41\x20\0"), "a value of type 4 and 3 bytes"),
        ("f64", Plain(tags.OTHER, b""), "a value of type 255 and 0 bytes"),
        ("f64", Plain(tags.TEXT, b"\x0012"), "text, want a number"),
        ("f64", Plain(tags.TEXT, b"\x00\xff"), "'utf-8' codec can't decode"),
        ("f32", Plain(tags.DOUBLE, struct.pack(">d", 1e300)), "too large for f32"),
        ("u64", Plain(tags.SIGNED, b"\xff"), "got -1, want a whole number that fits u64"),
        ("i64", Plain(tags.REAL, b"\x41\x24\0\0"), "got 10.25, want a whole number"),
        ("i64", Plain(tags.DOUBLE, struct.pack(">d", 1e308)), "got 1e+308, want a whole number"),
        ("bool", Plain(tags.UNSIGNED, b"\x02"), "got 2, want 0 or 1"),
        ("s32", Plain(tags.TEXT, b"\0" + b"x" * 33), "want text of at most 32 bytes"),
        ("s32", Plain(tags.REAL, b"\x41\x20\0\0"), "want text of at most 32 bytes"),
        ("f64", Refusal(2, 32), "unknown-property"),
        ("f64", Refusal(2, 300_000), "300000"),
        ("f64", "not in the answer", "not in the answer"),
    ],
)
def test_what_is_no_value_is_bad_with_its_reason(store: str, said: Plain | Refusal | str, why: str) -> None:
    """BAD, without a value, raw bytes or a counter."""
    got = reading(point(store), Maths(), said, CLEAR, None)
    assert (got.value, got.quality, got.raw, got.exact) == (None, Quality.BAD, b"", None)
    assert got.status.startswith(why)


def test_counters_are_exact_in_the_points_unit() -> None:
    """As the device holds them, converted exactly; what has no end is rounded at the 18th decimal, and only that."""
    tenth = Plain(tags.REAL, struct.pack(">f", 0.1))
    assert reading(point(), Maths(), tenth, CLEAR, None).exact == Decimal("0.100000001490116119384765625")
    to_wh = units_of(point(unit="Wh"), unit(KWH))
    assert isinstance(to_wh, Maths)
    assert reading(point(), to_wh, Plain(tags.UNSIGNED, b"\x07"), CLEAR, None).exact == Decimal(7000)
    to_kwh = units_of(point(unit="kWh"), unit(JOULE))
    assert isinstance(to_kwh, Maths)
    got = reading(point(), to_kwh, Plain(tags.UNSIGNED, b"\x01"), CLEAR, None)
    assert got.exact == Decimal("0.000000277777777778")
    assert got.value == 1 / 3_600_000
    scaled = maths_of(point(scale=Decimal("0.01"), offset=Decimal(-40)))
    assert reading(point(), scaled, Plain(tags.UNSIGNED, b"\x07"), CLEAR, None).exact == Decimal("-39.93")


def test_units_convert_or_say_why_not() -> None:
    """An offset counts too; an object without a unit is taken at the template's word."""
    kelvin = units_of(point(unit="K"), unit(CELSIUS))
    assert isinstance(kelvin, Maths)
    assert reading(point(), kelvin, Plain(tags.REAL, b"\0\0\0\0"), CLEAR, None).exact == Decimal("273.15")
    assert units_of(point(unit="kWh"), unit(NONE)) == Maths()
    assert units_of(point(unit="kWh"), Refusal(2, 32)) == Maths()
    assert units_of(point(unit="kWh"), unit(CELSIUS)) == "units: degrees-celsius cannot be converted to kWh"
    assert units_of(point(unit="kWh"), unit(VENDOR)) == "units: 4711 cannot be converted to kWh"
    assert units_of(point(unit="kWh"), Plain(tags.REAL, b"\0\0\0\0")) == "units: not an engineering unit"
    assert not point(unit="").has_units
    with pytest.raises(ConfigError):
        maths_of(point(scale=Decimal("1e31")))


plains = st.builds(Plain, st.sampled_from([*range(13), 255]), st.binary(max_size=10))
said = st.one_of(plains, st.builds(Refusal, st.integers(0, 9), st.integers(0, 2**32 - 1)), st.text(max_size=5))


@settings(max_examples=100)
@given(
    st.sampled_from(["f32", "f64", "i64", "u64", "bool", "s32"]),
    said,
    st.one_of(st.none(), st.just(CLEAR), said),
    st.one_of(st.none(), plains),
    st.sampled_from([Maths(), Maths(7, -3, 11), Maths(10**30, 0, 1)]),
)
def test_whatever_a_device_says_fits_its_column_or_is_bad(
    store: str,
    value: Plain | Refusal | str,
    flags: Plain | Refusal | str | None,
    reliability: Plain | None,
    maths: Maths,
) -> None:
    """Never an exception, and never a value that could not be stored."""
    got = reading(point(store), maths, value, flags, reliability)
    assert (got.value is None) == (got.quality is Quality.BAD)
    if got.value is not None:
        cell = Schema(device="d", columns=(Column(name="p", unit="", store=store),)).cells[0]
        cell.pack(got.value.encode() if isinstance(got.value, str) else got.value)
        if got.exact is not None and maths == Maths() and isinstance(got.value, int):
            assert Fraction(got.exact) == got.value
