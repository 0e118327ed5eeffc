"""gateway/tpm/sealing.py: secrets that come out in an approved state alone; attacks by name."""

import contextlib
import dataclasses
import hashlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import TrustError
from gateway.tpm import Approval, Approver, Sealed, Tpm, approve, policy
from gateway.tpm.keys import SigningKey
from tests.tpms import make_state, running_tpm

SECRET = b"a key of the disk: thirty-two bytes"
COUNTER = 0x01805753
NEWS = hashlib.sha256(b"an update").digest()
KEYS: dict[str, SigningKey] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "rsa2048": rsa.generate_private_key(65537, 2048),
}
P256 = KEYS["p256"]


def sealed_for(tpm: Tpm, key: SigningKey) -> tuple[Sealed, bytes, int]:
    """Seal SECRET for what key approves; return it with the counter and its value."""
    tpm.counter_define(COUNTER)
    approver = Approver.of(key.public_key())
    return tpm.seal(SECRET, approver=approver), tpm.counter_public(COUNTER), tpm.counter_read(COUNTER)


def refused(tpm: Tpm, sealed: Sealed, approval: Approval | None = None, *, match: str = "TPM|unseal") -> None:
    """Assert that the TPM keeps the secret, says so in words of its own, and keeps no handle."""
    with pytest.raises(TrustError, match=match) as caught:
        tpm.unseal(sealed, approval)
    assert SECRET.decode() not in str(caught.value)
    assert tpm.live == 0
    assert tpm.handles()["transient"] == tpm.handles()["session"] == []


def test_a_secret_comes_out_in_the_state_it_was_sealed_in_and_in_no_other(tcti: str) -> None:
    """After a PCR was extended, PolicyPCR refuses."""
    with Tpm.open(tcti) as tpm:
        sealed = Sealed.unpack(tpm.seal(SECRET, pcrs=[7, 16]).pack())
        assert tpm.unseal(sealed) == SECRET
        tpm.extend(16, NEWS)
        refused(tpm, sealed, match=r"TPM: unseal: .*policy check failed")


def test_a_secret_survives_a_restart(tpm_state: Path, tmp_path: Path) -> None:
    """The PCRs are back at their values, and so is the secret."""
    with running_tpm(tpm_state, tmp_path) as tcti, Tpm.open(tcti) as tpm:
        sealed = tpm.seal(SECRET, pcrs=[0, 7])
    with running_tpm(tpm_state, tmp_path) as tcti, Tpm.open(tcti) as tpm:
        assert tpm.unseal(sealed) == SECRET


@pytest.mark.parametrize("kind", KEYS)
def test_an_approved_state_gets_the_secret(tcti: str, kind: str) -> None:
    """An update's new PCR values, signed by the approver, work without sealing anew; the old approval then does not."""
    key = KEYS[kind]
    with Tpm.open(tcti) as tpm:
        sealed, counter, floor = sealed_for(tpm, key)
        old = approve(key, pcrs=tpm.pcrs([7, 16]), counter=counter, version=floor)
        assert tpm.unseal(sealed, old) == SECRET
        tpm.extend(16, NEWS)
        refused(tpm, sealed, old, match="another state")
        new = approve(key, pcrs=tpm.pcrs([7, 16]), counter=counter, version=floor)
        assert tpm.unseal(sealed, Approval.unpack(new.pack())) == SECRET


def test_an_approval_that_comes_back_is_refused_once_the_floor_rose(tcti: str) -> None:
    """Attack: old disk, old firmware, old approval. The counter says that the device has moved on."""
    with Tpm.open(tcti) as tpm:
        sealed, counter, floor = sealed_for(tpm, P256)
        state = tpm.pcrs([16])
        old = approve(P256, pcrs=state, counter=counter, version=floor)
        new = approve(P256, pcrs=state, counter=counter, version=floor + 1)
        assert tpm.unseal(sealed, old) == tpm.unseal(sealed, new) == SECRET
        tpm.counter_increment(COUNTER)
        refused(tpm, sealed, old, match=r"TPM: policy_nv: .*policy")
        assert tpm.unseal(sealed, new) == SECRET


