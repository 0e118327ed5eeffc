"""Scope 2 by the market-based method: which instrument meets which load, and what is left.

It stands beside the location-based figure and never changes it: location_g is load x location factor, whatever is
claimed. Instruments are taken in this order: the one that grid-settings.json names (offset_id), then certificates,
contracts (PPA), supplier rates; within a type by validity, then by name. What no instrument meets counts the residual
mix of its zone, and without one the grid average, flagged. A MWh of an instrument is claimed once, over all loads that
are settled together: so settle all lines of all zones at once. An instrument meets a load only in its own zone, in the
year of its vintage, and while it is valid.

annual: an instrument's volume is shared among the loads of its year, by their size: each has the same part met.
hourly: what an instrument delivers in an hour meets the load of that hour and no other, up to its volume. An instrument
that does not say what it delivers by the hour meets nothing.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby
from types import MappingProxyType

from gateway.carbon.exact import ratio, scaled, shifted, times, total
from gateway.carbon.scopes.loads import HOUR_NS, Load
from gateway.config.plan import InstrumentSection, Plan
from gateway.config.plan.scopes import exact

_MWH_PLACES = 9
_TYPES = ("certificate", "contract", "supplier")


class Matching(enum.StrEnum):
    """How instruments meet load."""

    ANNUAL = "annual"
    HOURLY = "hourly"


class MarketFlag(enum.StrEnum):
    """What a reader of a market-based figure must know."""

    GRID_AVERAGE = "grid_average"
    NO_FACTOR = "no_factor"
    UNKNOWN_OFFSET = "unknown_offset"
    NO_HOURLY_PROFILE = "no_hourly_profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A contractual instrument. volume_mwh, hourly_mwh: milliwatt-hours; the end excluded, UTC.

    hourly_mwh: 24 numbers, what it delivers in each hour of a UTC day; () where it does not say.
    """

    id: str
    type: str
    volume_mwh: int
    g_per_kwh: Decimal
    vintage: int
    zone: str
    start_ns: int
    end_ns: int
    hourly_mwh: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A part of a load that an instrument meets, milliwatt-hours."""

    instrument: str
    type: str
    mwh: int
    g_per_kwh: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A load by both methods. claims + residual_mwh is the load.

    residual_g_per_kwh: of what no instrument meets; None where neither a residual mix nor a grid average is known.
    """

    load: Load
    matching: Matching
    claims: tuple[Claim, ...]
    residual_mwh: int
    residual_g_per_kwh: Decimal | None
    flags: frozenset[MarketFlag]

    @property
    def location_g(self) -> Decimal | None:
        """CO2e by the location-based method, exact; None without a factor."""
        factor = self.load.location_g_per_kwh
        return None if factor is None else _grams(factor, self.load.load_mwh)

    @property
    def co2e_g(self) -> Decimal | None:
        """CO2e by the market-based method, exact; None where a part has no factor."""
        claimed = [_grams(claim.g_per_kwh, claim.mwh) for claim in self.claims]
        if not self.residual_mwh:
            return total(claimed)
        if self.residual_g_per_kwh is None:
            return None
        return total([*claimed, _grams(self.residual_g_per_kwh, self.residual_mwh)])

    @property
    def g_per_kwh(self) -> Decimal | None:
        """The effective factor for a line's share of the load, to six places; None for no load."""
        grams = self.co2e_g
        return None if grams is None or not self.load.load_mwh else ratio(shifted(grams, 6), self.load.load_mwh)


def instruments_of(plan: Plan) -> tuple[Instrument, ...]:
    """Return the instruments of a plan."""
    return tuple(_instrument(name, one) for name, one in plan.instruments.items())


def settle(
    loads: Iterable[Load],
    instruments: Iterable[Instrument],
    *,
    matching: Matching,
    residuals: Mapping[str, Decimal] = MappingProxyType({}),
    first: str = "",
) -> tuple[Settled, ...]:
    """Return each load by both methods, in their order.

    residuals: the residual mix by zone, g/kWh; one of another zone says nothing. first: the instrument to be used
    before all others.

    A load that is not positive, as a remainder may be, is met by nothing. With the annual method the figures of a year
    that is not over change as its load grows.
    """
    asked = list(loads)
    order = _ordered(instruments, first)
    book = _Book(asked)
    flags = frozenset({MarketFlag.UNKNOWN_OFFSET}) if first and first not in {one.id for one in order} else frozenset()
    for one in order:
        if matching == Matching.ANNUAL:
            book.share(one)
        else:
            book.deliver(one)
    return tuple(
        _settled(load, matching, tuple(book.claims[place]), residuals.get(load.zone), flags | book.flags[place])
        for place, load in enumerate(asked)
    )


