"""Registers to numbers and back: all types, all orders, and what is not a number."""

import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.registers import Block, Decoder, Limits, encode, exact, plan, raw_of, store_of
from gateway.errors import ConfigError
from gateway.model import Order, Point, Quality, Value, WireType

RANGE = {
    WireType.U16: (0, 2**16 - 1),
    WireType.S16: (-(2**15), 2**15 - 1),
    WireType.U32: (0, 2**32 - 1),
    WireType.S32: (-(2**31), 2**31 - 1),
    WireType.U64: (0, 2**64 - 1),
    WireType.S64: (-(2**63), 2**63 - 1),
}
ALL_BAD = Quality.BAD


def point(kind: WireType = WireType.U16, name: str = "p", address: int = 0, **more: Any) -> Point:
    return Point(name=name, function=more.pop("function", 3), address=address, type=kind, **more)


def value_of(kind: WireType) -> st.SearchStrategy[Value]:
    if kind in RANGE:
        return st.integers(*RANGE[kind])
    if kind is WireType.BIT:
        return st.booleans()
    if kind is WireType.STRING:
        return st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5).map(lambda s: s.rstrip(" "))
    return st.floats(allow_nan=False, allow_infinity=False, width=32 if kind is WireType.F32 else 64)


def read(points: list[Point], **raws: bytes) -> tuple[tuple[Value | None, ...], tuple[Quality, ...] | None]:
    """Decode points that stand one after the other in one block, by their names."""
    (block,) = plan(points, Limits(max_gap=0))
    image = bytearray(block.size)
    for p in points:
        at = 2 * (p.address - block.address)
        image[at : at + len(raws[p.name])] = raws[p.name]
    return Decoder(points, [block]).decode([bytes(image)])


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("kind", list(WireType))
@settings(max_examples=30)
@given(data=st.data())
def test_what_is_encoded_is_decoded_again(kind: WireType, order: Order, data: st.DataObject) -> None:
    p = point(kind, order=order, registers=10, bit=data.draw(st.integers(0, 15)) if kind is WireType.BIT else None)
    value = data.draw(value_of(kind))
    assert read([p], p=encode(p, value)) == ((value,), None)


@pytest.mark.parametrize(
    ("order", "raw"),
    [
        (Order.ABCD, "3f9df3b6 41d26580b487e6b4"),
        (Order.CDAB, "f3b63f9d e6b4b487658041d2"),
        (Order.BADC, "9d3fb6f3 d241806587b4b4e6"),
        (Order.DCBA, "b6f39d3f b4e687b48065d241"),
    ],
)
def test_the_four_orders_are_the_ones_that_makers_mean(order: Order, raw: str) -> None:
    """1.234 as float32, and 1234567890.123456 as float64, in bus order."""
    short, long = (bytes.fromhex(part) for part in raw.split())
    points = [point(WireType.F32, "a", 0, order=order), point(WireType.F64, "b", 2, order=order)]
    values, qualities = read(points, a=short, b=long)
    assert values[0] == pytest.approx(1.234, rel=1e-7)
    assert values[1] == 1234567890.123456
    assert qualities is None


def test_a_swapped_single_register_is_read_little_endian() -> None:
    for order, want in ((Order.ABCD, 0x1234), (Order.CDAB, 0x1234), (Order.BADC, 0x3412), (Order.DCBA, 0x3412)):
        assert read([point(order=order)], p=b"\x12\x34")[0] == (want,)


@st.composite
def any_device(draw: st.DrawFn) -> tuple[list[Point], list[Value]]:
    """Points of all kinds in all orders, in any order of configuration, with gaps between them."""
    kinds = draw(st.lists(st.sampled_from(list(WireType)), min_size=1, max_size=12))
    points: list[Point] = []
    values: list[Value] = []
    address = {1: 0, 2: 0, 3: 0, 4: 0}
    for i, kind in enumerate(kinds):
        in_coil = kind is WireType.BIT and draw(st.booleans())
        function = draw(st.sampled_from([1, 2] if in_coil else [3, 4]))
        address[function] += draw(st.integers(0, 9))
        points.append(
            point(
                kind,
                f"p{i}",
                address[function],
                function=function,
                order=draw(st.sampled_from(list(Order))),
                registers=10,
                bit=draw(st.integers(0, 15)) if kind is WireType.BIT and not in_coil else None,
            )
        )
        values.append(draw(value_of(kind)))
        address[function] += 1 if in_coil else len(encode(points[-1], values[-1])) // 2
    return points, values


