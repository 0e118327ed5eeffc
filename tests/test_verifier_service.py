"""From challenge to result through real processes' parts: TPM in software, seal, forward, Mosquitto, verifier."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.app.attester import Attester, Respondent
from gateway.app.broker import Broker, running_broker
from gateway.app.channel import listen
from gateway.app.clientkey import FileKey
from gateway.app.forward import forward
from gateway.app.forwarding import ForwardMetrics
from gateway.app.seal import SealServer
from gateway.attest.ear import Result, verify_result
from gateway.attest.evidence import sign_challenge
from gateway.attest.structures import parse_public
from gateway.errors import ConfigError
from gateway.model.standing import State
from gateway.north.broker import acl_text
from gateway.north.mqtt import (
    Link,
    challenge_topic,
    enrol_topic,
    evidence_topic,
    gateway_of,
    log_topic,
    result_topic,
)
from gateway.north.pki import make_dev_ca
from gateway.tpm import Tpm
from hil.plant.soft_tpm import challenge_for
from provisioning.turn import turn
from provisioning.verifier.desk import Clocks
from provisioning.verifier.service import run_verifier, serve
from provisioning.verifier.trust import TrustFiles
from tests.links import HOST, LEDGER, endpoint
from tests.sealing import Box
from tests.verifying import LEDGER as ORIGIN
from tests.verifying import VERIFIER, Fleet, cancelled, logger, reference_text

PCRS = (0, 4, 7)
OFTEN = "period_s = 0.6\ndeadline_s = 0.5\n"
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_dev_ca(folder, gateways=["gw1", "gw2", "enrol-gw1"], ledger=LEDGER, verifier="desk", hosts=[HOST, "localhost"])
    return folder


@asynccontextmanager
async def broker_on(pki: Path, folder: Path) -> AsyncIterator[Broker]:
    async with running_broker(folder, pki=pki, ledger=LEDGER, verifier="desk", enrolling=["gw1"]) as broker:
        yield broker


def link(broker: Broker, pki: Path, name: str) -> Link:
    return Link(endpoint(pki, broker.port, name), client_id=name)


class RealTime(Fleet):
    """A fleet whose verifier has the real clocks."""

    @property
    def clocks(self) -> Clocks:
        """The real ones."""
        return Clocks()


@dataclass
class Site:
    """A gateway with a TPM, its verifier, and what the ledger hears. results: in order."""

    tpm: Tpm
    fleet: RealTime
    box: Box
    metrics: ForwardMetrics
    results: list[Result] = field(default_factory=list)
    running: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    start: dict[str, Callable[[], "asyncio.Task[None]"]] = field(default_factory=dict)

    async def until(self, status: str, why: str = "") -> Result:
        """Return the next new result of this status; fail when it does not come."""
        seen = len(self.results)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for result in self.results[seen:]:
                    if result.status == status and why in result.reason:
                        return result
                await asyncio.sleep(0.02)

    async def stop(self, name: str) -> None:
        """End a process."""
        await cancelled(self.running.pop(name))

    def run(self, name: str) -> None:
        """Start it."""
        self.running[name] = self.start[name]()


async def hear(broker: Broker, pki: Path, site: Site) -> None:
    """Be the ledger: verify each result, and keep it."""
    async with link(broker, pki, LEDGER) as ledger:
        await ledger.subscribe(result_topic("+"))
        async for arrived in ledger:
            assert gateway_of(arrived.topic, "result") == "gw1"
            now_s = int(Clocks().wall_s())
            site.results.append(
                verify_result(
                    arrived.payload.decode(),
                    issuer=VERIFIER.name,
                    audience=ORIGIN,
                    verifier=VERIFIER.verifier,
                    now_s=now_s,
                )
            )


@asynccontextmanager
async def site_on(pki: Path, folder: Path, tcti: str) -> AsyncIterator[Site]:
    """Set all going; the verifier and forward can be stopped and started."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(broker_on(pki, folder / "broker"))
        tpm = stack.enter_context(Tpm.open(tcti))
        (folder / "pki").symlink_to(pki)
        fleet = RealTime(folder, gateways=("gw1",), more=OFTEN, port=broker.port)
        stack.callback(fleet.close)
        (folder / "reference.toml").write_text(reference_text(tpm.pcrs(PCRS)))
        fleet.restart()
        certificate = fleet.authority.issue(parse_public(tpm.ak_public()).key, "WS-0000")
        attester = Attester(tpm, chain=fleet.authority.chain(certificate), pcrs=PCRS)
        respondent = Respondent(attester, gateway="gw1", verifier=VERIFIER.verifier, about={}, least_s=0.0)
        box = Box.at(folder / "log")
        stack.callback(box.log.close)
        log, _ = logger()
        server = SealServer(box.sealer, log, respondent=respondent)
        outlet = folder / "outlet.sock"
        listener = await listen(outlet, server.outlet, failed=server.failed)
        stack.callback(listener.close)
        site = Site(tpm=tpm, fleet=fleet, box=box, metrics=ForwardMetrics())
        place = endpoint(pki, broker.port, "gw1")
        site.start["forward"] = lambda: asyncio.create_task(
            forward(gateway="gw1", outlet=outlet, client=FileKey(place), log=log, metrics=site.metrics, attests=True)
        )
        site.start["verifier"] = lambda: asyncio.create_task(
            serve(TrustFiles(folder / "verifier.toml", log).config, fleet.desk, log)
        )
        site.start["ledger"] = lambda: asyncio.create_task(hear(broker, pki, site))
        try:
            for name in ("ledger", "verifier", "forward"):
                site.run(name)
                await asyncio.sleep(0.2)
            yield site
        finally:
            for name in [*site.running]:
                assert not site.running[name].done(), name
                await site.stop(name)
            await asyncio.sleep(0.05)


