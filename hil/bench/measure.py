"""Runs one case: its stages one by one, then the whole chain."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gateway.errors import GatewayError
from hil.bench.cases import Case
from hil.bench.follow import Receipt, timing, watch_receipts
from hil.bench.site import OURS, Plant, Sample, Site, running_plant, running_site
from hil.bench.stages import STAGES

_STAGE_WITHIN_S: Final = 60.0
_MOST_STAGE_S: Final = 1.5
_MILLION: Final = 1_000_000
CPU: Final = "cpu_s_per_million_points"

Figures = dict[str, Any]


async def measure(case: Case, *, seconds: float) -> Figures:
    """Return the figures of one case."""
    found: Figures = {"about": case.about, "stages": {}}
    async with running_plant(case) as plant:
        if case.stages:
            for stage in STAGES:
                about = {"case": case.name, "units": plant.units, "seconds": min(seconds, _MOST_STAGE_S)}
                found["stages"] |= await run_stage("hil.bench.stages", stage, about)
            found["plain_library"] = found["stages"].pop("plain")
        with TemporaryDirectory(prefix="wattseal-bench-") as name:
            found["end_to_end"] = await _chain(case, plant, Path(name), seconds=seconds)
    found["stages"]["mqtts"] = found["end_to_end"]["processes"]["forward"]
    if case.stages:
        ours = found["stages"]["poll"][CPU] + found["stages"]["decode"][CPU]
        found["plain_library"]["ratio_to_poll_and_decode"] = round(found["plain_library"][CPU] / ours, 2)
    return found


def _figures(*, points: float, seconds: float, cpu_s: float, rss_mb: float) -> Figures:
    return {
        "points_per_s": round(points / seconds, 1),
        CPU: round(cpu_s / points * _MILLION, 4),
        "cores": round(cpu_s / seconds, 4),
        "rss_mb": round(rss_mb, 1),
    }


async def run_stage(module: str, stage: str, about: Mapping[str, Any]) -> Figures:
    """Run a stage of a module in a process of its own, so that nothing else is in its figures.

    about: what the stage takes; its `seconds` are those of the measurement. Raises GatewayError when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, stage, json.dumps(about)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_STAGE_WITHIN_S + about["seconds"]):
            said, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode:
        raise GatewayError(f"bench: stage {stage} of {about['case']} ended with code {process.returncode}")
    return {name: _figures(**spent) for name, spent in json.loads(said).items()}


async def _chain(case: Case, plant: Plant, folder: Path, *, seconds: float) -> Figures:
    """Run the whole chain over a steady window."""
    seen: list[Receipt] = []
    async with running_site(case, plant, folder) as site:
        before = await _warmed_up(site)
        watching = asyncio.create_task(watch_receipts(site.log_folder, seen), name="bench.receipts")
        await asyncio.sleep(seconds * 2 if case.timed else seconds)
        after = await site.sample()
        if case.timed:
            await site.sample()  # so that what was read before has its receipt
        watching.cancel()
    found = _rates(case, before, after)
    if case.timed:
        first = int(before.metrics["wattseal_seal_log_size"])
        found["timing"] = timing(site.log_folder, seen, first=first, period_s=case.period_s)
    return found


async def _warmed_up(site: Site) -> Sample:
    """Return the state once all processes are at their pace."""
    for _ in range(2):
        await site.sample()
    return await site.sample()


def _rates(case: Case, before: Sample, after: Sample) -> Figures:
    """Return the figures of a window: of each process, and of those of the gateway together.

    What has reached the ledger counts; of collect and seal, what collect has read: the same where the chain keeps up.
    """
    seconds, points = after.at_s - before.at_s, len(case.points)

    def grown(metric: str) -> float:
        return after.metrics[f"wattseal_{metric}_total"] - before.metrics[f"wattseal_{metric}_total"]

    read, taken = grown("collect_readings"), grown("ledger_rows") * points
    processes: Mapping[str, Figures] = {
        name: _figures(
            points=read if name in {"plant", "collect", "seal"} else taken,
            seconds=seconds,
            cpu_s=usage.cpu_s - before.usage[name].cpu_s,
            rss_mb=usage.rss_mb,
        )
        for name, usage in after.usage.items()
    }
    rss_before_mb, rss_mb = (sum(sample.usage[name].rss_mb for name in OURS) for sample in (before, after))
    return {
        "points_per_s": round(taken / seconds, 1),
        CPU: round(sum(processes[name][CPU] for name in OURS), 4),
        "cores": round(sum(processes[name]["cores"] for name in OURS), 4),
        "rss_mb": round(rss_mb, 1),
        "rss_grown_mb": round(rss_mb - rss_before_mb, 1),
        "seconds": round(seconds, 2),
        "read_per_s": round(read / seconds, 1),
        "missed_ticks": grown("collect_missed_ticks"),
        "errors": grown("collect_errors"),
        "dropped_rows": grown("collect_dropped_rows"),
        "refused": grown("ledger_refused"),
        "processes": processes,
    }
