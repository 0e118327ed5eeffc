"""The BACnet/IP driver: one device, read whole by polls, and followed by change of value."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.drivers.bacnet_app import Application, address_of
from gateway.drivers.bacnet_cov import Subscriptions
from gateway.drivers.bacnet_read import Reader
from gateway.drivers.bacnet_station import Station
from gateway.drivers.bacnet_values import BacnetPoint, Reading, maths_of, object_id_of, property_id_of
from gateway.drivers.driver import Poll, Tell
from gateway.errors import ConfigError, DeviceError
from gateway.model import Column, Kind, Quality, Row, Sample, Schema

__all__ = [
    "MOST_INSTANCE",
    "Application",
    "BacnetDriver",
    "BacnetPoint",
    "address_of",
    "object_id_of",
    "property_id_of",
]

MOST_INSTANCE: Final = 4_194_302
"""The instance after it means any device."""
_MOST_STATUS: Final = 400


class BacnetDriver:
    """A BACnet device. It can only read: see `gateway.codec.bacnet_requests` for all that can be sent.

    app: shared by all devices. instance: the device's; address: where it is, when it cannot be found by it.
    timeout_s: for each request, and for the search. at_once: requests under way to it. lifetime_s, soonest_s: see
    `Subscriptions`. clock: UTC in nanoseconds. Raises ConfigError for points that cannot be read.
    """

    def __init__(
        self,
        *,
        name: str,
        points: Sequence[BacnetPoint],
        app: Application,
        instance: int,
        address: Any = None,
        timeout_s: float = 1.0,
        at_once: int = 1,
        lifetime_s: float = 300.0,
        soonest_s: float = 5.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        if not points:
            raise ConfigError(f"device {name}: got no points, want one or more")
        for point in points:
            maths_of(point)
        self.schema = Schema(
            device=name, columns=tuple(Column(name=p.name, unit=p.unit, store=p.store) for p in points)
        )
        self._name = name
        self._points = tuple(points)
        self._counters = [i for i, point in enumerate(self._points) if point.kind is Kind.COUNTER]
        self._station = Station(app, instance, address=address, timeout_s=timeout_s, at_once=at_once)
        self._reader = Reader(self._station, self._points, clock)
        self._subscriptions = Subscriptions(
            station=self._station,
            reader=self._reader,
            schema=self.schema,
            points=self._points,
            lifetime_s=lifetime_s,
            soonest_s=soonest_s,
            clock=clock,
        )
        self._closed = False

    async def poll(self, *, samples: bool) -> Poll:
        """Return a reading of every point: see `Driver.poll`."""
        try:
            readings = await self._reader.read()
        except DeviceError as e:
            raise DeviceError(f"{self._name}: {e}") from e
        t_ns = self._reader.t_ns
        qualities = tuple(reading.quality for reading in readings)
        row = Row(
            schema=self.schema,
            source_time_ns=t_ns,
            values=tuple(reading.value for reading in readings),
            qualities=qualities if any(qualities) else None,
            status=self._status(readings) if any(qualities) else "",
        )
        if not samples:
            return Poll(row)
        return Poll(row, tuple(_sample(self._points[i].name, readings[i], t_ns) for i in self._counters))

    async def follow(self, tell: Tell) -> None:
        """Tell changes of value: see `Follower.follow`."""
        await self._subscriptions.run(tell)

    async def close(self) -> None:
        """Leave the application; the last device closes its socket."""
        if not self._closed:
            self._closed = True
            await self._station.close()

    def _status(self, readings: Sequence[Reading]) -> str:
        """Say in the device's words which points are not good, those of one reason together."""
        names: dict[str, list[str]] = {}
        for point, reading in zip(self._points, readings, strict=True):
            if reading.quality is not Quality.GOOD:
                names.setdefault(reading.status, []).append(point.name)
        text = "; ".join(f"{', '.join(found)}: {why}" for why, found in names.items())
        return text if len(text) <= _MOST_STATUS else text[: _MOST_STATUS - 3] + "..."


def _sample(name: str, reading: Reading, t_ns: int) -> Sample:
    return Sample(
        point=name,
        source_time_ns=t_ns,
        raw=reading.raw if reading.exact is not None else b"",
        value=reading.exact,
        quality=reading.quality,
        status=reading.status,
    )
