"""What an MES says, at a running ledger: a real broker, real HTTPS, real tables."""

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.broker import free_port, running_broker
from gateway.app.budget import Budget
from gateway.app.duties.intake import Intake, _Batch
from gateway.app.handover import Wish, export_to
from gateway.app.ledger_serve import run_ledger
from gateway.app.metrics import read_metrics
from gateway.app.rebuild import dump_sha256, rebuild
from gateway.app.tokens import add_token, make_token, read_tokens
from gateway.carbon.audit.form import ROWS
from gateway.carbon.audit.verify import verify
from gateway.carbon.counted import LineCounts
from gateway.carbon.exact import total
from gateway.carbon.figures import LineFigure, flag_text
from gateway.cli import run
from gateway.codec.bodies import context_body, interval_body, line_body
from gateway.codec.leaves import parse
from gateway.codec.ledger_leaves import to_context
from gateway.codec.mes import MAX_BYTES, TOPIC, mac_of, parse_facts
from gateway.config import LedgerConfig, parse_ledger
from gateway.config.intake import IntakeSection
from gateway.errors import ConfigError, TrustError
from gateway.model import ContextFact, CountFact, Interval, LineSchema, Sample, What
from gateway.north.mqtt import Link, log_topic
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Projections, Slice
from gateway.store.segments import Log
from gateway.tlog.note import Signer
from gateway.web.clerk import BusyError
from tests.ledgering import SIGNERS, Hall
from tests.links import HOST, LEDGER, endpoint, make_pki
from tests.sealing import BOOT, LINE, LINES, NS, T0_S, Box, interval

PATIENCE_S = 20.0
MINUTES = 6
MAPPED = 'gateway = "g"\nline = "l"\n'
UNS = "umh/v1/works/filling/_mes/state"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), "gw1", "mes", "other")


