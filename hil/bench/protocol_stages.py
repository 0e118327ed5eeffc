"""What one protocol costs the client alone, in a process of its own: `python -m hil.bench.protocol_stages STAGE JSON`.

For each protocol our driver, telling into an outbox that nobody empties, and the bare library at the same task.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from hil.bench.peers import FIRST_INSTANCE, HOST, NAMESPACE
from hil.bench.windows import About, Both, FilledOutbox, asked, told

_PRESENT_VALUE: Final = 85
_CHUNK: Final = 20
"""Objects a request of the bare library: three properties of each, as many as our driver asks for."""


async def opcua_driver(about: About) -> Both:
    """Follow all nodes with our driver; secured, where about says so."""
    from gateway.drivers.opcua import Access, Following, OpcuaDriver, OpcuaPoint  # noqa: PLC0415

    access = _secured(about) if about["secured"] else Access(url=about["url"], security="None", mode="None")
    points = [OpcuaPoint(name=f"p{i}", node=f"nsu={NAMESPACE};s=p{i}") for i in range(about["points"])]
    following = Following(sampling_s=about["period_s"], publishing_s=about["period_s"])
    driver, out = OpcuaDriver(name="server", points=points, access=access, following=following), FilledOutbox()
    both = await told(
        [driver.follow(out.tell), out.beat()], lambda: out.seen_all(len(points)), lambda: out.values, about
    )
    await driver.close()
    return both


def _secured(about: About) -> Any:
    from gateway.drivers.opcua import Access  # noqa: PLC0415
    from gateway.drivers.opcua_trust import TrustList, make_own, own_identity  # noqa: PLC0415

    folder, server = Path(about["folder"]), Path(about["certificate"])
    cert, key = folder / "own.der", folder / "own.key.pem"
    make_own(cert, key, gateway="bench", hosts=[HOST], force=True)
    trust = TrustList(trusted=server.parent, rejected=folder / "rejected")
    return Access(url=about["url"], trust=trust, own=own_identity(cert, key), timeout_s=4.0)


async def opcua_plain(about: About) -> Both:
    """Subscribe with asyncua alone, as its documentation does."""
    from asyncua.client.client import Client  # noqa: PLC0415

    class Handler:
        values = 0
        latest: Final[dict[Any, Any]] = {}

        def datachange_notification(self, node: Any, value: Any, _: Any) -> None:
            self.values += 1
            self.latest[node] = value

    handler, period_ms = Handler(), about["period_s"] * 1000
    client = Client(about["url"], timeout=10)
    async with client:
        index = await client.get_namespace_index(NAMESPACE)
        nodes = [client.get_node(f"ns={index};s=p{i}") for i in range(about["points"])]
        subscription = await client.create_subscription(period_ms, handler, queue_maxsize=100_000)
        await subscription.subscribe_data_change(nodes, queuesize=10, sampling_interval=period_ms)
        return await told([], lambda: len(handler.latest) == len(nodes), lambda: handler.values, about)


def _drivers(about: About) -> list[Any]:
    from gateway.drivers.bacnet import (  # noqa: PLC0415
        Application,
        BacnetDriver,
        BacnetPoint,
        address_of,
        object_id_of,
    )

    app = Application(address=f"{HOST}/32:0")
    each = about["points"] // len(about["addresses"])
    points = [
        BacnetPoint(name=f"p{n}", object_id=object_id_of(f"analog-input,{n}"), unit="kW") for n in range(1, each + 1)
    ]
    return [
        BacnetDriver(name=f"d{i}", points=points, app=app, instance=i, address=address_of(where), timeout_s=4.0)
        for i, where in enumerate(about["addresses"], FIRST_INSTANCE)
    ]


async def bacnet_rpm_driver(about: About) -> Both:
    """Poll all devices with our driver, each again and again."""
    drivers, out = _drivers(about), FilledOutbox()

    async def poll(driver: Any) -> None:
        row, _ = await driver.poll(samples=False)
        if row.qualities is not None:
            raise RuntimeError(f"not all was read: {row.status}")
        out.values += len(row.values)
        out.outbox.add(row)

    for _ in range(2):  # what a driver learns of its device, it asks for once
        for driver in drivers:
            await poll(driver)
    both = await asked([partial(poll, driver) for driver in drivers], lambda: out.values, about)
    for driver in drivers:
        await driver.close()
    return both


async def bacnet_rpm_plain(about: About) -> Both:
    """Read with bacpypes3 alone: the properties that about names, in as few requests as our driver."""
    from bacpypes3.basetypes import PropertyIdentifier  # noqa: PLC0415
    from bacpypes3.pdu import Address  # noqa: PLC0415
    from bacpypes3.primitivedata import ObjectIdentifier  # noqa: PLC0415

    app, values = await _plain_application(), 0
    each = about["points"] // len(about["addresses"])
    properties = [PropertyIdentifier(name) for name in about["properties"]]
    objects = [ObjectIdentifier(("analog-input", n)) for n in range(1, each + 1)]

    async def poll(where: Any) -> None:
        nonlocal values
        for first in range(0, each, _CHUNK):
            wanted = [part for made in objects[first : first + _CHUNK] for part in (made, properties)]
            answer = await app.read_property_multiple(where, wanted)
            values += len({made for made, *_ in answer})

    places = [Address(where) for where in about["addresses"]]
    await poll(places[0])
    both = await asked([partial(poll, where) for where in places], lambda: values, about)
    app.close()
    return both


async def _plain_application() -> Any:
    from bacpypes3.ipv4.app import NormalApplication  # noqa: PLC0415
    from bacpypes3.local.device import DeviceObject  # noqa: PLC0415
    from bacpypes3.pdu import IPv4Address  # noqa: PLC0415

    from hil.bench.peers import free_ports  # noqa: PLC0415

    device = DeviceObject(objectIdentifier=("device", 4_194_001), objectName="bench", vendorIdentifier=999)
    (port,) = free_ports(1)
    app = NormalApplication(device, IPv4Address(f"{HOST}:{port}"))
    await asyncio.gather(*app.normal.server._transport_tasks)  # noqa: SLF001 - else it hears nobody yet
    return app


async def bacnet_cov_driver(about: About) -> Both:
    """Follow all devices with our driver."""
    drivers, out = _drivers(about), FilledOutbox()
    following = [*(driver.follow(out.tell) for driver in drivers), out.beat()]
    both = await told(following, lambda: out.seen_all(about["points"]), lambda: out.values, about)
    for driver in drivers:
        await driver.close()
    return both


async def bacnet_cov_plain(about: About) -> Both:
    """Subscribe to all points with bacpypes3 alone, as its documentation does: a task takes what comes of each."""
    from bacpypes3.pdu import Address  # noqa: PLC0415
    from bacpypes3.primitivedata import ObjectIdentifier  # noqa: PLC0415

    app, values = await _plain_application(), 0
    each = about["points"] // len(about["addresses"])
    latest: dict[Any, Any] = {}

    async def take(context: Any, place: tuple[Any, int]) -> None:
        nonlocal values
        while True:
            what, value = await context.get_value()
            latest[place, what] = value
            values += what == _PRESENT_VALUE

    # Never left: to end 1,000 subscriptions takes seconds, and the peer ends soon.
    takers = []
    for where in map(Address, about["addresses"]):
        for number in range(1, each + 1):
            made = ObjectIdentifier(("analog-input", number))
            context = app.change_of_value(where, made, issue_confirmed_notifications=False, lifetime=300)
            await context.__aenter__()
            takers.append(take(context, (where, number)))
    # Not all have told something: the library drops a notification that comes with the answer to its subscription.
    both = await told(takers, lambda: bool(latest), lambda: values, about)
    app.close()
    return both


STAGES: Final = {
    "opcua_driver": opcua_driver,
    "opcua_plain": opcua_plain,
    "bacnet_rpm_driver": bacnet_rpm_driver,
    "bacnet_rpm_plain": bacnet_rpm_plain,
    "bacnet_cov_driver": bacnet_cov_driver,
    "bacnet_cov_plain": bacnet_cov_plain,
}


def main() -> None:
    """Run the stage that the command line names, and print what it took."""
    logging.disable(logging.CRITICAL)
    both = uvloop.run(STAGES[sys.argv[1]](json.loads(sys.argv[2])))
    print(json.dumps({name: asdict(spent) for name, spent in both.items()}))


if __name__ == "__main__":
    main()
