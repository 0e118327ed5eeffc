"""What is in force, for a reader beside the running ledger: which factor counts in a zone, when, and why."""

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from gateway.app.factbook import FactBook
from gateway.app.timezones import rules_of
from gateway.carbon.calendar import Calendar
from gateway.carbon.exact import text, utc
from gateway.carbon.facts import Facts
from gateway.carbon.grid.settings import OPERATOR
from gateway.carbon.grid.table import Span
from gateway.config import LedgerConfig
from gateway.config.plan import GridSection, Plan
from gateway.model import UNTIL_FURTHER_NOTICE_NS
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Projections
from gateway.store.view import steadily, view

DAY_NS = 86_400_000_000_000
_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneFactors:
    """The factors of one zone. now: that of the instant asked for. day: those of the 24 hours before, in order."""

    zone: str
    policy: GridSection | None
    now: Span
    day: tuple[Span, ...]


def read_factors(config: LedgerConfig, *, zone: str | None, at_ns: int) -> tuple[ZoneFactors, ...]:
    """Return what counts at an instant in a zone, or in all that a line stands in or a factor is of.

    Raises ConfigError or LogError where the ledger has no tables or log yet.
    """
    facts, zones = steadily(lambda: _load(config))
    return tuple(_zone(facts, one, at_ns) for one in ([zone] if zone is not None else sorted(zones)))


def _load(config: LedgerConfig) -> tuple[Facts, set[str]]:
    folder = config.ledger.state
    book = Projections(folder / "projections.sqlite", new=False)
    own = view(RealFiles(folder / "own"), origin=config.origin)
    try:
        read = FactBook(own)
        with book.reading() as connection:
            read.load(connection)
            lines = {schema.zone for name in config.gateways for _, schema in tables.schemas(connection, name)}
        return read.facts, {*lines, *read.facts.factors.zones}
    finally:
        own.close()
        book.close()


def _zone(facts: Facts, zone: str, at_ns: int) -> ZoneFactors:
    policy = facts.policy_at(zone, at_ns)
    table = facts.factors
    # Each piece by the plan of its own time, as figures are.
    cuts = sorted({at_ns - DAY_NS, at_ns, *facts.plan_cuts(at_ns - DAY_NS, at_ns)})
    day = [
        span for start, end in pairwise(cuts) for span in table.spans(zone, start, end, facts.policy_at(zone, start))
    ]
    (now,) = table.spans(zone, at_ns, at_ns + 1, policy)
    return ZoneFactors(zone=zone, policy=policy, now=now, day=tuple(day))


def zone_row(found: ZoneFactors) -> dict[str, Any]:
    """Return a zone's factors for scripts."""
    policy = found.policy
    return {
        "zone": found.zone,
        "policy": None
        if policy is None
        else {"order": list(policy.order), "last_good_h": policy.last_good_h, "type": policy.type},
        **span_row(found.now),
        "day": [{"from": utc(span.start_ns), "to": utc(span.end_ns)} | _short(span_row(span)) for span in found.day],
    }


def span_row(span: Span) -> dict[str, Any]:
    """Return which factor counts, for scripts; g_per_kwh null for none."""
    if span.leaf is None:
        return {"g_per_kwh": None, "fallback": "no_factor"}
    factor = span.leaf.factor
    provider, _, _, kind, granularity = factor.key
    is_open = factor.end_ns == UNTIL_FURTHER_NOTICE_NS
    return {
        "g_per_kwh": text(factor.g_per_kwh),
        "fallback": OPERATOR if provider == OPERATOR else str(span.fallback or ""),
        "provider": provider,
        "type": kind,
        "granularity": granularity,
        "state": factor.state,
        "method": factor.method,
        "source": factor.source,
        "version": factor.version,
        "leaf": span.leaf.index,
        "window_from": utc(factor.start_ns),
        "window_to": None if is_open else utc(factor.end_ns),
    }


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in ("g_per_kwh", "fallback", "provider", "state", "version")}


def slots(day: tuple[Span, ...], count: int) -> list[tuple[Decimal | None, str]]:
    """Return value and fallback of so many equal pieces of a day's spans, each at its middle: for a picture."""
    start_ns, end_ns = day[0].start_ns, day[-1].end_ns
    found: list[tuple[Decimal | None, str]] = []
    for number in range(count):
        t_ns = start_ns + (end_ns - start_ns) * (2 * number + 1) // (2 * count)
        span = next(one for one in day if one.start_ns <= t_ns < one.end_ns)
        row = span_row(span)
        found.append((None if span.leaf is None else span.leaf.factor.g_per_kwh, row["fallback"]))
    return found


def plan_row(plan: Plan, *, from_ns: int, days: int) -> dict[str, Any]:
    """Return what a plan says, with its shifts from an instant on, for scripts. Raises ConfigError: its time zone."""
    calendar = Calendar(plan, rules_of(plan.site.timezone, from_ns=from_ns, now_ns=from_ns))
    lines = sorted({*plan.lines, *(_line(ref) for shift in plan.shifts.values() for ref in shift.lines)})
    end_ns = from_ns + days * DAY_NS
    return {
        "site": plan.site.name,
        "timezone": plan.site.timezone,
        "valid_from": None if plan.valid_from_ns is None else utc(plan.valid_from_ns),
        "shifts": {
            "/".join(line) if line != ("", "") else "*": [
                {
                    "shift": shift.id,
                    "from": utc(shift.start_ns),
                    "to": utc(shift.end_ns),
                    "minutes": (shift.end_ns - shift.start_ns) // _MINUTE_NS,
                }
                for shift in calendar.shifts(*line, from_ns, end_ns)
            ]
            for line in (*lines, ("", ""))
        },
        "lines": {
            "/".join(line): {"meters": sorted(said.meters), "virtual": sorted(said.virtual)}
            for line, said in sorted(plan.lines.items())
        },
        "grid": {
            zone: {"order": list(said.order), "last_good_h": said.last_good_h, "type": said.type}
            for zone, said in sorted(plan.grid.items())
        },
        "instruments": {
            name: {"type": said.type, "zone": said.zone, "volume_mwh": said.volume_mwh}
            | {"valid_from": said.valid_from, "valid_to": said.valid_to}
            for name, said in sorted(plan.instruments.items())
        },
        "fuels": sorted(plan.fuels),
        "static_assets": sorted(plan.static_assets),
        "thermal": sorted(plan.thermal),
    }


def _line(ref: str) -> tuple[str, str]:
    gateway, _, line = ref.partition("/")
    return gateway, line
