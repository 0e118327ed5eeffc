"""Factors: the static file, exact units, and which factor applies when."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.app.load import annual_tables, table_text
from gateway.carbon.energy import Flag
from gateway.carbon.facts import Touched, joined
from gateway.carbon.grid.factors import parse_factors, to_g_per_kwh, version_of
from gateway.carbon.grid.news import news_of, restated
from gateway.carbon.grid.table import FactorLeaf, FactorTable, Span
from gateway.config.plan import GridSection
from gateway.errors import ConfigError, TrustError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Factor
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


def test_a_window_without_an_end_holds_until_the_next_of_its_key() -> None:
    entry = {key: value for key, value in ENTRY.items() if key != "end"}
    (one,) = parse_factors(toml(entry), name="f.toml")
    assert one.end_ns == UNTIL_FURTHER_NOTICE_NS
    assert len(parse_factors(toml(entry, {**entry, "start": "2024-01-01T00:00:00Z"}), name="f.toml")) == 2
    with pytest.raises(ConfigError, match=r"factor\[1\]\.start: got .*, which lies in the window of factor\[0\]"):
        parse_factors(toml(entry, ENTRY), name="f.toml")


@pytest.mark.parametrize("missing", sorted({*ENTRY} - {"end"}))
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


# ---- which factor counts

ORDER = GridSection(order=("maps", "agency", "table"), last_good_h=2)
OPEN = UNTIL_FURTHER_NOTICE_NS

Told = tuple[int, int, int | None, str]


def told(spans: Sequence[Span]) -> list[Told]:
    """Return spans in hours since T0, with the factor's value and its flag."""
    return [
        (
            (span.start_ns - T0) // HOUR,
            (span.end_ns - T0) // HOUR,
            None if span.leaf is None else int(span.leaf.factor.g_per_kwh),
            span.fallback or "",
        )
        for span in spans
    ]


def hours(value: str, start: int, end: int | None, **more: str) -> Factor:
    return factor(value, T0 + start * HOUR, OPEN if end is None else T0 + end * HOUR, **more)


def test_the_primary_then_the_secondary_then_the_last_good_then_the_annual_and_each_is_flagged() -> None:
    made = table(
        hours("400", 0, 2, provider="maps"),
        hours("500", 0, 4, provider="agency"),
        hours("300", -1000, 20, provider="table", granularity="P1Y"),
    )
    assert told(made.spans("DEMO", T0 - HOUR, T0 + 22 * HOUR, ORDER)) == [
        (-1, 0, 300, "factor_annual"),
        (0, 2, 400, ""),
        (2, 4, 500, "factor_secondary"),
        (4, 6, 500, "factor_last_good"),
        (6, 20, 300, "factor_annual"),
        (20, 22, None, ""),
    ]


def test_an_annual_factor_is_flagged_and_stands_last_wherever_the_order_names_it() -> None:
    policy = GridSection(order=("table", "maps"), last_good_h=0)
    made = table(hours("300", 0, 4, provider="table", granularity="P1Y"), hours("400", 1, 2, provider="maps"))
    assert told(made.spans("DEMO", T0, T0 + 3 * HOUR, policy)) == [
        (0, 1, 300, "factor_annual"),
        (1, 2, 400, "factor_secondary"),
        (2, 3, 300, "factor_annual"),
    ]


def test_the_last_good_is_the_one_that_ended_last_and_never_one_to_come() -> None:
    made = table(hours("400", 0, 1, provider="maps"), hours("500", 0, 2, provider="agency"), hours("600", 9, 10))
    policy = GridSection(order=("maps", "agency"), last_good_h=3)
    assert told(made.spans("DEMO", T0, T0 + 11 * HOUR, policy)) == [
        (0, 1, 400, ""),
        (1, 2, 500, "factor_secondary"),
        (2, 5, 500, "factor_last_good"),
        (5, 11, None, ""),
    ]


