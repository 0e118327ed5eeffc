"""Keys in the TPM: as a file, and as a private key of `cryptography`, so that a certificate request can be signed."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from gateway.attest.octets import sized
from gateway.attest.structures import SIGN, parse_public, parse_signature
from gateway.errors import TrustError
from gateway.tpm import pem
from gateway.tpm.templates import (
    ECDSA_SHA256,
    NO_SCHEME,
    RSASSA_SHA256,
    USER_WITH_AUTH,
    ecc_area,
    rsa_area,
)

if TYPE_CHECKING:
    from gateway.tpm.device import Tpm

Buffer = bytes | bytearray | memoryview
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CheckingKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_P256_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlob:
    """A key that only the TPM which made it can use. It holds no secret that another machine could read.

    public: TPMT_PUBLIC. private: what TPM2B_PRIVATE holds. parent: 0x40000001 for the standard primary, or the
    handle of a persistent storage key.
    """

    public: bytes
    private: bytes
    parent: int

    @property
    def pem(self) -> str:
        """A `TSS2 PRIVATE KEY` file."""
        return pem.write(public=self.public, private=self.private, parent=self.parent)

    @classmethod
    def from_pem(cls, text: str) -> Self:
        """Return the key of such a file. Raises TrustError."""
        public, private, parent = pem.read(text)
        return cls(public=public, private=private, parent=parent)


class TpmPrivateKey(ec.EllipticCurvePrivateKey):
    """A P-256 key whose private half stays in the TPM: it signs with ECDSA and SHA-256, and does nothing else."""

    def __init__(self, tpm: "Tpm", blob: KeyBlob) -> None:
        self._tpm = tpm
        self._blob = blob
        self._public = p256_key(blob.public)

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return a signature in DER. Raises UnsupportedAlgorithm for anything but ECDSA with SHA-256."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm("the TPM key signs with ECDSA")
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) and algorithm.digest_size == hashlib.sha256().digest_size:
            return self._tpm.sign(self._blob, bytes(data))
        if isinstance(algorithm, hashes.SHA256):
            return self._tpm.sign(self._blob, hashlib.sha256(data).digest())
        raise UnsupportedAlgorithm("the TPM key signs with SHA-256")

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """256."""
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:  # noqa: ARG002
        """Raise UnsupportedAlgorithm: the key signs only."""
        raise UnsupportedAlgorithm("the TPM key signs only")

    def private_numbers(self) -> NoReturn:
        """Raise UnsupportedAlgorithm: they do not leave the TPM."""
        raise UnsupportedAlgorithm("the private half stays in the TPM")

    def private_bytes(
        self,
        encoding: serialization.Encoding,  # noqa: ARG002 (the interface's arguments)
        format: serialization.PrivateFormat,  # noqa: A002, ARG002
        encryption_algorithm: serialization.KeySerializationEncryption,  # noqa: ARG002
    ) -> NoReturn:
        """Raise UnsupportedAlgorithm: they do not leave the TPM."""
        raise UnsupportedAlgorithm("the private half stays in the TPM")

    def __copy__(self) -> "TpmPrivateKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TpmPrivateKey":
        return self


def p256_key(public: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a TPMT_PUBLIC. Raises TrustError when it is not on P-256."""
    key = parse_public(public).key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError("key: want one on P-256")
    return key


def der_signature(signature: bytes) -> bytes:
    """Return a TPMT_SIGNATURE of ECDSA and SHA-256 in DER."""
    return parse_signature(signature).packed


def verify_ecdsa(key: ec.EllipticCurvePublicKey, signature: bytes, digest: bytes) -> None:
    """Raise TrustError unless signature (DER) is key's over a SHA-256 digest."""
    try:
        key.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature as e:
        raise TrustError("key: the signature is not this key's") from e


def public_area(key: CheckingKey) -> bytes:
    """Return the public area under which a TPM checks signatures of somebody's key.

    Raises ValueError for a key that is not P-256, or RSA of 2048 to 4096 bits with exponent 65537.
    """
    attributes = SIGN | USER_WITH_AUTH
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        numbers = key.public_numbers()
        x, y = (n.to_bytes(_P256_BYTES, "big") for n in (numbers.x, numbers.y))
        return ecc_area(attributes, symmetric=NO_SCHEME, scheme=ECDSA_SHA256, x=x, y=y)
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096 and key.public_numbers().e == 65537:
        modulus = key.public_numbers().n.to_bytes(key.key_size // 8, "big")
        return rsa_area(
            attributes, symmetric=NO_SCHEME, scheme=RSASSA_SHA256, modulus=modulus, bits=key.key_size, exponent=0
        )
    raise ValueError("approver: want a P-256 or an RSA key")


def tpm_signature(key: SigningKey, message: bytes) -> bytes:
    """Return a TPMT_SIGNATURE of a P-256 key (ECDSA) or an RSA key (PKCS #1 v1.5), with SHA-256. Needs no TPM."""
    if isinstance(key, rsa.RSAPrivateKey):
        return RSASSA_SHA256 + sized(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return ECDSA_SHA256 + sized(r.to_bytes(_P256_BYTES, "big")) + sized(s.to_bytes(_P256_BYTES, "big"))
