"""`wattseal run` with real children: started again, ended in order, and none left behind.

The children are small scripts that write down what happens to them; the supervisor is a process of its own.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.app.entry import run_until_stopped
from gateway.app.supervisor import EXIT_CONFIG, Child, run_gateway, wattseal
from gateway.errors import ConfigError, LinkError, LogError
from tests.loops import on_both_loops

CHILD = """\
import os, signal, sys, time
from pathlib import Path

name, folder = sys.argv[1], Path(sys.argv[2]).parent

def say(what):
    with (folder / "said").open("a") as said:
        said.write(f"{what} {name} {os.getpid()}\\n")

def asked(*_):
    say("asked")
    time.sleep(0.15)
    say("ended")
    os._exit(0)

signal.signal(signal.SIGTERM, asked)
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("started")
if (folder / f"{name}.code").exists():
    sys.exit(int((folder / f"{name}.code").read_text()))
while True:
    signal.pause()
"""

SUPERVISOR = """\
import sys
from pathlib import Path
from gateway.app.entry import run_until_stopped
from gateway.app.supervisor import run_gateway
from gateway.errors import ConfigError

def command(name, file):
    return [sys.executable, "-S", str(Path(file).parent / "child.py"), name, file]

try:
    run_until_stopped(run_gateway(Path(sys.argv[1]), command=command))
except ConfigError as e:
    sys.exit(f"ConfigError: {e}")
"""

NAMES = ("seal", "forward", "collect")
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A supervisor at work in a folder."""

    process: subprocess.Popen[str]
    folder: Path

    def said(self, *what: str) -> list[list[str]]:
        """Return what the children said, of these kinds."""
        path = self.folder / "said"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line[0] in what]

    def pids(self) -> dict[str, int]:
        """Return the newest process of each child."""
        return {name: int(pid) for _, name, pid in self.said("started")}

    def ended(self) -> tuple[int, str]:
        """Return the supervisor's exit code and what it wrote, once it has ended."""
        _, errors = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, errors


