"""Devices that misbehave: late, wrong, short, cut or silent replies, on purpose and repeatably."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields

from hil.plant.modbus import ILLEGAL_ADDRESS, Framing, Request, exception

SYNTAX = """\
  late-every=N:S       each Nth reply comes S seconds late, out of turn
  cap=N                more than N registers at once: exception 2
  busy=P               exception 6
  drop=P               no reply
  wrong-unit=P         another unit id            wrong-transaction=P  another transaction (TCP)
  wrong-function=P     another function code      wrong-crc=P          a bit error in the last byte
  wrong-length=P       a register less, or a byte count that lies
  close=P              the connection ends in the middle of the reply
  bytewise=P[:S]       byte by byte, S seconds apart (0.001)
  one-socket           a second connection is closed at once
  seed=N               of the probabilities P (0..1)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """How a port misbehaves. Probabilities are a reply."""

    late_every: int = 0
    late_s: float = 1.0
    cap: int = 0
    busy: float = 0.0
    drop: float = 0.0
    wrong_unit: float = 0.0
    wrong_transaction: float = 0.0
    wrong_function: float = 0.0
    wrong_length: float = 0.0
    wrong_crc: float = 0.0
    close: float = 0.0
    bytewise: float = 0.0
    byte_s: float = 0.001
    one_socket: bool = False
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Hostile:
        """Return what a comma-separated list says, e.g. `late-every=5:2.0,cap=50,drop=0.01`. Raises ValueError."""
        known = {field.name for field in fields(cls)} - {"late_s", "byte_s"}
        found: dict[str, float | int | bool] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = item.partition("=")
            key = name.replace("-", "_")
            if key not in known:
                raise ValueError(f"--hostile: got {name!r}, want one of {', '.join(sorted(known)).replace('_', '-')}")
            amount, _, seconds = value.partition(":")
            if seconds:
                found[{"late_every": "late_s", "bytewise": "byte_s"}[key]] = float(seconds)
            if key == "one_socket":
                found[key] = True
            elif key in {"late_every", "cap", "seed"}:
                found[key] = int(amount)
            else:
                found[key] = float(amount)
        return cls(**found)  # type: ignore[arg-type] # each key was given its own type above


class Mischief:
    """The misdeeds of one port, in the order of a seed."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile = hostile
        self._random = random.Random(hostile.seed)
        self._replies = 0

    def refusal(self, pdu: bytes) -> bytes | None:
        """Return the exception that stands in for an answer, if any."""
        if self._falls(self.hostile.busy):
            return exception(pdu[0], 6)
        if self.hostile.cap and pdu[0] in {3, 4} and len(pdu) == 5:
            (count,) = struct.unpack_from(">H", pdu, 3)
            if self.hostile.cap < count <= 125:
                return exception(pdu[0], ILLEGAL_ADDRESS)
        return None

    def spoil(self, request: Request, pdu: bytes, framing: Framing) -> bytes | None:
        """Return a reply's frame, perhaps not the right one; None for none at all."""
        wrong, unit = self.hostile, request.unit
        if self._falls(wrong.drop):
            return None
        if self._falls(wrong.wrong_unit):
            unit = unit % 247 + 1
        if self._falls(wrong.wrong_transaction):
            request = request._replace(transaction=(request.transaction + 1) & 0xFFFF)
        if self._falls(wrong.wrong_function):
            pdu = bytes((pdu[0] ^ 7,)) + pdu[1:]
        if self._falls(wrong.wrong_length):
            if len(pdu) > 4 and self._random.random() < 0.5:
                pdu = bytes((pdu[0], pdu[1] - 2)) + pdu[2:-2]
            else:
                pdu = bytes((pdu[0], (pdu[1] + 2) & 0xFF)) + pdu[2:]
        frame = framing.frame(request, unit, pdu)
        if self._falls(wrong.wrong_crc):
            frame = frame[:-1] + bytes((frame[-1] ^ 0x40,))
        return frame

    def delay_s(self) -> float:
        """Return how late the next reply comes."""
        self._replies += 1
        every = self.hostile.late_every
        return self.hostile.late_s if every and self._replies % every == 0 else 0.0

    def gap_s(self) -> float:
        """Return the pause between the bytes of the next reply; 0: all at once."""
        return self.hostile.byte_s if self._falls(self.hostile.bytewise) else 0.0

    def cuts(self) -> bool:
        """Return whether the connection ends in the middle of the next reply."""
        return self._falls(self.hostile.close)

    def _falls(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability


class Outlet:
    """Sends one connection's spoiled replies: each whole before the next begins, but late ones out of turn."""

    def __init__(self, mischief: Mischief, *, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._mischief, self._write, self._close = mischief, write, close
        self._queue: deque[tuple[bytes, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._late: set[asyncio.TimerHandle] = set()

    def send(self, request: Request, pdu: bytes, framing: Framing) -> None:
        """Send a reply as the mischief has it."""
        frame = self._mischief.spoil(request, pdu, framing)
        if frame is None:
            return
        if delay_s := self._mischief.delay_s():
            self._late = {handle for handle in self._late if handle.when() > asyncio.get_running_loop().time()}
            self._late.add(asyncio.get_running_loop().call_later(delay_s, self._enqueue, frame))
        else:
            self._enqueue(frame)

    def stop(self) -> None:
        """Send nothing any more."""
        for handle in (*self._late, *([self._timer] if self._timer else [])):
            handle.cancel()
        self._queue.clear()

    def _enqueue(self, frame: bytes) -> None:
        if self._mischief.cuts():
            self.stop()
            self._write(frame[: len(frame) // 2])
            self._close()
            return
        gap_s = self._mischief.gap_s()
        self._queue.extend([(frame[i : i + 1], gap_s) for i in range(len(frame))] if gap_s else [(frame, 0.0)])
        if self._timer is None:
            self._pump()

    def _pump(self) -> None:
        self._timer = None
        while self._queue:
            piece, gap_s = self._queue.popleft()
            self._write(piece)
            if gap_s:
                self._timer = asyncio.get_running_loop().call_later(gap_s, self._pump)
                return
