"""What somebody might try between a device and the figures: late results, clocks set wrong, floods, bent exports."""

import json
import os
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.explaining import explain_record
from gateway.app.handover import Wish, gather
from gateway.app.rooms import read_room
from gateway.app.standing.readmitting import Wanted, concern_of, decide
from gateway.carbon.audit.form import ABOUT, LEDGER_LEAVES, MANIFEST, ROWS, Subject, leaves_path, pack_manifest
from gateway.carbon.audit.rows import header, lines_of
from gateway.carbon.audit.standing import check_standings
from gateway.carbon.audit.verify import verify
from gateway.carbon.kpi.statements import flat
from gateway.carbon.standings import Standings
from gateway.cli import wattseal
from gateway.codec.bodies import epoch_body, line_body, readings_body, schema_body, standing_body
from gateway.codec.frames import LogMessage, pack_log
from gateway.codec.leaves import parse
from gateway.config import parse_ledger
from gateway.errors import ConfigError, TrustError
from gateway.model import Column, Row, Schema, Standing, State
from gateway.store import projections as tables
from gateway.store.projections import Slice
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.lines import decode_base64
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer
from tests.ears import of_boot
from tests.ledgering import SIGNERS
from tests.relying import LEDGER, MINUTE, NS, OFFICER, T0, VERIFIER, Site, site
from tests.sealing import LINE, WITNESS
from tests.test_attesting import same_when_rebuilt

ROOM = Schema(
    device="room", columns=tuple(Column(name=name, unit="", store="f32") for name in ("indoor", "outdoor", "power"))
)
YEARS = 10 * 365 * 24 * 60 * MINUTE


def standing(state: State, first: int, size: int, **more: Any) -> Standing:
    """Return a standing of gw1."""
    said: dict[str, Any] = {"reason": "", "epoch": 1, "t_ns": 0, "verified_ns": None, "result": ""}
    said |= {"start_ns": None, "end_ns": None}
    return Standing(gateway="gw1", first=first, size=size, state=state, **(said | more))


def hand_over(hall: Site) -> None:
    """Give the ledger all leaves, before its duties look."""
    first, payloads, edge = hall.size(), [], CompactRange()
    edge.extend(map(leaf_hash, hall.leaves[:first]))
    for start in range(first, len(hall.leaves), 100):
        new = tuple(hall.leaves[start : start + 100])
        edge.extend(map(leaf_hash, new))
        head = Checkpoint(origin="wattseal/gw1", size=start + len(new), root=edge.root())
        note = checkpoints.sign(head, hall.signer)
        payloads.append(pack_log(LogMessage(first=start, leaves=new, checkpoint=note, epoch=hall.announced)))
    hall.take("gw1", payloads)


def exported_as_in_the_tables(hall: Site, wish: Wish) -> None:
    """Fail unless an export verifies, and has the tables' rows."""
    files = gather(hall.config, wish)
    verify(files)
    subject = Subject.unpack(files[ABOUT])
    where = Slice(start_ns=subject.start_ns, end_ns=subject.end_ns, gateway="gw1", line="filling")
    with hall.ledger.book.reading() as connection:
        rows = [header(), *lines_of(tables.cells(connection, where))]
    assert files[ROWS].decode() == "".join(rows)


# ---- how far a bad result reaches


@pytest.mark.parametrize(("log_size", "first"), [(2**62, 9), (0, 5), (3, 5), (7, 7), (9, 9)])
def test_a_bad_result_reaches_from_the_epochs_leaf_at_most_to_what_the_ledger_holds(
    tmp_path: Path, log_size: int, first: int
) -> None:
    """Whatever size the good result before it claimed: more than there is, none, or one from before the epoch."""
    hall = site(tmp_path, memory=False)
    hall.run(2)
    assert hall.boot() == 5
    hall.run(3)
    hall.appraised(log_size=log_size)
    hall.appraised("contraindicated")
    assert (hall.state, hall.standing.first, hall.standing.size) == (State.FAILED, first, 9)
    assert hall.quarantined == 9 - max(6, first)
    exported_as_in_the_tables(hall, Wish())
    same_when_rebuilt(hall)


