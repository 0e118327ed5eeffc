"""Our one BACnet application, shared by all devices: it asks, listens, and answers next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bacpypes3.apdu import AbortReason, RejectReason
from bacpypes3.basetypes import ErrorCode
from bacpypes3.pdu import GlobalBroadcast

from gateway.codec import bacnet_apdu as apdu
from gateway.codec.bacnet_requests import abort, i_am, reject, segment_ack, who_is
from gateway.drivers.bacnet_link import Link, address_of
from gateway.drivers.bacnet_socket import Tap
from gateway.drivers.bacnet_values import named
from gateway.errors import DeviceError

__all__ = ["Application", "Listener", "NoAnswerError", "RefusedError", "address_of"]

MOST_AT_ONCE: Final = 64
"""Requests under way in all."""
MOST_BEHIND_ROUTER: Final = 4
"""Requests under way to one network behind a router: most of those are slow buses."""
_WINDOW: Final = 8
_MOST_ANSWERS: Final = 20
"""What we answer to strangers in a second, so that nobody can make us flood another."""
_UNRECOGNIZED_SERVICE: Final = 9
_BUFFER_OVERFLOW: Final = 1
_NO_SEGMENTATION: Final = 3

Key = tuple[int | None, bytes]
"""A network (None for our own) and a MAC address in it."""


class NoAnswerError(DeviceError):
    """Raised when a device did not answer in time."""


class RefusedError(DeviceError):
    """Raised when a device refused a request. kind: ERROR, REJECT or ABORT; code: its reason."""

    def __init__(self, kind: int, code: int) -> None:
        names, what = {
            apdu.ERROR: (ErrorCode, "error"),
            apdu.REJECT: (RejectReason, "reject"),
            apdu.ABORT: (AbortReason, "abort"),
        }[kind]
        super().__init__(f"{what} {named(names, code)}")
        self.kind = kind
        self.code = code


class Listener(Protocol):
    """A device that hears what was not asked for. instance: whom it is about."""

    instance: int

    def on_i_am(self, source: Any, said: apdu.IAm) -> None:
        """Take an I-Am of this instance."""

    def on_stranger(self) -> None:
        """Take that another instance speaks from where this one is thought to be."""

    def on_change(self, source: Any, told: apdu.Notification) -> None:
        """Take a COV notification of this instance."""


def key_of(address: Any) -> Key:
    """Return what tells one device from another."""
    return address.addrNet, address.addrAddr


@dataclass(slots=True)
class _Transaction:
    """One request under way. parts: the segments of its answer so far."""

    service: int
    answer: asyncio.Future[apdu.Head]
    parts: list[bytes] = field(default_factory=list)
    window: int = 1


class Application:
    """See `Link` for the parameters.

    instance: ours, which we tell to whoever asks. All other requests are rejected: we have no objects.
    """

    def __init__(
        self, *, address: str, instance: int = 4_194_000, bbmd: str = "", ttl_s: int = 300, tap: Tap | None = None
    ) -> None:
        self._link = Link(address, receive=self._receive, bbmd=bbmd, ttl_s=ttl_s, tap=tap)
        self._own = apdu.IAm(instance, apdu.MOST_APDU, _NO_SEGMENTATION, 0)
        self._listeners: dict[int, list[Listener]] = {}
        self._places: dict[Key, list[Listener]] = {}
        self._under_way: dict[tuple[Key, int], _Transaction] = {}
        self._next_invoke = 0
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._routed: dict[int, asyncio.Semaphore] = {}
        self._opening = asyncio.Lock()
        self._joined = 0
        self._answers = 0
        self._answers_since = 0.0

    async def open(self) -> None:
        """Open the socket, if it is not open. Raises DeviceError."""
        async with self._opening:
            if not self._link.is_open:
                await self._link.open()

    @property
    def port(self) -> int:
        """The UDP port that is bound."""
        return self._link.port

    def join(self, listener: Listener) -> None:
        """Hear what concerns this listener's instance."""
        self._listeners.setdefault(listener.instance, []).append(listener)
        self._joined += 1

    async def leave(self, listener: Listener) -> None:
        """Hear no more; the last one closes the socket."""
        self._listeners[listener.instance].remove(listener)
        if not self._listeners[listener.instance]:
            del self._listeners[listener.instance]
        self._joined -= 1
        if self._joined == 0:
            await self._link.close()

    def settle(self, listener: Listener, before: Any, now: Any) -> None:
        """Note where a listener's device is; None for unknown."""
        if before is not None:
            there = self._places[key_of(before)]
            there.remove(listener)
            if not there:
                del self._places[key_of(before)]
        if now is not None:
            self._places.setdefault(key_of(now), []).append(listener)

    async def who_is(self, instance: int, to: Any = None, *, timeout_s: float) -> None:
        """Ask who this instance is: one address, or everybody. Raises DeviceError where there is no way."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.send(to or GlobalBroadcast(), who_is(instance, instance), expects_reply=False)
        except TimeoutError:
            raise DeviceError(f"no way to {to or 'all'}: no router answered") from None

    async def ask(
        self, to: Any, build: Callable[[int], bytes], service: int, *, timeout_s: float, wants_body: bool = True
    ) -> bytes:
        """Return the parameters of a device's answer.

        build: the request with an invoke id; sent again at half of timeout_s, as UDP loses some.
        Raises NoAnswerError, RefusedError, and DeviceError where there is no way to the device.
        """
        async with self._slots:
            if to.addrNet is None:
                return await self._ask(to, build, service, timeout_s=timeout_s, wants_body=wants_body)
            async with self._routed.setdefault(to.addrNet, asyncio.Semaphore(MOST_BEHIND_ROUTER)):
                return await self._ask(to, build, service, timeout_s=timeout_s, wants_body=wants_body)

    async def _ask(
        self, to: Any, build: Callable[[int], bytes], service: int, *, timeout_s: float, wants_body: bool
    ) -> bytes:
        invoke = self._invoke(key_of(to))
        transaction = _Transaction(service, asyncio.get_running_loop().create_future())
        place = (key_of(to), invoke)
        self._under_way[place] = transaction
        request = build(invoke)
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.send(to, request, expects_reply=True)
                done, _ = await asyncio.wait((transaction.answer,), timeout=timeout_s / 2)
                if not done and not transaction.parts:
                    await self._link.send(to, request, expects_reply=True)
                head = await transaction.answer
        except TimeoutError:
            if to.addrNet is not None:
                await self._link.forget_way(to.addrNet)  # its router may be another by now
            raise NoAnswerError(f"no answer from {to} within {timeout_s:g} s") from None
        finally:
            del self._under_way[place]
        if head.kind == apdu.ERROR:
            try:
                raise RefusedError(apdu.ERROR, apdu.error_of(head.body).code)
            except ValueError as e:
                raise DeviceError(f"{to} sent a malformed error: {e}") from e
        if head.kind in {apdu.REJECT, apdu.ABORT}:
            raise RefusedError(head.kind, head.service)
        if wants_body != (head.kind == apdu.COMPLEX_ACK):
            raise DeviceError(f"{to} answered with the wrong kind of acknowledgement")
        return head.body

    def _invoke(self, peer: Key) -> int:
        """Return an invoke id that is free: far from the latest ones, so that a late answer finds nobody."""
        for _ in range(256):
            self._next_invoke = (self._next_invoke + 1) & 0xFF
            if (peer, self._next_invoke) not in self._under_way:
                break
        return self._next_invoke

    # What comes: none of these raises, whatever comes, and each returns what to answer, empty for nothing.

    def _receive(self, source: Any, data: bytes, to_all: bool) -> bytes:  # noqa: FBT001 - as `Receive` says
        try:
            head = apdu.head_of(data)
            if head.kind == apdu.UNCONFIRMED:
                return self._unasked(source, head)
            if head.kind == apdu.CONFIRMED:
                return b"" if to_all else self._answer(reject(head.invoke, _UNRECOGNIZED_SERVICE))
            return self._answered(source, head)
        except ValueError:
            return b""  # malformed: as if it had been lost

    def _unasked(self, source: Any, head: apdu.Head) -> bytes:
        if head.service == apdu.I_AM:
            said = apdu.i_am_of(head.body)
            for listener in self._listeners.get(said.instance, ()):
                listener.on_i_am(source, said)
            for listener in self._places.get(key_of(source), ()):
                if listener.instance != said.instance:
                    listener.on_stranger()
        elif head.service == apdu.COV_NOTIFICATION:
            told = apdu.notification(head.body)
            for listener in self._listeners.get(told.device, ()):
                listener.on_change(source, told)
        elif head.service == apdu.WHO_IS:
            low, high = apdu.who_is_of(head.body)
            if low <= self._own.instance <= high:
                return self._answer(i_am(self._own))
        return b""

    def _answered(self, source: Any, head: apdu.Head) -> bytes:
        transaction = self._under_way.get((key_of(source), head.invoke))
        if transaction is None or transaction.answer.done():
            return b""
        if head.kind in {apdu.REJECT, apdu.ABORT}:
            transaction.answer.set_result(head)
        elif head.service == transaction.service and head.kind != apdu.SEGMENT_ACK:
            if head.segment is not None:
                return _segment(head, transaction)
            transaction.answer.set_result(head)
        return b""

    def _answer(self, data: bytes) -> bytes:
        """Answer a stranger, but not too many."""
        now = asyncio.get_running_loop().time()
        if now - self._answers_since >= 1.0:
            self._answers, self._answers_since = 0, now
        self._answers += 1
        return data if self._answers <= _MOST_ANSWERS else b""


def _segment(head: apdu.Head, transaction: _Transaction) -> bytes:
    """Take a segment of a long answer, and acknowledge each full window."""
    parts = transaction.parts
    number, window, more = head.segment or (0, 1, False)
    if len(parts) >= apdu.MOST_SEGMENTS:
        transaction.answer.set_result(apdu.Head(apdu.ABORT, head.invoke, _BUFFER_OVERFLOW, b""))
        return abort(head.invoke, _BUFFER_OVERFLOW)
    if number != len(parts):
        return segment_ack(head.invoke, len(parts) - 1, transaction.window, again=True) if parts else b""
    if not parts:
        transaction.window = max(1, min(window, _WINDOW))
    parts.append(head.body)
    if not more:
        transaction.answer.set_result(head._replace(body=b"".join(parts), segment=None))
    full = not more or number % transaction.window == 0
    return segment_ack(head.invoke, number, transaction.window) if full else b""
