"""Grid factors: a static file to `Factor`s, and which of them applies to a zone at an instant.

The file is TOML, one `[[factor]]` table a window:

    [[factor]]
    provider = "demo"
    zone = "DEMO"
    signal = "average"                 # average, or marginal (for decisions only; never a figure's)
    type = "lifecycle"                 # lifecycle or direct
    start = 2020-01-01T00:00:00Z       # a window is [start, end), in UTC
    end = 2040-01-01T00:00:00Z
    value = 400                        # exact, as written
    unit = "g/kWh"                     # g/kWh, kg/kWh or lb/MWh
    state = "final"                    # forecast, estimated, measured or final
    method = "constant"
    source = "where the value was read"
    model_date = "2024"                # optional
"""

import hashlib
import json
import tomllib
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from gateway.carbon.exact import shifted, text, times, utc
from gateway.errors import ConfigError, TrustError
from gateway.model import Factor

G_PER_LB = Decimal("453.59237")
"""Exact by definition (international avoirdupois pound, 1959)."""

AVERAGE = "average"
_STATES = ("forecast", "estimated", "measured", "final")
_CHOICES = {"signal": (AVERAGE, "marginal"), "type": ("lifecycle", "direct"), "state": _STATES}
_TEXTS = ("provider", "zone", "signal", "type", "state", "method", "source")
_KEYS = {*_TEXTS, "start", "end", "value", "unit", "model_date"}
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
    _check_overlaps(factors, name)
    return factors


def _factor(entry: Any, where: str) -> Factor:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: got {entry!r}, want a table")
    for key in sorted(set(entry) ^ _KEYS):
        if key in entry:
            raise ConfigError(f"{where}.{key}: got a key that is not known, want one of {', '.join(sorted(_KEYS))}")
        if key != "model_date":
            raise ConfigError(f"{where}.{key}: got nothing, want a value")
    for key in (*_TEXTS, "model_date"):
        _check_text(entry.get(key, ""), f"{where}.{key}", empty=key == "model_date")
    for key, choices in _CHOICES.items():
        if entry[key] not in choices:
            raise ConfigError(f"{where}.{key}: got {entry[key]!r}, want one of {', '.join(choices)}")
    start_ns, end_ns = _instant(entry["start"], f"{where}.start"), _instant(entry["end"], f"{where}.end")
    if end_ns <= start_ns:
        raise ConfigError(f"{where}.end: got {utc(end_ns)}, want a time after {utc(start_ns)}")
    g_per_kwh = _value(entry["value"], entry["unit"], where)
    version = version_of(
        g_per_kwh=g_per_kwh, state=entry["state"], method=entry["method"], model_date=entry.get("model_date", "")
    )
    return Factor(
        key=(entry["provider"], entry["zone"], entry["signal"], entry["type"]),
        start_ns=start_ns,
        end_ns=end_ns,
        g_per_kwh=g_per_kwh,
        state=entry["state"],
        method=entry["method"],
        source=entry["source"],
        version=version,
    )


def _check_text(got: Any, where: str, *, empty: bool) -> None:
    # Control characters would break the tables and CSV files in which these words end.
    fits = isinstance(got, str) and len(got) <= _MAX_TEXT and got.isprintable()
    if not fits or (got == "" and not empty):
        raise ConfigError(f"{where}: got {got!r}, want printable text of at most {_MAX_TEXT} characters")


def _instant(got: Any, where: str) -> int:
    if not isinstance(got, datetime) or got.tzinfo is None:
        raise ConfigError(f"{where}: got {str(got)!r}, want a date and time with Z, as 2026-01-01T00:00:00Z")
    since = got.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    t_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    if not 0 <= t_ns < 2**63:
        raise ConfigError(f"{where}: got {str(got)!r}, want a time from 1970 to 2262")
    return t_ns


def _value(got: Any, unit: Any, where: str) -> Decimal:
    if unit not in _UNITS:
        raise ConfigError(f"{where}.unit: got {unit!r}, want one of {', '.join(_UNITS)}")
    value = Decimal(got) if type(got) is int else got
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        raise ConfigError(f"{where}.value: got {got!s:.60}, want a number of at least 0")
    if value.adjusted() >= _MAX_DIGITS or int(value.as_tuple().exponent) < -_MAX_DIGITS:
        raise ConfigError(f"{where}.value: got {value}, want at most {_MAX_DIGITS} digits before and after the point")
    return Decimal(text(to_g_per_kwh(value, unit)))


