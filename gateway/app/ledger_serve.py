"""The ledger as a process: the broker on one side, its duties on the other."""

import asyncio
from contextlib import closing

from structlog.typing import FilteringBoundLogger

from gateway.app.backoff import attempt
from gateway.app.duties import Listener
from gateway.app.ledger import BEAT_S, MOST_MESSAGES, Ledger
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.logs import start_logs
from gateway.app.metrics import serve_metrics
from gateway.config import LedgerConfig
from gateway.errors import LinkError
from gateway.north.mqtt import Arrived, Link, gateway_of, log_topic, receipt_topic
from gateway.north.tls import Endpoint


async def run_ledger(config: LedgerConfig) -> None:
    """Run the ledger until it is cancelled. Raises LogError when a log cannot be trusted."""
    log = start_logs("ledger")
    counts = LedgerCounts()
    with closing(Ledger(config, counts=counts, log=log)) as ledger:
        socket = config.ledger.state / "run" / "ledger.metrics.sock"
        metrics = await serve_metrics("ledger", counts, socket=socket, address=config.ledger.metrics)
        log.info("ledger.ready", gateways=sorted(ledger.copies))
        try:
            async with asyncio.TaskGroup() as tasks:
                for duty in ledger.duties:
                    tasks.create_task(duty.run(), name=f"ledger.{duty.name}")
                tasks.create_task(_serve(config, ledger, counts, log), name="ledger.serve")
        finally:
            for server in metrics:
                server.close()


async def _serve(config: LedgerConfig, ledger: Ledger, counts: LedgerCounts, log: FilteringBoundLogger) -> None:
    section = config.broker
    host, _, port = section.broker.rpartition(":")
    endpoint = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)

    async def session() -> None:
        async with Link(endpoint, client_id=config.origin.replace("/", "-")) as link:
            counts.reconnects, counts.connected = counts.reconnects + 1, 1
            log.info("ledger.connected", broker=section.broker)
            for gateway in ledger.copies:
                await link.subscribe(log_topic(gateway))
            for wanted in {one: None for listener in _listeners(ledger) for one in listener.filters}:
                await link.subscribe(wanted)
            await _exchange(link, ledger, counts)

    wait_s, is_down = 0.2, False
    while True:
        try:
            await attempt(session(), name="ledger.session")
        except* LinkError as e:
            if counts.connected:
                wait_s, is_down = 0.2, False
            if not is_down:
                log.warning("ledger.disconnected", why=str(e.exceptions[0]))
        counts.connected, is_down = 0, True
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 10.0)


def _listeners(ledger: Ledger) -> list[Listener]:
    return [duty for duty in ledger.duties if isinstance(duty, Listener)]


def _hear(ledger: Ledger, arrived: Arrived) -> None:
    for listener in _listeners(ledger):
        listener.hear(arrived.topic, arrived.payload)


async def _exchange(link: Link, ledger: Ledger, counts: LedgerCounts) -> None:
    """Take messages as they come, in groups; publish the receipts. Ends by LinkError."""
    waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MOST_MESSAGES)

    async def listen() -> None:
        async for arrived in link:
            if (gateway := gateway_of(arrived.topic)) is not None:
                await waiting.put((gateway, arrived.payload))
            else:
                _hear(ledger, arrived)

    async def work() -> None:
        while True:
            group = [await waiting.get()]
            while not waiting.empty() and len(group) < MOST_MESSAGES:
                group.append(waiting.get_nowait())
            receipts = {gateway: receipt for gateway, payload in group if (receipt := ledger.take(gateway, payload))}
            receipts |= ledger.commit()
            ledger.look()
            for gateway, receipt in receipts.items():
                await link.publish(receipt_topic(gateway), receipt)
                counts.receipts += 1

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            ledger.beat()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(), name="ledger.listen")
        tasks.create_task(work(), name="ledger.work")
        tasks.create_task(beat(), name="ledger.beat")
