"""`wattseal explain`, `report` and `statements`: a figure's whole derivation, computed again from the leaves."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.app.explaining import explain_record
from gateway.app.load import load_ledger
from gateway.carbon.audit.explain import MEANINGS
from gateway.carbon.audit.rows import record_id
from gateway.carbon.energy import Flag
from gateway.carbon.kpi.periods import record_of
from gateway.cli import run
from gateway.config import LedgerConfig
from gateway.errors import ConfigError
from gateway.store import projections as tables
from gateway.store.projections import Projections, Slice
from gateway.tlog.merkle import leaf_hash
from tests.shifts import HOUR, MINUTE, PLAN, SIX, Shop, hours

EARLY, LATE = "2026-01-05/early", "2026-01-05/late"
TREE = """
[lines.gw1.filling.meters.main]
point = "m1.energy"
[lines.gw1.filling.meters.comp]
point = "m2.energy"
parent = "main"
"""


@dataclass(frozen=True)
class Site:
    """A ledger's folder after it was stopped. leaves: of its gateway's log."""

    folder: Path
    leaves: Sequence[bytes]

    @property
    def toml(self) -> str:
        """Where its ledger.toml is."""
        return str(self.folder / "ledger.toml")

    @property
    def config(self) -> LedgerConfig:
        """What it says."""
        return load_ledger(self.folder / "ledger.toml")

    def change(self, sql: str, *values: object) -> None:
        """Change the database behind the ledger's back."""
        with closing(sqlite3.connect(self.folder / "state" / "projections.sqlite")) as db, db:
            db.execute(sql, values)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return two shifts, the second at another rate, with a revised factor, a silent meter and some idle time."""
    made = Shop(tmp_path_factory.mktemp("shop"), memory=False)
    (made.folder / "ledger.toml").write_text(made.hall.toml)
    made.plan(PLAN + TREE)
    made.offer(hours(*["400"] * 24))
    made.shows()
    made.give()
    made.run(32)
    for quarter in range(32):
        made.now_ns += 15 * MINUTE
        steps = ("10", "5", "25", "25")
        made.counters = [held + Decimal(step) for held, step in zip(made.counters, steps, strict=True)]
        made.state = "4" if quarter in (8, 9) else "6"
        made.shows(bad=[1] if quarter in (3, 4) else [])
        made.give()
    made.offer(hours("500", state="final"))
    made.look()
    made.hall.ledger.close()
    return Site(made.folder, made.leaves)


@pytest.fixture
def copied(site: Site, tmp_path: Path) -> Site:
    """Return a copy that may be changed."""
    shutil.copytree(site.folder, tmp_path / "copy")
    return Site(tmp_path / "copy", site.leaves)


def row_of(site: Site, meter: str, start_ns: int) -> dict[str, Any]:
    """Return the explanation of a row."""
    return explain_record(site.config, record_id("gw1", "filling", meter, start_ns))


def test_a_rows_derivation_names_registers_leaves_factor_formula_and_rounding(site: Site) -> None:
    found = row_of(site, "m2.energy", SIX)
    assert found["equal"]
    assert found["of"] == {
        "gateway": "gw1",
        "line": "filling",
        "asset": "comp",
        "meter": "m2.energy",
        "kind": "meter",
        "scope": "2",
    }
    (part,) = found["parts"]
    assert (part["start"]["register"], part["end"]["register"], part["end"]["raw"]) == ("0", "5", "0001")
    assert (part["start"]["leaf"], part["end"]["leaf"]) == (2, 3)
    hashes = [leaf_hash(site.leaves[index]).hex() for index in (2, 3)]
    assert [part[end]["leaf_hash"] for end in ("start", "end")] == hashes
    assert part["difference"]["formula"] == "5000000 - 0 = 5000000 mWh"
    assert part["split"]["is_whole"]
    assert found["factor"]["value"] == "500"
    assert found["factor"]["supersedes"] == hours("400")[0].version
    assert found["factor"]["is_the_rows"]
    assert found["co2e"] == {"formula": "5 kWh x 500 g/kWh = 2500 g", "g": "2500", "kg": "2.5"}
    assert any("half to even" in rule for rule in found["rounding"])
    assert found["setting"]["state"] == "producing"


def test_a_remainder_shows_its_sub_meters_registers_too(site: Site) -> None:
    found = row_of(site, "m1.energy", SIX + 2 * HOUR)
    assert [(part["sign"], part["point"]) for part in found["parts"]] == [("+", "m1.energy"), ("-", "m2.energy")]
    assert found["hierarchy"] == "remainder: + m1.energy 10000000 - m2.energy 5000000 = 5000000 mWh = 5 kWh"
    assert found["equal"]


def test_what_was_spread_over_a_gap_says_how(site: Site) -> None:
    start_ns = SIX + 8 * HOUR + 3 * 15 * MINUTE
    found = row_of(site, "m2.energy", start_ns)
    (part,) = found["parts"]
    assert not part["split"]["is_whole"]
    assert part["split"]["of_seconds"] == "2700"
    assert part["split"]["mWh"] == 5_000_000
    assert found["quality"] == "time_estimated"
    assert found["flags"]["time_estimated"] == MEANINGS[Flag.TIME_ESTIMATED]
    assert found["equal"]


def test_every_row_of_the_tables_comes_out_of_the_leaves_again(site: Site) -> None:
    book = Projections(site.folder / "state" / "projections.sqlite", new=False)
    with closing(book), book.reading() as connection:
        rows = list(tables.figures(connection, Slice(start_ns=SIX + 8 * HOUR, end_ns=SIX + 11 * HOUR)))
    assert len(rows) == 24
    for row in rows:
        found = explain_record(site.config, record_id(row.gateway, row.line, row.meter, row.start_ns))
        assert found["equal"], found


def test_a_row_that_somebody_changed_in_the_database_is_found(copied: Site) -> None:
    record = record_id("gw1", "filling", "m2.energy", SIX)
    copied.change("UPDATE figures SET co2e_g = '1' WHERE meter = 'm2.energy' AND start_ns = ?", SIX)
    found = explain_record(copied.config, record)
    assert not found["equal"]
    assert found["differences"]["co2e_g"] == ["1", "2500.000000"]
    assert run(["explain", copied.toml, record]) == 1


def test_a_statement_shows_all_versions_what_changed_and_why(site: Site) -> None:
    found = explain_record(site.config, record_of("gw1", "filling", EARLY))
    closed, restated = found["versions"]
    assert (closed["version"], closed["reason"], restated["version"]) == (1, "closed", 2)
    assert "-> 500" in restated["reason"]
    assert restated["changed"]["co2e_kg"] == ["128", "132"], "the remainder and its sub-meter count 320 kWh"
    assert all(version["chain_holds"] and version["as_sealed"] for version in found["versions"])
    assert found["equal"]
    assert len(found["rows"]) == 10
    again = explain_record(site.config, found["rows"][0]["record"])
    assert again["equal"]


def test_a_statement_that_somebody_changed_in_the_database_is_found(copied: Site) -> None:
    copied.change("UPDATE statements SET figures = replace(figures, '132', '99') WHERE version = 2")
    found = explain_record(copied.config, record_of("gw1", "filling", EARLY))
    assert not found["equal"]
    assert not found["versions"][1]["as_sealed"]
    assert found["differences"]["co2e_kg"] == ["99", "132"]


def test_an_unknown_record_is_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="want the record_id of a row or the record of a statement"):
        explain_record(site.config, "0" * 32)


def test_every_flag_has_a_meaning() -> None:
    assert [flag for flag in Flag if flag not in MEANINGS] == []


# ---- the commands


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must succeed; return what it prints."""
    assert run(arguments) == 0
    return capsys.readouterr().out


