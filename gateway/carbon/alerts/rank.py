"""Ranks what contributed to a change, and says what speaks for each of it.

What an asset draws is told apart by its baseline: expected at the throughput, and beside it. What is beside it is the
asset's own. The rest of the line has no meter of its own: what it draws beside its baseline is put down to the process
or the product; to standby where it is there at a standstill too. Without a word of the MES that is all one can say:
`process or product change, undetermined`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway.carbon.alerts.alert import Cause
from gateway.carbon.alerts.baseline import AssetNorm, Baseline
from gateway.carbon.alerts.cause import GRID, STANDBY, THROUGHPUT, Attribution, Load, Rates, attribute
from gateway.carbon.alerts.evidence import CHANGED, cycles, near, when
from gateway.carbon.alerts.observe import HOUR_NS, MINUTE_NS, Observation
from gateway.carbon.alerts.streams import split
from gateway.carbon.alerts.usual import LEAST
from gateway.carbon.alerts.windows import REST, WINDOW_NS, Window

LEAST_SHARE = 0.05
"""Less of a change is noise, and is not named."""
SURE = 3.0
SEEN = 1.5
"""Of the throughput, which is measured as it is."""
AGREES_NS = 3 * MINUTE_NS
PROCESS = "process or product change"


class Scene(NamedTuple):
    """What is known of a change. after: all production since the onset.

    around: cells before and after the onset. idle: a standstill since the onset, if there was one. changes: what was
    told of job, product and recipe, as (t_ns, text). told: those near the onset in words, where known from before.
    is_own: the alert is of what the line does, and not of what that causes.
    """

    baseline: Baseline
    onset_ns: int
    after: Window
    around: Sequence[Observation]
    idle: Window | None = None
    changes: Sequence[tuple[int, str]] = ()
    told: Sequence[str] = ()
    is_own: bool = False


def compared(scene: Scene) -> Attribution | None:
    """Return the change since the onset by what contributed to it; None where a factor is not known."""
    after, baseline = scene.after, scene.baseline
    if after.usual_factor is None or after.factor is None:
        return None
    before = baseline.rates(after.usual_factor)
    rate = after.units_per_h
    assets = {
        name: _load(after.energy_kwh.get(name, 0.0) / after.hours, norm, rate)
        for name, norm in baseline.assets.items()
        if name != REST
    }
    rest = baseline.assets.get(REST, AssetNorm(0.0, 0.0, 0.0))
    beside = after.energy_kwh.get(REST, 0.0) / after.hours - rest.expected_kw(rate)
    standing = beside if rate <= 0 else _standing(scene, rest, beside)
    mix = rest.kwh_per_unit + ((beside - standing) / rate if rate > 0 else 0.0)
    now = Rates(
        factor=after.factor, units_per_h=rate, assets=assets, standby_kw=rest.kw + standing, mix_kwh_per_unit=mix
    )
    return attribute(before, now)


def _load(kw: float, norm: AssetNorm, rate: float) -> Load:
    """Return an asset's load, what is beside its baseline put with the part that it has."""
    beside = kw - norm.expected_kw(rate)
    if rate > 0 and norm.follows_units(rate):
        return Load(norm.kw, norm.kwh_per_unit + beside / rate)
    return Load(norm.kw + beside, norm.kwh_per_unit)


def _standing(scene: Scene, rest: AssetNorm, beside: float) -> float:
    """Return how much of what the rest draws beside its baseline it draws at a standstill too, kW."""
    if scene.idle is None or rest.idle_kw is None:
        return 0.0
    more = scene.idle.energy_kwh.get(REST, 0.0) / scene.idle.hours - rest.idle_kw
    if abs(more) < SURE * rest.sigma_kw or more * beside <= 0:
        return 0.0
    return more if abs(more) < abs(beside) else beside


def ranked(scene: Scene, found: Attribution) -> tuple[Cause, ...]:
    """Return the causes of a change, the largest contribution first, what worked against it last.

    What is less than 5 % of the change, or no more than its own noise, is not named. Where the grid hides what the line
    does, the change is the line's alone.
    """
    own = found.total - found.grid
    change = own if scene.is_own and own * found.grid < 0 else found.total
    if change == 0:
        return ()
    causes: list[Cause] = []
    folded, process = found.mix, _process_assets(scene)
    for name, part in found.assets.items():
        if name in process:
            folded += part
        elif abs(part / change) >= LEAST_SHARE and _sure(scene, name):
            causes.append(_asset(scene, name, part, change))
    makers: Sequence[tuple[float, Callable[[Scene, float, float], Cause]]] = (
        (found.grid, _grid),
        (found.throughput, _throughput),
        (folded, _process),
        (found.standby, _standby),
    )
    sure = (_grid_sure(scene), _rate_sure(scene), any(_sure(scene, name) for name in process), _sure(scene, REST))
    causes += [
        make(scene, part, change)
        for (part, make), is_sure in zip(makers, sure, strict=True)
        if is_sure and abs(part / change) >= LEAST_SHARE
    ]
    if not any(cause.share > 0 for cause in causes):
        causes.append(_unknown(found, change))
    return tuple(sorted(causes, key=lambda cause: -cause.share))


def _process_assets(scene: Scene) -> frozenset[str]:
    """Return what stands for the process: the rest, and what follows the product where nothing is told of that."""
    baseline = scene.baseline
    follow = {name for name, norm in baseline.assets.items() if norm.follows_units(baseline.units_per_h)}
    return frozenset({REST} if baseline.product else {REST, *follow})


