"""gateway/tpm: who a TPM is, what it quotes, signs and counts; against swtpm and tpm2-tools."""

import hashlib
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from tpm2_pytss.utils import NVReadEK, create_ek_template

from gateway.attest.credential import Credential, make_credential
from gateway.attest.lenient import read_certificate
from gateway.attest.request import make_request
from gateway.attest.structures import parse_attest, parse_public
from gateway.attest.verify import verify_certify, verify_counter, verify_quote
from gateway.errors import ConfigError, TrustError
from gateway.tpm import KeyBlob, Tpm, TpmPrivateKey, identity, policy
from tests.tpms import make_state, running_tpm

NONCE = hashlib.sha256(b"nonce").digest()
COUNTER = 0x01805753
OTHER = 0x01805754


def tool(tcti: str, *command: str) -> str:
    """Run a command of tpm2-tools; return what it says. The TPM must be closed: swtpm serves one client at a time."""
    done = subprocess.run([*command, "-T", tcti], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def made_by_tpm2_tools(folder: Path, ek: bytes, name: bytes, secret: bytes) -> Credential:
    """Return a credential of tpm2_makecredential, which needs no TPM."""
    (folder / "ek.pub").write_bytes(struct.pack(">H", len(ek)) + ek)
    (folder / "secret").write_bytes(secret)
    files = ["-u", str(folder / "ek.pub"), "-s", str(folder / "secret"), "-o", str(folder / "credential")]
    tool("none", "tpm2_makecredential", "-n", name.hex(), *files)
    packed = (folder / "credential").read_bytes()
    assert packed[:8] == bytes.fromhex("badcc0de00000001")
    end = 10 + int.from_bytes(packed[8:10], "big")
    return Credential(id_object=packed[8:end], secret=packed[end:])


@pytest.fixture(scope="session")
def other_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the state of a second TPM, with other seeds."""
    return make_state(tmp_path_factory.mktemp("other"))


@pytest.mark.parametrize("kind", ["rsa2048", "p384"])
def test_the_endorsement_key_is_the_one_of_its_certificate(tcti: str, kind: str) -> None:
    """The primary made from the template is the key that the maker certified."""
    with Tpm.open(tcti) as tpm:
        certificate = tpm.ek_certificate(kind)
        assert certificate is not None
        key = parse_public(tpm.ek_public(kind))
    assert key.key == read_certificate(certificate).key
    assert key.is_restricted_decrypt


def test_a_p256_endorsement_key_is_made_without_a_certificate(tcti: str) -> None:
    """A maker that stored none still leaves a key; the certificate is None."""
    with Tpm.open(tcti) as tpm:
        assert tpm.ek_certificate("p256") is None
        key = parse_public(tpm.ek_public("p256")).key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize(("kind", "theirs"), [("rsa2048", "rsa"), ("p256", "ecc"), ("p384", "ecc384")])
def test_tpm2_tools_makes_the_same_endorsement_key(tcti: str, tmp_path: Path, kind: str, theirs: str) -> None:
    """Another implementation of the credential profile derives the same public key."""
    with Tpm.open(tcti) as tpm:
        ours = parse_public(tpm.ek_public(kind)).key
    tool(tcti, "tpm2_createek", "-G", theirs, "-c", str(tmp_path / "ek"), "-u", str(tmp_path / "pem"), "-f", "pem")
    pem = (tmp_path / "pem").read_bytes()
    assert serialization.load_pem_public_key(pem) == ours


@pytest.mark.parametrize(
    ("kind", "theirs"), [("rsa2048", "EK-RSA2048"), ("p256", "EK-ECC256"), ("p384", "EK-HIGH-ECC384")]
)
def test_an_endorsement_key_honours_a_nonce_of_the_maker(tcti: str, tmp_path: Path, kind: str, theirs: str) -> None:
    """Where one stands beside a template of the low range, it is part of the key; tpm2-pytss agrees on all."""
    nonce = tmp_path / "nonce"
    nonce.write_bytes(b"n" * 20)
    attributes = "ownerread|policyread|policywrite|ownerwrite|authread|authwrite"
    for index in ("0x1C00003", "0x1C0000B"):
        tool(tcti, "tpm2_nvdefine", index, "-C", "o", "-s", "20", "-a", attributes)
        tool(tcti, "tpm2_nvwrite", index, "-C", "o", "-i", str(nonce))
    with Tpm.open(tcti) as tpm, tpm._turn() as commands:
        _, template = create_ek_template(theirs, NVReadEK(commands.api))
        ours = identity.profile(commands, kind).public
        tpm.ek_public(kind)
    assert ours == template.publicArea.marshal()
    assert (b"n" * 20 in ours) == (kind != "p384")


def test_an_unknown_kind_of_endorsement_key_is_an_operators_mistake(tcti: str) -> None:
    """The message names the kinds that there are."""
    with Tpm.open(tcti) as tpm, pytest.raises(ConfigError, match="got kind 'p521', want rsa2048, p256, p384"):
        tpm.ek_public("p521")


def test_the_attestation_key_outlives_a_restart_and_tpm2_tools_agrees_on_its_name(
    tpm_state: Path, tmp_path: Path
) -> None:
    """It is derived, not stored; another program that uses the same template gets the same key."""
    with running_tpm(tpm_state, tmp_path) as tcti, Tpm.open(tcti) as tpm:
        before = tpm.ak_public()
    with running_tpm(tpm_state, tmp_path) as tcti:
        with Tpm.open(tcti) as tpm:
            assert tpm.ak_public() == before
        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"
        options = ["-C", "e", "-G", "ecc256:ecdsa-sha256:null", "-a", attributes, "-c", str(tmp_path / "ak")]
        tool(tcti, "tpm2_createprimary", *options)
        tool(tcti, "tpm2_readpublic", "-c", str(tmp_path / "ak"), "-n", str(tmp_path / "name"))
    assert (tmp_path / "name").read_bytes() == policy.name(before)
    assert parse_public(before).is_restricted_signing


def test_the_attestation_key_outlives_clearing_the_tpm_and_other_keys_do_not(tcti: str) -> None:
    """TPM2_Clear takes all that the owner had; who the device is stays."""
    with Tpm.open(tcti) as tpm:
        before, key, sealed = tpm.ak_public(), tpm.create_key(), tpm.seal(b"secret", pcrs=[16])
        tpm.counter_define(COUNTER)
        last = tpm.counter_increment(COUNTER)
    tool(tcti, "tpm2_clear", "-c", "p")
    with Tpm.open(tcti) as tpm:
        assert tpm.ak_public() == before
        with pytest.raises(TrustError, match=r"TPM: load: .*integrity"):
            tpm.sign(key, NONCE)
        with pytest.raises(TrustError, match="sealed in another TPM"):
            tpm.unseal(sealed)
        with pytest.raises(TrustError, match="not defined"):
            tpm.counter_read(COUNTER)
        tpm.counter_define(COUNTER)
        assert tpm.counter_read(COUNTER) > last


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_a_credential_opens_in_its_own_tpm_and_for_its_own_key_alone(tcti: str, tmp_path: Path, kind: str) -> None:
    """Wrong AK name, changed bytes: refused by the TPM, with its words and without the secret."""
    with Tpm.open(tcti) as tpm:
        ek, ak = tpm.ek_public(kind), policy.name(tpm.ak_public())
        good = made_by_tpm2_tools(tmp_path, ek, ak, b"thirty-two bytes of secret.....!")
        assert tpm.activate(kind, good) == b"thirty-two bytes of secret.....!"
        wrong = made_by_tpm2_tools(tmp_path, ek, ak[:2] + bytes(32), b"secret")
        flipped = Credential(id_object=good.id_object[:-1] + bytes((good.id_object[-1] ^ 1,)), secret=good.secret)
        for bad in (
            wrong,
            flipped,
            Credential(id_object=b"\0\0", secret=good.secret),
            Credential(id_object=b"", secret=b""),
        ):
            with pytest.raises(TrustError, match="TPM: ") as caught:
                tpm.activate(kind, bad)
            assert "secret" not in str(caught.value).lower()
        assert tpm.handles()["session"] == tpm.handles()["transient"] == []


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_a_credential_of_our_own_verifier_opens(tcti: str, kind: str) -> None:
    """What gateway.attest makes without a TPM, a TPM opens; for another AK's name it refuses."""
    with Tpm.open(tcti) as tpm:
        ek, ak = tpm.ek_public(kind), policy.name(tpm.ak_public())
        for name, is_ours in ((ak, True), (ak[:2] + bytes(32), False)):
            made = make_credential(ek, name, NONCE, seed=bytes(48), padding_seed=bytes(48))
            if is_ours:
                assert tpm.activate(kind, made) == NONCE
            else:
                with pytest.raises(TrustError, match=r"TPM: activate_credential: .*integrity check failed"):
                    tpm.activate(kind, made)


def test_a_credential_for_another_tpms_endorsement_key_is_refused(tcti: str, other_state: Path, tmp_path: Path) -> None:
    """A device cannot answer for another one, even with the same AK name asked for."""
    (tmp_path / "o").mkdir()
    with running_tpm(other_state, tmp_path / "o") as there, Tpm.open(there) as other:
        ek = other.ek_public("p384")
    with Tpm.open(tcti) as tpm:
        made = made_by_tpm2_tools(tmp_path, ek, policy.name(tpm.ak_public()), b"secret")
        with pytest.raises(TrustError, match="TPM: activate_credential"):
            tpm.activate("p384", made)


def test_a_quote_verifies_and_its_values_are_those_that_it_is_over(tcti: str) -> None:
    """The other side of the contract: gateway.attest takes what this package makes."""
    with Tpm.open(tcti) as tpm:
        key = parse_public(tpm.ak_public()).key
        tpm.extend(16, NONCE)
        made = tpm.quote(NONCE, [16, 0, 7, 7])
        clock = tpm.clock()
    found = verify_quote(made.attest, made.signature, key, qualifying=NONCE, pcrs=made.pcrs)
    assert made.pcrs == {0: bytes(32), 7: bytes(32), 16: hashlib.sha256(bytes(32) + NONCE).digest()}
    assert (found.reset_count, found.restart_count) == (clock.reset_count, clock.restart_count)


def test_quotes_are_consistent_while_another_thread_extends(tcti: str) -> None:
    """A PCR that changes between reading and quoting gives another attempt, not a quote that nobody can verify."""
    done = threading.Event()
    with Tpm.open(tcti) as tpm:
        key = parse_public(tpm.ak_public()).key

        def extend() -> None:
            while not done.is_set():
                tpm.extend(16, NONCE)

        thread = threading.Thread(target=extend)
        thread.start()
        try:
            quotes = [tpm.quote(NONCE, range(24)) for _ in range(20)]
        finally:
            done.set()
            thread.join()
    for made in quotes:
        verify_quote(made.attest, made.signature, key, qualifying=NONCE, pcrs=made.pcrs)


def test_a_start_raises_the_reset_count(tpm_state: Path, tmp_path: Path) -> None:
    """Each loss of power is seen in the next quote; the values before and after are in order."""
    seen = []
    for _ in range(3):
        with running_tpm(tpm_state, tmp_path) as tcti, Tpm.open(tcti) as tpm:
            seen.append(parse_attest(tpm.quote(NONCE, [0]).attest).reset_count)
    assert seen[0] < seen[1] < seen[2]


def test_pcrs_are_read_in_any_number(tcti: str) -> None:
    """One command gives eight; a caller gets what it asked for, and no more."""
    with Tpm.open(tcti) as tpm:
        assert sorted(tpm.pcrs(range(24))) == [*range(24)]
        assert sorted(tpm.pcrs([3, 1, 3])) == [1, 3]
        with pytest.raises(ValueError, match=r"got 24, want 0\.\.23"):
            tpm.pcrs([24])
        with pytest.raises(ValueError, match="at least one"):
            tpm.quote(NONCE, [])
        with pytest.raises(ValueError, match="at most 32"):
            tpm.quote(bytes(33), [0])
        with pytest.raises(ValueError, match="want 32"):
            tpm.extend(16, b"short")
        with pytest.raises(TrustError, match="bad locality"):
            tpm.extend(17, NONCE)


def test_a_key_of_the_tpm_is_certified_and_signs(tcti: str) -> None:
    """The AK vouches for a key under the SRK; its signatures verify outside."""
    with Tpm.open(tcti) as tpm:
        key = tpm.create_key()
        attest, signature = tpm.certify(key, NONCE)
        ak = parse_public(tpm.ak_public()).key
        public = verify_certify(attest, signature, ak, qualifying=NONCE, public=key.public)
        made = tpm.sign(key, NONCE)
    assert isinstance(public.key, ec.EllipticCurvePublicKey)
    public.key.verify(made, NONCE, ec.ECDSA(Prehashed(hashes.SHA256())))
    assert not public.is_restricted_signing


def test_a_certificate_request_is_signed_in_the_tpm(tcti: str) -> None:
    """`cryptography` takes the TPM's key as a private key; what would need its private half is refused."""
    with Tpm.open(tcti) as tpm:
        key = TpmPrivateKey(tpm, tpm.create_key())
        request = x509.load_der_x509_csr(make_request(key, serial="WS-0001", model="wg1"))
        formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        with pytest.raises(UnsupportedAlgorithm, match="SHA-256"):
            key.sign(b"x", ec.ECDSA(hashes.SHA384()))
        with pytest.raises(UnsupportedAlgorithm, match="stays in the TPM"):
            key.private_numbers()
        with pytest.raises(UnsupportedAlgorithm, match="stays in the TPM"):
            key.private_bytes(*formats)
        with pytest.raises(UnsupportedAlgorithm, match="signs only"):
            key.exchange(ec.ECDH(), key.public_key())
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert (key.key_size, key.curve.name) == (256, "secp256r1")


def test_a_key_file_on_another_tpm_is_dead(tcti: str, other_state: Path, tmp_path: Path) -> None:
    """A cloned disk brings the file, and not the key."""
    with Tpm.open(tcti) as tpm:
        text = tpm.create_key().pem
    (tmp_path / "o").mkdir()
    with running_tpm(other_state, tmp_path / "o") as there, Tpm.open(there) as other:
        with pytest.raises(TrustError, match=r"TPM: load: .*integrity check failed"):
            other.sign(KeyBlob.from_pem(text), NONCE)
        assert other.handles()["transient"] == []


def test_a_key_under_a_persistent_storage_key_names_it(tcti: str, tmp_path: Path) -> None:
    """Where 0x81000001 is there, new keys stand under it; older ones still load under the primary."""
    with Tpm.open(tcti) as tpm:
        older = tpm.create_key()
    tool(tcti, "tpm2_createprimary", "-C", "o", "-G", "rsa", "-c", str(tmp_path / "srk"))
    tool(tcti, "tpm2_evictcontrol", "-C", "o", "-c", str(tmp_path / "srk"), "0x81000001")
    tool(tcti, "tpm2_flushcontext", "-t")
    with Tpm.open(tcti) as tpm:
        newer = tpm.create_key()
        assert (older.parent, newer.parent) == (0x40000001, 0x81000001)
        for key in (older, KeyBlob.from_pem(newer.pem)):
            tpm.sign(key, NONCE)
            tpm.certify(key, NONCE)
        assert tpm.unseal(tpm.seal(b"secret", pcrs=[0])) == b"secret"
        assert tpm.live == 0


def test_a_damaged_key_is_refused(tcti: str) -> None:
    """Whatever part is wrong, the answer is one TrustError."""
    with Tpm.open(tcti) as tpm:
        key = tpm.create_key()
        damaged = [
            KeyBlob(public=key.public, private=key.private[:-1] + b"x", parent=key.parent),
            KeyBlob(public=key.public[:-1], private=key.private, parent=key.parent),
            KeyBlob(public=key.public, private=bytes(9000), parent=key.parent),
            KeyBlob(public=key.public, private=key.private, parent=0x81000009),
            KeyBlob(public=key.public, private=key.private, parent=7),
        ]
        for bad in damaged:
            with pytest.raises(TrustError):
                tpm.sign(bad, NONCE)
        with pytest.raises(TrustError, match="sign"):
            tpm.sign(key, b"no digest")
        assert len(tpm.sign(key, NONCE)) > 60


def test_a_counter_only_goes_up(tcti: str) -> None:
    """Defining it again changes nothing; removing and making it again does not bring back old values."""
    with Tpm.open(tcti) as tpm:
        tpm.counter_define(COUNTER)
        first = tpm.counter_read(COUNTER)
        tpm.counter_define(COUNTER)
        assert tpm.counter_increment(COUNTER) == first + 1 == tpm.counter_read(COUNTER)
        tpm.counter_undefine(COUNTER)
        with pytest.raises(TrustError, match="0x01805753: is not defined"):
            tpm.counter_read(COUNTER)
        tpm.counter_define(COUNTER)
        assert tpm.counter_read(COUNTER) > first + 1


def test_a_counter_is_certified_by_the_attestation_key(tcti: str) -> None:
    """A remote verifier learns index and value; a counter of another name or answer is refused."""
    with Tpm.open(tcti) as tpm:
        tpm.counter_define(COUNTER)
        tpm.counter_increment(COUNTER)
        value = tpm.counter_read(COUNTER)
        counter = tpm.counter_certify(COUNTER, NONCE)
        key = parse_public(tpm.ak_public()).key
        assert counter.public == tpm.counter_public(COUNTER)
    assert verify_counter(counter, key, qualifying=NONCE) == (COUNTER, value)
    with pytest.raises(TrustError):
        verify_counter(counter, key, qualifying=bytes(32))


def test_an_index_that_is_no_counter_of_ours_is_refused(tcti: str) -> None:
    """A plain index in its place could be set back, so it is not taken for a counter."""
    tool(tcti, "tpm2_nvdefine", hex(OTHER), "-C", "o", "-s", "8", "-a", "ownerread|ownerwrite|authread|authwrite")
    with Tpm.open(tcti) as tpm, pytest.raises(TrustError, match="0x01805754: got attributes"):
        tpm.counter_define(OTHER)
