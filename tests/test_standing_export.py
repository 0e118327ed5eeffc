"""Exports and reports of an attested gateway: quarantine is computed with, shown, and cannot be left out."""

import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.app.handover import Wish, gather, read_export
from gateway.carbon.audit.form import LEDGER_LEAVES, MANIFEST, ROWS, pack_manifest
from gateway.carbon.audit.verify import verify
from gateway.cli import wattseal
from gateway.codec.leaves import parse
from gateway.errors import ConfigError, TrustError
from gateway.tlog.lines import decode_base64
from gateway.tlog.note import Signer
from tests.relying import OFFICER, VERIFIER, Site, site
from tests.sealing import WITNESS

TRUST = [WITNESS.verifier.vkey, OFFICER.verifier.vkey, VERIFIER.verifier.vkey]


@pytest.fixture
def hall(tmp_path: Path) -> Site:
    """Give a site that drifted for four minutes, whose first two an officer has readmitted, and that recovered."""
    made = site(tmp_path, memory=False)
    made.run(3)
    made.appraised()
    made.appraised("contraindicated")
    made.run(4)
    made.appraised()
    made.run(2)
    failed = made.ledger.facts.standings.newest("gw1")
    assert failed is not None
    made.decide(failed.first - 4, failed.first - 2, admit=True)
    (tmp_path / "ledger.toml").write_text(made.toml)
    return made


