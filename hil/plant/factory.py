"""The plant: assets, faults, a timetable, and the truth to compare a gateway's figures with.

Base case (CI = EF * (F/N + C/N + v)): HVAC and services 60 kW, compressor 300 kW, 600 good units an
hour, press and filler 0.70 + 0.40 kWh a unit: 1.7 kWh, and at 0.40 kg/kWh 0.68 kg a unit. A broken
compressor valve (585 kW, 30 starts an hour instead of 6) makes it 0.87 kg.
"""

from __future__ import annotations

import itertools
import time
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from hil.plant import devices, production
from hil.plant.devices import ROUNDING, Device, Start
from hil.plant.physics import Flow, Noise, Shape
from hil.plant.production import EXECUTE, HEAVY, STOPPED, Production

HVAC_KW = 60.0
COMPRESSOR_KW = 300.0
UNITS_PER_HOUR = 600.0
PRESS_KWH, FILLER_KWH = 0.70, 0.40
HEAVY_UNITS_PER_HOUR = 500.0
UNLOADED_SHARE, UNLOADED_S = 0.25, 6.0
"""The compressors unload briefly, once a cycle: so one can count starts, and minute averages still settle."""
MOST_NOISE = 0.1
"""Its reach is 2.45 times that: within UNLOADED_SHARE, so that no power is negative and no energy falls."""

FAULTS: Mapping[str, float] = {
    "compressor-valve": 585.0,  # kW
    "slow-line": 334.88,  # good units an hour
    "stopped": 0.0,  # units an hour
    "heavy-sku": 1.455,  # kWh a unit, at 500 units an hour
    "no-counts": 0.0,  # units an hour that the controller counts
}
"""Each fault with what it sets its quantity to, unless the command says otherwise."""

STARTS: Mapping[int, int] = {1: 12_000, 2: 18_500_000, 3: 94_000_000, 4: 10_600_000, 5: 120_000}
"""First register values, in register steps. Unit 1's are kWh in a float32: 12,000 leave its step at 1 Wh, up to
16,384; a plant at speed 300 gets there in three minutes, and then the step is 2 Wh."""
PHOENIX_START = 106_000
COMMANDS = f"fault NAME [VALUE] | repair NAME | kill UNIT | revive UNIT | swap UNIT | {production.COMMANDS} | state"


class CommandError(ValueError):
    """Raised when a command is not understood; the text says what was got and wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What really happened since the start, whatever the registers say.

    good, total: units made; starts: of the compressor. power_w and energy_wh: by asset.
    """

    wall_s: float
    plant_s: float
    energy_wh: dict[str, float]
    power_w: dict[str, float]
    good: int
    total: int
    starts: int
    sku: int
    state: int
    mode: int
    recipe: int
    job: int
    faults: dict[str, float]
    dead: list[int]


