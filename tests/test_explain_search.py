"""`wattseal explain`: from a record, which is a hash, to its row."""

import json
import re
from pathlib import Path

import pytest

from gateway.app.explaining import explain_record
from gateway.app.load import load_ledger
from gateway.carbon.audit.rows import record_id
from gateway.carbon.exact import utc
from gateway.cli import run
from gateway.errors import ConfigError
from tests.shifts import DAY, MINUTE, PLAN, SIX, Shop, hours

DAYS = 5


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ledger.toml of a line that ran for half an hour on each of five days."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder, memory=False)
    path = folder / "ledger.toml"
    path.write_text(made.hall.toml)
    made.plan(PLAN)
    made.offer(hours(*["400"] * (24 * DAYS)))
    for day in range(DAYS):
        made.now_ns = SIX + day * DAY
        made.shows()
        made.run(2)
    made.hall.ledger.close()
    return path


def record(day: int) -> str:
    """Return the record of the second quarter's row of a day."""
    return record_id("gw1", "filling", "m2.energy", start_of(day))


def start_of(day: int) -> int:
    """Return where that row starts."""
    return SIX + day * DAY + 15 * MINUTE


@pytest.mark.parametrize("day", range(DAYS))
def test_the_newest_rows_are_searched_first(toml: Path, day: int) -> None:
    told: list[tuple[int, int]] = []
    found = explain_record(load_ledger(toml), record(day), tell=lambda done, days: told.append((done, days)))
    assert (found["start"], found["equal"]) == (utc(start_of(day)), True)
    assert told == [(done, DAYS) for done in range(DAYS - day)]


@pytest.mark.parametrize("line", [None, "filling", "gw1/filling"])
def test_where_its_start_is_known_no_other_time_is_searched(toml: Path, line: str | None) -> None:
    told: list[tuple[int, int]] = []
    found = explain_record(
        load_ledger(toml), record(0), line=line, at_ns=start_of(0), tell=lambda done, days: told.append((done, days))
    )
    assert found["equal"]
    assert told == [(0, 1)]


def test_the_command_takes_what_an_export_says_beside_the_record(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", str(toml), record(1), "--line", "filling", "--at", utc(start_of(1)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"] == record(1)


def test_a_record_that_stands_elsewhere_is_not_found_and_the_hint_is_doubted(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", str(toml), record(1), "--at", utc(start_of(2))]) == 2
    assert "want the record_id of a row or the record of a statement; --line and --at may be wrong" in (
        capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match=r"^line: got 'packing', want gw1/filling"):
        explain_record(load_ledger(toml), record(1), line="packing")
    with pytest.raises(ConfigError, match=re.escape("a statement") + "$"):
        explain_record(load_ledger(toml), "0" * 32)
    with pytest.raises(ConfigError, match="may be wrong"):
        explain_record(load_ledger(toml), record(1), at_ns=start_of(DAYS) + DAY)
