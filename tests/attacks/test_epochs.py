"""Somebody else's key on a gateway's log: cloned disks, forged announcements, old epochs, rolled-back states."""

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.verdicts import Gap
from gateway.attest.epoch import quote_binding
from gateway.codec.bodies import epoch_body
from gateway.codec.frames import LogMessage, pack_log, unpack_log
from gateway.codec.leaves import seal
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.model import Clock, ClockState
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftDevice
from tests.epoching import AUTHORITY, DEVICE, OTHER, STRANGER, Relying, Unit
from tests.relying import Site
from tests.sealing import BOOT, NS, ORIGIN, T0_S, WITNESS, event

CLOCK = Clock(t_ns=T0_S * NS, state=ClockState.SYNCHRONISED, offset_ns=0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Relying]:
    made = Relying(tmp_path / "ledger")
    yield made
    made.log.close()


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    made = Unit.on(tmp_path / "gw")
    made.sealer.welcome(BOOT)
    return made


def refused(ledger: Relying, payload: bytes, match: str) -> TrustError:
    """Return why a message is refused. It must leave nothing behind."""
    before = (ledger.copy.size, ledger.log.root(ledger.copy.size), ledger.signed_by._seen, ledger.copy.receipt)
    with pytest.raises(TrustError, match=match) as caught:
        ledger.copy.accept(payload)
    assert (ledger.copy.size, ledger.log.root(ledger.copy.size), ledger.signed_by._seen, ledger.copy.receipt) == before
    return caught.value


# ---- the disk of one device in another


@pytest.mark.parametrize(("thief", "why"), [(OTHER, "bound to device 'WS-0002', want 'WS-0001'"), (STRANGER, "anchor")])
def test_a_cloned_disk_on_another_device_gives_not_one_acceptable_leaf(
    ledger: Relying, unit: Unit, tmp_path: Path, thief: SoftDevice, why: str
) -> None:
    """Not even with the same serial number on a certificate of another authority; and the first device goes on."""
    unit.put(event(1))
    unit.sealer.sign()
    ledger.drain(unit)
    unit.log.close()
    shutil.copytree(tmp_path / "gw", tmp_path / "clone")
    clone = Unit.on(tmp_path / "clone", thief)
    size = ledger.copy.size
    for _ in range(3):
        clone.sequence = clone.restart(sign=True)
        clone.put(event(2))
        clone.sealer.sign()
        for payload in (*clone.payloads(200), *clone.payloads(200, size)):
            if unpack_log(payload).first > size:
                assert isinstance(ledger.copy.accept(payload), Gap)
            else:
                refused(ledger, payload, why)
    assert ledger.copy.size == size
    unit.start()
    ledger.drain(unit)
    assert ledger.copy.size == unit.log.durable


def test_a_cloned_disk_cannot_use_what_the_first_device_has_announced(ledger: Relying, unit: Unit) -> None:
    """Its quote is over another key: whoever shows it must sign with that key, which was in memory alone."""
    ledger.drain(unit)
    unit.renew()
    honest = unpack_log(unit.next_chunk())
    thief = Signer.generate(ORIGIN)
    edge = CompactRange()
    edge.extend(unit.log.leaf_hash(index) for index in range(honest.end))
    note = checkpoints.sign(Checkpoint(origin=ORIGIN, size=honest.end, root=edge.root()), thief)
    forged = LogMessage(first=honest.first, leaves=honest.leaves, checkpoint=note, epoch=honest.epoch)
    refused(ledger, pack_log(forged), "no known key signed the note")


def test_a_log_that_was_on_another_device_in_between_is_refused_at_that_leaf(
    ledger: Relying, unit: Unit, tmp_path: Path
) -> None:
    """The right device signs all of it, and one epoch leaf among its leaves is another device's."""
    ledger.drain(unit)
    unit.log.close()
    Unit.on(tmp_path / "gw", OTHER).log.close()
    unit.start()
    error = refused(ledger, unit.next_chunk(), "bound to device 'WS-0002'")
    assert error.index == 2


