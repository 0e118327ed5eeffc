"""app/watching.py in the collector: report on change, stale points, points that disagree; from the poll to the leaf."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.app.watching import Watching
from gateway.codec.changes import changes_of
from gateway.config import GatewayConfig, Template, parse_gateway
from gateway.drivers import Driver, Poll, Tell
from gateway.errors import ConfigError, DeviceError
from gateway.model import Change, Quality, Row, Sample
from tests.test_collect import NS, PATIENCE_S, TEMPLATE, Meter, Site, at_next_second, count

HEAD = (
    '[gateway]\nid = "gw1"\nstate = "."\n[seal]\nkey = "k"\nwitness = "w"\n[interval]\nperiod_s = 1\n'
    '[forward]\nbroker = "127.0.0.1:1"\nca = "a"\ncert = "b"\nkey = "c"\n'
)
LINE = '[lines.filling]\nzone = "DEMO"\nenergy = ["m1.energy"]\n'


def device(name: str, extra: str = "") -> str:
    return f'[devices.{name}]\ntemplate = "test"\nurl = "tcp://127.0.0.1:1"\nperiod_s = 0.1\n{extra}'


def configured(*devices: str) -> GatewayConfig:
    """Return a gateway with these devices, a line on the energy of m1."""
    text = HEAD + "".join(devices) + LINE
    return parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: TEMPLATE)


class Player(Meter):
    """A meter that shows what it is told to: its power, and an exact energy that rises by 1 with each answer.

    shown: an energy to show instead, from 0 on. status: says of the power that it is uncertain.
    """

    def __init__(self, name: str, template: Template) -> None:
        super().__init__(name, template)
        self.power, self.shown, self.status = 100, -1, ""

    async def poll(self, *, samples: bool) -> Poll:
        """Answer with the power."""
        poll = await super().poll(samples=samples)
        energy = self.shown if self.shown >= 0 else self.answers
        qualities = (Quality.UNCERTAIN, Quality.GOOD) if self.status else None
        row = poll.row._replace(values=(self.power, energy), qualities=qualities, status=self.status)
        taken = tuple(Sample(point=s.point, source_time_ns=s.source_time_ns, raw=s.raw, value=Decimal(energy))
                      for s in poll.samples)  # fmt: skip
        return Poll(row=row, samples=taken)

    async def answered(self, count: int = 3) -> None:
        """Wait for so many more answers."""
        wanted = self.answers + count
        async with asyncio.timeout(PATIENCE_S):
            while self.answers < wanted:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)


class Teller(Player):
    """One that also tells its changes. Implements Follower."""

    able = True

    async def follow(self, tell: Tell) -> None:
        """Tell the power once."""
        if not self.able:
            raise DeviceError("no subscriptions")
        tell([Change(self.schema, 0, time.time_ns(), self.power)])
        await asyncio.Event().wait()


class Plant(Site):
    """A site of players."""

    kind: type[Player] = Player

    def drivers(self, config: GatewayConfig) -> Mapping[str, Mapping[str, Driver]]:
        """Make players instead of real drivers; all on one bus."""
        self.players = {name: self.kind(name, config.templates[s.template]) for name, s in config.devices.items()}
        self.meters = {**self.players}
        return {"bus": self.players}

    def changes(self, name: str, column: int = 0) -> list[Change]:
        """Return the queued changes of a device's column."""
        schemas = {meter.schema.id: meter.schema for meter in self.meters.values()}
        bodies = [body for kind, body in self.queued if kind == "readings"]
        found = [change for body in bodies for change in changes_of(body, schemas)]
        return [change for change in found if change.schema.device == name and change.column == column]


class TellingPlant(Plant):
    """A site of players that tell."""

    kind = Teller


# --- report on change ---


