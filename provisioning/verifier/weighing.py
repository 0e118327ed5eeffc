"""Whose word an answer is, and what it comes to; pure.

What the device's own TPM has signed for the open challenge is the device's word. All else may be anybody's, who can
write to the topic or has the message in his hands on its way: other certificates, a signature of another key, PCRs,
event log or counters that do not fit the quote. It decides nothing.
"""

from gateway.attest.appraisal import appraise
from gateway.attest.evidence import Evidence, OwnWordError, VerifiedEvidence, verify_evidence
from gateway.errors import TrustError
from gateway.tlog.note import Verifier
from provisioning.verifier.records import Outcome, Record, judged, marks_of, went_back
from provisioning.verifier.trust import Trust


def weigh(payload: bytes, record: Record, trust: Trust, *, nonce: bytes, now_s: int) -> Outcome:
    """Return what an answer for a gateway comes to.

    Raises OwnWordError for the device's word, where it does not answer for this gateway or its key holds no more: a
    better answer in the same round wins. Raises TrustError for what may be anybody's.
    """
    try:
        verified = verify_evidence(Evidence.unpack(payload), trust.anchors, nonce=nonce, at_s=now_s)
    except OwnWordError as e:
        _check_serial(e.serial, record)
        raise
    _check_serial(verified.device.serial, record)
    _check_place(verified, record.gateway)
    appraisal = appraise(verified, trust.references, now_s=now_s)
    if not appraisal.is_proven and not went_back(record.marks, marks_of(verified)):
        raise TrustError(appraisal.reason)
    return judged(record, verified, appraisal, now_s)


def _check_serial(serial: str, record: Record) -> None:
    if serial != record.device:
        raise TrustError(f"evidence: got one of device {serial!r}, want {record.device!r}")


def _check_place(verified: VerifiedEvidence, gateway: str) -> None:
    """Raise OwnWordError unless the device says that it is this gateway, with a key of its log."""
    claims, serial = verified.claims, verified.device.serial
    if claims.gateway != gateway:
        raise OwnWordError(f"evidence: got one of gateway {claims.gateway[:63]!r}, want {gateway!r}", serial=serial)
    try:
        name = Verifier.from_vkey(claims.key).name
    except TrustError as e:
        raise OwnWordError(f"evidence: {e}", serial=serial) from e
    if name != f"wattseal/{gateway}":
        raise OwnWordError("evidence: the epoch key that it claims is another log's", serial=serial)
