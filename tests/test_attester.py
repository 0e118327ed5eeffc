"""app/attester.py and what carries it: a real TPM in software answers challenges; one that fails stops nothing."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.attester import MAX_EVENT_LOG, Attester, Respondent, read_chain
from gateway.app.forwarding import ForwardMetrics
from gateway.app.questions import MOST_WAITING, Questions
from gateway.app.tlskeys import TlsKeys
from gateway.attest.chain import Anchors
from gateway.attest.epoch import verify_epoch
from gateway.attest.evidence import (
    Challenge,
    Counter,
    Evidence,
    qualifying,
    sign_challenge,
    verify_evidence,
)
from gateway.attest.structures import parse_public
from gateway.attest.verify import verify_counter
from gateway.codec.frames import MAX_CHALLENGE
from gateway.errors import ConfigError, LinkError, TrustError
from gateway.tlog.note import Signer
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftAuthority, challenge_for
from provisioning.ca.requests import read_request
from tests.sealing import T0_S
from tests.test_seal_server import serving
from tests.verifying import VERIFIER, logger

KEY = Signer.generate("wattseal/gw1").verifier.vkey
AUTHORITY = SoftAuthority()
PCRS = (0, 1, 2, 7)
SAID: dict[str, Any] = {"epoch": 3, "key": KEY, "log_size": 17, "about": {"tls": "memory"}}


@pytest.fixture
def tpm(tcti: str) -> Iterator[Tpm]:
    with Tpm.open(tcti) as opened:
        yield opened


def attester(tpm: Tpm, **options: Any) -> Attester:
    """Return an attester whose attestation key the authority vouches for."""
    certificate = AUTHORITY.issue(parse_public(tpm.ak_public()).key, "WS-1")
    return Attester(tpm, chain=AUTHORITY.chain(certificate), pcrs=PCRS, **options)


def verified(packed: bytes, challenge: Challenge) -> Any:
    """Return what evidence says, once it holds."""
    anchors: Anchors = AUTHORITY.anchors
    return verify_evidence(Evidence.unpack(packed), anchors, nonce=challenge.nonce, at_s=T0_S)


# ---- the TPM's word


def test_a_tpm_vouches_for_an_epoch_key(tpm: Tpm) -> None:
    binding = attester(tpm).bind(vkey=KEY, epoch=3, t_ns=T0_S * 10**9)
    bound = verify_epoch({"epoch": 3, "key": KEY, "binding": binding}, AUTHORITY.anchors)
    assert (bound.device.serial, bound.verifier.vkey, set(bound.pcrs)) == ("WS-1", KEY, set(PCRS))
    with pytest.raises(TrustError):
        verify_epoch({"epoch": 4, "key": KEY, "binding": binding}, AUTHORITY.anchors)


def test_a_challenge_is_answered_with_all_that_the_device_is(tpm: Tpm, tmp_path: Path) -> None:
    """Claims, quote, event log and counters, under one nonce."""
    tpm.counter_define(0x01800100)
    tpm.counter_increment(0x01800100)
    (tmp_path / "log").write_bytes(b"measured")
    speaking = attester(tpm, event_log=tmp_path / "log", counters=(0x01800100,))
    challenge = challenge_for("gw1", at_s=T0_S)
    found = verified(speaking.answer(challenge, bound=b"", **SAID), challenge)
    assert (found.claims.gateway, found.claims.epoch, found.claims.key) == ("gw1", 3, KEY)
    assert (found.claims.log_size, dict(found.claims.about), found.evidence.event_log) == (
        17,
        SAID["about"],
        b"measured",
    )
    said = qualifying(challenge.nonce, found.evidence.claims)
    assert verify_counter(found.evidence.counters[0], found.device.key, qualifying=said)[0] == 0x01800100
    assert found.reset_count >= 1


def test_what_is_bound_must_fit_the_purpose(tpm: Tpm) -> None:
    """A verifier that asks how the gateway is does not get a key certified, nor the other way."""
    speaking = attester(tpm)
    certify = challenge_for("gw1", at_s=T0_S, purpose="certify")
    found = verified(speaking.answer(certify, bound=bytes(32), **SAID), certify)
    assert found.claims.bound == bytes(32)
    for challenge, bound in ((certify, b""), (certify, bytes(31)), (challenge_for("gw1", at_s=T0_S), bytes(32))):
        with pytest.raises(TrustError, match="bound"):
            speaking.answer(challenge, bound=bound, **SAID)


def test_an_event_log_is_read_to_a_bound(tpm: Tpm, tmp_path: Path) -> None:
    challenge, path = challenge_for("gw1", at_s=T0_S), tmp_path / "log"
    speaking = attester(tpm, event_log=path)
    with pytest.raises(ConfigError, match=r"attest\.event_log: got .*No such file"):
        speaking.answer(challenge, bound=b"", **SAID)
    path.write_bytes(bytes(MAX_EVENT_LOG))
    assert len(verified(speaking.answer(challenge, bound=b"", **SAID), challenge).evidence.event_log) == MAX_EVENT_LOG
    path.write_bytes(bytes(MAX_EVENT_LOG + 1))
    with pytest.raises(TrustError, match="event log: got more than"):
        speaking.answer(challenge, bound=b"", **SAID)


def test_two_threads_share_the_tpm_without_trouble(tpm: Tpm) -> None:
    speaking, failed = attester(tpm), []

    def bind() -> None:
        try:
            for _ in range(20):
                speaking.bind(vkey=KEY, epoch=3, t_ns=1)
        except Exception as e:  # noqa: BLE001 (a thread's error is the test's)
            failed.append(e)

    threads = [threading.Thread(target=bind) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# ---- who is answered, and how often


class SlowDevice:
    """A TPM that takes its time, and may fail."""

    def __init__(self, *, takes_s: float = 0.0, fails: bool = False) -> None:
        self.takes_s, self.fails, self.quotes = takes_s, fails, 0

    def quote(self, qualifying: bytes, pcrs: Sequence[int]) -> "SlowDevice":
        """Quote nothing."""
        self.quotes += 1
        time.sleep(self.takes_s)
        if self.fails:
            raise TrustError("TPM: it is out of order")
        self.attest, self.signature = b"attest " + qualifying, b"signature"
        self.pcrs = dict.fromkeys(pcrs, bytes(32))
        return self

    def counter_certify(self, index: int, qualifying: bytes) -> Counter:
        """Certify nothing."""
        raise TrustError(f"TPM: no counter {index} {len(qualifying)}")


def respondent(device: Any, *, least_s: float = 0.0) -> Respondent:
    """Return one for gw1 that answers to the tests' verifier."""
    speaking = Attester(device, chain=(b"x",), pcrs=PCRS)
    return Respondent(speaking, gateway="gw1", verifier=VERIFIER.verifier, about={}, least_s=least_s)


