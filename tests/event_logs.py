"""Firmware event logs of our own making, after the TCG PC Client Platform Firmware Profile, 10.2."""

import hashlib
from collections.abc import Sequence

from gateway.attest.eventlog import BANKS, TYPES

NUMBERS = {name: number for number, name in TYPES.items()}
ALL_BANKS = (0x0004, 0x000B, 0x000C, 0x000D)
SECURE_BOOT = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c") + (10).to_bytes(8, "little") + (1).to_bytes(8, "little")
SECURE_BOOT += "SecureBoot".encode("utf-16-le")
ON, OFF = SECURE_BOOT + b"\x01", SECURE_BOOT + b"\x00"
SEPARATOR = bytes(4)
IMAGE = (
    bytes(24) + (4).to_bytes(8, "little") + b"\x7f\xff\x04\x00"
)  # a UEFI_IMAGE_LOAD_EVENT: says where, measures what
BLOB = b"\x04main" + bytes(16)


def little(number: int, size: int = 4) -> bytes:
    """Return a number as the log writes it."""
    return number.to_bytes(size, "little")


def spec_id(banks: Sequence[int] = ALL_BANKS, *, vendor: bytes = b"", signature: bytes = b"Spec ID Event03\0") -> bytes:
    """Return the first event, which says which digests the others have."""
    sizes = b"".join(little(bank, 2) + little(BANKS.get(bank, ("", 32))[1], 2) for bank in banks)
    data = signature + little(0) + b"\x00\x02\x00\x02" + little(len(banks)) + sizes + little(len(vendor), 1) + vendor
    return little(0) + little(3) + bytes(20) + little(len(data)) + data


def digest(bank: int, data: bytes) -> bytes:
    """Return the hash of data for a bank; zeros for a bank that Python does not know."""
    name, size = BANKS.get(bank, ("", 32))
    return hashlib.new(name, data).digest() if name in {"sha1", "sha256", "sha384", "sha512"} else bytes(size)


def event(
    pcr: int, kind: str | int, data: bytes, *, measured: bytes | None = None, banks: Sequence[int] = ALL_BANKS
) -> bytes:
    """Return one event. measured: what was hashed, where that is not the data; b"" for none (EV_NO_ACTION)."""
    number = NUMBERS[kind] if isinstance(kind, str) else kind
    hashed = data if measured is None else measured
    digests = b"".join(
        little(bank, 2) + (bytes(len(digest(bank, b""))) if number == 3 else digest(bank, hashed)) for bank in banks
    )
    return little(pcr) + little(number) + little(len(banks)) + digests + little(len(data)) + data


def locality(number: int, *, banks: Sequence[int] = ALL_BANKS) -> bytes:
    """Return the event that says from which locality the TPM was started."""
    return event(0, "EV_NO_ACTION", b"StartupLocality\0" + bytes([number]), banks=banks)


def boot_log(*, secure_boot: bytes = ON, kernel: bytes = b"kernel 1", banks: Sequence[int] = ALL_BANKS) -> bytes:
    """Return the log of a small, whole boot: it extends PCRs 0 to 7."""
    events = [
        event(0, "EV_S_CRTM_VERSION", b"1.0\0", banks=banks),
        event(0, "EV_EFI_PLATFORM_FIRMWARE_BLOB2", BLOB, measured=b"firmware", banks=banks),
        event(7, "EV_EFI_VARIABLE_DRIVER_CONFIG", secure_boot, banks=banks),
        *(event(pcr, "EV_SEPARATOR", SEPARATOR, banks=banks) for pcr in range(8)),
        event(4, "EV_EFI_BOOT_SERVICES_APPLICATION", IMAGE, measured=kernel, banks=banks),
    ]
    return spec_id(banks) + b"".join(events)
