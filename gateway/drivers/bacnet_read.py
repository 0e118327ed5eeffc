"""Reads the points of one BACnet device: many properties a request, or one, as the device allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.codec import bacnet_apdu as apdu
from gateway.codec.bacnet_apdu import Refusal
from gateway.codec.bacnet_requests import read_multiple, read_multiple_request, read_property
from gateway.codec.bacnet_tags import Plain
from gateway.drivers.bacnet_app import NoAnswerError, RefusedError
from gateway.drivers.bacnet_station import Station
from gateway.drivers.bacnet_values import (
    RELIABILITY,
    STATUS_FLAGS,
    UNITS,
    UNKNOWN_OBJECT,
    UNKNOWN_PROPERTY,
    BacnetPoint,
    Maths,
    Reading,
    Said,
    bad,
    maths_of,
    reading,
    units_of,
    words_of,
)
from gateway.errors import DeviceError

Piece = tuple[int, tuple[int, ...]]
"""An object, and what is wanted of it."""

MOST_PROPERTIES: Final = 60
"""Properties a request: 20 values with their flags and their reliability. More gains nothing."""
_OBJECT_IDENTIFIER: Final = 75
_UNRECOGNIZED_SERVICE: Final = (apdu.REJECT, 9)
_LEARNT_S: Final = 3600.0
_MOST_MADE: Final = 1000
# Bytes of an answer: its head, an object in it, and a property with a value, at most.
_HEAD, _OBJECT = 4, 7
_SIZES: Final = {STATUS_FLAGS: 7, RELIABILITY: 7, UNITS: 7, _OBJECT_IDENTIFIER: 9}
_SIZE, _TEXT_SIZE = 13, 80


@dataclass(slots=True)
class _Slot:
    """What we know of one point. flags, reliability: it has them. maths: None until its unit is known."""

    point: BacnetPoint
    flags: bool = True
    reliability: bool = True
    maths: Maths | str | None = None

    @property
    def wanted(self) -> Iterator[int]:
        yield self.point.property_id
        if self.flags:
            yield STATUS_FLAGS
        if self.reliability:
            yield RELIABILITY
        if self.maths is None:
            yield UNITS


class Reader:
    """Reads all points of a device. What it learns of the objects holds until the device restarts; all, for an hour.

    clock: UTC in nanoseconds. t_ns: when the device's latest answer came.
    """

    def __init__(
        self, station: Station, points: Sequence[BacnetPoint], clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.t_ns = 0
        self._station = station
        self._points = tuple(points)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._said: dict[tuple[int, int], Said] = {}
        self._spoke = False
        self._plan: list[list[Piece]] | None = None
        self._made: dict[tuple[Piece, ...], bytes] = {}
        self._forget_points()
        self._forget_limits(0.0)

    def _forget_points(self) -> None:
        """Learn anew what the objects have: the device may have been configured since."""
        self._slots = [_Slot(point, maths=None if point.has_units else maths_of(point)) for point in self._points]
        self._plan = None
        self._restarts = self._station.restarts

    def _forget_limits(self, now: float) -> None:
        """Learn anew what the device can take."""
        self._most = MOST_PROPERTIES
        self._multiple = True
        self._alone: set[int] = set()
        self._plan = None
        self._max_apdu = self._station.max_apdu
        self._learnt_until = now + _LEARNT_S

    async def read(self) -> list[Reading]:
        """Return what each point holds now. Raises DeviceError when the device said nothing at all."""
        async with self._lock:
            await self._station.ready()
            now = asyncio.get_running_loop().time()
            if self._max_apdu != self._station.max_apdu or now > self._learnt_until:
                self._forget_limits(now)
                self._forget_points()
            if self._restarts != self._station.restarts:
                self._forget_points()
            self._said.clear()
            self._spoke = False
            if self._plan is None:
                self._plan = list(self._chunks(self._pieces(), min(self._station.max_apdu, apdu.MOST_APDU)))
            await self._ask_all(self._plan)
            return [self._reading(slot) for slot in self._slots]

    async def _ask_all(self, plan: Sequence[list[Piece]]) -> None:
        """Ask for everything; after a silence, for no more."""
        why: DeviceError | None = None
        for chunk in plan:
            if not isinstance(why, NoAnswerError):
                try:
                    await self._ask(chunk)
                except DeviceError as e:
                    why = e
            self._fill(chunk, str(why) if why else "not in the answer")
            self._check_device()
        if why and not self._spoke:
            raise why

    async def learn(self) -> None:
        """Learn the units of all points, if they are not known. Raises DeviceError."""
        await self._station.ready()
        if self._restarts != self._station.restarts or any(slot.maths is None for slot in self._slots):
            await self.read()

    def told(self, place: int, values: Sequence[apdu.Result]) -> Reading | None:
        """Return what a notification says of a point; None where it is not about it, or cannot be understood yet."""
        slot = self._slots[place]
        said = {value.property_id: value.value for value in values}
        if slot.point.property_id not in said or slot.maths is None:
            return None
        if isinstance(slot.maths, str):
            return bad(slot.maths)
        return reading(slot.point, slot.maths, said[slot.point.property_id], said.get(STATUS_FLAGS), None)

    def _pieces(self) -> list[Piece]:
        """Return what to ask for, object by object: the Device object first, as the address may be another's by now."""
        wanted: dict[int, dict[int, None]] = {self._station.device_id: {_OBJECT_IDENTIFIER: None}}
        for slot in self._slots:
            wanted.setdefault(slot.point.object_id, {}).update(dict.fromkeys(slot.wanted))
        return [(about, tuple(properties)) for about, properties in wanted.items()]

    def _chunks(self, pieces: Sequence[Piece], max_apdu: int) -> Iterator[list[Piece]]:
        """Yield pieces that fit one request and, without segmentation, one answer."""
        chunk: list[Piece] = []
        count, size = 0, _HEAD
        texts = {slot.point.object_id for slot in self._slots if slot.point.store[0] == "s"}
        for about, properties in pieces:
            usual = _TEXT_SIZE if about in texts else _SIZE
            more = _OBJECT + sum(_SIZES.get(each, usual) for each in properties)
            alone = about in self._alone or (len(chunk) == 1 and chunk[0][0] in self._alone)
            if chunk and (alone or count + len(properties) > self._most or size + more > max_apdu):
                yield chunk
                chunk, count, size = [], 0, _HEAD
            chunk.append((about, properties))
            count += len(properties)
            size += more
        if chunk:
            yield chunk

    async def _ask(self, chunk: list[Piece]) -> bool:
        """Ask for all of these at once; where the device refuses that, in halves, and in the end one by one.

        Return whether it was answered at once.
        """
        if not self._multiple or (len(chunk) == 1 and chunk[0][0] in self._alone):
            await self._ask_each(chunk)
            return False
        try:
            key = tuple(chunk)
            wanted = self._made.get(key)
            if wanted is None:
                if len(self._made) >= _MOST_MADE:
                    self._made.clear()
                wanted = self._made[key] = read_multiple(chunk)
            request = wanted
            body = await self._request(lambda invoke: read_multiple_request(invoke, request), apdu.READ_MULTIPLE)
        except RefusedError as e:
            if (e.kind, e.code) == _UNRECOGNIZED_SERVICE:
                self._multiple = False
            elif len(chunk) > 1:
                half = len(chunk) // 2
                first, second = await self._ask(chunk[:half]), await self._ask(chunk[half:])
                if first and second:  # whatever it calls it, it was too much at once
                    self._most = min(self._most, sum(len(properties) for _, properties in chunk[half:]))
                    self._plan = None
                return False
            self._alone.add(chunk[0][0])
            self._plan = None
            await self._ask_each(chunk)
            return False
        try:
            results = apdu.read_multiple_ack(body)
        except ValueError as e:
            self._fill(chunk, f"malformed answer: {e}")
            return True
        said = self._said
        for about, property_id, _, value in results:
            said[about, property_id] = value
        return True

    async def _request(self, build: Callable[[int], bytes], service: int) -> bytes:
        try:
            body = await self._station.ask(build, service)
        except RefusedError:
            self._spoke, self.t_ns = True, self._clock()
            raise
        self._spoke, self.t_ns = True, self._clock()
        return body

    async def _ask_each(self, chunk: list[Piece]) -> None:
        for about, properties in chunk:
            for each in properties:
                self._said[about, each] = await self._ask_one(about, each)

    async def _ask_one(self, about: int, property_id: int) -> Said:
        try:
            body = await self._request(lambda invoke: read_property(invoke, about, property_id), apdu.READ_PROPERTY)
            result = apdu.read_ack(body)
        except RefusedError as e:
            return Refusal(0, e.code) if e.kind == apdu.ERROR else str(e)
        except ValueError as e:
            return f"malformed answer: {e}"
        return result.value if (result.object_id, result.property_id) == (about, property_id) else "another's answer"

    def _fill(self, chunk: list[Piece], why: str) -> None:
        for about, properties in chunk:
            for each in properties:
                self._said.setdefault((about, each), why)

    def _check_device(self) -> None:
        """Raise DeviceError where another device answers at this address: its values are not ours."""
        said = self._said[self._station.device_id, _OBJECT_IDENTIFIER]
        wrong = isinstance(said, Plain) and said.content != self._station.device_id.to_bytes(4, "big")
        if wrong or (isinstance(said, Refusal) and said.code == UNKNOWN_OBJECT):
            where = self._station.where
            self._station.lose()
            raise DeviceError(f"{where} is not device {self._station.instance}")

    def _reading(self, slot: _Slot) -> Reading:
        """Return what was said of a point, and learn what its object has not."""
        about = slot.point.object_id
        said = self._said[about, slot.point.property_id]
        if not isinstance(said, Plain):
            return bad(words_of(said))
        if slot.maths is None:
            units = self._said[about, UNITS]
            if not isinstance(units, Plain) and not (isinstance(units, Refusal) and units.code == UNKNOWN_PROPERTY):
                return bad(f"units: {words_of(units)}")
            slot.maths = units_of(slot.point, units)
            self._plan = None
        flags = self._said[about, STATUS_FLAGS] if slot.flags else None
        if isinstance(flags, Refusal) and flags.code == UNKNOWN_PROPERTY:
            slot.flags, flags, self._plan = False, None, None
        reliability = self._said[about, RELIABILITY] if slot.reliability else None
        if isinstance(reliability, Refusal) and reliability.code == UNKNOWN_PROPERTY:
            slot.reliability, self._plan = False, None
        if isinstance(slot.maths, str):
            return bad(slot.maths)
        return reading(slot.point, slot.maths, said, flags, reliability if isinstance(reliability, Plain) else None)
