"""Policy digests of a TPM 2.0, computed without one: what an approver signs, and what a secret is sealed under.

Source: TCG TPM 2.0 Library, Part 3, the commands TPM2_PolicyPCR, TPM2_PolicyNV and TPM2_PolicyAuthorize.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping

from gateway.attest.structures import SHA256

EMPTY = bytes(32)
UNSIGNED_LE = 0x0009
"""TPM_EO: what the index holds is at most the operand."""

_CC_POLICY_NV = 0x0149
_CC_POLICY_AUTHORIZE = 0x016A
_CC_POLICY_PCR = 0x017F


def selection(indices: Iterable[int]) -> bytes:
    """Return TPML_PCR_SELECTION of the SHA-256 bank. Raises ValueError for an index that is not 0 to 23."""
    bits = 0
    for index in indices:
        if not 0 <= index <= 23:
            raise ValueError(f"PCR: got {index}, want 0..23")
        bits |= 1 << index
    return struct.pack(">IHB", 1, SHA256, 3) + bits.to_bytes(3, "little")


def name(public: bytes) -> bytes:
    """Return the name of an object or NV index whose public area has the name algorithm SHA-256."""
    return struct.pack(">H", SHA256) + _sha256(public)


def in_state(pcrs: Mapping[int, bytes], policy: bytes = EMPTY) -> bytes:
    """Return policy, continued by PolicyPCR for these values."""
    values = _sha256(b"".join(pcrs[index] for index in sorted(pcrs)))
    return _sha256(policy + struct.pack(">I", _CC_POLICY_PCR) + selection(pcrs) + values)


def at_most(counter: bytes, version: int, policy: bytes) -> bytes:
    """Return policy, continued by PolicyNV: the counter (TPMS_NV_PUBLIC) stands at version or below."""
    said = _sha256(struct.pack(">QHH", version, 0, UNSIGNED_LE))
    return _sha256(policy + struct.pack(">I", _CC_POLICY_NV) + said + name(counter))


def authorized(approver: bytes, reference: bytes) -> bytes:
    """Return the policy of PolicyAuthorize: what the holder of this key (TPMT_PUBLIC) signs with this reference."""
    return _sha256(_sha256(EMPTY + struct.pack(">I", _CC_POLICY_AUTHORIZE) + name(approver)) + reference)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
