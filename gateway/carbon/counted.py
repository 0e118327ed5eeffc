"""What systems of the DMZ counted of a line that has no counter of its own."""

from bisect import bisect_right, insort
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from gateway.carbon.energy import UNIT_PLACES
from gateway.carbon.figures import units_of
from gateway.errors import TrustError
from gateway.model import CountFact, LineSchema, Role

COUNTERS = frozenset({role for role in Role if role.startswith("count_")})


class Counted(NamedTuple):
    """Units in a piece of time; None where nobody counted them. whole: no count was split for it."""

    good: Decimal | None
    total: Decimal | None
    whole: bool


def has_counter(schema: LineSchema) -> bool:
    """Return whether a line counts for itself: then nobody else does."""
    return any(column.role in COUNTERS for column in schema.columns)


def overlap(one: CountFact, other: CountFact) -> bool:
    """Return whether two counts of different ids cover a part of each other."""
    same_line = (one.gateway, one.line) == (other.gateway, other.line)
    is_other = (one.source, one.id) != (other.source, other.id)
    return same_line and is_other and one.start_ns < other.end_ns and other.start_ns < one.end_ns


class LineCounts:
    """The counts of one line by window; no two overlap. Of one id of a source the newest leaf counts."""

    def __init__(self) -> None:
        self._windows: list[tuple[int, int, CountFact]] = []
        self._of_id: dict[tuple[str, str], list[tuple[int, CountFact]]] = {}

    def add(self, index: int, fact: CountFact) -> tuple[int, int]:
        """Add a count, its leaf's index; return the window in which units may differ.

        Raises TrustError where another count covers a part of it: nothing has changed then.
        """
        if (other := self.overlapped(fact)) is not None:
            raise TrustError(f"counts: {fact.id!r} covers a part of what {other.id!r} of {other.source} counted")
        versions = self._of_id.setdefault((fact.source, fact.id), [])
        start_ns, end_ns = fact.start_ns, fact.end_ns
        if versions:
            at, old = versions[-1]
            self._windows.remove((old.start_ns, at, old))
            start_ns, end_ns = min(start_ns, old.start_ns), max(end_ns, old.end_ns)
        versions.append((index, fact))
        insort(self._windows, (fact.start_ns, index, fact), key=lambda window: window[0])
        return start_ns, end_ns

    def known(self, fact: CountFact) -> int | None:
        """Return the leaf in which just this was said, None where it was not: also where it was corrected since."""
        versions = self._of_id.get((fact.source, fact.id), [])
        return next((index for index, version in versions if version == fact), None)

    def overlapped(self, fact: CountFact) -> CountFact | None:
        """Return a count of another id that covers a part of this one, None for none."""
        return next((one for one in self._within(fact.start_ns, fact.end_ns) if overlap(fact, one)), None)

    def between(self, start_ns: int, end_ns: int) -> Counted | None:
        """Return the units from start_ns to end_ns, None where nobody counted any; pieces that meet sum exactly.

        Of several counts there, good or total is known only where each of them says it: else one would be less the
        other, and that is no scrap.
        """
        found = list(self._within(start_ns, end_ns))
        if not found:
            return None
        good = [_part(one, one.good, start_ns, end_ns) for one in found if one.good is not None]
        made = [_part(one, one.total, start_ns, end_ns) for one in found if one.total is not None]
        return Counted(
            good=units_of(sum(good)) if len(good) == len(found) else None,
            total=units_of(sum(made)) if len(made) == len(found) else None,
            whole=all(start_ns <= one.start_ns and one.end_ns <= end_ns for one in found),
        )

    def _within(self, start_ns: int, end_ns: int) -> Iterator[CountFact]:
        place = max(0, bisect_right(self._windows, start_ns, key=lambda window: window[0]) - 1)
        while place < len(self._windows) and self._windows[place][0] < end_ns:
            fact = self._windows[place][2]
            if fact.end_ns > start_ns:
                yield fact
            place += 1


NO_COUNTS = LineCounts()


def _part(fact: CountFact, units: int, start_ns: int, end_ns: int) -> int:
    """Return the thousandths of a count from start_ns to end_ns, spread evenly over its window."""
    span = fact.end_ns - fact.start_ns
    amount: int = units * 10**UNIT_PLACES
    first, last = max(start_ns, fact.start_ns) - fact.start_ns, min(end_ns, fact.end_ns) - fact.start_ns
    return amount * last // span - amount * first // span
