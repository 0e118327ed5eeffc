"""A real Mosquitto on the authority for operation: who connects, and what becomes of the revoked."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.app.broker import Broker, running_broker
from gateway.errors import LinkError
from gateway.north.mqtt import Link, log_topic
from gateway.north.tls import Endpoint
from provisioning.ca import Authority, trust_of
from tests.authorities import MODEL, UNLOCK, Clock, key_pem, make_factory, new_key, pem, request
from tests.links import HOST
from tests.northbound import until

LEDGER = "acme"
Factory = tuple[Authority, Authority, Authority]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return make_factory(tmp_path_factory.mktemp("factory"))


@pytest.fixture
def pki(factory: Factory, tmp_path: Path) -> Path:
    """Give the broker's folder, all of it by the authority for operation."""
    folder = tmp_path / "pki"
    folder.mkdir()
    operation = factory[2]
    key = new_key()
    (folder / "broker.key").write_bytes(key_pem(key))
    (folder / "broker.pem").write_bytes(pem(operation.issue_server(request(key), hosts=[HOST], days=1)))
    (folder / "ca.pem").write_bytes(trust_of(operation.folder)[0])
    operation.crl()
    tell(folder, operation)
    return folder


def tell(pki: Path, operation: Authority) -> None:
    """Give the broker the newest lists."""
    (pki / "crl.pem").write_bytes(trust_of(operation.folder)[1])


def client(pki: Path, operation: Authority, name: str, *, hours: float = 1) -> Path:
    """Give a client its LDevID; return its certificate's file."""
    key = new_key()
    return put(pki, name, key_pem(key), pem(operation.issue_ldevid(request(key), gateway=name, hours=hours)))


def put(pki: Path, name: str, key: bytes, certificate: bytes) -> Path:
    (pki / f"{name}.key").write_bytes(key)
    (pki / f"{name}.pem").write_bytes(certificate)
    return pki / f"{name}.pem"


def link(broker: Broker, pki: Path, name: str, *, client_id: str | None = None) -> Link:
    endpoint = Endpoint(
        host=HOST, port=broker.port, ca=pki / "ca.pem", cert=pki / f"{name}.pem", key=pki / f"{name}.key"
    )
    return Link(endpoint, client_id=client_id or name)


@asynccontextmanager
async def broker_on(pki: Path, folder: Path) -> AsyncIterator[Broker]:
    async with running_broker(folder, pki=pki, ledger=LEDGER) as broker:
        yield broker


async def connects(broker: Broker, pki: Path, name: str) -> bool:
    try:
        async with link(broker, pki, name):
            return True
    except LinkError:
        return False


async def test_an_ldevid_connects_and_a_device_certificate_does_not(
    factory: Factory, pki: Path, tmp_path: Path
) -> None:
    """An AK or an IDevID says which device it is; it is no way in, though the same root stands above it."""
    _, devices, operation = factory
    client(pki, operation, "gw1")
    ak, idevid = new_key(), new_key()
    below = pem(devices.chain[0])
    put(pki, "ak", key_pem(ak), pem(devices.issue_ak(ak.public_key(), serial="gw1", model=MODEL)) + below)
    put(pki, "idevid", key_pem(idevid), pem(devices.issue_idevid(request(idevid), serial="gw1", model=MODEL)) + below)
    serving = new_key()
    put(pki, "server", key_pem(serving), pem(operation.issue_server(request(serving), hosts=["gw1"], days=1)))
    async with broker_on(pki, tmp_path / "b") as broker:
        assert await connects(broker, pki, "gw1")
        for name in ("ak", "idevid", "server"):
            assert not await connects(broker, pki, name), name


async def test_an_expired_ldevid_does_not_connect(factory: Factory, pki: Path, tmp_path: Path) -> None:
    clock = Clock()
    clock.time -= timedelta(minutes=4)
    client(pki, Authority.open(factory[2].folder, unlock=UNLOCK, now=clock), "gw1", hours=1 / 60)
    client(pki, factory[2], "gw2", hours=1)
    async with broker_on(pki, tmp_path / "b") as broker:
        assert not await connects(broker, pki, "gw1")
        assert await connects(broker, pki, "gw2")
        assert "certificate verify failed" in broker.log.read_text()


