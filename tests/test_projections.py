"""The ledger's tables: the same rows however often they are written, exact numbers, and a build that repeats."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.carbon.emissions import IntervalLeaf, LineProjector, project
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Totals
from gateway.carbon.scopes.loads import HOUR_NS, loads_of
from gateway.errors import ConfigError
from gateway.model import LineSchema
from gateway.store import projections as book
from gateway.store.projections import Connection, EventRow, GatewayState, IntervalRow, Projections, Slice
from gateway.store.projections.loads import remake_loads
from gateway.store.projections.tables import METADATA
from tests.line_leaves import CONSTANT, MINUTE, T0, energy, factor, facts, good, leaf, line, minutes, schemas

FILLER = line(
    energy("m1.energy", rated_power_w=60_000, modulus=Decimal("4294967.2960"), serial="A", meter_class="B"),
    energy("m2.energy"),
    good(modulus=Decimal(65_536)),
)
SHOWN: list[list[str | None]] = [
    ["1", "1", "0"],
    ["1.1", None, "5"],
    ["1.2", None, "10"],
    ["1.3", "1.0000019073486328125", "15"],
    ["1.4", "2", None],
]
LEAVES = minutes(FILLER, SHOWN)
FACTORS = (CONSTANT, factor("195.03700802971", 0, 2**62, zone="CAMX", signal="marginal"))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Projections]:
    made = Projections(tmp_path / "p.sqlite")
    yield made
    made.close()


def fill(connection: Connection, leaves: list[IntervalLeaf], schema: LineSchema = FILLER) -> None:
    """Write what a ledger writes for these leaves."""
    made = facts(*FACTORS)
    projector, prev = LineProjector(schemas=schemas(schema), facts=made), None
    for one in leaves:
        book.put_cells(connection, projector.feed(one))
        row = IntervalRow.of(one, line=schema.name, prev=prev, clean=projector.clean)
        book.put_intervals(connection, [row])
        prev = one.ref.index
    book.put_schema(connection, "gw1", 3, schema)
    book.put_factors(connection, [found for zone in ("DEMO",) if (found := made.factors.at(zone, T0))])
    book.put_gateway(connection, GatewayState(gateway="gw1", size=51, receipt="a note\n"))
    book.put_events(
        connection, [EventRow.of("gw1", 7, {"what": "device.down", "t": T0, "about": {"b": 1, "a": b"\1"}})]
    )


def lines_of(db: Projections) -> list[str]:
    with db.reading() as connection:
        return list(book.dump(connection))


def test_cells_come_back_as_they_were_written(db: Projections) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
    with db.reading() as connection:
        found = list(book.cells(connection, Slice()))
        rows = list(book.figures(connection, Slice()))
    expected = list(project(LEAVES, schemas=schemas(FILLER), facts=facts(*FACTORS)).values())
    assert found == expected
    assert rows == [row for cell in expected for row in cell.figures]


def test_what_is_written_twice_is_there_once(db: Projections) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
    once = lines_of(db)
    with db.writing() as connection:
        fill(connection, LEAVES)
    assert lines_of(db) == once


def test_a_rebuild_gives_the_same_dump_byte_for_byte_whatever_the_batches(db: Projections, tmp_path: Path) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
    other = Projections(tmp_path / "other.sqlite")
    for upto in range(1, len(LEAVES) + 1):
        with other.writing() as connection:
            fill(connection, LEAVES[:upto])
    assert lines_of(other) == lines_of(db)
    with other.writing() as connection:
        book.reset(connection)
        assert len(list(book.dump(connection))) == len(METADATA.tables) - 1 + 2  # all but cycles
        fill(connection, LEAVES)
    assert lines_of(other) == lines_of(db)
    other.close()


def test_a_dump_shows_a_changed_digit(db: Projections) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
    before = lines_of(db)
    with db.writing() as connection:
        connection.exec_driver_sql("UPDATE figures SET energy_mwh = energy_mwh + 1 WHERE place = 0 AND line = 'filler'")
    assert lines_of(db) != before


def test_a_cell_that_is_given_anew_replaces_all_its_rows(db: Projections) -> None:
    """A factor window that cut a cell in two is gone: so is the second row."""

    def cells(known: Facts) -> list[Cell]:
        return list(project(LEAVES, schemas=schemas(FILLER), facts=known).values())

    cut = facts(factor("1", 0, T0 + MINUTE // 2), factor("2", T0 + MINUTE // 2, 2**62))
    with db.writing() as connection:
        book.put_cells(connection, cells(cut))
        assert len(list(book.figures(connection, Slice(end_ns=T0 + 1)))) == 4
        book.put_cells(connection, cells(facts(CONSTANT)))
        assert len(list(book.figures(connection, Slice(end_ns=T0 + 1)))) == 2


def test_numbers_are_kept_exactly(db: Projections) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
        (row,) = connection.exec_driver_sql(
            "SELECT typeof(energy_mwh), energy_mwh, register_end, co2e_g, typeof(co2e_g) FROM figures "
            "WHERE meter = 'm2.energy' AND cell_start_ns = ?",
            (T0 + 2 * MINUTE,),
        )
        held = book.factors(connection)
    assert tuple(row) == ("integer", 1, "1.0000019073486328125", "0.0004", "text")
    assert held[0].factor == CONSTANT


def test_a_transaction_that_fails_leaves_nothing(db: Projections) -> None:
    def fail() -> None:
        with db.writing() as connection:
            fill(connection, LEAVES)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with db.reading() as connection:
        assert book.gateways(connection) == []


def test_a_reader_sees_one_state_while_the_ledger_writes(db: Projections, tmp_path: Path) -> None:
    reader = Projections(tmp_path / "p.sqlite")
    with reader.reading() as reading:
        assert book.gateways(reading) == []
        with db.writing() as connection:
            fill(connection, LEAVES)
        assert list(book.cells(reading, Slice())) == []
    with reader.reading() as reading:
        assert book.gateways(reading) == [GatewayState(gateway="gw1", size=51, receipt="a note\n")]
    reader.close()


def test_tables_of_another_version_are_made_anew(tmp_path: Path) -> None:
    made = Projections(tmp_path / "p.sqlite")
    assert made.fresh
    with made.writing() as connection:
        fill(connection, LEAVES)
    made.close()
    same = Projections(tmp_path / "p.sqlite")
    assert not same.fresh
    with same.writing() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '0' WHERE key = 'projection_version'")
        connection.exec_driver_sql('CREATE TABLE "an old one" (x)')
    same.close()
    other = Projections(tmp_path / "p.sqlite")
    assert other.fresh
    assert not any("an old one" in found or "filler" in found for found in lines_of(other))
    other.close()


def test_a_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "p.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(ConfigError, match="delete it to have it rebuilt"):
        Projections(tmp_path / "p.sqlite")


def test_an_empty_sqlite_file_is_filled(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "p.sqlite").close()
    made = Projections(tmp_path / "p.sqlite")
    assert made.fresh
    made.close()


def test_queries_answer_by_period_line_and_gateway(db: Projections) -> None:
    other = line(energy("m9.energy"), name="other")
    with db.writing() as connection:
        fill(connection, LEAVES)
        fill(connection, [leaf(other, 100 + n, T0 + n * MINUTE, [str(n)]) for n in range(3)], other)
    with db.reading() as connection:
        assert book.lines(connection) == [("gw1", "filler"), ("gw1", "other")]
        starts = [cell.start_ns for cell in book.line_figures(connection, Slice(line="filler", end_ns=T0 + 2 * MINUTE))]
        assert starts == [T0, T0 + MINUTE]
        later = book.cells(connection, Slice(gateway="gw1", start_ns=T0 + MINUTE))
        assert [(cell.line.line, len(cell.figures)) for cell in later] == [("filler", 2)] * 3 + [("other", 1)]
        assert not list(book.cells(connection, Slice(gateway="gw2")))
        assert book.totals(connection, Slice(line="other")).energy_mwh == 2_000_000
        assert book.totals(connection, Slice()) == Totals.of(book.cells(connection, Slice()))
        assert [(one.line, one.start_ns) for one in book.latest(connection)] == [
            ("filler", T0 + 3 * MINUTE),
            ("other", T0 + MINUTE),
        ]
        assert [one.line for one in book.latest(connection, known=True)] == ["filler", "other"]
        (event,) = book.events(connection, most=5)
        assert (event.what, event.about) == ("device.down", '{"a":"01","b":1}')
        assert book.events(connection, most=5, log="") == []


def test_schemas_come_back_with_their_identifier(db: Projections) -> None:
    with db.writing() as connection:
        fill(connection, LEAVES)
        assert book.schemas(connection, "gw1") == [(3, FILLER)]
        assert book.schemas(connection, "gw1")[0][1].id == FILLER.id


def test_the_leaves_that_a_period_rests_on_run_from_clean_to_clean(db: Projections) -> None:
    """m2 is silent at 20 and 30, so a period within needs the leaves 10 to 40; the count is BAD at 50, the newest."""
    with db.writing() as connection:
        fill(connection, LEAVES)
        assert [row.clean for row in book.intervals(connection, "gw1", "filler")] == [True, False, False, True, False]
        ranges = [
            book.settled_range(connection, "gw1", "filler", start_ns=T0 + a * MINUTE, end_ns=T0 + b * MINUTE)
            for a, b in [(0, 1), (1, 2), (2, 3), (3, 4), (-5, 9), (9, 10)]
        ]
        assert ranges == [(10, 40), (10, 40), (10, 40), (40, 50), (10, 50), (40, 50)]
        assert book.settled_range(connection, "gw1", "none", start_ns=0, end_ns=1) is None
        assert [row.leaf_index for row in book.intervals(connection, "gw1", "filler", first=20, last=40)] == [
            20,
            30,
            40,
        ]


# --- the sums by the hour ---

Drawn = tuple[int, int, int, str]
"""A meter's figure in a cell: from and to, in parts of 60 of it; milliwatt-hours; what it is."""
WHATS: dict[str, dict[str, Any]] = {
    "meter": {},
    "other factor": {"factor_g_per_kwh": Decimal("41.50")},
    "no factor": {"factor_g_per_kwh": None},
    "other zone": {"zone": "ELSE"},
    "remainder": {"kind": "remainder"},
    "modelled": {"kind": "modelled"},
    "fuel": {"scope": "1"},
    "missing": {"energy_mwh": None},
}
drawn = st.tuples(
    st.integers(0, 30), st.integers(31, 60), st.integers(-(10**12), 10**12), st.sampled_from(sorted(WHATS))
)
cell_starts = st.integers(0, 29).map(lambda place: T0 + place * 10 * MINUTE)
cell_lengths = st.sampled_from([MINUTE, 10 * MINUTE, 55 * MINUTE, 121 * MINUTE])
puts = st.lists(st.tuples(cell_starts, cell_lengths, st.lists(drawn, max_size=3)), min_size=1, max_size=8)
windows = st.tuples(st.integers(0, 300), st.integers(1, 300)).map(
    lambda one: (T0 + one[0] * MINUTE, T0 + sum(one) * MINUTE)
)


