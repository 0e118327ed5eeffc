"""north/mqtt.py: what a link promises, against a real Mosquitto and a proxy that turns into a black hole."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.app.broker import Broker, free_port, running_broker
from gateway.errors import ConfigError, LinkError
from gateway.north.mqtt import Link, gateway_of, log_topic, receipt_topic
from gateway.north.pki import make_dev_ca
from gateway.north.tls import Endpoint, tls_context
from tests.links import HOST, LEDGER, Proxy, endpoint, make_pki
from tests.loops import LOOPS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture
async def broker(pki: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    async with running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER) as running:
        yield running


def link(pki: Path, port: int, name: str, *, timeout_s: float = 10, keepalive_s: int = 5, queued: int = 64) -> Link:
    return Link(endpoint(pki, port, name), client_id=name, timeout_s=timeout_s, keepalive_s=keepalive_s, queued=queued)


async def test_messages_arrive_in_the_order_of_publishing(pki: Path, broker: Broker) -> None:
    """Also when many are under way at once."""
    async with link(pki, broker.port, "gw1") as gw1, link(pki, broker.port, LEDGER) as ledger:
        await ledger.subscribe(log_topic("+"))
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(gw1.publish(log_topic("gw1"), b"%d" % number))
        arrived = [await anext(ledger) for _ in range(64)]
    assert [one.payload for one in arrived] == [b"%d" % number for number in range(64)]
    assert {one.topic for one in arrived} == {log_topic("gw1")}


async def test_what_does_not_fit_the_queue_is_dropped_and_counted(pki: Path, broker: Broker) -> None:
    """In number and in bytes; the link goes on."""
    small = Link(endpoint(pki, broker.port, LEDGER), client_id=LEDGER, queued=10, queued_bytes=5000)
    async with link(pki, broker.port, "gw1") as gw1, small as ledger:
        await ledger.subscribe(log_topic("+"))
        for size in [100] * 12 + [4001]:
            await gw1.publish(log_topic("gw1"), bytes(size))
        for _ in range(100):
            await asyncio.sleep(0.02)
            if ledger.dropped == 3:
                break
        assert ledger.dropped == 3
        assert [len((await anext(ledger)).payload) for _ in range(10)] == [100] * 10
        for size in (3000, 2001, 2000):
            await gw1.publish(log_topic("gw1"), bytes(size))
        await asyncio.sleep(0.2)
        assert [len((await anext(ledger)).payload) for _ in range(2)] == [3000, 2000]
        assert ledger.dropped == 4


async def test_a_killed_broker_ends_the_link_at_once(pki: Path, broker: Broker) -> None:
    """Whoever waits for a message learns of it."""
    async with link(pki, broker.port, "gw1") as gw1:
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(LinkError, match=r"broker 127\.0\.0\.1"):
            await asyncio.wait_for(anext(gw1), 2)
        with pytest.raises(LinkError):
            await gw1.publish(log_topic("gw1"), b"x")
        with pytest.raises(LinkError):
            await gw1.subscribe(receipt_topic("gw1"))


async def test_a_black_hole_ends_publish_in_time(pki: Path, broker: Broker) -> None:
    """No PUBACK comes, no connection ends: publish itself gives up."""
    async with Proxy(broker.port) as proxy, link(pki, proxy.port, "gw1", timeout_s=1) as gw1:
        await gw1.publish(log_topic("gw1"), b"through")
        proxy.darken()
        began = time.monotonic()
        with pytest.raises(LinkError, match="timed out"):
            await gw1.publish(log_topic("gw1"), bytes(1_000_000))
        assert 0.9 < time.monotonic() - began < 3


async def test_a_black_hole_ends_a_quiet_link_by_its_keepalive(pki: Path, broker: Broker) -> None:
    """Who only listens learns of it too: no PINGRESP comes."""
    async with Proxy(broker.port) as proxy, link(pki, proxy.port, "gw1", keepalive_s=1) as gw1:
        await gw1.subscribe(receipt_topic("gw1"))
        proxy.darken()
        began = time.monotonic()
        with pytest.raises(LinkError):
            await asyncio.wait_for(anext(gw1), 10)
        assert time.monotonic() - began < 5


async def test_a_quiet_link_stays(pki: Path, broker: Broker) -> None:
    """Without any traffic of ours the keepalive keeps it."""
    async with link(pki, broker.port, "gw1", keepalive_s=1) as gw1:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(gw1), 4)
        await gw1.publish(log_topic("gw1"), b"still there")


async def test_nobody_listening_is_a_link_error(pki: Path) -> None:
    """At once, with the place in its words."""
    with pytest.raises(LinkError, match=r"broker 127\.0\.0\.1:\d+: .*refused"):
        await link(pki, free_port(), "gw1").__aenter__()


async def test_a_server_that_accepts_and_is_silent_is_given_up(pki: Path, broker: Broker) -> None:
    """A black hole from the first byte; connecting takes as long as paho allows its socket, and then ends."""
    async with Proxy(broker.port) as proxy:
        proxy.darken()
        began = time.monotonic()
        with pytest.raises(LinkError, match="timed out"):
            await link(pki, proxy.port, "gw1").__aenter__()
        assert time.monotonic() - began < 8


async def test_a_broker_of_a_foreign_authority_is_not_trusted(pki: Path, broker: Broker, tmp_path: Path) -> None:
    """Whatever it says, somebody else has certified it."""
    foreign = make_pki(tmp_path / "foreign")
    with pytest.raises(LinkError, match=r"unable to get local issuer|self-signed|verify failed"):
        await Link(endpoint(pki, broker.port, "gw1", ca=foreign), client_id="gw1").__aenter__()


async def test_a_broker_under_another_name_is_not_trusted(tmp_path: Path) -> None:
    """The name that we were told to call must stand in its certificate."""
    other = tmp_path / "other"
    make_dev_ca(other, gateways=["gw1"], ledger=LEDGER, hosts=[HOST])
    async with running_broker(tmp_path, pki=other, ledger=LEDGER) as broker:
        with pytest.raises(LinkError, match="Hostname mismatch"):
            await Link(endpoint(other, broker.port, "gw1", host="localhost"), client_id="gw1").__aenter__()
        async with Link(endpoint(other, broker.port, "gw1"), client_id="gw1"):
            pass


async def test_a_clients_certificate_does_not_serve(tmp_path: Path) -> None:
    """A gateway that poses as the broker, with its own certificate of the right authority, fools nobody."""
    posing = tmp_path / "posing"
    make_dev_ca(posing, gateways=["localhost"], ledger=LEDGER, hosts=["localhost"])
    for kind in ("pem", "key"):
        (posing / f"broker.{kind}").write_bytes((posing / f"localhost.{kind}").read_bytes())
    async with running_broker(tmp_path, pki=posing, ledger=LEDGER) as broker:
        with pytest.raises(LinkError, match="unsuitable certificate purpose"):
            await Link(endpoint(posing, broker.port, "localhost", host="localhost"), client_id="x").__aenter__()


async def test_a_server_that_only_speaks_tls_1_2_is_not_spoken_to(pki: Path) -> None:
    """Our side insists on TLS 1.3; the same server with it gets its CONNECT."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connects.append(await reader.read(100))
        writer.close()

    connects: list[bytes] = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "broker.pem", pki / "broker.key")
        context.maximum_version = version
        server = await asyncio.start_server(serve, HOST, 0, ssl=context)
        with pytest.raises(LinkError):
            await link(pki, server.sockets[0].getsockname()[1], "gw1", timeout_s=1).__aenter__()
        server.close()
        assert len(connects) == (version == ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize("broken", ["ca", "cert", "key"])
def test_an_unusable_file_is_named(pki: Path, tmp_path: Path, broken: str) -> None:
    """Missing, or not what it should be: the operator is told which file."""
    good = endpoint(pki, 1, "gw1")
    parts = {"ca": good.ca, "cert": good.cert, "key": good.key}
    for content in (None, "", "nonsense", (pki / "gw2.key").read_text()):
        path = tmp_path / f"{broken}.file"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=str(path)):
            tls_context(Endpoint(host=HOST, port=1, **{**parts, broken: path}))


