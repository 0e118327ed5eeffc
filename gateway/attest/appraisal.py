"""What verified evidence means, by reference values: a status, the reason in words, and AR4SI's vector.

Pure, and closed to doubt: affirming is what is left when every check of one release that is good today has held.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.attest.eventlog import Replay, replay
from gateway.attest.evidence import VerifiedEvidence, qualifying
from gateway.attest.references import EventRule, References, Release
from gateway.attest.verify import verify_counter
from gateway.errors import TrustError

CLAIMS = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""The trustworthiness claims, in the order of draft-ietf-rats-ar4si, 2.3.4."""
STATUSES = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}
"""The tiers of the same draft, 2.3.2, and their values, from no claim to the worst."""
MAX_REASON = 500

_GOOD = 2  # recognised and approved, in each claim that we make; see docs/references.md
_GOOD_BOOT = 3  # executables: those of the boot process alone
_REVOKED = 96  # recognised, and not to be trusted; in executables also what no release of ours has
_UNKNOWN = 97  # hardware, instance-identity: not recognised
_UNPROVEN = 99  # the evidence contradicts itself
_FIRMWARE_PCRS = range(8)  # extended by firmware until it hands over; the OS's own (8 and up) go on past the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """The result. status: affirming, warning, contraindicated or none. vector: the claims made, by name.

    policy: which reference values. release: which of them fits, "" for none. is_proven: whether the quote bears it out;
    False where no more than the event log or a counter is missing or spoilt, which anyone can do on the way.
    """

    status: str
    reason: str
    vector: Mapping[str, int]
    policy: str
    release: str = ""
    is_proven: bool = True


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why a release does not fit: which claim it touches, with which value, and in words.

    weight: how far off it is. is_proven: as in Appraisal.
    """

    claim: str
    value: int
    why: str
    weight: int = 1
    is_proven: bool = True


def tier(value: int) -> str:
    """Return the tier of a trustworthiness claim's value, -128..127 (draft-ietf-rats-ar4si, 2.3.2)."""
    if -1 <= value <= 1:
        return "none"
    if -32 <= value <= 31:
        return "affirming"
    return "warning" if -96 <= value <= 95 else "contraindicated"


def worst(vector: Mapping[str, int]) -> str:
    """Return the status that a vector allows at best: the worst tier in it; none for an empty one."""
    return max(map(tier, vector.values()), key=STATUSES.__getitem__, default="none")


def appraise(verified: VerifiedEvidence, references: References, *, now_s: int) -> Appraisal:
    """Return what this evidence means at now_s. Never raises: what cannot be judged is not affirmed."""
    if not references.releases:
        return Appraisal(status="none", reason="no reference values", vector={}, policy=references.policy)
    model = verified.device.model
    candidates = [release for release in references.releases if release.model == model]
    if not candidates:
        wrong = _Objection("hardware", _UNKNOWN, f"no release is listed for model {model[:60]!r}")
        return _refused([wrong], references, "", is_proven=True)
    fewest = min(len(_differing(release, verified)) for release in candidates)
    candidates = [release for release in candidates if len(_differing(release, verified)) == fewest]
    seen = _Seen.of(verified, with_counters=any(release.counters for release in candidates))
    judged = [(release, list(_objections(release, verified, seen, now_s))) for release in candidates]
    release, objections = min(judged, key=lambda one: (sum(each.weight for each in one[1]), -one[0].from_s))
    if objections:
        is_proven = all(any(each.is_proven for each in found) for _, found in judged)
        return _refused(objections, references, _near(release, objections), is_proven=is_proven)
    vector = {"instance-identity": _GOOD, "executables": _GOOD_BOOT, "hardware": _GOOD}
    if release.events or release.tls:
        vector["configuration"] = _GOOD
    label = worded(f"release {release.name}" + (f" ({release.version})" if release.version else ""))
    return Appraisal(
        status=worst(vector), reason=label, vector=_ordered(vector), policy=references.policy, release=release.name
    )


def _refused(objections: list[_Objection], references: References, near: str, *, is_proven: bool) -> Appraisal:
    vector = {"instance-identity": _GOOD}
    for one in objections:
        vector[one.claim] = max(vector.get(one.claim, 0), one.value)
    reason = worded(near + "; ".join(dict.fromkeys(one.why for one in objections)))
    return Appraisal(
        status=worst(vector),
        reason=reason,
        vector=_ordered(vector),
        policy=references.policy,
        is_proven=is_proven,
    )


def worded(reason: str) -> str:
    """Return a reason as a result carries it: printable, on one line, and not too long."""
    text = "".join(c if c.isprintable() else "?" for c in reason[: MAX_REASON + 1])
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."


def _ordered(vector: Mapping[str, int]) -> dict[str, int]:
    return {claim: vector[claim] for claim in CLAIMS if claim in vector}