STATES = [State.TRUSTED, State.FAILED, State.FAILED, State.STALE, State.UNREACHABLE, State.UNATTESTED, State.PENDING]


NEW = st.sampled_from(["", "", "epoch", "boot"])


@given(st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 4), st.integers(0, 40), NEW), max_size=12))
def test_no_bad_result_is_sealed_that_an_auditor_would_refuse(history: list[tuple[State, int, int, str]]) -> None:
    """Whatever was sealed before and whatever was vouched for: it stands in every export from then on."""
    held, size, epoch, starts = Standings(), 3, 1, 1
    for state, grown, since, new in history:
        size += grown
        epoch += new != ""
        starts += new == "boot"
        first, boot = size, f"aa:{starts}:0"
        if state is State.TRUSTED:
            first = held.reach("gw1", epoch, boot, size)
        elif state is State.FAILED:
            first = held.reach_failed("gw1", epoch, boot, size, since=since)
        made = standing(state, first, size, epoch=0 if state is State.UNATTESTED else epoch)
        if state in {State.TRUSTED, State.FAILED}:
            made = replace(made, result=of_boot(boot, epoch, is_good=state is State.TRUSTED))
        held.add(size, made)
        assert not held.is_affirmed("gw1", size) or state.is_affirmed


def test_a_closed_day_is_stated_anew_when_its_leaves_turn_out_bad(tmp_path: Path) -> None:
    """The statement keeps its first version; the second, the tables, an export from its middle and explain agree."""
    hall = site(tmp_path, memory=False)
    hall.minutes(1100)
    hall.give()
    hall.now_ns += 2 * 60 * MINUTE
    hall.look()
    with hall.ledger.book.reading() as connection:
        (before,) = tables.newest_statements(connection)
    hall.appraised(log_size=500)
    hall.appraised("contraindicated")
    assert (hall.state, hall.standing.first) == (State.FAILED, 500)
    for _ in range(40):
        hall.now_ns += 5 * MINUTE
        hall.look()
    with hall.ledger.book.reading() as connection:
        (after,) = tables.newest_statements(connection)
        stated = tables.statements(connection, record=after.record)[-1]
    assert (before.version, after.version, after.record) == (1, 2, before.record)
    assert "standing" in stated.reason
    assert Decimal(flat(stated.figures)["energy_kwh"]) == hall.counted == 497
    assert explain_record(hall.config, after.record)["equal"] is True
    exported_as_in_the_tables(hall, Wish())
    exported_as_in_the_tables(hall, Wish(start_ns=T0 + 490 * MINUTE, end_ns=T0 + 600 * MINUTE))
    exported_as_in_the_tables(hall, Wish(start_ns=T0 + 700 * MINUTE, end_ns=T0 + 800 * MINUTE))
    hall.decide(600, 700, admit=True)
    exported_as_in_the_tables(hall, Wish(start_ns=T0 + 650 * MINUTE))
    same_when_rebuilt(hall)


# ---- clocks


def test_a_clock_that_is_set_back_keeps_nobody_trusted(tmp_path: Path) -> None:
    """Newer results are refused then, as from the future: an old good one must not hold for all these years."""
    hall = site(tmp_path)
    hall.run(1)
    hall.appraised()
    hall.now_ns -= YEARS
    hall.look()
    assert (hall.state, hall.standing.reason) == (State.STALE, "the newest good result is later than our clock")
    hall.now_ns += YEARS
    hall.appraised()
    assert hall.state is State.TRUSTED
    same_when_rebuilt(hall)


def test_a_good_result_of_a_clock_that_was_years_ahead_does_not_hold_for_years(tmp_path: Path) -> None:
    """The verifier's clock and ours were wrong together, as by one time server; bad results come as `not newer` now."""
    hall = site(tmp_path)
    hall.now_ns += YEARS
    hall.appraised()
    assert str(hall.state) == "TRUSTED"
    hall.now_ns -= YEARS
    hall.look()
    assert str(hall.state) == "STALE"
    hall.appraised()
    assert str(hall.state) == "STALE"
    (tmp_path / "state" / "results" / "gw1.json").unlink()  # as docs/quarantine.md says
    hall.restart()
    hall.appraised()
    assert hall.state is State.TRUSTED


