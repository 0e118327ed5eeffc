"""Ways to a unit: a process on this machine, SSH, a serial line. An address says which."""

import contextlib
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import serial

from gateway.errors import ConfigError, LinkError
from provisioning.station.link import Transport

_PIECE = 65_536
_MOST_SAID = 2000
_END_S = 2.0

Connect = Callable[[str], Transport]
"""Opens the transport to an address."""


class Direct:
    """A unit in this very process: for simulations. answer: of gateway.app.enrolment.enrolee.Enrolee."""

    def __init__(self, answer: Callable[[bytes], bytes | None], *, close: Callable[[], None]) -> None:
        self._answer = answer
        self._close = close
        self._replies = b""

    def send(self, content: bytes, *, until_s: float) -> None:  # noqa: ARG002 - answers at once
        """Hand over whole lines, and keep the replies."""
        for line in content.removesuffix(b"\n").split(b"\n"):
            self._replies += self._answer(line) or b""

    def receive(self, *, until_s: float) -> bytes:
        """Return the replies."""
        if not self._replies:
            time.sleep(max(0.0, until_s - time.monotonic()))
        said, self._replies = self._replies, b""
        return said

    def close(self) -> None:
        """End the unit."""
        self._close()


class _Stream:
    """Bytes over descriptors that never block. errors: where the other side complains, if it does that apart."""

    def __init__(self, *, source: int, sink: int, errors: int | None = None) -> None:
        self._source, self._sink, self._errors = source, sink, errors
        self.said = b""
        for handle in (source, sink, *(() if errors is None else (errors,))):
            os.set_blocking(handle, False)

    def send(self, content: bytes, *, until_s: float) -> None:
        """Write all of it."""
        rest = memoryview(content)
        while rest:
            if not _await({self._sink: select.POLLOUT}, until_s):
                raise LinkError("the unit takes no more bytes")
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BlockingIOError:
                continue
            except OSError as e:
                self._listen()
                raise LinkError(f"the unit hung up{self._why()}") from e

    def receive(self, *, until_s: float) -> bytes:
        """Read what is there."""
        events = {self._source: select.POLLIN} | ({} if self._errors is None else {self._errors: select.POLLIN})
        while ready := _await(events, until_s):
            if self._errors in ready:
                self._listen()
                if self._errors is None:
                    events = {self._source: select.POLLIN}
            if self._source in ready:
                with contextlib.suppress(BlockingIOError):
                    return self._read()
        return b""

    def _read(self) -> bytes:
        try:
            piece = os.read(self._source, _PIECE)
        except BlockingIOError:
            raise
        except OSError as e:
            raise LinkError("the line to the unit is gone") from e
        if not piece:
            end_s = time.monotonic() + 1.0
            while self._errors is not None and _await({self._errors: select.POLLIN}, end_s):
                self._listen()
            raise LinkError(f"the unit hung up{self._why()}")
        return piece

    def _listen(self) -> None:
        """Keep the end of what the other side complains of."""
        if self._errors is None:
            return
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._errors, _PIECE)
            self.said = (self.said + piece)[-_MOST_SAID:]
            if not piece:
                self._errors = None

    def _why(self) -> str:
        said = self.said.decode("utf-8", "replace").strip().splitlines()
        last = "".join(c if c.isprintable() else "?" for c in said[-1][:300]) if said else ""
        return f": {last}" if last else ""


class Process(_Stream):
    """A unit behind a process of ours: `wattseal enrol` itself, or ssh."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the station: the units under way end
            )
        except OSError as e:
            raise ConfigError(f"{command[0]}: {e.strerror or e}, want a command that reaches the unit") from e
        pipes = self._process.stdout, self._process.stdin, self._process.stderr
        source, sink, errors = (0 if pipe is None else pipe.fileno() for pipe in pipes)
        super().__init__(source=source, sink=sink, errors=errors)

    def close(self) -> None:
        """Hang up, and end the process, by force if it must be."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        ends: tuple[Callable[[], None] | None, ...] = (None, self._process.terminate, self._process.kill)
        for end in ends:
            if end is not None:
                end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
                break
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


_serial: Any = serial.Serial  # pyserial has no types


class SerialLine(_Stream):
    """A unit at the end of a serial line, where `wattseal enrol` waits."""

    def __init__(self, path: str, *, baud: int) -> None:
        try:
            self._port: Any = _serial(path, baud, timeout=0, exclusive=True)
            self._port.reset_input_buffer()
        except (OSError, ValueError) as e:  # SerialException is an OSError
            raise ConfigError(f"serial://{path}: {e}, want a serial port that nobody else has") from e
        super().__init__(source=self._port.fileno(), sink=self._port.fileno())

    def close(self) -> None:
        """Give the port back."""
        with contextlib.suppress(OSError):
            self._port.close()


def connect(address: str, *, command: Sequence[str], ssh: Sequence[str]) -> Transport:
    """Return the transport to an address: `local`, `ssh://user@host:port` or `serial:///dev/ttyUSB0?baud=115200`.

    command: that the unit's side is, run here or over SSH. ssh: options for ssh, such as its host keys.
    Raises ConfigError for an address that is none of these, and LinkError where nothing answers there.
    """
    if address == "local":
        return Process(command)
    try:
        parts = urlsplit(address)
        port, baud = parts.port, int(parse_qs(parts.query).get("baud", ["115200"])[0])
    except ValueError as e:
        raise ConfigError(f"address: got {address[:100]!r}: {e}") from e
    if parts.scheme == "ssh" and parts.hostname and not parts.hostname.startswith("-"):
        target = parts.hostname if parts.username is None else f"{parts.username}@{parts.hostname}"
        where = [] if port is None else ["-p", str(port)]
        return Process(["ssh", *_SSH, *ssh, *where, "--", target, shlex.join(command)])
    if parts.scheme == "serial" and parts.path:
        return SerialLine(parts.path, baud=baud)
    raise ConfigError(
        f"address: got {address[:100]!r}, want local, ssh://user@host:port or serial:///dev/ttyUSB0?baud=115200"
    )


_SSH = ("-T", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oConnectTimeout=10", "-oServerAliveInterval=10")
"""No terminal, no question to a person, no unknown host: a unit's host key stands in known_hosts, or it is refused."""


def ssh_options(*, known_hosts: Path | None, key: Path | None) -> tuple[str, ...]:
    """Return the options of ssh for these files."""
    hosts = () if known_hosts is None else (f"-oUserKnownHostsFile={known_hosts}",)
    own = () if key is None else ("-i", str(key), "-oIdentitiesOnly=yes")
    return (*hosts, *own)


def _await(events: dict[int, int], until_s: float) -> set[int]:
    """Return the descriptors that have something to say, none when the time is up. Not select: it ends at 1,024."""
    poll = select.poll()
    for handle, event in events.items():
        poll.register(handle, event)
    return {handle for handle, _ in poll.poll(max(0.0, until_s - time.monotonic()) * 1000)}
