"""The one home of MQTT: a link to the broker, over TLS 1.3 with certificates on both sides.

A link is one connection and ends with it: whoever wants another makes another Link. QoS 1 says that the
broker has a message, which decides nothing: only a receipt does (docs/wire.md, section 2). So sessions are
clean, nothing is retained, and a message that finds the queue full is dropped: its sender sends it again.
"""

import asyncio
import contextlib
import functools
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import aiomqtt

from gateway.errors import LinkError
from gateway.north.tls import Context, Endpoint, tls_context

KEEPALIVE_S = 5
TIMEOUT_S = 10.0  # longer than two keepalives would need: paho closes a silent socket before we give up on it
QUEUED = 1024
QUEUED_BYTES = 64 * 1024 * 1024

_TOPIC = re.compile(r"wattseal/v1/([a-z0-9][a-z0-9_-]{0,62})/([a-z]{1,20})\Z")
_REQUEST = re.compile(r"wattseal/v1/enrol/([a-z0-9][a-z0-9-]{0,62})/request\Z")
_CLOSE_S = 1.0


def log_topic(gateway: str) -> str:
    """Return the topic on which a gateway sends its log; `+` for all gateways."""
    return f"wattseal/v1/{gateway}/log"


def receipt_topic(gateway: str) -> str:
    """Return the topic on which a gateway gets its receipts."""
    return f"wattseal/v1/{gateway}/receipt"


def challenge_topic(gateway: str) -> str:
    """Return the topic on which a gateway is asked for evidence."""
    return f"wattseal/v1/{gateway}/challenge"


def evidence_topic(gateway: str) -> str:
    """Return the topic on which a gateway answers its verifier; `+` for all gateways."""
    return f"wattseal/v1/{gateway}/evidence"


def result_topic(gateway: str) -> str:
    """Return the topic on which the verifier tells the ledger what it found."""
    return f"wattseal/v1/{gateway}/result"


def enrol_topic(gateway: str, what: str) -> str:
    """Return the topic on which a gateway asks for a certificate (`request`) or gets one (`reply`)."""
    return f"wattseal/v1/enrol/{gateway}/{what}"


def enrolling_of(topic: str) -> str | None:
    """Return which gateway asks for a certificate on this topic, None when it is none for that."""
    match = _REQUEST.match(topic)
    return match[1] if match else None