def test_a_rolled_back_state_is_told_by_its_epoch_or_by_its_history(
    ledger: Relying, unit: Unit, tmp_path: Path
) -> None:
    """An old copy of the folder, started again: its epoch numbers were used, and its leaves are another history."""
    unit.put(event(1))
    ledger.drain(unit)
    unit.log.close()
    shutil.copytree(tmp_path / "gw", tmp_path / "old")
    unit.start()
    unit.sequence = unit.sealer.welcome(BOOT)
    unit.put(event(2))
    unit.sealer.sign()
    ledger.drain(unit)
    unit.log.close()

    old = Unit.on(tmp_path / "old")
    assert old.sealer.announced[0] == unit.sealer.announced[0]
    refused(ledger, old.payloads()[0], "an older state of this gateway was started again")
    refused(ledger, old.payloads(1 << 18, old.sealer.receipted)[0], "an older state of this gateway was started again")
    old.restart()
    refused(ledger, old.payloads()[0], "forks")
    assert ledger.copy.fork is not None
    old.log.close()


def test_a_state_rolled_back_within_a_backlog_is_refused_when_its_leaf_comes(ledger: Relying) -> None:
    """The ledger has an epoch's word and not yet its leaf: another leaf of that number is not taken for it."""
    forger = Forger()
    forger.epoch(1)
    forger.grow(3)
    first = forger.epoch(2)
    ledger.take(forger.message(0, 2, 2, announced=first))
    forger.leaves.pop()
    forger.epoch(2)
    last = forger.epoch(3)
    refused(ledger, forger.message(2, None, 3, announced=last), "epoch 2: was announced with another key or binding")


# ---- hand-made logs


@dataclass
class Forger:
    """Whoever holds a device's TPM and writes a log by hand."""

    device: SoftDevice = DEVICE
    leaves: list[bytes] = field(default_factory=list)
    signers: dict[int, Signer] = field(default_factory=dict)

    def body(self, number: int, *, origin: str = ORIGIN, device: SoftDevice | None = None) -> bytes:
        """Return the body of an epoch leaf with a new key."""
        signer = self.signers[number] = Signer.generate(origin)
        vkey, t_ns = signer.verifier.vkey, T0_S * NS
        return epoch_body(number, vkey, (device or self.device).bind(vkey=vkey, epoch=number, t_ns=t_ns))

    def epoch(self, number: int, **more: Any) -> bytes:
        """Seal an epoch leaf; return its body."""
        body = self.body(number, **more)
        self.leaves.append(seal("epoch", body, clock=CLOCK))
        return body

    def unattested(self, number: int) -> None:
        """Seal an epoch leaf that no device vouches for."""
        signer = self.signers[number] = Signer.generate(ORIGIN)
        body = epoch_body(number, signer.verifier.vkey, {"type": "unattested"})
        self.leaves.append(seal("epoch", body, clock=CLOCK))

    def grow(self, count: int) -> None:
        """Seal events."""
        for place in range(count):
            kind, body = event(len(self.leaves) + place)
            self.leaves.append(seal(kind, body, clock=CLOCK))

    def message(self, first: int, end: int | None, signed_in: int, *, announced: bytes = b"") -> bytes:
        """Return leaves first to end-1, signed in an epoch."""
        end = len(self.leaves) if end is None else end
        edge = CompactRange()
        edge.extend(map(leaf_hash, self.leaves[:end]))
        checkpoint = Checkpoint(origin=ORIGIN, size=end, root=edge.root())
        note = checkpoints.sign(checkpoint, self.signers[signed_in])
        return pack_log(LogMessage(first=first, leaves=tuple(self.leaves[first:end]), checkpoint=note, epoch=announced))


def test_epoch_numbers_never_fall_and_none_comes_twice(ledger: Relying) -> None:
    forger = Forger()
    first = forger.epoch(5)
    ledger.take(forger.message(0, None, 5, announced=first))
    for number in (5, 4):
        forger.epoch(number)
        last = forger.body(6)
        refused(ledger, forger.message(1, None, 6, announced=last), f"epoch {number}: comes after epoch 5")
        forger.leaves.pop()