def test_a_clock_that_was_years_ahead_for_a_moment_does_not_stop_the_closing_of_days(tmp_path: Path) -> None:
    """The day was closed too early, and is stated anew when its cells have come; no restart is needed."""
    hall = site(tmp_path)
    hall.run(5)
    for moved in (YEARS, 60 * MINUTE, -YEARS - 60 * MINUTE):
        hall.now_ns += moved
        hall.look()
    hall.appraised(issued_s=hall.now_ns // NS, expires_s=hall.now_ns // NS + 600)
    hall.minutes(1100)
    hand_over(hall)
    for _ in range(40):
        hall.now_ns += 5 * MINUTE
        hall.look()
    hall.appraised()
    for _ in range(40):
        hall.now_ns += 5 * MINUTE
        hall.look()
    with hall.ledger.book.reading() as connection:
        day, *_ = tables.newest_statements(connection)
        figures = flat(tables.statements(connection, record=day.record)[-1].figures)
    assert Decimal(figures["energy_kwh"]) > 1000


# ---- floods


def test_a_thousand_restarts_in_a_backlog_are_taken_in_seconds(tmp_path: Path) -> None:
    """Two standings say that they wait; the last epoch's leaves count when it is found good, and no other's."""
    hall = site(tmp_path)
    hall.run(1)
    before = len(hall.own("standing"))
    for _ in range(1000):
        last = hall.boot()
        hall.minutes(1)
    started_s = time.process_time()
    hand_over(hall)
    hall.look()
    assert len(hall.own("standing")) == before + 2
    assert (hall.state, hall.standing.first) == (State.PENDING, last)
    hall.appraised()
    assert time.process_time() - started_s < 20
    assert (hall.state, hall.standing.first, hall.quarantined) == (State.TRUSTED, last, 999)


def test_lookups_stay_quick_however_often_a_gateway_starts() -> None:
    """A day of restarts every few seconds, each with a leaf that is looked up: no piece is cut again for each."""
    held = Standings()
    started_s = time.process_time()
    for state in (State.PENDING, State.TRUSTED):
        held.add(0, standing(state, 0, 0))
    for number in range(20_000):
        held.note_epoch("gw1", 2 * number, number + 1, "k")
        assert held.is_affirmed("gw1", 2 * number + 1) == (number == 0)
    assert time.process_time() - started_s < 5


# ---- files that others may write


def test_notes_that_cannot_be_read_or_removed_do_not_stop_the_ledger(tmp_path: Path) -> None:
    """A pipe without a writer, a link, a folder by a note's name; and a true note beside them is taken."""
    hall = site(tmp_path)
    hall.run(2)
    folder = tmp_path / "state" / "decisions"
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "0.note")
    (folder / "1.note").symlink_to("/dev/zero")
    (folder / "2.note" / "x").mkdir(parents=True)
    hall.decide(hall.size() - 1, hall.size(), admit=False)
    assert (hall.counts.decisions, hall.counts.decisions_refused, hall.quarantined) == (1, 3, 1)
    for _ in range(3):
        hall.look()
    assert hall.counts.decisions_refused == 3
    assert hall.times("ledger.decision_stays") == 1


@pytest.mark.parametrize("said", ["[" * 30_000, '{"newest": 1e999, "good": [0]}', "\0", "{}"])
def test_results_that_cannot_be_read_are_as_none(tmp_path: Path, said: str) -> None:
    """The ledger starts, and trusts nobody by them."""
    hall = site(tmp_path)
    hall.run(1)
    kept(hall).write_text(said)
    hall.restart()
    assert hall.state is State.STALE


def kept(hall: Site) -> Path:
    """Return the file in which the ledger keeps what it heard of gw1."""
    return hall.folder / "state" / "results" / "gw1.json"


