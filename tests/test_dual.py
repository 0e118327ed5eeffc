"""Scope 2 by both methods, from the tables: reports, statements, instruments, and what a shifted load changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.app.dual import list_instruments, read_match
from gateway.app.explaining import explain_record
from gateway.app.reporting import ReportWish, make_report
from gateway.carbon.facts import Facts
from gateway.carbon.kpi.dual import Match, has_market, match_year, year_bounds, year_of
from gateway.carbon.kpi.periods import record_of
from gateway.carbon.kpi.statements import without_market
from gateway.carbon.scopes.loads import Load, loads_from, loads_of
from gateway.cli import run
from gateway.codec.bodies import document_body, epoch_body, interval_body, line_body
from gateway.codec.leaves import seal
from gateway.config.plan import parse_plan
from gateway.model import Clock, ClockState, Document, Interval, Quality, Sample
from gateway.store import projections as tables
from gateway.store.projections import Slice
from tests.ledgering import SIGNERS, Scroll
from tests.line_leaves import factor
from tests.plans import planned
from tests.shifts import DAY, FILLING, HOUR, MINUTE, MONDAY, PLAN, SECOND, SIX, Shop, hours

EARLY, LATE = "2026-01-05/early", "2026-01-05/late"
MARKET = '[market.residual.DEMO]\ng_per_kwh = "500"\nsource = "AIB"\n'
HOURLY = MARKET + '[market]\nmatching = "hourly"\n'
T0 = year_bounds(2026)[0]
KWH = 1_000_000
PACKING = replace(FILLING, name="packing", context=())


def instrument(name: str = "wind", mwh: str = "0.6", *, more: str = "", vintage: int = 2026) -> str:
    return (
        f'[instruments.{name}]\ntype = "contract"\nvolume_mwh = "{mwh}"\nvintage = {vintage}\nzone = "DEMO"\n'
        f'valid_from = "{vintage}-01-01"\nvalid_to = "{vintage + 1}-01-01"\n{more}'
    )


RATE = instrument("rate", "0.3").replace("contract", "supplier") + 'factor_g_per_kwh = "100"\n'


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Return a shop of 60 kWh an hour at 400 g/kWh, before its first shift; nothing of it is planned yet."""
    made = Shop(tmp_path / "shop", memory=False)
    (made.folder / "ledger.toml").write_text(made.hall.toml)
    made.offer(hours(*["400"] * 24))
    made.shows()
    made.give()
    yield made
    made.hall.ledger.close()


def worked(shop: Shop, plan: str, quarters: int = 64) -> Shop:
    """Seal a plan and work two shifts by it, 480 kWh each."""
    shop.plan(PLAN + plan)
    shop.run(quarters)
    return shop


def rows(shop: Shop, **wish: Any) -> list[dict[str, str]]:
    return [row["figures"] for row in make_report(shop.hall.config, ReportWish(**wish))["rows"]]


def stated(shop: Shop, shift: str = EARLY) -> list[dict[str, str]]:
    with shop.hall.ledger.book.reading() as connection:
        found = tables.statements(connection, record=record_of("gw1", "filling", shift))
    return [json.loads(one.figures) for one in found]


def pack(shop: Shop, kwh: int, hours: int = 16) -> None:
    """Have another gateway's line, in the same zone, draw so much in each of so many hours."""
    leaves: list[bytes] = []

    def add(kind: str, body: bytes, t_ns: int, prev: int | None = None) -> None:
        clock = Clock(t_ns=t_ns + SECOND, state=ClockState.SYNCHRONISED, offset_ns=0)
        leaves.append(seal(kind, body, clock=clock, prev=prev))

    add("epoch", epoch_body(1, SIGNERS["gw2"].verifier.vkey, {"type": "unattested"}), SIX)
    add("schema", line_body(PACKING), SIX)
    for quarter in range(4 * hours + 1):
        t_ns = SIX + quarter * 15 * MINUTE
        values = (Decimal(kwh * quarter) / 4, Decimal(0), Decimal(0), Decimal(0))
        samples = tuple(
            Sample(point=column.point, source_time_ns=t_ns, raw=b"\0\1", value=value, quality=Quality.GOOD)
            for column, value in zip(PACKING.columns, values, strict=True)
        )
        body = interval_body(Interval(schema_id=PACKING.id, t_ns=t_ns, samples=samples))
        add("interval", body, t_ns, len(leaves) - 1 if quarter else None)
    shop.hall.take("gw2", [Scroll(SIGNERS["gw2"], list(leaves)).message(0)])