async def test_a_device_with_report_gives_changes_and_the_others_give_rows() -> None:
    plant = Plant(configured(device("m1", "[devices.m1.report]\n[devices.m1.report.points.power]\nabsolute = 50\n"),
                             device("m2")))  # fmt: skip
    async with plant.running():
        for power in (100, 120, 180):
            plant.players["m1"].power = power
            await plant.players["m1"].answered()
    assert plant.rows("m1") == []
    assert [(c.value, c.low, c.high) for c in plant.changes("m1")] == [(100, None, None), (180, 100, 120)]
    assert [c.value for c in plant.changes("m1", 1)] == list(range(1, plant.players["m1"].answers + 1))
    assert len(plant.rows("m2")) == plant.players["m2"].answers
    assert plant.changes("m2") == []
    assert plant.counts.suppressed == plant.players["m1"].answers - 2
    assert plant.counts.changes == 0, "it told nothing by itself"
    assert [d.watching is None for d in plant.collector.buses["bus"]] == [False, True]


async def test_a_failure_is_a_change_of_every_column_once_and_so_is_its_end() -> None:
    plant = Plant(configured(device("m1", "[devices.m1.report]\n")))
    player = plant.players["m1"]
    async with plant.running():
        await player.answered()
        player.fault = DeviceError("no answer in 0.3 s")
        await asyncio.sleep(0.5)
        player.fault = None
        await player.answered()
    told = [(change.value, change.quality, change.status) for change in plant.changes("m1")]
    assert told == [(100, Quality.GOOD, ""), (None, Quality.BAD, "no answer in 0.3 s"), (100, Quality.GOOD, "")]
    assert plant.rows("m1") == []


async def test_a_doubt_of_the_device_is_told_with_its_words() -> None:
    plant = Plant(configured(device("m1", "[devices.m1.report]\n[devices.m1.report.points.power]\nabsolute = 500\n")))
    async with plant.running():
        for status in ("", "sensor", ""):
            plant.players["m1"].status = status
            await plant.players["m1"].answered()
    told = [(change.value, change.quality, change.status) for change in plant.changes("m1")]
    assert told == [(100, Quality.GOOD, ""), (100, Quality.UNCERTAIN, "sensor"), (100, Quality.GOOD, "")]


async def test_kwh_never_comes_from_filtered_values() -> None:
    """A deadband that lets nothing pass leaves the samples of each boundary as they are: exact, and all there."""
    wide = "[devices.m1.report]\nheartbeat_s = 3600\n" + "".join(
        f"[devices.m1.report.points.{point}]\nabsolute = 1e9\n" for point in ("power", "energy")
    )
    await at_next_second(0.5)
    plant = Plant(configured(device("m1", wide)))
    async with plant.running():
        first_ns = await at_next_second(2.4)
    assert [len(plant.changes("m1", column)) for column in (0, 1)] == [1, 1]
    intervals = plant.intervals()
    assert [interval.t_ns for interval in intervals] == [first_ns, first_ns + NS, first_ns + 2 * NS]
    values = [interval.samples[0].value or 0 for interval in intervals]
    assert all(interval.samples[0].quality is Quality.GOOD for interval in intervals)
    assert values == sorted(set(values)), "each is the register at its boundary"
    assert sum(samples for _, samples in plant.players["m1"].polls) == 3


# --- stale ---


async def test_a_stale_point_is_an_event_and_a_metric_once_and_fresh_when_it_moves() -> None:
    plant = Plant(configured(device("m1", "stale_s = 0.3\n"), device("m2")))
    player = plant.players["m1"]
    async with plant.running():
        await asyncio.sleep(1.2)
        assert plant.counts.points_stale == 1
        player.power = 101
        await player.answered(1)
    (stale,), (fresh,) = plant.events("point.stale"), plant.events("point.fresh")
    rows = plant.rows("m1")
    assert (stale["device"], stale["point"], stale["value"], stale["since_ns"]) == (
        "m1",
        "power",
        100,
        rows[0].source_time_ns,
    )
    assert (stale["why"], 0.3 <= stale["age_s"] < 1.2) == ("Stale Data", True)
    assert fresh == {"device": "m1", "point": "power", "value": 101, "since_ns": stale["since_ns"]}
    assert (count(plant.said, "point.stale"), count(plant.said, "point.fresh")) == (1, 1)
    assert len(rows) == player.answers, "its rows go on as they were"