def replies_of(blocks: tuple[Block, ...], points: list[Point], values: list[Value]) -> list[bytes]:
    """Answer the blocks as a device with these values would."""
    memory: dict[int, bytearray] = {f: bytearray(4000) for f in (1, 2, 3, 4)}
    for p, value in zip(points, values, strict=True):
        raw = encode(p, value)
        for i, byte in enumerate(raw):
            memory[p.function][(1 if p.function < 3 else 2) * p.address + i] |= byte
    replies = []
    for b in blocks:
        if b.function < 3:
            bits = memory[b.function][b.address : b.address + b.count]
            number = sum(bit << i for i, bit in enumerate(bits))
            replies.append(number.to_bytes((b.count + 7) // 8, "little"))
        else:
            replies.append(bytes(memory[b.function][2 * b.address : 2 * (b.address + b.count)]))
    return replies


@given(any_device(), st.integers(0, 8), st.randoms())
def test_a_whole_device_decodes_to_what_it_holds(device: tuple[list[Point], list[Value]], gap: int, rng: Any) -> None:
    pairs = list(zip(*device, strict=True))
    rng.shuffle(pairs)
    points, values = [p for p, _ in pairs], [v for _, v in pairs]
    blocks = plan(points, Limits(max_gap=gap))
    assert Decoder(points, blocks).decode(replies_of(blocks, points, values)) == (tuple(values), None)


@given(any_device(), st.data())
def test_a_missing_block_makes_its_own_points_bad_and_no_others(
    device: tuple[list[Point], list[Value]], data: st.DataObject
) -> None:
    points, values = device
    blocks = plan(points, Limits(max_gap=0))
    replies: list[bytes | None] = list(replies_of(blocks, points, values))
    gone = data.draw(st.integers(0, len(blocks) - 1))
    replies[gone] = None
    lost = {p.name for p in blocks[gone].points}
    got, qualities = Decoder(points, blocks).decode(replies)
    assert qualities is not None
    for p, want, value, quality in zip(points, values, got, qualities, strict=True):
        assert (value, quality) == ((None, Quality.BAD) if p.name in lost else (want, Quality.GOOD))


@given(any_device(), st.data())
def test_no_bytes_whatever_crash_the_decoder_and_a_bad_value_is_none(
    device: tuple[list[Point], list[Value]], data: st.DataObject
) -> None:
    points, _ = device
    blocks = plan(points, Limits())
    decoder = Decoder(points, blocks)
    replies = [data.draw(st.none() | st.binary(min_size=b.size, max_size=b.size)) for b in blocks]
    values, qualities = decoder.decode(replies)
    assert len(values) == len(points)
    assert [value is None for value in values] == [q is Quality.BAD for q in qualities or [Quality.GOOD] * len(points)]
    assert all(math.isfinite(value) for value in values if isinstance(value, float))
    for p, value in zip(points, values, strict=True):
        if isinstance(value, str):
            assert len(value.encode()) <= int(store_of(p)[1:])


@given(any_device(), st.lists(st.binary(max_size=30), max_size=5))
def test_replies_of_other_lengths_are_refused(device: tuple[list[Point], list[Value]], replies: list[bytes]) -> None:
    points, _ = device
    blocks = plan(points, Limits())
    if sum(map(len, replies)) != sum(b.size for b in blocks):
        with pytest.raises(ValueError, match=r"got|argument"):
            Decoder(points, blocks).decode(replies)


numbers = st.sampled_from([*RANGE, WireType.F32, WireType.F64])
scales = st.sampled_from([Decimal(s) for s in ("1", "10", "1000", "0.1", "0.01", "0.001", "0.5", "-1", "-0.1", "3.6")])
offsets = st.sampled_from([Decimal(s) for s in ("0", "5", "-40", "0.5", "273.15")])


@given(numbers, scales, offsets, st.sampled_from(list(Order)), st.data())
def test_the_value_of_a_row_is_the_exact_one_rounded(
    kind: WireType, scale: Decimal, offset: Decimal, order: Order, data: st.DataObject
) -> None:
    p = point(kind, scale=scale, offset=offset, order=order)
    size = len(encode(point(kind), 0))
    raw = data.draw(st.binary(min_size=size, max_size=size))
    ((value,), qualities) = read([p], p=raw)
    number = exact(p, raw)
    assert (value is None) == (qualities is not None)
    if value is None:
        # What is exact may still be more than a float holds.
        assert number is None or abs(number) > Decimal("1e308")
        return
    assert number is not None
    assert Fraction(number) == Fraction(raw_of(p, raw)) * Fraction(scale) + Fraction(offset)
    store = store_of(p)
    if store in {"u64", "i64"}:
        assert isinstance(value, int)
        assert value == number
        struct.pack(">Q" if store == "u64" else ">q", value)
    elif kind in RANGE:
        assert value == float(Fraction(number)), "an integer's value is rounded once"
    else:
        assert isinstance(value, float)
        assert value == pytest.approx(float(Fraction(number)), rel=1e-12, abs=1e-12)
        if store == "f32":
            assert struct.unpack(">f", struct.pack(">f", value)) == (value,)


@given(st.sampled_from([*RANGE]), scales, offsets, st.data())
def test_a_scaled_integer_survives_the_way_there_and_back(
    kind: WireType, scale: Decimal, offset: Decimal, data: st.DataObject
) -> None:
    p = point(kind, scale=scale, offset=offset)
    raw = data.draw(st.integers(max(RANGE[kind][0], -(2**45)), min(RANGE[kind][1], 2**45)))
    registers = encode(point(kind), raw)
    ((value,), _) = read([p], p=registers)
    assert value is not None
    assert encode(p, value) == registers


@pytest.mark.parametrize(
    ("kind", "more", "store"),
    [
        (WireType.U16, {}, "u64"),
        (WireType.S32, {}, "i64"),
        (WireType.U64, {}, "u64"),
        (WireType.U32, {"scale": Decimal(10)}, "u64"),
        (WireType.U16, {"offset": Decimal(-40)}, "i64"),
        (WireType.U32, {"scale": Decimal("0.1")}, "f64"),
        (WireType.U64, {"scale": Decimal(10)}, "f64"),
        (WireType.S64, {"scale": Decimal(1000)}, "f64"),
        (WireType.S16, {"scale_point": "sf"}, "f64"),
        (WireType.F32, {}, "f32"),
        (WireType.F32, {"scale": Decimal(1000)}, "f64"),
        (WireType.F64, {}, "f64"),
        (WireType.BIT, {"bit": 3}, "bool"),
        (WireType.STRING, {"registers": 8}, "s16"),
    ],
)
def test_the_store_holds_every_value_the_point_can_have(kind: WireType, more: dict[str, Any], store: str) -> None:
    assert store_of(point(kind, **more)) == store


def test_integers_stay_integers_beyond_what_a_float_can_count() -> None:
    p = point(WireType.U64)
    assert read([p], p=encode(p, 2**53 + 1))[0] == (2**53 + 1,)


def test_decimal_scales_give_the_decimals_that_people_expect() -> None:
    p = point(scale=Decimal("0.1"))
    assert read([p], p=b"\x00\x03")[0] == (0.3,)


@pytest.mark.parametrize(
    ("kind", "sentinel"),
    [
        (WireType.S16, -(2**15)),
        (WireType.U16, 0xFFFF),
        (WireType.S32, -(2**31)),
        (WireType.U32, 0xFFFFFFFF),
        (WireType.U32, 0),
        (WireType.S64, -(2**63)),
        (WireType.U64, 2**64 - 1),
        (WireType.U64, 0),
    ],
)
def test_a_pattern_for_not_implemented_is_bad_and_never_a_number(kind: WireType, sentinel: int) -> None:
    """The patterns of SunSpec: int, uint and acc of 16, 32 and 64 bits."""
    raw = encode(point(kind), sentinel)
    marked = point(kind, sentinels=frozenset({sentinel}), scale=Decimal("0.1"))
    assert read([marked], p=raw) == ((None,), (ALL_BAD,))
    assert exact(marked, raw) is None
    assert read([point(kind)], p=raw) == ((sentinel,), None)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [WireType.F32, WireType.F64])
@pytest.mark.parametrize("scale", [Decimal(1), Decimal("0.1")])
def test_nan_and_infinity_are_bad_and_spoil_nothing_beside_them(
    kind: WireType, number: float, order: Order, scale: Decimal
) -> None:
    points = [point(kind, f"p{i}", 4 * i, order=order, scale=scale) for i in range(3)]
    raw = {p.name: encode(point(kind, order=order), 1.5) for p in points}
    raw["p1"] = encode(points[1], number)
    good = 1.5 * float(scale)
    values, qualities = Decoder(points, (block,) if (block := Block(tuple(points))) else ()).decode(
        [b"".join(raw[p.name].ljust(8, b"\0") for p in points)[: block.size]]
    )
    assert values[0] == values[2] == pytest.approx(good)
    assert values[1] is None
    assert qualities == (Quality.GOOD, Quality.BAD, Quality.GOOD)
    assert exact(points[1], raw["p1"]) is None


def test_infinities_of_both_signs_do_not_cancel_out() -> None:
    points = [point(WireType.F32, "a", 0), point(WireType.F32, "b", 2)]
    got = read(points, a=struct.pack(">f", math.inf), b=struct.pack(">f", -math.inf))
    assert got == ((None, None), (ALL_BAD, ALL_BAD))


def test_huge_numbers_whose_sum_is_infinite_are_good() -> None:
    points = [point(WireType.F64, "a", 0), point(WireType.F64, "b", 4)]
    raw = struct.pack(">d", 1.7e308)
    assert read(points, a=raw, b=raw) == ((1.7e308, 1.7e308), None)


def test_a_scaled_number_that_overflows_is_bad() -> None:
    p = point(WireType.F64, scale=Decimal(1000))
    assert read([p], p=struct.pack(">d", 1.7e308)) == ((None,), (ALL_BAD,))


SF = point(WireType.S16, "sf", 2)
ACC = point(WireType.U32, "wh", 0, scale_point="sf")


@pytest.mark.parametrize(
    ("factor", "want"), [(0, 1234.0), (-2, 12.34), (3, 1234000.0), (10, 1.234e13), (-10, 1.234e-7)]
)
def test_a_sunspec_scale_factor_scales(factor: int, want: float) -> None:
    raw = encode(SF, factor)
    assert read([ACC, SF], wh=encode(point(WireType.U32), 1234), sf=raw) == ((want, factor), None)
    got = exact(ACC, encode(point(WireType.U32), 1234), factor)
    assert got == Decimal(1234) * Decimal(10) ** factor
    assert "E" not in str(got) or factor < -5


@pytest.mark.parametrize("factor", [-(2**15), 11, -11])
def test_a_scale_factor_that_is_none_makes_its_points_bad(factor: int) -> None:
    values, qualities = read([ACC, SF], wh=encode(point(WireType.U32), 1234), sf=encode(SF, factor))
    assert values == (None, factor)
    assert qualities == (Quality.BAD, Quality.GOOD)
    assert exact(ACC, encode(point(WireType.U32), 1234), factor) is None
    assert exact(ACC, encode(point(WireType.U32), 1234), None) is None


def test_a_scale_factor_marked_not_implemented_makes_both_bad() -> None:
    marked = point(WireType.S16, "sf", 2, sentinels=frozenset({0}))
    assert read([ACC, marked], wh=bytes(4), sf=bytes(2)) == ((None, None), (ALL_BAD, ALL_BAD))


def test_a_scale_factor_may_stand_in_another_block() -> None:
    far = point(WireType.S16, "sf", 1000)
    blocks = plan([ACC, far], Limits())
    assert len(blocks) == 2
    decoder = Decoder([ACC, far], blocks)
    assert decoder.decode([struct.pack(">I", 55), struct.pack(">h", 1)]) == ((550.0, 1), None)
    assert decoder.decode([struct.pack(">I", 55), None]) == ((None, None), (ALL_BAD, ALL_BAD))


@pytest.mark.parametrize("other", [None, point(WireType.F32, "sf", 4), point(WireType.STRING, "sf", 4, registers=2)])
def test_a_scale_factor_that_is_no_integer_point_is_refused(other: Point | None) -> None:
    points = [ACC, *([other] if other else [])]
    with pytest.raises(ConfigError, match="point wh: scale_point"):
        Decoder(points, plan(points, Limits()))


@pytest.mark.parametrize("scale", ["0", "1e31", "1e-31", "3.14159265358979323846264338327950288"])
def test_a_scale_that_is_a_slip_of_the_pen_is_refused(scale: str) -> None:
    p = point(scale=Decimal(scale))
    with pytest.raises(ConfigError, match="point p: got scale"):
        Decoder([p], plan([p], Limits()))


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"B23 112\0\0\0", "B23 112"),
        (b"B23   \0\0\0\0", "B23"),
        (b"B23\0rest\xff\xff", "B23"),
        (b"          ", ""),
        (bytes(10), ""),
        ("Zähler°".encode() + b"\0", "Zähler°"),
        (b"B23\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\xc3\x28\0\0\0\0\0\0\0\0", None),
    ],
)
def test_a_string_ends_at_its_nul_and_bad_utf8_is_bad(raw: bytes, want: str | None) -> None:
    p = point(WireType.STRING, registers=5)
    assert read([p], p=raw) == ((want,), None if want is not None else (ALL_BAD,))