@dataclass
class Site:
    """A ledger that runs, a gateway's line in it, and an MES with a token."""

    folder: Path
    pki: Path
    port: int
    config: LedgerConfig
    token: str
    base_s: int
    https: httpx2.AsyncClient
    mqtt: Link
    said: int = field(default=0)

    def fact(self, second: int, value: str = "4711", **more: Any) -> dict[str, Any]:
        """Return a fact, so many seconds into the story; each has an id of its own."""
        self.said += 1
        then = datetime.fromtimestamp(self.base_s + second, UTC).isoformat()
        said = {"gateway": "gw1", "line": "filling", "what": "job", "value": value, "time": then, "id": str(self.said)}
        return said | more

    def count(self, start: int, end: int, **units: int) -> dict[str, Any]:
        """Return a count from one second of the story to another; each has an id of its own."""
        said = self.fact(start, what="counts")
        said["start"] = said.pop("time")
        said.pop("value")
        return said | {"end": datetime.fromtimestamp(self.base_s + end, UTC).isoformat()} | units

    async def tell(self, said: Any, *, token: str | None = None) -> httpx2.Response:
        """Say it over HTTPS; said: bytes as they are."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return await self.https.post("/v1/context", content=body, headers=headers)

    async def sealed(self, said: Any) -> list[int]:
        """Say it over HTTPS; return the leaves that it made."""
        answer = await self.tell(said)
        assert answer.status_code == 202, answer.text
        found: list[int] = answer.json()["sealed"]
        return found

    async def send(self, said: Any, *, system: str = "mes", key: bytes | None = None) -> None:
        """Say it over the broker."""
        message = json.dumps(said)
        mac = mac_of(system, message, read_tokens(self.folder / "tokens.txt")[system][0] if key is None else key)
        envelope = {"system": system, "message": message, "mac": mac}
        await self.mqtt.publish(f"{TOPIC}mes", json.dumps(envelope).encode())

    def cells(self) -> dict[int, LineFigure]:
        """Return the line's cells by the second at which they start."""
        book = Projections(self.config.ledger.state / "projections.sqlite", new=False)
        with book.reading() as connection:
            found = list(tables.line_figures(connection, Slice(line="filling")))
        book.close()
        return {one.start_ns // NS - self.base_s: one for one in found}

    def jobs(self) -> dict[int, str]:
        """Return the job of each cell by its start."""
        return {start: cell.setting.job for start, cell in self.cells().items()}

    async def counts(self) -> Mapping[str, float]:
        """Return what the ledger counts, without the common part of the names."""
        with contextlib.suppress(OSError):
            found = await read_metrics(self.config.ledger.state / "run" / "ledger.metrics.sock")
            return {name.removeprefix("wattseal_ledger_"): value for name, value in found.items()}
        return {}

    async def until(self, name: str, value: float) -> None:
        """Wait until a count is that high."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.counts()).get(name, -1) < value:
                await asyncio.sleep(0.02)


def ledger_toml(pki: Path, port: int, context: str) -> str:
    toml = f'[ledger]\nname = "{LEDGER}"\nstate = "state"\nkey = "{pki}/{LEDGER}.sign.key"\nfactors = "factors.toml"\n'
    toml += f'[broker]\nbroker = "{HOST}:{port}"\nca = "{pki}/ca.pem"\n'
    toml += f'cert = "{pki}/{LEDGER}.pem"\nkey = "{pki}/{LEDGER}.key"\n[gateways.gw1]\nkey = "{pki}/gw1.vkey"\n'
    return toml + f"[context]\n{context}"


def factors_toml(base_s: int) -> str:
    day = [datetime.fromtimestamp(base_s + step * 86_400, UTC).isoformat().replace("+00:00", "Z") for step in (-2, 2)]
    return (
        '[[factor]]\nprovider = "demo"\nzone = "DEMO"\nsignal = "average"\ntype = "lifecycle"\nunit = "g/kWh"\n'
        f'state = "final"\nmethod = "constant"\nsource = "test"\nstart = {day[0]}\nend = {day[1]}\nvalue = 400\n'
    )


def story(box: Box, base_s: int, line: LineSchema) -> None:
    """Seal MINUTES minutes of the line: 6 kWh and 60 good units in each."""
    box.put(("schema", line_body(line)))
    for number in range(MINUTES + 1):
        t_ns = (base_s + 60 * number) * NS
        samples = tuple(
            Sample(point=column.point, source_time_ns=t_ns, raw=b"\0\1", value=Decimal(each * number))
            for column, each in zip(line.columns, (6, 60), strict=False)
        )
        box.put(("interval", interval_body(Interval(schema_id=line.id, t_ns=t_ns, samples=samples))))
    box.sealer.sign()


@asynccontextmanager
async def site(folder: Path, pki: Path, more: str = "", *, line: LineSchema = LINE) -> AsyncIterator[Site]:
    """Run broker, ledger, gateway's log and an MES's two ways in."""
    base_s = int(time.time()) // 60 * 60 - 60 * (MINUTES + 2)
    (folder / "factors.toml").write_text(factors_toml(base_s))
    token, entry = make_token("mes")
    add_token(folder / "tokens.txt", entry)
    box = Box.at(folder / "log", signer=Signer.from_text((pki / "gw1.epoch.key").read_text()))
    box.sealer.welcome(BOOT)
    story(box, base_s, line)
    listen = f"{HOST}:{free_port()}"
    context = f'mqtt = true\nlisten = "{listen}"\ncert = "{pki}/broker.pem"\nkey = "{pki}/broker.key"\n'
    context += f'tokens = "tokens.txt"\n{more}'
    trust = ssl.create_default_context(cafile=pki / "ca.pem")
    async with running_broker(folder / "broker", pki=pki, ledger=LEDGER, namespace="umh/v1/#") as broker:
        config = parse_ledger(ledger_toml(pki, broker.port, context), name="ledger.toml", folder=folder)
        task = asyncio.create_task(run_ledger(config))
        try:
            async with (
                Link(endpoint(pki, broker.port, "gw1"), client_id="gw1") as link,
                Link(endpoint(pki, broker.port, "mes"), client_id="mes") as mqtt,
                httpx2.AsyncClient(base_url=f"https://{listen}", verify=trust, timeout=PATIENCE_S) as https,
            ):
                found = Site(folder, pki, broker.port, config, token, base_s, https, mqtt)
                await found.until("connected", 1)
                for payload in box.payloads(first=0):
                    await link.publish(log_topic("gw1"), payload)
                await found.until("size", box.log.size)
                yield found
                assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE_S)
            box.log.close()
            assert task.done(), "the ledger does not end"


def rebuilt(config: LedgerConfig) -> tuple[str, str]:
    """Return the hash of a stopped ledger's tables as they are, and as the logs alone make them."""
    book = Projections(config.ledger.state / "projections.sqlite", new=False)
    before = dump_sha256(book)
    book.close()
    return before, rebuild(config, say=lambda _: None)


def context_leaves(config: LedgerConfig) -> list[ContextFact]:
    """Return what a stopped ledger has sealed as context."""
    log = Log.open(RealFiles(config.ledger.state / "own"), origin=config.origin)
    leaves = [parse(body) for body in log.read(0, 1 << 20, log.durable) if body is not None]
    log.close()
    return [to_context(leaf.body) for leaf in leaves if leaf.kind == "context"]


# ---- a fact and its effect


async def test_a_job_that_is_told_late_changes_only_the_cells_that_it_touches(pki: Path, tmp_path: Path) -> None:
    """Over HTTPS; within a minute the cell is cut, and its parts sum exactly. The tables are those of a rebuild."""
    async with site(tmp_path, pki) as one:
        before = one.cells()
        assert len(before) == MINUTES
        await one.sealed([one.fact(0, "J1"), one.fact(200, "J3")])
        told = one.cells()
        assert one.jobs() == {0: "J1", 60: "J1", 120: "J1", 180: "J1", 200: "J3", 240: "J3", 300: "J3"}
        (index,) = await one.sealed(one.fact(90, "J2"))
        after = one.cells()
        assert one.jobs() == {0: "J1", 60: "J1", 90: "J2", 120: "J2", 180: "J2", 200: "J3", 240: "J3", 300: "J3"}
        assert {start for start in told if told[start] != after.get(start)} == {60, 120, 180}
        parts = [after[60], after[90]]
        assert sum(part.energy_mwh or 0 for part in parts) == before[60].energy_mwh == 6_000_000
        assert sum((part.units_good or Decimal(0) for part in parts), Decimal(0)) == before[60].units_good == 60
        assert index > 0
    tables_now, from_logs = rebuilt(one.config)
    assert tables_now == from_logs


async def test_a_job_over_the_broker_is_the_same_as_over_https(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki) as one:
        said = [one.fact(0, "J1"), one.fact(150, "P", what="product")]
        await one.send(said)
        await one.until("context_total", 2)
        assert {cell.setting.job for cell in one.cells().values()} == {"J1"}
        assert [cell.setting.product for cell in one.cells().values()] == ["", "", "", "P", "P", "P", "P"]
        answer = (await one.tell(said)).json()
        assert (answer["sealed"], len(answer["known"])) == ([], 2), "the same system said the same"
    assert [(fact.source, fact.value) for fact in context_leaves(one.config)] == [("mes", "J1"), ("mes", "P")]
    tables_now, from_logs = rebuilt(one.config)
    assert tables_now == from_logs


async def test_a_replayed_message_changes_nothing(pki: Path, tmp_path: Path) -> None:
    """Also one that was corrected since: whoever holds an old message cannot undo the correction with it."""
    async with site(tmp_path, pki) as one:
        first = one.fact(60, "J1", id="a")
        (index,) = await one.sealed(first)
        await one.send(first)
        await one.until("context_known_total", 1)
        assert (await one.tell(first)).json() == {"sealed": [], "known": [index]}
        await one.sealed(first | {"value": "J2"})
        corrected = one.cells()
        await one.send(first)
        await one.until("context_known_total", 3)
        assert one.cells() == corrected
        assert one.jobs() == {0: "", 60: "J2", 120: "J2", 180: "J2", 240: "J2", 300: "J2"}
    assert [fact.value for fact in context_leaves(one.config)] == ["J1", "J2"]


async def test_a_correction_may_move_a_fact_in_time(pki: Path, tmp_path: Path) -> None:
    """The cells that were cut for it are whole again."""
    async with site(tmp_path, pki) as one:
        whole = one.cells()
        fact = one.fact(90, "J1", id="a")
        await one.sealed(fact)
        assert sorted(one.cells()) == [0, 60, 90, 120, 180, 240, 300]
        await one.sealed({**one.fact(240, "J1"), "id": "a"})
        assert sorted(one.cells()) == sorted(whole)
        assert one.jobs() == {0: "", 60: "", 120: "", 180: "", 240: "J1", 300: "J1"}
    tables_now, from_logs = rebuilt(one.config)
    assert tables_now == from_logs


async def test_a_topic_of_a_unified_namespace_says_what_its_line_does(pki: Path, tmp_path: Path) -> None:
    """A value that is repeated is sealed once; one of another topic is not ours."""
    mapped = f'[[context.topics]]\nfilter = "{UNS}"\ngateway = "gw1"\nline = "filling"\nwhat = "state"\n'
    async with site(tmp_path, pki, mapped) as one:
        for second, value in ((0, 6), (60, 6), (120, 11), (180, 11), (240, "6")):
            payload = {"timestamp_ms": (one.base_s + second) * 1000, "value": value}
            await one.mqtt.publish(UNS, json.dumps(payload).encode())
            await one.mqtt.publish("umh/v1/works/other/_mes/state", json.dumps(payload).encode())
        await one.until("context_total", 3)
        await one.mqtt.publish(UNS, b'{"value": 6}')
        await one.until("context_refused_total", 1)
        states = [cell.setting.state for cell in one.cells().values()]
        assert states == ["producing", "producing", "idle", "idle", "producing", "producing"]
    assert [(fact.source, fact.value) for fact in context_leaves(one.config)] == [
        (f"uns:{UNS}", "6"),
        (f"uns:{UNS}", "11"),
        (f"uns:{UNS}", "6"),
    ]


async def test_the_lines_are_listed_with_what_is_in_force(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki) as one:
        await one.sealed([one.fact(0, "J1"), one.fact(60, "6", what="state")])
        answer = await one.https.get("/v1/lines", headers={"Authorization": f"Bearer {one.token}"})
        (line,) = answer.json()
        assert (line["gateway"], line["line"], line["site"]) == ("gw1", "filling", "works")
        assert {what: word["value"] for what, word in line["said"].items()} == {"job": "J1", "state": "6"}
        assert (line["state"], line["job"], line["product"]) == ("producing", "J1", "")
        assert datetime.fromisoformat(line["figure_end"]).timestamp() == one.base_s + 60 * MINUTES


# ---- counts


UNCOUNTED = replace(LINE, columns=LINE.columns[:1])


async def test_an_mes_counts_for_a_line_without_a_counter(pki: Path, tmp_path: Path) -> None:
    """Spread over its window exactly in thousandths; a count that is corrected or late touches its own cells alone."""
    async with site(tmp_path, pki, line=UNCOUNTED) as one:
        assert {cell.units_good for cell in one.cells().values()} == {None}
        count = one.count(0, 180, good=100, total=110)
        await one.sealed(count)
        first = one.cells()
        thirds = [Decimal("33.333"), Decimal("33.333"), Decimal("33.334"), None, None, None]
        assert [cell.units_good for cell in first.values()] == thirds
        assert sum(cell.units_total or 0 for cell in first.values()) == 110
        assert ["time_estimated" in flag_text(cell.flags) for cell in first.values()] == [True] * 3 + [False] * 3
        assert (await one.tell(count)).json()["sealed"] == []

        answer = await one.tell(one.count(120, 240, good=1))
        assert (answer.status_code, answer.json()["where"]) == (400, "start")
        twice = [one.count(200, 230, good=1), one.count(220, 240, good=1)]
        assert (await one.tell(twice)).json()["where"] == "[1].start", "nor may two of one message overlap"
        await one.send(one.count(240, 300, good=60))
        await one.until("context_total", 2)
        after = one.cells()
        assert {start for start in first if first[start] != after[start]} == {240}
        assert (after[240].units_good, after[240].units_total, after[240].flags) == (
            Decimal(60),
            None,
            first[240].flags,
        )
        await one.sealed(count | {"good": 90})
        assert sum(one.cells()[start].units_good or 0 for start in (0, 60, 120)) == 90
        assert sum(cell.energy_mwh or 0 for cell in one.cells().values()) == 6_000_000 * MINUTES
    tables_now, from_logs = rebuilt(one.config)
    assert tables_now == from_logs


async def test_an_auditor_computes_what_an_mes_said_and_counted(pki: Path, tmp_path: Path) -> None:
    """An export carries the leaves, and `wattseal verify` comes to the same figures with them, and only with them."""
    async with site(tmp_path, pki, line=UNCOUNTED) as one:
        await one.sealed([one.fact(90, "J1"), one.count(0, 60 * MINUTES, good=600), one.fact(0, "6", what="state")])
    files = export_to(tmp_path / "export", one.config, Wish(lines=(), start_ns=None, end_ns=None), force=False)
    verdict = verify(files, None)
    assert (verdict.lines[0].totals.units_good, verdict.lines[0].totals.energy_mwh) == (
        Decimal(600),
        6_000_000 * MINUTES,
    )
    assert files[ROWS].count(b"\n") == 1 + MINUTES + 1, "a head, and a minute that the job cuts in two"


async def test_nobody_counts_for_a_line_that_counts_for_itself(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki) as one:
        answer = await one.tell(one.count(0, 60, good=1))
        assert (answer.status_code, answer.json()["where"]) == (400, "what")
        assert "counter of its own" in answer.json()["want"]
        assert {cell.units_good for cell in one.cells().values()} == {60}


def counting(number: int, start: int, end: int, good: int = 1) -> CountFact:
    return CountFact(
        gateway="gw1", line="press", start_ns=start, end_ns=end, good=good, total=None, source="mes", id=str(number)
    )


@given(st.integers(0, 10**12), st.integers(1, 10**6), st.lists(st.integers(-10, 10**6 + 10), max_size=8))
def test_pieces_of_a_count_sum_exactly(units: int, span: int, cuts: list[int]) -> None:
    counts = LineCounts()
    counts.add(1, counting(1, 0, span, units))
    bounds = sorted({-20, *cuts, 2 * 10**6})
    parts = [one.good for start, end in pairwise(bounds) if (one := counts.between(start, end)) is not None]
    assert total(part for part in parts if part is not None) == units


def test_a_count_that_covers_a_part_of_another_changes_nothing() -> None:
    counts = LineCounts()
    counts.add(1, counting(1, 0, 10))
    counts.add(2, counting(2, 20, 30))
    for start, end in ((5, 6), (9, 11), (0, 30), (10, 21), (29, 40)):
        with pytest.raises(TrustError, match="covers a part"):
            counts.add(3, counting(3, start, end))
    with pytest.raises(TrustError):
        counts.add(3, counting(1, 0, 25))
    assert counts.known(counting(1, 0, 10)) == 1
    assert counts.between(0, 30) == (Decimal(2), None, True)
    assert counts.add(4, counting(1, 12, 15, 7)) == (0, 15)
    assert counts.between(0, 10) is None
    assert counts.add(5, counting(3, 10, 12)) == (10, 12)


# ---- what is refused


async def test_over_https_each_mistake_has_its_answer_and_seals_nothing(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki) as one:
        good = one.fact(0)
        for token in ("x", one.token[:-1], one.token + "x"):
            answer = await one.tell(good, token=token)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await one.https.post("/v1/context", json=good)).status_code == 401
        basic = {"Authorization": f"Basic {one.token}"}
        assert (await one.https.post("/v1/context", json=good, headers=basic)).status_code == 401
        assert (await one.https.get("/v1/lines")).status_code == 401

        now_s = time.time()
        wrongs: list[tuple[Any, str]] = [
            (b"{", "message"),
            (good | {"what": "shift"}, "what"),
            (good | {"line": "nowhere"}, "line"),
            ([good, good | {"gateway": "gw9"}], "[1].line"),
            (good | {"time": datetime.fromtimestamp(now_s + 400, UTC).isoformat(timespec="seconds")}, "time"),
            (good | {"time": datetime.fromtimestamp(now_s - 32 * 86_400, UTC).isoformat(timespec="seconds")}, "time"),
        ]
        for wrong, where in wrongs:
            answer = await one.tell(wrong)
            assert (answer.status_code, answer.json()["where"]) == (400, where), answer.text
            assert set(answer.json()) == {"where", "got", "want"}
        assert "gw1/filling" in (await one.tell(good | {"line": "nowhere"})).json()["want"], "the known ones are named"

        answer = await one.tell(b" " * (MAX_BYTES + 1))
        assert answer.status_code == 413
        answer = await one.https.get("/v1/context", headers={"Authorization": f"Bearer {one.token}"})
        assert answer.status_code == 405
        assert (await one.https.get("/nowhere")).status_code == 404
        assert (await one.counts())["context_total"] == 0
        assert len(await one.sealed(good)) == 1, "none of this hurt it"
    assert len(context_leaves(one.config)) == 1


