"""Epoch keys: born at each start, bound by the device, announced to the ledger before it reads a leaf."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.sealer import Sealer
from gateway.app.trust.epochs import Epochs
from gateway.app.verdicts import Accepted, Gap
from gateway.codec.frames import LogMessage, pack_log, unpack_log
from gateway.codec.leaves import parse
from gateway.codec.pack import pack, unpack
from gateway.errors import ConfigError, LogError, TrustError
from gateway.store.files import RealFiles
from gateway.store.segments import Log, StoreFull
from tests.epoching import DEVICE, Relying, Unit
from tests.sealing import BOOT, ORIGIN, SIGNER, T0_S, WITNESS, Box, event


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    made = Unit.on(tmp_path / "gw")
    made.sealer.welcome(BOOT)
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Relying:
    return Relying(tmp_path / "ledger")


def keys_of(box: Box) -> list[str]:
    return [leaf.body["key"] for leaf in box.leaves() if leaf is not None and leaf.kind == "epoch"]


# ---- the seal


def test_each_start_has_a_key_of_its_own_that_the_device_vouches_for(unit: Unit, ledger: Relying) -> None:
    unit.put(event(1))
    ledger.drain(unit)
    unit.restart()
    ledger.drain(unit)
    first, second = keys_of(unit)
    assert first != second
    epoch = ledger.copy.epoch
    assert epoch is not None
    assert (epoch.number, epoch.vkey) == unit.sealer.announced == (2, second)
    assert epoch.bound is not None
    assert epoch.bound.device.serial == DEVICE.serial
    assert unit.sealer.counts.epoch == 2


def test_no_key_is_on_the_disk(unit: Unit, tmp_path: Path) -> None:
    """The disk holds what an epoch key signed, and nothing that could sign."""
    unit.put(event(1))
    unit.sealer.sign()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not any(b"PRIVATE" in content for content in written)


def test_a_renewal_while_running_signs_on_with_the_new_key(unit: Unit, ledger: Relying) -> None:
    unit.put(event(1))
    ledger.drain(unit)
    assert unit.renew()
    unit.put(event(2))
    unit.sealer.sign()
    assert ledger.drain(unit) == 1
    assert len(set(keys_of(unit))) == 2
    assert ledger.copy.size == unit.log.durable


def test_a_device_that_fails_at_the_start_keeps_the_seal_from_running(tmp_path: Path) -> None:
    """No leaf is sealed that no key could sign for."""
    device = Moody(fails=True)
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    with pytest.raises(ConfigError, match="tpm: no answer"):
        Sealer(log, binder=device, witness=WITNESS.cosigner().verifier)
    assert log.size == 0
    log.close()


class Moody:
    """A device that fails when it is told to."""

    def __init__(self, *, fails: bool = False, binding: Mapping[str, Any] | None = None) -> None:
        self.fails, self.binding = fails, binding
        self.asked: list[int] = []

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> Mapping[str, Any]:
        """Return a binding, or fail."""
        self.asked.append(epoch)
        if self.fails:
            raise ConfigError("tpm: no answer")
        return self.binding or DEVICE.bind(vkey=vkey, epoch=epoch, t_ns=t_ns)


def test_a_binding_that_no_leaf_can_hold_is_refused_before_it_is_sealed(tmp_path: Path) -> None:
    log = Log.open(RealFiles(tmp_path), origin=ORIGIN)
    epochs = Epochs(log, signer=None, binder=Moody(binding={"type": "trust me"}))
    with pytest.raises(TrustError):
        epochs.make(1, 0)
    log.close()


def test_a_renewal_that_fails_is_said_once_and_the_old_key_signs_on(unit: Unit, ledger: Relying) -> None:
    for _ in range(3):
        unit.sealer.keep_key(ConfigError("tpm: no answer"))
    unit.sealer.sign()
    ledger.drain(unit)
    assert unit.events("epoch.kept") == [{"epoch": 1, "why": "tpm: no answer"}]
    assert (unit.sealer.counts.renewals_failed, unit.sealer.announced[0]) == (3, 1)
    assert unit.renew()
    unit.sealer.keep_key(ConfigError("tpm: no answer"))
    assert len(unit.events("epoch.kept")) == 2


def test_a_kill_between_the_epoch_leaf_and_its_checkpoint_harms_nothing(unit: Unit, ledger: Relying) -> None:
    """The leaf is durable and its key is gone without having signed: the next start announces one more."""
    unit.put(event(1))
    ledger.drain(unit)
    epoch = unit.sealer.epochs.make(*unit.sealer.next_epoch())
    unit.sealer._announce(epoch)
    unit.sealer.commit()
    unit.restart()
    assert unit.sealer.announced[0] == 3
    ledger.drain(unit)
    assert ledger.copy.size == unit.log.durable


def test_a_checkpoint_of_an_earlier_key_is_still_told_from_a_forged_one(unit: Unit) -> None:
    """At the start the checkpoint on disk is by a key that is gone; the heads beside it say by which."""
    unit.put(event(1))
    unit.restart(sign=True)
    unit.restart(sign=True)
    assert unit.sealer.announced[0] == 3


def test_a_full_disk_at_the_start_signs_nothing_before_the_key_is_announced(tmp_path: Path) -> None:
    files = Full(tmp_path)
    unit = Unit(files=files.again, device=DEVICE)
    unit.sealer.welcome(BOOT)
    unit.put(event(1))
    unit.sealer.sign()
    signed = unit.sealer.signed
    unit.log.close()
    files.full = True
    unit.start()
    assert unit.sealer.signed == unit.sealer.receipted == 0
    with pytest.raises(TrustError, match="read"):
        unit.sealer.chunk(0, 1000)
    assert not unit.sealer.sign()
    files.full = False
    unit.sealer.tidy()
    assert unit.sealer.signed > signed
    assert unit.sealer.announced[0] == 2


class Full(RealFiles):
    """A folder on a disk that can be full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder, self.full = folder, False

    def again(self) -> "Full":
        """Return it opened anew."""
        super().__init__(self.folder)
        return self

    def write(self, path: str, start: int, content: bytes) -> None:
        """Refuse whatever would take room."""
        if self.full and content:
            raise StoreFull("no room")
        super().write(path, start, content)


