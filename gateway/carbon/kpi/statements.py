"""Statements: a period's figures as the ledger says them once, and again when what they rest on has changed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from gateway.carbon.energy import Flag
from gateway.carbon.exact import EXACT, shifted, text
from gateway.carbon.figures import CALC_VERSION, Cell, flag_text
from gateway.carbon.kpi.dual import Match
from gateway.carbon.kpi.oee import Ideal, Oee, oee_of
from gateway.carbon.kpi.periods import Period
from gateway.carbon.kpi.report import STATES, Amount, Tally
from gateway.codec.bodies import statement_body
from gateway.model import Statement

FINAL, PROVISIONAL = "final", "provisional"
MOST_ASSETS = 100
"""So many assets stand in a statement by name, those with the most energy; the rest as one. A leaf has 64 KiB."""
OTHERS = "others"
MOST_REASONS = 8


def tally_of(cells: Iterable[Cell], period: Period) -> tuple[Tally, list[Cell]]:
    """Return the sums of a period's cells, and these cells; others are passed over."""
    held = [cell for cell in cells if period.holds(cell.line.start_ns, cell.line.setting.shift)]
    tally = Tally()
    for cell in held:
        tally.add(cell)
    return tally, held


def figures_of_period(
    cells: Iterable[Cell],
    period: Period,
    *,
    settled: bool,
    ideal_per_hour: Ideal,
    match: Match | None = None,
) -> dict[str, str]:
    """Return what a statement says of a period: a flat map of text, "" for what is not known.

    settled: no leaf that is still to come can change a cell. Without that, or with a clock that is not to be trusted,
    the state is `provisional`. match: of its years; with it the period is stated market-based too.
    """
    tally, held = tally_of(cells, period)
    planned = [(period.start_ns, period.end_ns)] if period.is_known and period.setting_shift else []
    oee = oee_of([cell.line for cell in held], planned=planned, ideal_per_hour=ideal_per_hour)
    why = [] if settled else ["unsettled"]
    if Flag.CLOCK_SUSPECT in tally.flags:
        why.append(str(Flag.CLOCK_SUSPECT))
    return {
        "state": PROVISIONAL if why else FINAL,
        "provisional_because": ";".join(why),
        **said(tally, oee, period_ns=period.end_ns - period.start_ns),
        **({} if match is None else match.market(tally.by_load).said()),
    }


def said(tally: Tally, oee: Oee, *, period_ns: int | None = None) -> dict[str, str]:
    """Return a row of a report as text: exact decimals, ratios rounded once; "" for what is not known, never 0."""
    states = {state: tally.by_state.get(state) for state in STATES}
    found = {
        "cells": str(tally.cells),
        "energy_kwh": _kwh(tally.metered.energy_mwh),
        "co2e_kg": _kg(tally.metered),
        "energy_without_factor_kwh": _kwh(tally.metered.without_factor_mwh),
        "modelled_kwh": _kwh(tally.modelled.energy_mwh),
        "modelled_co2e_kg": _kg(tally.modelled),
        "scope1_kwh": _kwh(tally.scope1.energy_mwh),
        "scope1_co2e_kg": _kg(tally.scope1),
        "units_good": _number(tally.units_good),
        "units_total": _number(tally.units_total),
        "units_scrap": _number(tally.units_scrap),
        "kg_per_unit": _number(tally.kg_per_unit),
        "scrap_co2e_kg": _number(tally.scrap_co2e_kg),
        "availability": _number(oee.availability),
        "effectiveness": _number(oee.effectiveness),
        "quality_rate": _number(oee.quality),
        "oee": _number(oee.oee),
        "coverage_pct": text(tally.coverage_pct(period_ns)),
        "uncertainty_pct": _number(tally.uncertainty_pct),
        "factor_state": tally.weakest_factor_state,
        "factor_states": ";".join(sorted(tally.factor_states)),
        "factors_sha256": hashlib.sha256("\n".join(sorted(tally.factor_versions)).encode()).hexdigest(),
        "fallbacks": ";".join(tally.fallbacks),
        "flags": flag_text(frozenset(tally.flags)),
        "first_leaf": "" if tally.first_leaf is None else str(tally.first_leaf),
        "last_leaf": str(tally.last_leaf),
    }
    found |= {f"quality.{name}_pct": text(part) for name, part in tally.quality_pct().items()}
    for state, amount in states.items():
        if amount is not None:
            found |= _amount(f"state.{state}", amount) | {f"state.{state}.seconds": _seconds(amount.time_ns)}
    for asset, amount in largest(tally.by_asset):
        found |= _amount(f"asset.{asset}", amount)
    return found