async def test_over_the_broker_whoever_is_not_vouched_for_is_not_heard(
    pki: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wrong MAC, a MAC of another system, a system on another's topic, malformed or huge payloads."""
    async with site(tmp_path, pki) as one:
        add_token(tmp_path / "tokens.txt", make_token("other")[1])
        await asyncio.sleep(6)  # a changed file of tokens is seen within a beat
        good = one.fact(0)
        await one.send(good, key=b"x" * 32)
        await one.send(good, system="other")
        await one.send(good, system="nobody", key=b"x" * 32)
        await one.send({"what": "nonsense"})
        for payload in (b"", b"{}", b"\xff", json.dumps(good).encode(), b" " * (MAX_BYTES + 1)):
            await one.mqtt.publish(f"{TOPIC}mes", payload)
        await one.until("context_refused_total", 9)
        async with Link(endpoint(pki, one.port, "other"), client_id="other") as foreign:
            message = json.dumps(good)
            envelope = {"system": "mes", "message": message, "mac": "0" * 64}
            await foreign.publish(f"{TOPIC}mes", json.dumps(envelope).encode())
        await one.send(good)
        await one.until("context_total", 1)
        assert (await one.counts())["context_refused_total"] == 9, "the broker keeps systems off each other's topics"
    said = capfd.readouterr().err
    assert said.count('"context.refused"') == 1, "once a minute is enough"
    assert one.token not in said


async def test_a_system_that_sends_too_much_waits(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki, "per_minute = 100\n") as one:
        assert len(await one.sealed([one.fact(n) for n in range(100)])) == 100
        answer = await one.tell([one.fact(n) for n in range(100)])
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_budget_comes_back_with_time_and_is_each_sources_own() -> None:
    budget = Budget(60)
    budget.spend("mes", 60, 0)
    budget.spend("other", 60, 0)
    with pytest.raises(BusyError) as caught:
        budget.spend("mes", 2, NS)
    assert caught.value.retry_s == 2
    budget.spend("mes", 3, 3 * NS)
    with pytest.raises(BusyError):
        budget.spend("mes", 1, -NS)  # a clock that is set back gives nothing
    budget.spend("mes", 60, 600 * NS)
    with pytest.raises(BusyError):
        budget.spend("mes", 1, 600 * NS)


# ---- the server


async def test_the_server_speaks_tls_1_3_alone_and_says_no_more_than_it_must(pki: Path, tmp_path: Path) -> None:
    async with site(tmp_path, pki) as one:
        host, _, port = (one.config.context.listen or "").rpartition(":")
        trust = ssl.create_default_context(cafile=pki / "ca.pem")
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        await writer.wait_closed()
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection(host, int(port), ssl=trust)
        answer = await one.tell(b"{")
        assert "server" not in answer.headers
        schema = (await one.https.get("/schema")).json()
        assert set(schema["paths"]) == {"/v1/context", "/v1/lines"}
        assert set(schema["paths"]["/v1/context"]["post"]["responses"]) == {"202", "400", "401", "413", "429", "503"}
        assert "requestBody" in schema["paths"]["/v1/context"]["post"]
        assert all("<script" not in text for text in (answer.text, json.dumps(schema)))


async def test_a_body_that_never_ends_and_a_connection_that_says_nothing_hold_up_nobody(
    pki: Path, tmp_path: Path
) -> None:
    """Nor does the ledger wait for them when it ends."""
    async with site(tmp_path, pki) as one:
        host, _, port = (one.config.context.listen or "").rpartition(":")
        trust = ssl.create_default_context(cafile=pki / "ca.pem")
        quiet, silent = await asyncio.open_connection(host, int(port), ssl=trust)
        silent.write(b"POST /v1/context HTTP/1.1\r\nHost:")
        _, slow = await asyncio.open_connection(host, int(port), ssl=trust)
        head = (
            f"POST /v1/context HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.token}\r\nContent-Length: 99\r\n\r\n"
        )
        slow.write(head.encode())
        await slow.drain()
        await asyncio.sleep(0.2)
        assert len(await one.sealed(one.fact(0))) == 1
        async with asyncio.timeout(PATIENCE_S):
            assert await quiet.read() == b"", "no request began, so the place is free again"
        ended_s = time.monotonic()
    assert time.monotonic() - ended_s < 10
    assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]
    for writer in (silent, slow):
        writer.transport.abort()


