"""Appraisal: affirming is what is left when all of one good release has held; else a person reads why."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.appraisal import CLAIMS, MAX_REASON, STATUSES, appraise, tier, worded, worst
from gateway.attest.eventlog import replay
from gateway.attest.evidence import Counter
from gateway.attest.references import References
from hil.plant.soft_tpm import SoftDevice
from tests.appraising import AUTHORITY, LOG, appraised, booted, evidence_of, sha256, verified
from tests.event_logs import OFF, ON, SEPARATOR, boot_log
from tests.reference_files import DAY_S, NOW_S, references, release, rule

GOLDEN = dict(replay(LOG).pcrs)
UPDATED = dict(replay(boot_log(kernel=b"kernel 2")).pcrs)
COUNTER = 0x01800001


def test_a_device_as_the_release_has_it_is_affirmed() -> None:
    found = appraised(references(release(GOLDEN, more='version = "1.4.0"')), about={"version": "1.4.0"})
    assert (found.status, found.reason, found.release) == ("affirming", "release r1 (1.4.0)", "r1")
    assert found.vector == {"instance-identity": 2, "executables": 3, "hardware": 2}
    assert found.policy.startswith("reference.toml sha256:")


def test_what_was_checked_of_the_configuration_is_claimed_and_no_more() -> None:
    found = appraised(references(release(GOLDEN, more='tls = ["tpm"]')), about={"tls": "tpm"})
    assert found.vector["configuration"] == 2
    assert list(found.vector) == [claim for claim in CLAIMS if claim in found.vector]
    assert not found.vector.keys() & {"file-system", "runtime-opaque", "storage-opaque", "sourced-data"}


def test_pcrs_that_no_release_lists_are_not_judged() -> None:
    """A PCR may differ at each boot; it is quoted all the same."""
    device = booted()
    device.pcrs[14] = sha256(b"whatever")
    listed = {index: GOLDEN[index] for index in (0, 4, 7)}
    assert appraised(references(release(listed)), device).status == "affirming"


def test_one_pcr_may_have_several_values() -> None:
    listed: dict[int, bytes | Sequence[bytes]] = {**GOLDEN, 4: [UPDATED[4], GOLDEN[4]]}
    assert appraised(references(release(listed))).status == "affirming"


def test_two_releases_are_good_at_once_while_an_update_goes_round() -> None:
    both = references(release(GOLDEN, name="old", until_s=NOW_S + 1), release(UPDATED, name="new"))
    assert appraised(both).reason == "release old"
    updated = booted(boot_log(kernel=b"kernel 2"))
    assert appraised(both, updated, event_log=b"").reason == "release new"


def test_a_release_is_good_from_its_first_second_to_before_its_end() -> None:
    window = references(release(GOLDEN, from_s=NOW_S, until_s=NOW_S + 10))
    assert [appraised(window, now_s=NOW_S + s).status == "affirming" for s in (-1, 0, 9, 10)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_release_that_has_not_begun_is_not_affirmed_yet() -> None:
    found = appraised(references(release(GOLDEN, from_s=NOW_S + DAY_S)))
    assert (found.status, found.reason) == ("contraindicated", "release r1 begins on 2026-11-23")
    assert found.vector["executables"] == 96


def test_an_unknown_state_is_told_with_the_nearest_release_and_what_differs() -> None:
    other = {index: sha256(b"%d" % index) for index in range(8)}
    found = appraised(references(release(other, name="far"), release(UPDATED, name="near")))
    assert found.status == "contraindicated"
    assert found.reason == (
        f"no release fits; the nearest is near: PCR 4: got {GOLDEN[4].hex()[:16]}, want {UPDATED[4].hex()[:16]}"
    )


def test_a_model_without_a_release_is_contraindicated() -> None:
    found = appraised(references(release(GOLDEN, model="another")))
    assert (found.status, found.vector["hardware"]) == ("contraindicated", 97)
    assert found.reason == "no release is listed for model 'wattseal-gw'"


def test_no_reference_values_at_all_give_no_status() -> None:
    found = appraise(verified(evidence_of(booted())), References(releases=(), policy="none"), now_s=NOW_S)
    assert (found.status, found.vector) == ("none", {})


def test_a_version_that_the_release_names_must_be_claimed() -> None:
    """What PCRs do not cover a device says itself, under its TPM's quote."""
    named = references(release(GOLDEN, more='version = "1.4.0"'))
    assert appraised(named).reason == "no release fits; the nearest is r1: version: got 'nothing', want '1.4.0'"
    found = appraised(named, about={"version": "1.3.0"})
    assert (found.status, found.vector["executables"]) == ("contraindicated", 96)


