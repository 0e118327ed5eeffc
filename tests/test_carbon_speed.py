"""What a day of figures costs: by the figure, by the size of the plant, and by what a restatement touches."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.carbon.emissions import LineProjector, figures_for, project
from gateway.carbon.energy import Flag
from gateway.carbon.figures import Figure
from gateway.codec.bodies import line_body
from gateway.model import LineSchema
from hil.bench.carbon import calculated, carbon_lines
from hil.bench.carbon_day import HOUR_NS, MINUTE_NS, START_NS, Day, restate
from tests.ledgering import SIGNERS, Hall
from tests.line_leaves import MINUTE, T0, energy, factor, facts, good, leaf, line, schemas
from tests.sealing import LINE, OTHER_LINE, interval
from tests.test_ledger import sealed

ROOT = Path(__file__).parent.parent
MOST_TIMES = 12.0
"""What a figure may cost, as a multiple of `plainly`; it is 5 (2026-11, Python 3.11)."""

Rows = Mapping[tuple[str, int, int], int]


def plainly(number: int) -> float:
    """Return the CPU seconds of what so many figures need at the least: a register, its mWh, a product, a row."""
    factor, rows, before = Decimal("400.25"), [], time.process_time()
    for n in range(number):
        said = {"start": n, "end": n + 60, "meter": f"m{n % 50}.energy"}
        mwh = int(Decimal(100_000 + n).scaleb(-2) * 1_000_000)
        rows.append((said["meter"], mwh, str(factor * mwh)))
    return time.process_time() - before


@pytest.mark.alone
def test_a_figure_costs_a_few_times_what_it_takes_to_write_it_down() -> None:
    """Both in turn, and the best of each: so it holds on a slow machine, and on one that others use."""
    day = Day(meters=50, minutes=420)
    best = best_plain = float("inf")
    for _ in range(5):
        used, sums = calculated(day)
        assert [shift for _, shift in sums] == ["2026-01-04/night", "2026-01-05/early"]
        best, best_plain = min(best, used.cpu_s), min(best_plain, plainly(day.figures))
    assert best / best_plain < MOST_TIMES


@pytest.mark.alone
def test_twice_the_meters_take_twice_the_time() -> None:
    """Where the cost grew with the square it would be four times. Both in turn, and the best of each."""
    few = many = float("inf")
    for _ in range(5):
        few = min(few, calculated(Day(meters=100, minutes=240))[0].cpu_s)
        many = min(many, calculated(Day(meters=200, minutes=240))[0].cpu_s)
    assert many / few < 2.8


@pytest.mark.alone
def test_the_benchmark_says_the_same_as_polars_and_prints_a_table() -> None:
    command = [sys.executable, "-m", "hil.bench", "--case", "carbon1000", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=True)
    found = json.loads(done.stdout)["cases"]["carbon1000"]
    assert [day["meters"] for day in found["days"]] == [250, 500, 1000]
    assert found["polars"]["most_apart"] < 1e-6
    assert found["polars"]["figures"] == found["days"][-1]["figures"] == 1000 * found["minutes"]
    assert [(one["hours"], one["cells"], one["figures"]) for one in found["restated"]] == [(1, 20 * 60, 60_000)]
    lines = "\n".join(carbon_lines("carbon1000", found))
    assert all(word in lines for word in ("1,000 meters", "polars", "restated: 1 h", "120 min of it"))


def test_a_restated_hour_makes_its_own_cells_anew_and_no_other() -> None:
    day = Day(meters=50, minutes=240)
    known = day.facts()
    before = project(day.leaves(0), schemas=day.schemas, facts=known)
    touched = restate(known, 2)
    assert touched is not None
    assert (touched.start_ns, touched.end_ns) == (START_NS + 2 * HOUR_NS, START_NS + 3 * HOUR_NS)
    again = figures_for(
        day.leaves(0, 120, 180), schemas=day.schemas, facts=known, start_ns=touched.start_ns, end_ns=touched.end_ns
    )
    after = project(day.leaves(0), schemas=day.schemas, facts=known)
    changed = {start for start in after if after[start] != before[start]}
    assert [cell.line.start_ns for cell in again] == sorted(changed)
    assert sorted(changed) == [START_NS + n * MINUTE_NS for n in range(120, 180)]
    assert all(cell == after[cell.line.start_ns] for cell in again)


def test_the_ledger_writes_just_the_rows_that_a_restated_window_touches(tmp_path: Path) -> None:
    """Three hours of two lines, a factor an hour; the second hour is restated."""
    windows = [(0, 60, "400"), (60, 120, "410"), (120, 180, "420")]
    hall = Hall(tmp_path / "hall", windows=windows)
    lines = [("schema", line_body(one)) for one in (LINE, OTHER_LINE)]
    scroll = sealed(SIGNERS["gw1"], *lines, *(interval(n, one) for n in range(181) for one in (LINE, OTHER_LINE)))
    hall.take("gw1", [scroll.message(0)])
    before = _rows(hall)
    hall.write_factors([windows[0], (60, 120, "500"), windows[2]])
    assert hall.ledger.load_factors() == 1
    after = _rows(hall)
    hall.ledger.close()
    assert set(before) == set(after)
    written = {key for key, row in after.items() if row != before[key]}
    starts = sorted({start for _, start, _ in after})
    assert len(starts) == 180
    assert written == {key for key in after if key[1] in starts[60:120]}
    assert len(written) == 2 * 60


def _rows(hall: Hall) -> Rows:
    """Return where each figure's row stands: one that is written anew stands elsewhere."""
    with hall.ledger._book.reading() as connection:
        rows = connection.execute(text("SELECT line, cell_start_ns, place, rowid FROM figures"))
        return {(name, start, place): rowid for name, start, place, rowid in rows}