async def test_an_address_in_use_is_said_in_one_line(pki: Path, tmp_path: Path) -> None:
    (tmp_path / "factors.toml").write_text(factors_toml(int(time.time())))
    (tmp_path / "tokens.txt").touch(0o600)
    taken = await asyncio.start_server(lambda _r, _w: None, HOST, 0)
    listen = f"{HOST}:{taken.sockets[0].getsockname()[1]}"
    context = f'listen = "{listen}"\ncert = "{pki}/broker.pem"\nkey = "{pki}/broker.key"\ntokens = "tokens.txt"\n'
    config = parse_ledger(ledger_toml(pki, free_port(), context), name="ledger.toml", folder=tmp_path)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(run_ledger(config), PATIENCE_S)
    assert caught.group_contains(ConfigError, match=f"context.listen: got {listen}")
    taken.close()


# ---- the facts in force, however they come


def test_facts_in_any_order_with_corrections_leave_the_tables_of_a_rebuild(tmp_path: Path) -> None:
    """Cells are cut and joined again at each of them; none is left over, none is counted twice."""
    chance = random.Random(7)
    hall = Hall(tmp_path)
    box = Box.at(tmp_path / "log", signer=SIGNERS["gw1"])
    box.sealer.welcome(BOOT)
    box.put(*LINES, *(interval(number) for number in range(7)))
    box.sealer.sign()
    hall.take("gw1", box.payloads(first=0))
    before = hall.totals()
    for _ in range(60):
        fact = ContextFact(
            gateway="gw1",
            line="filling",
            what=chance.choice([What.JOB, What.STATE]),
            t_ns=(T0_S + chance.choice([0, 60, 90, 120, 120, 150, 200, 290, 300, 355, 400])) * NS,
            value=chance.choice(["", "A", "B"]),
            source=chance.choice(["mes", "erp"]),
            id=str(chance.randrange(12)),
        )
        assert hall.ledger.seal("context", context_body(fact)) is not None
        assert hall.totals() == before
    dumped = hall.dump()
    assert hall.dump_rebuilt() == dumped
    hall.ledger.close()
    box.log.close()


