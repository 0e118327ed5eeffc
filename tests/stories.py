"""Hours of a plant as a seed tells them, through a ledger in memory: what is late, corrected, revised, or not there."""

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from gateway.app.standing.window import window_of
from gateway.app.timezones import Rules, rules_of
from gateway.attest.decision import Ruling, sign_ruling
from gateway.carbon.grid.factors import version_of
from gateway.clock import WallClock
from gateway.codec.bodies import (
    context_body,
    counts_body,
    decision_body,
    document_body,
    epoch_body,
    interval_body,
    line_body,
    standing_body,
)
from gateway.codec.leaves import seal
from gateway.config.plan import parse_plan
from gateway.errors import ConfigError
from gateway.model import (
    INTERPOLATED,
    UNTIL_FURTHER_NOTICE_NS,
    Clock,
    ClockState,
    ContextColumn,
    ContextFact,
    CountFact,
    Decision,
    Document,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Sample,
    Standing,
    State,
    Told,
    What,
)
from gateway.tlog.note import Signer
from tests.ears import of_boot
from tests.ledgering import SIGNERS, Hall, Scroll
from tests.line_leaves import factor

SECOND = 1_000_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
CHANGE = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()) * SECOND
"""When clocks go forward in Berlin."""
BEGIN = CHANGE - 3 * HOUR
OFFICER = Signer.generate("wattseal-officer/jane")
STEPS = (Decimal("0.4"), Decimal("0.1"), Decimal("0.05"), Decimal(7), Decimal(8))
"""What each counter grows in a minute."""
WORDS = ("6", "4", "9", "3", "", "producing", "strange")
NAMES = ("cola", "tea", "")
MODULUS = Decimal(1000)


def schema(name: str, *, serial: str = "", period_s: int = 60, zone: str = "DEMO", told: bool = True) -> LineSchema:
    """Return the schema of a line: a main meter, one below it, gas; `filling` counts for itself, others do not."""
    columns = [
        LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY, modulus=MODULUS, rated_power_w=200_000),
        LineColumn(point="m2.energy", unit="kWh", role=Role.ENERGY, serial=serial, meter_class="1"),
        LineColumn(point="gas.volume", unit="m3", role=Role.FUEL),
    ]
    if name == "filling":
        columns += [
            LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD),
            LineColumn(point="plc.total", unit="", role=Role.COUNT_TOTAL),
        ]
    context = (ContextColumn(point="plc.state", what=What.STATE), ContextColumn(point="plc.sku", what=What.PRODUCT))
    return LineSchema(
        name=name,
        site="works",
        zone=zone,
        period_s=period_s,
        columns=tuple(columns),
        context=context if told else (),
    )


@cache
def berlin() -> Rules:
    """Return the offsets of Berlin."""
    return rules_of("Europe/Berlin", from_ns=BEGIN, now_ns=BEGIN)


@dataclass
class Line:
    """One line's counters as they stand, and what its controllers say."""

    schema: LineSchema
    counters: list[Decimal]
    told: list[Told]
    prev: int | None = None
    sealed: set[bytes] = field(default_factory=set)
    sealed_leaves: list[tuple[int, int, int, tuple[Decimal | None, ...]]] = field(default_factory=list)
    is_doubtful: bool = False

    def shown(self, counts: Callable[[int], bool]) -> list[tuple[Decimal | None, ...]]:
        """Return what the leaves that count show, in order of time. counts: whether figures may rest on a leaf."""
        found, newest_ns = [], 0
        for index, t_ns, latest_ns, good in self.sealed_leaves:
            if counts(index) and newest_ns < t_ns <= latest_ns:
                newest_ns = t_ns
                found.append(good)
        return found


