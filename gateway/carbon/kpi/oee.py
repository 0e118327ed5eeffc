"""Overall equipment effectiveness of a line, as ISO 22400 has it: availability, effectiveness, quality, their product.

    availability  = APT / PBT          actual production time over planned busy time
    effectiveness = PRI x PQ / APT     planned time of a unit times units made, of each product, over the time they took
    quality       = GQ / PQ            good units over units made
    OEE           = availability x effectiveness x quality

PBT are the shifts of the calendar, APT is the time in the state `producing`, PRI comes from the plan's
`ideal_units_per_hour`, one for all products or one for each. What is not known is None, and so is what rests on it: a
shift with a minute of unknown state has no availability, and a line that does not count all units has no quality.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from gateway.carbon.exact import EXACT, OUTPUT_PLACES, ratio, total
from gateway.carbon.figures import LineFigure

HOUR_NS = 3_600_000_000_000
PRODUCING = "producing"

Ideal = float | Mapping[str, float] | None
"""Units an hour: of any product, or by product, "*" for all others; None where the plan does not say."""

Window = tuple[int, int]
"""UTC nanoseconds, the end excluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oee:
    """What OEE is made of. Each ratio is rounded once, from exact parts, to six places; None where it is not known.

    planned_ns: PBT. producing_ns: APT. units_total, units_good: PQ, GQ. ideal_ns: PRI x PQ.
    """

    planned_ns: int | None = None
    producing_ns: int | None = None
    units_total: Decimal | None = None
    units_good: Decimal | None = None
    ideal_ns: Fraction | None = None

    @property
    def availability(self) -> Decimal | None:
        """APT / PBT."""
        return _rounded(self._availability())

    @property
    def effectiveness(self) -> Decimal | None:
        """PRI x PQ / APT."""
        return _rounded(self._effectiveness())

    @property
    def quality(self) -> Decimal | None:
        """GQ / PQ."""
        return _rounded(self._quality())

    @property
    def oee(self) -> Decimal | None:
        """The product of the three, of the exact ones."""
        parts = (self._availability(), self._effectiveness(), self._quality())
        product = Fraction(1)
        for part in parts:
            if part is None:
                return None
            product *= part
        return _rounded(product)

    def _availability(self) -> Fraction | None:
        if self.producing_ns is None or not self.planned_ns:
            return None
        return Fraction(self.producing_ns, self.planned_ns)

    def _effectiveness(self) -> Fraction | None:
        return None if not self.producing_ns or self.ideal_ns is None else self.ideal_ns / self.producing_ns

    def _quality(self) -> Fraction | None:
        if self.units_good is None or not self.units_total:
            return None
        return Fraction(self.units_good) / Fraction(self.units_total)


UNKNOWN = Oee()


def oee_of(cells: Iterable[LineFigure], *, planned: Sequence[Window], ideal_per_hour: Ideal) -> Oee:
    """Return the OEE of one line.

    cells: of the line, those outside of the planned windows do not count. planned: windows that do not overlap; none:
    it is not known when the line should have run. ideal_per_hour: as the plan writes it, taken as that decimal.
    """
    if not planned:
        return UNKNOWN
    made = [(cell, _within(cell, planned)) for cell in cells]
    held = [(cell, ns) for cell, ns in made if ns]
    planned_ns = sum(end - start for start, end in planned)
    known_ns = sum(ns for cell, ns in held if cell.setting.state)
    producing_ns = sum(ns for cell, ns in held if cell.setting.state == PRODUCING)
    return Oee(
        planned_ns=planned_ns,
        producing_ns=producing_ns if known_ns == planned_ns else None,
        units_total=_sum([cell.units_total for cell, _ in held]),
        units_good=_sum([cell.units_good for cell, _ in held]),
        ideal_ns=_ideal_ns([cell for cell, _ in held], ideal_per_hour),
    )


def _ideal_ns(cells: Sequence[LineFigure], ideal_per_hour: Ideal) -> Fraction | None:
    """Return how long the units take at the ideal rate; None where a count, or the rate of a product, is unknown."""
    found = Fraction(0)
    for cell in cells:
        if cell.units_total is None:
            return None
        if cell.units_total:
            rate = _rate(cell.setting.product, ideal_per_hour)
            if rate is None:
                return None
            found += Fraction(cell.units_total) * HOUR_NS / rate
    return found if cells and ideal_per_hour is not None else None


def _rate(product: str, ideal_per_hour: Ideal) -> Fraction | None:
    rate = ideal_per_hour
    if isinstance(rate, Mapping):
        rate = rate.get(product, rate.get("*"))
    return None if rate is None else Fraction(repr(rate))


def _within(cell: LineFigure, planned: Sequence[Window]) -> int:
    return sum(max(0, min(cell.end_ns, end) - max(cell.start_ns, start)) for start, end in planned)


def _sum(counts: Sequence[Decimal | None]) -> Decimal | None:
    known = [count for count in counts if count is not None]
    return total(known) if counts and len(known) == len(counts) else None


def _rounded(value: Fraction | None) -> Decimal | None:
    if value is None:
        return None
    return ratio(EXACT.create_decimal(value.numerator), EXACT.create_decimal(value.denominator), OUTPUT_PLACES)