def test_of_two_releases_with_the_same_pcrs_the_version_tells() -> None:
    same = references(
        release(GOLDEN, name="old", more='version = "1"', until_s=NOW_S),
        release(GOLDEN, name="new", more='version = "2"'),
    )
    assert appraised(same, about={"version": "2"}).reason == "release new (2)"
    assert appraised(same, about={"version": "1"}).reason == "release old ended on 2026-11-22"


def test_a_tls_backend_that_the_release_does_not_take_is_contraindicated() -> None:
    named = references(release(GOLDEN, more='tls = ["tpm", "memory"]'))
    assert appraised(named, about={"tls": "memory"}).status == "affirming"
    found = appraised(named, about={"tls": "file"})
    assert (found.reason, found.vector["configuration"]) == ("tls: got 'file', want memory or tpm", 96)
    assert appraised(named).status == "contraindicated"


def test_more_starts_than_the_bound_are_contraindicated() -> None:
    device = booted()
    device.reset_count = 11
    bound = references(release(GOLDEN, more="resets = 10"))
    assert appraised(bound, device).reason == "resets: got 11, want at most 10"
    device.reset_count = 10
    assert appraised(bound, device).status == "affirming"


def test_a_counter_at_its_floor_is_good_and_below_it_was_rolled_back() -> None:
    floor = references(release(GOLDEN, tables=f"[release.counters]\n0x{COUNTER:08x} = 3\n"))
    assert appraised(floor, counters={COUNTER: 3}).status == "affirming"
    found = appraised(floor, counters={COUNTER: 2})
    assert (found.status, found.vector["configuration"]) == ("contraindicated", 96)
    assert found.reason == "counter 0x01800001: got 2, want at least 3: rolled back"
    assert appraised(floor).reason == "counter 0x01800001: not in the evidence"
    assert appraised(floor, counters={COUNTER + 1: 9}).status == "contraindicated"


def test_only_what_the_quote_bears_out_is_proven_against_a_device() -> None:
    """Event log and counters can be taken out, or spoilt, by whoever has the evidence in his hands on its way."""
    floor = references(release(GOLDEN, tables=f"[release.counters]\n0x{COUNTER:08x} = 3\n"))
    rules = references(release({0: GOLDEN[0]}, tables=RULES["required of another type"][0]))
    gone = references(release({0: GOLDEN[0]}, tables=RULES["required, and not there"][0]))
    drifted = booted()
    drifted.extend(4, bytes(32))
    assert not appraised(floor).is_proven
    assert not appraised(rules).is_proven
    assert not appraised(rules, event_log=b"").is_proven
    assert not appraised(references(release(GOLDEN)), event_log=b"x").is_proven
    assert appraised(floor, counters={COUNTER: 2}).is_proven
    assert appraised(gone).is_proven
    assert appraised(references(release(GOLDEN)), drifted, event_log=b"x").is_proven
    other = references(release(GOLDEN), release(GOLDEN, name="r2", more='version = "9"'))
    assert not appraised(other, event_log=b"x").is_proven, "one release would fit with a good log"


RULES = {
    "required": (rule("required", 7, sha256(ON), about="secure boot on"), True),
    "required of a type": (
        rule("required", 7, sha256(ON), event_type="EV_EFI_VARIABLE_DRIVER_CONFIG"),
        True,
    ),
    "required of another type": (rule("required", 7, sha256(ON), event_type="EV_IPL"), False),
    "required in another PCR": (rule("required", 6, sha256(ON)), False),
    "required, and not there": (rule("required", 7, sha256(b"x")), False),
    "forbidden, and not there": (rule("forbidden", 7, sha256(OFF)), True),
    "forbidden, and there": (rule("forbidden", 7, sha256(OFF), sha256(ON)), False),
    "only these": (rule("only", 7, sha256(ON), sha256(SEPARATOR)), True),
    "only some of these": (rule("only", 7, sha256(ON)), False),
    "only more than these": (rule("only", 7, sha256(ON), sha256(SEPARATOR), sha256(b"x")), True),
}


@pytest.mark.parametrize(("tables", "holds"), RULES.values(), ids=list(RULES))
def test_a_rule_for_events_holds_or_is_contraindicated(tables: str, *, holds: bool) -> None:
    found = appraised(references(release({0: GOLDEN[0]}, tables=tables)))
    assert (found.status, found.vector["configuration"]) == (("affirming", 2) if holds else ("contraindicated", 96))
    assert holds or found.reason.startswith("PCR ")


