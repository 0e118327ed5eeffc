"""A BACnet/IP client that only asks: its place in the network, what it may send, and what answers hold."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bacpypes3.apdu import (
    APDU,
    ErrorRejectAbortNack,
    IAmRequest,
    ReadPropertyMultipleRequest,
    ReadPropertyRequest,
    WhoIsRequest,
)
from bacpypes3.app import Application
from bacpypes3.appservice import ApplicationServiceAccessPoint
from bacpypes3.comm import bind
from bacpypes3.errors import RejectException
from bacpypes3.ipv4.link import ForeignLinkLayer, NormalLinkLayer
from bacpypes3.local.device import DeviceObject
from bacpypes3.netservice import NetworkServiceAccessPoint, NetworkServiceElement
from bacpypes3.pdu import Address, GlobalBroadcast, IPv4Address
from bacpypes3.primitivedata import (
    Boolean,
    CharacterString,
    Double,
    Enumerated,
    Integer,
    ObjectIdentifier,
    Real,
    TagClass,
    TagList,
    Unsigned,
)

from gateway.config.sections import BacnetSection
from gateway.errors import ConfigError, DeviceError
from gateway.model import Value

PORT: Final = 47808
MOST_FOUND: Final = 10_000
"""Answers that are kept, however many come."""
SENT: Final = (WhoIsRequest, ReadPropertyRequest, ReadPropertyMultipleRequest)
"""All that ever leaves."""

_PRIMITIVES: Final[Mapping[int, tuple[type, type]]] = {
    1: (Boolean, bool),
    2: (Unsigned, int),
    3: (Integer, int),
    4: (Real, float),
    5: (Double, float),
    7: (CharacterString, str),
    9: (Enumerated, int),
    12: (ObjectIdentifier, str),
}
"""By tag number (ASHRAE 135, 20.2.1.4): how it is decoded, and what it is to us."""
_DEVICE: Final = 8  # the object type of a Device object
_ASKED: Final = re.compile(
    r"[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]{1,5})?|\*|[0-9]{1,5}:(\*|[0-9]{1,3}|0x([0-9a-fA-F]{2})+)"
)


class NackError(DeviceError):
    """Raised when a device refused a request, or did not answer; silent tells which."""

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class Client(Application):  # type: ignore[misc]  # the library has no types
    """The stack of a client that hears I-Am and answers to its own requests, and answers nobody.

    found: each I-Am by (instance, address), the newest.
    """

    def __init__(self, device: DeviceObject, link: NormalLinkLayer | ForeignLinkLayer, local: IPv4Address) -> None:
        super().__init__()
        self.found: dict[tuple[int, str], IAmRequest] = {}
        self.asap = ApplicationServiceAccessPoint(device, self.device_info_cache)
        self.nsap, self.nse = NetworkServiceAccessPoint(), NetworkServiceElement()
        bind(self.nse, self.nsap)
        bind(self, self.asap, self.nsap)
        self.nsap.bind(link, address=local)
        self.add_object(device)

    def request(self, apdu: APDU) -> Any:
        """Send what SENT allows; the rest would be a bug."""
        if not isinstance(apdu, SENT):
            raise TypeError(f"a scan never sends {type(apdu).__name__}")
        return super().request(apdu)

    async def indication(self, apdu: APDU) -> None:
        """Keep an I-Am; what others ask of us is not answered."""
        if not isinstance(apdu, IAmRequest):
            return
        said = (apdu.iAmDeviceIdentifier, apdu.maxAPDULengthAccepted, apdu.segmentationSupported, apdu.vendorID)
        if None in said or apdu.pduSource is None or int(apdu.iAmDeviceIdentifier[0]) != _DEVICE:
            return
        key = (int(apdu.iAmDeviceIdentifier[1]), str(apdu.pduSource))
        if key in self.found or len(self.found) < MOST_FOUND:
            self.found[key] = apdu
            await self.device_info_cache.set_device_info(apdu)  # how long a request it takes

    async def ask(self, request: APDU, wanted: type, most_s: float) -> Any:
        """Return the answer to a request. Raises NackError."""
        try:
            # The library gives up by itself, unless a device keeps it busy with segments.
            async with asyncio.timeout(most_s):
                answer = await self.request(request)
        except ErrorRejectAbortNack as e:
            raise NackError(str(e), silent=str(e) == "no-response") from None
        except TimeoutError:
            raise NackError("no-response", silent=True) from None
        if not isinstance(answer, wanted):
            raise NackError(f"got {type(answer).__name__}, want {wanted.__name__}", silent=False)
        return answer


def local_of(section: BacnetSection) -> tuple[IPv4Address, int]:
    """Return a free place of ours, whose broadcast is the network's, and the network's port. Raises ConfigError.

    It hears the network's broadcasts beside whoever else does: most devices answer Who-Is by one.
    """
    where, _, port_text = section.address.partition(":")
    port = int(port_text or PORT)
    try:
        place = ipaddress.IPv4Interface(where)
    except ValueError as e:
        raise ConfigError(f"bacnet.address: got {section.address!r}, want e.g. 192.0.2.5/24: {e}") from None
    if not 0 < port < 65_536:
        raise ConfigError(f"bacnet.address: got port {port}, want 1..65535")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(place.ip), 0))
        except OSError as e:
            raise ConfigError(
                f"bacnet.address: got {place.ip}, want an address of this machine: {e.strerror}"
            ) from None
        local = IPv4Address(f"{place}:{probe.getsockname()[1]}")
    local.addrBroadcastTuple = local.addrTuple
    if section.bbmd is None and place.network.prefixlen < 31:
        local.addrBroadcastTuple = (str(place.network.broadcast_address), port)
        _check_listens(local.addrBroadcastTuple)
    return local, port


def _check_listens(place: tuple[str, int]) -> None:
    """Check that the network's broadcasts can be heard; the library would try for ever. Raises ConfigError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            probe.bind(place)
        except OSError as e:
            raise ConfigError(
                f"bacnet.address: broadcasts to {place[0]}:{place[1]} cannot be heard: {e.strerror}: want a network of "
                "this machine, and no program of another user at that port"
            ) from None


