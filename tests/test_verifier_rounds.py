"""provisioning/verifier/rounds.py and records.py: when whom is asked, and what never goes back."""

import random
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attest.appraisal import Appraisal
from gateway.errors import ConfigError
from gateway.model.standing import State
from provisioning.verifier.records import Marks, judged, missed, unknown, went_back
from provisioning.verifier.rounds import (
    A_SECOND,
    AGAIN_S,
    LEAST_BAD,
    LEAST_S,
    MOST_BAD,
    MOST_OPEN,
    Missed,
    Rounds,
    Wrong,
)
from tests.appraising import booted, evidence_of, verified

PERIOD_S, DEADLINE_S = 300.0, 30.0


def rounds(*, chance: float | random.Random = 0.5) -> Rounds:
    """Return rounds with a chance that is known."""
    roll = chance.random if isinstance(chance, random.Random) else lambda: chance
    return Rounds(period_s=PERIOD_S, deadline_s=DEADLINE_S, chance=roll)


def asked(found: Rounds, now_s: float) -> list[str]:
    """Open all rounds that are due."""
    due = found.due(now_s)
    for gateway in due:
        found.ask(gateway, gateway.encode(), now_s)
    return due


def test_a_lonely_gateway_is_asked_at_once_and_then_each_period() -> None:
    found = rounds()
    found.add("gw1", 0.0, among=1)
    assert asked(found, 0.02) == ["gw1"]
    assert found.nonce("gw1") == b"gw1"
    assert asked(found, 1.0) == []
    found.answered("gw1", 1.0)
    assert found.nonce("gw1") is None
    assert asked(found, 0.9 * PERIOD_S) == []
    assert asked(found, PERIOD_S + 0.02) == ["gw1"]


