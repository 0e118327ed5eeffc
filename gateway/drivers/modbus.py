"""The Modbus driver: one device, read in blocks; a block that the device refuses is read in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from gateway.codec.planner import Limits
from gateway.codec.registers import Decoder, Qualities, exact, raw_of, store_of
from gateway.drivers.driver import Poll
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_parts import Part, Parts
from gateway.drivers.modbus_pdu import OwedError, RefusedError, SilentError, UnreachableError
from gateway.errors import ConfigError, DeviceError
from gateway.model import Column, Kind, Point, Quality, Row, Sample, Schema

__all__ = ["Bus", "ModbusDriver"]

# "Illegal Data Address" and "Illegal Data Value": what devices answer to a block that holds a register they
# do not have, or that is longer than they like.
_SHRINKABLE: Final = frozenset({0x02, 0x03})
# "Gateway ..." exceptions: a gateway speaks, the device behind it does not.
_NOT_THE_DEVICE: Final = frozenset({0x0A, 0x0B})
# The most refusals that a poll puts up with before it leaves the rest for the next one.
_MAX_REFUSALS: Final = 32
# After so many requests without a reply a device is not asked for the rest of its blocks.
_MAX_SILENCES: Final = 2
# How much sooner than else what was learnt is rechecked after a reconnection: it may be another device.
_SOONER: Final = 10
_MAX_STATUS: Final = 400
_NO_VALUE: Final = "no value"


@dataclass(slots=True)
class _Round:
    """What one poll has seen so far.

    t_ns: when the last answer came. spoke: the device itself answered something, be it an exception.
    parts: a block can be tried in parts. why: the first fault. over: why no more is asked.
    """

    t_ns: int = 0
    spoke: bool = False
    parts: bool = False
    refusals: int = 0
    silences: int = 0
    why: str = ""
    over: str = ""


class ModbusDriver:
    """A Modbus device. It can only read: all it sends is made of `Request`, which knows no other function.

    bus: may be shared with other devices. clock: UTC in nanoseconds. One poll at a time.
    recheck_s: how long the device is not asked again for what it refused, when it answers all else.
    Raises ConfigError where the points cannot be read within the limits.
    """

    def __init__(
        self,
        *,
        name: str,
        points: Sequence[Point],
        bus: Bus,
        unit_id: int,
        limits: Limits | None = None,
        clock: Callable[[], int] = time.time_ns,
        recheck_s: float = 600.0,
    ) -> None:
        if not points:
            raise ConfigError(f"device {name}: got no points, want one or more")
        if bus.is_rtu and not 1 <= unit_id <= 247:
            raise ConfigError(f"device {name}: unit_id: got {unit_id}, want 1..247 on a serial line")
        self.schema = Schema(
            device=name, columns=tuple(Column(name=p.name, unit=p.unit, store=store_of(p)) for p in points)
        )
        self._name = name
        self._points = tuple(points)
        self._index = {point.name: i for i, point in enumerate(self._points)}
        self._counters = [i for i, point in enumerate(self._points) if point.kind is Kind.COUNTER]
        self._bus = bus
        self._limits = limits or Limits()
        self._make = Parts(unit_id, self._limits)
        self._clock = clock
        self._recheck_s = recheck_s
        self._use(self._make.planned(self._points))
        self._learnt_at: float | None = None
        self._connects = 0
        self._closed = False
        bus.join()

    async def poll(self, *, samples: bool) -> Poll:
        """Return a reading of every point: see `Driver.poll`."""
        if self._learnt_at is not None:
            self._recheck(self._learnt_at)
        current = _Round()
        for part in self._ordered():
            await self._ask(part, current)
        following = await self._read_parts(current) if current.parts else None
        try:
            if not current.spoke:
                raise DeviceError(f"{self._name}: {current.why}")
            return self._reading(current, samples=samples)
        finally:
            if following is not None:
                self._use(following)

    async def close(self) -> None:
        """Leave the bus."""
        if not self._closed:
            self._closed = True
            await self._bus.leave()

    def _ordered(self) -> list[Part]:
        """Return what to ask for, in which order: a device that wants one gets it.

        Else what was silent comes last, so that it cannot starve the rest.
        """
        if self._limits.keep_order or len(self._parts) == 1:
            return self._parts
        return sorted(self._parts, key=attrgetter("silent"))

    def _use(self, parts: list[Part]) -> None:
        """Read the device by these blocks from now on."""
        self._parts = parts
        self._decoder = Decoder(self._points, [part.block for part in parts])

    def _recheck(self, learnt_at: float) -> None:
        """Go back to the plan as it was made, if what was learnt since is old."""
        age_s = asyncio.get_running_loop().time() - learnt_at
        reconnected = self._bus.connects != self._connects
        if age_s > (self._recheck_s / _SOONER if reconnected else self._recheck_s):
            self._use(self._make.planned(self._points))
            self._learnt_at = None

    async def _ask(self, part: Part, current: _Round) -> None:
        """Read one block; whatever happens, the part says it."""
        part.reply = None
        part.refused = part.owed = False
        if part.absent:
            return
        if current.over:
            part.fault = f"not asked: {current.over}"
            return
        try:
            part.reply = await self._bus.read(part.request, part.fences)
        except DeviceError as e:
            self._note(part, e, current)
            return
        part.fault = ""
        current.t_ns = self._clock()
        current.spoke = True
        part.silent = False

    def _note(self, part: Part, error: DeviceError, current: _Round) -> None:
        """Draw the consequences of a block that failed."""
        part.fault = str(error)
        current.why = current.why or part.fault
        part.owed = isinstance(error, OwedError)
        if part.owed:
            current.parts = True
            return
        part.silent = isinstance(error, SilentError)
        if isinstance(error, RefusedError):
            part.silent = error.code in _NOT_THE_DEVICE
            part.refused = error.code in _SHRINKABLE
            current.refusals += 1
            if not part.silent:
                current.t_ns = self._clock()
                current.spoke = True
        current.parts |= part.refused
        if part.silent:
            current.silences += 1
        if current.silences >= _MAX_SILENCES or isinstance(error, UnreachableError):
            current.over = part.fault

    async def _read_parts(self, current: _Round) -> list[Part]:
        """Read in parts what could not be read whole, and return the parts for the next poll."""
        now: list[Part] = []
        following: list[Part] = []
        current.refusals = 0
        if any(part.refused for part in self._parts):
            self._learnt_at = asyncio.get_running_loop().time()
            self._connects = self._bus.connects
        for part in self._ordered():
            leaves = await self._shrink(part, current)
            now += leaves
            following += self._make.merged(leaves) if part.refused else [part]
        self._use(now)
        if all(part.absent for part in now):
            # Then it is not a matter of registers: the device says so to everything, and gets another chance.
            return self._make.planned(self._points)
        return following

    async def _shrink(self, part: Part, current: _Round) -> list[Part]:
        """Halve a block that was refused or is owed until what remains is read, or is what the device does not have."""
        part.absent = part.absent or (part.refused and part.single)
        if part.single or not (part.refused or part.owed) or current.refusals >= _MAX_REFUSALS:
            return [part]
        leaves: list[Part] = []
        for block in part.block.split():
            half = self._make.of(block)
            await self._ask(half, current)
            leaves += await self._shrink(half, current)
        return leaves

    def _reading(self, current: _Round, *, samples: bool) -> Poll:
        """Decode what has come."""
        replies = [part.reply for part in self._parts]
        values, qualities = self._decoder.decode(replies)
        row = Row(
            schema=self.schema,
            source_time_ns=current.t_ns,
            values=values,
            qualities=qualities,
            status="" if qualities is None else self._status(replies, qualities),
        )
        if not samples:
            return Poll(row=row)
        return Poll(row=row, samples=tuple(self._sample(i, replies, current.t_ns) for i in self._counters))

    def _status(self, replies: Sequence[bytes | None], qualities: Qualities) -> str:
        """Say in the device's words which blocks failed, and which points hold no value."""
        words = [
            f"FC{part.request.function} {part.request.address}+{part.request.count}: {part.fault}"
            for part in self._parts
            if part.reply is None
        ]
        empty = [
            point.name
            for i, point in enumerate(self._points)
            if qualities[i] is Quality.BAD and self._decoder.raw(i, replies) is not None
        ]
        if empty:
            words.append(f"{_NO_VALUE}: {', '.join(empty)}")
        text = "; ".join(words)
        return text if len(text) <= _MAX_STATUS else text[: _MAX_STATUS - 3] + "..."

    def _sample(self, i: int, replies: Sequence[bytes | None], t_ns: int) -> Sample:
        """Return the exact value of a counter."""
        point = self._points[i]
        raw = self._decoder.raw(i, replies)
        value = None if raw is None else exact(point, raw, self._exponent(point, replies))
        if raw is None or value is None:
            status = self._parts[self._decoder.block_of(i)].fault or _NO_VALUE
            return Sample(
                point=point.name, source_time_ns=t_ns, raw=b"", value=None, quality=Quality.BAD, status=status
            )
        return Sample(point=point.name, source_time_ns=t_ns, raw=raw, value=value)

    def _exponent(self, point: Point, replies: Sequence[bytes | None]) -> int | None:
        """Return the raw scale factor of a point; None where it has none, or none that is valid."""
        if point.scale_point is None:
            return None
        j = self._index[point.scale_point]
        raw = self._decoder.raw(j, replies)
        number = None if raw is None else raw_of(self._points[j], raw)
        return None if number is None or number in self._points[j].sentinels else int(number)
