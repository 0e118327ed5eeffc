"""TLS 1.3 with certificates on both sides: where the broker is, and what proves who we are."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the broker is, and what proves who we are. The files are read at each connect, so a renewed one is used."""

    host: str
    port: int
    ca: Path
    cert: Path
    key: Path


class Context(ssl.SSLContext):
    """Remembers the socket that it wrapped: paho drops one unclosed when the handshake fails."""

    wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Return the wrapped socket."""
        self.wrapped = super().wrap_socket(*args, **kwargs)
        return self.wrapped


def tls_context(endpoint: Endpoint) -> Context:
    """Return a context for TLS 1.3 alone, that checks the broker's chain, purpose and name and shows our certificate.

    Raises ConfigError that names the file.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=endpoint.ca)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{endpoint.ca}: got no usable CA certificate, want one in PEM: {e}") from e
    try:
        context.load_cert_chain(endpoint.cert, endpoint.key, password=_no_password)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{endpoint.cert}, {endpoint.key}: got no usable certificate with its key: {e}") from e
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # or OpenSSL would ask at the terminal, for ever


def certificate_of(file: Path) -> bytes:
    """Return the first certificate of a PEM file, in DER. Raises ConfigError."""
    try:
        text = file.read_text("ascii")
        return ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) : text.index(_END) + len(_END)])
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file}: got no certificate that can be read, want one in PEM: {e}") from e


def prove_key(cert: Path, key: Path) -> None:
    """Raise ConfigError unless this key signs for this certificate, in TLS 1.3: by a handshake with ourselves.

    It finds what loading does not: a key in a TPM that is not there, or that OpenSSL would ask the wrong provider for.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.minimum_version = client.minimum_version = ssl.TLSVersion.TLSv1_3
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE  # the signature is checked all the same
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server.load_cert_chain(cert, key, password=_no_password)
        ends = [
            client.wrap_bio(inward, outward),
            server.wrap_bio(outward, inward, server_side=True),
        ]
        while ends:
            ends = [end for end in ends if not _is_done(end)]
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{cert}, {key}: the key does not sign for the certificate: {e}") from e


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
