"""One device's session: opened when it is needed, dropped when it is lost, with namespaces resolved each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from gateway.drivers.opcua_binary import MALFORMED, Cut
from gateway.drivers.opcua_connect import Access, Opened, connect
from gateway.drivers.opcua_replies import (
    MOST_CHANGES,
    Notice,
    ServiceFaultError,
    Subscribed,
    created_items,
    published,
    read_results,
    subscribed,
)
from gateway.drivers.opcua_values import Node, printable, status_text
from gateway.errors import DeviceError

CHUNK: Final = 500
"""Nodes in one request, at most; servers may want fewer."""
_NAMESPACES, _MOST_READ, _MOST_ITEMS, _STATE = 2255, 11705, 11714, 2259  # Part 6, A: Server_NamespaceArray, ...
_VALUE: Final = ua.UInt32(AttributeIds.Value)
_TOO_MANY: Final = {0x80100000, 0x80080000, 0x80B80000, 0x80B90000}  # operations, and three kinds of too large
UNSUPPORTED: Final = {0x800B0000, 0x803D0000, 0x80400000}
_RENEW: Final = 0.75
_MOST_SILENCES: Final = 3
_PATIENCE_S: Final = 10.0
"""While a notification has come within so long, a reply that does not is no lost connection."""


class LostError(DeviceError):
    """Raised when a session is of no use any more: a new one may be."""


class RefusedError(DeviceError):
    """Raised when the server refuses a whole request. code: its status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Session:
    """An open session. places: for each node its identifier in this session, None where its namespace is missing."""

    def __init__(self, opened: Opened, nodes: Sequence[Node], timeout_s: float) -> None:
        self._client, self.wire = opened.client, opened.wire
        self._nodes, self._timeout_s = nodes, timeout_s
        self._loop = asyncio.get_running_loop()
        self._renew_at = self._loop.time() + _RENEW * opened.client.secure_channel_timeout / 1000
        self._most_read = self._most_items = CHUNK
        self._silences = 0
        self._noticed_at = -_PATIENCE_S
        self.places: list[ua.NodeId | None] = []

    async def begin(self) -> None:
        """Read the namespaces and the server's limits. Raises DeviceError."""
        names, read, items = await self._read([_server(_NAMESPACES), _server(_MOST_READ), _server(_MOST_ITEMS)])
        self._most_read, self._most_items = _limit(read), _limit(items)
        self._resolve(names)

    async def resolve(self) -> None:
        """Look again for namespaces that were missing. Raises DeviceError."""
        if None in self.places:
            self._resolve((await self._read([_server(_NAMESPACES)]))[0])

    def _resolve(self, names: Cut) -> None:
        if not isinstance(names.value, tuple):
            raise LostError(f"the server does not tell its namespaces: {status_text(names.code)}")
        index = {uri: place for place, uri in reversed([*enumerate(names.value)])}
        self.places = [
            node.node_id(0)
            if node.uri is None
            else node.node_id(index[node.uri])
            if index.get(node.uri, 0x10000) < 0x10000
            else None
            for node in self._nodes
        ]

    async def read(self, wanted: Sequence[int]) -> list[tuple[Cut, bytes]]:
        """Return the values of these nodes, each with its bytes. Their places must be known. Raises DeviceError."""
        found: list[tuple[Cut, bytes]] = []
        while len(found) < len(wanted):
            part = wanted[len(found) : len(found) + self._most_read]
            ids = [place for i in part if (place := self.places[i]) is not None]
            try:
                reply = await self._ask(_read_request(ids))
                cuts = self._parsed(read_results, reply, len(part))
            except RefusedError as e:
                if e.code & 0xFFFF0000 not in _TOO_MANY or self._most_read == 1:
                    raise
                self._most_read = max(1, min(len(part), self._most_read) // 2)
                continue
            found += [(cut, reply[cut.start : cut.end]) for cut in cuts]
        return found

    async def _read(self, ids: Sequence[ua.NodeId]) -> list[Cut]:
        cuts: list[Cut] = self._parsed(read_results, await self._ask(_read_request(ids)), len(ids))
        return cuts

    async def probe(self) -> None:
        """Ask the server for a sign of life. Raises DeviceError."""
        await self._read([_server(_STATE)])

    async def subscribe(self, *, interval_s: float, keep_alive: int) -> Subscribed:
        """Create a subscription; it outlives three keep-alives that nobody takes. Raises DeviceError."""
        request = ua.CreateSubscriptionRequest()
        parameters = request.Parameters
        parameters.RequestedPublishingInterval = ua.Double(interval_s * 1000)
        parameters.RequestedMaxKeepAliveCount = ua.UInt32(keep_alive)
        parameters.RequestedLifetimeCount = ua.UInt32(10 * keep_alive)
        parameters.MaxNotificationsPerPublish = ua.UInt32(MOST_CHANGES)
        found: Subscribed = self._parsed(subscribed, await self._ask(request))
        return found

    async def create_items(self, subscription: int, items: Sequence[Any]) -> list[int]:
        """Create monitored items, in as many requests as the server wants; return their status codes."""
        codes: list[int] = []
        while len(codes) < len(items):
            part = items[len(codes) : len(codes) + self._most_items]
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = ua.UInt32(subscription)
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ItemsToCreate = list(part)
            try:
                codes += self._parsed(created_items, await self._ask(request), len(part))
            except RefusedError as e:
                if e.code & 0xFFFF0000 not in _TOO_MANY or self._most_items == 1:
                    raise
                self._most_items = max(1, min(len(part), self._most_items) // 2)
        return codes

    def publish(self, acknowledged: Sequence[tuple[int, int]]) -> asyncio.Future[Any]:
        """Ask for the next notification; `notice` reads the future's result. Raises LostError."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(ua.UInt32(subscription), ua.UInt32(sequence))
            for subscription, sequence in acknowledged
        ]
        try:
            return self.wire.ask(request)
        except OSError as e:
            raise self._lost(e) from e

    def notice(self, reply: asyncio.Future[Any]) -> Notice:
        """Return what a publish response says. Raises DeviceError."""
        try:
            found: Notice = self._parsed(published, bytes(reply.result()))
        except (OSError, UaError, asyncio.CancelledError) as e:
            raise self._lost(e) from e
        self._noticed_at = self._loop.time()
        return found

    def unsubscribe(self, subscription: int) -> None:
        """Say that a subscription is not wanted any more; whether that arrives does not matter."""
        request = ua.DeleteSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [ua.UInt32(subscription)]
        with contextlib.suppress(OSError):
            self.wire.ask(request).cancel()

    async def renew(self) -> None:
        """Renew the channel's keys when it is time. Raises LostError."""
        if self._loop.time() < self._renew_at:
            return
        self._renew_at = self._loop.time() + _PATIENCE_S  # once, though polls and notifications both ask for it
        try:
            await self._client.open_secure_channel(renew=True)
            self._client.uaclient.revolve_security_token()
        except (OSError, UaError, AssertionError) as e:
            raise self._lost(e) from e
        self._renew_at = self._loop.time() + _RENEW * self._client.secure_channel_timeout / 1000

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as anyone knows."""
        return not self.wire.why and self.wire.transport is not None and not self.wire.transport.is_closing()

    async def _ask(self, request: Any) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = bytes(await self.wire.ask(request))
        except TimeoutError as e:
            self._silences += 1
            why = f"no reply in {self._timeout_s:g} s"
            if self._silences >= _MOST_SILENCES or self._loop.time() - self._noticed_at > _PATIENCE_S:
                raise LostError(why) from e
            raise DeviceError(why) from e
        except (OSError, UaError) as e:
            raise self._lost(e) from e
        self._silences = 0
        return reply

    def _parsed(self, parse: Callable[..., Any], reply: bytes, *more: int) -> Any:
        try:
            return parse(reply, *more)
        except ServiceFaultError as e:
            text = status_text(e.code)
            if e.code & 0xFFFF0000 in _GONE:
                raise LostError(f"session lost: {text}") from e
            raise RefusedError(f"refused: {text}", e.code) from e
        except MALFORMED as e:
            raise LostError(f"malformed reply: {e}") from e

    def _lost(self, error: BaseException) -> LostError:
        if self.wire.why:
            return LostError(self.wire.why)
        if isinstance(error, UaStatusCodeError):
            return LostError(f"session lost: {status_text(error.code)}")
        return LostError(printable(str(error)) or "connection lost")

    async def close(self) -> None:
        """Close the session politely, the connection in any case."""
        try:
            if self.alive:
                request = ua.CloseSessionRequest()
                request.DeleteSubscriptions = True
                async with asyncio.timeout(min(self._timeout_s, 1.0)):
                    await self.wire.ask(request)
                await self.wire.close_secure_channel()
        except (OSError, UaError):
            pass  # whatever is wrong with it, it ends here
        finally:
            self.drop()

    def drop(self) -> None:
        """End the connection at once."""
        self.wire.why = self.wire.why or "connection closed"
        self.wire.disconnect_socket()


# Of the session: id invalid, closed, not activated; of the channel: id invalid, closed, token unknown.
_GONE: Final = {0x80250000, 0x80260000, 0x80270000, 0x80220000, 0x80860000, 0x80870000}


class Link:
    """One device's connection. connects: sessions opened so far. Uses of it may overlap."""

    def __init__(self, access: Access, nodes: Sequence[Node]) -> None:
        self._access, self._nodes = access, nodes
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self.connects = 0

    async def session(self) -> Session:
        """Return the session, a new one where there is none that is alive. Raises DeviceError."""
        async with self._opening:
            if self._session is not None and self._session.alive:
                await self._session.renew()
                return self._session
            opened = await connect(self._access)
            session = Session(opened, self._nodes, self._access.timeout_s)
            try:
                await session.begin()
            except BaseException:
                session.drop()
                raise
            self.connects += 1
            self._session = session
            return session

    async def close(self) -> None:
        """Close the session, if there is one."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


def _server(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number), ua.Int16(0))


def _limit(cut: Cut) -> int:
    """Return how many nodes a request may hold; 0 says that there is no limit."""
    value = cut.value if isinstance(cut.value, int) and not cut.code & 0x80000000 else 0
    return min(value, CHUNK) if value > 0 else CHUNK


def _read_request(ids: Sequence[ua.NodeId]) -> ua.ReadRequest:
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=place, AttributeId=_VALUE) for place in ids]
    return request
