"""Attacks on the way from a gateway to the ledger's copy: each is refused, named, and leaves the copy as it was."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.codec.frames import MAX_LOG_MESSAGE, LeafHash, LogMessage, pack_log
from gateway.codec.pack import pack
from gateway.errors import TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Signer
from tests.copies import LEDGER, ORIGIN, Gateway, Ledger, epoch, event, read_receipt

HELD = 6
"""Leaves that the ledger holds when the attack comes; the gateway has 10."""


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(events=9)


@pytest.fixture
def ledger(tmp_path: Path, gateway: Gateway) -> Ledger:
    made = Ledger(tmp_path / "copy", gateway)
    made.take(gateway.payload(0, HELD))
    return made


def refused(ledger: Ledger, attack: LogMessage | bytes, match: str | None = None) -> TrustError:
    """Fail unless the attack is refused with these words, and the copy stands as before."""
    before = ledger.state()
    payload = attack if isinstance(attack, bytes) else pack_log(attack)
    with pytest.raises(TrustError, match=match) as error:
        ledger.copy.accept(payload)
    assert ledger.state() == before
    assert ledger.copy.commit() is None
    return error.value


def changed(message: LogMessage, **changes: object) -> LogMessage:
    return dataclasses.replace(message, **changes)  # type: ignore[arg-type]


def test_after_any_attack_the_honest_message_still_counts(gateway: Gateway, ledger: Ledger) -> None:
    """A refused message harms nobody: neither what waits for commit nor what comes after."""
    ledger.copy.accept(gateway.payload(HELD, 8))
    for attack in (b"", gateway.payload(8)[:-1], pack_log(changed(gateway.message(8), leaves=(b"x", b"y")))):
        with pytest.raises(TrustError):
            ledger.copy.accept(attack)
    committed = ledger.take(gateway.payload(8, 10))
    assert [index for index, _ in committed.leaves] == [6, 7, 8, 9]
    assert read_receipt(committed.receipt)[0].root == ledger.log.root(10)


@pytest.mark.parametrize("index", [6, 7, 9])
def test_a_flipped_bit_in_a_new_leaf(gateway: Gateway, ledger: Ledger, index: int) -> None:
    """The leaves no longer lead to the signed root."""
    message = gateway.message(HELD)
    leaves = list(message.leaves)
    leaf = leaves[index - HELD]
    leaves[index - HELD] = leaf[:20] + bytes([leaf[20] ^ 1]) + leaf[21:]
    refused(ledger, changed(message, leaves=tuple(leaves)), "do not lead to the signed root")


def test_a_flipped_bit_in_a_leaf_that_is_here_already_names_it(gateway: Gateway, ledger: Ledger) -> None:
    """The overlap is compared leaf by leaf."""
    message = gateway.message(2)
    leaves = list(message.leaves)
    leaves[2] = leaves[2][:-1] + bytes([leaves[2][-1] ^ 1])
    assert refused(ledger, changed(message, leaves=tuple(leaves)), "altered on the way").index == 4
    assert ledger.copy.fork is None


def test_every_flipped_bit_of_a_message_is_refused(gateway: Gateway, ledger: Ledger) -> None:
    """Whatever bit is turned over on the way: nothing but the very leaves of the gateway gets in."""
    payload = gateway.payload(HELD, 8)
    before = ledger.state()
    honest = {leaf_hash(leaf) for leaf in gateway.leaves}
    for place in range(len(payload) * 8):
        flipped = bytearray(payload)
        flipped[place // 8] ^= 1 << place % 8
        try:
            ledger.copy.accept(bytes(flipped))
        except TrustError:
            pass
        else:
            # What is left is a flip in `first` that makes the message a gap.
            assert {ledger.log.leaf_hash(index) for index in range(ledger.copy.size)} <= honest
        ledger.copy.rollback()
        assert ledger.state() == before


def test_a_dropped_leaf(gateway: Gateway, ledger: Ledger) -> None:
    """A leaf that is left out, from the middle or the end, is missed; so is one that is put in."""
    message = gateway.message(HELD)
    for leaves in (message.leaves[:1] + message.leaves[2:], message.leaves[:-1], (*message.leaves, event(99)), ()):
        refused(ledger, changed(message, leaves=leaves), "want one that ends with them")
    refused(ledger, changed(message, leaves=(*message.leaves[:-1], event(99))), "do not lead to the signed root")


def test_reordered_leaves(gateway: Gateway, ledger: Ledger) -> None:
    """The order is part of what was signed."""
    message = gateway.message(HELD)
    refused(ledger, changed(message, leaves=message.leaves[::-1]), "do not lead to the signed root")


def test_shifted_leaves(gateway: Gateway, ledger: Ledger) -> None:
    """The same leaves one place further back."""
    message = gateway.message(HELD)
    refused(ledger, changed(message, first=HELD - 1), "want one that ends with them")
    doubled = (message.leaves[0], *message.leaves)
    refused(ledger, changed(message, first=HELD - 1, leaves=doubled), "altered on the way")


def test_a_truncated_message(gateway: Gateway, ledger: Ledger) -> None:
    """Cut at any byte, or with a byte more, it is malformed."""
    payload = gateway.payload(HELD)
    for size in range(len(payload)):
        refused(ledger, payload[:size], "msgpack|log message")
    refused(ledger, payload + b"\x00", "msgpack")


def test_a_replayed_message_adds_nothing(gateway: Gateway, ledger: Ledger) -> None:
    """Old messages in any number and order change nothing at all."""
    ledger.take(gateway.payload(HELD, 8))
    before = ledger.state()
    for first, end in ((0, 6), (6, 8), (0, 6), (0, 1)):
        ledger.copy.accept(gateway.payload(first, end))
        assert ledger.copy.commit() is None
        assert ledger.state() == before


def test_a_signed_fork_is_called_one_and_its_evidence_kept(gateway: Gateway, ledger: Ledger) -> None:
    """The gateway's own key signs another history of the same length: no receipt, and the note is kept."""
    other = Gateway(gateway.signer, events=3)
    other.grow(6, "device.down")
    error = refused(ledger, other.payload(2, HELD), r"forks.*leaf 4 \(a split view\)")
    assert error.index == 4
    assert ledger.copy.fork == other.checkpoint(HELD)