def test_an_old_key_does_not_sign_over_a_newer_epochs_leaf(ledger: Relying) -> None:
    forger = Forger()
    first = forger.epoch(1)
    ledger.take(forger.message(0, None, 1, announced=first))
    forger.epoch(2)
    refused(ledger, forger.message(1, None, 1), "epoch 2: its checkpoint is signed in epoch 1")


def test_no_unattested_epoch_comes_after_one_that_a_device_vouches_for(ledger: Relying) -> None:
    forger = Forger()
    first = forger.epoch(1)
    ledger.take(forger.message(0, None, 1, announced=first))
    forger.unattested(2)
    last = forger.epoch(3)
    refused(ledger, forger.message(1, None, 3, announced=last), "epoch 2: is unattested")


def test_an_unattested_key_never_signs_for_a_device(ledger: Relying) -> None:
    forger = Forger()
    forger.unattested(1)
    refused(ledger, forger.message(0, None, 1), "no epoch of this gateway is known")
    body = epoch_body(1, forger.signers[1].verifier.vkey, {"type": "unattested"})
    refused(ledger, forger.message(0, None, 1, announced=body), "got a binding of type 'unattested'")


def test_a_key_of_another_gateway_is_refused_though_the_device_vouches_for_it(ledger: Relying) -> None:
    forger = Forger()
    body = forger.epoch(1, origin="wattseal/gw2")
    forger.signers[1] = Signer.generate(ORIGIN)
    refused(ledger, forger.message(0, None, 1, announced=body), "announces a key of wattseal/gw2")


def test_a_log_that_begins_without_an_epoch_leaf_is_refused(ledger: Relying) -> None:
    forger = Forger()
    forger.grow(1)
    last = forger.epoch(1)
    refused(ledger, forger.message(0, None, 1, announced=last), "leaf 0 is not an epoch leaf")


def test_the_same_epoch_twice_with_another_binding_is_refused(ledger: Relying) -> None:
    """The announcement and the leaf must be one: the second quote of the same key is not the first."""
    forger = Forger()
    body = forger.epoch(1)
    signer = forger.signers[1]
    vkey = signer.verifier.vkey
    other = epoch_body(1, vkey, DEVICE.bind(vkey=vkey, epoch=1, t_ns=T0_S * NS + 1))
    refused(ledger, forger.message(0, None, 1, announced=other), "was announced with another key or binding before")
    ledger.take(forger.message(0, None, 1, announced=body))
    forger.grow(1)
    refused(ledger, forger.message(1, None, 1, announced=other), "announced with another key or binding before")


Bend = Callable[[dict[str, Any]], object]

BENDS: dict[str, Bend] = {
    "another number": lambda body: body.update(epoch=body["epoch"] + 1),
    "another key": lambda body: body.update(key=Signer.generate(ORIGIN).verifier.vkey),
    "another time": lambda body: body["binding"].update(t=body["binding"]["t"] + 1),
    "another PCR value": lambda body: body["binding"]["pcrs"].__setitem__(0, [0, bytes(32)]),
    "a PCR left out": lambda body: body["binding"]["pcrs"].pop(),
    "another device's certificate": lambda body: body["binding"].update(chain=list(OTHER.chain)),
    "no issuing authority": lambda body: body["binding"]["chain"].pop(),
    "a signature cut short": lambda body: body["binding"].update(signature=body["binding"]["signature"][:-1]),
    "another quote": lambda body: body["binding"].update(attest=DEVICE.quote(bytes(32))[0]),
}


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS.keys())
def test_a_forged_announcement_is_refused(ledger: Relying, bend: Bend) -> None:
    """Signed by the key that it names or not: the quote covers the key, the number and the time."""
    forger = Forger()
    body = unpack(forger.epoch(1))
    bend(body)
    for signer in list(forger.signers.values()):
        forger.signers[1] = signer
        with pytest.raises(TrustError):
            ledger.copy.accept(forger.message(0, None, 1, announced=pack(body)))
    assert ledger.copy.size == 0


