"""A client key in the TPM: certified for whoever shows the TPM's word for it, and tried before it is asked for.

Also what all client keys have in common: when their certificate ends, and that it is said in time.
"""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gateway.app.channel import Channel, listen
from gateway.app.clientkey import ClientKey, FileKey, IssuedKey, client_key
from gateway.app.forward import watch_certificate
from gateway.app.forwarding import ForwardMetrics
from gateway.app.load import load_gateway
from gateway.app.supervisor import wattseal
from gateway.app.tlskeys import TlsKeys
from gateway.attest.evidence import CertifiedKey, Challenge, Evidence
from gateway.attest.request import make_request
from gateway.errors import ConfigError, LinkError
from gateway.north.memory_key import HeldKey
from gateway.north.tls import Endpoint
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftDevice, new_key, public_area, tls_public
from provisioning.verifier.issuing import PACE_S, Issuer
from tests.links import HOST, endpoint, make_pki
from tests.test_issuing import NOW_S, SERIAL, DevAuthority, ask, challenged, good, issuer_of
from tests.verifying import cancelled, logger

KEY = new_key()
CSR = make_request(KEY, serial="gw1", model="wattseal")
PUBLIC = tls_public(KEY.public_key())
IMPORTED = 0x00040052  # fixedTPM, fixedParent, userWithAuth, sign: but not made in the TPM
MOVABLE = 0x00040060  # made in the TPM, and may leave it


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def device() -> SoftDevice:
    return SoftDevice(SERIAL)


@pytest.fixture
def authority(pki: Path) -> DevAuthority:
    return DevAuthority(pki)


@pytest.fixture
def issuer(device: SoftDevice, authority: DevAuthority) -> Issuer:
    return issuer_of(device, authority, good(device))


def answer(device: SoftDevice, challenge: Challenge, *, tls: str = "tpm", public: bytes = PUBLIC) -> bytes:
    """Return a device's evidence for the request CSR."""
    bound = hashlib.sha256(CSR).digest()
    return device.evidence(challenge, epoch=1, key="k", log_size=1, bound=bound, about={"tls": tls}, public=public)


# ---- the issuer


