"""Our UDP sockets, below the link layer of bacpypes3.

The library's own retry a failed bind for ever, share their port with whoever asks, and start a task for each datagram.
What we do not want to hear or answer is dropped here, before the library sees it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from bacpypes3.comm import Server
from bacpypes3.pdu import PDU, IPv4Address, LocalBroadcast

from gateway.errors import DeviceError

Tap = Callable[[bytes], None]
"""Sees each datagram that leaves."""

# BVLC-Result, Forwarded-NPDU, Original-Unicast-NPDU, Original-Broadcast-NPDU: ASHRAE 135-2020, annex J.2.
_HEARD: Final = frozenset({0x00, 0x04, 0x0A, 0x0B})
_UNICAST: Final = 0x0A
# A message of the network layer, a destination network, a source network: ASHRAE 135-2020, 6.2.2.
_NOT_PLAIN: Final = 0xA8
_MOST_WAITING: Final = 1024
_MOST_PEERS: Final = 1024


class Bottom(Server):  # type: ignore[misc]
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
    def __init__(self, owner: Bottom, *, to_all: bool) -> None:
        self._owner = owner
        self._to_all = to_all

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._owner.take(data, addr, to_all=self._to_all)