def test_the_report_command_shows_shifts_bars_and_as_closed_beside_restated(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = said(capsys, "report", site.toml, "--line", "filling")
    for text in (EARLY, LATE, "-22.4 %", "Energy by state", "producing", "idle", "Energy by asset", "comp", "█"):
        assert text in out, text
    assert "as closed" in out
    assert "128" in out
    assert "version 2, leaf" in out


def test_the_report_commands_json_has_every_digit_and_both_versions(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = site.toml
    found = json.loads(said(capsys, "report", toml, "--shift", EARLY, "--json"))
    (row,) = found["rows"]
    assert (row["line"], row["shift"], row["state"]) == ("gw1/filling", EARLY, "final")
    assert row["figures"]["co2e_kg"] == "132"
    assert (row["as_closed"]["co2e_kg"], row["restated"]["co2e_kg"]) == ("128", "132")
    assert row["changed"]["co2e_kg"] == ["128", "132"]
    assert row["figures"]["oee"] == row["restated"]["oee"] == "0.8"
    late = json.loads(said(capsys, "report", toml, "--shift", LATE, "--json"))["rows"][0]
    assert late["change_against"]["shift"] == EARLY
    assert Decimal(late["change_pct"]) < 0
    by_day = json.loads(said(capsys, "report", toml, "--by", "day", "--json"))["rows"]
    assert [one["figures"]["energy_kwh"] for one in by_day] == ["640"]
    half = ("--from", "2026-01-05T14:00:00Z", "--to", "2026-01-05T22:00:00Z")
    (line,) = json.loads(said(capsys, "report", toml, "--by", "line", *half, "--json"))["rows"]
    assert line["change_pct"] == late["change_pct"], "the same time before it"


@pytest.mark.parametrize("by", ["line", "shift", "job", "product", "recipe", "day"])
def test_the_report_command_knows_each_grouping(site: Site, capsys: pytest.CaptureFixture[str], by: str) -> None:
    found = json.loads(said(capsys, "report", site.toml, "--by", by, "--json"))
    assert sum(Decimal(row["figures"]["energy_kwh"]) for row in found["rows"]) == 640
    said(capsys, "report", site.toml, "--by", by)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--line", "packing"], "line: got 'packing', want gw1/filling"),
        (["--shift", "2026-01-06/early"], "shift: got '2026-01-06/early', want one of these lines"),
        (["--shift", "tomorrow"], "shift: got 'tomorrow', want <date>/<name>"),
    ],
)
def test_the_report_command_refuses_what_there_is_not(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["report", site.toml, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_statements_command_lists_versions_and_their_changes(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, record = site.toml, record_of("gw1", "filling", EARLY)
    lines = said(capsys, "statements", toml).splitlines()
    assert len(lines) == 3
    assert "co2e_kg: 128 -> 132" in said(capsys, "statements", toml, "--record", record)
    found = json.loads(said(capsys, "statements", toml, "--json"))["statements"]
    assert [(one["subject"]["shift"], one["version"]) for one in found] == [(EARLY, 1), (EARLY, 2), (LATE, 1)]
    assert found[1]["supersedes"] == found[0]["sha256"]
    assert run(["statements", toml, "--record", "nothing"]) == 2


def test_the_explain_command_prints_the_derivation(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    toml = site.toml
    out = said(capsys, "explain", toml, record_id("gw1", "filling", "m1.energy", SIX))
    for text in (
        "gw1/filling, main (remainder), Scope 2",
        "register 1: + m1.energy",
        "register 2: - m2.energy",
        "difference: 10000000 - 0 = 10000000 mWh",
        "500 g/kWh, final, demo/DEMO/average/lifecycle",
        "5 kWh x 500 g/kWh = 2500 g",
        "EQUAL to what is stored",
    ):
        assert text in out, text
    out = said(capsys, "explain", toml, record_of("gw1", "filling", EARLY))
    assert "co2e_kg: 128 -> 132" in out
    assert "largest rows" in out
    gap = said(capsys, "explain", toml, record_id("gw1", "filling", "m2.energy", SIX + 8 * HOUR + 45 * MINUTE))
    assert "split over time: from 0 s to 900 s of 2700 s" in gap
    assert json.loads(said(capsys, "explain", toml, record_of("gw1", "filling", LATE), "--json"))["equal"]
