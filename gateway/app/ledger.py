"""The ledger process: takes what gateways publish, keeps it, cosigns it, computes figures.

Messages that wait together are committed together: one fsync, one cosignature a gateway, one receipt.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.accept import GatewayCopy
from gateway.app.logs import start_logs
from gateway.app.metrics import counter, gauge, serve_metrics
from gateway.app.ownlog import OwnLog
from gateway.app.projector import Projector
from gateway.app.verdicts import Accepted
from gateway.carbon.factors import parse_factors
from gateway.codec.bodies import accepted_body, factor_body
from gateway.config import LedgerConfig
from gateway.errors import ConfigError, LinkError, TrustError
from gateway.north.mqtt import Endpoint, Link, gateway_of, log_topic, receipt_topic
from gateway.store.files import RealFiles
from gateway.store.projections import Projections
from gateway.store.segments import Log, StoreFull
from gateway.tlog.note import Signer, Verifier

MOST_MESSAGES = 64
"""So many messages are committed together at most."""
QUIET_S = 60.0
"""A gateway whose messages are refused is written down at most this often."""
FACTORS_S = 5.0
"""How often the factor file is looked at."""


@dataclass(slots=True)
class LedgerCounts:
    """What the ledger counts."""

    messages: int = counter("messages taken from the broker")
    refused: int = counter("messages refused: malformed, not signed by the gateway's key, or of another history")
    gaps: int = counter("messages that added nothing: a gap or a repetition")
    leaves: int = counter("leaves accepted")
    rows: int = counter("rows of readings in accepted leaves")
    unusable: int = counter("accepted leaves that cannot be read")
    absent: int = counter("accepted leaves whose body the gateway had dropped")
    receipts: int = counter("receipts published")
    reconnects: int = counter("connections made to the broker")
    connected: int = gauge("1 while connected to the broker")
    full: int = counter("groups thrown away because the disk was full; they come again")
    size: int = gauge("leaves held, over all gateways")
    disk_bytes: int = gauge("bytes of leaf bodies on disk")


class Ledger:
    """All that the ledger knows, without sockets: accept any number of messages, then commit."""

    def __init__(self, config: LedgerConfig, *, counts: LedgerCounts, log: FilteringBoundLogger) -> None:
        self._config, self.counts, self._log = config, counts, log
        signer = Signer.from_text(_text(config.ledger.key))
        folder = config.ledger.state
        self.own = OwnLog(Log.open(RealFiles(folder / "own"), origin=config.origin), signer=signer)
        self.copies = {
            gateway: GatewayCopy(
                Log.open(RealFiles(folder / "gateways" / gateway), origin=f"wattseal/{gateway}"),
                key=Verifier.from_vkey(_text(section.key)),
                cosigner=signer.cosigner(),
            )
            for gateway, section in config.gateways.items()
        }
        self._book = Projections(folder / "projections.sqlite")
        copies = {gateway: copy.log for gateway, copy in self.copies.items()}
        self._projector = Projector(self._book, own=self.own.log, copies=copies)
        self._touched: set[str] = set()
        self._said: dict[str, float] = {}
        self._factors_seen = (0, 0)
        self._projector.catch_up()
        self.load_factors()

    # ---- factors

    def load_factors(self) -> int:
        """Seal what is new in the factor file, if it has changed; return how many versions that was.

        A file that is wrong leaves the factors in force as they are.
        """
        path = self._config.ledger.factors
        try:
            stat = path.stat()
            if (stat.st_mtime_ns, stat.st_size) == self._factors_seen:
                return 0
            self._factors_seen = (stat.st_mtime_ns, stat.st_size)
            factors = parse_factors(path.read_text(encoding="utf-8"), name=path.name)
        except (OSError, UnicodeDecodeError, ConfigError) as e:
            self._log.error("ledger.factors", why=str(e))
            return 0
        news = self._projector.news(factors)
        for factor in news:
            self.own.append("factor", factor_body(factor))
        self.own.commit()
        if news:
            self._projector.catch_up_own()
            self._log.info("ledger.factors", versions=len(news))
        return len(news)

    # ---- messages

    def take(self, gateway: str, payload: bytes) -> bytes | None:
        """Take one message; return a receipt to publish at once (the answer to a gap), else None."""
        self.counts.messages += 1
        copy = self.copies.get(gateway)
        if copy is None:
            self._refused(gateway, "not a gateway of ledger.toml")
            return None
        try:
            result = copy.accept(payload)
        except TrustError as e:
            self._refused(gateway, str(e))
            return None
        if isinstance(result, Accepted):
            self._touched.add(gateway)
            return None
        self.counts.gaps += 1
        return result.receipt

    def _refused(self, gateway: str, why: str) -> None:
        self.counts.refused += 1
        now = time.monotonic()
        if now - self._said.get(gateway, -QUIET_S) >= QUIET_S:
            self._log.warning("ledger.refused", gateway=gateway[:63], why=why[:300])
            if gateway in self.copies:
                self._said[gateway] = now
                self.own.event("ledger.refused", {"gateway": gateway, "why": why[:300]})

    def commit(self) -> dict[str, bytes]:
        """Make durable what was taken, cosign it, compute; return the receipts to publish, by gateway."""
        receipts: dict[str, bytes] = {}
        touched, self._touched = self._touched, set()
        for gateway in sorted(touched):
            try:
                committed = self.copies[gateway].commit()
            except StoreFull as e:
                self.counts.full += 1
                self._log.error("ledger.full", gateway=gateway, why=str(e))
                continue
            if committed is None:
                continue
            receipts[gateway] = committed.receipt
            self.own.append("accepted", accepted_body(gateway, committed.receipt))
            self.counts.leaves += len(committed.leaves)
            self.counts.unusable += len(committed.unusable)
            self.counts.absent += len(committed.absent)
            self._projector.take(gateway, committed)
        self.own.commit()
        self._projector.catch_up_own()
        self.counts.rows = self._projector.rows
        self.counts.size = sum(copy.size for copy in self.copies.values())
        self.counts.disk_bytes = sum(copy.log.body_bytes for copy in self.copies.values())
        return receipts


async def run_ledger(config: LedgerConfig) -> None:
    """Run the ledger until it is cancelled. Raises LogError when a log cannot be trusted."""
    log = start_logs("ledger")
    counts = LedgerCounts()
    ledger = Ledger(config, counts=counts, log=log)
    socket = config.ledger.state / "run" / "ledger.metrics.sock"
    metrics = await serve_metrics("ledger", counts, socket=socket, address=config.ledger.metrics)
    log.info("ledger.ready", gateways=sorted(ledger.copies))
    try:
        await _serve(config, ledger, counts, log)
    finally:
        for server in metrics:
            server.close()


async def _serve(config: LedgerConfig, ledger: Ledger, counts: LedgerCounts, log: FilteringBoundLogger) -> None:
    section = config.broker
    host, _, port = section.broker.rpartition(":")
    endpoint = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)
    wait_s = 0.2
    while True:
        try:
            async with Link(endpoint, client_id=config.origin.replace("/", "-")) as link:
                counts.reconnects, counts.connected, wait_s = counts.reconnects + 1, 1, 0.2
                log.info("ledger.connected", broker=section.broker)
                for gateway in ledger.copies:
                    await link.subscribe(log_topic(gateway))
                await _exchange(link, ledger, counts)
        except* LinkError as e:
            log.warning("ledger.disconnected", why=str(e.exceptions[0]))
        counts.connected = 0
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 10.0)


async def _exchange(link: Link, ledger: Ledger, counts: LedgerCounts) -> None:
    """Take messages as they come, in groups; publish the receipts. Ends by LinkError."""
    waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MOST_MESSAGES)

    async def listen() -> None:
        async for arrived in link:
            if (gateway := gateway_of(arrived.topic)) is not None:
                await waiting.put((gateway, arrived.payload))

    async def work() -> None:
        while True:
            group = []
            try:
                async with asyncio.timeout(FACTORS_S):
                    group.append(await waiting.get())
            except TimeoutError:
                ledger.load_factors()
                continue
            while not waiting.empty() and len(group) < MOST_MESSAGES:
                group.append(waiting.get_nowait())
            receipts = {gateway: receipt for gateway, payload in group if (receipt := ledger.take(gateway, payload))}
            receipts |= ledger.commit()
            for gateway, receipt in receipts.items():
                await link.publish(receipt_topic(gateway), receipt)
                counts.receipts += 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(), name="ledger.listen")
        tasks.create_task(work(), name="ledger.work")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a key file") from e
