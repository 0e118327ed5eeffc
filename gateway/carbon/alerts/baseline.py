"""The baseline of a line's product and recipe: E = a + b x N for each asset, and how far it is usually off.

The slope is Theil-Sen's, the median of the slopes between pairs of windows. It was chosen over Huber's: it needs no
scale, no starting value and no iteration, so it is deterministic; it stands up to windows of odd throughput as well as
of odd energy; and up to 29 % of the windows may be wrong. Where the throughput hardly varies there is no slope to be
seen: then the plan says whether an asset's energy follows the time or the units; the rest's follows the units. Of
what follows the units, a is what is drawn at a standstill in the same shifts, where there was one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import NamedTuple

from gateway.carbon.alerts.cause import Load, Rates
from gateway.carbon.alerts.pooling import OTHERS, digest, pooled, to_keep
from gateway.carbon.alerts.usual import UsualFactor
from gateway.carbon.alerts.windows import REST, Window, inflation, middle, quantile, quantum, spread

MOST_FITTED = 160
"""So many windows are fitted, evenly chosen: the pairs grow with the square."""
FLAT = 0.15
"""The throughput varies where the 10th and the 90th percentile are this part of the median apart."""
LEAST_SIGMA = 0.005
"""Of the level: no meter is better."""


class AssetNorm(NamedTuple):
    """What an asset usually does. kw, kwh_per_unit: a and b. sigma_kw: of one window.

    starts_per_h, starts_spread (variance over mean, of the windows' starts), duty (0..1): None where not counted.
    idle_kw: at a standstill, None where there was none.
    """

    kw: float
    kwh_per_unit: float
    sigma_kw: float
    starts_per_h: float | None = None
    starts_spread: float | None = None
    duty: float | None = None
    idle_kw: float | None = None

    def expected_kw(self, units_per_h: float) -> float:
        """Return what it usually draws at a throughput."""
        return self.kw + self.kwh_per_unit * units_per_h

    def follows_units(self, units_per_h: float) -> bool:
        """Return whether most of it follows the units made, at a throughput."""
        return self.kwh_per_unit * units_per_h > self.kw


class Baseline(NamedTuple):
    """What is usual. All sigmas are of one window. factors: of the grid in the week before, as usual.py writes them.

    number: 1 for the first of its product, and so on. first_kw: the level of number 1, against slow drift.
    assets: the rest under "". others: a digest of the names of those that are pooled as OTHERS, "" where none are.
    """

    product: str
    recipe: str
    number: int
    shifts: int
    windows: int
    since_ns: int
    until_ns: int
    units_per_h: float
    units_sigma: float
    sigma_kw: float
    first_kw: float
    assets: Mapping[str, AssetNorm]
    others: str = ""
    factors: str = ""

    def covers(self, names: Collection[str]) -> bool:
        """Return whether it was learned of just these assets."""
        if not self.others:
            return set(self.assets) == set(names)
        return self.kept <= set(names) and digest(set(names) - self.kept) == self.others

    @property
    def kept(self) -> frozenset[str]:
        """The assets that have a norm of their own."""
        return frozenset(name for name in self.assets if not self.others or name != OTHERS)

    def expected_kw(self, units_per_h: float) -> float:
        """Return what the line usually draws at a throughput."""
        return sum(asset.expected_kw(units_per_h) for asset in self.assets.values())

    def rates(self, factor: float) -> Rates:
        """Return what its intensity is made of, at a factor."""
        rest = self.assets.get(REST, AssetNorm(0.0, 0.0, 0.0))
        return Rates(
            factor=factor,
            units_per_h=self.units_per_h,
            assets={name: Load(one.kw, one.kwh_per_unit) for name, one in self.assets.items() if name != REST},
            standby_kw=rest.kw,
            mix_kwh_per_unit=rest.kwh_per_unit,
        )


def learn(
    windows: Sequence[Window],
    idle: Sequence[Window],
    *,
    shifts: int,
    loads: Mapping[str, str],
    before: Baseline | None = None,
    product: str = "",
    recipe: str = "",
) -> Baseline:
    """Return the baseline of clean windows, in order of time; at least one, all of the same assets.

    idle: windows at a standstill in the same shifts. loads: `units` for the assets whose energy follows the units.
    before: the one that it replaces. Where the assets are too many for a leaf, the smallest are pooled.
    """
    kept, others = to_keep(windows), ""
    if kept is not None:
        others = digest(set(windows[0].energy_kwh) - kept)
        windows = [window._replace(energy_kwh=pooled(window.energy_kwh, kept)) for window in windows]
        idle = [window._replace(energy_kwh=pooled(window.energy_kwh, kept)) for window in idle]
    rates = [window.units_per_h for window in windows]
    level = middle(rates)
    assets = {name: _asset(name, windows, idle, loads.get(name, "time")) for name in windows[0].energy_kwh}
    residuals = [
        window.kw - sum(one.expected_kw(rate) for one in assets.values())
        for window, rate in zip(windows, rates, strict=True)
    ]
    kw = sum(one.expected_kw(level) for one in assets.values())
    steps = [_step_kw(name, windows) for name in assets]
    floor = max(sum(step * step for step in steps) ** 0.5, LEAST_SIGMA * abs(kw))
    counted = quantum(window.units or 0.0 for window in windows) or 1.0
    off = [rate - level for rate in rates]
    least = max(counted / 6**0.5 / median(window.hours for window in windows), LEAST_SIGMA * level)
    return Baseline(
        product=product,
        recipe=recipe,
        number=1 if before is None else before.number + 1,
        shifts=shifts,
        windows=len(windows),
        since_ns=windows[0].start_ns,
        until_ns=windows[-1].end_ns,
        units_per_h=level,
        units_sigma=max(spread(off), least) * inflation(windows, off),
        sigma_kw=max(spread(residuals), floor) * inflation(windows, residuals),
        first_kw=kw if before is None else before.first_kw,
        assets=assets,
        others=others,
    )


def _step_kw(name: str, windows: Sequence[Window]) -> float:
    """Return the standard deviation that a register's steps alone make in a window's power."""
    return quantum(window.energy_kwh[name] for window in windows) / 6**0.5 / median(window.hours for window in windows)


def _asset(name: str, windows: Sequence[Window], idle: Sequence[Window], load: str) -> AssetNorm:
    points = [(window.units_per_h, window.energy_kwh[name] / window.hours) for window in windows]
    idle_kw = [window.energy_kwh[name] / window.hours for window in idle if name in window.energy_kwh]
    standing = middle(idle_kw) if idle_kw else None
    load = "units" if name == REST else load
    kw, kwh_per_unit = _fit(points, load=load, standing=standing if load == "units" else None)
    residuals = [drawn - kw - kwh_per_unit * rate for rate, drawn in points]
    level = middle(drawn for _, drawn in points)
    sigma = max(spread(residuals), _step_kw(name, windows), LEAST_SIGMA * abs(level))
    counts = [float(window.starts[name]) for window in windows if name in window.starts]
    hours = [window.hours for window in windows if name in window.starts]
    loaded = [window.loaded_h[name] for window in windows if name in window.loaded_h]
    mean = fmean(counts) if counts else 0.0
    return AssetNorm(
        kw=kw,
        kwh_per_unit=kwh_per_unit,
        sigma_kw=sigma * inflation(windows, residuals),
        starts_per_h=sum(counts) / sum(hours) if counts else None,
        starts_spread=fmean((one - mean) ** 2 for one in counts) / mean if mean else None,
        duty=sum(loaded) / sum(w.hours for w in windows if name in w.loaded_h) if loaded else None,
        idle_kw=standing,
    )


def _fit(points: Sequence[tuple[float, float]], *, load: str, standing: float | None) -> tuple[float, float]:
    """Return a and b of drawn = a + b x rate."""
    rates = [rate for rate, _ in points]
    level = middle(rates)
    if level <= 0:
        return middle(drawn for _, drawn in points), 0.0
    if quantile(rates, 0.9) - quantile(rates, 0.1) < FLAT * level:
        usual = middle(drawn for _, drawn in points)
        if standing is not None and standing < usual:
            return standing, (usual - standing) / level
        return (0.0, usual / level) if load == "units" else (usual, 0.0)
    step = max(1, len(points) // MOST_FITTED)
    chosen = points[::step]
    apart = FLAT / 2 * level
    slopes = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in combinations(chosen, 2) if _apart(one, two, apart)]
    slope = max(0.0, median(slopes)) if slopes else 0.0
    return middle(drawn - slope * rate for rate, drawn in points), slope


def _apart(one: tuple[float, float], two: tuple[float, float], least: float) -> bool:
    """Return whether a pair says something of the slope: neighbours only say noise, which would flatten it."""
    return abs(two[0] - one[0]) > least


def newest_factors(baselines: Iterable[Baseline]) -> str:
    """Return the grid's factors as the newest of a line's baselines says them, "" for none."""
    return max(((one.until_ns, one.factors) for one in baselines), default=(0, ""))[1]


# ---- as a flat map of text, in an event leaf


_NUMBERS = ("number", "shifts", "windows", "since_ns", "until_ns", "units_per_h", "units_sigma", "sigma_kw", "first_kw")


def to_flat(baseline: Baseline) -> dict[str, str]:
    """Return a baseline as text by name; floats as their shortest text that reads back the same."""
    flat = {"product": baseline.product, "recipe": baseline.recipe}
    flat |= {name: repr(getattr(baseline, name)) for name in _NUMBERS}
    flat |= {name: text for name in ("others", "factors") if (text := getattr(baseline, name))}
    flat["assets"] = "\n".join(baseline.assets)
    for place, norm in enumerate(baseline.assets.values()):
        flat |= _known((f"asset{place}.{name}", getattr(norm, name)) for name in AssetNorm._fields)
    return flat


def from_flat(flat: Mapping[str, str]) -> Baseline:
    """Return the baseline that a flat map says. Raises ValueError or KeyError for one that says none."""
    assets = {}
    for place, name in enumerate(flat["assets"].split("\n")):
        values = {key: flat.get(f"asset{place}.{key}") for key in AssetNorm._fields}
        assets[name] = AssetNorm(**{key: float(value) for key, value in values.items() if value is not None})
    UsualFactor(factors := flat.get("factors", ""))
    return Baseline(
        product=flat["product"],
        recipe=flat["recipe"],
        number=int(flat["number"]),
        shifts=int(flat["shifts"]),
        windows=int(flat["windows"]),
        since_ns=int(flat["since_ns"]),
        until_ns=int(flat["until_ns"]),
        units_per_h=float(flat["units_per_h"]),
        units_sigma=float(flat["units_sigma"]),
        sigma_kw=float(flat["sigma_kw"]),
        first_kw=float(flat["first_kw"]),
        assets=assets,
        others=flat.get("others", ""),
        factors=factors,
    )


def _known(pairs: Iterable[tuple[str, float | None]]) -> dict[str, str]:
    return {name: repr(value) for name, value in pairs if value is not None}
