"""Meters above meters: each kWh counts once, whatever a plan says and whichever meter is silent."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.energy import Flag
from gateway.carbon.figures import METER, REMAINDER, VIRTUAL
from gateway.carbon.scopes.hierarchy import accounts_of
from gateway.config.plan import parse_plan
from gateway.errors import ConfigError
from gateway.model import LineSchema
from tests.line_leaves import MINUTE, T0, energy, leaf, line, minutes
from tests.plans import cells_of, planned, rows_of

TREE = """
[lines.gw1.filler.meters.hall]
point = "main.e"
[lines.gw1.filler.meters.compressor]
point = "comp.e"
parent = "hall"
[lines.gw1.filler.meters.filling]
point = "fill.e"
parent = "hall"
[lines.gw1.filler.meters.pump]
point = "pump.e"
parent = "filling"
"""
ONCE = "want each counter in one place, or it would count twice"
POINTS = ("main.e", "comp.e", "fill.e", "pump.e")
HALL = line(*(energy(point) for point in POINTS))


def meters(*points: str) -> LineSchema:
    return line(*(energy(point) for point in points))


def test_a_main_meter_counts_what_its_sub_meters_do_not() -> None:
    (cell,) = cells_of(minutes(HALL, [["0", "0", "0", "0"], ["10", "3", "5", "1"]]), HALL, planned(TREE))
    assert [(row.asset, row.kind, row.energy_mwh) for row in cell.figures] == [
        ("hall", REMAINDER, 2_000_000),
        ("compressor", METER, 3_000_000),
        ("filling", REMAINDER, 4_000_000),
        ("pump", METER, 1_000_000),
    ]
    assert (cell.line.energy_mwh, cell.line.co2e_g) == (10_000_000, Decimal(4000))
    assert (cell.line.meters, cell.line.meters_booked, cell.line.flags) == (4, 4, frozenset())


def test_a_remainder_names_the_main_meters_own_readings() -> None:
    (cell,) = cells_of(minutes(HALL, [["0", "0", "0", "0"], ["10", "3", "5", "1"]]), HALL, planned(TREE))
    row = cell.figures[0]
    assert (row.meter, row.register_start, row.register_end) == ("main.e", Decimal(0), Decimal(10))


def test_a_silent_sub_meter_leaves_its_energy_in_the_remainder_and_the_sum_with_the_main() -> None:
    cells = cells_of(minutes(HALL, [["0", "0", "0", "0"], ["10", None, "5", "1"]]), HALL, planned(TREE))
    by_asset = {row.asset: row for row in cells[0].figures}
    assert cells[0].line.energy_mwh == 10_000_000
    assert by_asset["hall"].energy_mwh == 5_000_000
    assert Flag.INCOMPLETE in by_asset["hall"].flags
    assert by_asset["compressor"].energy_mwh is None
    assert (cells[0].line.meters_booked, cells[0].line.complete) == (3, False)


def test_below_a_silent_sub_meter_its_own_sub_meters_stand_in() -> None:
    (cell,) = cells_of(minutes(HALL, [["0", "0", "0", "0"], ["10", "3", None, "1"]]), HALL, planned(TREE))
    by_asset = {row.asset: row.energy_mwh for row in cell.figures}
    assert by_asset == {"hall": 6_000_000, "compressor": 3_000_000, "filling": None, "pump": 1_000_000}
    assert cell.line.energy_mwh == 10_000_000


def test_a_sub_meter_that_comes_back_takes_its_energy_out_of_the_remainder() -> None:
    rows: list[list[str | None]] = [["0", "0", "0", "0"], ["10", None, "5", "1"], ["20", "6", "10", "2"]]
    cells = cells_of(minutes(HALL, rows), HALL, planned(TREE))
    assert [row.energy_mwh for row in rows_of(cells, "main.e")] == [2_000_000, 2_000_000]
    assert [cell.line.energy_mwh for cell in cells] == [10_000_000, 10_000_000]


def test_a_silent_main_leaves_its_sub_meters_as_they_are() -> None:
    (cell,) = cells_of(minutes(HALL, [["0", "0", "0", "0"], [None, "3", "5", "1"]]), HALL, planned(TREE))
    assert {row.asset: row.energy_mwh for row in cell.figures} == {
        "hall": None,
        "compressor": 3_000_000,
        "filling": 4_000_000,
        "pump": 1_000_000,
    }


def test_a_virtual_asset_is_a_sum_and_difference_and_its_meters_count_there_alone() -> None:
    plan = '[lines.gw1.filler.virtual.process]\nplus = ["a.e", "b.e"]\nminus = ["c.e"]\n'
    schema = meters("a.e", "b.e", "c.e", "d.e")
    (cell,) = cells_of(minutes(schema, [["0"] * 4, ["5", "4", "2", "1"]]), schema, planned(plan))
    assert [(row.asset, row.kind, row.energy_mwh) for row in cell.figures] == [
        ("process", VIRTUAL, 7_000_000),
        ("d", METER, 1_000_000),
    ]
    assert cell.line.energy_mwh == 8_000_000


def test_a_virtual_asset_without_one_of_its_meters_has_no_energy() -> None:
    plan = '[lines.gw1.filler.virtual.process]\nplus = ["a.e"]\nminus = ["b.e"]\n'
    schema = meters("a.e", "b.e")
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["5", None]]), schema, planned(plan))
    assert [row.energy_mwh for row in cell.figures] == [None]


def test_a_meter_that_the_plan_does_not_name_counts_as_itself() -> None:
    columns = meters("hall.import", "hall.export", "press.e").columns
    assert [(one.asset, one.kind) for one in accounts_of(parse_plan("", name="p").line("gw1", "filler"), columns)] == [
        ("hall.import", METER),
        ("hall.export", METER),
        ("press", METER),
    ]


def test_a_plan_that_names_a_counter_that_the_line_does_not_have_is_said_and_the_rest_counts() -> None:
    schema = meters("main.e", "comp.e")
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["10", "3"]]), schema, planned(TREE))
    assert [(row.asset, row.energy_mwh) for row in cell.figures] == [("hall", 7_000_000), ("compressor", 3_000_000)]
    assert cell.line.flags == {Flag.PLAN_MISMATCH}


def test_sub_meters_of_a_main_that_is_not_there_count_as_themselves() -> None:
    schema = meters("comp.e", "fill.e")
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["3", "5"]]), schema, planned(TREE))
    assert cell.line.energy_mwh == 8_000_000


@pytest.mark.parametrize(
    ("main", "sub", "meter_class", "flagged"),
    [
        ("10", "10.5", "", True),
        ("10", "10.05", "", True),
        ("10.0", "10.1", "", False),  # one step of each register: 0.2 kWh
        ("10.00", "10.15", "1", False),  # 1 % of 10 and of 10.15, and two steps of 0.01
        ("10.00", "10.23", "1", True),
        ("10.00", "10.13", "0.5S", True),
        ("10.00", "9.00", "1", False),
    ],
)
def test_a_remainder_below_what_class_and_rounding_explain_is_flagged_and_still_exact(
    main: str, sub: str, meter_class: str, *, flagged: bool
) -> None:
    plan = (
        '[lines.gw1.filler.meters.hall]\npoint = "m.e"\n[lines.gw1.filler.meters.sub]\npoint = "s.e"\nparent = "hall"\n'
    )
    schema = line(energy("m.e", meter_class=meter_class), energy("s.e", meter_class=meter_class))
    start = ["0.00" if meter_class else "0.000"] * 2
    if not meter_class and main == "10.0":
        start = ["0.0", "0.0"]
    (cell,) = cells_of(minutes(schema, [start, [main, sub]]), schema, planned(plan))
    assert (Flag.NEGATIVE_REMAINDER in cell.line.flags) is flagged
    assert cell.line.energy_mwh == int(Decimal(main) * 1_000_000)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\nparent = "b"\n[lines.g.l.meters.b]\npoint = "n.e"\nparent = "a"\n',
            "plan: lines.g.l.meters.a.parent: got 'b', want a meter that is not below this one",
        ),
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\nparent = "a"\n',
            "plan: lines.g.l.meters.a.parent: got 'a', want a meter that is not below this one",
        ),
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\nparent = "x"\n',
            "plan: lines.g.l.meters.a.parent: got 'x', want an asset of its meters",
        ),
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\n[lines.g.l.meters.b]\npoint = "m.e"\n',
            f"plan: lines.g.l.meters.b.point: got 'm.e', which stands in meters.a.point, {ONCE}",
        ),
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\n[lines.g.l.virtual.b]\nplus = ["n.e"]\nminus = ["m.e"]\n',
            f"plan: lines.g.l.virtual.b.minus: got 'm.e', which stands in meters.a.point, {ONCE}",
        ),
        (
            '[lines.g.l.virtual.b]\nplus = ["n.e", "n.e"]\n',
            f"plan: lines.g.l.virtual.b.plus: got 'n.e', which stands in virtual.b.plus, {ONCE}",
        ),
        ("[lines.g.l.virtual.b]\nplus = []\n", "plan: lines.g.l.virtual.b.plus: got [], want at least one counter"),
        (
            '[lines.g.l.meters.a]\npoint = "m.e"\n[lines.g.l.virtual.a]\nplus = ["n.e"]\n',
            "plan: lines.g.l.virtual.a: got a name that a meter has, want one of its own",
        ),
    ],
)
def test_a_plan_by_which_a_kwh_would_count_twice_is_refused(toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(toml, name="plan")
    assert str(caught.value) == message


@st.composite
def trees(draw: st.DrawFn) -> tuple[str, LineSchema, Sequence[Sequence[str | None]], set[int]]:
    """Return a plan of a random forest, its line, its meters' readings, and the places of the roots."""
    count = draw(st.integers(1, 7))
    parents = [draw(st.one_of(st.none(), st.integers(0, n - 1))) if n else None for n in range(count)]
    plan = ""
    for place, parent in enumerate(parents):
        plan += f'[lines.gw1.filler.meters.a{place}]\npoint = "m{place}.e"\n'
        plan += "" if parent is None else f'parent = "a{parent}"\n'
    order = draw(st.permutations(range(count)))
    schema = meters(*(f"m{place}.e" for place in order))
    shown: list[list[str | None]] = [["0"] * count]
    for _ in range(draw(st.integers(1, 4))):
        last = [next(Decimal(row[n] or 0) for row in reversed(shown) if row[n] is not None) for n in range(count)]
        row = [
            None if draw(st.integers(0, 4)) == 0 else str(last[n] + draw(st.integers(0, 9_999)) / Decimal(1000))
            for n in range(count)
        ]
        shown.append(row)
    shown.append([str(max(Decimal(row[n] or 0) for row in shown)) for n in range(count)])
    roots = {order.index(place) for place, parent in enumerate(parents) if parent is None}
    return plan, schema, shown, roots


