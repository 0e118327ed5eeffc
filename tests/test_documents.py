"""app/duties/documents.py and tables.py: files of the plant's become sealed facts; figures and exports follow them."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.app.handover import Wish, gather
from gateway.carbon.audit.verify import verify
from gateway.carbon.energy import Flag
from gateway.carbon.facts import Facts
from gateway.carbon.grid.settings import parse_settings
from gateway.carbon.grid.table import FactorLeaf
from gateway.cli import run
from gateway.clock import WallClock
from gateway.codec.ledger_leaves import to_document
from gateway.errors import ConfigError, TrustError
from gateway.model import ClockState, Document
from gateway.store import projections as tables
from gateway.store.projections import Slice
from tests.ledgering import SIGNERS, Hall
from tests.line_leaves import MINUTE, SECOND, T0, factor
from tests.sealing import LINES, T0_S, Body, interval
from tests.test_ledger import sealed

MORE = 'plan = "carbon.toml"\ngrid_settings = "grid-settings.json"\n'
PLAN = '[site]\ntimezone = "Europe/Berlin"\n[shifts.early]\nstart = "06:00"\nend = "14:00"\n'
PPA = """
[instruments.ppa-1]
type = "contract"
volume_mwh = "150"
vintage = 2026
zone = "DEMO"
valid_from = "2026-01-01"
valid_to = "2027-01-01"
"""
STORY: list[Body] = [*LINES, *(interval(number) for number in range(11))]
LOG = sealed(SIGNERS["gw1"], *STORY)


class Now:
    """The plant's time, as the story needs it."""

    def __init__(self) -> None:
        self.t_ns = T0_S * SECOND

    def clock(self) -> WallClock:
        """Return a clock that reads it."""
        return WallClock(wall=lambda: self.t_ns, steady=lambda: self.t_ns, state=lambda: (ClockState.SYNCHRONISED, 0))

    def minute(self, number: float) -> int:
        """Set it; return it."""
        self.t_ns = T0_S * SECOND + int(number * 60) * SECOND
        return self.t_ns


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def hall(tmp_path: Path, now: Now) -> Iterator[Hall]:
    made = Hall(tmp_path / "hall", clock=now.clock(), more=MORE, memory=False)
    yield made
    made.ledger.close()


def settings(hall: Hall, **said: Any) -> None:
    (hall.folder / "grid-settings.json").write_text(json.dumps(said))


def plan(hall: Hall, text: str = PLAN) -> None:
    (hall.folder / "carbon.toml").write_text(text)


def documents(hall: Hall, name: str) -> list[Document]:
    return [one for leaf in hall.own("document") if (one := to_document(leaf.body)).name == name]


def wrong(hall: Hall) -> list[str]:
    return [call.kwargs["why"] for call in hall.said.calls if call.method_name == "error"]


def feed(hall: Hall) -> None:
    hall.take("gw1", [LOG.message(hall.size())])


def figures(hall: Hall) -> list[tuple[float, float, str | None, str]]:
    """Return (from minute, to minute, g/kWh, source) of the line's rows with energy."""
    with hall.ledger.book.reading() as connection:
        rows = list(tables.figures(connection, Slice(gateway="gw1", line="filling")))
    return [
        (
            (row.start_ns / SECOND - T0_S) / 60,
            (row.end_ns / SECOND - T0_S) / 60,
            None if row.factor_g_per_kwh is None else str(row.factor_g_per_kwh),
            row.factor_source,
        )
        for row in rows
        if row.energy_mwh is not None
    ]


# ---- grid-settings.json


def test_an_emission_factor_counts_from_its_sealing_on_until_it_is_removed(hall: Hall, now: Now) -> None:
    now.minute(3.5)
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    now.minute(6)
    settings(hall, emission_factor={"value": 410.5, "unit": "g/kWh"})
    hall.ledger.look()
    now.minute(8)
    settings(hall)
    hall.ledger.look()
    feed(hall)
    found = figures(hall)
    assert next(row for row in found if row[2] == "385")[0] == 3.5
    assert {(row[2], row[3]) for row in found if 4 <= row[0] < 6} == {("385", "grid-settings.json")}
    assert {row[2] for row in found if 6 <= row[0] < 8} == {"410.5"}
    assert {row[2] for row in found if row[0] >= 8 or row[1] <= 3.5} == {"400"}
    assert hall.dump() == hall.dump_rebuilt()


