"""One reading of one device, with the raw words: for a person who connects a meter."""

from dataclasses import dataclass

from gateway.app.devices.modbus import limits_of
from gateway.app.polled import polled
from gateway.codec.planner import Limits, plan
from gateway.codec.registers import Decoder
from gateway.config import GatewayConfig, ModbusTemplate, points_of
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import Request, SilentError, UnreachableError
from gateway.errors import ConfigError, DeviceError
from gateway.model import Point, Quality, Row, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one point said.

    words: its registers in hexadecimal, as they came; "" where nothing came, or its protocol has none.
    source_time_ns: the device's own time, where its protocol has one; else 0.
    """

    point: str
    unit: str
    value: Value | None
    quality: Quality
    words: str
    status: str
    source_time_ns: int = 0


_MOST_SILENCES = 2


async def look(config: GatewayConfig, device: str, point: str = "") -> list[Look]:
    """Read each point of a device once, or one alone.

    By Modbus, each in requests of its own: one bad register spoils no other. Once two in a row had no answer, the rest
    is not asked for. By another protocol, as its driver polls it. Raises ConfigError for a point that the device has
    not, and DeviceError where such a driver got no answer.
    """
    section = config.devices[device]
    template = config.templates[section.template]
    if point and point not in template.points:
        raise ConfigError(f"{device}.{point}: got point {point!r}, want one of {', '.join(template.points)}")
    if not isinstance(template, ModbusTemplate):
        row = await polled(config, device)
        return [each for each in looks_of(row) if point in {"", each.point}]
    points = {found.name: found for found in points_of(template)}
    bus = Bus(section.url, section.timeout_s)
    looks: list[Look] = []
    silences = 0
    try:
        for wanted in [points[point]] if point else points.values():
            if silences >= _MOST_SILENCES:
                looks.append(_bad(wanted, f"not asked: {looks[-1].status.removeprefix('not asked: ')}"))
                continue
            try:
                looks.append(await _look(bus, section.unit_id, wanted, points, limits_of(template)))
                silences = 0
            except (SilentError, UnreachableError) as e:
                looks.append(_bad(wanted, str(e)))
                silences += 1
            except DeviceError as e:
                looks.append(_bad(wanted, str(e)))
                silences = 0
    finally:
        await bus.close()
    return looks


def looks_of(row: Row) -> list[Look]:
    """Return what a row says, point by point; of its status, the part that names the point where there is one."""
    said = row.status.split("; ")
    looks = []
    for place, column in enumerate(row.schema.columns):
        quality = Quality.GOOD if row.qualities is None else row.qualities[place]
        own = [part for part in said if part.startswith(f"{column.name}: ")]
        status = "" if quality == Quality.GOOD else "; ".join(own) or row.status
        looks.append(
            Look(
                point=column.name,
                unit=column.unit,
                value=row.values[place],
                quality=quality,
                words="",
                status=status,
                source_time_ns=row.source_time_ns,
            )
        )
    return looks


def _bad(point: Point, status: str) -> Look:
    return Look(point=point.name, unit=point.unit, value=None, quality=Quality.BAD, words="", status=status)


async def _look(bus: Bus, unit_id: int, point: Point, points: dict[str, Point], limits: Limits) -> Look:
    wanted = [point, points[point.scale_point]] if point.scale_point else [point]
    blocks = plan(wanted, limits)
    replies: list[bytes] = []
    for block in blocks:
        request = Request(unit_id=unit_id, function=block.function, address=block.address, count=block.count)
        replies.append(await bus.read(request))
    values, qualities = Decoder(wanted, blocks).decode(replies)
    words = " | ".join(reply.hex(" ", 2) for reply in replies)
    quality = Quality.GOOD if qualities is None else qualities[0]
    status = "" if quality == Quality.GOOD else "not implemented, or no number"
    return Look(point=point.name, unit=point.unit, value=values[0], quality=quality, words=words, status=status)
