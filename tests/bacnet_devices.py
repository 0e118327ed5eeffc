"""BACnet devices to test against: bacpypes3's own, each with its faults, and a relay that stands for a broadcast."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bacpypes3.basetypes import EngineeringUnits, StatusFlags
from bacpypes3.errors import AbortBufferOverflow, ExecutionError, UnrecognizedService
from bacpypes3.ipv4.app import BBMDApplication, NormalApplication
from bacpypes3.local.analog import AnalogInputObject
from bacpypes3.local.binary import BinaryInputObject
from bacpypes3.local.device import DeviceObject
from bacpypes3.pdu import Address, IPv4Address

from gateway.drivers.bacnet import Application, BacnetDriver, BacnetPoint, address_of, object_id_of

LOCALHOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        port: int = sock.getsockname()[1]
        return port


class Analog(AnalogInputObject):  # type: ignore[misc]
    """An analog input whose flags are what a test says, where the library derives them."""

    flags = (0, 0, 0, 0)

    @property
    def statusFlags(self) -> Any:  # noqa: N802 - the library's name
        """Return the flags."""
        return StatusFlags(list(self.flags))

    @statusFlags.setter
    def statusFlags(self, value: Any) -> None:  # noqa: N802 - the library's name
        if value is not None:
            self.__dict__["flags"] = tuple(value)


class Device(NormalApplication):  # type: ignore[misc]
    """A device of bacpypes3 that can be made worse.

    no_multiple: it does not know ReadPropertyMultiple. most: properties a request, else it refuses with `refusal`.
    no_cov: objects that take no subscription. mute: it answers nothing. asked: how often what was asked of it.
    sizes: of the requests for many properties. lifetimes: of the subscriptions.
    """

    def __init__(self, instance: int, port: int, *, max_apdu: int = 1024, segments: int = 1) -> None:
        about = DeviceObject(
            objectIdentifier=("device", instance),
            objectName=f"device {instance}",
            maxApduLengthAccepted=max_apdu,
            segmentationSupported="no-segmentation" if segments == 1 else "segmented-both",
            maxSegmentsAccepted=segments,
            vendorIdentifier=999,
        )
        super().__init__(about, IPv4Address(f"{LOCALHOST}:{port}"))
        self.instance = instance
        self.address = f"{LOCALHOST}:{port}"
        self.no_multiple = self.mute = False
        self.most = 0
        self.refusal: type[Exception] = AbortBufferOverflow
        self.no_cov: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.lifetimes: list[int] = []

    def add(self, number: int, value: float, **more: Any) -> Any:
        """Add an analog input and return it."""
        given = {
            "objectIdentifier": ("analog-input", number),
            "objectName": f"analog-input {number}",
            "presentValue": value,
            "statusFlags": StatusFlags([0, 0, 0, 0]),
            "eventState": "normal",
            "outOfService": False,
            "covIncrement": 0.1,
            "units": EngineeringUnits("kilowatt-hours"),
        }
        made = Analog(**(given | more))
        self.add_object(made)
        return made

    def add_binary(self, number: int, value: int) -> Any:
        """Add a binary input and return it."""
        made = BinaryInputObject(
            objectIdentifier=("binary-input", number),
            objectName=f"binary-input {number}",
            presentValue=value,
            statusFlags=StatusFlags([0, 0, 0, 0]),
            eventState="normal",
            outOfService=False,
        )
        self.add_object(made)
        return made

    async def indication(self, apdu: Any) -> None:
        """Count what is asked."""
        self.asked[type(apdu).__name__] += 1
        if not self.mute:
            await super().indication(apdu)

    async def do_ReadPropertyMultipleRequest(self, apdu: Any) -> None:  # noqa: N802 - the library's name
        """Answer, or refuse."""
        if self.no_multiple:
            raise UnrecognizedService
        size = sum(len(spec.listOfPropertyReferences) for spec in apdu.listOfReadAccessSpecs)
        self.sizes.append(size)
        if self.most and size > self.most:
            raise self.refusal
        await super().do_ReadPropertyMultipleRequest(apdu)

    async def do_SubscribeCOVRequest(self, apdu: Any) -> None:  # noqa: N802 - the library's name
        """Take a subscription, or refuse it."""
        if str(apdu.monitoredObjectIdentifier) in self.no_cov:
            raise ExecutionError(errorClass="services", errorCode="covSubscriptionFailed")
        self.lifetimes.append(apdu.lifetime)
        assert not apdu.issueConfirmedNotifications
        await super().do_SubscribeCOVRequest(apdu)

    def forget(self) -> None:
        """Lose all subscriptions, as a restart does."""
        for detection in list(self._cov_detections.values()):
            for cov in list(detection.cov_subscriptions):
                self.cancel_subscription(cov)

    def announce(self, port: int) -> None:
        """Say I-Am to one port of this host, as to all."""
        self.i_am(Address(f"{LOCALHOST}:{port}"))

    def send(self, datagram: bytes, port: int) -> None:
        """Send any bytes from this device's address to a port of this host."""
        self.normal.server.local_transport.sendto(datagram, (LOCALHOST, port))


@asynccontextmanager
async def device(instance: int = 7, *, port: int = 0, max_apdu: int = 1024, segments: int = 1) -> AsyncIterator[Device]:
    """Run a device."""
    made = Device(instance, port or free_port(), max_apdu=max_apdu, segments=segments)
    await asyncio.gather(*made.normal.server._transport_tasks)
    try:
        yield made
    finally:
        made.forget()
        made.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def application(**more: Any) -> AsyncIterator[tuple[Application, list[bytes]]]:
    """Run our own application, on a free port; yields what it sends too."""
    sent: list[bytes] = []
    given: dict[str, Any] = {"address": f"{LOCALHOST}/32:0", "tap": sent.append}
    app = Application(**(given | more))
    try:
        yield app, sent
    finally:
        await app._link.close()