def test_a_string_swaps_its_characters_but_has_no_word_order() -> None:
    for order, raw in ((Order.ABCD, b"AB12"), (Order.CDAB, b"AB12"), (Order.BADC, b"BA21"), (Order.DCBA, b"BA21")):
        assert read([point(WireType.STRING, registers=2, order=order)], p=raw)[0] == ("AB12",)


@pytest.mark.parametrize("order", list(Order))
def test_sixteen_bits_of_one_register_are_told_apart(order: Order) -> None:
    points = [point(WireType.BIT, f"b{i}", bit=i, order=order) for i in range(16)]
    raw = encode(point(order=order), 0b1010_0000_0000_0101)
    values, _ = Decoder(points, [Block(tuple(points))]).decode([raw])
    assert [i for i, value in enumerate(values) if value is True] == [0, 2, 13, 15]
    assert all(isinstance(value, bool) for value in values)


def test_coils_are_counted_from_the_first_of_the_block() -> None:
    points = [point(WireType.BIT, f"c{a}", a, function=1) for a in (3, 10, 12)]
    values, _ = Decoder(points, [Block(tuple(points))]).decode([bytes([0b1000_0001, 0b10])])
    assert values == (True, True, True)
    values, _ = Decoder(points, [Block(tuple(points))]).decode([bytes([0b0000_0001, 0b01])])
    assert values == (True, False, False)


