"""What goes between verifier and attester: a signed challenge, and the evidence that answers it.

All that a device says of itself stands in `claims`, whose hash the TPM's quote covers together with the nonce: so
nothing of it can be old, or another device's. Normative form: docs/wire.md, section 5.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.attest.chain import Anchors, Device, named_device, verify_device_chain
from gateway.attest.structures import Public
from gateway.attest.verify import verify_certify, verify_quote
from gateway.codec.fits import is_bytes, is_chain, is_int, is_list, is_pcrs, is_text, is_text_map, shaped
from gateway.codec.frames import MAX_CHALLENGE
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.tlog.note import Signer, Verifier, open_note

LABEL = "wattseal-evidence/v1"
CHALLENGE = "wattseal-challenge/v1"
NONCE_BYTES = 32
MAX_EVIDENCE = 512 * 1024
PURPOSES = ("attest", "certify")
"""Why a verifier asks: to appraise the gateway; or to certify the key that `bound` is the hash of."""

_DOC = "docs/wire.md"
_CLAIMS = {
    "gateway": is_text,
    "nonce": is_bytes,
    "epoch": is_int,
    "key": is_text,
    "log_size": is_int,
    "bound": is_bytes,
    "about": is_text_map,
}
_EVIDENCE = {
    "v": is_int,
    "claims": is_bytes,
    "attest": is_bytes,
    "signature": is_bytes,
    "pcrs": is_list,
    "chain": is_list,
    "event_log": is_bytes,
    "counters": is_list,
}
_WITH_KEY = _EVIDENCE | {"key": is_list}


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A question to one gateway: quote this nonce before the deadline. Times: Unix seconds of the verifier's clock."""

    gateway: str
    purpose: str
    nonce: bytes
    issued_s: int
    deadline_s: int

    @property
    def text(self) -> str:
        """The text of the signed note."""
        head = f"{CHALLENGE}\n{self.gateway}\n{self.purpose}\n"
        return f"{head}{self.nonce.hex()}\n{self.issued_s}\n{self.deadline_s}\n"


def sign_challenge(challenge: Challenge, signer: Signer) -> bytes:
    """Return the note that a verifier sends."""
    return signer.sign_note(challenge.text)


