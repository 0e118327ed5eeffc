"""Attacks on the attestation service: who lies about a device, or floods its verifier, gains nothing."""

import datetime as dt
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.attest.evidence import MAX_EVIDENCE, Challenge, Evidence
from gateway.codec.pack import pack
from gateway.model.standing import State
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftAuthority, SoftDevice
from provisioning.verifier.rounds import LEAST_BAD, MOST_BAD
from tests.verifying import Fleet, Machine, epoch_key


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def answered_by(fleet: Fleet, machine: Machine, state: State) -> str:
    """Let this machine answer for gw1, and nobody else; return why gw1 comes to this state at the deadline."""
    fleet.pass_s(301)
    return ended(fleet, machine.answer(fleet.ask()["gw1"]), state)


def ended(fleet: Fleet, answer: bytes, state: State) -> str:
    """Let a round of gw1 that is open end with this answer alone; return why it comes to this state."""
    fleet.desk.take("gw1", answer)
    assert "gw1" not in fleet.told(), "a good answer may yet come"
    fleet.pass_s(30)
    told = fleet.told()["gw1"]
    assert told.status == {State.FAILED: "contraindicated", State.UNREACHABLE: "none"}[state]
    assert fleet.state("gw1")[0] is state
    return told.reason


def test_a_replayed_quote_changes_nothing(fleet: Fleet) -> None:
    """Neither for good, nor for bad: it answers no question that is open."""
    fleet.pass_s(301)
    machine = fleet.machines["gw1"]
    old = machine.answer(fleet.ask()["gw1"])
    fleet.desk.take("gw1", old)
    fleet.told()
    before = fleet.desk.records["gw1"]
    fleet.desk.take("gw1", old)
    assert fleet.told() == {}
    assert fleet.desk.records["gw1"] == before
    fleet.desk.disconnected()
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    machine.device.extend(3, bytes(32))
    fleet.desk.take("gw1", old)
    assert ("gw1" in fleet.told(), fleet.desk.counts.refused) == (False, 1)
    fleet.desk.take("gw1", machine.answer(challenge))
    assert fleet.told()["gw1"].status == "contraindicated"


def test_an_answer_after_the_deadline_is_none(fleet: Fleet) -> None:
    """A stale nonce: the gateway is unreachable, not wrong; and it is asked anew."""
    fleet.pass_s(301)
    late = fleet.machines["gw1"].answer(fleet.ask()["gw1"])
    fleet.pass_s(31)
    assert fleet.told()["gw1"].status == "none"
    fleet.desk.take("gw1", late)
    assert fleet.told() == {}
    assert fleet.state("gw1")[0] is State.UNREACHABLE
    assert fleet.desk.counts.unasked == 1
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(fleet.ask()["gw1"]))
    assert fleet.told()["gw1"].status == "affirming"


def test_another_devices_answer_on_my_topic_is_not_mine(fleet: Fleet) -> None:
    """Even one of the same maker, that says it is me; and my own answer, once it comes, counts."""
    other = replace(fleet.machines["gw2"])
    other.device.gateway, other.key = "gw1", epoch_key("gw1")
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    fleet.desk.take("gw1", other.answer(challenge))
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(challenge))
    assert fleet.told()["gw1"].status == "affirming"
    assert "got one of device 'WS-0001', want 'WS-0000'" in answered_by(fleet, other, State.UNREACHABLE)


def test_a_cloned_disk_on_another_tpm_cannot_answer(fleet: Fleet) -> None:
    """The certificates are copied, the key is not. Anyone could send that: it says nothing of the device."""
    thief = SoftDevice("WS-0000", authority=fleet.authority)
    thief.chain = fleet.machines["gw1"].device.chain
    why = answered_by(fleet, replace(fleet.machines["gw1"], device=thief), State.UNREACHABLE)
    assert why.startswith("no answer within 30 s that must be its own; but: ")
    assert "not signed by this attestation key" in why
    assert why in [call.kwargs["reason"] for call in fleet.said.calls if call.kwargs.get("event") == "verifier.found"]


