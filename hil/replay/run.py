"""Run a case, and say what the pipeline made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import sin, tau
from pathlib import Path
from typing import Any

from gateway.app.demo_plant import LINE, plant_devices
from gateway.carbon.alerts.alert import CLEARED, RAISED, Alert, Cause
from gateway.store import projections as tables
from gateway.store.projections import EventRow, Slice
from hil.plant.factory import Plant
from hil.replay.cases import Case
from hil.replay.rig import GATEWAY, MINUTE_NS, NS, ZONE, PlantTime, Rig

BEGIN_NS = 1_772_427_600 * NS
"""2026-03-02 05:00 UTC, a Monday: six in the morning in Berlin, where the early shift begins."""
SHIFT_NS = 8 * 3600 * NS
FAULT_AFTER_NS = 2 * 3600 * NS
LASTS_NS = 45 * MINUTE_NS
_HOUR_NS = 3600 * NS
_LEARNING_MINUTES = 20
"""While there is nothing to be alarmed about, so many minutes are handed over together."""

PLAN = """\
[site]
name = "works"
timezone = "Europe/Berlin"

[shifts.early]
start = "06:00"
end = "14:00"

[shifts.late]
start = "14:00"
end = "22:00"

[shifts.night]
start = "22:00"
end = "06:00"

[lines.gw1.filling]
ideal_units_per_hour = 620

[lines.gw1.filling.meters.compressor]
point = "compressor.import_energy"
power = "compressor.active_power"
running_w = 200000

[lines.gw1.filling.meters.hvac]
point = "hvac.import_energy"

[lines.gw1.filling.meters.press]
point = "press.import_energy"
load = "units"

