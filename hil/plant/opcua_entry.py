"""Who the plant's OPC UA server is, and whom it lets in."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import cert_gen
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

URI = "urn:localhost:wattseal:plant"


def make_certificate(certificate: Path, key: Path) -> None:
    """Make a new key and certificate of the server, in place of any that are there."""
    private = cert_gen.generate_private_key()
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(URI),
        x509.DNSName("localhost"),
        x509.DNSName(socket.gethostname()),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    made = cert_gen.generate_self_signed_app_certificate(
        private,
        "Simulated plant",
        {"organizationName": "Wattseal HIL"},
        names,
        extended=[ExtendedKeyUsageOID.SERVER_AUTH],
    )
    certificate.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(cert_gen.dump_private_key_as_pem(private))
    certificate.write_bytes(made.public_bytes(Encoding.DER))


class Users:
    """Who may come in: anyone while no users are named."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002 - the interface has it
        username: str | None = None,
        password: str | bytes | None = None,
        certificate: Any = None,  # noqa: ARG002
    ) -> User | None:
        """Return the user, or None to refuse."""
        given = password.decode() if isinstance(password, bytes) else password
        known = not self._users or (username is not None and self._users.get(username) == given)
        return User(role=UserRole.User) if known else None


class Clients:
    """Which clients' certificates are taken: sound ones, and where there is a folder, those in it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sound = CertificateValidator(
            CertificateValidatorOptions.EXT_VALIDATION | CertificateValidatorOptions.PEER_CLIENT
        )

    async def check(self, certificate: x509.Certificate, client: ua.ApplicationDescription) -> None:
        """Raise ServiceError unless it is taken."""
        await self._sound(certificate, client)
        der = certificate.public_bytes(Encoding.DER)
        if self._folder is not None and all(der != path.read_bytes() for path in self._folder.glob("*.der")):
            raise ServiceError(StatusCodes.BadCertificateUntrusted)
