"""app/contexts.py: what a line was making, as its controllers said it, in the interval leaves and in the figures."""

import asyncio
import itertools
import math
import re
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from gateway.app.collector import Collector
from gateway.app.contexts import DeviceContext, LineContext, contexts_of, text_of
from gateway.app.counts import CollectCounts
from gateway.app.devices.agents import source_of
from gateway.app.fleet import Fleet
from gateway.app.intervals import LineIntervals, missing
from gateway.app.load import template_text
from gateway.app.outbox import Outbox
from gateway.carbon.emissions import IntervalLeaf, project
from gateway.carbon.exact import total
from gateway.codec.agents import AgentPoint, pack_frame, parse_frame
from gateway.codec.bodies import interval_body
from gateway.codec.checks import check_body, to_schema
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.codec.line_leaves import MOST_TOLD, to_interval
from gateway.codec.pack import unpack
from gateway.config import GatewayConfig, parse_gateway, parse_template
from gateway.config.difference import difference
from gateway.config.templates import AgentTemplate
from gateway.errors import ConfigError
from gateway.model import (
    Change,
    Column,
    ContextColumn,
    Interval,
    LineSchema,
    Quality,
    Role,
    Row,
    Schema,
    Told,
    Value,
    What,
)
from hil.plant import Plant, serve
from hil.plant.agent import Agent, agent_endpoint, agent_key
from hil.plant.opcua import OpcuaServer
from tests.line_leaves import CONSTANT, MINUTE, T0, energy, facts, good, leaf, schemas
from tests.links import HOST
from tests.modbus_peers import Ask, Peer
from tests.northbound import until
from tests.sealing import Box
from tests.test_agents import agents_broker, box, config_for, hand_over, pki, running
from tests.test_collect import logger

__all__ = ["box", "pki"]  # fixtures

NS = 1_000_000_000
PATIENCE_S = 20.0

PLC = Schema(
    device="plc",
    columns=(
        Column(name="state", unit="", store="u64"),
        Column(name="job", unit="", store="s32"),
        Column(name="speed", unit="1/h", store="f64"),
    ),
)
LINE = LineSchema(
    name="filler",
    site="works",
    zone="DEMO",
    period_s=60,
    columns=(energy(),),
    context=(ContextColumn(point="plc.state", what=What.STATE), ContextColumn(point="plc.job", what=What.JOB)),
)