async def test_from_challenge_to_result_and_from_a_changed_pcr_to_failed(pki: Path, tmp_path: Path, tcti: str) -> None:
    """Good, bad, silent, back: each is told to the ledger; sealing goes on through all of it."""
    async with site_on(pki, tmp_path, tcti) as site:
        good = await site.until("affirming")
        assert (good.gateway, good.device, good.reason) == ("gw1", "WS-0000", "release r1")
        assert (good.epoch, good.key) == site.box.sealer.announced
        again = await site.until("affirming")
        assert again.nonce != good.nonce
        site.tpm.extend(7, bytes(32))
        bad = await site.until("contraindicated", "PCR 7")
        assert bad.verified_s is not None
        assert site.fleet.state("gw1")[0] is State.FAILED
        (tmp_path / "reference.toml").write_text(reference_text(site.tpm.pcrs(PCRS), name="r2"))
        assert (await site.until("affirming")).reason == "release r2"
        await site.stop("forward")
        gone = await site.until("none")
        assert gone.reason == "no answer within 0.5 s"
        site.run("forward")
        await site.until("affirming")
        assert site.metrics.evidence >= 4
        assert site.box.sealer.counts.evidence >= 4


async def test_a_verifier_that_restarts_in_the_middle_needs_nobody(pki: Path, tmp_path: Path, tcti: str) -> None:
    """It knows what it knew, and asks again; what was under way is no fault of the gateway's."""
    async with site_on(pki, tmp_path, tcti) as site:
        first = await site.until("affirming")
        before = len(site.results)
        for _ in range(2):
            await site.stop("verifier")
            site.fleet.restart()
            assert site.fleet.state("gw1")[0] is State.TRUSTED
            site.run("verifier")
            again = await site.until("affirming")
            assert (again.verified_s or 0) >= (first.verified_s or 0)
        assert {result.status for result in site.results[before:]} == {"affirming"}


# ---- who may say what


