"""Frames that an agent signs itself: made, verified, read.

Normative form: docs/wire.md, section 3.
"""

import hashlib
import hmac
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.errors import TrustError
from gateway.model import Quality

MAX_FRAME: Final = 1024
MAC_BYTES: Final = 32
KEY_BYTES: Final = 32
AGENT: Final = re.compile(rb"[a-z0-9][a-z0-9-]{0,31}\Z")
"""What an agent may be called: a level of a topic, the name of a file."""

_START: Final = b"WSAF\x01"
_CLOCK_SET, _HAS_ENERGY = 1, 2
_HEAD: Final = struct.Struct(">5sBB")
_BODY: Final = struct.Struct(">8sIQQB")
_POINT: Final = struct.Struct(">BIibB")
_MIN_FRAME: Final = _HEAD.size + 1 + _BODY.size + MAC_BYTES
_MOST_MS: Final = (2**63 - 1) // 1_000_000
_MOST_EXPONENT: Final = 12


class AgentPoint(NamedTuple):
    """One value in a frame: mantissa * 10 ** exponent, that long before the frame's time."""

    number: int
    offset_ms: int
    mantissa: int
    exponent: int
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFrame:
    """What one frame says. raw: its bytes, HMAC included.

    time_ms: UTC when clock_set; else since the agent started, and good for differences alone.
    energy: the register as the agent read it, in its own steps; None where it has none, or could not read it.
    """

    raw: bytes
    agent: str
    boot: bytes
    sequence: int
    clock_set: bool
    time_ms: int
    energy: int | None
    points: tuple[AgentPoint, ...]

    @property
    def time_ns(self) -> int:
        """Its time in nanoseconds."""
        return self.time_ms * 1_000_000


def pack_frame(
    *,
    agent: str,
    boot: bytes,
    sequence: int,
    time_ms: int,
    energy: int | None,
    points: Sequence[AgentPoint] = (),
    clock_set: bool = True,
    key: bytes,
) -> bytes:
    """Return a frame as an agent makes it. Raises ValueError for what no frame can say."""
    flags = (_CLOCK_SET if clock_set else 0) | (0 if energy is None else _HAS_ENERGY)
    name = agent.encode()
    try:
        if len(boot) != 8:
            raise ValueError(f"boot: got {len(boot)} bytes, want 8")
        head = _HEAD.pack(_START, flags, len(name)) + name
        head += _BODY.pack(boot, sequence, time_ms, energy or 0, len(points))
        signed = head + b"".join([_POINT.pack(*point) for point in points])
        raw = signed + _mac(signed, key)
        parse_frame(raw)
    except (struct.error, TrustError) as e:
        raise ValueError(str(e)) from e
    return raw


def verify_frame(raw: bytes, key: bytes) -> AgentFrame:
    """Return what a frame says, once its HMAC is found to be by this key. Raises TrustError."""
    if not _MIN_FRAME <= len(raw) <= MAX_FRAME:
        raise TrustError(f"agent frame: got {len(raw)} bytes, want {_MIN_FRAME}..{MAX_FRAME}")
    if not hmac.compare_digest(_mac(raw[:-MAC_BYTES], key), raw[-MAC_BYTES:]):
        raise TrustError("agent frame: the HMAC is not by this agent's key")
    return parse_frame(raw)


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, signed, hashlib.sha256)


def is_frame(raw: bytes) -> bool:
    """Return whether these bytes claim to be a frame; no register is as long."""
    return len(raw) >= _MIN_FRAME and raw.startswith(_START)


def parse_frame(raw: bytes) -> AgentFrame:
    """Return what a frame says; its HMAC is not looked at. Raises TrustError for anything that is not one."""
    if not _MIN_FRAME <= len(raw) <= MAX_FRAME:
        raise TrustError(f"agent frame: got {len(raw)} bytes, want {_MIN_FRAME}..{MAX_FRAME}")
    start, flags, length = _HEAD.unpack_from(raw)
    if start != _START or flags & ~(_CLOCK_SET | _HAS_ENERGY):
        raise TrustError(f"agent frame: got the start {start.hex()} with flags {flags:#04x}, want one of version 1")
    name = raw[_HEAD.size : _HEAD.size + length]
    at = _HEAD.size + length
    if not AGENT.match(name) or at + _BODY.size > len(raw):
        raise TrustError(f"agent frame: id: got {name[:40]!r}, want 1..32 lower-case letters, digits and -")
    boot, sequence, time_ms, energy, count = _BODY.unpack_from(raw, at)
    at += _BODY.size
    if len(raw) != at + count * _POINT.size + MAC_BYTES:
        raise TrustError(f"agent frame: got {len(raw)} bytes, want {at + count * _POINT.size + MAC_BYTES}")
    if sequence == 0 or time_ms > _MOST_MS:
        raise TrustError(f"agent frame: got sequence {sequence} at {time_ms} ms, want one from 1, before the year 2262")
    if energy and not flags & _HAS_ENERGY:
        raise TrustError(f"agent frame: got an energy register of {energy} where the flags say there is none")
    return AgentFrame(
        raw=raw,
        agent=name.decode(),
        boot=boot,
        sequence=sequence,
        clock_set=bool(flags & _CLOCK_SET),
        time_ms=time_ms,
        energy=energy if flags & _HAS_ENERGY else None,
        points=tuple(_points(raw[at:-MAC_BYTES], time_ms)),
    )


def _points(packed: bytes, time_ms: int) -> Iterator[AgentPoint]:
    """Yield the points: in order of their time, and at one time of their number, so that none stands twice."""
    last = (-_MOST_MS, -1)
    for number, offset_ms, mantissa, exponent, quality in _POINT.iter_unpack(packed):
        place = (-offset_ms, number)
        if place <= last or offset_ms > time_ms:
            raise TrustError(f"agent frame: point {number} at -{offset_ms} ms stands where it cannot")
        if quality > Quality.BAD or not -_MOST_EXPONENT <= exponent <= _MOST_EXPONENT:
            raise TrustError(f"agent frame: point {number}: got quality {quality} and exponent {exponent}")
        if quality == Quality.BAD and (mantissa or exponent):
            raise TrustError(f"agent frame: point {number}: got a value that is BAD, want none")
        last = place
        yield AgentPoint(number, offset_ms, mantissa, exponent, Quality(quality))