class Heard:
    """A line's context and its one controller."""

    def __init__(self, before: Sequence[LineContext] = ()) -> None:
        self.context = LineContext(LINE, before)
        device = contexts_of(PLC, [self.context])
        assert device is not None
        self.device: DeviceContext = device

    def polled(self, t_ns: int, state: Value | None, job: Value | None = "A", now_ns: int | None = None) -> None:
        """Take a row."""
        qualities = tuple(Quality.BAD if value is None else Quality.GOOD for value in (state, job, 1.0))
        self.device.row(Row(PLC, t_ns, (state, job, 1.0), qualities), t_ns if now_ns is None else now_ns)

    def told(self, t_ns: int, state: Value | None, now_ns: int | None = None) -> None:
        """Take a change of the state."""
        quality = Quality.BAD if state is None else Quality.GOOD
        self.device.told([Change(PLC, 0, t_ns, state, quality)], t_ns if now_ns is None else now_ns)

    def states(self, boundary_ns: int) -> list[tuple[int, str | None]]:
        """Close a boundary; return what it says of the state, in seconds since T0."""
        return [((told.t_ns - T0) // NS, told.value) for told in self.context.close(boundary_ns)[0]]


def at(seconds: float) -> int:
    return T0 + round(seconds * NS)


# ---- one column over time


def test_a_change_mid_interval_is_told_with_what_was_in_force_before() -> None:
    line = Heard()
    line.polled(at(-30), 6)
    line.states(at(0))
    line.polled(at(20), 4)
    line.polled(at(21), 4)
    assert line.states(at(60)) == [(-30, "6"), (20, "4")]
    assert line.states(at(120)) == [(20, "4")], "still in force, with the instant since when"


def test_a_change_at_the_boundary_belongs_to_the_interval_that_it_ends() -> None:
    line = Heard()
    line.told(at(0), 6)
    line.told(at(60), 4)
    line.told(at(60.1), 2)
    assert line.states(at(60)) == [(0, "6"), (60, "4")]
    assert line.states(at(120)) == [(60, "4"), (60, "2")]


def test_a_line_of_which_nothing_was_heard_says_nothing() -> None:
    line = Heard()
    assert line.context.close(at(0)) == ((), ())
    line.polled(at(30), 6)
    assert line.states(at(60)) == [(30, "6")], "and nothing is said of the time before"


def test_each_column_is_its_own() -> None:
    line = Heard()
    line.polled(at(1), 6, "A")
    line.polled(at(2), 6, "B")
    line.polled(at(3), 4, "B")
    assert line.context.close(at(60)) == (
        (Told(at(1), "6"), Told(at(3), "4")),
        (Told(at(1), "A"), Told(at(2), "B")),
    )


def test_a_bad_value_is_none_until_a_good_one_comes() -> None:
    line = Heard()
    line.polled(at(1), 6)
    line.polled(at(2), None)
    line.polled(at(3), None)
    line.polled(at(4), 6)
    assert line.states(at(60)) == [(1, "6"), (2, None), (4, "6")]


def test_what_a_device_tells_late_is_in_force_with_its_true_time_and_changes_no_closed_interval() -> None:
    """Its interval is sealed. The next one says since when, which lies before its own beginning."""
    line = Heard()
    line.told(at(-10), 6)
    assert line.states(at(60)) == [(-10, "6")]
    line.told(at(58), 4, now_ns=at(61))
    line.told(at(59), 2, now_ns=at(61))
    line.told(at(90), 6)
    assert line.states(at(120)) == [(59, "2"), (90, "6")]


def test_what_comes_before_a_boundary_closes_is_in_its_interval() -> None:
    line = Heard()
    line.told(at(-10), 6)
    line.told(at(62), 2, now_ns=at(62.2))
    line.polled(at(63), 2)
    assert line.states(at(60)) == [(-10, "6")]
    assert line.states(at(120)) == [(-10, "6"), (62, "2")]


def test_an_unheard_value_is_not_filled_in_when_the_device_is_back() -> None:
    """The server says that it has been so since long ago; but it was not heard in between."""
    line = Heard()
    line.told(at(-1000), 6, now_ns=at(1))
    line.told(at(10), None)
    line.told(at(-1000), 6, now_ns=at(40))
    assert line.states(at(60)) == [(-1000, "6"), (10, None), (40, "6")]


def test_a_change_during_an_outage_has_its_own_time() -> None:
    line = Heard()
    line.told(at(1), 6)
    line.told(at(10), None)
    line.told(at(25), 4, now_ns=at(40))
    assert line.states(at(60)) == [(1, "6"), (10, None), (25, "4")]


def test_a_device_whose_clock_is_slow_cannot_tell_before_what_it_told() -> None:
    line = Heard()
    line.polled(at(30), 6)
    line.told(at(27), 4, now_ns=at(32))
    line.told(at(27), 2, now_ns=at(32))
    (first, second, third) = line.context.close(at(60))[0]
    assert (first, second) == (Told(at(30), "6"), Told(at(32), "4"))
    assert third == Told(at(32) + 1, "2"), "ascending, to the nanosecond"


def test_a_device_whose_clock_is_hours_behind_cannot_tell_before_the_poll_that_read_the_old_value() -> None:
    line = Heard()
    line.told(at(-10_800), 6, now_ns=at(0))
    line.polled(at(1), 6)
    line.told(at(-10_760), 4, now_ns=at(40))
    line.told(at(-10_750), 2, now_ns=at(50))
    assert line.states(at(60)) == [(-10_800, "6"), (40, "4"), (50, "2")]


def test_a_device_whose_clock_is_fast_tells_nothing_of_the_future() -> None:
    line = Heard()
    line.told(at(3600), 6, now_ns=at(5))
    assert line.states(at(60)) == [(5, "6")]


def test_a_poll_finds_it_first_and_the_device_then_says_since_when() -> None:
    line = Heard()
    line.told(at(1), 6)
    line.told(at(2), 4)
    line.polled(at(30), 4)
    restarted = Heard()
    restarted.polled(at(30), 4)
    restarted.told(at(-500), 4, now_ns=at(31))
    assert restarted.states(at(60)) == [(-500, "4")]
    assert line.states(at(60)) == [(1, "6"), (2, "4")]


def test_a_reply_that_was_under_way_does_not_undo_what_was_told_meanwhile() -> None:
    line = Heard()
    line.told(at(1), 6)
    line.told(at(10), 4)
    line.polled(at(10.01), 6)
    line.polled(at(20), 4)
    assert line.states(at(60)) == [(1, "6"), (10, "4")]


def test_two_polls_that_contradict_what_was_told_are_believed() -> None:
    """A change was lost on its way."""
    line = Heard()
    line.told(at(1), 6)
    line.polled(at(10), 4)
    line.polled(at(20), 4)
    line.polled(at(30), 6)
    line.polled(at(31), 2)
    line.polled(at(32), 2)
    assert line.states(at(60)) == [(1, "6"), (20, "4"), (32, "2")]


def test_polls_count_at_once_where_the_device_tells_nothing_any_more() -> None:
    line = Heard()
    line.told(at(1), 6)
    line.told(at(10), None)
    line.polled(at(20), 4)
    line.polled(at(30), 2)
    assert line.states(at(60)) == [(1, "6"), (10, None), (20, "4"), (30, "2")]


def test_a_burst_is_told_as_far_as_a_leaf_has_room_and_the_rest_is_not_known() -> None:
    line = Heard()
    line.told(at(-5), 6)
    line.states(at(0))
    for n in range(100):
        line.told(at(10 + n / 10), 100 + n)
    found = line.context.close(at(60))[0]
    assert len(found) == MOST_TOLD
    assert found[:2] == (Told(at(-5), "6"), Told(at(10), None)), "true until the first change, then not known"
    assert found[2:] == tuple(Told(at(10 + n / 10), str(100 + n)) for n in range(69, 100))
    assert line.states(at(120)) == [(19, "199")]


def test_as_many_changes_as_a_leaf_has_room_for_are_all_told() -> None:
    line = Heard()
    line.told(at(-5), 6)
    line.states(at(0))
    for n in range(MOST_TOLD - 1):
        line.told(at(1 + n), 100 + n)
    assert [value for _, value in line.states(at(60))] == ["6", *(str(100 + n) for n in range(MOST_TOLD - 1))]


def test_a_chattering_point_takes_no_memory() -> None:
    line = Heard()
    for n in range(100_000):
        line.told(at(n / 1000), n)
    assert max(len(track.kept) for track in line.context.tracks) <= 4 * MOST_TOLD
    assert line.states(at(99))[:2] == [(0, "0"), (0, None)]


def test_a_clock_stepped_back_does_not_end_the_context() -> None:
    line = Heard()
    line.polled(at(36_000), 6)
    line.states(at(36_000))
    line.polled(at(10), 6)
    line.polled(at(20), 4)
    assert line.states(at(60)) == [(10, "6"), (20, "4")]
    line.polled(at(70), 4)
    assert line.states(at(120)) == [(20, "4")]


def test_after_a_restart_nothing_is_known_until_it_is_heard() -> None:
    line = Heard()
    line.polled(at(1), 6)
    restarted = Heard()
    assert restarted.states(at(60)) == []
    restarted.polled(at(65), 6)
    assert restarted.states(at(120)) == [(65, "6")]


def test_another_schema_of_a_line_goes_on_with_what_is_known() -> None:
    line = Heard()
    line.polled(at(1), 6, "A")
    line.polled(at(2), 4, "A")
    line.states(at(60))
    again = Heard([line.context])
    assert again.states(at(120)) == [(2, "4")]
    line.polled(at(130), 6)
    assert again.states(at(180)) == [(2, "4")], "each has its own"


@pytest.mark.parametrize(
    ("value", "store", "text"),
    [
        (6, "u64", "6"),
        (-1, "i64", "-1"),
        (True, "bool", "true"),
        (False, "bool", "false"),
        (6.0, "f64", "6"),
        (-0.0, "f64", "0"),
        (0.1, "f64", "0.1"),
        (1e300, "f64", "1e+300"),
        (float("inf"), "f64", "inf"),
        (0.10000000149011612, "f32", "0.1"),
        (3.4028234663852886e38, "f32", "3.4028235e+38"),
        ("SKU 7", "s32", "SKU 7"),
        (" ", "s32", " "),
        ("ä" * 250, "s250", "ä" * 200),
        (None, "u64", None),
    ],
)
def test_a_value_becomes_text(value: Value | None, store: str, text: str | None) -> None:
    assert text_of(value, store) == text


def test_an_agent_s_frames_count_when_they_are_newer() -> None:
    template = parse_template(template_text("wattseal-plant-agent"), "wattseal-plant-agent")
    assert isinstance(template, AgentTemplate)
    source = source_of("press", "press-1", template)
    line = replace(LINE, context=(ContextColumn(point="press.temperature", what=What.STATE),))
    context = LineContext(line)
    device = contexts_of(source.schema, [context])
    assert device is not None
    for sequence, (seconds, mantissa) in enumerate([(10, 6), (20, 4), (15, 2), (30, 45)], 1):
        exponent = -1 if mantissa == 45 else 0
        packed = pack_frame(
            agent="press-1",
            boot=bytes(8),
            sequence=sequence,
            time_ms=at(seconds) // 1_000_000,
            energy=5,
            points=[AgentPoint(1, 0, mantissa, exponent)],
            key=bytes(32),
        )
        device.frame(source, parse_frame(packed), at(seconds + 1))
    silent = Row(source.schema, at(40), (None,) * len(source.columns), (Quality.BAD,) * len(source.columns))
    device.row(silent, at(40))
    device.row(silent, at(50))
    told = (Told(at(10), "6"), Told(at(20), "4"), Told(at(30), "4.5"))
    assert context.close(at(60))[0] == told, "a point need not be in each frame"


TIMES = st.integers(0, 240)
VALUES = st.one_of(st.none(), st.integers(0, 3))


@given(st.lists(st.tuples(st.sampled_from(["polled", "told", "close"]), TIMES, TIMES, VALUES), max_size=60))
def test_whatever_comes_when_each_leaf_is_in_order_and_one_that_the_seal_takes(
    steps: list[tuple[str, int, int, int | None]],
) -> None:
    line, boundary = Heard(), 0
    now_s = 0.0
    for what, source_s, later, value in steps:
        now_s += later / 100
        if what == "polled":
            line.polled(at(source_s), value, now_ns=at(now_s))
        elif what == "told":
            line.told(at(source_s), value, now_ns=at(now_s))
        else:
            boundary += 1
            found = line.context.close(at(60 * boundary))
            interval = Interval(schema_id=LINE.id, t_ns=at(60 * boundary), samples=(missing("", 0),), context=found)
            body = check_body("interval", unpack(interval_body(interval)))
            assert to_interval(body, LINE).context == found
            for column in found:
                assert all(told.t_ns <= at(60 * boundary) for told in column)
                assert sum(told.t_ns <= at(60 * (boundary - 1)) for told in column) <= 1


def test_a_leaf_of_bursts_of_long_texts_and_many_missing_meters_still_fits() -> None:
    points = [f"m{n}.energy" for n in range(100)]
    context = tuple(ContextColumn(point=f"plc.{what}", what=what) for what in What)
    line = replace(LINE, columns=tuple(energy(point) for point in points), context=context)
    it = LineIntervals(line)
    schema = Schema(device="plc", columns=tuple(Column(name=what, unit="", store="s250") for what in What))
    device = contexts_of(schema, [it.context])
    assert device is not None
    for n in range(100):
        device.row(Row(schema, at(n / 10), (f"{n}" + "ä" * 120,) * 4), at(n / 10))
    (interval,) = it.take(at(60), [missing(point, at(60), "no route to host " * 100) for point in points])
    body = interval_body(interval)
    assert len(body) < MAX_LEAF - MAX_HEADER
    assert check_body("interval", unpack(body))
    assert all(len(column) > 20 and column[1].value is None for column in interval.context)


def test_a_line_that_hears_its_controllers_by_changes_waits_for_them() -> None:
    """A change of just before a boundary arrives after it: by a publishing interval."""
    it = LineIntervals(LINE)
    it.holds = True
    device = contexts_of(PLC, [it.context])
    assert device is not None
    sample = missing("m1.energy", at(60))._replace(value=Decimal(1), raw=b"\1", quality=Quality.GOOD)
    assert it.take(at(60), [sample]) == ()
    assert it.expire(at(61.9)) == ()
    device.told([Change(PLC, 0, at(59.5), 6)], at(61))
    (interval,) = it.expire(at(62))
    assert interval.context == ((Told(at(59.5), "6"),), ())
    assert interval.samples[0].value == 1


def test_a_device_without_context_costs_nothing() -> None:
    assert contexts_of(Schema(device="m1", columns=PLC.columns), [LineContext(LINE)]) is None
    assert contexts_of(PLC, [LineContext(replace(LINE, context=()))]) is None


# ---- into figures


def with_context(plain: IntervalLeaf, context: tuple[tuple[Told, ...], ...]) -> IntervalLeaf:
    of = plain.interval
    interval = Interval(schema_id=of.schema_id, t_ns=of.t_ns, samples=of.samples, context=context)
    return IntervalLeaf(gateway=plain.gateway, ref=plain.ref, interval=interval)


def test_a_changeover_mid_interval_makes_two_cells_whose_energies_sum_exactly() -> None:
    line = Heard()
    line.polled(at(-30), 6, "A")
    first = with_context(leaf(LINE, 1, T0, ["100"]), line.context.close(at(0)))
    line.polled(at(7), 15, "B")
    line.polled(at(33), 6, "B")
    second = with_context(leaf(LINE, 2, T0 + MINUTE, ["106.000001"]), line.context.close(at(60)))
    cells = list(project([first, second], schemas=schemas(LINE), facts=facts(CONSTANT)).values())
    assert [((c.line.start_ns - T0) // NS, c.line.setting.state, c.line.setting.job) for c in cells] == [
        (0, "producing", "A"),
        (7, "setup", "B"),
        (33, "producing", "B"),
    ]
    assert [cell.line.energy_mwh for cell in cells] == [700_000, 2_600_000, 2_700_001]
    assert sum(cell.line.energy_mwh or 0 for cell in cells) == 6_000_001
    assert total(cell.line.co2e_g or Decimal(0) for cell in cells) == Decimal("2400.0004")


def test_good_units_are_all_less_the_scrap_where_nothing_counts_them() -> None:
    """A unit that turns out to be scrap a minute later is taken off then: no sum is ever wrong."""
    counted = replace(
        LINE, columns=(energy(), good("plc.all", role=Role.COUNT_TOTAL), good("plc.bad", role=Role.COUNT_SCRAP))
    )
    shown = [["1", "10", "2"], ["2", "20", "3"], ["3", "20", "4"]]
    counted = replace(counted, context=())
    leaves = [leaf(counted, n, T0 + n * MINUTE, row) for n, row in enumerate(shown)]
    cells = list(project(leaves, schemas=schemas(counted), facts=facts(CONSTANT)).values())
    assert [cell.line.units_good for cell in cells] == [9, -1]
    assert [cell.line.units_total for cell in cells] == [10, 0]
    assert [cell.line.kg_per_unit is None for cell in cells] == [False, True]
    both = replace(counted, columns=(*counted.columns, good("plc.good")))
    leaves = [leaf(both, n, T0 + n * MINUTE, [*row, str(n)]) for n, row in enumerate(shown)]
    (first, _) = project(leaves, schemas=schemas(both), facts=facts(CONSTANT)).values()
    assert first.line.units_good == 1, "a counter of good units is believed"
    bad = [leaf(counted, n, T0 + n * MINUTE, [*row[:2], None]) for n, row in enumerate(shown)]
    (first, _) = project(bad, schemas=schemas(counted), facts=facts(CONSTANT)).values()
    assert first.line.units_good is None
    assert first.line.units == 10


# ---- configured

GATEWAY = """
[gateway]
id = "gw1"
state = "."
[seal]
key = "k"
witness = "w"
[forward]
broker = "127.0.0.1:1"
ca = "a"
cert = "b"
key = "c"
[interval]
period_s = 2
[devices.filler]
template = "abb-b23"
url = "tcp://127.0.0.1:{modbus}"
unit_id = 4
[devices.packer]
template = "abb-b23"
url = "tcp://127.0.0.1:{modbus}"
unit_id = 4
[devices.plc]
template = "wattseal-plant-plc"
url = "tcp://127.0.0.1:{modbus}"
unit_id = 5
period_s = 0.1
timeout_s = 0.3
[devices.server]
template = "wattseal-plant-opcua"
url = "opc.tcp://127.0.0.1:{opcua}/plant"
[devices.server.opcua]
security = "None"
mode = "None"
sampling_s = 0.1
publishing_s = 0.1
[lines.one]
zone = "DEMO"
energy = ["filler.import_energy"]
count_good = "plc.good_count"
state = "plc.state"
product = "plc.sku"
job = "plc.job"
[lines.two]
zone = "DEMO"
energy = ["packer.import_energy"]
count_total = "server.total_count"
count_scrap = "server.defective_count"
state = "server.state"
recipe = "server.recipe"
product = "server.sku"
job = "server.job"
"""


def configured(text: str = GATEWAY, *, modbus: int = 1, opcua: int = 1) -> GatewayConfig:
    text = text.format(modbus=modbus, opcua=opcua)
    return parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text)


def test_a_line_s_section_says_where_its_context_comes_from() -> None:
    lines = configured().lines
    assert lines["one"].context == (
        ContextColumn(point="plc.state", what=What.STATE),
        ContextColumn(point="plc.sku", what=What.PRODUCT),
        ContextColumn(point="plc.job", what=What.JOB),
    )
    assert [column.what for column in lines["two"].context] == list(What)
    assert [column.role for column in lines["two"].columns] == [Role.ENERGY, Role.COUNT_TOTAL, Role.COUNT_SCRAP]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"plc.job"', '"plc.nothing"', "job: got 'plc.nothing', want <device>.<point> of a number, bit or text"),
        ('"plc.job"', '"none.job"', "job: got 'none.job', want <device>.<point> of a number, bit or text"),
        ('"plc.job"', '"plc"', "job: got 'plc', want <device>.<point> of a number, bit or text"),
        ('"plc.job"', '"plc.good_count"',
         "job: got 'plc.good_count', which is a counter, want a point that says what the line is making"),
        ('"plc.job"', '"filler.active_power"',
         "job: got 'filler.active_power', which is scaled, want a number as its controller writes it"),
        ('"plc.job"', "7", "job: got 7, want text"),
    ],
)  # fmt: skip
def test_a_point_that_is_no_context_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(GATEWAY.replace(old, new, 1))
    assert str(caught.value) == f"gateway.toml: lines.one.{why}"


