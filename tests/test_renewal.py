"""The seal goes over to new keys while it works: nobody waits for the TPM, and nothing is lost when it fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from structlog.testing import CapturingLogger

from gateway.app.channel import connect, listen
from gateway.app.seal import SealServer
from gateway.app.sealer import Sealer
from gateway.app.trust.renewal import RETRY_S, Renewal
from gateway.codec.frames import LogMessage, pack_log, unpack_leaves
from gateway.errors import TrustError
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from tests.epoching import DEVICE, Relying
from tests.sealing import BOOT, ORIGIN, WITNESS, readings

PATIENCE_S = 20.0


@dataclass
class Slow:
    """A device that takes its time, and fails when it is told to. asked: the epochs that it was asked to bind."""

    takes_s: float = 0.0
    fails: bool = False
    asked: list[int] = field(default_factory=list)

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> Mapping[str, Any]:
        """Return a binding after a while."""
        self.asked.append(epoch)
        time.sleep(self.takes_s)
        if self.fails:
            raise TrustError("tpm: it is in its lockout mode")
        return DEVICE.bind(vkey=vkey, epoch=epoch, t_ns=t_ns)


@dataclass
class Stand:
    """A sealer with such a device, and what it logged."""

    folder: Path
    device: Slow
    said: CapturingLogger = field(default_factory=CapturingLogger)
    log: Log = field(init=False)
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log.open(RealFiles(self.folder), origin=ORIGIN)
        self.sealer = Sealer(self.log, binder=self.device, witness=WITNESS.cosigner().verifier)

    @property
    def logger(self) -> Any:
        """Where to log."""
        return structlog.wrap_logger(self.said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))

    def times(self, event: str) -> int:
        """Return how often this was logged."""
        return sum(call.kwargs.get("event") == event for call in self.said.calls)


async def beating(renewal: Renewal, until: Any) -> None:
    """Beat until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not until():
            renewal.beat()
            await asyncio.sleep(0.002)


async def test_a_key_is_made_anew_again_and_again(tmp_path: Path) -> None:
    stand = Stand(tmp_path, Slow())
    await beating(Renewal(stand.sealer, stand.logger, every_s=0.01), lambda: stand.sealer.announced[0] >= 4)
    assert stand.times("seal.epoch") == stand.sealer.announced[0] - 1
    stand.log.close()


async def test_a_tpm_that_takes_its_time_holds_nothing_up(tmp_path: Path) -> None:
    """The old key signs meanwhile, and the TPM is asked once."""
    stand = Stand(tmp_path, Slow())
    stand.device.takes_s = 1.5
    renewal = Renewal(stand.sealer, stand.logger, every_s=0.01)
    await asyncio.sleep(0.02)
    began_s = time.monotonic()
    for _ in range(20):
        assert not renewal.beat()
    assert time.monotonic() - began_s < 0.75
    await beating(renewal, lambda: stand.sealer.announced[0] == 2)
    assert stand.device.asked == [1, 2]
    stand.log.close()


async def test_a_tpm_that_fails_is_asked_again_soon_and_said_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path, Slow())
    stand.device.fails = True
    renewal = Renewal(stand.sealer, stand.logger, every_s=0.01)
    assert RETRY_S > 0.01
    await beating(renewal, lambda: stand.sealer.counts.renewals_failed >= 3)
    assert (stand.sealer.announced[0], stand.times("seal.epoch_kept")) == (1, 1)
    stand.device.fails = False
    await beating(renewal, lambda: stand.sealer.announced[0] == 2)
    stand.log.close()


async def test_keys_are_renewed_under_load_and_every_leaf_arrives(tmp_path: Path) -> None:
    """Collect puts and forward reads without a pause while the key changes many times a second."""
    async with serving(tmp_path, renew_s=0.03) as (stand, server):
        relying = Relying(tmp_path / "ledger")
        putting = asyncio.create_task(put_all(tmp_path, 300))
        taking = asyncio.create_task(
            take_all(tmp_path, relying, lambda: putting.done() and stand.sealer.announced[0] > 5)
        )
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(putting, taking)
        assert stand.sealer.announced[0] > 5
        assert relying.copy.size >= 300
        size = relying.copy.size
        assert relying.log.root(size) == stand.log.root(size)
        assert not server.failed.done()
        relying.log.close()


@asynccontextmanager
async def serving(folder: Path, *, renew_s: float) -> AsyncIterator[tuple[Stand, SealServer]]:
    """Serve a sealer that goes over to new keys."""
    stand = Stand(folder / "log", Slow(takes_s=0.005))
    server = SealServer(stand.sealer, stand.logger, renew_s=renew_s)
    listeners = [
        await listen(folder / f"{name}.sock", serve, failed=server.failed)
        for name, serve in (("inlet", server.inlet), ("outlet", server.outlet))
    ]
    beating = asyncio.create_task(server.beat(0.01))
    try:
        yield stand, server
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        server.close()
        for listener in listeners:
            listener.close()
        await asyncio.sleep(0.02)
        stand.log.close()


async def put_all(folder: Path, count: int) -> None:
    """Hand over readings, some at a time, and wait until all are acknowledged."""
    channel = await connect(folder / "inlet.sock")
    await channel.send(["hello", 1, BOOT])
    acknowledged = 0
    await channel.receive()
    for first in range(1, count + 1, 10):
        await channel.send(*(["put", number, *readings(number)] for number in range(first, first + 10)))
        while acknowledged < first + 9:
            for message in await channel.receive():
                assert message[0] == "ack", message
                acknowledged = message[1]
    channel.close()


async def take_all(folder: Path, relying: Relying, is_done: Any) -> None:
    """Read what the seal shows, give it to the ledger, and hand in the receipts."""
    channel = await connect(folder / "outlet.sock")
    await channel.send(["hello", 1])
    await channel.receive()
    first = 0
    while not is_done():
        await channel.send(["read", first, 2000])
        match await channel.receive():
            case [["chunk", int(at), list(leaves), bytes(checkpoint), *epoch]]:
                taken = unpack_leaves(leaves)
                message = LogMessage(first=at, leaves=taken, checkpoint=checkpoint, epoch=epoch[0] if epoch else b"")
                await channel.send(["receipt", relying.take(pack_log(message)).receipt])
                assert [answer[0] for answer in await channel.receive()] == ["receipted"]
                first = at + len(taken)
            case other:
                raise AssertionError(other)
    channel.close()
