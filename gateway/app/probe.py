"""A point's registers, read twice, in all orders and types: for a person who doubts a template. Only reads."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.app.devices.modbus import limits_of
from gateway.codec.candidates import Candidate, best, candidates
from gateway.codec.planner import SPACE, Limits, is_bits, width
from gateway.config import GatewayConfig, ModbusTemplate, points_of
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import RefusedError, Request
from gateway.errors import ConfigError, DeviceError
from gateway.model import Kind, Point, WireType

_COUNTS = (4, 2, 1)
_SHRINKABLE = frozenset({0x02, 0x03})


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the registers of a point said.

    point: as it is set; a `U16` where nothing is set. replies: the registers at each reading, in bus order.
    present: how the configuration reads them, None without one. likeliest: None where nothing fits.
    refused: what the device said to a longer read, "" where it took the longest.
    """

    unit_id: int
    point: Point
    replies: tuple[bytes, ...]
    found: tuple[Candidate, ...]
    present: Candidate | None
    likeliest: Candidate | None
    refused: str = ""


async def probe_point(config: GatewayConfig, device: str, point: str, *, pause_s: float = 1.0) -> Probed:
    """Read a point of a device twice. Raises ConfigError for what cannot be probed, DeviceError for no answer."""
    section = config.devices[device]
    template = config.templates[section.template]
    if not isinstance(template, ModbusTemplate):
        raise ConfigError(f"{device}: got a device of {template.protocol}, want one of modbus: others say their types")
    points = {found.name: found for found in points_of(template)}
    if point not in points:
        raise ConfigError(f"{device}.{point}: got point {point!r}, want one of {', '.join(points)}")
    wanted = points[point]
    if is_bits(wanted.function) or wanted.type in {WireType.BIT, WireType.STRING}:
        raise ConfigError(f"{device}.{point}: got a {wanted.type}, want a number: `wattseal read` shows its words")
    bus = Bus(section.url, section.timeout_s)
    return await _probe(bus, section.unit_id, wanted, limits_of(template), pause_s, is_set=True)


async def probe_address(
    url: str,
    *,
    unit_id: int,
    function: int,
    address: int,
    unit: str = "",
    kind: Kind = Kind.GAUGE,
    timeout_s: float = 1.0,
    pause_s: float = 1.0,
) -> Probed:
    """Read up to four registers from an address on, twice. Raises ConfigError, and DeviceError for no answer."""
    if function not in {3, 4}:
        raise ConfigError(f"function: got {function}, want 3 or 4: only registers have orders")
    point = Point(name="probed", function=function, address=address, type=WireType.U16, unit=unit, kind=kind)
    return await _probe(Bus(url, timeout_s), unit_id, point, Limits(), pause_s, is_set=False)


async def _probe(bus: Bus, unit_id: int, point: Point, limits: Limits, pause_s: float, *, is_set: bool) -> Probed:
    least = width(point)
    counts = [
        count
        for count in _COUNTS
        if least <= count <= limits.max_registers
        and point.address + count <= SPACE
        and (count == least or not limits.forbids(point.function, point.address, point.address + count))
    ]
    try:
        first, refused = await _longest(bus, unit_id, point, counts)
        await asyncio.sleep(pause_s)
        again = await bus.read(_request(unit_id, point, len(first) // 2))
    finally:
        await bus.close()
    replies = (first, again)
    found = candidates(point, replies)
    present = next((each for each in found if is_set and (each.type, each.order) == (point.type, point.order)), None)
    return Probed(
        unit_id=unit_id,
        point=point,
        replies=replies,
        found=found,
        present=present,
        likeliest=best(found, present),
        refused=refused,
    )


async def _longest(bus: Bus, unit_id: int, point: Point, counts: Sequence[int]) -> tuple[bytes, str]:
    """Return the registers of the longest read that the device takes, and what it said to a longer one."""
    refused = ""
    for count in counts:
        try:
            return await bus.read(_request(unit_id, point, count)), refused
        except RefusedError as e:
            if e.code not in _SHRINKABLE:
                raise
            refused = f"{count} registers: {e}"
    raise DeviceError(f"FC{point.function} {point.address}: {refused or 'nothing may be read there'}")


def _request(unit_id: int, point: Point, count: int) -> Request:
    return Request(unit_id=unit_id, function=point.function, address=point.address, count=count)
