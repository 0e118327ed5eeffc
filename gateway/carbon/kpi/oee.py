"""Overall equipment effectiveness of a line, as ISO 22400 has it: availability, effectiveness, quality, their product.

    availability  = APT / PBT          actual production time over planned busy time
    effectiveness = PRI x PQ / APT     planned time of a unit times units made, over the time that it took
    quality       = GQ / PQ            good units over units made
    OEE           = availability x effectiveness x quality

PBT are the shifts of the calendar, APT is the time in the state `producing`, PRI comes from the plan's
`ideal_units_per_hour`. What is not known is None, and so is what rests on it: a shift with a minute of unknown state
has no availability, and a line that does not count all units has no quality.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from gateway.carbon.exact import EXACT, OUTPUT_PLACES, ratio, total
from gateway.carbon.figures import LineFigure

HOUR_NS = 3_600_000_000_000
PRODUCING = "producing"

Window = tuple[int, int]
"""UTC nanoseconds, the end excluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oee:
    """What OEE is made of. Each ratio is rounded once, from exact parts, to six places; None where it is not known.

    planned_ns: PBT. producing_ns: APT. units_total, units_good: PQ, GQ. ideal_per_hour: 1 / PRI.
    """

    planned_ns: int | None = None
    producing_ns: int | None = None
    units_total: Decimal | None = None
    units_good: Decimal | None = None
    ideal_per_hour: Decimal | None = None

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
        if not self.producing_ns or self.units_total is None or not self.ideal_per_hour:
            return None
        return Fraction(self.units_total) * HOUR_NS / Fraction(self.ideal_per_hour) / self.producing_ns

    def _quality(self) -> Fraction | None:
        if self.units_good is None or not self.units_total:
            return None
        return Fraction(self.units_good) / Fraction(self.units_total)


UNKNOWN = Oee()


def oee_of(cells: Iterable[LineFigure], *, planned: Sequence[Window], ideal_per_hour: float | None) -> Oee:
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
        ideal_per_hour=None if ideal_per_hour is None else Decimal(repr(ideal_per_hour)),
    )


def _within(cell: LineFigure, planned: Sequence[Window]) -> int:
    return sum(max(0, min(cell.end_ns, end) - max(cell.start_ns, start)) for start, end in planned)


def _sum(counts: Sequence[Decimal | None]) -> Decimal | None:
    known = [count for count in counts if count is not None]
    return total(known) if counts and len(known) == len(counts) else None


def _rounded(value: Fraction | None) -> Decimal | None:
    if value is None:
        return None
    return ratio(EXACT.create_decimal(value.numerator), EXACT.create_decimal(value.denominator), OUTPUT_PLACES)