def test_without_a_policy_there_is_no_last_good_and_an_annual_factor_is_still_flagged() -> None:
    made = table(hours("400", 0, 1), hours("300", 0, 3, provider="table", granularity="P1Y"))
    assert told(made.spans("DEMO", T0, T0 + 4 * HOUR)) == [
        (0, 1, 400, ""),
        (1, 3, 300, "factor_annual"),
        (3, 4, None, ""),
    ]


def test_a_provider_that_the_order_does_not_name_never_counts() -> None:
    made = table(hours("1", 0, 1, provider="other"), hours("2", 0, 1, provider="agency", granularity="PT1H"))
    assert told(made.spans("DEMO", T0, T0 + HOUR, ORDER)) == [(0, 1, 2, "factor_secondary")]
    assert told(made.spans("DEMO", T0, T0 + HOUR, GridSection())) == [(0, 1, 2, "")], "no order: the first key"


@pytest.mark.parametrize("kind", ["lifecycle", "direct"])
def test_a_policy_never_mixes_lifecycle_and_direct(kind: Literal["lifecycle", "direct"]) -> None:
    made = table(
        hours("1", 0, 1, provider="maps", type="lifecycle"),
        hours("2", 1, 2, provider="maps", type="direct"),
        hours("3", 0, 9, provider="table", type="direct", granularity="P1Y"),
        hours("4", 0, 1, provider="agency", type="direct"),
    )
    policy = GridSection(order=("maps", "agency", "table"), last_good_h=1, type=kind)
    leaves = [span.leaf for span in made.spans("DEMO", T0 - 5 * HOUR, T0 + 15 * HOUR, policy)]
    assert {leaf.factor.key[3] for leaf in leaves if leaf is not None} == {kind}
    assert GridSection().type == "lifecycle"


def test_a_marginal_factor_is_no_fallback_either() -> None:
    made = table(hours("1", 0, 1, provider="maps", signal="marginal"))
    assert told(made.spans("DEMO", T0, T0 + 2 * HOUR, ORDER)) == [(0, 2, None, "")]


def test_an_open_window_is_ended_by_the_next_of_its_key() -> None:
    first, second = hours("1", 0, None), hours("2", 5, None)
    for made in (table(first, second), table(second, first)):
        assert told(made.spans("DEMO", T0 - HOUR, T0 + 9 * HOUR)) == [(-1, 0, None, ""), (0, 5, 1, ""), (5, 9, 2, "")]
        assert made.in_force(first) is not None
        assert made.overlaps(hours("3", 4, 6))
        assert made.overlaps(hours("3", 0, 2)), "another end for the same start"
        assert not made.overlaps(hours("3", 7, 8))
        assert made.add(leaf(hours("3", 7, 8), 3))
        assert told(made.spans("DEMO", T0 + 5 * HOUR, T0 + 9 * HOUR)) == [
            (5, 7, 2, ""),
            (7, 8, 3, ""),
            (8, 9, None, ""),
        ]


def test_what_the_operator_states_counts_before_all_until_he_states_otherwise() -> None:
    made = table(hours("400", 0, 9, provider="maps"))
    stated = leaf(hours("385", 2, None, provider="operator", type="unspecified"), 7)
    made.state(T0 + 2 * HOUR, zone="", leaf=stated)
    made.state(T0 + 5 * HOUR, zone="", leaf=None)
    for policy in (None, ORDER, GridSection(type="direct")):
        found = told(made.spans("DEMO", T0 + 2 * HOUR, T0 + 6 * HOUR, policy))
        assert found[0] == (2, 5, 385, "")
    assert told(made.spans("DEMO", T0, T0 + 6 * HOUR)) == [(0, 2, 400, ""), (2, 5, 385, ""), (5, 6, 400, "")]
    made.state(T0 + 3 * HOUR, zone="ELSEWHERE", leaf=stated)
    assert told(made.spans("DEMO", T0, T0 + 6 * HOUR)) == [(0, 2, 400, ""), (2, 3, 385, ""), (3, 6, 400, "")]
    assert told(made.spans("ELSEWHERE", T0, T0 + 6 * HOUR)) == [(0, 2, None, ""), (2, 6, 385, "")]


