"""A BACnet/IP peer of raw datagrams, for tests of what comes from devices that are wrong, and of what leaves."""

import asyncio
from collections.abc import Callable
from typing import Self

WHO_IS, READ, READ_MULTIPLE = 8, 12, 14


def i_am(instance: int, *, source: bytes = b"") -> bytes:
    """Return the datagram of an I-Am. source: SNET, SLEN and SADR, of a device behind a router."""
    apdu = b"\x10\x00\xc4" + (0x0200_0000 | instance).to_bytes(4, "big") + b"\x22\x01\xe0\x91\x03\x21\x0f"
    npdu = b"\x01\x08" + source if source else b"\x01\x00"
    return datagram(npdu + apdu)


def datagram(npdu: bytes) -> bytes:
    """Return an Original-Unicast-NPDU."""
    return b"\x81\x0a" + (4 + len(npdu)).to_bytes(2, "big") + npdu


def apdu_of(received: bytes) -> tuple[int | None, bytes]:
    """Return (DNET, APDU) of what a client sent."""
    at, network = 6, None
    if received[1] not in {0x0A, 0x0B}:
        return None, received  # of the link layer alone
    if received[5] & 0x20:
        network = int.from_bytes(received[6:8], "big")
        at += 3 + received[8] + 1
    return network, received[at:]


def service_of(apdu: bytes) -> int:
    """Return the service of a request; -1 of what is none."""
    return apdu[1] if apdu[0] >> 4 == 1 else apdu[3] if apdu[0] >> 4 == 0 else -1


class Peer(asyncio.DatagramProtocol):
    """A UDP peer; an async context manager. answer: what to send for each APDU that comes, by (DNET, APDU)."""

    def __init__(self, answer: Callable[[int | None, bytes], list[bytes]]) -> None:
        self._answer = answer
        self.received: list[tuple[int | None, bytes]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.transport = transport
        self.port = int(transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        network, apdu = apdu_of(data)
        self.received.append((network, apdu))
        for reply in self._answer(network, apdu):
            self.transport.sendto(reply, addr)

    def services(self) -> set[int]:
        """Return the services that were asked for."""
        return {service_of(apdu) for _, apdu in self.received}
