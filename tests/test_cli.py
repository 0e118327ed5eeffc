"""gateway/cli: what a person or a script is told, in how many lines, and by which exit code."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.app.entry import run_until_stopped
from gateway.app.forwarding import ForwardMetrics
from gateway.app.metrics import serve_metrics
from gateway.app.paths import reachable
from gateway.carbon.grid.factors import parse_factors
from gateway.cli import run
from gateway.codec.frames import pack_frame
from gateway.errors import ConfigError, LinkError, LogError
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog.note import Signer
from tests.modbus_peers import Ask, Peer
from tests.programs import ROOT, Said, Shell
from tests.sealing import SIGNER, WITNESS

BIN = Path(sys.executable).parent

GATEWAY_TOML = """\
[gateway]
id = "gw1"
state = "state"
[seal]
key = "gw1.key"
witness = "ledger.vkey"
[forward]
broker = "127.0.0.1:1"
ca = "ca.pem"
cert = "gw1.pem"
key = "gw1.pem.key"
[interval]
period_s = 60
[devices.comp]
template = "eastron-sdm630"
url = "tcp://127.0.0.1:1"
unit_id = 1
timeout_s = 0.3
[devices.press]
template = "abb-b23"
url = "tcp://127.0.0.1:1"
unit_id = 2
[lines.filling]
zone = "DE"
energy = ["comp.import_energy"]
"""

LEDGER_TOML = """\
[ledger]
name = "ledger"
state = "ledger"
key = "ledger.key"
factors = "factors.toml"
[broker]
broker = "127.0.0.1:1"
ca = "ca.pem"
cert = "ledger.pem"
key = "ledger.pem.key"
[gateways.gw1]
key = "gw1.vkey"
"""


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(run, capsys)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with both configurations and the signing keys."""
    (tmp_path / "gateway.toml").write_text(GATEWAY_TOML)
    (tmp_path / "ledger.toml").write_text(LEDGER_TOML)
    (tmp_path / "gw1.key").write_text(SIGNER.to_text())
    (tmp_path / "gw1.vkey").write_text(SIGNER.verifier.vkey)
    (tmp_path / "ledger.key").write_text(WITNESS.to_text())
    (tmp_path / "ledger.vkey").write_text(WITNESS.cosigner().verifier.vkey)
    return tmp_path


def spawn(*command: str | Path, cwd: Path | None = None, within_s: float = 60) -> Said:
    """Run a command as a process of its own, to its end."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=within_s, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


def changed(site: Path, old: str, new: str, *, file: str = "gateway.toml") -> Path:
    """Change a configuration; return its path."""
    path = site / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def one_line(text: str) -> str:
    """Return the text's only line."""
    assert text.count("\n") == 1, text
    return text.strip()


# ---- the command itself


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert shell("--version") == Said(0, f"wattseal, version {version[1]}\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["ledger"], ["tomorrow"], ["check"], ["check", "--colour", "x"], ["read", "x"]]
)
def test_arguments_that_make_no_sense_exit_with_2(shell: Shell, arguments: list[str]) -> None:
    said = shell(*arguments)
    assert (said.code, said.out) == (2, "")
    assert "Usage: wattseal" in said.err


@pytest.mark.parametrize(
    ("program", "usage"),
    [("wattseal", "Usage: wattseal "), ("ems-admin", "Usage: ems-admin "), ("ems-export", "export")],
)
def test_each_program_runs(program: str, usage: str) -> None:
    said = spawn(BIN / program, "--help")
    assert said.code == 0
    assert usage in said.out.splitlines()[0]


def test_the_aliases_are_the_same_commands(site: Path) -> None:
    """`ems-admin` is `wattseal`, `ems-export` is `wattseal export`, errors and exit codes and all."""
    assert spawn(BIN / "ems-admin", "check", site / "gateway.toml").out.startswith(f"{site / 'gateway.toml'}: OK")
    assert spawn(BIN / "ems-admin", "check", "nowhere.toml", cwd=site).code == 2
    said = spawn(BIN / "ems-export", "nowhere.toml", cwd=site)
    assert (said.code, said.out) == (2, "")
    assert one_line(said.err) == "nowhere.toml: No such file or directory, want a readable file"


