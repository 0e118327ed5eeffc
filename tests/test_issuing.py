"""Short-lived certificates: given for a good quote over the request, by a device in order, and for nothing else."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.app.broker import running_broker
from gateway.app.channel import Channel, listen
from gateway.app.clientkey import IssuedKey
from gateway.app.logs import start_logs
from gateway.attest.chain import Anchors
from gateway.attest.evidence import MAX_EVIDENCE, Challenge, read_challenge
from gateway.attest.references import References
from gateway.codec.pack import pack, unpack
from gateway.errors import ConfigError, LinkError
from gateway.north.memory_key import MemoryKey
from gateway.north.mqtt import Arrived, Link, enrol_topic, log_topic
from gateway.north.pki import make_dev_ca
from gateway.north.tls import Endpoint
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftDevice
from provisioning.verifier.clerk import Clerk
from provisioning.verifier.issuing import DEADLINE_S, PACE_S, WRONG_S, Issuer
from provisioning.verifier.records import Marks
from tests.links import HOST, LEDGER, endpoint
from tests.reference_files import references, release
from tests.verifying import logger

NOW_S = 1_800_000_000.0
VERIFIER = Signer.generate("wattseal-verifier/v1")
SERIAL = "WS-0001"


class DevAuthority:
    """The development authority, as one that issues. hours: what it gives at most, however many are asked for."""

    def __init__(self, pki: Path) -> None:
        self._ca = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self.chain = (self._ca.public_bytes(serialization.Encoding.DER),)
        self.issued: list[tuple[str, float]] = []

    def issue_ldevid(self, csr: bytes, *, gateway: str, hours: float) -> bytes:
        """Return a certificate for a request."""
        return self.issue(x509.load_der_x509_csr(csr).public_key(), gateway, hours)

    def issue(self, public: Any, name: str, hours: float) -> bytes:
        """Return a client certificate for a public key."""
        self.issued.append((name, hours))
        start = self._ca.not_valid_before_utc
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(self._ca.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(self._ca.not_valid_after_utc)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_dev_ca(folder, gateways=["gw1", "gw2"], ledger=LEDGER, hosts=[HOST, "localhost"], verifier="verifier")
    return folder


@pytest.fixture
def device() -> SoftDevice:
    return SoftDevice(SERIAL)


@pytest.fixture
def authority(pki: Path) -> DevAuthority:
    return DevAuthority(pki)


def good(device: SoftDevice, now_s: float = NOW_S) -> References:
    return references(release(device.pcrs, from_s=int(now_s) - 100))


@pytest.fixture
def issuer(device: SoftDevice, authority: DevAuthority) -> Issuer:
    return issuer_of(device, authority, good(device))


def issuer_of(
    device: SoftDevice,
    authority: DevAuthority,
    reference: References,
    *,
    anchors: Anchors | None = None,
    devices: Mapping[str, str] | None = None,
    marks: Marks | None = None,
) -> Issuer:
    return Issuer(
        signer=VERIFIER,
        authority=authority,
        devices=lambda: {"gw1": SERIAL} if devices is None else devices,
        anchors=lambda: anchors or device.anchors,
        references=lambda: reference,
        marks=lambda _: marks,
        hours=24,
    )


def ask(issuer: Issuer, csr: bytes, evidence: bytes = b"", *, now_s: float = NOW_S) -> dict[str, Any]:
    """Return the reply to a request; an empty one for none."""
    packed = pack({"v": 1, "csr": csr, "evidence": evidence})
    found = issuer.hear("gw1", packed, now_s=now_s, nonce=secrets.token_bytes(32))
    return {} if found is None else dict(unpack(found[0]))


def challenged(issuer: Issuer, csr: bytes, *, now_s: float = NOW_S) -> Challenge:
    note = ask(issuer, csr, now_s=now_s)["challenge"]
    return read_challenge(note, verifier=VERIFIER.verifier, gateway="gw1")


def answer(device: SoftDevice, challenge: Challenge, csr: bytes) -> bytes:
    return device.evidence(challenge, epoch=1, key="k", log_size=1, bound=hashlib.sha256(csr).digest())


def test_a_device_in_order_gets_a_certificate_for_the_key_it_asked_for(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    key = MemoryKey("gw1")
    challenge = challenged(issuer, key.csr)
    assert challenge.purpose == "certify"
    said = ask(issuer, key.csr, answer(device, challenge, key.csr))
    assert authority.issued == [("gw1", 24)]
    key.adopt(said["chain"])
    key.close()


def drifted(device: SoftDevice) -> SoftDevice:
    """Return the device with something else in it."""
    device.extend(4, bytes(32))
    return device


def other(device: SoftDevice) -> SoftDevice:
    """Return another device of the same maker."""
    return SoftDevice("WS-0002", authority=device.authority)


def _wrong() -> Iterator[tuple[str, str, Callable[[SoftDevice, Challenge, bytes], bytes]]]:
    yield "a changed PCR", "not in order", lambda d, c, csr: answer(drifted(d), c, csr)
    yield (
        "another device",
        "device WS-0002",
        lambda d, c, csr: answer(SoftDevice("WS-0002", authority=d.authority), c, csr),
    )
    yield "another maker", "", lambda _, c, csr: answer(SoftDevice(SERIAL), c, csr)
    yield "another nonce", "", lambda d, c, csr: answer(d, replace(c, nonce=bytes(32)), csr)
    yield "another request", "another request", lambda d, c, _: answer(d, c, b"another")
    yield "no bytes of evidence", "", lambda *_: b"nonsense"


@pytest.mark.parametrize(
    ("why", "answers"), [(why, how) for _, why, how in _wrong()], ids=[name for name, *_ in _wrong()]
)
def test_what_is_not_in_order_gets_none_and_hears_why(
    device: SoftDevice,
    issuer: Issuer,
    authority: DevAuthority,
    why: str,
    answers: Callable[[SoftDevice, Challenge, bytes], bytes],
) -> None:
    key = MemoryKey("gw1")
    challenge = challenged(issuer, key.csr)
    said = ask(issuer, key.csr, answers(device, challenge, key.csr))
    assert list(said) == ["v", "to", "refused"]
    assert said["to"] == hashlib.sha256(key.csr).digest()
    assert why in said["refused"]
    assert not authority.issued


def test_a_device_that_was_revoked_or_whose_list_ran_out_gets_none(device: SoftDevice, authority: DevAuthority) -> None:
    """Decommissioned or transferred, its quote is as good as ever: the list is what says no."""
    now = datetime.fromtimestamp(NOW_S, UTC)
    number = device.certificate.serial_number
    lists = {
        "revoked since": device.authority.crl({number: now - timedelta(days=1)}),
        "ran out": device.authority.crl({}, until=now - timedelta(seconds=1)),
    }
    for why, crl in lists.items():
        anchors = replace(device.anchors, crls=(crl,))
        issuer = issuer_of(device, authority, good(device), anchors=anchors)
        csr = MemoryKey("gw1").csr
        assert why in ask(issuer, csr, answer(device, challenged(issuer, csr), csr))["refused"]
    assert not authority.issued


def test_a_gateway_that_is_removed_while_it_answers_gets_none_and_stops_nobody(
    device: SoftDevice, authority: DevAuthority
) -> None:
    devices = {"gw1": SERIAL}
    issuer = issuer_of(device, authority, good(device), devices=devices)
    csr = MemoryKey("gw1").csr
    challenge = challenged(issuer, csr)
    devices["gw1"] = "WS-0009"
    assert "not that of gw1" in ask(issuer, csr, answer(device, challenge, csr))["refused"]
    challenge = challenged(issuer, csr, now_s=NOW_S + PACE_S)
    del devices["gw1"]
    assert ask(issuer, csr, answer(device, challenge, csr), now_s=NOW_S + PACE_S) == {}
    assert not authority.issued


def test_an_authority_that_is_out_of_order_stops_no_verifier(device: SoftDevice, pki: Path) -> None:
    """Its disk is full, its book locked, its token away: gateways are still appraised. They hear no path of ours."""

    class Full(DevAuthority):
        def issue_ldevid(self, csr: bytes, *, gateway: str, hours: float) -> bytes:
            raise ConfigError(f"/ca/issued.sqlite: disk is full {csr!r} {gateway} {hours}")

    issuer = issuer_of(device, Full(pki), good(device))
    csr = MemoryKey("gw1").csr
    packed = pack({"v": 1, "csr": csr, "evidence": answer(device, challenged(issuer, csr), csr)})
    reply, how = issuer.hear("gw1", packed, now_s=NOW_S, nonce=bytes(32)) or (b"", "")
    assert "/ca" not in unpack(reply)["refused"]
    assert "ask again" in unpack(reply)["refused"]
    assert "disk is full" in how


def test_a_clock_that_is_put_back_silences_nobody(issuer: Issuer) -> None:
    csr = MemoryKey("gw1").csr
    assert "challenge" in ask(issuer, csr, now_s=NOW_S + 86_400)
    assert "challenge" in ask(issuer, csr)


def test_a_device_whose_state_was_put_back_gets_none(device: SoftDevice, authority: DevAuthority) -> None:
    """The verifier knows how far it had come; what has failed there gets no certificate here."""
    come = Marks(
        device=hashlib.sha256(device.chain[0]).hexdigest(),
        reset_count=device.reset_count + 1,
        restart_count=0,
        clock_ms=0,
        epoch=1,
        key="k",
        log_size=1,
    )
    issuer = issuer_of(device, authority, good(device), marks=come)
    key = MemoryKey("gw1")
    said = ask(issuer, key.csr, answer(device, challenged(issuer, key.csr), key.csr))
    assert "resetCount fell" in said["refused"]
    assert not authority.issued


def test_a_challenge_serves_once_and_not_after_its_deadline(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    """Whatever its own device answers: so that has one try."""
    key = MemoryKey("gw1")
    first = challenged(issuer, key.csr)
    bad = answer(device, first, b"another")
    assert "another request" in ask(issuer, key.csr, bad)["refused"]
    later = NOW_S + PACE_S
    assert "ask again" in ask(issuer, key.csr, answer(device, first, key.csr), now_s=later)["refused"]
    second = challenged(issuer, key.csr, now_s=later)
    late = answer(device, second, key.csr)
    assert "ask again" in ask(issuer, key.csr, late, now_s=later + DEADLINE_S + 1)["refused"]
    assert not authority.issued


# ---- a stolen bootstrap identity


def test_junk_takes_no_challenge_from_who_has_the_tpm(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    """Neither evidence that nobody signed, nor requests of another's key: a challenge is for whoever has the TPM."""
    ours, theirs = MemoryKey("gw1").csr, MemoryKey("gw1").csr
    mine = challenged(issuer, ours)
    thief = SoftDevice(SERIAL, authority=device.authority)
    thief.chain = device.chain
    for number, junk in enumerate((b"junk", mine.nonce, answer(thief, mine, theirs))):
        assert "refused" in ask(issuer, theirs, junk, now_s=NOW_S + 1 + number)
    for number in range(5):
        last = challenged(issuer, theirs, now_s=NOW_S + PACE_S * (number + 1))
    now_s = NOW_S + DEADLINE_S - 1
    assert "chain" in ask(issuer, ours, answer(device, mine, ours), now_s=now_s)
    assert "chain" in ask(issuer, ours, answer(device, last, ours), now_s=now_s), "one that another asked for, too"
    assert authority.issued == [("gw1", 24)] * 2


