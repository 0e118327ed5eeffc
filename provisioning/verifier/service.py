"""The verifier as a process: the broker on one side, a Desk on the other."""

import asyncio
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.backoff import Backoff, attempt
from gateway.app.keys import read_signer
from gateway.app.logs import start_logs
from gateway.app.metrics import serve_metrics
from gateway.errors import ConfigError, LinkError
from gateway.north.mqtt import (
    Link,
    challenge_topic,
    evidence_topic,
    gateway_of,
    result_topic,
)
from gateway.north.tls import Endpoint
from provisioning.turn import turn
from provisioning.verifier.clerk import Clerk
from provisioning.verifier.config import VerifierConfig
from provisioning.verifier.desk import Desk
from provisioning.verifier.issuing import Issuer, issuer_of
from provisioning.verifier.rounds import MOST_OPEN
from provisioning.verifier.store import Store
from provisioning.verifier.trust import TrustFiles

GROUP = 128
"""Answers that share a transaction, and a turn of the loop."""
WAITING = 4 * MOST_OPEN
"""Answers that were asked for, and wait to be verified."""
LOOK_S = 2.0
TURN_S = 2.0
"""For the one before to end, where a service is started again."""
_LEAST_S, _MOST_S = 0.05, 1.0


async def run_verifier(file: Path) -> None:
    """Run the verifier of a verifier.toml until it is cancelled. Raises ConfigError."""
    log = start_logs("verifier")
    files = TrustFiles(file, log)
    config = files.config
    signer = read_signer(config.verifier.key, "verifier.key", name=config.issuer)
    # Two with one state would each tell the ledger that the other's marks went back.
    alone = turn(config.verifier.state / "verifier.turn", wait_s=TURN_S, error=ConfigError)
    with alone, closing(Store(config.database)) as store:
        desk = Desk(files, store, signer, log=log)
        socket = config.run_folder / "verifier.metrics.sock"
        servers = await serve_metrics("verifier", desk.counts, socket=socket, address=config.verifier.metrics)
        log.info("verifier.ready", gateways=len(desk.records), policy=files.trust.references.policy)
        try:
            await serve(config, desk, log, issuer=issuer_of(files, signer, marks=desk.marks))
        finally:
            for server in servers:
                server.close()


async def serve(config: VerifierConfig, desk: Desk, log: FilteringBoundLogger, *, issuer: Issuer | None = None) -> None:
    """Serve a desk until cancelled; connect again whenever the broker is lost. Raises ConfigError.

    issuer: who answers gateways that ask for a certificate, if anyone does.
    """
    backoff, is_down = Backoff(), False
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_look(desk), name="verifier.look")
        while True:
            try:
                await attempt(_session(config, desk, log, issuer), name="verifier.session")
            except* LinkError as e:
                if desk.counts.connected:
                    backoff.reset()
                    is_down = False
                if not is_down:
                    log.warning("verifier.disconnected", why=str(e.exceptions[0]))
            desk.counts.connected, is_down = 0, True
            desk.disconnected()
            await asyncio.sleep(backoff.next_s())


async def _look(desk: Desk) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        desk.refresh()
        desk.look()


async def _session(config: VerifierConfig, desk: Desk, log: FilteringBoundLogger, issuer: Issuer | None) -> None:
    section = config.broker
    host, _, port = section.broker.rpartition(":")
    endpoint = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)
    async with Link(endpoint, client_id=config.issuer.replace("/", "-"), queued=WAITING) as link:
        await link.subscribe(evidence_topic("+"))
        clerk = Clerk(link, issuer, log)
        await clerk.open()
        desk.counts.reconnects, desk.counts.connected = desk.counts.reconnects + 1, 1
        log.info("verifier.connected", broker=section.broker)
        await _Exchange(link, desk, clerk).run()


class _Exchange:
    """One connection's work: listen, weigh, ask and tell. Ends by LinkError."""

    def __init__(self, link: Link, desk: Desk, clerk: Clerk) -> None:
        self._link, self._desk, self._clerk = link, desk, clerk
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(WAITING)
        self._stirred = asyncio.Event()  # somebody may be due who was not before

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="verifier.listen")
            tasks.create_task(self._weigh(), name="verifier.weigh")
            tasks.create_task(self._ask(), name="verifier.ask")
            tasks.create_task(self._clerk.run(), name="verifier.certify")

    async def _listen(self) -> None:
        async for arrived in self._link:
            gateway = gateway_of(arrived.topic, "evidence")
            if gateway is None:
                self._clerk.hear(arrived)
                continue
            if self._desk.is_answer(gateway, arrived.payload):
                await self._waiting.put((gateway, arrived.payload))
            else:
                self._desk.take(gateway, arrived.payload)  # at once: neither greetings nor noise push an answer out
                self._stirred.set()

    async def _weigh(self) -> None:
        dropped = 0
        while True:
            group = [await self._waiting.get()]
            while not self._waiting.empty() and len(group) < GROUP:
                group.append(self._waiting.get_nowait())
            for gateway, payload in group:
                self._desk.take(gateway, payload)
            self._stirred.set()
            await _tell(self._link, self._desk)
            self._desk.counts.dropped += self._link.dropped - dropped
            dropped = self._link.dropped

    async def _ask(self) -> None:
        while True:
            asked = self._desk.challenges()
            await _publish(self._link, [(challenge_topic(gateway), note) for gateway, note in asked])
            await _tell(self._link, self._desk)
            await asyncio.sleep(_LEAST_S)
            wait_s = self._desk.next_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOST_S if wait_s is None else min(wait_s, _MOST_S)):
                    await self._stirred.wait()
            self._stirred.clear()


async def _tell(link: Link, desk: Desk) -> None:
    results = desk.settle()
    await _publish(link, [(result_topic(gateway), token) for gateway, token in results])
    desk.counts.results += len(results)


async def _publish(link: Link, messages: Sequence[tuple[str, bytes]]) -> None:
    """Publish all, many under way at once: the broker's answer to each takes its time."""
    await asyncio.gather(*(link.publish(topic, payload) for topic, payload in messages))
