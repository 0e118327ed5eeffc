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

from gateway.errors import ConfigError
from provisioning.ca.der import integer, octets, oid, sequence
from provisioning.ca.unlock import Unlock

LEAST_PASSWORD = 12
_N, _R, _P = 1 << 14, 8, 5
"""16 MiB, which is what OpenSSL's tools allow, and five passes."""
_LABEL = "ENCRYPTED PRIVATE KEY"


def encrypt(key: ec.EllipticCurvePrivateKey, unlock: Unlock, *, salt: bytes, iv: bytes) -> bytes:
    """Return the key in PEM, encrypted. salt, iv: 16 random bytes each. Raises ConfigError for a short password."""
    if len(unlock.secret) < LEAST_PASSWORD:
        raise ConfigError(f"password: got {len(unlock.secret)} characters, want at least {LEAST_PASSWORD}")
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    derived = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(unlock.secret.encode())
    pad = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES256(derived), modes.CBC(iv)).encryptor()
    sealed = cipher.update(pad.update(plain) + pad.finalize()) + cipher.finalize()
    scrypt = sequence(oid("1.3.6.1.4.1.11591.4.11"), sequence(octets(salt), integer(_N), integer(_R), integer(_P)))
    aes = sequence(oid("2.16.840.1.101.3.4.1.42"), octets(iv))
    pbes2 = sequence(oid("1.2.840.113549.1.5.13"), sequence(scrypt, aes))
    lines = textwrap.wrap(base64.b64encode(sequence(pbes2, octets(sealed))).decode(), 64)
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