def test_a_flood_of_junk_gets_a_few_replies_and_costs_little(
    device: SoftDevice, issuer: Issuer, authority: DevAuthority
) -> None:
    """A gateway's own opening request is heard at once all the same, and its evidence a moment later."""
    csr = MemoryKey("gw1").csr
    for junk, share in ((pack({"v": 1, "csr": csr, "evidence": bytes(MAX_EVIDENCE)}), 1), (b"\xc1", 0.1)):
        replies = [issuer.hear("gw1", junk, now_s=NOW_S + n / 1000, nonce=bytes(32)) for n in range(1000)]
        assert 0 < sum(reply is not None for reply in replies) <= 1.1 / (WRONG_S * share)
    challenge = challenged(issuer, csr, now_s=NOW_S + 1)
    assert "chain" in ask(issuer, csr, answer(device, challenge, csr), now_s=NOW_S + 1 + WRONG_S)
    assert authority.issued == [("gw1", 24)]


async def test_a_thief_of_the_bootstrap_identity_keeps_no_gateway_from_its_certificate(
    pki: Path, tmp_path: Path, device: SoftDevice, authority: DevAuthority
) -> None:
    """He asks, answers and reads on its topics all the time; each gateway waits once, and the log stays short."""
    issuer = issuer_of(device, authority, good(device, time.time()))
    log, said = logger()
    running = running_broker(tmp_path / "b", pki=pki, ledger=LEDGER, verifier="verifier", enrolling=["gw1"])
    async with running as broker, seal_of(device, tmp_path / "o.sock"), asyncio.TaskGroup() as tasks:
        base, place = bootstrap(pki, authority, tmp_path, broker.port), endpoint(pki, broker.port, "verifier")
        async with Link(place, client_id="verifier") as link:
            clerk = Clerk(link, issuer, log)
            await clerk.open()
            under_way = [tasks.create_task(clerk.run()), tasks.create_task(heard_by(clerk, link))]
            theirs = MemoryKey("gw1").csr

            async def rob() -> None:
                for number in range(10_000):
                    arrived = Arrived(
                        topic=enrol_topic("gw1", "request"),
                        payload=pack({"v": 1, "csr": theirs, "evidence": b"junk" * (number % 2)}),
                    )
                    for _ in range(20):
                        clerk.hear(arrived)
                    await asyncio.sleep(0.02)

            under_way.append(tasks.create_task(rob()))
            await asyncio.sleep(0.5)
            identity = IssuedKey("gw1", bootstrap=base, outlet=tmp_path / "o.sock", log=start_logs("forward"))
            for attempt in range(20):
                try:
                    await identity.endpoint()
                    break
                except LinkError:
                    assert attempt < 19
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
    hows = [call.kwargs["how"] for call in said.calls if call.kwargs.get("event") == "verifier.certificate"]
    assert sorted(how.partition(":")[0] for how in hows) == ["challenged", "issued", "refused"]


