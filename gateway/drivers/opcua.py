"""The OPC UA driver: the nodes of one server, read whole at a poll, and followed by a subscription in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.drivers.driver import Poll, Tell
from gateway.drivers.opcua_binary import Cut
from gateway.drivers.opcua_connect import Access
from gateway.drivers.opcua_follow import Followed, Following
from gateway.drivers.opcua_session import Link, LostError
from gateway.drivers.opcua_values import Node, OpcuaPoint, Told
from gateway.errors import ConfigError, DeviceError
from gateway.model import Column, Kind, Quality, Row, Sample, Schema

__all__ = ["Access", "Following", "OpcuaDriver", "OpcuaPoint"]

_MOST_STATUS: Final = 400
_MOST_SAMPLE_STATUS: Final = 200


class OpcuaDriver:
    """An OPC UA server. It can only read: no other request leaves its `Wire`.

    clock: UTC in nanoseconds. warnings: what someone should know of its configuration, to be logged once.
    Raises ConfigError for points that make no sense.
    """

    def __init__(
        self,
        *,
        name: str,
        points: Sequence[OpcuaPoint],
        access: Access,
        following: Following | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        if not points:
            raise ConfigError(f"device {name}: got no points, want one or more")
        self.schema = Schema(
            device=name, columns=tuple(Column(name=p.name, unit=p.unit, store=p.store) for p in points)
        )
        self.warnings: tuple[str, ...] = (
            (f"device {name}: opcua.security is None: {access.url} is neither checked, signed nor encrypted",)
            if access.insecure
            else ()
        )
        self._name, self._clock = name, clock
        self._nodes = [Node(point) for point in points]
        self._counters = [i for i, point in enumerate(points) if point.kind is Kind.COUNTER]
        self._link = Link(access, self._nodes)
        self._followed = Followed(self.schema, self._nodes, self._link, following or Following(), clock)

    @property
    def connects(self) -> int:
        """How many sessions were opened so far."""
        return self._link.connects

    async def poll(self, *, samples: bool) -> Poll:
        """Return a reading of every point: see `Driver.poll`."""
        try:
            cuts = await self._read()
        except DeviceError as e:
            raise DeviceError(f"{self._name}: {e}") from e
        t_ns = self._clock()
        told = [self._told(i, cuts) for i in range(len(self._nodes))]
        row = Row(
            schema=self.schema,
            source_time_ns=t_ns,
            values=tuple([each.value for each in told]),
            qualities=tuple([each.quality for each in told]) if any(each.quality for each in told) else None,
            status=_shortened("; ".join([each.status for each in told if each.status]), _MOST_STATUS),
        )
        if not samples:
            return Poll(row=row)
        return Poll(row=row, samples=tuple([self._sample(i, told[i], cuts.get(i), t_ns) for i in self._counters]))

    async def follow(self, tell: Tell) -> None:
        """Tell changes by a subscription: see `Follower.follow`."""
        try:
            await self._followed.follow(tell)
        except DeviceError as e:
            raise DeviceError(f"{self._name}: {e}") from e

    async def close(self) -> None:
        """Close the session."""
        await self._link.close()

    async def _read(self) -> dict[int, tuple[Cut, bytes]]:
        """Read all nodes whose namespaces the server has; once more where the session turns out to be lost."""
        connects = self._link.connects
        while True:
            session = await self._link.session()
            try:
                await session.resolve()
                wanted = [i for i, place in enumerate(session.places) if place is not None]
                return dict(zip(wanted, await session.read(wanted), strict=True))
            except LostError:
                session.drop()
                if self._link.connects > connects:
                    raise

    def _told(self, i: int, cuts: dict[int, tuple[Cut, bytes]]) -> Told:
        node = self._nodes[i]
        if i in cuts:
            return node.tell(cuts[i][0])
        return Told(None, Quality.BAD, f"{node.point.name}: no namespace {node.uri} at the server")

    def _sample(self, i: int, told: Told, found: tuple[Cut, bytes] | None, t_ns: int) -> Sample:
        """Return the exact value of a counter; raw: the Variant as it came, with the byte that says its type."""
        point = self._nodes[i].point
        if found is None or told.quality is Quality.BAD:
            status = _shortened(told.status, _MOST_SAMPLE_STATUS)
            return Sample(
                point=point.name, source_time_ns=t_ns, raw=b"", value=None, quality=Quality.BAD, status=status
            )
        cut, raw = found
        try:
            value = self._nodes[i].exact(cut)
        except ValueError as e:
            status = _shortened(f"{point.name}: {e}", _MOST_SAMPLE_STATUS)
            return Sample(
                point=point.name, source_time_ns=t_ns, raw=b"", value=None, quality=Quality.BAD, status=status
            )
        status = _shortened(told.status, _MOST_SAMPLE_STATUS)
        return Sample(point=point.name, source_time_ns=t_ns, raw=raw, value=value, quality=told.quality, status=status)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
