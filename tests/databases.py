"""A PostgreSQL of our own for tests: on a unix socket alone, as a user that is not root, ended by its process id."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

READY_S = 30.0


def _program(name: str) -> str:
    found = shutil.which(name)
    known = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found or known, f"{name}: want PostgreSQL (image/setup.sh installs it)"
    return str(known[-1]) if known else str(found)


def _user() -> pwd.struct_passwd:
    """Return who runs it: PostgreSQL refuses root."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("want a user postgres or nobody")


@contextlib.contextmanager
def running_postgres() -> Iterator[Path]:
    """Run a cluster in a folder of its own; give the folder of its socket. Trusts who may enter that folder."""
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="ws-pg-"))
    uid, gid, groups = (None, None, None) if os.geteuid() else (user.pw_uid, user.pw_gid, list[int]())
    try:
        os.chown(folder, user.pw_uid, user.pw_gid)
        options = ["-U", "wattseal", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        initdb = [_program("initdb"), "-D", str(folder / "db"), *options]
        made = subprocess.run(
            initdb, cwd=folder, capture_output=True, timeout=60, check=False, user=uid, group=gid, extra_groups=groups
        )
        assert made.returncode == 0, made.stderr
        settings = ["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "listen_addresses="]
        command = [_program("postgres"), "-D", str(folder / "db"), "-k", str(folder), *settings]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=uid,
                group=gid,
                extra_groups=groups,
            )
        try:
            _await(folder, server)
            yield folder
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        assert server.poll() is None, (folder / "log").read_text()
        if "ready to accept connections" in (folder / "log").read_text():
            return
        time.sleep(0.02)
    raise AssertionError("postgres did not come up: " + (folder / "log").read_text())


def make_database(folder: Path, name: str) -> str:
    """Make an empty database; return its URL for SQLAlchemy."""
    made = subprocess.run(
        [_program("createdb"), "-h", str(folder), "-U", "wattseal", name], capture_output=True, timeout=20, check=False
    )
    assert made.returncode == 0, made.stderr
    return f"postgresql+psycopg://wattseal@/{name}?host={folder}"
