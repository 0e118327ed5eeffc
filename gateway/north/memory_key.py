"""A client key that no disk has seen: made in memory, certified for some hours, gone with the process.

Python's ssl reads keys from files alone, so key and certificate stand in files of memory (memfd), of which only this
process has a name.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import TrustError

MAX_CHAIN = 4
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class MemoryKey:
    """A P-256 key under a name. csr: the certificate request in DER, signed with it. Close it to forget the key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
        self.csr = request.public_bytes(serialization.Encoding.DER)
        self._files: list[int] = []
        self.issued_s = self.expires_s = 0

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
            is_ours = certificates[0].public_key() == self._key.public_key()
        except (ValueError, TypeError, x509.ExtensionNotFound) as e:
            raise TrustError(f"certificate: cannot be read: {e}") from e
        if not is_ours:
            raise TrustError("certificate: got one for another key than the one that we asked for")
        if [name.value for name in names] != [self._name] or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise TrustError(f"certificate: want one for {self._name}, to connect as a client")
        self.issued_s = int(certificates[0].not_valid_before_utc.timestamp())
        self.expires_s = int(certificates[0].not_valid_after_utc.timestamp())
        self._forget()
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
        private = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._file("certificate", pem), self._file("key", private)

    def close(self) -> None:
        """Forget certificate and key."""
        self._forget()

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
