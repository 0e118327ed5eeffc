"""What the answers of all providers have in common: exact numbers, instants, windows, and how to say what is wrong.

Pure: bytes in, factors out. The HTTP part is gateway/north/factors.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.carbon.exact import text, utc
from gateway.carbon.grid.factors import version_of
from gateway.errors import LinkError
from gateway.model import Factor

S = 1_000_000_000
HOUR_NS = 3_600 * S
DAY_NS = 24 * HOUR_NS
FINAL_NS = 90 * DAY_NS
"""A measured value that is older is final: providers revise for about three months."""

GRANULARITIES = {5 * 60: "PT5M", 15 * 60: "PT15M", 30 * 60: "PT30M", 3_600: "PT1H"}
"""ISO 8601 durations by their seconds: the windows that we take."""

_MOST_G_PER_KWH = 10_000
_MOST_PLACES = 40
_MOST_TEXT = 60


class AnswerError(LinkError):
    """Raised when a provider gave no answer of use; retried.

    what: the condition in one word, the same as long as it lasts: logged once. wait_s: how long the provider asked to
    be left alone, in seconds; 0 where it did not. The text holds no secret.
    """

    def __init__(self, message: str, *, what: str = "malformed", wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.what, self.wait_s = what, wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """[start_ns, end_ns) in UTC nanoseconds."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for.

    zone: ours, of the key. region: the provider's, which an answer must be about. window: what lies outside is left.
    now_ns: decides whether a measured value is final.
    """

    provider: str
    zone: str
    region: str
    signal: str
    type: str
    window: Window
    now_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of a provider's, about to become a factor. period_s: a key of GRANULARITIES."""

    start_ns: int
    period_s: int
    g_per_kwh: Decimal
    state: str
    method: str
    source: str
    model_date: str = ""
    updated_ns: int | None = None


def document(body: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object, its numbers exact. Raises AnswerError."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError) as e:
        raise AnswerError(f"{where}: not JSON: {str(e)[:80]}") from e
    return mapping(found, where)


def _refuse(constant: str) -> Any:
    raise ValueError(f"got {constant}, want a number")


def mapping(found: Any, where: str) -> dict[str, Any]:
    """Return a JSON object. Raises AnswerError."""
    if not isinstance(found, dict):
        raise AnswerError(f"{where}: got {type(found).__name__}, want an object")
    return found


def listing(found: Any, where: str) -> list[Any]:
    """Return a JSON array. Raises AnswerError."""
    if not isinstance(found, list):
        raise AnswerError(f"{where}: got {type(found).__name__}, want an array")
    return found


def number(found: Any, where: str, *, most: int = _MOST_G_PER_KWH) -> Decimal:
    """Return a number from 0 to most, exact. Raises AnswerError."""
    value = Decimal(found) if type(found) is int else found
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= most:
        raise AnswerError(f"{where}: got {found!s:.40}, want a number from 0 to {most}")
    if int(value.as_tuple().exponent) < -_MOST_PLACES:
        raise AnswerError(f"{where}: got more than {_MOST_PLACES} decimal places")
    return value


def word(found: Any, where: str) -> str:
    """Return printable text of 1 to 60 characters. Raises AnswerError."""
    if not isinstance(found, str) or not 0 < len(found) <= _MOST_TEXT or not found.isprintable():
        raise AnswerError(f"{where}: got {found!r:.40}, want text of 1 to {_MOST_TEXT} characters")
    return found


def instant(found: Any, where: str) -> int:
    """Return an ISO 8601 time with its offset as UTC nanoseconds. Raises AnswerError."""
    try:
        then = datetime.fromisoformat(found)
        since = then.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as e:
        raise AnswerError(f"{where}: got {found!r:.40}, want a time such as 2026-01-01T00:00:00Z") from e
    t_ns = (since.days * 86_400 + since.seconds) * S + since.microseconds * 1_000
    if then.tzinfo is None or not 0 <= t_ns < 2**62:
        raise AnswerError(f"{where}: got {found!r:.40}, want a time with its offset, from 1970 on")
    return t_ns


def boundary(found: Any, period_s: int, where: str) -> int:
    """Return a time that starts a window of period_s. Raises AnswerError."""
    t_ns = instant(found, where)
    if t_ns % (period_s * S):
        raise AnswerError(f"{where}: got {found!s:.40}, want a multiple of {period_s} s")
    return t_ns


def same_region(found: Any, wanted: Wanted, where: str) -> None:
    """Refuse an answer about another region than the pinned one. Raises AnswerError."""
    if found != wanted.region:
        raise AnswerError(
            f"{where}: got {found!r:.40}, want {wanted.region!r}: an answer about another place", what="zone"
        )


def settled(start_ns: int, wanted: Wanted) -> str:
    """Return the state of a measured value, by its age."""
    return "final" if wanted.now_ns - start_ns > FINAL_NS else "measured"


def factors_of(values: list[Value], wanted: Wanted) -> list[Factor]:
    """Return the values within the window as factors, in order of time. Raises AnswerError for two of one window."""
    found: dict[int, Factor] = {}
    for value in sorted(values, key=lambda value: value.start_ns):
        if not wanted.window.start_ns <= value.start_ns < wanted.window.end_ns:
            continue
        if value.start_ns in found:
            raise AnswerError(f"{wanted.provider}: got two values for {utc(value.start_ns)}, want one")
        found[value.start_ns] = _factor(value, wanted)
    return list(found.values())


def _factor(value: Value, wanted: Wanted) -> Factor:
    g_per_kwh = Decimal(text(value.g_per_kwh))
    return Factor(
        key=(wanted.provider, wanted.zone, wanted.signal, wanted.type, GRANULARITIES[value.period_s]),
        start_ns=value.start_ns,
        end_ns=value.start_ns + value.period_s * S,
        g_per_kwh=g_per_kwh,
        state=value.state,
        method=value.method,
        source=value.source,
        version=version_of(g_per_kwh=g_per_kwh, state=value.state, method=value.method, model_date=value.model_date),
        model_date=value.model_date,
        updated_ns=value.updated_ns,
    )
