"""BACnet/IP below our application: our UDP sockets, then the link and network layers of bacpypes3.

The library finds routers and registers as a foreign device; a datagram without any of that goes past it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from bacpypes3.comm import Client, bind
from bacpypes3.ipv4.bvll import BVLLCodec
from bacpypes3.ipv4.service import BIPForeign, BIPNormal, UDPMultiplexer
from bacpypes3.netservice import NetworkServiceAccessPoint, NetworkServiceElement
from bacpypes3.npdu import IAmRouterToNetwork
from bacpypes3.pdu import PDU, Address

from gateway.drivers.bacnet_socket import Bottom, Tap
from gateway.errors import ConfigError, DeviceError

Receive = Callable[[Any, bytes, bool], bytes]
"""Takes an APDU: whence, its bytes, whether it was sent to all; returns the APDU to answer with, empty for none."""
_LOOK_S: Final = 5.0


_IP = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
_PORT = r":(?P<port>[0-9]{1,5})"
_MAC = rf"[0-9]{{1,3}}|0x([0-9a-fA-F]{{2}})+|{_IP}"
_ADDRESS: Final = re.compile(rf"({_IP}(/[0-9]{{1,2}})?|[0-9]{{1,5}}:({_MAC}))({_PORT})?")


def address_of(text: str) -> Any:
    """Return the address of one device: an IP address with or without a port, or network:MAC. Raises ConfigError.

    A MAC is a number below 256, 0x and hexadecimal digits, or an IP address with or without a port.
    """
    found = _ADDRESS.fullmatch(text)
    try:  # the library looks up names, and takes any number for a port
        address = Address(text) if found and int(found["port"] or 0) <= 65_535 else None
        if address is not None and (address.is_remotestation or (address.is_localstation and address.addrLen == 6)):
            return address
    except (ValueError, TypeError, struct.error, OverflowError, RuntimeError):
        address = None
    raise ConfigError(f"got {text!r}, want an IP address with or without a port, or network:MAC")


class _Routers(NetworkServiceElement):  # type: ignore[misc]
    """Learns which router leads to a network; answers nothing, and lets nobody tell us our network's number."""

    async def indication(self, adapter: Any, npdu: Any) -> None:
        if isinstance(npdu, IAmRouterToNetwork):
            await super().indication(adapter, npdu)


class _Foreign(BIPForeign):  # type: ignore[misc]
    """A foreign device that renews in time: the library waits for the end of its time to live, and gives up for ever
    when the BBMD was away for longer, or refused once.
    """

    _registration_handle: Any

    def _start_tracking_registration(self) -> None:
        super()._start_tracking_registration()
        self._registration_handle.cancel()
        loop = asyncio.get_running_loop()
        self._registration_handle = loop.call_later(self.bbmdTimeToLive / 2, self._start_registration)

    async def keep(self, bbmd: Any, ttl_s: int) -> None:
        """Stay registered for ever."""
        while True:
            if self.bbmdRegistrationStatus > 0:
                self.stop()
            if self.bbmdRegistrationStatus == -2:
                self.register(bbmd, ttl_s)
            await asyncio.sleep(min(_LOOK_S, ttl_s / 2))

    def stop(self) -> None:
        """Forget the registration; the BBMD lets it lapse."""
        self._stop_tracking_registration()
        self.bbmdRegistrationStatus = -2
        self._registration_event.clear()


class _Top(Client):  # type: ignore[misc]
    """The top of the library's stack: hands on APDUs as bytes, where the library would decode them."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._come: list[tuple[Any, bytes, bool]] = []

    async def confirmation(self, pdu: Any) -> None:
        self._come.append((pdu.pduSource, bytes(pdu.pduData), not pdu.pduDestination.is_localstation))

    async def deliver(self, source: Any, data: bytes) -> None:
        """Hand on an APDU, or what has come up: here, so that no error of ours is taken for one of the library's."""
        if source is not None:
            self._come.append((source, data, False))
        while self._come:
            come = self._come.pop()
            answer = self._receive(*come)
            if answer:
                with suppress(Exception):  # as if it had been lost
                    await self.request(PDU(answer, destination=come[0]))


class Link:
    """Our place in a BACnet/IP network.

    address: of ours, such as 192.0.2.5/24:47808. bbmd: where we register as a foreign device, as host:port, or "".
    receive: is called for each APDU, and must not raise. tap: sees each datagram that leaves, for tests.
    Raises ConfigError for an address that is none.
    """

    def __init__(
        self, address: str, *, receive: Receive, bbmd: str = "", ttl_s: int = 300, tap: Tap | None = None
    ) -> None:
        self._own = address_of(address)
        self._bbmd = address_of(bbmd) if bbmd else None
        self._ttl_s = ttl_s
        self._receive = receive
        self._tap = tap
        self._socket: Bottom | None = None
        self._foreign: _Foreign | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Bind and start. Raises DeviceError where the address cannot be bound."""
        # The library logs each datagram that it cannot decode, with a traceback: a peer could fill our journal.
        logging.getLogger("bacpypes3").setLevel(logging.CRITICAL)
        logging.getLogger("bacpypes3").addHandler(logging.NullHandler())
        self._top = _Top(self._receive)
        below = Bottom(self._own, self._tap, self._top.deliver)
        try:
            await below.open()
        except BaseException:
            below.close()
            raise
        self._socket = below
        annexes = UDPMultiplexer()
        self._foreign = _Foreign() if self._bbmd else None
        port = self._foreign or BIPNormal()
        bind(port, BVLLCodec(), annexes.annexJ)
        bind(annexes, below)
        self._network = NetworkServiceAccessPoint()
        bind(_Routers(), self._network)
        bind(self._top, self._network)
        self._network.bind(port, address=below.own)
        self._tasks = [asyncio.create_task(below.run(), name="bacnet.receive")]
        if self._foreign is not None:
            keep = self._foreign.keep(self._bbmd, self._ttl_s)
            self._tasks.append(asyncio.create_task(keep, name="bacnet.register"))

    @property
    def is_open(self) -> bool:
        """Whether it can be used. Raises what stopped it, which is a bug of ours."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        return self._socket is not None

    @property
    def port(self) -> int:
        """The UDP port that is bound."""
        assert self._socket is not None  # noqa: S101 - asked only when open
        return int(self._socket.own.addrTuple[1])

    async def send(self, to: Any, apdu: bytes, *, expects_reply: bool) -> None:
        """Send an APDU. Waits while a router is looked for. Raises DeviceError where there is no way."""
        if self._socket is not None and to.addrNet is None and to.is_localstation:
            self._socket.send_plain(to, apdu, expects_reply=expects_reply)
            return
        try:
            await self._top.request(PDU(apdu, destination=to, expectingReply=expects_reply))
        except DeviceError:
            raise
        except Exception as e:  # the library's UnknownRoute, RuntimeError, ValueError, ...; OSError of the socket
            raise DeviceError(f"no way to {to}: {type(e).__name__}") from e

    async def forget_way(self, network: int) -> None:
        """Forget the router to a network, and all else that it leads to: it is looked for when it is needed next."""
        routers = self._network.router_info_cache
        for own in list(self._network.adapters):
            way = await routers.get_path_info(own, network)
            if way is not None:
                await routers.remove_path_info(own, way[0])

    async def close(self) -> None:
        """End what runs, and close the sockets; may be called twice."""
        if self._foreign is not None:
            self._foreign.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None
