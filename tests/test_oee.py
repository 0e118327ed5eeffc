"""OEE as ISO 22400 has it; null where a part is not known, never guessed."""

from decimal import Decimal
from fractions import Fraction

import pytest

from gateway.carbon.figures import LineFigure
from gateway.carbon.kpi.oee import Oee, oee_of
from gateway.carbon.setting import Setting
from tests.line_leaves import MINUTE, T0

HOUR = 60 * MINUTE
SHIFT = [(T0, T0 + 8 * HOUR)]


def cell(
    start_h: float, end_h: float, state: str, good: str | None = "0", total: str | None = "0", *, product: str = ""
) -> LineFigure:
    return LineFigure(
        gateway="gw1",
        line="filler",
        site="works",
        start_ns=T0 + int(start_h * HOUR),
        end_ns=T0 + int(end_h * HOUR),
        energy_mwh=1,
        meters=1,
        meters_booked=1,
        co2e_g=Decimal(1),
        units_good=None if good is None else Decimal(good),
        units_total=None if total is None else Decimal(total),
        flags=frozenset(),
        leaf_index=1,
        setting=Setting(state=state, product=product),
    )


def shown(found: Oee) -> tuple[str | None, ...]:
    parts = (found.availability, found.effectiveness, found.quality, found.oee)
    return tuple(None if part is None else format(part.normalize(), "f") for part in parts)


def test_a_shift_by_the_book() -> None:
    """PBT 8 h, APT 6 h, 100 units/h ideal: 480 of 600 made, 456 good."""
    cells = [cell(0, 6, "producing", "456", "480"), cell(6, 7, "down"), cell(7, 8, "setup")]
    found = oee_of(cells, planned=SHIFT, ideal_per_hour=100)
    assert shown(found) == ("0.75", "0.8", "0.95", "0.57")


def test_the_product_is_of_the_exact_parts_and_rounded_once() -> None:
    found = Oee(
        planned_ns=3,
        producing_ns=1,
        units_total=Decimal(3),
        units_good=Decimal(2),
        ideal_ns=Fraction(3),
    )
    assert (found.availability, found.effectiveness, found.quality) == (
        Decimal("0.333333"),
        Decimal("3.000000"),
        Decimal("0.666667"),
    )
    assert found.oee == Decimal("0.666667"), "2/3, not 0.333333 x 3 x 0.666667"


def test_time_of_unknown_state_makes_availability_unknown() -> None:
    cells = [cell(0, 6, "producing", "4", "5"), cell(6, 8, "")]
    assert shown(oee_of(cells, planned=SHIFT, ideal_per_hour=100)) == (None, None, "0.8", None)


def test_time_without_a_cell_makes_availability_unknown() -> None:
    cells = [cell(0, 6, "producing", "4", "5")]
    assert oee_of(cells, planned=SHIFT, ideal_per_hour=100).availability is None


def test_what_is_outside_of_the_shift_does_not_count() -> None:
    cells = [cell(-1, 0, "producing", "50", "50"), cell(0, 8, "producing", "800", "800"), cell(8, 9, "")]
    assert shown(oee_of(cells, planned=SHIFT, ideal_per_hour=100)) == ("1", "1", "1", "1")


@pytest.mark.parametrize(
    ("good", "total", "ideal", "expected"),
    [
        ("80", None, 100, ("1", None, None, None)),
        (None, "80", 100, ("1", "0.1", None, None)),
        ("80", "80", None, ("1", None, "1", None)),
        ("0", "0", 100, ("1", "0", None, None)),
    ],
    ids=["no count of all", "no count of the good", "no ideal rate", "nothing made"],
)
def test_what_is_not_known_is_null(
    good: str | None, total: str | None, ideal: float | None, expected: tuple[str | None, ...]
) -> None:
    cells = [cell(0, 8, "producing", good, total)]
    assert shown(oee_of(cells, planned=SHIFT, ideal_per_hour=ideal)) == expected


def test_one_cell_without_a_count_makes_the_count_unknown() -> None:
    cells = [cell(0, 4, "producing", "40", "40"), cell(4, 8, "producing", "40", None)]
    assert oee_of(cells, planned=SHIFT, ideal_per_hour=100).effectiveness is None


def test_a_line_that_did_not_run_has_availability_0_and_no_effectiveness() -> None:
    assert shown(oee_of([cell(0, 8, "down")], planned=SHIFT, ideal_per_hour=100)) == ("0", None, None, None)


def test_without_a_calendar_nothing_is_known() -> None:
    assert shown(oee_of([cell(0, 8, "producing", "1", "1")], planned=[], ideal_per_hour=100)) == (None,) * 4


def test_the_ideal_rate_is_the_decimal_that_the_plan_writes() -> None:
    found = oee_of([cell(0, 8, "producing", "1", "1")], planned=SHIFT, ideal_per_hour=0.1)
    assert found.ideal_ns == 10 * HOUR


def test_each_product_has_its_own_ideal_rate() -> None:
    """ISO 22400 sums planned times: 400 at 100 an hour and 200 at 50 take 8 of the 8 hours."""
    cells = [cell(0, 3, "producing", "400", "400", product="A"), cell(3, 8, "producing", "200", "200", product="B")]
    for ideal, effectiveness in (
        ({"A": 100, "B": 50}, "1"),
        ({"A": 100, "*": 50}, "1"),
        ({"A": 100}, None),
        ({}, None),
        (100, "0.75"),
    ):
        assert shown(oee_of(cells, planned=SHIFT, ideal_per_hour=ideal))[1] == effectiveness
    idle = [cell(0, 8, "producing", "400", "400", product="A"), cell(0, 0, "idle", "0", "0", product="B")]
    assert shown(oee_of(idle, planned=SHIFT, ideal_per_hour={"A": 100}))[1] == "0.5", "nothing made of B"