def test_a_change_restates_the_cells_since_its_sealing_and_none_before(hall: Hall, now: Now) -> None:
    feed(hall)
    before = figures(hall)
    now.minute(5)
    settings(hall, emission_factor=0.385)
    hall.ledger.beat()
    after = figures(hall)
    assert [row for row in after if row[1] <= 5] == [row for row in before if row[1] <= 5]
    assert {row[2] for row in after if row[0] >= 5} == {"385"}
    assert hall.dump() == hall.dump_rebuilt()


def test_the_leaf_holds_the_file_and_who_owns_it(hall: Hall) -> None:
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    (one,) = documents(hall, "grid-settings")
    assert json.loads(one.content) == {"emission_factor": 0.385}
    assert one.by.startswith("grid-settings.json, of ")
    assert (one.from_ns, one.rules) == (T0_S * SECOND, ())


def test_the_same_content_is_sealed_once_and_never_again_after_a_restart(hall: Hall, now: Now) -> None:
    settings(hall, emission_factor=0.385)
    plan(hall)
    for _ in range(3):
        hall.ledger.look()
    now.minute(60 * 24 * 400)
    hall.restart()
    hall.ledger.look()
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    assert (len(documents(hall, "grid-settings")), len(documents(hall, "plan"))) == (1, 1)
    found = hall.ledger.facts.settings_at(now.t_ns)
    assert found is not None
    assert found.settings.g_per_kwh == 385


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"emission_factor": 385}', r"emission_factor: got 385 kg/kWh, want 3 kg/kWh at most; if g/kWh was meant: .*"),
        ('{"emission_factor": {"value": 3001, "unit": "g/kWh"}}', r"got 3001 g/kWh, want 3 kg/kWh at most$"),
        ('{"emission_factor": 0}', r"emission_factor: got 0, want more than 0"),
        ('{"emission_factor": -0.1}', r"emission_factor: got -0\.1, want more than 0"),
        ('{"emission_factor": "0.385"}', r"emission_factor: got '0\.385', want a number"),
        ('{"emission_factor": true}', r"emission_factor: got True, want a number"),
        ('{"emission_factor": null}', r"emission_factor: got None, want a number"),
        ('{"emission_factor": 1e-99999}', r"emission_factor: got 1E-99999, want a number"),
        ('{"emission_factor": NaN}', r"not JSON: got NaN"),
        ('{"emission_factor": {"value": 1}}', r"emission_factor: got .*, want value, and unit: one of g/kWh"),
        ('{"emission_factor": {"value": 1, "unit": "g/MJ"}}', r"want value, and unit: one of g/kWh"),
        ('{"factor": 1}', r"'factor': got an unknown key, want one of emission_factor, offset_id, zone"),
        ('{"zone": 1}', r"zone: got 1, want printable text"),
        ('{"zone": "a\\nb"}', r"zone: got 'a\\nb', want printable text"),
        ('{"zone": "A", "zone": "B"}', r"not JSON: got a key twice"),
        ("[]", r"got \[\], want an object"),
        ("{", r"not JSON"),
        ('{"offset_id": "ppa-9"}', r"offset_id: got 'ppa-9', want one of ppa-1"),
    ],
)
def test_wrong_settings_change_nothing_and_say_why_once(hall: Hall, content: str, message: str) -> None:
    plan(hall, PLAN + PPA)
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    (hall.folder / "grid-settings.json").write_text(content)
    for _ in range(3):
        hall.ledger.look()
    (said,) = wrong(hall)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)
    assert said.startswith("grid-settings.json: ")
    assert len(documents(hall, "grid-settings")) == 1
    hall.restart()
    found = hall.ledger.facts.settings_at(T0_S * SECOND)
    assert found is not None
    assert found.settings.g_per_kwh == 385


