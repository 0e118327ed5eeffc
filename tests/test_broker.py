"""north/broker.py and app/broker.py: what a real Mosquitto lets in, and who may say what on which topic."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.app.broker import Broker, find_mosquitto, free_port, running_broker, write_broker_files
from gateway.errors import ConfigError, LinkError
from gateway.north.broker import BrokerFiles, acl_text, conf_text
from gateway.north.mqtt import Link, log_topic, receipt_topic
from gateway.north.pki import make_dev_ca, revoke
from gateway.north.tls import Endpoint
from tests.links import HOST, LEDGER, endpoint, make_pki

SOON_S = 2.0
"""Within this a message arrives, if it does."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def broker_on(pki: Path, folder: Path) -> AsyncIterator[Broker]:
    async with running_broker(folder, pki=pki, ledger=LEDGER) as broker:
        yield broker


@asynccontextmanager
async def three_on(pki: Path, folder: Path) -> AsyncIterator[tuple[Link, Link, Link]]:
    """Connect both gateways and the ledger to a broker."""
    async with (
        broker_on(pki, folder) as broker,
        link(broker, pki, "gw1") as gw1,
        link(broker, pki, "gw2") as gw2,
        link(broker, pki, LEDGER) as ledger,
    ):
        yield gw1, gw2, ledger


def link(broker: Broker, pki: Path, name: str, *, client_id: str | None = None) -> Link:
    return Link(endpoint(pki, broker.port, name), client_id=client_id or name)


async def heard(listener: Link, within_s: float = SOON_S) -> tuple[str, bytes] | None:
    """Return the next message, None when none comes."""
    try:
        async with asyncio.timeout(within_s):
            arrived = await anext(listener)
            return arrived.topic, arrived.payload
    except TimeoutError:
        return None


async def refused(broker: Broker, client: Link, why: str) -> None:
    """Fail unless the broker turns this client away, for this reason where it got to say it."""
    began = time.monotonic()
    with pytest.raises(LinkError) as error:
        await client.__aenter__()
    assert time.monotonic() - began < 3, "told, but not heard"
    # The connection may be reset before the broker's reason is read.
    assert any(word in str(error.value) for word in (why, "EOF", "reset", "Broken pipe"))
    assert "certificate verify failed" in broker.log.read_text()


