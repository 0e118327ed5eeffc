"""How a row came about, computed again from its leaves: registers, differences, time, hierarchy, factor, product.

An explanation is plain JSON: text, numbers, lists and maps, exact decimals as text. It says what the leaves say, and
whether that is what the row in the tables says.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.carbon.audit.planned import Planned, planned
from gateway.carbon.audit.rows import record_id
from gateway.carbon.cells import OpenCell, finish, key_of
from gateway.carbon.emissions import IntervalLeaf, LineProjector
from gateway.carbon.energy import Booking, Flag, Nothing, Reading
from gateway.carbon.exact import shifted, text, utc
from gateway.carbon.facts import Facts
from gateway.carbon.figures import G_PER_KWH, MODELLED, SCOPE_1, Cell, Figure
from gateway.carbon.grid.table import FactorLeaf
from gateway.errors import TrustError
from gateway.model import ClockState, LineSchema, Role

MEANINGS = {
    Flag.ROLLOVER: "the register wrapped; its modulus was added",
    Flag.REBASED: "the register was reset or exchanged unannounced; only what it counted since then is booked",
    Flag.GLITCH: "readings that cannot be were passed over",
    Flag.COUNT_RESET: "a counter started anew at 0",
    Flag.SUSPECT: "the register fell, or grew more than its load can draw; nothing is booked until a later reading",
    Flag.REPLACED: "another meter: it starts anew",
    Flag.NO_VALUE: "no good reading at this boundary",
    Flag.GAP_TOO_LONG: "no reading for too long; what was counted meanwhile is not booked",
    Flag.INCOMPLETE: "a meter of the line has no energy here",
    Flag.NO_FACTOR: "no factor is known for this time: the energy is booked, the CO2e is empty, never 0",
    Flag.FACTOR_SECONDARY: "the first provider had no factor; the next one's counts",
    Flag.FACTOR_LAST_GOOD: "no provider had a factor; the last good one stands in",
    Flag.FACTOR_ANNUAL: "no provider had a factor; the annual one stands in",
    Flag.CLOCK_SUSPECT: "a clock was not to be trusted; the shift does not close as final",
    Flag.TIME_ESTIMATED: "measured in total, its distribution over time estimated",
    Flag.NEGATIVE_REMAINDER: "the sub-meters counted more than their main meter, and more than their errors explain",
    Flag.PLAN_MISMATCH: "the plan names a counter that the line does not have",
    Flag.NO_CALORIFIC: "the plan says no calorific value for this fuel",
    Flag.BASIS_MISMATCH: "the factor's basis, gross or net, is not the plan's",
    Flag.UNITS_MIXED: "a part of the time counts all units alone; per unit is of the time that counts good ones",
}

_ROUNDING = (
    "a register is rounded to whole mWh, half to even, before any difference is taken",
    "a part of a difference is rounded down to whole mWh; the last part takes the rest, so parts sum exactly",
    "the product of energy and factor is exact and unrounded",
    "figures are rounded once, at output, half to even: 6 places for kg per unit",
)

Explanation = dict[str, Any]


def explain(
    stored: Figure,
    leaves: Sequence[IntervalLeaf],
    *,
    schemas: Mapping[bytes, LineSchema],
    facts: Facts,
    factor: FactorLeaf | None,
) -> Explanation:
    """Return how a row came about.

    stored: as the tables say it. leaves: of its line, from a clean one at or before its cell to one after which the
    cell is settled. factor: what the row's factor leaf says. Raises TrustError where the leaves make no such cell.
    """
    cell, made = _recomputed(stored, leaves, schemas, facts)
    again = next((row for row in made.figures if _same_place(row, stored)), None)
    parts = list(_parts(cell, stored, leaves, schemas, facts))
    by_plan = planned(cell, stored, facts)
    found: Explanation = {
        "record": record_id(stored.gateway, stored.line, stored.meter, stored.start_ns),
        "of": {
            "gateway": stored.gateway,
            "line": stored.line,
            "asset": stored.asset,
            "meter": stored.meter,
            "kind": stored.kind,
            "scope": stored.scope,
        },
        "start": utc(stored.start_ns),
        "end": utc(stored.end_ns),
        "cell": {"start": utc(cell.start_ns), "end": utc(cell.end_ns)},
        "setting": dict(stored.setting._asdict()),
        "plan_sha256": stored.plan_sha256,
        "parts": parts,
        "planned": by_plan,
        "hierarchy": _hierarchy(stored, parts, by_plan),
        "factor": None if factor is None else _factor(factor, stored),
        "co2e": _product(stored, by_plan),
        "uncertainty_pct": None if stored.uncertainty_pct is None else text(stored.uncertainty_pct),
        "quality": stored.quality,
        "flags": {str(flag): MEANINGS.get(flag, flag.replace("_", " ")) for flag in Flag if flag in stored.flags},
        "rounding": list(_ROUNDING),
        "stored": _numbers(stored),
        "recomputed": None if again is None else _numbers(again),
        "equal": again == stored,
    }
    if again is not None and again != stored:
        pairs = zip(Figure._fields, stored, again, strict=True)
        found["differences"] = {name: [str(one), str(other)] for name, one, other in pairs if one != other}
    return found


def _recomputed(
    stored: Figure, leaves: Sequence[IntervalLeaf], schemas: Mapping[bytes, LineSchema], facts: Facts
) -> tuple[OpenCell, Cell]:
    """Return the row's cell, what is booked in it and what it says."""
    found: dict[int, tuple[OpenCell, Cell]] = {}

    def make(cell: OpenCell, gateway: str, facts: Facts) -> Cell:
        made = finish(cell, gateway, facts)
        found[cell.start_ns] = (cell, made)
        return made

    projector = LineProjector(schemas=schemas, facts=facts, make=make)
    for leaf in leaves:
        projector.feed(leaf)
    if stored.cell_start_ns not in found:
        raise TrustError(f"explain: the leaves make no cell of line {stored.line!r} at {utc(stored.cell_start_ns)}")
    return found[stored.cell_start_ns]


