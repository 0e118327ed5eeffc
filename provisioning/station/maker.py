"""A TPM maker in software, for simulations: new TPMs by swtpm, each with seeds of its own and an EK certificate."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.attest.ek import EK_EKU
from gateway.attest.structures import parse_public
from gateway.errors import ConfigError
from gateway.tpm import Tpm

_CERTIFICATE_INDEX = {"rsa2048": 0x01C00002, "p256": 0x01C0000A}
_TPM_NAMES = {"2.23.133.2.1": "id:57534D00", "2.23.133.2.2": "simulated", "2.23.133.2.3": "id:00010000"}
"""TCG's attributes of a TPM: manufacturer, model, version. WSM is nobody's."""
_READY_S = 20.0
_END_S = 5.0
_MOST_PATH = 100
"""A socket's path has at most 107 bytes, and a second socket's is longer by five."""
_PAUSES_S = (0.02, 0.1, 0.5)


class Maker:
    """A maker's authority, made on the spot."""

    def __init__(self, name: str, *, now: datetime) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._now = now
        usage = _usage(key_cert_sign=True)
        root = (
            _builder(self._name, self._name, self._key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.root = root.public_bytes(Encoding.DER)
        self.root_pem = root.public_bytes(Encoding.PEM)

    def certify(self, public: bytes, *, days: int = 3650, has_purpose: bool = True) -> bytes:
        """Return the certificate (DER) of an endorsement key. public: TPMT_PUBLIC.

        days: less than 0 is in the past. has_purpose: whether it has an extended key usage, as it should.
        """
        key = parse_public(public).key
        names = [x509.NameAttribute(x509.ObjectIdentifier(oid), text) for oid, text in _TPM_NAMES.items()]
        alternative = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(names))])
        is_ec = isinstance(key, ec.EllipticCurvePublicKey)
        usage = _usage(key_agreement=True) if is_ec else _usage(key_encipherment=True)
        made = (
            _builder(x509.Name([]), self._name, key, self._now, days=days)
            .add_extension(alternative, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        if has_purpose:
            made = made.add_extension(x509.ExtendedKeyUsage([EK_EKU]), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: object, now: datetime, *, days: int = 3650
) -> x509.CertificateBuilder:
    start = now - timedelta(days=1) if days > 0 else now + timedelta(days=days - 10)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(
    *, key_cert_sign: bool = False, key_agreement: bool = False, key_encipherment: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


@contextlib.contextmanager
def running_tpm(folder: Path) -> Iterator[str]:
    """Run a TPM in a folder, new where there is none; give its TCTI. It ends with us, even if we are killed.

    Raises ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s"
    if len(os.fsencode(path)) > _MOST_PATH:
        raise ConfigError(f"{path}: got {len(os.fsencode(path))} bytes, want at most {_MOST_PATH}: set TMPDIR=/tmp")
    for stale in (path, folder / "s.ctrl"):
        stale.unlink(missing_ok=True)
    command = [
        *("setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}"),
        *("--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl"),
        *("--flags", "not-need-init,startup-clear"),
    ]
    process = _started(command)
    try:
        _await(folder / "s.ctrl", process)
        yield f"swtpm:path={path}"
    finally:
        process.kill()
        process.wait(_END_S)
        for own in (path, folder / "s.ctrl"):
            own.unlink(missing_ok=True)


def new_tpm(folder: Path, maker: Maker | None, *, kind: str = "rsa2048") -> bytes:
    """Make a TPM in a folder as it leaves its maker, and store its EK certificate; return the key's TPMT_PUBLIC.

    maker: None for a TPM that got no certificate. Raises ConfigError.
    """
    with running_tpm(folder) as tcti:
        with open_tpm(tcti) as tpm:
            public = tpm.ek_public(kind)
        if maker is not None:
            store_certificate(tcti, maker.certify(public), folder=folder, kind=kind)
    return public


def open_tpm(tcti: str) -> Tpm:
    """Return the TPM: under load, swtpm's two sockets may not both be there at the first try."""
    for pause_s in _PAUSES_S:
        with contextlib.suppress(ConfigError):
            return Tpm.open(tcti)
        time.sleep(pause_s)
    return Tpm.open(tcti)


def store_certificate(tcti: str, certificate: bytes, *, folder: Path, kind: str = "rsa2048") -> None:
    """Write an EK certificate where TCG's profile wants it, as a maker does: with the platform's authority."""
    file = folder / f"ek-{secrets.token_hex(4)}.der"
    file.write_bytes(certificate)
    index = hex(_CERTIFICATE_INDEX[kind])
    attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate"
    _tool(tcti, "nvdefine", index, "-C", "p", "-s", str(len(certificate)), "-a", attributes)
    _tool(tcti, "nvwrite", index, "-C", "p", "-i", str(file))
    file.unlink()


def _tool(tcti: str, name: str, *arguments: str) -> None:
    tool = shutil.which(f"tpm2_{name}")
    if tool is None:
        raise ConfigError(f"got no tpm2_{name}, want tpm2-tools: apt-get install tpm2-tools")
    environ = {**os.environ, "TPM2TOOLS_TCTI": tcti, "TSS2_LOG": "all+none"}
    done = subprocess.run(  # noqa: S603 - our own arguments
        [tool, *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False, start_new_session=True
    )
    if done.returncode:
        raise ConfigError(f"tpm2_{name}: {done.stderr.strip()[-300:]}")


def _started(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - our own arguments
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the station: the units under way end
        )
    except OSError as e:
        raise ConfigError(f"{command[0]}: {e.strerror}, want util-linux and swtpm: apt-get install swtpm") from e


def _await(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until both of its sockets take connections."""
    end_s = time.monotonic() + _READY_S
    waiting = [path, path.with_name("s")]
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise ConfigError(f"swtpm ended with {process.returncode}, want a folder of its own: {path.parent}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(waiting[0]))
            waiting.pop(0)
        if not waiting:
            return
        time.sleep(0.003)
    raise ConfigError(f"swtpm did not come up within {_READY_S:g} s: is apt's swtpm installed?")


def now() -> datetime:
    """Return the time to the second."""
    return datetime.now(UTC).replace(microsecond=0)
