"""app/forward.py: everything arrives, whatever breaks. Real broker, real frames, the ledger's real copy."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from gateway.app.broker import free_port, running_broker
from gateway.app.clientkey import FileKey
from gateway.app.forward import forward
from gateway.app.forwarding import ForwardMetrics
from gateway.app.window import CHUNKS
from gateway.codec.frames import pack_frame
from gateway.errors import ConfigError, LinkError
from gateway.north.mqtt import Link, receipt_topic
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer
from tests.copies import LEDGER as LEDGER_KEY
from tests.copies import ORIGIN, T0_S, Gateway, Ledger
from tests.links import LEDGER, Proxy, endpoint, make_pki
from tests.northbound import Forwarding, Seal, Wire, forwarding, run_ledger, same_log, until


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@dataclass
class Scene:
    """A gateway's seal and forward, a broker, and a ledger."""

    seal: Seal
    ledger: Ledger
    wire: Wire
    forward: Forwarding
    port: int
    broker_pid: int
    outlet: Path

    @property
    def is_done(self) -> bool:
        """Whether everything has arrived, and the seal knows."""
        return same_log(self.seal.gateway, self.ledger) and self.seal.receipted == len(self.seal.gateway.leaves)


@asynccontextmanager
async def scene(
    pki: Path, folder: Path, *, events: int = 99, chunk: int = 10, port: int | None = None, wire: Wire | None = None
) -> AsyncIterator[Scene]:
    """Set everything going. port: where forward connects, the broker itself when None."""
    wire = wire or Wire()
    gateway = Gateway(events=events)
    seal, outlet = Seal(gateway, chunk=chunk), folder / "outlet.sock"
    ledger = Ledger(folder / "copy", gateway)
    await seal.start(outlet)
    try:
        async with running_broker(folder / "broker", pki=pki, ledger=LEDGER) as broker:
            serving = asyncio.create_task(run_ledger(ledger, endpoint(pki, broker.port, LEDGER), wire))
            try:
                await wire.ready.wait()
                async with forwarding(endpoint(pki, port or broker.port, "gw1"), outlet) as running:
                    yield Scene(seal, ledger, wire, running, broker.port, broker.pid, outlet)
            finally:
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError, LinkError):
                    await serving
    finally:
        await seal.stop()
        ledger.log.close()


async def test_a_log_arrives_and_its_receipts_come_back(pki: Path, tmp_path: Path) -> None:
    """A backlog in chunks, then what is new at once; nothing is sent twice."""
    async with scene(pki, tmp_path) as s:
        await until(lambda: s.is_done)
        await until(lambda: s.forward.metrics.chunks == s.wire.arrived == 10)
        for _ in range(3):
            await s.seal.grow(5)
            assert await until(lambda: s.is_done) < 1
        metrics = s.forward.metrics
        await until(lambda: (metrics.in_flight, metrics.last_receipt_size) == (0, 115))
        assert (metrics.chunks, metrics.rewinds, metrics.refused, metrics.reconnects) == (13, 0, 0, 0)
        assert metrics.connected == 1
        assert (s.forward.said("forward.connected"), s.forward.said("forward.lost")) == (1, 0)


async def test_at_most_eight_chunks_wait_for_a_receipt(pki: Path, tmp_path: Path) -> None:
    """With a silent ledger forward stops after eight, and asks the seal for no more."""
    async with scene(pki, tmp_path, events=199, wire=Wire(is_silent=True)) as s:
        await until(lambda: s.wire.arrived == CHUNKS)
        await asyncio.sleep(1)
        assert s.wire.arrived == CHUNKS
        assert max(s.seal.reads) == 70
        assert s.forward.metrics.in_flight == CHUNKS


