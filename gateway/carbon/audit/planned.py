"""How the plan makes a row of what no electricity meter counts: a fuel's heat, a load without a meter.

Said with the plan's numbers and a formula, so that a person can do it again by hand.
"""

from collections.abc import Sequence
from typing import Any

from gateway.carbon.cells import OpenCell, key_of
from gateway.carbon.energy import Booking
from gateway.carbon.exact import shifted, text
from gateway.carbon.facts import Facts
from gateway.carbon.figures import SCOPE_1, Figure
from gateway.carbon.scopes.fuels import MICRO_PLACES, FuelMeter
from gateway.carbon.scopes.modelled import StaticAsset
from gateway.config.plan import FuelSection, StaticAssetSection

Planned = dict[str, Any]


def planned(cell: OpenCell, stored: Figure, facts: Facts) -> Planned | None:
    """Return how the plan in force makes a row of a cell; None where it does not, or nothing was booked."""
    leaf = facts.plan_at(cell.start_ns)
    books = facts.books(leaf, stored.gateway, cell.schema)
    for asset in books.assets:
        if asset.meter == stored.meter:
            return _load(stored, asset, leaf.plan.static_assets[asset.name])
    for meter in books.fuels:
        column = cell.schema.columns[meter.place]
        said = cell.said[key_of(column)]
        if (stored.scope, stored.meter) == (SCOPE_1, column.point) and isinstance(said, Booking):
            return _heat(stored, said, meter, leaf.plan.fuels.get(meter.asset), column.unit)
    return None


def _load(stored: Figure, asset: StaticAsset, section: StaticAssetSection) -> Planned:
    standby, multiplier = text(asset.standby_w), section.leakage_multiplier
    seconds = text(shifted(stored.end_ns - stored.start_ns, -9))
    ends = [asset.until(t_ns) for t_ns in (stored.start_ns, stored.end_ns)]
    return {
        "by": f"static-assets.{asset.name}",
        "standby_w": standby,
        "leakage_multiplier": multiplier,
        "seconds": seconds,
        "mwh_since_1970": ends,
        "formula": f"{standby} W x {multiplier} x {seconds} s / 3.6 J/mWh; since 1970, rounded down to whole mWh at "
        f"both ends: {_difference(ends)}",
    }


def _heat(stored: Figure, said: Booking, meter: FuelMeter, section: FuelSection | None, unit: str) -> Planned:
    micro = [said.start.amount + said.until(t_ns) for t_ns in (stored.start_ns, stored.end_ns)]
    first, last = (text(shifted(amount, -MICRO_PLACES)) for amount in micro)
    calorific = None if section is None or unit == "kWh" else section.calorific_mj
    ends = None if meter.kwh_per_unit is None else [round(amount * meter.kwh_per_unit) for amount in micro]
    formula = f"({last} - {first}) {unit} x correction {text(meter.correction)}"
    if calorific is not None:
        formula += f" x {calorific} MJ/{unit} ({meter.basis}) / 3.6 MJ/kWh"
    if ends is not None:
        formula += f"; rounded to whole mWh at both registers: {_difference(ends)}"
    else:
        formula += "; its heat is not known, as the plan "
        formula += "does not name this counter" if section is None else "says no calorific value"
    return {
        "by": "fuels" if section is None else f"fuels.{meter.asset}",
        "fuel": meter.fuel,
        "correction": text(meter.correction),
        "calorific_mj": calorific,
        "basis": meter.basis,
        "register": [first, last],
        "register_mwh": ends,
        "formula": formula,
    }


def _difference(ends: Sequence[int]) -> str:
    first, last = ends
    return f"{last} - {first} = {last - first} mWh"
