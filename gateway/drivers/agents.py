"""ESP32 agents: each signs its own frames and sends them through a broker in the OT zone (docs/wire.md, section 3).

Frames go to the seal as they came; this driver has no key and checks no HMAC. What it looks into them for is polls,
and to say when an agent is silent.
"""

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from gateway.codec.agent_leaves import AgentSource, Told, stored, told
from gateway.codec.agents import AgentFrame, parse_frame
from gateway.drivers.driver import Hand, Poll, Tell
from gateway.errors import DeviceError, LinkError, TrustError
from gateway.model import Change, Quality, Row, Sample

TOPICS: Final = "wattseal/v1/agents/+/frames"
FRESH_S: Final = 60.0
"""A frame is fresh for so long while its agent's cadence is not known."""
LEAST_FRESH_S: Final = 2.0

_TOPIC: Final = re.compile(r"wattseal/v1/agents/([a-z0-9][a-z0-9-]{0,31})/frames\Z")
_LEAST_S, _MOST_S = 0.2, 10.0
_NS = 1_000_000_000


class Message(Protocol):
    """What a broker delivers."""

    @property
    def topic(self) -> str:
        """Where it was published."""

    @property
    def payload(self) -> bytes:
        """What."""


class Subscriber(Protocol):
    """A connection to a broker. Each call raises LinkError once it is lost."""

    async def subscribe(self, topic: str) -> None:
        """Return once the broker has granted it."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over messages as they arrive, for ever."""


Connect = Callable[[], AbstractAsyncContextManager[Subscriber]]
"""Makes a connection to enter; entering raises LinkError."""


