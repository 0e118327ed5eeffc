"""The client key stays in the TPM: our own Link, on Debian 13, through OpenSSL's provider tpm2, to a real broker.

The root is made anew with mmdebstrap (40 s), and entered in a mount namespace of its own.
"""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

import gateway
from gateway.app.broker import running_broker
from gateway.attest.structures import parse_public
from gateway.tpm import Tpm
from tests.links import LEDGER, make_pki
from tests.tpms import running_tpm

PACKAGES = "python3-minimal,libpython3-stdlib,tpm2-openssl,libtss2-tcti-swtpm0t64"
INSIDE = """
import asyncio, json, sys, time
from pathlib import Path
from gateway.errors import ConfigError
from gateway.north.mqtt import Link, log_topic, receipt_topic
from gateway.north.tls import Endpoint, prove_key

async def main(port, folder):
    place = Endpoint(host="localhost", port=port, ca=folder / "ca.pem", cert=folder / "tpm.pem", key=folder / "tpm.key")
    prove_key(place.cert, place.key)
    times = []
    for number in range(3):
        began = time.monotonic()
        async with Link(place, client_id="gw1") as link:
            times.append(round(time.monotonic() - began, 4))
            await link.subscribe(receipt_topic("gw1"))
            await link.publish(log_topic("gw1"), b"%d" % number)
    return times

try:
    print(json.dumps({"ok": True, "connect_s": asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))}))
except ConfigError as e:
    print(json.dumps({"ok": False, "why": str(e)}))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a Debian 13."""
    made = tmp_path_factory.mktemp("trixie") / "root"
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}", "trixie", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return made


def certify(pki: Path, public: ec.EllipticCurvePublicKey) -> bytes:
    """Return a client certificate of gw1 for a key, as the authority of pki would give it."""
    authority = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    ours = x509.load_pem_x509_certificate((pki / "gw1.pem").read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(ours.subject)
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(ours.not_valid_before_utc)
        .not_valid_after(ours.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def inside(root: Path, folder: Path, port: int, *, tpm: str, conf: str = "/w/openssl.cnf") -> str:
    """Run our Link in the root; return what it prints."""
    source, packages = Path(gateway.__file__).parent.parent, Path(pytest.__file__).parent.parent
    for name in ("w", "src", "packages"):
        (root / name).mkdir(exist_ok=True)
    mounts = "".join(
        f"mount --bind {place} {root}/{name} && "
        for place, name in ((folder, "w"), (source, "src"), (packages, "packages"))
    )
    environment = (
        f"OPENSSL_CONF={conf} TPM2OPENSSL_TCTI=swtpm:path=/w/{tpm}/tpm.sock TSS2_LOG=all+none "
        "PYTHONPATH=/src:/packages PYTHONDONTWRITEBYTECODE=1 HOME=/tmp"
    )
    script = f"{mounts}exec chroot {root} env -i PATH=/usr/bin:/bin {environment} python3 /w/inside.py {port} /w"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_our_link_connects_with_a_key_that_never_leaves_the_tpm(
    root: Path, tpm_state: Path, tmp_path: Path
) -> None:
    """With the TPM it connects; with another TPM, or without the provider, it says so before it connects."""
    pki = make_pki(tmp_path / "pki")
    folder = tmp_path / "w"
    (folder / "t").mkdir(parents=True)
    (folder / "u").mkdir()
    with running_tpm(tpm_state, folder / "t") as tcti:
        with Tpm.open(tcti) as tpm:
            blob = tpm.create_key()
        public = parse_public(blob.public).key
        assert isinstance(public, ec.EllipticCurvePublicKey)
        (folder / "tpm.pem").write_bytes(certify(pki, public))
        (folder / "tpm.key").write_text(blob.pem)
        (folder / "ca.pem").write_bytes((pki / "ca.pem").read_bytes())
        (folder / "inside.py").write_text(INSIDE)
        page = Path(gateway.__file__).parent.parent / "docs" / "tls.md"
        (folder / "openssl.cnf").write_text(page.read_text("utf-8").partition("```ini\n")[2].partition("```")[0])
        async with running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER) as broker:
            said = inside(root, folder, broker.port, tpm="t")
            assert '"ok": true' in said, said
            heard = broker.log.read_text()
        assert heard.count("as gw1") == 3, heard
        without = inside(root, folder, 1, tpm="t", conf="/dev/null")
        assert '"ok": false' in without
        assert "tpm.key" in without
        seed = tmp_path / "seed"
        seed.mkdir()
        fresh = _other_state(seed)
        with running_tpm(fresh, folder / "u"):
            foreign = inside(root, folder, 1, tpm="u")
        assert '"ok": false' in foreign
        assert "tpm.key" in foreign
    assert not list((root / "w").iterdir())


def _other_state(folder: Path) -> Path:
    """Make another TPM, with seeds of its own."""
    state = folder / "state"
    state.mkdir()
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--pcr-banks", "sha256", "--overwrite"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return state
