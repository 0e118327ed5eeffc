"""BACnet devices: one application and one UDP socket for all, a bus for each, as none waits for another."""

from decimal import Decimal

from gateway.config import GatewayConfig
from gateway.config.templates import BacnetTemplate
from gateway.drivers import Driver
from gateway.errors import ConfigError


def open_bacnet(config: GatewayConfig) -> dict[str, dict[str, Driver]]:
    """Return the drivers by name, bus by bus. Nothing is connected yet. Raises ConfigError."""
    templates = {
        name: template
        for name, section in config.devices.items()
        if isinstance(template := config.templates[section.template], BacnetTemplate)
    }
    if not templates:
        return {}
    if config.bacnet is None:
        raise ConfigError(f"devices.{min(templates)}: got a BACnet device, want a section [bacnet] with our address")
    # Here, since the library takes half a second and 20 MB, which only BACnet users shall pay.
    from gateway.drivers import bacnet  # noqa: PLC0415

    try:
        app = bacnet.Application(
            address=config.bacnet.address,
            instance=config.bacnet.instance,
            bbmd=config.bacnet.bbmd or "",
            ttl_s=config.bacnet.ttl_s,
        )
    except ConfigError as e:
        raise ConfigError(f"bacnet: {e}") from e
    buses: dict[str, dict[str, Driver]] = {}
    for name, template in templates.items():
        section = config.devices[name]
        instance = int(section.url.removeprefix("bacnet:"))
        if instance == config.bacnet.instance or instance > bacnet.MOST_INSTANCE:
            raise ConfigError(
                f"devices.{name}.url: got instance {instance}, want 0..{bacnet.MOST_INSTANCE} that is not our own"
            )
        try:
            address = bacnet.address_of(section.bacnet.address) if section.bacnet.address else None
            points = [
                bacnet.BacnetPoint(
                    name=key,
                    object_id=bacnet.object_id_of(entry.object),
                    property_id=bacnet.property_id_of(entry.property),
                    unit=entry.unit,
                    store=entry.store,
                    scale=Decimal(entry.scale),
                    offset=Decimal(entry.offset),
                    kind=entry.kind,
                    cov_increment=entry.cov_increment,
                )
                for key, entry in template.points.items()
            ]
            driver = bacnet.BacnetDriver(
                name=name,
                points=points,
                app=app,
                instance=instance,
                address=address,
                timeout_s=section.timeout_s,
                at_once=section.pipeline,
                lifetime_s=section.bacnet.cov_lifetime_s,
            )
        except ConfigError as e:
            raise ConfigError(f"devices.{name}: {e}") from e
        buses[f"bacnet {name}"] = {name: driver}
    return buses