def test_the_same_value_in_a_weaker_state_changes_nothing_and_a_revised_one_always_counts() -> None:
    measured = hours("400", 0, 1, state="measured")
    made = table(measured)
    weaker = hours("400", 0, 1, state="forecast", supersedes=measured.version)
    assert not made.add(leaf(weaker, 2))
    assert news_of(made, [weaker]) == []
    revised = hours("410", 0, 1, state="estimated", supersedes=measured.version)
    assert list(news_of(made, [weaker, revised])) == [revised]
    assert made.add(leaf(revised, 3))
    stronger = hours("410", 0, 1, state="final", supersedes=revised.version)
    assert made.add(leaf(stronger, 4)), "estimated is superseded by final, though the value is the same"


def test_of_one_window_offered_twice_the_last_is_news() -> None:
    made = table(hours("1", 0, 1))
    held = made.at("DEMO", T0)
    assert held is not None
    news = news_of(made, [hours("2", 0, 1), hours("3", 0, 1), hours("9", 1, 2)])
    assert [(int(one.g_per_kwh), one.supersedes) for one in news] == [(3, held.factor.version), (9, "")]
    assert list(news_of(made, [hours("2", 0, 1), hours("1", 0, 1)])) == [], "back to what is in force"


def test_offered_windows_that_overlap_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"factors: got .*, which overlaps"):
        news_of(FactorTable(), [hours("1", 0, 2), hours("2", 1, 3)])
    assert len(news_of(FactorTable(), [hours("1", 0, None), hours("2", 1, 3)])) == 2


def test_a_restatement_says_old_new_delta_and_why() -> None:
    old, new = hours("400", 0, 1, state="estimated"), hours("384.5", 0, 1, state="measured")
    assert restated(old, new) == {
        "key": ["demo", "DEMO", "average", "lifecycle", ""],
        "start": T0,
        "end": T0 + HOUR,
        "old": "400",
        "new": "384.5",
        "delta": "-15.5",
        "reason": "state estimated to measured, value revised",
    }


def test_a_restatement_names_both_sources_where_another_one_speaks() -> None:
    old, new = (replace(hours(value, 0, 1), source=source) for value, source in (("400", "zone DE"), ("90", "zone FR")))
    assert restated(old, new)["reason"] == "value revised, source zone FR, was zone DE"


@pytest.mark.parametrize(
    ("windows", "new", "until"),
    [
        ([], (0, 1), 3),
        ([(2, 3)], (0, 1), 2),
        ([(1, 2)], (0, 1), 1),
        ([(9, 10)], (0, 1), 3),
        ([(-5, None)], (0, 1), None),
        ([(-5, None), (4, 5)], (0, 1), 4),
        ([(4, 5)], (0, None), 4),
    ],
)
def test_a_new_factor_reaches_as_far_as_it_may_be_the_last_good_one(
    windows: list[tuple[int, int | None]], new: tuple[int, int | None], until: int | None
) -> None:
    made = table(*(hours("1", start, end) for start, end in windows))
    one = hours("2", *new)
    made.add(leaf(one, 9))
    assert made.reach(one, 2 * HOUR) == (OPEN if until is None else T0 + until * HOUR)


