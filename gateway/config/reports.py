"""What a device's section says of its points: which are reported on change, which may stand still, which must agree."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.config.convert import convert, named, shown
from gateway.config.sections import (
    BacnetDeviceSection,
    DeadbandSection,
    DeviceSection,
    OpcuaDeviceSection,
    ReportSection,
    SameSection,
)
from gateway.config.templates import ModbusPointSection, PointSection, Template
from gateway.errors import ConfigError
from gateway.model import WireType

_NESTED: Final[Mapping[str, type[Any]]] = {
    "report": ReportSection,
    "opcua": OpcuaDeviceSection,
    "bacnet": BacnetDeviceSection,
}


def check_nested(devices: Any, where: str) -> None:
    """Refuse what is wrong within the tables of a device's section, so that the message says where."""
    for device, table in devices.items() if isinstance(devices, dict) else ():
        for key, struct in _NESTED.items() if isinstance(table, dict) else ():
            inner = table.get(key)
            if isinstance(inner, dict):
                if key == "report":
                    named(inner.get("points", {}), DeadbandSection, f"{where}.{device}.report.points")
                convert(inner, struct, f"{where}.{device}.{key}")
        if isinstance(table, dict):
            named(table.get("same_as", {}), SameSection, f"{where}.{device}.same_as")


def check_watched(section: DeviceSection, template: Template, where: str) -> None:
    """Refuse points that the template does not have, and deadbands of what is no number."""
    known = ", ".join(template.points)
    reported = section.report.points if section.report else {}
    for key, points in (("report.points", reported), ("still", section.still), ("same_as", section.same_as)):
        for point in points:
            if point not in template.points:
                raise ConfigError(f"{where}.{key}: got {shown(point)}, want one of {known}")
    for point, band in reported.items():
        if band != DeadbandSection() and not is_number(template.points[point]):
            raise ConfigError(f"{where}.report.points.{point}: got a deadband, want none: the point is no number")


def check_pairs(devices: Mapping[str, DeviceSection], templates: Mapping[str, Template], where: str) -> None:
    """Refuse a pair with a point that is not there, that is the same one, or that is measured in another unit."""
    for device, section in devices.items():
        for point, same in section.same_as.items():
            other, _, name = same.point.partition(".")
            found = templates[devices[other].template].points.get(name) if other in devices else None
            own, place = templates[section.template].points[point], f"{where}.{device}.same_as.{point}.point"
            if found is None or (other, name) == (device, point):
                raise ConfigError(f"{place}: got {shown(same.point)}, want <device>.<point> of another point")
            if found.unit != own.unit or is_number(found) != is_number(own):
                raise ConfigError(f"{place}: got {shown(same.point)} in {found.unit!r}, want a point in {own.unit!r}")


def is_number(point: PointSection) -> bool:
    """Return whether a point's values are numbers, and not texts or bits."""
    if isinstance(point, ModbusPointSection):
        return point.type not in {WireType.BIT, WireType.STRING}
    return str(getattr(point, "store", "f64")) in {"f32", "f64", "i64", "u64"}