async def test_a_silent_ledger_is_asked_again_from_the_last_receipt(pki: Path, tmp_path: Path) -> None:
    """After five seconds one chunk goes again; when receipts come back, all does. It is said once each way."""
    async with scene(pki, tmp_path, events=149) as s:
        await until(lambda: s.is_done)
        s.wire.is_silent = True
        await s.seal.grow(40)
        sent = s.wire.arrived + 4
        await until(lambda: s.wire.arrived == sent)
        assert 4 < await until(lambda: s.wire.arrived > sent) < 7
        await asyncio.sleep(0.5)
        assert s.wire.arrived == sent + 1
        s.wire.is_silent = False
        await until(lambda: s.is_done)
        await until(lambda: s.forward.said("forward.answered") == 1)
        assert (s.forward.metrics.rewinds, s.forward.said("forward.silent")) == (2, 1)


async def test_a_lost_chunk_is_sent_again_at_once(pki: Path, tmp_path: Path) -> None:
    """The gap that it leaves is answered by the last receipt, and nobody waits five seconds."""
    async with scene(pki, tmp_path, events=199, wire=Wire(lose=lambda number: number == 3)) as s:
        assert await until(lambda: s.is_done) < 4
        assert 1 <= s.forward.metrics.rewinds <= 2


async def test_a_lossy_way_only_takes_longer(pki: Path, tmp_path: Path) -> None:
    """Every fourth message is lost: the log arrives leaf for leaf."""
    async with scene(pki, tmp_path, events=149, chunk=25, wire=Wire(lose=lambda number: number % 4 == 2)) as s:
        await until(lambda: s.is_done, within_s=30)


async def test_duplicate_receipts_make_no_storm(pki: Path, tmp_path: Path) -> None:
    """Each receipt three times: the log arrives, and hardly anything is sent twice."""
    async with scene(pki, tmp_path, events=199, wire=Wire(copies=3)) as s:
        await until(lambda: s.is_done)
        await asyncio.sleep(1.5)
        sent = s.forward.metrics.chunks
        assert sent <= 20 + 2 * CHUNKS
        await asyncio.sleep(1.5)
        assert s.forward.metrics.chunks == sent


async def test_a_forged_receipt_moves_nothing(pki: Path, tmp_path: Path) -> None:
    """Other keys, other logs, nonsense: refused, counted, said once, and the seal keeps what it has."""
    stranger = Signer.generate(LEDGER_KEY.name)
    far = Checkpoint(origin=ORIGIN, size=500, root=bytes(32))
    forged = [
        b"",
        b"nonsense",
        bytes(100_000),
        checkpoints.cosign(far, stranger.cosigner(), time_s=T0_S),
        checkpoints.cosign(far, LEDGER_KEY.cosigner(), time_s=T0_S),
        checkpoints.cosign(Checkpoint(origin="wattseal/gw2", size=50, root=bytes(32)), LEDGER_KEY.cosigner(), time_s=1),
    ]
    async with scene(pki, tmp_path, wire=Wire(is_silent=True)) as s:
        await until(lambda: s.wire.arrived == CHUNKS)
        assert s.ledger.log.signed == 80
        # A second client under the ledger's name takes the first one's place at the broker.
        async with Link(endpoint(pki, s.port, LEDGER), client_id=LEDGER) as forger:
            for note in forged:
                await forger.publish(receipt_topic("gw1"), note)
            await until(lambda: s.forward.metrics.refused == len(forged))
            assert s.seal.receipted == 0
            assert len(s.seal.refusals) == 2
            assert s.forward.metrics.receipts == s.forward.metrics.last_receipt_size == 0
            await forger.publish(receipt_topic("gw1"), s.ledger.copy.receipt)
            await until(lambda: s.seal.receipted == 80)
        assert s.forward.said("forward.receipt_refused") == 1


async def test_a_killed_broker_costs_nothing_but_time(pki: Path, tmp_path: Path) -> None:
    """It comes back on its port, and so does forward; all leaves sealed meanwhile arrive, in order."""
    gateway = Gateway(events=50)
    seal, outlet, port, wire = Seal(gateway), tmp_path / "outlet.sock", free_port(), Wire()
    ledger = Ledger(tmp_path / "copy", gateway)
    await seal.start(outlet)

    async def one_life(more: int) -> None:
        async with running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER, port=port) as broker:
            serving = asyncio.create_task(run_ledger(ledger, endpoint(pki, port, LEDGER), wire))
            await until(lambda: same_log(gateway, ledger) and seal.receipted == len(gateway.leaves), within_s=20)
            await seal.grow(more)
            os.kill(broker.pid, signal.SIGKILL)
            with contextlib.suppress(LinkError):
                await serving

    async with forwarding(endpoint(pki, port, "gw1"), outlet) as running:
        for more in (30, 40, 0):
            await one_life(more)
            await seal.grow(7)
            await asyncio.sleep(0.5)
        assert running.said("forward.lost") >= 3
        assert running.metrics.reconnects >= 3
    await seal.stop()
    ledger.log.close()