def read_challenge(note: bytes, *, verifier: Verifier, gateway: str) -> Challenge:
    """Return a challenge that this verifier signed for this gateway. Raises TrustError for anything else.

    Its times are not compared with a clock: a gateway's may be wrong, and the verifier judges lateness by its own.
    """
    if len(note) > MAX_CHALLENGE:
        raise TrustError(f"challenge: got {len(note)} bytes, want at most {MAX_CHALLENGE}")
    text = open_note(note, [verifier]).text
    parts = text.split("\n")
    try:
        label, name, purpose, nonce, issued, deadline, end = parts
        made = Challenge(
            gateway=name, purpose=purpose, nonce=bytes.fromhex(nonce), issued_s=int(issued), deadline_s=int(deadline)
        )
    except ValueError as e:
        raise TrustError("challenge: this is not one") from e
    if label != CHALLENGE or end or made.text != text or len(made.nonce) != NONCE_BYTES or purpose not in PURPOSES:
        raise TrustError("challenge: this is not one")
    if made.gateway != gateway:
        raise TrustError(f"challenge: got one for gateway {made.gateway[:63]!r}, want one for {gateway!r}")
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a gateway says of itself, under its TPM's word.

    epoch, key: of its newest epoch leaf. log_size: leaves that it has signed. bound: SHA-256 of a certificate
    request, b"" for none. about: `tls` (the backend of its client key), `image`, `version` and the like.
    """

    gateway: str
    nonce: bytes
    epoch: int
    key: str
    log_size: int
    bound: bytes
    about: Mapping[str, str]

    def pack(self) -> bytes:
        """Return its bytes."""
        return pack({name: getattr(self, name) for name in _CLAIMS} | {"about": dict(self.about)})

    @classmethod
    def unpack(cls, packed: bytes) -> "Claims":
        """Return what these bytes say. Raises TrustError."""
        return cls(**shaped(unpack(packed), _CLAIMS, "claims", doc=_DOC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """An NV counter of the TPM, certified by the attestation key. public: TPMS_NV_PUBLIC, as the TPM marshals it."""

    public: bytes
    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A key in the TPM, certified by the attestation key. public: TPMT_PUBLIC."""

    public: bytes
    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The answer to a challenge. Nothing of it holds before verify_evidence.

    pcrs: the SHA-256 bank. chain: certificates in DER, the attestation key's first. event_log: as the firmware wrote
    it, b"" where there is none. counters, key: certified with the same qualifying data as the quote. key: the one for
    which a certificate is asked, where it is in the TPM.
    """

    claims: bytes
    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    chain: tuple[bytes, ...]
    event_log: bytes = b""
    counters: tuple[Counter, ...] = ()
    key: CertifiedKey | None = None

    def pack(self) -> bytes:
        """Return its bytes."""
        key = {} if self.key is None else {"key": [self.key.public, self.key.attest, self.key.signature]}
        return pack(
            {
                "v": 1,
                "claims": self.claims,
                "attest": self.attest,
                "signature": self.signature,
                "pcrs": [[index, self.pcrs[index]] for index in sorted(self.pcrs)],
                "chain": list(self.chain),
                "event_log": self.event_log,
                "counters": [[one.public, one.attest, one.signature] for one in self.counters],
            }
            | key
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "Evidence":
        """Return the evidence in these bytes, unverified. Raises TrustError for anything malformed."""
        if len(packed) > MAX_EVIDENCE:
            raise TrustError(f"evidence: got {len(packed)} bytes, want at most {MAX_EVIDENCE}")
        found: Any = unpack(packed)
        is_longer = type(found) is dict and "key" in found
        said = shaped(found, _WITH_KEY if is_longer else _EVIDENCE, "evidence", doc=_DOC)
        if said.pop("v") != 1:
            raise TrustError("evidence: v: want 1")
        if not is_pcrs(said["pcrs"]) or not is_chain(said["chain"]) or not _are_counters(said["counters"]):
            raise TrustError("evidence: pcrs, chain or counters do not fit docs/wire.md")
        said["pcrs"], said["chain"] = dict(said["pcrs"]), tuple(said["chain"])
        said["counters"] = tuple(Counter(public=p, attest=a, signature=s) for p, a, s in said["counters"])
        if is_longer:
            if not _is_certified(said["key"]):
                raise TrustError("evidence: key does not fit docs/wire.md")
            said["key"] = CertifiedKey(**dict(zip(("public", "attest", "signature"), said["key"], strict=True)))
        return cls(**said)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence:
    """Evidence whose quote holds: by this device, for this nonce. What its PCRs mean is the appraisal's business.

    key: made in the device's TPM, and never let out of it; None where the evidence is not about one.
    """

    claims: Claims
    device: Device
    pcrs: Mapping[int, bytes]
    reset_count: int
    restart_count: int
    clock_ms: int
    evidence: Evidence
    key: Public | None = None


def qualifying(nonce: bytes, claims: bytes) -> bytes:
    """Return what the quote of evidence is made over: 32 bytes."""
    return hashlib.sha256(LABEL.encode() + b"\n" + nonce + hashlib.sha256(claims).digest()).digest()


class OwnWordError(TrustError):
    """Raised when evidence is wrong that the TPM of device `serial` has signed for this nonce: nobody else can have."""

    def __init__(self, message: str, *, serial: str) -> None:
        super().__init__(message)
        self.serial = serial


def verify_evidence(evidence: Evidence, anchors: Anchors, *, nonce: bytes, at_s: int) -> VerifiedEvidence:
    """Return what evidence says, once its quote holds.

    Raises TrustError; OwnWordError where the fault lies in what the quote covers, or in the quoting key's certificate:
    all else in the evidence can be altered on its way.
    """
    device = named_device(evidence.chain, anchors)
    said = qualifying(nonce, evidence.claims)
    quoted = verify_quote(evidence.attest, evidence.signature, device.key, qualifying=said, pcrs=evidence.pcrs)
    try:
        verify_device_chain(evidence.chain, anchors, at_s=at_s)
        claims = Claims.unpack(evidence.claims)
    except TrustError as e:
        raise OwnWordError(str(e), serial=device.serial) from e
    if claims.nonce != nonce:
        raise OwnWordError("evidence: the claims answer another challenge", serial=device.serial)
    key = None
    if (one := evidence.key) is not None:
        key = verify_certify(one.attest, one.signature, device.key, qualifying=said, public=one.public)
    return VerifiedEvidence(
        claims=claims,
        device=device,
        pcrs=evidence.pcrs,
        reset_count=quoted.reset_count,
        restart_count=quoted.restart_count,
        clock_ms=quoted.clock_ms,
        evidence=evidence,
        key=key,
    )


def _are_counters(value: Any) -> bool:
    return type(value) is list and len(value) <= 8 and all(map(_is_certified, value))


def _is_certified(value: Any) -> bool:
    return type(value) is list and [*map(type, value)] == [bytes] * 3
