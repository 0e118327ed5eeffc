"""The feeds against replay servers: what is fetched when, what is offered, and how each fault ends."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.app.duties.feeds import feeds_of
from gateway.carbon.grid.answers import Window
from gateway.carbon.grid.repoll import due
from gateway.config import parse_ledger
from gateway.config.feeds import FeedSection, check_feeds
from gateway.errors import ConfigError
from gateway.model import Factor
from gateway.north.factors.credentials import read_secret
from hil.plant.grid.answer import Answer, Request, World
from hil.plant.grid.electricity_maps import ElectricityMaps
from hil.plant.grid.server import FAULTS, REVISION
from hil.plant.grid.values import grams
from hil.plant.grid.watttime import WattTime
from tests.feeding import DAY_S, GRANULARITIES, HOUR_S, KEYS, NOW_S, S, standing

PROVIDERS = tuple(KEYS)
CONDITIONS = {
    "401": "unauthorised",
    "403": "forbidden",
    "403-html": "forbidden",
    "404": "unknown",
    "429": "busy",
    "429-date": "busy",
    "500": "status-500",
    "503": "unavailable",
    "504": "gateway-timeout",
    "null": "empty",
    "other-zone": "zone",
    "truncated": "truncated",
    "slow": "timeout",
    "huge": "too-large",
    "redirect": "redirect",
    "not-json": "malformed",
}
FAULTY = [
    (provider, fault) for provider in PROVIDERS for fault in CONDITIONS if (provider, fault) != ("neso", "other-zone")
]
"""The answers for all of Great Britain name no zone; NESO's regions have a test of their own."""


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever happens, no line holds a credential."""
    caplog.set_level(logging.WARNING)
    yield
    said = caplog.text + "".join(capfd.readouterr())
    assert not [key for key in KEYS.values() if key and key in said]


def test_each_fault_has_a_condition() -> None:
    assert set(CONDITIONS) == set(FAULTS) - {"revised"}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_last_day_becomes_factors_in_force(tmp_path: Path, provider: str) -> None:
    async with standing(tmp_path, provider) as stand:
        assert await stand.feed.turn() == stand.section.period_s
        found = stand.factors()
        assert {factor.key for factor in found} == {
            (provider, "HOME", "average", stand.section.factor_type, GRANULARITIES[provider])
        }
        assert found[0].start_ns <= (NOW_S - 23 * HOUR_S) * S
        assert found[-1].end_ns >= (NOW_S - 2 * HOUR_S) * S
        assert all(one.end_ns == other.start_ns for one, other in pairwise(found))
        assert not stand.events()
        assert stand.ledger.counts.feed_factors == len(stand.factors(forecasts=True))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_same_answers_again_seal_nothing(tmp_path: Path, provider: str) -> None:
    async with standing(tmp_path, provider) as stand:
        await stand.feed.turn()
        size = stand.ledger.own.log.durable
        await stand.feed.turn()
        assert stand.ledger.own.log.durable == size


@pytest.mark.parametrize(("provider", "fault"), FAULTY)
async def test_a_fault_is_one_condition_said_once_and_over_when_it_is(
    tmp_path: Path, provider: str, fault: str
) -> None:
    async with standing(tmp_path, provider) as stand:
        stand.server.fault(fault)
        stand.patience_s = 0.3 if fault == "slow" else 30.0
        for _ in range(3):
            wait_s = await stand.feed.turn()
            assert 0 < wait_s <= stand.section.period_s
        assert stand.whats("feed.down") == [CONDITIONS[fault]]
        assert stand.logged() == [CONDITIONS[fault]]
        assert stand.feed.is_down
        assert not stand.factors(forecasts=True)
        assert not [key for key in KEYS.values() if key and key in str(stand.events())]
        stand.server.fault()
        if fault == "slow":
            stand.patience_s = 30.0  # or a slow machine is a slow server
            await stand.feed.close()
        assert await stand.feed.turn() == stand.section.period_s
        assert stand.factors()
        assert stand.whats("feed.up") == [""]
        assert not stand.feed.is_down
        assert (stand.ledger.counts.feed_polls, stand.ledger.counts.feed_errors) == (4, 3)


async def test_a_region_of_neso_is_refused_when_the_answer_is_about_another(tmp_path: Path) -> None:
    async with standing(tmp_path, "neso") as stand:
        stand.feed.pin("13", stand.now_s * S)
        stand.server.fault("other-zone")
        await stand.feed.turn()
        assert stand.whats("feed.down") == ["zone"]
        stand.server.fault()
        await stand.feed.turn()
        assert {factor.state for factor in stand.factors()} == {"estimated"}


@pytest.mark.parametrize(("fault", "asked_s"), [("429", 7), ("429-date", 9)])
async def test_retry_after_is_honoured(tmp_path: Path, fault: str, asked_s: int) -> None:
    async with standing(tmp_path) as stand:
        stand.server.fault(fault)
        assert await stand.feed.turn() == asked_s


@pytest.mark.parametrize("path", ["forecast", "past-range"])
async def test_a_part_that_is_told_to_wait_leaves_the_whole_account_alone(tmp_path: Path, path: str) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        stand.server.provider = Busy(path, wait_s=3_000)
        stand.pass_time(2 * DAY_S)
        assert await stand.feed.turn() == 3_000
        assert stand.whats("feed.refused") == ["busy"]
        assert not stand.feed.is_down
        asked = [request.path.rpartition("/")[2] for request in stand.server.requests]
        assert asked[-1] == path, "nothing was asked after it"
        stand.server.provider = ElectricityMaps()
        stand.pass_time(HOUR_S)
        assert await stand.feed.turn() == stand.section.period_s


class Busy(ElectricityMaps):
    """Has had too many requests of one path."""

    def __init__(self, path: str, *, wait_s: int) -> None:
        self._path, self._wait_s = path, wait_s

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        if self._path in request.path:
            return Answer(status=429, headers={"Retry-After": str(self._wait_s)})
        return super().answer(request, world)


async def test_waits_after_errors_grow_to_the_period(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.server.fault("500")
        waits = [await stand.feed.turn() for _ in range(18)]
        assert waits[0] < 0.05
        assert 1 < waits[8] <= 300
        assert waits[-1] >= 150


async def test_a_server_that_is_gone_is_a_condition_too(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.server.__aexit__(None, None, None)
        await stand.feed.turn()
        assert stand.whats("feed.down") == ["unreachable"]


async def test_another_condition_while_down_is_said_too(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        for fault in ("500", "401", "500"):
            stand.server.fault(fault)
            await stand.feed.turn()
        assert stand.logged() == ["status-500", "unauthorised"]


async def test_electricity_maps_is_never_asked_for_the_caller_s_place(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        asked = stand.asked("/v3/carbon-intensity/")
        assert len(asked) == 3
        assert {query["shouldUseFallbackCallerLookup"] for query in asked} == {"false"}
        assert {query["zone"] for query in asked} == {"DE"}
        assert {query["emissionFactorType"] for query in asked} == {"lifecycle"}


async def test_states_follow_the_provider(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        states = [factor.state for factor in stand.factors(forecasts=True)]
        assert states == sorted(states, key=("measured", "estimated", "forecast").index)
        assert set(states) == {"measured", "estimated", "forecast"}
        for _ in range(6):
            stand.pass_time(HOUR_S)
            await stand.feed.turn()
        assert {factor.state for factor in stand.factors()[:24]} == {"measured"}


async def test_forecasts_are_asked_for_once_an_hour_and_never_replace_what_is_better(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        for _ in range(13):
            await stand.feed.turn()
            stand.pass_time(300)
        assert len(stand.asked("forecast")) == 2
        past = [factor for factor in stand.factors(forecasts=True) if factor.start_ns < (stand.now_s - 300) * S]
        assert "forecast" not in {factor.state for factor in past}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_revised_value_is_a_new_version_that_supersedes_the_old(tmp_path: Path, provider: str) -> None:
    async with standing(tmp_path, provider) as stand:
        await stand.feed.turn()
        before = {factor.start_ns: factor for factor in stand.factors()}
        stand.server.fault("revised")
        await stand.feed.turn()
        after = {factor.start_ns: factor for factor in stand.factors()}
        changed = [start for start, factor in before.items() if after[start].version != factor.version]
        assert changed
        for start in changed:
            assert after[start].supersedes == before[start].version
            assert after[start].g_per_kwh > before[start].g_per_kwh


async def test_history_is_asked_for_again_a_day_after_a_day_s_end(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        asked_days: list[int] = []
        for day in range(4):
            stand.now_s = NOW_S + day * DAY_S
            seen = len(stand.server.requests)
            await stand.feed.turn()
            starts = [request.query.get("start") for request in stand.server.requests[seen:]]
            asked_days += [day] * starts.count("2026-11-22T00:00Z")
        assert asked_days == [2]
        assert {event["event"] for event in stand.events()} == {"feed.repolled"}


def test_each_day_comes_to_be_due_1_7_30_and_90_days_after_its_end() -> None:
    seen: dict[int, list[int]] = {}
    for poll in range(1, 200 * 3):
        before_ns, now_ns = ((1_000 * DAY_S + (poll - part) * 8 * HOUR_S) * S for part in (1, 0))
        for window in due(before_ns, now_ns):
            for day in range(window.start_ns // (DAY_S * S), window.end_ns // (DAY_S * S)):
                seen.setdefault(day, []).append(now_ns // (DAY_S * S) - day - 1)
    assert {day: ages for day, ages in seen.items() if 1_000 <= day < 1_100} == {
        day: [1, 7, 30, 90] for day in range(1_000, 1_100)
    }


async def test_a_revision_of_a_week_ago_comes_through(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        noon_s = 1_795_305_600  # 2026-11-22T00:00Z
        assert stand.factors()[-11].start_ns == noon_s * S
        for _ in range(7):
            stand.pass_time(DAY_S)
            await stand.feed.turn()
        stand.server.fault("revised")
        stand.pass_time(DAY_S)
        await stand.feed.turn()
        (factor,) = [factor for factor in stand.factors() if factor.start_ns == noon_s * S]
        assert factor.g_per_kwh == grams(noon_s) + REVISION
        assert factor.supersedes


async def test_what_was_missed_while_the_ledger_stood_is_fetched(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        await stand.feed.close()
        stand.pass_time(5 * DAY_S)
        stand.start()
        await stand.feed.turn()
        found = stand.factors()
        assert found[-1].end_ns - found[0].start_ns >= 6 * DAY_S * S - HOUR_S * S
        assert all(one.end_ns == other.start_ns for one, other in pairwise(found))


async def test_what_was_not_answered_is_asked_for_again_after_a_restart_and_then_no_more(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:

        async def polled(*, restarts: bool) -> int:
            if restarts:
                await stand.feed.close()
                stand.start()
            stand.pass_time(300)
            seen = len(stand.server.requests)
            await stand.feed.turn()
            starts = [request.query.get("start") for request in stand.server.requests[seen:]]
            return starts.count("2026-11-22T00:00Z")

        real, gone = stand.server.provider, WithoutHistory()
        await stand.feed.turn()
        stand.pass_time(DAY_S)
        await stand.feed.turn()
        stand.server.provider = gone
        stand.pass_time(DAY_S)
        assert [await polled(restarts=restarts) for restarts in (False, False, True)] == [0, 0, 0]
        done = len([event for event in stand.events() if event["event"] == "feed.repolled"])
        stand.server.provider = real
        assert [await polled(restarts=restarts) for restarts in (True, False, True, True)] == [1, 0, 0, 0]
        assert len([event for event in stand.events() if event["event"] == "feed.repolled"]) == done + 1


class WithoutHistory(ElectricityMaps):
    """As for a free account."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        return self.refusal(403) if "past-range" in request.path else super().answer(request, world)


