"""Scope 2 twice: beside a row's location-based CO2e its market-based one, as its share of a year's match.

A calendar year (UTC, as vintages are) is matched whole: the load of all lines, by the plan and the offset_id that are
in force where that load ends. So a MWh is claimed once, however many lines, shifts or products it is reported by. A
row's share of a load is by its energy; it is kept as an exact fraction, and rounded once, at output.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from gateway.carbon.exact import ratio, text, utc
from gateway.carbon.facts import Facts, PlanLeaf
from gateway.carbon.scopes.loads import Load, LoadKey
from gateway.carbon.scopes.market import MarketFlag, Matching, Settled, settle_by
from gateway.config.plan import MarketSection, Plan
from gateway.config.plan.scopes import ResidualSection

NO_INSTRUMENTS = "no instruments"
PROVISIONAL, FINAL = "provisional", "final"
GRID_AVERAGE = "grid average"
MOST_NAMED = 50
"""So many instruments stand in a row by name, those that it claims most of; the rest as one. A leaf has 64 KiB."""
OTHERS = "others"
_KWH, _MWH = 10**6, 10**9
_ANY = MarketSection()


def has_market(plan: Plan) -> bool:
    """Return whether a plan asks for market-based figures: it has an instrument, or says something in [market]."""
    return bool(plan.instruments) or plan.market != _ANY


def year_of(t_ns: int) -> int:
    """Return the calendar year of an instant, UTC."""
    return datetime.fromtimestamp(t_ns // 1_000_000_000, UTC).year


def year_bounds(year: int) -> tuple[int, int]:
    """Return where a calendar year begins and ends, UTC nanoseconds."""
    first, last = (int(datetime(one, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000 for one in (year, year + 1))
    return first, last


@dataclass(frozen=True, slots=True, kw_only=True)
class YearMatch:
    """A year's load, settled by one plan. until_ns: how far its load was taken. offset_id: "" for none."""

    year: int
    until_ns: int
    plan: PlanLeaf
    offset_id: str
    settled: Mapping[LoadKey, Settled]

    @property
    def method(self) -> Matching:
        """How it was matched."""
        return Matching(self.plan.plan.market.matching)

    @property
    def is_final(self) -> bool:
        """Whether no load that is still to come can change it: by the hour, or when the year is over."""
        return self.method == Matching.HOURLY or self.until_ns >= year_bounds(self.year)[1]

    @property
    def matched(self) -> str:
        """From when to when its load was taken, ISO 8601."""
        return f"{utc(year_bounds(self.year)[0])}/{utc(self.until_ns)}"

    @property
    def zones(self) -> frozenset[str]:
        """The zones of its load, and those of which the plan says a residual mix."""
        return frozenset(self.plan.plan.market.residual).union(key[0] for key in self.settled)

    def residual(self, zones: Iterable[str]) -> list[str]:
        """Return what the part counts that no instrument meets, a text a zone."""
        said = self.plan.plan.market.residual
        mixes = [(zone, said.get(zone)) for zone in sorted(zones)]
        return [f"{zone}: {GRID_AVERAGE if one is None else _mix(one)}" for zone, one in mixes]


