"""What a verifier knows of each gateway, and what an answer makes of it; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from gateway.attest.appraisal import Appraisal
from gateway.attest.ear import LEEWAY_S, Result
from gateway.attest.evidence import VerifiedEvidence
from gateway.model.standing import State
from provisioning.verifier.rounds import Missed

GOOD = "affirming"
"""What the ledger, too, takes for good; a warning is no less than a failure to it."""
_MOST_WHY = 300
_MOST = 2**63 - 1
_PUT_BACK = {"instance-identity": 2, "configuration": 96}
"""A device that we know, in a state that it had left behind. Numbers: draft-ietf-rats-ar4si, 2.3."""
_NOT_SHOWN = {"instance-identity": 97}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How far a device has come: none of this ever goes back, unless somebody has put its state back.

    device: SHA-256 of the attestation key's certificate. clock_ms: of the TPM, within one reset_count.
    """

    device: str
    reset_count: int
    restart_count: int
    clock_ms: int
    epoch: int
    key: str
    log_size: int

    @property
    def boot(self) -> str:
        """The start of the device: no PCR was put right within one. After a restart (not a reset) PCRs are new, too."""
        return f"{self.device}:{self.reset_count}:{self.restart_count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The newest word on a gateway. Times: Unix seconds.

    device: the serial number that it must have. since_s: when it came to this state. told_s: when this was last found
    so. verified_s: when it was last found good, None for never. marks: None before its first answer.
    """

    gateway: str
    device: str
    state: State
    reason: str
    since_s: int
    told_s: int
    verified_s: int | None = None
    marks: Marks | None = None

    def shown(self, now_s: int, *, result_s: int) -> State:
        """Return the state as people shall see it: what nobody has confirmed for result_s is stale.

        So is what was confirmed at a time to come: our clock was wrong then, or is now.
        """
        is_old = self.verified_s is None or not -LEEWAY_S < now_s - self.verified_s <= result_s
        return State.STALE if self.state is State.TRUSTED and is_old else self.state

    def is_ahead(self, now_s: int) -> bool:
        """Return whether it was told at a time to come, so far off that no ledger has believed it."""
        return self.told_s >= now_s + LEEWAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round came to: the record from now on, and what is said to the ledger.

    about: the state that the answer was in, where that did not become the record's own.
    """

    record: Record
    status: str
    nonce: bytes
    about: Marks | None = None
    vector: Mapping[str, int] = field(default_factory=dict)

    def result(self, *, result_s: int, policy: str) -> Result:
        """Return it as an attestation result, good for result_s. policy: which reference values are in force."""
        record, marks = self.record, self.about or self.record.marks
        return Result(
            gateway=record.gateway,
            device=record.device,
            status=self.status,
            reason=record.reason,
            nonce=self.nonce,
            epoch=marks.epoch if marks else 0,
            key=marks.key if marks else "",
            log_size=marks.log_size if marks else 0,
            boot=marks.boot if marks else "",
            issued_s=record.told_s,
            expires_s=record.told_s + result_s,
            # Our own clock may have been put back since.
            verified_s=None if record.verified_s is None else min(record.verified_s, record.told_s),
            vector=self.vector,
            policy=policy,
        )


def unknown(gateway: str, device: str, now_s: int) -> Record:
    """Return the record of a gateway that was never asked."""
    return Record(gateway=gateway, device=device, state=State.PENDING, reason="", since_s=now_s, told_s=now_s)


def marks_of(verified: VerifiedEvidence) -> Marks:
    """Return how far a device has come, by its own answer."""
    claims = verified.claims
    return Marks(
        device=verified.device.fingerprint,
        reset_count=verified.reset_count,
        restart_count=verified.restart_count,
        clock_ms=min(verified.clock_ms, _MOST),
        epoch=claims.epoch,
        key=claims.key,
        log_size=claims.log_size,
    )


def judged(record: Record, verified: VerifiedEvidence, appraisal: Appraisal, now_s: int) -> Outcome:
    """Return what the device's own answer makes of it. The device has been found to be the right one."""
    claims, marks = verified.claims, marks_of(verified)
    if why := went_back(record.marks, marks):
        failed = _turned(record, State.FAILED, why, now_s)
        # The ledger asks which epoch has failed: the one that now signs, or the newest where an older one is back.
        about = marks if record.marks is None or marks.epoch > record.marks.epoch else record.marks
        return Outcome(record=failed, status="contraindicated", nonce=claims.nonce, about=about, vector=_PUT_BACK)
    is_good = appraisal.status == GOOD
    found = _turned(record, State.TRUSTED if is_good else State.FAILED, appraisal.reason, now_s)
    found = replace(found, marks=marks, verified_s=found.told_s if is_good else found.verified_s)
    return Outcome(
        record=found,
        status=appraisal.status,
        nonce=claims.nonce,
        vector=appraisal.vector,
    )


def missed(record: Record, round_: Missed, now_s: int, *, deadline_s: float) -> Outcome:
    """Return what a round comes to that no good answer ended. Only the device's own wrong answer makes it fail."""
    if round_.is_own:
        failed = _turned(record, State.FAILED, round_.why, now_s)
        return Outcome(record=failed, status="contraindicated", nonce=round_.nonce, vector=_NOT_SHOWN)
    why = f"no answer within {deadline_s:g} s" + (f" that must be its own; but: {round_.why}" if round_.why else "")
    return Outcome(record=_turned(record, State.UNREACHABLE, why, now_s), status="none", nonce=round_.nonce)


def went_back(before: Marks | None, now: Marks) -> str:
    """Return what of a device's state is older than it was, "" for nothing.

    Another attestation key begins a history of its own: another certificate was issued for it.
    """
    if before is None or before.device != now.device:
        return ""
    return next(_put_back(before, now), "")


def _put_back(before: Marks, now: Marks) -> Iterator[str]:
    resets = now.reset_count - before.reset_count
    if resets < 0:
        yield f"the TPM's resetCount fell from {before.reset_count} to {now.reset_count}: its state was put back"
    if resets == 0 and now.restart_count < before.restart_count:
        yield f"the TPM's restartCount fell from {before.restart_count} to {now.restart_count}: its state was put back"
    if resets == 0 and now.clock_ms < before.clock_ms:
        yield f"the TPM's clock went back by {before.clock_ms - now.clock_ms} ms: its state was put back"
    if now.epoch < before.epoch:
        yield f"the epoch fell from {before.epoch} to {now.epoch}: the log was put back"
    if now.epoch == before.epoch and now.key != before.key:
        yield f"two keys for epoch {now.epoch}: two gateways answer as one"
    if now.epoch == before.epoch and resets > 0:
        yield f"the TPM was reset {resets} times within epoch {now.epoch}: its PCRs say nothing of this start"
    if now.log_size < before.log_size:
        yield f"the log shrank from {before.log_size} to {now.log_size} leaves: it was put back"


def _turned(record: Record, state: State, reason: str, now_s: int) -> Record:
    if record.is_ahead(now_s):
        verified_s = None if record.verified_s is None else min(record.verified_s, now_s)
        record = replace(record, since_s=min(record.since_s, now_s), told_s=now_s - 1, verified_s=verified_s)
    since_s = record.since_s if record.state is state else now_s
    shown = "".join(c if c.isprintable() else "?" for c in reason[:_MOST_WHY])
    # A result is newer than the one before it, also within one second, or its ledger would take it for a replay.
    return replace(record, state=state, reason=shown, since_s=since_s, told_s=max(now_s, record.told_s + 1))
