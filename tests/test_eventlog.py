"""Event logs: replayed as tpm2_eventlog replays them, and refused where they are malformed, cut off or too big."""

import contextlib
import hashlib
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.eventlog import MAX_DATA, MAX_EVENTS, MAX_LOG, Replay, replay
from gateway.errors import TrustError
from tests.event_logs import ALL_BANKS, IMAGE, ON, SEPARATOR, boot_log, event, little, locality, spec_id

SHA256_ALONE = (0x000B,)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def extended(start: bytes, *measured: bytes) -> bytes:
    for one in measured:
        start = sha256(start + sha256(one))
    return start


def refused(log: bytes, why: str) -> None:
    with pytest.raises(TrustError, match=why):
        replay(log)


def by_tpm2_tools(log: bytes, folder: Path) -> dict[int, str]:
    """Return the SHA-256 bank that tpm2_eventlog makes of a log."""
    path = folder / "log"
    path.write_bytes(log)
    done = subprocess.run(["tpm2_eventlog", path], capture_output=True, text=True, timeout=30, check=True)
    bank = re.search(r"^  sha256:\n((?:    .*\n)*)", done.stdout.partition("\npcrs:\n")[2], re.MULTILINE)
    assert bank is not None, done.stdout
    return {int(index): value for index, value in re.findall(r"(\d+) *: 0x([0-9a-f]{64})", bank[1])}


LOGS = {
    "a boot": boot_log(),
    "one bank": boot_log(banks=SHA256_ALONE),
    "another order of banks": boot_log(banks=(0x000C, 0x000B, 0x0004)),
    "vendor information": spec_id(vendor=b"maker") + event(0, "EV_SEPARATOR", SEPARATOR),
    "an unknown type": spec_id() + event(9, 0x8000FFFF, b"what is this") + event(9, "EV_IPL", b"initrd\0"),
    "no data": spec_id() + event(14, "EV_IPL", b"", measured=b"key"),
    "many events": spec_id(SHA256_ALONE)
    + b"".join(event(n % 24, "EV_ACTION", b"%d" % n, banks=SHA256_ALONE) for n in range(2000)),
}


@pytest.mark.parametrize("log", LOGS.values(), ids=list(LOGS))
def test_a_replay_is_that_of_tpm2_eventlog(log: bytes, tmp_path: Path) -> None:
    """Public logs of real machines were compared by hand: docs/references.md says which."""
    assert {index: value.hex() for index, value in replay(log).pcrs.items()} == by_tpm2_tools(log, tmp_path)


def test_pcr_0_begins_with_the_locality_that_the_tpm_was_started_from() -> None:
    """tpm2_eventlog does the same from 5.6 on; Debian 12 has 5.4."""
    log = spec_id() + locality(3) + event(0, "EV_S_CRTM_VERSION", b"1")
    assert replay(log).pcrs[0] == extended(bytes(31) + b"\x03", b"1")
    assert replay(spec_id() + locality(0)).pcrs[0] == bytes(32)


def test_a_measurement_by_the_hardware_counts_as_locality_4() -> None:
    log = spec_id() + event(0, "EV_EFI_HCRTM_EVENT", b"HCRTM") + event(0, "EV_S_CRTM_VERSION", b"1")
    assert replay(log).pcrs[0] == extended(bytes(31) + b"\x04", b"HCRTM", b"1")
    later = spec_id() + event(0, "EV_EFI_HCRTM_EVENT", b"HCRTM") + locality(3)
    assert replay(later).pcrs[0] == extended(bytes(31) + b"\x04", b"HCRTM")


def test_a_startup_locality_that_comes_late_twice_or_is_impossible_is_refused() -> None:
    refused(spec_id() + event(0, "EV_ACTION", b"x") + locality(3), "PCR 0 has begun")
    refused(spec_id() + locality(3) + locality(0), "PCR 0 has begun")
    refused(spec_id() + locality(5), r"want 0\.\.4")
    refused(spec_id() + event(0, "EV_NO_ACTION", b"StartupLocality\0"), r"want 0\.\.4")


def test_an_event_that_is_no_action_goes_into_no_pcr() -> None:
    """PFP 1.06, 10.4.5; tpm2_eventlog 5.4 (Debian 12) extends its zeros, and 5.8 does not."""
    log = spec_id() + event(1, "EV_NO_ACTION", b"said") + event(0xFFFFFFFF, "EV_NO_ACTION", b"said")
    assert replay(log + event(1, "EV_SEPARATOR", SEPARATOR)).pcrs == {1: extended(bytes(32), SEPARATOR)}


def test_data_is_vouched_for_only_where_its_hash_is_the_digest() -> None:
    """A path of a boot loader is said, not measured; a variable is both."""
    events = replay(boot_log()).events
    (variable,) = [one for one in events if one.name == "EV_EFI_VARIABLE_DRIVER_CONFIG"]
    (loader,) = [one for one in events if one.name == "EV_EFI_BOOT_SERVICES_APPLICATION"]
    assert (variable.measured, loader.measured, loader.data) == (ON, None, IMAGE)
    (silent,) = replay(spec_id() + event(1, "EV_NO_ACTION", b"x")).events
    assert silent.measured is None