def test_numbers_are_exact() -> None:
    found = parse_settings(b'{"emission_factor": 0.1000000000000000000000000001, "zone": "DE"}', name="s")
    assert (found.g_per_kwh, found.zone) == (Decimal("100.0000000000000000000000001"), "DE")
    assert parse_settings(b'{"emission_factor": {"value": 429.983, "unit": "lb/MWh"}}', name="s").g_per_kwh == Decimal(
        "195.03700802971"
    )


def test_an_offset_waits_for_the_plan_that_has_it(hall: Hall) -> None:
    """Both files may be written in any order."""
    settings(hall, offset_id="ppa-1")
    hall.ledger.look()
    assert len(wrong(hall)) == 1
    plan(hall, PLAN + PPA)
    hall.ledger.look()
    hall.ledger.look()
    found = hall.ledger.facts.settings_at(T0_S * SECOND)
    assert found is not None
    assert found.settings.offset_id == "ppa-1"
    assert len(wrong(hall)) == 1


def test_settings_of_one_zone_leave_the_others_alone(hall: Hall) -> None:
    settings(hall, emission_factor=0.385, zone="ELSEWHERE")
    hall.ledger.look()
    feed(hall)
    assert {row[2] for row in figures(hall)} == {"400"}


def test_a_file_that_is_gone_leaves_what_was_sealed_in_force(hall: Hall) -> None:
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    (hall.folder / "grid-settings.json").unlink()
    hall.ledger.look()
    feed(hall)
    assert {row[2] for row in figures(hall)} == {"385"}


def test_a_disk_without_room_is_asked_again(tmp_path: Path, now: Now) -> None:
    hall = Hall(tmp_path / "hall", clock=now.clock(), more=MORE)
    settings(hall, emission_factor=0.385)
    hall.disk(None).room = 0
    hall.ledger.look()
    hall.disk(None).room = None
    hall.ledger.beat()
    hall.ledger.look()
    assert len(documents(hall, "grid-settings")) == 1
    hall.ledger.close()


# ---- carbon.toml


def test_a_plan_is_sealed_with_the_rules_of_its_time_zone(hall: Hall) -> None:
    plan(hall)
    hall.ledger.look()
    (one,) = documents(hall, "plan")
    assert one.content == PLAN.encode()
    assert {offset_s for _, offset_s in one.rules} == {3600, 7200}
    assert (
        hall.ledger.facts.plan_at(T0_S * SECOND).calendar.shift_at("gw1", "filling", T0_S * SECOND)
        == "2026-02-25/early"
    )


def test_figures_name_their_shift_and_follow_a_plan_that_is_valid_from_before(hall: Hall, now: Now) -> None:
    feed(hall)
    now.minute(30)
    plan(hall, "valid_from = 2026-02-25T06:17:00Z\n" + PLAN)
    hall.ledger.look()
    with hall.ledger.book.reading() as connection:
        rows = list(tables.line_figures(connection, Slice(gateway="gw1", line="filling")))
    start = int(now.minute(0) + 3 * MINUTE)
    assert {row.setting.shift for row in rows if row.start_ns >= start} == {"2026-02-25/early"}
    assert {row.setting.shift for row in rows if row.end_ns <= start} == {""}
    assert hall.dump() == hall.dump_rebuilt()


def test_a_cell_is_cut_where_another_plan_comes_in_force(hall: Hall, now: Now) -> None:
    """Else the old plan's order of providers would count up to the cell's end."""
    plan(hall, "[grid.DEMO]\n")
    hall.ledger.look()
    now.minute(4.5)
    plan(hall, '[grid.DEMO]\norder = ["nobody"]\nlast_good_h = 0\n')
    hall.ledger.look()
    feed(hall)
    found = figures(hall)
    assert {row[2] for row in found if row[1] <= 4.5} == {"400"}
    assert {row[2] for row in found if row[0] >= 4.5} == {None}
    assert 4.5 in {row[0] for row in found}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[site]\ntimezone = "Europe/Berln"\n', "carbon.toml: site.timezone: got 'Europe/Berln', want an IANA name"),
        ("[shiftz]\n", "carbon.toml: shiftz: got an unknown section"),
        ("\x00", "carbon.toml: not TOML"),
        ("# " + "x" * 60_000, "carbon.toml: got 60002 bytes, want 60000 at most"),
    ],
)
def test_a_wrong_plan_changes_nothing_and_says_why_once(hall: Hall, text: str, message: str) -> None:
    plan(hall)
    hall.ledger.look()
    plan(hall, text)
    for _ in range(3):
        hall.ledger.look()
    (said,) = wrong(hall)
    assert message in said
    assert len(documents(hall, "plan")) == 1


