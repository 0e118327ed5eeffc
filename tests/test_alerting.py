"""From leaves to sealed alerts: the ledger's duty, its restart, and what an operator sees and asks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.app.alerts import read_alerts
from gateway.carbon.alerts.alert import Alert
from gateway.carbon.alerts.observe import Observation
from gateway.cli import wattseal
from gateway.clock import WallClock
from gateway.codec.agent_leaves import AgentColumn, AgentSource, frames_body
from gateway.codec.agents import AgentPoint, pack_frame
from gateway.codec.bodies import document_body, epoch_body, interval_body, line_body, readings_body, schema_body
from gateway.codec.leaves import seal
from gateway.errors import ConfigError
from gateway.model import (
    Clock,
    ClockState,
    Column,
    ContextColumn,
    Document,
    Interval,
    LineColumn,
    LineSchema,
    Role,
    Row,
    Sample,
    Schema,
    Told,
    What,
)
from gateway.store import projections as tables
from tests.ledgering import SIGNERS, Hall, Scroll
from tests.line_days import DAY0_NS, Line, between
from tests.line_leaves import factor

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
PLAN = """
[shifts.one]
start = "00:00"
end = "03:00"
[shifts.two]
start = "03:00"
end = "12:00"
[lines.gw1.filling]
states = { producing = ["producing"], idle = ["idle"] }
alerts = { learn_shifts = 1 }
[lines.gw1.filling.meters.line]
point = "m1.energy"
load = "units"
[lines.gw1.filling.meters.compressor]
point = "comp.energy"
parent = "line"
power = "comp.power"
running_w = 1000
"""
FILLING = LineSchema(
    name="filling",
    site="works",
    zone="DEMO",
    period_s=60,
    columns=(
        LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="comp.energy", unit="kWh", role=Role.ENERGY),
        LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD),
    ),
    context=(ContextColumn(point="plc.state", what=What.STATE), ContextColumn(point="plc.sku", what=What.PRODUCT)),
)
POWER = Schema(device="comp", columns=(Column(name="power", unit="kW", store="f64"),))
FAULT, REPAIR, END = 240, 285, 330


@dataclass
class Works:
    """A gateway's log of one line with a compressor, and a ledger with a clock that is set."""

    folder: Path
    plan: str = PLAN
    now_ns: int = DAY0_NS
    leaves: list[bytes] = field(default_factory=list)
    given: int = 0
    counters: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 3)
    hall: Hall = field(init=False)
    prev: int | None = None

    def __post_init__(self) -> None:
        clock = WallClock(
            wall=lambda: self.now_ns, steady=lambda: self.now_ns, state=lambda: (ClockState.SYNCHRONISED, 0)
        )
        self.hall = Hall(self.folder, clock=clock)
        self.seal_plan(self.plan)
        self.hall.ledger.offer([factor("400", DAY0_NS, DAY0_NS + 24 * 60 * MINUTE)])
        self.add("epoch", epoch_body(1, SIGNERS["gw1"].verifier.vkey, {"type": "unattested"}))
        self.add("schema", line_body(FILLING))
        self.add("schema", schema_body(POWER))

    def seal_plan(self, content: str) -> None:
        """Seal a plan that holds from the first minute on."""
        plan = Document(name="plan", from_ns=DAY0_NS, content=content.encode())
        self.hall.ledger.seal("document", document_body(plan))

    def add(self, kind: str, body: bytes, prev: int | None = None) -> None:
        """Seal a leaf."""
        clock = Clock(t_ns=self.now_ns + SECOND, state=ClockState.SYNCHRONISED, offset_ns=0)
        self.leaves.append(seal(kind, body, clock=clock, prev=prev))

    def boundary(self, setting: tuple[str, str]) -> None:
        """Seal an interval at the time that it is."""
        samples = tuple(
            Sample(point=column.point, source_time_ns=self.now_ns, raw=b"", value=value)
            for column, value in zip(FILLING.columns, self.counters, strict=True)
        )
        told = tuple((Told(self.now_ns - MINUTE, value),) for value in setting)
        interval = Interval(schema_id=FILLING.id, t_ns=self.now_ns, samples=samples, context=told)
        self.add("interval", interval_body(interval), self.prev)
        self.prev = len(self.leaves) - 1

    def pass_minute(self, seen: Observation) -> None:
        """Let a minute of the story pass: the power twice each start, then the counters."""
        starts = (seen.starts or {})["compressor"]
        rows = [Row(POWER, seen.start_ns + SECOND, (0.0,))]
        for number in range(max(1, starts)):
            at = seen.start_ns + (5 + 20 * number) * SECOND
            rows += [Row(POWER, at, (40.0 if starts else 0.0,)), Row(POWER, at + 10 * SECOND, (0.0,))]
        self.now_ns = seen.end_ns
        self.add("readings", readings_body(rows))
        compressor = Decimal(f"{seen.energy_kwh['compressor']:.4f}")
        self.counters[0] += compressor + Decimal(f"{seen.energy_kwh['line']:.4f}")
        self.counters[1] += compressor
        self.counters[2] += Decimal(round(seen.units_good or 0))
        self.boundary((seen.setting.state, seen.setting.product))

    def give(self) -> None:
        """Give the ledger what it has not, and let it look."""
        self.hall.take("gw1", [Scroll(SIGNERS["gw1"], list(self.leaves)).message(self.given)])
        self.given = len(self.leaves)
        self.look()

    def look(self) -> None:
        """Let the duties look, some seconds later."""
        self.now_ns += 6 * SECOND
        self.hall.ledger.look()

    def run(self, last: int, story: Iterator[Observation]) -> None:
        """Let the story go on up to a minute."""
        for seen in story:
            self.pass_minute(seen)
            minute = (seen.end_ns - DAY0_NS) // MINUTE
            if minute % 5 == 0:
                self.give()
            if minute >= last:
                return

    @property
    def events(self) -> list[str]:
        """What was sealed of baselines and alerts."""
        names = [leaf.body["what"] for leaf in self.hall.own("event")]
        return [name for name in names if name.startswith(("alert.", "baseline."))]

    @property
    def abouts(self) -> list[dict[str, Any]]:
        """All that was sealed of baselines and alerts."""
        return [leaf.body for leaf in self.hall.own("event") if leaf.body["what"].startswith(("alert.", "baseline."))]

    @property
    def alerts(self) -> list[Alert]:
        """The alerts as said last."""
        with self.hall.ledger.book.reading() as connection:
            return list(read_alerts(connection).alerts.values())


