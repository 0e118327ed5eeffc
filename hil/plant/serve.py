"""The plant's devices behind protocol servers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from hil.plant.devices import Device
from hil.plant.factory import Plant
from hil.plant.hostile import Hostile
from hil.plant.modbus import Source
from hil.plant.server import SerialServer, Server


class DeviceUnit:
    """A device of the plant, as it is at the instant of each request."""

    def __init__(self, plant: Plant, device: Device) -> None:
        self._plant, self._device = plant, device
        self.functions = device.functions

    @property
    def alive(self) -> bool:
        """Whether it answers now."""
        self._plant.now()
        return self._device.alive

    def read(self, function: int, address: int, count: int) -> bytes:
        """Return register bytes of now. Raises LookupError where the device has none there."""
        return self._device.read(function, address, count, self._plant.now())


def units_of(plant: Plant) -> dict[int, Source]:
    """Return what stands behind each unit id of a plant."""
    return {unit: DeviceUnit(plant, device) for unit, device in plant.devices.items()}


def serve(
    plant: Plant,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ports: Literal["one", "each"] = "one",
    framing: Literal["tcp", "rtu"] = "tcp",
    hostile: Hostile | None = None,
) -> Server:
    """Return a server to enter: all units on one port, as behind a gateway, or each on a port of its own."""
    units = units_of(plant)
    lines: list[Mapping[int, Source]] = [units] if ports == "one" else [{unit: each} for unit, each in units.items()]
    return Server(lines, host=host, port=port, framing=framing, hostile=hostile)


def serve_serial(plant: Plant, path: Path, *, hostile: Hostile | None = None) -> SerialServer:
    """Return a server to enter: all units on one RTU line, a pseudo-terminal that path points to."""
    return SerialServer(units_of(plant), path, hostile=hostile)
