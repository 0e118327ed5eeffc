"""`wattseal plan` and `wattseal apply` against a collect process that runs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.source import applied_path

PATIENCE_S = 20.0
HEAD = """\
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "127.0.0.1:1"
ca = "a"
cert = "b"
key = "c"
"""


def device(name: str, **keys: object) -> str:
    """Return a device's section; nothing answers at its address."""
    about = {"template": "abb-b23", "url": "tcp://127.0.0.1:1", "period_s": 1} | keys
    return f"[devices.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in about.items())


def wattseal(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    line = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """Run collect by gateway.toml, with a device m1."""
    (tmp_path / "gateway.toml").write_text(HEAD + device("m1"))
    line = [sys.executable, "-m", "gateway.cli", "collect", "gateway.toml"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while "nothing differs" not in wattseal(tmp_path, "plan", "gateway.toml").stdout:
            assert time.monotonic() < ends_s
            time.sleep(0.1)
        yield tmp_path
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_plan_shows_and_an_apply_does_what_differs_and_an_undo_goes_back(site: Path) -> None:
    file = site / "gateway.toml"
    first = file.read_text()
    file.write_text(HEAD + device("m1", timeout_s=2.5) + device("m2"))
    for command in ("plan", "plan", "apply"):
        said = wattseal(site, command, "gateway.toml")
        assert said.returncode == 0, said.stderr
        assert said.stdout.splitlines()[:3] == ["~ devices.m1", "    timeout_s: 1.0 -> 2.5", "+ devices.m2"]
    assert applied_path(file).read_text() == file.read_text()
    found = json.loads(wattseal(site, "plan", "gateway.toml", "--json").stdout)
    assert (found["running"], found["changes"], found["restart"]) == (True, [], [])
    said = wattseal(site, "apply", "gateway.toml", "--undo")
    assert said.returncode == 0, said.stderr
    assert "- devices.m2" in said.stdout
    assert file.read_text() == first


def test_a_file_that_is_wrong_leaves_what_runs(site: Path) -> None:
    file = site / "gateway.toml"
    file.write_text(HEAD + device("m1", unit_id=300))
    for command in ("plan", "apply"):
        said = wattseal(site, command, "gateway.toml")
        assert (said.returncode, said.stdout) == (2, "")
        assert said.stderr == "gateway.toml: devices.m1.unit_id: got 300, want 0..247\n"
    file.write_text(HEAD.replace("127.0.0.1:1", "127.0.0.1:2") + device("m1"))
    said = wattseal(site, "plan", "gateway.toml")
    assert said.stdout.splitlines() == ["! forward: wants a restart", '    broker: "127.0.0.1:1" -> "127.0.0.1:2"']
    said = wattseal(site, "apply", "gateway.toml")
    assert (said.returncode, "restart" in said.stderr) == (2, True)
    file.write_text(HEAD + device("m1"))
    assert "nothing differs" in wattseal(site, "plan", "gateway.toml").stdout


def test_with_nothing_running_a_plan_says_so_and_an_apply_fails(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(HEAD + device("m1"))
    said = wattseal(tmp_path, "plan", "gateway.toml")
    assert (said.returncode, "does not run" in said.stdout) == (0, True)
    said = wattseal(tmp_path, "apply", "gateway.toml")
    assert (said.returncode, "wattseal run" in said.stderr) == (1, True)
    said = wattseal(tmp_path, "apply", "gateway.toml", "--undo")
    assert (said.returncode, "nothing was applied before" in said.stderr) == (2, True)
