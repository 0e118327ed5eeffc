"""How a line's meters stand to each other, so that each kWh counts once.

A meter whose sub-meters are on the line as well counts no more than its remainder: what it measured, less what they
did. The parts then sum to the mains, to the mWh, however deep the tree is. Where a sub-meter says nothing, what it
would have said stays in the remainder above it, and the sum still is the main's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from gateway.carbon.energy import MWH_PLACES, Booking, Reading
from gateway.carbon.figures import METER, REMAINDER, VIRTUAL
from gateway.carbon.scopes.uncertainty import percent_of_class
from gateway.config.plan import LinePlan
from gateway.model import LineColumn, Role


class Account(NamedTuple):
    """One asset's energy: the sum of some columns of the line, less the sum of others.

    plus, minus: places in the line's columns; plus has at least one. below: of a remainder, by place the places of the
    sub-meters of each sub-meter, which stand in where that one says nothing.
    """

    asset: str
    kind: str
    plus: tuple[int, ...]
    minus: tuple[int, ...] = ()
    below: Mapping[int, tuple[int, ...]] = {}

    def less(self, says: Callable[[int], bool]) -> Iterator[int]:
        """Yield the places to be taken off, given which columns say something."""
        waiting = list(reversed(self.minus))
        while waiting:
            place = waiting.pop()
            if self.kind != REMAINDER or says(place):
                yield place
            else:
                waiting += reversed(self.below.get(place, ()))


def accounts_of(plan: LinePlan, columns: Sequence[LineColumn]) -> tuple[Account, ...]:
    """Return what a line's energy is made of; the accounts' sum counts each kWh once.

    A meter that the plan does not name counts as itself: its asset is its device, or the point where one device has
    several. What the plan says of points that the line does not have is passed over: see strangers.
    """
    places = {column.point: place for place, column in enumerate(columns) if column.role == Role.ENERGY}
    made = list(_virtuals(plan, places))
    taken = {place for account in made for place in (*account.plus, *account.minus)}
    named = {asset: places[one.point] for asset, one in plan.meters.items() if one.point in places}
    below: dict[int, tuple[int, ...]] = {}
    for asset, place in named.items():
        parent = plan.meters[asset].parent
        if parent in named:
            below[named[parent]] = (*below.get(named[parent], ()), place)
    for asset, place in named.items():
        if place in below:
            made.append(Account(asset, REMAINDER, (place,), below[place], below))
        else:
            made.append(Account(asset, METER, (place,)))
    taken.update(named.values())
    made += _unnamed(columns, [place for place in places.values() if place not in taken], {one.asset for one in made})
    return tuple(sorted(made, key=lambda account: account.plus))


def strangers(plan: LinePlan, columns: Sequence[LineColumn]) -> tuple[str, ...]:
    """Return the energy counters that a line's plan names and the line does not have."""
    known = {column.point for column in columns if column.role == Role.ENERGY}
    said = [one.point for one in plan.meters.values()]
    said += [point for one in plan.virtual.values() for point in (*one.plus, *one.minus)]
    return tuple(point for point in said if point not in known)


def falls_short(energy_mwh: int, parts: Iterable[tuple[LineColumn, Booking, int]]) -> bool:
    """Return whether a remainder is more negative than its meters' rounding and classes explain.

    parts: each meter's column, its booking, and its amount here, mWh. Each may be wrong by its class, and by one step
    of its register; a meter without a class by the step alone. Meters that were read at different times, as over a gap,
    say nothing of a shorter time together: then it is the spreading that made it negative.
    """
    if energy_mwh >= 0:
        return False
    parts = list(parts)
    if len({(booking.start.t_ns, booking.end.t_ns) for _, booking, _ in parts}) > 1:
        return False
    explained = Fraction(0)
    for column, booking, amount in parts:
        percent = percent_of_class(column.meter_class)
        explained += _step_mwh(booking.start, column.unit)
        explained += 0 if percent is None else abs(amount) * Fraction(percent) / 100
    return -energy_mwh > explained


def _step_mwh(reading: Reading, unit: str) -> Fraction:
    """Return what the last digit of a register stands for: 1 kWh of "100", 0.1 kWh of "100.0"."""
    places = MWH_PLACES[unit] + int(reading.register.as_tuple().exponent)
    return max(Fraction(10) ** places, Fraction(1))


def _virtuals(plan: LinePlan, places: Mapping[str, int]) -> Iterator[Account]:
    for asset, one in plan.virtual.items():
        if all(point in places for point in (*one.plus, *one.minus)):
            plus, minus = (tuple(places[point] for point in points) for points in (one.plus, one.minus))
            yield Account(asset, VIRTUAL, plus, minus)


def _unnamed(columns: Sequence[LineColumn], places: Sequence[int], used: set[str]) -> Iterator[Account]:
    devices = Counter(columns[place].point.partition(".")[0] for place in places)
    for place in places:
        point = columns[place].point
        device = point.partition(".")[0]
        alone = devices[device] == 1 and device not in used
        yield Account(device if alone else point, METER, (place,))
