"""Credentials: made without a TPM, opened by just one."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.attest.credential import SEED_BYTES, Credential, make_credential
from gateway.attest.structures import parse_public
from gateway.errors import TrustError
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftDevice, sized
from tests.tpms import make_state, running_tpm

SECRET = hashlib.sha256(b"secret").digest()
KINDS = ("rsa2048", "p256", "p384")
HEADER = bytes.fromhex("badcc0de00000001")  # tpm2-tools' own, before both structures


def made(ek: bytes, name: bytes, secret: bytes = SECRET) -> Credential:
    """Make a credential with fresh seeds."""
    return make_credential(ek, name, secret, seed=os.urandom(SEED_BYTES), padding_seed=os.urandom(SEED_BYTES))


@pytest.fixture(scope="module")
def tcti(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("t")
    with running_tpm(make_state(folder), folder) as running:
        yield running


@pytest.fixture
def tpm(tcti: str) -> Iterator[Tpm]:
    with Tpm.open(tcti) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_the_tpm_with_that_ek_opens_a_credential(tpm: Tpm, kind: str) -> None:
    """For each kind of endorsement key, with its own hash and cipher."""
    name = parse_public(tpm.ak_public()).name
    assert tpm.activate(kind, made(tpm.ek_public(kind), name)) == SECRET


@pytest.mark.parametrize("kind", KINDS)
def test_a_credential_for_another_key_or_bent_is_not_opened(tpm: Tpm, kind: str) -> None:
    """A name of an attestation key that is not there; one flipped bit in each part."""
    ek, name = tpm.ek_public(kind), parse_public(tpm.ak_public()).name
    with pytest.raises(TrustError):
        tpm.activate(kind, made(ek, parse_public(SoftDevice().ak_public).name))
    good = made(ek, name)
    bent = bytes([*good.id_object[:-1], good.id_object[-1] ^ 1])
    with pytest.raises(TrustError):
        tpm.activate(kind, Credential(id_object=bent, secret=good.secret))


def test_a_credential_for_another_tpms_ek_is_not_opened(tpm: Tpm, tmp_path: Path) -> None:
    """What one TPM gets is of no use to the next."""
    name = parse_public(tpm.ak_public()).name
    with running_tpm(make_state(tmp_path), tmp_path) as elsewhere, Tpm.open(elsewhere) as other:
        foreign = {kind: other.ek_public(kind) for kind in KINDS}
    for kind, ek in foreign.items():
        with pytest.raises(TrustError):
            tpm.activate(kind, made(ek, name))


def test_tpm2_tools_open_our_credential_and_make_the_same_form(tcti: str, tmp_path: Path) -> None:
    """An independent implementation of both sides."""

    def run(*command: str) -> None:
        done = subprocess.run(
            [*command],
            cwd=tmp_path,
            env={**os.environ, "TPM2TOOLS_TCTI": tcti},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"

    run("tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
    run("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-n", "ak.name")
    run("tpm2_flushcontext", "-t")
    ek, name = (tmp_path / "ek.pub").read_bytes()[2:], (tmp_path / "ak.name").read_bytes()
    ours = made(ek, name)
    (tmp_path / "ours").write_bytes(HEADER + ours.id_object + ours.secret)
    (tmp_path / "secret").write_bytes(SECRET)
    run("tpm2_makecredential", "-T", "none", "-u", "ek.pub", "-s", "secret", "-n", name.hex(), "-o", "theirs")
    theirs = (tmp_path / "theirs").read_bytes()
    assert len(theirs) == len(HEADER + ours.id_object + ours.secret)
    assert theirs[: len(HEADER) + 4] == HEADER + ours.id_object[:4]
    for blob in ("ours", "theirs"):
        run("tpm2_startauthsession", "--policy-session", "-S", "session")
        run("tpm2_policysecret", "-S", "session", "-c", "e")
        run(
            *("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", blob, "-o", f"{blob}.out"),
            *("-P", "session:session"),
        )
        run("tpm2_flushcontext", "session")
        run("tpm2_flushcontext", "-t")
        assert (tmp_path / f"{blob}.out").read_bytes() == SECRET


def rsa_ek(key: rsa.RSAPublicKey, *, attributes: str = "000300b2", symmetric: str = "000600800043") -> bytes:
    """Return the public area of an RSA endorsement key."""
    head = bytes.fromhex(f"0001000b{attributes}0000{symmetric}0010{key.key_size:04x}00000000")
    return head + sized(key.public_numbers().n.to_bytes(key.key_size // 8, "big"))


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NAME = parse_public(SoftDevice().ak_public).name


def test_the_seed_is_encrypted_as_oaep_says() -> None:
    """`cryptography` opens it, with the TPM's label; the same seeds make the same bytes."""
    one, same = (
        make_credential(rsa_ek(KEY.public_key()), NAME, SECRET, seed=bytes(32), padding_seed=bytes(32))
        for _ in range(2)
    )
    assert one == same
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"IDENTITY\0")
    assert len(KEY.decrypt(one.secret[2:], oaep)) == 32
    other = make_credential(rsa_ek(KEY.public_key()), NAME, SECRET, seed=bytes(32), padding_seed=b"\1" * 32)
    assert KEY.decrypt(other.secret[2:], oaep) == KEY.decrypt(one.secret[2:], oaep)
    assert other.secret != one.secret


def test_what_is_no_endorsement_key_gets_no_credential() -> None:
    """A signing key, a key without a cipher, a secret or a name of a wrong size, too little chance."""
    ek = rsa_ek(KEY.public_key())
    for area in (
        SoftDevice().ak_public,
        rsa_ek(KEY.public_key(), attributes="00060072"),
        rsa_ek(KEY.public_key(), attributes="000300a0"),
        rsa_ek(KEY.public_key(), symmetric="0010"),
    ):
        with pytest.raises(TrustError, match="no endorsement key"):
            made(area, NAME)
    for secret in (b"", bytes(15), bytes(33)):
        with pytest.raises(TrustError, match="want 16 to 32"):
            made(ek, NAME, secret)
    for name in (b"", b"\x00\x0b", NAME[:-1], b"\x00\x04" + bytes(20), b"\x00\x0c" + NAME[2:]):
        with pytest.raises(TrustError, match="no key's name"):
            made(ek, name)
    with pytest.raises(TrustError, match="bytes of chance"):
        make_credential(ek, NAME, SECRET, seed=bytes(31), padding_seed=bytes(32))