def test_nothing_beside_the_tokens_of_a_results_file_is_believed(tmp_path: Path) -> None:
    """Neither what was proven nor when: a failure reaches as far back, and nobody was found good in 2100."""
    hall = site(tmp_path)
    hall.run(1)
    good_ns = hall.now_ns // NS * NS
    hall.appraised()
    hall.run(4)
    more = {"proven": [1, 2**62], "verified_ns": 4_102_444_800 * NS, "issued_s": 0}
    kept(hall).write_text(json.dumps(json.loads(kept(hall).read_text()) | more))
    hall.restart()
    hall.appraised("contraindicated")
    assert (hall.state, hall.quarantined, hall.standing.verified_ns) == (State.FAILED, 4, good_ns)


def test_a_good_result_from_before_a_failure_is_not_taken_again(tmp_path: Path) -> None:
    """From the broker, once the results file is gone; nor out of the file, put there as the newest one."""
    hall = site(tmp_path)
    good = hall.appraised()
    hall.appraised("contraindicated")
    for said in (None, {"newest": good, "good": good}):
        kept(hall).unlink(missing_ok=True)
        if said is not None:
            kept(hall).write_text(json.dumps(said))
        hall.restart()
        hall.hear(good)
        hall.run(1)
        assert hall.state is State.FAILED
    assert hall.counts.results_refused == 1
    hall.appraised()
    assert str(hall.state) == "TRUSTED"


@pytest.mark.parametrize(
    "more", [{"gateway": "gw2"}, {"device": "WS-0002"}, {"key": Signer.generate("wattseal/gw1").verifier.vkey}]
)
def test_a_kept_result_about_another_gateway_makes_none_good(tmp_path: Path, more: dict[str, Any]) -> None:
    """It is the verifier's own, and of now."""
    hall = site(tmp_path)
    hall.appraised("contraindicated")
    token = hall.token(**more)
    kept(hall).write_text(json.dumps({"newest": token, "good": token}))
    hall.restart()
    assert hall.state is State.FAILED


# ---- what figures rest on


def test_a_rooms_model_rests_on_no_reading_that_is_in_quarantine(tmp_path: Path) -> None:
    """What `wattseal thermal` says that a set point would save is a figure like others."""
    hall = site(tmp_path, memory=False)
    hall.seal("schema", schema_body(ROOM))
    for indoor in (20.0, 99.0):
        for _ in range(8):
            row = Row(schema=ROOM, source_time_ns=hall.now_ns, values=(indoor, 30.0, 1000.0))
            hall.seal("readings", readings_body([row]))
            hall.now_ns += 15 * MINUTE
        hall.give()
        hall.appraised("affirming" if indoor < 50 else "contraindicated")
    assert hall.state is State.FAILED
    (tmp_path / "carbon.toml").write_text(
        '[thermal.hall]\ngateway = "gw1"\nzone = "DEMO"\nindoor = "room.indoor"\noutdoor = "room.outdoor"\n'
        'power = "room.power"\ncop = 3.0\n'
    )
    toml = hall.toml.replace("[broker]", 'plan = "carbon.toml"\n[broker]')
    config = parse_ledger(toml, name="ledger.toml", folder=tmp_path)
    room = read_room(config, "hall", start_ns=T0, end_ns=hall.now_ns)
    assert len(room.readings) >= 8
    assert {reading.indoor_c for reading in room.readings} == {20.0}


# ---- exports


def test_no_export_counts_an_epoch_that_the_ledger_has_not_looked_at(tmp_path: Path) -> None:
    """A ledger that was killed before it sealed that two epochs wait: the export would show the newest alone."""
    hall = site(tmp_path, memory=False)
    hall.run(2)
    hall.boot()
    hall.minutes(2)
    hall.boot()
    hall.minutes(2)
    hand_over(hall)
    assert (hall.quarantined, hall.standing.epoch) == (4, 1)
    with pytest.raises(ConfigError, match="has begun epoch 2"):
        gather(hall.config, Wish())
    hall.look()
    exported_as_in_the_tables(hall, Wish())
    hall.ledger.close()


