"""What every driver of a field protocol is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from gateway.codec.agent_leaves import AgentSource
from gateway.codec.agents import AgentFrame
from gateway.model import Change, Row, Sample, Schema

Tell = Callable[[Sequence[Change]], None]
"""Takes changes, in the order in which they came; never waits, never raises."""

Hand = Callable[[AgentSource, AgentFrame], None]
"""Takes one frame that an agent signed itself; never waits, never raises."""


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


@runtime_checkable
class Follower(Driver, Protocol):
    """A device that tells its changes by itself; polls confirm what it told, and read its counters at boundaries."""

    async def follow(self, tell: Tell) -> None:
        """Tell each change of a value or a quality, until cancelled.

        Connects, and after any loss makes anew all that was lost, by itself and for ever. When the device is lost, each
        column that was told is told BAD once, with the reason. Raises DeviceError only where the device cannot do this
        at all: then it is polled alone.
        """


@runtime_checkable
class Courier(Follower, Protocol):
    """A device whose readings come as frames that it signed itself, and that go on byte for byte.

    What it tells as changes is only what no frame can say: that it is silent.
    """

    def hand_to(self, hand: Hand) -> None:
        """Hand each frame that arrives from now on to hand; to be called before `follow`."""


@runtime_checkable
class Cautioned(Protocol):
    """A driver that works as it was told to, and should not have been told so. warnings: why, "" never among them."""

    warnings: tuple[str, ...]