def story() -> Iterator[Observation]:
    fault = between(FAULT, REPAIR, compressor_kw=585.0, starts_per_h=30.0)
    return Line(seed=3).minutes(0, END, fault)


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    made = Works(tmp_path / "works")
    made.boundary(("producing", "A"))
    yield made
    made.hall.ledger.close()


def shown(works: Works, *arguments: str) -> str:
    file = works.folder / "ledger.toml"
    file.write_text(works.hall.toml)
    command, *more = arguments
    done = CliRunner().invoke(wattseal, [command, str(file), *more])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_fault_is_sealed_with_its_cause_and_survives_restarts(works: Works) -> None:
    minutes = story()
    works.run(FAULT + 15, minutes)
    assert works.events == ["baseline.learned", "alert.raised"]
    (alert,) = works.alerts
    assert alert.raised_ns - (DAY0_NS + FAULT * MINUTE) <= 10 * MINUTE
    assert alert.causes[0].name == "compressor"
    assert alert.causes[0].evidence[0].startswith("short cycling, 30 starts/h instead of 6")

    works.hall.restart()
    works.look()
    works.look()
    assert works.events == ["baseline.learned", "alert.raised"]
    said = shown(works, "alerts", "--open")
    assert said.startswith("compressor: short cycling, 30 starts/h instead of 6")
    assert "kg/unit (" in said
    assert alert.id in said

    works.run(REPAIR + 5, minutes)
    works.hall.restart()
    works.run(END, minutes)
    assert works.events == ["baseline.learned", "alert.raised", "alert.cleared"]
    (cleared,) = works.alerts
    assert cleared.id == alert.id
    assert cleared.repaired == pytest.approx(0.68, abs=0.02)
    assert cleared.excess_kg == pytest.approx(0.19 * 450, rel=0.1)
    assert cleared.avoided_kg == pytest.approx(0.19 * 600 * (720 - REPAIR) / 60, rel=0.15)
    (found,) = json.loads(shown(works, "alerts", "--json"))["alerts"]
    assert (found["alert"], found["open"]) == (alert.id, False)
    assert "No alerts are open" in shown(works, "alerts", "--open")


