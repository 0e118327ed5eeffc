"""From a URL to an open session: the server's certificate is checked before anything of ours leaves.

What asyncua raises is narrowed here and in opcua_session, to DeviceErrors that name the fix.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from gateway.drivers.opcua_cert import OwnIdentity, parse
from gateway.drivers.opcua_values import printable, status_text
from gateway.drivers.opcua_wire import Channel, Wire
from gateway.errors import ConfigError, DeviceError

_POLICIES: Final[dict[str, Any]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
NONE: Final = "None"
_SAFE_TOKENS: Final = {policy.URI for policy in _POLICIES.values()}
_SESSION_MS: Final = 120_000
_CHANNEL_MS: Final = 3_600_000
_HANDSHAKE: Final = 5
"""How many time-outs of a request all of a connection may take: it is ten round trips, with RSA."""

FOREIGN: Final = (
    OSError,  # and TimeoutError
    UaError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    struct.error,
    InvalidSignature,
    UnsupportedAlgorithm,
    uacrypto.InvalidSignature,  # type: ignore[attr-defined]
)
"""What asyncua lets through while it reads what a server sent to open a session."""

_FIXES: Final = {
    0x80130000: "see the server's log; it may not trust our certificate {own}: have it trusted there",
    0x801A0000: "the server does not trust our certificate {own}: have it trusted there",
    0x80170000: "make our certificate {own} anew: its URI is not ours",
    0x80140000: "the server finds our certificate {own} too old or too young: renew it, or set the clocks",
    0x801F0000: "check opcua.user and the password's file",
    0x80200000: "the server does not take this kind of user: check opcua.user, opcua.password and opcua.user_cert",
    0x80210000: "check opcua.user and the password's file, or have opcua.user_cert trusted at the server",
    0x80560000: "the server has no session left: close others, or raise its limit",
    0x80550000: "the server does not offer this opcua.security",
}


class Trust(Protocol):
    """Whom we trust: see `TrustList`."""

    def check(self, der: bytes, *, uri: str, host: str) -> None:
        """Raise DeviceError, with the fix, unless this is the certificate of a server that we trust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to speak with one server.

    security, mode: as in the configuration; both None, or neither. trust, own: needed unless they are None.
    password: its text. user_cert, user_key: files, DER or PEM by their names.
    """

    url: str
    security: str = "Basic256Sha256"
    mode: str = "SignAndEncrypt"
    user: str = ""
    password: str = field(default="", repr=False)
    user_cert: Path | None = None
    user_key: Path | None = None
    timeout_s: float = 1.0
    trust: Trust | None = None
    own: OwnIdentity | None = None

    def __post_init__(self) -> None:
        """Refuse what is half secured. Raises ConfigError."""
        if (self.security == NONE) != (self.mode == NONE):
            raise ConfigError(
                f"opcua.security: got {self.security!r} with mode {self.mode!r}, want both None, or neither"
            )
        if self.security not in {NONE, *_POLICIES}:
            raise ConfigError(f"opcua.security: got {self.security!r}, want one of {', '.join(_POLICIES)}, None")
        if self.security != NONE and (self.trust is None or self.own is None):
            raise ConfigError("opcua: got no certificate of our own and no trust list, want both")
        if self.user and self.user_cert:
            raise ConfigError("opcua.user: got one beside user_cert, want one of them")
        if self.password and not self.user:
            raise ConfigError("opcua.password: got one without a user, want opcua.user too")
        if (self.user_cert is None) != (self.user_key is None):
            raise ConfigError("opcua.user_cert: want user_cert and user_key, or neither")

    @property
    def host(self) -> str:
        """The host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def insecure(self) -> bool:
        """Whether nothing is signed or encrypted, by choice."""
        return self.security == NONE


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session: its client, and its connection."""

    client: Client
    wire: Wire


async def connect(access: Access) -> Opened:
    """Return a session, activated. Raises DeviceError with the fix where there is one."""
    timeout_s = _HANDSHAKE * access.timeout_s
    client = Client(access.url, timeout=timeout_s)
    channel = client.uaclient = Channel(timeout_s)
    client.name = client.description = "wattseal"
    client.application_uri = access.own.uri if access.own else "urn:wattseal:gateway"
    client.product_uri = "urn:wattseal"
    client.session_timeout, client.secure_channel_timeout = _SESSION_MS, _CHANNEL_MS
    done = False
    try:
        async with asyncio.timeout(timeout_s):
            await _open(client, access)
        if channel.wire is None:
            raise ConnectionError("connection lost")
        channel.wire.opened()
        done = True
        return Opened(client, channel.wire)
    except FOREIGN as e:
        raise DeviceError(f"{access.url}: {_said(e, channel, access, timeout_s)}") from e
    except DeviceError as e:
        raise DeviceError(f"{access.url}: {e}") from e
    finally:
        if not done:
            channel.disconnect_socket()


async def _open(client: Client, access: Access) -> None:
    if not access.insecure and access.trust and access.own:
        server = await _trusted(client, access, access.trust)
        await client.set_security(
            _POLICIES[access.security],
            access.own.cert,
            access.own.key,
            server_certificate=server,
            mode=ua.MessageSecurityMode[access.mode],
        )
    if access.user_cert and access.user_key:
        await client.load_client_certificate(str(access.user_cert))
        await client.load_private_key(access.user_key)
    await client.connect_socket()
    await client.send_hello()
    await client.open_secure_channel()
    await client.create_session()
    if access.user or access.user_cert:
        _check_token(client, access)
    await client.activate_session(
        username=access.user or None, password=access.password or None, certificate=client.user_certificate
    )


async def _trusted(client: Client, access: Access, trust: Trust) -> bytes:
    """Return the certificate of the server's fitting endpoint, once it is trusted. Raises DeviceError.

    The endpoints come unsecured; only the holder of the certificate's key can open the channel that follows.
    """
    endpoints = await client.connect_and_get_server_endpoints()
    wanted = (_POLICIES[access.security].URI, ua.MessageSecurityMode[access.mode])
    for endpoint in endpoints:
        if (endpoint.SecurityPolicyUri, endpoint.SecurityMode) == wanted and endpoint.ServerCertificate:
            trust.check(endpoint.ServerCertificate, uri=str(endpoint.Server.ApplicationUri), host=access.host)
            return parse(endpoint.ServerCertificate).der
    offered = sorted({f"{_short(each.SecurityPolicyUri)} {each.SecurityMode.name}" for each in endpoints})
    raise DeviceError(
        f"offers {', '.join(offered)[:200] or 'nothing'}, not {access.security} {access.mode}: set opcua.security and "
        "opcua.mode to one that it offers, or enable this one at the server"
    )


def _short(uri: str | None) -> str:
    return printable(str(uri).rpartition("#")[2], 40)


def _check_token(client: Client, access: Access) -> None:
    """Refuse to say a password in clear, or by a broken cipher, or to a server that nobody trusts."""
    kind = ua.UserTokenType.Certificate if access.user_cert else ua.UserTokenType.UserName
    uri = client.server_policy(kind).SecurityPolicyUri or client.security_policy.URI
    if uri in _SAFE_TOKENS:
        if access.insecure and access.user:
            raise DeviceError(
                "a password would go to a server whose certificate is not checked: set opcua.security, or no user"
            )
        return
    if uri == security_policies.SecurityPolicyNone.URI and access.mode == "SignAndEncrypt":
        return
    raise DeviceError(f"the server wants the user's secret by {_short(uri)}: enable SignAndEncrypt there, and set it")


def _said(error: BaseException, channel: Channel, access: Access, timeout_s: float) -> str:
    """Return what went wrong, and the fix where one is known."""
    if isinstance(error, UaStatusCodeError):
        fix = _FIXES.get(error.code & 0xFFFF0000, "").format(own=access.own.cert if access.own else "")
        return status_text(error.code) + (f": {fix}" if fix else "")
    if channel.why:
        return channel.why
    if isinstance(error, TimeoutError):
        return f"no session in {timeout_s:g} s: compare host and port, and look for a firewall"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: compare host and port with the server's"
    if isinstance(error, OSError):
        return error.strerror or str(error) or "connection lost"
    return printable(f"{type(error).__name__}: {error}")