@pytest.mark.parametrize("more", [{"key": Signer.generate("wattseal/gw1").verifier.vkey}, {"device": "WS-0002"}])
def test_an_auditor_refuses_a_true_result_about_another_key_or_device(tmp_path: Path, more: dict[str, Any]) -> None:
    """A verifier's word on the cloned disk's device, put under this one's standing by whoever has the ledger's key."""
    hall = site(tmp_path)
    key = hall.signer.verifier.vkey
    for said, why in (({}, ""), (more, "about something else")):
        held = Standings()
        held.note_epoch("gw1", 0, 1, key)
        for state in (State.PENDING, State.TRUSTED):
            result = hall.token(**said) if state is State.TRUSTED else ""
            held.add(1, standing(state, 0, 0, t_ns=hall.now_ns, result=result))
        trust, devices = [VERIFIER.verifier.vkey], {"gw1": "WS-0001"}
        if not why:
            assert check_standings(held, devices, ledger=LEDGER, trust=trust, devices=devices)[0].checked
            continue
        with pytest.raises(TrustError, match=why):
            check_standings(held, devices, ledger=LEDGER, trust=trust, devices=devices)


def test_an_auditor_who_names_officers_refuses_a_decision_by_another_one(tmp_path: Path) -> None:
    """Whoever has the ledger's key makes up an officer, who readmits what failed."""
    hall = site(tmp_path, memory=False)
    hall.appraised()
    hall.appraised("contraindicated")
    hall.run(2)
    ghost = Signer.generate("wattseal-officer/ghost")
    (tmp_path / "officers").write_text(ghost.verifier.vkey + "\n")
    hall.decide(hall.size() - 1, hall.size(), admit=True, signer=ghost)
    files = gather(hall.config, Wish())
    assert [one.checked for one in verify(files, [WITNESS.verifier.vkey]).decisions] == [False]
    with pytest.raises(TrustError, match="no officer whom you named"):
        verify(files, [WITNESS.verifier.vkey, OFFICER.verifier.vkey])
    assert verify(files, [WITNESS.verifier.vkey, ghost.verifier.vkey]).decisions[0].checked
    hall.ledger.close()


def bent(files: dict[str, bytes], path: str, kind: str) -> dict[str, bytes]:
    """Return an export without the first leaves of a kind, all but its last, its manifest signed again."""
    lines = files[path].splitlines(keepends=True)
    out = [line for line in lines if parse(decode_base64(json.loads(line)["leaf"])).kind == kind]
    out = out if kind == "standing" else out[:-1]
    made = {**files, path: b"".join(line for line in lines if line not in out)}
    del made[MANIFEST]
    return {**made, MANIFEST: WITNESS.sign_note(pack_manifest(made))}


def test_an_export_of_a_device_without_any_state_is_refused(tmp_path: Path) -> None:
    """All standings are left out, from the newest to the first: the chain holds, and each leaf would count."""
    hall = site(tmp_path, memory=False)
    hall.run(2)
    with pytest.raises(TrustError, match="no state of gateway 'gw1' is shown"):
        verify(bent(gather(hall.config, Wish()), LEDGER_LEAVES, "standing"))
    hall.ledger.close()


def test_no_leaf_of_a_key_that_a_tpm_has_bound_counts_as_unattested(tmp_path: Path) -> None:
    """By whoever has the ledger's key, on a device that failed; a good start of it later hides nothing."""
    hall = site(tmp_path, memory=False)
    hall.run(1)
    hall.appraised()
    hall.appraised("contraindicated")
    hall.ledger.seal("standing", standing_body(standing(State.UNATTESTED, hall.size(), hall.size(), epoch=0)))
    hall.minutes(3)
    hand_over(hall)
    assert (hall.counted, hall.quarantined) == (1, 3)
    hall.look()
    hall.boot()
    hall.run(1)
    hall.appraised()
    hall.run(1)
    exported_as_in_the_tables(hall, Wish())
    same_when_rebuilt(hall)
    files = gather(hall.config, Wish())
    (line,) = verify(files).lines
    assert [(one.state, one.leaves) for one in line.alone] == [("PENDING", 3)]
    with pytest.raises(TrustError, match="it counts as UNATTESTED, and no epoch leaf before it shows"):
        verify(bent(files, leaves_path("gw1"), "epoch"))