def point(name: str, about: str, **more: Any) -> BacnetPoint:
    return BacnetPoint(name=name, object_id=object_id_of(about), **more)


@asynccontextmanager
async def driver_of(
    app: Application, points: Sequence[BacnetPoint], peer: Device | None = None, **more: Any
) -> AsyncIterator[BacnetDriver]:
    """Run a driver, of a peer at its address, or of an instance somewhere."""
    given: dict[str, Any] = {"name": "m1", "points": points, "app": app, "timeout_s": 1.0, "soonest_s": 0.1}
    if peer is not None:
        given |= {"instance": peer.instance, "address": address_of(peer.address)}
    driver = BacnetDriver(**(given | more))
    try:
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def bbmd(instance: int) -> AsyncIterator[str]:
    """Run bacpypes3's own BBMD, a device with an analog input 1 that holds 5.0; yields its address."""
    address = f"{LOCALHOST}:{free_port()}"
    about = DeviceObject(
        objectIdentifier=("device", instance),
        objectName="bbmd",
        maxApduLengthAccepted=1024,
        segmentationSupported="no-segmentation",
        vendorIdentifier=999,
    )
    made = BBMDApplication(about, IPv4Address(address))
    made.bbmd.add_peer(IPv4Address(address))
    await asyncio.gather(*made.server._transport_tasks)
    Device.add(made, 1, 5.0)
    try:
        yield address
    finally:
        made.close()
        await asyncio.sleep(0)


class Relay(asyncio.DatagramProtocol):
    """Hands on what is sent to all: as a BBMD, to the devices here, with the source that it came from.

    registered: the times to live with which somebody registered, and when. refuse: a registration is refused.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = [(host, int(port)) for host, port in (address.split(":") for address in devices)]
        self.registered: list[int] = []
        self.broadcasts = 0
        self.refuse = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.DatagramProtocol`."""
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See `asyncio.DatagramProtocol`."""
        if data[1] == 0x05:
            self.registered.append(int.from_bytes(data[4:6], "big"))
            self.transport.sendto(b"\x81\x00\x00\x06\x00" + (b"\x30" if self.refuse else b"\x00"), addr)
        elif data[1] in {0x09, 0x0B}:
            self.broadcasts += 1
            npdu = socket.inet_aton(addr[0]) + addr[1].to_bytes(2, "big") + data[4:]
            for peer in self.devices:
                self.transport.sendto(b"\x81\x04" + (len(npdu) + 4).to_bytes(2, "big") + npdu, peer)


@asynccontextmanager
async def relay(devices: Sequence[str], *, host: str = LOCALHOST, port: int = 0) -> AsyncIterator[Relay]:
    """Run a relay."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Relay(devices), local_addr=(host, port), reuse_port=True, allow_broadcast=True
    )
    try:
        yield protocol
    finally:
        transport.close()


class Router(asyncio.DatagramProtocol):
    """A router to network 5, with a device behind it at MAC 12 whose analog inputs all hold 4.5.

    heard: the APDUs that went to network 5, with the hop count before them.
    """

    def __init__(self, instance: int) -> None:
        self.instance = instance
        self.heard: list[bytes] = []
        self.sender: Any = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See `asyncio.DatagramProtocol`."""
        control, rest = data[5], data[6:]
        if control & 0x80:
            if rest[:3] == b"\x00\x00\x05":
                self._reply(b"\x01\x80\x01\x00\x05", addr)
        elif control & 0x20 and rest[:2] == b"\x00\x05":
            apdu = rest[4 + rest[2] :]
            self.heard.append(apdu)
            if apdu[:2] == b"\x10\x08":
                answer = b"\x10\x00\xc4" + (8 << 22 | self.instance).to_bytes(4, "big") + b"\x21\xce\x91\x03\x21\x01"
            else:
                answer = bytes([0x30, apdu[2], apdu[3]]) + self._values(apdu[4:])
            self._reply(b"\x01\x08\x00\x05\x01\x0c" + answer, addr)

    def _values(self, wanted: bytes) -> bytes:
        values = {
            75: b"\xc4" + (8 << 22 | self.instance).to_bytes(4, "big"),
            85: b"\x44\x40\x90\0\0",
            111: b"\x82\x04\0",
        }
        made, at = b"", 0
        while at < len(wanted):
            made += wanted[at : at + 6]
            at += 6
            while wanted[at] != 0x1F:
                number = wanted[at + 1]
                value = b"\x4e" + values[number] + b"\x4f" if number in values else b"\x5e\x91\x02\x91\x20\x5f"
                made += b"\x29" + bytes([number]) + value
                at += 2
            made += b"\x1f"
            at += 1
        return made

    def _reply(self, npdu: bytes, addr: tuple[str, int]) -> None:
        self.sender.sendto(b"\x81\x0a" + (len(npdu) + 4).to_bytes(2, "big") + npdu, addr)


@asynccontextmanager
async def router(instance: int, port: int) -> AsyncIterator[Router]:
    """Run a router that hears what is sent to all at this port."""
    made = Router(instance)
    loop = asyncio.get_running_loop()
    hears, _ = await loop.create_datagram_endpoint(
        lambda: made, local_addr=("127.255.255.255", port), reuse_port=True, allow_broadcast=True
    )
    made.sender, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=(LOCALHOST, 0))
    try:
        yield made
    finally:
        hears.close()
        made.sender.close()
