"""Configuration files to frozen structs. Pure: text in, structs out; every message says where, got and want.

`gateway.toml: devices.m1.unit_id: got 300, want 0..247`
"""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec

from gateway.config.convert import convert, named, placed, section, shown, tables, toml
from gateway.config.ledger import LedgerConfig, parse_ledger
from gateway.config.lines import check_interpolated, check_shared, line_of
from gateway.config.reports import check_nested, check_pairs, check_watched
from gateway.config.sections import (
    AgentsSection,
    AttestSection,
    BacnetSection,
    CollectSection,
    DeviceSection,
    ForwardSection,
    GatewayConfig,
    GatewaySection,
    IntervalSection,
    LineSection,
    OpcuaSection,
    SealSection,
)
from gateway.config.templates import SCHEMES, TEMPLATES, ModbusPointSection, ModbusTemplate, PointSection, Template
from gateway.errors import ConfigError
from gateway.model import Kind, Point, WireType

__all__ = [
    "DeviceSection",
    "GatewayConfig",
    "LedgerConfig",
    "ModbusTemplate",
    "Template",
    "counters_of",
    "parse_gateway",
    "parse_ledger",
    "parse_template",
    "points_of",
]


_SECTIONS = {
    *("gateway", "collect", "seal", "attest", "forward", "interval", "opcua", "bacnet", "agents", "devices", "lines"),
}


def parse_gateway(text: str, *, name: str, folder: Path, template_text: Callable[[str], str]) -> GatewayConfig:
    """Return the configuration that text says; relative paths are joined to folder.

    name: the file's name, for messages. template_text: the text of a device template by its name;
    raises KeyError where there is none. Raises ConfigError.
    """
    found = tables(text, name, _SECTIONS)
    check_nested(found.get("devices"), f"{name}: devices")
    devices = named(found.get("devices", {}), DeviceSection, f"{name}: devices")
    templates = {}
    for device, device_section in devices.items():
        where = f"{name}: devices.{device}.template"
        if device_section.template not in templates:
            try:
                text_of_it = template_text(device_section.template)
            except KeyError:
                raise ConfigError(f"{where}: got {device_section.template!r}, want a file of gateway/devices") from None
            templates[device_section.template] = parse_template(text_of_it, device_section.template)
        _check_device(device_section, templates[device_section.template], f"{name}: devices.{device}")
    config = GatewayConfig(
        gateway=placed(section(found, "gateway", GatewaySection, name), folder, "state"),
        collect=section(found, "collect", CollectSection, name),
        seal=placed(section(found, "seal", SealSection, name), folder, "key", "witness", "agents"),
        attest=placed(section(found, "attest", AttestSection, name), folder, "chain", "verifier", "event_log")
        if "attest" in found
        else None,
        forward=placed(section(found, "forward", ForwardSection, name), folder, "ca", "cert", "key"),
        interval=section(found, "interval", IntervalSection, name),
        opcua=placed(section(found, "opcua", OpcuaSection, name), folder, "cert", "key", "trusted", "rejected"),
        bacnet=section(found, "bacnet", BacnetSection, name) if "bacnet" in found else None,
        agents=placed(section(found, "agents", AgentsSection, name), folder, "ca", "cert", "key")
        if "agents" in found
        else None,
        devices={key: _placed_device(device, folder) for key, device in devices.items()},
        templates=templates,
        lines={},
    )
    _check_key(config, name)
    _check_periods(config, name)
    check_pairs(devices, templates, f"{name}: devices")
    lines = named(found.get("lines", {}), LineSection, f"{name}: lines")
    check_shared(lines, f"{name}: lines")
    return msgspec.structs.replace(
        config, lines={key: line_of(key, line, config, f"{name}: lines.{key}") for key, line in lines.items()}
    )


def parse_template(text: str, name: str) -> Template:
    """Return the device template that text says. Raises ConfigError."""
    where = f"devices/{name}.toml"
    table = toml(text, where)
    protocol = table.get("protocol", "modbus")
    if not isinstance(protocol, str) or protocol not in TEMPLATES:
        raise ConfigError(f"{where}: protocol: got {shown(protocol)}, want one of {', '.join(TEMPLATES)}")
    struct, point_struct = TEMPLATES[protocol]
    template = convert({**table, "points": {}}, struct, f"{where}:")
    points = named(table.get("points", {}), point_struct, f"{where}: points")
    if not points:
        raise ConfigError(f"{where}: points: got none, want at least one")
    template = msgspec.structs.replace(template, points=points)
    for point, entry in points.items():
        _check_counter(entry, f"{where}: points.{point}")
    if isinstance(template, ModbusTemplate):
        _check_modbus(template, where)
    _check_size(template, where)
    return template


def _check_modbus(template: ModbusTemplate, where: str) -> None:
    for point, entry in template.points.items():
        if entry.scale_point is not None and entry.scale_point not in template.points:
            raise ConfigError(
                f"{where}: points.{point}.scale_point: got {shown(entry.scale_point)}, want a point's name"
            )


