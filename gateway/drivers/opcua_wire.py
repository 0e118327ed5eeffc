"""asyncua's transport, made fit for hostile servers and unable to write.

What leaves is one of `ALLOWED`, whatever calls us. What comes is cut into chunks that have a bound before asyncua sees
them: it would gather up to 4 GB, at a cost that grows with the square. The methods overridden here are asyncua 2.1's.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.common.connection import TransportLimits
from asyncua.crypto.security_policies import SecurityPolicy
from asyncua.ua.ua_binary import uatcp_to_binary
from asyncua.ua.uaerrors import UaError

from gateway.drivers.opcua_binary import MALFORMED
from gateway.drivers.opcua_replies import check_head
from gateway.drivers.opcua_values import printable, status_text

ALLOWED: Final = frozenset(
    {
        ua.OpenSecureChannelRequest,
        ua.CloseSecureChannelRequest,
        ua.GetEndpointsRequest,
        ua.CreateSessionRequest,
        ua.ActivateSessionRequest,
        ua.CloseSessionRequest,
        ua.ReadRequest,
        ua.BrowseRequest,
        ua.BrowseNextRequest,
        ua.CreateSubscriptionRequest,
        ua.DeleteSubscriptionsRequest,
        ua.CreateMonitoredItemsRequest,
        ua.PublishRequest,
    }
)
"""All that ever leaves: none of them can change a thing in a device."""

MOST_CHUNK: Final = 1 << 20
MOST_MESSAGE: Final = 4 << 20
MOST_HANDSHAKE: Final = 1 << 18
"""Of a message before the session is open: asyncua decodes it, at up to 5 us a byte."""
_MOST_CHUNKS: Final = 512
_MOST_ASKED: Final = 200
"""Requests without a reply, at most: a server that leaves so many out is left."""
_HEAD: Final = struct.Struct("<4sI")
_LEAST: Final = {b"MSGF": 12, b"MSGC": 12, b"MSGA": 12, b"OPNF": 12, b"CLOF": 12, b"ACKF": 8, b"ERRF": 8}


class _Limits(TransportLimits):
    """Limits of ours: what a server says only bounds what we send it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Limits:
        """Return the very same: `Wire` makes one for each connection, and changes it."""
        return self

    def update_client_limits(self, msg: ua.Acknowledge) -> None:
        if msg.ReceiveBufferSize < 8192:  # Part 6, 7.1.2.4
            raise UaError(f"a receive buffer of {msg.ReceiveBufferSize} bytes")
        self.max_send_buffer = min(msg.ReceiveBufferSize, MOST_CHUNK)


class Wire(UASocketProtocol):
    """One connection. why: what the server did to lose it, "" while that is nothing."""

    def __init__(self, timeout_s: float, policy: SecurityPolicy) -> None:
        self._limits = _Limits(MOST_CHUNK, MOST_CHUNK, _MOST_CHUNKS, MOST_HANDSHAKE)
        super().__init__(timeout_s, policy, self._limits)
        self.why = ""
        self._rest = bytearray()

    def opened(self) -> None:
        """Take long messages from now on: the session is open, and we decode them ourselves."""
        self._limits.max_message_size = MOST_MESSAGE

    def ask(self, request: Any) -> asyncio.Future[Any]:
        """Send a request; the future gives the reply's body. Raises ConnectionError."""
        return self._send_request(request, 0)

    async def send_hello(self, url: str, max_messagesize: int = 0, max_chunkcount: int = 0) -> ua.Acknowledge:
        """Say what we take; asyncua would take anything."""
        hello = ua.Hello(
            ReceiveBufferSize=ua.UInt32(MOST_CHUNK),
            SendBufferSize=ua.UInt32(MOST_CHUNK),
            MaxMessageSize=ua.UInt32(max_messagesize or MOST_MESSAGE),
            MaxChunkCount=ua.UInt32(max_chunkcount or _MOST_CHUNKS),
            EndpointUrl=ua.String(url),
        )
        if self.transport is None:
            raise ConnectionError("connection lost")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._callbackmap[0] = reply
        self.transport.write(uatcp_to_binary(ua.MessageType.Hello, hello))  # type: ignore[arg-type]
        async with asyncio.timeout(self.timeout):
            found: ua.Acknowledge = await reply
        return found

    def _send_request(
        self, request: Any, timeout: float = 1, message_type: Any = ua.MessageType.SecureMessage
    ) -> asyncio.Future[Any]:
        if type(request) not in ALLOWED:
            raise RuntimeError(f"{type(request).__name__} is none of the requests that may leave")
        if len(self._callbackmap) >= _MOST_ASKED:
            self._refuse(f"left {_MOST_ASKED} requests without a reply")
            raise ConnectionError(self.why)
        return super()._send_request(request, timeout, message_type)

    def data_received(self, data: bytes) -> None:
        """Cut what came into chunks; called by the loop."""
        rest = self._rest
        rest += data
        at = 0
        while len(rest) - at >= _HEAD.size and not self.why:
            kind, size = _HEAD.unpack_from(rest, at)
            least = _LEAST.get(kind)
            if least is None:
                self._refuse(f"sent {bytes(rest[at : at + 8]).hex(' ')}, which is no OPC UA")
            elif not least <= size <= MOST_CHUNK:
                self._refuse(f"announced a chunk of {size} bytes, want {least}..{MOST_CHUNK}")
            elif len(rest) - at < size:
                break
            else:
                self._process_received_data(bytes(rest[at : at + size]))
                at += size
                if self.transport is None or self.transport.is_closing():
                    self.why = self.why or "sent a message that is malformed, or not secured as agreed"
        if self.why:
            rest.clear()
        else:
            del rest[:at]

    def _process_received_message(self, msg: ua.Message | ua.Acknowledge | ua.ErrorMessage | None) -> None:
        if isinstance(msg, ua.ErrorMessage):
            reason = printable(str(msg.Reason or ""), 100)
            self.why = f"refused us: {status_text(msg.Error.value)} {reason}".rstrip()
        elif isinstance(msg, ua.Message):
            try:
                check_head(bytes(msg.body()))  # type: ignore[no-untyped-call]
            except MALFORMED as e:
                self._refuse(f"sent a malformed reply: {e}")
                return
        super()._process_received_message(msg)

    def _refuse(self, why: str) -> None:
        self.why = self.why or why
        self.disconnect_socket()

    def disconnect_socket(self) -> None:
        """End the connection at once: a peer that takes nothing must not keep it."""
        if self.transport is not None:
            self.transport.abort()


class Channel(UaClient):
    """asyncua's client on a `Wire`. why: see there; also of a connection that is gone."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._timeout_s = timeout_s
        self.wire: Wire | None = None

    @property
    def why(self) -> str:
        """What the server did to lose the latest connection."""
        return self.wire.why if self.wire is not None else ""

    def _make_protocol(self) -> UASocketProtocol:
        self.protocol = self.wire = Wire(self._timeout_s, self.security_policy)
        self.protocol.on_connection_lost = self._on_transport_lost
        return self.protocol
