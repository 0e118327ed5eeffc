"""What a scan is told to ask: hosts and unit ids, from one line of text. Pure.

    TARGET  := HOST[:PORT][/UNITS]  |  NETWORK/BITS[:PORT]/UNITS  |  URL
    HOST    := an IPv4 address, or a name
    NETWORK := an IPv4 address whose last 32 - BITS bits are zero; BITS is 24 to 30
    UNITS   := ids and ranges: 1-247, or 1,3,10-20
    URL     := tcp://HOST[:PORT], rtu+tcp://HOST[:PORT] or serial:///dev/...

`192.0.2.16/28` may be unit 28 or a network, so it is refused: `192.0.2.16/28-28` is the unit, `192.0.2.16/28/1-247` the
network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import ConfigError

EVERY_UNIT: Final = "1-247"
_PORT: Final = 502
_MOST_UNIT: Final = 255
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,30}\Z")
_WANT: Final = "want HOST[:PORT][/UNITS], such as 192.0.2.10/1-247, or 192.0.2.0/28/1-10 for a network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked. urls: one a connection, in order. units: rising."""

    urls: tuple[str, ...]
    units: tuple[int, ...]


def parse_units(text: str) -> tuple[int, ...]:
    """Return the unit ids that a text names, rising, each once. Raises ConfigError."""
    units: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= _MOST_UNIT:
            raise ConfigError(f"units: got {part!r}, want ids of 0..{_MOST_UNIT}, such as 1-247 or 1,3,10-20")
        units.update(range(first, last + 1))
    return tuple(sorted(units))


def parse_target(text: str, units: str | None = None) -> Target:
    """Return what a line of text says to ask. units: in its stead, where they are given apart. Raises ConfigError."""
    if "://" in text:
        return Target(urls=(_url(text),), units=parse_units(units or EVERY_UNIT))
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise ConfigError(f"target: got {text!r}, {_WANT}")
    if len(parts) == 2 and units is not None and _network(parts[0], parts[1]) is None:
        raise ConfigError(f"target: got units twice, {parts[1]!r} and --units {units!r}, want them once")
    if len(parts) == 3 or (len(parts) == 2 and units is not None):
        bits, _, port = parts[1].partition(":")
        network = _network(parts[0], bits)
        if network is None or (len(parts) == 3 and units is not None):
            raise ConfigError(f"target: got {text!r}, {_WANT}; BITS is 24..30, and the address the network's first")
        hosts = [str(host) for host in network.hosts()]
        found = parse_units(units or parts[2])
        return Target(
            urls=tuple(f"tcp://{_host_port(f'{host}:{port}' if port else host)}" for host in hosts), units=found
        )
    if len(parts) == 2 and _network(parts[0].partition(":")[0], parts[1]) is not None:
        raise ConfigError(
            f"target: got {text!r}, which may be a unit or a network: want {parts[0]}/{parts[1]}-{parts[1]} for the "
            f"unit, or {text}/{EVERY_UNIT} for the network"
        )
    said = units or (parts[1] if len(parts) == 2 else EVERY_UNIT)
    return Target(urls=(f"tcp://{_host_port(parts[0])}",), units=parse_units(said))


def _network(address: str, bits: str) -> ipaddress.IPv4Network | None:
    """Return the network that this is the first address of; None where it is none that is scanned."""
    if not re.fullmatch(r"2[4-9]|30", bits):
        return None
    try:
        return ipaddress.IPv4Network(f"{address}/{bits}")
    except ValueError:
        return None


def _url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme in {"tcp", "rtu+tcp"}:
        return f"{scheme}://{_host_port(rest)}"
    if scheme != "serial":
        raise ConfigError(f"target: got {text!r}, want tcp://, rtu+tcp:// or serial:///dev/...")
    return text


def _host_port(text: str) -> str:
    host, colon, port = text.partition(":")
    if not _HOST.match(host) or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536)):
        raise ConfigError(f"target: got {text!r}, {_WANT}")
    return f"{host}:{port or _PORT}"
