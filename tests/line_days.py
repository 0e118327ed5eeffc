"""A simulated line for the alerts: minutes of energy, counts, factor and starts, with faults to put in."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import floor, pi, sin

from gateway.carbon.alerts.observe import MINUTE_NS, Observation
from gateway.carbon.energy import Flag
from gateway.carbon.setting import Setting

DAY0_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
SHIFT_MIN = 480


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a line truly does in a minute: kW, units/h, kWh/unit, kg/kWh, starts/h."""

    fixed_kw: float = 60.0
    compressor_kw: float = 300.0
    kwh_per_unit: float = 1.10
    units_per_h: float = 600.0
    factor: float = 0.40
    starts_per_h: float = 6.0
    duty: float = 0.45
    counts: bool = True
    product: str = "A"
    job: str = "J1"
    state: str = "producing"

    @property
    def kg_per_unit(self) -> float:
        """The facts' formula."""
        return self.factor * ((self.fixed_kw + self.compressor_kw) / self.units_per_h + self.kwh_per_unit)


Change = Callable[[int, Truth], Truth]
"""What is otherwise in a minute (from the start of the story)."""


def as_usual(minute: int, truth: Truth) -> Truth:  # noqa: ARG001
    """Change nothing."""
    return truth


def between(start: int, end: int, **what: float | str | bool) -> Change:
    """Return a fault that lasts from a minute to another."""
    return lambda minute, truth: replace(truth, **what) if start <= minute < end else truth  # type: ignore[arg-type]


def breaks(minute: int, truth: Truth) -> Truth:
    """Stop for half an hour in the middle of each shift; start slowly in its first ten minutes."""
    at = minute % SHIFT_MIN
    if 240 <= at < 270:
        return replace(truth, state="idle", units_per_h=0.0, compressor_kw=90.0, starts_per_h=2.0)
    if at < 8 or 270 <= at < 275:
        return replace(truth, units_per_h=truth.units_per_h * 0.5)
    return truth


@dataclass
class Line:
    """Minutes of a line. step_kwh: of its registers. alike: how much one minute's noise is like the last one's."""

    seed: int
    truth: Truth = field(default_factory=Truth)
    noise: float = 0.02
    step_kwh: float = 0.0
    alike: float = 0.0
    told: bool = True
    _registers: dict[str, float] = field(default_factory=dict)
    _moods: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def _noisy(self, what: str, value: float) -> float:
        fresh = self._random.gauss(0, 1)
        mood: float = self.alike * self._moods.get(what, 0.0) + (1 - self.alike**2) ** 0.5 * fresh
        self._moods[what] = mood
        return float(value * (1 + self.noise * mood))

    def _counted(self, what: str, amount: float, step: float) -> float:
        before = self._registers.get(what, 0.0)
        after = self._registers[what] = before + amount
        return floor(after / step) * step - floor(before / step) * step if step else amount

    def minutes(self, first: int, last: int, *changes: Change) -> Iterator[Observation]:
        """Yield the minutes from first to last - 1."""
        for minute in range(first, last):
            truth = self.truth
            for change in changes:
                truth = change(minute, truth)
            yield self._minute(minute, truth)

    def _minute(self, minute: int, truth: Truth) -> Observation:
        rate = self._noisy("rate", truth.units_per_h)
        rest = self._noisy("rest", truth.fixed_kw + truth.kwh_per_unit * rate)
        energy = {
            "line": self._counted("line", rest / 60, self.step_kwh),
            "compressor": self._counted(
                "compressor", self._noisy("compressor", truth.compressor_kw) / 60, self.step_kwh
            ),
        }
        start_ns = DAY0_NS + minute * MINUTE_NS
        shift = minute // SHIFT_MIN
        units = self._counted("units", rate / 60, 1.0)
        starts = self._counted("starts", truth.starts_per_h / 60, 1.0)
        return Observation(
            start_ns=start_ns,
            end_ns=start_ns + MINUTE_NS,
            setting=Setting(
                state=truth.state if self.told else "",
                product=truth.product if self.told else "",
                job=truth.job if self.told else "",
                shift=f"{shift // 3}/{['early', 'late', 'night'][shift % 3]}",
            ),
            energy_kwh=energy,
            rest=frozenset({"line"}),
            co2e_kg=truth.factor * sum(energy.values()),
            units_good=units if truth.counts else None,
            starts={"compressor": round(starts)},
            loaded_s={"compressor": 60 * truth.duty},
            flags=frozenset() if truth.counts else frozenset({Flag.NO_VALUE}),
            shift_end_ns=DAY0_NS + (shift + 1) * SHIFT_MIN * MINUTE_NS,
        )


def daily_factor(minute: int, truth: Truth) -> Truth:
    """Let the grid be 15 % dirtier at one time of the day, and cleaner at another."""
    return replace(truth, factor=truth.factor * (1 + 0.15 * sin(2 * pi * (minute // 60) / 24)))


def three_products(minute: int, truth: Truth) -> Truth:
    """Make one product after the other, each for five hours, in jobs of their own, a quarter of an hour between."""
    number, at = divmod(minute, 300)
    if at < 15:
        truth = replace(truth, state="setup", units_per_h=0.0, compressor_kw=120.0)
    kwh, rate = ((1.10, 600.0), (1.455, 500.0), (0.9, 720.0))[number % 3]
    rate = 0.0 if truth.units_per_h == 0 else rate * truth.units_per_h / 600.0
    return replace(truth, product="ABC"[number % 3], job=f"J{number}", kwh_per_unit=kwh, units_per_h=rate)


def nights_off(minute: int, truth: Truth) -> Truth:
    """Stand still in the night shift, with the compressor holding the pressure."""
    if minute // SHIFT_MIN % 3 == 2:
        return replace(truth, state="idle", units_per_h=0.0, compressor_kw=40.0, starts_per_h=1.0)
    return truth