def _near(release: Release, objections: list[_Objection]) -> str:
    return f"no release fits; the nearest is {release.name}: " if any(one.weight > 1 for one in objections) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the evidence shows, whichever release it is: the event log, once its replay is what was quoted, and the
    counters, once the attestation key vouches for them; or why not ("" for nothing wrong).
    """

    log: Replay | None
    log_why: str
    counters: Mapping[int, int]
    counters_why: str

    @classmethod
    def of(cls, verified: VerifiedEvidence, *, with_counters: bool) -> "_Seen":
        log, log_why = _log_of(verified)
        counters: dict[int, int] = {}
        counters_why = ""
        said = qualifying(verified.claims.nonce, verified.evidence.claims)
        try:
            for counter in verified.evidence.counters if with_counters else ():
                index, value = verify_counter(counter, verified.device.key, qualifying=said)
                counters[index] = min(value, counters.get(index, value))
        except TrustError as e:
            counters_why = f"counter: {e}"
        return cls(log=log, log_why=log_why, counters=counters, counters_why=counters_why)


def _log_of(verified: VerifiedEvidence) -> tuple[Replay | None, str]:
    if not verified.evidence.event_log:
        return None, ""
    try:
        log = replay(verified.evidence.event_log)
    except TrustError as e:
        return None, str(e)
    wrong = [index for index in _FIRMWARE_PCRS if index in verified.pcrs and not _agrees(log, verified.pcrs, index)]
    return (None, f"the event log does not replay to the quoted {_named(wrong)}") if wrong else (log, "")


def _differing(release: Release, verified: VerifiedEvidence) -> list[int]:
    """Return the PCRs that are not as the release has them, or were not quoted."""
    return [index for index, values in release.pcrs.items() if verified.pcrs.get(index) not in values]


def _agrees(events: Replay, pcrs: Mapping[int, bytes], index: int) -> bool:
    """Return whether a PCR was quoted, and is what the log makes of it."""
    return index in pcrs and events.pcrs.get(index, bytes(32)) == pcrs[index]


def _objections(release: Release, verified: VerifiedEvidence, seen: _Seen, now_s: int) -> Iterator[_Objection]:
    """Yield what speaks against a release; nothing when it fits."""
    if differing := _differing(release, verified):
        # Weighed so that a release whose PCRs fit, and whose time is over, is nearer than any whose PCRs differ.
        yield _Objection("executables", _REVOKED, _pcrs_differ(release, verified, differing), 100 * len(differing))
    yield from _out_of_time(release, now_s)
    about = verified.claims.about
    if release.version and about.get("version") != release.version:
        said = about.get("version", "nothing")
        yield _Objection("executables", _REVOKED, f"version: got {said[:60]!r}, want {release.version!r}", 50)
    if release.tls and about.get("tls") not in release.tls:
        got, want = about.get("tls", "nothing"), " or ".join(sorted(release.tls))
        yield _Objection("configuration", _REVOKED, f"tls: got {got[:60]!r}, want {want}")
    if release.resets is not None and verified.reset_count > release.resets:
        yield _Objection("hardware", _REVOKED, f"resets: got {verified.reset_count}, want at most {release.resets}")
    yield from _rolled_back(release, seen)
    yield from _events(release, verified, seen)


def _out_of_time(release: Release, now_s: int) -> Iterator[_Objection]:
    if now_s < release.from_s:
        yield _Objection("executables", _REVOKED, f"release {release.name} begins on {_day(release.from_s)}")
    if release.until_s is not None and now_s >= release.until_s:
        yield _Objection("executables", _REVOKED, f"release {release.name} ended on {_day(release.until_s)}")


def _rolled_back(release: Release, seen: _Seen) -> Iterator[_Objection]:
    """Yield each counter that is below its floor, or not proved: an older state of the device may be back."""
    if release.counters and seen.counters_why:
        yield _Objection("configuration", _UNPROVEN, seen.counters_why, is_proven=False)
        return
    for index, least in release.counters.items():
        if index not in seen.counters:
            why = f"counter 0x{index:08x}: not in the evidence"
            yield _Objection("configuration", _REVOKED, why, is_proven=False)
        elif seen.counters[index] < least:
            why = f"counter 0x{index:08x}: got {seen.counters[index]}, want at least {least}: rolled back"
            yield _Objection("configuration", _REVOKED, why)


def _events(release: Release, verified: VerifiedEvidence, seen: _Seen) -> Iterator[_Objection]:
    log = seen.log
    if log is None:
        why = seen.log_why or f"no event log, and release {release.name} has rules for events"
        if seen.log_why or release.events:
            yield _Objection("configuration", _UNPROVEN, why, is_proven=False)
        return
    for rule in release.events:
        if not _agrees(log, verified.pcrs, rule.pcr):
            why = f"the event log does not replay to the quoted {_named([rule.pcr])}"
            yield _Objection("configuration", _UNPROVEN, why, is_proven=False)
        elif not _holds(rule, log):
            why = f"PCR {rule.pcr}: {rule.about}: rule `{rule.rule}` is broken"
            # PCRs hold digests, and no types.
            is_proven = rule.type is None or rule.digests.isdisjoint(log.digests(rule.pcr))
            yield _Objection("configuration", _REVOKED, why, is_proven=is_proven)


def _holds(rule: EventRule, log: Replay) -> bool:
    digests = set(log.digests(rule.pcr))
    if rule.rule == "forbidden":
        return not digests & rule.digests
    if rule.rule == "only":
        return digests <= rule.digests
    return any(
        event.pcr == rule.pcr and event.is_measured and event.sha256 in rule.digests and rule.type in {None, event.type}
        for event in log.events
    )


def _pcrs_differ(release: Release, verified: VerifiedEvidence, differing: list[int]) -> str:
    parts = []
    for index in differing:
        got = verified.pcrs[index].hex()[:16] if index in verified.pcrs else "nothing"
        want = " or ".join(sorted(value.hex()[:16] for value in release.pcrs[index])[:2])
        parts.append(f"PCR {index}: got {got}, want {want}")
    return ", ".join(parts)


def _named(indices: list[int]) -> str:
    return "PCR " + ", ".join(map(str, indices))


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
