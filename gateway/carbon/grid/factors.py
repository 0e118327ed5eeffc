"""Grid factors: a static file to `Factor`s, and which of them applies to a zone at an instant.

The file is TOML, one `[[factor]]` table a window:

    [[factor]]
    provider = "demo"
    zone = "DEMO"
    signal = "average"                 # average, or marginal (for decisions only; never a figure's)
    type = "lifecycle"                 # lifecycle or direct
    start = 2020-01-01T00:00:00Z       # a window is [start, end), in UTC
    end = 2040-01-01T00:00:00Z         # optional: without it until the next window of the same key begins
    value = 400                        # exact, as written
    unit = "g/kWh"                     # g/kWh, kg/kWh or lb/MWh
    state = "final"                    # forecast, estimated, measured or final
    method = "constant"
    source = "where the value was read"
    model_date = "2024"                # optional
    granularity = "P1Y"                # optional: an ISO 8601 duration
    gwp_set = "AR5"                    # optional
    uncertainty_pct = 5                # optional: half of the 95 % interval
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from gateway.carbon.exact import shifted, text, times, utc
from gateway.carbon.grid.table import AVERAGE, STATES
from gateway.errors import ConfigError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Factor

G_PER_LB = Decimal("453.59237")
"""Exact by definition (international avoirdupois pound, 1959)."""

_CHOICES = {"signal": (AVERAGE, "marginal"), "type": ("lifecycle", "direct"), "state": STATES}
_TEXTS = ("provider", "zone", "signal", "type", "state", "method", "source")
_OPTIONAL = ("model_date", "granularity", "gwp_set")
_MAY_MISS = {*_OPTIONAL, "uncertainty_pct", "end"}
_KEYS = {*_TEXTS, *_OPTIONAL, "start", "end", "value", "unit", "uncertainty_pct"}
_UNITS = ("g/kWh", "kg/kWh", "lb/MWh")
_MAX_TEXT = 200
_MAX_DIGITS = 40


def to_g_per_kwh(value: Decimal, unit: str) -> Decimal:
    """Return a factor in g/kWh, exact. Raises ValueError for an unknown unit."""
    if unit == "g/kWh":
        return value
    if unit == "kg/kWh":
        return shifted(value, 3)
    if unit == "lb/MWh":
        return shifted(times(value, G_PER_LB), -3)
    raise ValueError(f"got {unit!r}, want one of {', '.join(_UNITS)}")


def version_of(*, g_per_kwh: Decimal, state: str, method: str, model_date: str) -> str:
    """Return a factor's version: hexadecimal SHA-256 of canonical JSON (docs/log.md, "factor")."""
    said = {
        "estimated": state in {"forecast", "estimated"},
        "method": method,
        "model_date": model_date,
        "value": text(g_per_kwh),
    }
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_factors(content: str, *, name: str) -> tuple[Factor, ...]:
    """Return a static file's factors, in its order.

    name: the file's name, for messages. Raises ConfigError, also where two windows of one key overlap.
    """
    try:
        tables = tomllib.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as e:
        raise ConfigError(f"{name}: {e}") from e
    entries = tables.get("factor")
    if set(tables) != {"factor"} or not isinstance(entries, list):
        raise ConfigError(f"{name}: got {', '.join(tables) or 'nothing'}, want [[factor]] tables and nothing else")
    factors = tuple(_factor(entry, f"{name}: factor[{number}]") for number, entry in enumerate(entries))
    check_overlaps(factors, name, table="factor")
    return factors