def test_a_quote_of_the_device_over_another_epochs_key_binds_nothing(ledger: Relying) -> None:
    """Replay: a true quote of an earlier start, shown with a new key."""
    forger = Forger()
    old = unpack(forger.body(1))["binding"]
    signer = forger.signers[1] = Signer.generate(ORIGIN)
    pcrs = dict(old["pcrs"])
    binding = quote_binding(
        t_ns=old["t"], attest=old["attest"], signature=old["signature"], pcrs=pcrs, chain=old["chain"]
    )
    body = epoch_body(1, signer.verifier.vkey, binding)
    forger.leaves.append(seal("epoch", body, clock=CLOCK))
    refused(ledger, forger.message(0, None, 1, announced=body), "it answers another question")


@given(place=st.integers(0, 4000), bit=st.integers(0, 7), cut=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_no_damage_to_an_announcement_is_taken_or_crashes(place: int, bit: int, cut: int) -> None:
    with pytest.raises(TrustError):
        FUZZED.copy.accept(_damaged(place, bit, cut))
    assert FUZZED.copy.size == 0


def _damaged(place: int, bit: int, cut: int) -> bytes:
    body = bytearray(FORGER_BODY)
    body[place % len(body)] ^= 1 << bit
    return FORGER.message(0, None, 1, announced=bytes(body[: len(body) - cut] if cut == 1 else body))


FORGER = Forger()
FORGER_BODY = FORGER.epoch(1)


@pytest.fixture(scope="module", autouse=True)
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Open the ledger that damaged messages go to."""
    global FUZZED  # noqa: PLW0603 (hypothesis takes no fixture of a function's scope)
    FUZZED = Relying(tmp_path_factory.mktemp("fuzzed"))
    yield
    FUZZED.log.close()


FUZZED: Relying


# ---- who was revoked, and when


def test_a_device_whose_certificate_was_revoked_gets_no_leaf_in(ledger: Relying, unit: Unit) -> None:
    ledger.revoke(DEVICE)
    ledger.pass_s()
    refused(ledger, unit.next_chunk(), "revoked")
    ledger.revoke(DEVICE, at_s=T0_S + 3600)
    ledger.pass_s()
    ledger.drain(unit)


def test_another_device_may_be_revoked_at_will(ledger: Relying, unit: Unit) -> None:
    ledger.revoke(OTHER)
    ledger.pass_s()
    ledger.drain(unit)


def test_a_list_of_the_revoked_that_ran_out_lets_nobody_in(ledger: Relying, unit: Unit) -> None:
    """Who can keep the ledger from newer lists does not keep a revoked device alive by that."""
    end = dt.datetime.fromtimestamp(T0_S + 60, dt.UTC)
    ledger.write_crl(AUTHORITY.crl({}, until=end))
    ledger.pass_s()
    ledger.drain(unit)
    unit.put(event(1))
    unit.sealer.sign()
    ledger.pass_s(120)
    refused(ledger, unit.next_chunk(), "ran out")


def test_the_ledger_counts_and_writes_down_what_it_refused(tmp_path: Path) -> None:
    """A stranger's leaves leave one event in the ledger's own log, and nothing in the gateway's."""
    hall = Site(tmp_path / "hall")
    forger = Forger(device=OTHER)
    body = forger.epoch(1)
    for _ in range(3):
        assert hall.ledger.take("gw1", forger.message(0, None, 1, announced=body)) is None
    hall.ledger.commit()
    (event_leaf,) = [leaf for leaf in hall.own("event") if leaf.body["what"] == "ledger.refused"]
    assert event_leaf.body["about"]["gateway"] == "gw1"
    assert (hall.counts.refused, hall.size()) == (3, 0)
    hall.ledger.close()


def test_a_receipt_of_an_attested_log_is_cosigned_without_foreign_lines(ledger: Relying, unit: Unit) -> None:
    """Only the line of the key that counts is kept under our cosignature."""
    message = unpack_log(unit.next_chunk())
    stray = Signer.generate(ORIGIN)
    text = message.checkpoint.decode().partition("\n\n")[0] + "\n"
    note = message.checkpoint + stray.line(text).encode()
    committed = ledger.take(pack_log(LogMessage(first=0, leaves=message.leaves, checkpoint=note, epoch=message.epoch)))
    assert committed.receipt.count(b"\xe2\x80\x94") == 2
    assert WITNESS.name.encode() in committed.receipt