def test_an_operator_shelves_an_alert_and_it_is_sealed_who_and_why(works: Works) -> None:
    works.run(FAULT + 15, story())
    (alert,) = works.alerts
    with pytest.raises(ConfigError, match="want an open alert"):
        shown(works, "shelve", "nothing", "--until", "2026-01-01T09:00:00Z", "--why", "valve is ordered")
    shown(works, "shelve", alert.id, "--until", "2026-01-01T09:00:00Z", "--why", "valve is ordered")
    works.look()
    assert works.events[-1] == "alert.shelved"
    (quiet,) = works.alerts
    assert quiet.shelved_by
    assert quiet.shelved_why == "valve is ordered"
    assert "shelved by" in shown(works, "alerts")
    assert not list((works.folder / "state" / "shelve").iterdir())
    shown(works, "shelve", alert.id, "--until", "2046-01-01T09:00:00Z", "--why", "for ever")
    works.look()
    assert works.events.count("alert.shelved") == 1
    assert works.hall.times("ledger.shelve") == 1


def test_a_fresh_plant_is_shown_what_it_learns_and_how_far_it_is(works: Works) -> None:
    minutes = story()
    works.run(40, minutes)
    said = shown(works, "alerts").splitlines()
    assert said == [
        "No alerts. 0 baselines are learned.",
        "gw1/filling, product A: learning, 0 of 1 clean shifts so far: it has no baseline yet",
    ]
    (row,) = json.loads(shown(works, "alerts", "--json"))["learning"]
    assert (row["line"], row["product"], row["shifts"], row["wanted"]) == ("filling", "A", 0, 1)
    assert (row["why"], row["since"], row["alert"]) == ("it has no baseline yet", None, None)
    (works.folder / "state" / "learning.json").write_text("[{}]")
    assert shown(works, "alerts").splitlines() == said[:1]
    works.run(185, minutes)
    assert shown(works, "alerts") == "No alerts. 1 baselines are learned.\n"


def test_what_is_shelved_stays_so_when_its_alert_is_over_and_the_ledger_was_restarted(works: Works) -> None:
    again = between(REPAIR + 15, 350, compressor_kw=585.0, starts_per_h=30.0)
    minutes = Line(seed=3).minutes(0, 350, between(FAULT, FAULT + 20, compressor_kw=585.0, starts_per_h=30.0), again)
    works.run(FAULT + 15, minutes)
    (alert,) = works.alerts
    shown(works, "shelve", alert.id, "--until", "2026-01-01T05:30:00Z", "--why", "valve is ordered")
    works.look()
    works.run(REPAIR + 10, minutes)
    assert works.events == ["baseline.learned", "alert.raised", "alert.shelved", "alert.cleared"]
    works.hall.restart()
    works.run(329, minutes)
    assert len(works.events) == 4
    works.run(350, minutes)
    assert works.events[4:] == ["alert.raised"]


LONG_SHIFTS = PLAN.split("[lines", maxsplit=1)[0].replace("03:00", "01:30").replace("12:00", "03:00")
LONG_SHIFTS += '[shifts.three]\nstart = "03:00"\nend = "04:30"\n[shifts.four]\nstart = "04:30"\nend = "06:00"\n'
LONG_SHIFTS += '[shifts.five]\nstart = "06:00"\nend = "12:00"\n[lines' + PLAN.split("[lines", maxsplit=1)[1]


