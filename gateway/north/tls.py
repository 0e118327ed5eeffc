"""TLS 1.3 with certificates on both sides: where the broker is, and what proves who we are."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError


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
