"""One connection of forward's to each side: leaves from the seal to the ledger, receipts and challenges back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway.app.channel import Channel, connect
from gateway.app.clientkey import ClientKey
from gateway.app.metrics import counter, gauge
from gateway.app.questions import Questions
from gateway.app.window import CHUNKS, Window
from gateway.codec.frames import MAX_LOG_MESSAGE, LogMessage, Message, pack_log, unpack_leaves
from gateway.errors import LinkError, TrustError
from gateway.north.mqtt import Link, challenge_topic, log_topic, receipt_topic
from gateway.tlog.checkpoint import read_unverified

CHUNK_BYTES = 256 * 1024
"""Leaves a message, in bytes: enough to make each message's cost small, and little for paho's copies of the rest."""

_SEAL_S = 15.0  # the seal answers a read within 10 s, everything else at once
_TICK_S = 0.2
_MOST_RECEIPT_BYTES = 4096
_MOST_RECEIPTS = 64
_MOST_PUBLISHING = 2 * CHUNKS
_REFUSED_S = 0.1


@dataclass(slots=True)
class ForwardMetrics:
    """What forward counts."""

    chunks: int = counter("chunks of leaves published")
    bytes: int = counter("bytes of payload published")
    receipts: int = counter("receipts that the seal took")
    refused: int = counter("receipts that were malformed, or that the seal found false")
    rewinds: int = counter("times that leaves were sent again from an earlier receipt")
    reconnects: int = counter("connections lost, or not made")
    dropped: int = counter("messages from the broker that came faster than the seal took them")
    evidence: int = counter("answers to challenges of the verifier that were published")
    challenges_refused: int = counter("challenges that were malformed, or that the seal did not answer")
    in_flight: int = gauge("chunks without a receipt")
    last_receipt_size: int = gauge("size of the newest receipt")
    connected: int = gauge("1 while both the seal and the broker are connected")
    certificate_expires_seconds: int = gauge("when our client certificate ends, in Unix seconds; 0 while we have none")


class Session:
    """One connection to each side, and what is under way between them. Ends by LinkError alone."""

    def __init__(
        self,
        *,
        gateway: str,
        metrics: ForwardMetrics,
        log: FilteringBoundLogger,
        chunk_bytes: int = CHUNK_BYTES,
        attests: bool = False,
    ) -> None:
        self.was_connected = False
        self.has_advanced = False
        self._gateway, self._metrics, self._log, self._chunk_bytes = gateway, metrics, log, chunk_bytes
        self._now_s = asyncio.get_running_loop().time
        self._window = Window(0)
        self._asked: tuple[int, float] | None = None
        self._answer: asyncio.Future[bool] | None = None
        self._publishing = 0
        self._is_silent = self._is_fooled = False
        self._attests = attests
        self._questions: Questions | None = None

    async def run(self, outlet: Path, client: ClientKey) -> None:
        """Connect to the seal, then to the broker, and forward until one of them is lost."""
        endpoint = await client.endpoint()
        if self._attests:
            self._questions = Questions(self._gateway, self._metrics, self._log, tls=client.backend)
        async with _answered_by("seal: no answer to hello"):
            self._channel = await connect(outlet)
        with closing(self._channel):
            async with _answered_by("seal: no answer to hello"):
                await self._channel.send(["hello", 1])
                answer = await _receive(self._channel)
            match answer:
                case [["position", int(receipted), int()]]:
                    self._window = Window(receipted)
                case _:
                    raise LinkError(f"seal: got {str(answer)[:80]}, want position")
            async with Link(endpoint, client_id=self._gateway, queued=_MOST_RECEIPTS) as self._link:
                await self._link.subscribe(receipt_topic(self._gateway))
                if self._questions is not None:
                    await self._link.subscribe(challenge_topic(self._gateway))
                await self._flow(outlet, client)

    async def _flow(self, outlet: Path, client: ClientKey) -> None:
        self.was_connected, self._metrics.connected = True, 1
        self._metrics.last_receipt_size = self._window.base
        self._log.info("forward.connected", receipted=self._window.base)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve_seal(tasks), name="forward.seal")
            tasks.create_task(self._serve_broker(), name="forward.broker")
            tasks.create_task(self._watch(), name="forward.watch")
            if self._questions is not None:
                tasks.create_task(self._questions.run(outlet, self._link), name="forward.attest")
            tasks.create_task(_until_renewed(client), name="forward.renew")
            await self._ask()

    # ---- towards the ledger

    async def _ask(self) -> None:
        """Ask the seal for what the window wants next; an earlier question is void by that."""
        window = self._window
        if not window.has_room or self._publishing >= _MOST_PUBLISHING:
            return
        if self._asked is None or self._asked[0] != window.next:
            self._asked = (window.next, self._now_s())
            await self._channel.send(["read", window.next, self._chunk_bytes])

    async def _serve_seal(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            for message in await _receive(self._channel):
                match message:
                    case ["chunk", int(first), list(leaves), bytes(checkpoint), *epoch] if len(epoch) <= 1:
                        if first == self._window.next and self._window.has_room:
                            payload = _payload(first, leaves, checkpoint, epoch)
                            self._window.sent(first + len(leaves), self._now_s())
                            self._asked = None
                            tasks.create_task(self._publish(payload), name=f"forward.publish {first}")
                    case ["idle"]:
                        self._asked = None
                    case ["receipted", int()]:
                        self._take_answer(taken=True)
                    case ["refused", 0, str()]:
                        self._take_answer(taken=False)
                    case _:
                        raise LinkError(f"seal: got {str(message)[:80]}")
            await self._ask()

    async def _publish(self, payload: bytes) -> None:
        self._publishing += 1
        try:
            await self._link.publish(log_topic(self._gateway), payload)
        finally:
            self._publishing -= 1
        self._metrics.chunks += 1
        self._metrics.bytes += len(payload)
        await self._ask()

    # ---- back to the seal

    async def _serve_broker(self) -> None:
        async for arrived in self._link:
            if arrived.topic == receipt_topic(self._gateway):
                await self._hand_in(arrived.payload)
            elif self._questions is not None and arrived.topic == challenge_topic(self._gateway):
                self._questions.put(arrived.payload)

    async def _hand_in(self, note: bytes) -> None:
        """Give a receipt to the seal; what it says counts once the seal, which has the keys, found it true."""
        if len(note) > _MOST_RECEIPT_BYTES:
            await self._refuse(f"got {len(note)} bytes, want at most {_MOST_RECEIPT_BYTES}")
            return
        try:
            size = read_unverified(note, origin=f"wattseal/{self._gateway}").size
        except TrustError as e:
            await self._refuse(str(e))
            return
        self._answer = asyncio.get_running_loop().create_future()
        async with _answered_by("seal: no answer to a receipt"):
            await self._channel.send(["receipt", note])
            taken = await self._answer
        if not taken:
            await self._refuse("by the seal")
            return
        self._metrics.receipts += 1
        self._metrics.last_receipt_size = size
        if size > self._window.base:
            self.has_advanced = True
            if self._is_silent:
                self._log.info("forward.answered", receipted=size)
            self._is_silent = False
        if self._window.receipt(size, self._now_s()):
            self._metrics.rewinds += 1
        await self._ask()

    async def _refuse(self, why: str) -> None:
        """Count a false receipt; a flood of them is taken slowly, to spare the seal."""
        self._metrics.refused += 1
        if not self._is_fooled:
            self._log.warning("forward.receipt_refused", why=why)
        self._is_fooled = True
        await asyncio.sleep(_REFUSED_S)

    def _take_answer(self, *, taken: bool) -> None:
        if self._answer is None or self._answer.done():
            raise LinkError("seal: answers a receipt that it was not given")
        self._answer.set_result(taken)

    # ---- what must not be waited for

    async def _watch(self) -> None:
        seen = 0
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._now_s()
            if self._window.is_overdue(now_s):
                self._metrics.rewinds += 1
                if not self._is_silent:
                    self._log.warning("forward.silent", receipted=self._window.base)
                self._is_silent = True
                await self._ask()
            if self._asked is not None and now_s - self._asked[1] > _SEAL_S:
                raise LinkError("seal: no answer to a read")
            self._metrics.in_flight = self._window.in_flight
            self._metrics.dropped += self._link.dropped - seen
            seen = self._link.dropped


async def _until_renewed(client: ClientKey) -> None:
    await client.renewed()
    raise LinkError("our certificate is a new one")


async def _receive(channel: Channel) -> list[Message]:
    try:
        return await channel.receive()
    except TrustError as e:
        raise LinkError(f"seal: {e}") from e


@asynccontextmanager
async def _answered_by(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_SEAL_S):
            yield
    except TimeoutError as e:
        raise LinkError(f"{what} within {_SEAL_S:g} s") from e


def _payload(first: int, leaves: list[Any], checkpoint: bytes, epoch: list[Any]) -> bytes:
    """Return a chunk of the seal's as a log message. epoch: its fifth item, or none.

    Raises LinkError when it cannot be one.
    """
    announced = epoch[0] if epoch else b""
    if type(announced) is not bytes:
        raise LinkError(f"seal: chunk: epoch: got {type(announced).__name__}, want bytes")
    try:
        message = LogMessage(first=first, leaves=unpack_leaves(leaves), checkpoint=checkpoint, epoch=announced)
        payload = pack_log(message)
    except (TrustError, UnicodeDecodeError) as e:
        raise LinkError(f"seal: chunk: {e}") from e
    if not leaves or len(payload) > MAX_LOG_MESSAGE:
        raise LinkError(f"seal: chunk: got {len(leaves)} leaves in {len(payload)} bytes")
    return payload
