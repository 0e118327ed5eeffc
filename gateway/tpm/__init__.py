"""The one owner of a TPM 2.0: identity, quotes, counters, sealed secrets. The only place that imports tpm2_pytss.

Importing this package needs no TPM software; Tpm.open does, and says so. How to use it: docs/tpm.md.
"""

from gateway.tpm.device import DEFAULT_TCTI, Clock, Quoted, Tpm
from gateway.tpm.keys import KeyBlob, TpmPrivateKey
from gateway.tpm.sealing import Approval, Approver, Sealed, approve
from gateway.tpm.templates import EK_KINDS

__all__ = [
    "DEFAULT_TCTI",
    "EK_KINDS",
    "Approval",
    "Approver",
    "Clock",
    "KeyBlob",
    "Quoted",
    "Sealed",
    "Tpm",
    "TpmPrivateKey",
    "approve",
]
