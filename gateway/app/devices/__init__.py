"""From configuration to drivers, one opener a protocol."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.app.devices.agents import open_agents
from gateway.app.devices.bacnet import open_bacnet
from gateway.app.devices.modbus import open_modbus
from gateway.app.devices.opcua import open_opcua
from gateway.config import GatewayConfig
from gateway.drivers import Driver

OPENERS: Final[Mapping[str, Callable[[GatewayConfig], dict[str, dict[str, Driver]]]]] = {
    "modbus": open_modbus,
    "opcua": open_opcua,
    "bacnet": open_bacnet,
    "agent": open_agents,
}
"""By protocol: what makes the drivers of its devices, bus by bus."""


def open_devices(config: GatewayConfig) -> dict[str, dict[str, Driver]]:
    """Return the drivers of all devices by name, bus by bus. Nothing is connected yet. Raises ConfigError."""
    buses: dict[str, dict[str, Driver]] = {}
    for opener in OPENERS.values():
        buses |= opener(config)
    return buses