@dataclass(slots=True)
class Market:
    """A row by the market-based method; exact. zones: of its loads. claims: milliwatt-hours by instrument.

    unknown_mwh: the energy that no instrument meets and that has no factor; its CO2e is in no sum.
    """

    years: list[YearMatch] = field(default_factory=list)
    zones: frozenset[str] = frozenset()
    co2e_g: Fraction = Fraction(0)
    known_mwh: Fraction = Fraction(0)
    residual_mwh: Fraction = Fraction(0)
    unknown_mwh: Fraction = Fraction(0)
    claims: dict[str, Fraction] = field(default_factory=dict)
    flags: set[MarketFlag] = field(default_factory=set)

    def add(self, settled: Settled | None, energy_mwh: int) -> None:
        """Add a share of a load; None for one that was not matched: then its CO2e is not known."""
        if settled is None:
            self.residual_mwh += energy_mwh
            self.unknown_mwh += energy_mwh
            return
        left, load_mwh = Fraction(energy_mwh), settled.load.load_mwh
        self.flags |= settled.flags
        for claim in settled.claims:  # a load that is claimed is positive
            part = Fraction(claim.mwh * energy_mwh, load_mwh)
            self.claims[claim.instrument] = self.claims.get(claim.instrument, Fraction(0)) + part
            self.co2e_g += Fraction(claim.g_per_kwh) * part / _KWH
            self.known_mwh += part
            left -= part
        self.residual_mwh += left
        if settled.residual_g_per_kwh is None:
            self.unknown_mwh += left
        else:
            self.co2e_g += Fraction(settled.residual_g_per_kwh) * left / _KWH
            self.known_mwh += left

    def said(self) -> dict[str, str]:
        """Return it as a statement and a report say it: text, "" for what is not known."""
        years = self.years
        found = {
            "market_co2e_kg": "" if self.unknown_mwh and not self.known_mwh else _rounded(self.co2e_g, 1000),
            "market_method": ";".join(dict.fromkeys(year.method for year in years)),
            "market_state": FINAL if all(year.is_final for year in years) else PROVISIONAL,
            "market_matched": ";".join(year.matched for year in years),
            "market_instruments": ";".join(sorted(self.claims)[:MOST_NAMED]),
            "market_residual_kwh": _rounded(self.residual_mwh, _KWH),
            "market_residual": ";".join(dict.fromkeys(one for year in years for one in year.residual(self.zones))),
            "market_without_factor_kwh": _rounded(self.unknown_mwh, _KWH),
            "market_flags": ";".join(flag for flag in MarketFlag if flag in self.flags),
        }
        return found | {f"market.{name}.mwh": _rounded(mwh, _MWH, 9) for name, mwh in self._named()}

    def _named(self) -> list[tuple[str, Fraction]]:
        ordered = sorted(self.claims.items(), key=lambda one: (-one[1], one[0]))
        rest = ordered[MOST_NAMED:]
        return [*ordered[:MOST_NAMED], *([(OTHERS, sum((mwh for _, mwh in rest), Fraction(0)))] if rest else [])]


@dataclass(frozen=True, slots=True)
class Match:
    """Years that were matched, oldest first."""

    years: Sequence[YearMatch]

    def market(self, by_load: Mapping[LoadKey, int]) -> Market:
        """Return what a row is whose energy is part of these loads."""
        asked = {year_of(key[1]) for key in by_load}
        years = [match for match in self.years if match.year in asked] or [*self.years]
        market = Market(years=years, zones=frozenset(key[0] for key in by_load))
        for key, energy_mwh in by_load.items():
            found = (match.settled[key] for match in market.years if key in match.settled)
            market.add(next(found, None), energy_mwh)
        return market


def match_year(facts: Facts, loads: Iterable[Load], *, year: int, until_ns: int) -> YearMatch:
    """Return the loads of a year, all lines' up to until_ns, by the plan and settings that are in force there."""
    until_ns = min(until_ns, year_bounds(year)[1])
    leaf, stated = facts.plan_at(until_ns - 1), facts.settings_at(until_ns - 1)
    zone, offset_id = ("", "") if stated is None else (stated.settings.zone, stated.settings.offset_id)
    by_zone: dict[str, list[Load]] = {}
    for load in loads:
        by_zone.setdefault(load.zone, []).append(load)
    settled: dict[LoadKey, Settled] = {}
    for name, of_zone in sorted(by_zone.items()):  # apart, as no instrument meets a load of another zone
        first = offset_id if zone in {"", name} else ""
        settled |= {one.load.key: one for one in settle_by(leaf.plan, of_zone, first=first)}
    return YearMatch(year=year, until_ns=until_ns, plan=leaf, offset_id=offset_id, settled=settled)


def _mix(one: ResidualSection) -> str:
    return ", ".join(filter(None, (f"{one.g_per_kwh} g/kWh", one.source)))


def _rounded(value: Fraction, unit: int, places: int = 6) -> str:
    return text(ratio(Decimal(value.numerator), Decimal(value.denominator * unit), places))