async def test_connections_leave_nothing_behind(pki: Path, broker: Broker, tmp_path: Path) -> None:
    """Descriptors and tasks stay flat over connects that work, and connects that do not."""

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    async def once(*, refused: bool) -> None:
        # A certificate for serving is refused after the handshake.
        try:
            async with link(pki, broker.port, "broker" if refused else "gw1"):
                assert not refused
        except LinkError:
            assert refused

    for refused in (False, True):
        await once(refused=refused)
    await asyncio.sleep(0.1)
    before = held()
    foreign = make_pki(tmp_path / "foreign")
    with pytest.raises(LinkError, match="verify failed") as kept:
        await Link(endpoint(pki, broker.port, "gw1", ca=foreign), client_id="gw1").__aenter__()
    await asyncio.sleep(0.1)
    assert held() == before, f"as long as this is kept: {kept.value}"
    for number in range(30):
        await once(refused=number % 3 == 0)
    await asyncio.sleep(0.1)
    assert held() == before


def test_topics_name_their_gateway() -> None:
    """And nothing but the two topics of a gateway is one."""
    assert gateway_of(log_topic("gw1")) == "gw1" == gateway_of(receipt_topic("gw1"))
    for topic in ("", "wattseal/v1/+/log", "wattseal/v1//log", "wattseal/v1/gw1/logs", "x/wattseal/v1/gw1/log"):
        assert gateway_of(topic) is None


@pytest.mark.parametrize("loop", LOOPS)
def test_a_socket_that_closes_before_the_loop_watches_it_is_no_error(pki: Path, tmp_path: Path, loop: str) -> None:
    """Once, a broker killed just then left a traceback; and the loop could have watched another's file."""
    told: list[object] = []

    async def close_it_meanwhile() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        running = running_broker(tmp_path / "broker", pki=pki, ledger=LEDGER)
        async with running as broker, link(pki, broker.port, "gw1") as gw1:
            client = gw1._open
            sock = client._client.socket()
            assert sock is not None
            client._on_socket_register_write(client._client, None, sock)
            client._on_socket_open(client._client, None, sock)
            client._client._sock_close()
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(close_it_meanwhile(), 20))
    assert not told
