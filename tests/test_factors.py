"""Factors: the static file, exact units, and which factor applies when."""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.grid.factors import parse_factors, to_g_per_kwh, version_of
from gateway.carbon.grid.table import FactorLeaf, FactorTable
from gateway.errors import ConfigError, TrustError
from gateway.model import Factor
from tests.line_leaves import SECOND, T0, factor, table

DEMO = Path(__file__).parent.parent / "hil" / "plant" / "factors-demo.toml"
HOUR = 3600 * SECOND

ENTRY = {
    "provider": '"agency"',
    "zone": '"CAMX"',
    "signal": '"average"',
    "type": '"direct"',
    "start": "2023-01-01T00:00:00Z",
    "end": "2024-01-01T00:00:00Z",
    "value": "429.983",
    "unit": '"lb/MWh"',
    "state": '"final"',
    "method": '"annual"',
    "source": '"table 1"',
}


def toml(*entries: dict[str, str]) -> str:
    return "\n".join("[[factor]]\n" + "\n".join(f"{k} = {v}" for k, v in entry.items()) for entry in entries)


def leaf(one: Factor, index: int) -> FactorLeaf:
    return FactorLeaf(factor=one, index=index, hash=bytes(32))


def test_units_are_converted_exactly() -> None:
    """The vectors of the carbon facts."""
    assert to_g_per_kwh(Decimal("429.983"), "lb/MWh") / 1000 == Decimal("0.19503700802971")
    assert to_g_per_kwh(Decimal(870), "lb/MWh") == Decimal("394.6253619")
    assert to_g_per_kwh(Decimal("0.177"), "kg/kWh") == 177
    assert to_g_per_kwh(Decimal(583), "g/kWh") == 583


def test_the_demonstration_file_says_400_g_for_zone_demo() -> None:
    (one,) = parse_factors(DEMO.read_text(encoding="utf-8"), name="factors-demo.toml")
    assert one.key == ("demo", "DEMO", "average", "lifecycle", "")
    assert one.g_per_kwh == 400
    assert table(one).at("DEMO", T0) is not None


def test_a_file_is_read_exactly() -> None:
    (one,) = parse_factors(toml(ENTRY), name="f.toml")
    assert str(one.g_per_kwh) == "195.03700802971"
    assert (one.start_ns, one.end_ns) == (1_672_531_200 * SECOND, 1_704_067_200 * SECOND)
    assert one.source == "table 1"


def test_a_version_is_the_hash_of_canonical_json() -> None:
    """sha256 of {"estimated":false,"method":"annual","model_date":"","value":"400"}, as any tool computes it."""
    expected = "178f6ed7449440057ba9cb59d554daac74b0e4251309897d82886dd17992ef27"
    one = version_of(g_per_kwh=Decimal("400.0"), state="final", method="annual", model_date="")
    assert one == expected
    assert version_of(g_per_kwh=Decimal(400), state="estimated", method="annual", model_date="") != expected


def test_a_time_with_an_offset_is_taken_as_utc() -> None:
    (one,) = parse_factors(toml({**ENTRY, "start": "2023-01-01T02:00:00+02:00"}), name="f.toml")
    assert one.start_ns == 1_672_531_200 * SECOND


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "-1"}, r"f\.toml: factor\[0\]\.value: got -1, want a number of at least 0"),
        ({"value": "nan"}, r"factor\[0\]\.value: got NaN"),
        ({"value": "inf"}, r"factor\[0\]\.value: got Infinity"),
        ({"value": "true"}, r"factor\[0\]\.value: got True"),
        ({"value": '"400"'}, r"factor\[0\]\.value: got 400, want a number"),
        ({"value": "1e999999999"}, r"factor\[0\]\.value: got 1E\+999999999, want at most 40 digits"),
        ({"value": "1e-50"}, r"factor\[0\]\.value: got 1E-50, want at most 40 digits"),
        ({"unit": '"g/MJ"'}, r"factor\[0\]\.unit: got 'g/MJ', want one of g/kWh, kg/kWh, lb/MWh"),
        ({"signal": '"moer"'}, r"factor\[0\]\.signal: got 'moer', want one of average, marginal"),
        ({"state": '"annual"'}, r"factor\[0\]\.state: got 'annual', want one of forecast"),
        ({"zone": '""'}, r"factor\[0\]\.zone: got '', want printable text"),
        ({"source": '"a\\nb"'}, r"factor\[0\]\.source: got 'a\\nb', want printable text"),
        ({"start": '"2023-01-01"'}, r"factor\[0\]\.start: got '2023-01-01', want a date and time with Z"),
        ({"start": "2023-01-01T00:00:00"}, r"factor\[0\]\.start: got .*, want a date and time with Z"),
        ({"start": "1969-01-01T00:00:00Z"}, r"factor\[0\]\.start: got .*, want a time from 1970 to 2262"),
        ({"end": "2023-01-01T00:00:00Z"}, r"factor\[0\]\.end: got 2023-01-01T00:00:00Z, want a time after"),
        ({"region": '"x"'}, r"factor\[0\]\.region: got a key that is not known, want one of end, granularity"),
    ],
)
def test_a_wrong_entry_says_where_got_and_want(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_factors(toml({**ENTRY, **change}), name="f.toml")


@pytest.mark.parametrize("missing", sorted(ENTRY))
def test_a_missing_key_is_named(missing: str) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != missing}
    with pytest.raises(ConfigError, match=rf"f\.toml: factor\[1\]\.{missing}: got nothing"):
        parse_factors(toml({**ENTRY, "zone": '"X"'}, entry), name="f.toml")


