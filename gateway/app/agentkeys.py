"""Agents' keys, which the seal alone holds; and which of their frames it has seen."""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway.codec.agents import AGENT, KEY_BYTES, AgentFrame, is_frame, parse_frame, verify_frame
from gateway.errors import ConfigError, TrustError

MOST_AGENTS = 1000
MOST_EARLIER = 8
"""So many boots of an agent before its newest are remembered; none of them may come back."""
WINDOW = 64
"""A frame may come so many after its turn: a broker may mix up the order, and so may a refused batch."""

_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\Z")


def read_agent_keys(folder: Path | None, where: str) -> dict[str, bytes]:
    """Return the keys of a folder by the agent's id; none without a folder. Raises ConfigError.

    where: the configuration key that names the folder. Each file is `<id>.key`: 64 hexadecimal digits, mode 0600.
    """
    if folder is None:
        return {}
    try:
        paths = sorted(folder.glob("*.key"))
        if not folder.is_dir():
            raise ConfigError(f"{where}: got {folder}, want a folder of <agent id>.key")
        return {path.stem: _read(path, where) for path in paths}
    except OSError as e:
        raise ConfigError(f"{where}: got {folder}: {e.strerror or e}, want a readable folder of <agent id>.key") from e


def _read(path: Path, where: str) -> bytes:
    """Return one key; no message quotes it."""
    if not AGENT.match(path.stem.encode()):
        raise ConfigError(f"{where}: got {path.name}, want the id of an agent: 1..32 lower-case letters, digits and -")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise ConfigError(f"{where}: got {path} with mode {stat.S_IMODE(mode):04o}, want a file of mode 0600")
    text = path.read_bytes().strip().decode("ascii", "replace").lower()
    if not _KEY.match(text):
        raise ConfigError(f"{where}: got {path}, {len(text)} characters, want {2 * KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


class AgentHead(NamedTuple):
    """What is known of an agent: its newest boot, how far that got, and the boots before.

    window: of the newest WINDOW sequence numbers, those that were sealed; bit 0 is `sequence`.
    time_ms: its newest time that was not ahead of the seal's own, 0 for none.
    """

    boot: bytes
    sequence: int
    window: int = 1
    time_ms: int = 0
    earlier: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, boot: Any, sequence: Any, window: Any, time_ms: Any, earlier: Any) -> "AgentHead":
        """Return a head as it was packed; whether it fits is not known yet. Raises TypeError."""
        return cls(boot, sequence, window, time_ms, tuple(earlier))

    def fits(self) -> bool:
        """Return whether this can be a head; what stands on disk is not trusted to be one."""
        return (
            {type(boot) for boot in (self.boot, *self.earlier)} == {bytes}
            and all(type(count) is int and 0 <= count < 2**64 for count in self[1:4])
            and len(self.earlier) <= MOST_EARLIER
        )

    def after(self, frame: AgentFrame) -> "AgentHead":
        """Return the head once this frame is sealed. Raises TrustError for one that was sealed before, or is older."""
        time_ms = max(self.time_ms, frame.time_ms) if frame.clock_set else self.time_ms
        if frame.boot == self.boot:
            ahead = frame.sequence - self.sequence
            if ahead > 0:
                window = (self.window << min(ahead, WINDOW) | 1) % (1 << WINDOW)
                return self._replace(sequence=frame.sequence, window=window, time_ms=time_ms)
            if ahead <= -WINDOW or self.window >> -ahead & 1:
                raise TrustError(f"agent {frame.agent}: frame {frame.sequence} was sealed before, or comes too late")
            return self._replace(window=self.window | 1 << -ahead, time_ms=time_ms)
        if frame.boot in self.earlier:
            raise TrustError(f"agent {frame.agent}: boot {frame.boot.hex()} is over, and cannot come back")
        if frame.clock_set and frame.time_ms < self.time_ms:
            raise TrustError(f"agent {frame.agent}: boot {frame.boot.hex()} begins before the one before it")
        return AgentHead(frame.boot, frame.sequence, 1, time_ms, (*self.earlier, self.boot)[-MOST_EARLIER:])


def advanced(heads: Mapping[str, AgentHead], frames: list[AgentFrame]) -> dict[str, AgentHead]:
    """Return the heads of these frames' agents once they are sealed, in order. Raises TrustError for a replay."""
    found: dict[str, AgentHead] = {}
    for frame in frames:
        head = found.get(frame.agent, heads.get(frame.agent))
        if head is None and len(heads) >= MOST_AGENTS:
            raise TrustError(f"agent {frame.agent}: want at most {MOST_AGENTS} agents")
        first = AgentHead(frame.boot, frame.sequence, 1, frame.time_ms if frame.clock_set else 0)
        found[frame.agent] = first if head is None else head.after(frame)
    return found


def verified(body: Mapping[str, Any], keys: Mapping[str, bytes]) -> list[AgentFrame]:
    """Return the frames of a checked body, each by its agent's key: those of readings, or behind an interval's samples.

    An interval's frames may have been sealed before, as readings: that is no replay. Its sample must have a time that
    the frame says, if that has a clock. Raises TrustError.
    """
    for t_ns, raw, *_ in body.get("samples", ()):
        if is_frame(raw):
            frame = verify_frame(raw, _key_of(parse_frame(raw).agent, keys))
            times_ns = {frame.time_ns - 1_000_000 * offset_ms for _, offset_ms, *_ in frame.points} | {frame.time_ns}
            if frame.clock_set and t_ns not in times_ns:
                raise TrustError(f"agent {frame.agent}: got a sample of {t_ns} from a frame of {frame.time_ns}")
    frames = [verify_frame(raw, _key_of(body["agent"], keys)) for raw in body.get("frames", ())]
    for frame in frames:
        if frame.agent != body["agent"]:
            raise TrustError(f"readings: got a frame of agent {frame.agent!r}, want only those of {body['agent']!r}")
    return frames


def _key_of(agent: str, keys: Mapping[str, bytes]) -> bytes:
    key = keys.get(agent)
    if key is None:
        raise TrustError(f"agent {agent}: the seal has no key of it")
    return key
