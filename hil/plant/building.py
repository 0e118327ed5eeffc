"""A heated hall: one resistance, one capacity, a thermostat, a day of weather. Behind a Modbus device of its own.

It runs in steps of a minute of plant time, each step exact for constant weather and heat.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable

from hil.plant.devices import Counter, Device, Field

STEP_S = 60.0
R_K_PER_KW, C_KWH_PER_K = 0.5, 40.0
COP, MOST_HEAT_KW = 3.0, 120.0
BAND_KW_PER_K = 60.0
DAY_C, NIGHT_C = 21.0, 17.0
"""The set-point by day, from 6 to 20 h, and by night."""
_U16 = struct.Struct(">h")
_U32 = struct.Struct(">I")


class Building:
    """The hall. A world for hil/replay: `now`, `devices`.

    clock: plant seconds. noise_k: of the indoor sensor, standard deviation. hidden_kw: heat of a kind that nobody
    meters, which comes and goes: what no model of two parameters can explain.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Callable[[], float],
        outdoor_c: float = 0.0,
        swing_c: float = 4.0,
        noise_k: float = 0.05,
        hidden_kw: float = 0.0,
    ) -> None:
        self._clock, self._outdoor_c, self._swing_c = clock, outdoor_c, swing_c
        self._noise_k, self._hidden_kw = noise_k, hidden_kw
        self._chance = random.Random(seed)
        self._t = 0.0
        self.indoor_c, self.shown_c, self.heat_kw, self.heat_kwh = DAY_C, DAY_C, 0.0, 0.0
        self.day_c, self.night_c = DAY_C, NIGHT_C
        self.devices = {1: self._device(1)}

    def now(self) -> float:
        """Return the plant second, with all steps until then done."""
        t = self._clock()
        while self._t + STEP_S <= t:
            self._step()
        return t

    def outdoor_c(self) -> float:
        """Return the weather of the step that is under way."""
        return self._outdoor_c - self._swing_c * math.cos(2 * math.pi * (self._t / 86_400 - 4 / 24))

    def setpoint_c(self) -> float:
        """Return what the thermostat wants now."""
        return self.day_c if 6 <= self._t / 3600 % 24 < 20 else self.night_c

    def electric_w(self) -> float:
        """Return what the heat pump draws."""
        return 1000 * self.heat_kw / COP

    def _step(self) -> None:
        outdoor_c = self.outdoor_c()
        held_kw = (self.setpoint_c() - outdoor_c) / R_K_PER_KW
        self.heat_kw = min(MOST_HEAT_KW, max(0.0, held_kw + BAND_KW_PER_K * (self.setpoint_c() - self.indoor_c)))
        hidden_kw = self._hidden_kw * (self._chance.random() < 0.5) if self._t % 7200 < STEP_S else self._last_hidden
        self._last_hidden = hidden_kw
        settles_at = outdoor_c + R_K_PER_KW * (self.heat_kw + hidden_kw)
        share = math.exp(-STEP_S / 3600 / (R_K_PER_KW * C_KWH_PER_K))
        self.indoor_c = settles_at + (self.indoor_c - settles_at) * share
        self.shown_c = self.indoor_c + self._chance.gauss(0, self._noise_k)
        self.heat_kwh += self.heat_kw * STEP_S / 3600
        self._t += STEP_S

    _last_hidden = 0.0

    def _device(self, unit: int) -> Device:
        energy = Counter(source=lambda _: 1000 * self.heat_kwh / COP, step=1.0, start=250_000, modulus=2**32)
        return Device(
            unit=unit,
            asset="building",
            template="wattseal-plant-building",
            function=4,
            windows=(range(8),),
            fields=(
                Field(address=0, layout=_U16, value=lambda _: round(100 * self.shown_c)),
                Field(address=1, layout=_U16, value=lambda _: round(100 * self.outdoor_c())),
                Field(address=2, layout=_U16, value=lambda _: round(100 * self.setpoint_c())),
                Field(address=4, layout=_U32, value=lambda _: round(self.electric_w())),
                Field(address=6, layout=_U32, value=energy),
            ),
            counters=(energy,),
        )
