"""`wattseal demo`, as a newcomer runs it."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app.rebuild import dump_sha256
from gateway.app.supervisor import wattseal
from gateway.store.projections import Projections
from tests.system.books import check_values, read_books
from tests.system.site import eventually

INTERRUPTED = 130
PROCESSES = 7
"""The demo itself, plant, broker, ledger, seal, forward, collect."""
BEFORE, AFTER = 0.68, 0.87
"""kg CO2e a unit, as hil/plant/factory.py derives them: sound, and with the broken valve."""


def left_behind(folder: Path) -> list[str]:
    """Return the command lines of all processes that name this folder, or work in it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                place = (process / "cwd").readlink()
            except OSError:
                continue
            if str(folder) in line or place.is_relative_to(folder):
                found.append(line)
    return found


@pytest.mark.alone
@pytest.mark.timeout(400)
def test_a_demo_shows_the_fault_in_the_figure_and_its_tables_can_be_made_again_from_the_logs(tmp_path: Path) -> None:
    """20 s: nothing lost, the figure as it must be before and after the fault, every table derived from leaves.

    Then the story, in plant time: what is 20 s of CPU on a machine with nothing else to do.
    """
    out = tmp_path / "out"
    done = subprocess.run(
        wattseal("demo", "--seconds", "20", "--out", str(out)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left_behind(out)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["lost"] == 0
    assert summary["leaves"] > 50
    assert summary["kg_co2e_per_unit_before"] == pytest.approx(BEFORE, abs=0.03)
    assert summary["kg_co2e_per_unit_after"] == pytest.approx(AFTER, abs=0.04)
    assert any((out / "export").iterdir()), "an export with nothing in it"
    books = read_books(out)
    check_values(books)
    assert len(books.leaves) == summary["leaves"]
    _check_rebuild(out)
    _check_story(summary["story"], done.stderr)


def _check_story(story: Mapping[str, Any], told: str) -> None:
    """Fail unless the story is as it must be, and the report of its shift was shown: cause, repair, what it saved."""
    assert 0 < story["alert_delay_s"] <= 600
    assert [cause["name"] for cause in story["causes"]] == ["compressor"]
    assert (story["before"], story["repaired"]) == pytest.approx((BEFORE, BEFORE), abs=0.005)
    assert story["after"] == pytest.approx(AFTER, abs=0.006)
    assert story["change_percent"] == pytest.approx(-22, abs=0.7)
    assert story["avoided_kg"] == pytest.approx(600, rel=0.05)
    alert, report = told.split("The shift's report:")
    assert f"alert {story['alert_delay_s'] / 60:.0f} min after the fault" in alert
    assert "compressor: 100% of the change; short cycling" in alert
    (row,) = re.findall(r"│ gw1/filling .*", report)
    assert [cell.strip() for cell in row.split("│")][2] == story["shift"]
    assert re.search(r"Alert \w+, gw1/filling: compressor: short cycling", report)
    assert "0.68 -> 0.87 kg/unit, since the repair 0.68 (-22 %)" in report
    assert f"{story['avoided_kg']:.0f} kg avoided in the rest of the shift" in report


def _check_rebuild(out: Path) -> None:
    """Fail unless the tables come out the same, to the byte, from the logs alone."""
    path = out / "ledger" / "projections.sqlite"
    book = Projections(path)
    before = dump_sha256(book)
    book.close()
    for file in path.parent.glob("projections.sqlite*"):
        file.unlink()
    for _ in range(2):  # from nothing, and over what is there
        again = subprocess.run(
            wattseal("ledger", "rebuild", str(out / "ledger.toml")),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert again.returncode == 0, again.stderr
        found = re.search(r"\b[0-9a-f]{64}\b", again.stdout)
        assert found is not None, again.stdout
        assert found[0] == before


@pytest.mark.alone
@pytest.mark.parametrize("is_up", [False, True], ids=["while it starts", "in full run"])
async def test_ctrl_c_ends_a_demo_cleanly_and_leaves_no_process_behind(tmp_path: Path, *, is_up: bool) -> None:
    """A terminal sends SIGINT to the whole foreground group. While the demo starts there is nothing to sum up yet."""
    out = tmp_path / "out"
    async with _running(out, tmp_path / "said.log") as demo:

        async def speaks() -> bool:
            said = (tmp_path / "said.log").read_bytes()
            return b" kWh" in said if is_up else bool(said)

        await eventually(speaks, within_s=60, what="there are figures" if is_up else "Python itself has started")
        await asyncio.sleep(0.5)
        assert not is_up or len(left_behind(out)) >= PROCESSES
        os.killpg(demo.pid, signal.SIGINT)
        async with asyncio.timeout(30):
            code = await demo.wait()
    text = (tmp_path / "said.log").read_text(encoding="utf-8", errors="replace")
    assert code == 0 or (code == INTERRUPTED and not is_up), text
    assert "Traceback" not in text
    await _all_gone(out)
    if is_up:
        assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["lost"] == 0
        assert len(read_books(out).leaves) > 10


@pytest.mark.alone
async def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    """As when a terminal window is closed, or the machine runs out of memory: nobody is there to end the parts."""
    out = tmp_path / "out"

    async def is_up() -> bool:
        return len(left_behind(out)) >= PROCESSES

    async with _running(out, tmp_path / "said.log"):
        await eventually(is_up, within_s=20, what="the demo runs")
    await _all_gone(out)


@asynccontextmanager
async def _running(out: Path, said: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a demo without an end in a session of its own; kill it on leaving, if it is still there."""
    with said.open("wb") as sink:
        demo = await asyncio.create_subprocess_exec(
            *wattseal("demo", "--out", str(out)), stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        yield demo
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()


async def _all_gone(out: Path) -> None:
    async def are_gone() -> bool:
        return not left_behind(out)

    await eventually(are_gone, within_s=10, what="all processes are gone")