def note(*, gateway: str = "gw1", purpose: str = "attest", signer: Signer = VERIFIER) -> bytes:
    """Return a challenge with a fresh nonce, signed."""
    return sign_challenge(challenge_for(gateway, at_s=T0_S, purpose=purpose), signer)


ASKED: dict[str, Any] = {"tls": "memory", "epoch": 1, "key": KEY, "log_size": 2}


async def test_only_our_verifiers_challenges_for_us_are_answered() -> None:
    device = SlowDevice()
    answering = respondent(device)
    stranger = Signer.generate(VERIFIER.name)
    for bad in (b"", b"nonsense", note(signer=stranger), note(gateway="gw2"), bytes(MAX_CHALLENGE + 1)):
        with pytest.raises(TrustError):
            await answering.respond(bad, b"", **ASKED)
    assert device.quotes == 0
    assert Evidence.unpack(await answering.respond(note(), b"", **ASKED)).signature == b"signature"


async def test_a_challenge_is_answered_once() -> None:
    """A broker that sends it again costs the TPM nothing."""
    device = SlowDevice()
    answering = respondent(device)
    once = note()
    await answering.respond(once, b"", **ASKED)
    with pytest.raises(TrustError, match="answered before"):
        await answering.respond(once, b"", **ASKED)
    assert device.quotes == 1


