"""From collect to the seal: whatever the outbox holds, over any number of connections (docs/wire.md, section 1)."""

import asyncio
import time
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from gateway.app.backoff import attempt
from gateway.app.channel import Channel, connect
from gateway.app.outbox import Outbox
from gateway.errors import LinkError, TrustError

STEADY_S = 2.0
"""A connection to the seal that lasted this long was no failure: the next one is tried soon, and its end is said."""


class HandoverCounts(Protocol):
    """What is counted on the way to the seal."""

    sealed: int
    refused: int
    reconnects: int


class SealLink:
    """Keeps the outbox flowing into the seal, over any number of connections."""

    def __init__(self, inlet: Path, outbox: Outbox, counts: HandoverCounts, log: FilteringBoundLogger) -> None:
        self._path, self._outbox, self._counts, self._log = inlet, outbox, counts, log

    async def run(self) -> None:
        """Connect and hand over, for ever; a lost seal is tried again after 0.1 to 2 s."""
        now_s = asyncio.get_running_loop().time
        wait_s, is_lost = 0.1, False
        while True:
            began_s = now_s()
            try:
                channel = await connect(self._path)
            except LinkError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 2.0)
                continue
            self._counts.reconnects += 1
            try:
                await attempt(self._serve(channel), name="collect.session")
            except* (LinkError, TrustError) as e:
                if now_s() - began_s > STEADY_S:
                    wait_s, is_lost = 0.1, False
                if not is_lost:
                    self._log.warning("collect.seal_lost", why=str(e.exceptions[0]))
            finally:
                channel.close()
            await asyncio.sleep(wait_s)
            wait_s, is_lost = min(wait_s * 2, 2.0), True

    async def drain(self, within_s: float) -> None:
        """Hand over what is left before the process ends, as far as the seal takes it in time."""
        self._outbox.flush()
        try:
            async with asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.run(), name="collect.drain")
                await self._outbox.emptied()
                running.cancel()
        except TimeoutError:
            self._log.warning("collect.left", bytes=self._outbox.depth_bytes)

    async def _serve(self, channel: Channel) -> None:
        await channel.send(["hello", 1, self._outbox.boot])
        match await channel.receive():
            case [["welcome", int(last)]]:
                pass
            case answer:
                raise TrustError(f"seal: got {str(answer)[:80]}, want welcome")
        if again := self._outbox.resume(last):
            await channel.send(*again)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(channel), name="collect.send")
            tasks.create_task(self._answers(channel), name="collect.answers")

    async def _send(self, channel: Channel) -> None:
        while True:
            await self._outbox.filled.wait()
            if messages := self._outbox.unsent(time.time_ns()):
                await channel.send(*messages)

    async def _answers(self, channel: Channel) -> None:
        while True:
            for message in await channel.receive():
                match message:
                    case ["ack", int(last)]:
                        self._counts.sealed += self._outbox.acknowledge(last)
                    case ["refused", int(sequence), str(reason)]:
                        self._counts.refused += 1
                        self._log.error("collect.refused", sequence=sequence, why=reason)
                        self._outbox.refuse(sequence)
                    case ["full", int()]:
                        await asyncio.sleep(1.0)
                        await channel.send(*self._outbox.in_flight())
                    case _:
                        raise TrustError(f"seal: got {str(message)[:80]}, want ack, refused or full")