def test_a_device_of_a_foreign_authority_is_nobody(fleet: Fleet) -> None:
    thief = SoftDevice("WS-0000", authority=SoftAuthority())
    machine = replace(fleet.machines["gw1"], device=thief)
    assert "no trust anchor of ours" in answered_by(fleet, machine, State.UNREACHABLE)


def test_a_devices_own_claim_to_be_another_gateway_is_refused(fleet: Fleet) -> None:
    """Its TPM has signed that, for this challenge: the device fails, unless it answers rightly before the deadline."""
    machine = fleet.machines["gw1"]
    machine.device.gateway = "gw2"
    assert "got one of gateway 'gw2'" in answered_by(fleet, machine, State.FAILED)
    machine.device.gateway = "gw1"
    assert "another log's" in answered_by(fleet, replace(machine, key=epoch_key("gw2")), State.FAILED)
    assert answered_by(fleet, replace(machine, key="no key\n"), State.FAILED)
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    fleet.desk.take("gw1", machine.answer(challenge, key=epoch_key("gw2")))
    fleet.desk.take("gw1", machine.answer(challenge))
    assert fleet.told()["gw1"].status == "affirming"


def test_an_old_epoch_is_a_log_that_was_put_back(fleet: Fleet) -> None:
    """The device's own word: it fails at once, and stays so until it is beyond what it was."""
    machine = fleet.machines["gw1"]
    machine.start()
    assert fleet.round()["gw1"].status == "affirming"
    machine.epoch = 1
    told = fleet.round()["gw1"]
    assert (told.status, told.reason) == ("contraindicated", "the epoch fell from 2 to 1: the log was put back")
    assert told.epoch == 2
    assert fleet.round()["gw1"].status == "contraindicated"
    machine.epoch, machine.key = 3, epoch_key("gw1")
    assert fleet.round()["gw1"].status == "affirming"


@pytest.mark.parametrize(
    ("change", "why"),
    [({"reset_count": 1}, "resetCount fell from 2 to 1"), ({"reset_count": 2, "clock_ms": 5}, "clock went back")],
)
def test_a_tpm_whose_state_was_put_back_fails(fleet: Fleet, change: dict[str, int], why: str) -> None:
    machine = fleet.machines["gw1"]
    machine.device.reset_count = 2
    fleet.round()
    for name, value in change.items():
        setattr(machine.device, name, value - 1000 if name == "clock_ms" else value)
    if "clock_ms" in change:
        machine.device.clock_ms = 0
    told = fleet.round()["gw1"]
    assert told.status == "contraindicated"
    assert why in told.reason


def test_a_tpm_that_is_reset_alone_proves_nothing(fleet: Fleet) -> None:
    """By its reset line, so that good values can be extended anew: the epoch's key would not have survived a start."""
    fleet.round()
    fleet.machines["gw1"].device.reset_count += 1
    assert "its PCRs say nothing of this start" in fleet.round()["gw1"].reason


def test_two_gateways_that_answer_as_one_device_are_found(fleet: Fleet) -> None:
    """A clone that reaches the same TPM, with a key of its own for the same epoch."""
    fleet.round()
    fleet.machines["gw1"].key = epoch_key("gw1")
    assert "two gateways answer as one" in fleet.round()["gw1"].reason


def test_a_revoked_attestation_key_fails_from_the_next_round(fleet: Fleet) -> None:
    fleet.round()
    fleet.revoke("gw1")
    fleet.desk.refresh()
    assert "revoked" in answered_by(fleet, fleet.machines["gw1"], State.FAILED)
    fleet.revoke()
    fleet.desk.refresh()
    assert fleet.round()["gw1"].status == "affirming"


