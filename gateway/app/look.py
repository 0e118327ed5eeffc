"""One reading of one device, with the raw words: for a person who connects a meter."""

from dataclasses import dataclass

from gateway.app.devices import limits_of
from gateway.codec.planner import Limits, plan
from gateway.codec.registers import Decoder
from gateway.config import GatewayConfig, points_of
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import Request
from gateway.errors import DeviceError
from gateway.model import Point, Quality, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one point said. words: its registers in hexadecimal, as they came; "" where nothing came."""

    point: str
    unit: str
    value: Value | None
    quality: Quality
    words: str
    status: str


async def look(config: GatewayConfig, device: str) -> list[Look]:
    """Read each point of a device once, in requests of its own, so that one bad register spoils no other."""
    section = config.devices[device]
    template = config.templates[section.template]
    points = {point.name: point for point in points_of(template)}
    bus = Bus(section.url, section.timeout_s)
    try:
        return [await _look(bus, section.unit_id, point, points, limits_of(template)) for point in points.values()]
    finally:
        await bus.close()


async def _look(bus: Bus, unit_id: int, point: Point, points: dict[str, Point], limits: Limits) -> Look:
    wanted = [point, points[point.scale_point]] if point.scale_point else [point]
    blocks = plan(wanted, limits)
    replies: list[bytes] = []
    try:
        for block in blocks:
            request = Request(unit_id=unit_id, function=block.function, address=block.address, count=block.count)
            replies.append(await bus.read(request))
    except DeviceError as e:
        return Look(point=point.name, unit=point.unit, value=None, quality=Quality.BAD, words="", status=str(e))
    values, qualities = Decoder(wanted, blocks).decode(replies)
    words = " | ".join(reply.hex(" ", 2) for reply in replies)
    quality = Quality.GOOD if qualities is None else qualities[0]
    status = "" if quality == Quality.GOOD else "not implemented, or no number"
    return Look(point=point.name, unit=point.unit, value=values[0], quality=quality, words=words, status=status)