async def test_a_silent_device_is_down_and_not_stale() -> None:
    plant = Plant(configured(device("m1", 'stale_s = 0.3\nstill = ["power"]\n')))
    plant.players["m1"].fault = DeviceError("gone")
    async with plant.running():
        await asyncio.sleep(0.9)
    assert plant.events("point.stale") == []
    assert len(plant.events("device.down")) == 1


async def test_a_counter_that_stands_while_power_flows_is_stale_and_without_power_it_is_not() -> None:
    """2 steps of 1 kWh at 60 MW take 0.12 s; at 0 W, for ever."""
    template = TEMPLATE.replace('unit = "W"', 'unit = "MW"')
    for power, found in ((60, ["energy"]), (0, [])):
        text = HEAD + device("m1", 'stale_s = 0.3\nstill = ["power"]\n') + LINE
        plant = Plant(parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: template))
        plant.players["m1"].power, plant.players["m1"].shown = power, 7
        async with plant.running():
            await plant.players["m1"].answered(9)
        assert [about["point"] for about in plant.events("point.stale")] == found


# --- disagreement ---


async def test_two_points_that_must_agree_and_do_not_are_an_event_once() -> None:
    pair = '[devices.m1.same_as.power]\npoint = "m2.power"\nabsolute = 5\npolls = 2\n'
    plant = Plant(configured(device("m1", pair), device("m2")))
    async with plant.running():
        for power in (100, 106, 104):
            plant.players["m2"].power = power
            await plant.players["m2"].answered(9)
    (disagrees,) = plant.events("point.disagrees")
    assert len(plant.events("point.agrees")) == 1
    assert disagrees["why"] == "Non-Deterministic Value"
    picked = {key: disagrees[key] for key in ("device", "point", "value", "other", "other_value", "other_quality")}
    assert picked == {
        "device": "m1",
        "point": "power",
        "value": 100,
        "other": "m2.power",
        "other_value": 106,
        "other_quality": "GOOD",
    }
    assert len(plant.rows("m2")) == plant.players["m2"].answers


async def test_the_two_orders_of_one_register_are_compared_within_a_row() -> None:
    pair = '[devices.m1.same_as.power]\npoint = "m1.energy"\npolls = 2\n'
    template = TEMPLATE.replace('unit = "kWh"\nkind = "counter"', 'unit = "W"')
    text = HEAD + device("m1", pair)
    plant = Plant(parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: template))
    plant.config.lines.clear()
    plant.players["m1"].shown = 100
    async with plant.running():
        for shown in (100, 200):
            plant.players["m1"].shown = shown
            await plant.players["m1"].answered(5)
    assert [about["other_value"] for about in plant.events("point.disagrees")] == [200]


async def test_what_a_device_tells_is_checked_by_its_polls() -> None:
    """A follower that tells 100 and is polled as 300: an event, but not before a change had time to arrive."""
    plant = TellingPlant(configured(device("m1", "stale_s = 3600\n[devices.m1.report]\n")))
    (found,) = plant.collector.buses["bus"]
    player = plant.players["m1"]
    assert isinstance(player, Teller)
    assert found.watching is not None
    following = asyncio.create_task(plant.collector.follow(found, player))
    await asyncio.sleep(0.02)
    t_ns = time.time_ns()

    def poll(after_s: float, power: int) -> None:
        assert found.watching is not None
        found.watching.take(Row(player.schema, t_ns + round(after_s * NS), (power, 1)))

    for after_s in (0.0, 1.0, 4.9):
        poll(after_s, 300)
    plant.take()
    assert plant.events("point.disagrees") == []
    for after_s in (5.1, 6.0):
        poll(after_s, 300)
    poll(7.0, 100)
    plant.take()
    assert [(about["value"], about["other"], about["other_value"]) for about in plant.events("point.disagrees")] == [
        (100, "poll", 300)
    ]
    assert len(plant.events("point.agrees")) == 1
    assert plant.counts.changes == 1
    assert [change.value for change in plant.changes("m1")] == [100, 300, 100]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_device_that_cannot_tell_is_polled_and_compared_with_nothing() -> None:
    plant = TellingPlant(configured(device("m1")))
    (found,) = plant.collector.buses["bus"]
    player = plant.players["m1"]
    assert isinstance(player, Teller)
    player.able = False
    await plant.collector.follow(found, player)
    async with plant.running():
        await asyncio.sleep(0.3)
    assert len(plant.events("device.polled")) == 1
    assert plant.events("point.disagrees") == []
    assert len(plant.rows("m1")) == player.answers > 0