class AgentBroker:
    """One connection to the agents' broker for all agents: whichever is followed keeps it, and another takes over.

    strays: messages on topics of agents that nobody follows. why: why there is no connection, "" while there is one.
    """

    def __init__(self, connect: Connect, *, chance: random.Random | None = None) -> None:
        self.strays = 0
        self.why = "the agents' broker was not reached yet"
        self._connect = connect
        self._drivers: dict[str, AgentDriver] = {}
        self._lead = asyncio.Lock()
        self._chance = chance or random.SystemRandom()

    def add(self, agent: str, driver: "AgentDriver") -> None:
        """Give this driver what comes from this agent."""
        self._drivers[agent] = driver

    async def keep(self) -> None:
        """Be connected, for ever; a lost broker is tried again after 0.1 to 10 s."""
        async with self._lead:
            now_s, wait_s = asyncio.get_running_loop().time, _LEAST_S
            while True:
                began_s = now_s()
                try:
                    await self._listen()
                except LinkError as e:
                    self.why = str(e)
                wait_s = _LEAST_S if now_s() - began_s > _MOST_S else min(2 * wait_s, _MOST_S)
                await asyncio.sleep(wait_s * self._chance.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        async with self._connect() as link:
            await link.subscribe(TOPICS)
            self.why = ""
            async for message in link:
                self.arrived(message.topic, message.payload)

    def arrived(self, topic: str, payload: bytes) -> None:
        """Give one message to the driver of its topic's agent."""
        match = _TOPIC.match(topic)
        driver = self._drivers.get(match[1]) if match else None
        if driver is None:
            self.strays += 1
        else:
            driver.arrived(payload)


class AgentDriver:
    """One agent. A poll gives its newest frame's values, with the frame's own time, while that is fresh.

    stale_s: how long a frame is fresh; 0: three times the agent's own cadence.
    clock: UTC in nanoseconds. mono: seconds that never go back.
    """

    def __init__(
        self,
        *,
        source: AgentSource,
        counters: frozenset[str],
        broker: AgentBroker,
        stale_s: float = 0.0,
        clock: Callable[[], int] = time.time_ns,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self.schema = source.schema
        self.refused = 0
        self._source, self._broker, self._stale_s = source, broker, stale_s
        self._counters = [place for place, column in enumerate(source.schema.columns) if column.name in counters]
        self._clock, self._mono = clock, mono
        self._hand: Hand | None = None
        self._newest: AgentFrame | None = None
        self._arrived_s = mono()
        self._arrived_ns = 0
        self._gaps_s: deque[float] = deque(maxlen=8)
        self._seen: deque[bytes] = deque(maxlen=16)
        self._complaint = ""
        self._is_heard = False
        broker.add(source.agent, self)

    # ---- what arrives

    def hand_to(self, hand: Hand) -> None:
        """Hand each frame that arrives from now on to hand."""
        self._hand = hand

    def arrived(self, payload: bytes) -> None:
        """Take one message: hand it on if it is a frame of this agent, and not one that was just here."""
        if payload in self._seen:
            return  # only to save the seal the trouble: it refuses each frame that it has seen
        try:
            frame = parse_frame(payload)
        except TrustError as e:
            self._refuse(str(e))
            return
        if frame.agent != self._source.agent:
            self._refuse(f"got a frame of agent {frame.agent!r} on its topic")
            return
        self._seen.append(payload)
        if self._hand is not None:
            self._hand(self._source, frame)
        self._take(frame)

    def _refuse(self, why: str) -> None:
        self.refused += 1
        self._complaint = f"; {self.refused} messages were no frames of it, the last: {why}"

    def _take(self, frame: AgentFrame) -> None:
        """Keep a frame if it is newer, as far as one can tell without a key; after a silence any is."""
        last = self._newest
        if last is not None and not self._silence():
            if last.boot == frame.boot and frame.sequence <= last.sequence:
                return
            if last.boot != frame.boot and frame.clock_set and last.clock_set and frame.time_ms < last.time_ms:
                return
        if last is not None and last.boot == frame.boot and frame.sequence > last.sequence:
            gap_s = (frame.time_ms - last.time_ms) / 1000 / (frame.sequence - last.sequence)
            if gap_s > 0:
                self._gaps_s.append(gap_s)
        self._newest, self._is_heard = frame, True
        self._arrived_s, self._arrived_ns = self._mono(), self._clock()

    # ---- how fresh it is

    @property
    def fresh_s(self) -> float:
        """How long a frame counts as fresh."""
        if self._stale_s:
            return self._stale_s
        return max(LEAST_FRESH_S, 3 * max(self._gaps_s)) if self._gaps_s else FRESH_S

    def _silence(self) -> str:
        """Say that nothing came for too long, "" while it did."""
        silent_s = self._mono() - self._arrived_s
        if self._newest is not None and silent_s <= self.fresh_s:
            return ""
        because = f" ({self._broker.why})" if self._broker.why else self._complaint
        return f"no frame for {silent_s:.0f} s{because}"

    def _fresh(self) -> AgentFrame:
        """Return the newest frame. Raises DeviceError where it is not fresh, or its clock is wrong."""
        if (why := self._silence()) or self._newest is None:
            raise DeviceError(f"agent {self._source.agent}: {why}")
        if self._newest.clock_set:
            behind_s = (self._clock() - self._newest.time_ns) / _NS
            if abs(behind_s) > self.fresh_s:
                what = f"{behind_s:.0f} s old" if behind_s > 0 else f"{-behind_s:.0f} s ahead of our clock"
                raise DeviceError(f"agent {self._source.agent}: its newest frame is {what}")
        return self._newest

    # ---- as a Driver and a Follower

    async def poll(self, *, samples: bool) -> Poll:
        """Return the newest frame's values; what is not in it is BAD. Raises DeviceError when it is not fresh.

        A counter's raw bytes are the whole frame, so that its HMAC stands beside the figure.
        """
        frame = self._fresh()
        found = {each.column: each for each in told(frame, self._source.columns)}
        absent = "not in the agent's newest frame"
        row = [found.get(place, Told(place, None, Quality.BAD, 0, absent)) for place in range(len(self.schema.columns))]
        columns = self._source.columns
        said = {f"{self.schema.columns[each.column].name}: {each.status}": None for each in row if each.status}
        return Poll(
            row=Row(
                schema=self.schema,
                source_time_ns=self._time_ns(frame),
                values=tuple(None if e.value is None else stored(e.value, columns[e.column]) for e in row),
                qualities=tuple(e.quality for e in row) if any(e.quality for e in row) else None,
                status="; ".join(said)[:400],
            ),
            samples=tuple(self._sample(frame, row[place]) for place in self._counters) if samples else (),
        )

    def _sample(self, frame: AgentFrame, each: Told) -> Sample:
        return Sample(
            point=self.schema.columns[each.column].name,
            source_time_ns=self._time_ns(frame) - each.offset_ms * 1_000_000,
            raw=b"" if each.value is None else frame.raw,
            value=each.value,
            quality=each.quality,
            status=each.status,
        )

    def _time_ns(self, frame: AgentFrame) -> int:
        """Return the frame's own time, or when it arrived where its agent did not know the time."""
        return frame.time_ns if frame.clock_set else self._arrived_ns

    async def follow(self, tell: Tell) -> None:
        """Hear the agent, for ever; tell each column BAD once when it falls silent."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._broker.keep(), name="agents.broker")
            tasks.create_task(self._watch(tell), name=f"agents.watch {self._source.agent}")

    async def _watch(self, tell: Tell) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.fresh_s / 4))
            if self._is_heard and (why := self._silence()):
                self._is_heard = False
                now_ns = self._clock()
                tell(
                    [
                        Change(self.schema, place, now_ns, None, Quality.BAD, why[:200])
                        for place in range(len(self.schema.columns))
                    ]
                )

    async def close(self) -> None:
        """Do nothing: who ends `follow` ends the connection."""