def gateway_of(topic: str, *whats: str) -> str | None:
    """Return which gateway's topic this is, None when it is none of these; `log` and `receipt` by default."""
    match = _TOPIC.match(topic)
    return match[1] if match and match[2] in (whats or ("log", "receipt")) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One message from the broker."""

    topic: str
    payload: bytes


class Link:
    """One connection to the broker: `async with Link(...) as link`, then `async for message in link`.

    client_id: the same at each connect, so that the broker ends an earlier connection of ours that hangs.
    keep_session: the broker shall keep what comes for us while we are away.
    Raises LinkError, from whichever call notices first, once the broker is lost, refuses us, or is silent.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        keepalive_s: int = KEEPALIVE_S,
        timeout_s: float = TIMEOUT_S,
        queued: int = QUEUED,
        queued_bytes: int = QUEUED_BYTES,
        keep_session: bool = False,
    ) -> None:
        self.dropped = 0
        self._where = f"broker {endpoint.host}:{endpoint.port}"
        self._endpoint = endpoint
        self._client_id = client_id
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._queued = queued
        self._queued_bytes = queued_bytes
        self._keep_session = keep_session
        self._ear = _Ear()
        self._client: aiomqtt.Client | None = None
        self._context: Context | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises LinkError, or ConfigError when a file of ours is unusable."""
        # Not in the tree of loggers: what it is told becomes the text of a LinkError.
        # Of errors alone: a record for each packet took a fifth of a busy link's CPU.
        logger = logging.Logger("mqtt", logging.ERROR)  # noqa: LOG001
        logger.addHandler(self._ear)
        self._context = tls_context(self._endpoint)
        self._client = client = aiomqtt.Client(
            self._endpoint.host,
            self._endpoint.port,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=not self._keep_session,
            keepalive=self._keepalive_s,
            timeout=self._timeout_s,
            tls_context=self._context,
            logger=logger,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", functools.partial(_Mailbox, link=self)),
            max_queued_incoming_messages=self._queued,
            max_inflight_messages=64,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.pending_calls_threshold = 1024  # a warning a message else, and only that
        client._loop = cast("asyncio.AbstractEventLoop", _OpenSockets(client))  # noqa: SLF001 (see there)
        entering = asyncio.create_task(client.__aenter__(), name="mqtt-connect")
        try:
            await self._watch(entering)
        except BaseException:
            # paho connects in a thread that nothing can interrupt, for 10 s at most. Wait, or its socket outlives us.
            entering.add_done_callback(_retrieve)
            await asyncio.wait({entering})
            self._close_socket()
            raise
        return self

    async def _watch(self, entering: asyncio.Task[aiomqtt.Client]) -> None:
        while not entering.done():
            await asyncio.wait({entering}, timeout=0.1)
            if self._ear.last and not entering.done():
                # With TLS 1.3 a broker refuses a certificate after the handshake; aiomqtt would not notice.
                entering.cancel()
                raise LinkError(f"{self._where}: {self._ear.last}")
        try:
            entering.result()
        except aiomqtt.MqttError as e:
            raise LinkError(f"{self._where}: {self._ear.last or e}") from e

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect; give up on it after a second."""
        client = self._open
        client.timeout = _CLOSE_S
        try:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
        finally:
            self._close_socket()

    def _close_socket(self) -> None:
        """Close what aiomqtt leaves open after a failed connect, or after a message that it could not read."""
        if self._client is None or self._context is None:
            return
        paho = self._client._client  # noqa: SLF001 (there is no other way to it)
        if paho.socket() is not None:
            paho.disconnect()
        elif self._context.wrapped is not None:
            self._context.wrapped.close()
        # A key in a TPM takes one of its few places as long as anything holds the context, and these hold each other.
        self._context.wrapped = self._context = paho._ssl_context = None  # noqa: SLF001

    @property
    def _open(self) -> aiomqtt.Client:
        if self._client is None:
            raise LinkError(f"{self._where}: not connected")
        return self._client

    async def publish(self, topic: str, payload: bytes) -> None:
        """Return once the broker has the message (QoS 1). Messages leave in the order of the calls.

        Raises LinkError, also when it does not say so in time.
        """
        try:
            await self._open.publish(topic, payload, qos=1)
        except aiomqtt.MqttError as e:
            raise self._lost(e) from e
        _heed()

    async def subscribe(self, topic: str) -> None:
        """Return once the broker has granted the subscription (QoS 1). Raises LinkError when it does not."""
        try:
            granted = await self._open.subscribe(topic, qos=1)
        except aiomqtt.MqttError as e:
            raise self._lost(e) from e
        if any(getattr(code, "value", code) not in {0, 1} for code in granted):
            raise LinkError(f"{self._where}: does not grant a subscription to {topic}")

    def __aiter__(self) -> AsyncIterator[Arrived]:
        """Iterate over messages as they arrive; ends by LinkError alone."""
        return self

    async def __anext__(self) -> Arrived:
        """Return the next message."""
        try:
            message = await anext(self._open.messages)
        except aiomqtt.MqttError as e:
            raise self._lost(e) from e
        payload = message.payload
        return Arrived(topic=str(message.topic), payload=payload if isinstance(payload, bytes) else b"")

    def _lost(self, e: aiomqtt.MqttError) -> LinkError:
        return LinkError(f"{self._where}: {self._ear.last or e}")


class _OpenSockets:
    """The loop, as aiomqtt sees it: it watches a socket only while that is paho's.

    aiomqtt asks by the socket's number and a turn later: by then it may be closed, and the number another's.
    """

    def __init__(self, client: aiomqtt.Client) -> None:
        self._paho = client._client  # noqa: SLF001
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, fileno: int, callback: Callable[[], None]) -> None:
        if self._is_open(fileno):
            self._loop.add_reader(fileno, callback)

    def add_writer(self, fileno: int, callback: Callable[[], None]) -> None:
        if self._is_open(fileno):
            self._loop.add_writer(fileno, callback)

    def _is_open(self, fileno: int) -> bool:
        return (sock := self._paho.socket()) is not None and sock.fileno() == fileno


def _heed() -> None:
    """Raise a cancellation that aiomqtt's wait_for swallows, before Python 3.12, if it comes with the answer."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError


def _retrieve(task: asyncio.Task[aiomqtt.Client]) -> None:
    if not task.cancelled():
        task.exception()


class _Ear(logging.Handler):
    """Keeps the last error that paho tells its log, and nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class _Mailbox(asyncio.Queue[aiomqtt.Message]):
    """The queue of arrived messages, bounded in number and in bytes."""

    def __init__(self, maxsize: int, *, link: Link) -> None:
        super().__init__(maxsize)
        self._link = link
        self._bytes = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        size = _size(item)
        if self.full() or self._bytes + size > self._link._queued_bytes:  # noqa: SLF001 (one class in two parts)
            self._link.dropped += 1
            raise asyncio.QueueFull
        self._bytes += size
        super().put_nowait(item)

    def get_nowait(self) -> aiomqtt.Message:
        item = super().get_nowait()
        self._bytes -= _size(item)
        return item


def _size(message: aiomqtt.Message) -> int:
    return len(message.payload) if isinstance(message.payload, bytes | bytearray | str) else 0
