"""What every driver of a field protocol is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.model import Row, Sample, Schema


class Poll(NamedTuple):
    """One reading of a whole device. A tuple, since one is made for each poll, and costs half of a frozen class.

    samples: one per COUNTER point, in the order of the points; empty unless they were asked for.
    """

    row: Row
    samples: tuple[Sample, ...] = ()


class Driver(Protocol):
    """One field device that is only ever read.

    schema: one column a point, in the order of the configuration.
    """

    schema: Schema

    async def poll(self, *, samples: bool) -> Poll:
        """Return a reading of every point, taken now.

        What could not be read is BAD, with the device's own words in the status; never an old value.
        Raises DeviceError when nothing at all answered, and nothing else for whatever a device does.
        """

    async def close(self) -> None:
        """Give up the connection; may be called twice."""
