"""Subscriptions to changes of value: made, renewed at half of their lifetime, and made anew after any doubt.

Unconfirmed notifications, and a confirming poll (the collector's): a confirmed one binds a transaction of a device that
may have few, is repeated when we are slow, and would need us to answer requests. A lost one is made good by the poll,
and by the notification that each renewal brings.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

from gateway.codec import bacnet_apdu as apdu
from gateway.codec.bacnet_requests import subscribe_cov, subscribe_cov_property
from gateway.drivers.bacnet_app import RefusedError
from gateway.drivers.bacnet_read import Reader
from gateway.drivers.bacnet_station import Station
from gateway.drivers.bacnet_values import PRESENT_VALUE, BacnetPoint, Reading
from gateway.drivers.driver import Tell
from gateway.errors import DeviceError
from gateway.model import Change, Quality, Schema

_SOONEST_S: Final = 5.0
_LONGEST_S: Final = 60.0
_UNRECOGNIZED_SERVICE: Final = (apdu.REJECT, 9)


def _service(point: BacnetPoint) -> int:
    """Return the service that subscribes to a point: the plain one knows the present value and its own increment."""
    plain = point.property_id == PRESENT_VALUE and point.cov_increment is None
    return apdu.SUBSCRIBE_COV if plain else apdu.SUBSCRIBE_COV_PROPERTY


class NoCovError(DeviceError):
    """Raised when a device takes no subscription at all."""


class Subscriptions:
    """The changes of one device.

    lifetime_s: of a subscription. soonest_s: how far two rounds of subscribing lie apart at least, as any workstation's
    Who-Is makes the device introduce itself; also how soon a lost device is looked for, doubling up to a minute.
    """

    def __init__(
        self,
        *,
        station: Station,
        reader: Reader,
        schema: Schema,
        points: Sequence[BacnetPoint],
        lifetime_s: float,
        soonest_s: float = _SOONEST_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._station = station
        self._reader = reader
        self._schema = schema
        self._points = tuple(points)
        self._lifetime_s = lifetime_s
        self._soonest_s = min(soonest_s, lifetime_s / 2)
        self._clock = clock
        # The same after a restart of ours: then a subscription replaces the one before it.
        self._process = zlib.crc32(schema.device.encode()) & 0x7FFFFFFF or 1
        self._columns: dict[int, list[int]] = {}
        for place, point in enumerate(self._points):
            self._columns.setdefault(point.object_id, []).append(place)
        self._told: dict[int, Reading] = {}
        self._tell: Tell | None = None
        self._proven = False

    async def run(self, tell: Tell) -> None:
        """See `Follower.follow`."""
        self._tell = tell
        self._station.hear = self._hear
        wait_s = self._soonest_s
        loop = asyncio.get_running_loop()
        try:
            while True:
                started = loop.time()
                try:
                    await self._reader.learn()
                    self._station.stirred.clear()  # that it was found again is no news
                    await self._subscribe_all()
                except NoCovError:
                    raise
                except DeviceError as e:
                    self._lost(str(e))
                    self._station.stirred.clear()
                    await self._stirred(loop.time() + wait_s, loop.time() + self._soonest_s)
                    wait_s = min(2 * wait_s, _LONGEST_S, self._lifetime_s / 2)
                    continue
                wait_s = self._soonest_s
                await self._stirred(started + self._lifetime_s / 2, started + self._soonest_s)
        finally:
            self._station.hear = None
            self._tell = None

    async def _stirred(self, renewal: float, soonest: float) -> None:
        """Wait until the renewal is due, or something happened; until soonest in any case."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(renewal):
                await self._station.stirred.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, soonest - loop.time()))

    async def _subscribe_all(self) -> None:
        """Subscribe to each point, anew or again. Raises NoCovError where the device never took one."""
        taken = 0
        why = ""
        unknown: set[int] = set()
        for point in self._points:
            service = _service(point)
            if service in unknown:
                continue
            try:
                await self._subscribe(point, service)
            except RefusedError as e:
                why = str(e)  # this one is polled only
                if (e.kind, e.code) == _UNRECOGNIZED_SERVICE:
                    unknown.add(service)
            else:
                taken += 1
        if taken:
            self._proven = True
        elif self._proven:
            raise DeviceError(f"no subscription is taken any more: {why}")
        else:
            raise NoCovError(f"no subscription is taken: {why}")

    async def _subscribe(self, point: BacnetPoint, service: int) -> None:
        """Subscribe to one point. Raises RefusedError where the device does not take it."""
        lifetime_s = max(1, round(self._lifetime_s))
        if service == apdu.SUBSCRIBE_COV:
            await self._station.ask(
                lambda invoke: subscribe_cov(invoke, self._process, point.object_id, lifetime_s),
                service,
                wants_body=False,
            )
            return
        await self._station.ask(
            lambda invoke: subscribe_cov_property(
                invoke,
                self._process,
                point.object_id,
                lifetime_s,
                property_id=point.property_id,
                increment=point.cov_increment,
            ),
            service,
            wants_body=False,
        )

    def _hear(self, told: apdu.Notification) -> None:
        """Tell what a notification says that is new."""
        if told.process != self._process or self._tell is None:
            return
        t_ns = self._clock()
        changes: list[Change] = []
        for place in self._columns.get(told.object_id, ()):
            reading = self._reader.told(place, told.values)
            if reading is None or self._told.get(place) == reading:
                continue
            self._told[place] = reading
            changes.append(self._change(place, t_ns, reading))
        if changes:
            self._tell(changes)

    def _lost(self, why: str) -> None:
        """Tell each column that was told that it is BAD, once."""
        if self._tell is None or not self._told:
            return
        t_ns = self._clock()
        gone = Reading(None, Quality.BAD, why[:200])
        changes = [self._change(place, t_ns, gone) for place in sorted(self._told)]
        self._told.clear()
        self._tell(changes)

    def _change(self, place: int, t_ns: int, reading: Reading) -> Change:
        return Change(
            schema=self._schema,
            column=place,
            source_time_ns=t_ns,
            value=reading.value,
            quality=reading.quality,
            status=reading.status,
        )