def test_a_fork_before_the_message_is_refused(gateway: Gateway, ledger: Ledger) -> None:
    """A longer history that parted from ours earlier: its new leaves do not fit onto ours."""
    other = Gateway(gateway.signer, events=3)
    other.grow(6, "device.down")
    refused(ledger, other.payload(HELD), "do not lead to the signed root.*split view")


def test_a_rewritten_history_of_more_leaves_is_a_fork(gateway: Gateway, ledger: Ledger) -> None:
    """Sent from the start, with all its leaves and a true signature: it is proof against the gateway."""
    other = Gateway(gateway.signer, events=0)
    other.grow(12, "device.down")
    assert refused(ledger, other.payload(0), "the log forks").index == 1
    assert ledger.copy.fork == other.checkpoint()


def test_a_shorter_history_with_another_root_is_a_fork(gateway: Gateway, ledger: Ledger) -> None:
    """Only the checkpoint is another one; even without any leaf it convicts."""
    other = Gateway(gateway.signer, events=1)
    other.grow(3, "device.down")
    empty = LogMessage(first=5, leaves=(), checkpoint=other.checkpoint(5))
    refused(ledger, empty, r"forks.*a log of 5 leaves \(a split view\)")
    assert ledger.copy.fork == other.checkpoint(5)


def test_the_signature_of_another_key(gateway: Gateway, ledger: Ledger) -> None:
    """Under the same name, by another key; or by the ledger's; or by nobody."""
    message = gateway.message(HELD)
    twin = Signer.generate(ORIGIN)
    refused(ledger, changed(message, checkpoint=gateway.checkpoint(signer=twin)), "no known key signed")
    unsigned = message.checkpoint.split(b"\n\n")[0] + b"\n\n"
    refused(ledger, changed(message, checkpoint=unsigned), "signature")
    cosigned = checkpoints.cosign(
        Checkpoint(origin=ORIGIN, size=10, root=bytes(32)), LEDGER.cosigner(), time_s=1_772_000_000
    )
    refused(ledger, changed(message, checkpoint=cosigned), "no known key signed")


def test_a_changed_checkpoint(gateway: Gateway, ledger: Ledger) -> None:
    """Size or root of a signed text are not to be changed."""
    message = gateway.message(HELD)
    for old, new in ((b"\n10\n", b"\n11\n"), (b"wattseal/gw1", b"wattseal/gw2"), (b"\n10\n", b"\n010\n")):
        refused(ledger, changed(message, checkpoint=message.checkpoint.replace(old, new, 1)))


def test_another_gateways_log(gateway: Gateway, ledger: Ledger) -> None:
    """A message of gw2 on the topic of gw1, signed well."""
    other = Signer.generate("wattseal/gw2")
    note = gateway.checkpoint(signer=other, origin="wattseal/gw2")
    refused(ledger, changed(gateway.message(HELD), checkpoint=note), "no known key signed")


def test_the_gateways_key_under_another_origin(gateway: Gateway, ledger: Ledger) -> None:
    """The right key signs a checkpoint that says it is of another log."""
    text = gateway.checkpoint().split(b"\n\n")[0].decode().replace(ORIGIN, "wattseal/gw2", 1) + "\n"
    note = gateway.signer.sign_note(text)
    refused(ledger, changed(gateway.message(HELD), checkpoint=note), "another log")


