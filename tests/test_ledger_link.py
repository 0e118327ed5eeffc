"""The ledger at a real broker: messages in, receipts out, and what else it must not forget meanwhile."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app.broker import free_port, running_broker
from gateway.app.ledger import BEAT_S
from gateway.app.ledger_serve import run_ledger
from gateway.app.metrics import read_metrics
from gateway.codec.bodies import event_body
from gateway.config import LedgerConfig, parse_ledger
from gateway.errors import ConfigError, LogError
from gateway.north.mqtt import Link, log_topic, receipt_topic
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Projections
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import SignatureKind, Signer, Verifier
from tests.ledgering import factors_toml
from tests.links import LEDGER, endpoint, make_pki
from tests.sealing import BOOT, Box

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


def configured(folder: Path, pki: Path, port: int, *, cert: str = f"{LEDGER}.pem") -> LedgerConfig:
    """Return the ledger's configuration: one gateway, one factor."""
    (folder / "factors.toml").write_text(factors_toml([(0, 60, "400")]))
    toml = f'[ledger]\nname = "{LEDGER}"\nstate = "state"\nkey = "{pki}/{LEDGER}.sign.key"\nfactors = "factors.toml"\n'
    toml += f'[broker]\nbroker = "127.0.0.1:{port}"\nca = "{pki}/ca.pem"\n'
    toml += f'cert = "{pki}/{cert}"\nkey = "{pki}/{LEDGER}.key"\n[gateways.gw1]\nkey = "{pki}/gw1.vkey"\n'
    return parse_ledger(toml, name="ledger.toml", folder=folder)


@asynccontextmanager
async def running(config: LedgerConfig) -> AsyncIterator["asyncio.Task[None]"]:
    """Run the ledger in this loop."""
    task = asyncio.create_task(run_ledger(config))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        assert task.done(), "the ledger does not end"


async def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


async def counts(config: LedgerConfig) -> dict[str, float]:
    """Return what the ledger counts; nothing while it is not there."""
    with contextlib.suppress(OSError):
        return dict(await read_metrics(config.ledger.state / "run" / "ledger.metrics.sock"))
    return {}


async def connected(config: LedgerConfig) -> None:
    """Wait until the ledger is at the broker."""
    async with asyncio.timeout(PATIENCE_S):
        while not (await counts(config)).get("wattseal_ledger_connected"):
            await asyncio.sleep(0.02)


def factors_of(config: LedgerConfig) -> int:
    """Return how many versions of factors the tables know."""
    book = Projections(config.ledger.state / "projections.sqlite", new=False)
    with book.reading() as connection:
        found = len(tables.factors(connection))
    book.close()
    return found


def sealing(folder: Path, pki: Path) -> Box:
    """Return the gateway's seal."""
    box = Box.at(folder / "log", signer=Signer.from_text((pki / "gw1.epoch.key").read_text()))
    box.sealer.welcome(BOOT)
    return box


def seal_more(box: Box) -> None:
    """Seal and sign an event."""
    box.put(("event", event_body("test", time.time_ns(), {})))
    box.sealer.sign()


async def test_a_changed_factor_file_is_read_although_messages_never_cease(pki: Path, tmp_path: Path) -> None:
    """And every message has its receipt."""
    box = sealing(tmp_path, pki)
    witness = Verifier.from_vkey((pki / f"{LEDGER}.vkey").read_text().strip())
    assert witness.kind is SignatureKind.COSIGNATURE
    async with running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER) as broker:
        config = configured(tmp_path, pki, broker.port)
        receipted = 0

        async def take_receipts(link: Link) -> None:
            nonlocal receipted
            async for arrived in link:
                found, _ = checkpoints.verify_cosignature(arrived.payload, origin="wattseal/gw1", witness=witness)
                receipted = max(receipted, found.size)

        async with running(config), Link(endpoint(pki, broker.port, "gw1"), client_id="gw1") as link:
            await connected(config)
            await link.subscribe(receipt_topic("gw1"))
            taking = asyncio.create_task(take_receipts(link))
            began_s = time.monotonic()
            (tmp_path / "factors.toml").write_text(factors_toml([(0, 60, "500")]))
            while factors_of(config) < 2:
                assert time.monotonic() - began_s < 3 * BEAT_S
                seal_more(box)
                for payload in box.payloads(first=receipted):
                    await link.publish(log_topic("gw1"), payload)
                await asyncio.sleep(0.2)
            await until(lambda: receipted == box.log.size)
            taking.cancel()
    box.log.close()


async def test_a_broker_that_is_away_is_waited_for_and_the_end_is_prompt(
    pki: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said once; and a stop while there is no connection is a stop."""
    port = free_port()
    config = configured(tmp_path, pki, port)
    async with running(config) as task:
        await asyncio.sleep(1.0)
        async with running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER, port=port) as broker:
            await connected(config)
            os.kill(broker.pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while (await counts(config))["wattseal_ledger_connected"]:
                    await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        assert not task.done()
        began_s = time.monotonic()
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        assert time.monotonic() - began_s < 2
    said = capfd.readouterr().err
    assert said.count('"ledger.disconnected"') == 2
    Log.open(RealFiles(config.ledger.state / "own"), origin=config.origin).close()


async def test_a_second_ledger_on_the_same_logs_does_not_start(pki: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, pki, free_port())
    async with running(config):
        async with asyncio.timeout(PATIENCE_S):
            while not await counts(config):
                await asyncio.sleep(0.02)
        with pytest.raises(LogError, match="in use by process"):
            await run_ledger(config)


async def test_an_unusable_certificate_ends_the_ledger_with_one_line(pki: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, pki, free_port(), cert="nobody.pem")
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match=r"nobody\.pem")) as caught:
        await asyncio.wait_for(run_ledger(config), PATIENCE_S)
    assert "\n" not in str(caught.value.exceptions[0])
