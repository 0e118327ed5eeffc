"""docs/bacnet.md: its files parse, its commands run against the simulated factory, its errors are ours."""

import asyncio
import contextlib
import re
import shlex
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from gateway.app.load import template_text
from gateway.cli import run
from gateway.config import parse_gateway, parse_template, sections, templates
from hil.plant import Plant
from hil.plant.bacnet import BacnetDevice
from tests.bacnet_places import free_port
from tests.test_ede import HEAD, ROWS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "bacnet.md").read_text("utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.split("\n")
]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in LINES if line.startswith(".venv/bin/wattseal")]


def test_the_page_shows_a_file_and_a_template_that_parse() -> None:
    """Whole, and the parts in their place in it."""
    whole = next(block for block in TOML if "[gateway]" in block)
    config = parse_gateway(whole, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    assert config.bacnet is not None
    assert config.bacnet.address == "127.0.0.1/8"
    assert parse_template(next(block for block in TOML if block.startswith("title")), "ahu").protocol == "bacnet"
    head = whole.partition("[bacnet]")[0]
    for part in TOML:
        if part.startswith("[bacnet]"):
            parse_gateway(head + part, name="gateway.toml", folder=Path("/site"), template_text=template_text)


@pytest.mark.parametrize(
    "section",
    [
        sections.BacnetSection,
        sections.BacnetDeviceSection,
        templates.BacnetTemplate,
        templates.BacnetPointSection,
    ],
)
def test_the_page_names_each_key(section: type[msgspec.Struct]) -> None:
    """A key that nobody can look up is a key that nobody uses."""
    assert not [f.name for f in msgspec.structs.fields(section) if not re.search(rf"\b{f.name}\b", PAGE)]


async def test_the_pages_commands_run_against_the_plant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but those for another subnet, with a free port instead of the usual one."""
    port = free_port()
    whole = next(block for block in TOML if "[gateway]" in block)
    (tmp_path / "gateway.toml").write_text(whole.replace("127.0.0.1/8", f"127.0.0.1/8:{port}"), encoding="utf-8")
    (tmp_path / "project_EDE.csv").write_text(HEAD + ROWS, encoding="utf-8")
    local = [words for words in COMMANDS if "--bbmd" not in words]
    assert len(local) > 8
    async with BacnetDevice(Plant(seed=1), address=f"127.44.2.1/8:{port}") as device, AsyncExitStack() as stack:
        stack.enter_context(contextlib.chdir(tmp_path))
        for words in local:
            given = [word.replace("127.0.0.1/8", f"127.0.0.1/8:{port}") for word in words]
            given = [word.replace("127.44.0.1", "127.44.2.1") for word in given]
            if words[:2] == ["scan", "bacnet"] and "--seconds" not in words:
                given += ["--seconds", "0.5"]
            code = await asyncio.wait_for(asyncio.to_thread(run, given), 20)
            said = capsys.readouterr()
            assert code == 0, f"{words}\n{said.out}{said.err}"
            if words[:2] == ["scan", "bacnet"]:
                assert "AirHandler" in said.out
        assert not device.writes
    assert (tmp_path / "devices").is_dir()


def test_each_error_of_the_page_is_one_of_ours() -> None:
    """What the page explains is what a program says."""
    sources = [*(ROOT / "gateway" / "drivers").glob("bacnet*.py"), ROOT / "gateway" / "cli" / "scan_bacnet.py"]
    source = "".join(path.read_text("utf-8") for path in (*sources, ROOT / "gateway" / "config" / "ede.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that go on in the next line
    rows = re.findall(r"^\| ([^|]+) \|", PAGE.partition("## Common errors")[2], re.MULTILINE)[1:]
    assert len(rows) > 12
    ours = [row for row in rows if not row.startswith(("unknown-object", "cannot use"))]
    for row in ours:
        for words in re.split(r" \.\.\. |: Address already in use| 0x0030", row):
            assert words.strip() in source, row
