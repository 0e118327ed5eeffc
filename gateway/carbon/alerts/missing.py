"""Watches for what is not there: counts while energy flows, meters without energy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.fault import OVER_NS
from gateway.carbon.alerts.observe import MINUTE_NS, Observation
from gateway.carbon.energy import Flag

COUNTS, STUCK, COVERAGE = "counts missing", "count stands still", "meters missing"
LEAST_NS = 3 * MINUTE_NS
AT_PRODUCTION = 0.9
"""Of the usual energy: with so much something is made, whatever the counter says."""
SEEN_FROM_ENERGY = 0.2
"""Of the usual energy that must follow the units before energy can tell that something is made."""


@dataclass(slots=True)
class MissingWatch:
    """What has been missing, and since when. dwell_ns: so long before it counts, and before it is over.

    reason: of the alert that is open, set by who raises it; "" for none.
    """

    dwell_ns: int
    counted: bool = False
    whole: bool = False
    reason: str = ""
    _since: dict[str, int] = field(default_factory=dict)
    _well_since: int | None = None

    def feed(self, seen: Observation, baseline: Baseline | None) -> tuple[str, int] | None:
        """Take a cell; return the oldest reason that has lasted long enough, and since when; None where one is open."""
        wrong = self._wrong(seen, baseline)
        for reason in [one for one in self._since if one not in wrong]:
            del self._since[reason]
        for reason in wrong:
            self._since.setdefault(reason, seen.start_ns)
        self.counted |= seen.units is not None
        self.whole |= Flag.INCOMPLETE not in seen.flags and bool(seen.energy_kwh)
        lasting = [(since, reason) for reason, since in self._since.items() if seen.end_ns - since >= self._long]
        if self.reason or not lasting:
            return None
        since, reason = min(lasting)
        return reason, since

    def over(self, seen: Observation) -> int | None:
        """Return since when all has been there again, once that has lasted; None before, or where nothing was wrong."""
        if not self.reason:
            return None
        if self.reason in self._since:
            self._well_since = None
            return None
        self._well_since = seen.start_ns if self._well_since is None else self._well_since
        if seen.end_ns - self._well_since < max(self.dwell_ns, OVER_NS):
            return None
        self.reason = ""
        return self._well_since

    @property
    def _long(self) -> int:
        return max(self.dwell_ns, LEAST_NS)

    def _wrong(self, seen: Observation, baseline: Baseline | None) -> Mapping[str, None]:
        found: dict[str, None] = {}
        if self.whole and Flag.INCOMPLETE in seen.flags:
            found[COVERAGE] = None
        counted = self.counted or baseline is not None
        if seen.units is None and counted and seen.energy > 0:
            found[COUNTS] = None
        if stands_still(seen, baseline):
            found[STUCK] = None
        return found


def stands_still(seen: Observation, baseline: Baseline | None) -> bool:
    """Return whether energy flows as in production while the counter says that nothing is made."""
    if seen.units != 0 or baseline is None or seen.setting.state not in {"", "producing"}:
        return False
    usual, nothing = baseline.expected_kw(baseline.units_per_h), baseline.expected_kw(0)
    by_units = usual - nothing
    return by_units >= SEEN_FROM_ENERGY * usual and seen.energy / seen.hours >= nothing + AT_PRODUCTION * by_units
