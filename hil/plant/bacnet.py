"""The plant's air handler with its boiler: a BACnet/IP device, and the misfortunes that such devices have.

async with BacnetDevice(plant, address="127.0.0.1/32:47808") as device:
    device.do("reboot 2")
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from typing import Any, Final, Self

from bacpypes3.app import Application
from bacpypes3.appservice import ApplicationServiceAccessPoint
from bacpypes3.basetypes import Reliability
from bacpypes3.comm import bind
from bacpypes3.errors import ExecutionError
from bacpypes3.ipv4 import IPv4DatagramServer
from bacpypes3.ipv4.bvll import BVLLCodec
from bacpypes3.ipv4.service import BIPNormal, UDPMultiplexer
from bacpypes3.local.device import DeviceObject
from bacpypes3.netservice import NetworkServiceAccessPoint, NetworkServiceElement
from bacpypes3.pdu import IPv4Address, LocalBroadcast

from hil.plant.bacnet_objects import FAULT, NO_FLAGS, ROWS, Accumulator, Air, feel, make_object
from hil.plant.factory import CommandError, Plant

INSTANCE: Final = 4401
TEMPLATE: Final = "wattseal-plant-bacnet"
COMMANDS: Final = "bacnet reboot [SECONDS] | bacnet lapse | bacnet fault OBJECT | bacnet repair OBJECT"


class BacnetDevice:
    """Serve the air handler; an async context manager.

    address: ours, with the bits of the network and the port. Entering raises OSError where it cannot be had.
    writes: requests that would have changed something, all of them refused.
    """

    def __init__(self, plant: Plant, *, address: str, instance: int = INSTANCE, period_s: float = 0.25) -> None:
        self._plant, self.address, self.instance, self._period_s = plant, address, instance, period_s
        self._faults: set[str] = set()
        self._app: _Device | None = None
        self._away: asyncio.Queue[float] = asyncio.Queue()
        self.writes: list[str] = []

    async def __aenter__(self) -> Self:
        _check_free(self.address)
        await self._start()
        self._task = asyncio.create_task(self._run(), name="plant-bacnet")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._stop()

    @property
    def subscriptions(self) -> int:
        """How many COV subscriptions it has now."""
        return 0 if self._app is None else len(self._app.subscriptions())

    def about(self) -> dict[str, object]:
        """Return what a client needs to know."""
        return {"address": self.address, "instance": self.instance, "template": TEMPLATE}

    def check(self, command: str) -> None:
        """Check one of COMMANDS, without the word bacnet. Raises CommandError."""
        match command.split():
            case ["lapse"] | ["reboot"]:
                return
            case ["reboot", seconds] if seconds.replace(".", "", 1).isdecimal():
                return
            case ["fault" | "repair", name] if any(row.name == name for row in ROWS):
                return
        raise CommandError(
            f"got {'bacnet ' + command!r}, want {COMMANDS}; OBJECT {', '.join(row.name for row in ROWS)}"
        )

    def do(self, command: str) -> None:
        """Do one of COMMANDS, without the word bacnet. Raises CommandError."""
        self.check(command)
        match command.split():
            case ["reboot", *seconds]:
                self._stop()
                self._away.put_nowait(float(seconds[0]) if seconds else 1.0)
            case ["lapse"] if self._app is not None:
                self._app.forget()
            case ["fault", name]:
                self._faults.add(name)
            case ["repair", name]:
                self._faults.discard(name)

    async def _run(self) -> None:
        while True:
            if self._app is not None:
                self._app.show(feel(self._plant), self._faults)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    away_s = await self._away.get()
                await asyncio.sleep(away_s)
                await self._start()

    async def _start(self) -> None:
        if self._app is None:
            app = _Device(self._plant, self.address, self.instance, self.writes)
            app.show(feel(self._plant), self._faults)
            await asyncio.gather(*app.link.server._transport_tasks)  # noqa: SLF001 - else it hears nobody yet
            self._app = app
            if app.broadcasts:
                app.i_am()

    def _stop(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            app.forget()
            app.link.server.close()


class _Server(IPv4DatagramServer):  # type: ignore[misc]  # the library has no types
    """A socket that sends to others of this machine: the library keeps what goes to its own port on any 127.x.x.x."""

    async def indication(self, pdu: Any) -> None:
        """Send one datagram."""
        to = pdu.pduDestination
        if isinstance(to, LocalBroadcast) or self.local_transport is None:
            await super().indication(pdu)
        else:
            where = to if isinstance(to, IPv4Address) else IPv4Address(to)
            self.local_transport.sendto(pdu.pduData, where.addrTuple)


class _Link(BIPNormal):  # type: ignore[misc]  # the library has no types
    """The link layer, with our socket below."""

    def __init__(self, place: IPv4Address) -> None:
        super().__init__()
        self.server = _Server(place)
        annexes = UDPMultiplexer()
        bind(self, BVLLCodec(), annexes.annexJ)
        bind(annexes, self.server)


class _Device(Application):  # type: ignore[misc]  # the library has no types
    """The stack of one life of the device: it ends at a reboot, with all subscriptions."""

    def __init__(self, plant: Plant, address: str, instance: int, writes: list[str]) -> None:
        device = DeviceObject(
            objectIdentifier=("device", instance),
            objectName="AirHandler",
            description="Air handler and boiler of the simulated plant",
            vendorIdentifier=999,
            vendorName="wattseal hil",
            modelName="plant air handler",
        )
        place = IPv4Address(address)
        super().__init__()
        self.asap = ApplicationServiceAccessPoint(device, self.device_info_cache)
        self.nsap, self.nse, self.link = NetworkServiceAccessPoint(), NetworkServiceElement(), _Link(place)
        bind(self.nse, self.nsap)
        bind(self, self.asap, self.nsap)
        self.nsap.bind(self.link, address=place)
        self.add_object(device)
        self.broadcasts = place.addrBroadcastTuple != place.addrTuple
        self._writes = writes
        self._made = {row.id: make_object(row, plant) for row in ROWS}
        for made in self._made.values():
            self.add_object(made)

    def show(self, air: Air, faults: set[str]) -> None:
        """Let the objects have the values of now; subscribers are told what changed enough."""
        for row in ROWS:
            made, fault = self._made[row.id], row.name in faults
            if not isinstance(made, Accumulator):
                made.presentValue = row.value(air)
            if bool(made.statusFlags[1]) != fault:
                made.statusFlags = FAULT if fault else NO_FLAGS
                made.reliability = Reliability("no-sensor" if fault else "no-fault-detected")

    def subscriptions(self) -> list[Any]:
        """Return the COV subscriptions."""
        return [cov for detection in self._cov_detections.values() for cov in detection.cov_subscriptions]

    def forget(self) -> None:
        """Drop all COV subscriptions without a word."""
        for subscription in self.subscriptions():
            self.cancel_subscription(subscription)

    def cov_confirmation(self, cov: Any, future: asyncio.Future[Any]) -> None:  # noqa: ARG002 - the library's own
        """Let a subscriber that is gone be gone."""
        if not future.cancelled():
            future.exception()

    async def do_WritePropertyRequest(self, apdu: Any) -> None:  # noqa: N802 - the library's own
        """Refuse, and remember."""
        self._refuse(apdu)

    async def do_WritePropertyMultipleRequest(self, apdu: Any) -> None:  # noqa: N802 - the library's own
        """Refuse, and remember."""
        self._refuse(apdu)

    async def do_DeviceCommunicationControlRequest(self, apdu: Any) -> None:  # noqa: N802 - the library's own
        """Refuse, and remember."""
        self._refuse(apdu)

    def _refuse(self, apdu: Any) -> None:
        self._writes.append(type(apdu).__name__)
        raise ExecutionError(errorClass="property", errorCode="writeAccessDenied")


def _check_free(address: str) -> None:
    """Check that the address can be had: the library would wait for ever. Raises OSError or ValueError."""
    where, _, port = address.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ipaddress.IPv4Interface(where).ip), int(port or 47808)))