[lines.gw1.filling.meters.filler]
point = "filler.import_energy"
load = "units"
"""

_FACTOR = """\
[[factor]]
provider = "replay"
zone = "{zone}"
signal = "average"
type = "lifecycle"
start = {start}
end = {end}
value = {value}
unit = "g/kWh"
state = "final"
method = "given"
source = "the case"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the pipeline said of a case.

    before, after, repaired: kg CO2e a unit, before the fault, while it lasted, and since the repair; None where
    nothing was counted. change_percent: from after to repaired. alert_delay_s: from the fault to the first alert.
    shift: the newest one that is closed, with its statement.
    """

    case: str
    seed: int
    before: float | None
    after: float | None
    repaired: float | None
    change_percent: float | None
    alert_delay_s: float | None
    alert_kind: str | None
    causes: list[dict[str, Any]]
    avoided_kg: float | None
    alerts: int
    shift: str
    statement: dict[str, str]


def factors_of(case: Case, fault_ns: int, repair_ns: int, *, end_ns: int, daily: bool) -> str:
    """Return the factor file of a case. daily: from hour to hour it is another, by up to 15 %."""
    hours = range(BEGIN_NS, end_ns, _HOUR_NS) if daily else []
    times = sorted({0, fault_ns, repair_ns, *hours, 4_000_000_000 * NS})
    found = []
    for start, end in pairwise(times):
        curve = 1 + 0.15 * sin(tau * (start // _HOUR_NS) / 24) if daily else 1
        value = float(case.during if fault_ns <= start < repair_ns else case.before) * curve
        found.append(_FACTOR.format(zone=ZONE, start=_utc(start), end=_utc(end), value=f"{value:.7g}"))
    return "\n".join(found)


def _utc(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def replay(
    folder: Path,
    name: str,
    case: Case,
    *,
    seed: int,
    daily: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Run a case in folder, which must be empty; return what came of it. daily: see factors_of."""
    began_ns = BEGIN_NS + len(case.learn) * SHIFT_NS
    fault_ns, end_ns = began_ns + FAULT_AFTER_NS, began_ns + SHIFT_NS
    repair_ns = fault_ns + LASTS_NS
    time = PlantTime(BEGIN_NS)
    plant = Plant(seed=seed, clock=time.seconds)
    files = {"factors.toml": factors_of(case, fault_ns, repair_ns, end_ns=end_ns, daily=daily), "carbon.toml": PLAN}
    devices = plant_devices("127.0.0.1:1", period_s=1.0, speed=1, context=case.context)
    rig = Rig(folder, plant=plant, time=time, files=files, devices=devices)
    orders = {BEGIN_NS + place * SHIFT_NS: commands for place, commands in enumerate((*case.learn, case.start))}
    orders |= {fault_ns: case.fault, repair_ns: case.repair}
    try:
        rig.ledger.look()
        while time.t_ns < end_ns + 10 * MINUTE_NS:
            for command in orders.pop(time.t_ns, ()):
                plant.do(command)
            await rig.minute()
            at_leisure = time.t_ns < began_ns and (time.t_ns // MINUTE_NS) % _LEARNING_MINUTES
            if not at_leisure:
                rig.hand_over()
                progress((time.t_ns - BEGIN_NS) / (end_ns + 10 * MINUTE_NS - BEGIN_NS))
        return _outcome(rig, name, seed=seed, began_ns=began_ns, fault_ns=fault_ns, repair_ns=repair_ns, end_ns=end_ns)
    finally:
        rig.close()


def _outcome(rig: Rig, name: str, *, seed: int, began_ns: int, fault_ns: int, repair_ns: int, end_ns: int) -> Outcome:
    with rig.ledger.book.reading() as connection:

        def per_unit(start_ns: int, stop_ns: int) -> float | None:
            found = tables.totals(connection, Slice(start_ns=start_ns, end_ns=stop_ns, gateway=GATEWAY, line=LINE))
            return None if found.kg_per_unit is None else round(float(found.kg_per_unit), 4)

        before, after = per_unit(began_ns, fault_ns), per_unit(fault_ns, repair_ns)
        repaired = per_unit(repair_ns, end_ns)
        events = [event for event in tables.events(connection, most=10_000, log="") if event.what.startswith("alert.")]
        stated = {json.loads(row.subject)["shift"]: json.loads(row.figures) for row in tables.statements(connection)}
    raised = sorted(_alerts(events, RAISED), key=lambda alert: alert.raised_ns)
    first = next((alert for alert in raised if alert.raised_ns >= fault_ns), None)
    cleared = [alert for alert in _alerts(events, CLEARED) if first is not None and alert.id == first.id]
    return Outcome(
        case=name,
        seed=seed,
        before=before,
        after=after,
        repaired=repaired,
        change_percent=None if not after or repaired is None else round(100 * (repaired / after - 1), 1),
        alert_delay_s=None if first is None else (first.raised_ns - fault_ns) / NS,
        alert_kind=None if first is None else first.kind,
        causes=[] if first is None else [_cause(cause) for cause in first.causes],
        avoided_kg=next((round(alert.avoided_kg, 3) for alert in cleared if alert.avoided_kg is not None), None),
        alerts=len(raised),
        shift=max(stated, default=""),
        statement=stated[max(stated)] if stated else {},
    )


def _alerts(events: Sequence[EventRow], what: str) -> list[Alert]:
    return [Alert.of(json.loads(event.about)) for event in events if event.what == what]


def _cause(cause: Cause) -> dict[str, Any]:
    found = cause._asdict()
    return {**found, "share": round(cause.share, 4), "contribution": round(cause.contribution, 9)}


def said(outcome: Outcome) -> Sequence[str]:
    """Return an outcome in words, a line each."""
    words = [f"{outcome.case}, seed {outcome.seed}: {outcome.before} kg/unit, then {outcome.after}"]
    words += [f"repaired: {outcome.repaired} kg/unit ({outcome.change_percent} %)"]
    if outcome.alert_delay_s is None:
        return [*words, "no alert"]
    words.append(f"alert ({outcome.alert_kind}) {outcome.alert_delay_s / 60:.0f} min after the fault")
    for cause in outcome.causes:
        words.append(f"  {cause['name']}: {100 * cause['share']:.0f} %; {'; '.join(cause['evidence'])}")
    return [*words, f"avoided: {outcome.avoided_kg} kg"]
