"""Short-lived certificates for keys in a gateway's memory or TPM: asked for with evidence, given to a device in order.

The one who asks has nothing but the bootstrap identity, which may be stolen; what counts is the TPM's quote over our
challenge and over the hash of the request. So a challenge is for whoever has the TPM, and only its quote uses it up.
Who says that the key is in the TPM shows the TPM's word for it. The caller of Issuer brings times and nonces.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.attest.appraisal import appraise
from gateway.attest.chain import Anchors
from gateway.attest.evidence import (
    MAX_EVIDENCE,
    Challenge,
    Evidence,
    OwnWordError,
    VerifiedEvidence,
    sign_challenge,
    verify_evidence,
)
from gateway.attest.references import References
from gateway.codec.pack import pack, unpack
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import Signer
from provisioning.ca import Authority, Unlock
from provisioning.ca.requests import read_request
from provisioning.ca.unlock import VARIABLE
from provisioning.verifier.records import Marks, marks_of, went_back
from provisioning.verifier.trust import TrustFiles

DEADLINE_S = 30
PACE_S = 5
"""A gateway is challenged at most this often, whatever it sends."""
WRONG_S = 0.2
"""After the longest request that was wrong a gateway's next evidence is looked at so much later; after a short one,
after a tenth of that. So junk costs the other gateways little."""
MAX_CSR = 2048
_MOST_OPENING = MAX_CSR + 64
MAX_REQUEST = MAX_EVIDENCE + _MOST_OPENING


class Issuing(Protocol):
    """Who signs: an authority for operation (provisioning.ca)."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates above those that it issues, in DER."""
        ...

    def issue_ldevid(self, csr: bytes, *, gateway: str, hours: float) -> bytes:
        """Return a client certificate in DER. Raises TrustError for a request that is not one."""
        ...


class Issuer:
    """Answers requests.

    devices: the serial number of each gateway's device. marks: how far it has come, as the verifier knows it; None
    before its first answer. anchors, references: as they are now.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        authority: Issuing,
        devices: Callable[[], Mapping[str, str]],
        anchors: Callable[[], Anchors],
        references: Callable[[], References],
        marks: Callable[[str], Marks | None],
        hours: float,
    ) -> None:
        self._signer, self._authority, self._hours = signer, authority, hours
        self._devices, self._anchors, self._references, self._marks = devices, anchors, references, marks
        self._open: dict[str, list[Challenge]] = {}
        self._challenged_s: dict[str, float] = {}
        self._wrong: dict[str, tuple[float, float]] = {}  # when, and for how long nothing more is looked at

    def hear(self, gateway: str, payload: bytes, *, now_s: float, nonce: bytes) -> tuple[bytes, str] | None:
        """Return the reply to a message for this gateway, and what it was in a word; None for one that gets none.

        nonce: 32 bytes of chance.
        """
        device = self._devices().get(gateway)  # once: the file may be read again meanwhile
        is_paced = gateway in self._wrong and _is_soon(now_s, *self._wrong[gateway])
        if device is None or (is_paced and len(payload) > _MOST_OPENING):
            return None
        to, said = b"", dict[str, Any]()
        try:
            csr, evidence = _request(payload)
            if not evidence:
                return self._challenge(gateway, now_s, nonce)
            if is_paced:
                return None
            to = hashlib.sha256(csr).digest()
            said, how = {"chain": self._issue(gateway, device, csr, evidence, now_s)}, "issued"
        except TrustError as e:
            if is_paced:
                return None
            self._wrong[gateway] = now_s, WRONG_S * max(0.1, len(payload) / MAX_REQUEST)
            said, how = {"refused": str(e)[:300]}, f"refused: {e}"
        except ConfigError as e:  # a full disk, a token that is away: no reason to stop appraising everybody
            said, how = {"refused": "the authority is out of order: ask again"}, f"not issued: {e}"
        return pack({"v": 1, "to": to} | said), how

    def _challenge(self, gateway: str, now_s: float, nonce: bytes) -> tuple[bytes, str] | None:
        if gateway in self._challenged_s and _is_soon(now_s, self._challenged_s[gateway], PACE_S):
            return None
        self._challenged_s[gateway] = now_s
        challenge = Challenge(
            gateway=gateway,
            purpose="certify",
            nonce=nonce,
            issued_s=int(now_s),
            deadline_s=int(now_s) + DEADLINE_S,
        )
        self._open[gateway] = [*self._still_open(gateway, now_s), challenge]
        return pack({"v": 1, "challenge": sign_challenge(challenge, self._signer)}), "challenged"

    def _issue(self, gateway: str, device: str, csr: bytes, packed: bytes, now_s: float) -> list[bytes]:
        """Return the chain of a new certificate. A challenge serves once: for what this device's TPM has signed."""
        asked = next((one for one in self._still_open(gateway, now_s) if one.nonce in packed), None)
        if asked is None:
            raise TrustError("evidence: it answers no open challenge: ask again")
        try:
            verified = verify_evidence(Evidence.unpack(packed), self._anchors(), nonce=asked.nonce, at_s=int(now_s))
        except OwnWordError as e:
            if e.serial == device:
                self._open[gateway].remove(asked)
            raise
        if verified.device.serial != device:
            raise TrustError(f"evidence: by device {verified.device.serial}, which is not that of {gateway}")
        self._open[gateway].remove(asked)
        if verified.claims.gateway != gateway or verified.claims.bound != hashlib.sha256(csr).digest():
            raise TrustError("evidence: about another gateway, or another request")
        _check_key(verified, csr)
        if why := went_back(self._marks(gateway), marks_of(verified)):
            raise TrustError(f"the device is not in order: {why}")
        found = appraise(verified, self._references(), now_s=int(now_s))
        if found.status != "affirming":
            raise TrustError(f"the device is not in order: {found.reason}")
        leaf = self._authority.issue_ldevid(csr, gateway=gateway, hours=self._hours)
        return [leaf, *self._authority.chain]

    def _still_open(self, gateway: str, now_s: float) -> list[Challenge]:
        """Return the challenges that still may be answered: the pace and the deadline keep them few."""
        found = self._open.get(gateway, [])
        return [one for one in found if one.issued_s <= now_s <= one.deadline_s]


