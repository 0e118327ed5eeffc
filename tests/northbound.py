"""What the tests of app/forward.py share: a seal's outlet over a log in memory, and a ledger over a real copy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from structlog.testing import CapturingLogger

from gateway.app.channel import Channel, listen
from gateway.app.clientkey import FileKey
from gateway.app.forward import forward
from gateway.app.forwarding import ForwardMetrics
from gateway.app.verdicts import Accepted
from gateway.codec.frames import Message, pack_leaves
from gateway.errors import TrustError
from gateway.north.mqtt import Arrived, Link, log_topic, receipt_topic
from gateway.north.tls import Endpoint
from gateway.tlog.checkpoint import Checkpoint
from tests.copies import Gateway, Ledger, read_receipt
from tests.links import LEDGER


class Seal:
    """The seal's outlet as docs/wire.md has it, over leaves in memory; it checks receipts as the real one does."""

    def __init__(self, gateway: Gateway, *, chunk: int = 10) -> None:
        self.gateway = gateway
        self.receipted = 0
        self.reads: list[int] = []
        self.refusals: list[str] = []
        self.is_deaf = False
        self._chunk = chunk
        self._grown = asyncio.Condition()
        self._channels: list[Channel] = []
        self._server: asyncio.Server | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, socket: Path) -> None:
        """Listen."""
        self._server = await listen(socket, self._serve, failed=self._failed)

    async def stop(self) -> None:
        """Go away, as a seal that is killed. Raises what went wrong in it."""
        if self._server is not None:
            self._server.close()
        for channel in self._channels:
            channel.close()
        await asyncio.sleep(0.05)
        if self._failed.done():
            self._failed.result()

    async def grow(self, count: int) -> None:
        """Seal more leaves, and sign."""
        self.gateway.grow(count)
        async with self._grown:
            self._grown.notify_all()

    async def _serve(self, channel: Channel) -> None:
        self._channels.append(channel)
        waiting: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                for message in await channel.receive():
                    match message:
                        case ["hello", 1]:
                            await channel.send(["position", self.receipted, len(self.gateway.leaves)])
                        case ["read", int(first), int(most_bytes)]:
                            self.reads.append(first)
                            if waiting is not None:
                                waiting.cancel()
                            waiting = tasks.create_task(self._read(channel, first, most_bytes))
                        case ["receipt", bytes(note)]:
                            await channel.send(self._take(note))
                        case _:
                            raise AssertionError(message)

    async def _read(self, channel: Channel, first: int, most_bytes: int) -> None:
        if self.is_deaf:
            return
        try:
            async with asyncio.timeout(1.0), self._grown:
                await self._grown.wait_for(lambda: len(self.gateway.leaves) > first)
        except TimeoutError:
            await channel.send(["idle"])
            return
        assert most_bytes > 0
        message = self.gateway.message(first, min(first + self._chunk, len(self.gateway.leaves)))
        await channel.send(["chunk", first, pack_leaves(message.leaves), message.checkpoint])

    def _take(self, note: bytes) -> Message:
        try:
            receipt, _ = read_receipt(note)
        except TrustError as e:
            return self._refuse(str(e))
        size = receipt.size
        if size > len(self.gateway.leaves) or not self.gateway.checkpoint(size).startswith(receipt.text.encode()):
            return self._refuse("not of this log")
        self.receipted = max(self.receipted, size)
        return ["receipted", self.receipted]

    def _refuse(self, why: str) -> Message:
        self.refusals.append(why)
        return ["refused", 0, why]


@dataclass(slots=True)
class Wire:
    """What happens between the broker and the fake ledger. Each rule sees a payload before the ledger does."""

    lose: Callable[[int], bool] = lambda _: False
    is_silent: bool = False
    copies: int = 1
    arrived: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


async def run_ledger(ledger: Ledger, endpoint: Endpoint, wire: Wire, *, gateway: str = "gw1") -> None:
    """Serve one gateway until cancelled or the link is lost: accept, commit, publish receipts."""
    async with Link(endpoint, client_id=LEDGER) as link:
        await link.subscribe(log_topic("+"))
        wire.ready.set()
        async for arrived in link:
            await _answer(ledger, link, wire, arrived, gateway)


async def _answer(ledger: Ledger, link: Link, wire: Wire, arrived: Arrived, gateway: str) -> None:
    wire.arrived += 1
    if wire.lose(wire.arrived):
        return
    ledger.clocks.mono_s = asyncio.get_running_loop().time()
    verdict = ledger.copy.accept(arrived.payload)
    committed = ledger.copy.commit() if isinstance(verdict, Accepted) else None
    receipt = committed.receipt if committed else getattr(verdict, "receipt", None)
    if receipt is None or wire.is_silent:
        return
    for _ in range(wire.copies):
        await link.publish(receipt_topic(gateway), receipt)


class Forwarding:
    """A running forward process."""

    def __init__(self, metrics: ForwardMetrics, log: CapturingLogger) -> None:
        self.metrics, self._log = metrics, log

    def said(self, event: str) -> int:
        """Return how often this was logged."""
        return sum(call.args[:1] == (event,) or call.kwargs.get("event") == event for call in self._log.calls)


@asynccontextmanager
async def forwarding(endpoint: Endpoint, outlet: Path, *, gateway: str = "gw1") -> AsyncIterator[Forwarding]:
    """Run forward as a task; fail if it ends by itself."""
    capturing = CapturingLogger()
    log = structlog.wrap_logger(capturing, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
    metrics = ForwardMetrics()
    task = asyncio.create_task(
        forward(gateway=gateway, outlet=outlet, client=FileKey(endpoint), log=log, metrics=metrics), name="forward"
    )
    try:
        yield Forwarding(metrics, capturing)
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> float:
    """Wait for a condition; return how long it took, in seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not condition():
        assert loop.time() - began_s < within_s, "this did not come about in time"
        await asyncio.sleep(0.01)
    return loop.time() - began_s


def same_log(gateway: Gateway, ledger: Ledger) -> bool:
    """Return whether the ledger's copy is the gateway's log, leaf for leaf, durably, with a receipt."""
    size = len(gateway.leaves)
    if ledger.log.durable != size or ledger.log.signed != size:
        return False
    bodies: list[bytes | None] = []
    while len(bodies) < size:
        bodies += ledger.log.read(len(bodies), 1 << 20, size)
    checkpoint: Checkpoint = read_receipt(ledger.copy.receipt)[0]
    return bodies == gateway.leaves and checkpoint.size == size
