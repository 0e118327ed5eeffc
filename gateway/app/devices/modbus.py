"""Modbus devices: one bus a host or serial port, shared by its devices in order."""

from gateway.codec.planner import Limits
from gateway.config import DeviceSection, GatewayConfig, ModbusTemplate, points_of
from gateway.drivers import Driver
from gateway.drivers.modbus import ModbusDriver
from gateway.drivers.modbus_bus import Bus
from gateway.errors import ConfigError


def limits_of(template: ModbusTemplate) -> Limits:
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


def open_modbus(config: GatewayConfig) -> dict[str, dict[str, Driver]]:
    """Return the drivers by name, bus by bus. Nothing is connected yet. Raises ConfigError."""
    templates = {
        name: template
        for name, section in config.devices.items()
        if isinstance(template := config.templates[section.template], ModbusTemplate)
    }
    sharing: dict[str, list[DeviceSection]] = {}
    for name in templates:
        section = config.devices[name]
        sharing.setdefault(bus_key(name, section), []).append(section)
    buses: dict[str, Bus] = {}
    opened: dict[str, dict[str, Driver]] = {}
    for name, template in templates.items():
        section = config.devices[name]
        key = bus_key(name, section)
        try:
            if key not in buses:
                slowest_s = max(each.timeout_s for each in sharing[key])
                buses[key] = Bus(section.url, slowest_s, pipeline=min(each.pipeline for each in sharing[key]))
            driver = ModbusDriver(
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
