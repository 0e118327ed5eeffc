"""The broker, the ledger or the seal are away for a while: polling goes on, and afterwards everything arrives."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.app.window import CHUNKS
from tests.system.books import Books, check_recorded, check_values, read_books, worst_hole
from tests.system.meters import serving_meters
from tests.system.site import Site, eventually, running_site

PERIOD_S = 0.5
LOAD_S = 0.75
"""What a loaded machine may add to a period before it counts as a hole."""
METERS, FAST_S, QUEUE_MB = 60, 0.1, 1
"""A load that overflows the smallest queue within seconds."""


class Watch:
    """Looks at the metrics all along; most: the highest value that each ever had."""

    def __init__(self, site: Site) -> None:
        self.most: dict[str, float] = {}
        self._site = site

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.note(await self._site.metrics())
            await asyncio.sleep(0.2)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Keep the highest of each."""
        for name, value in metrics.items():
            self.most[name] = max(value, self.most.get(name, value))


async def outage(site: Site, kind: str, seconds: float) -> float:
    """Keep the broker or the ledger away for some seconds; return the size of the log at its end.

    While the broker is away, the ledger restarts, so that it has nothing to go by but its own disk.
    """
    assert site.broker is not None
    ledger = site.parts["ledger"]
    if kind == "broker stopped":
        await site.broker.stop()
    elif kind == "broker silent":
        for proxy in site.proxies.values():
            proxy.darken()
    else:
        await ledger.stop()
    await asyncio.sleep(1.0)
    before = (await site.metrics())["wattseal_seal_receipt_size"]
    await asyncio.sleep(seconds / 2)
    if kind != "ledger stopped":
        await ledger.stop()
        ledger.start()
    await asyncio.sleep(seconds / 2)
    metrics = await site.metrics()
    assert metrics["wattseal_seal_receipt_size"] == before, "something got through"
    assert metrics["wattseal_seal_log_size"] > before + seconds, "the seal waits for the north"
    if kind == "broker stopped":
        await site.broker.start()
    elif kind == "broker silent":
        for proxy in site.proxies.values():
            proxy.lighten()
    else:
        ledger.start()
    return metrics["wattseal_seal_log_size"]


async def arrived(site: Site, size: float) -> float:
    """Wait until all below this size has a receipt; return how long it took, in seconds."""
    return await site.until(
        lambda m: m.get("wattseal_seal_receipt_size", 0) >= size, within_s=30, what="all of before arrives"
    )


def check_all(site: Site, watch: Watch, metrics: Mapping[str, float]) -> Books:
    """Check what holds after any outage in the north."""
    assert site.recorder is not None
    books = read_books(site.folder)
    check_values(books)
    check_recorded(books, site.recorder)
    assert worst_hole(books, site.pulse) <= 2 * PERIOD_S + LOAD_S
    assert len(books.boots()) == 1
    assert len(books.events("seal.started")) == 1
    assert metrics["wattseal_collect_dropped_rows_total"] == 0
    assert site.recorder.fulls == 0
    assert watch.most["wattseal_forward_in_flight"] <= CHUNKS
    assert watch.most["wattseal_collect_queue_bytes"] < 64 * 1024, "collect waits for the north"
    return books


@pytest.mark.alone
async def test_a_broker_that_stops_or_goes_silent_and_a_ledger_that_is_away_cost_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some seconds each, one after the other. What is sent to an absent ledger, the broker throws away."""
    took_s = {}
    async with running_site(tmp_path, period_s=PERIOD_S) as site:
        await site.flows()
        watch = Watch(site)
        watching = asyncio.create_task(watch.run())
        for kind, seconds in {"broker stopped": 8.0, "broker silent": 8.0, "ledger stopped": 6.0}.items():
            took_s[kind] = await arrived(site, await outage(site, kind, seconds))
        watching.cancel()
        metrics = await site.settle()
    show(site, check_all(site, watch, metrics), took_s, capfd)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["broker stopped", "broker silent", "ledger stopped"])
async def test_minutes_without_a_broker_or_a_ledger_cost_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Two minutes: longer than every timeout and every back-off on the way."""
    async with running_site(tmp_path, period_s=PERIOD_S) as site:
        await site.flows()
        watch = Watch(site)
        watching = asyncio.create_task(watch.run())
        took_s = {kind: await arrived(site, await outage(site, kind, 120.0))}
        watching.cancel()
        metrics = await site.settle()
    show(site, check_all(site, watch, metrics), took_s, capfd)