def test_a_key_that_the_tpm_vouches_for_gets_a_certificate(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    said = ask(issuer, CSR, answer(device, challenged(issuer, CSR)))
    assert authority.issued == [("gw1", 24)]
    assert x509.load_der_x509_certificate(said["chain"][0]).public_key() == KEY.public_key()


def without_its_word(device: SoftDevice, challenge: Challenge) -> bytes:
    """Return evidence that says tpm, from a device whose key is in a file."""
    return answer(device, challenge, public=b"")


def with_an_old_word(device: SoftDevice, challenge: Challenge) -> bytes:
    """Return evidence with the TPM's word for the key that it gave in answer to another challenge."""
    fresh = Evidence.unpack(answer(device, challenge))
    old = Evidence.unpack(answer(device, replace(challenge, nonce=bytes(32))))
    return replace(fresh, key=old.key).pack()


def with_the_word_of_another(device: SoftDevice, challenge: Challenge) -> bytes:
    """Return evidence in which another TPM vouches for the key."""
    fresh, other = Evidence.unpack(answer(device, challenge)), SoftDevice("WS-0002", authority=device.authority)
    return replace(fresh, key=Evidence.unpack(answer(other, challenge)).key).pack()


def with_another_area(device: SoftDevice, challenge: Challenge) -> bytes:
    """Return evidence in which the TPM's word is for another public area than the one shown."""
    fresh = Evidence.unpack(answer(device, challenge, public=tls_public(new_key().public_key())))
    assert fresh.key is not None
    shown = CertifiedKey(public=PUBLIC, attest=fresh.key.attest, signature=fresh.key.signature)
    return replace(fresh, key=shown).pack()


def _wrong() -> Iterator[tuple[str, str, Callable[[SoftDevice, Challenge], bytes]]]:
    yield "says tpm, shows nothing", "tls tpm without", without_its_word
    yield "says memory, shows one", "tls memory with", lambda d, c: answer(d, c, tls="memory")
    other = tls_public(new_key().public_key())
    yield "another key in the TPM", "another key than that of the request", lambda d, c: answer(d, c, public=other)
    yield "made outside", "came from there", lambda d, c: answer(d, c, public=_area(IMPORTED))
    yield "may leave", "can be had outside", lambda d, c: answer(d, c, public=_area(MOVABLE))
    yield "an old word", "another question", with_an_old_word
    yield "another TPM's word", "not signed by this", with_the_word_of_another
    yield "another area", "vouches for another key", with_another_area


def _area(attributes: int) -> bytes:
    return public_area(KEY.public_key(), attributes=attributes)


@pytest.mark.parametrize(
    ("why", "answers"), [(why, how) for _, why, how in _wrong()], ids=[name for name, *_ in _wrong()]
)
def test_a_key_that_is_not_this_tpms_own_gets_none(
    device: SoftDevice,
    issuer: Issuer,
    authority: DevAuthority,
    why: str,
    answers: Callable[[SoftDevice, Challenge], bytes],
) -> None:
    said = ask(issuer, CSR, answers(device, challenged(issuer, CSR)))
    assert why in said["refused"]
    assert not authority.issued


def test_a_certified_key_of_another_form_is_malformed(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    packed = Evidence.unpack(answer(device, challenged(issuer, CSR)))
    assert packed.key is not None
    text: Any = "text"
    wrong = CertifiedKey(public=text, attest=b"", signature=b"")
    said = ask(issuer, CSR, replace(packed, key=wrong).pack(), now_s=NOW_S + PACE_S)
    assert "key does not fit" in said["refused"]
    assert not authority.issued


# ---- forward


GATEWAY_TOML = """\
[gateway]
id = "gw1"
state = "state"

[seal]
{key}witness = "ledger.vkey"

[forward]
broker = "127.0.0.1:1"
ca = "{pki}/ca.pem"
cert = "{pki}/gw1.pem"
key = "{pki}/gw1.key"
key_in = "{key_in}"
{attest}
[devices.m1]
template = "eastron-sdm630"
url = "tcp://127.0.0.1:502"
unit_id = 1
"""
ATTEST = """
[attest]
chain = "ak.pem"
verifier = "verifier.vkey"
"""


def write_config(folder: Path, pki: Path, *, key_in: str, attests: bool = True) -> Path:
    """Write a gateway.toml with its client key there."""
    key, attest = ("", ATTEST) if attests else ('key = "epoch.key"\n', "")
    path = folder / "gateway.toml"
    path.write_text(GATEWAY_TOML.format(pki=pki, key_in=key_in, key=key, attest=attest), "utf-8")
    return path


@asynccontextmanager
async def seal_with(tcti: str, path: Path, *, private: bytes = b"") -> AsyncIterator[None]:
    """Serve an outlet that makes keys in a TPM. private: what it hands out instead of the key's file."""
    with Tpm.open(tcti) as tpm:
        keys = TlsKeys(tpm, gateway="gw1")

        async def serve(channel: Channel) -> None:
            while True:
                assert await channel.receive() == [["key"]]
                made, csr = keys.make()
                await channel.send(["key", private or made, csr])

        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        server = await listen(path, serve, failed=failed)
        yield
        server.close()
        assert not failed.done()


def issued_key(pki: Path, folder: Path) -> IssuedKey:
    """Return a client key in the TPM; the broker of its issuer is away."""
    log, _ = logger()
    return IssuedKey("gw1", bootstrap=endpoint(pki, 1, "gw1"), outlet=folder / "o.sock", log=log, backend="tpm")


def test_a_key_in_the_tpm_wants_openssl_to_be_configured(
    pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENSSL_CONF", raising=False)
    log, _ = logger()
    with pytest.raises(ConfigError, match=r"forward\.key_in: got tpm without OPENSSL_CONF.*docs/tls\.md"):
        client_key(load_gateway(write_config(tmp_path, pki, key_in="tpm")), log=log)


@pytest.mark.parametrize("key_in", ["tpm", "memory"])
def test_an_issued_certificate_wants_a_tpm_that_vouches(pki: Path, tmp_path: Path, key_in: str) -> None:
    """Or forward would ask for ever, of a seal that can answer nobody."""
    with pytest.raises(ConfigError, match=rf"forward\.key_in: got {key_in} without \[attest\]"):
        load_gateway(write_config(tmp_path, pki, key_in=key_in, attests=False))


async def test_openssl_without_the_provider_ends_forward_before_it_asks(
    pki: Path, tmp_path: Path, tcti: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENSSL_CONF is set, and loads nothing: once that was enough to say `tpm`."""
    monkeypatch.setenv("OPENSSL_CONF", "/dev/null")
    async with seal_with(tcti, tmp_path / "o.sock"):
        with pytest.raises(ConfigError, match=r"forward\.key_in: got tpm, and OpenSSL does not sign"):
            await issued_key(pki, tmp_path).endpoint()


async def test_the_forward_process_ends_with_exit_code_2_without_the_provider(
    pki: Path, tmp_path: Path, tcti: str
) -> None:
    path = write_config(tmp_path, pki, key_in="tpm")
    outlet = load_gateway(path).run_folder / "outlet.sock"
    environment = {**os.environ, "OPENSSL_CONF": "/dev/null"}
    command = ["timeout", "60", *wattseal("forward", str(path))]
    async with seal_with(tcti, outlet):
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2, done.stderr
    assert "forward.key_in: got tpm, and OpenSSL does not sign" in done.stderr


async def test_a_plain_key_is_none_of_the_tpm_whoever_hands_it_out(pki: Path, tmp_path: Path, tcti: str) -> None:
    """OpenSSL would sign with it, and no TPM would be asked."""
    plain = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    async with seal_with(tcti, tmp_path / "o.sock", private=plain):
        with pytest.raises(LinkError, match="not one PEM block of TSS2 PRIVATE KEY"):
            await issued_key(pki, tmp_path).endpoint()


def test_a_trial_leaves_no_descriptor_and_gives_way_to_the_certificate() -> None:
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    key = HeldKey("gw1", csr=CSR, private=b"-----BEGIN TSS2 PRIVATE KEY-----\n")
    cert, private = key.trial()
    assert x509.load_pem_x509_certificate(cert.read_bytes()).public_key() == KEY.public_key()
    assert private.read_bytes() == b"-----BEGIN TSS2 PRIVATE KEY-----\n"
    key.close()
    assert {entry.name for entry in Path("/proc/self/fd").iterdir()} <= before


# ---- when a certificate ends


def write_certificate(folder: Path, *, from_s: float, until_s: float, key: Any = KEY) -> Endpoint:
    """Write a certificate with this life, and its key; return an endpoint that names them."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw1")])
    first, last = (datetime.fromtimestamp(at_s, UTC) for at_s in (from_s, until_s))
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, first, last).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    cert, private = folder / "gw1.pem", folder / "gw1.key"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    cert.write_bytes(made.public_bytes(pem))
    return Endpoint(host=HOST, port=1, ca=folder / "ca.pem", cert=cert, key=private)


