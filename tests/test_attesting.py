"""The ledger as relying party: which leaves of an attested gateway enter figures, and what is refused."""

from pathlib import Path

import pytest

from gateway.model import State
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftDevice
from tests.relying import AUTHORITY, MINUTE, NS, OFFICER, Site, site

OTHER = SoftDevice("WS-0002", authority=AUTHORITY)


def same_when_rebuilt(hall: Site) -> None:
    """Fail unless the tables are what the logs alone give."""
    live = hall.dump()
    hall.ledger.close()
    again = hall.dump_rebuilt()
    assert [line for line in again if line not in set(live)] == []
    assert again == live


def test_nothing_counts_before_the_first_result_and_all_of_it_after(tmp_path: Path) -> None:
    """PENDING from leaf 0 on; a good result reaches back to the epoch's leaf."""
    hall = Site(tmp_path, windows=((-600, 6000, "400"),))
    assert (hall.state, hall.standing.first) == (State.PENDING, 0)
    hall.boot()
    hall.give()
    hall.run(5)
    assert (hall.counted, hall.quarantined) == (0, 5)
    hall.appraised()
    assert (hall.state, hall.standing.first, hall.standing.size) == (State.TRUSTED, 0, 7)
    assert (hall.counted, hall.quarantined) == (4, 0)
    same_when_rebuilt(hall)


def test_a_drifted_gateway_is_kept_whole_and_not_one_figure_rests_on_it_until_it_is_readmitted(tmp_path: Path) -> None:
    """FAILED from the leaf at which it was found so; leaves are kept and receipted; an officer readmits them."""
    hall = site(tmp_path)
    hall.run(3)
    hall.appraised()
    assert hall.counted == 3
    failed_at = hall.size()
    hall.appraised("contraindicated")
    hall.run(4)
    assert (hall.state, hall.standing.first) == (State.FAILED, failed_at)
    assert "PCR 4 differs" in hall.standing.reason
    assert (hall.counted, hall.quarantined, hall.size()) == (3, 4, failed_at + 4)
    same_when_rebuilt(hall)
    hall.decide(failed_at, hall.size(), admit=True)
    assert (hall.counted, hall.quarantined) == (7, 0)
    same_when_rebuilt(hall)


def test_a_bad_result_reaches_back_to_what_the_last_good_one_vouched_for(tmp_path: Path) -> None:
    """Nobody knows when between the two it went wrong; also after a restart of the ledger; in its boot alone."""
    hall = site(tmp_path)
    hall.run(2)
    hall.appraised()
    vouched = hall.size()
    hall.run(3)
    assert hall.counted == 5
    hall.restart()
    hall.appraised("contraindicated")
    assert (hall.state, hall.standing.first, hall.standing.size) == (State.FAILED, vouched, hall.size())
    assert (hall.counted, hall.quarantined) == (2, 3)
    same_when_rebuilt(hall)
    began = hall.size()
    hall.boot()
    hall.run(2)
    hall.appraised("contraindicated")
    assert hall.standing.first >= began
    hall.appraised()
    hall.run(1)
    assert (hall.state, hall.quarantined) == (State.TRUSTED, 5)
    assert hall.counted == 8  # over the hole the meter's own count, between leaves that are affirmed
    same_when_rebuilt(hall)


def test_another_key_of_the_seal_washes_no_drift(tmp_path: Path) -> None:
    """A seal that starts again needs no reset of the TPM: what came after the last good result is out all the same."""
    hall = site(tmp_path)
    hall.run(2)
    hall.appraised()
    vouched = hall.size()
    hall.run(3)
    hall.renew()
    hall.run(1)
    hall.appraised("contraindicated")
    assert (hall.state, hall.standing.first, hall.quarantined) == (State.FAILED, vouched, 4)
    same_when_rebuilt(hall)


