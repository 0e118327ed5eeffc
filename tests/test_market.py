"""Market-based Scope 2: who claims what, in which order, and once. And marginal figures, which claim nothing."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carbon.exact import total
from gateway.carbon.scopes.loads import Load, loads_of
from gateway.carbon.scopes.marginal import Marginal, shifted_load
from gateway.carbon.scopes.market import (
    Instrument,
    MarketFlag,
    Matching,
    Settled,
    claimed,
    instruments_of,
    settle,
    settle_by,
)
from gateway.config.plan import parse_plan
from gateway.errors import ConfigError
from tests.line_leaves import MINUTE, energy, factor, line, minutes
from tests.plans import cells_of, planned, rows_of

HOUR = 3_600_000_000_000
T0 = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
YEAR = 365 * 24 * HOUR
KWH = 1_000_000
NONE: frozenset[MarketFlag] = frozenset()


def hour(number: int, kwh: int = 100, *, zone: str = "DE", g_per_kwh: str | None = "400") -> Load:
    return Load(
        zone=zone,
        start_ns=T0 + number * HOUR,
        end_ns=T0 + (number + 1) * HOUR,
        load_mwh=kwh * KWH,
        location_g_per_kwh=None if g_per_kwh is None else Decimal(g_per_kwh),
    )


def instrument(name: str = "ppa", kwh: int = 170, **more: Any) -> Instrument:
    fields: dict[str, Any] = {
        "id": name,
        "type": "contract",
        "volume_mwh": kwh * KWH,
        "g_per_kwh": Decimal(0),
        "vintage": 2026,
        "zone": "DE",
        "start_ns": T0,
        "end_ns": T0 + YEAR,
    }
    return Instrument(**(fields | more))


PPA = instrument(hourly_mwh=(150 * KWH, 20 * KWH, *[0] * 22))
RESIDUAL = {"DE": Decimal(500)}


def kg(settled: tuple[Settled, ...]) -> Decimal:
    return total(one.co2e_g for one in settled if one.co2e_g is not None) / 1000


def claims(settled: tuple[Settled, ...]) -> list[list[tuple[str, int]]]:
    return [[(claim.instrument, claim.mwh // KWH) for claim in one.claims] for one in settled]


def test_two_hours_of_100_kwh_under_a_ppa_of_150_and_20() -> None:
    """Location 80 kg; market by the hour 40 kg, by the year 15 kg."""
    loads = [hour(0), hour(1)]
    by_hour = settle(loads, [PPA], matching=Matching.HOURLY, residuals=RESIDUAL)
    by_year = settle(loads, [PPA], matching=Matching.ANNUAL, residuals=RESIDUAL)
    assert (kg(by_hour), kg(by_year)) == (Decimal(40), Decimal(15))
    assert claims(by_hour) == [[("ppa", 100)], [("ppa", 20)]]
    assert claims(by_year) == [[("ppa", 85)], [("ppa", 85)]]
    for settled in (by_hour, by_year):
        assert total(one.location_g for one in settled if one.location_g is not None) == 80_000
        assert {one.flags for one in settled} == {NONE}
    assert [one.g_per_kwh for one in by_hour] == [Decimal(0), Decimal(400)]
    assert {one.g_per_kwh for one in by_year} == {Decimal(75)}


def test_certificates_come_before_contracts_and_these_before_supplier_rates() -> None:
    three = [
        instrument("rate", 100, type="supplier", g_per_kwh=Decimal(300)),
        instrument("ppa", 30),
        instrument("goo", 20, type="certificate"),
    ]
    settled = settle([hour(0)], three, matching=Matching.ANNUAL, residuals=RESIDUAL)
    assert claims(settled) == [[("goo", 20), ("ppa", 30), ("rate", 50)]]
    assert kg(settled) == 15


def test_the_instrument_that_the_operator_chose_comes_first() -> None:
    two = [instrument("goo", 80, type="certificate"), instrument("rate", 60, type="supplier", g_per_kwh=Decimal(100))]
    settled = settle([hour(0)], two, matching=Matching.ANNUAL, first="rate")
    assert claims(settled) == [[("rate", 60), ("goo", 40)]]
    assert settled[0].location_g == 40_000


def test_an_unknown_choice_is_said_and_changes_nothing() -> None:
    loads = [hour(0)]
    said = settle(loads, [PPA], matching=Matching.ANNUAL, residuals=RESIDUAL, first="gone")
    plain = settle(loads, [PPA], matching=Matching.ANNUAL, residuals=RESIDUAL)
    assert said[0].flags == {MarketFlag.UNKNOWN_OFFSET}
    assert said[0].claims == plain[0].claims


@pytest.mark.parametrize(
    "other",
    [
        instrument(zone="FR"),
        instrument(vintage=2025),
        instrument(start_ns=T0 + HOUR),
        instrument(end_ns=T0 + HOUR - 1),
    ],
    ids=["zone", "vintage", "not yet valid", "no longer valid"],
)
@pytest.mark.parametrize("matching", Matching)
def test_an_instrument_of_another_zone_year_or_time_meets_nothing(other: Instrument, matching: Matching) -> None:
    hourly = replace(other, hourly_mwh=(100 * KWH,) * 24)
    (settled,) = settle([hour(0)], [hourly], matching=matching, residuals=RESIDUAL)
    assert (settled.claims, settled.residual_mwh, settled.co2e_g) == ((), 100 * KWH, Decimal(50_000))


def test_without_a_residual_mix_the_grid_average_stands_in_and_is_said() -> None:
    (settled,) = settle([hour(0)], [instrument(kwh=40)], matching=Matching.ANNUAL)
    assert (settled.co2e_g, set(settled.flags)) == (Decimal(24_000), {MarketFlag.GRID_AVERAGE})


def test_without_any_factor_what_is_left_has_no_co2e_and_a_load_that_is_met_has() -> None:
    loads = [hour(0, g_per_kwh=None), hour(1, g_per_kwh=None)]
    settled = settle(loads, [instrument(kwh=100, end_ns=T0 + HOUR)], matching=Matching.ANNUAL)
    assert [one.co2e_g for one in settled] == [Decimal(0), None]
    assert [one.location_g for one in settled] == [None, None]
    assert [one.flags for one in settled] == [NONE, {MarketFlag.NO_FACTOR}]
    assert settled[1].g_per_kwh is None


def test_an_instrument_without_a_profile_meets_nothing_by_the_hour_and_that_is_said() -> None:
    (settled,) = settle([hour(0)], [instrument()], matching=Matching.HOURLY, residuals=RESIDUAL)
    assert (settled.claims, set(settled.flags)) == ((), {MarketFlag.NO_HOURLY_PROFILE})


def test_a_delivery_meets_no_load_that_is_longer_than_its_hour() -> None:
    long = replace(hour(0), end_ns=T0 + 2 * HOUR)
    (settled,) = settle([long], [PPA], matching=Matching.HOURLY, residuals=RESIDUAL)
    assert settled.claims == ()


def test_quarters_of_an_hour_share_its_delivery() -> None:
    quarter = HOUR // 4
    loads = [
        replace(hour(0, 50), start_ns=T0 + number * quarter, end_ns=T0 + (number + 1) * quarter) for number in range(4)
    ]
    settled = settle(loads, [PPA], matching=Matching.HOURLY, residuals=RESIDUAL)
    assert claims(settled) == [[("ppa", 50)], [("ppa", 50)], [("ppa", 50)], []]


def test_by_the_hour_no_more_is_delivered_than_the_volume() -> None:
    daily = instrument(kwh=150, hourly_mwh=(100 * KWH,) * 24)
    settled = settle([hour(n) for n in range(4)], [daily], matching=Matching.HOURLY, residuals=RESIDUAL)
    assert claims(settled) == [[("ppa", 100)], [("ppa", 50)], [], []]


def test_a_load_below_nothing_is_met_by_nothing() -> None:
    (settled,) = settle([hour(0, -5)], [PPA], matching=Matching.ANNUAL, residuals=RESIDUAL)
    assert (settled.claims, settled.residual_mwh, settled.co2e_g) == ((), -5 * KWH, Decimal(-2500))


def test_what_is_met_and_what_is_left_make_one_factor() -> None:
    (settled,) = settle([hour(0)], [instrument(kwh=40)], matching=Matching.ANNUAL, residuals=RESIDUAL)
    assert settled.g_per_kwh == 300
    (nothing,) = settle([hour(0, 0)], [], matching=Matching.ANNUAL)
    assert (nothing.g_per_kwh, nothing.co2e_g) == (None, Decimal(0))


def test_a_plans_instruments_are_read_exactly() -> None:
    toml = (
        '[instruments.wind-2026]\ntype = "contract"\nvolume_mwh = "0.17"\nfactor_g_per_kwh = "11.5"\nvintage = 2026\n'
        'zone = "DE"\nvalid_from = "2026-01-01"\nvalid_to = "2027-01-01"\n'
        'hourly_mwh = ["0.15", "0.02"' + ', "0"' * 22 + "]\n"
    )
    (one,) = instruments_of(parse_plan(toml, name="plan"))
    assert one == instrument("wind-2026", g_per_kwh=Decimal("11.5"), hourly_mwh=PPA.hourly_mwh)


@pytest.mark.parametrize(("matching", "kg_in_all"), [("hourly", 40), ("annual", 15)])
def test_a_plan_says_how_loads_are_settled(matching: str, kg_in_all: int) -> None:
    toml = f'[market]\nmatching = "{matching}"\n[market.residual.DE]\ng_per_kwh = "500"\n'
    toml += '[instruments.ppa]\ntype = "contract"\n'
    toml += 'volume_mwh = "0.17"\nvintage = 2026\nzone = "DE"\nvalid_from = "2026-01-01"\nvalid_to = "2027-01-01"\n'
    toml += 'hourly_mwh = ["0.15", "0.02"' + ', "0"' * 22 + "]\n"
    assert kg(settle_by(parse_plan(toml, name="plan"), [hour(0), hour(1)], first="ppa")) == kg_in_all


@pytest.mark.parametrize("matching", Matching)
def test_a_residual_mix_is_of_its_own_zone_and_another_zone_counts_its_grid_average(matching: Matching) -> None:
    """100 kWh at 40 g/kWh in France are 4 kg, flagged; never 56.1 kg by the mix of Germany."""
    plan = parse_plan(
        f'[market]\nmatching = "{matching}"\n[market.residual.DE]\ng_per_kwh = "561"\nsource = "AIB"\n', name="plan"
    )
    german, french = settle_by(plan, [hour(0), hour(0, zone="FR", g_per_kwh="40")])
    assert (german.co2e_g, german.flags) == (Decimal(56_100), NONE)
    assert (french.co2e_g, french.flags) == (Decimal(4_000), frozenset({MarketFlag.GRID_AVERAGE}))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            '[market]\nresidual_g_per_kwh = "561"',
            "plan: market.residual_g_per_kwh: got '561', one residual mix for all zones, want [market.residual.<zone>]",
        ),
        ('[market]\nresidual = "561"', "plan: market.residual: got '561', want [market.residual.<zone>]"),
        ('[market.residual.DE]\nsource = "AIB"', "plan: market.residual.DE.g_per_kwh: got nothing, want a number"),
        ('[market.residual.""]\ng_per_kwh = "1"', "plan: market.residual: got the zone ''"),
        ("[[market]]", "plan: market: got [{}], want a section [market]"),
        ('[market]\nmatch = "annual"', "plan: market.match: got an unknown key, want one of matching, residual"),
    ],
)
def test_a_residual_mix_without_its_zone_is_refused(toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(toml, name="plan")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2027-01-01", "2026-01-01", "valid_to: got '2026-01-01', want a day after '2026-01-01'"),
        ("2027-01-01", "2027-02-30", "got '2027-02-30', want a date that there is"),
        ('zone = "DE"', 'zone = "DE"\nhourly_mwh = ["1"]', "hourly_mwh: got 1 numbers, want 24, or none"),
    ],
)
def test_an_instrument_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    toml = (
        '[instruments.a]\ntype = "contract"\nvolume_mwh = "1"\nvintage = 2026\nzone = "DE"\n'
        'valid_from = "2026-01-01"\nvalid_to = "2027-01-01"\n'
    )
    with pytest.raises(ConfigError) as caught:
        parse_plan(toml.replace(old, new), name="plan")
    assert message in str(caught.value)


def test_figures_come_to_one_load_an_hour_and_factor_and_fuels_to_none() -> None:
    schema = line(energy("a.e"), energy("b.e"))
    known = planned("", factor("400", T0, T0 + 2 * MINUTE), factor("500", T0 + 2 * MINUTE, T0 + HOUR))
    rows = rows_of(cells_of(minutes(schema, [["0", "0"], ["1", "2"], ["2", "4"], ["3", None]], t0=T0), schema, known))
    assert loads_of(rows) == (
        replace(hour(0, 6, zone="DEMO"), location_g_per_kwh=Decimal(400)),
        replace(hour(0, 1, zone="DEMO"), location_g_per_kwh=Decimal(500)),
    )
    fuel = rows[0]._replace(scope="1")
    assert loads_of([fuel]) == ()
    long = rows[0]._replace(end_ns=T0 + 2 * HOUR)
    assert [(one.start_ns, one.end_ns) for one in loads_of([long])] == [(T0, T0 + 2 * HOUR)]


LOADS = st.lists(
    st.builds(
        lambda number, mwh, zone: replace(hour(number, zone=zone), load_mwh=mwh),
        st.integers(0, 30),
        st.integers(-(10**6), 10**12),
        st.sampled_from(("DE", "FR")),
    ),
    max_size=12,
)
INSTRUMENTS = st.lists(
    st.builds(
        lambda name, mwh, kind, zone, hourly, start: instrument(
            name, type=kind, volume_mwh=mwh, zone=zone, hourly_mwh=(hourly,) * 24, start_ns=T0 + start * HOUR
        ),
        st.text("abc", min_size=1, max_size=4),
        st.integers(0, 10**12),
        st.sampled_from(("certificate", "contract", "supplier")),
        st.sampled_from(("DE", "FR")),
        st.integers(0, 10**11),
        st.integers(0, 10),
    ),
    max_size=5,
    unique_by=lambda one: one.id,
)


@given(LOADS, INSTRUMENTS, st.sampled_from(Matching), st.sampled_from(("", "a", "b")))
def test_each_mwh_is_claimed_once_and_location_never_changes(
    loads: list[Load], instruments: list[Instrument], matching: Matching, first: str
) -> None:
    settled = settle(loads, instruments, matching=matching, residuals=RESIDUAL, first=first)
    assert [one.load for one in settled] == loads
    volumes = {one.id: one.volume_mwh for one in instruments}
    assert all(mwh <= volumes[name] for name, mwh in claimed(settled).items())
    without = settle(loads, [], matching=matching)
    for one, bare in zip(settled, without, strict=True):
        assert sum(claim.mwh for claim in one.claims) + one.residual_mwh == one.load.load_mwh
        assert all(claim.mwh > 0 for claim in one.claims)
        assert one.load.load_mwh < 0 or one.residual_mwh >= 0
        assert one.location_g == bare.location_g


@given(LOADS, INSTRUMENTS)
def test_by_the_year_all_of_an_instrument_is_used_before_any_residual(
    loads: list[Load], instruments: list[Instrument]
) -> None:
    always = [replace(one, start_ns=T0) for one in instruments]
    settled = settle(loads, always, matching=Matching.ANNUAL, residuals=RESIDUAL)
    for zone in ("DE", "FR"):
        volume = sum(one.volume_mwh for one in always if one.zone == zone)
        load = sum(max(0, one.load_mwh) for one in loads if one.zone == zone)
        met = sum(claim.mwh for one in settled if one.load.zone == zone for claim in one.claims)
        assert met == min(volume, load)


MARGINAL = [
    factor("900", T0, T0 + HOUR, signal="marginal"),
    factor("300", T0 + HOUR, T0 + 2 * HOUR, signal="marginal", granularity="PT1H"),
    factor("400", T0, T0 + YEAR),
]


def test_a_load_that_runs_an_hour_later_saves_by_the_marginal_factors() -> None:
    found = shifted_load(10 * KWH, zone="DEMO", now_ns=T0, then_ns=T0 + HOUR, factors=MARGINAL)
    assert (found.change_g, found.method) == (Decimal(-6000), "marginal")
    assert [found.now, found.then] == MARGINAL[:2]


def test_an_average_factor_never_stands_in_for_a_marginal_one() -> None:
    with pytest.raises(ConfigError, match="got no marginal factor of DEMO at 2026-01-01T02:00:00Z"):
        shifted_load(KWH, zone="DEMO", now_ns=T0, then_ns=T0 + 2 * HOUR, factors=MARGINAL)


def test_a_marginal_figure_cannot_be_added_to_the_ledgers() -> None:
    found: Any = shifted_load(KWH, zone="DEMO", now_ns=T0, then_ns=T0 + HOUR, factors=MARGINAL)
    assert isinstance(found, Marginal)
    for add in (
        lambda: found + Decimal(1),
        lambda: Decimal(1) + found,
        lambda: sum([found, found]),
        lambda: total((found,)),  # type: ignore[arg-type] # it is what mypy refuses, too
    ):
        with pytest.raises(TypeError):
            add()