def test_digests_are_told_by_pcr_in_order_and_types_by_name() -> None:
    log = replay(spec_id() + event(8, "EV_IPL", b"a") + event(9, "EV_IPL", b"b") + event(8, 0x80001234, b"c"))
    assert log.digests(8) == (sha256(b"a"), sha256(b"c"))
    assert [one.name for one in log.events] == ["EV_IPL", "EV_IPL", "0x80001234"]
    assert log.banks == ("sha1", "sha256", "sha384", "sha512")


def test_zeros_after_the_last_event_are_padding() -> None:
    """Firmware hands over a buffer of a fixed size; the kernel ends the log there, too."""
    padded = replay(boot_log() + bytes(1000))
    assert (padded.padding, padded.pcrs) == (1000, replay(boot_log()).pcrs)
    assert replay(boot_log()).padding == 0
    refused(boot_log() + b"\xff" * 1000, "event 13")
    refused(boot_log() + bytes(1000) + b"x", "event 13, .*no SHA-256 digest")
    refused(boot_log() + bytes(11), "event 13.* cut off")


def test_a_log_that_is_cut_off_anywhere_is_refused_or_is_a_shorter_log() -> None:
    """Cut between two events it is whole; that it is too short the quoted PCRs show."""
    log, whole = boot_log(), replay(boot_log())
    ends = {len(log) - sum(map(len, pieces)) for pieces in _tails()}
    for cut in range(len(log)):
        if cut in ends:
            found = replay(log[:cut])
            assert found.events == whole.events[: len(found.events)]
        else:
            refused(log[:cut], "event log: event [0-9]+, byte [0-9]+: ")


def _tails() -> list[list[bytes]]:
    """Return what may be cut off so that whole events remain."""
    events = replay(boot_log()).events
    sizes = [12 + sum(2 + size for size in (20, 32, 48, 64)) + 4 + len(one.data) for one in events]
    return [[bytes(size) for size in sizes[first:]] for first in range(len(sizes))]


def test_a_log_of_sha_1_alone_is_refused_by_name() -> None:
    """The older format says nothing about the bank that is quoted."""
    old = little(0) + little(8) + bytes(20) + little(4) + b"1.0\0"
    refused(old, "a log of SHA-1 alone, or none at all")
    refused(spec_id((0x0004,)) + event(0, "EV_ACTION", b"x", banks=(0x0004,)), "no SHA-256 bank")
    refused(b"", "the first event is cut off")
    refused(spec_id(signature=b"Spec ID Event02\0"), "crypto-agile")


def test_digests_that_do_not_fit_the_spec_id_event_are_refused() -> None:
    two = (0x0004, 0x000B)
    refused(spec_id(two) + event(0, "EV_ACTION", b"x", banks=(0x0004,)), "no SHA-256 digest")
    refused(spec_id(two) + event(0, "EV_ACTION", b"x", banks=(0x000B, 0x000C)), "not in the Spec ID event")
    refused(spec_id(two) + event(0, "EV_ACTION", b"x", banks=(0x000B, 0x000B)), "comes twice")
    refused(spec_id(two) + event(0, "EV_ACTION", b"x", banks=ALL_BANKS), "got 4 digests, want at most 2")
    refused(spec_id((0x000B, 0x000B)), "listed twice")
    refused(spec_id(()), "got 0 algorithms")
    wrong = spec_id((0x000B,)).replace(little(0x000B, 2) + little(32, 2), little(0x000B, 2) + little(20, 2))
    refused(wrong, "digests of 20 bytes")


def test_a_bank_that_is_not_known_is_passed_over_by_the_size_that_the_log_declares() -> None:
    banks = (0x00EE, 0x000B)
    log = replay(spec_id(banks) + event(3, "EV_ACTION", b"x", banks=banks))
    assert (log.pcrs[3], log.banks) == (extended(bytes(32), b"x"), ("0x00ee", "sha256"))


def test_a_log_over_the_bounds_is_refused() -> None:
    refused(bytes(MAX_LOG + 1), f"want at most {MAX_LOG}")
    refused(spec_id() + event(0, "EV_ACTION", bytes(MAX_DATA + 1)), f"want at most {MAX_DATA}")
    refused(spec_id() + event(24, "EV_ACTION", b"x"), r"got PCR 24, want 0\.\.23")
    tiny = little(1) + little(3) + little(0) + little(0)
    assert len(spec_id() + tiny * (MAX_EVENTS + 1)) < MAX_LOG
    refused(spec_id() + tiny * (MAX_EVENTS + 1), f"want at most {MAX_EVENTS} events")


def test_the_largest_log_is_replayed_within_a_second() -> None:
    banks = SHA256_ALONE
    one = event(4, "EV_ACTION", b"", banks=banks)
    log = spec_id(banks) + one * ((MAX_LOG - 100) // len(one))
    began_s = time.process_time()
    assert len(replay(log).events) > 9000
    assert time.process_time() - began_s < 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_that_are_bent_in_any_way_are_a_log_or_a_trust_error(data: st.DataObject) -> None:
    log = bytearray(boot_log(banks=(0x0004, 0x000B)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(log) - 1))
        log[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4)) or b"\xff"
    with contextlib.suppress(TrustError):
        assert isinstance(replay(bytes(log)), Replay)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_the_spec_id_event_are_a_log_or_a_trust_error(tail: bytes) -> None:
    with contextlib.suppress(TrustError):
        assert isinstance(replay(spec_id() + tail), Replay)
