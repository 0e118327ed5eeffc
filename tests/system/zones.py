"""Network namespaces for a test: zones with addresses of their own, and an ear on the wires between them."""

import asyncio
import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 0x0003
_PIDFD_GETFD = 438
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_NOT_PERMITTED = ("not permitted", "Permission denied", "Read-only file system")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotPermittedError(Exception):
    """Raised when we may not, or cannot, make namespaces here."""


def ip(*arguments: str) -> None:
    """Run `ip ARGUMENTS`. Raises NotPermittedError."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError as e:
        raise NotPermittedError("there is no `ip` command (package iproute2)") from e
    if done.returncode and any(words in done.stderr for words in _NOT_PERMITTED):
        raise NotPermittedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


def within(namespace: Path, work: Callable[[], Any]) -> Any:
    """Return what work returns in a network namespace, in a thread of its own; sockets it opens stay in there."""
    answers: list[Any] = []

    def enter() -> None:
        with namespace.open("rb") as entry:
            if ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(namespace))
        answers.append(work())

    thread = threading.Thread(target=enter, name=f"within {namespace}")
    thread.start()
    thread.join(timeout=20)
    assert answers, f"nothing came back from {namespace}"
    return answers[0]


def attempt(namespace: Path, host: str, port: int) -> str:
    """Return "connected", or the name of the error with which a TCP connection from a namespace fails."""

    def connect() -> str:
        try:
            with socket.create_connection((host, port), timeout=3):
                return "connected"
        except TimeoutError:
            return "ETIMEDOUT"
        except OSError as e:
            return errno.errorcode.get(e.errno or 0, str(e))

    answer = within(namespace, connect)
    assert isinstance(answer, str)
    return answer


def network_of(pid: int) -> Path:
    """Return the network namespace that a process is in now."""
    return Path(f"/proc/{pid}/ns/net")


def interfaces_of(pid: int) -> list[str]:
    """Return the names of the interfaces that a process sees."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def sockets_of(pid: int) -> dict[socket.AddressFamily, int]:
    """Return how many sockets of which family a process holds open.

    /proc/PID/net tells less: a unix socket stands in the tables of whichever namespace its peer connected from.
    """
    count: dict[socket.AddressFamily, int] = {}
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(entry.readlink()).startswith("socket:"):
                    with socket.socket(fileno=_taken(process, int(entry.name))) as found:
                        family = socket.AddressFamily(found.family)
                    count[family] = count.get(family, 0) + 1
    finally:
        os.close(process)
    return count


def _taken(process: int, number: int) -> int:
    """Return a descriptor of our own for another process' open file (pidfd_getfd(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    taken: int = libc.syscall(_PIDFD_GETFD, process, number, 0)
    if taken < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "pidfd_getfd")
    return taken


@dataclass(slots=True)
class Ear:
    """Hears all frames of one interface. foreign: addresses that are not of the zone's own range."""

    own: Network
    frames: int = 0
    packets: int = 0
    foreign: set[str] = field(default_factory=set)

    def hear(self, frame: bytes) -> None:
        """Note the addresses of one Ethernet frame."""
        self.frames += 1
        kind = int.from_bytes(frame[12:14], "big")
        if kind == _IPV4:
            self.packets += 1
            self._note(frame[26:30], frame[30:34])
        elif kind == _ARP:
            self._note(frame[28:32], frame[38:42])
        elif kind == _IPV6:
            self._note(frame[22:38], frame[38:54])
        else:
            self.foreign.add(f"ethertype {kind:#06x}")

    def _note(self, *addresses: bytes) -> None:
        for packed in addresses:
            address = ipaddress.ip_address(packed)
            if address.version == 6 and (address.is_link_local or address.is_multicast or address.is_unspecified):
                continue  # an interface's own housekeeping
            if address not in self.own:
                self.foreign.add(str(address))


@contextmanager
def listening(namespace: Path, interface: str, own: str) -> Iterator[Ear]:
    """Hear an interface of a namespace, both directions, while the loop runs."""
    ear = Ear(ipaddress.ip_network(own))
    with tapped(namespace, interface, ear.hear):
        yield ear


@contextmanager
def tapped(namespace: Path, interface: str, hear: Callable[[bytes], None]) -> Iterator[None]:
    """Hand on each Ethernet frame of an interface, both directions, while the loop runs."""

    def open_ear() -> socket.socket:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        found.bind((interface, 0))
        found.setblocking(False)
        return found

    raw = within(namespace, open_ear)

    def hear_all() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                hear(raw.recv(65_536))

    loop = asyncio.get_running_loop()
    loop.add_reader(raw, hear_all)
    try:
        yield
        hear_all()
    finally:
        loop.remove_reader(raw)
        raw.close()


@contextmanager
def namespaces(*names: str) -> Iterator[dict[str, str]]:
    """Make network namespaces; yield their system-wide names. They are deleted on leaving, whatever happens.

    Raises NotPermittedError.
    """
    made = {name: f"wattseal-{os.getpid()}-{name}" for name in names}
    done: list[str] = []
    try:
        for full in made.values():
            ip("netns", "add", full)
            done.append(full)
        yield made
    finally:
        for full in done:
            with contextlib.suppress(NotPermittedError, AssertionError):
                ip("netns", "delete", full)


def wire(one: str, other: str, *, name: str, addresses: tuple[str, str]) -> None:
    """Lay a cable between two namespaces; its ends have the same name, and an address with a prefix length each."""
    ip("link", "add", name, "netns", one, "type", "veth", "peer", "name", name, "netns", other)
    for namespace, address in zip((one, other), addresses, strict=True):
        ip("-netns", namespace, "address", "add", address, "dev", name)
        ip("-netns", namespace, "link", "set", name, "up")
        ip("-netns", namespace, "link", "set", "lo", "up")


def entry(full: str) -> Path:
    """Return the file of a namespace that `namespaces` made."""
    return Path("/run/netns") / full
