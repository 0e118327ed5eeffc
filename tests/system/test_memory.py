"""Memory stays flat over a long run at a high rate, with a thousand lost connections in it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.system.books import check_recorded, check_values, read_books
from tests.system.meters import serving_meters
from tests.system.site import Site, running_site

RECONNECTS = 1000
METERS, PERIOD_S = 60, 0.2
EVERY = 20
"""Reconnects from one look at the memory to the next."""
WARM = 0.3
"""The share of the run after which caches and pools have their size."""
MOST_GROWTH = 3 << 20
"""From there to the end of the run, in bytes."""


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def open_files(pid: int) -> int:
    """Return how many files and sockets a process holds open."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def growth(samples: Sequence[int]) -> float:
    """Return by how much a straight line through the samples rises from the first to the last."""
    n = len(samples)
    mean_x, mean_y = (n - 1) / 2, sum(samples) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(samples))
    return slope / sum((x - mean_x) ** 2 for x in range(n)) * (n - 1)


def test_growth_is_what_a_line_through_the_samples_rises_by() -> None:
    assert growth([5, 6, 7, 8]) == pytest.approx(3)
    assert growth([5, 9, 5, 9, 5]) == pytest.approx(0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_memory_is_flat_over_a_thousand_reconnects_at_a_high_rate(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each time forward has just got a receipt, its connection to the broker is cut."""
    samples: dict[str, list[int]] = defaultdict(list)
    async with (
        serving_meters(METERS, ports=1) as meters,
        running_site(tmp_path, devices=meters.devices(period_s=PERIOD_S)) as site,
    ):
        await site.flows()
        assert site.broker is not None
        pids = {name: part.pid for name, part in site.parts.items()} | {"broker": site.broker.pid}
        before = {name: open_files(pid) for name, pid in pids.items()}
        for count in range(RECONNECTS):
            await _reconnect(site)
            if count % EVERY == 0:
                for name, pid in pids.items():
                    samples[name].append(resident(pid))
        after = {name: open_files(pid) for name, pid in pids.items()}
        metrics = await site.settle()
    assert max(after[name] - before[name] for name in pids) < 10, (before, after)
    _show(samples, metrics, capfd)
    assert metrics["wattseal_forward_reconnects_total"] >= RECONNECTS
    assert site.recorder is not None
    books = read_books(tmp_path)
    check_recorded(books, site.recorder)
    check_values(books)
    grown = {name: growth(held[int(WARM * len(held)) :]) for name, held in samples.items()}
    assert max(grown.values()) < MOST_GROWTH, grown


async def _reconnect(site: Site) -> None:
    """Cut forward off, and wait until it has got a receipt over a new connection."""
    before = await site.metrics()
    site.proxies["forward"].cut()

    def is_back(now: Mapping[str, float]) -> bool:
        return (
            now.get("wattseal_forward_reconnects_total", 0) > before["wattseal_forward_reconnects_total"]
            and now.get("wattseal_forward_connected") == 1
            and now.get("wattseal_forward_last_receipt_size", 0) > before["wattseal_forward_last_receipt_size"]
        )

    await site.until(is_back, within_s=30, what="forward is back")


def _show(
    samples: Mapping[str, Sequence[int]], metrics: Mapping[str, float], capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        print(  # noqa: T201
            f"\n{metrics['wattseal_forward_reconnects_total']:.0f} reconnects, "
            f"{metrics['wattseal_collect_readings_total']:.0f} readings, {metrics['wattseal_seal_log_size']:.0f} leaves"
        )
        for name, held in samples.items():
            warm = held[int(WARM * len(held)) :]
            print(  # noqa: T201
                f"{name:8} {held[0] / 2**20:6.1f} MiB at first, {warm[0] / 2**20:6.1f} warm, {held[-1] / 2**20:6.1f} "
                f"at last; grows {growth(warm) / 2**20:+.2f} MiB once warm"
            )