def test_a_plan_shows_a_change_of_context() -> None:
    found = difference(configured(), configured(GATEWAY.replace('job = "plc.job"', 'job = "plc.recipe"')))
    (delta,) = found.changes
    assert (delta.name, delta.what) == ("lines.one", "changed")
    assert delta.keys == {"job": ("plc.job", "plc.recipe")}


# ---- through the collector, from real servers


class Site:
    """A gateway's collect at the plant's servers, and the interval leaves that it queued."""

    def __init__(self, plant: Plant, config: GatewayConfig, fleet: Fleet, outbox: Outbox) -> None:
        self.plant, self.config, self.fleet = plant, config, fleet
        self._outbox = outbox
        self._lines: dict[bytes, LineSchema] = {}
        self._intervals: list[tuple[LineSchema, Interval]] = []

    def intervals(self, name: str) -> list[Interval]:
        """Return a line's intervals so far, each checked as the seal does."""
        while messages := self._outbox.unsent(time.time_ns()):
            for _, _, kind, packed in messages:
                body = check_body(kind, unpack(packed))
                if kind == "schema" and isinstance(schema := to_schema(body), LineSchema):
                    self._lines[schema.id] = schema
                if kind == "interval":
                    line = self._lines[body["schema"]]
                    self._intervals.append((line, to_interval(body, line)))
            self._outbox.acknowledge(messages[-1][1])
        return [interval for line, interval in self._intervals if line.name == name]

    async def said(self, name: str, *last: str | None) -> Interval:
        """Return the first interval of a line that ends with these values."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for interval in self.intervals(name):
                    if tuple(column[-1].value if column else "" for column in interval.context) == last:
                        return interval
                await asyncio.sleep(0.05)


@asynccontextmanager
async def collecting(plant: Plant, config: GatewayConfig) -> AsyncIterator[Site]:
    """Run collect without its seal."""
    outbox = Outbox(most_bytes=1 << 24)
    collector = Collector(config, outbox, CollectCounts(), logger(CapturingLogger()))
    async with asyncio.TaskGroup() as tasks:
        fleet = Fleet(collector, config, tasks)
        fleet.start()
        beating = tasks.create_task(collector.beat())
        try:
            yield Site(plant, config, fleet, outbox)
        finally:
            beating.cancel()
            await fleet.close()


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Run the plant's servers and collect."""
    plant = Plant(seed=1)
    async with serve(plant) as modbus, OpcuaServer(plant, folder=folder, none=True, period_s=0.05) as opcua:
        port = int(opcua.url.rpartition(":")[2].partition("/")[0])
        async with collecting(plant, configured(modbus=modbus.port, opcua=port)) as here:
            yield here


