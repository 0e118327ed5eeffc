"""docs/attested-tutorial.md: a newcomer gets from nothing to a trusted figure, by the commands as they stand there."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.cli import wattseal
from provisioning.cli import provision
from tests.programs import parsed

PAGE = Path(__file__).parent.parent / "docs" / "attested-tutorial.md"
PORTS = ("8883", "5020")
SAID = {
    "7. Trusted": ("TRUSTED", "WS-0001", "filling"),
    "8. Somebody changes the device": ("FAILED", "PCR 4", "in quarantine"),
    "9. A person decides": ("dry run: nothing is decided", "waits for the ledger"),
    "10. Whoever doubts it": ("OK", "tpm2-quote: device WS-0001 (WS-100)", "TPM of id:00001014"),
}
"""What a newcomer must see in a section."""


def free_ports(count: int) -> list[int]:
    """Return TCP ports that were free a moment ago, all of them different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def the_sections() -> dict[str, str]:
    """Return the commands of each section, with ports that are free."""
    text = PAGE.read_text("utf-8")
    for shown, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
        assert f"127.0.0.1:{shown}" in text
        text = re.sub(rf"\b{shown}\b", str(port), text)
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    blocks = {
        name: "".join(re.findall(r"^```bash\n(.*?)^```", body, re.DOTALL | re.MULTILINE))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    assert all(blocks.values())
    return blocks


def energy(report: str) -> float:
    """Return the kWh that a report shows of the compressor."""
    found = re.search(r"^ +compressor +([0-9,.]+) kWh", report, re.MULTILINE)
    assert found, report
    return float(found[1].replace(",", ""))


@contextmanager
def ended(pids: Path) -> Iterator[None]:
    """End what the page has started, and wait for it, by process id."""
    try:
        yield
    finally:
        left = {int(line) for line in pids.read_text().split()} if pids.exists() else set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + 10
            while left and time.monotonic() < end:
                left -= {pid for pid in left if not is_there(pid)}
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.2)
        assert not left


def is_there(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_command_of_the_page_can_be_given() -> None:
    """Every day, and quickly: its options and arguments are there."""
    text = "".join(the_sections().values()).replace("\\\n", " ")
    for name in ("SINCE", "NOW"):
        text = text.replace(f"${name}", "2026-11-22T00:00:00Z")
    seen = 0
    for line in text.splitlines():
        command = re.sub(r" (>|2>|&|\|).*", "", line.removeprefix("until "))
        if command.startswith(("wattseal ", "provision ")):
            program, *words = shlex.split(command)
            assert parsed(wattseal if program == "wattseal" else provision, words)
            seen += 1
    assert seen > 20


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_newcomer_gets_from_nothing_to_a_trusted_figure(tmp_path: Path) -> None:
    """Run every command of the page, in order, in one shell; each section says what the page says that it does."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    sections = the_sections()
    marks = "".join(f"echo '=== {name}'\n{commands}" for name, commands in sections.items())
    outcome = tmp_path / "said"
    with ended(tmp_path / "trust" / "pids"), outcome.open("wb") as said:
        done = subprocess.run(
            ["bash", "-eu", "-c", marks],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            timeout=150,
            check=False,
        )
        text = outcome.read_text(errors="replace")
        assert done.returncode == 0, text[-4000:]
    parts = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)
    seen = dict(zip(parts[1::2], parts[2::2], strict=True))
    for section, words in SAID.items():
        for word in words:
            assert word in seen[section], f"{section}: no {word!r}\n{seen[section]}"
    assert energy(seen["9. A person decides"]) > energy(seen["8. Somebody changes the device"]) > 0
    for log in ("ledger.log", "verifier.log", "gateway.log"):
        assert "Traceback" not in (tmp_path / "trust" / log).read_text(errors="replace")