def test_removing_the_counter_does_not_bring_an_approval_back(tcti: str) -> None:
    """Attack: the owner undefines the floor and defines it again."""
    with Tpm.open(tcti) as tpm:
        sealed, counter, floor = sealed_for(tpm, P256)
        old = approve(P256, pcrs=tpm.pcrs([16]), counter=counter, version=floor)
        tpm.counter_increment(COUNTER)
        tpm.counter_undefine(COUNTER)
        refused(tpm, sealed, old)
        tpm.counter_define(COUNTER)
        refused(tpm, sealed, old, match=r"TPM: policy_nv: .*policy")


def test_a_forged_approval_is_refused(tcti: str) -> None:
    """Attack: another key, another version, other PCRs, another purpose, a flipped bit."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    with Tpm.open(tcti) as tpm:
        sealed, counter, floor = sealed_for(tpm, P256)
        state = tpm.pcrs([16])
        good = approve(P256, pcrs=state, counter=counter, version=floor)
        flipped = good.signature[:-1] + bytes((good.signature[-1] ^ 1,))
        forged = [
            approve(stranger, pcrs=state, counter=counter, version=floor),
            approve(P256, pcrs=state, counter=counter, version=floor, purpose=b"something else"),
            dataclasses.replace(good, version=floor + 1000),
            dataclasses.replace(good, signature=flipped),
            dataclasses.replace(good, signature=b""),
            dataclasses.replace(
                good, signature=approve(KEYS["rsa2048"], pcrs=state, counter=counter, version=9).signature
            ),
            dataclasses.replace(good, counter=counter[:-1] + b"\x09"),
            dataclasses.replace(good, pcrs={**state, 17: bytes(32)}),
        ]
        for approval in forged:
            refused(tpm, sealed, approval)
        assert tpm.unseal(sealed, good) == SECRET


def test_a_sealed_secret_cannot_name_another_approver(tcti: str) -> None:
    """Attack: whoever can write the disk puts a key of its own into the record; the TPM knows the policy."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    with Tpm.open(tcti) as tpm:
        sealed, counter, floor = sealed_for(tpm, P256)
        changed = dataclasses.replace(sealed, approver=Approver.of(stranger.public_key()).public)
        own = approve(stranger, pcrs=tpm.pcrs([16]), counter=counter, version=floor)
        refused(tpm, changed, own, match="policy check failed")
        refused(tpm, dataclasses.replace(sealed, approver=b"", pcrs=(16,)), match="policy check failed")
        refused(tpm, sealed, match="want an approval just where")
        assert tpm.live == 0


def test_a_cloned_disk_gives_nothing_on_another_tpm(tcti: str, tmp_path: Path) -> None:
    """Attack: the same bytes, the same PCRs, another TPM."""
    with Tpm.open(tcti) as tpm:
        sealed = tpm.seal(SECRET, pcrs=[0])
    with running_tpm(make_state(tmp_path / "m"), tmp_path) as there, Tpm.open(there) as other:
        refused(other, sealed, match="sealed in another TPM")
        forced = dataclasses.replace(sealed, parent_name=other.seal(SECRET, pcrs=[0]).parent_name)
        refused(other, forced, match=r"TPM: load: .*integrity check failed")