@dataclass
class Story:
    """One seed's hours. wild: whether leaves are late or wrong, registers
    swapped, disks full. attested: whether the gateway is found in this state and that, and officers decide.
    told: what happened, to be read when it fails.
    """

    folder: Path
    seed: int
    minutes: int = 60
    lines: Sequence[str] = ("filling",)
    wild: bool = True
    attested: bool = False
    epoch: int = 1
    starts: int = 1
    decisions: int = 0
    told: list[str] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    now_ns: int = BEGIN
    given: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.now_ns = BEGIN + 5 * MINUTE * self.dice.randrange(40)
        self.begin_ns = self.now_ns
        clock = WallClock(
            wall=lambda: self.now_ns, steady=lambda: self.now_ns, state=lambda: (ClockState.SYNCHRONISED, 0)
        )
        self.hall = Hall(
            self.folder, windows=(), clock=clock, more='plan = "carbon.toml"\ngrid_settings = "grid-settings.json"\n'
        )
        self._undisturbed()
        self._add("epoch", epoch_body(1, SIGNERS["gw1"].verifier.vkey, {"type": "unattested"}))
        self.of = {
            name: Line(
                schema(name),
                [Decimal(995) if self.dice.random() < 0.3 else Decimal(10), *map(Decimal, ("5", "1", "0", "0"))],
                [Told(self.begin_ns - MINUTE, "6"), Told(self.begin_ns - MINUTE, "cola")],
            )
            for name in self.lines
        }

    # ---- the gateway's side

    def _add(self, kind: str, body: bytes, prev: int | None = None, clock: Clock | None = None) -> None:
        held = clock or Clock(t_ns=self.now_ns + SECOND, state=ClockState.SYNCHRONISED, offset_ns=0)
        self.leaves.append(seal(kind, body, clock=held, prev=prev))

    def minute(self, line: Line) -> None:
        """Let a line's counters go on for a minute, and seal an interval if one is due and not missing."""
        dice = self.dice
        for place, step in enumerate(STEPS):
            line.counters[place] += step * dice.choice((0, 1, 1, 1, 2))
        line.counters[0] %= MODULUS
        changes: list[list[Told]] = [[], []]
        for column in (0, 1):
            while dice.random() < 0.08:
                at = self.now_ns - dice.randrange(0, MINUTE, 500_000_000)
                if at > line.told[column].t_ns and (not changes[column] or at > changes[column][-1].t_ns):
                    changes[column].append(Told(at, dice.choice(WORDS if column == 0 else (*NAMES, None))))
        told = tuple((line.told[n], *changes[n]) for n in (0, 1))
        for column in (0, 1):
            if changes[column]:
                line.told[column] = changes[column][-1]
        if self.now_ns % (line.schema.period_s * SECOND) or dice.random() < 0.08:
            return
        self.seal_interval(line, told)

    def seal_interval(self, line: Line, told: tuple[tuple[Told, ...], ...]) -> None:
        """Seal an interval of now, or at times one that is not quite right."""
        dice, wild = self.dice, self.wild
        if line.schema.id not in line.sealed:
            line.sealed.add(line.schema.id)
            self._add("schema", line_body(line.schema))
        t_ns, clock = self.now_ns, None
        period_ns = line.schema.period_s * SECOND
        if wild and dice.random() < 0.02:
            t_ns += period_ns * dice.choice((-7, -2, -1, 3, 90))
            self.told.append(f"{line.schema.name}: a leaf of {(t_ns - self.now_ns) // MINUTE} min from now")
        if wild and dice.random() < 0.02:
            clock = Clock(t_ns=self.now_ns + SECOND, state=ClockState.SUSPECT, offset_ns=5)
        samples = []
        for column, value in zip(line.schema.columns, line.counters, strict=False):
            source_ns = t_ns - dice.randrange(2 * SECOND)
            fate = dice.random()
            if fate < 0.07:
                samples.append(Sample(column.point, source_ns, b"", None, Quality.BAD))
            elif fate < 0.08 and wild:
                samples.append(Sample(column.point, source_ns, b"\0", Decimal(dice.randrange(1000)), Quality.UNCERTAIN))
            elif fate < 0.09 and wild:
                line.is_doubtful = True
                samples.append(Sample(column.point, source_ns, b"\0", Decimal(dice.randrange(1000))))
            elif fate < 0.11:
                samples.append(Sample(column.point, t_ns, b"", value, Quality.GOOD, INTERPOLATED))
            else:
                samples.append(Sample(column.point, source_ns, b"\0\1", value))
        interval = Interval(
            schema_id=line.schema.id,
            t_ns=t_ns,
            samples=tuple(samples),
            context=told if line.schema.context else (),
        )
        self._add("interval", interval_body(interval), line.prev, clock)
        line.prev = len(self.leaves) - 1
        latest_ns = (clock.t_ns if clock else self.now_ns + SECOND) + MINUTE
        good = tuple(one.value if one.quality == Quality.GOOD else None for one in samples)
        line.sealed_leaves.append((line.prev, t_ns, latest_ns, good))

    def other_schema(self, line: Line) -> None:
        """Swap a register, stop the controller's words, or move the line to another zone."""
        dice, old = self.dice, line.schema
        serial = old.columns[1].serial
        zone, told, period_s = old.zone, bool(old.context), old.period_s
        match dice.randrange(4):
            case 0:
                serial = f"S{dice.randrange(3)}"
                line.counters[1] = Decimal(dice.randrange(50))
                line.is_doubtful = True
            case 1:
                told = not told
            case 2:
                zone = "ALT" if zone == "DEMO" else "DEMO"
            case _:
                period_s = 360 - period_s
        line.schema = schema(old.name, serial=serial, period_s=period_s, zone=zone, told=told)
        self.told.append(f"{old.name}: schema {serial!r} {zone} {told} {period_s}")

    def give(self) -> None:
        """Hand the ledger what is new; now and then twice, or after a gap."""
        scroll = Scroll(SIGNERS["gw1"], list(self.leaves))
        self.given = self.hall.ledger.copies["gw1"].size
        if self.given < len(self.leaves):
            if self.dice.random() < 0.1 and self.given:
                self.hall.ledger.take("gw1", scroll.message(max(0, self.given - 3)))
            else:
                self.hall.ledger.take("gw1", scroll.message(self.given))
            self.hall.ledger.commit()

    # ---- the ledger's side

    def time(self) -> int:
        """Return some instant around now."""
        dice = self.dice
        near = self.begin_ns + dice.randrange(-10, self.minutes + 20) * MINUTE
        return near + dice.choice((0, 0, 0, 1, 30 * SECOND, -1, dice.randrange(MINUTE)))

    def factors(self) -> None:
        """Offer a run of windows of some provider."""
        dice = self.dice
        granularity, length = dice.choice((("PT1H", HOUR), ("PT30M", HOUR // 2), ("PT15M", HOUR // 4), ("P1Y", 0)))
        provider, zone = dice.choice("abc"), dice.choice(("DEMO", "DEMO", "ALT"))
        kind = dice.choice(("lifecycle", "lifecycle", "direct"))
        signal = dice.choice(("average", "average", "average", "marginal"))
        state = dice.choice(("forecast", "estimated", "measured", "final"))
        more = {"provider": provider, "granularity": granularity, "type": kind, "state": state, "zone": zone}
        more |= {"signal": signal, "method": dice.choice(("constant", "mix"))}
        made = []
        if length == 0:
            start = BEGIN - 90 * 24 * HOUR
            start += dice.choice((0, 0, 90 * 24 * HOUR + 90 * MINUTE))
            end = dice.choice((UNTIL_FURTHER_NOTICE_NS, start + 365 * 24 * HOUR))
            made.append(factor(str(dice.randrange(1, 900)), start, end, **more))
        else:
            first = self.begin_ns // HOUR * HOUR - 2 * HOUR + length * dice.randrange(4 * HOUR // length)
            for n in range(dice.randrange(1, 9)):
                open_end = dice.random() < 0.06
                end = UNTIL_FURTHER_NOTICE_NS if open_end else first + (n + 1) * length
                made.append(factor(str(dice.choice((0.5, 100, 250, 400))), first + n * length, end, **more))
        with contextlib.suppress(ConfigError):
            count = self.hall.ledger.offer(made)
            self.told.append(f"factors {[f.key for f in made[:1]]} {made[0].start_ns} +{len(made)}: {count} new")

    def fuel(self) -> None:
        """Offer a version of gas."""
        dice = self.dice
        unit, kind = dice.choice((("g/kWh", "gross"), ("g/kWh", "net"), ("g/m3", "unit")))
        start = BEGIN - 24 * HOUR + dice.choice((0, 0, 25 * HOUR, 26 * HOUR + 30 * MINUTE))
        end = dice.choice((UNTIL_FURTHER_NOTICE_NS, start + 48 * HOUR))
        held = factor(
            str(dice.randrange(150, 300)),
            start,
            end,
            zone="gas",
            signal="fuel",
            provider=dice.choice(("t", "u")),
            type=kind,
            granularity="P1Y",
        )
        with contextlib.suppress(ConfigError):
            self.hall.ledger.offer([_in_unit(held, unit)])
            self.told.append(f"fuel {kind} {held.start_ns} {held.end_ns}")

    def context(self) -> None:
        """Seal a word of an MES on a line: new, corrected, late, early."""
        dice = self.dice
        what = dice.choice(list(What))
        value = dice.choice(WORDS if what == What.STATE else (*NAMES, "=cmd"))
        fact = ContextFact(
            gateway="gw1",
            line=dice.choice((*self.lines, "nowhere")),
            what=what,
            t_ns=self.time(),
            value=value,
            source=dice.choice(("mes", "uns:a")),
            id=str(dice.randrange(12)),
        )
        if self.hall.ledger.facts.known(fact) is None:
            self.hall.ledger.seal("context", context_body(fact))
            self.told.append(f"context {fact}")

    def counts(self) -> None:
        """Seal a count of an MES."""
        dice = self.dice
        start = self.time()
        total = dice.randrange(100)
        fact = CountFact(
            gateway="gw1",
            line=dice.choice(self.lines),
            start_ns=start,
            end_ns=start + dice.randrange(1, 40 * MINUTE),
            good=dice.choice((None, total, total // 2)),
            total=total,
            source="mes",
            id=str(dice.randrange(12)),
        )
        # One that covers a part of another is refused by the intake; here it gets into the log at times.
        if self.hall.ledger.facts.known(fact) is None:
            self.hall.ledger.seal("counts", counts_body(fact))
            self.told.append(f"counts {fact}")

    def plan(self) -> None:
        """Seal another plan."""
        dice = self.dice
        toml = plan_toml(dice, self.lines)
        parse_plan(toml, name="plan")
        from_ns = self.time() if self.wild else self.begin_ns - HOUR
        rules = berlin() if "Berlin" in toml else ()
        self.hall.ledger.seal(
            "document", document_body(Document(name="plan", from_ns=from_ns, content=toml.encode(), rules=rules))
        )
        self.told.append(f"plan from {from_ns}:\n{toml}")

    def settings(self) -> None:
        """Seal other grid settings."""
        dice = self.dice
        content = dice.choice(
            (b"{}", b'{"emission_factor":0.123}', b'{"emission_factor":0.2,"zone":"DEMO"}', b'{"zone":"ALT"}')
        )
        from_ns = self.time()
        self.hall.ledger.seal(
            "document", document_body(Document(name="grid-settings", from_ns=from_ns, content=content))
        )
        self.told.append(f"settings from {from_ns}: {content!r}")

    # ---- attestation

    def boot(self) -> None:
        """Start the gateway anew: another epoch, by the same key; now and then of a device that has started, too."""
        self.epoch += 1
        self.starts += self.dice.choice((0, 1))
        self._add("epoch", epoch_body(self.epoch, SIGNERS["gw1"].verifier.vkey, {"type": "unattested"}))
        self.told.append(f"epoch {self.epoch} from leaf {len(self.leaves) - 1}")

    @property
    def _boot(self) -> str:
        return f"aa:{self.starts}:0"

    def announce(self) -> None:
        """Seal that new epochs wait, once the gateway is under attestation."""
        standings = self.hall.ledger.facts.standings
        newest, epochs = standings.newest("gw1"), standings.epochs("gw1")
        if newest is None or newest.state is State.UNATTESTED:
            return
        known = max((index for index, number, _ in epochs if number == newest.epoch), default=newest.first - 1)
        for index, number, _ in epochs:
            if index > known:
                self._stand(State.PENDING, number, index)

    def standing(self) -> None:
        """Let the ledger find the gateway in some state."""
        self.announce()
        standings, size = self.hall.ledger.facts.standings, self.hall.ledger.held("gw1")
        newest, epochs = standings.newest("gw1"), standings.epochs("gw1")
        epoch = epochs[-1][1] if epochs else 0
        if newest is None or newest.state is State.UNATTESTED:
            self._stand(State.PENDING, epoch, size)
            return
        state = self.dice.choice((State.TRUSTED, State.TRUSTED, State.FAILED, State.STALE, State.UNREACHABLE))
        first = size
        if state is State.TRUSTED:
            first = standings.reach("gw1", epoch, self._boot, size)
        elif state is State.FAILED:
            since = self.dice.choice((0, size, self.dice.randrange(1 + size)))
            first = standings.reach_failed("gw1", epoch, self._boot, size, since=since)
        self._stand(state, epoch, first)

    def _stand(self, state: State, epoch: int, first: int) -> None:
        ledger = self.hall.ledger
        size = ledger.held("gw1")
        with ledger.book.reading() as connection:
            window = window_of(connection, "gw1", first, size) or (None, None)
        is_judged = epoch > 0 and state in {State.TRUSTED, State.FAILED}
        result = of_boot(self._boot, epoch, is_good=state is State.TRUSTED) if is_judged else ""
        standing = Standing(
            gateway="gw1",
            first=first,
            size=size,
            state=state,
            reason="",
            epoch=epoch,
            t_ns=self.now_ns,
            verified_ns=None,
            start_ns=window[0],
            end_ns=window[1],
            result=result,
        )
        ledger.seal("standing", standing_body(standing))
        self.told.append(f"standing {state} of epoch {epoch} from {first} at {size}")

    def decide(self) -> None:
        """Let an officer decide on some leaves."""
        ledger, dice = self.hall.ledger, self.dice
        first, stop = sorted((dice.randrange(len(self.leaves)), dice.randrange(len(self.leaves))))
        admit = dice.random() < 0.5
        with ledger.book.reading() as connection:
            window = window_of(connection, "gw1", first, stop)
        if window is None or stop > ledger.held("gw1"):
            return
        self.decisions += 1
        ruling = Ruling(
            ledger="wattseal-ledger/ledger",
            gateway="gw1",
            first=first,
            stop=stop,
            admit=admit,
            made_ns=self.now_ns + 1000 * self.decisions,
            by=OFFICER.name,
            reason="so",
        )
        decision = Decision(
            gateway="gw1",
            first=first,
            stop=stop,
            admit=admit,
            start_ns=window[0],
            end_ns=window[1],
            note=sign_ruling(ruling, OFFICER),
        )
        ledger.seal("decision", decision_body(decision))
        self.told.append(f"decision {admit} on {first}:{stop}")

    def _undisturbed(self) -> None:
        """Leave standings to the story: the duty knows that the gateway's key is pinned."""
        ledger = self.hall.ledger
        ledger.duties = [duty for duty in ledger.duties if duty.name != "attesting"]

    def restart(self) -> None:
        """Restart the ledger."""
        self.hall.restart()
        self._undisturbed()
        self.told.append("restart")

    def full(self) -> None:
        """Let a disk be full for a moment."""
        dice = self.dice
        which = dice.choice((None, "gw1"))
        disk = self.hall.disk(which)
        disk.room = sum(disk.size(path) or 0 for path in disk.paths()) + dice.choice((0, 100, 900))
        for _ in range(dice.randrange(1, 4)):
            dice.choice((self.give, self.factors, self.context, self.plan, self.settings))()
        disk.room = None
        self.hall.ledger.beat()
        self.told.append(f"full: {which}")

    def look(self) -> None:
        """Let the duties look."""
        self.hall.ledger.look()

    # ---- all of it

    def run(self) -> None:  # noqa: C901 - one thing after another
        """Tell the story to its end; then all leaves are with the ledger, and it is up to date."""
        dice = self.dice
        acts: Mapping[Callable[[], None], float] = {
            self.factors: 0.12,
            self.fuel: 0.02,
            self.context: 0.12,
            self.counts: 0.04,
            self.plan: 0.025,
            self.settings: 0.01,
            self.restart: 0.01,
            self.full: 0.015 if self.wild else 0,
            self.look: 0.01,
        }
        if self.attested:
            acts = {**acts, self.boot: 0.02, self.announce: 0.2, self.standing: 0.08, self.decide: 0.04}
        for _ in range(dice.randrange(8)):
            dice.choice((self.factors, self.factors, self.plan, self.context, self.fuel))()
        for _ in range(self.minutes):
            self.now_ns += MINUTE
            for line in self.of.values():
                self.minute(line)
                if self.wild and dice.random() < 0.015:
                    self.other_schema(line)
            for act, likely in acts.items():
                if dice.random() < likely:
                    act()
            if dice.random() < 0.15:
                self.give()
        for _ in range(2):
            self.give()
        for act in dice.sample(list(acts), 4):
            if act != self.full:
                act()
        self.hall.ledger.beat()


def plan_toml(dice: random.Random, lines: Sequence[str]) -> str:  # noqa: C901, PLR0912 - one choice after another
    """Return some plan."""
    toml = ""
    if dice.random() < 0.7:
        toml += '[site]\ntimezone = "Europe/Berlin"\n'
    shifts = dice.random() < 0.6
    if shifts:
        toml += '[shifts.night]\nstart = "22:00"\nend = "02:30"\n[shifts.early]\nstart = "02:30"\nend = "06:10"\n'
        if dice.random() < 0.5:
            toml += f'lines = ["gw1/{lines[0]}"]\n'
    if dice.random() < 0.2:
        toml += '[[calendar]]\ndate = "2026-03-29"\nshifts = []\n'
    for zone in ("DEMO", "ALT"):
        if dice.random() < 0.6:
            toml += f"[grid.{zone}]\nlast_good_h = {dice.choice((0, 0.5, 1.25, 3, 6))}\n"
            toml += f'type = "{dice.choice(("lifecycle", "lifecycle", "direct"))}"\n'
            if dice.random() < 0.8:
                order = dice.sample(["a", "b", "c"], dice.randrange(1, 4))
                toml += f"order = {order}\n".replace("'", '"')
    for line in lines:
        match dice.randrange(4):
            case 0:
                toml += f'[lines.gw1.{line}.meters.main]\npoint = "m1.energy"\n'
                toml += f'[lines.gw1.{line}.meters.sub]\npoint = "m2.energy"\nparent = "main"\n'
            case 1:
                toml += f'[lines.gw1.{line}.virtual.process]\nplus = ["m1.energy"]\nminus = ["m2.energy"]\n'
            case 2:
                toml += f'[lines.gw1.{line}.meters.other]\npoint = "m9.energy"\n'
        if dice.random() < 0.4:
            toml += f'[lines.gw1.{line}.states]\nproducing = ["6", "4"]\nidle = ["9"]\n'
        if dice.random() < 0.5:
            toml += f'[fuels.gas-{line}]\nline = "gw1/{line}"\npoint = "gas.volume"\nfuel = "gas"\n'
            toml += f'basis = "{dice.choice(("gross", "net"))}"\ncorrection = "1.02264"\n'
            toml += dice.choice(("", 'calorific_mj = "39.5"\n')) + dice.choice(("", 'provider = "t"\n'))
        if shifts and dice.random() < 0.5:
            toml += f'[static-assets.lamp-{line}]\nline = "gw1/{lines[0]}"\nstandby_w = 333.3\n'
            toml += 'leakage_multiplier = "1.07"\n' + dice.choice(("", 'covered_by = "m1.energy"\n'))
    return toml


def _in_unit(held: Factor, unit: str) -> Factor:
    """Return a factor in a unit, which is part of its version."""
    method = f"burnt, {unit}"
    version = version_of(g_per_kwh=held.g_per_kwh, state=held.state, method=method, model_date="")
    return replace(held, unit=unit, method=method, version=version)