def lives(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return what starts a supervisor, with the exit codes that children are to end with at once."""
    runs: list[Running] = []

    def start(**codes: int) -> Running:
        (tmp_path / "child.py").write_text(CHILD)
        for name, code in codes.items():
            (tmp_path / f"{name}.code").write_text(str(code))
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(tmp_path / "gateway.toml")],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        runs.append(Running(process=process, folder=tmp_path))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.communicate()
        for _, _, pid in run.said("started"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def all_up(run: Running) -> bool:
    return set(run.pids()) == set(NAMES)


IN_ORDER = [[what, name] for name in ("collect", "forward", "seal") for what in ("asked", "ended")]


def test_a_child_that_is_killed_is_started_again_and_the_others_stay(running: Callable[..., Running]) -> None:
    run = running()
    until(lambda: all_up(run))
    before = run.pids()
    os.kill(before["forward"], signal.SIGKILL)
    until(lambda: run.pids()["forward"] != before["forward"])
    after = run.pids()
    assert {name for name in NAMES if after[name] != before[name]} == {"forward"}
    assert all(map(lives, after.values()))
    assert not lives(before["forward"])


def test_sigterm_ends_collect_first_and_the_seal_last(running: Callable[..., Running]) -> None:
    """Each has ended before the next is asked: so what collect holds gets sealed."""
    run = running()
    until(lambda: all_up(run))
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.ended()
    assert (code, [line[:2] for line in run.said("asked", "ended")]) == (0, IN_ORDER), errors
    assert not any(map(lives, run.pids().values()))


def test_ctrl_c_in_a_terminal_ends_them_in_the_same_order(running: Callable[..., Running]) -> None:
    """A terminal interrupts the whole process group; once, the seal heard of it before collect had handed over."""
    run = running()
    until(lambda: all_up(run))
    os.killpg(run.process.pid, signal.SIGINT)
    code, errors = run.ended()
    assert (code, [line[:2] for line in run.said("asked", "ended")]) == (0, IN_ORDER), errors
    assert run.said("interrupted") == []


def test_a_supervisor_that_is_killed_leaves_no_child(running: Callable[..., Running]) -> None:
    """The kernel asks them to end, so that collect and the seal still end properly."""
    run = running()
    until(lambda: all_up(run))
    run.process.kill()
    until(lambda: not any(map(lives, run.pids().values())))
    assert sorted(name for _, name, _ in run.said("ended")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_child_whose_configuration_is_wrong_stops_all(name: str, running: Callable[..., Running]) -> None:
    """Trying again would not help; whoever started us must see that it failed. Once, the exit code was 0."""
    run = running(**{name: EXIT_CONFIG})
    code, errors = run.ended()
    assert code == 1
    assert errors.splitlines()[-1] == f"ConfigError: gateway.toml: {name} cannot use it, as said above"
    assert not any(map(lives, run.pids().values()))
    assert len([line for line in run.said("started") if line[1] == name]) == 1


def test_each_start_is_logged_with_its_process(running: Callable[..., Running]) -> None:
    run = running()
    until(lambda: all_up(run))
    run.process.send_signal(signal.SIGTERM)
    _, errors = run.ended()
    for name, pid in run.pids().items():
        assert re.search(rf'"child": "{name}", "pid": {pid}\b', errors), errors


# --- one child ---


def child(script: str, **more: Any) -> Child:
    return Child("x", [sys.executable, "-S", "-c", script], **{"on_start": lambda *_: None, **more})


@on_both_loops
async def test_a_child_that_ends_at_once_is_started_again_and_waits_longer_each_time(tmp_path: Path) -> None:  # noqa: ARG001
    """At least 0.4 s, then 0.8 s: a broken program must not keep the machine busy."""
    starts: list[float] = []
    it = child("", on_start=lambda *_: starts.append(time.monotonic()))
    keeping = asyncio.create_task(it.keep(), name="keep")
    while len(starts) < 3:
        await asyncio.sleep(0.01)
    keeping.cancel()
    await it.stop()
    assert starts[1] - starts[0] >= 0.4
    assert starts[2] - starts[1] >= 0.8


@on_both_loops
async def test_the_wait_between_two_starts_is_bounded(tmp_path: Path) -> None:  # noqa: ARG001
    it = child("", most_wait_s=0.05)
    keeping = asyncio.create_task(it.keep(), name="keep")
    async with asyncio.timeout(10):
        while it.starts < 6:
            await asyncio.sleep(0.01)
    keeping.cancel()
    await it.stop()


@on_both_loops
async def test_a_child_that_ends_by_itself_is_started_again_whatever_its_code(tmp_path: Path) -> None:  # noqa: ARG001
    its = [child(f"raise SystemExit({code})") for code in (0, 1, 3)]
    its.append(child("import os; os.abort()"))
    tasks = [asyncio.create_task(it.keep(), name="keep") for it in its]
    async with asyncio.timeout(5):
        while min(it.starts for it in its) < 2:
            await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    for it in its:
        await it.stop()


@on_both_loops
async def test_a_released_child_ends_for_good(tmp_path: Path) -> None:  # noqa: ARG001
    it = child("import signal; signal.pause()")
    keeping = asyncio.create_task(it.keep(), name="keep")
    while it.process is None:
        await asyncio.sleep(0.01)
    it.released = True
    await it.stop()
    assert await keeping == -signal.SIGTERM
    assert it.starts == 1


@on_both_loops
async def test_a_child_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    it = child(
        "import signal, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch()\nwhile True: signal.pause()"
    )
    keeping = asyncio.create_task(it.keep(), name="keep")
    while not ready.exists():
        await asyncio.sleep(0.01)
    assert it.process is not None
    keeping.cancel()
    began = time.monotonic()
    await it.stop(within_s=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert it.process.returncode == -signal.SIGKILL
    await it.stop()


@on_both_loops
async def test_stopping_a_child_that_never_started_or_has_ended_is_nothing(tmp_path: Path) -> None:  # noqa: ARG001
    it = child(f"raise SystemExit({EXIT_CONFIG})")
    await it.stop()
    assert await it.keep() == EXIT_CONFIG
    await it.stop()


@on_both_loops
async def test_a_childs_errors_go_where_they_are_told_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        it = child(f"import sys; sys.stderr.write('trouble'); sys.exit({EXIT_CONFIG})", errors=log)
        await it.keep()
    assert (tmp_path / "log").read_text() == "trouble"


@on_both_loops
async def test_a_command_that_cannot_be_run_is_an_error_and_not_a_quiet_end(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run_gateway(tmp_path / "gateway.toml", command=lambda *_: [str(tmp_path / "none")])


def test_the_command_line_runs_our_own_command_in_this_python() -> None:
    done = subprocess.run(
        [*wattseal("seal"), "--help"], capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "seal [OPTIONS] FILE" in done.stdout


# --- run_until_stopped ---

STOPPED = """\
import asyncio, sys
from gateway.app.entry import run_until_stopped

async def main():
    try:
        print("up", flush=True)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)
        {last}

run_until_stopped(main())
print("returned", flush=True)
"""


def stopped(number: signal.Signals, *, last: str) -> tuple[int, str, str]:
    """Send a process this signal once it is up; return its exit code and what it wrote after that."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED.format(last=last)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, output, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_main_task_which_cleans_up_and_ends_well(number: signal.Signals) -> None:
    assert stopped(number, last="pass") == (0, "cleaned up\nreturned\n", "")


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([LinkError("gone")], LinkError),
        ([ConfigError("wrong"), LinkError("gone")], ConfigError),
        ([LinkError("gone"), ExceptionGroup("inner", [LogError("the disk lies")])], LogError),
        ([LogError("the disk lies"), ZeroDivisionError("a bug")], ExceptionGroup),
        ([ZeroDivisionError("a bug")], ExceptionGroup),
    ],
    ids=repr,
)
def test_of_a_group_of_errors_the_gravest_of_ours_is_raised_and_a_bug_never_hidden(
    errors: list[Exception], raised: type[Exception]
) -> None:
    """The exit code and the message are decided by one class; a bug keeps its whole trace."""

    async def main() -> None:
        raise ExceptionGroup("a task group", errors)

    with pytest.raises(raised) as caught:
        run_until_stopped(main())
    assert type(caught.value) is raised


def test_an_error_while_cleaning_up_is_not_hidden_by_the_cancellation() -> None:
    code, output, errors = stopped(signal.SIGTERM, last="raise ZeroDivisionError('a bug')")
    assert (code, output) == (1, "cleaned up\n")
    assert errors.endswith("ZeroDivisionError: a bug\n")
