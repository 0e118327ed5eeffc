"""NESO's answers become factors, or one clear error."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.carbon.grid.answers import DAY_NS, AnswerError, S, Wanted, Window
from gateway.carbon.grid.neso import parse_national, parse_regional

T0_NS = 1_767_225_600 * S


def wanted(region: str = "GB", *, age_days: float = 1) -> Wanted:
    return Wanted(
        provider="neso",
        zone="home",
        region=region,
        signal="average",
        type="direct",
        window=Window(start_ns=T0_NS, end_ns=T0_NS + DAY_NS),
        now_ns=T0_NS + int(age_days * DAY_NS),
    )


def half(start: str = "00:00", end: str = "00:30", **intensity: Any) -> dict[str, Any]:
    return {"from": f"2026-01-01T{start}Z", "to": f"2026-01-01T{end}Z", "intensity": {"index": "low", **intensity}}


def national(*halves: dict[str, Any]) -> bytes:
    return json.dumps({"data": list(halves)}).encode()


def regional(*halves: dict[str, Any], number: Any = 13) -> bytes:
    found = {"regionid": number, "dnoregion": "UKPN London", "shortname": "London", "data": list(halves)}
    return json.dumps({"data": found}).encode()


def test_an_actual_value_is_measured_and_says_that_it_is_co2() -> None:
    (factor,) = parse_national(national(half(forecast=266, actual=263)), wanted())
    assert factor.key == ("neso", "home", "average", "direct", "PT30M")
    assert (factor.g_per_kwh, factor.state) == (Decimal(263), "measured")
    assert "gCO2, not CO2e" in factor.method
    assert (factor.start_ns, factor.end_ns) == (T0_NS, T0_NS + 1_800 * S)


def test_an_actual_value_is_final_after_90_days() -> None:
    assert parse_national(national(half(forecast=266, actual=263)), wanted(age_days=91))[0].state == "final"


@pytest.mark.parametrize(("age_days", "state"), [(-1, "forecast"), (0.01, "estimated")])
def test_without_an_actual_value_it_is_forecast_ahead_and_estimated_behind(age_days: float, state: str) -> None:
    (factor,) = parse_national(national(half(forecast=266, actual=None)), wanted(age_days=age_days))
    assert (factor.g_per_kwh, factor.state) == (Decimal(266), state)


def test_a_region_is_always_an_estimate() -> None:
    (factor,) = parse_regional(regional(half(forecast=266)), wanted("13", age_days=200))
    assert factor.state == "estimated"
    assert "region 13" in factor.source


def test_another_region_is_refused() -> None:
    with pytest.raises(AnswerError, match="want 13") as caught:
        parse_regional(regional(half(forecast=1), number=12), wanted("13"))
    assert caught.value.what == "zone"


def test_null_values_are_no_factor() -> None:
    assert parse_national(national(half(forecast=None, actual=None)), wanted()) == []


def test_the_half_hour_before_the_window_is_left() -> None:
    given = {"from": "2025-12-31T23:30Z", "to": "2026-01-01T00:00Z", "intensity": {"actual": 5, "forecast": 5}}
    assert parse_national(national(given), wanted()) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"code": "400"}}', "data"),
        (national({"from": "2026-01-01T00:00Z"}), "to"),
        (national(half("00:10", "00:40", actual=1)), "multiple of 1800 s"),
        (national(half("00:00", "01:00", actual=1)), "half an hour"),
        (national(half(actual="263")), "want a number"),
        (national({**half(), "intensity": None}), "intensity"),
        (national(half(actual=1), half(actual=2)), "two values"),
    ],
)
def test_a_malformed_answer_is_one_clear_error(body: bytes, said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        parse_national(body, wanted())
