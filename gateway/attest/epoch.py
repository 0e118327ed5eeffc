"""Which device a gateway's epoch key belongs to: the binding in its epoch leaf, made by a TPM, checked by anyone.

A TPM signs too slowly for a log, so a key in memory signs, and the TPM says once in a quote whose key that is, in
which state of the device, and since which start. Normative form: docs/log.md, section 1, "epoch".
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.attest.chain import Anchors, Device, verify_device_chain
from gateway.attest.verify import verify_quote
from gateway.errors import TrustError
from gateway.tlog.note import Verifier

UNATTESTED = "unattested"
TPM2_QUOTE = "tpm2-quote"
LABEL = "wattseal-epoch/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundKey:
    """An epoch key that a device's TPM vouches for.

    t_ns: when, by the device's clock. pcrs: the SHA-256 bank as it was then, by index.
    reset_count: of the TPM; each start of the device raises it.
    """

    verifier: Verifier
    epoch: int
    t_ns: int
    device: Device
    pcrs: Mapping[int, bytes]
    reset_count: int


def qualifying(*, vkey: str, epoch: int, t_ns: int) -> bytes:
    """Return what the quote of an epoch is made over: 32 bytes."""
    return hashlib.sha256(f"{LABEL}\n{vkey}\n{epoch}\n{t_ns}\n".encode()).digest()


def quote_binding(
    *, t_ns: int, attest: bytes, signature: bytes, pcrs: Mapping[int, bytes], chain: Sequence[bytes]
) -> dict[str, Any]:
    """Return the binding of an epoch leaf. chain: certificates in DER, the attestation key's own first."""
    return {
        "type": TPM2_QUOTE,
        "t": t_ns,
        "attest": attest,
        "signature": signature,
        "pcrs": [[index, pcrs[index]] for index in sorted(pcrs)],
        "chain": list(chain),
    }


def is_attested(body: Mapping[str, Any]) -> bool:
    """Return whether a checked epoch body claims a TPM's word; verify_epoch finds out."""
    return bool(body["binding"].get("type") == TPM2_QUOTE)


def verify_epoch(body: Mapping[str, Any], anchors: Anchors, *, at_s: int | None = None) -> BoundKey:
    """Return the key that a checked epoch body announces, and whose it is. at_s: as verify_device_chain has it;
    the time that the binding says, without it.

    Raises TrustError for anything but a quote over just this key, by an attestation key of a device of these anchors.
    """
    binding = body["binding"]
    if not is_attested(body):
        raise TrustError(f"epoch {body['epoch']}: got a binding of type {binding.get('type')!r}, want {TPM2_QUOTE}")
    verifier = Verifier.from_vkey(body["key"])
    t_ns = binding["t"]
    device = verify_device_chain(binding["chain"], anchors, at_s=t_ns // 1_000_000_000 if at_s is None else at_s)
    pcrs = dict(binding["pcrs"])
    said = qualifying(vkey=body["key"], epoch=body["epoch"], t_ns=t_ns)
    quoted = verify_quote(binding["attest"], binding["signature"], device.key, qualifying=said, pcrs=pcrs)
    return BoundKey(
        verifier=verifier,
        epoch=body["epoch"],
        t_ns=t_ns,
        device=device,
        pcrs=pcrs,
        reset_count=quoted.reset_count,
    )