def seconds_of(interval: Interval, column: int) -> list[tuple[str | None, bool]]:
    """Return a column's values, and whether each was told within the interval."""
    start_ns = interval.t_ns - 2 * NS
    return [(told.value, start_ns < told.t_ns <= interval.t_ns) for told in interval.context[column]]


async def test_both_controllers_of_the_plant_say_what_the_line_is_making(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.said("one", "6", "1", "1001")
        await here.said("two", "6", "SKU-1", "R-10", "JOB-1001")
        now_ns = time.time_ns()
        await asyncio.sleep((now_ns // (2 * NS) * 2 * NS + 2 * NS + NS // 2 - now_ns) / NS)  # mid-interval
        changed_ns = time.time_ns()
        here.plant.do("setup")
        here.plant.do("job 1002 2")
        polled = await here.said("one", "15", "2", "1002")
        followed = await here.said("two", "15", "SKU-2", "R-20", "JOB-1002")
        here.plant.do("run")
        await here.said("one", "6", "2", "1002")
        await here.said("two", "6", "SKU-2", "R-20", "JOB-1002")
    for interval, before in ((polled, ("6", "1", "1001")), (followed, ("6", "SKU-1", "R-10", "JOB-1001"))):
        assert [seconds_of(interval, place)[0] for place in range(len(before))] == [(each, False) for each in before]
        for column in interval.context:
            assert len(column) == 2
            assert 0 <= column[1].t_ns - changed_ns < NS


async def test_a_controller_that_is_down_says_nothing_and_is_heard_again(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.said("one", "6", "1", "1001")
        await here.said("two", "6", "SKU-1", "R-10", "JOB-1001")
        here.plant.do("kill 5")
        await here.said("one", None, None, None)
        await here.said("two", None, None, None, None)
        here.plant.do("idle")
        here.plant.do("revive 5")
        await here.said("one", "4", "1", "1001")
        await here.said("two", "4", "SKU-1", "R-10", "JOB-1001")


async def test_a_reload_with_other_context_is_another_schema_that_goes_on_with_what_is_known(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.said("two", "6", "SKU-1", "R-10", "JOB-1001")
        two = here.config.lines["two"]
        since = {what: told[0] for what, told in zip(What, here.intervals("two")[-1].context, strict=True)}
        lines = {"two": replace(two, context=tuple(each for each in two.context if each.what != What.RECIPE))}
        other = msgspec.structs.replace(here.config, lines=here.config.lines | lines)
        found = await here.fleet.apply(other)
        assert [delta.name for delta in found.changes] == ["lines.two"]
        interval = await here.said("two", "6", "SKU-1", "JOB-1001")
        assert interval.schema_id == other.lines["two"].id != here.config.lines["two"].id
        assert [column[0] for column in interval.context] == [since[What.STATE], since[What.PRODUCT], since[What.JOB]]


TEXTS = """
title = "A controller with texts and bits"
verified = true
sources = ["this test"]
votes = 1
[points.energy]
address = 0
type = "u16"
unit = "kWh"
kind = "counter"
[points.product]
address = 10
type = "string"
registers = 8
[points.running]
address = 20
type = "bit"
bit = 3
[points.ratio]
address = 21
type = "f32"
"""


async def test_texts_bits_and_floats_of_a_modbus_controller_are_told_as_text() -> None:
    image = bytearray(50)

    async def answer(ask: Ask) -> AsyncIterator[bytes | None]:
        yield ask.reply(bytes(image[2 * ask.address : 2 * (ask.address + ask.count)]))

    image[20:30] = b"SKU 7/\xc3\xa4  "
    struct.pack_into(">Hf", image, 40, 0b1000, 0.1)
    async with Peer(answer) as peer:
        head = GATEWAY.partition("[devices.filler]")[0]
        text = (
            head
            + f"""
[devices.plc]
template = "texts"
url = "{peer.url}"
period_s = 0.1
[lines.one]
zone = "DEMO"
energy = ["plc.energy"]
state = "plc.running"
product = "plc.product"
recipe = "plc.ratio"
"""
        )
        config = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: TEXTS)
        async with collecting(Plant(), config) as here:
            await here.said("one", "true", "SKU 7/\u00e4", "0.1")
            image[20:36] = bytes(16)
            struct.pack_into(">Hf", image, 40, 0b0111, math.nan)
            await here.said("one", "false", "", None)


async def test_an_agent_says_it_by_its_frames_and_the_seal_takes_the_intervals(
    pki: Path, tmp_path: Path, box: Box
) -> None:
    """420 kW while the press runs, 0 while the line is idle, and nothing while the agent is silent."""
    line = '[interval]\nperiod_s = 1\n[lines.filling]\nzone = "DEMO"\nenergy = ["press.energy"]\njob = "press.power"'
    outbox, counts, plant = Outbox(most_bytes=1 << 20), CollectCounts(), Plant(noise=0)
    async with agents_broker(pki, tmp_path / "broker") as broker:
        config = config_for(pki, broker.port, more=line)
        agent = Agent(plant, "press", agent="press-1", key=agent_key(pki, "press-1"), every_s=0.1)
        collector = Collector(config, outbox, counts, logger(CapturingLogger()))
        async with (
            running(agent.run(agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1")), collector.beat()),
            asyncio.TaskGroup() as tasks,
        ):
            fleet = Fleet(collector, config, tasks)
            fleet.start()
            await until(lambda: counts.frames >= 20)
            plant.do("idle")
            seen = counts.frames
            await until(lambda: counts.frames >= seen + 20)
            agent.faults.add("silent")
            await asyncio.sleep(5)
            await fleet.close()
    assert hand_over(outbox, box) == 0
    told = [leaf.body["context"][0] for leaf in box.leaves() if leaf is not None and leaf.kind == "interval"]
    values = [value for column in told for _, value in column]
    assert [value for value, _ in itertools.groupby(values)] == ["420000", "0", None]
    bodies = [leaf.body for leaf in box.leaves() if leaf is not None]
    times = {parse_frame(raw).time_ns for body in bodies for raw in body.get("frames", ())}
    assert {t_ns for column in told for t_ns, value in column if value is not None} <= times


def test_the_opcua_page_shows_a_line_that_parses() -> None:
    page = (Path(__file__).parent.parent / "docs" / "opcua.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    text = "".join(block for block in blocks if block.startswith(("[gateway]", "[lines.")))
    line = parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=template_text).lines["filling"]
    assert [column.what for column in line.context] == list(What)
    assert [column.role for column in line.columns] == [Role.ENERGY, Role.COUNT_TOTAL, Role.COUNT_SCRAP]
