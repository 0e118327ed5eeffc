"""Electricity Maps v3: its answers to factors.

Source: https://docs.electricitymaps.com (v3). gCO2eq/kWh of the flow-traced consumption mix, hours of UTC.
`datetime` labels the start of an hour and may be later than `updatedAt`.
"""

from typing import Any

from gateway.carbon.grid.answers import (
    AnswerError,
    Value,
    Wanted,
    boundary,
    document,
    factors_of,
    instant,
    listing,
    mapping,
    number,
    same_region,
    settled,
    word,
)
from gateway.model import Factor

NAME = "electricitymaps"
_HOUR_S = 3_600


def parse_latest(body: bytes, wanted: Wanted) -> list[Factor]:
    """Return the newest hour of `/carbon-intensity/latest`, nothing where its value is null. Raises AnswerError."""
    found = document(body, f"{NAME}: latest")
    same_region(found.get("zone"), wanted, f"{NAME}: latest.zone")
    return factors_of(_values([found], wanted, f"{NAME}: latest"), wanted)


def parse_history(body: bytes, wanted: Wanted, *, key: str) -> list[Factor]:
    """Return the hours of `/history` (key "history") or `/past-range` (key "data") but null ones.

    Raises AnswerError.
    """
    found = document(body, f"{NAME}: {key}")
    same_region(found.get("zone"), wanted, f"{NAME}: {key}.zone")
    _check_granularity(found, f"{NAME}: {key}")
    return factors_of(_values(listing(found.get(key), f"{NAME}: {key}"), wanted, f"{NAME}: {key}"), wanted)


def parse_forecast(body: bytes, wanted: Wanted) -> list[Factor]:
    """Return the hours of `/carbon-intensity/forecast` but null ones. Raises AnswerError."""
    where = f"{NAME}: forecast"
    found = document(body, where)
    same_region(found.get("zone"), wanted, f"{where}.zone")
    _check_granularity(found, where)
    updated_ns = _updated(found, where)
    values = []
    for place, entry in enumerate(listing(found.get("forecast"), where)):
        entry = mapping(entry, f"{where}[{place}]")  # noqa: PLW2901 - the same, known to be an object
        if entry.get("carbonIntensity") is not None:
            values.append(
                Value(
                    start_ns=boundary(entry.get("datetime"), _HOUR_S, f"{where}[{place}].datetime"),
                    period_s=_HOUR_S,
                    g_per_kwh=number(entry["carbonIntensity"], f"{where}[{place}].carbonIntensity"),
                    state="forecast",
                    method=f"{_METHOD}, forecast",
                    source=_source(wanted),
                    updated_ns=updated_ns,
                )
            )
    return factors_of(values, wanted)


def parse_place(body: bytes) -> str:
    """Return the zone that an answer to a question by latitude and longitude is about. Raises AnswerError."""
    return word(document(body, f"{NAME}: latest").get("zone"), f"{NAME}: latest.zone")


_METHOD = "consumption mix traced by flows"


def _values(entries: list[Any], wanted: Wanted, where: str) -> list[Value]:
    values = []
    for place, given in enumerate(entries):
        at = f"{where}[{place}]"
        entry = mapping(given, at)
        same_region(entry.get("zone", wanted.region), wanted, f"{at}.zone")
        if (said := entry.get("emissionFactorType", wanted.type)) != wanted.type:
            raise AnswerError(f"{at}.emissionFactorType: got {said!r:.40}, want {wanted.type!r}")
        _check_granularity(entry, at)
        if entry.get("carbonIntensity") is None:
            continue
        start_ns = boundary(entry.get("datetime"), _HOUR_S, f"{at}.datetime")
        state, how = settled(start_ns, wanted), "measured"
        if entry.get("isEstimated") is not False:  # not said is not measured
            state = "estimated"
            how = f"estimated: {word(entry.get('estimationMethod') or 'method not said', f'{at}.estimationMethod')}"
        values.append(
            Value(
                start_ns=start_ns,
                period_s=_HOUR_S,
                g_per_kwh=number(entry["carbonIntensity"], f"{at}.carbonIntensity"),
                state=state,
                method=f"{_METHOD}, {how}",
                source=_source(wanted),
                updated_ns=_updated(entry, at),
            )
        )
    return values


def _check_granularity(found: dict[str, Any], where: str) -> None:
    if (said := found.get("temporalGranularity", "hourly")) != "hourly":
        raise AnswerError(f"{where}.temporalGranularity: got {said!r:.40}, want 'hourly'")


def _updated(found: dict[str, Any], where: str) -> int | None:
    said = found.get("updatedAt")
    return None if said is None else instant(said, f"{where}.updatedAt")


def _source(wanted: Wanted) -> str:
    return f"Electricity Maps v3 carbon-intensity, zone {wanted.region}"
