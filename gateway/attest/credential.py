"""A secret that only the TPM with a certain endorsement key can open, and only for a certain attestation key.

What TPM2_MakeCredential does, without a TPM. Source: TCG, Trusted Platform Module Library, Part 1, 11.4.10
(KDFa, KDFe), 24 (credential protection), B.4 and B.10.4 (RSA), C.6.1 and C.6.4 (ECC).
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from gateway.attest.octets import sized
from gateway.attest.structures import HASHES, Public, parse_public
from gateway.errors import TrustError

SEED_BYTES: Final = 32
_LABEL: Final = b"IDENTITY\0"
_ORDERS: Final = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What TPM2_ActivateCredential takes. id_object: TPM2B_ID_OBJECT. secret: TPM2B_ENCRYPTED_SECRET."""

    id_object: bytes
    secret: bytes


def make_credential(ek_public: bytes, ak_name: bytes, secret: bytes, *, seed: bytes, padding_seed: bytes) -> Credential:
    """Return a secret for the TPM with this endorsement key, to be opened for the key of this name. Raises TrustError.

    ek_public: TPMT_PUBLIC, RSA-2048 and more, P-256 or P-384, already compared with its certificate. secret: 16 bytes
    up to the size of the EK's hash. seed, padding_seed: each at least SEED_BYTES of fresh randomness, never used twice.
    """
    area = parse_public(ek_public)
    if not area.is_restricted_decrypt or not area.symmetric_bits:
        raise TrustError("credential: this is no endorsement key")
    if min(len(seed), len(padding_seed)) < SEED_BYTES:
        raise TrustError(f"credential: got {len(seed)} and {len(padding_seed)} bytes of chance, want {SEED_BYTES} each")
    size = hashlib.new(area.name_hash).digest_size
    if not 16 <= len(secret) <= size:
        raise TrustError(f"credential: got a secret of {len(secret)} bytes, want 16 to {size}")
    if len(ak_name) - 2 != _NAME_BYTES.get(ak_name[:2]):
        raise TrustError("credential: this is no key's name")
    own, encrypted = _seed_for(area, seed, padding_seed)
    key = _kdfa(area.name_hash, own, b"STORAGE\0", ak_name, area.symmetric_bits)
    cipher = Cipher(AES(key), CFB(bytes(16))).encryptor()
    identity = cipher.update(sized(secret)) + cipher.finalize()
    integrity_key = _kdfa(area.name_hash, own, b"INTEGRITY\0", b"", 8 * size)
    integrity = hmac.digest(integrity_key, identity + ak_name, area.name_hash)
    return Credential(id_object=sized(sized(integrity) + identity), secret=sized(encrypted))


_NAME_BYTES = {number.to_bytes(2, "big"): hashlib.new(name).digest_size for number, name in HASHES.items()}


def _seed_for(area: Public, seed: bytes, padding_seed: bytes) -> tuple[bytes, bytes]:
    """Return the seed that both sides derive keys from, and what the TPM gets to know it by."""
    size = hashlib.new(area.name_hash).digest_size
    if isinstance(area.key, rsa.RSAPublicKey):
        own, padding = _stretch(seed, size), _stretch(padding_seed, size)
        return own, _oaep(area.key.public_numbers(), own, padding=padding, name_hash=area.name_hash)
    width = (area.key.key_size + 7) // 8
    scalar = int.from_bytes(_stretch(seed, width + 16), "big") % (_ORDERS[area.key.curve.name] - 1) + 1
    ephemeral = ec.derive_private_key(scalar, area.key.curve)
    shared = ephemeral.exchange(ec.ECDH(), area.key)
    ours, theirs = ephemeral.public_key().public_numbers(), area.key.public_numbers()
    x, y, party = (number.to_bytes(width, "big") for number in (ours.x, ours.y, theirs.x))
    own = hashlib.new(area.name_hash, b"\x00\x00\x00\x01" + shared + _LABEL + x + party).digest()  # KDFe, one block
    return own, sized(x) + sized(y)


def _stretch(seed: bytes, size: int) -> bytes:
    """Return as many bytes as needed from a seed of whatever length."""
    return hashlib.shake_256(b"wattseal-credential\n" + seed).digest(size)


def _oaep(key: rsa.RSAPublicNumbers, message: bytes, *, padding: bytes, name_hash: str) -> bytes:
    """Return RSAES-OAEP of a message with the TPM's label, padding being its seed. Source: RFC 8017, 7.1.1.

    By hand, for `cryptography` draws the seed itself. What is computed with here is as secret as `seed` is.
    """
    size = (key.n.bit_length() + 7) // 8
    digest = hashlib.new(name_hash, _LABEL).digest()
    block = digest + bytes(size - len(message) - 2 * len(digest) - 2) + b"\x01" + message
    masked = _xor(block, _mgf1(padding, len(block), name_hash))
    masked_seed = _xor(padding, _mgf1(masked, len(padding), name_hash))
    return pow(int.from_bytes(masked_seed + masked, "big"), key.e, key.n).to_bytes(size, "big")


def _mgf1(seed: bytes, size: int, name_hash: str) -> bytes:
    blocks = range(-(-size // hashlib.new(name_hash).digest_size))
    return b"".join(hashlib.new(name_hash, seed + n.to_bytes(4, "big")).digest() for n in blocks)[:size]


def _kdfa(name_hash: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return bits derived from a key. Source: Part 1, 11.4.10.2 (SP 800-108 in counter mode, HMAC)."""
    size = bits // 8
    blocks = range(1, 1 - (-size // hashlib.new(name_hash).digest_size))
    tail = label + context + bits.to_bytes(4, "big")
    return b"".join(hmac.digest(key, n.to_bytes(4, "big") + tail, name_hash) for n in blocks)[:size]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
