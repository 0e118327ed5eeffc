"""An alert that is open: what has come together since its onset, and when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.carbon.alerts.alert import Alert
from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.learning import Key
from gateway.carbon.alerts.observe import HOUR_NS, MINUTE_NS, Observation
from gateway.carbon.alerts.streams import series, split
from gateway.carbon.alerts.windows import Window, joined, window_of

OVER_NS = 10 * MINUTE_NS
"""It must be well again for so long, or for the dwell time where that is longer."""
HELD_NS = 30 * MINUTE_NS
"""The repair is looked for in so much, and what has been well since."""


@dataclass(slots=True)
class Fault:
    """One open alert of a line's energy, throughput or limit.

    total: all production since the onset that was not well, of the alert's product and recipe; None before any.
    """

    alert: Alert
    key: Key
    dwell_ns: int
    total: Window | None = None
    excess_kg: float = 0.0
    _held: list[Observation] = field(default_factory=list)
    _well_since: int | None = None

    def take(self, cells: Sequence[Observation], key: Key, *, well: bool) -> bool:
        """Take the cells of one window; return whether it has now been well for long enough.

        The last half hour is kept apart: the repair may lie within it.
        """
        self._held += cells
        if not well:
            self._well_since = None
            old = [cell for cell in self._held if cell.end_ns <= cells[-1].end_ns - HELD_NS]
            self.absorb(old, key)
            del self._held[: len(old)]
            return False
        self._well_since = cells[0].start_ns if self._well_since is None else self._well_since
        return cells[-1].end_ns - self._well_since >= max(self.dwell_ns, OVER_NS)

    def absorb(self, cells: Sequence[Observation], key: Key) -> None:
        """Add cells to what was faulty."""
        if not cells:
            return
        window = window_of(cells)
        before, co2e = self.alert.before, window.co2e_kg
        if before is not None and co2e is not None and window.units is not None:
            self.excess_kg += co2e - before * (window.units if self.alert.unit == "kg/unit" else window.hours)
        if key == self.key:
            self.total = window if self.total is None else joined(self.total, window)

    def over(self, key: Key, baseline: Baseline | None, shift_end_ns: int | None, now_ns: int) -> Alert:
        """Return the alert as it is cleared: since when it is well, and what that is worth."""
        held = self._held
        first_well = next((at for at, cell in enumerate(held) if cell.start_ns == self._well_since), 0)
        at = first_well
        if baseline is not None:
            at = min(split(series(held, self.alert.kind, baseline)), first_well)
        self.absorb(held[:at], key)
        repaired = window_of(held[at:])
        alert = replace(self.alert, cleared_ns=now_ns, repaired_ns=repaired.start_ns, excess_kg=self.excess_kg)
        if key != self.key or not repaired.units or repaired.co2e_kg is None:
            return alert
        kg_per_unit = repaired.co2e_kg / repaired.units
        avoided = None
        if shift_end_ns is not None and self.alert.unit == "kg/unit" and alert.after is not None:
            hours = max(0, shift_end_ns - repaired.start_ns) / HOUR_NS
            avoided = (alert.after - kg_per_unit) * repaired.units_per_h * hours
        return replace(alert, repaired=kg_per_unit, avoided_kg=avoided)