@dataclass
class Held:
    """A client key whose certificate has any life."""

    life: tuple[int, int]
    backend: str = "memory"

    async def endpoint(self) -> Endpoint:
        """Return nothing: it is only looked at."""
        raise LinkError("none")

    async def renewed(self) -> None:
        """Never."""
        await asyncio.Event().wait()


async def watched(client: ClientKey, *, looks: int = 3) -> tuple[ForwardMetrics, list[Any]]:
    """Return what is counted and said while forward looks at a certificate a few times."""
    (log, said), counts = logger(), ForwardMetrics()
    watching = asyncio.create_task(watch_certificate(client, counts, log, look_s=0.01))
    await asyncio.sleep(0.01 * (looks + 1))
    await cancelled(watching)
    return counts, said.calls


HOUR_S = 3600


@pytest.mark.parametrize("backend", ["file", "tpm", "memory"])
async def test_a_certificate_with_a_third_of_its_life_left_is_warned_of_once(backend: str) -> None:
    now_s = int(time.time())
    counts, said = await watched(Held((now_s - 21 * HOUR_S, now_s + 9 * HOUR_S), backend))
    assert counts.certificate_expires_seconds == now_s + 9 * HOUR_S
    assert [(call.kwargs["event"], call.kwargs["hours"], call.kwargs["key_in"]) for call in said] == [
        ("forward.certificate_ends", pytest.approx(9, abs=0.1), backend)
    ]


async def test_a_certificate_that_lasts_is_shown_and_not_warned_of() -> None:
    now_s = int(time.time())
    counts, said = await watched(Held((now_s - 19 * HOUR_S, now_s + 11 * HOUR_S)))
    assert (counts.certificate_expires_seconds, said) == (now_s + 11 * HOUR_S, [])
    counts, said = await watched(Held((0, 0)))
    assert (counts.certificate_expires_seconds, said) == (0, [])


async def test_the_end_of_a_certificate_in_a_file_is_known_and_warned_of(tmp_path: Path) -> None:
    now_s = int(time.time())
    client = FileKey(write_certificate(tmp_path, from_s=now_s - 30 * HOUR_S, until_s=now_s + HOUR_S))
    assert client.life == (now_s - 30 * HOUR_S, now_s + HOUR_S)
    counts, said = await watched(client)
    assert (counts.certificate_expires_seconds, len(said)) == (now_s + HOUR_S, 1)
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", b"\xff"):
        client.place.cert.write_bytes(content)
        assert client.life == (0, 0)
    client.place.cert.unlink()
    assert client.life == (0, 0)


async def test_a_certificate_that_is_replaced_is_taken_up_once_its_key_is_there(tmp_path: Path) -> None:
    """Both files are replaced, one after the other: between the two, nothing happens."""
    now_s, other = int(time.time()), new_key()
    client = FileKey(write_certificate(tmp_path, from_s=now_s - HOUR_S, until_s=now_s + HOUR_S), look_s=0.01)
    renewed = asyncio.create_task(client.renewed())
    await asyncio.sleep(0.1)
    assert not renewed.done()
    old = client.place.key.read_bytes()
    write_certificate(tmp_path, from_s=now_s - HOUR_S, until_s=now_s + 9 * HOUR_S, key=other)
    new = client.place.key.read_bytes()
    client.place.key.write_bytes(old)
    async with asyncio.timeout(30):
        await asyncio.sleep(0.1)
        assert not renewed.done()
        client.place.key.write_bytes(new)
        await renewed
