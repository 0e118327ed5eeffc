"""The docs are tested: commands run, configurations parse, keys and metrics are named."""

import ast
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.app.counts import CollectCounts
from gateway.app.forwarding import ForwardMetrics
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.load import template_text
from gateway.app.sealcounts import SealCounts
from gateway.config import (
    feeds,
    intake,
    ledger,
    parse_gateway,
    parse_ledger,
    parse_template,
    reference,
    sections,
    templates,
)
from gateway.errors import ConfigError
from provisioning.registrar.place import FILE, make_place
from provisioning.station.settings import Settings
from provisioning.verifier import config as verifier
from provisioning.verifier.desk import VerifierCounts

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COUNTS = {"collect": CollectCounts, "seal": SealCounts, "forward": ForwardMetrics, "ledger": LedgerCounts} | {
    "verifier": VerifierCounts
}


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def code_of(text: str) -> str:
    """Return what a page says as code, one piece a line: fenced blocks, and words between backticks."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```[a-z]*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(blocks) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", prose))


def unnamed(names: set[str], text: str) -> list[str]:
    """Return which of these names a page does not show as code: as a key of a file, or as a word of its own."""
    code = code_of(text)
    return sorted(name for name in names if not re.search(_as_key(name), code))


def _as_key(name: str) -> str:
    """Return what finds a key or a table of a file: `key`, `[release.pcrs]`; not the `key` of `desk.key`."""
    return rf"(?<![\w.-]){name}(?![\w-])|(?<=\.){name}(?=\])"


def keys_of(section: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(section)}


def metrics_page() -> str:
    """Return what docs/metrics.md must say."""
    lines = [
        "# Metrics",
        "",
        "Made from the code; `tests/test_docs.py` fails when it differs, and prints the page.",
        "",
        "| name | kind | what |",
        "|---|---|---|",
    ]
    for process, counts in COUNTS.items():
        for field in dataclasses.fields(counts):
            kind = field.metadata["kind"]
            name = f"wattseal_{process}_{field.name}" + ("_total" if kind == "counter" else "")
            lines.append(f"| `{name}` | {kind} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def test_each_metric_is_in_the_docs() -> None:
    page = DOCS / "metrics.md"
    assert page.is_file() and page.read_text(encoding="utf-8") == metrics_page(), metrics_page()  # noqa: PT018


def test_the_gateway_page_shows_a_file_that_parses() -> None:
    text = next(block for block in fenced(DOCS / "gateway.md", "toml") if "[gateway]" in block)
    config = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    assert set(config.lines) == {"filling"}


def test_the_gateway_page_shows_the_message_that_the_mistake_gives() -> None:
    text = next(block for block in fenced(DOCS / "gateway.md", "toml") if "[gateway]" in block)
    text = text.replace("[devices.comp]", "[devices.m1]").replace("unit_id = 1", "unit_id = 300")
    with pytest.raises(ConfigError) as caught:
        parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    assert str(caught.value) in (DOCS / "gateway.md").read_text(encoding="utf-8")


def test_the_gateway_page_shows_tables_of_a_device_that_parse() -> None:
    blocks = fenced(DOCS / "gateway.md", "toml")
    text = next(block for block in blocks if "[gateway]" in block)
    text += '[devices.feeder]\ntemplate = "eastron-sdm630"\nurl = "tcp://192.0.2.11:502"\n'
    text += "".join(block for block in blocks if block.startswith("[devices."))
    config = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)
    section = config.devices["comp"]
    assert section.report is not None
    assert set(section.report.points) == set(section.same_as) == {"active_power"}


def test_the_gateway_page_shows_a_template_that_parses() -> None:
    text = next(block for block in fenced(DOCS / "gateway.md", "toml") if block.startswith("title"))
    assert parse_template(text, "shown").verified


def test_the_ledger_page_shows_files_that_parse() -> None:
    blocks = fenced(DOCS / "ledger.md", "toml")
    config = parse_ledger(next(b for b in blocks if "[ledger]" in b), name="ledger.toml", folder=Path("/site"))
    assert set(config.gateways) == {"gw1"}


def test_the_attestation_page_shows_a_file_that_parses() -> None:
    text = next(block for block in fenced(DOCS / "attestation.md", "toml") if "[verifier]" in block)
    config = verifier.parse_verifier(text, name="verifier.toml", folder=Path("/site"))
    assert set(config.gateways) == {"gw1"}


def test_the_attestation_page_names_just_the_events_that_the_verifier_logs() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "provisioning" / "verifier").glob("*.py"))
    logged = set(re.findall(r'(?:info|warning|error|say)\(\s*"(verifier\.[a-z_]+)"', source))
    named = set(re.findall(r"`(verifier\.[a-z_]+)`", (DOCS / "attestation.md").read_text("utf-8")))
    assert named == logged


@pytest.mark.parametrize(
    ("section", "page"),
    [
        (sections.GatewaySection, "gateway.md"),
        (sections.CollectSection, "gateway.md"),
        (sections.SealSection, "gateway.md"),
        (sections.AttestSection, "gateway.md"),
        (sections.ForwardSection, "gateway.md"),
        (sections.IntervalSection, "gateway.md"),
        (sections.DeviceSection, "gateway.md"),
        (sections.ReportSection, "gateway.md"),
        (sections.DeadbandSection, "gateway.md"),
        (sections.SameSection, "gateway.md"),
        (sections.LineSection, "gateway.md"),
        (templates.ModbusPointSection, "gateway.md"),
        (templates.ModbusTemplate, "gateway.md"),
        (ledger.LedgerSection, "ledger.md"),
        (verifier.VerifierSection, "attestation.md"),
        (verifier.GatewayDeviceSection, "attestation.md"),
        (verifier.IssueSection, "attestation.md"),
        (sections.BrokerSection, "attestation.md"),
        *((field.type, "provisioning.md") for field in msgspec.structs.fields(Settings)),
        (ledger.GatewayKeySection, "ledger.md"),
        (ledger.RelyingSection, "ledger.md"),
        (feeds.FeedSection, "factors.md"),
        (intake.IntakeSection, "context.md"),
        (intake.TopicSection, "context.md"),
        (reference.ReleaseSection, "references.md"),
        (reference.EventSection, "references.md"),
    ],
)
def test_each_key_is_in_the_docs(section: type[msgspec.Struct], page: str) -> None:
    missing = unnamed(keys_of(section), (DOCS / page).read_text(encoding="utf-8"))
    assert not missing, f"docs/{page} does not name {missing}"


def test_a_key_that_a_page_no_longer_shows_is_missed() -> None:
    """Prose does not count, nor does a longer name: `key` in "a key", in `key_in`."""
    keys = keys_of(verifier.VerifierSection)
    text = (DOCS / "attestation.md").read_text("utf-8")
    for key in keys:
        without = re.sub(_as_key(key), "gone", code_of(text))
        assert unnamed(keys, f"the {key} is told in prose\n```toml\n{without}\n```\n") == [key]


def test_each_key_of_registrar_toml_is_in_the_docs(tmp_path: Path) -> None:
    make_place(tmp_path / "registrar", name="acme")
    keys = set(tomllib.loads((tmp_path / "registrar" / FILE).read_text("utf-8")))
    assert keys
    assert not unnamed(keys, (DOCS / "lifecycle.md").read_text("utf-8"))


class Sources:
    """What the program's sources say: every text constant, and the events of log lines."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.events: set[str] = set()
        for folder in ("gateway", "provisioning"):
            for path in (ROOT / folder).rglob("*.py"):
                for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        self.texts.add(node.value)
                    self.events |= set(events_of(node))


