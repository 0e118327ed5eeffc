"""A Mosquitto of our own, for development, demonstrations and tests. A plant runs its own broker."""

import asyncio
import getpass
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.app.isolation import die_with_us
from gateway.errors import ConfigError, LinkError
from gateway.north.broker import BrokerFiles, acl_text, agents_acl_text, conf_text

READY_S = 10.0
STOP_S = 5.0
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker, on the loopback interface."""

    port: int
    pid: int
    log: Path


@asynccontextmanager
async def running_broker(
    folder: Path,
    *,
    pki: Path,
    ledger: str,
    for_agents: bool = False,
    port: int | None = None,
    bind: str = "127.0.0.1",
    within: Sequence[str] = (),
    namespace: str = "",
    verifier: str = "",
    enrolling: Sequence[str] = (),
) -> AsyncIterator[Broker]:
    """Start Mosquitto on the certificates of pki; end it on leaving.

    folder: where its configuration and log go. ledger: who is on the other side of all topics.
    for_agents: it is the broker in the OT zone, and that other side is collect. port: a free one when None.
    within: a command that runs it, such as `ip netns exec dmz`. namespace, verifier, enrolling: see acl_text.
    Raises ConfigError where Mosquitto is not installed, LinkError when it does not come up.
    """
    program = [*within, find_mosquitto()]
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(_ATTEMPTS):
        chosen = free_port(bind) if port is None else port
        conf = write_broker_files(
            folder,
            pki=pki,
            ledger=ledger,
            port=chosen,
            bind=bind,
            for_agents=for_agents,
            namespace=namespace,
            verifier=verifier,
            enrolling=enrolling,
        )
        try:
            async with _child(program, conf, chosen, bind) as broker:
                yield broker
                return
        except _NeverReadyError as e:
            # Between finding a free port and its use by the broker, another process may take it.
            if port is not None or attempt == _ATTEMPTS - 1:
                raise LinkError(str(e)) from e


def find_mosquitto() -> str:
    """Return Mosquitto's path. Raises ConfigError where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigError("mosquitto: not found in PATH or /usr/sbin; install the package mosquitto")
    return found


def free_port(bind: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((bind, 0))
        port: int = probe.getsockname()[1]
        return port


def write_broker_files(
    folder: Path,
    *,
    pki: Path,
    ledger: str,
    port: int,
    bind: str = "127.0.0.1",
    for_agents: bool = False,
    namespace: str = "",
    verifier: str = "",
    enrolling: Sequence[str] = (),
) -> Path:
    """Write mosquitto.conf and its access list, for the user who runs this; return the former's path."""
    acl, conf = folder / "mosquitto.acl", folder / "mosquitto.conf"
    files = BrokerFiles.of(pki.resolve(), acl.resolve())
    dmz = acl_text(ledger=ledger, namespace=namespace, verifier=verifier, enrolling=enrolling)
    acl.write_text(agents_acl_text(collect=ledger) if for_agents else dmz)
    conf.write_text(conf_text(files, port=port, bind=bind, user=getpass.getuser(), for_agents=for_agents))
    # Mosquitto 2.1 refuses lists that others may change.
    acl.chmod(0o600)
    return conf


class _NeverReadyError(Exception):
    pass


@asynccontextmanager
async def _child(program: Sequence[str], conf: Path, port: int, bind: str) -> AsyncIterator[Broker]:
    log = conf.with_suffix(".log")
    with log.open("ab") as sink:
        start = sink.tell()
        process = await asyncio.create_subprocess_exec(
            *(*program, "-c", str(conf.resolve())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=conf.parent,
            start_new_session=True,  # a terminal's Ctrl-C is for us
            preexec_fn=die_with_us,
        )
    try:
        await _ready(process, log, start, f"{bind}:{port}")
        yield Broker(port=port, pid=process.pid, log=log)
    finally:
        await _end(process)


async def _ready(process: asyncio.subprocess.Process, log: Path, start: int, where: str) -> None:
    """Wait until the broker says that it runs: its sockets are open then."""
    said = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while process.returncode is None:
                await asyncio.sleep(0.02)
                said = log.read_bytes()[start:].decode(errors="replace")
                if any(line.endswith(" running") for line in said.splitlines()):
                    return
    last = " / ".join(said.splitlines()[-3:])
    raise _NeverReadyError(f"mosquitto: did not come up on {where}: {last or 'it said nothing'}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
