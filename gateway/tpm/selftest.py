"""Does this TPM do what we need of it? Asking changes nothing that lasts."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.attest.lenient import read_certificate
from gateway.attest.structures import parse_public
from gateway.attest.verify import verify_certify, verify_quote
from gateway.errors import TrustError
from gateway.tpm.device import Tpm
from gateway.tpm.keys import TpmPrivateKey, verify_ecdsa
from gateway.tpm.templates import EK_KINDS

_PCRS = range(24)
_SAID = hashlib.sha256(b"wattseal-self-test/v1").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question to the TPM. said: what was found, or the TPM's words when is_good is false. took_ms: wall time."""

    name: str
    is_good: bool
    took_ms: float
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """All answers. facts: what the TPM says of itself. ek_kinds: those whose certificate the maker stored."""

    facts: dict[str, str]
    ek_kinds: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if not check.is_good)


def self_test(tpm: Tpm) -> SelfTest:
    """Return what this TPM can do. Some TPMs take seconds for an endorsement key of RSA.

    Raises ConfigError when the TPM does not answer; what it refuses is in the result.
    """
    kinds = tuple(kind for kind in EK_KINDS if tpm.ek_certificate(kind) is not None)
    steps: dict[str, Callable[[Tpm], str]] = {
        **{f"EK {kind}": _ek(kind) for kind in kinds},
        "AK": _ak,
        "PCR read": lambda one: f"{len(one.pcrs(_PCRS))} values of the SHA-256 bank",
        "quote": _quote,
        "key": _key,
        "seal": _seal,
        "nothing left": _nothing_left,
    }
    checks = tuple(_timed(name, step, tpm) for name, step in steps.items())
    return SelfTest(facts=tpm.describe(), ek_kinds=kinds, checks=checks)


def _timed(name: str, step: Callable[[Tpm], str], tpm: Tpm) -> Check:
    start = time.perf_counter()
    try:
        said, is_good = step(tpm), True
    except TrustError as e:
        said, is_good = str(e), False
    return Check(name=name, is_good=is_good, took_ms=round((time.perf_counter() - start) * 1000, 2), said=said)


def _ek(kind: str) -> Callable[[Tpm], str]:
    def step(tpm: Tpm) -> str:
        stored = tpm.ek_certificate(kind)
        if stored is None or parse_public(tpm.ek_public(kind)).key != read_certificate(stored).key:
            raise TrustError("its certificate is for another key")
        return f"is the key of the maker's certificate, {hashlib.sha256(stored).hexdigest()[:16]}"

    return step


def _ak(tpm: Tpm) -> str:
    found = parse_public(tpm.ak_public())
    if not found.is_restricted_signing:
        raise TrustError("it may sign what the TPM did not make")
    return f"name {found.name.hex()}"


def _quote(tpm: Tpm) -> str:
    key = parse_public(tpm.ak_public()).key
    made = tpm.quote(_SAID, _PCRS)
    quoted = verify_quote(made.attest, made.signature, key, qualifying=_SAID, pcrs=made.pcrs)
    return f"verified; reset {quoted.reset_count}, restart {quoted.restart_count}"


def _key(tpm: Tpm) -> str:
    made = tpm.create_key()
    attest, signature = tpm.certify(made, _SAID)
    verify_certify(attest, signature, parse_public(tpm.ak_public()).key, qualifying=_SAID, public=made.public)
    verify_ecdsa(TpmPrivateKey(tpm, made).public_key(), tpm.sign(made, _SAID), _SAID)
    return f"made, certified by the AK, signed; parent 0x{made.parent:08x}"


def _seal(tpm: Tpm) -> str:
    if tpm.unseal(tpm.seal(_SAID, pcrs=[16])) != _SAID:
        raise TrustError("another secret came back")
    return "sealed, and unsealed over an encrypted session"


def _nothing_left(tpm: Tpm) -> str:
    if tpm.live:
        raise TrustError(f"{tpm.live} handles of ours are still in the TPM")
    found = tpm.handles()
    return f"{len(found['transient'])} objects and {len(found['session'])} sessions in the TPM, none of them ours"
