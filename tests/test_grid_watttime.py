"""WattTime's answers become factors, or one clear error."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.carbon.exact import shifted
from gateway.carbon.grid.answers import DAY_NS, AnswerError, S, Wanted, Window
from gateway.carbon.grid.factors import to_g_per_kwh
from gateway.carbon.grid.watttime import parse_points, parse_region, parse_token

T0_NS = 1_767_225_600 * S


def wanted(signal: str = "marginal") -> Wanted:
    return Wanted(
        provider="watttime",
        zone="home",
        region="CAISO_NORTH",
        signal=signal,
        type="direct",
        window=Window(start_ns=T0_NS, end_ns=T0_NS + DAY_NS),
        now_ns=T0_NS + DAY_NS,
    )


def answer(*points: dict[str, Any], **meta: Any) -> bytes:
    about = {
        "data_point_period_seconds": 300,
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "model": {"type": "binned_regression", "date": "2023-03-01"},
        "units": "lbs_co2_per_mwh",
        **meta,
    }
    return json.dumps({"data": list(points), "meta": about}).encode()


def point(minute: int = 0, value: Any = 870, **more: Any) -> dict[str, Any]:
    return {
        "point_time": f"2026-01-01T00:{minute:02d}:00+00:00",
        "value": value,
        "last_updated": "2026-01-01T00:20:00+00:00",
        "imputed_data_used": False,
        **more,
    }


def test_moer_of_870_pounds_a_mwh_is_394_6253619_g_a_kwh() -> None:
    (factor,) = parse_points(answer(point()), wanted(), is_forecast=False)
    assert factor.g_per_kwh == Decimal("394.6253619")
    assert factor.key == ("watttime", "home", "marginal", "direct", "PT5M")
    assert (factor.start_ns, factor.end_ns) == (T0_NS, T0_NS + 300 * S)
    assert (factor.state, factor.model_date) == ("measured", "2023-03-01")
    assert "CO2 only" in factor.method


def test_camx_of_429_983_pounds_a_mwh_is_0_19503700802971_kg_a_kwh() -> None:
    assert shifted(to_g_per_kwh(Decimal("429.983"), "lb/MWh"), -3) == Decimal("0.19503700802971")


def test_the_average_signal_is_average_and_hourly() -> None:
    body = answer(point(), signal_type="co2_aoer", data_point_period_seconds=3_600)
    (factor,) = parse_points(body, wanted("average"), is_forecast=False)
    assert factor.key == ("watttime", "home", "average", "direct", "PT1H")


@pytest.mark.parametrize("marker", [{"imputed_data_used": True}, {"imputed_data_used": None}])
def test_an_imputed_point_is_estimated(marker: dict[str, Any]) -> None:
    (factor,) = parse_points(answer(point(**marker)), wanted(), is_forecast=False)
    assert factor.state == "estimated"


def test_a_forecast_is_one() -> None:
    (factor,) = parse_points(answer({"point_time": "2026-01-01T00:05:00Z", "value": 1.5}), wanted(), is_forecast=True)
    assert (factor.state, factor.updated_ns) == ("forecast", None)


def test_the_model_s_date_is_part_of_the_version() -> None:
    bodies = (answer(point(), model={"date": date}) for date in ("2023-03-01", "2024-03-01"))
    one, other = (parse_points(body, wanted(), is_forecast=False)[0] for body in bodies)
    assert one.version != other.version


def test_a_null_value_is_no_factor() -> None:
    assert parse_points(answer(point(value=None)), wanted(), is_forecast=False) == []


def test_another_region_is_refused() -> None:
    with pytest.raises(AnswerError, match="ERCOT") as caught:
        parse_points(answer(region="ERCOT"), wanted(), is_forecast=False)
    assert caught.value.what == "zone"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer(units="g_per_kwh"), "units"),
        (answer(signal_type="co2_aoer"), "signal_type"),
        (answer(data_point_period_seconds=7), "period_seconds"),
        (answer(data_point_period_seconds=[]), "period_seconds"),
        (answer(model=None), "model"),
        (answer(model={"date": ""}), "model.date"),
        (answer(point(point_time="2026-01-01T00:01:00Z")), "multiple of 300 s"),
        (answer(point(value="870")), "want a number"),
        (answer(point(value=-1)), "want a number"),
        (answer(point(), point()), "two values"),
        (b'{"data": []}', "meta"),
        (b'{"error": "no"}', "meta"),
    ],
)
def test_a_malformed_answer_is_one_clear_error(body: bytes, said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        parse_points(body, wanted(), is_forecast=False)


def test_a_login_gives_a_token_and_an_error_never_quotes_one() -> None:
    assert parse_token(b'{"token": "abc"}') == "abc"
    with pytest.raises(AnswerError) as caught:
        parse_token(json.dumps({"token": "sec\nret"}).encode())
    assert "ret" not in str(caught.value).replace("secret", "")


def test_a_place_names_its_region() -> None:
    body = b'{"region": "PSCO", "region_full_name": "Public Service Co of Colorado", "signal_type": "co2_moer"}'
    assert parse_region(body) == ("PSCO", "Public Service Co of Colorado")
