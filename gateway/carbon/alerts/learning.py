"""Collects a line's clean shifts until they make a baseline. Bounded: what is kept for one product has a most."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.carbon.alerts.baseline import Baseline, learn
from gateway.carbon.alerts.windows import Window

Key = tuple[str, str]
"""Product and recipe."""

LEAST_WINDOWS = 6
"""So many windows of a product make a shift of it: half an hour."""
LEAST_LEARNED = 24
"""So many windows make a baseline, at least: two hours."""
MOST_WINDOWS = 6_000
MOST_KEYS = 200
MOST_DRIFT = 0.10
"""A newer baseline further than this from the first of its product is not taken: slow decay is no new normal."""


NEW = "it has no baseline yet"
OTHER_METERS = "its meters are others than those that its baseline was learned with"
TOO_SHORT = "less than two hours of it were made in them"


class Progress(NamedTuple):
    """How far a product and recipe is that is learned. shifts: clean ones so far, of those that are wanted."""

    product: str
    recipe: str
    shifts: int
    wanted: int
    why: str


@dataclass(slots=True)
class _Pool:
    """The clean shifts of one product and recipe so far."""

    shifts: int = 0
    windows: list[Window] = field(default_factory=list)
    idle: list[Window] = field(default_factory=list)


class Learner:
    """Takes windows, shift by shift. learn_shifts: so many clean ones make a baseline. loads: as `learn`."""

    def __init__(self, learn_shifts: int, loads: Mapping[str, str]) -> None:
        self.wanted, self._loads = learn_shifts, loads
        self._pools: dict[Key, _Pool] = {}
        self._shift: str | None = None
        self._now: dict[Key, list[Window]] = {}
        self._idle: list[Window] = []
        self._clean = True

    def soil(self) -> None:
        """Say that the shift that runs is not clean: nothing of it is learned."""
        self._clean = False

    def add(self, key: Key, window: Window) -> None:
        """Take a window of production."""
        held = self._now.setdefault(key, [])
        if len(held) < MOST_WINDOWS:
            held.append(window)

    def add_idle(self, window: Window) -> None:
        """Take a window of a standstill."""
        if len(self._idle) < MOST_WINDOWS:
            self._idle.append(window)

    def anew(self, key: Key) -> None:
        """Begin anew with a product; what is left of the shift that runs counts as a clean one."""
        self._pools[key] = _Pool()
        self._now, self._idle, self._clean = {}, [], True

    def progress(self, baselines: Mapping[Key, Baseline]) -> Iterator[Progress]:
        """Yield how far each product is that was made and has no baseline of its meters."""
        for key in dict.fromkeys([*self._pools, *self._now]):
            pool = self._pools.get(key, _Pool())
            windows = self._now.get(key) or pool.windows
            baseline = baselines.get(key)
            if baseline is not None and windows and baseline.covers(windows[-1].energy_kwh):
                continue
            why = NEW if baseline is None else OTHER_METERS
            why = TOO_SHORT if pool.shifts >= self.wanted else why
            yield Progress(*key, pool.shifts, self.wanted, why)

    def enter(self, shift: str, baselines: Mapping[Key, Baseline]) -> Iterator[Baseline]:
        """Say which shift runs; yield the baselines that are complete with the one that has ended."""
        if shift == self._shift:
            return
        ended, idle, clean = self._now, self._idle, self._clean
        self._shift, self._now, self._idle, self._clean = shift, {}, [], True
        if not clean:
            return
        for key, taken in ended.items():
            learned_ns = baselines[key].until_ns if key in baselines else 0
            windows = [window for window in taken if window.start_ns >= learned_ns]  # others were, before a restart
            if len(windows) < LEAST_WINDOWS:
                continue
            pool = self._pool(key, windows[0])
            pool.shifts += 1
            pool.windows = [*pool.windows, *windows][-MOST_WINDOWS:]
            pool.idle = [*pool.idle, *idle][-MOST_WINDOWS:]
            if pool.shifts >= self.wanted and len(pool.windows) >= LEAST_LEARNED:
                del self._pools[key]
                learned = self._learned(key, pool, baselines.get(key))
                if learned is not None:
                    yield learned

    def _pool(self, key: Key, first: Window) -> _Pool:
        pool = self._pools.pop(key, None)
        if pool is None or (pool.windows and set(pool.windows[0].energy_kwh) != set(first.energy_kwh)):
            pool = _Pool()
        self._pools[key] = pool  # the newest last
        if len(self._pools) > MOST_KEYS:
            del self._pools[next(iter(self._pools))]
        return pool

    def _learned(self, key: Key, pool: _Pool, before: Baseline | None) -> Baseline | None:
        assets = set(pool.windows[-1].energy_kwh)
        windows = [window for window in pool.windows if set(window.energy_kwh) == assets]
        if before is not None and not before.covers(assets):
            before = None
        new = learn(
            windows, pool.idle, shifts=pool.shifts, loads=self._loads, before=before, product=key[0], recipe=key[1]
        )
        drifted = abs(new.expected_kw(new.units_per_h) - new.first_kw) > MOST_DRIFT * abs(new.first_kw)
        return None if before is not None and drifted else new