def events_of(node: ast.AST) -> Iterator[str]:
    """Yield the events that a call logs: `log.info("seal.ready", ...)`, `say("a.b" if x else "c.d", ...)`."""
    if not (isinstance(node, ast.Call) and node.args):
        return
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called.lstrip("_") not in {"debug", "info", "warning", "error", "exception", "critical", "say"}:
        return
    for one in ast.walk(node.args[0]):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and _EVENT.fullmatch(one.value):
            yield one.value


_EVENT = re.compile(r"[a-z]+\.[a-z_]+")
_LOG_PAGES = ("events.md", "attestation.md")


def test_each_log_line_is_in_the_docs_and_none_that_there_is_not() -> None:
    sources = Sources()
    rows = [
        row.split("|")[1]
        for page in _LOG_PAGES
        for row in re.findall(r"^\| `[a-z]+\.[a-z_]+`.*$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    ]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert {"seal.epoch_kept", "forward.certified", "ledger.standing", "verifier.blind"} <= sources.events
    assert sorted(sources.events - named) == []
    assert sorted(named - sources.texts) == []


def test_a_log_line_is_found_however_it_is_called() -> None:
    found = {
        'self._log.info("seal.ready", size=1)': ["seal.ready"],
        'say("ledger.standing", state=1)': ["ledger.standing"],
        'log.warning(\n    "a.b" if x else "c.d", why="no"\n)': ["a.b", "c.d"],
        'other("seal.ready")': [],
        'log.error("no event")': [],
    }
    for text, events in found.items():
        assert [event for node in ast.walk(ast.parse(text)) for event in events_of(node)] == events


def test_each_metric_that_a_page_names_is_there() -> None:
    known = set(re.findall(r"`(wattseal_\w+)`", metrics_page()))
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(rf"\b(wattseal_(?:{'|'.join(COUNTS)})_[a-z_]+\b)(?!\.\.\.)", page.read_text("utf-8"))
    }
    assert len({name for _, name in named}) > 20
    assert not sorted(one for one in named if one[1] not in known)


def test_the_log_page_names_just_the_events_that_are_written() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "gateway" / "app").rglob("*.py"))
    written = set(
        re.findall(r'(?:event_body|_event|\.event|_turned|_say)\(\s*(?:device, )?"([a-z]+\.[a-z_]+)"', source)
    )
    named = re.search(r"Names in use: (.*?)\.\n", (DOCS / "log.md").read_text("utf-8"), re.DOTALL)
    assert named is not None
    assert set(re.findall(r"`([a-z.]+)`", named[1])) == written


def test_each_promise_has_the_test_that_it_names() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", (DOCS / "promises.md").read_text("utf-8"))
    assert len(named) > 20
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text("utf-8"), f"docs/promises.md: {path} has no {test}"


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    targets = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))]
    assert not [f"{page.name}: {target}" for page, target in targets if not (page.parent / target).exists()]


@pytest.mark.alone
def test_a_newcomer_gets_through_the_tutorial(tmp_path: Path) -> None:
    """Run every command of the tutorial's first four steps, in order, as it stands there."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8").partition("## 5.")[0]
    commands = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    assert any("--trust" in command for command in commands)
    for command in commands:
        if command.startswith("make demo"):
            arguments = shlex.split(command)[-1].removeprefix("ARGS=")
            command = f".venv/bin/wattseal demo {arguments}"  # noqa: PLW2901 (make only adds the set-up)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