def _check_device(section: DeviceSection, template: Template, where: str) -> None:
    """Refuse a URL of another protocol than the template's."""
    schemes = SCHEMES[template.protocol]
    if not section.url.startswith(schemes):
        wanted = " or ".join(f"{scheme}..." for scheme in schemes)
        raise ConfigError(
            f"{where}.url: got {section.url!r}, want {wanted}, as its template is for {template.protocol}"
        )
    check_watched(section, template, where)


def _placed_device(section: DeviceSection, folder: Path) -> DeviceSection:
    """Return the section with its relative paths joined to folder."""
    own = section.opcua
    paths = {key: folder / path for key in ("password", "user_cert", "user_key") if (path := getattr(own, key))}
    return msgspec.structs.replace(section, opcua=msgspec.structs.replace(own, **paths)) if paths else section


def points_of(template: Template) -> tuple[Point, ...]:
    """Return a Modbus template's points in the file's order. Raises ConfigError for another protocol's."""
    if not isinstance(template, ModbusTemplate):
        raise ConfigError(f"{template.title}: got a template for {template.protocol}, want one for modbus")
    return tuple(_point(name, entry, template.function) for name, entry in template.points.items())


def counters_of(template: Template) -> tuple[str, ...]:
    """Return the names of a template's counters, in the file's order."""
    return tuple(name for name, point in template.points.items() if point.kind == Kind.COUNTER)


def _point(name: str, entry: ModbusPointSection, function: int) -> Point:
    return Point(
        name=name,
        function=entry.function or function,
        address=entry.address,
        type=entry.type,
        order=entry.order,
        registers=entry.registers or 0,
        bit=entry.bit,
        unit=entry.unit,
        scale=Decimal(entry.scale),
        offset=Decimal(entry.offset),
        scale_point=entry.scale_point,
        sentinels=frozenset(entry.sentinels),
        kind=entry.kind,
        modulus=entry.modulus,
    )


_NO_NUMBERS = {"bool", "s32", "s64", "s128"}


def _check_counter(entry: PointSection, where: str) -> None:
    """Refuse a counter that is no number, and a roll-over that would be booked wrongly."""
    kind = entry.type if isinstance(entry, ModbusPointSection) else getattr(entry, "store", "f64")
    texts = {WireType.BIT, WireType.STRING} if isinstance(entry, ModbusPointSection) else _NO_NUMBERS
    if entry.kind == Kind.COUNTER and kind in texts:
        raise ConfigError(f"{where}.type: got {str(kind)!r}, want a number's type for a counter")
    if entry.modulus is None:
        return
    if entry.modulus > 2**64:
        raise ConfigError(f"{where}.modulus: got {shown(entry.modulus)}, want 2..{2**64}")
    if getattr(entry, "scale_point", None) is not None or entry.scale.startswith("-"):
        raise ConfigError(f"{where}.modulus: got {entry.modulus}, want none, or a scale that is positive and fixed")


_MOST_BYTES = 64_000


def _check_size(template: Template, where: str) -> None:
    """Refuse a device whose schema or whose row a leaf (docs/log.md) cannot hold."""
    points = template.points
    schema = sum(len(name) + len(entry.unit.encode()) + 12 for name, entry in points.items())
    if isinstance(template, ModbusTemplate):
        row = sum(
            1 + (2 * (entry.registers or 0) if entry.type == WireType.STRING else 8)
            for entry in template.points.values()
        )
    else:
        row = 129 * len(points)
    if max(schema, row) > _MOST_BYTES:
        raise ConfigError(f"{where}: points: got {len(points)}, want fewer: a leaf could not hold a row, or its schema")


def _check_key(config: GatewayConfig, name: str) -> None:
    """Refuse a log without a key, and one with two: it must be plain whether a TPM vouches for it."""
    if config.seal.key is None and config.attest is None:
        raise ConfigError(
            f"{name}: seal.key: got nothing, want a key file, or [attest] for keys that a TPM vouches for"
        )
    if config.seal.key is not None and config.attest is not None:
        raise ConfigError(f"{name}: seal.key: got a key file beside [attest], want one of the two")
    if config.attest is not None and len(set(config.attest.pcrs)) != len(config.attest.pcrs):
        raise ConfigError(f"{name}: attest.pcrs: got {[*config.attest.pcrs]}, want each once")
    if config.attest is None and config.forward.key_in != "file":
        raise ConfigError(
            f"{name}: forward.key_in: got {config.forward.key_in} without [attest], want that section: a certificate "
            "is issued for what a TPM vouches for"
        )


def _check_periods(config: GatewayConfig, name: str) -> None:
    interval_ns = config.interval.period_s * 1_000_000_000
    for device in config.devices:
        period_s = config.period_s(device)
        if interval_ns % round(period_s * 1_000_000_000):
            if config.interval.interpolate:
                check_interpolated(period_s, config.interval, f"{name}: devices.{device}.period_s")
                continue
            raise ConfigError(
                f"{name}: devices.{device}.period_s: got {period_s:g}, want a period that divides "
                f"interval.period_s ({config.interval.period_s} s), or energies would skew"
            )
