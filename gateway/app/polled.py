"""One poll of one device by its driver, whatever its protocol: for commands that look once."""

import asyncio
import contextlib
import os
from functools import partial

from gateway.app.control import ask, row_of
from gateway.app.devices import OPENERS
from gateway.app.devices.agents import QUEUED, QUEUED_BYTES, source_of
from gateway.config import GatewayConfig, counters_of
from gateway.config.templates import AgentTemplate
from gateway.drivers import Driver
from gateway.drivers.agents import AgentBroker, AgentDriver
from gateway.errors import ConfigError, DeviceError, LinkError
from gateway.model import Row

LISTEN_S = 15.0
"""An agent cannot be asked: so long is waited for a frame of it."""
_AGAIN_S = 0.2


async def polled(config: GatewayConfig, device: str, *, listen_s: float = LISTEN_S) -> Row:
    """Return one reading of all points of a device. Raises ConfigError, and DeviceError where nothing came.

    Where all devices of its protocol share a socket and a gateway has it, that gateway is asked to read.
    """
    template = config.templates[config.devices[device].template]
    if template.shares_socket:
        with contextlib.suppress(LinkError):
            return row_of(await ask(config.run_folder / "collect.control.sock", "read", device))
    if isinstance(template, AgentTemplate):
        return await _heard(agent_driver(config, device, template), listen_s)
    drivers = drivers_of(config, template.protocol)
    try:
        return (await drivers[device].poll(samples=False)).row
    finally:
        for driver in drivers.values():
            await driver.close()


def drivers_of(config: GatewayConfig, protocol: str) -> dict[str, Driver]:
    """Return the drivers of a protocol's devices; only what is polled connects. Raises ConfigError."""
    if protocol not in OPENERS:
        raise ConfigError(f"protocol: got {protocol!r}, want one of {', '.join(OPENERS)}")
    return {name: driver for bus in OPENERS[protocol](config).values() for name, driver in bus.items()}


def agent_driver(config: GatewayConfig, device: str, template: AgentTemplate) -> AgentDriver:
    """Return a driver with a session of its own at the broker, where no collect runs that has one."""
    from gateway.north.mqtt import Link  # noqa: PLC0415 (8 MB that only a gateway with agents needs)
    from gateway.north.tls import Endpoint  # noqa: PLC0415

    section, agents = config.devices[device], config.agents
    if agents is None:
        raise ConfigError(f"agents: got no section, want [agents] with the broker, as devices.{device} is one")
    host, _, port = agents.broker.rpartition(":")
    endpoint = Endpoint(host=host, port=int(port), ca=agents.ca, cert=agents.cert, key=agents.key)
    client_id = f"{config.gateway.id}-read-{os.getpid()}"
    connect = partial(Link, endpoint, client_id=client_id, queued=QUEUED, queued_bytes=QUEUED_BYTES)
    return AgentDriver(
        source=source_of(device, section.url.removeprefix("agent:"), template),
        counters=frozenset(counters_of(template)),
        broker=AgentBroker(connect),
        stale_s=section.stale_s,
    )


async def _heard(driver: AgentDriver, listen_s: float) -> Row:
    """Return the first frame that an agent sends. Raises DeviceError when it sends none."""
    following = asyncio.create_task(driver.follow(lambda _: None), name="read.agent")
    deadline_s = asyncio.get_running_loop().time() + listen_s
    try:
        while True:
            try:
                return (await driver.poll(samples=False)).row
            except DeviceError:
                if following.done():
                    _reraise(following)
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
            await asyncio.sleep(_AGAIN_S)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await driver.close()


def _reraise(following: asyncio.Task[None]) -> None:
    """Raise what an operator can mend where that ended the task; else what it is."""
    error = following.exception()
    ours: BaseException | None = error.split(ConfigError)[0] if isinstance(error, BaseExceptionGroup) else None
    while isinstance(ours, BaseExceptionGroup):
        ours = ours.exceptions[0]
    raise ours or error or DeviceError("it cannot be followed")
