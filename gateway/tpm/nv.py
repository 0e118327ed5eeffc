"""Counters in the TPM's non-volatile memory: they only go up, also when they are removed and made again."""

import struct
from typing import TYPE_CHECKING

from gateway.attest.structures import SHA256
from gateway.errors import TrustError

if TYPE_CHECKING:
    from gateway.tpm.commands import Commands

COUNTER_INDEX = 0x01805753
"""Of the range that TCG's registry of reserved handles gives to owners."""

COUNTER_BYTES = 8
OWNER_READ, AUTH_READ, WRITTEN = 1 << 17, 1 << 18, 1 << 29
_COUNTER_ATTRIBUTES = 1 << 1 | 1 << 2 | 1 << 4 | OWNER_READ | AUTH_READ | 1 << 25
"""TPMA_NV: OWNERWRITE, AUTHWRITE, TPM_NT_COUNTER, OWNERREAD, AUTHREAD, NO_DA."""


def define(commands: "Commands", index: int) -> None:
    """Make a counter and count once, for an unwritten one has no value and another name."""
    attributes = _attributes(commands, index)
    if attributes is None:
        commands.nv_define(struct.pack(">IHIHH", index, SHA256, _COUNTER_ATTRIBUTES, 0, COUNTER_BYTES))
    elif attributes & ~WRITTEN != _COUNTER_ATTRIBUTES:
        raise TrustError(f"NV 0x{index:08x}: got attributes 0x{attributes:08x}, want 0x{_COUNTER_ATTRIBUTES:08x}")
    if not (attributes or 0) & WRITTEN:
        commands.nv_increment(index)


def public(commands: "Commands", index: int) -> bytes:
    """Return TPMS_NV_PUBLIC. Raises TrustError when there is no such index."""
    found = commands.nv_public(index)
    if found is None:
        raise TrustError(f"NV 0x{index:08x}: is not defined in this TPM")
    return found


def value(commands: "Commands", index: int) -> int:
    """Return the value of a counter. Raises TrustError when there is none."""
    public(commands, index)
    return int.from_bytes(commands.nv_read(index, COUNTER_BYTES), "big")


def content(commands: "Commands", index: int) -> bytes | None:
    """Return what an index holds; None where it is not defined."""
    found = commands.nv_public(index)
    if found is None:
        return None
    attributes, size = parts(found)
    return commands.nv_read(index, size, by_owner=not attributes & AUTH_READ)


def parts(public_area: bytes) -> tuple[int, int]:
    """Return (attributes, size) of a TPMS_NV_PUBLIC."""
    _, _, attributes, policy_bytes = struct.unpack_from(">IHIH", public_area)
    (size,) = struct.unpack_from(">H", public_area, 12 + policy_bytes)
    return attributes, size


def _attributes(commands: "Commands", index: int) -> int | None:
    found = commands.nv_public(index)
    return None if found is None else parts(found)[0]
