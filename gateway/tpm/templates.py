"""The public areas (TPMT_PUBLIC) from which a TPM derives our keys: the same template gives the same primary key.

Sources: TCG EK Credential Profile for TPM Family 2.0, revision 2.6, B.3 and B.4 (templates and NV indices);
TCG TPM v2.0 Provisioning Guidance, 7.5.1 (storage key); TPM 2.0 Library, Part 2, 12.2.4 (the bytes).
"""

import struct
from dataclasses import dataclass

from gateway.attest.octets import sized
from gateway.attest.structures import (
    AES,
    CFB,
    DECRYPT,
    ECC,
    ECDSA,
    FIXED_PARENT,
    FIXED_TPM,
    NULL,
    RESTRICTED,
    RSA,
    RSASSA,
    SENSITIVE_ORIGIN,
    SHA256,
    SIGN,
)

SHA384 = 0x000C
_KEYEDHASH = 0x0008
_P256, _P384 = 0x0003, 0x0004

USER_WITH_AUTH, ADMIN_WITH_POLICY, NO_DA = 1 << 6, 1 << 7, 1 << 10

_LOW = FIXED_TPM | FIXED_PARENT | SENSITIVE_ORIGIN | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT
_HIGH = _LOW | USER_WITH_AUTH
_OWN = FIXED_TPM | FIXED_PARENT | SENSITIVE_ORIGIN | USER_WITH_AUTH | NO_DA
"""NO_DA: an empty password cannot be guessed wrong, and attestation goes on while the TPM is in lockout."""

_POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_POLICY_B_256 = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
_POLICY_B_384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_AES_128, _AES_256 = struct.pack(">HHH", AES, 128, CFB), struct.pack(">HHH", AES, 256, CFB)


def _head(kind: int, attributes: int, policy: bytes, name_alg: int) -> bytes:
    return struct.pack(">HHI", kind, name_alg, attributes) + sized(policy)


def rsa_area(
    attributes: int, *, policy: bytes = b"", symmetric: bytes, scheme: bytes, modulus: bytes, bits: int, exponent: int
) -> bytes:
    """Return the public area of an RSA key. exponent: 0 for 65537."""
    head = _head(RSA, attributes, policy, SHA256)
    return head + symmetric + scheme + struct.pack(">HI", bits, exponent) + sized(modulus)


def ecc_area(
    attributes: int,
    *,
    policy: bytes = b"",
    symmetric: bytes,
    scheme: bytes,
    curve: int = _P256,
    x: bytes = b"",
    y: bytes = b"",
    name_alg: int = SHA256,
) -> bytes:
    """Return the public area of an elliptic curve key."""
    head = _head(ECC, attributes, policy, name_alg)
    return head + symmetric + scheme + struct.pack(">HH", curve, NULL) + sized(x) + sized(y)


NO_SCHEME = struct.pack(">H", NULL)
ECDSA_SHA256 = struct.pack(">HH", ECDSA, SHA256)
RSASSA_SHA256 = struct.pack(">HH", RSASSA, SHA256)

AK = ecc_area(_OWN | RESTRICTED | SIGN, symmetric=NO_SCHEME, scheme=ECDSA_SHA256)
"""`ecc256:ecdsa-sha256:null` in the endorsement hierarchy: restricted, so that it signs only what the TPM says."""

SRK = ecc_area(_OWN | RESTRICTED | DECRYPT, symmetric=_AES_128, scheme=NO_SCHEME)
"""As the tpm2-openssl provider makes it for a key whose parent is the owner hierarchy."""

SIGNING_KEY = ecc_area(_OWN | SIGN, symmetric=NO_SCHEME, scheme=NO_SCHEME)
"""Of TLS and of the IDevID. No scheme of its own: TLS peers choose the hash."""


def sealed_area(policy: bytes) -> bytes:
    """Return the public area of a secret that only this policy gives out."""
    attributes = FIXED_TPM | FIXED_PARENT | ADMIN_WITH_POLICY | NO_DA
    return _head(_KEYEDHASH, attributes, policy, SHA256) + NO_SCHEME + sized(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class EkProfile:
    """One row of the EK credential profile.

    certificate, nonce, template: NV indices; the last two are None in the high range, and rarely filled in the low.
    needs_policy: its use needs PolicySecret of the endorsement hierarchy.
    """

    public: bytes
    certificate: int
    nonce: int | None = None
    template: int | None = None
    needs_policy: bool = False


_RSA_LOW = rsa_area(
    _LOW, policy=_POLICY_A, symmetric=_AES_128, scheme=NO_SCHEME, modulus=bytes(256), bits=2048, exponent=0
)
_RSA_HIGH = rsa_area(
    _HIGH, policy=_POLICY_B_256, symmetric=_AES_128, scheme=NO_SCHEME, modulus=b"", bits=2048, exponent=0
)
_P256_LOW = ecc_area(_LOW, policy=_POLICY_A, symmetric=_AES_128, scheme=NO_SCHEME, x=bytes(32), y=bytes(32))
_P256_HIGH = ecc_area(_HIGH, policy=_POLICY_B_256, symmetric=_AES_128, scheme=NO_SCHEME)
_P384_HIGH = ecc_area(_HIGH, policy=_POLICY_B_384, symmetric=_AES_256, scheme=NO_SCHEME, curve=_P384, name_alg=SHA384)

EK_PROFILES: dict[str, tuple[EkProfile, ...]] = {
    "rsa2048": (
        EkProfile(public=_RSA_LOW, certificate=0x01C00002, nonce=0x01C00003, template=0x01C00004, needs_policy=True),
        EkProfile(public=_RSA_HIGH, certificate=0x01C00012),
    ),
    "p256": (
        EkProfile(public=_P256_LOW, certificate=0x01C0000A, nonce=0x01C0000B, template=0x01C0000C, needs_policy=True),
        EkProfile(public=_P256_HIGH, certificate=0x01C00014),
    ),
    "p384": (EkProfile(public=_P384_HIGH, certificate=0x01C00016),),
}
"""By kind; the first of a kind whose certificate is in the TPM counts, else the first."""

EK_KINDS = tuple(EK_PROFILES)
