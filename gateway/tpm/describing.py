"""What a TPM says of itself."""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.tpm.commands import Commands

_FAMILY, _REVISION, _MANUFACTURER, _VENDOR, _FIRMWARE = 0x100, 0x102, 0x105, (0x106, 0x107, 0x108, 0x109), 0x10B
_PERMANENT, _LOCKOUT_COUNTER, _MAX_AUTH_FAIL = 0x200, 0x20E, 0x20F
_IN_LOCKOUT = 1 << 9
_HANDLES = {"transient": 0x80000000, "session": 0x02000000, "persistent": 0x81000000, "nv": 0x01000000}


def describe(commands: "Commands") -> dict[str, str]:
    """Return name and value, in words."""
    fixed = commands.properties(0x100, 64)
    now = commands.properties(0x200, 64)
    firmware = struct.pack(">II", fixed.get(_FIRMWARE, 0), fixed.get(_FIRMWARE + 1, 0))
    failed, allowed = now.get(_LOCKOUT_COUNTER, 0), now.get(_MAX_AUTH_FAIL, 0)
    is_locked = bool(now.get(_PERMANENT, 0) & _IN_LOCKOUT)
    return {
        "manufacturer": _text(fixed.get(_MANUFACTURER, 0)),
        "vendor": "".join(_text(fixed.get(number, 0)) for number in _VENDOR).strip(),
        "firmware": ".".join(str(part) for part in struct.unpack(">HHHH", firmware)),
        "family": _text(fixed.get(_FAMILY, 0)),
        "revision": f"{fixed.get(_REVISION, 0) / 100:.2f}",
        "lockout": f"{'locked, ' if is_locked else ''}{failed} of {allowed} wrong passwords",
    }


def handles(commands: "Commands") -> dict[str, list[int]]:
    """Return the handles that are in the TPM, by kind."""
    return {kind: commands.handles(first) for kind, first in _HANDLES.items()}


def _text(number: int) -> str:
    """Return up to four letters that stand in a property; what is no letter is left out."""
    letters = number.to_bytes(4, "big").decode("latin-1")
    return "".join(letter for letter in letters if letter.isprintable() and letter.isascii()).strip()
