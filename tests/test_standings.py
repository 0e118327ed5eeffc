"""On which leaves figures may rest: the rule itself, as the ledger and an offline verifier both apply it."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attest.decision import DECISION, Ruling, read_ruling, sign_ruling, verify_ruling
from gateway.carbon.standings import Standings
from gateway.errors import TrustError
from gateway.model import Decision, Standing, State
from gateway.tlog.note import Signer
from tests.ears import of_boot

JANE, JOE = Signer.generate("wattseal-officer/jane"), Signer.generate("wattseal-officer/joe")
LEDGER = "wattseal-ledger/acme"
RULING = Ruling(
    ledger=LEDGER, gateway="gw1", first=10, stop=20, admit=True, made_ns=10**18, by=JANE.name, reason="looked at it"
)


def standing(state: State, first: int, size: int | None = None, *, epoch: int = 1, boot: str = "") -> Standing:
    """Return a standing of gw1. boot: of the result that is with it, "" for none."""
    return Standing(
        gateway="gw1",
        first=first,
        size=first if size is None else size,
        state=state,
        reason="why",
        epoch=epoch,
        t_ns=0,
        verified_ns=None,
        start_ns=None,
        end_ns=None,
        result=of_boot(boot, epoch, is_good=state is State.TRUSTED) if boot else "",
    )


def of(*sealed: Standing) -> Standings:
    """Return standings in the order in which they were sealed."""
    made = Standings()
    for index, one in enumerate(sealed):
        made.add(index, one)
    return made


def decision(ruling: Ruling = RULING, signer: Signer = JANE, **more: Any) -> Decision:
    """Return the decision of a ruling."""
    said: dict[str, Any] = {
        "gateway": ruling.gateway,
        "first": ruling.first,
        "stop": ruling.stop,
        "admit": ruling.admit,
    }
    note = sign_ruling(ruling, signer)
    return Decision(**({**said, "start_ns": 0, "end_ns": 1, "note": note} | more))


def affirmed(standings: Standings, stop: int = 30) -> str:
    """Return a mark a leaf: + where figures may rest on it."""
    return "".join("+" if standings.is_affirmed("gw1", index) else "-" for index in range(stop))


def test_a_gateway_without_standings_is_used() -> None:
    """Its key is pinned: UNATTESTED."""
    assert affirmed(Standings(), 3) == "+++"
    assert Standings().at("gw1", 0) is None


def test_each_standing_holds_from_its_first_leaf_to_the_next_ones() -> None:
    """Leaves before the first one were accepted without attestation."""
    held = of(standing(State.PENDING, 2), standing(State.TRUSTED, 4), standing(State.FAILED, 6))
    assert affirmed(held, 8) == "++--++--"
    assert held.why("gw1", 7) == "FAILED: why"


def test_a_bad_result_reaches_back_over_what_was_trusted_in_its_epoch() -> None:
    """To the size of the log that the last good one was about."""
    assert affirmed(of(standing(State.TRUSTED, 0), standing(State.FAILED, 3, 9)), 10) == "+++-------"


def test_a_good_result_reaches_back_over_what_only_waited() -> None:
    """PENDING, STALE and UNREACHABLE."""
    waited = [standing(State.PENDING, 0), standing(State.UNREACHABLE, 3), standing(State.STALE, 5)]
    assert of(*waited).reach("gw1", 1, "", 9) == 0
    assert affirmed(of(*waited, standing(State.TRUSTED, 0, 9)), 10) == "++++++++++"


@pytest.mark.parametrize(
    ("sealed", "reaching"),
    [
        ([standing(State.PENDING, 0), standing(State.FAILED, 3)], standing(State.TRUSTED, 0, 9)),
        ([standing(State.PENDING, 0), standing(State.FAILED, 9)], standing(State.TRUSTED, 0, 9)),
        ([standing(State.FAILED, 3)], standing(State.TRUSTED, 3, 9)),
        ([standing(State.PENDING, 0), standing(State.PENDING, 5, 8, epoch=2)], standing(State.TRUSTED, 0, 9, epoch=2)),
        ([standing(State.PENDING, 0)], standing(State.TRUSTED, 0, 9, epoch=2)),
        ([standing(State.PENDING, 4)], standing(State.TRUSTED, 0, 9)),
        ([standing(State.TRUSTED, 4)], standing(State.TRUSTED, 2, 9)),
        ([standing(State.TRUSTED, 4)], standing(State.FAILED, 3, 9)),
        ([standing(State.TRUSTED, 0), standing(State.PENDING, 5, epoch=2)], standing(State.FAILED, 4, 9, epoch=2)),
        ([standing(State.TRUSTED, 4)], standing(State.PENDING, 5, 9)),
        ([standing(State.PENDING, 0, 9)], standing(State.STALE, 5, 8)),
        ([], standing(State.TRUSTED, 0, 9)),
    ],
)
def test_a_standing_that_reaches_over_what_it_must_not_is_refused(sealed: list[Standing], reaching: Standing) -> None:
    """Over FAILED, over another epoch, over leaves from before attestation, or with a result that is no good one."""
    held = of(*sealed)
    before = affirmed(held)
    with pytest.raises(TrustError, match="standing: "):
        held.add(9, reaching)
    assert affirmed(held) == before


WAITED = (
    standing(State.PENDING, 0, 0),
    standing(State.TRUSTED, 0, 2, boot="a:1:0"),
    standing(State.STALE, 4),
    standing(State.PENDING, 6, 8, epoch=2),
    standing(State.PENDING, 9, 10, epoch=3),
)
"""An epoch that was found good, then two that nobody has appraised: keys change daily, and with each start."""


def begun(held: Standings) -> Standings:
    """Let the gateway's own log say where its epochs began."""
    for number, index in enumerate((0, 6, 9), start=1):
        held.note_epoch("gw1", index, number, f"k{number}")
    return held