def test_a_verifier_that_was_away_while_keys_changed_leaves_nothing_to_a_person(tmp_path: Path) -> None:
    """Of the same start of the device; what a start before it left waiting, stays until somebody decides."""
    hall = site(tmp_path)
    hall.run(2)
    hall.appraised()
    hall.now_ns += 2000 * NS
    hall.look()
    for begin in (hall.renew, hall.renew):
        hall.run(2)
        begin()
    hall.run(2)
    assert (hall.state, hall.quarantined) == (State.PENDING, 6)
    hall.appraised()
    assert (hall.state, hall.counted, hall.quarantined) == (State.TRUSTED, 8, 0)
    same_when_rebuilt(hall)
    hall.now_ns += 2000 * NS
    hall.look()
    hall.run(2)
    hall.boot()
    hall.run(2)
    hall.appraised()
    assert (hall.state, hall.quarantined) == (State.TRUSTED, 2)
    same_when_rebuilt(hall)


def test_a_good_result_ends_a_failure_without_a_person_and_its_leaves_stay_in_quarantine(tmp_path: Path) -> None:
    """Recovery is from the size at that moment on; the energy of the hole is the difference over it, spread."""
    hall = site(tmp_path)
    hall.run(3)
    hall.appraised()
    hall.appraised("contraindicated")
    hall.run(4)
    hall.appraised()
    assert (hall.state, hall.standing.first) == (State.TRUSTED, hall.size())
    assert (hall.counted, hall.quarantined) == (3, 4)
    hall.run(2)
    assert (hall.counted, hall.quarantined) == (9, 4)
    same_when_rebuilt(hall)


def test_a_warning_is_not_good_enough(tmp_path: Path) -> None:
    """Figures rest on what is affirmed."""
    hall = site(tmp_path)
    hall.appraised("warning")
    assert hall.state is State.FAILED
    assert hall.standing.reason.startswith("warning: ")


def test_a_restarted_gateway_waits_for_a_result_of_its_new_epoch_from_that_leaf_on(tmp_path: Path) -> None:
    """The old epoch's good result covers nothing of the next, also before the ledger has sealed that it waits."""
    hall = site(tmp_path)
    hall.run(2)
    began = hall.boot()
    hall.minutes(3)
    hall.give()
    assert (hall.state, hall.standing.first, hall.standing.epoch) == (State.PENDING, began, 2)
    assert (hall.counted, hall.quarantined) == (2, 3)
    hall.appraised()
    assert (hall.state, hall.standing.first) == (State.TRUSTED, began)
    assert (hall.counted, hall.quarantined) == (5, 0)
    same_when_rebuilt(hall)


def test_a_restart_does_not_wash_the_failure_before_it(tmp_path: Path) -> None:
    """A good result of the new epoch reaches back to its own leaf and no further."""
    hall = site(tmp_path)
    hall.appraised()
    hall.appraised("contraindicated")
    hall.run(3)
    began = hall.boot()
    hall.run(2)
    hall.appraised()
    assert (hall.state, hall.standing.first) == (State.TRUSTED, began)
    assert hall.quarantined == 3
    same_when_rebuilt(hall)


def test_a_good_result_that_is_too_old_makes_the_gateway_stale_by_the_ledgers_clock(tmp_path: Path) -> None:
    """STALE when it expires; the next good result of the same epoch reaches back to that moment."""
    hall = site(tmp_path)
    hall.run(8)
    assert str(hall.state) == "TRUSTED"
    hall.run(3)
    assert str(hall.state) == "STALE"
    stale_at, counted = hall.standing.first, hall.counted
    hall.run(2)
    assert hall.counted == counted
    assert hall.quarantined == hall.size() - stale_at
    hall.appraised()
    assert (hall.state, hall.standing.first) == (State.TRUSTED, stale_at)
    assert (hall.counted, hall.quarantined) == (13, 0)
    same_when_rebuilt(hall)