def test_an_expired_attestation_key_fails(fleet: Fleet) -> None:
    fleet.round()
    device, end = fleet.machines["gw1"].device, dt.datetime.fromtimestamp(fleet.wall_s + 100, dt.UTC)
    device.certificate = fleet.authority.issue(device.key.public_key(), device.serial, end=end)
    device.chain = fleet.authority.chain(device.certificate)
    assert "expired" in answered_by(fleet, fleet.machines["gw1"], State.FAILED)


def test_nobody_but_the_device_can_show_its_revoked_key(fleet: Fleet) -> None:
    """The certificate alone, which anyone may have, makes nothing fail."""
    fleet.round()
    fleet.revoke("gw1")
    fleet.desk.refresh()
    thief = SoftDevice("WS-0000", authority=fleet.authority)
    thief.chain = fleet.machines["gw1"].device.chain
    answered_by(fleet, replace(fleet.machines["gw1"], device=thief), State.UNREACHABLE)


def test_a_restart_in_the_middle_never_makes_a_gateway_fail(fleet: Fleet) -> None:
    """An answer to the verifier before this one is no answer, and no crime: it is asked again."""
    fleet.round()
    fleet.pass_s(301)
    answers = {name: fleet.machines[name].answer(challenge) for name, challenge in fleet.ask().items()}
    fleet.restart()
    for name, answer in answers.items():
        fleet.desk.take(name, answer)
    assert fleet.told() == {}
    assert fleet.state("gw1")[0] is State.TRUSTED
    again = fleet.ask()
    assert set(again) == {"gw1", "gw2"}
    for name, challenge in again.items():
        fleet.desk.take(name, answers[name])
        fleet.desk.take(name, fleet.machines[name].answer(challenge))
    assert {result.status for result in fleet.told().values()} == {"affirming"}


def test_a_rollback_is_seen_by_a_verifier_that_was_restarted(fleet: Fleet) -> None:
    machine = fleet.machines["gw1"]
    machine.start()
    fleet.round()
    fleet.restart()
    machine.device.reset_count, machine.epoch, machine.key = 1, 3, epoch_key("gw1")
    told = fleet.round()["gw1"]
    assert "resetCount fell" in told.reason
    assert (told.epoch, told.key) == (3, machine.key), "the ledger hears of the epoch that signs now"


def test_a_flood_of_nonsense_costs_little_and_hides_no_good_answer(fleet: Fleet) -> None:
    """A few wrong answers in a round are looked at; memory stays; what is not asked for is not even parsed."""
    fleet.round()
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    huge, nonsense = bytes(MAX_EVIDENCE + 1), b"\xdd\xff\xff\xff\xff" + bytes(1000)
    for payload in (huge, nonsense, b"\xc1"):
        fleet.desk.take("gw1", payload)
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(challenge))
    assert fleet.told()["gw1"].status == "affirming"
    tracemalloc.start()
    for number in range(20_000):
        fleet.desk.take("gw1", huge if number % 2 else nonsense)
        fleet.desk.take(f"stranger{number}", nonsense)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert fleet.told() == {}
    assert fleet.desk.counts.unknown == 20_000
    assert fleet.state("gw1")[0] is State.TRUSTED


def test_no_garbage_keeps_a_gateway_from_answering_nor_makes_it_fail(fleet: Fleet) -> None:
    """Whoever may write to its topic and does not know the challenge: any number costs next to nothing."""
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    for _ in range(10_000):
        fleet.desk.take("gw1", b"\xc1")
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(challenge))
    assert fleet.told()["gw1"].status == "affirming"
    fleet.pass_s(301)
    fleet.ask()
    assert "late, a replay, or noise" in ended(fleet, b"\xc1", State.UNREACHABLE)