def test_a_cosignature_line_that_is_smuggled_in_is_no_receipt(gateway: Gateway, ledger: Ledger) -> None:
    """A gateway puts a line under the ledger's name and key id on its checkpoint: the receipt has the true one."""
    message = gateway.message(HELD)
    forged = LEDGER.cosigner().line("wattseal/gw1\n999\n" + "A" * 43 + "=\n", time_s=1)
    committed = ledger.take(pack_log(changed(message, checkpoint=message.checkpoint + forged.encode())))
    assert forged.encode() not in committed.receipt
    assert read_receipt(committed.receipt)[0].size == 10


def test_a_log_that_does_not_start_with_an_epoch(gateway: Gateway, tmp_path: Path) -> None:
    """Leaf 0 must announce the key: not an event, not nonsense, not a body that is gone."""
    ledger = Ledger(tmp_path / "fresh", gateway)
    refused(ledger, gateway.message(0, absent=lambda index: index == 0), "leaf 0 is not an epoch leaf")
    for leaf in (event(0), b"nonsense"):
        gateway.leaves[0] = leaf
        assert refused(ledger, gateway.payload(0), "leaf 0 is not an epoch leaf").index == 0


def test_an_epoch_that_announces_another_key(gateway: Gateway, ledger: Ledger, tmp_path: Path) -> None:
    """The pinned key signs, but the log says that another one does: the log contradicts itself."""
    twin = Signer.generate(ORIGIN).verifier.vkey
    gateway.leaves[7] = epoch(twin, 2)
    assert refused(ledger, gateway.payload(HELD), "newest epoch leaf announces").index == 7
    fresh = Ledger(tmp_path / "fresh", gateway)
    gateway.leaves[0] = epoch(twin)
    refused(fresh, gateway.payload(0, 3), "newest epoch leaf announces")


def test_an_epoch_in_an_earlier_group_still_binds(gateway: Gateway, ledger: Ledger) -> None:
    """What an accepted and not yet committed leaf announces counts too, and not if it was rolled back."""
    gateway.leaves[6:8] = [epoch(Signer.generate(ORIGIN).verifier.vkey, 2), epoch(gateway.signer.verifier.vkey, 3)]
    refused(ledger, gateway.payload(HELD, 7), "newest epoch leaf announces")
    ledger.copy.accept(gateway.payload(HELD, 8))
    ledger.copy.rollback()
    assert ledger.take(gateway.payload(HELD, 10)).size == 10


def test_an_oversize_message(gateway: Gateway, ledger: Ledger) -> None:
    """One byte more than 1 MiB is refused before it is looked into; so is a leaf of 64 KiB."""
    refused(ledger, bytes(MAX_LOG_MESSAGE + 1), "at most 1048576")
    gateway.leaves[6] = bytes(65_536)
    refused(ledger, gateway.payload(HELD), "want 1..65535 bytes")


def test_a_hash_of_zeros_is_no_leaf(gateway: Gateway, ledger: Ledger) -> None:
    """The store has a use for it: that nothing is there."""
    message = gateway.message(HELD)
    error = refused(ledger, changed(message, leaves=(*message.leaves[:1], LeafHash(32), *message.leaves[2:])), "zeros")
    assert error.index == 7


@pytest.mark.parametrize(
    "payload",
    [
        pack([]),
        pack({}),
        pack({"v": 2, "first": 6, "leaves": [], "checkpoint": ""}),
        pack({"v": 1, "first": -1, "leaves": [], "checkpoint": ""}),
        pack({"v": 1, "first": True, "leaves": [], "checkpoint": ""}),
        pack({"v": 1, "first": 6.0, "leaves": [], "checkpoint": ""}),
        pack({"v": 1, "first": 6, "leaves": [[b"short"]], "checkpoint": ""}),
        pack({"v": 1, "first": 6, "leaves": [b""], "checkpoint": ""}),
        pack({"v": 1, "first": 6, "leaves": ["text"], "checkpoint": ""}),
        pack({"v": 1, "first": 6, "leaves": [], "checkpoint": b""}),
        pack({"first": 6, "v": 1, "leaves": [], "checkpoint": ""}),
        pack({"v": 1, "first": 6, "leaves": [], "checkpoint": "", "more": 1}),
        b"\x91" * 5000,
    ],
)
def test_a_malformed_envelope(ledger: Ledger, payload: bytes) -> None:
    """Wrong types, wrong order, more or fewer keys, deep nesting."""
    refused(ledger, payload)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(leaf=st.binary(min_size=1, max_size=80), cut=st.integers(0, 60))
def test_whatever_bytes_the_gateway_signs_the_ledger_takes_them_calmly(
    gateway: Gateway, ledger: Ledger, leaf: bytes, cut: int
) -> None:
    """A signed leaf of any bytes is readable or unusable, never an error of ours."""
    gateway.leaves[6:] = [leaf, gateway.leaves[1][:cut] + leaf]
    ledger.copy.accept(gateway.payload(HELD))
    ledger.copy.rollback()
