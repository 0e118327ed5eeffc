"""The ledger's tables: the same rows however often they are written, exact numbers, and a build that repeats."""

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.carbon.emissions import IntervalLeaf, LineProjector, project
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Totals
from gateway.errors import ConfigError
from gateway.model import LineSchema
from gateway.store import projections as book
from gateway.store.projections import Connection, EventRow, GatewayState, IntervalRow, Projections, Slice
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