async def heard_by(clerk: Clerk, link: Link) -> None:
    """Give a clerk what arrives."""
    async for arrived in link:
        clerk.hear(arrived)


def test_a_gateway_is_challenged_at_a_pace_and_an_unknown_one_not_at_all(issuer: Issuer) -> None:
    csr = MemoryKey("gw1").csr
    assert "challenge" in ask(issuer, csr)
    assert ask(issuer, csr, now_s=NOW_S + PACE_S - 1) == {}
    assert "challenge" in ask(issuer, csr, now_s=NOW_S + PACE_S)
    assert issuer.hear("gw9", pack({"v": 1, "csr": csr, "evidence": b""}), now_s=NOW_S, nonce=bytes(32)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        pack([]),
        pack({"v": 2, "csr": b"x", "evidence": b""}),
        pack({"v": 1, "csr": b"", "evidence": b""}),
        pack({"v": 1, "csr": b"x" * 3000, "evidence": b""}),
        pack({"v": 1, "csr": b"x"}),
        bytes(600_000),
    ],
    ids=["empty", "no msgpack", "a list", "version", "no csr", "long csr", "a key less", "long"],
)
def test_a_malformed_request_is_refused(issuer: Issuer, payload: bytes) -> None:
    found = issuer.hear("gw1", payload, now_s=NOW_S, nonce=bytes(32))
    assert found is not None
    assert "refused" in unpack(found[0])