def test_a_renewal_without_room_keeps_the_old_key_and_asks_the_device_once(tmp_path: Path) -> None:
    files, device = Full(tmp_path), Moody()
    log = Log.open(files, origin=ORIGIN)
    sealer = Sealer(log, binder=device, witness=WITNESS.cosigner().verifier)
    files.full = True
    for _ in range(2):
        assert not sealer.renew(sealer.epochs.make(*sealer.next_epoch()))
    assert sealer.announced[0] == 1
    files.full = False
    assert sealer.renew(sealer.epochs.make(*sealer.next_epoch()))
    assert device.asked == [1, 2]
    log.close()


# ---- from a key file to a device


def test_a_log_of_a_key_file_goes_on_with_a_device(tmp_path: Path, ledger: Relying) -> None:
    """The unattested epochs before are part of its history; none may come after."""
    box = Box.at(tmp_path / "gw", signer=SIGNER)
    box.sealer.welcome(BOOT)
    box.put(event(1))
    box.sealer.sign()
    box.log.close()
    unit = Unit.on(tmp_path / "gw")
    ledger.drain(unit)
    assert ledger.copy.size == unit.log.durable
    unit.log.close()
    with pytest.raises(LogError, match="not by this gateway's key"):
        Box.at(tmp_path / "gw", signer=SIGNER)


def test_heads_of_an_earlier_program_are_read_and_a_device_says_what_to_do(tmp_path: Path) -> None:
    box = Box.at(tmp_path / "gw", signer=SIGNER)
    note, size = box.log.checkpoint, box.log.signed
    assert note is not None
    old = unpack(box.sealer._heads.packed())[:-1]
    box.log.record(note, pack(old), size, box.log.root(size))
    box.log.close()
    with pytest.raises(LogError, match=r"start once with the key file as \[seal\] key"):
        Unit.on(tmp_path / "gw")
    Box.at(tmp_path / "gw", signer=SIGNER).log.close()
    Unit.on(tmp_path / "gw").log.close()


# ---- the ledger


def test_a_backlog_over_several_epochs_is_taken_in_small_chunks(unit: Unit, ledger: Relying) -> None:
    """Chunks that end far below the newest epoch leaf are signed by the key that it announces."""
    for number in range(4):
        unit.put(*(event(place) for place in range(20)))
        unit.restart(sign=True)
        unit.sequence = unit.sealer.welcome(BOOT)
        assert unit.sealer.announced[0] == number + 2
    assert ledger.drain(unit, 700) > 10
    assert ledger.copy.size == unit.log.durable
    assert ledger.signed_by._seen.awaited == {}


def test_an_announcement_is_sent_until_its_leaf_is_below(unit: Unit, tmp_path: Path) -> None:
    unit.put(*(event(place) for place in range(20)))
    unit.sealer.sign()
    assert unit.sealer.chunk(0, 100).epoch
    assert not unit.sealer.chunk(1, 100).epoch
    unit.renew()
    assert unit.sealer.chunk(unit.sealer.signed - 1, 100).epoch
    plain = Box.at(tmp_path / "plain")
    assert not plain.sealer.chunk(0, 100).epoch


def test_a_message_of_an_old_epoch_is_refused_once_a_newer_one_has_signed(unit: Unit, ledger: Relying) -> None:
    unit.put(*(event(place) for place in range(20)))
    unit.sealer.sign()
    old = unit.payloads(700)
    unit.restart()
    ledger.take(unit.payloads(700)[0])
    with pytest.raises(TrustError, match="signed in epoch 1, and epoch 2 has signed before"):
        ledger.copy.accept(old[0])
    ledger.restart()
    with pytest.raises(TrustError, match="signed in epoch 1, and epoch 2 has signed before"):
        ledger.copy.accept(old[0])
    old_without = LogMessage(first=0, leaves=unpack_log(old[0]).leaves, checkpoint=unpack_log(old[0]).checkpoint)
    with pytest.raises(TrustError, match="no known key signed the note"):
        ledger.copy.accept(pack_log(old_without))


