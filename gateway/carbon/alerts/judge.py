"""Judges one line's production, window by window: what is suspected, raised and cleared."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf

from gateway.carbon.alerts.alert import CLEARED, ENERGY, GRID, LIMIT, RAISED, RATE, Alert, AlertEvent, alert_id
from gateway.carbon.alerts.baseline import Baseline, newest_factors
from gateway.carbon.alerts.fault import OVER_NS, Fault
from gateway.carbon.alerts.learning import Key, Learner
from gateway.carbon.alerts.observe import HOUR_NS, MINUTE_NS, Observation
from gateway.carbon.alerts.pooling import pooled
from gateway.carbon.alerts.raising import of_scene, without_baseline
from gateway.carbon.alerts.rank import Scene
from gateway.carbon.alerts.streams import Cusum, Off, grid_off, off, series, split
from gateway.carbon.alerts.usual import UsualFactor
from gateway.carbon.alerts.windows import WINDOW_NS, Window, joined, window_of
from gateway.config.plan import AlertSection

LEAST_SINCE_NS = 6 * MINUTE_NS
"""An alert is raised no sooner after its onset: before that there is no telling why."""
KEPT_NS = HOUR_NS
MOST_KEPT = 3_600
LASTING_NS = 24 * HOUR_NS
"""A grid factor that has been off for so long is the new normal."""
WELL = 0.8
"""Of what is out of the ordinary: at most so much is well again."""


class Judge:
    """Takes a line's settled production. learner: gets the windows that are not known to be faulty.

    baselines: as they are now. usual: of the grid; fed by who feeds this. fault, grid: what is open. shelved: by kind,
    until when nothing is raised. changes: of job, product and recipe.
    """

    def __init__(
        self,
        alerts: AlertSection,
        learner: Learner,
        baselines: Mapping[Key, Baseline],
        *,
        gateway: str,
        line: str,
    ) -> None:
        self._plan, self._learner, self._baselines = alerts, learner, baselines
        self._gateway, self._line = gateway, line
        self._least = alerts.hysteresis_pct / 100
        self._cusums = {stream: Cusum(alerts.k, alerts.h) for stream in (ENERGY, RATE)}
        self._recent: deque[Observation] = deque(maxlen=MOST_KEPT)
        self._building: list[Observation] = []
        self._idle: deque[Window] = deque(maxlen=12)
        self._suspect: tuple[str, int] | None = None
        self._over_limit: int | None = None
        self._grid_least = inf
        self._grid_well: Window | None = None
        self.dwell_ns = round(alerts.dwell_min * MINUTE_NS)
        self.usual = UsualFactor(newest_factors(baselines.values()))
        self.fault: Fault | None = None
        self.grid: Alert | None = None
        self.shelved: dict[str, int] = {}
        self.changes: deque[tuple[int, str]] = deque(maxlen=8)

    def begin(self) -> None:
        """Begin anew, as with another product."""
        self._over_limit = None
        self._recent.clear()
        self._building.clear()
        self._calm()

    def interrupt(self) -> None:
        """Take note that production stopped, or is not settled: what was suspected may have been the stop."""
        self._building.clear()
        self._suspect = None

    def accept(self, kind: str) -> None:
        """End the fault as the new normal, and begin anew as after a restart; its kind is shelved no more."""
        self.usual = UsualFactor(newest_factors(self._baselines.values()))
        self.fault = None
        self.shelved.pop(kind, None)
        self.begin()

    def stand(self, window: Window) -> None:
        """Take a window of a standstill."""
        self._idle.append(window)

    def produced(self, seen: Observation, key: Key, baseline: Baseline | None) -> Iterator[AlertEvent]:
        """Take a cell of settled production."""
        self._recent.append(seen)
        while self._recent[0].start_ns < seen.end_ns - KEPT_NS:
            self._recent.popleft()
        self._building.append(seen)
        if self.grid is not None:
            yield from self._judge_grid(self.grid, window_of([seen]))
        if baseline is not None and not baseline.covers(window_of([seen]).energy_kwh):
            baseline = None  # other meters than those it was learned with
        if baseline is not None and self._suspect is not None:
            yield from self._confirm(seen, baseline)
        if sum(cell.end_ns - cell.start_ns for cell in self._building) >= WINDOW_NS:
            cells, self._building = self._building, []
            yield from self._judge(cells, key, baseline)

    def _calm(self) -> None:
        for cusum in self._cusums.values():
            cusum.reset()
        self._suspect = None

    def _judge(self, cells: list[Observation], key: Key, baseline: Baseline | None) -> Iterator[AlertEvent]:
        window, seen = window_of(cells), cells[-1]
        if self.fault is not None:
            yield from self._judge_fault(self.fault, cells, key, baseline)
            return
        self._learner.add(key, window)
        yield from self._judge_limit(window, seen, baseline)
        if baseline is None or self.fault is not None:
            return
        found = self._off(window, baseline)
        suspected = [name for name, cusum in self._cusums.items() if name in found and cusum.step(found[name].z)]
        is_quiet = self.grid is not None or seen.end_ns < self.shelved.get(GRID, 0)
        suspected += [GRID] if GRID in found and found[GRID].matters and not is_quiet else []
        if suspected and self._suspect is None:
            self._suspect = (suspected[0], seen.end_ns)
        if self._suspect is not None:
            yield from self._confirm(seen, baseline)

    def _off(self, window: Window, baseline: Baseline) -> dict[str, Off]:
        """Return how far each stream is off in a window."""
        grid = grid_off(window, self.usual, self._least)
        return off(window, baseline, self._least) | ({} if grid is None else {GRID: grid})

    def _confirm(self, seen: Observation, baseline: Baseline) -> Iterator[AlertEvent]:
        """Raise what is suspected, or drop it, once it has lasted for long enough."""
        if self._suspect is None:
            return
        stream, suspected_ns = self._suspect
        onset_ns = self._onset(stream, baseline)
        long_ns = max(self.dwell_ns, LEAST_SINCE_NS)
        cells = [cell for cell in self._recent if cell.start_ns >= onset_ns]
        if sum(cell.end_ns - cell.start_ns for cell in cells) < long_ns:
            if seen.end_ns - suspected_ns >= 2 * long_ns:
                self._calm()  # it does not last
            return
        found = self._off(window_of(cells), baseline)
        matter = {name: abs(one.effect) for name, one in found.items() if one.matters}
        faults = {name: effect for name, effect in matter.items() if name != GRID}
        self._calm()
        if faults:
            yield from self._raise(max(faults, key=lambda name: faults[name]), onset_ns, cells, baseline)
        elif matter and self.grid is None:
            yield from self._raise(GRID, onset_ns, cells, baseline)

    def _onset(self, stream: str, baseline: Baseline) -> int:
        """Return since when a stream is off: where the last hour is best cut in two."""
        cells = list(self._recent)
        at = split(series(cells, stream, baseline))
        if at and at < len(cells):
            before = self._off(window_of(cells[:at]), baseline).get(stream)
            after = self._off(window_of(cells[at:]), baseline).get(stream)
            if before and after and before.matters and before.effect * after.effect > 0:
                at = 0  # it was off before the last hour, or the last stop
        return cells[at].start_ns

    def _raise(
        self, kind: str, onset_ns: int, cells: Sequence[Observation], baseline: Baseline | None, kpi: float = 0.0
    ) -> Iterator[AlertEvent]:
        """Raise an alert of production since an onset, unless its kind is shelved. kpi: of a limit alone."""
        seen = cells[-1]
        if kind != GRID:
            self._learner.soil()
        if seen.end_ns < self.shelved.get(kind, 0):
            return
        alert = Alert(
            id=alert_id(self._gateway, self._line, kind, seen.end_ns),
            gateway=self._gateway,
            line=self._line,
            kind=kind,
            onset_ns=onset_ns,
            raised_ns=seen.end_ns,
            product=seen.setting.product,
            recipe=seen.setting.recipe,
        )
        if baseline is None:
            alert = without_baseline(alert, kpi, self._plan.limit_kg_per_unit or 0.0)
        else:
            alert = of_scene(alert, self._scene(onset_ns, window_of(cells), baseline))
        if kind == GRID:
            off_by = grid_off(window_of(cells), self.usual, self._least)
            self._grid_least = inf if off_by is None else off_by.least  # what is odd now is soon part of the spread
            self.grid, self._grid_well = alert, None
        else:
            self.fault = Fault(alert, (alert.product, alert.recipe), self.dwell_ns, said_ns=seen.end_ns)
            self.fault.absorb(cells, self.fault.key, baseline)
            self.fault.recent = None  # it is said with the alert
            self._building.clear()
        yield AlertEvent(RAISED, seen.end_ns, alert)

    def _scene(self, onset_ns: int, after: Window, baseline: Baseline) -> Scene:
        idle = None
        for window in self._idle:
            if window.start_ns >= onset_ns:
                idle = window if idle is None else joined(idle, window)
        around = list(self._recent)
        if baseline.others:
            kept = baseline.kept
            after = after._replace(energy_kwh=pooled(after.energy_kwh, kept))
            around = [one._replace(energy_kwh=pooled(one.energy_kwh, kept | one.rest)) for one in around]
        return Scene(
            baseline=baseline,
            onset_ns=onset_ns,
            after=after,
            around=around,
            idle=idle,
            changes=tuple(self.changes),
        )

    # ---- what becomes of an alert, and the other kinds

    def renew(self, t_ns: int) -> Iterator[AlertEvent]:
        """Say the fault that is open as it is now; nothing where nothing of it was made since it was said last."""
        if self.fault is not None and self.fault.recent is not None:
            yield self.fault.say(self._renewed(self.fault, self.fault.recent), t_ns)

    def _renewed(self, fault: Fault, recent: Window) -> Alert:
        """Return a fault's alert with the excess so far, and what it comes from since it was said last."""
        alert, was = replace(fault.alert, excess_kg=fault.excess_kg), self._baselines.get(fault.key)
        if was is not None and was.covers(recent.energy_kwh):
            return of_scene(alert, self._scene(alert.onset_ns, recent, was))
        if was is None and alert.kind == LIMIT and recent.units and recent.co2e_kg is not None:
            return without_baseline(alert, recent.co2e_kg / recent.units, self._plan.limit_kg_per_unit or 0.0)
        return alert

    def _judge_fault(
        self, fault: Fault, cells: list[Observation], key: Key, baseline: Baseline | None
    ) -> Iterator[AlertEvent]:
        alert, seen, window = fault.alert, cells[-1], window_of(cells)
        if alert.kind == LIMIT:
            limit = self._plan.limit_kg_per_unit
            most = inf if limit is None else limit * (1 - self._least) * (window.units or 0)
            well = window.co2e_kg is not None and bool(window.units) and window.co2e_kg <= most
        elif baseline is None:
            return  # a product that is still learned says nothing of it
        else:
            one = off(window, baseline, self._least).get(alert.kind)
            well = one is not None and abs(one.effect) <= WELL * one.least
        if not fault.take(cells, key, baseline, well=well):
            recent = fault.due(seen.end_ns)
            if recent is not None and self._renewed(fault, recent).first != alert.first:
                yield from self.renew(seen.end_ns)
            return
        cleared = fault.over(key, baseline, seen.shift_end_ns, seen.end_ns)
        was = self._baselines.get(fault.key)
        if fault.total is not None and was is not None and was.covers(fault.total.energy_kwh):
            cleared = of_scene(cleared, self._scene(alert.onset_ns, fault.total, was))
        self.fault = None
        self._calm()
        while self._recent and self._recent[0].start_ns < (cleared.repaired_ns or 0):
            self._recent.popleft()
        yield AlertEvent(CLEARED, seen.end_ns, cleared)

    def _judge_limit(self, window: Window, seen: Observation, baseline: Baseline | None) -> Iterator[AlertEvent]:
        limit = self._plan.limit_kg_per_unit
        if limit is None or not window.units or window.co2e_kg is None:
            return
        kpi = window.co2e_kg / window.units
        if kpi <= limit:
            self._over_limit = None
            return
        self._over_limit = window.start_ns if self._over_limit is None else self._over_limit
        if seen.end_ns - self._over_limit >= max(self.dwell_ns, LEAST_SINCE_NS) and self._suspect is None:
            cells = [cell for cell in self._recent if cell.start_ns >= (self._over_limit or 0)]
            yield from self._raise(LIMIT, self._over_limit, cells, baseline, kpi)

    def _judge_grid(self, alert: Alert, window: Window) -> Iterator[AlertEvent]:
        """Clear the grid's alert when the factor has been back for long enough, or has been another for a day.

        window: of one cell.
        """
        one = grid_off(window, self.usual, self._least)
        if one is None:
            return
        lasting = window.end_ns - alert.onset_ns >= LASTING_NS
        if abs(one.effect) > WELL * min(one.least, self._grid_least) and not lasting:
            self._grid_well = None
            return
        well = self._grid_well = window if self._grid_well is None else joined(self._grid_well, window)
        if lasting:
            self.usual.rebase(alert.onset_ns)
            self.begin()  # what was seen so far is beside what was usual
        elif window.end_ns - well.start_ns < max(self.dwell_ns, OVER_NS):
            return
        cleared = replace(
            alert,
            cleared_ns=window.end_ns,
            repaired_ns=well.start_ns,
            repaired=None if not well.units or well.co2e_kg is None else well.co2e_kg / well.units,
            why="lasts for a day: usual from now" if lasting else "",
        )
        self.grid, self._grid_well, self._grid_least = None, None, inf
        yield AlertEvent(CLEARED, window.end_ns, cleared)
