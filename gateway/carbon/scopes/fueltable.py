"""Tables of fuel factors that come with the program, as data: gateway/carbon/tables/fuels-*.toml.

One `[[fuel]]` table a fuel and basis: provider, fuel, basis (gross or net; or unit: per unit of the meter), unit (kWh,
m3, scf, L or kg), start, end (optional), method, source, and either `kg` of CO2e per unit with its gwp_set, or the
gases per mmBtu: co2_kg, ch4_g, n2o_g, with mmbtu_per_unit. Of the gases one factor is made for each set of
`[gwp.<set>]`, under the provider `<provider>/<set>`: so a plan names the set by naming the provider.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.carbon.exact import shifted, text, times, total
from gateway.carbon.grid.factors import version_of
from gateway.carbon.scopes.fuels import FUEL, UNIT
from gateway.errors import ConfigError
from gateway.model import FACTOR_UNITS, UNTIL_FURTHER_NOTICE_NS, Factor

_TEXTS = ("provider", "fuel", "basis", "unit", "method", "source")


def parse_fuels(content: str, *, name: str) -> tuple[Factor, ...]:
    """Return a table's factors, in its order. name: the file's, for messages. Raises ConfigError."""
    try:
        tables = tomllib.loads(content, parse_float=Decimal)
        entries, sets = tables["fuel"], tables.get("gwp", {})
        return tuple(factor for entry in entries for factor in _factors(entry, sets))
    except (ValueError, KeyError, TypeError, ArithmeticError) as e:
        raise ConfigError(f"{name}: {e}, want [[fuel]] tables as in gateway/carbon/scopes/fueltable.py") from e


def _factors(entry: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]) -> Iterator[Factor]:
    if "kg" in entry:
        yield _factor(entry, shifted(Decimal(entry["kg"]), 3), entry["provider"], entry.get("gwp_set", ""))
        return
    if not sets:
        raise ValueError("gwp: got none")
    for gwp_set, gwp in sets.items():
        grams = total(
            [
                shifted(Decimal(entry["co2_kg"]), 3),
                times(Decimal(entry["ch4_g"]), Decimal(gwp["ch4"])),
                times(Decimal(entry["n2o_g"]), Decimal(gwp["n2o"])),
            ]
        )
        g_per_unit = times(grams, Decimal(entry["mmbtu_per_unit"]))
        yield _factor(entry, g_per_unit, f"{entry['provider']}/{gwp_set}", gwp_set)


def _factor(entry: Mapping[str, Any], grams: Decimal, provider: str, gwp_set: str) -> Factor:
    for key in _TEXTS:
        if not isinstance(entry[key], str) or not entry[key]:
            raise ValueError(f"{key}: got {entry[key]!r}")
    basis, unit = entry["basis"], f"g/{entry['unit']}"
    per_heat = unit == FACTOR_UNITS[0]
    if unit not in FACTOR_UNITS or basis not in ({"gross", "net"} if per_heat else {UNIT}):
        raise ValueError(f"basis: got {basis!r} for {unit}")
    g_per_unit = Decimal(text(grams))
    # The unit is part of how a factor was made, and so of its version.
    method = f"{entry['method']}, {unit}"
    return Factor(
        key=(provider, entry["fuel"], FUEL, basis, "P1Y"),
        start_ns=_instant(entry["start"]),
        end_ns=_instant(entry["end"]) if "end" in entry else UNTIL_FURTHER_NOTICE_NS,
        g_per_kwh=g_per_unit,
        state="final",
        method=method,
        source=entry["source"],
        version=version_of(g_per_kwh=g_per_unit, state="final", method=method, model_date=entry.get("model_date", "")),
        model_date=entry.get("model_date", ""),
        gwp_set=gwp_set,
        uncertainty_pct=Decimal(entry["uncertainty_pct"]) if "uncertainty_pct" in entry else None,
        unit=unit,
    )


def _instant(got: datetime) -> int:
    if got.tzinfo is None:
        raise ValueError(f"got {got}, want a time with Z")
    return int(got.timestamp()) * 1_000_000_000