def _same_place(row: Figure, stored: Figure) -> bool:
    names = ("meter", "asset", "kind", "scope", "start_ns")
    return all(getattr(row, name) == getattr(stored, name) for name in names)


def _parts(
    cell: OpenCell,
    stored: Figure,
    leaves: Sequence[IntervalLeaf],
    schemas: Mapping[bytes, LineSchema],
    facts: Facts,
) -> Iterator[Explanation]:
    """Yield what each counter of the row booked, in the order in which they are added and taken off."""
    by_index = {leaf.ref.index: leaf for leaf in leaves}
    for place, sign in _places(cell, stored, facts):
        column = cell.schema.columns[place]
        said = cell.said[key_of(column)]
        part: Explanation = {
            "sign": sign,
            "point": column.point,
            "serial": column.serial,
            "meter_class": column.meter_class,
            "unit": column.unit,
        }
        if isinstance(said, Nothing):
            base = None if said.base is None else _shown(said.base, place, by_index, schemas)
            yield {**part, "nothing": str(said.flag), "newest_believed": base}
            continue
        start, end = (_shown(reading, place, by_index, schemas) for reading in (said.start, said.end))
        yield {**part, "start": start, "end": end, **_difference(said, stored, column.role)}


def _places(cell: OpenCell, stored: Figure, facts: Facts) -> list[tuple[int, str]]:
    if stored.kind == MODELLED:
        return []
    columns = cell.schema.columns
    if stored.scope == SCOPE_1:
        return [(n, "+") for n, c in enumerate(columns) if c.role == Role.FUEL and c.point == stored.meter]
    books = facts.books(facts.plan_at(cell.start_ns), stored.gateway, cell.schema)
    for account in books.accounts:
        if (account.asset, account.kind, columns[account.plus[0]].point) == (stored.asset, stored.kind, stored.meter):
            less = account.less(lambda place: isinstance(cell.said[key_of(columns[place])], Booking))
            return [*((place, "+") for place in account.plus), *((place, "-") for place in less)]
    return []


def _shown(
    reading: Reading, place: int, leaves: Mapping[int, IntervalLeaf], schemas: Mapping[bytes, LineSchema]
) -> Explanation:
    """Return one register's reading: its leaf, its time, its raw bytes."""
    leaf = leaves[reading.leaf.index]
    schema = schemas[leaf.interval.schema_id]
    # The counter may have stood at another place under an older schema.
    near = [n for n, sample in enumerate(leaf.interval.samples) if sample.value == reading.register]
    sample = leaf.interval.samples[place if place in near or not near else near[0]]
    clock = leaf.ref.clock
    return {
        "leaf": reading.leaf.index,
        "leaf_hash": reading.leaf.hash.hex(),
        "log": f"wattseal/{leaf.gateway}",
        "schema": schema.id.hex(),
        "boundary": utc(reading.t_ns),
        "read_at": utc(reading.source_ns),
        "raw": sample.raw.hex(),
        "register": format(reading.register, "f"),
        "status": sample.status,
        "clock": ClockState(clock.state).name.lower(),
        "clock_offset_ms": text(shifted(clock.offset_ns, -6)),
    }


