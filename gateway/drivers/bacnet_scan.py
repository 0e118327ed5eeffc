"""What stands in a BACnet/IP network: Who-Is, and what devices say of themselves and of their objects.

A scanner sends Who-Is, ReadProperty and ReadPropertyMultiple, and nothing else. It takes a UDP port of its own, so that
it can run beside the gateway, and asks at the network's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

from bacpypes3.apdu import (
    IAmRequest,
    ReadPropertyACK,
    ReadPropertyMultipleACK,
    ReadPropertyMultipleRequest,
    ReadPropertyRequest,
    WhoIsRequest,
)
from bacpypes3.basetypes import EngineeringUnits, PropertyReference, ReadAccessSpecification
from bacpypes3.constructeddata import SequenceOf
from bacpypes3.ipv4.link import ForeignLinkLayer, NormalLinkLayer
from bacpypes3.local.device import DeviceObject
from bacpypes3.pdu import Address
from bacpypes3.primitivedata import ObjectIdentifier, PropertyIdentifier

from gateway.codec.units import BACNET_UNITS
from gateway.config.sections import BacnetSection
from gateway.drivers.bacnet_scan_client import Client, NackError, address_of, bbmd_of, local_of, values_of
from gateway.errors import ConfigError, DeviceError
from gateway.model import Value

MOST_INSTANCE: Final = 4_194_303
_UNDER_WAY: Final = 2  # requests to one device: a small one loses what is more
_AT_ONCE: Final = 8  # objects in one ReadPropertyMultiple: their names, units and values fit 1,024 octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One I-Am.

    address: `host`, `host:port`, or `network:MAC` behind a router. network: 0 for the local one.
    source: the same for the library.
    """

    instance: int
    address: str
    network: int
    vendor_id: int
    max_apdu: int
    segmentation: str
    source: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One object of a device. unit: ours, else BACnet's own name. status: why there is no value."""

    object: str
    name: str
    unit: str
    value: Value | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a device says of itself. objects: as many as were asked for; total: how many it says it has.

    problem: why that is all.
    """

    name: str = ""
    vendor: str = ""
    model: str = ""
    objects: tuple[Seen, ...] = ()
    total: int = 0
    problem: str = ""


class _Refused(NamedTuple):
    """In the place of a property that the device would not give."""

    why: str


_Got = Mapping[tuple[str, str], Value | _Refused | None]


class Scanner:
    """A client of the network; an async context manager.

    section: our place in it; its port is the one that the devices have. Making one raises ConfigError where the place
    cannot be taken; entering raises DeviceError where the BBMD does not let us in. broadcasts: whether it can.
    """

    def __init__(self, section: BacnetSection, *, timeout_s: float = 2.0) -> None:
        self._section, self._timeout_s = section, timeout_s
        self._local, self.port = local_of(section)
        self.broadcasts = section.bbmd is not None or self._local.addrBroadcastTuple != self._local.addrTuple

    async def __aenter__(self) -> Self:
        device = DeviceObject(
            objectIdentifier=("device", self._section.instance),
            objectName="wattseal-scan",
            vendorIdentifier=999,
            apduTimeout=round(1000 * self._timeout_s),
            numberOfApduRetries=1,
        )
        bbmd = None if self._section.bbmd is None else await bbmd_of(self._section.bbmd)
        self._link = NormalLinkLayer(self._local) if bbmd is None else ForeignLinkLayer(self._local)
        self._client = Client(device, self._link, self._local)
        # One that is closed before it is open makes noise.
        await asyncio.gather(*self._link.server._transport_tasks)  # noqa: SLF001 - the library has no other word for it
        if bbmd is not None:
            self._link.register(bbmd, self._section.ttl_s)
            await self._registered()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._section.bbmd is not None:
            self._link.unregister()
            await asyncio.sleep(0.05)  # the library sends it from a task of its own
        self._link.close()

    async def _registered(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                while self._link.bbmdRegistrationStatus in {-2, -1}:  # noqa: ASYNC110 - the library tells nobody
                    await asyncio.sleep(0.01)
        status = int(self._link.bbmdRegistrationStatus)
        if status != 0:
            await self.__aexit__()
            said = "does not answer" if status < 0 else f"refuses us with result {status:#06x}"
            raise DeviceError(f"BBMD {self._section.bbmd} {said}; want one that accepts foreign devices")

    async def who_is(
        self, *, low: int | None = None, high: int | None = None, ask: Sequence[str] = (), seconds: float = 3.0
    ) -> list[Found]:
        """Return who answers within so many seconds, by instance; the question is put twice, since UDP loses.

        ask: whom to ask instead of the whole network, as address_of has it; raises ConfigError where that is no
        address. Two devices of one instance are both there.
        """
        targets = [address_of(text, self.port) for text in ask or ("*",)]
        if not self.broadcasts and not all(target.is_localstation for target in targets):
            raise ConfigError(
                f"bacnet.address: got {self._section.address}, which has no broadcast: want the bits of the network"
            )
        if low is not None or high is not None:
            low, high = low or 0, MOST_INSTANCE if high is None else high
        for _ in range(2):
            for target in targets:
                limits = {} if low is None else {"deviceInstanceRangeLowLimit": low}
                limits |= {} if high is None else {"deviceInstanceRangeHighLimit": high}
                await self._client.request(WhoIsRequest(destination=target, **limits))
            await asyncio.sleep(seconds / 2)
        within = range(low or 0, (MOST_INSTANCE if high is None else high) + 1)
        found = [_found(i_am) for (instance, _), i_am in self._client.found.items() if instance in within]
        return sorted(found, key=lambda one: (one.instance, one.address))

    async def about(self, found: Found, *, objects: bool = False, most: int = 500) -> About:
        """Return what a device says of itself, and of at most so many objects where asked for.

        What goes wrong is told in the problem.
        """
        about = About()
        try:
            device = f"device,{found.instance}"
            named = await self._read(found, [device], ("object-name", "vendor-name", "model-name"))
            name, vendor, model = (_text(named.get((device, f"{key}-name"))) for key in ("object", "vendor", "model"))
            about = About(name=name, vendor=vendor, model=model)
            if objects:
                total, names = await self._objects(found, most)
                about = replace(about, total=total)
                for start in range(0, len(names), _AT_ONCE):
                    seen = await self._seen(found, names[start : start + _AT_ONCE])
                    about = replace(about, objects=(*about.objects, *seen))
        except DeviceError as e:
            return replace(about, problem=str(e))
        return about

    async def _objects(self, found: Found, most: int) -> tuple[int, list[str]]:
        """Return how many objects a device has beside itself, and the identifiers of the first ones.

        Element by element, since a long list needs segments, which many a device does not have.
        """
        device = f"device,{found.instance}"
        total = await self._property(found, device, "object-list", 0)
        if not isinstance(total, int) or isinstance(total, bool):
            raise DeviceError(f"object-list: got {total!r}, want how many there are")
        names: list[str] = []
        last = min(total, most + 1)  # the device itself stands in it too
        for start in range(1, last + 1, _UNDER_WAY):
            some = range(start, min(start + _UNDER_WAY, last + 1))
            asked = (self._property(found, device, "object-list", index) for index in some)
            for one in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(one, BaseException):
                    raise one
                if isinstance(one, str) and "," in one and not one.startswith("device,"):
                    names.append(one)
        return max(total - 1, 0), names[:most]

    async def _seen(self, found: Found, names: Sequence[str]) -> list[Seen]:
        got = await self._read(found, names, ("object-name", "units", "present-value"))
        seen = []
        for name in names:
            value, number = got.get((name, "present-value")), got.get((name, "units"))
            if isinstance(value, float) and not math.isfinite(value):
                value = _Refused(f"not a number: {value}")
            seen.append(
                Seen(
                    object=name,
                    name=_text(got.get((name, "object-name"))),
                    unit=_unit(number) if isinstance(number, int) else "",
                    value=_text(value) if isinstance(value, str) else None if isinstance(value, _Refused) else value,
                    status=value.why if isinstance(value, _Refused) else "",
                )
            )
        return seen

    async def _read(self, found: Found, names: Sequence[str], properties: Sequence[str]) -> _Got:
        """Return each property of each object: by ReadPropertyMultiple, and one by one where that is refused."""
        try:
            return await self._multiple(found, names, properties)
        except NackError as e:
            if e.silent:
                raise
        read: dict[tuple[str, str], Value | _Refused | None] = {}
        for name in names:
            for key in properties:
                try:
                    read[name, key] = await self._property(found, name, key)
                except NackError as e:
                    if e.silent:
                        raise
                    read[name, key] = _Refused(str(e))
        return read

    async def _multiple(self, found: Found, names: Sequence[str], properties: Sequence[str]) -> _Got:
        keys = [PropertyReference(propertyIdentifier=PropertyIdentifier(key)) for key in properties]
        specs = [
            ReadAccessSpecification(objectIdentifier=ObjectIdentifier(name), listOfPropertyReferences=keys)
            for name in names
        ]
        request = ReadPropertyMultipleRequest(
            listOfReadAccessSpecs=SequenceOf(ReadAccessSpecification)(specs), destination=found.source
        )
        answer = await self._client.ask(request, ReadPropertyMultipleACK, 4 * self._timeout_s)
        read: dict[tuple[str, str], Value | _Refused | None] = {}
        for result in answer.listOfReadAccessResults:
            for element in result.listOfResults:
                key = (str(result.objectIdentifier), str(element.propertyIdentifier))
                try:
                    error, content = element.readResult.propertyAccessError, element.readResult.propertyValue
                    read[key] = _Refused(str(error.errorCode)) if error else _first(values_of(content))
                except NackError as e:
                    read[key] = _Refused(str(e))
        return read

    async def _property(self, found: Found, name: str, key: str, index: int | None = None) -> Value | None:
        request = ReadPropertyRequest(
            objectIdentifier=ObjectIdentifier(name),
            propertyIdentifier=PropertyIdentifier(key),
            destination=found.source,
            **({} if index is None else {"propertyArrayIndex": index}),
        )
        answer = await self._client.ask(request, ReadPropertyACK, 4 * self._timeout_s)
        return _first(values_of(answer.propertyValue))


def _found(i_am: IAmRequest) -> Found:
    source = i_am.pduSource
    return Found(
        instance=int(i_am.iAmDeviceIdentifier[1]),
        address=str(source),
        network=int(source.addrNet or 0),
        vendor_id=int(i_am.vendorID),
        max_apdu=int(i_am.maxAPDULengthAccepted),
        segmentation=str(i_am.segmentationSupported),
        source=source,
    )


def _first(values: Sequence[Value]) -> Value | None:
    return values[0] if values else None


def _text(got: Value | _Refused | None) -> str:
    """Return a name as one line that a terminal shows as it is."""
    return "".join(c if c.isprintable() else "?" for c in got)[:100] if isinstance(got, str) else ""


def _unit(number: int) -> str:
    return BACNET_UNITS.get(number) or (str(EngineeringUnits(number)) if 0 <= number < 65_536 else str(number))
