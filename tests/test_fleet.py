"""app/fleet.py and app/control.py: another configuration while it runs, without a tick lost where nothing differs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app.channel import connect
from gateway.app.control import Control, ask, check_applied, row_of, running_text
from gateway.app.fleet import Fleet
from gateway.app.source import applied_path, before_path, kept_source, source_of, store_applied
from gateway.errors import ConfigError, DeviceError, LinkError
from gateway.model import Change
from tests.test_collect import Meter, Site, configured, logger

PATIENCE_S = 10.0


class Teller(Meter):
    """A meter that tells changes by itself. following: how many are at it now."""

    following = 0

    async def follow(self, tell: object) -> None:
        """Follow until cancelled."""
        assert callable(tell)
        self.following += 1
        try:
            tell([Change(schema=self.schema, column=0, source_time_ns=time.time_ns(), value=1)])
            await asyncio.Event().wait()
        finally:
            self.following -= 1


@asynccontextmanager
async def fleet_of(site: Site) -> AsyncIterator[Fleet]:
    """Run the site's devices as a fleet."""
    site.collector.buses.clear()
    async with asyncio.TaskGroup() as tasks:
        fleet = Fleet(site.collector, site.config, tasks, drivers=site.drivers)
        fleet.start()
        beating = tasks.create_task(site.collector.beat())
        try:
            yield fleet
        finally:
            beating.cancel()
            await fleet.close()
            site.take()


async def test_devices_that_do_not_differ_go_on_and_the_others_change(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", own="m2"))
    async with fleet_of(site) as fleet:
        kept, gone = site.meters["m1"], site.meters["m2"]
        await asyncio.sleep(0.3)
        found = await fleet.apply(configured(tmp_path, "m1", own="m3"))
        assert [(delta.name, delta.what) for delta in found.changes] == [
            ("devices.m2", "removed"),
            ("devices.m3", "added"),
            ("lines.filling", "changed"),
        ]
        answers = gone.answers
        await asyncio.sleep(0.5)
        assert gone.closed == 1
        assert gone.answers <= answers + 1
        assert kept.closed == 0
        assert site.meters["m3"].answers >= 3
        assert {bus: [device.name for device in devices] for bus, devices in site.collector.buses.items()} == {
            "tcp://127.0.0.1:1": ["m1"],
            "m3": ["m3"],
        }
    ticks = [t_ns // 100_000_000 for t_ns, _ in kept.polls]
    assert site.counts.missed_ticks == 0
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks))), "no tick is lost, and none polled twice"


