"""A factory for tests: its authorities, requests of its devices, and what openssl says of them."""

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.attest.birth import Birth, sign_birth
from gateway.tlog.note import Signer
from provisioning.ca import Authority, Unlock, make_all, trust_of
from provisioning.registrar import AK, EK, Registrar

PASSWORD = "correct horse battery"
UNLOCK = Unlock(secret=PASSWORD)
NAME = "Example Devices"
MODEL = "Wattseal G1"
FACTORY = Signer.generate("wattseal-factory/acme")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.time


def make_factory(folder: Path) -> tuple[Authority, Authority, Authority]:
    """Make a root, an authority for devices and one for operation, with keys in files."""
    root, devices, operation = make_all(folder, name=NAME, root_unlock=UNLOCK, unlock=UNLOCK, passes=1)
    return root, devices, operation


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey, name: str = "somebody else") -> bytes:
    """Return a request in DER, with a subject that nobody is to believe."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    wanted = x509.BasicConstraints(ca=True, path_length=None)
    return made.add_extension(wanted, critical=True).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def pem(*certificates: bytes) -> bytes:
    """Return certificates, given in DER, in PEM."""
    loaded = map(x509.load_der_x509_certificate, certificates)
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in loaded)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def openssl_says(certificate: bytes, authority: Authority, scratch: Path, *options: str) -> str:
    """Return what `openssl verify` says of a certificate in DER: OK, or its complaints."""
    chain, lists = trust_of(authority.folder)
    files = {"leaf": pem(certificate), "root": pem(authority.chain[-1]), "chain": chain, "lists": lists}
    for name, content in files.items():
        (scratch / f"{name}.pem").write_bytes(content)
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-crl_check_all", *options),
            *("-CAfile", "root.pem", "-untrusted", "chain.pem", "-CRLfile", "lists.pem", "leaf.pem"),
        ],
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode == 0) == (done.stdout.strip() == "leaf.pem: OK"), done
    return "OK" if done.returncode == 0 else done.stderr


def ids_of(serial: str) -> dict[str, str]:
    """Return the EK and AK that a unit of this serial has in tests, as a step's result says them."""
    return {EK: hashlib.sha256(f"ek of {serial}".encode()).hexdigest(), AK: ak_name(serial).hex()}


def ak_name(serial: str) -> bytes:
    return b"\x00\x0b" + hashlib.sha256(f"ak of {serial}".encode()).digest()


def birth_of(serial: str, *, like: str | None = None, signer: Signer = FACTORY, order: str = "O-1") -> bytes:
    """Return a unit's signed birth record. like: the unit whose TPM it has."""
    device = like or serial
    birth = Birth(
        serial=serial,
        model=MODEL,
        order=order,
        operator="ann",
        station="bench-1",
        image_sha256="00" * 32,
        ek_certificate=f"ek of {device}".encode(),
        ek_remarks=(),
        ak_name=ak_name(device),
        ak_certificate_sha256=hashlib.sha256(f"ak {serial}".encode()).hexdigest(),
        idevid_sha256=hashlib.sha256(f"idevid {serial}".encode()).hexdigest(),
        golden={0: bytes(32)},
        nv_index=0x01500001,
        nv_value=1,
        made_s=1_700_000_000,
    )
    return sign_birth(birth, signer)


def enrol(registrar: Registrar, serial: str, *, signer: Signer = FACTORY) -> None:
    """Take a unit through the factory."""
    registrar.begin(serial, model=MODEL, order="O-1", operator="ann")
    registrar.step(serial, "keys", ids_of(serial))
    registrar.complete(serial, birth_of(serial, signer=signer))
