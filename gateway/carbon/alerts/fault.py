"""An alert that is open: what has come together since its onset, and when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.carbon.alerts.alert import UPDATED, Alert, AlertEvent
from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.learning import Key
from gateway.carbon.alerts.observe import HOUR_NS, MINUTE_NS, Observation
from gateway.carbon.alerts.streams import series, split
from gateway.carbon.alerts.windows import Window, joined, window_of

OVER_NS = 10 * MINUTE_NS
"""It must be well again for so long, or for the dwell time where that is longer."""
HELD_NS = 30 * MINUTE_NS
"""The repair is looked for in so much, and what has been well since."""
SAID_NS = HOUR_NS
"""While it is open it is said again, for another first cause, no sooner than this."""


@dataclass(slots=True)
class Fault:
    """One open alert of a line's energy, throughput or limit.

    total: all production since the onset that was not well, of the alert's product and recipe; None before any.
    recent: of that, what came since the alert was said last, at said_ns.
    """

    alert: Alert
    key: Key
    dwell_ns: int
    total: Window | None = None
    excess_kg: float = 0.0
    recent: Window | None = None
    said_ns: int = 0
    _held: list[Observation] = field(default_factory=list)
    _well_since: int | None = None

    def take(self, cells: Sequence[Observation], key: Key, baseline: Baseline | None, *, well: bool) -> bool:
        """Take the cells of one window; return whether it has now been well for long enough.

        The last half hour is kept apart: the repair may lie within it.
        """
        self._held += cells
        if not well:
            self._well_since = None
            old = [cell for cell in self._held if cell.end_ns <= cells[-1].end_ns - HELD_NS]
            self.absorb(old, key, baseline)
            del self._held[: len(old)]
            return False
        self._well_since = cells[0].start_ns if self._well_since is None else self._well_since
        return cells[-1].end_ns - self._well_since >= max(self.dwell_ns, OVER_NS)

    def absorb(self, cells: Sequence[Observation], key: Key, baseline: Baseline | None) -> None:
        """Add cells to what was faulty."""
        if not cells:
            return
        window = window_of(cells)
        usual_kg = self._usual_kg(window, baseline)
        if window.co2e_kg is not None and usual_kg is not None:
            self.excess_kg += window.co2e_kg - usual_kg
        if key == self.key:
            self.total = window if self.total is None else joined(self.total, window)
            self.recent = window if self.recent is None else joined(self.recent, window)

    def say(self, alert: Alert, t_ns: int) -> AlertEvent:
        """Return the event that says the alert anew; what is made from now on is recent."""
        self.alert, self.said_ns, self.recent = alert, t_ns, None
        return AlertEvent(UPDATED, t_ns, alert)

    def due(self, t_ns: int) -> Window | None:
        """Return what is recent, where it is enough to say the alert anew for another first cause; else None."""
        is_due = t_ns - self.said_ns >= SAID_NS and self.recent is not None and self.recent.hours * HOUR_NS >= HELD_NS
        return self.recent if is_due else None

    def over(self, key: Key, baseline: Baseline | None, shift_end_ns: int | None, now_ns: int) -> Alert:
        """Return the alert as it is cleared: since when it is well, and what that is worth."""
        held = self._held
        first_well = next((at for at, cell in enumerate(held) if cell.start_ns == self._well_since), 0)
        at = first_well
        if baseline is not None:
            at = min(split(series(held, self.alert.kind, baseline)), first_well)
        self.absorb(held[:at], key, baseline)
        repaired = window_of(held[at:])
        alert = replace(self.alert, cleared_ns=now_ns, repaired_ns=repaired.start_ns, excess_kg=self.excess_kg)
        if key != self.key or not repaired.units or repaired.co2e_kg is None:
            return alert
        kg_per_unit = repaired.co2e_kg / repaired.units
        unrepaired = avoided = None
        if self.total is not None and self.total.units and repaired.factor is not None and alert.unit == "kg/unit":
            unrepaired = self.total.energy / self.total.units * repaired.factor
            if shift_end_ns is not None:
                hours = max(0, shift_end_ns - repaired.start_ns) / HOUR_NS
                avoided = (unrepaired - kg_per_unit) * repaired.units_per_h * hours
        return replace(alert, repaired=kg_per_unit, unrepaired=unrepaired, avoided_kg=avoided)

    def _usual_kg(self, window: Window, baseline: Baseline | None) -> float | None:
        """Return what production usually causes at the factor that held; without a baseline, what the limit allows."""
        if window.units is None or window.factor is None:
            return None
        if baseline is None:
            return None if self.alert.before is None else self.alert.before * window.units
        usual = baseline.rates(window.factor)
        if self.alert.unit == "kg/unit" and usual.kg_per_unit is not None:
            return usual.kg_per_unit * window.units
        return usual.kg_per_h * window.hours
