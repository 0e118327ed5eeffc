"""The carbon intensity of Great Britain, by NESO: its answers to factors.

Source: https://carbon-intensity.github.io/api-definitions/ (v2; CC BY 4.0). gCO2 (not CO2e) a kWh, half hours of UTC.
Regions have no actual value: theirs is always an estimate.
"""

from typing import Any

from gateway.carbon.grid.answers import (
    AnswerError,
    S,
    Value,
    Wanted,
    boundary,
    document,
    factors_of,
    listing,
    mapping,
    number,
    settled,
)
from gateway.model import Factor

NAME = "neso"
NATIONAL = "GB"
_HALF_HOUR_S = 1_800


def parse_national(body: bytes, wanted: Wanted) -> list[Factor]:
    """Return the half hours of `/intensity/{from}/{to}` but null ones. Raises AnswerError."""
    where = f"{NAME}: intensity"
    return factors_of(_values(document(body, where).get("data"), wanted, where), wanted)


def parse_regional(body: bytes, wanted: Wanted) -> list[Factor]:
    """Return the half hours of `/regional/intensity/{from}/{to}/regionid/{id}`. Raises AnswerError."""
    where = f"{NAME}: regional"
    found = document(body, where).get("data")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]  # as other endpoints of theirs put it
    region = mapping(found, f"{where}.data")
    if (said := region.get("regionid")) != int(wanted.region):
        raise AnswerError(
            f"{where}.regionid: got {said!r:.40}, want {wanted.region}: an answer about another place", what="zone"
        )
    return factors_of(_values(region.get("data"), wanted, where), wanted)


def _values(entries: Any, wanted: Wanted, where: str) -> list[Value]:
    values = []
    for place, given in enumerate(listing(entries, f"{where}.data")):
        at = f"{where}.data[{place}]"
        entry = mapping(given, at)
        start_ns = boundary(entry.get("from"), _HALF_HOUR_S, f"{at}.from")
        if boundary(entry.get("to"), _HALF_HOUR_S, f"{at}.to") != start_ns + _HALF_HOUR_S * S:
            raise AnswerError(f"{at}.to: got {entry['to']!s:.40}, want half an hour after {entry['from']!s:.40}")
        intensity = mapping(entry.get("intensity"), f"{at}.intensity")
        actual, forecast = intensity.get("actual"), intensity.get("forecast")
        if actual is None and forecast is None:
            continue
        if actual is not None:
            said, state, how = actual, settled(start_ns, wanted), "actual"
        elif start_ns > wanted.now_ns:
            said, state, how = forecast, "forecast", "forecast"
        else:  # a region's past, or a half hour whose actual value is still to come
            said, state, how = forecast, "estimated", "the forecast stands in for the actual"
        values.append(
            Value(
                start_ns=start_ns,
                period_s=_HALF_HOUR_S,
                g_per_kwh=number(said, f"{at}.intensity"),
                state=state,
                method=f"gCO2, not CO2e: {how}",
                source=_source(wanted),
            )
        )
    return values


def _source(wanted: Wanted) -> str:
    about = "Great Britain" if wanted.region == NATIONAL else f"region {wanted.region}"
    return f"NESO Carbon Intensity API, {about} (CC BY 4.0)"