def test_an_earlier_epoch_cannot_stand_for_one_that_a_tpm_has_bound() -> None:
    """Whoever makes the export shows the one without a TPM, and leaves out the one with: standings know of it."""
    held = Standings()
    for index, one in enumerate(
        (standing(State.PENDING, 20, 20, epoch=2), standing(State.UNATTESTED, 30, 30, epoch=0))
    ):
        held.add(index, one)
    held.note_epoch("gw1", 0, 1, "k1")
    assert held.alone("gw1", 31) is State.UNATTESTED
    assert not held.is_unbound("gw1", 31)
    assert held.is_unbound("gw1", 19)


class Moving(Site):
    """A site whose gateway has its key in a file at first, and in ledger.toml."""

    is_pinned = True

    @property
    def toml(self) -> str:
        """With `key = ` or with `device = `."""
        device = '[gateways.gw1]\ndevice = "WS-0001"'
        return super().toml.replace(device, '[gateways.gw1]\nkey = "gw1.vkey"') if self.is_pinned else super().toml

    def begin(self) -> None:
        """Start the gateway without its TPM."""
        self.epoch += 1
        self.signer, self.announced = SIGNERS["gw1"], b""
        self.seal("epoch", epoch_body(self.epoch, self.signer.verifier.vkey, {"type": "unattested"}))
        if self.epoch == 1:
            self.seal("schema", line_body(LINE))

    def move(self, *, is_pinned: bool) -> None:
        """Change ledger.toml, and restart the ledger."""
        self.is_pinned = is_pinned
        self.restart()


def test_a_gateway_that_moves_between_a_key_and_a_device_counts_and_each_verdict_says_how(tmp_path: Path) -> None:
    """Its own log shows that no TPM has bound the key: UNATTESTED holds, and is said for each range."""
    hall = Moving(tmp_path, windows=((-600, 6000, "400"),), memory=False)
    hall.begin()
    hall.run(3)
    hall.move(is_pinned=False)
    hall.boot()
    hall.run(2)
    hall.appraised()
    assert (hall.counted, hall.quarantined) == (4, 0)
    hall.move(is_pinned=True)
    hall.begin()
    hall.run(3)
    hall.move(is_pinned=False)
    hall.boot()
    hall.run(1)
    hall.appraised()
    exported_as_in_the_tables(hall, Wish())
    files = gather(hall.config, Wish())
    (line,) = verify(files, [WITNESS.verifier.vkey, VERIFIER.verifier.vkey]).lines
    assert [(one.state, one.leaves) for one in line.alone if one.state == "UNATTESTED"] == [
        ("UNATTESTED", 2),
        ("UNATTESTED", 3),
    ]
    out = tmp_path / "out"
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    found = CliRunner().invoke(wattseal, ["verify", str(out)])
    for count in (2, 3):
        assert f"{count} intervals count as UNATTESTED, leaves " in found.output
    assert "BY THE LEDGER'S WORD ALONE" in found.output
    same_when_rebuilt(hall)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.FAILED, None),
        (State.FAILED, {"status": "affirming"}),
        (State.FAILED, {"status": "contraindicated", "signer": Signer.generate("wattseal-verifier/site")}),
        (State.FAILED, {"status": "contraindicated", "epoch": 2}),
        (State.FAILED, {"status": "contraindicated", "device": "WS-0002"}),
        (State.FAILED, {"status": "contraindicated", "issued_s": 10**9, "expires_s": 10**9 + 600}),
        (State.UNREACHABLE, None),
        (State.UNREACHABLE, {"status": "contraindicated"}),
        (State.UNREACHABLE, {"status": "none", "gateway": "gw2", "vector": {}}),
    ],
)
def test_an_auditor_refuses_a_bad_state_that_no_verifier_has_found(
    tmp_path: Path, state: State, said: dict[str, Any] | None
) -> None:
    """Else the ledger's owner drops inconvenient intervals in a verifier's name."""
    hall = site(tmp_path)
    true: dict[str, Any] = {"status": "none", "vector": {}}
    if state is State.FAILED:
        true = {"status": "contraindicated"}
    for token, why in ((hall.token(**true), ""), ("" if said is None else hall.token(**said), f"{state} by no result")):
        held = Standings()
        held.note_epoch("gw1", 0, 1, hall.signer.verifier.vkey)
        held.add(1, standing(State.PENDING, 0, 0))
        held.add(2, standing(state, 0, 0, t_ns=hall.now_ns, result=token))
        trust, devices = [VERIFIER.verifier.vkey], {"gw1": "WS-0001"}
        if not why:
            (found,) = check_standings(held, devices, ledger=LEDGER, trust=trust, devices=devices)
            assert (found.checked, found.results, found.bad) == (True, 0, 1)
            continue
        with pytest.raises(TrustError, match=why):
            check_standings(held, devices, ledger=LEDGER, trust=trust, devices=devices)


