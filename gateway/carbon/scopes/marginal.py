"""Marginal figures: what a decision changes, such as a load that runs at another time. Never a part of an account.

The ledger's figures take average factors. What one kWh more or less changes now is another question, with another
factor. So the answer has a type of its own, which no sum of figures takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from gateway.carbon.exact import shifted, times, total, utc
from gateway.errors import ConfigError
from gateway.model import Factor

MARGINAL: Literal["marginal"] = "marginal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginal:
    """The CO2e that a decision changes, g; negative where it saves. method: always `marginal`.

    now, then: the factors that it rests on. It is no number: adding one to anything raises TypeError.
    """

    change_g: Decimal
    zone: str
    energy_mwh: int
    now: Factor
    then: Factor
    method: Literal["marginal"] = MARGINAL

    def __add__(self, other: object) -> NoReturn:
        raise TypeError("a marginal figure is for a decision: it cannot be added to anything")

    __radd__ = __add__


def shifted_load(energy_mwh: int, *, zone: str, now_ns: int, then_ns: int, factors: Sequence[Factor]) -> Marginal:
    """Return what it changes to draw some energy then instead of now.

    factors: of which the zone's marginal ones are taken. Raises ConfigError where one of the times has none.
    """
    now, then = (_at(zone, t_ns, factors) for t_ns in (now_ns, then_ns))
    return Marginal(
        change_g=shifted(times(total([then.g_per_kwh, times(now.g_per_kwh, -1)]), energy_mwh), -6),
        zone=zone,
        energy_mwh=energy_mwh,
        now=now,
        then=then,
    )


def _at(zone: str, t_ns: int, factors: Sequence[Factor]) -> Factor:
    found = [one for one in factors if one.key[1:3] == (zone, MARGINAL) and one.start_ns <= t_ns < one.end_ns]
    if not found:
        raise ConfigError(f"marginal: got no marginal factor of {zone} at {utc(t_ns)}, want one: averages do not tell")
    return min(found, key=lambda one: (one.end_ns - one.start_ns, one.key))
