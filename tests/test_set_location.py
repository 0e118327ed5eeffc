"""`set-location`: the provider says which zone covers a place, and the feed keeps to it."""

import asyncio
import json
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.config.location import parse_location
from gateway.errors import ConfigError
from hil.plant.grid.answer import Answer, Request, World
from hil.plant.grid.electricity_maps import ElectricityMaps
from hil.plant.grid.server import REVISION, GridServer
from tests.feeding import DAY_S, HOUR_S, KEYS, NOW_S, REGIONS, S, standing

LEDGER = """\
[ledger]
name = "acme"
key = "ledger.key"
factors = "factors.toml"
state = "state"
[broker]
broker = "127.0.0.1:1"
ca = "ca"
cert = "cert"
key = "key"
[gateways.gw1]
key = "gw1.vkey"
"""


@contextmanager
def serving(provider: str, fault: str = "") -> Iterator[GridServer]:
    """Give a replay server that runs in a thread of its own, for commands that have their own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="replay")
    thread.start()
    server = GridServer(provider, faults=(fault,) if fault else ())
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def site(folder: Path, **feeds: str) -> Path:
    """Write a ledger.toml with these feeds: name to their lines."""
    (folder / "state").mkdir(exist_ok=True)
    tables = "".join(f"[feeds.{name}]\n{lines}\n" for name, lines in feeds.items())
    (folder / "ledger.toml").write_text(LEDGER + tables)
    return folder / "ledger.toml"


def feed(provider: str, server: GridServer, **more: str) -> str:
    """Return the lines of a feed."""
    return "".join(
        f'{key} = "{value}"\n'
        for key, value in {"provider": provider, "zone": "HOME", "url": server.url, **more}.items()
    )


def ran(folder: Path, *arguments: str, key: str = KEYS["electricitymaps"], name: str = "main") -> Any:
    """Run the command in a folder."""
    code = f"import sys; from gateway.cli import {name}; sys.argv[0] = 'x'; {name}()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={"CARBON_API_KEY": key, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


BERLIN = ("--lat", "52.52", "--long", "13.405")


def test_a_place_is_pinned_to_its_zone_and_shown(tmp_path: Path) -> None:
    with serving("electricitymaps") as server:
        site(tmp_path, de=feed("electricitymaps", server))
        done = ran(tmp_path, "admin", "set-location", *BERLIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "electricitymaps zone DE" in done.stdout
    assert "latitude 52.52, longitude 13.405" in done.stdout
    location = parse_location((tmp_path / "state" / "location.json").read_text())
    assert (location.regions["de"].region, location.latitude, location.longitude) == ("DE", "52.52", "13.405")
    (request,) = server.requests
    assert request.query["shouldUseFallbackCallerLookup"] == "false"
    assert stat.S_ISREG((tmp_path / "state" / "location.json").stat().st_mode)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["location.json"]


def test_ems_admin_has_it_at_the_top_with_lon_and_json(tmp_path: Path) -> None:
    with serving("electricitymaps") as server:
        site(tmp_path, de=feed("electricitymaps", server))
        done = ran(tmp_path, "set-location", "--lat", "48.85", "--lon", "2.35", "--json", name="admin")
    found = json.loads(done.stdout)
    assert found["feeds"] == {"de": {"provider": "electricitymaps", "zone": "FR", "name": "FR"}}
    assert found["pinned"] is True


def test_a_dry_run_shows_and_pins_nothing(tmp_path: Path) -> None:
    with serving("watttime") as server:
        site(tmp_path, ca=feed("watttime", server))
        given = ("admin", "set-location", "--lat", "37.77", "--long", "-122.42", "--dry-run")
        done = ran(tmp_path, *given, "--provider", "watttime", key=KEYS["watttime"])
    assert "watttime zone CAISO_NORTH (California ISO Northern)" in done.stdout
    assert "nothing is pinned" in done.stdout
    assert not list((tmp_path / "state").iterdir())


def test_a_place_that_no_zone_covers_is_never_the_caller_s(tmp_path: Path) -> None:
    with serving("electricitymaps") as server:
        site(tmp_path, de=feed("electricitymaps", server))
        done = ran(tmp_path, "admin", "set-location", "--lat", "0", "--long", "-30")
    assert done.returncode == 1
    assert "404" in done.stderr
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lat", "91", "--long", "0"), "--lat: got '91', want a number of degrees from -90 to 90"),
        (("--lat", "0", "--long", "-180.1"), "--long: got '-180.1'"),
        (("--lat", "nan", "--long", "0"), "--lat: got 'nan'"),
        (("--lat", "52,5", "--long", "0"), "--lat: got '52,5'"),
        (("--lat", "1e-9999999", "--long", "0"), "--lat: got '1e-9999999'"),
    ],
)
def test_degrees_out_of_range_are_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    site(tmp_path)
    done = ran(tmp_path, "admin", "set-location", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_provider_without_places_says_what_to_do(tmp_path: Path) -> None:
    site(tmp_path, gb='provider = "neso"\nzone = "GB"')
    done = ran(tmp_path, "admin", "set-location", *BERLIN)
    assert done.returncode == 2
    assert "want region in [feeds.gb]" in done.stderr


def test_without_feeds_there_is_nothing_to_pin(tmp_path: Path) -> None:
    site(tmp_path)
    done = ran(tmp_path, "admin", "set-location", *BERLIN)
    assert (done.returncode, "want [feeds.<name>]" in done.stderr) == (2, True)


def test_a_refused_key_fails_and_is_not_shown(tmp_path: Path) -> None:
    with serving("electricitymaps") as server:
        site(tmp_path, de=feed("electricitymaps", server))
        done = ran(tmp_path, "admin", "set-location", *BERLIN, key="not-the-token")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "not-the-token" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


# ---- in a running ledger


def pinned(region: str, at: str = "2026-11-22T10:00:00Z") -> str:
    """Return a location.json."""
    pin = {"provider": "electricitymaps", "region": region, "name": region}
    return json.dumps({"latitude": "48.85", "longitude": "2.35", "set_at": at, "regions": {"grid": pin, "old": pin}})


async def test_a_running_ledger_takes_a_location_up_and_seals_it_once(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.feeds.look(stand.now_s * S)
        await stand.feed.turn()
        assert {query["zone"] for query in stand.asked("carbon-intensity")} == {"DE"}
        (tmp_path / "location.json").write_text(pinned("FR"))
        for _ in range(3):
            stand.feeds.look(stand.now_s * S)
        stand.pass_time(HOUR_S)
        seen = len(stand.server.requests)
        await stand.feed.turn()
        asked = [(request.path.rpartition("/")[2], request.query["zone"]) for request in stand.server.requests[seen:]]
        assert asked[:3] == [("history", "FR"), ("latest", "FR"), ("forecast", "FR")]
        (event,) = stand.located()
        assert (event["region"], event["latitude"]) == ("FR", "48.85")
        stand.pass_time(HOUR_S)
        await stand.feed.turn()
        assert "zone FR" in stand.factors()[-1].source
        await stand.feed.close()
        stand.start()
        stand.feeds.look(stand.now_s * S)
        assert len(stand.located()) == 1
        (tmp_path / "location.json").write_text(pinned("DE", "2026-11-22T11:00:00Z"))
        stand.feeds.look(stand.now_s * S)
        assert [found["region"] for found in stand.located()] == ["FR", "DE"]


async def test_a_new_location_leaves_each_hour_before_it_with_the_region_of_then(tmp_path: Path) -> None:
    """Four days of DE, then FR: all re-polls of a quarter of a year, with two restarts, leave the old hours DE."""
    async with standing(tmp_path) as stand:
        for _ in range(4 * 24):
            await stand.feed.turn()
            stand.pass_time(HOUR_S)
        pinned_s = stand.now_s
        since_ns = -(-pinned_s // HOUR_S) * HOUR_S * S
        before = {factor.start_ns: factor for factor in stand.factors()}
        assert len(before) >= 96
        (tmp_path / "location.json").write_text(pinned("FR"))
        stand.feeds.look(stand.now_s * S)
        for day in range(95):
            stand.pass_time(DAY_S if day else HOUR_S)
            if day in {1, 40}:
                await stand.feed.close()
                stand.start()
                stand.feeds.look(stand.now_s * S)
            await stand.feed.turn()
        after = {factor.start_ns: factor for factor in stand.factors()}
        assert all("zone DE" in after[start].source for start in before)
        assert {after[start].g_per_kwh for start in before} == {factor.g_per_kwh for factor in before.values()}
        assert all(("zone FR" in factor.source) == (start >= since_ns) for start, factor in after.items())
        assert stand.regions() == [(0, "DE"), (since_ns, "FR")]
        assert not stand.whats("feed.refused")


async def test_revisions_of_the_hours_before_a_new_location_still_come_from_the_old_region(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        before = {factor.start_ns: factor for factor in stand.factors()}
        (tmp_path / "location.json").write_text(pinned("FR"))
        stand.feeds.look(stand.now_s * S)
        stand.server.fault("revised")
        stand.pass_time(HOUR_S)
        await stand.feed.turn()
        after = {factor.start_ns: factor for factor in stand.factors()}
        assert all("zone DE" in factor.source for factor in after.values() if factor.start_ns in before)
        measured = [start for start, factor in before.items() if factor.state == "measured"]
        assert {after[start].g_per_kwh - before[start].g_per_kwh for start in measured} == {REVISION}


async def test_another_region_in_ledger_toml_or_none_any_more_in_location_json_is_a_new_one_too(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        (tmp_path / "location.json").write_text(pinned("FR"))
        stand.feeds.look(stand.now_s * S)
        await stand.feed.turn()
        await stand.feed.close()
        (tmp_path / "location.json").unlink()
        stand.start()
        stand.pass_time(DAY_S)
        await stand.feed.turn()
        stand.pass_time(DAY_S)
        await stand.feed.turn()
        since_ns = -(-(NOW_S + DAY_S) // HOUR_S) * HOUR_S * S
        assert stand.regions() == [(0, "FR"), (since_ns, "DE")]
        sources = {(factor.start_ns >= since_ns, factor.source.rpartition(" ")[2]) for factor in stand.factors()}
        assert sources == {(False, "FR"), (True, "DE")}


async def test_a_region_that_never_answered_holds_for_no_hour(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        stand.feed.pin("XX", stand.now_s * S)
        stand.server.fault("404")
        for _ in range(3):
            stand.pass_time(HOUR_S)
            await stand.feed.turn()
        stand.server.fault()
        stand.feed.pin("DE", stand.now_s * S)
        await stand.feed.turn()
        assert stand.regions() == [(0, "DE")]
        assert all(one.end_ns == other.start_ns for one, other in pairwise(stand.factors()))


async def test_an_account_without_the_old_region_keeps_its_feed_up_and_the_old_hours(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        before = stand.factors()
        stand.server.provider = OnlyFrance()
        stand.feed.pin("FR", stand.now_s * S)
        for _ in range(3):
            stand.pass_time(DAY_S)
            assert await stand.feed.turn() == stand.section.period_s
        assert stand.factors()[: len(before)] == before
        (refused,) = [event for event in stand.events() if event["event"] == "feed.refused"]
        assert (refused["part"], refused["region"], refused["what"]) == ("history of DE", "DE", "forbidden")
        asked = stand.asked("past-range")
        assert "FR" in {query["zone"] for query in asked}


class OnlyFrance(ElectricityMaps):
    """As for an account of one zone."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        return super().answer(request, world) if request.query.get("zone") == "FR" else self.refusal(403)


async def test_a_new_location_wakes_a_feed_that_waits(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        task = asyncio.create_task(stand.feeds.run())
        while not stand.factors():
            await asyncio.sleep(0.01)
        (tmp_path / "location.json").write_text(pinned("FR"))
        stand.feeds.look(stand.now_s * S)
        while "FR" not in {request.query.get("zone") for request in stand.server.requests}:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_location_file_with_a_mistake_is_said_once_and_changes_nothing(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        (tmp_path / "location.json").write_text('{"regions": {}}')
        for _ in range(3):
            stand.feeds.look(stand.now_s * S)
        assert stand.logged() == ["feeds.location"]
        await stand.feed.turn()
        assert {query["zone"] for query in stand.asked("carbon-intensity")} == {REGIONS["electricitymaps"]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{" * 70_000,
        pinned("D E"),
        pinned("DE").replace("electricitymaps", "neso"),
        pinned("DE").replace("48.85", "98.85"),
        pinned("DE").replace('"48.85"', "48.85"),
        pinned("DE").replace("grid", "G rid"),
        pinned("DE").replace("set_at", "at"),
    ],
)
def test_a_location_of_no_use_is_refused(content: str) -> None:
    with pytest.raises(ConfigError, match=r"location\.json"):
        parse_location(content)