async def test_what_the_readings_need_stands_before_them(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1"))
    async with fleet_of(site) as fleet:
        await fleet.apply(configured(tmp_path, "m1", "m2"))
        await asyncio.sleep(0.3)
    known: set[bytes] = set()
    for kind, body in site.queued:
        if kind == "schema":
            known.add(body["id"])
        if kind == "readings":
            assert all(row[0] in known for row in body["rows"])
        if kind == "interval":
            assert body["schema"] in known


async def test_what_wants_a_restart_changes_nothing(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1"))
    async with fleet_of(site) as fleet:
        other = source_of(_text("m1").replace('id = "gw1"', 'id = "gw2"'), tmp_path / "gateway.toml").config
        with pytest.raises(ConfigError, match=r"\[gateway\].*restart"):
            await fleet.apply(other)
        assert fleet.config is site.config
        assert site.meters["m1"].closed == 0


async def test_a_hundred_reloads_leave_no_task_behind(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", own="m2"))
    async with fleet_of(site) as fleet:
        await asyncio.sleep(0.05)
        before = len(asyncio.all_tasks())
        opened = [site.meters["m2"]]
        for number in range(100):
            await fleet.apply(configured(tmp_path, "m1", own="m3" if number % 2 == 0 else "m2"))
            opened.append(site.meters["m3" if number % 2 == 0 else "m2"])
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == before
        assert [meter.closed for meter in opened] == [1] * 100 + [0]


async def test_one_who_follows_is_stopped_and_started_anew(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1", own="m2"))
    tellers: list[Teller] = []
    make = site.drivers

    def drivers(config: object) -> object:
        found = make(config)  # type: ignore[arg-type]
        for devices in found.values():
            for name in devices:
                teller = Teller(name, site.config.templates["test"])
                tellers.append(teller)
                devices[name] = teller  # type: ignore[index]
        return found

    site.drivers = drivers  # type: ignore[method-assign,assignment]
    async with fleet_of(site) as fleet:
        await asyncio.sleep(0.05)
        assert [teller.following for teller in tellers] == [1, 1]
        await fleet.apply(configured(tmp_path, "m1", own="m3"))
        await asyncio.sleep(0.05)
        assert [teller.following for teller in tellers] == [1, 0, 0, 1]
        assert site.counts.changes == 3
    assert not any(teller.following for teller in tellers)


async def test_a_device_that_cannot_follow_is_polled_and_that_is_said(tmp_path: Path) -> None:
    site = Site(configured(tmp_path, "m1"))
    device = site.collector.buses["tcp://127.0.0.1:1"][0]

    class Mute(Meter):
        async def follow(self, tell: object) -> None:
            assert callable(tell)
            raise DeviceError("no subscriptions")

    await site.collector.follow(device, Mute("m1", site.config.templates["test"]))
    site.take()
    assert site.events("device.polled") == [{"device": "m1", "why": "no subscriptions"}]


# ---- the socket


def _text(*devices: str) -> str:
    text = '[gateway]\nid = "gw1"\nstate = "."\n[seal]\nkey = "k"\nwitness = "w"\n[interval]\nperiod_s = 1\n'
    text += '[forward]\nbroker = "127.0.0.1:1"\nca = "a"\ncert = "b"\nkey = "c"\n'
    for name in devices:
        text += f'[devices.{name}]\ntemplate = "abb-b23"\nurl = "tcp://127.0.0.1:1"\nperiod_s = 1\ntimeout_s = 0.3\n'
    return text


@asynccontextmanager
async def controlled(folder: Path, site: Site) -> AsyncIterator[Path]:
    """Serve the control socket of a fleet whose file is folder/gateway.toml."""
    file = folder / "gateway.toml"
    source = source_of(file.read_text(), file)
    site.collector.buses.clear()
    async with asyncio.TaskGroup() as tasks:
        fleet = Fleet(site.collector, source.config, tasks)
        fleet.start()
        control = Control(fleet, site.collector, source, file, logger(site.said))
        server = await control.listen(folder / "control.sock")
        try:
            yield folder / "control.sock"
        finally:
            server.close()
            await fleet.close()


async def test_apply_reads_the_file_again_and_says_what_changed(tmp_path: Path) -> None:
    file, site = tmp_path / "gateway.toml", Site(configured(tmp_path, "m1"))
    file.write_text(_text("m1"))
    async with controlled(tmp_path, site) as socket:
        assert running_text(await ask(socket, "running")) == file.read_text()
        file.write_text(_text("m1", "m2"))
        new = source_of(file.read_text(), file)
        check_applied(await ask(socket, "apply", new.sha256))
        assert running_text(await ask(socket, "running")) == new.text
        with pytest.raises(ConfigError, match="changed meanwhile"):
            check_applied(await ask(socket, "apply", "0" * 64))
        file.write_text("nonsense")
        with pytest.raises(ConfigError, match="not TOML"):
            check_applied(await ask(socket, "apply", "0" * 64))
        assert running_text(await ask(socket, "running")) == new.text
        file.write_text(new.text)
        check_applied(await ask(socket, "apply", new.sha256))
    site.take()
    (event,) = site.events("config.applied")
    assert (event["config"], event["added"], event["removed"]) == (new.sha256, 1, 0)


async def test_nonsense_on_the_socket_hurts_nobody(tmp_path: Path) -> None:
    file, site = tmp_path / "gateway.toml", Site(configured(tmp_path, "m1"))
    file.write_text(_text("m1"))
    async with controlled(tmp_path, site) as socket:
        assert (await ask(socket, "dance"))[0] == "refused"
        channel = await connect(socket)
        await channel.send([["running"], 7])
        with contextlib.suppress(LinkError):
            async with asyncio.timeout(PATIENCE_S):
                await channel.receive()
        channel.close()
        assert (await ask(socket, "running"))[0] == "running"
    with pytest.raises(LinkError):
        await ask(socket, "running")


async def test_a_command_reads_through_the_connection_that_collect_has(tmp_path: Path) -> None:
    """BACnet devices share a UDP port, agents a session: a second one beside collect's would fail, or steal."""
    site = Site(configured(tmp_path, "m1"))
    async with fleet_of(site) as fleet:
        file = tmp_path / "gateway.toml"
        file.write_text(_text("m1"))
        control = Control(fleet, site.collector, source_of(file.read_text(), file), file, logger(site.said))
        server = await control.listen(tmp_path / "control.sock")
        try:
            row = row_of(await ask(tmp_path / "control.sock", "read", "m1"))
            assert (row.schema, row.values[0]) == (site.meters["m1"].schema, site.meters["m1"].answers)
            site.meters["m1"].fault = DeviceError("no answer")
            row = row_of(await ask(tmp_path / "control.sock", "read", "m1"))
            assert (row.values, row.status) == ((None, None), "no answer")
            with pytest.raises(DeviceError, match="m7: is not among"):
                row_of(await ask(tmp_path / "control.sock", "read", "m7"))
        finally:
            server.close()


# ---- the file that is kept


def test_a_file_that_is_wrong_at_a_start_leaves_what_was_applied(tmp_path: Path) -> None:
    file, said = tmp_path / "gateway.toml", list[str]()
    file.write_text(_text("m1"))
    store_applied(file, file.read_text())
    assert kept_source(file, said.append).text == file.read_text()
    file.write_text("nonsense")
    assert list(kept_source(file, said.append).config.devices) == ["m1"]
    assert "gateway.toml: not TOML" in said[0]
    assert "gateway.toml.applied" in said[0]
    applied_path(file).unlink()
    with pytest.raises(ConfigError, match="not TOML"):
        kept_source(file, said.append)


def test_what_was_applied_before_is_kept_for_an_undo(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    for text in ("one", "two", "two"):
        store_applied(file, text)
    assert (applied_path(file).read_text(), before_path(file).read_text()) == ("two", "one")
