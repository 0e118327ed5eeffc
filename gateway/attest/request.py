"""A device's request for its IDevID certificate (PKCS #10), for a key that may live in a TPM."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def make_request(key: EllipticCurvePrivateKey, *, serial: str, model: str) -> bytes:
    """Return a request in DER, signed by the key. The authority takes the key from it, and names nothing by it."""
    parts = {NameOID.COMMON_NAME: serial, NameOID.SERIAL_NUMBER: serial, NameOID.ORGANIZATIONAL_UNIT_NAME: model}
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items()])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)