def drawn_cell(like: Cell, line: str, start_ns: int, length_ns: int, parts: list[Drawn]) -> Cell:
    figures = tuple(
        like.figures[0]._replace(
            **{
                "line": line,
                "cell_start_ns": start_ns,
                "start_ns": start_ns + length_ns * first // 60,
                "end_ns": start_ns + length_ns * last // 60,
                "energy_mwh": mwh,
                **WHATS[what],
            }
        )
        for first, last, mwh, what in parts
    )
    own = replace(like.line, line=line, start_ns=start_ns, end_ns=start_ns + length_ns)
    return Cell(line=own, figures=figures)


def agree(connection: Connection, line: str, start_ns: int, end_ns: int) -> bool:
    """Return whether the loads of a line's cells of a span are those that its figures come to."""
    figures = [one for one in book.figures(connection, Slice(line=line)) if start_ns <= one.cell_start_ns < end_ns]
    parts = book.line_loads(connection, "gw1", line, start_ns=start_ns, end_ns=end_ns)
    return len(dict(parts)) == len(parts) and dict(parts) == {one.key: one.load_mwh for one in loads_of(figures)}


def hourly(connection: Connection) -> list[Any]:
    return list(connection.exec_driver_sql("SELECT * FROM hourly_loads ORDER BY 1, 2, 3, 4, 5, 6, 7"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    steps=st.lists(st.one_of(puts, windows), max_size=8),
    asked=st.lists(windows, max_size=4),
)
def test_the_sums_by_the_hour_are_those_of_the_figures_whatever_was_written(
    db: Projections, steps: list[Any], asked: list[tuple[int, int]]
) -> None:
    """A list is put; a window is deleted, and then half of what was put last is given anew: a restatement."""
    like = next(iter(project(LEAVES, schemas=schemas(FILLER), facts=facts(CONSTANT)).values()))
    names = ("filler", "other")
    with db.writing() as connection:
        given: list[Cell] = []
        for step in steps:
            if isinstance(step, tuple):
                book.delete_cells(connection, "gw1", "filler", *step)
                book.put_cells(connection, given[::2])
            else:
                given = [drawn_cell(like, line, *one) for one in step for line in names]
                book.put_cells(connection, given)
            assert all(agree(connection, line, 0, 2**63 - 1) for line in names)
        assert all(agree(connection, "filler", *span) for span in asked)
        kept, held = hourly(connection), list(book.cells(connection, Slice()))
        assert {row[2] for row in kept} <= {one.line.start_ns // HOUR_NS * HOUR_NS for one in held}
        remake_loads(connection, [(row[0], row[1], row[2]) for row in kept])
        assert hourly(connection) == kept
        for line in names:
            book.delete_cells(connection, "gw1", line, 0, 2**63 - 1)
        assert hourly(connection) == []
        book.put_cells(connection, held)  # at once, as in a rebuild
        assert hourly(connection) == kept
        for line in names:
            book.delete_cells(connection, "gw1", line, 0, 2**63 - 1)


def test_a_put_reads_no_figures_again_unless_it_replaces_several_cells(db: Projections) -> None:
    """A sum that is wrong stays so where cells are added, or one is replaced; where several are, it is right again."""
    cells = list(project(LEAVES, schemas=schemas(FILLER), facts=facts(CONSTANT)).values())
    with db.writing() as connection:
        book.put_cells(connection, cells[:2])
        right = hourly(connection)
        connection.exec_driver_sql("UPDATE hourly_loads SET energy_mwh = energy_mwh + 5")
        book.put_cells(connection, cells[2:])
        assert not agree(connection, "filler", 0, 2**63 - 1)
        book.put_cells(connection, cells[1:2])
        assert not agree(connection, "filler", 0, 2**63 - 1)
        book.put_cells(connection, cells[:3])
        assert agree(connection, "filler", 0, 2**63 - 1)
        assert len(hourly(connection)) == len(right) == 1
