"""A soft device's evidence, verified: with the PCRs that its event log makes."""

import hashlib
from collections.abc import Mapping

from gateway.attest.appraisal import Appraisal, appraise
from gateway.attest.eventlog import replay
from gateway.attest.evidence import Challenge, Evidence, VerifiedEvidence, verify_evidence
from gateway.attest.references import References
from hil.plant.soft_tpm import SoftAuthority, SoftDevice
from tests.event_logs import boot_log
from tests.reference_files import NOW_S

AUTHORITY = SoftAuthority()
LOG = boot_log()
KEY = "wattseal/gw1+00000000+AA"
QUESTION = Challenge(gateway="gw1", purpose="attest", nonce=bytes(32), issued_s=NOW_S, deadline_s=NOW_S + 30)


def sha256(data: bytes) -> bytes:
    """Return the hash of data."""
    return hashlib.sha256(data).digest()


def booted(log: bytes = LOG) -> SoftDevice:
    """Return a device whose PCRs are those of an event log."""
    device = SoftDevice(authority=AUTHORITY)
    device.pcrs = dict(replay(log).pcrs)
    return device


def evidence_of(
    device: SoftDevice,
    *,
    event_log: bytes = LOG,
    about: Mapping[str, str] | None = None,
    counters: Mapping[int, int] | None = None,
) -> bytes:
    """Return packed evidence of a device."""
    return device.evidence(
        QUESTION, epoch=3, key=KEY, log_size=100, about=about, event_log=event_log, counters=counters
    )


def verified(packed: bytes) -> VerifiedEvidence:
    """Return evidence, verified."""
    return verify_evidence(Evidence.unpack(packed), AUTHORITY.anchors, nonce=QUESTION.nonce, at_s=NOW_S)


def appraised(
    references: References,
    device: SoftDevice | None = None,
    *,
    now_s: int = NOW_S,
    event_log: bytes = LOG,
    about: Mapping[str, str] | None = None,
    counters: Mapping[int, int] | None = None,
) -> Appraisal:
    """Return the appraisal of a device that has booted LOG, where nothing else is said."""
    packed = evidence_of(device or booted(), event_log=event_log, about=about, counters=counters)
    return appraise(verified(packed), references, now_s=now_s)
