"""How far a figure may be from the truth."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.scopes.uncertainty import combined_of_parts, combined_pct, percent_of_class, root
from gateway.model import Factor
from tests.line_leaves import CONSTANT, energy, line, minutes
from tests.plans import cells_of, planned, rows_of


@pytest.mark.parametrize(
    ("meter_class", "percent"),
    [
        ("0.5S", "0.5"),
        ("0.2S", "0.2"),
        ("1", "1"),
        ("2", "2"),
        ("1.5", "1.5"),
        ("A", "2"),
        ("B", "1"),
        ("C", "0.5"),
        ("b", "1"),
        ("class 1", "1"),
        ("Cl. 0.5S", "0.5"),
    ],
)
def test_a_class_is_a_percentage(meter_class: str, percent: str) -> None:
    assert percent_of_class(meter_class) == Decimal(percent)


@pytest.mark.parametrize("meter_class", ["", "D", "good", "0", "99", "1 or 2", "-1", "1e3"])
def test_another_class_is_not_known(meter_class: str) -> None:
    assert percent_of_class(meter_class) is None
    assert combined_pct(meter_class, Decimal(1)) is None


@pytest.mark.parametrize(
    ("meter_class", "factor_pct", "percent"),
    [("B", "0", "1.00"), ("A", "1.5", "2.50"), ("1", "5", "5.10"), ("0.5S", "10", "10.01"), ("2", "2", "2.83")],
)
def test_both_are_combined_as_the_root_of_their_squares(meter_class: str, factor_pct: str, percent: str) -> None:
    assert str(combined_pct(meter_class, Decimal(factor_pct))) == percent


def test_a_factor_without_an_uncertainty_leaves_the_whole_unknown() -> None:
    assert combined_pct("B", None) is None
    assert combined_of_parts([("B", 1), ("B", 2)], None) is None


def test_a_tie_goes_to_the_even_digit() -> None:
    assert [str(root(Fraction(value) ** 2)) for value in ("0.005", "0.015", "0.025", "1.115")] == [
        "0.00",
        "0.02",
        "0.02",
        "1.12",
    ]


@given(st.fractions(0, 10**6))
def test_the_root_is_the_nearest_hundredth(square: Fraction) -> None:
    found = Fraction(root(square))
    assert max(found - Fraction(1, 200), Fraction(0)) ** 2 <= square <= (found + Fraction(1, 200)) ** 2


def test_meters_of_a_sum_err_independently() -> None:
    assert str(combined_of_parts([("1", 100), ("1", 100)], Decimal(0))) == "0.71"


def test_a_small_remainder_of_large_meters_is_little_known() -> None:
    assert str(combined_of_parts([("1", 1000), ("1", -900)], Decimal(0))) == "13.45"
    assert combined_of_parts([("1", 1000), ("1", -1000)], Decimal(0)) is None
    assert combined_of_parts([("1", 1000), ("", -900)], Decimal(0)) is None


def with_uncertainty(percent: str) -> Factor:
    return Factor(
        key=CONSTANT.key,
        start_ns=CONSTANT.start_ns,
        end_ns=CONSTANT.end_ns,
        g_per_kwh=CONSTANT.g_per_kwh,
        state="final",
        method="constant",
        source="test",
        version=CONSTANT.version,
        uncertainty_pct=Decimal(percent),
    )


def test_a_figure_says_how_certain_it_is_where_meter_and_factor_do() -> None:
    schema = line(energy("m1.e", meter_class="B"), energy("m2.e"), energy("m3.e", meter_class="A"))
    (cell,) = cells_of(minutes(schema, [["0"] * 3, ["1"] * 3]), schema, planned("", with_uncertainty("5")))
    assert [row.uncertainty_pct for row in cell.figures] == [Decimal("5.10"), None, Decimal("5.39")]
    (cell,) = cells_of(minutes(schema, [["0"] * 3, ["1"] * 3]), schema, planned(""))
    assert [row.uncertainty_pct for row in cell.figures] == [None, None, None]


def test_a_remainder_is_as_uncertain_as_all_its_meters() -> None:
    plan = (
        '[lines.gw1.filler.meters.hall]\npoint = "m.e"\n[lines.gw1.filler.meters.sub]\npoint = "s.e"\nparent = "hall"\n'
    )
    schema = line(energy("m.e", meter_class="1"), energy("s.e", meter_class="1"))
    (cell,) = cells_of(minutes(schema, [["0", "0"], ["1000", "900"]]), schema, planned(plan, with_uncertainty("0")))
    assert str(rows_of([cell], "m.e")[0].uncertainty_pct) == "13.45"


def test_coverage_says_how_many_meters_have_energy() -> None:
    schema = line(energy("m1.e"), energy("m2.e"), energy("m3.e"))
    (cell,) = cells_of(minutes(schema, [["0"] * 3, ["1", None, "1"]]), schema, planned(""))
    assert cell.line.coverage_pct == Decimal("66.67")
