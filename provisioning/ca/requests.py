"""Certificate requests: of one, the key alone counts. Its names and extensions are what the requester would like."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import TrustError

MOST_BYTES = 16 * 1024


def read_request(request: bytes, *, curves: tuple[str, ...] = ("secp256r1",)) -> ec.EllipticCurvePublicKey:
    """Return the key of a request, in DER or PEM, that holds its private half. Raises TrustError for anything else."""
    if len(request) > MOST_BYTES:
        raise TrustError(f"request: got {len(request)} bytes, want at most {MOST_BYTES}")
    load = x509.load_pem_x509_csr if request.lstrip().startswith(b"-----BEGIN") else x509.load_der_x509_csr
    try:
        parsed = load(request)
        key = parsed.public_key()
        holds = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as e:
        raise TrustError("request: this is no certificate request that can be read") from e
    if not holds:
        raise TrustError("request: its signature is wrong")
    return check_key(key, curves=curves)


def read_public_key(key: ec.EllipticCurvePublicKey | bytes) -> ec.EllipticCurvePublicKey:
    """Return a P-256 key, given as such or as SubjectPublicKeyInfo in DER. Raises TrustError."""
    if not isinstance(key, bytes):
        return check_key(key)
    try:
        return check_key(serialization.load_der_public_key(key))
    except (ValueError, UnsupportedAlgorithm) as e:
        raise TrustError("key: this is no public key that can be read") from e


def check_key(key: object, *, curves: tuple[str, ...] = ("secp256r1",)) -> ec.EllipticCurvePublicKey:
    """Return the key, when it is on one of the curves. Raises TrustError."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in curves:
        raise TrustError(f"key: want one of {', '.join(curves)}")
    return key
