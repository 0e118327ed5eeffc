"""The seal's part in a client key that lives in the TPM: it makes the key, and has the attestation key vouch for it.

Forward has no TPM software: it gets a file that only this TPM can use, and OpenSSL's provider asks the TPM to sign.
"""

import hashlib

from gateway.attest.evidence import CertifiedKey
from gateway.attest.request import make_request
from gateway.errors import TrustError
from gateway.tpm import Tpm
from gateway.tpm.keys import KeyBlob, TpmPrivateKey

_MODEL = "wattseal"


class TlsKeys:
    """Makes keys under the storage root key. The newest is vouched for, and no other: whoever asks asks anew."""

    def __init__(self, tpm: Tpm, *, gateway: str) -> None:
        self._tpm, self._gateway = tpm, gateway
        self._newest: KeyBlob | None = None
        self._bound = b""

    def make(self) -> tuple[bytes, bytes]:
        """Return a new key as a `TSS2 PRIVATE KEY` file, and a certificate request for it in DER."""
        key = self._tpm.create_key()
        csr = make_request(TpmPrivateKey(self._tpm, key), serial=self._gateway, model=_MODEL)
        self._newest, self._bound = key, hashlib.sha256(csr).digest()
        return key.pem.encode(), csr

    def vouch(self, bound: bytes, qualifying: bytes) -> CertifiedKey:
        """Return the attestation key's word for the key of the request that `bound` is the SHA-256 of.

        Raises TrustError when it is not the newest of ours.
        """
        if self._newest is None or bound != self._bound:
            raise TrustError("key: this request is not for the newest key that the seal has made: ask for another one")
        attest, signature = self._tpm.certify(self._newest, qualifying)
        return CertifiedKey(public=self._newest.public, attest=attest, signature=signature)
