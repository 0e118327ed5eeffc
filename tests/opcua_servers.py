"""OPC UA servers to test against: asyncua's own, and a proxy that notes what leaves us."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import asyncua.ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ua: Any = asyncua.ua  # its types say more than its values do

OPEN, ENDPOINTS, CLOSE = 446, 428, 452
URI = "urn:wattseal:test:plant"
SERVER_URI = "urn:127.0.0.1:wattseal:plc"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Plant:
    """A server with nodes in a namespace of ours. others: namespaces that come before it."""

    def __init__(self, server: Server, port: int, index: int) -> None:
        self.server, self.port, self.index = server, port, index
        self.url = f"opc.tcp://127.0.0.1:{port}/plc"

    def node(self, name: str) -> Any:
        """Return a node of ours."""
        return self.server.get_node(ua.NodeId(name, self.index))

    async def write(self, name: str, value: Any, kind: Any = ua.VariantType.Double, **more: Any) -> None:
        """Set a node's value from within the server."""
        more.setdefault("SourceTimestamp", datetime.now(UTC))
        await self.server.write_attribute_value(self.node(name).nodeid, ua.DataValue(ua.Variant(value, kind), **more))


class Users(UserManager):
    """Knows one user with one password, and one certificate."""

    def __init__(self, certificate: bytes | None = None) -> None:
        self._certificate = certificate

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002 - asyncua's signature
        username: Any = None,
        password: Any = None,
        certificate: Any = None,
    ) -> Any:
        """Return who that is; None for nobody."""
        if username == "reader" and password == "secret":
            return User(role=UserRole.User)
        if username is None and certificate is not None and certificate == self._certificate:
            return User(role=UserRole.User)
        return None


@dataclass(kw_only=True)
class Setup:
    """How a server is."""

    port: int = 0
    values: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    others: Sequence[str] = ()
    security: Sequence[Any] = (ua.SecurityPolicyType.NoSecurity,)
    cert: Path | None = None
    key: Path | None = None
    users: UserManager | None = None
    tokens: Sequence[Any] = (ua.AnonymousIdentityToken,)


@asynccontextmanager
async def plant(setup: Setup) -> AsyncIterator[Plant]:
    server = Server(user_manager=setup.users)
    await server.init()
    port = setup.port or free_port()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plc")
    await server.set_application_uri(SERVER_URI)
    rules: Any = SimpleRoleRuleset
    server.set_security_policy(list(setup.security), permission_ruleset=rules())
    server.set_identity_tokens(list(setup.tokens))
    if setup.cert and setup.key:
        await server.load_certificate(setup.cert)
        await server.load_private_key(setup.key)
    for uri in setup.others:
        await server.register_namespace(uri)
    index = await server.register_namespace(URI)
    for name, (value, kind) in setup.values.items():
        await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value, kind)
    await server.start()
    try:
        yield Plant(server, port, index)
    finally:
        await server.stop()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.cert.read_bytes()


def make_pair(folder: Path, name: str, uri: str) -> Pair:
    """Write a self-signed application certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    alternatives = [x509.UniformResourceIdentifier(uri), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / f"{name}.der", folder / f"{name}.pem")
    pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    pair.key.chmod(0o600)
    return pair


@asynccontextmanager
async def recording(port: int) -> AsyncIterator[tuple[int, list[int], asyncio.Event]]:
    """Give a port before a server that speaks without security, and the type of each request that passes.

    The event is set; while it is cleared, nothing passes.
    """
    seen: list[int] = []
    passing = asyncio.Event()
    passing.set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        try:
            while True:
                head = await reader.readexactly(8)
                rest = await reader.readexactly(struct.unpack("<I", head[4:])[0] - 8)
                if note and head[:3] == b"OPN":
                    seen.append(OPEN)
                elif note and head[:3] in {b"MSG", b"CLO"}:
                    at = rest.find(b"\x01\x00", 16)  # behind channel, token, sequence, request
                    seen.append(struct.unpack_from("<H", rest, at + 2)[0] if at >= 0 else 0)
                await passing.wait()
                writer.write(head + rest)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        for source, sink, note in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(pump(source, sink, note=note))
            tasks.add(task)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[1], seen, passing
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def hostile(*answers: bytes, close: bool = False) -> AsyncIterator[str]:
    """Give the URL of a peer that answers each thing that comes with the next of these, whatever it was."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            if not await reader.read(65536):
                break
            writer.write(answer)
        if close:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