def shake_hands(broker: Broker, context: ssl.SSLContext) -> str:
    """Return the TLS version that was agreed on, once the broker has answered with its first bytes."""
    with (
        socket.create_connection((HOST, broker.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as shaken,
    ):
        # A CONNECT packet (MQTT 3.1.1, clean session, keepalive 10 s, empty client id); the answer is a CONNACK.
        shaken.sendall(bytes.fromhex("100c00044d515454 0402 000a 0000"))
        answer = shaken.recv(4)
        assert answer[:1] == b"\x20", "no CONNACK"
        return str(shaken.version())


def client_context(pki: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "ca.pem")
    if name is not None:
        context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    return context


async def test_who_comes_with_tls_1_2_is_turned_away(pki: Path, tmp_path: Path) -> None:
    """The same client with the same certificate gets in by TLS 1.3."""
    async with broker_on(pki, tmp_path) as broker:
        context = client_context(pki, "gw1")
        assert await asyncio.to_thread(shake_hands, broker, context) == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await asyncio.to_thread(shake_hands, broker, context)


async def test_who_comes_without_a_certificate_is_turned_away(pki: Path, tmp_path: Path) -> None:
    """Nothing is answered before a client certificate was shown; nor in plain text."""
    async with broker_on(pki, tmp_path) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(shake_hands, broker, client_context(pki, None))
        assert "peer did not return a certificate" in broker.log.read_text()
        reader, writer = await asyncio.open_connection(HOST, broker.port)
        writer.write(bytes.fromhex("100c00044d515454 0402 000a 0000"))
        with suppress(ConnectionResetError):
            assert b"\x20\x02" not in await asyncio.wait_for(reader.read(64), 5)
        writer.close()


async def test_a_certificate_of_a_foreign_authority_is_refused(pki: Path, tmp_path: Path) -> None:
    """The same name, certified by somebody else, is nobody."""
    foreign = make_pki(tmp_path / "foreign")
    async with broker_on(pki, tmp_path) as broker:
        forged = Endpoint(
            host=HOST, port=broker.port, ca=pki / "ca.pem", cert=foreign / "gw1.pem", key=foreign / "gw1.key"
        )
        await refused(broker, Link(forged, client_id="gw1"), "unknown ca")


async def test_a_certificate_for_serving_does_not_connect(pki: Path, tmp_path: Path) -> None:
    """The broker's own certificate is of our authority, but not for clients."""
    async with broker_on(pki, tmp_path) as broker:
        await refused(broker, link(broker, pki, "broker"), "unsupported certificate")


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """A certificate of the right authority whose time is over no longer connects; the broker says so."""
    old = tmp_path / "old"
    then = datetime.now(UTC) - timedelta(days=100)
    make_dev_ca(old, gateways=["gw1"], ledger=LEDGER, hosts=[HOST], now=then)
    mixed = tmp_path / "mixed"
    make_dev_ca(mixed, gateways=["gw1"], ledger=LEDGER, hosts=[HOST])
    (mixed / "ca.pem").write_bytes((mixed / "ca.pem").read_bytes() + (old / "ca.pem").read_bytes())
    (mixed / "crl.pem").write_bytes((mixed / "crl.pem").read_bytes() + (old / "crl.pem").read_bytes())
    async with broker_on(mixed, tmp_path) as broker:
        expired = Endpoint(host=HOST, port=broker.port, ca=mixed / "ca.pem", cert=old / "gw1.pem", key=old / "gw1.key")
        await refused(broker, Link(expired, client_id="gw1"), "certificate expired")


async def test_a_revoked_certificate_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    """What stands in crl.pem at the broker's start does not get in."""
    own = make_pki(tmp_path / "own")
    revoke(own, ["gw2"])
    async with broker_on(own, tmp_path) as broker:
        async with link(broker, own, "gw1"):
            pass
        await refused(broker, link(broker, own, "gw2"), "certificate revoked")


async def test_logs_flow_to_the_ledger_and_receipts_back(pki: Path, tmp_path: Path) -> None:
    """The two topics that a gateway has do work, in their one direction each."""
    async with broker_on(pki, tmp_path) as broker, link(broker, pki, "gw1") as gw1, link(broker, pki, LEDGER) as ledger:
        await gw1.subscribe(receipt_topic("gw1"))
        await ledger.subscribe(log_topic("+"))
        await gw1.publish(log_topic("gw1"), b"leaves")
        assert await heard(ledger) == (log_topic("gw1"), b"leaves")
        await ledger.publish(receipt_topic("gw1"), b"receipt")
        assert await heard(gw1) == (receipt_topic("gw1"), b"receipt")


async def test_a_gateway_writes_neither_anothers_log_nor_any_receipt(pki: Path, tmp_path: Path) -> None:
    """Only what it says on its own log topic gets through; the ledger in turn writes no log."""
    async with three_on(pki, tmp_path) as (gw1, gw2, ledger):
        await ledger.subscribe(log_topic("+"))
        await ledger.subscribe("#")
        await gw2.subscribe(receipt_topic("gw2"))
        await gw2.subscribe("#")
        for topic in (log_topic("gw2"), receipt_topic("gw2"), "wattseal/v1/gw1/x", "wattseal/v2/gw1/log", "x"):
            await gw1.publish(topic, b"forged")
        await ledger.publish(log_topic("gw2"), b"forged")
        await gw1.publish(log_topic("gw1"), b"own")
        assert await heard(ledger) == (log_topic("gw1"), b"own")
        await ledger.publish(receipt_topic("gw2"), b"true")
        assert await heard(gw2) == (receipt_topic("gw2"), b"true")


async def test_a_gateway_reads_nothing_but_its_own_receipts(pki: Path, tmp_path: Path) -> None:
    """However it subscribes: others' receipts, all logs and $SYS stay silent, while its own receipt arrives."""
    async with three_on(pki, tmp_path) as (gw1, gw2, ledger):
        for topic in ("#", "wattseal/v1/+/receipt", receipt_topic("gw2"), log_topic("gw2"), log_topic("+")):
            await gw1.subscribe(topic)
        await gw2.publish(log_topic("gw2"), b"others' leaves")
        await ledger.publish(receipt_topic("gw2"), b"others' receipt")
        await ledger.publish(receipt_topic("gw1"), b"own")
        assert await heard(gw1) == (receipt_topic("gw1"), b"own")


@pytest.mark.parametrize(("opened", "expected"), [(False, False), (True, True)])
async def test_the_brokers_own_topics_are_closed(pki: Path, tmp_path: Path, opened: bool, expected: bool) -> None:  # noqa: FBT001
    """$SYS stays silent even where it is published, until the list opens it: so this test can fail."""
    async with _edited_broker(pki, tmp_path, opened=opened) as port:
        for name in ("gw1", LEDGER):
            async with Link(endpoint(pki, port, name), client_id=name) as curious:
                await curious.subscribe("$SYS/#")
                assert (await heard(curious, 2.5) is not None) is expected


@asynccontextmanager
async def _edited_broker(pki: Path, folder: Path, *, opened: bool) -> AsyncIterator[int]:
    """Run a broker that publishes $SYS every second, and lets everybody read it if opened."""
    port = free_port()
    conf = write_broker_files(folder, pki=pki, ledger=LEDGER, port=port)
    conf.write_text(conf.read_text().replace("sys_interval 0", "sys_interval 1"))
    if opened:
        acl = folder / "mosquitto.acl"
        acl.write_text("pattern read $SYS/#\n" + acl.read_text())
        acl.write_text(acl.read_text() + "topic read $SYS/#\n")
    process = await asyncio.create_subprocess_exec(find_mosquitto(), "-c", str(conf), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10):
            while not await _listens(port):
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def test_no_client_is_thrown_out_by_another_that_takes_its_client_id(pki: Path, tmp_path: Path) -> None:
    """A client id is replaced by the certificate's name, so gw2 calling itself gw1 disturbs nobody."""
    async with broker_on(pki, tmp_path) as broker, link(broker, pki, "gw1") as gw1, link(broker, pki, LEDGER) as ledger:
        await gw1.subscribe(receipt_topic("gw1"))
        async with link(broker, pki, "gw2", client_id="gw1"):
            await ledger.publish(receipt_topic("gw1"), b"still here")
            assert await heard(gw1) == (receipt_topic("gw1"), b"still here")


async def test_a_hung_connection_of_ours_ends_when_we_connect_again(pki: Path, tmp_path: Path) -> None:
    """The same party's second connection takes the place of its first."""
    async with broker_on(pki, tmp_path) as broker, link(broker, pki, "gw1") as first, link(broker, pki, "gw1"):
        with pytest.raises(LinkError):
            await asyncio.wait_for(anext(first), 5)


async def test_the_broker_takes_a_whole_log_message_and_no_packet_beyond_its_limit(pki: Path, tmp_path: Path) -> None:
    """1 MiB passes, and a packet over 2 MiB ends the connection."""
    async with broker_on(pki, tmp_path) as broker, link(broker, pki, LEDGER) as ledger:
        await ledger.subscribe(log_topic("+"))
        async with link(broker, pki, "gw1") as gw1:
            await gw1.publish(log_topic("gw1"), bytes(1024 * 1024))
            arrived = await heard(ledger, 10)
            assert arrived is not None
            assert len(arrived[1]) == 1024 * 1024
            sending = asyncio.create_task(gw1.publish(log_topic("gw1"), bytes(2 * 1024 * 1024 + 1)))
            with pytest.raises(LinkError):
                await asyncio.wait_for(anext(gw1), 5)
            sending.cancel()


async def test_a_broker_ends_with_its_block_and_by_its_pid(pki: Path, tmp_path: Path) -> None:
    """No process is left behind, also when the block fails."""
    pids = []

    async def failing() -> None:
        async with broker_on(pki, tmp_path) as broker:
            os.kill(broker.pid, 0)
            pids.append(broker.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_port_in_use_is_said_with_the_brokers_own_words(pki: Path, tmp_path: Path) -> None:
    """A given port is tried once; the error quotes the log."""
    async with broker_on(pki, tmp_path / "one") as broker:
        with pytest.raises(LinkError, match="Address already in use"):
            async with running_broker(tmp_path / "two", pki=pki, ledger=LEDGER, port=broker.port):
                pass


def test_the_size_of_a_fleet_is_not_in_the_brokers_configuration() -> None:
    """A site has at most so many agents; gateways may be ten thousand."""
    files = BrokerFiles.of(Path("/etc/wattseal"), Path("/etc/wattseal/acl"))
    assert "max_connections" not in conf_text(files)
    assert "max_connections 1024\n" in conf_text(files, for_agents=True)


def test_texts_take_no_name_or_path_that_would_add_a_line() -> None:
    """A newline or a wildcard in a name could open every topic."""
    for name in ("ledger\ntopic readwrite #", "+", "#", ""):
        with pytest.raises(ConfigError):
            acl_text(ledger=name)
    files = BrokerFiles.of(Path("/etc/wattseal"), Path("/etc/wattseal/acl\nallow_anonymous true"))
    with pytest.raises(ConfigError, match="without control characters"):
        conf_text(files)