def test_bytes_that_are_no_text_are_refused(hall: Hall) -> None:
    (hall.folder / "carbon.toml").write_bytes(b"\xff\xfe")
    hall.ledger.look()
    (said,) = wrong(hall)
    assert said.startswith("carbon.toml: not UTF-8")


def test_rules_that_run_short_are_sealed_anew_from_then_on(hall: Hall, now: Now) -> None:
    """A plan that nobody touched for nine years still knows when the clocks change."""
    plan(hall)
    hall.ledger.look()
    now.minute(60 * 24 * 365 * 9)
    hall.restart()
    hall.ledger.look()
    old, new = documents(hall, "plan")
    assert old.content == new.content
    assert (new.from_ns, new.rules[-1][0] > old.rules[-1][0]) == (now.t_ns, True)


# ---- evidence


def test_an_export_under_settings_and_a_plan_verifies(hall: Hall, now: Now) -> None:
    now.minute(2)
    plan(hall, PLAN + '[grid.DEMO]\norder = ["demo"]\nlast_good_h = 1\n')
    hall.ledger.look()
    now.minute(5.5)
    settings(hall, emission_factor=0.385)
    hall.ledger.look()
    now.minute(7.25)
    settings(hall)
    hall.ledger.look()
    feed(hall)
    files = gather(hall.config, Wish())
    verdict = verify(files)
    assert verdict.rows > 10
    text = files["rows.csv"].decode()
    assert "grid-settings.json" in text


def test_documents_that_cannot_be_read_are_refused_by_whoever_checks() -> None:
    facts = Facts()
    for name, content in (("plan", b"[x]"), ("plan", b"\xff"), ("grid-settings", b"[]")):
        with pytest.raises(TrustError, match="document: ") as caught:
            facts.add_document(7, Document(name=name, from_ns=0, content=content))
        assert caught.value.index == 7
    assert facts.add_document(8, Document(name="other", from_ns=0, content=b"")) is None


def test_a_last_good_factor_restates_as_far_as_it_reaches() -> None:
    facts = Facts()
    plan_text = b"[grid.DEMO]\nlast_good_h = 2\n[grid.OTHER]\nlast_good_h = 9\n"
    facts.add_document(0, Document(name="plan", from_ns=0, content=plan_text))
    hour = 60 * MINUTE
    touched = facts.add_factor(FactorLeaf(factor=factor("1", T0, T0 + hour), index=1, hash=b""))
    assert touched is not None
    assert (touched.start_ns, touched.end_ns, touched.zone) == (T0, T0 + 3 * hour, "DEMO")
    assert facts.policy_at("DEMO", T0) is not None
    assert facts.policy_at("ELSEWHERE", T0) is None