def show(site: Site, books: Books, took_s: Mapping[str, float], capfd: pytest.CaptureFixture[str]) -> None:
    """Print how long it took after each outage until all was there."""
    after = ", ".join(f"{kind}: {seconds:.1f} s" for kind, seconds in took_s.items())
    with capfd.disabled():
        print(  # noqa: T201
            f"\n{len(books.leaves)} leaves, all arrived, after what it was without ({after}); "
            f"worst hole {worst_hole(books, site.pulse):.2f} s of {PERIOD_S:g} s"
        )


@pytest.mark.alone
async def test_what_the_queue_cannot_hold_is_dropped_counted_and_written_down(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A frozen seal and a queue of 1 MB: the oldest readings go, an event leaf says how many, and polling goes on."""
    async with serving_meters(METERS, ports=1) as meters:
        devices = meters.devices(period_s=FAST_S)
        async with running_site(tmp_path, devices=devices, more=f"\n[collect]\nqueue_mb = {QUEUE_MB}\n") as site:
            await site.flows()
            most_bytes = await _overflow(site)
            await meters.stop()
            read = await _rows_read(site)
            metrics = await site.settle()
    assert site.recorder is not None
    books = read_books(tmp_path)
    check_recorded(books, site.recorder)
    told = books.events("collect.dropped")
    rows = [placed for rows in books.rows().values() for placed in rows if placed.is_good]
    dropped = sum(event["about"]["rows"] for event in told)
    with capfd.disabled():
        print(  # noqa: T201
            f"\nseal frozen: {read:.0f} rows read, {len(rows)} sealed, {dropped} dropped in {len(told)} events; "
            f"the queue held {most_bytes / 1e6:.2f} MB at most"
        )
    assert dropped == metrics["wattseal_collect_dropped_rows_total"] > 0
    assert len(rows) + dropped == read
    assert all(event["about"]["kinds"] == ["readings"] for event in told)
    _check_missing(books, dropped + metrics["wattseal_collect_missed_ticks_total"], told[0]["about"]["since"])


async def _overflow(site: Site) -> float:
    """Freeze the seal until rows are dropped, and a little longer; return the most bytes that collect held."""
    most = 0.0

    def drops(metrics: Mapping[str, float]) -> bool:
        nonlocal most
        most = max(most, metrics.get("wattseal_collect_queue_bytes", 0.0))
        return metrics.get("wattseal_collect_dropped_rows_total", 0) > 1000

    socket = site.run_folder / "seal.metrics.sock"
    aside = socket.rename(socket.with_suffix(".aside"))  # or each look at the metrics waits for the frozen one
    site.parts["seal"].freeze()
    await site.until(drops, within_s=60, what="the queue overflows")
    site.parts["seal"].thaw()
    aside.rename(socket)
    in_flight = 16 * 65_536  # as gateway/app/outbox.py: what was sent already is kept until it is answered
    assert most <= QUEUE_MB * (1 << 20) + in_flight + 2 * 65_536
    return most


async def _rows_read(site: Site) -> float:
    """Return how many rows collect has read, once it reads no more."""
    read = -1.0

    async def is_steady() -> bool:
        nonlocal read
        before, read = read, (await site.metrics()).get("wattseal_collect_rows_total", -2.0)
        return before == read

    await eventually(is_steady, within_s=20, what="collect reads no more", every_s=0.5)
    return read


def _check_missing(books: Books, told: float, since_ns: int) -> None:
    """Fail unless as many ticks are missing as were told, and one of them at the time that the event names."""
    missing, gaps = 0, []
    for rows in books.rows().values():
        good = [placed.t_s for placed in rows if placed.is_good]
        missing += round((good[-1] - good[0]) / FAST_S) + 1 - len(good)
        gaps += [(one, next_one) for one, next_one in pairwise(good) if next_one - one > 5 * FAST_S]
    assert abs(missing - told) <= 2 * METERS, f"{missing} ticks are missing, {told:.0f} were told"
    assert any(one < since_ns / 1e9 < next_one for one, next_one in gaps)
