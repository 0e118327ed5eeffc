"""`wattseal opcua` and `wattseal browse`: what a person is told, on the page's own commands and on mistakes."""

import asyncio
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from asyncua import ua

from gateway.app.load import template_text
from gateway.cli import run
from gateway.config import parse_gateway, parse_template, sections, templates
from gateway.drivers.opcua_browse import Walk, browse, node_of, text_of
from gateway.drivers.opcua_connect import Access
from gateway.errors import ConfigError, DeviceError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "opcua.md").read_text("utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TOML = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
THUMBPRINT = "5bf6476d97dbf3827d17a45d5bbbc70c8327ea41"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A folder as a newcomer has it, and the factory that runs there."""

    folder: Path
    url: str
    port: int
    thumbprint: str

    def file(self, name: str, **changes: str) -> Path:
        """Return a gateway.toml of the page, with other settings of the device."""
        text = TOML[0].replace("4840", str(self.port))
        text += "".join(f"{key} = {value}\n" for key, value in changes.items())
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run the factory of the page, on a free port; it also takes clients without security."""
    folder = tmp_path_factory.mktemp("site")
    start = shlex.split(SHELL[0].replace("4840", "0"))
    assert start[:3] == [".venv/bin/python", "-m", "hil.plant"]
    command = [sys.executable, *start[1:], "--opcua-none"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as running:
        try:
            assert running.stdout is not None
            about = json.loads(running.stdout.readline())["opcua"]
            port = int(about["url"].rpartition(":")[2].partition("/")[0])
            yield Site(folder=folder, url=about["url"], port=port, thumbprint=about["thumbprint"])
        finally:
            running.kill()


def test_a_newcomer_gets_through_the_opc_ua_page(site: Site) -> None:
    """Run every command of the page, in order, as it stands there; the ones that it says are refused, are."""
    (site.folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    site.file("gateway.toml")
    said = ""
    refused = []
    for line in (line for block in SHELL[1:] for line in block.splitlines()):
        command, _, comment = line.replace(THUMBPRINT, site.thumbprint).partition("  #")
        done = subprocess.run(
            ["sh", "-c", command], cwd=site.folder, capture_output=True, text=True, timeout=60, check=False
        )
        wanted = 1 if "refused" in comment else 0
        assert done.returncode == wanted, f"{command}\n{done.stdout}{done.stderr}"
        if wanted:
            refused.append(done.stderr)
        said += done.stdout
    assert len(refused) == 2
    assert f"wattseal opcua trust gateway.toml {site.thumbprint}" in refused[0]
    assert "the server does not trust our certificate" in refused[1]
    assert all(len(text.splitlines()) == 1 for text in refused)
    assert re.search(r"AcActivePowerTotal +Double [0-9.]+ W +nsu=urn:wattseal:hil:plant;s=Compressor\.Ac", said)
    assert "Double 3.0 Cel [UncertainSensorNotAccurate]" in said


def test_the_page_s_configurations_parse() -> None:
    for text in (TOML[0], TOML[0].partition("[devices")[0] + TOML[1]):
        config = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)
        assert config.devices["line"].opcua.security == "Basic256Sha256"
    assert parse_template(TOML[2], "shown").protocol == "opcua"


def test_the_page_names_every_key() -> None:
    for section in (
        sections.OpcuaSection,
        sections.OpcuaDeviceSection,
        templates.OpcuaPointSection,
        templates.OpcuaTemplate,
    ):
        missing = [f.name for f in msgspec.structs.fields(section) if not re.search(rf"\b{f.name}\b", PAGE)]
        assert not missing, f"docs/opcua.md does not name {missing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Shell:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Said:
        """Return what a command says."""
        code = run([str(word) for word in words])
        out, err = self._capsys.readouterr()
        return Said(code=code, out=out, err=err)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_browse_as_json_holds_the_tree(site: Site, shell: Shell) -> None:
    said = shell("browse", site.url, "--none", "--json", "--node", "nsu=urn:wattseal:hil:plant;s=Filler")
    found = json.loads(said.out)
    assert (said.code, found["cut"]) == (0, "")
    power = next(child for child in found["root"]["children"] if child["name"] == "AcActivePowerTotal")
    assert power["id"] == "nsu=urn:wattseal:hil:plant;s=Filler.AcActivePowerTotal"
    assert (power["type"], power["unit"], power["range"], power["status"]) == ("Float", "W", "0..1e+06", "")
    assert float(power["value"]) > 100_000


@pytest.mark.parametrize(
    ("bound", "message"),
    [(("--most", "5"), "stopped at 5 nodes"), (("--depth", "1"), "stopped at depth 1")],
)
def test_browse_stops_at_its_bounds_and_says_so(site: Site, shell: Shell, bound: tuple[str, str], message: str) -> None:
    said = shell("browse", site.url, "--none", *bound)
    assert said.code == 0
    assert said.err == f"{message}: this is not all\n"
    assert len(said.out.splitlines()) <= 6


@pytest.mark.parametrize(
    ("node", "code", "message"),
    [
        ("nsu=urn:wattseal:hil:plant;s=Nothing", 1, "BadNodeIdUnknown"),
        ("nsu=urn:nobody;s=Nothing", 2, "want one of the server's: http://opcfoundation.org/UA/"),
        ("ns=2;s=Filler", 2, "want nsu=<namespace URI>"),
        ("Filler", 2, "want such as nsu="),
    ],
)
def test_browse_says_what_is_wrong_with_a_node(site: Site, shell: Shell, node: str, code: int, message: str) -> None:
    said = shell("browse", site.url, "--none", "--node", node)
    assert (said.code, said.out) == (code, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_browse_wants_security_unless_it_is_told_not_to(site: Site, shell: Shell) -> None:
    said = shell("browse", site.url)
    assert said.code == 2
    assert "want --none, or a device" in said.err
    said = shell("browse", site.file("none.toml"), "press")
    assert said.code == 2
    assert "got device 'press', want one of OPC UA: line" in said.err


def test_a_device_without_our_certificate_names_the_command_that_makes_it(site: Site, shell: Shell) -> None:
    other = site.folder / "other"
    other.mkdir()
    file = other / "gateway.toml"
    file.write_text(TOML[0])
    said = shell("browse", file, "line")
    assert said.code == 2
    assert "`wattseal opcua own gateway.toml`" in said.err


def test_a_password_that_others_may_read_is_refused(site: Site, shell: Shell) -> None:
    file = site.file("password.toml", opcua='{ security = "None", mode = "None", user = "gw", password = "pw" }')
    (site.folder / "pw").write_text("secret\n")
    (site.folder / "pw").chmod(0o644)
    said = shell("browse", file, "line")
    assert said.code == 2
    assert "want 0600: chmod 600 " in said.err
    assert "secret" not in said.err


def test_a_device_that_is_half_secured_is_refused_with_its_place_in_the_file(site: Site, shell: Shell) -> None:
    file = site.file("half.toml", opcua='{ security = "Basic256Sha256", mode = "None" }')
    assert shell("opcua", "own", file, "--force", "--host", "localhost").code == 0
    said = shell("browse", file, "line")
    assert said.code == 2
    assert said.err.startswith(f"{file}: devices.line: opcua.security: got 'Basic256Sha256'")


def test_a_server_that_is_not_there_is_one_line(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = shell("browse", f"opc.tcp://127.0.0.1:{port}", "--none")
    assert said.code == 1
    assert "nobody listens there" in said.err
    assert len(said.err.splitlines()) == 1


def test_own_makes_a_certificate_once(tmp_path: Path, shell: Shell) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(TOML[0])
    made = shell("opcua", "own", file, "--host", "edge.example", "--json")
    found = json.loads(made.out)
    assert made.code == 0
    assert found["uris"] == ["urn:edge.example:wattseal:gw1"]
    assert Path(found["cert"]) == tmp_path / "opcua" / "own.der"
    again = shell("opcua", "own", file)
    assert again.code == 2
    assert "--force" in again.err
    forced = shell("opcua", "own", file, "--force", "--host", "edge.example")
    assert forced.code == 0
    assert re.search(r"thumbprint +[0-9a-f]{40}\n", forced.out)
    assert found["thumbprint"] not in forced.out


def test_trust_lists_moves_and_removes(tmp_path: Path, shell: Shell) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(TOML[0])
    made = json.loads(shell("opcua", "own", file, "--host", "a", "--json").out)["thumbprint"]
    rejected = tmp_path / "opcua" / "rejected"
    rejected.mkdir()
    (tmp_path / "opcua" / "own.der").rename(rejected / f"{made}.der")
    listed = shell("opcua", "trust", file)
    assert listed.code == 0
    assert "trusted (" in listed.out
    assert made in listed.out
    assert f"wattseal opcua trust {file} THUMBPRINT" in listed.out
    moved = shell("opcua", "trust", file, made)
    assert moved.code == 0
    assert "trusted now" in moved.out
    assert "urn:a:wattseal:gw1" in moved.out, "it is shown"
    both = json.loads(shell("opcua", "trust", file, "--json").out)
    assert [entry["thumbprint"] for entry in both["trusted"]] == [made]
    assert both["rejected"] == []
    assert shell("opcua", "trust", file, "--remove", made).code == 0
    assert json.loads(shell("opcua", "trust", file, "--json").out) == {"trusted": [], "rejected": []}
    unknown = shell("opcua", "trust", file, made)
    assert unknown.code == 2
    assert "there: none" in unknown.err
    assert shell("opcua", "trust", file, made, "--remove", made).code == 2


def test_other_commands_do_not_load_the_opc_ua_library() -> None:
    """It takes most of a second, and every command would wait for it."""
    code = "import sys, gateway.cli; sys.exit(any(name in sys.modules for name in ('asyncua', 'cryptography')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


READS = {428, 461, 467, 473, 452, 446, 527, 533, 631}
"""Encodings of GetEndpoints, Create-, Activate- and CloseSession, CloseSecureChannel, OpenSecureChannel, Browse,
BrowseNext and Read.

Source: OPC 10000-6, the NodeIds CSV.
"""


async def test_browse_sends_no_service_that_could_change_anything(site: Site) -> None:
    """Captured between the command and the server, without security, so that each request can be read."""
    sent = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", site.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, copy: bytearray | None) -> None:
            while chunk := await source.read(65_536):
                if copy is not None:
                    copy += chunk
                sink.write(chunk)
            sink.close()

        await asyncio.gather(pump(reader, far_writer, sent), pump(far_reader, writer, None), return_exceptions=True)

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        command = [sys.executable, "-m", "gateway.cli", "browse", f"opc.tcp://127.0.0.1:{port}/plant", "--none"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        await asyncio.sleep(0.1)
    services = []
    at = 0
    while at < len(sent):
        kind, size = bytes(sent[at : at + 3]), struct.unpack_from("<I", sent, at + 4)[0]
        if kind == b"MSG":
            form, space, number = struct.unpack_from("<BBH", sent, at + 24)
            assert (form, space) == (1, 0), "a four-byte node id"
            services.append(number)
        at += size
    assert {527, 631} <= set(services) <= READS


HOSTILE = {
    "silence": (b"", "no session in"),
    "noise": (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20, "which is no OPC UA"),
    "size": (b"ACKF\xff\xff\xff\x7f" + bytes(64), "announced a chunk of 2147483647 bytes"),
}


@pytest.mark.parametrize(("sent", "message"), HOSTILE.values(), ids=list(HOSTILE))
async def test_browse_leaves_a_hostile_server_with_one_line(sent: bytes, message: str) -> None:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(sent)
        await done.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(DeviceError, match=message) as caught:
            async with asyncio.timeout(20):
                await browse(Access(url=url, security="None", mode="None", timeout_s=0.2), "i=85", Walk())
        assert str(caught.value).startswith(url)
        done.set()


@pytest.mark.parametrize("text", ["i=85", "nsu=urn:maker;s=Line 1;a=b", "nsu=urn:maker;i=7", "nsu=urn:maker;b=AQID"])
def test_a_node_s_name_leads_back_to_it(text: str) -> None:
    uris = ["http://opcfoundation.org/UA/", "urn:own", "urn:maker"]
    assert text_of(node_of(text, uris), uris) == text


def test_a_node_s_name_cannot_write_to_the_terminal() -> None:
    name = text_of(ua.NodeId(ua.String("a\x1b[2Jb\nc\u202ed"), ua.Int16(1)), ["", "urn:x\x07"])
    assert name == "nsu=urn:x?;s=a?[2Jb?c?d"


@pytest.mark.parametrize("text", ["", "i=", "i=x", "nsu=urn:maker", "nsu=urn:maker;", "g=1", "s"])
def test_what_is_no_node_s_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--node: got"):
        node_of(text, ["", "urn:own", "urn:maker"])