async def test_without_room_who_asks_is_told_so_and_a_second_try_seals_it_once(tmp_path: Path) -> None:
    hall, box = Hall(tmp_path), Box.at(tmp_path / "log", signer=SIGNERS["gw1"])
    box.sealer.welcome(BOOT)
    box.put(*LINES, *(interval(number) for number in range(3)))
    box.sealer.sign()
    hall.take("gw1", box.payloads(first=0))
    now_s = int(time.time())
    said = {"gateway": "gw1", "line": "filling", "what": "job", "value": "J1", "timestamp_ms": now_s * 1000, "id": "a"}
    intake = Intake(IntakeSection(), hall.ledger, structlog.get_logger())
    working = asyncio.create_task(intake.run())
    hall.disk(None).room = 0
    with pytest.raises(BusyError, match="no room") as caught:
        await intake.take("mes", json.dumps(said).encode())
    assert not caught.value.crowded
    hall.disk(None).room = None
    hall.ledger.beat()
    await intake.take("mes", json.dumps(said).encode())
    assert [leaf.body["value"] for leaf in hall.own("context")] == ["J1"]

    hall.disk(None).room = 0
    intake._admit("mes", _Batch(parse_facts(json.dumps(said | {"id": "b"}).encode(), source="mes"), None))
    waiting = asyncio.create_task(intake.take("mes", json.dumps(said | {"id": "c"}).encode()))
    await asyncio.sleep(0.2)
    assert not waiting.done(), "what came by the broker is not given up, and goes first"
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(BusyError, match="the ledger stops"):
        await waiting
    hall.ledger.close()
    box.log.close()


