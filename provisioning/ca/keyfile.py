"""An authority's key as an encrypted PKCS#8 file: scrypt and AES-256-CBC, as `openssl pkey` reads it.

cryptography itself would write PBKDF2 with 2,048 rounds, which is little against a stolen file.
Source: RFC 5208, RFC 7914 section 7, RFC 8018 appendix A.4.
"""

import base64
import textwrap

from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gateway.attest.der import INTEGER, OCTETS, OID, SEQUENCE, encode
from gateway.errors import ConfigError
from provisioning.ca.unlock import Unlock

LEAST_PASSWORD = 12
_N, _R, PASSES = 1 << 14, 8, 5
"""16 MiB, which is what OpenSSL's tools allow, and five passes."""
_LABEL = "ENCRYPTED PRIVATE KEY"
_SCRYPT = encode(OID, bytes.fromhex("2b06010401da47040b"))  # 1.3.6.1.4.1.11591.4.11
_AES_256_CBC = encode(OID, bytes.fromhex("60864801650304012a"))  # 2.16.840.1.101.3.4.1.42
_PBES2 = encode(OID, bytes.fromhex("2a864886f70d01050d"))  # 1.2.840.113549.1.5.13


def encrypt(key: ec.EllipticCurvePrivateKey, unlock: Unlock, *, salt: bytes, iv: bytes, passes: int = PASSES) -> bytes:
    """Return the key in PEM, encrypted. salt, iv: 16 random bytes each. Raises ConfigError for a short password.

    passes: of scrypt, a tenth of a second each; fewer are for a key that nobody shall keep.
    """
    if len(unlock.secret) < LEAST_PASSWORD:
        raise ConfigError(f"password: got {len(unlock.secret)} characters, want at least {LEAST_PASSWORD}")
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    derived = Scrypt(salt=salt, length=32, n=_N, r=_R, p=passes).derive(unlock.secret.encode())
    pad = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES256(derived), modes.CBC(iv)).encryptor()
    sealed = cipher.update(pad.update(plain) + pad.finalize()) + cipher.finalize()
    cost = (encode(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in (_N, _R, passes))
    scrypt = _sequence(_SCRYPT, _sequence(encode(OCTETS, salt), *cost))
    pbes2 = _sequence(_PBES2, _sequence(scrypt, _sequence(_AES_256_CBC, encode(OCTETS, iv))))
    lines = textwrap.wrap(base64.b64encode(_sequence(pbes2, encode(OCTETS, sealed))).decode(), 64)
    return "\n".join((f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", "")).encode()


def decrypt(pem: bytes, unlock: Unlock, where: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of an encrypted file. Raises ConfigError for a wrong password, and for a key that has none."""
    if f"BEGIN {_LABEL}".encode() not in pem:
        raise ConfigError(f"{where}: got a key that is not encrypted, want an encrypted PKCS#8 file")
    try:
        key = serialization.load_pem_private_key(pem, unlock.secret.encode())
    except ValueError as e:
        raise ConfigError(f"{where}: the password is wrong, or the file is damaged") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in {"secp256r1", "secp384r1"}:
        raise ConfigError(f"{where}: got another kind of key, want P-256 or P-384")
    return key


def _sequence(*parts: bytes) -> bytes:
    return encode(SEQUENCE, b"".join(parts))