# ---- the gateway's side, over a real broker


@asynccontextmanager
async def seal_of(device: SoftDevice, path: Path) -> AsyncIterator[None]:
    """Serve an outlet on which this device's TPM answers challenges."""

    async def serve(channel: Channel) -> None:
        while True:
            for message in await channel.receive():
                _, note, bound, _ = message
                challenge = read_challenge(note, verifier=VERIFIER.verifier, gateway="gw1")
                evidence = device.evidence(challenge, epoch=1, key="k", log_size=1, bound=bound)
                await channel.send(["evidence", evidence])

    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server = await listen(path, serve, failed=failed)
    yield
    server.close()
    assert not failed.done()


async def issuing(issuer: Issuer, place: Endpoint, ready: asyncio.Event) -> None:
    """Answer requests, as the attestation service does."""
    async with Link(place, client_id="verifier") as link:
        await link.subscribe(enrol_topic("+", "request"))
        ready.set()
        async for arrived in link:
            found = issuer.hear("gw1", arrived.payload, now_s=time.time(), nonce=secrets.token_bytes(32))
            if found:
                await link.publish(enrol_topic("gw1", "reply"), found[0])


def bootstrap(pki: Path, authority: DevAuthority, folder: Path, port: int) -> Endpoint:
    """Return the endpoint of the identity that may ask for a certificate and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = authority.issue(key.public_key(), "enrol_gw1", 1)
    cert, private = folder / "enrol.pem", folder / "enrol.key"
    cert.write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Endpoint(host=HOST, port=port, ca=pki / "ca.pem", cert=cert, key=private)


async def test_a_gateway_connects_with_a_key_that_no_disk_has_seen(
    pki: Path, tmp_path: Path, device: SoftDevice, authority: DevAuthority
) -> None:
    """The bootstrap identity gets nowhere by itself; the certificate does, and is kept until it is due."""
    issuer = issuer_of(device, authority, good(device, time.time()))
    running = running_broker(tmp_path / "b", pki=pki, ledger=LEDGER, verifier="verifier", enrolling=["gw1"])
    async with running as broker, seal_of(device, tmp_path / "o.sock"), asyncio.TaskGroup() as tasks:
        ready = asyncio.Event()
        serving = tasks.create_task(issuing(issuer, endpoint(pki, broker.port, "verifier"), ready))
        await ready.wait()
        base = bootstrap(pki, authority, tmp_path, broker.port)
        identity = IssuedKey("gw1", bootstrap=base, outlet=tmp_path / "o.sock", log=start_logs("forward"))
        place = await identity.endpoint()
        assert await identity.endpoint() is place
        async with (
            Link(endpoint(pki, broker.port, LEDGER), client_id=LEDGER) as ledger,
            Link(base, client_id="enrol_gw1") as intruder,
            Link(place, client_id="gw1") as gateway,
        ):
            await ledger.subscribe(log_topic("+"))
            await intruder.publish(log_topic("gw1"), b"forged")
            await gateway.publish(log_topic("gw1"), b"sealed")
            assert (await anext(ledger)).payload == b"sealed"
        serving.cancel()


async def test_a_drifted_device_stays_outside_and_says_why(
    pki: Path, tmp_path: Path, device: SoftDevice, authority: DevAuthority
) -> None:
    """It may try again: with a good quote it comes in."""
    issuer = issuer_of(device, authority, good(device, time.time()))
    golden = dict(device.pcrs)
    device.extend(4, bytes(32))
    running = running_broker(tmp_path / "b", pki=pki, ledger=LEDGER, verifier="verifier", enrolling=["gw1"])
    async with running as broker, seal_of(device, tmp_path / "o.sock"), asyncio.TaskGroup() as tasks:
        ready = asyncio.Event()
        serving = tasks.create_task(issuing(issuer, endpoint(pki, broker.port, "verifier"), ready))
        await ready.wait()
        base = bootstrap(pki, authority, tmp_path, broker.port)
        identity = IssuedKey("gw1", bootstrap=base, outlet=tmp_path / "o.sock", log=start_logs("forward"))
        with pytest.raises(LinkError, match="not in order"):
            await identity.endpoint()
        assert authority.issued == [("enrol_gw1", 1)]
        device.pcrs = golden
        await asyncio.sleep(PACE_S)
        await identity.endpoint()
        serving.cancel()
