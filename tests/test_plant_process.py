"""The plant as a process: what it prints, obeys and serves, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hil.plant import FAULTS


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "hil.plant", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        try:
            line = running.stdout.readline()
            assert line, running.stderr.read() if running.stderr else ""
            yield running, json.loads(line)
        finally:
            running.kill()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.alone
async def test_bench_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the rates; the floor only catches a path that went wrong, not a slow machine."""
    with process("bench", "--meters", "100") as (running, about):
        reader, writer = await asyncio.open_connection("127.0.0.1", about["listening"][0]["port"], limit=1 << 20)
        for depth in (1, 8, 64):
            batch = b"".join(struct.pack(">HHHBBHH", i, 0, 6, 1 + i % 100, 3, 0, 120) for i in range(depth))
            count, before, began = 0, cpu_s(running.pid), time.monotonic()
            while time.monotonic() - began < 1:
                writer.write(batch)
                await reader.readexactly(249 * depth)
                count += depth
            took, cpu = time.monotonic() - began, max(cpu_s(running.pid) - before, 0.01)
            with capsys.disabled():
                print(f"\nbench meters, depth {depth}: {count / took:,.0f} requests/s, {count / cpu:,.0f} a CPU second")  # noqa: T201
            assert count / cpu > 5_000
        writer.close()
        await writer.wait_closed()


def ask(path: Path, *commands: str) -> list[dict[str, Any]]:
    """Send commands to a control socket and return the answers."""

    async def talk() -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(path)
        answers = []
        for command in commands:
            writer.write(command.encode() + b"\n")
            answers.append(json.loads(await asyncio.wait_for(reader.readline(), 5)))
        writer.close()
        return answers

    return asyncio.run(talk())


def test_process_says_where_it_listens_obeys_its_control_socket_and_stops(tmp_path: Path) -> None:
    control, line = tmp_path / "control", tmp_path / "line"
    options = ("--speed", "300", "--ports", "each", "--control", str(control), "--serial", str(line))
    with process(*options) as (running, about):
        assert [entry["units"] for entry in about["listening"]] == [[1], [2], [3], [4], [5]]
        assert about["devices"]["3"] == {"asset": "hvac", "template": "schneider-iem3000"}
        assert about["pid"] == running.pid
        first, broken, wrong, killed, state = ask(
            control, "state", "fault compressor-valve", "fault everything", "kill 3", "state"
        )
        assert first["ok"]
        assert first["faults"] == {}
        assert broken["faults"] == {"compressor-valve": 585.0}
        assert not wrong["ok"]
        assert "want fault NAME" in wrong["error"]
        assert killed["dead"] == state["dead"] == [3]
        assert state["plant_s"] > first["plant_s"]
        assert ask(control, "stop") == [{"ok": True}]
        assert running.wait(5) == 0
        assert running.stdout
        assert running.stdout.read() == "", "one line and no more"
    assert not control.exists()
    assert not line.is_symlink()


def test_process_follows_its_timetable(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with process("--control", str(control), "--timetable", "0s:kill 2,300ms:fault slow-line 500,1s:stop") as (
        running,
        _,
    ):
        assert ask(control, "state")[0]["dead"] == [2]
        time.sleep(0.4)
        assert ask(control, "state")[0]["faults"] == {"slow-line": 500.0}
        assert running.wait(5) == 0


@pytest.mark.parametrize("kind", [[], ["bench", "--meters", "3", "--ports", "each"]])
def test_sigterm_ends_the_process_cleanly(kind: list[str], tmp_path: Path) -> None:
    """Also with clients that hold their connections open."""
    control = tmp_path / "control"
    with (
        process(*kind, *([] if kind else ["--control", str(control)])) as (running, about),
        socket.create_connection(("127.0.0.1", about["listening"][0]["port"])),
        socket.socket(socket.AF_UNIX) as idle,
    ):
        if not kind:
            idle.connect(str(control))
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == 0
        assert running.stderr
        assert running.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timetable", "soon:stop"], "timetable: got 'soon:stop'"),
        (["--start", "1=wrap"], "a float register never wraps"),
        (["--start", "x"], "--start: got 'x'"),
        (["--hostile", "rude=1"], "--hostile: got 'rude'"),
        (["--noise", "7"], "noise=7"),
        (["bench", "--ports", "300"], "--ports: got 300"),
    ],
)
def test_a_wrong_option_says_what_is_wanted(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "hil.plant", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example_and_every_fault() -> None:
    command = [sys.executable, "-m", "hil.plant", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    assert "python -m hil.plant --port 5020" in text
    assert all(name in text for name in FAULTS)