async def heard(listener: Link, within_s: float = 1.0) -> tuple[str, bytes] | None:
    """Return the next message, None when none comes."""
    try:
        async with asyncio.timeout(within_s):
            arrived = await anext(listener)
            return arrived.topic, arrived.payload
    except TimeoutError:
        return None


async def test_each_topic_of_attestation_has_one_writer(pki: Path, tmp_path: Path) -> None:
    """A gateway neither asks nor judges, nor answers for another; the ledger asks nobody."""
    async with (
        broker_on(pki, tmp_path) as broker,
        link(broker, pki, "gw1") as gw1,
        link(broker, pki, "gw2") as gw2,
        link(broker, pki, LEDGER) as ledger,
        link(broker, pki, "desk") as desk,
    ):
        await desk.subscribe(evidence_topic("+"))
        await ledger.subscribe(result_topic("+"))
        for gateway, one in (("gw1", gw1), ("gw2", gw2)):
            await one.subscribe(challenge_topic(gateway))
            await one.subscribe(result_topic(gateway))
        note = sign_challenge(challenge_for("gw1", at_s=1), VERIFIER)
        for one in (gw1, gw2, ledger):
            await one.publish(challenge_topic("gw1"), note)
            await one.publish(result_topic("gw1"), b"x")
        await gw2.publish(evidence_topic("gw1"), b"x")
        await ledger.publish(evidence_topic("gw1"), b"x")
        assert [await heard(one, 0.3) for one in (gw1, gw2, ledger, desk)] == [None] * 4
        await desk.publish(challenge_topic("gw1"), note)
        assert await heard(gw1) == (challenge_topic("gw1"), note)
        await gw1.publish(evidence_topic("gw1"), b"e")
        assert await heard(desk) == (evidence_topic("gw1"), b"e")
        await desk.publish(result_topic("gw1"), b"r")
        assert await heard(ledger) == (result_topic("gw1"), b"r")
        assert await heard(gw2, 0.2) is None
        await desk.subscribe(log_topic("+"))
        await gw1.publish(log_topic("gw1"), b"l")
        assert await heard(desk, 0.2) is None, "the verifier reads no log"


def test_the_access_list_names_who_may_enrol() -> None:
    text = acl_text(ledger="ledger", verifier="desk", enrolling=["gw1"])
    stanza = "user enrol_gw1\ntopic write wattseal/v1/enrol/gw1/request\ntopic read wattseal/v1/enrol/gw1/reply\n"
    assert stanza in text
    assert "user desk\n" in text
    assert enrol_topic("gw1", "request") == "wattseal/v1/enrol/gw1/request"
    assert "desk" not in acl_text(ledger="ledger")
    options: dict[str, Any]
    for options in ({"verifier": "ledger"}, {"verifier": "a/b"}, {"verifier": "desk", "enrolling": ["+"]}):
        with pytest.raises(ConfigError):
            acl_text(ledger="ledger", **options)
    with pytest.raises(ConfigError, match="want the verifier that answers them"):
        acl_text(ledger="ledger", enrolling=["gw1"])


def test_a_topic_is_known_by_whose_and_what_it_is() -> None:
    assert gateway_of(evidence_topic("gw1"), "evidence") == "gw1"
    assert gateway_of(evidence_topic("gw1")) is None
    assert gateway_of(log_topic("gw1")) == "gw1"
    assert gateway_of(enrol_topic("gw1", "reply"), "reply", "evidence") is None


async def test_two_verifiers_never_share_a_state(tmp_path: Path) -> None:
    """Each would see the other's marks go back, and tell the ledger that every device was cloned."""
    Fleet(tmp_path).close()
    (tmp_path / "desk.sign.key").chmod(0o600)
    with (
        turn(tmp_path / "verifier" / "verifier.turn", wait_s=0.1, error=ConfigError),
        pytest.raises(ConfigError, match="one process at a time"),
    ):
        await run_verifier(tmp_path / "verifier.toml")