def test_a_gap_of_the_feed_is_bridged_flagged_and_then_left_empty(tmp_path: Path, now: Now) -> None:
    hall = Hall(tmp_path / "hall", clock=now.clock(), more=MORE, windows=((0, 4, "400"),))
    plan(hall, "[grid.DEMO]\nlast_good_h = 0.05\n")
    hall.ledger.beat()
    now.minute(20)
    feed(hall)
    with hall.ledger.book.reading() as connection:
        rows = [r for r in tables.figures(connection, Slice(gateway="gw1", line="filling")) if r.energy_mwh is not None]
    said = {((row.start_ns // SECOND - T0_S) // 60): row for row in rows}
    assert [number for number, row in said.items() if Flag.FACTOR_LAST_GOOD in row.flags] == [4, 5, 6]
    assert [number for number, row in said.items() if Flag.NO_FACTOR in row.flags] == [7, 8, 9]
    assert said[7].co2e_g is None
    assert hall.dump() == hall.dump_rebuilt()
    hall.ledger.close()


# ---- restatement, tables, commands


def test_a_new_version_writes_a_restatement_event_once(hall: Hall) -> None:
    hall.write_factors([(0, 60, "384.5")], state="measured")
    hall.ledger.beat()
    (about,) = [leaf.body["about"] for leaf in hall.own("event") if leaf.body["what"] == "factor.restated"]
    assert (about["old"], about["new"], about["delta"]) == ("400", "384.5", "-15.5")
    assert about["key"] == ["demo", "DEMO", "average", "lifecycle", ""]
    assert about["reason"] == "state final to measured, value revised"
    assert hall.dump() == hall.dump_rebuilt()
    hall.ledger.beat()
    assert len([leaf for leaf in hall.own("event") if leaf.body["what"] == "factor.restated"]) == 1


def test_named_tables_are_sealed_once(tmp_path: Path) -> None:
    hall = Hall(tmp_path / "hall", more='tables = ["egrid-2023", "desnz-2025"]\n')
    hall.ledger.look()
    hall.restart()
    hall.ledger.look()
    assert {leaf.body["key"][0] for leaf in hall.own("factor")} == {"demo", "epa-egrid", "desnz"}
    assert len(hall.own("factor")) == 1 + 27 + 1
    hall.ledger.close()


def test_a_table_that_there_is_not_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.tables: got 'egrid-1999', want some of .*desnz-2025, egrid-2023"):
        Hall(tmp_path / "hall", more='tables = ["egrid-1999"]\n')


def test_the_factors_command_shows_what_counts_and_which_fallback(
    hall: Hall, now: Now, capsys: pytest.CaptureFixture[str]
) -> None:
    now.minute(30)
    settings(hall, emission_factor=0.385)
    plan(hall, '[grid.DEMO]\norder = ["maps", "demo"]\nlast_good_h = 1\n')
    hall.ledger.look()
    feed(hall)
    (hall.folder / "ledger.toml").write_text(hall.toml)
    arguments = ["factors", str(hall.folder / "ledger.toml"), "--at", "2026-02-25T06:50:00Z"]
    assert run([*arguments, "--json"]) == 0
    (zone,) = json.loads(capsys.readouterr().out)["zones"]
    assert (zone["zone"], zone["g_per_kwh"], zone["fallback"], zone["provider"]) == (
        "DEMO",
        "385",
        "operator",
        "operator",
    )
    assert zone["policy"] == {"order": ["maps", "demo"], "last_good_h": 1, "type": "lifecycle"}
    assert [(one["provider"], one["fallback"]) for one in zone["day"]] == [
        *((None, "no_factor"), ("demo", ""), ("operator", "operator")),
    ]
    assert run([*arguments, "--zone", "DEMO"]) == 0
    shown = capsys.readouterr().out
    assert "385 g/kWh, operator" in shown
    assert "maps, demo; last good for 1 h; lifecycle alone" in shown
    assert run([*arguments, "--zone", "NOWHERE", "--at", "2026-01-01"]) == 0
    assert "NO FACTOR" in capsys.readouterr().out
    assert run([*arguments, "--at", "yesterday"]) == 2


def test_the_carbon_plan_command_shows_a_plan_and_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "carbon.toml"
    file.write_text(PLAN + PPA + '[grid.DE]\norder = ["maps"]\n[lines.gw1.filling.meters.comp]\npoint = "m1.energy"\n')
    assert run(["carbon-plan", str(file), "--from", "2026-03-28"]) == 0
    shown = capsys.readouterr().out
    assert "2026-03-29/early         2026-03-29T04:00:00Z to 2026-03-29T12:00:00Z  8:00 h" in shown
    assert "instrument ppa-1: contract, 150 MWh in DEMO, 2026-01-01 to 2027-01-01" in shown
    assert run(["carbon-plan", str(file), "--from", "2026-03-28", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["shifts"]["*"]) == 7
    file.write_text('[site]\ntimezone = "Mars/Base"\n')
    assert run(["carbon-plan", str(file)]) == 2
    assert "carbon.toml: site.timezone: got 'Mars/Base', want an IANA name" in capsys.readouterr().err