async def test_a_verifier_gone_wild_is_answered_now_and_then() -> None:
    """Each purpose has its own turn: who wants a certificate need not wait for an appraisal."""
    device = SlowDevice()
    answering = respondent(device, least_s=0.2)
    refused = 0
    for _ in range(200):
        try:
            await answering.respond(note(), b"", **ASKED)
        except TrustError as e:
            assert "second one in 0.2 s" in str(e)  # noqa: PT017 (both ends are counted)
            refused += 1
    assert (device.quotes, refused) == (200 - refused, refused)
    assert device.quotes <= 3
    await answering.respond(note(purpose="certify"), bytes(32), **ASKED)


async def test_the_loop_goes_on_while_the_tpm_works_and_one_answer_is_made_at_a_time() -> None:
    device = SlowDevice(takes_s=0.3)
    answering = respondent(device)
    first = asyncio.create_task(answering.respond(note(), b"", **ASKED))
    ticks = 0
    while not first.done():
        await asyncio.sleep(0.01)
        ticks += 1
        if ticks == 5:
            with pytest.raises(TrustError, match="another one is being answered"):
                await answering.respond(note(), b"", **ASKED)
    assert ticks > 15
    assert device.quotes == 1


async def test_who_goes_while_the_tpm_works_does_not_free_it() -> None:
    """A forward that connects again and again does not pile up threads behind a TPM that hangs."""
    device = SlowDevice(takes_s=0.3)
    answering = respondent(device)
    first = asyncio.create_task(answering.respond(note(), b"", **ASKED))
    await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(TrustError, match="another one"):
        await answering.respond(note(), b"", **ASKED)
    await asyncio.sleep(0.4)
    await answering.respond(note(), b"", **ASKED)
    assert device.quotes == 2


# ---- the seal's socket


async def test_the_seal_hands_out_evidence_over_its_socket(tmp_path: Path, tpm: Tpm) -> None:
    """With the epoch, the key and the size that its log has now."""
    answering = Respondent(attester(tpm), gateway="gw1", verifier=VERIFIER.verifier, about={"version": "1"})
    async with serving(tmp_path) as s:
        s.server._respondent = answering
        forward = await s.peer("outlet")
        challenge = challenge_for("gw1", at_s=T0_S)
        await forward.say(["challenge", sign_challenge(challenge, VERIFIER), b"", "memory"])
        name, packed = await forward.hear()
        assert name == "evidence"
        claims = verified(packed, challenge).claims
        assert dict(claims.about) == {"tls": "memory", "version": "1"}
        assert (claims.epoch, claims.key) == s.box.sealer.announced
        assert claims.log_size == s.box.sealer.signed
        assert s.box.sealer.counts.evidence == 1


async def test_the_evidence_says_what_forward_has_proven_at_each_challenge(tmp_path: Path, tpm: Tpm) -> None:
    """Forward may start again with another key while the seal runs on: what the seal was started with says nothing."""
    answering = Respondent(attester(tpm), gateway="gw1", verifier=VERIFIER.verifier, about={}, least_s=0.0)
    async with serving(tmp_path) as s:
        s.server._respondent = answering
        for tls in ("memory", "file"):
            forward = await s.peer("outlet")
            challenge = challenge_for("gw1", at_s=T0_S)
            await forward.say(["challenge", sign_challenge(challenge, VERIFIER), b"", tls])
            _, packed = await forward.hear()
            assert verified(packed, challenge).claims.about["tls"] == tls
        await forward.say(["challenge", note(), b"", "vault"])
        assert (await forward.hear())[0] == "error"


