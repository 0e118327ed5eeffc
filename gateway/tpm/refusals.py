"""What an answer code of the TPM software means for us: which error, in which words.

Source: TCG TSS 2.0 Overview and Common Structures, 3.4 (layers); TPM 2.0 Library, Part 2, 6.6 (codes).
"""

from typing import Protocol

from gateway.errors import ConfigError, GatewayError, TrustError

_TPM, _ESAPI, _TCTI, _MANAGERS = 0, 7, 10, (11, 12)
_PASSING = {0x908: "yielded", 0x90A: "testing", 0x920: "NV rate", 0x922: "retry", 0x923: "NV unavailable"}
_NO_ROOM = {0x901, 0x902, 0x903, 0x904, 0x905, 0x906}
_INITIALIZE, _LOCKOUT = 0x100, 0x921
_BAD_SEQUENCE = 0x07
"""Of the ESAPI layer: a command before this one never got its answer."""


class Refusal(Protocol):
    """An exception of the TPM software, with its code."""

    @property
    def rc(self) -> int:
        """TSS2_RC."""


def is_passing(rc: int) -> bool:
    """Return whether the TPM says that asking again may help."""
    return int(rc) in _PASSING


def is_lost(error: "Refusal") -> bool:
    """Return whether the connection is of no more use."""
    layer, code = _parts(error)
    return layer == _TCTI or (layer == _ESAPI and code == _BAD_SEQUENCE)


def narrowed(error: "Refusal", what: str) -> GatewayError:
    """Return the error to raise. what: the command or the structure.

    ConfigError: nothing answers, or the TPM has no room. TrustError: it refuses, or the bytes are not what they claim.
    """
    layer, code = _parts(error)
    text = f"TPM: {what}: {error} (0x{int(error.rc):x})"
    if is_lost(error):
        return ConfigError(f"{text}; want a TPM that answers there: see `tcti` of [attest], or --tcti")
    if layer in {_TPM, *_MANAGERS} and code in _NO_ROOM:
        return ConfigError(f"{text}; want free slots: use device:/dev/tpmrm0, or `tpm2_flushcontext -t` what is left")
    if layer == _TPM and code == _INITIALIZE:
        return ConfigError(f"{text}; want a TPM that was started: `tpm2_startup -c`")
    if layer == _TPM and code in _PASSING:
        return ConfigError(f"{text}; it was still busy at the last attempt")
    if layer == _TPM and code == _LOCKOUT:
        return TrustError(f"{text}; too many wrong passwords: wait, or `tpm2_dictionarylockout --clear-lockout`")
    return TrustError(text)


def _parts(error: "Refusal") -> tuple[int, int]:
    return int(error.rc) >> 16 & 0xFF, int(error.rc) & 0xFFFF
