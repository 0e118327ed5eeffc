"""The firmware's event log (`binary_bios_measurements`): read with bounds, and replayed into the PCRs that it implies.

The crypto-agile format alone (TCG PC Client Platform Firmware Profile 1.06, 10.2). A log of the older kind has no
SHA-256, so it could say nothing about the bank that is quoted: it is refused.

What a log can be trusted for: once its replay equals quoted PCRs, the digests and their order within each PCR. The
types of events, and their order across PCRs, are in no PCR: whoever handed in the log chose them. The same goes for
an event's data, unless its hash is the digest.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import TrustError

MAX_LOG = 512 * 1024
MAX_DATA = 64 * 1024
MAX_EVENTS = 20_000
MAX_BANKS = 16
PCRS = 24

SHA256 = 0x000B
BANKS = {
    0x0004: ("sha1", 20),
    SHA256: ("sha256", 32),
    0x000C: ("sha384", 48),
    0x000D: ("sha512", 64),
    0x0012: ("sm3_256", 32),
    0x0027: ("sha3_256", 32),
    0x0028: ("sha3_384", 48),
    0x0029: ("sha3_512", 64),
}
"""TPM_ALG_ID: name, and bytes of a digest (TCG Algorithm Registry 1.34)."""

EV_NO_ACTION = 3
EV_EFI_HCRTM_EVENT = 0x80000010
TYPES = {
    0x00: "EV_PREBOOT_CERT",
    0x01: "EV_POST_CODE",
    0x02: "EV_UNUSED",
    EV_NO_ACTION: "EV_NO_ACTION",
    0x04: "EV_SEPARATOR",
    0x05: "EV_ACTION",
    0x06: "EV_EVENT_TAG",
    0x07: "EV_S_CRTM_CONTENTS",
    0x08: "EV_S_CRTM_VERSION",
    0x09: "EV_CPU_MICROCODE",
    0x0A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0B: "EV_TABLE_OF_DEVICES",
    0x0C: "EV_COMPACT_HASH",
    0x0D: "EV_IPL",
    0x0E: "EV_IPL_PARTITION_DATA",
    0x0F: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x13: "EV_POST_CODE2",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x8000000D: "EV_EFI_GPT_EVENT2",
    EV_EFI_HCRTM_EVENT: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

_SPEC_ID = b"Spec ID Event03\0"
_LOCALITY = b"StartupLocality\0"
_HCRTM_LOCALITY = 4
# The Spec ID event has the older header: PCR, type, a SHA-1 digest, the size of its data.
_OLD_HEADER = 4 + 4 + 20 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of a log. number: from 1; the Spec ID event, which stands first, is 0 and not among them.

    type, data: as the log says; see the module for what that is worth. sha256: its digest; zeros for EV_NO_ACTION.
    """

    number: int
    pcr: int
    type: int
    sha256: bytes
    data: bytes

    @property
    def name(self) -> str:
        """The type in the words of the specification."""
        return TYPES.get(self.type, f"0x{self.type:08x}")

    @property
    def is_measured(self) -> bool:
        """Whether it went into its PCR."""
        return self.type != EV_NO_ACTION

    @property
    def measured(self) -> bytes | None:
        """The data where the digest is its hash, so that the PCR vouches for it; else None."""
        return self.data if self.is_measured and hashlib.sha256(self.data).digest() == self.sha256 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A log, and the SHA-256 bank after it. pcrs: only those that it extends, or sets at start.

    banks: the algorithms that the log has digests of. padding: bytes of zeros after the last event, left out.
    """

    events: tuple[Event, ...]
    pcrs: Mapping[int, bytes]
    banks: tuple[str, ...]
    padding: int

    def digests(self, pcr: int) -> tuple[bytes, ...]:
        """Return what was extended into a PCR, in order."""
        return tuple(event.sha256 for event in self.events if event.pcr == pcr and event.is_measured)


class _Reader:
    """A place in the log; every read is checked, and says where it failed."""

    __slots__ = ("_end", "_log", "at", "number")

    def __init__(self, log: bytes, *, at: int, end: int) -> None:
        self._log, self.at, self._end, self.number = log, at, end, 0

    @property
    def left(self) -> int:
        return self._end - self.at

    def take(self, size: int, what: str) -> bytes:
        if size > self.left:
            raise self.wrong(f"{what} is cut off: want {size} bytes, {self.left} are left")
        self.at += size
        return self._log[self.at - size : self.at]

    def number_of(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def wrong(self, problem: str) -> TrustError:
        return TrustError(f"event log: event {self.number}, byte {self.at}: {problem}")

    def is_padding(self) -> bool:
        """Whether nothing but zeros is left, as many as an event without digests has: the kernel ends there, too."""
        head = self._log[self.at : self.at + 12]
        return head == bytes(12) and not self._log[self.at : self._end].strip(b"\0")


def replay(log: bytes) -> Replay:
    """Return the events of a log and the PCRs that they make. Raises TrustError for one that is malformed, cut off,
    over the bounds of this module, or without a SHA-256 bank.
    """
    if len(log) > MAX_LOG:
        raise TrustError(f"event log: got {len(log)} bytes, want at most {MAX_LOG}")
    reader = _Reader(log, at=0, end=len(log))
    sizes = _read_spec_id(reader)
    events = tuple(_events(reader, sizes))
    return Replay(
        events=events,
        pcrs=_extended(events),
        banks=tuple(BANKS[bank][0] if bank in BANKS else f"0x{bank:04x}" for bank in sizes),
        padding=reader.left,
    )


def _read_spec_id(reader: _Reader) -> dict[int, int]:
    """Return the sizes of digests by algorithm, as the first event declares them."""
    header = reader.take(_OLD_HEADER, "the first event")
    size = int.from_bytes(header[-4:], "little")
    if header[:28] != bytes(4) + EV_NO_ACTION.to_bytes(4, "little") + bytes(20):
        raise reader.wrong("a log of SHA-1 alone, or none at all: want one that begins with a Spec ID event")
    data = reader.take(size, "the Spec ID event")
    inner = _Reader(data, at=0, end=len(data))
    if inner.take(16, "the signature") != _SPEC_ID:
        raise reader.wrong("want a Spec ID event of the crypto-agile format")
    inner.take(8, "platform class, version and word size")
    count = inner.number_of(4, "the count of algorithms")
    if not 1 <= count <= MAX_BANKS:
        raise reader.wrong(f"got {count} algorithms, want 1 to {MAX_BANKS}")
    sizes: dict[int, int] = {}
    for _ in range(count):
        bank, length = inner.number_of(2, "an algorithm"), inner.number_of(2, "a digest's size")
        if bank in sizes or not 1 <= length <= 64 or BANKS.get(bank, ("", length))[1] != length:
            raise reader.wrong(f"algorithm 0x{bank:04x} with digests of {length} bytes, or listed twice")
        sizes[bank] = length
    inner.take(inner.number_of(1, "the size of vendor information"), "vendor information")
    if inner.left:
        raise reader.wrong(f"the Spec ID event has {inner.left} bytes more than it says")
    if SHA256 not in sizes:
        raise reader.wrong("no SHA-256 bank, and no other is quoted")
    return sizes


def _events(reader: _Reader, sizes: Mapping[int, int]) -> Iterator[Event]:
    while reader.left and not reader.is_padding():
        reader.number += 1
        if reader.number > MAX_EVENTS:
            raise reader.wrong(f"want at most {MAX_EVENTS} events")
        pcr, kind = reader.number_of(4, "the PCR"), reader.number_of(4, "the type")
        digest = _read_digests(reader, sizes, kind)
        if kind != EV_NO_ACTION and pcr >= PCRS:
            raise reader.wrong(f"got PCR {pcr}, want 0..{PCRS - 1}")
        size = reader.number_of(4, "the size of the data")
        if size > MAX_DATA:
            raise reader.wrong(f"got {size} bytes of data, want at most {MAX_DATA}")
        yield Event(number=reader.number, pcr=pcr, type=kind, sha256=digest, data=reader.take(size, "the data"))


def _read_digests(reader: _Reader, sizes: Mapping[int, int], kind: int) -> bytes:
    """Return the SHA-256 digest of an event: one of each bank stands there, in any order."""
    count = reader.number_of(4, "the count of digests")
    if count > len(sizes):
        raise reader.wrong(f"got {count} digests, want at most {len(sizes)}")
    found: dict[int, bytes] = {}
    for _ in range(count):
        bank = reader.number_of(2, "an algorithm")
        if bank not in sizes or bank in found:
            raise reader.wrong(f"algorithm 0x{bank:04x} is not in the Spec ID event, or comes twice")
        found[bank] = reader.take(sizes[bank], "a digest")
    if SHA256 not in found and kind != EV_NO_ACTION:
        raise reader.wrong("no SHA-256 digest")
    return found.get(SHA256, bytes(32))


def _extended(events: tuple[Event, ...]) -> dict[int, bytes]:
    """Return the PCRs after the events.

    PCR 0 begins with the locality that the TPM was started from. A measurement by the hardware before any firmware
    (H-CRTM) counts as locality 4, whatever a later event says (TPM 2.0 Library, Part 1, 34.3; PFP 1.06, 10.4.5.3).
    """
    pcrs: dict[int, bytes] = {}
    is_begun = by_hardware = False
    for event in events:
        if event.pcr == 0 and event.type == EV_NO_ACTION and event.data.startswith(_LOCALITY):
            if by_hardware:
                continue
            if 0 in pcrs:
                raise TrustError(f"event log: event {event.number}: StartupLocality, but PCR 0 has begun")
            pcrs[0] = _begun(event)
        elif event.is_measured:
            if event.pcr == 0 and event.type == EV_EFI_HCRTM_EVENT and not is_begun:
                pcrs[0], by_hardware = bytes(31) + bytes([_HCRTM_LOCALITY]), True
            is_begun = is_begun or event.pcr == 0
            pcrs[event.pcr] = hashlib.sha256(pcrs.get(event.pcr, bytes(32)) + event.sha256).digest()
    return pcrs


def _begun(event: Event) -> bytes:
    """Return PCR 0 as a StartupLocality event says it begins."""
    locality = event.data[len(_LOCALITY) :]
    if len(locality) != 1 or locality[0] > _HCRTM_LOCALITY:
        raise TrustError(f"event log: event {event.number}: got StartupLocality {locality[:8].hex()}, want 0..4")
    return bytes(31) + locality