def test_a_release_with_rules_needs_an_event_log() -> None:
    """What is missing is never taken for good."""
    found = appraised(references(release(GOLDEN, tables=RULES["required"][0])), event_log=b"")
    assert (found.status, found.vector["configuration"]) == ("contraindicated", 99)
    assert found.reason == "no event log, and release r1 has rules for events"


def test_a_rule_for_a_pcr_that_was_not_quoted_is_broken() -> None:
    device = booted()
    del device.pcrs[7]
    found = appraised(references(release({0: GOLDEN[0]}, tables=RULES["required"][0])), device)
    assert (found.status, found.reason) == ("contraindicated", "the event log does not replay to the quoted PCR 7")


def test_pcrs_of_the_operating_system_may_go_on_past_the_firmware_log() -> None:
    """Unless a rule speaks of one: then all that went into it must be in the log."""
    device = booted()
    device.pcrs[11] = sha256(b"phases of systemd")
    assert appraised(references(release(GOLDEN)), device).status == "affirming"
    ruled = references(release(GOLDEN, tables=rule("forbidden", 11, sha256(b"x"))))
    assert appraised(ruled, device).reason == "the event log does not replay to the quoted PCR 11"


def test_a_reason_is_printable_on_one_line_and_not_too_long() -> None:
    device = booted()
    device.pcrs = {index: sha256(b"%d" % index) for index in range(24)}
    found = appraised(references(release(GOLDEN | {9: GOLDEN[0], 10: GOLDEN[0]})), device, event_log=b"")
    assert len(found.reason) == MAX_REASON
    assert found.reason.endswith("...")
    assert worded("a\nb\x1b[31m\u202ec") == "a?b?[31m?c"


def test_tiers_are_those_of_ar4si() -> None:
    """Section 2.3.2: -1..1 none, 2..31 and -32..-2 affirming, to 95 and -96 warning, and the rest."""
    values = {tier(value) for value in (-1, 0, 1)}
    assert values == {"none"}
    assert {tier(value) for value in (2, 31, -2, -32)} == {"affirming"}
    assert {tier(value) for value in (32, 95, -33, -96)} == {"warning"}
    assert {tier(value) for value in (96, 127, -97, -128)} == {"contraindicated"}
    assert worst({"hardware": 2, "executables": 33, "configuration": 0}) == "warning"
    assert worst({"hardware": 2, "executables": 0}) == "affirming"
    assert worst({}) == "none"
    assert list(STATUSES.values()) == [0, 2, 32, 96]


def test_an_appraisal_among_a_hundred_releases_takes_milliseconds() -> None:
    """One verifier appraises thousands of devices."""
    many = references(
        *(release({index: sha256(b"%d %d" % (index, n)) for index in range(8)}, name=f"r{n}") for n in range(99)),
        release(GOLDEN, name="good", tables=RULES["required"][0]),
    )
    packed = verified(evidence_of(booted()))
    began_s = time.process_time()
    for _ in range(20):
        assert appraise(packed, many, now_s=NOW_S).reason == "release good"
    assert (time.process_time() - began_s) / 20 < 0.02


def test_a_device_without_an_event_log_is_judged_by_its_pcrs() -> None:
    device = SoftDevice(authority=AUTHORITY)
    assert appraised(references(release(device.pcrs)), device, event_log=b"").status == "affirming"


@settings(max_examples=60, deadline=None)
@given(
    event_log=st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: LOG + tail),
    counters=st.lists(st.tuples(*[st.binary(max_size=40)] * 3), max_size=3),
    about=st.dictionaries(st.sampled_from(["tls", "version", "image"]), st.text(max_size=9)),
)
def test_whatever_a_device_adds_to_its_quote_is_judged_and_never_raises(
    event_log: bytes, counters: list[tuple[bytes, bytes, bytes]], about: dict[str, str]
) -> None:
    """The quote covers the claims; the log and the counters are its own affair."""
    floor = references(
        release(GOLDEN, more='version = "1"\ntls = ["tpm"]', tables=f"[release.counters]\n0x{COUNTER:08x} = 3\n")
    )
    good = verified(evidence_of(booted(), about=about))
    listed = tuple(Counter(public=public, attest=attest, signature=signature) for public, attest, signature in counters)
    bent = replace(good, evidence=replace(good.evidence, event_log=event_log, counters=listed))
    found = appraise(bent, floor, now_s=NOW_S)
    assert found.status == "contraindicated"
    assert found.reason.isprintable()
