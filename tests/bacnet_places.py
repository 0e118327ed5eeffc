"""Free UDP places on the loopback, and a plain client of the library, for tests that speak BACnet."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bacpypes3.ipv4.app import NormalApplication
from bacpypes3.local.device import DeviceObject
from bacpypes3.pdu import IPv4Address

WAIT_S = 5.0


def free_port() -> int:
    """Return a UDP port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def plain_client() -> AsyncIterator[Any]:
    """Yield an application of the library that no code of ours has touched.

    Its port is not the devices': the library hears its own requests where both are the same on the loopback.
    """
    device = DeviceObject(objectIdentifier=("device", 99), objectName="client", vendorIdentifier=999, apduTimeout=500)
    app = NormalApplication(device, IPv4Address(f"127.0.0.1/32:{free_port()}"))
    await asyncio.gather(*app.normal.server._transport_tasks)
    try:
        yield app
    finally:
        app.close()
        await asyncio.sleep(0)