def _unknown(found: Attribution, change: float) -> Cause:
    """Return what there is to say where nothing is above its noise."""
    name, part = max(found.parts, key=lambda one: one[1] / change)
    evidence = (f"most of it, {part:+.4g} {found.unit}, is {name}'s, but no more than its noise",)
    return Cause("process", "undetermined", part / change, part, 0.2, evidence, determined=False)


def _sure(scene: Scene, name: str) -> bool:
    """Return whether an asset draws so much beside its baseline that it is no noise."""
    norm, after = scene.baseline.assets.get(name), scene.after
    if norm is None:
        return False
    beside = after.energy_kwh.get(name, 0.0) / after.hours - norm.expected_kw(after.units_per_h)
    return _is_sure(scene, beside, norm.sigma_kw)


def _rate_sure(scene: Scene) -> bool:
    return _is_sure(scene, scene.after.units_per_h - scene.baseline.units_per_h, scene.baseline.units_sigma, SEEN)


def _grid_sure(scene: Scene) -> bool:
    """Return whether the factor is another: it is known as it is."""
    factor, usual = scene.after.factor, scene.after.usual_factor
    return factor is not None and usual is not None and abs(factor - usual) >= LEAST * usual


def _is_sure(scene: Scene, beside: float, sigma: float, sure: float = SURE) -> bool:
    windows = max(1.0, scene.after.hours * HOUR_NS / WINDOW_NS)
    return bool(abs(beside) > sure * sigma / windows**0.5)


def _asset(scene: Scene, name: str, part: float, change: float) -> Cause:
    norm, after = scene.baseline.assets[name], scene.after
    kw, expected_kw = after.energy_kwh.get(name, 0.0) / after.hours, norm.expected_kw(after.units_per_h)
    evidence = [f"{kw:.4g} kW instead of {expected_kw:.4g} kW"]
    confidence = 0.5
    cycling, explains = cycles(norm, name, after, beside_kw=kw - expected_kw)
    if explains:
        confidence += 0.25
    if cycling:
        evidence.insert(0 if explains else 1, cycling)
    agrees = _agrees(scene, [cell.energy_kwh.get(name, 0.0) / cell.hours for cell in scene.around])
    if agrees:
        evidence.append(agrees)
        confidence += 0.2
    evidence += [*_told(scene), *_grid_moved(scene)]
    return Cause("asset", name, part / change, part, confidence, tuple(evidence))


def _agrees(scene: Scene, values: Sequence[float]) -> str:
    """Return in words that a series changed when the alert's change began; "" where it did not."""
    if len(values) < 4:
        return ""
    apart_ns = scene.around[split(values)].start_ns - scene.onset_ns
    return f"{CHANGED} {when(apart_ns)}" if abs(apart_ns) <= AGREES_NS else ""


def _grid_moved(scene: Scene) -> Iterator[str]:
    """Yield in words that the grid's factor moved when an asset did."""
    agrees = _grid_agrees(scene)
    if agrees and _grid_sure(scene):
        yield f"grid factor {scene.after.factor:.4g} instead of {scene.after.usual_factor:.4g} kg/kWh, {agrees}"


def _grid_agrees(scene: Scene) -> str:
    factors = [cell.beside_usual for cell in scene.around]
    return _agrees(scene, factors) if factors and max(factors) - min(factors) >= LEAST else ""


def _grid(scene: Scene, part: float, change: float) -> Cause:
    evidence = [f"factor {scene.after.factor:.4g} instead of {scene.after.usual_factor:.4g} kg/kWh"]
    agrees = _grid_agrees(scene)
    evidence += [agrees] if agrees else []
    return Cause("grid", GRID, part / change, part, 0.95 if agrees else 0.8, tuple(evidence))


def _throughput(scene: Scene, part: float, change: float) -> Cause:
    rate, usual = scene.after.units_per_h, scene.baseline.units_per_h
    evidence = [f"{rate:.4g} units/h instead of {usual:.4g}"]
    agrees = _agrees(scene, [(cell.units or 0.0) / cell.hours for cell in scene.around])
    evidence += [*([agrees] if agrees else []), *_told(scene)]
    return Cause("throughput", THROUGHPUT, part / change, part, 0.9 if agrees else 0.7, tuple(evidence))


def _process(scene: Scene, part: float, change: float) -> Cause:
    told = _told(scene)
    after, usual = scene.after, scene.baseline.assets
    names = [name for name in _process_assets(scene) if name in usual]
    kw = sum(after.energy_kwh.get(name, 0.0) for name in names) / after.hours
    expected = sum(usual[name].expected_kw(after.units_per_h) for name in names)
    of = " and ".join(sorted(name or "the line without its metered assets" for name in names))
    evidence = [*told, f"{of}: {kw:.4g} kW instead of {expected:.4g} kW"]
    if not told:
        evidence.append("no change of job, product or recipe was told")
    name = PROCESS if told else f"{PROCESS}, undetermined"
    return Cause("process", name, part / change, part, 0.7 if told else 0.4, tuple(evidence), determined=bool(told))


def _told(scene: Scene) -> Sequence[str]:
    return scene.told or near(scene.changes, scene.onset_ns)


def _standby(scene: Scene, part: float, change: float) -> Cause:
    evidence = []
    if scene.idle is not None:
        kw = scene.idle.energy_kwh.get(REST, 0.0) / scene.idle.hours
        usual = scene.baseline.assets[REST].idle_kw or 0.0
        evidence.append(f"at a standstill {kw:.4g} kW instead of {usual:.4g} kW")
    confidence = 0.7 if evidence else 0.4
    return Cause("standby", STANDBY, part / change, part, confidence, (*evidence, *_told(scene)))
