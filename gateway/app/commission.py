"""A meter's power and energy register, read over some minutes for `gateway.codec.commission` to judge. Only reads."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from gateway.app.devices.modbus import limits_of
from gateway.app.polled import agent_driver, drivers_of
from gateway.codec.commission import Judgement, judge
from gateway.codec.commission_series import (
    ENERGY_UNITS,
    POWER_UNITS,
    Words,
    format_step_wh,
    instant_of,
    other_ways,
    series_of,
)
from gateway.codec.integral import Instant
from gateway.codec.planner import plan
from gateway.codec.registers import Decoder
from gateway.config import GatewayConfig, ModbusTemplate, Template, points_of
from gateway.config.templates import AgentTemplate
from gateway.drivers import Driver, Tell
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import Request
from gateway.errors import ConfigError, DeviceError
from gateway.model import Kind, Point, Quality, WireType

_POWERS = ("active_power", "total_active_power", "power")
_ENERGIES = ("import_energy", "active_energy", "total_energy", "energy")
_STORES = {"f32": WireType.F32, "f64": WireType.F64, "i64": WireType.S64, "u64": WireType.U64}
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two points that are held against each other, in W, kW or MW, and in Wh, kWh or MWh."""

    power: Point
    energy: Point


@dataclass(slots=True, kw_only=True)
class Taken:
    """What has been read so far; good to be judged at any time.

    words: the registers of each reading, where they are known. failed: readings that gave nothing, why: the last one.
    exponent: of the energy's scale factor, where it has one.
    """

    pair: Pair
    instants: list[Instant] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    failed: int = 0
    why: str = ""
    exponent: int = 0


Show = Callable[[float], None]
"""Takes the seconds since the start, after each reading."""


class Meter(Protocol):
    """What is read again and again."""

    async def read(self, taken: Taken) -> None:
        """Add one reading. Raises DeviceError where there is none."""

    async def close(self) -> None:
        """Give up the connection."""


def pair_of(config: GatewayConfig, device: str, power: str = "", energy: str = "") -> Pair:
    """Return the points to compare: those named, else those that go by the usual names, else the only ones.

    Raises ConfigError where there is none, or where there are several.
    """
    template = config.templates[config.devices[device].template]
    points = {point.name: point for point in _points(template)}
    powers = [name for name, point in points.items() if point.unit in POWER_UNITS and point.kind is Kind.GAUGE]
    energies = [name for name, point in points.items() if point.unit in ENERGY_UNITS and point.kind is Kind.COUNTER]
    return Pair(
        power=points[_chosen(device, "--power", power, powers, _POWERS)],
        energy=points[_chosen(device, "--energy", energy, energies, _ENERGIES)],
    )


def _chosen(device: str, option: str, named: str, there: Sequence[str], usual: Sequence[str]) -> str:
    if named in there:
        return named
    known = [name for name in usual if name in there]
    if not named and (known or len(there) == 1):
        return (known or there)[0]
    what = "power in W, kW or MW" if option == "--power" else "a counter in Wh, kWh or MWh"
    got = repr(named) if named else "nothing"
    raise ConfigError(f"{device}: {option}: got {got}, want one of {', '.join(there) or f'a point of {what}'}")


def _points(template: Template) -> tuple[Point, ...]:
    """Return a template's points; those of another protocol than Modbus with a type for the step of their values."""
    if isinstance(template, ModbusTemplate):
        return points_of(template)
    return tuple(
        Point(
            name=name,
            function=3,
            address=0,
            type=_STORES.get(getattr(point, "store", "u64"), WireType.U64),
            unit=point.unit,
            kind=point.kind,
            scale=Decimal(point.scale),
            offset=Decimal(point.offset),
            modulus=point.modulus,
        )
        for name, point in template.points.items()
    )


def meter_of(config: GatewayConfig, device: str, pair: Pair) -> Meter:
    """Return what reads a device. Nothing is connected yet. Raises ConfigError."""
    section = config.devices[device]
    template = config.templates[section.template]
    if isinstance(template, ModbusTemplate):
        return _ModbusMeter(Bus(section.url, section.timeout_s), section.unit_id, template, pair)
    if isinstance(template, AgentTemplate):
        agent = agent_driver(config, device, template)
        return _DriverMeter(agent, pair, follow=agent.follow)
    return _DriverMeter(drivers_of(config, template.protocol)[device], pair)