def test_overlapping_points_are_each_read_their_own_way() -> None:
    points = [
        point(WireType.U32, "all"),
        point(WireType.U16, "high"),
        point(WireType.S16, "low", 1),
        point(WireType.F32, "f"),
    ]
    values, _ = Decoder(points, [Block(tuple(points))]).decode([b"\x3f\x80\xff\xff"])
    assert values[:3] == (0x3F80FFFF, 0x3F80, -1)
    assert values[3] == struct.unpack(">f", b"\x3f\x80\xff\xff")[0]


def test_the_raw_bytes_of_a_point_are_those_on_the_bus() -> None:
    points = [point(WireType.U32, "a", 10, order=Order.CDAB), point(WireType.U16, "b", 12)]
    blocks = plan(points, Limits())
    decoder = Decoder(points, blocks)
    assert decoder.raw(0, [b"\x01\x02\x03\x04\x05\x06"]) == b"\x01\x02\x03\x04"
    assert decoder.raw(1, [b"\x01\x02\x03\x04\x05\x06"]) == b"\x05\x06"
    assert decoder.raw(1, [None]) is None


@given(st.floats(allow_nan=False, allow_infinity=False), scales, offsets)
def test_an_exact_value_has_every_digit_of_a_float(number: float, scale: Decimal, offset: Decimal) -> None:
    p = point(WireType.F64, scale=scale, offset=offset)
    got = exact(p, struct.pack(">d", number))
    assert got is not None
    assert Fraction(got) == Fraction(number) * Fraction(scale) + Fraction(offset)


def test_an_exact_value_is_written_with_plain_digits() -> None:
    assert str(exact(point(WireType.U32, scale=Decimal("1E+3")), encode(point(WireType.U32), 12))) == "12000"
    assert str(exact(point(WireType.U64, scale=Decimal("0.01")), encode(point(WireType.U64), 2**64 - 1))) == (
        "184467440737095516.15"
    )
    assert str(exact(point(WireType.F32), struct.pack(">f", 0.1))) == "0.100000001490116119384765625"


@pytest.mark.parametrize(
    ("kind", "raw"), [(WireType.U32, b"\0\0"), (WireType.BIT, b"\0\0"), (WireType.STRING, b"\0\0")]
)
def test_the_exact_value_of_what_is_no_number_is_refused(kind: WireType, raw: bytes) -> None:
    with pytest.raises(ValueError, match="point p"):
        exact(point(kind, registers=1, bit=0), raw)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(WireType.U16, 65536), (WireType.U16, -1), (WireType.S16, 2**15), (WireType.F32, 1e300), (WireType.STRING, "abc")],
)
def test_a_value_that_does_not_fit_is_not_encoded(kind: WireType, value: Value) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode(point(kind, registers=1), value)