def test_a_good_result_reaches_back_over_earlier_epochs_of_its_boot() -> None:
    """Also over one that was never appraised, between two of one boot; and not over those of another."""
    held = begun(of(*WAITED))
    assert held.reach("gw1", 3, "a:1:0", 12) == 4
    held.add(9, standing(State.TRUSTED, 4, 12, epoch=3, boot="a:1:0"))
    assert affirmed(held, 12) == "+" * 12
    other = begun(of(*WAITED))
    assert [other.reach("gw1", 3, boot, 12) for boot in ("a:2:0", "")] == [9, 9]
    for boot in ("a:2:0", "a:1:1", "b:1:0", ""):
        with pytest.raises(TrustError, match="one boot"):
            other.add(9, standing(State.TRUSTED, 4, 12, epoch=3, boot=boot))


def test_a_good_result_says_nothing_of_a_later_epoch_of_its_boot() -> None:
    """What is later, nobody has looked at yet."""
    held = begun(of(*WAITED[:2]))
    held.note_epoch("gw1", 11, 4, "k4")
    held.add(9, standing(State.TRUSTED, 2, 2, epoch=1, boot="a:1:0"))
    assert affirmed(held, 14) == "++++++--------"


def test_a_bad_result_reaches_back_over_earlier_epochs_of_its_boot() -> None:
    """To what the last good one vouched for: another key of the seal washes nothing."""
    sealed = (*WAITED[:2], standing(State.PENDING, 6, 8, epoch=2))
    held = begun(of(*sealed))
    assert held.reach_failed("gw1", 2, "a:1:0", 9, since=2) == 2
    held.add(9, standing(State.FAILED, 2, 9, epoch=2, boot="a:1:0"))
    assert affirmed(held, 9) == "++-------"
    other = begun(of(*sealed))
    assert other.reach_failed("gw1", 2, "a:2:0", 9, since=2) == 6
    with pytest.raises(TrustError, match="one boot"):
        other.add(9, standing(State.FAILED, 2, 9, epoch=2, boot="a:2:0"))


def test_a_new_epoch_waits_before_that_is_sealed() -> None:
    """The gateway's own log says it."""
    held = of(standing(State.PENDING, 0), standing(State.TRUSTED, 0, 4))
    held.note_epoch("gw1", 0, 1, "k1")
    held.note_epoch("gw1", 6, 2, "k2")
    assert affirmed(held, 9) == "++++++---"
    found = held.at("gw1", 7)
    assert found is not None
    assert (found.state, found.first, found.epoch) == (State.PENDING, 6, 2)


def test_an_epoch_that_is_long_over_changes_nothing() -> None:
    """Who verifies an export knows some epochs alone."""
    held = of(standing(State.PENDING, 20, epoch=3), standing(State.TRUSTED, 20, 22, epoch=3))
    held.note_epoch("gw1", 5, 2, "k2")
    assert affirmed(held, 25) == "+" * 25


def test_the_newest_decision_wins_over_all_standings() -> None:
    """Readmitted, and quarantined again in part."""
    held = of(standing(State.PENDING, 0))
    held.decide(1, decision())
    assert affirmed(held, 22) == "-" * 10 + "+" * 10 + "--"
    later = replace(RULING, first=15, stop=25, admit=False, made_ns=RULING.made_ns + 1000)
    held.decide(2, decision(later))
    assert affirmed(held, 22) == "-" * 10 + "+" * 5 + "-" * 7
    assert held.why("gw1", 16) == "quarantined by wattseal-officer/jane: looked at it"