def test_the_module_is_the_command() -> None:
    assert spawn(sys.executable, "-m", "gateway.cli", "--version").out.startswith("wattseal, version")


def test_a_reader_that_leaves_early_gets_no_traceback(site: Path) -> None:
    """As `wattseal check gateway.toml | head -0` does."""
    with subprocess.Popen(
        [BIN / "wattseal", "check", site / "gateway.toml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) in {0, 1}


# ---- check


def test_a_good_gateway_file_is_summed_up(shell: Shell, site: Path) -> None:
    said = shell("check", site / "gateway.toml")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == f"{site / 'gateway.toml'}: OK: gateway gw1, 2 devices, 3 requests/s, 1 lines"
    assert lines[1] == "  comp: Eastron SDM630, 2 points in 1 requests every 1 s"
    assert len(lines) == 3
    assert not (site / "state").exists(), "check changes nothing"


def test_a_good_gateway_file_as_json(shell: Shell, site: Path) -> None:
    found = json.loads(shell("check", site / "gateway.toml", "--json").out)
    assert (found["gateway"], found["lines"]) == ("gw1", ["filling"])
    assert [device["name"] for device in found["devices"]] == ["comp", "press"]


def test_a_good_ledger_file_is_summed_up(shell: Shell, site: Path) -> None:
    assert shell("check", site / "ledger.toml").out == f"{site / 'ledger.toml'}: OK: ledger ledger, 1 gateways\n"
    found = json.loads(shell("check", site / "ledger.toml", "--json").out)
    assert (found["ledger"], found["gateways"]) == ("ledger", ["gw1"])


MISTAKES = {
    "a unit id": ("unit_id = 1", "unit_id = 300", "gateway.toml: devices.comp.unit_id: got 300, want 0..247"),
    "a port": ('broker = "127.0.0.1:1"', 'broker = "x:99999"', "forward.broker: got 'x:99999', want host:port"),
    "no port": ('broker = "127.0.0.1:1"', 'broker = "x"', "forward.broker: got 'x', want host:port"),
    "a word for a number": ("unit_id = 1", 'unit_id = "1"', "devices.comp.unit_id: got '1', want a whole number"),
    "no counters": ('energy = ["comp.import_energy"]', "energy = []", "lines.filling.energy: got [], want a list of 1"),
    "no line": ('energy = ["comp.import_energy"]', "", "lines.filling.energy: got nothing, want a list of 1"),
    "a gauge": ('"comp.import_energy"', '"comp.active_power"', "lines.filling.energy: got 'comp.active_power', want"),
    "a device that is none": (
        '"comp.import_energy"',
        '"x.y"',
        "lines.filling.energy: got 'x.y', want <device>.<point>",
    ),
    "a template": ('"eastron-sdm630"', '"nameless"', "devices.comp.template: got 'nameless', want a file of"),
    "a path for a template": ('"eastron-sdm630"', '"../x"', "devices.comp.template: got '../x', want lower-case"),
    "a skewed period": (
        "timeout_s = 0.3",
        "period_s = 7.0",
        "devices.comp.period_s: got 7, want a period that divides",
    ),
    "an unknown key": ("timeout_s = 0.3", "time_out = 1", "devices.comp.time_out: got an unknown key, want one of"),
    "an unknown section": ("[interval]", "[intervals]", "intervals: got an unknown section, want one of"),
    "a section for a value": ("[interval]", "interval = 5\n[x]", "gateway.toml: "),
    "another scheme": ("tcp://127.0.0.1:1", "http://127.0.0.1:1", "devices.comp.url: got 'http://127.0.0.1:1', want"),
    "a serial line's parity": (
        '"tcp://127.0.0.1:1"',
        '"serial:///dev/x?parity=X"',
        "gateway.toml: devices.comp: url: got",
    ),
    "a broadcast": (
        'url = "tcp://127.0.0.1:1"\nunit_id = 1',
        'url = "rtu+tcp://127.0.0.1:1"\nunit_id = 0',
        "want 1..247 on a serial line",
    ),
    "a number of too many digits": ("unit_id = 1", f"unit_id = {'9' * 5000}", "gateway.toml: not TOML: "),
    "a nest without end": ("unit_id = 1", f"unit_id = {'[' * 20_000}", "gateway.toml: not TOML: "),
    "a file that breaks off": ("[interval]", "[interv", "gateway.toml: not TOML: "),
    "a key twice": ("unit_id = 1\n", "unit_id = 1\nunit_id = 2\n", "gateway.toml: not TOML: "),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_got_and_want(shell: Shell, site: Path, what: str) -> None:
    old, new, told = MISTAKES[what]
    said = shell("check", changed(site, old, new))
    assert (said.code, said.out) == (2, "")
    assert told in one_line(said.err)
    assert "gateway.toml" in said.err
    assert len(said.err) < 700


LEDGER_MISTAKES = {
    "no gateways": ('[gateways.gw1]\nkey = "gw1.vkey"\n', "", "ledger.toml: gateways: got none, want [gateways.<id>]"),
    "a name": ('name = "ledger"', 'name = "Ledger!"', "ledger.toml: ledger.name: got 'Ledger!', want lower-case"),
    "a port": ("127.0.0.1:1", "127.0.0.1:0", "ledger.toml: broker.broker: got '127.0.0.1:0', want host:port"),
    "metrics": ('name = "ledger"', 'name = "l"\nmetrics = "x"', "ledger.toml: ledger.metrics: got 'x', want host:port"),
}


@pytest.mark.parametrize("what", LEDGER_MISTAKES)
def test_a_mistake_in_the_ledgers_file_is_one_line(shell: Shell, site: Path, what: str) -> None:
    old, new, told = LEDGER_MISTAKES[what]
    said = shell("check", changed(site, old, new, file="ledger.toml"))
    assert (said.code, said.out) == (2, "")
    assert told in one_line(said.err)


@pytest.mark.parametrize(
    "command", [["check"], ["read", "FILE", "comp"], ["status"], ["seal"], ["ledger", "rebuild"], ["export"]]
)
@pytest.mark.parametrize("what", ["missing", "not UTF-8", "a folder", "empty"])
def test_a_file_that_cannot_be_used_exits_with_2(shell: Shell, tmp_path: Path, command: list[str], what: str) -> None:
    path = tmp_path / "file.toml"
    if what == "a folder":
        path.mkdir()
    elif what != "missing":
        path.write_bytes(b"" if what == "empty" else b"[gateway]\nid = '\xff'\n")
    words = [str(path) if word == "FILE" else word for word in command]
    said = shell(*words, *([] if "FILE" in command else [path]))
    assert (said.code, said.out) == (2, "")
    assert "file.toml" in said.err
    assert what == "a folder" or one_line(said.err)


# ---- read


@pytest.fixture(scope="module")
def plant() -> Iterator[int]:
    """Run the simulated factory; give its port."""
    command = [sys.executable, "-m", "hil.plant", "--port", "0", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["listening"][0]["port"]
        process.terminate()


@pytest.fixture
def at_plant(site: Path, plant: int) -> Path:
    """Return a configuration of the plant's devices."""
    return changed(site, "tcp://127.0.0.1:1", f"tcp://127.0.0.1:{plant}")


def test_a_device_is_read_with_its_raw_words(shell: Shell, at_plant: Path) -> None:
    said = shell("read", at_plant, "comp")
    assert (said.code, said.err) == (0, "")
    lines = [line.split() for line in said.out.splitlines()]
    assert [line[0] for line in lines] == ["active_power", "import_energy"]
    for line in lines:
        assert line[2:4] in (["W", "GOOD"], ["kWh", "GOOD"])
        assert re.fullmatch("[0-9a-f]{4} [0-9a-f]{4}", " ".join(line[4:]))


def test_the_words_are_those_that_the_value_is_made_of(shell: Shell, at_plant: Path) -> None:
    found = json.loads(shell("read", at_plant, "comp.active_power", "--json").out)
    (point,) = found["points"]
    assert (found["device"], point["point"], point["unit"], point["quality"]) == ("comp", "active_power", "W", "GOOD")
    assert struct.unpack(">f", bytes.fromhex(point["words"]))[0] == point["value"] > 100_000
    assert point["status"] == ""


def test_one_point_is_one_request(shell: Shell, site: Path) -> None:
    """Nobody waits for the points that were not asked for."""
    asked: list[Ask] = []

    async def answer(ask: Ask) -> Any:
        asked.append(ask)
        yield ask.reply()

    with peer(answer) as url:
        path = changed(site, "tcp://127.0.0.1:1", url)
        assert shell("read", path, "press.import_energy").code == 0
    assert len(asked) == 1


@contextlib.contextmanager
def peer(answer: Any) -> Iterator[str]:
    """Run a Modbus device in a thread of its own, as the command has a loop of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()
    device = Peer(answer)

    async def serve() -> None:
        async with device:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield device.url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_a_register_that_is_refused_spoils_no_other(shell: Shell, site: Path) -> None:
    async def answer(ask: Ask) -> Any:
        yield ask.refusal(2) if ask.address == 0x34 else ask.reply()

    with peer(answer) as url:
        said = shell("read", changed(site, "tcp://127.0.0.1:1", url), "comp", "--json")
    power, energy = json.loads(said.out)["points"]
    assert said.code == 0
    assert (power["quality"], power["value"], power["words"]) == ("BAD", None, "")
    assert power["status"]
    assert energy["quality"] == "GOOD"


def test_a_device_that_is_not_there_exits_with_1(shell: Shell, site: Path) -> None:
    for target in ("comp", "comp.import_energy"):
        said = shell("read", site / "gateway.toml", target)
        assert said.code == 1
        assert one_line(said.err).startswith(f"wattseal: {target}: no good value: cannot connect to tcp://127.0.0.1:1")
        assert "BAD" in said.out


def test_a_silent_device_is_given_up_soon(shell: Shell, site: Path) -> None:
    """After two points without an answer the rest is not asked for: a meter may have hundreds."""

    async def silence(_: Ask) -> Any:
        if False:
            yield b""

    with peer(silence) as url:
        path = changed(site, "tcp://127.0.0.1:1", url)
        changed(site, '"eastron-sdm630"', '"wattseal-bench-60f32"')
        changed(site, 'energy = ["comp.import_energy"]', 'energy = ["press.import_energy"]')
        began_s = time.monotonic()
        said = shell("read", path, "comp", "--json")
        assert time.monotonic() - began_s < 5
    points = json.loads(said.out)["points"]
    assert said.code == 1
    assert len(points) == 60
    assert all(point["quality"] == "BAD" and point["status"] for point in points)
    assert points[-1]["status"].startswith("not asked: ")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nobody", "nobody: got device 'nobody', want one of comp, press"),
        ("", ": got device '', want one of comp, press"),
        ("comp.colour", "comp.colour: got point 'colour', want one of active_power, import_energy"),
        ("comp.import_energy.x", "comp.import_energy.x: got point 'import_energy.x', want one of"),
    ],
)
def test_a_target_that_is_not_configured_exits_with_2_at_once(shell: Shell, site: Path, target: str, told: str) -> None:
    said = shell("read", site / "gateway.toml", target)
    assert (said.code, said.out) == (2, "")
    assert told in one_line(said.err)


# ---- status


def test_the_status_of_nothing_exits_with_1(shell: Shell, site: Path) -> None:
    said = shell("status", site / "gateway.toml", "--json")
    assert (said.code, json.loads(said.out)) == (1, {"collect": None, "seal": None, "forward": None})
    said = shell("status", site / "gateway.toml")
    assert (said.code, said.out) == (
        1,
        "".join(f"{name}: does not answer\n" for name in ("collect", "seal", "forward")),
    )
    assert json.loads(shell("status", site / "ledger.toml", "--json").out) == {"ledger": None}


async def test_the_status_of_running_processes_is_what_they_count(site: Path) -> None:
    counts = ForwardMetrics(chunks=7, connected=1)
    run_folder = site / "state" / "run"
    servers = [
        server
        for name in ("collect", "seal", "forward")
        for server in await serve_metrics(name, counts, socket=run_folder / f"{name}.metrics.sock")
    ]

    async def status(*options: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(str(BIN / "wattseal"), "status", str(site / "gateway.toml"), *options), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    code, out = await status("--json")
    found = json.loads(out)
    assert code == 0
    assert found["forward"]["wattseal_forward_chunks_total"] == 7
    code, out = await status()
    assert code == 0
    assert re.search(r"^forward: runs$", out, re.MULTILINE)
    assert re.search(r"^  chunks_total +7$", out, re.MULTILINE)
    servers[0].close()
    code, out = await status("--json")
    assert code == 1
    assert [name for name, metrics in json.loads(out).items() if metrics is None] == ["collect"]
    for server in servers[1:]:
        server.close()


async def test_a_stranger_at_a_metrics_socket_counts_as_no_answer(site: Path) -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\r\n\r\n\xff{{{")
        writer.close()

    folder = site / "ledger" / "run"
    folder.mkdir(parents=True)
    server = await asyncio.start_unix_server(nonsense, folder / "ledger.metrics.sock")
    process = await asyncio.create_subprocess_exec(
        *(BIN / "wattseal", "status", site / "ledger.toml"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (1, b"ledger: does not answer\n", b"")
    server.close()


# ---- dev-ca


def test_a_development_authority_is_for_its_owner_alone_and_overwrites_nothing(shell: Shell, tmp_path: Path) -> None:
    pki = tmp_path / "new" / "pki"
    said = shell("dev-ca", pki, "--gateway", "gw1", "--gateway", "gw2", "--ledger", "acme")
    assert (said.code, said.err) == (0, "")
    files = [Path(line) for line in said.out.splitlines()]
    assert sorted(files) == sorted(pki.iterdir())
    assert {f"{name}.epoch.key" for name in ("gw1", "gw2")} <= {path.name for path in files}
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files if path.suffix == ".key"} == {0o600}
    key = (pki / "gw1.key").read_bytes()
    again = shell("dev-ca", pki, "--gateway", "gw1")
    assert (again.code, again.out) == (2, "")
    assert "already" in one_line(again.err)
    assert (pki / "gw1.key").read_bytes() == key
    assert shell("dev-ca", pki, "--gateway", "gw1", "--force").code == 0
    assert (pki / "gw1.key").read_bytes() != key


def test_agents_get_certificates_and_keys_of_their_frames(shell: Shell, tmp_path: Path) -> None:
    said = shell("dev-agents", tmp_path / "ot", "--agent", "press-1", "--agent", "press-2")
    assert (said.code, said.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "ot" / "keys").iterdir()) == ["press-1.key", "press-2.key"]
    assert stat.S_IMODE((tmp_path / "ot" / "keys" / "press-1.key").stat().st_mode) == 0o600
    found = {path.name for path in (tmp_path / "ot").iterdir()}
    assert {f"{name}.pem" for name in ("ca", "broker", "collect", "press-1")} <= found
    for wrong in ("../x", "a" * 33, "collect", "broker"):
        said = shell("dev-agents", tmp_path / "other", "--agent", wrong)
        assert said.code == 2
        assert one_line(said.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gateway", "../x"],
        ["--gateway", "ca"],
        ["--gateway", "a", "--gateway", "a"],
        ["--gateway", "a", "--host", "a b"],
    ],
)
def test_names_that_cannot_stand_in_a_certificate_exit_with_2(
    shell: Shell, tmp_path: Path, arguments: list[str]
) -> None:
    said = shell("dev-ca", tmp_path / "pki", *arguments)
    assert (said.code, said.out) == (2, "")
    assert one_line(said.err)
    assert not (tmp_path / "pki").exists()


# ---- processes


def test_an_authority_that_cannot_be_written_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = shell("dev-ca", tmp_path / "file" / "pki", "--gateway", "gw1")
    assert said.code == 2
    assert one_line(said.err)


def lines_of(said: Said) -> list[str]:
    """Return the lines on standard error that are no JSON log lines."""
    return [line for line in said.err.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize(
    ("command", "removed", "told"),
    [
        (["seal"], "gw1.key", "seal.key: got .*gw1.key: No such file or directory, want a readable key file"),
        (["seal"], "ledger.vkey", "seal.witness: got .*ledger.vkey: No such file"),
        (["ledger", "run"], "ledger.key", "ledger.key: got .*ledger.key: No such file"),
        (["ledger", "run"], "gw1.vkey", "gateways.gw1.key: got .*gw1.vkey: No such file"),
        (["ledger", "run"], None, "ca.pem: got no usable CA certificate"),
    ],
)
def test_a_process_that_lacks_a_file_ends_with_one_line(
    site: Path, command: list[str], removed: str | None, told: str
) -> None:
    """Exit code 2: an operator must act, and no supervisor should try again."""
    if removed:
        (site / removed).unlink()
    said = spawn(BIN / "wattseal", *command, f"{'ledger' if 'ledger' in command else 'gateway'}.toml", cwd=site)
    assert (said.code, said.out) == (2, "")
    (line,) = lines_of(said)
    assert re.search(told, line)


async def test_a_metrics_address_that_is_taken_is_one_line(site: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    changed(site, "[interval]", f'[collect]\nmetrics = "127.0.0.1:{port}"\n[interval]')
    said = await asyncio.to_thread(spawn, BIN / "wattseal", "collect", "gateway.toml", cwd=site)
    server.close()
    assert said.code == 2
    (line,) = lines_of(said)
    assert f"metrics: got 127.0.0.1:{port}: " in line


def test_a_log_that_cannot_be_trusted_ends_the_seal_with_one_line(site: Path) -> None:
    """Exit code 1, no traceback; and nothing of it is repaired."""
    with contextlib.closing(Log.open(RealFiles(site / "state" / "log"), origin="wattseal/gw1")) as log:
        log.append(b"leaf")
        log.commit()
    checkpoint = site / "state" / "log" / "checkpoint"
    content = bytearray(checkpoint.read_bytes())
    content[0] ^= 1
    checkpoint.write_bytes(content)
    said = spawn(BIN / "wattseal", "seal", "gateway.toml", cwd=site)
    assert said.code == 1
    (line,) = lines_of(said)
    assert line.startswith("wattseal: log: checkpoint: ")
    assert checkpoint.read_bytes() == content


def test_a_key_that_did_not_sign_the_log_ends_the_seal_with_one_line(site: Path) -> None:
    """The first seal runs until it is told to stop; that is exit code 0."""
    with subprocess.Popen(
        [BIN / "wattseal", "seal", "gateway.toml"], cwd=site, stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr is not None
        while "seal.ready" not in first.stderr.readline():
            assert first.poll() is None
        said = spawn(BIN / "wattseal", "seal", "gateway.toml", cwd=site)
        assert said.code == 1
        (line,) = lines_of(said)
        assert f"is in use by process {first.pid}" in line
        with socket.socket(socket.AF_UNIX) as forward, reachable(site / "state" / "run" / "outlet.sock") as name:
            forward.connect(name)
            forward.sendall(pack_frame(["hello", 1]) + pack_frame(["read", 2, 1000]))
            assert forward.recv(1000)
            first.send_signal(signal.SIGTERM)
            assert first.wait(20) == 0
        assert first.stderr.read() == "", "who is still connected is no error"
    (site / "gw1.key").write_text(Signer.generate("wattseal/gw1").to_text())
    said = spawn(BIN / "wattseal", "seal", "gateway.toml", cwd=site)
    assert said.code == 1
    (line,) = lines_of(said)
    assert "not by this gateway's key" in line


def test_a_demo_does_not_delete_what_is_not_its_own(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    said = shell("demo", "--seconds", "5", "--out", tmp_path)
    assert said.code == 2
    assert "want a new one, or --force" in one_line(said.err)
    assert (tmp_path / "precious").exists()
    assert shell("demo", "--seconds", "1").code == 2
    said = shell("demo", "--seconds", "5", "--out", tmp_path / "precious" / "x")
    assert said.code == 2
    assert one_line(said.err)


def test_a_ledger_of_many_gateways_is_not_stopped_by_a_limit_of_open_files(site: Path) -> None:
    """Each log that is open takes several files; the soft limit is 1,024 on most systems, and 32 here."""
    names = [f"gw{number}" for number in range(2, 40)]
    for name in names:
        (site / f"{name}.vkey").write_text(Signer.generate(f"wattseal/{name}").verifier.vkey)
    sections = "".join(f'[gateways.{name}]\nkey = "{name}.vkey"\n' for name in names)
    (site / "ledger.toml").write_text(LEDGER_TOML + sections)
    wattseal_ = shlex.quote(str(BIN / "wattseal"))
    for command in ("run", "rebuild"):
        said = spawn("sh", "-c", f"ulimit -S -n 32 && exec {wattseal_} ledger {command} ledger.toml", cwd=site)
        assert (said.code, "Too many open files" in said.err) == ((2, False) if command == "run" else (0, False)), said
        assert "ca.pem" in said.err or command == "rebuild"


def test_an_export_of_nothing_and_a_verdict_on_nothing_exit_with_2(shell: Shell, site: Path) -> None:
    for command, file in (("export", "ledger.toml"), ("verify", "nothing"), ("verify", "gateway.toml")):
        said = shell(command, site / file)
        assert (said.code, said.out) == (2, "")
        assert one_line(said.err)


# ---- how a process ends


def test_errors_of_ours_leave_a_task_group_one_by_one() -> None:
    """What is done next is decided by the class; a log that cannot be trusted goes before all."""

    async def fails(error: BaseException) -> None:
        raise error

    def ends_by(error: BaseException) -> BaseException:
        with pytest.raises(BaseException) as caught:
            run_until_stopped(fails(error))
        return caught.value

    log, link, bug = LogError("log"), LinkError("link"), ZeroDivisionError()
    assert ends_by(ExceptionGroup("x", [link, ExceptionGroup("y", [log])])) is log
    assert ends_by(ExceptionGroup("x", [link])) is link
    assert ends_by(ConfigError("z")).args == ("z",)
    group = ends_by(ExceptionGroup("x", [log, bug]))
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (log, bug)
    assert ends_by(bug) is bug


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_ordinary_end(number: signal.Signals) -> None:
    async def waits() -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
        await asyncio.sleep(30)

    began_s = time.monotonic()
    run_until_stopped(waits())
    assert time.monotonic() - began_s < 10


# ---- the docs


def test_the_factor_files_in_the_docs_are_good() -> None:
    blocks = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs" / "ledger.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    factors = [block for block in blocks if "[[factor]]" in block]
    assert factors
    for block in factors:
        assert parse_factors(block, name="factors.toml")


def test_exit_codes_are_those_that_the_readme_promises() -> None:
    promise: Mapping[str, str] = dict(
        re.findall(r"(\d) (done|failed|a file or an argument is wrong)", (ROOT / "README.md").read_text())
    )
    assert promise == {"0": "done", "1": "failed", "2": "a file or an argument is wrong"}
