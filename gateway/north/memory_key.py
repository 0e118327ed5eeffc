"""A client key that no disk has seen: made in memory or in the TPM, certified for some hours, gone with the process.

Python's ssl reads keys from files alone, so key and certificate stand in files of memory (memfd), of which only this
process has a name. The file of a key in the TPM holds no secret: OpenSSL's provider reads it, and asks the TPM.
"""

import fcntl
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import TrustError

MAX_CHAIN = 4
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class HeldKey:
    """A key for certificates of one name. csr: the certificate request in DER, signed with it. private: its file's
    content. Close it to forget the key.

    Raises TrustError for a request that cannot be read.
    """

    def __init__(self, name: str, *, csr: bytes, private: bytes) -> None:
        self._name, self.csr, self._private = name, csr, private
        try:
            self._public = x509.load_der_x509_csr(csr).public_key()
        except (ValueError, TypeError) as e:
            raise TrustError(f"certificate request: cannot be read: {e}") from e
        self._files: list[int] = []
        self.expires_s = 0

    def trial(self) -> tuple[Path, Path]:
        """Return files of a certificate that nobody believes, and of the key: enough to try whether it signs."""
        issuer, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trial")])
        end, serial = now + timedelta(hours=1), x509.random_serial_number()
        if not isinstance(self._public, ec.EllipticCurvePublicKey):
            raise TrustError("certificate request: want a key on an elliptic curve")
        made = x509.CertificateBuilder(name, name, self._public, serial, now, end).sign(issuer, hashes.SHA256())
        return self._stand([made])

    def adopt(self, chain: Sequence[bytes]) -> tuple[Path, Path]:
        """Take a certificate and those above it, in DER; return files of certificate and key for ssl.

        Raises TrustError unless it is for this key and this name, and for connecting as a client.
        """
        if not 0 < len(chain) <= MAX_CHAIN:
            raise TrustError(f"certificate: got {len(chain)} of them, want 1 to {MAX_CHAIN}")
        try:
            certificates = [x509.load_der_x509_certificate(one) for one in chain]
            names = certificates[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            purposes = certificates[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            is_ours = certificates[0].public_key() == self._public
        except (ValueError, TypeError, x509.ExtensionNotFound) as e:
            raise TrustError(f"certificate: cannot be read: {e}") from e
        if not is_ours:
            raise TrustError("certificate: got one for another key than the one that we asked for")
        if [name.value for name in names] != [self._name] or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise TrustError(f"certificate: want one for {self._name}, to connect as a client")
        self.expires_s = int(certificates[0].not_valid_after_utc.timestamp())
        return self._stand(certificates)

    def close(self) -> None:
        """Forget certificate and key."""
        self._forget()

    def _stand(self, certificates: Sequence[x509.Certificate]) -> tuple[Path, Path]:
        self._forget()
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
        return self._file("certificate", pem), self._file("key", self._private)

    def _file(self, what: str, content: bytes) -> Path:
        descriptor = os.memfd_create(f"wattseal-{what}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._files.append(descriptor)
        os.write(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return Path(f"/proc/self/fd/{descriptor}")

    def _forget(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()


class MemoryKey(HeldKey):
    """A P-256 key that is in this process alone."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        super().__init__(name, csr=request.public_bytes(serialization.Encoding.DER), private=private)
