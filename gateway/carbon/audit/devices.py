"""Whether a device vouches for the key of a gateway's checkpoint, checked with what an auditor brings along.

From the epoch leaf on: the quote over the key, the attestation key's certificate, the device authority; and with a
birth record: the factory's word, and the TPM's own certificate up to its maker's root.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.attest.birth import Birth, read_birth
from gateway.attest.chain import Anchors
from gateway.attest.ek import verify_ek_chain
from gateway.attest.epoch import BoundKey, verify_epoch
from gateway.errors import TrustError
from gateway.tlog.note import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTrust:
    """What the caller trusts of devices. anchors: the device authority's roots, and whom it has revoked.

    births: birth records, signed by the factory, one for each device; none where it is no matter whose TPM it is.
    ek_roots, ek_between: certificates of the TPM's maker in DER; none but the roots is trusted as it stands.
    """

    anchors: Anchors
    births: tuple[bytes, ...] = ()
    factory: Verifier | None = None
    ek_roots: tuple[bytes, ...] = ()
    ek_between: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmVerdict:
    """The TPM of a device, by its maker's certificate. made_s: when the device was born, Unix seconds.

    remarks: in what the certificate strays from the norm.
    """

    maker: str
    serial: str
    made_s: int
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceVerdict:
    """The device that vouches for a key. fingerprint: SHA-256 of the attestation key's certificate, hexadecimal.

    pcrs: which are quoted. pcr_sha256: the hash of their values, as the quote has it, hexadecimal.
    t_ns: when, by the device's clock. reset_count: starts of the device until then. tpm: None without a birth record.
    """

    serial: str
    model: str
    fingerprint: str
    epoch: int
    t_ns: int
    pcrs: tuple[int, ...]
    pcr_sha256: str
    reset_count: int
    tpm: TpmVerdict | None


def check_device(body: Mapping[str, Any], trust: DeviceTrust, *, at_s: int) -> DeviceVerdict:
    """Return the device that vouches for the key of a checked epoch body, as of at_s. Raises TrustError."""
    bound = verify_epoch(body, trust.anchors, at_s=at_s)
    return DeviceVerdict(
        serial=bound.device.serial,
        model=bound.device.model,
        fingerprint=bound.device.fingerprint,
        epoch=bound.epoch,
        t_ns=bound.t_ns,
        pcrs=tuple(sorted(bound.pcrs)),
        pcr_sha256=hashlib.sha256(b"".join(bound.pcrs[index] for index in sorted(bound.pcrs))).hexdigest(),
        reset_count=bound.reset_count,
        tpm=_tpm(bound, trust) if trust.births else None,
    )


def _tpm(bound: BoundKey, trust: DeviceTrust) -> TpmVerdict:
    birth = _birth(bound.device.serial, trust)
    if birth.ak_certificate_sha256 != bound.device.fingerprint:
        raise TrustError(
            f"device {birth.serial}: born with the attestation key {birth.ak_certificate_sha256}, and the epoch is "
            f"bound by {bound.device.fingerprint}"
        )
    ek = verify_ek_chain(birth.ek_certificate, trust.ek_between, trust.ek_roots, at_s=birth.made_s)
    return TpmVerdict(maker=ek.maker, serial=ek.serial, made_s=birth.made_s, remarks=ek.remarks)


def _birth(serial: str, trust: DeviceTrust) -> Birth:
    if trust.factory is None:
        raise TrustError("birth record: want the factory's verifier key beside it")
    births = [read_birth(note, verifier=trust.factory) for note in trust.births]
    own = [birth for birth in births if birth.serial == serial]
    if len(own) != 1:
        raise TrustError(f"device {serial}: got {len(own)} birth records, want one")
    return own[0]
