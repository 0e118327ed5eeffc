"""kill -9 at random moments: what the seal acknowledged is never lost, and polling goes on."""

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.app.load import load_ledger
from gateway.app.rebuild import dump_sha256, rebuild
from gateway.store.projections import Projections
from tests.system.books import Books, check_recorded, check_values, read_books, worst_hole
from tests.system.pulse import Pulse
from tests.system.site import Part, Site, running_site

SEED = int(os.environ.get("WATTSEAL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Other moments each time; the seed of a run that failed stands in its output."""
GAPS_S = (0.2, 1.5)
PERIOD_S = 0.5
FLUSH_S = 0.5  # as gateway/app/collector.py
AWAY_S = 4.0
"""Longer than any hole that may be."""
LOAD_S = 0.75
"""What a loaded machine may add to a period before it counts as a hole."""


async def kill(site: Site, name: str, chance: random.Random) -> None:
    """Kill a part of the site: at any moment, or just when it has got something to do."""
    assert site.broker is not None
    assert site.recorder is not None
    busy = {"seal": site.recorder.handed, "ledger": site.proxies["ledger"].moved}.get(name)
    if busy is not None and chance.random() < 0.6:
        busy.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await busy.wait()
        await asyncio.sleep(chance.uniform(0, 0.02) * chance.random())
    await (site.broker if name == "broker" else site.parts[name]).kill()


def deck(chance: random.Random, names: Sequence[str], each: int) -> list[str]:
    """Return each name so many times, shuffled."""
    cards = [*names] * each
    chance.shuffle(cards)
    return cards


def check_all(site: Site) -> Books:
    """Check everything that holds whatever was killed."""
    assert site.recorder is not None
    books = read_books(site.folder)
    check_values(books)
    count = check_recorded(books, site.recorder)
    starts = len(site.parts["seal"].pids)
    assert len(books.events("seal.started")) <= starts
    check_tables(site.folder)
    print(  # noqa: T201
        f"\nseed {SEED}: {len(books.leaves)} leaves, {count} acknowledged batches, none lost; {starts} seals, "
        f"{len(books.boots())} collects; worst hole {worst_hole(books, site.pulse):.2f} s of {PERIOD_S:g} s"
    )
    return books


def check_tables(folder: Path) -> None:
    """Fail unless the ledger's tables are what its logs say, however often it was killed while it wrote them."""
    book = Projections(folder / "ledger" / "projections.sqlite")
    before = dump_sha256(book)
    book.close()
    assert rebuild(load_ledger(folder / "ledger.toml"), say=lambda _: None) == before


@pytest.mark.alone
async def test_nothing_acknowledged_is_lost_and_polling_goes_on_while_all_but_collect_are_killed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Five kills each of seal, forward, ledger and broker, and a seal that stays away: no device has a hole."""
    chance = random.Random(SEED)
    async with running_site(tmp_path, period_s=PERIOD_S) as site:
        await site.flows()
        for name in deck(chance, ("seal", "forward", "ledger", "broker"), 5):
            await asyncio.sleep(chance.uniform(*GAPS_S))
            await kill(site, name, chance)
        await site.parts["seal"].stop()
        await asyncio.sleep(AWAY_S)
        site.parts["seal"].start()
        await site.hands_over()
        metrics = await site.settle()
    with capfd.disabled():
        books = check_all(site)
    assert len(books.boots()) == len(site.parts["collect"].pids) == 1
    assert len(books.events("seal.started")) > 1, "no seal was killed while it ran"
    assert metrics["wattseal_collect_dropped_rows_total"] == 0
    assert worst_hole(books, site.pulse) <= 2 * PERIOD_S + LOAD_S
    began_s, ended_s = books.events("collect.started")[0]["t"] / 1e9, site.at_rest_ns / 1e9
    lasted_s = ended_s - began_s - site.pulse.stood_still(began_s, ended_s)
    for device, rows in books.rows().items():
        assert len(rows) >= 0.9 * (lasted_s / PERIOD_S - 2), f"{device}: {len(rows)} rows in {lasted_s:.1f} s"


@pytest.mark.alone
async def test_a_killed_collect_costs_one_batch_and_an_event_leaf_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it held is what it had read since it last handed over; the next start announces itself under a new boot."""
    chance = random.Random(SEED)
    async with running_site(tmp_path, period_s=PERIOD_S) as site:
        await site.flows()
        collect = site.parts["collect"]
        for _ in range(5):
            before = len(site.recorder.boots) if site.recorder else 0
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            await collect.kill()
            await site.until(lambda _, b=before: len(site.recorder.boots) > b, within_s=20, what="a new collect")  # type: ignore[misc,union-attr]
            await asyncio.sleep(0.8)
        await site.settle()
    with capfd.disabled():
        books = check_all(site)
    boots = books.boots()
    assert len(boots) == 6
    started = books.events("collect.started")
    assert [event["about"]["boot"] for event in started] == [boot.hex() for boot in boots]
    assert [event["about"]["pid"] for event in started] == collect.pids
    check_loss(books, collect, site.pulse)


def check_loss(books: Books, collect: Part, pulse: Pulse) -> None:
    """Fail where more is missing before a kill than what had been read since the last hand-over."""
    rows = sorted((placed for rows in books.rows().values() for placed in rows), key=lambda placed: placed.t_s)
    for boot, killed_ns in zip(books.boots(), collect.killed_ns, strict=False):
        last_s = max((placed.t_s for placed in rows if placed.boot == boot), default=0)
        held_s = killed_ns / 1e9 - last_s - pulse.stood_still(last_s, killed_ns / 1e9)
        assert held_s <= FLUSH_S + PERIOD_S + LOAD_S, f"{boot.hex()}: lost more than a batch"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "victims",
    [("collect", "seal", "forward", "ledger", "broker"), ("seal", "ledger")],
    ids=["of all parts", "of the two that hold a log"],
)
async def test_200_random_kills_lose_nothing_that_was_acknowledged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], victims: tuple[str, ...]
) -> None:
    """Several at once, too, and again while they still start."""
    chance = random.Random(SEED)
    async with running_site(tmp_path, period_s=PERIOD_S) as site:
        await site.flows()
        killed = 0
        while killed < 200:
            await asyncio.sleep(chance.uniform(*GAPS_S))
            names = chance.sample(victims, chance.choice([1, 1, 1, 2, 2, len(victims)]))
            await asyncio.gather(*(kill(site, name, chance) for name in names))
            killed += len(names)
        await site.settle(within_s=120)
    with capfd.disabled():
        print(f"\n{killed} kills of {', '.join(victims)}")  # noqa: T201
        books = check_all(site)
    assert worst_hole(books, site.pulse) <= 2 * PERIOD_S + 2 * LOAD_S