def _difference(said: Booking, stored: Figure, role: Role) -> Explanation:
    """Return the difference of two readings and the part of it that falls within the row.

    In whole mWh; of a fuel in millionths of its unit.
    """
    unit = "mWh" if role == Role.ENERGY else "millionths"
    start, end = said.start, said.end
    plain = end.amount - start.amount
    formula = f"{end.amount} - {start.amount}"
    if plain != said.amount:
        formula += f" + {said.amount - plain} (modulus)"
    first, last = said.until(stored.start_ns), said.until(stored.end_ns)
    span_s = text(shifted(end.t_ns - start.t_ns, -9))
    return {
        "difference": {"formula": f"{formula} = {said.amount} {unit}", unit: said.amount},
        "flags": {str(flag): MEANINGS.get(flag, str(flag)) for flag in Flag if flag in said.flags},
        "split": {
            "is_whole": (first, last) == (0, said.amount),
            "seconds": [text(shifted(t_ns - start.t_ns, -9)) for t_ns in (stored.start_ns, stored.end_ns)],
            "of_seconds": span_s,
            "formula": f"{last} until the end - {first} until the start = {last - first} {unit}",
            unit: last - first,
        },
    }


def _hierarchy(stored: Figure, parts: Sequence[Explanation], by_plan: Planned | None) -> str:
    """Return how the parts, or the plan, make the row's energy, with numbers."""
    if by_plan is not None:
        what = "no meter, a model" if stored.kind == MODELLED else "heat of the fuel"
        kwh = "" if stored.energy_mwh is None else f" = {_kwh(stored.energy_mwh)} kWh"
        return f"{what}, by the plan's {by_plan['by']}: {by_plan['formula']}{kwh}"
    if stored.energy_mwh is None or any("nothing" in part for part in parts):
        return "nothing is booked: a counter of it says nothing here"
    terms = " ".join(f"{part['sign']} {part['point']} {part['split']['mWh']}" for part in parts)
    return f"{stored.kind}: {terms} = {stored.energy_mwh} mWh = {_kwh(stored.energy_mwh)} kWh"


def _factor(leaf: FactorLeaf, stored: Figure) -> Explanation:
    factor = leaf.factor
    provider, zone, signal, kind, granularity = factor.key
    fallback = [str(flag) for flag in Flag if flag in stored.flags and str(flag).startswith("factor_")]
    return {
        "provider": provider,
        "zone": zone,
        "signal": signal,
        "type": kind,
        "granularity": granularity,
        "window": [utc(factor.start_ns), utc(factor.end_ns) if factor.end_ns < 2**63 - 1 else ""],
        "value": text(factor.g_per_kwh),
        "unit": factor.unit,
        "state": factor.state,
        "method": factor.method,
        "source": factor.source,
        "model_date": factor.model_date,
        "updated": "" if factor.updated_ns is None else utc(factor.updated_ns),
        "gwp_set": factor.gwp_set,
        "version": factor.version,
        "supersedes": factor.supersedes,
        "leaf": leaf.index,
        "leaf_hash": leaf.hash.hex(),
        "fallback": fallback,
        "is_the_rows": factor.version == stored.factor_version and factor.g_per_kwh == stored.factor_g_per_kwh,
    }


def _product(stored: Figure, by_plan: Planned | None) -> Explanation:
    if stored.co2e_g is None or stored.factor_g_per_kwh is None:
        return {"formula": "", "g": None, "kg": None}
    if stored.factor_unit == G_PER_KWH:
        amount = f"{_kwh(stored.energy_mwh or 0)} kWh"
    else:
        amount = f"{'' if stored.quantity is None else text(stored.quantity)} {stored.register_unit}"
        amount += "" if by_plan is None else f" x correction {by_plan['correction']}"
    grams = text(stored.co2e_g)
    return {
        "formula": f"{amount} x {text(stored.factor_g_per_kwh)} {stored.factor_unit} = {grams} g",
        "g": grams,
        "kg": text(shifted(stored.co2e_g, -3)),
    }


def _numbers(figure: Figure) -> Explanation:
    return {
        "energy_kwh": None if figure.energy_mwh is None else _kwh(figure.energy_mwh),
        "co2e_kg": None if figure.co2e_g is None else text(shifted(figure.co2e_g, -3)),
    }


def _kwh(energy_mwh: int) -> str:
    return text(shifted(energy_mwh, -6))
