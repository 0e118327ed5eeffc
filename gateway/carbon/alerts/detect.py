"""Watches one line and says when it is out of the ordinary, and why.

    watch = LineWatch(plan_line.alerts, gateway="gw1", line="filling", loads={"oven": "units"})
    for observation in ...:                      # in order of time: observe.observe(cell, ...), or made by hand
        for event in watch.feed(observation):    # AlertEvent(what, t_ns, alert, baseline), mostly none
            seal(event.what, event.about())      # baseline.learned, alert.raised, alert.updated, alert.cleared
    watch.open_alerts                            # Alert(id, kind, before, after, causes=(Cause(name, share), ))
    watch.shelve(alert_id, until_ns=..., by=..., why=..., now_ns=...)  # -> AlertEvent
    watch.accept(alert_id, by=..., why=..., t_ns=...)  # -> AlertEvent: the new normal, learned anew

Deterministic: it knows no time but that of what it is fed. Its memory has a bound: an hour of cells, the windows of
the shifts that it learns, one sum for the alert that is open.

Of energy, throughput and a fixed limit one alert is open at a time: the first, its causes say the rest. Beside it one
of the grid's factor and one of missing data may be. While an alert of the first kind is open, nothing is learned.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from gateway.carbon.alerts.alert import (
    ACCEPTABLE,
    ACCEPTED,
    CLEARED,
    DATA,
    GRID,
    LEARNED,
    RAISED,
    SHELVED,
    Alert,
    AlertEvent,
    shelved,
)
from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.fault import Fault
from gateway.carbon.alerts.judge import Judge
from gateway.carbon.alerts.learning import Key, Learner, Progress
from gateway.carbon.alerts.missing import MissingWatch, stands_still
from gateway.carbon.alerts.observe import HOUR_NS, Observation
from gateway.carbon.alerts.pace import Pace
from gateway.carbon.alerts.raising import of_missing
from gateway.carbon.setting import NO_SETTING
from gateway.config.plan import AlertSection

NOTHING_MADE = "nothing was made for five minutes yet"
NOTHING_COUNTED = "no units are counted: it is not watched"
MOST_SHELVED_NS = 30 * 24 * HOUR_NS
UNNAMED_SHIFT_NS = 8 * HOUR_NS
"""Where the plan knows no shifts, every eight hours are one."""


class LineWatch:
    """One line's alerts.

    alerts: as the plan says. loads: `units` for the assets whose energy follows the units made; the others' follows
    the time. baselines: learned before, by product and recipe. past: what was said of the line before. judged_ns:
    before it cells are read to learn from alone, as far as nothing was wrong by what was said.
    """

    def __init__(
        self,
        alerts: AlertSection,
        *,
        gateway: str = "",
        line: str = "",
        loads: Mapping[str, str] | None = None,
        baselines: Mapping[Key, Baseline] | None = None,
        past: Iterable[Alert] = (),
        judged_ns: int = 0,
    ) -> None:
        self.gateway, self.line = gateway, line
        self.baselines: dict[Key, Baseline] = dict(baselines or {})
        self._learner = Learner(alerts.learn_shifts, loads or {})
        self._judge = Judge(alerts, self._learner, self.baselines, gateway=gateway, line=line)
        self._missing = MissingWatch(self._judge.dwell_ns)
        self._pace = Pace()
        self._told = NO_SETTING
        self._shift: str | None = None
        self._key: Key | None = None
        self._data: Alert | None = None
        self._judged_ns = judged_ns
        self._past = [alert for alert in past if alert.kind not in {GRID, DATA} and alert.raised_ns <= judged_ns]
        self._accepted = deque(
            sorted((one for one in self._past if one.accepted_by), key=lambda one: one.cleared_ns or 0)
        )

    # ---- what others ask

    @property
    def open_alerts(self) -> tuple[Alert, ...]:
        """What is open now."""
        fault = None if self._judge.fault is None else self._judge.fault.alert
        return tuple(alert for alert in (fault, self._judge.grid, self._data) if alert is not None)

    def learning(self) -> list[Progress]:
        """Return what is learned that has no baseline yet, or one of other meters; of a line without any, the line."""
        found = list(self._learner.progress(self.baselines))
        if not found and not self.baselines and self._shift is not None:
            why = NOTHING_MADE if self._missing.counted else NOTHING_COUNTED
            found = [Progress("", "", 0, self._learner.wanted, why)]
        fault = self._judge.fault
        waits = "" if fault is None else f"; it waits until {fault.alert.id} is over"
        return [one._replace(why=one.why + waits) for one in found]

    def shelve(self, alert: str, *, until_ns: int, by: str, why: str, now_ns: int) -> AlertEvent:
        """Keep an open alert, and others of its kind, quiet until a time; return the event.

        Raises KeyError where no such alert is open, ValueError without a name, a reason, or a time within 30 days.
        """
        found = self._open(alert, by, why)
        if not now_ns < until_ns <= now_ns + MOST_SHELVED_NS:
            raise ValueError("until: want a time after now, within 30 days")
        quiet = shelved(found, until_ns=until_ns, by=by, why=why)
        self._judge.shelved[found.kind] = until_ns
        self._put(quiet)
        return AlertEvent(SHELVED, now_ns, quiet)

    def accept(self, alert: str, *, by: str, why: str, t_ns: int) -> AlertEvent:
        """End an open alert as the new normal, drop its product's baseline and learn it anew; return the event.

        t_ns: the end of the cell that was fed last. Raises KeyError where no such alert is open, ValueError for one
        of a kind that rests on no baseline, or without a name or a reason.
        """
        found = self._open(alert, by, why)
        if found.kind not in ACCEPTABLE:
            raise ValueError(f"{found.kind}: want an alert of {' or '.join(sorted(ACCEPTABLE))}; others can be shelved")
        dropped = self.baselines.pop((found.product, found.recipe), None)
        self._begin_anew(found)
        number = 0 if dropped is None else dropped.number
        ended = replace(found, cleared_ns=t_ns, accepted_by=by, accepted_why=why, dropped_baseline=number)
        return AlertEvent(ACCEPTED, t_ns, ended)

    def _begin_anew(self, accepted: Alert) -> None:
        self._learner.anew((accepted.product, accepted.recipe))
        self._judge.accept(accepted.kind)
        self._pace, self._key, self._shift = Pace(), None, None  # as after a restart, which reads from then on

    def _open(self, alert: str, by: str, why: str) -> Alert:
        found = next((one for one in self.open_alerts if one.id == alert), None)
        if found is None:
            raise KeyError(alert)
        if not by.strip() or not why.strip():
            raise ValueError("by, why: want who, and why")
        return found

    def restore(self, alerts: Iterable[Alert]) -> None:
        """Hold open just what is open of these, and quiet what is shelved, as before a restart.

        alerts: all that were ever said of the line. Those that are open already keep what they know.
        """
        wanted = {}
        for alert in alerts:
            if alert.cleared_ns is None:
                wanted[alert.id] = alert
            elif alert.kind == GRID and alert.why:
                self._judge.usual.rebase(alert.onset_ns)
            if not alert.accepted_by:  # what is shelved stays so when it is cleared, and ends when it is accepted
                self._judge.shelved[alert.kind] = max(alert.shelved_until_ns, self._judge.shelved.get(alert.kind, 0))
        if self._judge.fault is not None and self._judge.fault.alert.id not in wanted:
            self._judge.fault = None
        self._judge.grid = self._judge.grid if self._judge.grid and self._judge.grid.id in wanted else None
        if self._data is not None and self._data.id not in wanted:
            self._data, self._missing.reason = None, ""
        for alert in wanted.values():
            self._put(alert)

    def _put(self, alert: Alert) -> None:
        if alert.kind == DATA:
            self._data, self._missing.reason = alert, alert.why
        elif alert.kind == GRID:
            self._judge.grid = alert
        elif self._judge.fault is not None and self._judge.fault.alert.id == alert.id:
            self._judge.fault.alert = alert
        else:
            key = (alert.product, alert.recipe)
            self._judge.fault = Fault(alert, key, self._judge.dwell_ns, excess_kg=alert.excess_kg or 0.0)

    # ---- one cell

    def feed(self, seen: Observation) -> list[AlertEvent]:
        """Take the next cell; return what there is to be said. seen: not before the last one, longer than 0."""
        return list(self._feed(seen))

    def _feed(self, seen: Observation) -> Iterator[AlertEvent]:
        while self._accepted and (self._accepted[0].cleared_ns or 0) <= seen.start_ns:
            self._begin_anew(self._accepted.popleft())
        seen = self._judge.usual.take(seen)
        shift = seen.setting.shift or str(seen.start_ns // UNNAMED_SHIFT_NS)
        for one in self._learner.enter(shift, self.baselines):
            learned = one._replace(factors=self._judge.usual.to_text(seen.start_ns))
            self.baselines[learned.product, learned.recipe] = learned
            yield AlertEvent(LEARNED, seen.start_ns, None, learned, self.gateway, self.line)
        if shift != self._shift and self._shift is not None:
            self._pace.unsettle(seen.start_ns)
            yield from self._judge.renew(seen.start_ns)
        self._shift = shift
        self._note(seen)
        is_judged = seen.start_ns >= self._judged_ns
        baseline = self.baselines.get((seen.setting.product, seen.setting.recipe)) if is_judged else None
        yield from self._look_for_missing(seen, baseline)
        if not seen.measured or seen.units is None or stands_still(seen, baseline):
            return
        for cell in self._pace.production(seen):
            yield from self._produced(cell, baseline)
        for idle in self._pace.take_idle():
            self._learner.add_idle(idle)
            self._judge.stand(idle)
        if self._pace.stopped:
            self._judge.interrupt()

    def _produced(self, seen: Observation, baseline: Baseline | None) -> Iterator[AlertEvent]:
        key = (seen.setting.product, seen.setting.recipe)
        if key != self._key:
            if self._key is not None:
                self._pace.unsettle(seen.start_ns)
            self._key = key
            self._judge.begin()
        if self._pace.is_settled(seen) and self._is_fit(seen, key):
            yield from self._judge.produced(seen, key, baseline)
        else:
            self._judge.interrupt()

    def _is_fit(self, seen: Observation, key: Key) -> bool:
        """Return whether a cell may be learned from: before judged_ns by what was said then, or accepted later."""
        if seen.start_ns >= self._judged_ns:
            return True
        if any(seen.start_ns < one.raised_ns <= seen.end_ns for one in self._past):
            self._learner.soil()
        return not any(_spoils(one, seen, key) for one in self._past)

    def _note(self, seen: Observation) -> None:
        """Keep what was told of job, product and recipe."""
        new, old = seen.setting, self._told
        for what in ("job", "product", "recipe"):
            was, now = getattr(old, what), getattr(new, what)
            if was != now and old is not NO_SETTING:
                self._judge.changes.append((seen.start_ns, f"{what} {now or 'none'} after {was or 'none'}"))
        self._told = new

    def _look_for_missing(self, seen: Observation, baseline: Baseline | None) -> Iterator[AlertEvent]:
        found = self._missing.feed(seen, baseline)
        if found is not None and seen.end_ns >= self._judge.shelved.get(DATA, 0):
            reason, since_ns = found
            self._missing.reason = reason
            self._data = of_missing(self.gateway, self.line, reason, seen=seen, since_ns=since_ns, baseline=baseline)
            yield AlertEvent(RAISED, seen.end_ns, self._data)
        well_ns = self._missing.over(seen)
        if well_ns is not None and self._data is not None:
            cleared, self._data = replace(self._data, cleared_ns=seen.end_ns, repaired_ns=well_ns), None
            yield AlertEvent(CLEARED, seen.end_ns, cleared)


def _spoils(alert: Alert, seen: Observation, key: Key) -> bool:
    """Return whether a cell is one of an alert's fault, or of what was usual before one was accepted."""
    begun = alert.raised_ns <= seen.start_ns or (bool(alert.accepted_by) and key == (alert.product, alert.recipe))
    shelved_ns = 0 if alert.accepted_by else alert.shelved_until_ns  # nothing was said of what came back meanwhile
    return begun and (alert.cleared_ns is None or seen.start_ns < max(alert.cleared_ns, shelved_ns))