def _check_overlaps(factors: Sequence[Factor], name: str) -> None:
    order = sorted(range(len(factors)), key=lambda n: (factors[n].key, factors[n].start_ns))
    for before, after in pairwise(order):
        one, other = factors[before], factors[after]
        if one.key == other.key and other.start_ns < one.end_ns:
            raise ConfigError(
                f"{name}: factor[{after}].start: got {utc(other.start_ns)}, which lies in the window of "
                f"factor[{before}] with the same key, want windows that do not overlap"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorLeaf:
    """A factor and where it is sealed in the ledger's log."""

    factor: Factor
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of time to which one factor applies, or none."""

    start_ns: int
    end_ns: int
    leaf: FactorLeaf | None


class FactorTable:
    """The factors in force: those of a ledger's factor leaves, in the order of the log.

    A figure takes only average factors: marginal ones are for decisions. Where several keys of a zone cover an
    instant, the shortest window has precedence, as an hour's over a year's; of equal ones the first key in order. So
    the choice rests on the factors alone, and is the same where others, which lost, are not shown.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str, str, str], dict[int, FactorLeaf]] = {}
        self._starts: dict[tuple[str, str, str, str], list[int]] = {}
        self._keys: dict[str, list[tuple[str, str, str, str]]] = {}

    def add(self, leaf: FactorLeaf) -> bool:
        """Put a factor leaf in force; return whether anything changed.

        The same version again changes nothing. Another version of the same window must name in `supersedes` the one
        in force. Raises TrustError where it does not, or where windows of one key overlap otherwise.
        """
        factor = leaf.factor
        held = self.in_force(factor)
        if held is not None:
            if held.factor.version == factor.version:
                return False
            if factor.supersedes != held.factor.version:
                raise TrustError(f"factor: {_said(factor)} does not supersede the version in force", index=leaf.index)
        else:
            if self.overlaps(factor):
                raise TrustError(f"factor: {_said(factor)} overlaps another window of its key", index=leaf.index)
            insort(self._starts.setdefault(factor.key, []), factor.start_ns)
        self._windows.setdefault(factor.key, {})[factor.start_ns] = leaf
        if factor.key[2] == AVERAGE and factor.key not in self._keys.setdefault(factor.key[1], []):
            self._keys[factor.key[1]].append(factor.key)
        return True

    def in_force(self, factor: Factor) -> FactorLeaf | None:
        """Return the version in force of the same key and window, None where there is none."""
        held = self._windows.get(factor.key, {}).get(factor.start_ns)
        return held if held is not None and held.factor.end_ns == factor.end_ns else None

    def overlaps(self, factor: Factor) -> bool:
        """Return whether another window of its key, or an empty one of its own, keeps a factor from coming in force."""
        windows, starts = self._windows.get(factor.key, {}), self._starts.get(factor.key, [])
        place = bisect_right(starts, factor.start_ns)
        before = windows[starts[place - 1]].factor.end_ns if place else 0
        after = starts[place] if place < len(starts) else factor.end_ns
        return factor.end_ns <= factor.start_ns or before > factor.start_ns or after < factor.end_ns

    def at(self, zone: str, t_ns: int) -> FactorLeaf | None:
        """Return the factor of a zone at an instant, None where none is known."""
        covering: list[FactorLeaf] = []
        for key in self._keys.get(zone, ()):
            starts = self._starts[key]
            place = bisect_right(starts, t_ns)
            if place and t_ns < self._windows[key][starts[place - 1]].factor.end_ns:
                covering.append(self._windows[key][starts[place - 1]])
        return min(covering, key=_precedence, default=None)

    def spans(self, zone: str, start_ns: int, end_ns: int) -> Iterator[Span]:
        """Cut [start_ns, end_ns) where the factor changes; yield the pieces in order."""
        begun, leaf = start_ns, self.at(zone, start_ns)
        for cut in self._cuts(zone, start_ns, end_ns):
            then = self.at(zone, cut)
            if then is not leaf:
                yield Span(start_ns=begun, end_ns=cut, leaf=leaf)
                begun, leaf = cut, then
        yield Span(start_ns=begun, end_ns=end_ns, leaf=leaf)

    def _cuts(self, zone: str, start_ns: int, end_ns: int) -> list[int]:
        cuts: set[int] = set()
        for key in self._keys.get(zone, ()):
            starts = self._starts[key]
            place = max(0, bisect_right(starts, start_ns) - 1)
            while place < len(starts) and starts[place] < end_ns:
                cuts.update((starts[place], self._windows[key][starts[place]].factor.end_ns))
                place += 1
        return sorted(cut for cut in cuts if start_ns < cut < end_ns)


def _precedence(leaf: FactorLeaf) -> tuple[int, tuple[str, str, str, str]]:
    return leaf.factor.end_ns - leaf.factor.start_ns, leaf.factor.key


def _said(factor: Factor) -> str:
    return f"{'/'.join(factor.key)} from {utc(factor.start_ns)} to {utc(factor.end_ns)}"
