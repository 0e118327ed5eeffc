"""The benchmark runs, says what it promises, and its figures are such as can be."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from hil.bench.attest import ATTEST
from hil.bench.attest_fleet import FLEETS
from hil.bench.carbon import CARBON
from hil.bench.cases import CASES
from hil.bench.protocols import PROTOCOLS, measure_protocol
from hil.bench.report import TARGETS, judged, lines_of, target_lines
from hil.bench.usage import percentile, usage_of

ROOT = Path(__file__).parent.parent
FIGURES = {"points_per_s", "cpu_s_per_million_points", "cores", "rss_mb"}


def bench(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hil.bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == code, done.stderr
    return done


def plausible(figures: dict[str, Any], *, cores: float) -> bool:
    """Return whether the figures agree with each other and with a machine of so many cores."""
    assert set(figures) >= FIGURES
    used = figures["points_per_s"] * figures["cpu_s_per_million_points"] / 1e6
    return bool(
        figures["points_per_s"] > 0
        and 0 <= figures["cores"] <= cores
        and abs(used - figures["cores"]) < 0.2 + 0.3 * used
        and 5 < figures["rss_mb"] < 1000
    )


@pytest.mark.alone
def test_each_stage_and_the_whole_chain_have_figures() -> None:
    done = bench("--quick", "--json", "--case", "meters10")
    found = json.loads(done.stdout)
    assert set(found) == {"machine", "versions", "seconds", "cases", "targets"}
    assert {"python", "pymodbus", "aiomqtt", "mosquitto", "openssl"} <= set(found["versions"])
    case = found["cases"]["meters10"]
    assert set(case["stages"]) == {"poll", "collect", "decode", "seal", "mqtts", "ledger"}
    for figures in (*case["stages"].values(), case["plain_library"], *case["end_to_end"]["processes"].values()):
        assert plausible(figures, cores=1.5), figures
    assert plausible(case["end_to_end"], cores=3.0)
    assert set(case["end_to_end"]["processes"]) == {"plant", "broker", "collect", "seal", "forward", "ledger"}
    assert case["end_to_end"]["errors"] == case["end_to_end"]["dropped_rows"] == case["end_to_end"]["refused"] == 0
    assert case["plain_library"]["ratio_to_poll_and_decode"] > 1, "we are no slower than the library alone"


@pytest.mark.alone
def test_rows_are_followed_from_their_source_time_to_their_receipt() -> None:
    found = json.loads(bench("--quick", "--json", "--case", "paced_6k").stdout)
    timing = found["cases"]["paced_6k"]["end_to_end"]["timing"]
    assert timing["devices"] == CASES["paced_6k"].meters
    assert timing["rows"] >= CASES["paced_6k"].meters
    for what in ("latency", "lag"):
        assert 0 < timing[f"{what}_p50_s"] <= timing[f"{what}_p99_s"] <= timing[f"{what}_worst_s"] < 30
    assert [target["case"] for target in found["targets"]] == ["paced_6k"]


@pytest.mark.alone
@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_protocol_has_figures_beside_those_of_the_bare_library(name: str) -> None:
    found = json.loads(bench("--quick", "--json", "--case", name).stdout)
    assert {"asyncua", "bacpypes3"} <= set(found["versions"])
    case = found["cases"][name]
    assert {"driver", "plain_library", "peer"} <= set(case)
    assert {stage.name for stage in PROTOCOLS[name].stages} <= set(case)
    for key, figures in case.items():
        if key not in {"about", "library"}:
            assert plausible(figures, cores=1.5), figures
    assert case["plain_library"]["ratio_to_driver"] > 1, "we are no slower than the library alone"
    assert [target["case"] for target in found["targets"]] == ([name] if name != "bacnet1000_cov" else [])


@pytest.mark.alone
def test_an_epoch_leaf_costs_less_than_a_millisecond() -> None:
    """Its quote, its certificates and their revocation; with nothing remembered, and of a device that is known."""
    figures = json.loads(bench("--quick", "--json", "--case", "attest-epoch").stdout)["cases"]["attest-epoch"]
    best = {part: found["best_us"] for part, found in figures.items() if isinstance(found, dict)}
    assert best["warm"] < 1000, "even on a slow machine"
    assert best["warm"] < best["another device"] < best["cold"] < 12 * best["a bare signature"]
    assert "attest-epoch" in next(lines_of("attest-epoch", figures))


@pytest.mark.alone
def test_a_fleet_is_attested_by_one_verifier_through_a_broker() -> None:
    """A small one here; every gateway is found good, and what MQTT costs can be told from what verifying costs."""
    found = json.loads(bench("--quick", "--json", "--case", "attest-fleet").stdout)
    figures = found["cases"]["attest-fleet"]
    assert figures["gateways"] == FLEETS["attest-fleet"].quick
    assert figures["missed"] == figures["refused"] == figures["dropped"] == 0
    assert 0.2 < figures["alone"]["cpu_ms_per_gateway"] < 5
    assert 0.5 < figures["verifier"]["cpu_ms_per_gateway"] < 20
    assert figures["gateways_per_s"] > 10
    assert [target["case"] for target in found["targets"]] == ["attest-fleet"]
    assert "300 gateways" in "\n".join(lines_of("attest-fleet", figures))


@pytest.mark.alone
def test_units_are_enrolled_and_each_step_has_its_time() -> None:
    figures = json.loads(bench("--quick", "--json", "--case", "enrol").stdout)["cases"]["enrol"]
    assert figures["enrolled"] == 2
    assert 0 < figures["per_unit_s"]["median"] <= figures["per_unit_s"]["p95"] < 60
    assert {"connect", "activate", "quote", "birth", "label"} <= figures["steps_median_s"].keys()
    assert "2 units in" in "\n".join(lines_of("enrol", figures))


def test_a_peer_that_does_not_start_ends_the_case() -> None:
    case = replace(PROTOCOLS["opcua1000"], peer="none")
    with pytest.raises(GatewayError, match="the peer of opcua1000 ended with code 1"):
        asyncio.run(measure_protocol(case, seconds=0.1))


def test_an_unknown_case_is_refused_with_the_names_of_all() -> None:
    said = bench("--case", "meters7", code=2).stderr
    assert all(name in said for name in (*CASES, *PROTOCOLS, *CARBON, *ATTEST, *FLEETS))


def test_each_target_is_of_a_case_and_says_when_it_is_missed() -> None:
    """A figure better than the target is met, one that is worse is marked, in either direction."""
    figures = {"cores": 1.0, "rss_mb": 1.0, "cpu_s_per_million_points": 1.0, "points_per_s": 1.0, "missed_ticks": 0.0}
    chain = {**figures, "timing": {"latency_p99_s": 1.0, "jitter_p99_s": 1.0}}
    every = {"end_to_end": chain, "stages": {"ledger": figures}, "driver": figures}
    every["days"] = [{"cpu_us_per_figure": 9.0}]
    every["gateways_per_s"] = 40.0
    every |= {"cold": {"p50_us": 1.0, "p99_us": 1.0}, "warm": {"p50_us": 1.0, "p99_us": 1.0}}
    cases = {target.case: every for target in TARGETS}
    assert set(cases) <= set(CASES) | set(PROTOCOLS) | set(CARBON) | set(ATTEST) | set(FLEETS)
    entries = judged(cases)
    assert len(entries) == len(TARGETS)
    for entry in entries:
        better = entry["found"] <= entry["want"] if entry["at"] == "most" else entry["found"] >= entry["want"]
        assert entry["met"] == better
    assert sum("MISSED" in line for line in target_lines(entries)) == sum(not entry["met"] for entry in entries) > 0


def test_the_table_tells_of_trouble() -> None:
    figures = {"points_per_s": 1e6, "cpu_s_per_million_points": 0.5, "cores": 0.5, "rss_mb": 40.0}
    chain = {**figures, "processes": {"collect": figures}, "errors": 3, "dropped_rows": 0, "refused": 0}
    text = "\n".join(lines_of("meters1", {"about": "one", "stages": {"poll": figures}, "end_to_end": chain}))
    assert "1,000,000" in text
    assert "trouble: {'errors': 3}" in text


def test_the_table_of_a_protocol_names_the_bare_library() -> None:
    figures = {"points_per_s": 1e4, "cpu_s_per_million_points": 10.0, "cores": 0.1, "rss_mb": 40.0}
    plain = {**figures, "cpu_s_per_million_points": 25.0, "ratio_to_driver": 2.5}
    case = {"about": "one", "library": "asyncua", "driver": figures, "plain_library": plain, "peer": figures}
    lines = list(lines_of("opcua1000", case))
    assert [line.split("  ")[0] for line in lines[2:4]] == ["asyncua alone", "driver"]
    assert lines[-1].strip() == "asyncua alone takes 2.5 times the CPU of the driver"


def test_usage_is_that_of_the_process() -> None:
    used = usage_of("self")
    assert used.cpu_s > 0
    assert 10 < used.rss_mb < 1000


def test_a_percentile_is_one_of_the_values() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert [percentile(values, share) for share in (0.0, 0.25, 0.26, 0.5, 0.99, 1.0)] == [1, 1, 2, 2, 4, 4]
