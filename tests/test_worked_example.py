"""docs/figure.md, step by step: whoever reads it can trust each number."""

from decimal import Decimal
from pathlib import Path

import pytest

from gateway.carbon.emissions import IntervalLeaf, project
from gateway.carbon.energy import Flag, LeafRef
from gateway.carbon.figures import Cell, Totals
from gateway.model import (
    Clock,
    ClockState,
    ContextColumn,
    Interval,
    LineColumn,
    LineSchema,
    Role,
    Sample,
    Told,
    What,
)
from tests.line_leaves import factor, facts

NS = 10**9
NINE_NS = 1_767_258_000 * NS  # 2026-01-01T09:00:00Z
MINUTE = 60 * NS
PAGE = (Path(__file__).parent.parent / "docs" / "figure.md").read_text(encoding="utf-8")

LINE = LineSchema(
    name="filling",
    site="works",
    zone="DE",
    period_s=60,
    columns=(
        LineColumn(
            point="m1.energy",
            unit="Wh",
            role=Role.ENERGY,
            modulus=Decimal(2**32),
            rated_power_w=30_000,
            meter_class="B",
        ),
        LineColumn(point="plc.good", unit="1", role=Role.COUNT_GOOD),
    ),
    context=(ContextColumn(point="plc.job", what=What.JOB),),
)


def leaf(index: int, t_ns: int, register: int, units: int, *job: Told) -> IntervalLeaf:
    samples = tuple(
        Sample(point=column.point, source_time_ns=t_ns, raw=b"\0", value=Decimal(value))
        for column, value in zip(LINE.columns, (register, units), strict=True)
    )
    clock = Clock(t_ns=t_ns + NS, state=ClockState.SYNCHRONISED, offset_ns=0)
    return IntervalLeaf(
        gateway="gw1",
        ref=LeafRef(index=index, hash=bytes(32), clock=clock),
        interval=Interval(schema_id=LINE.id, t_ns=t_ns, samples=samples, context=(job,)),
    )


@pytest.fixture(name="cells", scope="module")
def cells_of_the_page() -> list[Cell]:
    began = Told(NINE_NS - 60 * MINUTE, "4711")
    leaves = [
        leaf(10, NINE_NS - 7 * MINUTE, 4_294_967_000, 1_200, began),
        leaf(11, NINE_NS + 8 * MINUTE, 5_704, 1_260, began, Told(NINE_NS + 3 * MINUTE, "4712")),
        leaf(12, NINE_NS + 9 * MINUTE, 6_104, 1_264, Told(NINE_NS + 3 * MINUTE, "4712")),
    ]
    hour = 60 * MINUTE
    known = facts(factor("583", NINE_NS - hour, NINE_NS, zone="DE"), factor("541", NINE_NS, NINE_NS + hour, zone="DE"))
    return list(project(leaves, schemas={LINE.id: LINE}, facts=known).values())


def said(*numbers: str) -> None:
    """Hold the page to its numbers."""
    for number in numbers:
        assert number in PAGE


def test_a_register_that_wrapped_books_what_the_load_could_draw(cells: list[Cell]) -> None:
    gap = [cell for cell in cells if cell.line.start_ns < NINE_NS + 8 * MINUTE]
    assert sum(cell.line.energy_mwh or 0 for cell in gap) == 6_000_000
    assert all(Flag.ROLLOVER in cell.line.flags and Flag.TIME_ESTIMATED in cell.line.flags for cell in gap)
    assert {cell.line.energy_mwh for cell in gap} == {400_000}
    said("6 kWh, flag `rollover`", "0.4 kWh a minute")


def test_the_parts_before_and_after_nine_sum_exactly(cells: list[Cell]) -> None:
    before = [row for cell in cells for row in cell.figures if row.end_ns <= NINE_NS]
    after = [row for cell in cells for row in cell.figures if NINE_NS <= row.start_ns < NINE_NS + 8 * MINUTE]
    assert sum(row.energy_mwh or 0 for row in before) == 2_800_000
    assert sum(row.energy_mwh or 0 for row in after) == 3_200_000
    assert sum((row.co2e_g or Decimal(0)) for row in (*before, *after)) == Decimal("3363.6")
    said("2.8 x 583 + 3.2 x 541 = 3,363.6 g")


def test_each_job_has_its_energy_its_units_and_its_co2e(cells: list[Cell]) -> None:
    old = Totals.of(cell for cell in cells if cell.line.setting.job == "4711")
    assert (old.energy_mwh, old.units_good, old.co2e_g) == (4_000_000, Decimal(40), Decimal("2281.6"))
    assert old.kg_per_unit == Decimal("0.057040")
    new = Totals.of(cell for cell in cells if cell.line.setting.job == "4712")
    assert new.energy_mwh + old.energy_mwh == 6_400_000
    assert new.units_good + old.units_good == 64
    said("2,281.6 g for 40 units: 0.05704 kg", "40 until the changeover")


def test_the_last_minute_is_measured(cells: list[Cell]) -> None:
    last = cells[-1]
    assert last.figures[0].quality == "measured"
    assert (last.line.energy_mwh, last.line.units_good, last.line.co2e_g) == (400_000, Decimal(4), Decimal("216.4"))
    said("400 Wh, 4 units, 216.4 g")
