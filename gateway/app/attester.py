"""The gateway's answers: its TPM vouches for each epoch key, and for what a verifier asks about.

One TPM, one caller at a time. It signs slowly and may fail: the log goes on meanwhile, and the verifier sees why.
"""

import asyncio
import base64
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.app.keys import read_verifier
from gateway.app.tlskeys import TlsKeys
from gateway.attest.epoch import qualifying as epoch_qualifying
from gateway.attest.epoch import quote_binding
from gateway.attest.evidence import MAX_EVIDENCE, Challenge, Claims, Counter, Evidence, qualifying, read_challenge
from gateway.attest.structures import parse_public
from gateway.codec.fits import is_chain
from gateway.config import GatewayConfig
from gateway.config.sections import AttestSection
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Verifier
from gateway.tpm import Tpm

MAX_EVENT_LOG = 384 * 1024
"""Of the firmware's event log, in bytes: the rest of the evidence has room beside it."""
LEAST_S = 2.0
"""Between two answers to challenges of one purpose."""
REMEMBERED = 256
_BOUND_BYTES = 32
_T = TypeVar("_T")

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]{1,12288})-----END CERTIFICATE-----\s*")


def read_chain(path: Path, where: str) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file in DER, in its order. Raises ConfigError.

    where: the configuration key that names the file. What the certificates say, whoever gets them finds out.
    """
    try:
        text = path.read_text(encoding="ascii")
        chain = tuple(base64.b64decode("".join(one.split()), validate=True) for one in _PEM.findall(text))
    except OSError as e:
        raise ConfigError(f"{where}: got {path}: {e.strerror}, want certificates in PEM") from e
    except ValueError as e:
        raise ConfigError(f"{where}: got {path}: {e}, want certificates in PEM") from e
    if not is_chain([*chain]) or _PEM.sub("", text).strip():
        raise ConfigError(f"{where}: got {path} with {len(chain)} certificates, want 1 to 4 in PEM, and nothing else")
    return chain


class Quote(Protocol):
    """What a TPM says in a quote: TPMS_ATTEST, TPMT_SIGNATURE, and the PCRs that it covers."""

    @property
    def attest(self) -> bytes:
        """TPMS_ATTEST."""

    @property
    def signature(self) -> bytes:
        """TPMT_SIGNATURE."""

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        """The SHA-256 bank, by index."""


class Device(Protocol):
    """What is wanted of a TPM. Raises GatewayError when it does not answer, or refuses."""

    def quote(self, qualifying: bytes, pcrs: Sequence[int]) -> Quote:
        """Return a quote over these PCRs by the attestation key."""

    def counter_certify(self, index: int, qualifying: bytes) -> Counter:
        """Return the state of an NV counter, certified by the attestation key."""


class Attester:
    """Speaks for one device. Its methods block while the TPM works, and may be called from any thread.

    chain: certificates in DER, the attestation key's own first. event_log: the firmware's file, if there is one.
    counters: NV indices. keys: makes client keys in the TPM.
    """

    def __init__(
        self,
        device: Device,
        *,
        chain: Sequence[bytes],
        pcrs: Sequence[int],
        event_log: Path | None = None,
        counters: Sequence[int] = (),
        keys: TlsKeys | None = None,
    ) -> None:
        self._device, self._chain, self._pcrs, self._keys = device, tuple(chain), tuple(sorted(pcrs)), keys
        self._event_log, self._counters = event_log, tuple(counters)
        self._turn = threading.Lock()

    def bind(self, *, vkey: str, epoch: int, t_ns: int) -> Mapping[str, Any]:
        """Return the binding of an epoch leaf: a quote over this key. Raises GatewayError when the TPM fails."""
        with self._turn:
            quoted = self._device.quote(epoch_qualifying(vkey=vkey, epoch=epoch, t_ns=t_ns), self._pcrs)
        return quote_binding(
            t_ns=t_ns, attest=quoted.attest, signature=quoted.signature, pcrs=quoted.pcrs, chain=self._chain
        )

    def make_key(self) -> tuple[bytes, bytes]:
        """Return a new client key in the TPM; see TlsKeys.make."""
        with self._turn:
            return self._made_keys().make()

    def _made_keys(self) -> TlsKeys:
        if self._keys is None:
            raise TrustError("key: this seal makes none in the TPM")
        return self._keys

    def answer(
        self, challenge: Challenge, *, epoch: int, key: str, log_size: int, bound: bytes, about: Mapping[str, str]
    ) -> bytes:
        """Return the evidence that answers a challenge, as bytes.

        epoch, key: of the newest epoch leaf. log_size: leaves that are signed. bound: SHA-256 of a certificate
        request where one shall be certified, else b"". about: what it says of a key in the TPM, the attestation key
        certifies there.
        Raises TrustError for a `bound` that does not fit the purpose, GatewayError when the TPM or a file fails.
        """
        if len(bound) != (_BOUND_BYTES if challenge.purpose == "certify" else 0):
            raise TrustError(f"challenge: got {len(bound)} bytes bound to it, which does not fit {challenge.purpose!r}")
        claims = Claims(
            gateway=challenge.gateway,
            nonce=challenge.nonce,
            epoch=epoch,
            key=key,
            log_size=log_size,
            bound=bound,
            about=about,
        ).pack()
        said = qualifying(challenge.nonce, claims)
        event_log = self._read_event_log()
        with self._turn:
            quoted = self._device.quote(said, self._pcrs)
            counters = tuple(self._device.counter_certify(index, said) for index in self._counters)
            vouched = self._made_keys().vouch(bound, said) if bound and about.get("tls") == "tpm" else None
        packed = Evidence(
            claims=claims,
            attest=quoted.attest,
            signature=quoted.signature,
            pcrs=quoted.pcrs,
            chain=self._chain,
            event_log=event_log,
            counters=counters,
            key=vouched,
        ).pack()
        if len(packed) > MAX_EVIDENCE:
            raise TrustError(f"evidence: got {len(packed)} bytes, want at most {MAX_EVIDENCE}")
        return packed

    def _read_event_log(self) -> bytes:
        """Return what the firmware has measured. A file of securityfs has no size before it is read."""
        if self._event_log is None:
            return b""
        try:
            with self._event_log.open("rb") as file:
                found = file.read(MAX_EVENT_LOG + 1)
        except OSError as e:
            raise ConfigError(f"attest.event_log: got {self._event_log}: {e.strerror}, want a readable file") from e
        if len(found) > MAX_EVENT_LOG:
            raise TrustError(f"event log: got more than {MAX_EVENT_LOG} bytes")
        return found


class Respondent:
    """Answers challenges of one verifier, one at a time, and at most one of a purpose in LEAST_S seconds.

    So neither a broker that repeats challenges nor a verifier gone wild keeps the TPM from its work.
    about: what the evidence says beside all else: `version`, `image`.
    """

    def __init__(
        self,
        attester: Attester,
        *,
        gateway: str,
        verifier: Verifier,
        about: Mapping[str, str],
        least_s: float = LEAST_S,
    ) -> None:
        self._attester, self._gateway, self._verifier = attester, gateway, verifier
        self._about, self._least_s = dict(about), least_s
        self._seen: deque[bytes] = deque(maxlen=REMEMBERED)
        self._last_s: dict[str, float] = {}
        # A thread of its own: what a TPM that hangs holds up is this thread, and `done` tells when it no longer does.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="attest")
        self._running: Future[Any] | None = None

    async def respond(self, note: bytes, bound: bytes, tls: str, *, epoch: int, key: str, log_size: int) -> bytes:
        """Return the evidence for the challenge in a note; see Attester.answer. The loop goes on while the TPM works.

        tls: where forward has proven its client key to be.
        Raises TrustError for a note that is not by our verifier for us, is a repetition, or comes too soon, and
        whatever the TPM raises.
        """
        challenge = read_challenge(note, verifier=self._verifier, gateway=self._gateway)
        if challenge.nonce in self._seen:
            raise TrustError("challenge: this one was answered before")
        self._check_turn(challenge.purpose, "challenge")
        self._seen.append(challenge.nonce)
        answer = partial(
            self._attester.answer,
            challenge,
            epoch=epoch,
            key=key,
            log_size=log_size,
            bound=bound,
            about=self._about | {"tls": tls},
        )
        return await self._alone(answer)

    async def make_key(self) -> tuple[bytes, bytes]:
        """Return a new client key in the TPM; see TlsKeys.make. Raises TrustError as respond does."""
        self._check_turn("key", "key")
        return await self._alone(self._attester.make_key)

    def _check_turn(self, purpose: str, what: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._running is not None and not self._running.done():
            raise TrustError(f"{what}: another one is being answered")
        if now_s - self._last_s.get(purpose, -self._least_s) < self._least_s:
            raise TrustError(f"{what}: got the second one in {self._least_s:g} s")
        self._last_s[purpose] = now_s

    async def _alone(self, ask: Callable[[], _T]) -> _T:
        self._running = running = self._thread.submit(ask)
        return await asyncio.wrap_future(running)


@contextmanager
def open_attester(section: AttestSection, *, gateway: str) -> Iterator[Attester]:
    """Give who speaks for the TPM. Raises ConfigError when there is none, or no certificates."""
    chain = read_chain(section.chain, "attest.chain")
    with Tpm.open(section.tcti) as tpm:
        if not parse_public(tpm.ak_public()).stands_in(chain[0]):
            raise ConfigError(
                f"attest.chain: got {section.chain}, whose first certificate is for the attestation key of another TPM "
                f"than the one at {section.tcti}: a copied disk, a swapped TPM, or certificates of another device"
            )
        yield Attester(
            tpm,
            chain=chain,
            pcrs=section.pcrs,
            event_log=section.event_log,
            counters=section.counters,
            keys=TlsKeys(tpm, gateway=gateway),
        )


def respondent_of(config: GatewayConfig, section: AttestSection, attester: Attester) -> Respondent:
    """Return who answers the challenges of the verifier that gateway.toml names. Raises ConfigError."""
    verifier = read_verifier(section.verifier, "attest.verifier", kind=SignatureKind.NOTE)
    return Respondent(attester, gateway=config.gateway.id, verifier=verifier, about={"version": version("wattseal")})
