"""Short-lived certificates for keys in a gateway's memory: asked for with evidence, given only to a device in order.

The one who asks has nothing but the bootstrap identity; what counts is the TPM's quote over our challenge and over
the hash of the request. The caller of Issuer brings times and nonces.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.attest.appraisal import appraise
from gateway.attest.chain import Anchors
from gateway.attest.evidence import MAX_EVIDENCE, Challenge, Evidence, sign_challenge, verify_evidence
from gateway.attest.references import References
from gateway.codec.pack import pack, unpack
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import Signer
from provisioning.ca import Authority, Unlock
from provisioning.ca.unlock import VARIABLE
from provisioning.verifier.records import Marks, marks_of, went_back
from provisioning.verifier.trust import TrustFiles

DEADLINE_S = 30
PACE_S = 5
"""A gateway is answered at most this often, whatever it sends."""
MAX_CSR = 2048
MAX_REQUEST = MAX_EVIDENCE + MAX_CSR + 64


class Issuing(Protocol):
    """Who signs: an authority for operation (provisioning.ca)."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates above those that it issues, in DER."""
        ...

    def issue_ldevid(self, csr: bytes, *, gateway: str, hours: float) -> bytes:
        """Return a client certificate in DER. Raises TrustError for a request that is not one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    challenge: Challenge
    csr: bytes


class Issuer:
    """Answers requests, one open challenge a gateway.

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
        self._open: dict[str, _Open] = {}
        self._answered_s: dict[str, float] = {}

    def hear(self, gateway: str, payload: bytes, *, now_s: float, nonce: bytes) -> tuple[bytes, str] | None:
        """Return the reply to a message for this gateway, and what it was in a word; None for one that gets none.

        nonce: 32 bytes of chance.
        """
        device = self._devices().get(gateway)  # once: the file may be read again meanwhile
        if device is None:
            return None
        try:
            csr, evidence = _request(payload)
            if evidence:
                return pack({"v": 1, "chain": self._issue(gateway, device, csr, evidence, now_s)}), "issued"
            if 0 <= now_s - self._answered_s.get(gateway, float("-inf")) < PACE_S:  # below 0: our clock was put back
                return None
            self._answered_s[gateway] = now_s
        except TrustError as e:
            return pack({"v": 1, "refused": str(e)[:300]}), f"refused: {e}"
        except ConfigError as e:  # a full disk, a token that is away: no reason to stop appraising everybody
            return pack({"v": 1, "refused": "the authority is out of order: ask again"}), f"not issued: {e}"
        challenge = Challenge(
            gateway=gateway,
            purpose="certify",
            nonce=nonce,
            issued_s=int(now_s),
            deadline_s=int(now_s) + DEADLINE_S,
        )
        self._open[gateway] = _Open(challenge=challenge, csr=csr)
        return pack({"v": 1, "challenge": sign_challenge(challenge, self._signer)}), "challenged"

    def _issue(self, gateway: str, device: str, csr: bytes, packed: bytes, now_s: float) -> list[bytes]:
        """Return the chain of a new certificate. A challenge serves once, also where this raises TrustError."""
        asked = self._open.pop(gateway, None)
        if asked is None or asked.csr != csr or now_s > asked.challenge.deadline_s:
            raise TrustError("evidence: no open challenge for this request: ask again")
        evidence = Evidence.unpack(packed)
        verified = verify_evidence(evidence, self._anchors(), nonce=asked.challenge.nonce, at_s=int(now_s))
        if verified.device.serial != device:
            raise TrustError(f"evidence: by device {verified.device.serial}, which is not that of {gateway}")
        if verified.claims.gateway != gateway or verified.claims.bound != hashlib.sha256(csr).digest():
            raise TrustError("evidence: about another gateway, or another request")
        if why := went_back(self._marks(gateway), marks_of(verified)):
            raise TrustError(f"the device is not in order: {why}")
        found = appraise(verified, self._references(), now_s=int(now_s))
        if found.status != "affirming":
            raise TrustError(f"the device is not in order: {found.reason}")
        leaf = self._authority.issue_ldevid(csr, gateway=gateway, hours=self._hours)
        return [leaf, *self._authority.chain]


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
