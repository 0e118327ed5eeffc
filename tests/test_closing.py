"""Shifts are closed once, and stated anew when what they rest on changes: as-closed and restated side by side."""

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.app.duties.closing import GRACE_NS, Closing
from gateway.app.duties.closing_lines import statement_of
from gateway.carbon.kpi.periods import record_of
from gateway.carbon.kpi.statements import changed, sha256_of
from gateway.codec.bodies import statement_body
from gateway.codec.ledger_leaves import to_statement
from gateway.model import ClockState, What
from gateway.store import projections as tables
from tests.shifts import HOUR, MINUTE, MONDAY, PLAN, SECOND, SIX, Shop, hours

EARLY, LATE = "2026-01-05/early", "2026-01-05/late"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "shop")
    made.plan()
    made.offer(hours(*["400"] * 24))
    made.shows()
    made.give()
    yield made
    made.hall.ledger.close()


def stated(shop: Shop, shift: str = EARLY) -> list[dict[str, Any]]:
    """Return a shift's statements: number, reason, and figures."""
    with shop.hall.ledger.book.reading() as connection:
        rows = tables.statements(connection, record=record_of("gw1", "filling", shift))
    return [{"version": row.version, "reason": row.reason, **json.loads(row.figures)} for row in rows]


def all_stated(shop: Shop) -> list[tuple[str, int]]:
    with shop.hall.ledger.book.reading() as connection:
        return sorted((json.loads(row.subject)["shift"], row.version) for row in tables.statements(connection))


def test_a_shift_is_closed_once_it_is_over_and_settled(shop: Shop) -> None:
    shop.run(31)
    assert stated(shop) == []
    shop.run(1)
    (closed,) = stated(shop)
    assert (closed["version"], closed["reason"], closed["state"]) == (1, "closed", "final")
    assert (closed["energy_kwh"], closed["co2e_kg"]) == ("480", "192")
    assert (closed["units_good"], closed["units_total"], closed["units_scrap"]) == ("640", "800", "160")
    assert closed["kg_per_unit"] == "0.3"
    assert closed["scrap_co2e_kg"] == "38.4"
    assert (closed["coverage_pct"], closed["factor_state"]) == ("100", "measured")
    assert (closed["availability"], closed["effectiveness"], closed["quality_rate"]) == ("1", "1", "0.8")
    assert closed["oee"] == "0.8"
    assert (closed["state.producing.kwh"], closed["asset.m1.kwh"], closed["asset.m2.kwh"]) == ("480", "320", "160")
    assert (closed["first_leaf"], closed["last_leaf"]) == ("2", "34")
    shop.run(4)
    assert all_stated(shop) == [(EARLY, 1)]


def test_a_subject_says_what_was_closed_and_by_which_plan_and_calculation(shop: Shop) -> None:
    shop.run(32)
    (leaf,) = shop.hall.own("statement")
    statement = to_statement(leaf.body)
    subject = dict(statement.subject)
    assert statement.record == record_of("gw1", "filling", EARLY)
    assert (subject["gateway"], subject["line"], subject["shift"]) == ("gw1", "filling", EARLY)
    assert (subject["start"], subject["end"]) == (str(SIX), str(SIX + 8 * HOUR))
    assert subject["plan_sha256"] == hashlib.sha256(PLAN.encode()).hexdigest()
    assert subject["calc_version"]


def test_what_lies_outside_of_shifts_is_closed_by_day(shop: Shop) -> None:
    shop.run(64)
    assert all_stated(shop) == [(EARLY, 1), (LATE, 1)]
    shop.run(8)  # to midnight
    assert all_stated(shop) == [("2026-01-05", 1), (EARLY, 1), (LATE, 1)]
    (rest,) = stated(shop, "2026-01-05")
    assert (rest["energy_kwh"], rest["oee"], rest["availability"]) == ("120", "", "")
    total = sum(Decimal(one["energy_kwh"]) for shift in (EARLY, LATE, "2026-01-05") for one in stated(shop, shift))
    assert total == 72 * 15