def test_who_knows_the_challenge_can_hide_the_answer_at_most(fleet: Fleet) -> None:
    """Only so many bytes of it are verified. He could as well silence the gateway: it is unreachable, and recovers."""
    fleet.round()
    fleet.pass_s(301)
    challenge = fleet.ask()["gw1"]
    for _ in range(MOST_BAD // LEAST_BAD - 1):
        fleet.desk.take("gw1", challenge.nonce)
    assert fleet.desk.is_answer("gw1", fleet.machines["gw1"].answer(challenge)), "that many hide nothing"
    fleet.desk.take("gw1", challenge.nonce)
    assert not fleet.desk.is_answer("gw1", fleet.machines["gw1"].answer(challenge))
    ended(fleet, fleet.machines["gw1"].answer(challenge), State.UNREACHABLE)
    assert fleet.round()["gw1"].status == "affirming"


def spoilt(machine: Machine, challenge: Challenge, **changes: Any) -> bytes:
    """Return a device's good answer, altered on its way."""
    return replace(Evidence.unpack(machine.answer(challenge)), **changes).pack()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pcrs": {0: bytes(32)}}, "quote: it is over PCRs"),
        ({"pcrs": {index: bytes(32) for index in range(8)}}, "the PCRs had other values"),
        ({"event_log": b"x"}, "event log: "),
        ({"signature": b"x"}, "signature"),
        ({"chain": (b"\x30\x80",)}, ""),
    ],
)
def test_a_broker_that_spoils_good_evidence_makes_nothing_fail(fleet: Fleet, changes: dict[str, Any], why: str) -> None:
    """What the quote does not cover can be altered on the way, by who could as well silence the gateway."""
    fleet.round()
    fleet.pass_s(301)
    machine, challenge = fleet.machines["gw1"], fleet.ask()["gw1"]
    assert why in ended(fleet, spoilt(machine, challenge, **changes), State.UNREACHABLE)
    assert fleet.round()["gw1"].status == "affirming"


def test_a_drifted_device_fails_whatever_is_spoilt_beside(fleet: Fleet) -> None:
    """Its PCRs are its own word: no broken event log makes less of them."""
    fleet.round()
    fleet.pass_s(301)
    machine, challenge = fleet.machines["gw1"], fleet.ask()["gw1"]
    machine.device.extend(4, bytes(32))
    fleet.desk.take("gw1", spoilt(machine, challenge, event_log=b"x"))
    assert fleet.told()["gw1"].status == "contraindicated"


def test_no_flipped_byte_makes_another_answer_or_another_error(fleet: Fleet) -> None:
    """Each mutation of good evidence is refused, or is the same evidence; nothing else is ever raised."""
    chance = random.Random(20)
    fleet.pass_s(301)
    good = fleet.machines["gw1"].answer(fleet.ask()["gw1"])
    for _ in range(400):
        fleet.desk._rounds._rounds["gw1"].bad = 0
        bad = bytearray(good)
        match chance.randrange(3):
            case 0:
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            case 1:
                del bad[chance.randrange(len(bad)) :]
            case _:
                place = chance.randrange(len(bad))
                bad[place : place + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
        if bad == good:
            continue
        fleet.desk.take("gw1", bytes(bad))
        for outcome in fleet.desk._outcomes:
            assert Evidence.unpack(bytes(bad)).claims == Evidence.unpack(good).claims
            assert outcome.status == "affirming"
    fleet.told()


def test_evidence_of_the_right_shape_and_absurd_content_is_refused(fleet: Fleet) -> None:
    fleet.pass_s(301)
    fleet.ask()
    empty = {
        "v": 1,
        "claims": b"",
        "attest": b"",
        "signature": b"",
        "pcrs": [[0, bytes(32)]],
        "chain": [b"\x30\x80"],
        "event_log": b"",
        "counters": [],
    }
    fleet.desk.take("gw1", pack(empty))
    fleet.desk.take("gw1", pack(empty | {"chain": [Signer.generate("x").to_text().encode()] * 4}))
    assert fleet.desk.counts.refused == 2
