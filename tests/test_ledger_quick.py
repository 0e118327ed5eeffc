"""What the ledger's loop reads and writes: nothing when nothing is due, and no more than a window when something is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from gateway.store import projections as tables
from tests.ledgering import Hall
from tests.line_leaves import factor
from tests.shifts import HOUR, MINUTE, MONDAY, SECOND, SIX, Shop, hours


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "shop")
    made.plan()
    yield made
    made.hall.ledger.close()


@contextmanager
def executed(hall: Hall) -> Iterator[list[str]]:
    """Give the statements that are executed meanwhile, BEGIN among them; one of many rows is one."""
    seen: list[str] = []

    def note(*about: object) -> None:
        seen.append(str(about[2]))

    engine = hall.ledger._book._engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def ends(hall: Hall) -> dict[tuple[str, str], int | None]:
    """Return where each line's newest cell ends, as the tables say."""
    with hall.ledger.book.reading() as connection:
        return {name: tables.newest_cell_end(connection, *name) for name in tables.lines(connection)}


def test_the_duties_read_nothing_while_nothing_is_new(shop: Shop) -> None:
    shop.run(8)
    for _ in range(10):
        shop.now_ns += 7 * SECOND
        shop.look()
    duties = {duty.name: duty for duty in shop.hall.ledger.duties}
    with executed(shop.hall) as statements:
        for second in range(1, 120):
            duties["alerting"].look(shop.now_ns + second * SECOND)
    assert len(statements) <= 2 * 4, "BEGIN, and which lines there are, each 30 s"
    with executed(shop.hall) as statements:
        for second in range(1, 8):
            for name in ("closing", "documents", "tables"):
                duties[name].look(shop.now_ns + second * SECOND)
    assert len(statements) <= 2, "which lines there are, each 10 s"


def test_where_a_line_ends_is_known_without_the_tables_also_after_a_restart(shop: Shop) -> None:
    assert not shop.hall.ledger.ends
    shop.run(3)
    assert shop.hall.ledger.ends == ends(shop.hall) == {("gw1", "filling"): shop.now_ns}
    shop.hall.restart()
    assert shop.hall.ledger.ends == ends(shop.hall)
    shop.run(1)
    assert shop.hall.ledger.ends == ends(shop.hall) == {("gw1", "filling"): shop.now_ns}


def test_a_hundred_factors_are_written_with_as_many_statements_as_one(shop: Shop) -> None:
    shop.run(4)
    counts = []
    for first, number in ((0, 1), (1, 1), (2, 100)):
        with executed(shop.hall) as statements:
            assert shop.offer(hours(*["400"] * number, start_ns=SIX + (10 + first) * HOUR)) == number
        counts.append(len(statements))
    assert counts[0] == counts[1] == counts[2]
    assert shop.hall.dump() == shop.hall.dump_rebuilt()


def test_a_factor_of_the_newest_hour_reads_no_leaf_of_before_it(shop: Shop) -> None:
    shop.run(40)
    read: list[int] = []

    def note(*about: object) -> None:
        statement, given = str(about[2]), about[3]
        if statement.startswith("SELECT") and "intervals.schema_id" in statement and isinstance(given, tuple):
            _, _, first, last = given
            read.append(last - first + 1)

    engine = shop.hall.ledger._book._engine
    event.listen(engine, "before_cursor_execute", note)
    shop.offer([factor("321", shop.now_ns - HOUR, shop.now_ns)])
    event.remove(engine, "before_cursor_execute", note)
    assert read == [5], "one at its start, and four quarters of an hour"
    assert shop.hall.dump() == shop.hall.dump_rebuilt()


def test_a_factor_while_a_meter_is_dead_reads_no_leaf_at_all(shop: Shop) -> None:
    """All cells since the meter died are still open: what they rest on is in memory."""
    shop.run(6)
    for quarter in range(20):
        shop.now_ns += 15 * MINUTE
        shop.shows(bad=[1])
        shop.give()
        if quarter % 4 == 3:
            with executed(shop.hall) as statements:
                assert shop.offer([factor(f"{300 + quarter}", shop.now_ns - HOUR, shop.now_ns)]) == 1
            assert not [one for one in statements if one.startswith("SELECT") and "intervals.schema_id" in one]
    with shop.hall.ledger.book.reading() as connection:
        newest = tables.latest(connection, known=True)
        found = list(tables.figures(connection, tables.Slice(start_ns=shop.now_ns - HOUR)))
    assert newest[0].end_ns == shop.now_ns
    assert {f"{figure.factor_g_per_kwh}" for figure in found if figure.energy_mwh is not None} == {"319"}
    assert shop.hall.dump() == shop.hall.dump_rebuilt()
    shop.run(1)
    assert shop.hall.dump() == shop.hall.dump_rebuilt()


def test_a_plan_from_now_on_leaves_what_was_before(shop: Shop) -> None:
    shop.offer(hours(*["400"] * 24, start_ns=MONDAY))
    shop.run(30)
    before = rowids(shop.hall)
    shop.plan("", from_ns=shop.now_ns - MINUTE)
    after = rowids(shop.hall)
    last = max(before)
    assert {start: row for start, row in after.items() if start < last} == {
        start: row for start, row in before.items() if start < last
    }
    assert shop.hall.dump() == shop.hall.dump_rebuilt()


def rowids(hall: Hall) -> dict[int, int]:
    """Return where each cell's row stands: one that is written anew may stand elsewhere."""
    with hall.ledger.book.reading() as connection:
        rows = connection.exec_driver_sql("SELECT start_ns, rowid FROM line_figures")
        return {row.start_ns: row.rowid for row in rows}