async def test_another_gateways_topics_stay_silent(factory: Factory, pki: Path, tmp_path: Path) -> None:
    """What gw2 says in gw1's name reaches nobody; what gw1 says does."""
    for name in ("gw1", "gw2", LEDGER):
        client(pki, factory[2], name)
    async with (
        broker_on(pki, tmp_path / "b") as broker,
        link(broker, pki, LEDGER) as ledger,
        link(broker, pki, "gw1") as gw1,
        link(broker, pki, "gw2") as gw2,
    ):
        await ledger.subscribe(log_topic("+"))
        await gw2.publish(log_topic("gw1"), b"forged")
        await gw1.publish(log_topic("gw1"), b"mine")
        async with asyncio.timeout(5):
            arrived = await anext(ledger)
        assert (arrived.topic, arrived.payload) == (log_topic("gw1"), b"mine")


async def test_a_revoked_ldevid_is_refused_after_the_new_list_and_a_signal(
    factory: Factory, pki: Path, tmp_path: Path
) -> None:
    """Mosquitto reads the list at SIGHUP. A connection that is open stays open: ending that takes a restart."""
    operation = factory[2]
    certificate = client(pki, operation, "gw3")
    put(pki, "gw3-again", certificate.with_suffix(".key").read_bytes(), certificate.read_bytes())
    client(pki, operation, "gw4")
    async with broker_on(pki, tmp_path / "b") as broker:
        async with link(broker, pki, "gw3") as stays:
            operation.revoke_subject("gw3", "keyCompromise")
            operation.crl()
            tell(pki, operation)
            assert await connects(broker, pki, "gw4")
            os.kill(broker.pid, signal.SIGHUP)
            await until(lambda: "Reloading config" in broker.log.read_text())
            assert not await connects(broker, pki, "gw3-again")
            await stays.publish(log_topic("gw3"), b"still here")
        assert not await connects(broker, pki, "gw3")
        assert await connects(broker, pki, "gw4"), "the others notice nothing"
        assert "certificate verify failed" in broker.log.read_text()
    async with broker_on(pki, tmp_path / "b") as broker:
        assert not await connects(broker, pki, "gw3"), "nor after a restart"
        assert await connects(broker, pki, "gw4")


async def test_a_connection_outlives_its_certificate_and_a_new_one_is_refused(
    factory: Factory, pki: Path, tmp_path: Path
) -> None:
    """So who must be gone at once takes a restart of the broker; docs/authority.md says it."""
    operation = factory[2]
    client(pki, operation, "gw5", hours=3 / 3600)
    async with broker_on(pki, tmp_path / "b") as broker, link(broker, pki, "gw5") as stays:
        certificate = (pki / "gw5.pem").read_bytes()
        put(pki, "gw5-again", (pki / "gw5.key").read_bytes(), certificate)
        await asyncio.sleep(4)  # until it has run out; an earlier attempt would take the open connection's place
        assert not await connects(broker, pki, "gw5-again")
        await stays.publish(log_topic("gw5"), b"still here")
        assert "certificate verify failed" in broker.log.read_text()


@pytest.mark.slow
async def test_mosquitto_does_not_look_for_the_issuing_authority_on_the_roots_list(tmp_path: Path) -> None:
    """It asks the list for the client's certificate alone: where the authority itself is lost, replace its cafile."""
    made = make_factory(tmp_path / "factory")
    root, operation = made[0], made[2]
    folder = tmp_path / "pki"
    folder.mkdir()
    key = new_key()
    put(folder, "broker", key_pem(key), pem(operation.issue_server(request(key), hosts=[HOST], days=1)))
    (folder / "ca.pem").write_bytes(trust_of(operation.folder)[0])
    client(folder, operation, "gw1")
    root.revoke(operation.certificate.serial_number, "cACompromise")
    (operation.folder / "root-crl.pem").write_bytes(root.crl())
    tell(folder, operation)
    async with broker_on(folder, tmp_path / "b") as broker:
        assert await connects(broker, folder, "gw1")