async def bbmd_of(text: str) -> IPv4Address:
    """Return the address of a BBMD's host:port. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), family=socket.AF_INET)
    except OSError as e:
        raise ConfigError(f"bacnet.bbmd: got {text!r}, want a host that is known: {e.strerror}") from None
    return IPv4Address(f"{found[0][4][0]}:{port}")


def address_of(text: str, port: int) -> Address:
    """Return what a person writes: `host`, `host:port`, `network:MAC`, `network:*`, or `*` for all networks.

    port: of a host without one. Raises ConfigError.
    """
    wanted = "want an address such as 192.0.2.9, 192.0.2.9:47808, 5:0x0a or 5:*"
    if not _ASKED.fullmatch(text):
        raise ConfigError(f"got {text!r}, {wanted}")
    if text == "*":
        return GlobalBroadcast()
    host, _, own_port = text.partition(":")
    if "." in host and int(own_port or port) not in range(1, 65_536):
        raise ConfigError(f"got {text!r}, {wanted}: a port is 1..65535")
    try:
        return Address(f"{text}:{port}" if "." in host and not own_port else text)
    except (ValueError, RuntimeError) as e:
        raise ConfigError(f"got {text!r}, {wanted}: {e}") from None


def values_of(content: Any) -> list[Value]:
    """Return the primitives that an answer's value holds, in order; what is none of _PRIMITIVES is left out.

    An object identifier is text such as `analog-input,3`. Raises NackError where the bytes are wrong.
    """
    return list(_primitives(content.tagList or ()))


def _primitives(tags: Iterable[Any]) -> Iterable[Value]:
    for tag in tags:
        if tag.tag_class != TagClass.application or int(tag.tag_number) not in _PRIMITIVES:
            continue
        decode, plain = _PRIMITIVES[int(tag.tag_number)]
        try:
            yield plain(decode.decode(TagList([tag])))  # type: ignore[attr-defined]
        except (RejectException, struct.error, ValueError, TypeError, ArithmeticError, LookupError) as e:
            raise NackError(f"malformed value: {e}", silent=False) from None