def watchings(plant: Plant, bus: str) -> Sequence[Watching | None]:
    return [found.watching for found in plant.collector.buses[bus]]


async def test_the_other_point_of_a_pair_is_found_when_a_bus_comes_or_goes() -> None:
    """A reload that names another device as a twin leaves that one's bus as it is, and compares all the same."""
    plant = Plant(configured(device("m1"), device("m2")))
    assert watchings(plant, "bus") == [None, None]
    pair = '[devices.m3.same_as.power]\npoint = "m2.power"\npolls = 0\n'
    config = configured(device("m1"), device("m2"), device("m3", pair))
    player = Player("m3", config.templates["test"])
    plant.collector.adopt("new", plant.collector.devices_of(config, {"m3": player}))
    second = watchings(plant, "bus")[1]
    (third,) = watchings(plant, "new")
    assert watchings(plant, "bus")[0] is None
    assert second is not None
    assert third is not None
    second.take(Row(second.schema, 5 * NS, (100, 1)))
    third.take(Row(third.schema, 5 * NS, (200, 1)))
    plant.take()
    assert len(plant.events("point.disagrees")) == 1
    plant.collector.drop("bus")
    third.take(Row(third.schema, 6 * NS, (100, 1)))
    plant.take()
    assert plant.events("point.agrees") == []


# --- the file ---


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ("[devices.m1.report.points.nil]\n", "report.points: got 'nil', want one of power, energy"),
        ("[devices.m1.report.points.power]\nabsolute = -1\n", "report.points.power.absolute: got -1, want 0 or more"),
        (
            "[devices.m1.report.points.power]\nabsolut = 1\n",
            "report.points.power.absolut: got an unknown key, want one of absolute, percent, bypass",
        ),
        (
            "[devices.m1.report]\nheartbeat = 1\n",
            "report.heartbeat: got an unknown key, want one of heartbeat_s, points",
        ),
        ('still = ["nil"]\n', "still: got 'nil', want one of power, energy"),
        ('[devices.m1.same_as.nil]\npoint = "m1.power"\n', "same_as: got 'nil', want one of power, energy"),
        (
            '[devices.m1.same_as.power]\npoint = "m9.power"\n',
            "same_as.power.point: got 'm9.power', want <device>.<point> of another point",
        ),
        (
            '[devices.m1.same_as.power]\npoint = "m1.power"\n',
            "same_as.power.point: got 'm1.power', want <device>.<point> of another point",
        ),
        (
            '[devices.m1.same_as.power]\npoint = "m1.energy"\n',
            "same_as.power.point: got 'm1.energy' in 'kWh', want a point in 'W'",
        ),
        ("[devices.m1.same_as.power]\npolls = 1\n", "same_as.power.point: got nothing, want a value"),
        ("[devices.m1.opcua]\nqueue = 0\n", "opcua.queue: got 0, want 1..1000"),
    ],
)
def test_a_mistake_in_these_tables_is_said_with_its_place(extra: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(device("m1", extra))
    assert str(caught.value) == f"gateway.toml: devices.m1.{why}"


def test_a_deadband_of_a_text_is_refused() -> None:
    template = TEMPLATE.replace('type = "u16"\nunit = "W"', 'type = "string"\nregisters = 2')
    text = HEAD + device("m1", "[devices.m1.report.points.power]\npercent = 1\n") + LINE
    with pytest.raises(ConfigError, match=r"report.points.power: got a deadband, want none: the point is no number"):
        parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: template)