def test_an_auditor_refuses_a_bad_result_that_is_used_again(tmp_path: Path) -> None:
    """It was true, and a good one has come since."""
    hall = site(tmp_path)
    bad = hall.token("contraindicated")
    hall.now_ns += NS
    held = Standings()
    for index, (state, token) in enumerate(
        [(State.PENDING, ""), (State.FAILED, bad), (State.TRUSTED, hall.token()), (State.FAILED, bad)]
    ):
        held.add(index, standing(state, 5, 5, t_ns=hall.now_ns, result=token))
    with pytest.raises(TrustError, match="older than the one before it"):
        check_standings(held, ["gw1"], ledger=LEDGER, trust=[VERIFIER.verifier.vkey], devices={})


def test_what_the_ledger_seals_when_its_disk_has_room_again_an_auditor_takes(tmp_path: Path) -> None:
    """A bad result that has run out meanwhile is none; the next one says the same."""
    hall = site(tmp_path)
    hall.run(1)
    hall.appraised()
    disk = hall.disk(None)
    disk.room = sum(disk.size(path) or 0 for path in disk.paths())
    hall.unreachable()
    hall.appraised("contraindicated")
    hall.now_ns += 2000 * NS
    disk.room = None
    hall.look()
    hall.look()
    assert str(hall.state) == "UNREACHABLE"
    hall.appraised("contraindicated")
    assert str(hall.state) == "FAILED"
    held, trust = hall.ledger.facts.standings, [VERIFIER.verifier.vkey]
    (found,) = check_standings(held, ["gw1"], ledger=LEDGER, trust=trust, devices={})
    assert (found.results, found.bad, found.checked) == (1, 2, True)


# ---- decisions


def test_a_decision_dated_in_the_future_is_refused(tmp_path: Path) -> None:
    """It could never be undone: each later one would come before it."""
    hall = site(tmp_path)
    hall.run(2)
    first, stop = hall.size() - 1, hall.size()
    hall.decide(first, stop, admit=False, made_ns=253_370_764_800 * NS)
    hall.decide(first, stop, admit=False, made_ns=hall.now_ns + 70 * NS)
    assert (hall.quarantined, hall.counts.decisions_refused) == (0, 2)
    hall.decide(first, stop, admit=False, made_ns=hall.now_ns + 50 * NS)
    assert (hall.quarantined, hall.counts.decisions) == (1, 1)
    hall.now_ns += MINUTE
    hall.decide(first, stop, admit=True)
    assert (hall.quarantined, hall.counts.decisions) == (0, 2)


def test_an_officer_whose_clock_is_behind_a_decision_is_told_before_he_signs(tmp_path: Path) -> None:
    """The ledger would refuse it, and say so in its own log lines alone."""
    hall = site(tmp_path, memory=False)
    hall.run(2)
    (tmp_path / "jane.key").write_text(OFFICER.to_text() + "\n")
    hall.decide(hall.size() - 1, hall.size(), admit=False)
    concern = concern_of(
        hall.config, Wanted(gateway="gw1", leaves=(hall.size() - 1, hall.size()), start_ns=None, end_ns=None)
    )
    with pytest.raises(ConfigError, match=r"clock: got 2026-.*not made after the one before it"):
        decide(hall.config, concern, admit=True, reason="r", key=tmp_path / "jane.key", now_ns=lambda: T0)
    assert decide(hall.config, concern, admit=True, reason="r", key=tmp_path / "jane.key", now_ns=lambda: hall.now_ns)
    hall.ledger.close()
