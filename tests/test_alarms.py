"""Many wait for one time with one timer."""

import asyncio
import time

from gateway.app.alarms import Alarms

MS = 1_000_000


async def test_all_who_wait_for_a_time_are_woken_at_it_with_one_timer() -> None:
    alarms = Alarms()
    began_ns = time.time_ns()
    waiting = [alarms.until(began_ns + 50 * MS, began_ns) for _ in range(40)]
    waiting += [alarms.until(began_ns + 80 * MS, began_ns)]
    assert len(alarms._sleepers) == 2, "a timer for each time"
    await asyncio.gather(*waiting[:40])
    assert 48 * MS < time.time_ns() - began_ns < 75 * MS
    assert not waiting[40].done()
    await waiting[40]
    assert time.time_ns() - began_ns > 78 * MS
    assert not alarms._sleepers, "nothing is left behind"


async def test_very_many_wake_in_the_order_of_their_ranks_and_not_all_at_once() -> None:
    alarms = Alarms()
    began_ns = time.time_ns()
    woken: list[int] = []

    async def wait(rank: int) -> None:
        await alarms.until(began_ns + 20 * MS, began_ns, rank=rank)
        woken.append(rank)

    tasks = [asyncio.create_task(wait(rank)) for rank in reversed(range(175))]
    seen = set()
    while len(woken) < 175:
        await asyncio.sleep(0.001)
        seen.add(len(woken))
    await asyncio.gather(*tasks)
    assert woken == list(range(175))
    assert seen >= {50, 100, 150}


async def test_one_who_gives_up_disturbs_no_other() -> None:
    alarms = Alarms()
    now_ns = time.time_ns()

    async def wait() -> None:
        await alarms.until(now_ns + 20 * MS, now_ns)

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [type(None), asyncio.CancelledError, type(None)]


async def test_a_time_that_has_passed_wakes_in_the_next_turn() -> None:
    alarms = Alarms()
    now_ns = time.time_ns()
    async with asyncio.timeout(0.5):
        await alarms.until(now_ns + 1, now_ns)
