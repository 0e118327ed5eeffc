"""ENTSO-E's generation becomes factors, or one clear error."""

import tomllib
from decimal import Decimal
from importlib import resources

import pytest

from gateway.carbon.grid.answers import DAY_NS, AnswerError, S, Wanted, Window
from gateway.carbon.grid.entsoe import MixTable, parse_generation, parse_table

T0_NS = 1_767_225_600 * S
ZONE = "10Y1001A1001A82H"
TEXT = resources.files("gateway").joinpath("carbon", "tables", "generation-mix.toml").read_text(encoding="utf-8")
LIFECYCLE, DIRECT = parse_table(TEXT, "lifecycle"), parse_table(TEXT, "direct")


def wanted() -> Wanted:
    return Wanted(
        provider="entsoe",
        zone="home",
        region=ZONE,
        signal="average",
        type="lifecycle",
        window=Window(start_ns=T0_NS, end_ns=T0_NS + DAY_NS),
        now_ns=T0_NS + DAY_NS,
    )


def series(kind: str, *powers: str | None, resolution: str = "PT15M", curve: str = "A01", zone: str = ZONE) -> str:
    """Return one kind's series from midnight; a power of None is a position left out."""
    minutes = {"PT15M": 15, "PT60M": 60}.get(resolution, 15) * len(powers)
    points = "".join(
        f"<Point><position>{n}</position><quantity>{power}</quantity></Point>"
        for n, power in enumerate(powers, 1)
        if power is not None
    )
    return (
        f"<TimeSeries><inBiddingZone_Domain.mRID codingScheme='A01'>{zone}</inBiddingZone_Domain.mRID>"
        f"<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>{curve}</curveType>"
        f"<MktPSRType><psrType>{kind}</psrType></MktPSRType><Period><timeInterval><start>2026-01-01T00:00Z</start>"
        f"<end>2026-01-01T{minutes // 60:02d}:{minutes % 60:02d}Z</end></timeInterval>"
        f"<resolution>{resolution}</resolution>{points}</Period></TimeSeries>"
    )


def document(*parts: str, name: str = "GL_MarketDocument") -> bytes:
    xmlns = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
    inside = "<type>A75</type>" + "".join(parts)
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{xmlns}">{inside}</{name}>'.encode()


def values(body: bytes, table: MixTable = LIFECYCLE) -> list[str]:
    return [str(factor.g_per_kwh) for factor in parse_generation(body, wanted(), table)]


def test_a_mix_is_weighted_by_what_was_generated() -> None:
    (factor,) = parse_generation(document(series("B04", "300"), series("B19", "100")), wanted(), LIFECYCLE)
    assert factor.g_per_kwh == Decimal("370.25")  # (300 x 490 + 100 x 11) / 400
    assert factor.key == ("entsoe", "home", "average", "lifecycle", "PT15M")
    assert factor.method == "generation mix x IPCC 2014 lifecycle medians, imports not counted"
    assert (factor.start_ns, factor.end_ns, factor.state) == (T0_NS, T0_NS + 900 * S, "measured")


def test_direct_factors_are_another_table() -> None:
    assert values(document(series("B04", "300"), series("B19", "100")), DIRECT) == ["277.5"]


def test_pumped_storage_is_not_counted_twice() -> None:
    drawn = series("B10", "900").replace("inBiddingZone", "outBiddingZone")
    assert values(document(series("B04", "1"), series("B10", "900"), drawn)) == ["490"]


def test_a_window_with_a_kind_still_missing_has_no_factor() -> None:
    assert values(document(series("B04", "1", "1"), series("B19", "1", None))) == ["250.5"]


def test_a_curve_of_type_a03_repeats_what_it_leaves_out() -> None:
    assert values(document(series("B04", "1", None, "3", curve="A03"), series("B19", "1", "1", "1"))) == [
        "250.5",
        "250.5",
        "370.25",
    ]


def test_an_hour_holds_for_each_of_its_quarters() -> None:
    body = document(series("B04", "1", "1", "1", "3"), series("B19", "1", resolution="PT60M"))
    assert values(body) == ["250.5", "250.5", "250.5", "370.25"]


def test_a_tenth_of_unknown_kinds_passes_and_more_does_not() -> None:
    assert values(document(series("B04", "90"), series("B20", "10"))) == ["490"]
    assert values(document(series("B04", "90"), series("B20", "11"))) == []


def test_a_plant_that_draws_more_than_it_makes_generates_nothing() -> None:
    assert values(document(series("B04", "100"), series("B05", "-5.5"))) == ["490"]


def test_no_generation_is_no_factor() -> None:
    assert values(document(series("B04", "0"))) == []
    assert values(document()) == []


def acknowledged(text: str, code: str = "999") -> bytes:
    reason = f"<Reason><code>{code}</code><text>{text}</text></Reason>"
    return document(reason, name="Acknowledgement_MarketDocument")


def test_no_matching_data_is_no_factor_and_another_refusal_is_an_error() -> None:
    assert values(acknowledged("No matching data found for Data item")) == []
    with pytest.raises(AnswerError, match="too many") as caught:
        values(acknowledged("too many instances requested"))
    assert caught.value.what == "refused"


def test_another_zone_is_refused() -> None:
    with pytest.raises(AnswerError) as caught:
        values(document(series("B04", "1", zone="10YFR-RTE------C")))
    assert caught.value.what == "zone"


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not XML"),
        (b"<html><body>no", "not XML"),
        (b"<html/>", "want GL_MarketDocument"),
        (document(name="Publication_MarketDocument"), "want GL_MarketDocument"),
        (BOMB + document(), "document type"),
        (document().decode().encode("utf-16"), "another encoding"),
        (document(series("B04", "1", resolution="P1D")), "resolution"),
        (document(series("B04", "x")), "quantity"),
        (document(series("B04", "1e5")), "quantity"),
        (document(series("B04", "9999999")), "quantity"),
        (document(series("B04", "1").replace("<position>1<", "<position>2<")), "position"),
        (document(series("B04", "1").replace("<position>1<", "<position>-1<")), "position"),
        (document(series("B04", "1").replace("MAW", "MWH")), "MAW"),
        (document(series("B04", "1").replace("T00:15Z", "T00:00Z")), "points"),
        (document(series("B04", "1").replace("2026-01-01T00:15Z", "2990-01-01T00:15Z")), "end|points"),
        (document(series("", "1")), "psrType"),
    ],
)
def test_a_malformed_answer_is_one_clear_error(body: bytes, said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        values(body)


def test_the_table_names_its_source_and_holds_the_published_medians() -> None:
    assert "IPCC" in tomllib.loads(TEXT)["lifecycle"]["source"]
    assert {kind: int(LIFECYCLE.g_per_kwh[kind]) for kind in ("B01", "B04", "B05", "B14", "B16", "B19")} == {
        "B01": 230,
        "B04": 490,
        "B05": 820,
        "B14": 12,
        "B16": 48,
        "B19": 11,
    }
