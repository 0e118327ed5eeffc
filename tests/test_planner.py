"""The read planner: few requests, and never one that the device forbids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.registers import Block, Limits, plan
from gateway.errors import ConfigError
from gateway.model import Point, WireType

NUMBERS = [kind for kind in WireType if kind not in {WireType.BIT, WireType.STRING}]
WIDTH = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4, "f64": 4, "bit": 1}


def at(*addresses: int, function: int = 3, kind: WireType = WireType.U16) -> list[Point]:
    return [Point(name=f"p{i}", function=function, address=a, type=kind) for i, a in enumerate(addresses)]


def spans(blocks: tuple[Block, ...]) -> list[tuple[int, int, int]]:
    return [(b.function, b.address, b.count) for b in blocks]


@st.composite
def any_points(draw: st.DrawFn) -> list[Point]:
    functions = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=40))
    points = []
    for i, function in enumerate(functions):
        kind = draw(st.sampled_from(NUMBERS)) if function > 2 else WireType.BIT
        points.append(Point(name=f"p{i}", function=function, address=draw(st.integers(0, 400)), type=kind))
    return points


limits = st.builds(
    Limits,
    max_registers=st.integers(4, 125),
    max_bits=st.integers(1, 2000),
    max_gap=st.integers(0, 30),
    never=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(410, 420), st.integers(415, 500))).map(tuple),
    keep_order=st.booleans(),
)


@given(any_points(), limits)
def test_every_point_is_read_once_by_a_block_within_the_limits(points: list[Point], within: Limits) -> None:
    blocks = plan(points, within)
    assert sorted(p.name for b in blocks for p in b.points) == sorted(p.name for p in points)
    for block in blocks:
        assert block.count <= (within.max_registers if block.function > 2 else within.max_bits)
        for point in block.points:
            assert point.function == block.function
            assert block.address <= point.address
            assert point.address + WIDTH[point.type] <= block.address + block.count


@given(any_points(), limits)
def test_no_block_bridges_more_than_the_gap(points: list[Point], within: Limits) -> None:
    for block in plan(points, within):
        used = {a for p in block.points for a in range(p.address, p.address + WIDTH[p.type])}
        gap = longest = 0
        for address in range(block.address, block.address + block.count):
            gap = 0 if address in used else gap + 1
            longest = max(longest, gap)
        assert longest <= within.max_gap


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(0, 300), st.integers(0, 20))
def test_no_block_touches_a_range_never_to_be_read(addresses: list[int], first: int, more: int) -> None:
    last = first + more
    points = at(*(a for a in addresses if not first <= a <= last))
    for block in plan(points, Limits(max_gap=50, never=((3, first, last),))):
        assert block.address > last or block.address + block.count <= first


@given(any_points(), limits)
def test_splitting_keeps_every_point_and_ends(points: list[Point], within: Limits) -> None:
    left = list(plan(points, within))
    before = sorted(p.name for p in points)
    leaves = []
    while left:
        block = left.pop()
        halves = block.split()
        assert all(half.count <= block.count for half in halves)
        left.extend(halves)
        if not halves:
            leaves.append(block)
    assert sorted(p.name for leaf in leaves for p in leaf.points) == before
    assert all(len({(p.address, WIDTH[p.type]) for p in leaf.points}) == 1 for leaf in leaves)


def test_neighbours_are_read_by_one_request() -> None:
    assert spans(plan(at(0, 2, 4, kind=WireType.F32), Limits())) == [(3, 0, 6)]


def test_a_gap_is_read_along_up_to_its_limit() -> None:
    assert spans(plan(at(0, 9), Limits(max_gap=8))) == [(3, 0, 10)]
    assert spans(plan(at(0, 10), Limits(max_gap=8))) == [(3, 0, 1), (3, 10, 1)]


def test_a_request_asks_for_at_most_125_registers() -> None:
    assert spans(plan(at(*range(126)), Limits())) == [(3, 0, 125), (3, 125, 1)]


def test_a_value_is_never_torn_between_two_requests() -> None:
    blocks = plan(at(*range(0, 252, 2), kind=WireType.F32), Limits())
    assert spans(blocks) == [(3, 0, 124), (3, 124, 124), (3, 248, 4)]


def test_function_codes_are_not_mixed() -> None:
    assert spans(plan([*at(5), *at(6, function=4)], Limits())) == [(3, 5, 1), (4, 6, 1)]


def test_points_that_share_registers_share_a_request() -> None:
    bits = [Point(name=f"b{i}", function=4, address=7, type=WireType.BIT, bit=i) for i in range(16)]
    assert spans(plan(bits, Limits())) == [(4, 7, 1)]


def test_a_device_that_wants_an_order_gets_it() -> None:
    points = at(100, 0, 1, 101)
    assert spans(plan(points, Limits(keep_order=True))) == [(3, 100, 1), (3, 0, 2), (3, 101, 1)]
    assert spans(plan(points, Limits())) == [(3, 0, 2), (3, 100, 2)]


@pytest.mark.parametrize(
    ("point", "within"),
    [
        (Point(name="p", function=5, address=0, type=WireType.U16), Limits()),
        (Point(name="p", function=0, address=0, type=WireType.U16), Limits()),
        (Point(name="p", function=1, address=0, type=WireType.U16), Limits()),
        (Point(name="p", function=1, address=0, type=WireType.BIT, bit=3), Limits()),
        (Point(name="p", function=3, address=0, type=WireType.BIT), Limits()),
        (Point(name="p", function=3, address=0, type=WireType.BIT, bit=16), Limits()),
        (Point(name="p", function=3, address=-1, type=WireType.U16), Limits()),
        (Point(name="p", function=3, address=65535, type=WireType.U32), Limits()),
        (Point(name="p", function=3, address=0, type=WireType.STRING), Limits()),
        (Point(name="p", function=3, address=0, type=WireType.STRING, registers=126), Limits()),
        (Point(name="p", function=3, address=0, type=WireType.F64), Limits(max_registers=3)),
        (Point(name="p", function=3, address=9, type=WireType.F32), Limits(never=((3, 10, 20),))),
    ],
)
def test_a_point_that_cannot_be_read_is_a_configuration_error(point: Point, within: Limits) -> None:
    with pytest.raises(ConfigError, match="point p"):
        plan([point], within)


@pytest.mark.parametrize("wrong", [{"max_registers": 126}, {"max_registers": 0}, {"max_bits": 2001}, {"max_gap": -1}])
def test_limits_beyond_the_protocol_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type]