# ---- tokens


def test_a_token_is_made_once_and_the_file_holds_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.txt"
    assert run(["context-token", "mes", "--tokens", str(path)]) == 0
    token = capsys.readouterr().out.strip()
    assert run(["context-token", "mes", "--tokens", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    assert made["line"] in path.read_text()
    assert len(read_tokens(path)["mes"]) == 2, "both hold while one is being changed"
    assert run(["context-token", "log"]) == 2
    assert "got 'log'" in capsys.readouterr().err


def test_a_tokens_file_that_others_may_read_or_that_is_wrong_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(path)
    path.write_text("# nobody yet\n\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="got mode 0640"):
        read_tokens(path)
    path.chmod(0o600)
    assert read_tokens(path) == {}
    for wrong in ("mes", "mes 00", f"MES {'0' * 64}", f"log {'0' * 64}", f"mes {'0' * 64} x"):
        path.write_text(f"# first\n{wrong}\n")
        with pytest.raises(ConfigError, match=r"tokens\.txt: line 2: want <system>") as caught:
            read_tokens(path)
        assert "0" * 64 not in str(caught.value)


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ('listen = "127.0.0.1:1"\n', "context.cert: got nothing"),
        ('listen = "127.0.0.1:1"\ncert = "c"\nkey = "k"\n', "context.tokens: got nothing"),
        ("mqtt = true\n", "context.tokens: got nothing"),
        (f'[[context.topics]]\nfilter = "a/b"\n{MAPPED}what = "job"\n', "context.mqtt: got false"),
        (f'mqtt = true\n[[context.topics]]\nfilter = "#"\n{MAPPED}what = "job"\n', "topics.0.filter"),
        (f'mqtt = true\n[[context.topics]]\nfilter = "wattseal/v1/gw1/log"\n{MAPPED}', "topics.0.filter"),
        (f'mqtt = true\n[[context.topics]]\nfilter = "a"\n{MAPPED}what = "shift"\n', "topics.0.what"),
        ("late_days = 0\n", "context.late_days: got 0, want 1..366"),
    ],
)
def test_keys_that_do_not_fit_are_said(tmp_path: Path, context: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ledger(ledger_toml(tmp_path, 1, context), name="ledger.toml", folder=tmp_path)
    assert why in str(caught.value)
