"""docs/connect.md: each of its commands does what the page says, against the simulated factory."""

import os
import re
import subprocess
import sys
from pathlib import Path

from gateway.app.load import template_text
from gateway.codec.ratios import Cause
from gateway.config import parse_gateway
from tests.test_docs import fenced
from tests.test_plant_process import process

PAGE = Path(__file__).parent.parent / "docs" / "connect.md"


def test_the_page_shows_a_file_that_parses() -> None:
    (text,) = fenced(PAGE, "toml")
    config = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    assert set(config.devices) == {"comp"}


def test_every_command_of_the_page_runs_against_the_factory(tmp_path: Path) -> None:
    """In order, as they stand there; only the port is a free one, and the factory is started by the test."""
    (text,) = fenced(PAGE, "toml")
    commands = [line for block in fenced(PAGE, "sh") for line in block.splitlines()]
    plant = commands.pop(0)
    assert plant.startswith("python -m hil.plant --port 5020 ")
    assert len(commands) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with process("--port", "0") as (_, about):
        port = f"127.0.0.1:{about['listening'][0]['port']}"
        (tmp_path / "gateway.toml").write_text(text.replace("127.0.0.1:5020", port))
        for command in commands:
            done = subprocess.run(
                ["sh", "-c", command.replace("127.0.0.1:5020", port)],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_cause_that_commission_names_is_on_the_page() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert set(rows) == {str(cause) for cause in Cause}


def test_a_factory_that_runs_40_times_as_fast_looks_like_a_forgotten_transformer(tmp_path: Path) -> None:
    """As the page says."""
    (text,) = fenced(PAGE, "toml")
    with process("--port", "0", "--speed", "40") as (_, about):
        port = f"127.0.0.1:{about['listening'][0]['port']}"
        (tmp_path / "gateway.toml").write_text(text.replace("127.0.0.1:5020", port))
        command = [Path(sys.executable).parent / "wattseal", "commission", "gateway.toml", "comp"]
        done = subprocess.run(
            [*map(str, command), "--minutes", "0.1", "--period", "0.05"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "ct ratio: a current transformer of 200:5 is in the register and not in power" in done.stdout, done.stdout
