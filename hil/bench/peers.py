"""The servers that protocols are measured against, in a process of their own: `python -m hil.bench.peers PEER JSON`.

It prints one line of JSON, where it is to be found; changes its values from a SIGUSR1 on, as a server that is at its
limit is slow to take a subscription; and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import uvloop

HOST: Final = "127.0.0.1"
NAMESPACE: Final = "urn:wattseal:bench"
FIRST_INSTANCE: Final = 7000
_AT_ONCE: Final = 25
"""Changes between two looks at the network: a server that only writes hears nobody."""
_A_FOLDER: Final = 100

About = Mapping[str, Any]


async def _pace(rounds: Iterator[int], points: int, period_s: float) -> AsyncIterator[tuple[int, int]]:
    """Yield round and point, all points each period; without a pause where a round takes longer than that."""
    due = time.monotonic()
    for number in rounds:
        for place in range(points):
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)
            yield number, place
        due = max(due + period_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


@asynccontextmanager
async def opcua(about: About) -> AsyncIterator[tuple[Any, About]]:
    """Serve about's `points` Doubles by OPC UA, each of which changes once a `period_s`."""
    import asyncua.ua  # noqa: PLC0415 - so that no peer has the other's library in its memory
    from asyncua.server.server import Server  # noqa: PLC0415

    from hil.plant.opcua_entry import URI, Clients, Users, make_certificate  # noqa: PLC0415

    ua: Any = asyncua.ua  # its types say more than its values do
    certificate, key = Path(about["folder"]) / "server.der", Path(about["folder"]) / "server.key.pem"
    make_certificate(certificate, key)
    server = Server(user_manager=Users({}))  # type: ignore[arg-type]  # it asks for get_user alone
    await server.init()
    server.set_endpoint(f"opc.tcp://{HOST}:0/bench")
    await server.set_application_uri(URI)
    policies = ua.SecurityPolicyType
    server.set_security_policy([policies.NoSecurity, policies.Basic256Sha256_SignAndEncrypt])
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    await server.load_certificate(certificate)
    await server.load_private_key(key)
    server.set_certificate_validator(Clients(None).check)
    index = await server.register_namespace(NAMESPACE)
    ids = [ua.NodeId(f"p{place}", index) for place in range(about["points"])]
    for first in range(0, len(ids), _A_FOLDER):  # to add a node, the library looks at all others of its folder
        name = f"f{first}"
        folder = await server.nodes.objects.add_folder(ua.NodeId(name, index), ua.QualifiedName(name, index))
        for node_id in ids[first : first + _A_FOLDER]:
            await folder.add_variable(node_id, ua.QualifiedName(node_id.Identifier, index), 0.0)

    async def change() -> None:
        async for number, place in _pace(count(), len(ids), about["period_s"]):
            value = ua.Variant(number + place / len(ids), ua.VariantType.Double)
            await server.write_attribute_value(ids[place], ua.DataValue(value, SourceTimestamp=datetime.now(UTC)))

    async with server:
        assert server.bserver is not None
        yield change, {"url": f"opc.tcp://{HOST}:{server.bserver.port}/bench", "certificate": str(certificate)}


@asynccontextmanager
async def bacnet(about: About) -> AsyncIterator[tuple[Any, About]]:
    """Serve `points` analog inputs by BACnet/IP, as many in each of `devices`; each changes once a `period_s`."""
    from bacpypes3.basetypes import EngineeringUnits, Reliability, StatusFlags  # noqa: PLC0415
    from bacpypes3.ipv4.app import NormalApplication  # noqa: PLC0415
    from bacpypes3.local.analog import AnalogInputObject  # noqa: PLC0415
    from bacpypes3.local.device import DeviceObject  # noqa: PLC0415
    from bacpypes3.pdu import IPv4Address  # noqa: PLC0415

    each = about["points"] // about["devices"]
    ports, apps, objects = list(free_ports(about["devices"])), [], []
    for instance, port in enumerate(ports, FIRST_INSTANCE):
        device = DeviceObject(
            objectIdentifier=("device", instance), objectName=f"device {instance}", vendorIdentifier=999
        )
        app = NormalApplication(device, IPv4Address(f"{HOST}:{port}"))
        await asyncio.gather(*app.normal.server._transport_tasks)  # noqa: SLF001 - else it hears nobody yet
        apps.append(app)
        for number in range(1, each + 1):
            made = AnalogInputObject(
                objectIdentifier=("analog-input", number),
                objectName=f"analog-input {number}",
                presentValue=0.0,
                statusFlags=StatusFlags([0, 0, 0, 0]),
                eventState="normal",
                reliability=Reliability("no-fault-detected"),
                outOfService=False,
                covIncrement=0.1,
                units=EngineeringUnits("kilowatts"),
            )
            app.add_object(made)
            objects.append(made)

    async def change() -> None:
        async for number, place in _pace(cycle(range(1, 1000)), len(objects), about["period_s"]):
            objects[place].presentValue = float(number)

    try:
        yield change, {"addresses": [f"{HOST}:{port}" for port in ports]}
    finally:
        for app in apps:
            app.close()


def free_ports(number: int) -> Iterator[int]:
    """Yield UDP ports that nobody has now."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(number)]
    for each in held:
        each.bind((HOST, 0))
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    yield from found


PEERS: Final = {"opcua": opcua, "bacnet": bacnet}


async def serve(peer: str, about: About) -> None:
    """Serve until the standard input ends."""
    ended, begun = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, begun.set)
    async with PEERS[peer](about) as (change, where):

        async def changing() -> None:
            await begun.wait()
            await change()

        print(json.dumps(where), flush=True)
        loop.add_reader(0, lambda: ended.set() if not os.read(0, 1) else None)
        task = asyncio.create_task(changing(), name="bench.change")
        await ended.wait()
        task.cancel()


def main() -> None:
    """Run the peer that the command line names."""
    logging.disable(logging.CRITICAL)
    uvloop.run(serve(sys.argv[1], json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
