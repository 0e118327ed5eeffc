"""provisioning/station/transport.py: the ways to a unit, with the real thing at the other end."""

import contextlib
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.codec.enrol_lines import pack_line
from gateway.errors import ConfigError, LinkError
from provisioning.cli import run
from provisioning.station.link import Link
from provisioning.station.maker import running_tpm
from provisioning.station.transport import connect
from tests.station_site import board_tpm, make_site, unit_command

# ---- a process here


def link_to(*code: str, timeout_s: float = 5.0, tries: int = 1) -> Link:
    transport = connect("local", command=[sys.executable, "-c", "\n".join(code)], ssh=[])
    return Link(transport, session="s", timeout_s=timeout_s, tries=tries)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit('no such TPM')", "hung up: no such TPM"),
        ("import sys; sys.stdin.close(); import time; time.sleep(0.1)", "hung up"),
        ("import time; time.sleep(60)", "got no answer within 0.5 s"),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", "without an answer"),
        ("import os\nwhile True: os.write(1, b'x\\n' * 30000)", "without an answer"),
        ("import os, time\nwhile True: os.write(1, b'x'); time.sleep(0.01)", "got no answer within 0.5 s"),
        ("import os\nwhile True: os.write(2, b'x' * 65536)", "got no answer within 0.5 s"),
    ],
)
def test_a_unit_that_is_dead_slow_or_mad_is_let_go_in_time(code: str, why: str) -> None:
    link = link_to(code, timeout_s=5.0 if "raise" in code or "sys" in code or "without" in why else 0.5)
    begun_s = time.monotonic()
    with pytest.raises(Exception, match=why):
        link.ask("hello", {}, {})
    link.close()
    assert time.monotonic() - begun_s < 15


def test_a_unit_that_reads_nothing_does_not_hold_the_station() -> None:
    link = link_to("import time; time.sleep(60)", timeout_s=0.5)
    for _ in range(3):
        with contextlib.suppress(LinkError):
            link.ask("x" * 60_000, {}, {})
    with pytest.raises(LinkError, match="takes no more"):
        link.ask("x" * 60_000, {}, {})
    link.close()


def test_a_command_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="nothing: No such file"):
        connect("local", command=["/nothing"], ssh=[])
    with pytest.raises(ConfigError, match="serial:///dev/nothing"):
        connect("serial:///dev/nothing", command=[], ssh=[])


# ---- a serial line


@contextmanager
def terminal() -> Iterator[tuple[int, int, str]]:
    """Give (master, slave, the slave's path) of a new pseudo-terminal, raw."""
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        yield master, slave, os.ttyname(slave)
    finally:
        for handle in (master, slave):
            with contextlib.suppress(OSError):
                os.close(handle)


@contextmanager
def cable(one: int, other: int, spoil: Callable[[bytes, int], bytes]) -> Iterator[None]:
    """Join two masters by a bad cable. spoil: (bytes, which way: 0 to the unit) -> what comes through."""
    stop = threading.Event()

    def carry() -> None:
        while not stop.is_set():
            ready, _, _ = select.select([one, other], [], [], 0.05)
            for handle in ready:
                way = 0 if handle == one else 1
                with contextlib.suppress(OSError):
                    piece = spoil(os.read(handle, 512), way)
                    while piece:
                        piece = piece[os.write(other if way == 0 else one, piece) :]

    thread = threading.Thread(target=carry, name="cable")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_unit_is_enrolled_over_a_serial_line_with_noise_and_echo(tmp_path: Path) -> None:
    """Bytes flip now and then, the line echoes, and a boot message stands before the first answer."""
    chance = random.Random(7)
    begun = [False]
    with (
        running_tpm(board_tpm(tmp_path / "t")) as tcti,
        terminal() as (station_end, _, path),
        terminal() as (unit_end, unit_tty, _),
    ):

        def spoil(piece: bytes, way: int) -> bytes:
            if way == 0:
                with contextlib.suppress(OSError):
                    os.write(station_end, piece)  # the echo
            if not begun[0]:
                begun[0] = True
                piece = b"\xff\x00U-Boot 2026.01\r\n" + piece
            if chance.random() < 0.04:
                place = chance.randrange(len(piece))
                piece = piece[:place] + b"\xfe" + piece[place + 1 :]
            return piece

        command = unit_command(tmp_path / "unit", tcti, "WS-1")
        config = make_site(tmp_path, ["none"], timeout_s=2.0)
        unit = subprocess.Popen([*command, "--once"], stdin=unit_tty, stdout=unit_tty, stderr=subprocess.DEVNULL)
        try:
            with cable(station_end, unit_end, spoil):
                for _ in range(4):
                    if run(["station", "--config", str(config), f"WS-1=serial://{path}?baud=115200"]) == 0:
                        break
                assert unit.wait(20) == 0
        finally:
            unit.kill()
            unit.wait()
    assert (tmp_path / "unit" / "identity" / "enrolled").exists()


# ---- SSH


@contextmanager
def running_sshd(folder: Path) -> Iterator[int]:
    """Run a real sshd for this user on a free port of the loopback, with keys of its own; give the port."""
    folder.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=30)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    host = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_unit_is_enrolled_over_ssh_and_a_strange_host_key_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ssh = tmp_path / "ssh"
    unit = f'known_hosts = "{ssh}/known_hosts"\nssh_key = "{ssh}/user"'
    with running_tpm(board_tpm(tmp_path / "t")) as tcti, running_sshd(ssh) as port:
        config = make_site(tmp_path, unit_command(tmp_path / "unit", tcti, "WS-1"), unit=unit)
        address = f"WS-1=ssh://127.0.0.1:{port}"
        good = (ssh / "known_hosts").read_text()
        other = (ssh / "user.pub").read_text().split()[1]
        (ssh / "known_hosts").write_text(f"{good.split()[0]} ssh-ed25519 {other}\n")
        assert run(["station", "--config", str(config), address]) == 1
        assert "Host key verification failed" in capsys.readouterr().out
        (ssh / "known_hosts").write_text(good)
        assert run(["station", "--config", str(config), address]) == 0
    assert (tmp_path / "unit" / "identity" / "enrolled").exists()


def test_an_answer_that_comes_twice_or_late_is_not_taken_for_the_next() -> None:
    """The unit answers each question twice: the second of them must not answer the next question."""
    code = (
        "import sys, json, zlib",
        "for line in sys.stdin:",
        "    if '{' not in line: continue",
        "    said = json.loads(line[9:])",
        "    text = json.dumps({'id': said['id'], 'ok': {'n': said['op']}})",
        "    out = f'{zlib.crc32(text.encode()):08x} {text}\\n'",
        "    sys.stdout.write(out + out); sys.stdout.flush()",
    )
    link = link_to(*code)
    assert [link.ask(name, {}, {"n": str})["n"] for name in ("a", "b", "c")] == ["a", "b", "c"]
    assert pack_line({"id": "s-9"}).endswith(b"\n")
    link.close()