def settle_by(plan: Plan, loads: Iterable[Load], *, first: str = "") -> tuple[Settled, ...]:
    """Return what a plan's own market section and instruments make of loads: see settle."""
    residuals = {zone: exact(one.g_per_kwh) for zone, one in plan.market.residual.items()}
    matching = Matching(plan.market.matching)
    return settle(loads, instruments_of(plan), matching=matching, residuals=residuals, first=first)


@dataclass(slots=True)
class _Book:
    """What is left of each load while instruments are taken one after the other."""

    loads: Sequence[Load]
    left: list[int] = field(init=False)
    claims: dict[int, list[Claim]] = field(default_factory=lambda: defaultdict(list))
    flags: dict[int, frozenset[MarketFlag]] = field(default_factory=lambda: defaultdict(frozenset))

    def __post_init__(self) -> None:
        self.left = [max(0, load.load_mwh) for load in self.loads]

    def share(self, one: Instrument) -> None:
        """Share an instrument's volume among the loads that it may meet: in whole mWh that sum exactly."""
        places = self._met_by(one)
        wanted = sum(self.left[place] for place in places)
        given, before = min(one.volume_mwh, wanted), 0
        for place in places if wanted else ():
            left = self.left[place]
            # The difference of a sum that is rounded down: it is never more than is left of this load.
            self._claim(one, place, given * (before + left) // wanted - given * before // wanted)
            before += left

    def deliver(self, one: Instrument) -> None:
        """Let an instrument's deliveries meet the load of their own hour, in order of time, up to its volume."""
        places = sorted(self._met_by(one), key=lambda place: self.loads[place].start_ns)
        if not one.hourly_mwh:
            for place in places:
                self.flags[place] |= {MarketFlag.NO_HOURLY_PROFILE}
            return
        volume = one.volume_mwh
        for hour, of_hour in groupby(places, key=lambda place: self.loads[place].start_ns // HOUR_NS):
            delivered = min(one.hourly_mwh[hour % 24], volume)
            for place in of_hour:
                load = self.loads[place]
                if (load.end_ns - 1) // HOUR_NS != hour:
                    continue  # longer than an hour: which part of it the delivery meets is not known
                given = min(delivered, self.left[place])
                self._claim(one, place, given)
                delivered, volume = delivered - given, volume - given

    def _met_by(self, one: Instrument) -> list[int]:
        return [
            place
            for place, load in enumerate(self.loads)
            if load.zone == one.zone
            and one.start_ns <= load.start_ns
            and load.end_ns <= one.end_ns
            and _year(load.start_ns) == one.vintage
            and self.left[place] > 0
        ]

    def _claim(self, one: Instrument, place: int, mwh: int) -> None:
        if mwh:
            self.left[place] -= mwh
            self.claims[place].append(Claim(instrument=one.id, type=one.type, mwh=mwh, g_per_kwh=one.g_per_kwh))


def claimed(settled: Iterable[Settled]) -> Mapping[str, int]:
    """Return how many milliwatt-hours of each instrument are claimed."""
    sums: dict[str, int] = defaultdict(int)
    for one in settled:
        for claim in one.claims:
            sums[claim.instrument] += claim.mwh
    return dict(sums)


def _ordered(instruments: Iterable[Instrument], first: str) -> list[Instrument]:
    return sorted(instruments, key=lambda one: (one.id != first, _TYPES.index(one.type), one.end_ns, one.id))


def _settled(
    load: Load, matching: Matching, claims: tuple[Claim, ...], residual: Decimal | None, flags: frozenset[MarketFlag]
) -> Settled:
    left = load.load_mwh - sum(claim.mwh for claim in claims)
    factor = load.location_g_per_kwh if residual is None else residual
    if left and residual is None:
        flags |= {MarketFlag.NO_FACTOR if factor is None else MarketFlag.GRID_AVERAGE}
    return Settled(
        load=load,
        matching=matching,
        claims=claims,
        residual_mwh=left,
        residual_g_per_kwh=factor,
        flags=flags,
    )


def _instrument(name: str, one: InstrumentSection) -> Instrument:
    return Instrument(
        id=name,
        type=one.type,
        volume_mwh=scaled(exact(one.volume_mwh), _MWH_PLACES),
        g_per_kwh=exact(one.factor_g_per_kwh),
        vintage=one.vintage,
        zone=one.zone,
        start_ns=_midnight(one.valid_from),
        end_ns=_midnight(one.valid_to),
        hourly_mwh=tuple(scaled(exact(said), _MWH_PLACES) for said in one.hourly_mwh),
    )


def _midnight(day: str) -> int:
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * 24 * HOUR_NS


def _year(t_ns: int) -> int:
    return datetime.fromtimestamp(t_ns // 1_000_000_000, UTC).year


def _grams(g_per_kwh: Decimal, mwh: int) -> Decimal:
    return shifted(times(g_per_kwh, mwh), -6)
