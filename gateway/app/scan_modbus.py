"""Which Modbus unit ids answer, and which models of the catalogue they may be. Only reads, one at a time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.app.devices.modbus import limits_of
from gateway.app.load import template_names, template_text
from gateway.codec.modelfit import Fit, Mark, Model, Reading, blocks_of, fit, ranked
from gateway.codec.planner import Block
from gateway.codec.targets import Target
from gateway.config import ModbusTemplate, parse_template, points_of
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import RefusedError, Request, SilentError, UnreachableError
from gateway.errors import DeviceError
from gateway.model import Point

# What each unit is asked, until it answers: one register, which nearly every device has, or refuses.
_KNOCKS = ((3, 0), (4, 0))
# "Gateway ..." exceptions: a gateway speaks, and nobody is behind it at this unit id.
_NOBODY = frozenset({0x0A, 0x0B})
# How the driver's words begin where somebody answered, though not what was asked.
_WRONG = "wrong reply"
_MOST_SILENCES = 2
_RECONNECTS, _RECONNECT_S = 3, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundUnit:
    """One unit id that answers.

    said: its words to the first question that it answered. fits: the best first; None where none was looked for.
    """

    url: str
    unit_id: int
    said: str
    fits: tuple[Fit, ...] | None = None


@dataclass(slots=True, kw_only=True)
class Found:
    """What a scan has found so far; good to be shown at any time.

    unreachable: by URL, why. gateways: by URL, how many unit ids a gateway says are not there. asked: unit ids.
    """

    units: list[FoundUnit] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)
    gateways: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    requests: int = 0


Tell = Callable[[str, int], None]
"""Takes what is being asked, as URL and unit id, before it is."""


def catalogue() -> list[Model]:
    """Return all Modbus models of the catalogue, but those of the simulator's benchmarks."""
    models = []
    for name in template_names():
        template = parse_template(template_text(name), name)
        if isinstance(template, ModbusTemplate) and not name.startswith("wattseal-bench-"):
            models.append(model_of(name, template))
    return models


def model_of(name: str, template: ModbusTemplate) -> Model:
    """Return a template as a scan needs it."""
    probe, mark = template.probe, None
    if probe is not None:
        point = Point(
            name="its own mark",
            function=probe.function or template.function,
            address=probe.address,
            type=probe.type,
            order=probe.order,
            registers=probe.registers or 0,
        )
        mark = Mark(point=point, equals=frozenset(probe.equals), text=probe.text)
    return Model(
        template=name,
        title=template.title,
        verified=template.verified,
        points=points_of(template),
        limits=limits_of(template),
        mark=mark,
    )


async def scan(
    target: Target,
    found: Found,
    *,
    models: Sequence[Model],
    timeout_s: float = 0.5,
    pause_s: float = 0.02,
    tell: Tell = lambda *_: None,
) -> None:
    """Ask every unit id of every URL, one request at a time; note in found what answers, as it does.

    pause_s: between requests. models: what an answering unit is compared with; none: only who answers.
    Raises ConfigError for a URL that is none.
    """
    for url in target.urls:
        host = _Host(url, found, timeout_s=timeout_s, pause_s=pause_s)
        try:
            for unit_id in target.units:
                tell(url, unit_id)
                said = await host.knock(unit_id)
                found.asked += 1
                if said:
                    fits = ranked([await host.compare(unit_id, model) for model in models]) if models else None
                    found.units.append(FoundUnit(url=url, unit_id=unit_id, said=said, fits=fits))
                    host.forget()
        except UnreachableError as e:
            found.unreachable[url] = str(e)
        finally:
            await host.bus.close()


class _Host:
    """One connection, and what has been read of the unit that is being looked at."""

    def __init__(self, url: str, found: Found, *, timeout_s: float, pause_s: float) -> None:
        self.bus = Bus(url, timeout_s)
        self._url, self._found, self._pause_s = url, found, pause_s
        self._least_unit = 1 if self.bus.is_rtu else 0
        self._read: dict[tuple[int, int, int], Reading] = {}
        self._silences = 0

    def forget(self) -> None:
        """Go on to another unit."""
        self._read.clear()
        self._silences = 0

    async def knock(self, unit_id: int) -> str:
        """Return what a unit answers to a read of one register; "" where nobody does."""
        if unit_id < self._least_unit:
            return ""  # a broadcast on a serial line
        for function, address in _KNOCKS:
            where = f"FC {function}, register {address}"
            try:
                reply = await self._ask(Request(unit_id=unit_id, function=function, address=address, count=1))
            except RefusedError as e:
                if e.code in _NOBODY:
                    self._found.gateways[self._url] = self._found.gateways.get(self._url, 0) + 1
                    return ""
                return f"{where}: {e}"
            except UnreachableError:
                raise
            except DeviceError as e:
                if str(e).startswith(_WRONG):
                    return f"{where}: {e}"
                continue
            return f"{where}: 0x{reply.hex()}"
        return ""

    async def compare(self, unit_id: int, model: Model) -> Fit:
        """Return how well a unit fits a model; what it refuses is not asked twice, nor is the rest of that model."""
        readings: list[Reading] = []
        for place, block in enumerate(blocks_of(model)):
            reading = await self._reading(unit_id, block)
            readings.append(reading)
            is_mark = place == 0 and model.mark is not None
            if reading.refused and not is_mark:
                break
        return fit(model, readings)

    async def _reading(self, unit_id: int, block: Block) -> Reading:
        key = (block.function, block.address, block.count)
        if key in self._read:
            return self._read[key]._replace(block=block)
        if self._silences >= _MOST_SILENCES:
            return Reading(block, None, "not asked: it had stopped answering")
        request = Request(unit_id=unit_id, function=block.function, address=block.address, count=block.count)
        try:
            reading = Reading(block, await self._ask(request))
            self._silences = 0
        except RefusedError as e:
            reading = Reading(block, None, str(e), refused=True)
        except UnreachableError:
            raise
        except SilentError as e:
            self._silences += 1
            reading = Reading(block, None, str(e))
        except DeviceError as e:
            reading = Reading(block, None, str(e))
        self._read[key] = reading
        return reading

    async def _ask(self, request: Request) -> bytes:
        """Ask, a pause after what was asked before; connect again to a host that was there, and has hung up."""
        for left in range(_RECONNECTS, -1, -1):
            await asyncio.sleep(self._pause_s)
            self._found.requests += 1
            try:
                return await self.bus.read(request)
            except UnreachableError:
                if not left or not self.bus.connects:
                    raise
                await asyncio.sleep(_RECONNECT_S)
        raise AssertionError  # never: the last attempt returns or raises