@pytest.mark.parametrize("content", ["", "x = 1", "factor = 1", "[[factor]]\n[other]", "[[factor", "factor = [1]"])
def test_a_file_without_factor_tables_is_refused(content: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: "):
        parse_factors(content, name="f.toml")


def test_overlapping_windows_of_one_key_are_refused() -> None:
    other = {**ENTRY, "start": "2023-12-31T23:59:59Z", "end": "2025-01-01T00:00:00Z"}
    with pytest.raises(ConfigError, match=r"f\.toml: factor\[1\]\.start: got 2023-12-31T23:59:59Z, .* factor\[0\]"):
        parse_factors(toml(ENTRY, other), name="f.toml")
    assert len(parse_factors(toml(ENTRY, {**other, "zone": '"ERCT"'}), name="f.toml")) == 2
    assert len(parse_factors(toml(ENTRY, {**other, "start": "2024-01-01T00:00:00Z"}), name="f.toml")) == 2


def test_a_window_holds_from_its_start_until_just_before_its_end() -> None:
    made = table(factor("1", T0, T0 + HOUR), factor("2", T0 + HOUR, T0 + 2 * HOUR))
    values = [made.at("DEMO", t) for t in (T0 - 1, T0, T0 + HOUR - 1, T0 + HOUR, T0 + 2 * HOUR)]
    assert [None if one is None else one.factor.g_per_kwh for one in values] == [None, 1, 1, 2, None]
    assert made.at("OTHER", T0) is None


def test_a_marginal_factor_never_feeds_a_figure() -> None:
    assert table(factor("1", 0, 2**62, signal="marginal")).at("DEMO", T0) is None


def test_the_shortest_window_has_precedence_and_longer_ones_fill_its_holes() -> None:
    made = table(factor("9", 0, 2**62, provider="annual"), factor("1", T0, T0 + HOUR))
    spans = [
        (s.start_ns, s.end_ns, s.leaf and int(s.leaf.factor.g_per_kwh))
        for s in made.spans("DEMO", T0 - HOUR, T0 + 2 * HOUR)
    ]
    assert spans == [(T0 - HOUR, T0, 9), (T0, T0 + HOUR, 1), (T0 + HOUR, T0 + 2 * HOUR, 9)]


def test_of_equal_windows_the_first_key_in_order_has_precedence_in_whatever_order_they_came() -> None:
    one, other = factor("1", T0, T0 + HOUR, provider="a"), factor("2", T0, T0 + HOUR, provider="b")
    for made in (table(one, other), table(other, one)):
        found = made.at("DEMO", T0)
        assert found is not None
        assert found.factor == one


def test_a_new_version_supersedes_the_old_and_only_by_name() -> None:
    old = factor("1", T0, T0 + HOUR)
    made = table(old)
    assert not made.add(leaf(old, 2)), "the same version changes nothing"
    with pytest.raises(TrustError, match="does not supersede the version in force") as caught:
        made.add(leaf(factor("2", T0, T0 + HOUR), 3))
    assert caught.value.index == 3
    assert made.add(leaf(factor("2", T0, T0 + HOUR, supersedes=old.version), 4))
    found = made.at("DEMO", T0)
    assert found is not None
    assert (int(found.factor.g_per_kwh), found.index) == (2, 4)
    assert made.in_force(old) == found


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 3), (0, 1), (1, 2), (-1, 3), (0, 0), (1, 0)])
def test_other_overlaps_of_one_key_are_refused(start: int, end: int) -> None:
    made = table(factor("1", T0, T0 + HOUR))
    with pytest.raises(TrustError, match="overlaps another window of its key"):
        made.add(leaf(factor("2", T0 + start * HOUR // 2, T0 + end * HOUR // 2), 2))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from("ab")), max_size=12),
    st.integers(0, 60),
    st.integers(1, 30),
)
def test_spans_cover_any_time_without_gap_and_agree_with_every_instant(
    windows: list[tuple[int, int, str]], start: int, length: int
) -> None:
    made = FactorTable()
    for number, (begin, size, provider) in enumerate(windows, 1):
        try:
            made.add(leaf(factor(str(number), begin, begin + size, provider=provider), number))
        except TrustError:
            continue
    spans = list(made.spans("DEMO", start, start + length))
    assert spans[0].start_ns == start
    assert spans[-1].end_ns == start + length
    assert all(a.end_ns == b.start_ns and a.leaf is not b.leaf for a, b in pairwise(spans))
    for span in spans:
        assert all(made.at("DEMO", t) is span.leaf for t in range(span.start_ns, span.end_ns))