def rarely_made(works: Works, *restarts: int) -> list[dict[str, Any]]:
    """Make A and B in turn, a shift each; return all events. restarts: after these minutes."""
    works.boundary(("producing", "A"))
    minutes = Line(seed=3).minutes(0, 380, between(90, 180, product="B"), between(270, 360, product="B"))
    for minute in (*restarts, 370):
        works.run(minute, minutes)
        if minute in restarts:
            works.hall.restart()
            works.look()
    works.hall.ledger.close()
    return works.abouts


def test_a_product_that_is_made_rarely_gets_its_baseline_over_restarts(tmp_path: Path) -> None:
    """The first shift of B lies before the newest baseline, of A, from which the ledger reads on."""
    plan = LONG_SHIFTS.replace("learn_shifts = 1", "learn_shifts = 2")
    live = rarely_made(Works(tmp_path / "live", plan=plan))
    assert [(one["what"], one["about"]["product"]) for one in live] == [
        ("baseline.learned", "A"),
        ("baseline.learned", "B"),
    ]
    assert rarely_made(Works(tmp_path / "restarted", plan=plan), 200, 280, 300, 365) == live


SHORT_SHIFTS = PLAN.replace('"03:00"\nend = "12:00"', '"03:00"\nend = "06:30"') + "[shifts.three]\n"
SHORT_SHIFTS += 'start = "06:30"\nend = "12:00"\n'


def test_an_alert_that_stays_open_says_its_excess_so_far_once_a_shift_and_not_again_after_a_restart(
    tmp_path: Path,
) -> None:
    works = Works(tmp_path / "works", plan=SHORT_SHIFTS)
    works.boundary(("producing", "A"))
    minutes = Line(seed=3).minutes(0, 410, between(FAULT, 410, compressor_kw=585.0, starts_per_h=30.0))
    works.run(395, minutes)
    assert works.events == ["baseline.learned", "alert.raised", "alert.updated"]
    said = shown(works, "alerts", "--open")
    assert "-> 0.87 kg/unit; +2" in said
    assert "kg so far" in said
    assert works.abouts[-1]["t"] == DAY0_NS + 390 * MINUTE
    works.hall.restart()
    works.run(405, minutes)
    assert len(works.events) == 3
    assert shown(works, "alerts", "--open") == said
    works.hall.ledger.close()


def accepted(works: Works, *, is_restarted: bool) -> list[dict[str, Any]]:
    """Let a fault come to stay, have it accepted; return all events."""
    works.boundary(("producing", "A"))
    minutes = Line(seed=3).minutes(0, 450, between(FAULT, 450, compressor_kw=585.0, starts_per_h=30.0))
    works.run(FAULT + 15, minutes)
    (alert,) = works.alerts
    with pytest.raises(ConfigError, match="accept: got 'nothing', want an open alert"):
        shown(works, "accept", "nothing", "--why", "a second compressor")
    with pytest.raises(ConfigError, match="want the reason"):
        shown(works, "accept", alert.id, "--why", " ")
    if is_restarted:  # a request that waits is taken up by the next one
        works.hall.restart()
    assert json.loads(shown(works, "accept", alert.id, "--why", "a second compressor", "--json"))["alert"] == alert.id
    works.look()
    works.look()
    assert works.events == ["baseline.learned", "alert.raised", "alert.accepted"]
    assert not list((works.folder / "state" / "accept").iterdir())
    for _ in range(2):
        said = shown(works, "alerts")
        assert "accepted by" in said
        assert "a second compressor" in said
        assert "gw1/filling, product A: learning since 2026-01-01T04:" in said
        (learning,) = json.loads(shown(works, "alerts", "--open", "--json"))["learning"]
        assert (learning["product"], learning["alert"]) == ("A", alert.id)
        if is_restarted:
            works.hall.restart()
            works.look()
    works.run(330, minutes)
    if is_restarted:
        works.hall.restart()
    works.run(450, minutes)
    assert works.events == ["baseline.learned", "alert.raised", "alert.accepted", "baseline.learned"]
    assert "learning" not in shown(works, "alerts")
    with works.hall.ledger.book.reading() as connection:
        (baselines,) = read_alerts(connection).baselines.values()
    assert baselines["A", ""].assets["compressor"].kw == pytest.approx(585, rel=0.03)
    assert baselines["A", ""].number == 1
    works.hall.ledger.close()
    return works.abouts


