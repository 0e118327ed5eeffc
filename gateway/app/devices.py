"""From configuration to drivers: one bus a host or serial port, shared by its devices in order."""

from collections.abc import Mapping

from gateway.codec.planner import Limits
from gateway.config import DeviceSection, Template, points_of
from gateway.drivers import DRIVERS, Driver
from gateway.drivers.modbus_bus import Bus
from gateway.errors import ConfigError


def limits_of(template: Template) -> Limits:
    """Return what a device can be asked."""
    return Limits(
        max_registers=template.max_registers,
        max_gap=template.max_gap,
        never=template.never,
        keep_order=template.keep_order,
    )


def bus_key(name: str, section: DeviceSection) -> str:
    """Return what devices share when they share a connection."""
    return f"{section.url} {name}" if section.own_connection else section.url


def open_devices(
    devices: Mapping[str, DeviceSection], templates: Mapping[str, Template]
) -> dict[str, dict[str, Driver]]:
    """Return the drivers by name, bus by bus. Nothing is connected yet. Raises ConfigError."""
    sharing: dict[str, list[DeviceSection]] = {}
    for name, section in devices.items():
        sharing.setdefault(bus_key(name, section), []).append(section)
    buses: dict[str, Bus] = {}
    opened: dict[str, dict[str, Driver]] = {}
    for name, section in devices.items():
        key, template = bus_key(name, section), templates[section.template]
        try:
            if key not in buses:
                slowest_s = max(each.timeout_s for each in sharing[key])
                buses[key] = Bus(section.url, slowest_s, pipeline=min(each.pipeline for each in sharing[key]))
            driver = DRIVERS["modbus"](
                name=name,
                points=points_of(template),
                bus=buses[key],
                unit_id=section.unit_id,
                limits=limits_of(template),
            )
        except ConfigError as e:
            raise ConfigError(f"devices.{name}: {e}") from e
        opened.setdefault(key, {})[name] = driver
    return opened
