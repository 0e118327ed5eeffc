"""WattTime v3: its answers to factors.

Source: https://docs.watttime.org (v3). lbs of CO2 (not CO2e) a MWh; `co2_moer` is marginal, `co2_aoer` average. The
pound is exact: 453.59237 g.
"""

from gateway.carbon.grid.answers import (
    GRANULARITIES,
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
from gateway.carbon.grid.factors import to_g_per_kwh
from gateway.model import Factor

NAME = "watttime"
SIGNALS = {"average": "co2_aoer", "marginal": "co2_moer"}
_UNITS = "lbs_co2_per_mwh"
_MOST_LBS = 22_000


def parse_points(body: bytes, wanted: Wanted, *, is_forecast: bool) -> list[Factor]:
    """Return the points of `/v3/historical` or `/v3/forecast` but null ones. Raises AnswerError."""
    where = f"{NAME}: {'forecast' if is_forecast else 'historical'}"
    found = document(body, where)
    meta = mapping(found.get("meta"), f"{where}.meta")
    same_region(meta.get("region"), wanted, f"{where}.meta.region")
    signal = SIGNALS[wanted.signal]
    for key, want in (("signal_type", signal), ("units", _UNITS)):
        if meta.get(key) != want:
            raise AnswerError(f"{where}.meta.{key}: got {meta.get(key)!r:.40}, want {want!r}")
    period_s = meta.get("data_point_period_seconds")
    if type(period_s) is not int or period_s not in GRANULARITIES:
        raise AnswerError(f"{where}.meta.data_point_period_seconds: got {period_s!r:.40}, want {list(GRANULARITIES)}")
    model = mapping(meta.get("model"), f"{where}.meta.model")
    model_date = word(model.get("date"), f"{where}.meta.model.date")
    values = []
    for place, given in enumerate(listing(found.get("data"), f"{where}.data")):
        at = f"{where}.data[{place}]"
        point = mapping(given, at)
        if point.get("value") is None:
            continue
        start_ns = boundary(point.get("point_time"), period_s, f"{at}.point_time")
        state, how = settled(start_ns, wanted), "not imputed"
        if is_forecast:
            state, how = "forecast", "forecast"
        elif point.get("imputed_data_used") is not False:  # not said is not measured
            state, how = "estimated", "imputed"
        updated = point.get("last_updated")
        values.append(
            Value(
                start_ns=start_ns,
                period_s=period_s,
                g_per_kwh=to_g_per_kwh(number(point["value"], f"{at}.value", most=_MOST_LBS), "lb/MWh"),
                state=state,
                method=f"{signal} ({wanted.signal}), CO2 only, {how}",
                source=f"WattTime v3 {signal}, region {wanted.region}",
                model_date=model_date,
                updated_ns=None if updated is None else instant(updated, f"{at}.last_updated"),
            )
        )
    return factors_of(values, wanted)


def parse_token(body: bytes) -> str:
    """Return the token of an answer of `/login`. Raises AnswerError, which does not quote it."""
    token = document(body, f"{NAME}: login").get("token")
    if not isinstance(token, str) or not 0 < len(token) <= 8_192 or not token.isascii() or not token.isprintable():
        raise AnswerError(f"{NAME}: login.token: got something else, want a token")
    return token


def parse_region(body: bytes) -> tuple[str, str]:
    """Return the region of an answer of `/v3/region-from-loc`, and its full name. Raises AnswerError."""
    found = document(body, f"{NAME}: region-from-loc")
    region = word(found.get("region"), f"{NAME}: region-from-loc.region")
    return region, word(found.get("region_full_name") or region, f"{NAME}: region-from-loc.region_full_name")
