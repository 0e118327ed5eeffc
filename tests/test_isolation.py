"""What the seal gives up at its start, seen from inside: a process without a network that can still write its log."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65_534
ROOT = os.geteuid() == 0

PROBE = """\
import ctypes, json, os, signal, socket, sys
from pathlib import Path
from gateway.app.isolation import die_with_us, drop_network, network_interfaces

def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError as e:
        return e.strerror
    return "connected"

def asked_to_end():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    return number.value

folder = Path(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
(folder / "before").write_text("x")
die_with_us()
found = {"ids": [os.geteuid(), os.getegid()], "before": reaches(port), "interfaces_before": network_interfaces()}
found["dropped"] = drop_network()
found["after"], found["interfaces"] = reaches(port), network_interfaces()
found["ids_after"] = [os.geteuid(), os.getegid()]
found["asked_to_end"] = asked_to_end()

with (folder / "log.part").open("wb") as log:
    log.write(b"leaf")
    os.fsync(log.fileno())
(folder / "log.part").rename(folder / "log")
(folder / "before").write_text("y")
(folder / "run").mkdir()
local = socket.socket(socket.AF_UNIX)
local.bind(str(folder / "run" / "x.sock"))
local.listen()
socket.socket(socket.AF_UNIX).connect(str(folder / "run" / "x.sock"))
found["written"] = sorted(path.name for path in folder.iterdir())
found["owner"] = (folder / "log").stat().st_uid == (folder / "before").stat().st_uid
print(json.dumps(found))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder of nobody's own: those of pytest are closed to other users."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        path = Path(made)
        if ROOT:
            os.chown(path, NOBODY, NOBODY)
        yield path


def as_nobody(*command: str) -> list[str]:
    """Return a command as run by an ordinary user: ourselves, or nobody where we are root."""
    if not ROOT:
        return list(command)
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there")
    command = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *command)
    probe = [*command[:5], sys.executable, "-c", "import gateway.app.isolation"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("nobody may not read this checkout, or its Python")
    return list(command)


def probed(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_cut_off(found: dict[str, Any]) -> None:
    """Check what holds for every user."""
    if not found["dropped"]:
        assert found["after"] == "connected", "what was refused must change nothing"
        pytest.skip("this kernel allows no network namespace here")
    assert found["before"] == "connected"
    assert found["after"] == "Network is unreachable"
    assert found["interfaces"] == []
    assert {"before", "log", "run"} <= set(found["written"])
    assert found["owner"]
    assert found["asked_to_end"] == signal.SIGTERM, "a new namespace must not make an orphan of us"


def test_an_ordinary_user_loses_the_network_and_nothing_else(folder: Path) -> None:
    """Not even the loopback interface is left; files, unix sockets and the user's ids are."""
    found = probed(as_nobody(sys.executable, "-c", PROBE, str(folder)))
    is_cut_off(found)
    assert found["ids_after"] == found["ids"]


@pytest.mark.skipif(not ROOT, reason="only root can be root")
def test_root_loses_the_network_and_nothing_else(folder: Path) -> None:
    found = probed([sys.executable, "-c", PROBE, str(folder)])
    is_cut_off(found)
    assert found["ids_after"] == found["ids"] == [0, 0]


@pytest.mark.skipif(not ROOT, reason="only root can make /proc read-only")
def test_a_kernel_that_denies_the_id_maps_still_takes_the_network(folder: Path) -> None:
    """As AppArmor does from Ubuntu 23.10 on, here with a read-only /proc: once, the seal could not start at all."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not there")
    script = 'mount -o remount,bind,ro /proc && exec "$@"'
    inner = as_nobody(sys.executable, "-c", PROBE, str(folder))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("no mount namespace here")
    found = probed([*command, *inner])
    is_cut_off(found)


@pytest.mark.skipif(not ROOT, reason="only root can change its root")
def test_a_kernel_that_refuses_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """No user namespaces within a chroot: the answer is False, so that the seal can say so."""
    script = f"""
import os, socket
from gateway.app.isolation import drop_network
listener = socket.create_server(("127.0.0.1", 0))
os.chroot({str(tmp_path)!r})
os.chdir("/")
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
print(drop_network(), os.geteuid())
socket.socket().connect(listener.getsockname())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"False {NOBODY}\n"), done.stderr


def test_a_process_ends_with_its_parent(folder: Path) -> None:
    """The parent is killed without a word; the child is asked to end by the kernel."""
    child = "import signal, sys; sys.stdout.write('up'); sys.stdout.flush(); signal.pause()"
    parent = f"""
import signal, subprocess, sys
from gateway.app.isolation import die_with_us
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE,
                         preexec_fn=die_with_us)
child.stdout.read(2)
print(child.pid, flush=True)
signal.pause()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        descriptor = os.pidfd_open(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()
    try:
        assert wait_readable(descriptor, 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def wait_readable(descriptor: int, within_s: float) -> bool:
    """Return whether a process, by its pidfd, ends in time."""
    return bool(select.select([descriptor], [], [], within_s)[0])
