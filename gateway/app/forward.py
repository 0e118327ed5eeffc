"""The forward process: leaves from the seal to the ledger, receipts back. It holds no key of the log and no state.

Whatever is lost on the way (a message, a receipt, the broker, this process) is sent again from the last receipt.
"""

import asyncio
import time
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.app.backoff import Backoff, attempt
from gateway.app.clientkey import LOOK_S, RENEW_AT, TRY_S, ClientKey, client_key
from gateway.app.forwarding import CHUNK_BYTES, ForwardMetrics, Session
from gateway.app.logs import start_logs
from gateway.app.metrics import serve_metrics
from gateway.config import GatewayConfig
from gateway.errors import LinkError

_STEADY_S = 10.0


async def forward(
    *,
    gateway: str,
    outlet: Path,
    client: ClientKey,
    log: FilteringBoundLogger,
    metrics: ForwardMetrics,
    chunk_bytes: int = CHUNK_BYTES,
    attests: bool = False,
) -> None:
    """Forward until cancelled; connect again to the seal and the broker whenever either is lost.

    outlet: the seal's socket. client: what we show the broker. attests: whether the seal answers a verifier.
    Raises ConfigError when a certificate or key is unusable.
    """
    loop = asyncio.get_running_loop()
    backoff = Backoff()
    is_down = False
    while True:
        session = Session(gateway=gateway, metrics=metrics, log=log, chunk_bytes=chunk_bytes, attests=attests)
        began_s, why = loop.time(), ""
        try:
            await attempt(session.run(outlet, client), name="forward.session")
        except* LinkError as group:
            why = "; ".join(sorted({str(error) for error in _flat(group)}))
        finally:
            metrics.connected = metrics.in_flight = 0
        metrics.reconnects += 1
        if session.was_connected or not is_down:
            log.warning("forward.lost", why=why)
            is_down = True
        if session.has_advanced or (session.was_connected and loop.time() - began_s > _STEADY_S):
            backoff.reset()
        await asyncio.sleep(backoff.next_s())


def _flat(group: BaseExceptionGroup[LinkError]) -> list[LinkError]:
    flat: list[LinkError] = []
    for error in group.exceptions:
        flat += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return flat


async def run_forward(config: GatewayConfig) -> None:
    """Run forward until it is cancelled. Raises ConfigError when a certificate or key is unusable."""
    log = start_logs("forward")
    counts = ForwardMetrics()
    client = client_key(config, log=log)
    socket = config.run_folder / "forward.metrics.sock"
    servers = await serve_metrics("forward", counts, socket=socket, address=config.forward.metrics)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch_certificate(client, counts, log), name="forward.certificate")
            await forward(
                gateway=config.gateway.id,
                outlet=config.run_folder / "outlet.sock",
                client=client,
                log=log,
                metrics=counts,
                attests=config.attest is not None,
            )
    finally:
        for server in servers:
            server.close()


async def watch_certificate(
    client: ClientKey, counts: ForwardMetrics, log: FilteringBoundLogger, *, look_s: float = LOOK_S
) -> None:
    """Show for ever when the certificate ends, and warn once of each that has less than a third of its life left.

    A certificate that is issued is renewed before: whoever has not got another one a minute later is warned.
    """
    warned = None
    while True:
        life = first_s, last_s = client.life
        counts.certificate_expires_seconds = last_s
        left_s = last_s - time.time()
        if last_s and life != warned and left_s < (last_s - first_s) * (1 - RENEW_AT) - TRY_S:
            log.warning("forward.certificate_ends", hours=round(left_s / 3600, 2), key_in=client.backend)
            warned = life
        await asyncio.sleep(look_s)