def test_an_accepted_fault_is_the_new_normal_and_the_same_after_restarts(tmp_path: Path) -> None:
    live = accepted(Works(tmp_path / "live", plan=SHORT_SHIFTS), is_restarted=False)
    about = live[2]["about"]
    assert about["accepted_by"]
    assert (about["accepted_why"], about["dropped_baseline"]) == ("a second compressor", 1)
    assert about["cleared"] == live[2]["t"] >= about["raised"]
    assert accepted(Works(tmp_path / "restarted", plan=SHORT_SHIFTS), is_restarted=True) == live


def cycles_of(works: Works, start: int, end: int) -> dict[str, tables.Cycled]:
    with works.hall.ledger.book.reading() as connection:
        return dict(tables.cycled(connection, "gw1", "filling", DAY0_NS + start * MINUTE, DAY0_NS + end * MINUTE))


def test_starts_are_counted_by_minute_and_come_out_the_same_in_a_rebuild(works: Works) -> None:
    works.run(40, story())
    found = [cycles_of(works, minute, minute + 1) for minute in range(40)]
    assert set().union(*found) == {"compressor"}
    assert sum(one["compressor"].starts for one in found) == 4
    assert sum(one["compressor"].loaded_ns for one in found) == 40 * SECOND
    before = works.hall.dump()
    assert works.hall.dump_rebuilt() == before
    assert [cycles_of(works, minute, minute + 1) for minute in range(40)] == found


def test_a_plan_that_holds_from_before_it_was_sealed_leaves_a_rebuild_equal_to_live(tmp_path: Path) -> None:
    """Starts are counted later by a plan that came later: they are no part of what a rebuild is compared by."""
    works = Works(tmp_path / "works", plan=PLAN.split("power = ", maxsplit=1)[0])
    works.boundary(("producing", "A"))
    minutes = story()
    works.run(20, minutes)
    works.seal_plan(PLAN)
    works.run(40, minutes)
    assert cycles_of(works, 0, 20) == {}
    assert cycles_of(works, 20, 40)["compressor"].starts == 2
    before = works.hall.dump()
    assert any(row.startswith('["point_schemas"') for row in before)
    assert works.hall.dump_rebuilt() == before
    assert cycles_of(works, 0, 40)["compressor"].starts == 4
    works.hall.ledger.close()


def test_starts_in_agents_frames_are_counted_too(tmp_path: Path) -> None:
    works = Works(tmp_path / "works", plan=PLAN.replace("comp.power", "press.power"))
    source = AgentSource.of("press-1", "press", {"power": ("kW", AgentColumn(0, Decimal("0.1")))})
    works.add("schema", schema_body(source.schema))
    frames = []
    for number, tenths in enumerate((0, 400, 400, 0, 400, 0)):
        points = [AgentPoint(0, 0, tenths, 0), AgentPoint(7, 0, 1, 0)]
        time_ms = (DAY0_NS + number * 10 * SECOND) // 1_000_000
        raw = pack_frame(
            agent="press-1",
            boot=b"one boot",
            sequence=number + 1,
            time_ms=time_ms,
            energy=None,
            points=points,
            key=bytes(32),
        )
        frames.append(raw)
    works.now_ns += MINUTE
    works.add("readings", frames_body(source, frames[:2]))
    works.add("readings", frames_body(source, frames[2:]))
    works.give()
    found = cycles_of(works, 0, 2)["compressor"]
    assert (found.starts, found.loaded_ns, found.seen_ns) == (2, 30 * SECOND, 50 * SECOND)
    works.hall.ledger.close()