def test_a_fleet_is_never_asked_all_at_once() -> None:
    """10,000 gateways that answer at once: in any ten seconds no more than twice their fair share."""
    found, count = rounds(chance=random.Random(1)), 10_000
    for number in range(count):
        found.add(f"gw{number}", 0.0, among=count)
    seen: dict[int, int] = {}
    for second in range(2000):
        for gateway in asked(found, float(second)):
            seen[second // 10] = seen.get(second // 10, 0) + 1
            found.answered(gateway, float(second))
    assert max(seen.values()) < 1.2 * 10 * A_SECOND
    assert sum(seen.values()) >= 6 * count
    later = [number for bucket, number in seen.items() if bucket > 30]
    assert max(later) < 2 * 10 * count / PERIOD_S


def test_no_more_rounds_are_open_than_are_kept() -> None:
    """Even when nobody answers; each goes on being asked in turn."""
    found = rounds(chance=random.Random(2))
    for number in range(2 * MOST_OPEN):
        found.add(f"gw{number}", 0.0, among=1)
    found._room = MOST_OPEN
    first = asked(found, 1.0)
    assert len(first) == found.open == MOST_OPEN
    assert asked(found, 2.0) == []
    assert {one.gateway for one in found.missed(1.0 + DEADLINE_S)} == set(first)
    assert set(asked(found, 1.0 + DEADLINE_S)) == {f"gw{number}" for number in range(2 * MOST_OPEN)} - set(first)


@pytest.mark.parametrize("a_second", [20, 100, 1000])
def test_a_slow_verifier_asks_less_instead_of_blaming_gateways(a_second: int) -> None:
    """A fleet that connects at once, and answers that wait their turn: nobody misses a deadline by it."""
    found, waiting, now_s = rounds(chance=0.0), deque[str](), 0.0
    for number in range(3000):
        found.add(f"gw{number}", 0.0, among=1)
    answered: set[str] = set()
    while len(answered) < 3000:
        now_s += 0.1
        waiting += asked(found, now_s)
        for _ in range(min(len(waiting), a_second // 10)):
            answered.add(waiting[0])
            found.answered(waiting.popleft(), now_s)
        assert not found.missed(now_s), now_s
        assert now_s < 400


def test_a_round_ends_at_its_deadline_with_the_answer_that_says_most() -> None:
    """Of several that say as much with the first; only the device's own is held against it."""
    found = rounds()
    for gateway in ("gw1", "gw2", "gw3"):
        found.add(gateway, 0.0, among=1)
    asked(found, 1.0)
    for what in (Wrong.NOISE, Wrong.UNPROVEN, Wrong.NOISE):
        for gateway in ("gw2", "gw3"):
            found.wrong(gateway, what.name, what)
            found.wrong(gateway, "another", what)
    found.wrong("gw3", "revoked", Wrong.OWN)
    assert found.missed(30.9) == []
    assert found.next_s() == 31.0
    ends = [(one.gateway, one.why, one.is_own) for one in found.missed(31.0)]
    assert ends == [("gw1", "", False), ("gw2", "UNPROVEN", False), ("gw3", "revoked", True)]
    assert found.missed(31.0) == []


def test_who_misses_a_round_is_asked_again_soon_and_then_less_and_less() -> None:
    """An answer may have been lost on the way; who is gone for good costs little."""
    found = rounds(chance=0.0)
    found.add("gw1", 0.0, among=1)
    now_s, missed_s, waits = 0.0, 0.0, []
    for _ in range(7):
        while not found.due(now_s):  # what was due before it was moved stands in the queue still
            now_s = found.next_s() or now_s
        waits.append(now_s - missed_s)
        found.ask("gw1", b"nonce", now_s)
        missed_s = now_s + DEADLINE_S
        assert [one.gateway for one in found.missed(missed_s)] == ["gw1"]
    del waits[0]
    assert waits == sorted(waits)
    assert waits[0] == AGAIN_S
    assert waits[-1] == PERIOD_S - DEADLINE_S


@pytest.mark.parametrize("size", [0, LEAST_BAD, 10 * LEAST_BAD])
def test_wrong_answers_leave_the_round_open_and_only_so_many_bytes_are_looked_at(size: int) -> None:
    found = rounds()
    found.add("gw1", 0.0, among=1)
    asked(found, 1.0)
    for _ in range(10_000):
        found.wrong("gw1", "x", Wrong.NOISE, size=size)
    for _ in range(MOST_BAD // max(size, LEAST_BAD)):
        assert found.nonce("gw1") is not None
        found.wrong("gw1", "x", Wrong.UNPROVEN, size=size)
    found.wrong("gw1", "x", Wrong.UNPROVEN, size=size)
    assert found.nonce("gw1") is None
    found.missed(100.0)
    asked(found, 400.0)
    assert found.nonce("gw1") is not None, "the next round begins anew"


def test_a_hello_brings_the_next_question_forward_and_a_flood_of_them_does_no_more() -> None:
    found = rounds()
    found.add("gw1", 0.0, among=1)
    asked(found, 1.0)
    found.hello("gw1", 2.0)
    assert asked(found, 2.0) == [], "one round at a time"
    found.answered("gw1", 2.0)
    for number in range(1000):
        found.hello("gw1", 2.0 + number / 1000)
    assert asked(found, 1.0 + LEAST_S - 0.1) == []
    assert asked(found, 1.0 + LEAST_S) == ["gw1"]
    assert len(found._queue) <= 2


def test_a_lost_connection_is_no_fault_of_the_gateways() -> None:
    found = rounds()
    for number in range(10):
        found.add(f"gw{number}", 0.0, among=1)
    asked(found, 1.0)
    found.withdraw(2.0)
    assert found.open == 0
    assert found.missed(1000.0) == []
    assert len(asked(found, 3.0)) == 10


def test_a_gateway_that_is_removed_is_asked_no_more() -> None:
    found = rounds()
    for gateway in ("gw1", "gw2"):
        found.add(gateway, 0.0, among=1)
    found.remove("gw1")
    assert asked(found, 1.0) == ["gw2"]
    found.remove("gw2")
    assert "gw2" not in found
    assert found.missed(1000.0) == []
    assert found.due(1000.0) == []
    assert found.next_s() is None


def test_a_deadline_that_is_no_shorter_than_the_period_is_refused() -> None:
    with pytest.raises(ConfigError, match="want less than period_s, 5"):
        Rounds(period_s=5, deadline_s=5, chance=lambda: 0.5)


@given(
    st.lists(
        st.tuples(st.sampled_from(["hello", "answered", "wrong", "missed", "ask", "withdraw"]), st.floats(0, 60)),
        max_size=60,
    )
)
def test_whatever_happens_a_gateway_is_asked_again_within_a_period(steps: list[tuple[str, float]]) -> None:
    """And never twice within LEAST_S, unless the connection was lost."""
    found, now_s, last_s = rounds(), 0.0, float("-inf")
    found.add("gw1", now_s, among=1)
    lost = True
    for what, pause_s in steps:
        now_s += pause_s
        if what == "ask" and asked(found, now_s):
            assert lost or now_s - last_s >= LEAST_S
            last_s, lost = now_s, False
        elif what == "hello":
            found.hello("gw1", now_s)
        elif what == "missed":
            found.missed(now_s)
        elif what == "withdraw":
            found.withdraw(now_s)
            lost = True
        elif found.open and what == "answered":
            found.answered("gw1", now_s)
        elif found.open and what == "wrong":
            found.wrong("gw1", "x", Wrong.UNPROVEN)
    found.missed(now_s + DEADLINE_S)
    assert asked(found, now_s + PERIOD_S) == ["gw1"]


MARKS = Marks(device="ab", reset_count=5, restart_count=2, clock_ms=10_000, epoch=7, key="k7", log_size=100)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"clock_ms": 10_001, "log_size": 101}, ""),
        ({"epoch": 8, "key": "k8"}, ""),
        ({"reset_count": 6, "restart_count": 0, "clock_ms": 5, "epoch": 8, "key": "k8", "log_size": 103}, ""),
        ({"restart_count": 3, "clock_ms": 10_001}, ""),
        ({"reset_count": 4, "epoch": 9, "log_size": 500}, "resetCount fell from 5 to 4"),
        ({"restart_count": 1}, "restartCount fell"),
        ({"clock_ms": 9_999}, "clock went back by 1 ms"),
        ({"epoch": 6}, "epoch fell from 7 to 6"),
        ({"key": "other"}, "two keys for epoch 7"),
        ({"reset_count": 6}, "reset 1 times within epoch 7"),
        ({"epoch": 8, "key": "k8", "log_size": 99}, "log shrank from 100 to 99"),
        ({"device": "cd", "reset_count": 1, "epoch": 1, "log_size": 1}, ""),
    ],
)
def test_what_goes_back_is_named(change: dict[str, Any], why: str) -> None:
    """A device that starts again goes forward in all of them; another attestation key begins anew."""
    found = went_back(MARKS, replace(MARKS, **change))
    assert why in found
    assert bool(why) == bool(found)
    assert went_back(None, replace(MARKS, **change)) == ""


