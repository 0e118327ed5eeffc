"""Follows rows from their source time to their receipt, in the gateway's own log."""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from gateway.codec.leaves import parse
from gateway.errors import LogError
from gateway.store.files import RealFiles
from gateway.store.marks import load_mark
from gateway.store.segments import Log
from hil.bench.site import GATEWAY
from hil.bench.usage import percentile

_NS: Final = 1_000_000_000
_PEEK_S: Final = 0.005
_READ_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """When a receipt for all leaves below size stood on the gateway's disk."""

    size: int
    t_ns: int


async def watch_receipts(log_folder: Path, seen: list[Receipt]) -> None:
    """Add each receipt as it comes, until cancelled."""
    path, last_ns = log_folder / "receipt", 0
    while True:
        await asyncio.sleep(_PEEK_S)
        try:
            changed_ns = os.stat(path).st_mtime_ns  # noqa: PTH116 - 200 times a second
            if changed_ns == last_ns:
                continue
            now_ns = time.time_ns()
            mark = load_mark(RealFiles(log_folder), "receipt", origin=f"wattseal/{GATEWAY}")
        except (FileNotFoundError, LogError):
            continue
        last_ns = changed_ns
        if mark is not None:
            seen.append(Receipt(size=mark.size, t_ns=now_ns))


def timing(log_folder: Path, seen: list[Receipt], *, first: int, period_s: float) -> Mapping[str, float]:
    """Return how even and how quick the rows from leaf first on were, in seconds; percentiles.

    latency: from source time to receipt. jitter: by how much the time between two rows of a device differs from the
    period. lag: of a row behind its tick. The site must be stopped.
    """
    sizes = [receipt.size for receipt in seen]
    period_ns = round(period_s * _NS)
    latencies: list[float] = []
    rows: dict[bytes, list[int]] = {}
    for index, device, t_ns in _rows(log_folder, first):
        rows.setdefault(device, []).append(t_ns)
        if (place := bisect_right(sizes, index)) < len(seen):
            latencies.append((seen[place].t_ns - t_ns) / _NS)
    jitters = [abs(b - a - period_ns) / _NS for times in rows.values() for a, b in pairwise(times)]
    lags = [t_ns % period_ns / _NS for times in rows.values() for t_ns in times]
    return {
        f"{name}_{label}_s": round(percentile(sorted(values), share), 6) if values else -1.0
        for name, values in (("latency", latencies), ("jitter", jitters), ("lag", lags))
        for label, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
    } | {"devices": len(rows), "rows": sum(map(len, rows.values()))}


def _rows(log_folder: Path, first: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the leaf, the schema and the source time of each row."""
    log = Log.open(RealFiles(log_folder), origin=f"wattseal/{GATEWAY}")
    while first < log.durable:
        bodies = log.read(first, _READ_BYTES, log.durable)
        for index, body in enumerate(bodies, first):
            if body is not None and (leaf := parse(body)).kind == "readings":
                yield from ((index, row[0], row[1]) for row in leaf.body.get("rows", ()))
        first += len(bodies)
    log.close()