def _factor(entry: Any, where: str) -> Factor:
    check_keys(entry, where, known=_KEYS, may_miss=_MAY_MISS)
    for key in (*_TEXTS, *_OPTIONAL):
        check_text(entry.get(key, ""), f"{where}.{key}", empty=key in _OPTIONAL)
    for key, choices in _CHOICES.items():
        if entry[key] not in choices:
            raise ConfigError(f"{where}.{key}: got {entry[key]!r}, want one of {', '.join(choices)}")
    start_ns, end_ns = window_of(entry, where)
    if entry["unit"] not in _UNITS:
        raise ConfigError(f"{where}.unit: got {entry['unit']!r}, want one of {', '.join(_UNITS)}")
    g_per_kwh = Decimal(text(to_g_per_kwh(amount_of(entry["value"], f"{where}.value"), entry["unit"])))
    uncertainty = entry.get("uncertainty_pct")
    version = version_of(
        g_per_kwh=g_per_kwh, state=entry["state"], method=entry["method"], model_date=entry.get("model_date", "")
    )
    return Factor(
        key=(entry["provider"], entry["zone"], entry["signal"], entry["type"], entry.get("granularity", "")),
        start_ns=start_ns,
        end_ns=end_ns,
        g_per_kwh=g_per_kwh,
        state=entry["state"],
        method=entry["method"],
        source=entry["source"],
        version=version,
        model_date=entry.get("model_date", ""),
        gwp_set=entry.get("gwp_set", ""),
        uncertainty_pct=None if uncertainty is None else amount_of(uncertainty, f"{where}.uncertainty_pct"),
    )


def check_keys(entry: Any, where: str, *, known: AbstractSet[str], may_miss: AbstractSet[str]) -> None:
    """Refuse what is no table, has a key that is not known, or has not one that must stand. Raises ConfigError."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: got {entry!r}, want a table")
    for key in sorted(set(entry) ^ known):
        if key in entry:
            raise ConfigError(f"{where}.{key}: got a key that is not known, want one of {', '.join(sorted(known))}")
        if key not in may_miss:
            raise ConfigError(f"{where}.{key}: got nothing, want a value")


def check_text(got: Any, where: str, *, empty: bool) -> None:
    """Refuse what is no printable text, or empty where it may not be. Raises ConfigError."""
    # Control characters would break the tables and CSV files in which these words end.
    fits = isinstance(got, str) and len(got) <= _MAX_TEXT and got.isprintable()
    if not fits or (got == "" and not empty):
        raise ConfigError(f"{where}: got {got!r}, want printable text of at most {_MAX_TEXT} characters")


def window_of(entry: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Return `start` and `end` of an entry; without an end it holds until further notice. Raises ConfigError."""
    start_ns = _instant(entry["start"], f"{where}.start")
    end_ns = _instant(entry["end"], f"{where}.end") if "end" in entry else UNTIL_FURTHER_NOTICE_NS
    if end_ns <= start_ns:
        raise ConfigError(f"{where}.end: got {utc(end_ns)}, want a time after {utc(start_ns)}")
    return start_ns, end_ns


def _instant(got: Any, where: str) -> int:
    if not isinstance(got, datetime) or got.tzinfo is None:
        raise ConfigError(f"{where}: got {str(got)!r}, want a date and time with Z, as 2026-01-01T00:00:00Z")
    since = got.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    t_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    if not 0 <= t_ns < 2**63:
        raise ConfigError(f"{where}: got {str(got)!r}, want a time from 1970 to 2262")
    return t_ns


def amount_of(got: Any, where: str) -> Decimal:
    """Return a number of at least 0, exact. Raises ConfigError."""
    value = Decimal(got) if type(got) is int else got
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        raise ConfigError(f"{where}: got {got!s:.60}, want a number of at least 0")
    if value.adjusted() >= _MAX_DIGITS or int(value.as_tuple().exponent) < -_MAX_DIGITS:
        raise ConfigError(f"{where}: got {value}, want at most {_MAX_DIGITS} digits before and after the point")
    return value


def check_overlaps(factors: Sequence[Factor], name: str, *, table: str) -> None:
    """Refuse windows of one key that overlap. table: what the file calls an entry. Raises ConfigError."""
    order = sorted(range(len(factors)), key=lambda n: (factors[n].key, factors[n].start_ns))
    for before, after in pairwise(order):
        one, other = factors[before], factors[after]
        ends_ns = other.start_ns if one.end_ns == UNTIL_FURTHER_NOTICE_NS else one.end_ns
        if one.key == other.key and (other.start_ns < ends_ns or other.start_ns == one.start_ns):
            raise ConfigError(
                f"{name}: {table}[{after}].start: got {utc(other.start_ns)}, which lies in the window of "
                f"{table}[{before}] with the same key, want windows that do not overlap"
            )