@pytest.mark.parametrize("status", ["warning", "none", "contraindicated"])
def test_whatever_is_less_than_affirming_is_a_failure(status: str) -> None:
    """As it is to the ledger: no gateway is shown as TRUSTED here while its figures are left out there."""
    about = verified(evidence_of(booted()))
    told = Appraisal(status=status, reason="why", vector={}, policy="p")
    outcome = judged(replace(unknown("gw1", "WS-1", 5), verified_s=3), about, told, 60)
    assert (outcome.record.state, outcome.record.verified_s, outcome.status) == (State.FAILED, 3, status)


def test_unreachable_is_not_failed_and_both_keep_when_it_was_last_good() -> None:
    record = replace(unknown("gw1", "WS-1", 5), state=State.TRUSTED, verified_s=50, marks=MARKS)

    def ended(why: str, *, is_own: bool = False) -> Missed:
        return Missed(gateway="gw1", nonce=b"n" * 32, why=why, is_own=is_own)

    gone = missed(record, ended(""), 100, deadline_s=30)
    assert (gone.status, gone.record.state) == ("none", State.UNREACHABLE)
    assert (gone.record.verified_s, gone.record.since_s, gone.record.reason) == (50, 100, "no answer within 30 s")
    forged = missed(record, ended("the signature\nis wrong"), 100, deadline_s=30)
    assert (forged.status, forged.record.state) == ("none", State.UNREACHABLE)
    assert forged.record.reason == "no answer within 30 s that must be its own; but: the signature?is wrong"
    own = missed(record, ended("revoked", is_own=True), 100, deadline_s=30)
    assert (own.status, own.record.state, own.record.reason) == ("contraindicated", State.FAILED, "revoked")
    still = missed(gone.record, ended(""), 400, deadline_s=30).record
    assert (still.since_s, still.told_s) == (100, 400)


def test_what_nobody_has_confirmed_for_long_is_shown_as_stale() -> None:
    record = replace(unknown("gw1", "WS-1", 0), state=State.TRUSTED, verified_s=100)
    assert record.shown(1000, result_s=900) is State.TRUSTED
    assert record.shown(1001, result_s=900) is State.STALE
    assert record.shown(41, result_s=900) is State.TRUSTED
    assert record.shown(40, result_s=900) is State.STALE, "confirmed at a time to come"
    assert replace(record, state=State.FAILED).shown(5000, result_s=900) is State.FAILED