# --- reports ---


def test_a_report_says_both_methods_side_by_side(shop: Shop) -> None:
    """960 kWh: 600 are met, 360 count the residual mix of 500: 180 kg, half of it each shift's. By the grid: 384 kg."""
    worked(shop, MARKET + instrument())
    found = make_report(shop.hall.config, ReportWish())
    early, late = (row["figures"] for row in found["rows"])
    for row in (early, late):
        assert (row["co2e_kg"], row["market_co2e_kg"], row["market_method"]) == ("192", "90", "annual")
        assert (row["market_instruments"], row["market.wind.mwh"]) == ("wind", "0.3")
        assert (row["market_residual_kwh"], row["market_residual"]) == ("180", "DEMO: 500 g/kWh, AIB")
        assert (row["market_flags"], row["market_without_factor_kwh"], row["market_state"]) == ("", "0", "provisional")
    (year,) = found["market"]
    assert (year["year"], year["method"]) == (2026, "annual")
    assert year["matched"] == "2026-01-01T00:00:00Z/2026-01-05T22:00:00Z"
    assert year["plan_sha256"] == shop.hall.ledger.facts.plan_at(SIX).sha256


def test_without_instruments_a_report_says_so_and_shows_no_column(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    worked(shop, "")
    found = make_report(shop.hall.config, ReportWish())
    assert found["market"] == []
    assert {row["figures"]["market_method"] for row in found["rows"]} == {"no instruments"}
    assert not [name for name in found["rows"][0]["figures"] if name.startswith("market") and name != "market_method"]
    assert [name for one in stated(shop) for name in one if name.startswith("market")] == []
    assert run(["report", str(shop.folder / "ledger.toml")]) == 0
    assert "market" not in capsys.readouterr().out.lower()


def test_a_ledger_without_any_document_reports_by_location_alone(shop: Shop) -> None:
    shop.run(4)
    assert {row["market_method"] for row in rows(shop)} == {"no instruments"}


def test_the_match_is_over_all_lines_though_one_is_reported(shop: Shop) -> None:
    """Another gateway's line draws as much again: half of the instrument is its, and both claim 0.6 MWh in all."""
    worked(shop, MARKET + instrument())
    pack(shop, 60)
    (line,) = rows(shop, line="filling", by="line")
    assert (line["energy_kwh"], line["market.wind.mwh"], line["market_co2e_kg"]) == ("960", "0.3", "330")
    both = rows(shop, by="line")
    assert [row["market.wind.mwh"] for row in both] == ["0.3", "0.3"]


@pytest.mark.parametrize("by", ["line", "shift", "product", "job", "recipe", "day"])
def test_rows_of_any_kind_claim_the_same_in_all(shop: Shop, by: str) -> None:
    worked(shop, MARKET + instrument())
    found = rows(shop, by=by)
    assert sum(Decimal(row["market_co2e_kg"]) for row in found) == 180
    assert sum(Decimal(row["market.wind.mwh"]) for row in found) == Decimal("0.6")


def test_by_the_hour_only_what_is_delivered_then_is_claimed(shop: Shop) -> None:
    """50 kWh from 06 to 08, 100 from 14 to 15 of which 60 are drawn: 100 met of the early shift, 60 of the late."""
    profile = ", ".join(f'"{ {6: "0.05", 7: "0.05", 14: "0.1"}.get(hour, "0") }"' for hour in range(24))
    worked(shop, HOURLY + instrument(mwh="10", more=f"hourly_mwh = [{profile}]\n"))
    early, late = rows(shop)
    assert (early["market.wind.mwh"], late["market.wind.mwh"]) == ("0.1", "0.06")
    assert (early["market_co2e_kg"], late["market_co2e_kg"]) == ("190", "210")
    assert {(row["market_method"], row["market_state"]) for row in (early, late)} == {("hourly", "final")}


def test_without_a_residual_mix_the_grid_average_stands_in_and_is_flagged(shop: Shop) -> None:
    worked(shop, instrument())
    early, _ = rows(shop)
    assert (early["market_co2e_kg"], early["market_residual"]) == ("72", "DEMO: grid average")
    assert early["market_flags"] == "grid_average"


def test_energy_without_any_factor_is_said_and_never_zero(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", memory=False)
    shop.plan(PLAN + instrument(mwh="0.12"))
    shop.shows()
    shop.run(32)
    (row,) = rows(shop)
    assert (row["co2e_kg"], row["market_co2e_kg"], row["market_without_factor_kwh"]) == ("", "0", "360")
    shop.plan(PLAN + "[market]\nmatching = 'hourly'\n")
    (row,) = rows(shop)
    assert (row["market_co2e_kg"], row["market_without_factor_kwh"], row["market_flags"]) == ("", "480", "no_factor")
    shop.hall.ledger.close()


def settings(shop: Shop, **said: str) -> None:
    content = json.dumps(said).encode()
    shop.hall.ledger.seal("document", document_body(Document(name="grid-settings", from_ns=MONDAY, content=content)))


def test_the_instrument_of_grid_settings_comes_first(shop: Shop) -> None:
    """Wind alone would meet all 960 kWh; the rate of 300 kWh at 100 g/kWh comes first, where it is the operator's."""
    worked(shop, MARKET + instrument(mwh="2") + RATE)
    assert [row["market_co2e_kg"] for row in rows(shop)] == ["0", "0"]
    settings(shop, offset_id="rate")
    found = make_report(shop.hall.config, ReportWish())
    assert [row["figures"]["market_co2e_kg"] for row in found["rows"]] == ["15", "15"]
    assert [row["figures"]["market.rate.mwh"] for row in found["rows"]] == ["0.15", "0.15"]
    assert found["market"][0]["offset_id"] == "rate"
    assert [row["figures"]["co2e_kg"] for row in found["rows"]] == ["192", "192"]


def test_a_choice_for_another_zone_counts_not_and_one_that_is_unknown_is_flagged(shop: Shop) -> None:
    worked(shop, MARKET + instrument(mwh="2") + RATE)
    settings(shop, offset_id="rate", zone="FR")
    assert [(row["market_co2e_kg"], row["market_flags"]) for row in rows(shop)] == [("0", "")] * 2
    settings(shop, offset_id="gone")
    assert [(row["market_co2e_kg"], row["market_flags"]) for row in rows(shop)] == [("0", "unknown_offset")] * 2


def test_location_based_never_changes_because_of_the_market(tmp_path: Path) -> None:
    said = []
    for name, more in (("plain", ""), ("market", MARKET + instrument()), ("hourly", HOURLY + RATE)):
        shop = Shop(tmp_path / name, memory=False)
        shop.offer(hours(*["400"] * 24))
        shop.shows()
        worked(shop, more)
        figures = [without_market(row) for row in rows(shop)]
        closed = [without_market(stated(shop, shift)[0]) for shift in (EARLY, LATE)]
        said.append((shop.hall.totals(), figures, closed))
        shop.hall.ledger.close()
    assert said[0] == said[1] == said[2]


def test_the_screen_shows_the_column_the_method_and_the_claims(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    worked(shop, instrument())
    toml = str(shop.folder / "ledger.toml")
    assert run(["report", toml, "--by", "line"]) == 0
    out = capsys.readouterr().out
    assert "annual matching of 2026-01-01T00:00:00Z/2026-01-05T22:00:00Z over all lines, provisional" in out
    assert "the rest counts DEMO: grid average" in out
    assert "wind: 0.6 MWh claimed by these rows" in out
    assert "grid_average" in out


# --- statements ---


def test_a_statement_says_the_match_of_the_year_up_to_its_shifts_end(shop: Shop) -> None:
    """At 14:00 the instrument met all; at 22:00 600 of 960 kWh. The early shift's statement stays as it is."""
    worked(shop, MARKET + instrument())
    (early,), (late,) = stated(shop), stated(shop, LATE)
    assert (early["co2e_kg"], early["market_co2e_kg"], early["market.wind.mwh"]) == ("192", "0", "0.48")
    assert (late["co2e_kg"], late["market_co2e_kg"], late["market.wind.mwh"]) == ("192", "90", "0.3")
    assert early["market_matched"] == "2026-01-01T00:00:00Z/2026-01-05T14:00:00Z"
    assert {one["market_state"] for one in (early, late)} == {"provisional"}


def test_what_only_changes_the_match_states_nothing_anew(shop: Shop) -> None:
    worked(shop, MARKET + instrument())
    before = stated(shop)
    settings(shop, offset_id="gone")
    shop.look()
    shop.plan(PLAN + MARKET + instrument(mwh="0.1"))
    shop.look()
    pack(shop, 60)
    shop.look()
    assert stated(shop) == before


def test_a_restated_shift_is_stated_by_both_methods_anew(shop: Shop) -> None:
    worked(shop, instrument(mwh="0.24"))
    shop.offer(hours("500", state="final"))
    shop.look()
    closed, restated = stated(shop)
    assert (closed["co2e_kg"], restated["co2e_kg"]) == ("192", "198")
    assert (closed["market_co2e_kg"], restated["market_co2e_kg"]) == ("96", "99")


def test_explain_computes_the_location_based_figures_again_and_shows_the_market_based_as_stated(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    worked(shop, MARKET + instrument())
    record = record_of("gw1", "filling", EARLY)
    assert explain_record(shop.hall.config, record)["equal"]
    pack(shop, 60)
    assert explain_record(shop.hall.config, record)["equal"]
    assert run(["explain", str(shop.folder / "ledger.toml"), record]) == 0
    assert "market_co2e_kg: 0 (as stated: of the year's match at that time)" in capsys.readouterr().out


def test_statements_are_the_same_after_a_rebuild(shop: Shop) -> None:
    worked(shop, MARKET + instrument())
    dumped = shop.hall.dump()
    assert shop.hall.dump_rebuilt() == dumped


# --- instruments ---


def test_instruments_say_what_is_claimed_and_left_and_by_whom(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    worked(shop, MARKET + instrument(mwh="0.6") + RATE.replace("0.3", "5") + instrument("old", vintage=2025))
    pack(shop, 20)
    found = list_instruments(shop.hall.config, year=None, clock=lambda: 0)
    wind, rate = found["instruments"]
    assert (wind["volume_mwh"], wind["claimed_mwh"], wind["left_mwh"]) == ("0.6", "0.6", "0")
    assert wind["lines"] == {"gw1/filling": "0.45", "gw2/packing": "0.15"}
    assert (rate["volume_mwh"], rate["claimed_mwh"], rate["left_mwh"]) == ("5", "0.68", "4.32")
    assert rate["lines"] == {"gw1/filling": "0.51", "gw2/packing": "0.17"}
    assert (wind["zone"], wind["vintage"], wind["valid_from"], wind["valid_to"]) == (
        "DEMO",
        2026,
        "2026-01-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
    )
    assert found["of_other_years"] == ["old"]
    toml = str(shop.folder / "ledger.toml")
    assert run(["instruments", toml, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert run(["instruments", toml]) == 0
    out = capsys.readouterr().out
    assert "claimed + left = volume, for each" in out
    assert "of other years: old" in out


def test_instruments_of_a_year_without_load_are_all_left(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    worked(shop, instrument() + instrument("next", vintage=2027), quarters=4)
    (one,) = list_instruments(shop.hall.config, year=2027, clock=lambda: 0)["instruments"]
    assert (one["id"], one["claimed_mwh"], one["left_mwh"], one["lines"]) == ("next", "0", "0.6", {})
    assert run(["instruments", str(shop.folder / "ledger.toml"), "--year", "2024"]) == 0
    assert "the plan has no instrument of 2024" in capsys.readouterr().out


# --- a shifted load ---


def test_a_shifted_load_takes_the_marginal_factors_in_force_and_is_labelled(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    evening, night = SIX + 12 * HOUR, SIX + 20 * HOUR
    told = (("700", evening, "forecast"), ("200", night, "measured"), ("650.5", evening, "final"))
    for value, start_ns, state in told:
        shop.offer([factor(value, start_ns, start_ns + HOUR, signal="marginal", state=state)])
    before = shop.hall.totals()
    toml = str(shop.folder / "ledger.toml")
    arguments = ["shift-load", toml, "--zone", "DEMO", "--kwh", "100", "--from", "2026-01-05T18:30"]
    assert run([*arguments, "--to", "2026-01-06T02:00Z", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["change_kg"], found["kwh"], found["method"]) == ("-45.05", "100", "marginal")
    assert found["label"] == "marginal: a decision's figure, in no report"
    assert run([*arguments, "--to", "2026-01-06T02:00Z"]) == 0
    assert "-45.05" in (out := capsys.readouterr().out)
    assert "marginal: a decision's figure, in no report" in out
    assert [(one["g_per_kwh"], one["state"]) for one in found["factors"]] == [("650.5", "final"), ("200", "measured")]
    assert "2026-01-05T18:00:00Z to 2026-01-05T19:00:00Z: 650.5 g/kWh, final, of " in out
    assert run([*arguments, "--to", "2026-01-07"]) == 2
    assert "got no marginal factor of DEMO at 2026-01-07T00:00:00Z" in capsys.readouterr().err
    assert shop.hall.totals() == before


@pytest.mark.parametrize("kwh", ["0", "-1", "much", "nan", "inf", "1e400", "1e13"])
def test_an_energy_that_is_none_is_refused(kwh: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--zone", "DEMO", "--kwh", kwh, "--from", "2026-01-05", "--to", "2026-01-06"]
    assert run(["shift-load", "ledger.toml", *arguments]) == 2
    assert "want kWh such as 100" in capsys.readouterr().err


# --- the parts ---


def test_the_database_sums_loads_as_the_figures_do(shop: Shop) -> None:
    worked(shop, instrument(), quarters=30)
    with shop.hall.ledger.book.reading() as connection:
        parts = tables.line_loads(connection, "gw1", "filling", start_ns=0, end_ns=2**63 - 1)
        figures = list(tables.figures(connection, Slice(gateway="gw1", line="filling")))
        assert loads_from(parts) == loads_of(figures)
        assert len(parts) == 8
        assert tables.line_loads(connection, "gw1", "filling", start_ns=SIX, end_ns=SIX + HOUR) == parts[:1]


def load(mwh: int, start_ns: int = T0, *, g_per_kwh: str | None = "400", zone: str = "DEMO") -> Load:
    location = None if g_per_kwh is None else Decimal(g_per_kwh)
    return Load(zone=zone, start_ns=start_ns, end_ns=start_ns + HOUR, load_mwh=mwh, location_g_per_kwh=location)


def matched(facts: Facts, *loads: Load, until_ns: int = T0 + DAY) -> Match:
    years = sorted({year_of(one.start_ns) for one in loads})
    return Match([
        match_year(facts, [one for one in loads if year_of(one.start_ns) == year], year=year, until_ns=until_ns)
        for year in years
    ])  # fmt: skip


def test_shares_are_exact_until_they_are_said() -> None:
    """A third of a load that does not divide: three shares are the load, whatever each rounds to."""
    match = matched(planned(MARKET + instrument(mwh="0.0000001")), load(1_000))
    third = match.market({load(0).key: 333})
    rest = match.market({load(0).key: 667})
    assert third.claims["wind"] == Fraction(333, 10)
    assert third.claims["wind"] + rest.claims["wind"] == 100
    assert third.co2e_g + rest.co2e_g == Fraction(900 * 500, KWH)
    assert third.said()["market.wind.mwh"] == "0.000000033"


def test_a_load_that_comes_to_nothing_or_less_claims_nothing_and_its_parts_count_the_residual() -> None:
    match = matched(planned(MARKET + instrument()), load(0), load(-5 * KWH, T0 + HOUR))
    main, sub = match.market({load(0).key: 2 * KWH}), match.market({load(0).key: -2 * KWH})
    assert [main.co2e_g, sub.co2e_g] == [1000, -1000]
    assert not main.claims
    assert match.market({load(0, T0 + HOUR).key: -5 * KWH}).co2e_g == -2500


def test_a_row_over_new_year_is_matched_in_both_years() -> None:
    """The year that is over is final for its part; the row is provisional."""
    toml = MARKET + instrument("a", "0.001", vintage=2025) + instrument("b", "1")
    old, new = load(2 * KWH, T0 - HOUR), load(3 * KWH)
    market = matched(planned(toml), old, new).market({old.key: 2 * KWH, new.key: 3 * KWH})
    assert market.claims == {"a": KWH, "b": 3 * KWH}
    assert market.co2e_g == 500
    said = market.said()
    assert said["market_matched"].split(";") == [
        "2025-01-01T00:00:00Z/2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z/2026-01-02T00:00:00Z",
    ]
    assert said["market_state"] == "provisional"
    assert matched(planned(toml), old).market({old.key: 1}).said()["market_state"] == "final"


def test_a_load_that_was_not_matched_is_not_known() -> None:
    match = matched(planned(MARKET + instrument()), load(KWH))
    market = match.market({load(0, T0 + 5 * HOUR).key: KWH})
    assert market.unknown_mwh == KWH
    assert market.said()["market_co2e_kg"] == ""


def test_many_instruments_are_said_as_those_claimed_most_of_and_the_rest_as_one() -> None:
    toml = "".join(instrument(f"i{number:03}", "0.001") for number in range(60))
    market = matched(planned(toml), load(60 * KWH)).market({load(0).key: 60 * KWH})
    said = market.said()
    assert said["market.others.mwh"] == "0.01"
    assert len([name for name in said if name.startswith("market.")]) == 51


def test_a_year_is_matched_by_the_plan_that_is_in_force_where_its_load_ends() -> None:
    facts = planned(MARKET + instrument(mwh="0.001"))
    changed = Document(name="plan", from_ns=T0 + DAY, content=instrument(mwh="0.002").encode())
    facts.add_document(100, changed)
    first, second = load(2 * KWH), load(2 * KWH, T0 + DAY)
    assert matched(facts, first).market({first.key: 2 * KWH}).claims == {"wind": KWH}
    both = matched(facts, first, second, until_ns=T0 + 2 * DAY)
    assert both.market({first.key: 2 * KWH}).claims == {"wind": KWH}
    assert both.market({first.key: 2 * KWH, second.key: 2 * KWH}).said()["market_residual"] == "DEMO: grid average"


def test_a_plan_asks_for_market_based_figures_by_an_instrument_or_a_market_section() -> None:
    asked = [has_market(parse_plan(toml, name="plan")) for toml in ("", "[market]\n", MARKET, instrument(), HOURLY)]
    assert asked == [False, False, True, True, True]


def test_no_match_is_made_where_no_plan_asks_for_one(shop: Shop) -> None:
    shop.run(4)
    with shop.hall.ledger.book.reading() as connection:
        assert read_match(connection, shop.hall.ledger.facts, start_ns=SIX, end_ns=SIX + HOUR) is None
        assert read_match(connection, planned(instrument()), start_ns=SIX, end_ns=SIX) is None
        assert read_match(connection, planned(instrument()), start_ns=SIX, end_ns=SIX + HOUR) is not None