@settings(max_examples=150, deadline=None)
@given(trees())
def test_each_kwh_counts_once_and_sums_telescope_to_the_mains(
    tree: tuple[str, LineSchema, Sequence[Sequence[str | None]], set[int]],
) -> None:
    plan, schema, shown, roots = tree
    cells = cells_of(minutes(schema, shown), schema, planned(plan))
    mains = sum(int(Decimal(shown[-1][place] or 0) * 1_000_000) for place in roots)
    assert sum(cell.line.energy_mwh or 0 for cell in cells) == mains
    for cell in cells:
        assert cell.line.energy_mwh == sum(row.energy_mwh or 0 for row in cell.figures)


@given(st.permutations(POINTS))
def test_a_plan_counts_the_same_in_whatever_order_the_columns_stand(points: Sequence[str]) -> None:
    shown = {"main.e": "10", "comp.e": "3", "fill.e": "5", "pump.e": "1"}
    schema = meters(*points)
    leaves = [leaf(schema, 1, T0, ["0"] * 4), leaf(schema, 2, T0 + MINUTE, [shown[point] for point in points])]
    (cell,) = cells_of(leaves, schema, planned(TREE))
    assert {row.asset: row.energy_mwh for row in cell.figures} == {
        "hall": 2_000_000,
        "compressor": 3_000_000,
        "filling": 4_000_000,
        "pump": 1_000_000,
    }


def test_a_remainder_that_only_the_spreading_of_a_gap_made_negative_is_not_flagged() -> None:
    plan = (
        '[lines.gw1.filler.meters.hall]\npoint = "m.e"\n[lines.gw1.filler.meters.sub]\npoint = "s.e"\nparent = "hall"\n'
    )
    schema = meters("m.e", "s.e")
    cells = cells_of(minutes(schema, [["0.00", "0.00"], ["0.10", None], ["9.00", "4.00"]]), schema, planned(plan))
    assert [row.energy_mwh for row in rows_of(cells, "m.e")] == [-1_900_000, 6_900_000]
    assert all(Flag.NEGATIVE_REMAINDER not in cell.line.flags for cell in cells)