async def measure(meter: Meter, taken: Taken, *, seconds: float, period_s: float, show: Show) -> None:
    """Read a meter for so long, each period; at its start and at its end too. Raises DeviceError if nothing came."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        for tick in range(math.ceil(seconds / period_s) + 1):
            due_s = min(tick * period_s, seconds)
            late_s = loop.time() - began_s
            if late_s > due_s + period_s and due_s < seconds:
                continue  # never made up for
            await asyncio.sleep(max(0.0, due_s - late_s))
            try:
                await meter.read(taken)
            except DeviceError as e:
                taken.failed, taken.why = taken.failed + 1, str(e)
            show(loop.time() - began_s)
    finally:
        await meter.close()
    if not taken.instants:
        raise DeviceError(taken.why or "no reading")


def judgement_of(taken: Taken, rated_w: float | None = None) -> Judgement:
    """Return what the readings so far say."""
    power, energy = taken.pair.power, taken.pair.energy
    factor = ENERGY_UNITS[energy.unit]
    modulus_wh = None if energy.modulus is None else energy.modulus * abs(float(energy.scale)) * factor
    return judge(
        series_of(taken.instants, format_step_wh(energy, taken.instants, taken.exponent)),
        modulus_wh=modulus_wh,
        others=other_ways(power, energy, taken.words),
        rated_w=rated_w,
        failed=taken.failed,
    )


class _ModbusMeter:
    """Each point in a request of its own: what the template groups may be just what is wrong."""

    def __init__(self, bus: Bus, unit_id: int, template: ModbusTemplate, pair: Pair) -> None:
        points = {point.name: point for point in points_of(template)}
        self._bus = bus
        self._asked = []
        for point in (pair.power, pair.energy):
            wanted = [point, *([points[point.scale_point]] if point.scale_point else [])]
            blocks = plan(wanted, limits_of(template))
            requests = [Request(unit_id=unit_id, function=b.function, address=b.address, count=b.count) for b in blocks]
            self._asked.append((requests, Decoder(wanted, blocks)))

    async def read(self, taken: Taken) -> None:
        """Add what both points hold; NaN where their registers hold no number."""
        values: list[float] = []
        words: list[bytes] = []
        for requests, decoder in self._asked:
            replies = [await self._bus.read(request) for request in requests]
            decoded, _ = decoder.decode(replies)
            value, raw = decoded[0], decoder.raw(0, replies)
            values.append(math.nan if value is None or isinstance(value, str) else float(value))
            words.append(raw or b"")
            exponent = decoded[1] if len(decoded) > 1 else 0
            taken.exponent = exponent if isinstance(exponent, int) else 0  # the energy's is the last one
        t_s = asyncio.get_running_loop().time()
        taken.instants.append(instant_of(taken.pair.power, taken.pair.energy, t_s, values[0], values[1]))
        taken.words.append(Words(t_s, words[0], words[1]))

    async def close(self) -> None:
        """Close the connection."""
        await self._bus.close()


class _DriverMeter:
    """A device of any protocol, by its driver; the time is the device's own.

    follow: has to run for the driver to hear anything at all.
    """

    def __init__(
        self, driver: Driver, pair: Pair, follow: Callable[[Tell], Coroutine[None, None, None]] | None = None
    ) -> None:
        names = [column.name for column in driver.schema.columns]
        self._driver, self._follow = driver, follow
        self._following: asyncio.Task[None] | None = None
        self._places = names.index(pair.power.name), names.index(pair.energy.name)

    async def read(self, taken: Taken) -> None:
        """Add what both points say, if it is newer than the last."""
        if self._follow is not None and self._following is None:
            self._following = asyncio.create_task(self._follow(lambda _: None), name="commission.follow")
        row = (await self._driver.poll(samples=False)).row
        values = []
        for place in self._places:
            value = row.values[place]
            if value is None or isinstance(value, str) or (row.qualities and row.qualities[place] is not Quality.GOOD):
                raise DeviceError(row.status or "no good value")
            values.append(float(value))
        t_s = row.source_time_ns / _NS
        if not taken.instants or t_s > taken.instants[-1].t_s:
            taken.instants.append(instant_of(taken.pair.power, taken.pair.energy, t_s, values[0], values[1]))

    async def close(self) -> None:
        """Close the driver."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._driver.close()
