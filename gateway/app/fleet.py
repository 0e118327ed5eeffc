"""The devices that are polled, as tasks: what differs can be changed while the rest misses no tick."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.app.collector import Collector, Device
from gateway.app.devices import open_devices
from gateway.config import GatewayConfig
from gateway.config.difference import Difference, difference
from gateway.drivers import Driver, Follower
from gateway.errors import ConfigError

Open = Callable[[GatewayConfig], Mapping[str, Mapping[str, Driver]]]


class Fleet:
    """Runs a collector's buses in a task group, one task a bus, and one more for each device that tells its changes.

    drivers: makes the drivers, bus by bus.
    """

    def __init__(
        self, collector: Collector, config: GatewayConfig, tasks: asyncio.TaskGroup, *, drivers: Open = open_devices
    ) -> None:
        self.config = config
        self._collector, self._tasks, self._open = collector, tasks, drivers
        self._running: dict[str, list[asyncio.Task[None]]] = {}
        self._ranks = 0

    def start(self) -> None:
        """Poll all devices of the configuration. Raises ConfigError."""
        for bus, found in self._open(self.config).items():
            self._run(bus, self._collector.devices_of(self.config, found))
        self._collector.use_lines(self.config.lines.values())

    async def apply(self, config: GatewayConfig) -> Difference:
        """Go over to another configuration; return what differed. Devices that do not differ miss no tick.

        Raises ConfigError, and changes nothing, where it is wrong or wants a restart.
        """
        found = difference(self.config, config)
        if found.restart:
            names = ", ".join(f"[{delta.name}]" for delta in found.restart)
            raise ConfigError(f"apply: got a change of {names}, want a restart for that: nothing was changed")
        opened = self._open(config)
        touched = {delta.name.removeprefix("devices.") for delta in found.changes if delta.name.startswith("devices.")}
        touched |= _sharing(self.config, touched) | _sharing(config, touched)
        kept = {
            bus
            for bus, devices in self._collector.buses.items()
            if bus in opened and not touched & (opened[bus].keys() | {device.name for device in devices})
        }
        for bus in [bus for bus in self._running if bus not in kept]:
            await self._stop(bus)
        for bus, drivers in opened.items():
            if bus in kept:
                for driver in drivers.values():
                    await driver.close()  # never connected: the old ones go on
            else:
                self._run(bus, self._collector.devices_of(config, drivers))
        self._collector.use_lines(config.lines.values())
        self.config = config
        return found

    async def close(self) -> None:
        """Stop every bus."""
        for bus in [*self._running]:
            await self._stop(bus)

    def _run(self, bus: str, devices: Sequence[Device]) -> None:
        self._collector.adopt(bus, devices)
        self._ranks += 1
        polling = self._tasks.create_task(
            self._collector.poll_bus(devices, rank=self._ranks), name=f"collect.bus {bus}"
        )
        self._running[bus] = [polling]
        for device in devices:
            if device.follows and isinstance(device.driver, Follower):
                following = self._collector.follow(device, device.driver)
                self._running[bus].append(self._tasks.create_task(following, name=f"collect.follow {device.name}"))

    async def _stop(self, bus: str) -> None:
        tasks = self._running.pop(bus)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for device in self._collector.drop(bus):
            await device.driver.close()


def _sharing(config: GatewayConfig, touched: Iterable[str]) -> set[str]:
    """Return the devices that share a socket with these, whatever their bus: all of a protocol do, or none."""
    protocols = {
        template.protocol
        for name in touched
        if name in config.devices and (template := config.templates[config.devices[name].template]).shares_socket
    }
    return {
        name for name, section in config.devices.items() if config.templates[section.template].protocol in protocols
    }
