"""TPMs in software (swtpm) for tests: each in a folder of its own, ended by its process id.

The state is made once for each session of tests and copied: some 13 ms for a TPM.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TSS2_LOG", "all+none")  # or libtss2 writes a line for each refusal that a test provokes

READY_S = 10.0


def make_state(folder: Path) -> Path:
    """Make a TPM's state, with EK certificates of a maker's authority under folder/ca; return its folder."""
    state = folder / "state"
    state.mkdir(parents=True)
    ca = folder / "ca"
    ca.mkdir()
    (folder / "localca.conf").write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n"
        f"certserial = {ca}/certserial\n"
    )
    (folder / "localca.options").write_text(
        "--platform-manufacturer Wattseal\n--platform-version 1\n--platform-model test\n"
    )
    (folder / "setup.conf").write_text(
        "create_certs_tool = /usr/bin/swtpm_localca\n"
        f"create_certs_tool_config = {folder}/localca.conf\n"
        f"create_certs_tool_options = {folder}/localca.options\n"
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--config", str(folder / "setup.conf")]
    options = ["--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--pcr-banks", "sha256", "--overwrite"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return state


@contextlib.contextmanager
def running_tpm(state: Path, folder: Path) -> Iterator[str]:
    """Run a TPM on a copy of state in folder (on what is there already, without one); give its TCTI string.

    Leaving ends it as a loss of power would; entering again with the same folder is the device's next start.
    """
    own = folder / "tpm"
    if not own.exists():
        shutil.copytree(state, own)
    path = folder / "tpm.sock"
    for stale in (path, folder / "tpm.sock.ctrl"):
        stale.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={own}"),
            *("--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl"),
            *("--flags", "not-need-init,startup-clear"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(path, process)
        yield f"swtpm:path={path}"
    finally:
        process.kill()
        process.wait()


def _await(path: Path, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        assert process.poll() is None, f"swtpm ended with {process.returncode}"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))  # swtpm listens here last, after its .ctrl
            return
        time.sleep(0.005)
    raise AssertionError(f"{path}: swtpm did not come up")
