"""north/tls.py and north/memory_key.py: a key is tried before it is needed, and one in memory leaves no trace."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import ConfigError, TrustError
from gateway.north.memory_key import MemoryKey
from gateway.north.tls import prove_key
from tests.links import make_pki

CA_KEY = ec.generate_private_key(ec.SECP256R1())
CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


def issue(csr: bytes, *, name: str = "gw1", purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH) -> bytes:
    """Return a certificate for a request, in DER."""
    request = x509.load_der_x509_csr(csr)
    assert request.is_signature_valid
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(CA_NAME)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=24))
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .sign(CA_KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def test_a_key_that_fits_its_certificate_is_proven(pki: Path) -> None:
    prove_key(pki / "gw1.pem", pki / "gw1.key")


@pytest.mark.parametrize(("cert", "key"), [("gw1.pem", "gw2.key"), ("gw1.key", "gw1.pem"), ("gw1.pem", "none")])
def test_a_key_that_does_not_fit_is_named(pki: Path, cert: str, key: str) -> None:
    """Both files stand in the error."""
    with pytest.raises(ConfigError, match=f"{cert}.*{key}"):
        prove_key(pki / cert, pki / key)


def test_an_encrypted_key_is_refused_and_asks_nobody(pki: Path, tmp_path: Path) -> None:
    """Or OpenSSL would wait at a terminal for ever."""
    key = serialization.load_pem_private_key((pki / "gw1.key").read_bytes(), None)
    locked = tmp_path / "locked.key"
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    with pytest.raises(ConfigError, match="locked"):
        prove_key(pki / "gw1.pem", locked)


def test_a_key_in_memory_signs_and_can_be_used_again_and_again() -> None:
    """Python's ssl reads it by a path that only this process has."""
    key = MemoryKey("gw1")
    cert, private = key.adopt([issue(key.csr)])
    for _ in range(3):
        prove_key(cert, private)
    assert 3600 * 23 < key.expires_s - datetime.now(UTC).timestamp() <= 3600 * 24
    key.close()
    with pytest.raises(ConfigError):
        prove_key(cert, private)


def test_a_key_in_memory_leaves_no_file_and_no_descriptor(tmp_path: Path) -> None:
    """Neither while it is held, but in memory, nor after, also when it was certified anew."""
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    key = MemoryKey("gw1")
    for _ in range(3):
        cert, _ = key.adopt([issue(key.csr)])
        assert str(cert.readlink()).startswith("/memfd:")
        assert len({entry.name for entry in Path("/proc/self/fd").iterdir()} - before) == 2
    with pytest.raises(OSError, match="not permitted"), Path(cert).open("r+b") as file:
        file.write(b"another")
    key.close()
    key.close()
    assert {entry.name for entry in Path("/proc/self/fd").iterdir()} <= before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    ["another key", "another name", "a server's", "no certificate", "too many", "none"],
)
def test_a_certificate_that_was_not_asked_for_is_refused(wrong: str) -> None:
    key, other = MemoryKey("gw1"), MemoryKey("gw1")
    chain = {
        "another key": [issue(other.csr)],
        "another name": [issue(key.csr, name="gw2")],
        "a server's": [issue(key.csr, purpose=ExtendedKeyUsageOID.SERVER_AUTH)],
        "no certificate": [b"0\x03\x02\x01\x01"],
        "too many": [issue(key.csr)] * 5,
        "none": [],
    }[wrong]
    with pytest.raises(TrustError, match="certificate"):
        key.adopt(chain)


def test_a_key_in_memory_proves_who_connects() -> None:
    """A real TLS 1.3 server sees the certificate that was issued."""
    key = MemoryKey("gw1")
    cert, private = key.adopt([issue(key.csr)])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(cert, private)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=_ca())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.load_cert_chain(cert, private)
    ours, theirs = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as tls:
            seen.append(tls.getpeercert())
            tls.send(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours) as tls:
        assert tls.recv(1) == b"x"
    thread.join(10)
    assert "gw1" in str(seen[0])
    key.close()


def _ca() -> str:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(CA_NAME)
        .issuer_name(CA_NAME)
        .public_key(CA_KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=48))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(CA_KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