async def test_the_seal_makes_a_key_in_the_tpm_and_vouches_for_the_newest_alone(tmp_path: Path, tpm: Tpm) -> None:
    """What it vouches for is the key of the request, made in this TPM and never let out of it."""
    speaking = attester(tpm, keys=TlsKeys(tpm, gateway="gw1"))
    answering = Respondent(speaking, gateway="gw1", verifier=VERIFIER.verifier, about={}, least_s=0.0)
    async with serving(tmp_path) as s:
        s.server._respondent = answering
        forward = await s.peer("outlet")
        made = []
        for _ in range(2):
            await forward.say(["key"])
            name, private, csr = await forward.hear()
            assert (name, private[:31]) == ("key", b"-----BEGIN TSS2 PRIVATE KEY----")
            made.append(csr)
        challenge = challenge_for("gw1", at_s=T0_S, purpose="certify")
        bound = hashlib.sha256(made[1]).digest()
        await forward.say(["challenge", sign_challenge(challenge, VERIFIER), bound, "tpm"])
        _, packed = await forward.hear()
        found = verified(packed, challenge)
        assert found.key.key == read_request(made[1])
        assert (found.key.is_own, found.claims.about["tls"]) == (True, "tpm")
        await forward.say(["challenge", note(purpose="certify"), hashlib.sha256(made[0]).digest(), "tpm"])
        assert "newest key" in str(await forward.hear())


async def test_a_forward_gone_wild_gets_keys_now_and_then(tpm: Tpm) -> None:
    speaking = attester(tpm, keys=TlsKeys(tpm, gateway="gw1"))
    answering = Respondent(speaking, gateway="gw1", verifier=VERIFIER.verifier, about={}, least_s=60.0)
    await answering.make_key()
    with pytest.raises(TrustError, match="key: got the second one in 60 s"):
        await answering.make_key()


async def test_a_tpm_that_fails_is_refused_with_why_and_the_seal_goes_on(tmp_path: Path) -> None:
    device = SlowDevice(fails=True)
    async with serving(tmp_path) as s:
        s.server._respondent = respondent(device)
        forward = await s.peer("outlet")
        for _ in range(2):
            await forward.say(["challenge", note(), b"", "file"])
            assert await forward.hear() == ["refused", 0, "TPM: it is out of order"]
        await forward.say(["hello", 1])
        assert (await forward.hear())[0] == "position"
        assert s.box.sealer.counts.challenges_refused == 2
        assert s.events("seal.challenge_refused") == 1
        device.fails = False
        await forward.say(["challenge", note(), b"", "file"])
        assert (await forward.hear())[0] == "evidence"
        assert s.events("seal.challenge_answered") == 1


async def test_a_gateway_without_a_tpm_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        forward = await s.peer("outlet")
        await forward.say(["challenge", note(), b"", "file"])
        assert await forward.hear() == ["refused", 0, "this gateway has no [attest]"]


# ---- forward's part


def test_a_flood_of_challenges_goes_no_further() -> None:
    counts = ForwardMetrics()
    questions = Questions("gw1", counts, logger()[0], tls="file")
    questions.put(bytes(MAX_CHALLENGE + 1))
    for _ in range(100):
        questions.put(note())
    assert counts.challenges_refused == 1 + 100 - MOST_WAITING


async def test_what_the_seal_cannot_have_said_ends_the_session() -> None:
    questions = Questions("gw1", ForwardMetrics(), logger()[0], tls="file")
    nobody: Any = None
    for answer in ([["idle"]], [["evidence", b"x"], ["evidence", b"y"]], [["refused", 1, "x"]]):
        with pytest.raises(LinkError, match="want evidence"):
            await questions._pass_on(answer, nobody)


# ---- the certificates


def test_a_chain_is_read_from_pem_in_its_order(tmp_path: Path) -> None:
    certificate = AUTHORITY.issue(AUTHORITY.root_key.public_key(), "WS-1")
    path = tmp_path / "chain.pem"
    path.write_bytes(b"".join(pem(one) for one in (certificate, AUTHORITY.issuing)))
    assert read_chain(path, "attest.chain") == AUTHORITY.chain(certificate)
    good = path.read_text()
    for bad in (
        "",
        "nonsense",
        good * 3,
        good + "x",
        good.replace("MII", "M*I"),
        good.replace("-----END", "----END", 1),
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError, match=r"^attest\.chain: got .*chain\.pem"):
            read_chain(path, "attest.chain")
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        read_chain(path, "attest.chain")


def pem(certificate: Any) -> bytes:
    """Return a certificate in PEM."""
    text: bytes = certificate.public_bytes(Encoding.PEM)
    return text