METERS = tuple(
    energy(f"m{n}.energy", rated_power_w=power, meter_class="B", serial=f"S{n}")
    for n, power in enumerate((None, 10_000, 10_000, 600_000))
)
SHOWN: list[list[str | None]] = [
    ["1", "10", "0.5", "7"],
    ["1.25", "10.1", "0.5", "8"],
    ["1.5", None, "0", "9.0000005"],
    ["1.5", "10.2", "0.6", "9.5"],
    ["2", "10.3", "0.7", "0"],
    ["2.125", "10.35", None, "11"],
]


@pytest.mark.parametrize("start", [T0, T0 + MINUTE])
def test_a_meters_figure_is_the_same_alone_on_a_line_and_among_others(start: int) -> None:
    """Meters that are booked over just their cell take a short way, all but the first of a cell."""
    known = facts(factor("400.5", T0, T0 + 3 * MINUTE), factor("33.333", T0 + 3 * MINUTE, T0 + 9 * MINUTE // 2))
    together = line(*METERS, good())
    times = [start + n * MINUTE for n in range(len(SHOWN))]
    whole = _figures(together, [[*row, "1"] for row in SHOWN], times, known)
    alone = [
        _figures(line(column), [[row[place]] for row in SHOWN], times, known) for place, column in enumerate(METERS)
    ]
    assert sorted(whole, key=_order) == sorted((row for rows in alone for row in rows), key=_order)
    assert {flag for row in whole for flag in row.flags} >= {Flag.NO_FACTOR, Flag.TIME_ESTIMATED, Flag.GLITCH}


def _figures(schema: LineSchema, shown: list[list[str | None]], times: list[int], known: object) -> list[Figure]:
    leaves = [leaf(schema, 10 + n, t_ns, row) for n, (t_ns, row) in enumerate(zip(times, shown, strict=True))]
    projector = LineProjector(schemas=schemas(schema), facts=known)  # type: ignore[arg-type]
    cells = {cell.line.start_ns: cell for one in leaves for cell in projector.feed(one)}
    return [row for cell in cells.values() for row in cell.figures]


def _order(row: Figure) -> tuple[str, int]:
    return row.meter, row.start_ns
