"""BACnet/IP below our application: our UDP sockets, then the link and network layers of bacpypes3.

The sockets are ours since the library's retry a failed bind for ever, share their port with whoever asks, and start a
task for each datagram. What we do not want to hear or answer is dropped before the library sees it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from bacpypes3.comm import Client, Server, bind
from bacpypes3.ipv4.bvll import BVLLCodec
from bacpypes3.ipv4.service import BIPForeign, BIPNormal, UDPMultiplexer
from bacpypes3.netservice import NetworkServiceAccessPoint, NetworkServiceElement
from bacpypes3.npdu import IAmRouterToNetwork
from bacpypes3.pdu import PDU, Address, IPv4Address, LocalBroadcast

from gateway.errors import ConfigError, DeviceError

Receive = Callable[[Any, bytes, bool], bytes]
"""Takes an APDU: whence, its bytes, whether it was sent to all; returns the APDU to answer with, empty for none."""
Tap = Callable[[bytes], None]
"""Sees each datagram that leaves."""

# BVLC-Result, Forwarded-NPDU, Original-Unicast-NPDU, Original-Broadcast-NPDU: ASHRAE 135-2020, annex J.2.
_HEARD: Final = frozenset({0x00, 0x04, 0x0A, 0x0B})
_UNICAST: Final = 0x0A
# A message of the network layer, a destination network, a source network: ASHRAE 135-2020, 6.2.2.
_NOT_PLAIN: Final = 0xA8
_MOST_WAITING: Final = 1024
_MOST_PEERS: Final = 1024
_LOOK_S: Final = 5.0


def address_of(text: str) -> Any:
    """Return the address of one device: an IP address with or without a port, or network:MAC. Raises ConfigError."""
    try:
        address = Address(text)
    except (ValueError, TypeError) as e:
        raise ConfigError(f"got {text!r}, want an IP address with or without a port, or network:MAC") from e
    if not (address.is_localstation or address.is_remotestation) or (address.is_localstation and address.addrLen != 6):
        raise ConfigError(f"got {text!r}, want the address of one device")
    return address


class _Socket(Server):  # type: ignore[misc]
    """The bottom of the library's stack, with our sockets below it."""

    def __init__(self, own: Any, tap: Tap | None, deliver: Callable[[Any, bytes], Awaitable[None]]) -> None:
        super().__init__()
        self.own = own
        self._deliver = deliver
        self._tap = tap
        self._transports: list[asyncio.DatagramTransport] = []
        self._waiting: asyncio.Queue[tuple[bytes, tuple[str, int], bool]] = asyncio.Queue(_MOST_WAITING)
        self._peers: dict[tuple[str, int], Any] = {}
        self._broadcast: tuple[str, int] | None = None

    async def open(self) -> None:
        """Bind. Raises DeviceError."""
        host, port = self.own.addrTuple
        bound = await self._endpoint((host, port), shared=False)
        self.own = IPv4Address(f"{host}/{self.own.network.prefixlen}", port=bound[1])
        if self.own.network.prefixlen < 31:
            broadcast = (str(self.own.network.broadcast_address), bound[1])
            await self._endpoint(broadcast, shared=True)
            self._broadcast = broadcast

    async def _endpoint(self, address: tuple[str, int], *, shared: bool) -> tuple[str, int]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            if shared:  # all programs of this host hear what is sent to all
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            name: tuple[str, int] = sock.getsockname()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self, to_all=shared), sock=sock)
        except OSError as e:
            sock.close()
            raise DeviceError(f"BACnet/IP: cannot use {address[0]}:{address[1]}: {e.strerror or e}") from e
        self._transports.append(transport)
        return name

    def take(self, datagram: bytes, source: tuple[str, int], *, to_all: bool) -> None:
        """Queue what came, unless it is nothing for us, or too much waits already."""
        if len(datagram) < 6 or datagram[0] != 0x81 or datagram[1] not in _HEARD:
            return
        if int.from_bytes(datagram[2:4], "big") != len(datagram) or source == self.own.addrTuple:
            return
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait((datagram, source, to_all))

    async def run(self) -> None:
        """Hand what comes to the library, one after the other."""
        while True:
            datagram, source, to_all = await self._waiting.get()
            peer = self._peers.get(source)
            if peer is None:
                if len(self._peers) >= _MOST_PEERS:
                    self._peers.clear()
                peer = self._peers[source] = IPv4Address(source)
            if datagram[1] == _UNICAST and datagram[4] == 1 and not datagram[5] & _NOT_PLAIN and not to_all:
                await self._deliver(peer, datagram[6:])  # nearly always; the library would take 70 us for it
                continue
            # No exception of the library's is worth more than the datagram it is about: it says anything, from
            # IndexError to RuntimeError, to what it cannot decode.
            with suppress(Exception):
                await self.response(PDU(datagram, source=peer, destination=LocalBroadcast() if to_all else self.own))
            await self._deliver(None, b"")

    def send_plain(self, to: Any, apdu: bytes, *, expects_reply: bool) -> None:
        """Send an APDU to a device of our own network: what the library would send, without its 40 us."""
        head = b"\x81\x0a" + (len(apdu) + 6).to_bytes(2, "big") + (b"\x01\x04" if expects_reply else b"\x01\x00")
        self._send(head + apdu, (socket.inet_ntoa(to.addrAddr[:4]), int.from_bytes(to.addrAddr[4:], "big")))

    async def indication(self, pdu: Any) -> None:
        """Send one datagram."""
        to = pdu.pduDestination
        if to.is_localbroadcast:
            target = self._broadcast
        else:
            target = (socket.inet_ntoa(to.addrAddr[:4]), int.from_bytes(to.addrAddr[4:], "big"))
        if target is None:
            raise DeviceError("BACnet/IP: our own network has no broadcast: name the device's address, or a BBMD")
        self._send(bytes(pdu.pduData), target)

    def _send(self, datagram: bytes, target: tuple[str, int]) -> None:
        if self._tap is not None:
            self._tap(datagram)
        if self._transports:
            self._transports[0].sendto(datagram, target)

    def close(self) -> None:
        """Close the sockets."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: _Socket, *, to_all: bool) -> None:
        self._owner = owner
        self._to_all = to_all

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._owner.take(data, addr, to_all=self._to_all)


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
        self._socket: _Socket | None = None
        self._foreign: _Foreign | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Bind and start. Raises DeviceError where the address cannot be bound."""
        # The library logs each datagram that it cannot decode, with a traceback: a peer could fill our journal.
        logging.getLogger("bacpypes3").setLevel(logging.CRITICAL)
        logging.getLogger("bacpypes3").addHandler(logging.NullHandler())
        self._top = _Top(self._receive)
        below = _Socket(self._own, self._tap, self._top.deliver)
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
