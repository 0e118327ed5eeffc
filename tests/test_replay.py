"""The six cases of the plant through the real pipeline, in plant time: figures, alert, cause, repair."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from hil.replay.cases import CASES


def outcome(case: str, seed: int, *more: str) -> dict[str, Any]:
    """Run a case as a user does, and return what it prints."""
    command = [sys.executable, "-m", "hil.plant", "replay", case, "--seed", str(seed), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(case: str, seed: int, *more: str) -> None:
    """Hold an outcome to what the facts say of its case."""
    found = outcome(case, seed, *more)
    assert found["before"] == pytest.approx(0.68, abs=0.005)
    if case != "no-counts":
        assert found["after"] == pytest.approx(0.87, abs=0.006)
        assert found["repaired"] == pytest.approx(0.68, abs=0.005)
        assert found["change_percent"] == pytest.approx(-21.8, abs=0.7)
    if case == "sku":
        assert found["alert_delay_s"] is None
        assert found["alerts"] == 0
        return
    check_alert(case, found)


def check_alert(case: str, found: dict[str, Any]) -> None:
    """Hold an outcome's alert to its case."""
    names = [cause["name"] for cause in found["causes"]]
    assert found["alert_delay_s"] is not None
    assert 0 < found["alert_delay_s"] <= 600
    match case:
        case "compressor":
            assert names[0] == "compressor"
            assert any("starts" in said for said in found["causes"][0]["evidence"])
            assert found["avoided_kg"] > 0
        case "grid":
            assert names[0] == "grid factor"
            assert not {"compressor", "press", "filler", "hvac"} & set(names[:2])
        case "sku-unknown":
            assert names[0].endswith("undetermined")
            assert not found["causes"][0]["determined"]
        case "slow":
            assert names[0] == "throughput"
        case "mixed":
            assert names[0] == "compressor"
            assert {"grid factor", "throughput"} <= set(names)
        case "no-counts":
            assert found["after"] is None
            assert found["alert_kind"] == "data"


def test_a_broken_compressor_valve_is_named_and_the_shift_report_says_what_the_repair_was_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check("compressor", 1, "--keep", str(tmp_path / "kept"))
    capsys.readouterr()
    assert run(["report", str(tmp_path / "kept" / "ledger.toml"), "--shift", "2026-03-03/early", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (alert,) = report["alerts"]
    assert alert["cause"].startswith("compressor: short cycling, 3")
    assert alert["change_percent"] == pytest.approx(-21.9, abs=0.5)
    assert alert["avoided_kg"] == pytest.approx(600, rel=0.05)
    (row,) = report["rows"]
    assert row["figures"]["units_good"] == "4800"
    assert float(row["figures"]["oee"]) == pytest.approx(0.968, abs=0.005)


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("case", [name for name in CASES if name not in {"clean", "month"}])
def test_each_case_finds_its_cause(case: str, seed: int) -> None:
    check(case, seed)


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("case", ["grid", "mixed"])
def test_a_grid_that_is_another_from_hour_to_hour_is_still_told_from_the_line(case: str, seed: int) -> None:
    found = outcome(case, seed, "--daily")
    assert found["after"] / found["before"] == pytest.approx(0.87 / 0.68, abs=0.015)
    assert found["alerts"] == 1
    check_alert(case, found)


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", [4, 5])
def test_a_clean_run_raises_nothing(seed: int) -> None:
    found = outcome("clean", seed)
    assert found["alerts"] == 0
    assert found["after"] == pytest.approx(0.68, abs=0.005)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("more", [(), ("--daily",)], ids=["the same grid", "a daily grid"])
def test_a_month_without_a_fault_raises_one_alert_at_most(more: tuple[str, ...]) -> None:
    found = outcome("month", 1, *more)
    assert found["alerts"] <= 1