def test_an_unreachable_gateway_waits_and_a_good_result_reaches_back(tmp_path: Path) -> None:
    """UNREACHABLE leaves only waited: nothing of them is lost."""
    hall = site(tmp_path)
    hall.unreachable()
    assert (hall.state, hall.standing.reason) == (State.UNREACHABLE, "no answer")
    hall.run(3)
    assert (hall.counted, hall.quarantined) == (0, 3)
    hall.appraised()
    assert (hall.state, hall.counted, hall.quarantined) == (State.TRUSTED, 3, 0)
    same_when_rebuilt(hall)


def test_silence_after_a_failure_is_no_news(tmp_path: Path) -> None:
    """FAILED stays, so that nothing reaches back over it."""
    hall = site(tmp_path)
    hall.appraised("contraindicated")
    hall.run(1)
    hall.unreachable()
    assert hall.state is State.FAILED


def test_the_ledger_refuses_a_result_that_is_replayed_forged_or_about_something_else(tmp_path: Path) -> None:
    """Each is counted, and changes nothing."""
    hall = site(tmp_path)
    good = hall.appraised()
    bad = hall.appraised("contraindicated")
    hall.run(1)
    other = Signer.generate("wattseal-verifier/site")
    for token in (
        good,
        bad,
        hall.token(signer=other),
        hall.token(epoch=7),
        hall.token(key=Signer.generate("wattseal/gw1").verifier.vkey),
        hall.token(device=OTHER.serial),
        hall.token(gateway="gw2"),
        hall.token(issued_s=hall.now_ns // NS - 3000, expires_s=hall.now_ns // NS - 2400, verified_s=1),
        "no token",
    ):
        before = hall.counts.results_refused
        hall.hear(token)
        assert hall.counts.results_refused == before + 1
        assert hall.state is State.FAILED
    assert hall.times("ledger.result_refused") == 1


def test_a_result_of_the_epoch_before_is_refused_after_a_restart_of_the_gateway(tmp_path: Path) -> None:
    """It was good, and is about another start of the device."""
    hall = site(tmp_path)
    hall.now_ns += NS
    late = hall.token()
    hall.boot()
    hall.give()
    hall.hear(late)
    assert (hall.state, hall.counts.results_refused) == (State.PENDING, 1)


def test_a_restarted_ledger_knows_what_it_was_told_and_refuses_replays(tmp_path: Path) -> None:
    """Results are kept in its folder, and verified again."""
    hall = site(tmp_path)
    good = hall.appraised()
    hall.appraised("contraindicated")
    hall.restart()
    hall.hear(good)
    assert (hall.state, hall.counts.results_refused) == (State.FAILED, 1)
    hall.appraised()
    hall.restart()
    hall.run(2)
    assert (hall.state, hall.counted) == (State.TRUSTED, 2)


def test_a_ledger_that_forgot_its_results_trusts_nobody_until_the_next_one(tmp_path: Path) -> None:
    """Whoever empties the folder makes gateways stale, never good."""
    hall = site(tmp_path)
    (tmp_path / "state" / "results" / "gw1.json").unlink()
    hall.restart()
    assert hall.state is State.STALE
    hall.run(1)
    hall.appraised()
    assert (hall.state, hall.counted) == (State.TRUSTED, 1)


def test_a_verifier_that_restarts_is_followed(tmp_path: Path) -> None:
    """The ledger needs nothing of its memory: results go on by their time."""
    hall = site(tmp_path)
    hall.run(1)
    hall.appraised(verified_s=hall.now_ns // NS)
    hall.run(1)
    assert (hall.state, hall.counted) == (State.TRUSTED, 2)


def test_a_decision_takes_effect_can_be_undone_and_is_never_taken_twice(tmp_path: Path) -> None:
    """The newest decision wins; a replay of an earlier one is refused."""
    hall = site(tmp_path)
    hall.run(4)
    first, stop = hall.size() - 2, hall.size()
    hall.run(2)
    quarantine = hall.decide(first, stop, admit=False)
    assert (hall.counted, hall.quarantined) == (6, 2)
    assert "jane" in hall.ledger.facts.standings.why("gw1", first)
    same_when_rebuilt(hall)
    hall.decide(first, stop, admit=True)
    assert (hall.counted, hall.quarantined, hall.counts.decisions) == (6, 0, 1)
    hall.drop(quarantine)
    assert (hall.quarantined, hall.counts.decisions_refused) == (0, 1)
    same_when_rebuilt(hall)


def test_a_quarantined_tail_loses_its_figures_and_gets_them_back(tmp_path: Path) -> None:
    """Also the cells at the line's end, which are still open."""
    hall = site(tmp_path)
    hall.run(4)
    hall.decide(hall.size() - 2, hall.size(), admit=False)
    assert (hall.counted, hall.quarantined) == (2, 2)
    hall.decide(hall.size() - 2, hall.size(), admit=True)
    assert (hall.counted, hall.quarantined) == (4, 0)
    hall.run(1)
    assert hall.counted == 5
    same_when_rebuilt(hall)


def test_forged_foreign_and_impossible_decisions_are_refused(tmp_path: Path) -> None:
    """Only an officer of ledger.toml decides, for this ledger, on leaves that are here."""
    hall = site(tmp_path)
    hall.appraised("contraindicated")
    hall.run(3)
    first, stop = hall.standing.first, hall.size()
    hall.decide(first, stop, admit=True, signer=Signer.generate("wattseal-officer/jane"))
    hall.decide(first, stop, admit=True, signer=Signer.generate("wattseal-officer/joe"))
    hall.decide(first, stop, admit=True, ledger="wattseal-ledger/other")
    hall.decide(first, stop + 1, admit=True)
    hall.decide(0, 1, admit=True)
    hall.decide(first, stop, admit=True, gateway="gw9")
    hall.drop(b"no note\n")
    hall.drop(hall.decide(first, stop, admit=False).replace(b"quarantine", b"readmit"))
    assert (hall.counted, hall.counts.decisions, hall.counts.decisions_refused) == (0, 1, 8)


def test_a_pinned_gateway_is_unattested_and_counts(tmp_path: Path) -> None:
    """No standing is sealed of it."""
    hall = site(tmp_path)
    standings = hall.ledger.facts.standings
    assert standings.newest("gw2") is None
    assert standings.is_affirmed("gw2", 5)
    hall.look()
    assert (hall.counts.gateways_trusted, hall.counts.gateways_unattested) == (1, 1)


def test_each_transition_is_an_event_and_each_state_is_counted(tmp_path: Path) -> None:
    """Sealed beside the standing, once."""
    hall = site(tmp_path)
    hall.appraised()
    hall.appraised("contraindicated")
    hall.run(2)
    said = [leaf.body["about"]["state"] for leaf in hall.own("event") if leaf.body["what"] == "gateway.standing"]
    assert said == ["PENDING", "PENDING", "TRUSTED", "FAILED"]
    hall.now_ns += MINUTE
    hall.look()
    assert (hall.counts.gateways_failed, hall.counts.quarantined) == (1, 2)


@pytest.mark.parametrize("full", [0, 300])
def test_a_full_disk_delays_a_standing_and_loses_nothing(tmp_path: Path, full: int) -> None:
    """It is sealed at the next look, and the figures are those of the logs."""
    hall = site(tmp_path)
    hall.run(2)
    disk = hall.disk(None)
    disk.room = sum(disk.size(path) or 0 for path in disk.paths()) + full
    hall.appraised("contraindicated")
    disk.room = None
    hall.look()
    hall.run(2)
    assert hall.state is State.FAILED
    same_when_rebuilt(hall)


def test_officers_are_read_when_a_decision_comes(tmp_path: Path) -> None:
    """One who was removed decides nothing any more, without a restart."""
    hall = site(tmp_path)
    hall.run(2)
    (tmp_path / "officers").write_text("")
    hall.decide(hall.size() - 1, hall.size(), admit=False, signer=OFFICER)
    assert (hall.quarantined, hall.counts.decisions_refused) == (0, 1)
