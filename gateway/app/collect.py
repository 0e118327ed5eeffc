"""The collect process: polls the OT zone and hands what it read to the seal. No log key, no disk, no DMZ."""

import asyncio
from pathlib import Path

from gateway.app.collector import Collector
from gateway.app.control import Control
from gateway.app.counts import CollectCounts
from gateway.app.entry import settle
from gateway.app.fleet import Fleet
from gateway.app.logs import start_logs
from gateway.app.metrics import serve_metrics
from gateway.app.outbox import Outbox
from gateway.app.seallink import SealLink
from gateway.app.source import kept_source


async def run_collect(file: Path) -> None:
    """Run collect by a gateway.toml until it is cancelled. Raises ConfigError."""
    log = start_logs("collect")
    source = kept_source(file, say=lambda why: log.error("config.kept", why=why))
    config, counts = source.config, CollectCounts()
    outbox = Outbox(most_bytes=config.collect.queue_mb << 20)
    collector = Collector(config, outbox, counts, log)
    link = SealLink(config.run_folder / "inlet.sock", outbox, counts, log)
    collector.announce(source.sha256)
    metrics = await serve_metrics(
        "collect", counts, socket=config.run_folder / "collect.metrics.sock", address=config.collect.metrics
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            fleet = Fleet(collector, config, tasks)
            control = Control(fleet, collector, source, file, log)
            metrics.append(await control.listen(config.run_folder / "collect.control.sock"))
            tasks.create_task(link.run(), name="collect.seal")
            tasks.create_task(collector.beat(), name="collect.beat")
            tasks.create_task(control.watch(), name="collect.control")
            fleet.start()
            settle()
            log.info("collect.ready", devices=len(config.devices), buses=len(collector.buses))
            try:
                await asyncio.Event().wait()
            finally:
                await fleet.close()
    finally:
        await link.drain(within_s=2.0)
        for server in metrics:
            server.close()
