"""Tables of fuel factors: those that come with the program, gateway/carbon/tables/fuels-*.toml, and an operator's own.

One `[[fuel]]` table a fuel and basis: provider, fuel, basis (gross or net; or unit: per unit of the meter), unit (kWh,
m3, scf, L or kg), start, end (optional), method, source, and either `kg` of CO2e per unit with its gwp_set, or the
gases per mmBtu: co2_kg, ch4_g, n2o_g, with mmbtu_per_unit. Of the gases one factor is made for each set of
`[gwp.<set>]`, under the provider `<provider>/<set>`: so a plan names the set by naming the provider.
"""

import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from gateway.carbon.exact import shifted, text, times, total
from gateway.carbon.grid.factors import amount_of, check_keys, check_overlaps, check_text, version_of, window_of
from gateway.carbon.scopes.fuels import FUEL, UNIT
from gateway.errors import ConfigError
from gateway.model import FACTOR_UNITS, Factor

_TEXTS = ("provider", "fuel", "basis", "unit", "method", "source")
_OPTIONAL = ("model_date", "gwp_set")
_GASES = ("co2_kg", "ch4_g", "n2o_g", "mmbtu_per_unit")
_MAY_MISS = {*_OPTIONAL, *_GASES, "kg", "end", "uncertainty_pct"}
_KEYS = {*_TEXTS, *_MAY_MISS, "start"}


def parse_fuels(content: str, *, name: str) -> tuple[Factor, ...]:
    """Return a table's factors, in its order. name: the file's, for messages. Raises ConfigError."""
    try:
        tables = tomllib.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as e:
        raise ConfigError(f"{name}: {e}") from e
    entries, sets = tables.get("fuel"), tables.get("gwp", {})
    if not set(tables) <= {"fuel", "gwp"} or not isinstance(entries, list) or not isinstance(sets, dict):
        raise ConfigError(
            f"{name}: got {', '.join(tables) or 'nothing'}, want [[fuel]] tables, and [gwp.<set>] of gases"
        )
    gwps = {key: _warming(said, f"{name}: gwp.{key}") for key, said in sets.items()}
    factors = tuple(one for n, entry in enumerate(entries) for one in _factors(entry, gwps, f"{name}: fuel[{n}]"))
    check_overlaps(factors, name, table="fuel")
    return factors


def _warming(said: Any, where: str) -> tuple[Decimal, Decimal]:
    """Return the warming potentials of CH4 and N2O."""
    check_keys(said, where, known={"ch4", "n2o"}, may_miss=set())
    return amount_of(said["ch4"], f"{where}.ch4"), amount_of(said["n2o"], f"{where}.n2o")


def _factors(entry: Any, gwps: Mapping[str, tuple[Decimal, Decimal]], where: str) -> Iterator[Factor]:
    check_keys(entry, where, known=_KEYS, may_miss=_MAY_MISS)
    for key in (*_TEXTS, *_OPTIONAL):
        check_text(entry.get(key, ""), f"{where}.{key}", empty=key in _OPTIONAL)
    gases = [key for key in _GASES if key in entry]
    if ("kg" in entry) == bool(gases):
        raise ConfigError(
            f"{where}: got {'both' if gases else 'none'} of kg and gases, want kg, or {', '.join(_GASES)}"
        )
    if "kg" in entry:
        grams = shifted(amount_of(entry["kg"], f"{where}.kg"), 3)
        yield _factor(entry, grams, where, provider=entry["provider"], gwp_set=entry.get("gwp_set", ""))
        return
    if len(gases) < len(_GASES) or not gwps:
        raise ConfigError(f"{where}: got {', '.join(gases)}, want {', '.join(_GASES)}, and [gwp.<set>]")
    co2_kg, ch4_g, n2o_g, mmbtu_per_unit = (amount_of(entry[key], f"{where}.{key}") for key in _GASES)
    for gwp_set, (ch4, n2o) in gwps.items():
        grams = times(total([shifted(co2_kg, 3), times(ch4_g, ch4), times(n2o_g, n2o)]), mmbtu_per_unit)
        yield _factor(entry, grams, where, provider=f"{entry['provider']}/{gwp_set}", gwp_set=gwp_set)


def _factor(entry: Mapping[str, Any], grams: Decimal, where: str, *, provider: str, gwp_set: str) -> Factor:
    basis, unit = entry["basis"], f"g/{entry['unit']}"
    if unit not in FACTOR_UNITS:
        units = ", ".join(one.removeprefix("g/") for one in FACTOR_UNITS)
        raise ConfigError(f"{where}.unit: got {entry['unit']!r}, want one of {units}")
    bases = ("gross", "net") if unit == FACTOR_UNITS[0] else (UNIT,)
    if basis not in bases:
        raise ConfigError(f"{where}.basis: got {basis!r} for {unit}, want {' or '.join(bases)}")
    g_per_unit = Decimal(text(grams))
    # The unit is part of how a factor was made, and so of its version.
    method = f"{entry['method']}, {unit}"
    start_ns, end_ns = window_of(entry, where)
    uncertainty = entry.get("uncertainty_pct")
    return Factor(
        key=(provider, entry["fuel"], FUEL, basis, "P1Y"),
        start_ns=start_ns,
        end_ns=end_ns,
        g_per_kwh=g_per_unit,
        state="final",
        method=method,
        source=entry["source"],
        version=version_of(g_per_kwh=g_per_unit, state="final", method=method, model_date=entry.get("model_date", "")),
        model_date=entry.get("model_date", ""),
        gwp_set=gwp_set,
        uncertainty_pct=None if uncertainty is None else amount_of(uncertainty, f"{where}.uncertainty_pct"),
        unit=unit,
    )
