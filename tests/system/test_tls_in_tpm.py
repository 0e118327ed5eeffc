"""The client key stays in the TPM: seal and forward on Debian 13, with OpenSSL's provider tpm2, against a real chain.

The root is made anew with mmdebstrap (a minute), and each process enters it in a mount namespace of its own. Broker,
attestation service and ledger are outside. tpm2-abrmd stands in for the kernel's resource manager: seal and forward
use one TPM, at the same time, as they do on a device.
"""

import asyncio
import re
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import gateway
from gateway.app.broker import running_broker
from gateway.app.demo import GATEWAY, LEDGER
from gateway.app.load import load_gateway
from gateway.app.supervisor import wattseal
from tests.system.attested import VERIFIER, Chain, enrolled, verifier_command
from tests.system.site import LOCAL, Part, eventually
from tests.tpms import make_state, running_tpm

PACKAGES = (
    "python3-minimal,libpython3-stdlib,python3-msgspec,python3-uvloop,python3-cffi-backend,python3-tpm2-pytss,"
    "tpm2-openssl,libtss2-tcti-swtpm0t64,libtss2-tcti-tabrmd0,tpm2-abrmd,dbus-daemon"
)
BUS_TCTI = "tabrmd:bus_type=session"
HOURS = 0.01
"""A certificate's life, the least there is: it is renewed after 24 s."""
DEVICE = '\n[devices.m1]\ntemplate = "eastron-sdm630"\nurl = "tcp://127.0.0.1:1"\nunit_id = 1\n'
SOURCE, SITE_PACKAGES = Path(gateway.__file__).parent.parent, Path(pytest.__file__).parent.parent
IN_ROOT = ("python3", "-m", "gateway.cli")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a Debian 13."""
    made = tmp_path_factory.mktemp("trixie") / "root"
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}", "trixie", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return made


def inside(root: Path, folder: Path, *command: str, **environment: str) -> list[str]:
    """Return the command line that runs a command in the root, where the folder has the same path as outside."""
    places = {Path("/proc"): "proc", Path("/dev"): "dev", SOURCE: "src", SITE_PACKAGES: "packages"}
    places[folder] = str(folder).lstrip("/")
    mounts = "".join(
        f"mkdir -p {root}/{name} && mount --bind {place} {root}/{name} && " for place, name in places.items()
    )
    names = {
        # Debian's own come first: of what is compiled, the packages outside are for another Python.
        "PYTHONPATH": "/src:/usr/lib/python3/dist-packages:/packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/bus",
        "TSS2_LOG": "all+none",
        "HOME": "/tmp",
    } | environment
    words = " ".join(f"{name}={value}" for name, value in names.items())
    script = f"{mounts}exec chroot {root} env -i PATH=/usr/bin:/bin:/usr/sbin {words} {' '.join(command)}"
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


async def run_forward(root: Path, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run forward in the root until it ends by itself."""
    command = inside(root, folder, *IN_ROOT, "forward", str(folder / "gateway.toml"), **environment)
    return await asyncio.to_thread(
        subprocess.run, ["timeout", "60", *command], capture_output=True, text=True, check=False
    )


def write(chain: Chain, *, broker: str) -> None:
    """Write what the processes read: only a key in the TPM is good enough, and its certificate is a short one."""
    chain.write(broker=broker, devices=DEVICE)
    folder = chain.folder
    page = (SOURCE / "docs" / "tls.md").read_text("utf-8")
    (folder / "openssl.cnf").write_text(page.partition("```ini\n")[2].partition("```")[0])
    for file, old, new in (
        ("gateway.toml", 'key_in = "memory"', 'key_in = "tpm"'),
        ("gateway.toml", f'tcti = "{chain.tcti}"', f'tcti = "{BUS_TCTI}"'),
        ("verifier.toml", "hours = 24", f"hours = {HOURS}"),
        ("reference.toml", "[release.pcrs]", 'tls = ["tpm"]\n[release.pcrs]'),
    ):
        text = (folder / file).read_text("utf-8")
        assert text.count(old) == 1, f"{file}: {old}"
        (folder / file).write_text(text.replace(old, new), "utf-8")


def said(folder: Path, event: str) -> int:
    """Return how often the processes have said this."""
    return len(re.findall(re.escape(event), (folder / "processes.log").read_text(errors="replace")))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_gateway_connects_with_a_key_that_never_leaves_the_tpm(
    root: Path, tpm_state: Path, tmp_path: Path
) -> None:
    """It is certified on the TPM's word, and again before that ends; without provider or TPM it ends at its start."""
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "u").mkdir()
    async with enrolled(folder, tpm_state) as chain, AsyncExitStack() as stack:
        await asyncio.to_thread(chain.certify)
        broker = await stack.enter_async_context(
            running_broker(folder / "broker", pki=folder / "pki", ledger=LEDGER, verifier=VERIFIER, enrolling=[GATEWAY])
        )
        write(chain, broker=f"{LOCAL}:{broker.port}")
        file, conf = str(folder / "gateway.toml"), str(folder / "openssl.cnf")
        bus = ("dbus-daemon", "--session", f"--address=unix:path={folder}/bus", "--nofork", "--nopidfile")
        sharing = ("tpm2-abrmd", "--session", "--allow-root", f"--tcti={chain.tcti}")
        commands: dict[str, Sequence[str]] = {
            "bus": inside(root, folder, *bus),
            "tpm": inside(root, folder, *sharing),
            "seal": inside(root, folder, *IN_ROOT, "seal", file),
            "ledger": wattseal("ledger", "run", str(folder / "ledger.toml")),
            "verifier": verifier_command(folder),
        }
        log = stack.enter_context((folder / "processes.log").open("ab"))

        def start(name: str, command: Sequence[str]) -> None:
            part = Part(name, command, errors=log)
            stack.push_async_callback(part.stop)
            part.start()

        for name, command in commands.items():
            start(name, command)

        async def sealing() -> bool:
            return (load_gateway(folder / "gateway.toml").run_folder / "outlet.sock").exists()

        await eventually(sealing, within_s=60, what="the seal listens")
        done = await run_forward(root, folder, OPENSSL_CONF="/dev/null", TPM2OPENSSL_TCTI=BUS_TCTI)
        assert (done.returncode, "OpenSSL does not sign with a key of the TPM" in done.stderr) == (2, True), done.stderr
        with running_tpm(make_state(tmp_path / "other"), folder / "u") as other:
            done = await run_forward(root, folder, OPENSSL_CONF=conf, TPM2OPENSSL_TCTI=other)
        assert (done.returncode, "OpenSSL does not sign with a key of the TPM" in done.stderr) == (2, True), done.stderr
        assert said(folder, "forward.certified") == 0

        forward = inside(root, folder, *IN_ROOT, "forward", file, OPENSSL_CONF=conf, TPM2OPENSSL_TCTI=BUS_TCTI)
        start("forward", forward)
        await chain.until("TRUSTED", within_s=60)

        async def renewed() -> bool:
            return said(folder, "forward.certified") >= 2

        await eventually(renewed, within_s=90, what="a second certificate")
        await chain.until("TRUSTED", within_s=60)
        assert f"as {GATEWAY}" in broker.log.read_text()
    assert not list(folder.rglob("*TSS2*"))
    assert "Traceback" not in (folder / "processes.log").read_text(errors="replace")