def largest(by_asset: Mapping[str, Amount], most: int = MOST_ASSETS) -> Sequence[tuple[str, Amount]]:
    """Return assets with their amounts, the largest first; what is beyond `most` as one."""
    ordered = sorted(by_asset.items(), key=lambda one: (-one[1].energy_mwh, one[0]))
    if len(ordered) <= most:
        return ordered
    rest = Amount()
    for _, amount in ordered[most:]:
        rest.energy_mwh += amount.energy_mwh
        rest.co2e_g = EXACT.add(rest.co2e_g, amount.co2e_g)
        rest.rows_without_co2e += amount.rows_without_co2e
    return [*ordered[:most], (OTHERS, rest)]


def first_statement(period: Period, figures: Mapping[str, str], *, plan_sha256: str) -> Statement:
    """Return the statement by which a period is closed."""
    return Statement(
        record=period.record,
        version=1,
        supersedes="",
        reason="closed",
        subject=_subject(period, plan_sha256),
        figures=_pairs(figures),
    )


def next_statement(
    before: Statement, period: Period, figures: Mapping[str, str], *, plan_sha256: str, reasons: Sequence[str]
) -> Statement | None:
    """Return the statement that supersedes another; None where the figures are the same, but for market-based ones.

    reasons: what touched them, as far as known; where nothing is known, it was the calculation.
    """
    if without_market(dict(before.figures)) == without_market(figures):
        return None
    why = list(dict.fromkeys(reasons))
    older = dict(before.subject).get("calc_version", "")
    if not why:
        why = [f"calculation {older} -> {CALC_VERSION}" if older != CALC_VERSION else "recomputed"]
    if len(why) > MOST_REASONS:
        why = [*why[:MOST_REASONS], f"and {len(why) - MOST_REASONS} more"]
    return Statement(
        record=before.record,
        version=before.version + 1,
        supersedes=sha256_of(before),
        reason="; ".join(why),
        subject=_subject(period, plan_sha256),
        figures=_pairs(figures),
    )


def without_market(figures: Mapping[str, str]) -> dict[str, str]:
    """Return the figures that a statement stands for. The market-based ones are of the year's match as it was then.

    That changes with each load that is still to come; so it alone has nothing stated anew.
    """
    return {name: value for name, value in figures.items() if not name.startswith("market")}


def sha256_of(statement: Statement) -> str:
    """Return the SHA-256 of a statement's body, by which the next version names it."""
    return hashlib.sha256(statement_body(statement)).hexdigest()


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what differs between two versions' figures: by name, (before, after)."""
    return {
        name: (before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys([*before, *after])
        if before.get(name, "") != after.get(name, "")
    }


def flat(packed: str) -> dict[str, str]:
    """Return a map as the tables hold it."""
    found: dict[str, str] = json.loads(packed)
    return found


def _subject(period: Period, plan_sha256: str) -> tuple[tuple[str, str], ...]:
    return _pairs(
        {
            "gateway": period.gateway,
            "line": period.line,
            "shift": period.shift,
            "start": str(period.start_ns),
            "end": str(period.end_ns),
            "plan_sha256": plan_sha256,
            "calc_version": CALC_VERSION,
        }
    )


def _pairs(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return a map in the order in which the tables give it back: so a body can be made again from them."""
    return tuple(sorted(found.items()))


def _amount(name: str, amount: Amount) -> dict[str, str]:
    return {f"{name}.kwh": _kwh(amount.energy_mwh), f"{name}.co2e_kg": _kg(amount)}


def _kwh(energy_mwh: int) -> str:
    return text(shifted(energy_mwh, -6))


def _kg(amount: Amount) -> str:
    """Return the CO2e of what has a factor; "" where nothing has: what is not known is not 0."""
    if amount.rows_without_co2e and not amount.co2e_g:
        return ""
    return text(shifted(amount.co2e_g, -3))


def _number(value: Decimal | None) -> str:
    return "" if value is None else text(value)


def _seconds(time_ns: int) -> str:
    return text(shifted(time_ns, -9))