def test_a_line_without_shifts_is_closed_by_day(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", now_ns=MONDAY)
    shop.shows()
    shop.run(95)
    assert all_stated(shop) == []
    shop.run(1)
    assert all_stated(shop) == [("2026-01-05", 1)]
    (day,) = stated(shop, "2026-01-05")
    assert (day["energy_kwh"], day["co2e_kg"], day["factor_state"]) == ("1440", "", "missing")
    assert (day["kg_per_unit"], day["state.producing.kwh"]) == ("", "1440")
    shop.hall.ledger.close()


def test_a_revised_factor_restates_the_shifts_that_it_touches_and_no_other(shop: Shop) -> None:
    shop.run(64)
    before = stated(shop)[0]
    old = hours("400")[0]
    new = hours("500", state="final")[0]
    assert shop.offer([new]) == 1
    shop.look()
    closed, restated = stated(shop)
    assert closed == before, "as closed, it stays"
    assert (restated["version"], restated["co2e_kg"]) == (2, "198")
    assert "factor demo/DEMO/average/lifecycle from 2026-01-05T06:00:00Z" in restated["reason"]
    assert f"400 ({old.version[:12]}) -> 500 ({new.version[:12]}), final" in restated["reason"]
    assert restated["factors_sha256"] != closed["factors_sha256"]
    assert all_stated(shop) == [(EARLY, 1), (EARLY, 2), (LATE, 1)]
    shop.look()
    assert len(stated(shop)) == 2
    with shop.hall.ledger.book.reading() as connection:
        rows = tables.statements(connection, record=record_of("gw1", "filling", EARLY))
    assert rows[1].supersedes == sha256_of(statement_of(rows[0]))
    first, *_, last = shop.hall.own("statement")
    assert (first.prev, last.prev) == (None, rows[0].leaf_index)
    assert hashlib.sha256(statement_body(to_statement(first.body))).hexdigest() == rows[1].supersedes


def test_a_fact_that_changes_no_figure_restates_nothing(shop: Shop) -> None:
    shop.run(64)
    shop.offer(hours("9", start_ns=SIX - HOUR))
    shop.plan(PLAN + "[lines.gw1.filling.alerts]\nk = 0.7\n")
    shop.say(What.STATE, SIX + HOUR, "6")
    shop.look()
    assert all_stated(shop) == [(EARLY, 1), (LATE, 1)]


def test_late_context_restates_and_names_its_leaf(shop: Shop) -> None:
    shop.run(32)
    shop.say(What.JOB, SIX + 4 * HOUR, "J7")
    shop.look()
    assert len(stated(shop)) == 1, "a statement is not split by job: the same figures"
    shop.say(What.STATE, SIX + 7 * HOUR + 50 * MINUTE, "9", number="2")
    shop.look()
    closed, restated = stated(shop)
    assert closed["oee"] == "0.8"
    assert Decimal(restated["availability"]) < 1
    assert restated["state.down.seconds"] == "600"
    assert "context gw1/filling, leaf" in restated["reason"]


def test_a_late_leaf_restates_a_shift_that_was_closed_by_grace(shop: Shop) -> None:
    shop.run(16)
    shop.now_ns = SIX + 8 * HOUR
    shop.look()
    assert stated(shop) == [], "the gateway is away; it may come back"
    shop.now_ns += GRACE_NS + MINUTE
    shop.look()
    (closed,) = stated(shop)
    assert (closed["state"], closed["provisional_because"]) == ("provisional", "unsettled")
    assert (closed["energy_kwh"], closed["coverage_pct"], closed["oee"]) == ("240", "50", "")
    shop.now_ns = SIX + 4 * HOUR
    shop.run(20)  # the backlog, each with its own time
    shop.now_ns = SIX + 10 * HOUR
    shop.look()
    shop.now_ns += MINUTE
    shop.look()
    newest = stated(shop)[-1]
    assert (newest["state"], newest["energy_kwh"], newest["coverage_pct"]) == ("final", "480", "100")
    assert "late leaf" in newest["reason"]
    assert len(stated(shop)) == 2


def test_a_dead_meter_does_not_keep_a_shift_open_for_ever(shop: Shop) -> None:
    shop.run(28)
    for _ in range(12):
        shop.now_ns += 15 * MINUTE
        shop.shows(bad=[1])
        shop.give()
    (closed,) = stated(shop)
    assert (closed["state"], closed["provisional_because"]) == ("provisional", "unsettled")
    assert closed["energy_kwh"] == str(28 * 15), "after the meter died the other one showed no growth"
    shop.run(1)
    assert [one["state"] for one in stated(shop)] == ["provisional", "final"]
    assert "late leaf" in stated(shop)[1]["reason"]
    assert Decimal(stated(shop)[1]["asset.m2.kwh"]) > Decimal(closed["asset.m2.kwh"]), "spread over the gap"


def test_a_shift_with_a_suspect_clock_never_closes_as_final(shop: Shop) -> None:
    for quarter in shop.quarters(32):
        if quarter == 5:
            shop.shows(clock=ClockState.SUSPECT)
    (closed,) = stated(shop)
    assert (closed["state"], closed["provisional_because"]) == ("provisional", "clock_suspect")
    assert "clock_suspect" in closed["flags"]


def test_a_new_plan_states_the_shifts_that_it_makes_and_empties_those_that_it_takes_away(shop: Shop) -> None:
    shop.run(64)
    shop.plan(PLAN.replace("shifts.early", "shifts.dawn"))
    shop.look()
    shop.now_ns += MINUTE
    shop.look()
    assert all_stated(shop) == [("2026-01-05/dawn", 1), (EARLY, 1), (EARLY, 2), (LATE, 1)]
    assert stated(shop)[1]["cells"] == "0"
    assert "document plan, leaf" in stated(shop)[1]["reason"]
    assert stated(shop, "2026-01-05/dawn")[0]["energy_kwh"] == "480"


def test_statements_survive_a_restart_and_a_rebuild_makes_the_same_tables(shop: Shop) -> None:
    shop.run(33)
    shop.offer(hours("410"))
    shop.look()
    before, said = shop.hall.dump(), all_stated(shop)
    assert said == [(EARLY, 1), (EARLY, 2)]
    shop.hall.restart()
    shop.look()
    assert all_stated(shop) == said
    assert [line for line in shop.hall.dump() if '"ledger.started"' not in line and not line.startswith('["",')] == [
        line for line in before if '"ledger.started"' not in line and not line.startswith('["",')
    ]
    dumped = shop.hall.dump()
    assert shop.hall.dump_rebuilt() == dumped
    shop.look()
    assert all_stated(shop) == said
    shop.run(31)
    assert all_stated(shop) == [*said, (LATE, 1)]


def test_a_fact_that_came_just_before_a_crash_is_not_forgotten(shop: Shop) -> None:
    """The factor is sealed and the ledger dies before its duties look."""
    shop.run(40)
    shop.offer(hours("450"))
    shop.hall.restart()
    assert all_stated(shop) == [(EARLY, 1)]
    shop.look()
    assert all_stated(shop) == [(EARLY, 1), (EARLY, 2)]
    assert "-> 450" in stated(shop)[1]["reason"]


def test_nothing_is_computed_while_nothing_is_due(shop: Shop) -> None:
    """A beat reads no cells where no shift has ended and no fact has come."""
    shop.run(40)
    asked: list[str] = []

    class Counting:
        """The ledger as a desk, that counts."""

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(shop.hall.ledger, name)

    closing = Closing(Counting(), structlog.get_logger())
    closing.look(shop.now_ns)
    assert "book" in asked
    asked.clear()
    for second in range(5):
        closing.look(shop.now_ns + second * SECOND)
    assert set(asked) == {"touched"}


def test_two_versions_of_one_record_say_what_changed() -> None:
    assert changed({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == {"a": ("1", ""), "b": ("2", "3"), "c": ("", "4")}


def test_a_record_is_of_one_line_and_one_shift() -> None:
    records = {record_of(*of) for of in (("gw1", "a", EARLY), ("gw1", "a", LATE), ("gw1", "b", EARLY), ("g", "a", "x"))}
    assert len(records) == 4
