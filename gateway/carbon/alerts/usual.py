"""The grid's usual factor: the one of the same quarter of an hour, UTC, of the last week.

A grid is dirtier at one time of the day than at another, so the mean of a day says nothing of an hour. The factor is
known and not sampled: nothing needs to settle. What is not known is how far apart the days are at the same time; that
takes some days to see, and until then it is assumed.
"""

from collections.abc import Iterator, Mapping
from statistics import median

from gateway.carbon.alerts.observe import MINUTE_NS, Observation
from gateway.carbon.alerts.windows import spread

QUARTER_NS = 15 * MINUTE_NS
DAYS = 7
LEAST_DAYS = 5
"""So many days of a quarter show how far apart they are."""
ASSUMED, LEAST = 0.07, 0.005
"""Of the factor: the standard deviation between days as long as too few of them were seen, and the least of all."""
_A_DAY = 96
_UNKNOWN = "-"


class UsualFactor:
    """A line's factors of the last week, by quarter. text: as `to_text` wrote it."""

    def __init__(self, text: str = "") -> None:
        """Hold what the text says. Raises ValueError for one that says none."""
        self._known: dict[int, tuple[float, float]] = dict(_read(text))
        self._done = max(self._known, default=-1)
        self._apart: tuple[int, float] = (-1, 0.0)

    def take(self, seen: Observation) -> Observation:
        """Take a cell, in order of time; return it with the factor that is usual then.

        Where this quarter was never seen, the factor as it is counts as usual.
        """
        first, last = seen.start_ns // QUARTER_NS, (seen.end_ns - 1) // QUARTER_NS
        if seen.co2e_kg is not None and seen.energy > 0:
            for quarter in range(max(first, self._done + 1), min(last, first + _A_DAY - 1) + 1):
                self._add(quarter, seen.co2e_kg, seen.energy)
        found = list(self._before(first))
        return seen._replace(usual_factor=median(found) if found else seen.factor)

    def sigma(self, t_ns: int, level: float) -> float:
        """Return the standard deviation between days at a time. level: what is usual then."""
        quarter = t_ns // QUARTER_NS
        if quarter // _A_DAY != self._apart[0]:
            self._apart = (quarter // _A_DAY, self._spread(quarter // _A_DAY * _A_DAY))
        few = len(list(self._before(quarter))) < LEAST_DAYS
        return max(self._apart[1], (ASSUMED if few else LEAST) * level)

    def rebase(self, since_ns: int) -> None:
        """Take the level of the day since a time as usual: what was before it keeps its shape alone."""
        first = since_ns // QUARTER_NS
        pairs = [
            (self._known[quarter], median(found))
            for quarter in range(first, first + _A_DAY)
            if quarter in self._known and (found := list(self._before(quarter)))
        ]
        if pairs:
            ratio = median(_factor(now) / was for now, was in pairs)
            for quarter in [one for one in self._known if one < first]:
                kg, kwh = self._known[quarter]
                self._known[quarter] = (kg * ratio, kwh)
            self._apart = (-1, 0.0)

    def to_text(self, until_ns: int) -> str:
        """Return all quarters that are over at a time: the number of the first, then factors, "" where one repeats."""
        known = {quarter: one for quarter, one in self._known.items() if quarter < until_ns // QUARTER_NS}
        if not known:
            return ""
        said = [f"{min(known)}"]
        was = ""
        for quarter in range(min(known), max(known) + 1):
            text = f"{_factor(known[quarter]):.5g}" if quarter in known else _UNKNOWN
            said.append("" if text == was else text)
            was = text
        return ",".join(said)

    def _add(self, quarter: int, kg: float, kwh: float) -> None:
        held = self._known.get(quarter, (0.0, 0.0))
        self._known[quarter] = (held[0] + kg, held[1] + kwh)
        while (oldest := next(iter(self._known))) < quarter - DAYS * _A_DAY:
            del self._known[oldest]

    def _before(self, quarter: int) -> Iterator[float]:
        """Yield the factors of this quarter on the days before."""
        for earlier in range(quarter - DAYS * _A_DAY, quarter, _A_DAY):
            if earlier in self._known:
                yield _factor(self._known[earlier])

    def _spread(self, end: int) -> float:
        """Return how far apart the days before a quarter are: each from the median of the others at the same time.

        The quarters of a day are alike, so there are hardly more than days to see it from: it is put up by that.
        """
        apart, most = [], 0
        for quarter in range(end, end + _A_DAY):
            days = list(self._before(quarter))
            most = max(most, len(days))
            if len(days) > 1:
                apart += [one - median(days[:at] + days[at + 1 :]) for at, one in enumerate(days)]
        return spread(apart) * (1 + 2 / most) if apart else 0.0


def _factor(known: tuple[float, float]) -> float:
    return known[0] / known[1]


def _read(text: str) -> Mapping[int, tuple[float, float]]:
    """Return factors by quarter, as kg of one kWh."""
    found: dict[int, tuple[float, float]] = {}
    first, *factors = text.split(",")
    was = _UNKNOWN
    for place, factor in enumerate(factors):
        was = factor or was
        if was != _UNKNOWN:
            found[int(first) + place] = (float(was), 1.0)
    return found