def _is_soon(now_s: float, last_s: float, least_s: float) -> bool:
    """Return whether it is less than least_s ago. A clock that was put back silences nobody."""
    return 0 <= now_s - last_s < least_s


def _check_key(verified: VerifiedEvidence, csr: bytes) -> None:
    """Raise TrustError where a request's key is said to be in the TPM, and the TPM does not vouch for just that one."""
    said = verified.claims.about.get("tls")
    if (said == "tpm") != (verified.key is not None):
        how = "without" if verified.key is None else "with"
        raise TrustError(
            f"evidence: got tls {said or 'nothing'} {how} a key that the TPM vouches for, want both or none"
        )
    if verified.key is not None and verified.key.key != read_request(csr):
        raise TrustError("evidence: the TPM vouches for another key than that of the request")


def issuer_of(files: TrustFiles, signer: Signer, *, marks: Callable[[str], Marks | None]) -> Issuer | None:
    """Return the issuer that a verifier's configuration asks for, None where it asks for none. Raises ConfigError."""
    section = files.config.issue
    if section is None:
        return None
    unlock = Unlock.read(section.unlock) if section.unlock else Unlock.find(os.environ)
    if unlock is None:
        raise ConfigError(f"issue.unlock: got nothing, want a file with the authority's password, or {VARIABLE} set")
    return Issuer(
        signer=signer,
        authority=Authority.open(section.authority, unlock=unlock),
        devices=lambda: files.trust.devices,
        anchors=lambda: files.trust.anchors,
        references=lambda: files.trust.references,
        marks=marks,
        hours=section.hours,
    )


def _request(payload: bytes) -> tuple[bytes, bytes]:
    if len(payload) > MAX_REQUEST:
        raise TrustError(f"request: got {len(payload)} bytes, want at most {MAX_REQUEST}")
    said: Any = unpack(payload)
    if type(said) is not dict or list(said) != ["v", "csr", "evidence"] or said["v"] != 1:
        raise TrustError("request: want a map of v, csr, evidence")
    csr, evidence = said["csr"], said["evidence"]
    if type(csr) is not bytes or type(evidence) is not bytes or not 0 < len(csr) <= MAX_CSR:
        raise TrustError("request: want csr and evidence as bytes")
    return csr, evidence