def test_windows_that_meet_are_computed_once() -> None:
    windows = [Touched(5, 7, zone="A"), Touched(0, 3, zone="A"), Touched(3, 5, zone="B"), Touched(2, 5, zone="A")]
    assert joined(windows) == [Touched(0, 7, zone="A"), Touched(3, 5, zone="B")]
    assert joined([]) == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(1, 12),
            st.sampled_from(["maps", "agency", "table", "x"]),
            st.sampled_from(["", "PT1H", "P1Y"]),
            st.sampled_from(["lifecycle", "direct"]),
            st.booleans(),
        ),
        max_size=14,
    ),
    st.sampled_from([None, ORDER, GridSection(last_good_h=5 / 3_600_000_000_000)]),
    st.integers(0, 50),
    st.integers(1, 30),
)
@example(
    [
        (0, 1, "maps", "", "lifecycle", False),
        (0, 1, "maps", "PT1H", "lifecycle", True),
        (2, 1, "maps", "", "lifecycle", False),
        (2, 1, "maps", "PT1H", "lifecycle", False),
    ],
    None,
    0,
    4,
)
def test_what_lost_may_be_left_out_and_the_choice_is_the_same(
    windows: list[tuple[int, int, str, str, str, bool]], policy: GridSection | None, start: int, length: int
) -> None:
    """An export shows only the factors that rows rest on, and what ends an open window of these."""
    made, leaves = FactorTable(), {}
    for number, (begin, size, provider, granularity, kind, is_open) in enumerate(windows, 1):
        more = {"provider": provider, "granularity": granularity, "type": kind}
        leaves[number] = leaf(factor(str(number), begin, OPEN if is_open else begin + size, **more), number)
        with contextlib.suppress(TrustError):
            made.add(leaves[number])
    spans = made.spans("DEMO", start, start + length, policy)
    assert spans[0].start_ns == start
    assert spans[-1].end_ns == start + length
    assert all(a.end_ns == b.start_ns and (a.leaf, a.fallback) != (b.leaf, b.fallback) for a, b in pairwise(spans))
    alone = FactorTable()
    rested: frozenset[int | None] = frozenset(span.leaf.index for span in spans if span.leaf is not None)
    for number, one in leaves.items():
        if number in rested | made.enders(rested):
            alone.add(one)
    assert alone.spans("DEMO", start, start + length, policy) == spans
    for span in spans:
        assert all(alone.at("DEMO", t, policy) is span.leaf for t in range(span.start_ns, span.end_ns))


def test_a_lookup_costs_no_more_among_many_factors() -> None:
    def cost_s(count: int) -> float:
        made = FactorTable()
        for n in range(count):
            made.add(leaf(hours(str(n % 500 + 1), n, n + 1, provider="maps"), n))
        begun = perf_counter()
        for minute in range(3000):
            made.spans("DEMO", T0 + minute * HOUR // 60, T0 + (minute + 1) * HOUR // 60, ORDER)
        return perf_counter() - begun

    few, many = (min(cost_s(count) for _ in range(5)) for count in (60, 6000))
    assert many < 3 * few


# ---- tables that come with the program


def test_each_annual_table_parses_and_says_where_it_is_from() -> None:
    assert {"desnz-2025", "egrid-2023"} <= set(annual_tables())
    for name in ("desnz-2025", "egrid-2023"):
        text = table_text(name)
        assert "# Verified " in text
        assert "NOT verified" in text
        for one in parse_factors(text, name=name):
            assert (one.key[2], one.key[4], one.state) == ("average", "P1Y", "final")


def test_the_annual_tables_give_the_vectors() -> None:
    found = {
        one.key[1]: one for name in ("egrid-2023", "desnz-2025") for one in parse_factors(table_text(name), name=name)
    }
    assert str(found["CAMX"].g_per_kwh) == "195.03700802971"
    assert found["ERCT"].g_per_kwh == to_g_per_kwh(Decimal("736.629"), "lb/MWh")
    assert found["NEWE"].g_per_kwh == to_g_per_kwh(Decimal("543.178"), "lb/MWh")
    assert found["GB"].g_per_kwh == 177
    assert found["CAMX"].end_ns == OPEN
    made = table(*found.values())
    (span,) = made.spans("GB", found["GB"].start_ns, found["GB"].start_ns + HOUR)
    assert span.fallback is Flag.FACTOR_ANNUAL


def test_a_table_that_there_is_not_has_no_text() -> None:
    for name in ("nowhere-2025", "generation-mix", "../devices/x"):
        with pytest.raises(KeyError):
            table_text(name)
