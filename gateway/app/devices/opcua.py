"""OPC UA devices: one session each, so that none waits for another."""

import logging

from gateway.config import GatewayConfig
from gateway.config.templates import OpcuaTemplate
from gateway.drivers import Driver
from gateway.errors import ConfigError


def open_opcua(config: GatewayConfig) -> dict[str, dict[str, Driver]]:
    """Return the drivers by name, each a bus of its own. Nothing is connected yet. Raises ConfigError."""
    found = [
        (name, section, template)
        for name, section in config.devices.items()
        if isinstance(template := config.templates[section.template], OpcuaTemplate)
    ]
    if not found:
        return {}
    # asyncua takes 27 MB and most of a second: nothing for a gateway without such devices.
    from gateway.app.devices.opcua_open import opcua_driver  # noqa: PLC0415

    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # we say what is to be said
    opened: dict[str, dict[str, Driver]] = {}
    for name, section, template in found:
        try:
            opened[f"{section.url} {name}"] = {name: opcua_driver(name, section, template, config)}
        except ConfigError as e:
            raise ConfigError(f"devices.{name}: {e}") from e
    return opened