def run(*arguments: object) -> str:
    """Run the command; return what it prints."""
    found = CliRunner().invoke(wattseal, [str(one) for one in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def without(files: Mapping[str, bytes], kind: str, place: int) -> dict[str, bytes]:
    """Return an export without one of its leaves of a kind, its manifest signed again by the ledger's own key."""
    lines = files[LEDGER_LEAVES].splitlines(keepends=True)
    found = [n for n, line in enumerate(lines) if parse(decode_base64(json.loads(line)["leaf"])).kind == kind]
    del lines[found[place]]
    made = {path: content for path, content in files.items() if path != MANIFEST}
    made[LEDGER_LEAVES] = b"".join(lines)
    return {**made, MANIFEST: WITNESS.sign_note(pack_manifest(made))}


def test_an_export_is_computed_with_the_same_rule_and_says_what_is_in_quarantine(hall: Site) -> None:
    """Its rows are the tables'; the verdict names states, results and decisions, and which of them were checked."""
    files = gather(hall.config, Wish())
    verdict = verify(files, TRUST)
    (line,) = verdict.lines
    assert line.totals.energy_mwh == hall.counted * 1_000_000 == 9_000_000
    assert line.quarantined == {"FAILED: contraindicated: PCR 4 differs": 2}
    (standing,) = verdict.standings
    assert (standing.state, standing.results, standing.checked) == ("TRUSTED", 2, True)
    (decision,) = verdict.decisions
    assert (decision.by, decision.admit, decision.checked) == (OFFICER.name, True, True)
    alone = verify(files)
    assert not alone.decisions[0].checked
    assert not alone.standings[0].checked


@pytest.mark.parametrize(("kind", "place"), [("standing", 0), ("standing", 2), ("standing", 3)])
def test_no_standing_can_be_left_out_but_the_newest(hall: Site, kind: str, place: int) -> None:
    """Each names the one before it."""
    with pytest.raises(TrustError, match="was left out"):
        verify(without(gather(hall.config, Wish()), kind, place))


def test_a_decision_that_is_left_out_changes_the_figures_and_shows(hall: Site) -> None:
    """rows.csv is not what the leaves give then."""
    with pytest.raises(TrustError, match=ROWS):
        verify(without(gather(hall.config, Wish()), "decision", 0))


@pytest.mark.parametrize("name", [OFFICER.name, VERIFIER.name])
def test_an_auditor_who_names_another_key_of_that_name_is_told(hall: Site, name: str) -> None:
    """A ledger cannot make up officers or verifiers for somebody who knows them."""
    trust = [WITNESS.verifier.vkey, Signer.generate(name).verifier.vkey]
    with pytest.raises(TrustError, match=LEDGER_LEAVES):
        verify(gather(hall.config, Wish()), trust)


def test_status_report_and_verify_say_it_in_words(hall: Site, tmp_path: Path) -> None:
    """State, last verified, quarantine and why."""
    assert hall.quarantined == 2
    (_, gw1), (_, gw2) = (
        (one["gateway"], one)
        for one in json.loads(run("attest", "status", tmp_path / "ledger.toml", "--json"))["gateways"]
    )
    assert (gw1["state"], gw1["quarantined"], gw1["decisions"], gw1["epoch"]) == ("TRUSTED", 2, 1, 1)
    assert gw1["last_verified"].startswith("2026-02-25T06:")
    assert gw2["state"] == "UNATTESTED"
    assert "pinned" in gw2["reason"]
    shown = run("attest", "status", tmp_path / "ledger.toml")
    assert "TRUSTED" in shown
    assert "never" in shown
    report = json.loads(run("report", tmp_path / "ledger.toml", "--json"))
    assert [(one["intervals"], one["why"]) for one in report["quarantined"]] == [
        (2, "FAILED: contraindicated: PCR 4 differs")
    ]
    assert "2 intervals are in quarantine" in run("report", tmp_path / "ledger.toml")
    out = tmp_path / "out"
    run("export", tmp_path / "ledger.toml", "--out", out)
    said = run("verify", out)
    assert "2 intervals in quarantine, in no figure: FAILED" in said
    assert "readmitted by wattseal-officer/jane (NOT CHECKED" in said
    (tmp_path / "keys.txt").write_text("\n".join(TRUST))
    assert "(checked)" in run("verify", out, "--trust", tmp_path / "keys.txt")
    assert verify(read_export(out)).rows > 0


def test_an_explained_row_is_equal_beside_a_quarantine(hall: Site, tmp_path: Path) -> None:
    """The same leaves are left out."""
    *_, last = csv.DictReader(gather(hall.config, Wish())[ROWS].decode().splitlines())
    record = last["record_id"]
    assert json.loads(run("explain", tmp_path / "ledger.toml", record, "--json"))["equal"] is True


def test_admin_shows_what_a_decision_concerns_and_then_hands_it_to_the_ledger(hall: Site, tmp_path: Path) -> None:
    """A dry run decides nothing; the rest is the ledger's to check."""
    assert "jim.vkey" in run("keygen", "officer", "jim", "--out", tmp_path / "jim.key")
    (tmp_path / "jane.key").write_text(OFFICER.to_text() + "\n")
    first, stop = hall.standing.first - 2, hall.standing.first
    common = (
        "gw1",
        "--leaves",
        f"{first}:{stop}",
        "--reason",
        "ticket 1",
        "--config",
        tmp_path / "ledger.toml",
        "--json",
    )
    dry = json.loads(run("admin", "readmit", *common, "--dry-run"))
    assert (dry["intervals"], dry["quarantined"], dry["file"]) == (2, 2, "")
    assert dry["energy_mwh"] > 0
    hall.now_ns = time.time_ns()
    hall.look()
    assert hall.quarantined == 2
    run("admin", "readmit", *common, "--key", tmp_path / "jane.key")
    hall.look()
    assert (hall.counted, hall.quarantined) == (9, 0)
    said = run("admin", "quarantine", *common[:-1], "--key", tmp_path / "jane.key")
    assert "waits for the ledger" in said
    hall.look()
    assert hall.quarantined == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--leaves", "5:5"], "want FIRST:STOP"),
        (["--leaves", "1:2", "--from", "2026-01-01"], "not both"),
        ([], "not both"),
        (["--leaves", "1:99"], "want some with an interval"),
        (["--from", "2031-01-01"], "no interval of that time"),
    ],
)
def test_admin_says_what_is_wrong_with_leaves(hall: Site, tmp_path: Path, options: list[str], why: str) -> None:
    """Where, got, want."""
    assert hall.quarantined == 2
    with pytest.raises(ConfigError, match=why):
        run("admin", "readmit", "gw1", *options, "--reason", "x", "--dry-run", "--config", tmp_path / "ledger.toml")
