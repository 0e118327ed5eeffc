"""Electricity Maps' answers become factors, or one clear error."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.carbon.grid.answers import DAY_NS, HOUR_NS, AnswerError, S, Wanted, Window
from gateway.carbon.grid.electricity_maps import parse_forecast, parse_history, parse_latest, parse_place

T0_NS = 1_767_225_600 * S  # 2026-01-01T00:00:00Z


def wanted(*, days: int = 1, age_days: int = 1) -> Wanted:
    return Wanted(
        provider="electricitymaps",
        zone="home",
        region="DE",
        signal="average",
        type="lifecycle",
        window=Window(start_ns=T0_NS, end_ns=T0_NS + days * DAY_NS),
        now_ns=T0_NS + age_days * DAY_NS,
    )


def hour(number: int, value: Any = 216, **more: Any) -> dict[str, Any]:
    return {
        "zone": "DE",
        "carbonIntensity": value,
        "datetime": f"2026-01-01T{number:02d}:00:00.000Z",
        "updatedAt": "2026-01-01T00:30:00.000Z",
        "createdAt": "2025-12-29T00:00:00.000Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
        **more,
    }


def history(*hours: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"zone": "DE", "history": list(hours), **more}).encode()


def test_an_hour_becomes_a_factor_of_our_zone() -> None:
    (factor,) = parse_history(history(hour(3)), wanted(), key="history")
    assert factor.key == ("electricitymaps", "home", "average", "lifecycle", "PT1H")
    assert (factor.start_ns, factor.end_ns) == (T0_NS + 3 * HOUR_NS, T0_NS + 4 * HOUR_NS)
    assert (factor.g_per_kwh, factor.state) == (Decimal(216), "measured")
    assert factor.updated_ns == T0_NS + 1_800 * S
    assert "zone DE" in factor.source


def test_a_number_is_read_exactly() -> None:
    body = history(hour(0, "X")).replace(b'"X"', b"216.12345678901234567890")
    (factor,) = parse_history(body, wanted(), key="history")
    assert factor.g_per_kwh == Decimal("216.1234567890123456789")


def test_a_null_value_is_no_factor() -> None:
    assert parse_history(history(hour(0, None), hour(1)), wanted(), key="history")[0].start_ns == T0_NS + HOUR_NS
    assert parse_latest(json.dumps(hour(0, None)).encode(), wanted()) == []


def test_an_estimate_says_by_which_method() -> None:
    given = hour(0, isEstimated=True, estimationMethod="TIME_SLICER_AVERAGE")
    (factor,) = parse_latest(json.dumps(given).encode(), wanted())
    assert factor.state == "estimated"
    assert "TIME_SLICER_AVERAGE" in factor.method


def test_a_value_that_does_not_say_whether_it_is_estimated_counts_as_estimated() -> None:
    given = hour(0)
    del given["isEstimated"]
    assert parse_latest(json.dumps(given).encode(), wanted())[0].state == "estimated"


def test_a_measured_value_is_final_after_90_days() -> None:
    states = [parse_history(history(hour(0)), wanted(age_days=age), key="history")[0].state for age in (90, 91)]
    assert states == ["measured", "final"]


def test_a_forecast_is_one() -> None:
    points = [{"datetime": "2026-01-01T05:00:00.000Z", "carbonIntensity": 300}]
    body = json.dumps({"zone": "DE", "forecast": points, "updatedAt": "2026-01-01T00:10:00.000Z"}).encode()
    (factor,) = parse_forecast(body, wanted())
    assert (factor.state, factor.g_per_kwh, factor.updated_ns) == ("forecast", Decimal(300), T0_NS + 600 * S)


def test_a_revised_value_is_another_version() -> None:
    one, other = (parse_history(history(hour(0, value)), wanted(), key="history")[0] for value in (216, 217))
    assert one.version != other.version


def test_what_lies_outside_the_window_is_left() -> None:
    given = hour(0, datetime="2026-01-02T00:00:00.000Z")
    assert parse_history(history(given), wanted(), key="history") == []


@pytest.mark.parametrize(
    "body",
    [
        history(hour(0), zone="FR"),
        history(hour(0, zone="FR")),
    ],
)
def test_an_answer_about_another_zone_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerError, match="'FR'") as caught:
        parse_history(body, wanted(), key="history")
    assert caught.value.what == "zone"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "want an object"),
        (b'{"zone": "DE"}', "want an array"),
        (history({"zone": "DE", "carbonIntensity": 5}), "datetime"),
        (history(hour(0, -1)), "want a number from 0"),
        (history(hour(0, "216")), "want a number from 0"),
        (history(hour(0, True)), "want a number from 0"),
        (history(hour(0, 1e9)), "want a number from 0"),
        (history(hour(0, 10_001)), "want a number from 0"),
        (history(hour(0)).replace(b"216", b"NaN"), "want a number"),
        (history(hour(0)).replace(b"216", b"1e-99"), "decimal places"),
        (history(hour(0)).replace(b"216", b"1e999999999999999999999"), "carbonIntensity|not JSON"),
        (history(hour(0, datetime="2026-01-01T00:30:00Z")), "multiple of 3600 s"),
        (history(hour(0, datetime="2026-01-01T00:00:00")), "offset"),
        (history(hour(0, datetime=5)), "want a time"),
        (history(hour(0, datetime=None)), "want a time"),
        (history(hour(0, emissionFactorType="direct")), "want 'lifecycle'"),
        (history(hour(0), temporalGranularity="15_minutes"), "want 'hourly'"),
        (history(hour(0), hour(0)), "two values"),
        (history(hour(0, isEstimated=True, estimationMethod="x\n" * 90)), "estimationMethod"),
    ],
)
def test_a_malformed_answer_is_one_clear_error(body: bytes, said: str) -> None:
    with pytest.raises(AnswerError, match=said) as caught:
        parse_history(body, wanted(), key="history")
    assert caught.value.what == "malformed"
    assert len(str(caught.value)) < 250


def test_a_place_names_its_zone() -> None:
    assert parse_place(json.dumps(hour(0)).encode()) == "DE"