@contextlib.contextmanager
def tapped(tcti: str) -> Iterator[tuple[str, bytearray]]:
    """Give the TCTI of a wire to this TPM, and what crosses it in both directions."""
    there = tcti.removeprefix("swtpm:path=")
    here = f"{there}.tap"
    Path(f"{here}.ctrl").symlink_to(f"{there}.ctrl")
    heard = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(here)
        listener.listen(4)
        thread = threading.Thread(target=_relay, args=(listener, there, heard), daemon=True)
        thread.start()
        yield f"swtpm:path={here}", heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def _relay(listener: socket.socket, there: str, heard: bytearray) -> None:
    """Pass one connection after the other on, until nobody listens any more."""
    with contextlib.suppress(OSError):
        while True:
            here, _ = listener.accept()
            with here, socket.socket(socket.AF_UNIX) as beyond:
                beyond.connect(there)
                _pass_on(here, beyond, heard)


def _pass_on(here: socket.socket, beyond: socket.socket, heard: bytearray) -> None:
    other = {here: beyond, beyond: here}
    while True:
        for ready in select.select([here, beyond], [], [])[0]:
            part = ready.recv(65536)
            if not part:
                return
            heard += part
            other[ready].sendall(part)


def test_a_tap_on_the_bus_hears_quotes_and_not_the_secret(tcti: str) -> None:
    """Attack: somebody solders wires to the TPM. Sealing and unsealing send the secret encrypted."""
    with tapped(tcti) as (wire, heard), Tpm.open(wire) as tpm:
        tpm.quote(NEWS, [0])
        sealed, counter, floor = sealed_for(tpm, P256)
        approval = approve(P256, pcrs=tpm.pcrs([0]), counter=counter, version=floor)
        assert tpm.unseal(sealed, approval) == tpm.unseal(tpm.seal(SECRET, pcrs=[0])) == SECRET
    assert NEWS in heard
    assert SECRET not in heard
    assert SECRET[:16] not in heard


def test_what_cannot_be_sealed_is_a_callers_mistake(tcti: str) -> None:
    """Too long, empty, under nothing, under both."""
    approver = Approver.of(P256.public_key())
    with Tpm.open(tcti) as tpm:
        assert tpm.unseal(tpm.seal(b"x" * 128, pcrs=[0])) == b"x" * 128
        for secret in (b"", bytes(129)):
            with pytest.raises(ValueError, match=r"want 1\.\.128"):
                tpm.seal(secret, pcrs=[0])
        for pcrs, who in (([], None), ([0], approver)):
            with pytest.raises(ValueError, match="either PCRs or an approver"):
                tpm.seal(SECRET, pcrs=pcrs, approver=who)
    with pytest.raises(ValueError, match="want a P-256 or an RSA key"):
        Approver.of(ec.generate_private_key(ec.SECP384R1()).public_key())


def test_policies_are_those_that_the_tpm_computes(tcti: str) -> None:
    """The digests that an approver signs without a TPM equal the ones in a policy session."""
    with Tpm.open(tcti) as tpm:
        tpm.counter_define(COUNTER)
        tpm.extend(16, NEWS)
        state, counter, floor = tpm.pcrs([2, 16, 23]), tpm.counter_public(COUNTER), tpm.counter_read(COUNTER)
        with tpm._turn() as commands, commands.session(is_policy=True) as session:
            commands.policy_pcr(session, [2, 16, 23])
            assert commands.policy_digest(session) == policy.in_state(state)
            commands.policy_at_most(session, COUNTER, floor)
            assert commands.policy_digest(session) == policy.at_most(counter, floor, policy.in_state(state))


@given(st.binary(max_size=300))
def test_noise_is_neither_a_sealed_secret_nor_an_approval(noise: bytes) -> None:
    """Both parsers give a TrustError and nothing else."""
    for parse in (Sealed.unpack, Approval.unpack):
        with pytest.raises(TrustError):
            parse(noise)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_seen(at: int, by: int) -> None:
    """No changed approval unpacks to the same one."""
    good = approve(P256, pcrs={0: bytes(32)}, counter=b"c" * 14, version=3)
    packed = good.pack()
    at %= len(packed)
    with contextlib.suppress(TrustError):
        assert Approval.unpack(packed[:at] + bytes((packed[at] ^ by,)) + packed[at + 1 :]) != good