async def test_a_black_hole_is_noticed_and_everything_arrives(pki: Path, tmp_path: Path) -> None:
    """The network swallows everything without a word: forward notices, comes back, and loses no leaf."""
    proxy = Proxy(0)
    async with proxy, scene(pki, tmp_path, events=30, port=proxy.port) as s:
        proxy.aim(s.port)
        await until(lambda: s.is_done)
        proxy.darken()
        await s.seal.grow(200)
        await until(lambda: s.forward.metrics.connected == 0, within_s=15)
        await s.seal.grow(100)
        proxy.lighten()
        await until(lambda: s.is_done, within_s=25)
        assert s.forward.metrics.connected == 1
        assert s.forward.said("forward.connected") >= 2


async def test_a_seal_that_restarts_is_found_again(pki: Path, tmp_path: Path) -> None:
    """Forward goes on from the receipt that the seal then has; it keeps nothing of its own."""
    async with scene(pki, tmp_path) as s:
        await until(lambda: s.is_done)
        await s.seal.stop()
        await until(lambda: s.forward.metrics.connected == 0)
        s.seal.receipted = 40
        await s.seal.start(s.outlet)
        await s.seal.grow(10)
        await until(lambda: s.is_done)
        assert 40 in s.seal.reads


async def test_a_seal_that_is_not_there_is_waited_for(pki: Path, tmp_path: Path) -> None:
    """No seal, no connection to the broker; one line in the log, however often it was tried."""
    async with forwarding(endpoint(pki, free_port(), "gw1"), tmp_path / "outlet.sock") as running:
        await until(lambda: running.metrics.reconnects >= 4)
        assert (running.said("forward.lost"), running.metrics.connected) == (1, 0)


@pytest.mark.parametrize(
    "answers",
    [
        [["position", "x", 1]],
        [["position", 0, 10], ["chunk", 0, [], b""]],
        [["position", 0, 10], ["chunk", 0, [[b"short"]], b""]],
        [["position", 0, 10], ["chunk", 0, [b"leaf"], b"\xff"]],
        [["position", 0, 10], ["chunk", 0, [bytes(65_000)] * 20, b""]],
        [["position", 0, 10], ["chunk", 0, [b"leaf"], b"note", "epoch"]],
        [["position", 0, 10], ["chunk", 0, [b"leaf"], b"note", b"epoch", b"more"]],
        [["position", 0, 10], ["receipted", 5]],
        [["position", 0, 10], ["error", "go away"]],
    ],
)
async def test_a_seal_that_talks_nonsense_is_left_and_tried_again(
    pki: Path, tmp_path: Path, answers: list[list[object]]
) -> None:
    """Forward neither dies of it nor hangs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(pack_frame(answer))
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "outlet.sock")
    async with (
        running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER) as broker,
        forwarding(endpoint(pki, broker.port, "gw1"), tmp_path / "outlet.sock") as running,
    ):
        await until(lambda: running.metrics.reconnects >= 2)
        assert running.metrics.chunks == 0
    server.close()


async def test_an_unusable_certificate_ends_the_process(pki: Path, tmp_path: Path) -> None:
    """The operator must act: no retry helps."""
    gateway = Gateway(events=1)
    seal = Seal(gateway)
    await seal.start(tmp_path / "outlet.sock")
    with pytest.raises(ConfigError, match="gw9"):
        await forward(
            gateway="gw9",
            outlet=tmp_path / "outlet.sock",
            client=FileKey(endpoint(pki, 1, "gw9")),
            log=structlog.get_logger(),
            metrics=ForwardMetrics(),
        )
    await seal.stop()
