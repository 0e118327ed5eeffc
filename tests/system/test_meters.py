"""A meter that goes silent takes nobody with it, and nothing that it once said comes back as news."""

import asyncio
import math
from pathlib import Path

import pytest

from gateway.app.ticks import Breaker
from tests.system.books import Books, Placed, check_recorded, check_values, read_books
from tests.system.meters import Meters, serving_meters
from tests.system.site import Site, running_site

COUNT, DEAD = 32, 11
PERIOD_S, TIMEOUT_S = 1.0, 1.0  # the defaults of gateway.toml: a bus stands still while a dead meter is asked
LOAD_S = 0.5
"""What a loaded machine may add to how old a value is when its time is taken."""


def meter(index: int) -> str:
    return f"m{index}"


async def dies_and_comes_back(site: Site, dead_s: float, *both: Meters) -> tuple[float, float]:
    """Silence one meter for a while; return from when to when, UTC seconds."""
    began_s = max(meters.silence(DEAD) for meters in both)
    await asyncio.sleep(dead_s)
    ended_s = min(meters.revive(DEAD) for meters in both)
    await site.until(
        lambda m: m.get("wattseal_collect_devices_down") == 0,
        within_s=Breaker().most_s + 10,
        what="a meter that answers again is up",
    )
    return began_s, ended_s


def check_dead(books: Books, name: str, rows: list[Placed], began_s: float, ended_s: float) -> None:
    """Fail unless the meter's rows say nothing while it was dead, and the log says so once at each end."""
    while_dead = [placed for placed in rows if began_s + LOAD_S < placed.t_s < ended_s]
    assert len(while_dead) >= 0.5 * (ended_s - began_s) / PERIOD_S, "a dead meter must be seen to be dead"
    assert not any(placed.is_good for placed in while_dead)
    assert all(placed.row.values == (None,) * 60 for placed in while_dead)
    assert all(placed.row.status for placed in while_dead)
    asked = sum("waiting to ask again" not in placed.row.status for placed in while_dead)
    assert asked < 0.7 * len(while_dead), "a dead meter must not be asked each time"
    assert any(placed.is_good for placed in rows if placed.t_s > ended_s), "and back"
    (down,) = books.events("device.down", device=name)
    (up,) = books.events("device.up", device=name)
    assert began_s < down["t"] / 1e9 < began_s + 3 * PERIOD_S + LOAD_S
    assert up["t"] / 1e9 > ended_s


def lost_ticks(rows: list[Placed], began_s: float, ended_s: float) -> tuple[int, int]:
    """Return how many of the whole ticks of a span brought no good row, and how many there were."""
    ticks = {*range(math.ceil(began_s / PERIOD_S), math.floor(ended_s / PERIOD_S))}
    return len(ticks - {int(placed.t_s / PERIOD_S) for placed in rows if placed.is_good}), len(ticks)


@pytest.mark.alone
@pytest.mark.timeout(200)
@pytest.mark.parametrize("dead_s", [12, pytest.param(60, marks=pytest.mark.slow)])
async def test_one_dead_meter_of_32_disturbs_no_other_on_a_shared_bus_nor_on_own_connections(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], dead_s: int
) -> None:
    """The others keep 95 % of their ticks; the dead one is BAD without a value, and down and up once.

    On a shared bus its first silence costs the others a tick, for nobody knew; later ones cost nothing.
    """
    async with serving_meters(COUNT, ports=1) as shared, serving_meters(COUNT, ports=COUNT) as own:
        devices = shared.devices(period_s=PERIOD_S, timeout_s=TIMEOUT_S, prefix="s")
        devices += own.devices(period_s=PERIOD_S, timeout_s=TIMEOUT_S, prefix="o")
        async with running_site(tmp_path, devices=devices) as site:
            await site.flows()
            await asyncio.sleep(2.5)
            began_s, ended_s = await dies_and_comes_back(site, dead_s, shared, own)
            await asyncio.sleep(1.5)
            metrics = await site.settle()
    assert site.recorder is not None
    books = read_books(tmp_path)
    check_recorded(books, site.recorder)
    check_values(books)
    assert metrics["wattseal_collect_devices_down"] == 0
    found = books.rows()
    lost: dict[str, int] = {}
    for kind, meters in (("s", shared), ("o", own)):
        for index in range(COUNT):
            name, rows = f"{kind}m{index}", found[f"{kind}m{index}"]
            for placed in rows:
                meters.check(index, placed, within_s=TIMEOUT_S + LOAD_S)
            if index == DEAD:
                check_dead(books, name, rows, began_s, ended_s)
            else:
                lost[name], ticks = lost_ticks(rows, began_s, ended_s)
                assert not books.events("device.down", device=name)
    for kind, where in (("s", "a shared bus"), ("o", "own connections")):
        of_kind = [count for name, count in lost.items() if name[0] == kind]
        with capfd.disabled():
            print(  # noqa: T201
                f"\n1 of 32 meters dead for {dead_s} s on {where}: "
                f"the others lost {sum(of_kind)} of {31 * ticks} ticks, each at most {max(of_kind)} of {ticks}"
            )
        assert max(of_kind) <= max(1, ticks // 20) + math.ceil(site.pulse.stood_still(began_s, ended_s) / PERIOD_S)