def test_a_replayed_decision_is_refused_and_one_on_other_leaves_is_not() -> None:
    """Later than all on its own leaves."""
    held = Standings()
    held.decide(1, decision())
    with pytest.raises(TrustError, match="replayed"):
        held.decide(2, decision())
    held.decide(3, decision(replace(RULING, first=20, stop=30)))


@pytest.mark.parametrize("more", [{"first": 9}, {"stop": 21}, {"admit": False}, {"gateway": "gw2"}])
def test_a_decision_leaf_that_says_something_else_than_its_note_is_refused(more: dict[str, Any]) -> None:
    """The officer signed the note."""
    with pytest.raises(TrustError, match="something else"):
        Standings().decide(1, decision(**more))


def test_lookups_agree_with_the_rule_read_word_by_word() -> None:
    """Random histories: the pieces that are looked up are what each leaf's newest standing and decision say."""
    for seed in range(300):
        dice, held, size, epoch = random.Random(seed), Standings(), 0, 1
        made = RULING.made_ns
        for index in range(dice.randrange(12)):
            size += dice.randrange(4)
            if dice.random() < 0.2:
                first = dice.randrange(25)
                ruling = replace(RULING, first=first, stop=first + dice.randrange(1, 6), admit=dice.random() < 0.5)
                made += 1000
                held.decide(index, decision(replace(ruling, made_ns=made)))
                continue
            state = dice.choice([State.TRUSTED, State.FAILED, State.STALE, State.PENDING])
            first = size
            if state is State.TRUSTED:
                first = held.reach("gw1", epoch, "", size)
            held.add(index, standing(state, first, size, epoch=epoch))
        for index in range(30):
            decided, at = held.decided("gw1", index), held.at("gw1", index)
            said = (at is None or at.state.is_affirmed) if decided is None else decided.decision.admit
            assert held.is_affirmed("gw1", index) == said
            assert (held.why("gw1", index) == "") == said


# --- the note ---


def test_a_ruling_is_read_as_it_was_signed() -> None:
    """And by its officer, for its ledger."""
    note = sign_ruling(RULING, JANE)
    assert note.startswith(DECISION.encode() + b"\nledger wattseal-ledger/acme\ngateway gw1\nleaves 10 20\nreadmit\n")
    assert read_ruling(note) == RULING
    assert verify_ruling(note, [JOE.verifier, JANE.verifier], ledger=LEDGER) == RULING


def test_a_ruling_by_another_key_name_or_for_another_ledger_is_refused() -> None:
    """Each by name."""
    note = sign_ruling(RULING, JANE)
    for officers, ledger, why in (
        ([], LEDGER, "no officer"),
        ([JOE.verifier], LEDGER, "no officer"),
        ([Signer.generate(JANE.name).verifier], LEDGER, "no known key"),
        ([JANE.verifier], "wattseal-ledger/other", "want one for"),
    ):
        with pytest.raises(TrustError, match=why):
            verify_ruling(note, officers, ledger=ledger)
    with pytest.raises(TrustError, match="by wattseal-officer/joe"):
        sign_ruling(RULING, JOE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("leaves 10 20", "leaves 10 10"),
        ("leaves 10 20", "leaves 010 20"),
        ("readmit", "admit"),
        ("made 2001", "made 1901"),
        ("-09T", "-99T"),
        ("reason looked at it", "reason "),
        ("reason looked at it", "reason a\nreason b"),
        ("gateway gw1", "gateway GW1"),
        ("by wattseal-officer/jane", "by wattseal-officer/joe"),
        (DECISION, "wattseal-decision/v2"),
    ],
)
def test_a_note_that_says_something_else_is_refused(old: str, new: str) -> None:
    """There is one text for each ruling."""
    text = RULING.text.replace(old, new)
    assert text != RULING.text
    with pytest.raises(TrustError):
        read_ruling(JANE.sign_note(text))


@given(st.binary(max_size=400) | st.text(max_size=300).map(str.encode))
def test_no_bytes_break_the_reader(note: bytes) -> None:
    """TrustError, and nothing else."""
    with pytest.raises(TrustError):
        read_ruling(note)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_never_verifies(place: int, value: int) -> None:
    """Text or signature."""
    note = sign_ruling(RULING, JANE)
    place %= len(note)
    if note[place] == value:
        return
    with pytest.raises(TrustError):
        verify_ruling(note[:place] + bytes([value]) + note[place + 1 :], [JANE.verifier], ledger=LEDGER)