async def test_an_account_without_history_keeps_its_feed_up(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        stand.server.provider = WithoutHistory()
        for _ in range(4):
            stand.pass_time(DAY_S)
            assert await stand.feed.turn() == 300
        assert stand.whats("feed.refused") == ["forbidden"]
        assert not stand.whats("feed.down")


@pytest.mark.parametrize(("said", "pct"), [("7.5", Decimal("7.5")), (None, None)])
async def test_the_uncertainty_of_a_feed_is_what_the_operator_says_or_not_known(
    tmp_path: Path, said: str | None, pct: Decimal | None
) -> None:
    async with standing(tmp_path, uncertainty_pct=said) as stand:
        await stand.feed.turn()
        assert {factor.uncertainty_pct for factor in stand.factors(forecasts=True)} == {pct}


async def test_windows_of_two_granularities_stand_side_by_side(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.feed.turn()
        hour = stand.factors()[3]
        quarter = Factor(
            key=(*hour.key[:4], "PT15M"),
            start_ns=hour.start_ns,
            end_ns=hour.start_ns + 900 * S,
            g_per_kwh=Decimal(1),
            state="measured",
            method="m",
            source="s",
            version="v",
        )
        assert stand.ledger.offer([quarter]) == 1
        assert hour.start_ns in {factor.start_ns for factor in stand.factors() if factor.key[4] == "PT1H"}


async def test_watttime_logs_in_once_for_half_an_hour_and_again_when_refused(tmp_path: Path) -> None:
    async with standing(tmp_path, "watttime", signal="marginal") as stand:
        provider = stand.server.provider
        assert isinstance(provider, WattTime)
        await stand.feed.turn()
        stand.pass_time(600)
        await stand.feed.turn()
        assert provider.logins == 1
        provider.forget()
        await stand.feed.turn()
        assert provider.logins == 2
        stand.pass_time(1_800)
        await stand.feed.turn()
        assert provider.logins == 3
        assert not stand.events()
        (key,) = {factor.key for factor in stand.factors()}
        assert key == ("watttime", "HOME", "marginal", "direct", "PT5M")
        assert {factor.model_date for factor in stand.factors()} == {"2026-03-01"}


async def test_neso_is_never_asked_for_more_than_14_days(tmp_path: Path) -> None:
    async with standing(tmp_path, "neso") as stand:
        await stand.feed.turn()
        source = stand.feed._opened("GB")
        window = Window(start_ns=(NOW_S - 40 * DAY_S) * S, end_ns=NOW_S * S)
        assert len(await source.fetch(window, NOW_S * S)) == 40 * 48
        paths = [request.path for request in stand.server.requests]
        assert len(paths) > 4


async def test_missing_credentials_are_a_condition_that_ends_without_a_restart(tmp_path: Path) -> None:
    async with standing(tmp_path, credentials=tmp_path / "key") as stand:
        await stand.feed.turn()
        assert stand.whats("feed.down") == ["config"]
        (tmp_path / "key").write_text("wrong\n")
        (tmp_path / "key").chmod(0o600)
        await stand.feed.turn()
        (tmp_path / "key").write_text(KEYS["electricitymaps"] + "\n")
        await stand.feed.turn()
        assert [found["event"] for found in stand.events()] == ["feed.down", "feed.down", "feed.up"]


async def test_the_duty_follows_its_feeds_until_cancelled(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.server.fault("500")
        task = asyncio.create_task(stand.feeds.run())
        while not stand.events():
            await asyncio.sleep(0.01)
        assert stand.ledger.counts.feeds_down == 1
        stand.server.fault()
        while not stand.factors():
            await asyncio.sleep(0.01)
        while stand.ledger.counts.feeds_down:
            await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_ledger_with_feeds_has_the_duty_and_one_without_has_none(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        config = stand.hall.config
        assert feeds_of(config, stand.ledger, stand.feeds._log) == []
        (duty,) = feeds_of(replace(config, feeds={"grid": stand.section}), stand.ledger, stand.feeds._log)
        assert set(duty.feeds) == {"grid"}


# ---- credentials and configuration


def test_a_key_file_that_others_may_read_is_refused_and_says_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret-token")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640, want a file of mode 0600: chmod 600 .*/key") as caught:
        read_secret("electricitymaps", path, {}, "feeds.de.credentials")
    assert "secret-token" not in str(caught.value)
    path.chmod(0o600)
    assert read_secret("electricitymaps", path, {}, "feeds.de.credentials").token == "secret-token"


@pytest.mark.parametrize(
    ("provider", "environ", "user", "token"),
    [
        ("electricitymaps", {"CARBON_API_KEY": "t"}, "", "t"),
        ("entsoe", {"CARBON_API_KEY": " t\n".strip()}, "", "t"),
        ("watttime", {"CARBON_API_KEY": "u:p:q"}, "u", "p:q"),
        ("watttime", {"WATTTIME_USER": "u", "WATTTIME_PASSWORD": "p", "CARBON_API_KEY": "x"}, "u", "p"),
        ("neso", {}, "", ""),
    ],
)
def test_credentials_come_from_the_environment(provider: str, environ: dict[str, str], user: str, token: str) -> None:
    secret = read_secret(provider, None, environ, "feeds.x.credentials")
    assert (secret.user, secret.token) == (user, token)
    assert "t" not in repr(secret).replace("Secret", "")


@pytest.mark.parametrize(
    ("provider", "environ"),
    [
        ("electricitymaps", {}),
        ("electricitymaps", {"CARBON_API_KEY": "a b"}),
        ("electricitymaps", {"CARBON_API_KEY": "a\r\nx: y"}),
        ("watttime", {"CARBON_API_KEY": "alone"}),
        ("watttime", {"WATTTIME_USER": "u"}),
        ("entsoe", {"CARBON_API_KEY": "é"}),
    ],
)
def test_credentials_of_no_use_are_refused(provider: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        read_secret(provider, None, environ, "feeds.x.credentials")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('provider = "neso"\nzone = "GB"\ntype = "lifecycle"', "type: got lifecycle, want direct"),
        ('provider = "electricitymaps"\nzone = "DE"\nsignal = "marginal"', "signal: got marginal, want average"),
        ('provider = "neso"\nzone = "London"', "region: got 'London', want GB, or a region"),
        ('provider = "entsoe"\nzone = "DE"', "region: got 'DE', want an EIC code"),
        ('provider = "electricitymaps"\nzone = "DE"\nregion = "DE&lat=1"', "want a zone such as"),
        ('provider = "electricitymaps"\nzone = "DE"\nurl = "http://api.example/v3"', "want https"),
        ('provider = "electricitymaps"\nzone = "DE"\nperiod_s = 60', "period_s: got 60"),
        ('provider = "electricitymaps"\nzone = "DE"\nuncertainty_pct = 5.1', "uncertainty_pct: got 5.1, want a number"),
    ],
)
def test_a_feed_that_no_provider_can_serve_is_refused(lines: str, said: str) -> None:
    text = '[ledger]\nname = "l"\nkey = "k"\nfactors = "f"\n[broker]\nbroker = "b:1"\nca = "c"\ncert = "c"\nkey = "k"\n'
    text += f'[gateways.gw1]\nkey = "k"\n[feeds.one]\n{lines}\n'
    with pytest.raises(ConfigError, match=said):
        parse_ledger(text, name="ledger.toml", folder=Path("/site"))


def test_two_feeds_of_the_same_factors_are_refused() -> None:
    feed = FeedSection(provider="neso", zone="GB")
    with pytest.raises(ConfigError, match=r"the factors of \[feeds.a\] again"):
        check_feeds({"a": feed, "b": feed}, "ledger.toml: feeds")