class Plant:
    """A small factory that runs in plant time: speed plant seconds for each second of the clock.

    clock: seconds that never go back. noise: standard deviation of each power, as a share; its
    integral is zero. scrap: share of the units made that is not good; energies are a *good* unit.
    starts: first value of unit -> register, in the register's own steps, or `wrap`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        noise: float = 0.02,
        scrap: float = 0.02,
        starts: Mapping[int, Start] | None = None,
        filler: Literal["abb-b23", "phoenix-eem-ma370"] = "abb-b23",
    ) -> None:
        if not 0 <= noise <= MOST_NOISE or not 0 <= scrap < 1 or speed <= 0:
            raise ValueError(f"got noise={noise} scrap={scrap} speed={speed}, want 0..{MOST_NOISE}, 0..1 and above 0")
        self.seed, self.speed, self._clock, self._yield = seed, speed, clock, 1 - scrap
        self._began = clock()
        self._at = 0.0
        self._faults: dict[str, float] = {}
        self._timetable: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self.production = Production()
        self._good, self._counted = Flow(Shape(mean=0)), Flow(Shape(mean=0))
        self.assets = {
            name: Flow(Shape(mean=0), Noise(seed=seed, channel=name, sigma=noise))
            for name in ("compressor", "press", "hvac", "filler")
        }
        self._settle(0.0)
        self.devices = self._install(starts or {}, filler)

    def now(self) -> float:
        """Return the plant second, with everything done that the timetable had due until then."""
        t = max(self._at, (self._clock() - self._began) * self.speed)
        while self._timetable and self._timetable[0][0] <= t:
            due, _, command = self._timetable.pop(0)
            self._do(command.split(), max(due, self._at))
        self._at = t
        return t

    def do(self, command: str) -> None:
        """Do one command now. Raises CommandError."""
        self._do(command.split(), self.now())

    def schedule(self, after_s: float, command: str) -> None:
        """Do a command so many seconds of the clock after the start: at that instant, whoever looks when."""
        self._check(command.split())
        insort(self._timetable, (after_s * self.speed, next(self._order), command))

    def truth(self) -> Truth:
        """Return what really happened until now."""
        t = self.now()
        return Truth(
            wall_s=t / self.speed,
            plant_s=t,
            energy_wh={name: flow.total(t) for name, flow in self.assets.items()},
            power_w={name: flow.rate(t) for name, flow in self.assets.items()},
            good=int(self._good.total(t) + ROUNDING),
            total=int(self._good.total(t) / self._yield + ROUNDING),
            starts=self.assets["compressor"].cycles(t),
            sku=int(self._sku(t)),
            state=int(self._state(t)),
            mode=self.production.mode,
            recipe=int(self._recipe(t)),
            job=self.production.job,
            faults=dict(self._faults),
            dead=[device.unit for device in self.devices.values() if not device.alive],
        )

    def units_per_hour(self) -> float:
        """Return how many good units an hour are made now."""
        self.now()
        return self._good.shape.mean

    def state(self) -> dict[str, object]:
        """Return the truth as JSON can hold it."""
        return asdict(self.truth())

    def _check(self, words: list[str]) -> None:
        match words:
            case ["fault", name] | ["repair", name] if name in FAULTS:
                return
            case ["fault", name, value] if name in FAULTS and _is_amount(value):
                return
            case ["kill" | "revive" | "swap", unit] if unit in map(str, self.devices):
                return
            case _ if self.production.takes(words):
                return
        raise CommandError(
            f"got {' '.join(words)!r}, want {COMMANDS}; NAME {', '.join(FAULTS)}; UNIT 1..{len(self.devices)}"
        )

    def _do(self, words: list[str], t: float) -> None:
        self._check(words)
        match words:
            case ["fault", name, *value]:
                self._faults[name] = float(value[0]) if value else FAULTS[name]
            case ["repair", name]:
                self._faults.pop(name, None)
            case ["swap", unit]:
                self.devices[int(unit)].swap(t)
            case ["kill" | "revive" as verb, unit]:
                self.devices[int(unit)].alive = verb == "revive"
            case _:
                self.production.do(words)
        self._at = t
        self._settle(t)

    def _settle(self, t: float) -> None:
        """Let every flow go on from t as the faults have it."""
        faults = self._faults
        heavy = "heavy-sku" in faults or self.production.product == HEAVY
        rate = HEAVY_UNITS_PER_HOUR if heavy else UNITS_PER_HOUR
        rate = min([rate, *(faults[name] for name in ("slow-line", "stopped") if name in faults)])
        rate = rate if self.production.state == EXECUTE else 0.0
        kwh = faults.get("heavy-sku", FAULTS["heavy-sku"] if heavy else PRESS_KWH + FILLER_KWH)
        press_share = PRESS_KWH / (PRESS_KWH + FILLER_KWH)
        # Rounded, so that 0.70 kWh a unit is 420 kW and not a bit less, which would lose a register step.
        self.assets["press"].change(Shape(mean=round(1000 * rate * kwh * press_share, 6)), t)
        self.assets["filler"].change(Shape(mean=round(1000 * rate * kwh * (1 - press_share), 6)), t)
        self.assets["hvac"].change(Shape(mean=1000 * HVAC_KW), t)
        broken = "compressor-valve" in faults
        compressor_w = 1000 * faults.get("compressor-valve", COMPRESSOR_KW)
        period_s = 3600 / (30 if broken else 6)
        self.assets["compressor"].change(
            Shape(mean=compressor_w, period_s=period_s, low=UNLOADED_SHARE * compressor_w, low_s=UNLOADED_S), t
        )
        self._good.change(Shape(mean=rate), t)
        self._counted.change(Shape(mean=min(rate, faults.get("no-counts", rate))), t)

    def _state(self, _t: float) -> float:
        """Return the PackML state: that of the production; Stopped where a fault keeps it from executing."""
        stands = self.production.state == EXECUTE and self._good.shape.mean <= 0
        return STOPPED if stands else self.production.state

    def _sku(self, _t: float) -> float:
        return HEAVY if "heavy-sku" in self._faults else self.production.product

    def _recipe(self, t: float) -> float:
        return 10 * self._sku(t)

    def _install(self, starts: Mapping[int, Start], filler: str) -> dict[int, Device]:
        if unknown := set(starts) - set(STARTS):
            raise ValueError(f"got a start for unit {min(unknown)}, want 1..{len(STARTS)}")
        phoenix = filler == "phoenix-eem-ma370"
        first: dict[int, Start] = {**STARTS, **({4: PHOENIX_START} if phoenix else {}), **starts}
        kinds = (devices.sdm630, devices.b23, devices.iem3000, devices.eem_ma370 if phoenix else devices.b23)
        meters = [
            make(unit, name, flow.rate, flow.total, first[unit])
            for unit, (make, (name, flow)) in enumerate(zip(kinds, self.assets.items(), strict=True), 1)
        ]
        plc = devices.line_plc(
            5,
            first[5],
            good=self._counted.total,
            total=lambda t: self._counted.total(t) / self._yield,
            state=self._state,
            sku=self._sku,
            job=lambda _: self.production.job,
            recipe=self._recipe,
        )
        return {device.unit: device for device in (*meters, plc)}


def _is_amount(text: str) -> bool:
    try:
        return 0 <= float(text) < 1e9
    except ValueError:
        return False