def test_a_crash_between_commit_and_receipt_forgets_no_epoch(unit: Unit, ledger: Relying) -> None:
    """The leaves are durable and what stands beside the receipt is not: the epoch leaf itself says who signs."""
    ledger.drain(unit)
    unit.renew()
    unit.put(event(1))
    unit.sealer.sign()
    ledger.copy.accept(unit.next_chunk())
    ledger.log.commit()
    ledger.restart()
    assert ledger.copy.epoch is not None
    assert ledger.copy.epoch.number == 2
    unit.put(event(2))
    unit.sealer.sign()
    rest = unit.sealer.chunk(ledger.copy.size, 1 << 18)
    assert not rest.epoch
    ledger.take(pack_log(rest))


def test_what_is_not_committed_is_not_remembered(unit: Unit, ledger: Relying) -> None:
    ledger.copy.accept(unit.next_chunk())
    assert ledger.copy.epoch is not None
    ledger.copy.rollback()
    assert ledger.copy.epoch is None
    ledger.drain(unit)


def test_a_gap_and_a_repetition_are_answered_as_ever(unit: Unit, ledger: Relying) -> None:
    unit.put(*(event(place) for place in range(20)))
    unit.sealer.sign()
    first, *rest = unit.payloads(700)
    assert isinstance(ledger.copy.accept(rest[1]), Gap)
    ledger.take(first)
    ledger.pass_s()
    assert isinstance(ledger.copy.accept(first), Gap)
    assert isinstance(ledger.copy.accept(rest[0]), Accepted)


def test_a_device_revoked_while_running_signs_nothing_more(unit: Unit, ledger: Relying) -> None:
    ledger.drain(unit)
    unit.put(event(1))
    unit.sealer.sign()
    ledger.revoke(DEVICE, at_s=T0_S)
    ledger.pass_s()
    with pytest.raises(TrustError, match="revoked"):
        ledger.copy.accept(unit.next_chunk())
    ledger.restart()
    with pytest.raises(TrustError, match="revoked"):
        ledger.copy.accept(unit.next_chunk())
    ledger.revoke()
    ledger.pass_s()
    ledger.drain(unit)


def test_a_damaged_list_of_the_revoked_changes_nothing_and_is_said_once(unit: Unit, ledger: Relying) -> None:
    path = ledger._folder / "crl.pem"
    for content in (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", b"", b"-----BEGIN X509 CRL-----"):
        path.write_bytes(content)
        ledger.pass_s()
        ledger.copy.accept(unit.next_chunk())
        ledger.copy.rollback()
        ledger.pass_s()
        ledger.copy.accept(unit.next_chunk())
        ledger.copy.rollback()
    path.unlink()
    ledger.pass_s()
    ledger.drain(unit)
    assert len(ledger.said) == 4
    assert all("attest" in said for said in ledger.said)


def test_a_device_needs_files_that_can_be_used_from_the_start(ledger: Relying) -> None:
    (ledger._folder / "crl.pem").write_bytes(b"no list\n")
    with pytest.raises(ConfigError, match=r"attest\.device_ca, attest\.crl"):
        ledger.restart()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["restart", "kill", "renew", "ledger restarts", "lost"]), st.just(0)),
        st.tuples(st.just("send"), st.integers(60, 4000)),
    ),
    max_size=25,
)


@given(steps=STEPS, most_bytes=st.integers(60, 20_000))
@settings(max_examples=25, deadline=None)
def test_whatever_restarts_and_is_renewed_everything_arrives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], most_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("epochs")
    unit, ledger = Unit.on(folder / "gw"), Relying(folder / "ledger")
    unit.sealer.welcome(BOOT)
    for what, number in steps:
        if what == "put":
            unit.put(*(event(place) for place in range(number)))
        elif what in {"restart", "kill"}:
            unit.sequence = unit.restart(sign=what == "restart")
        elif what == "renew":
            assert unit.renew()
        elif what == "ledger restarts":
            ledger.restart()
        elif what == "lost" and unit.sealer.receipted < unit.sealer.signed:
            ledger.answer(unit.next_chunk(500))
        elif what == "send" and unit.sealer.receipted < unit.sealer.signed:
            unit.sealer.receive(ledger.answer(unit.next_chunk(number)))
    unit.sealer.sign()
    ledger.pass_s()
    if unit.sealer.receipted < ledger.copy.size:
        unit.sealer.receive(ledger.copy.receipt)
    ledger.drain(unit, most_bytes)
    assert ledger.copy.size == unit.log.durable == unit.log.signed
    assert ledger.log.root(ledger.copy.size) == unit.log.root(unit.log.durable)
    assert ledger.copy.epoch is not None
    assert (ledger.copy.epoch.number, ledger.copy.epoch.vkey) == unit.sealer.announced
    index = ledger.copy.epoch.index
    assert index is not None
    body = ledger.log.read(index, 1, index + 1)[0]
    assert body is not None
    assert parse(body).body["key"] == unit.sealer.announced[1]
    for log in (unit.log, ledger.log):
        log.close()
    shutil.rmtree(folder)
