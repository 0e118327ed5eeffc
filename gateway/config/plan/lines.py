"""`[lines.<gateway>.<line>]` and `[thermal.<name>]` of carbon.toml."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Name, Section, Text, Zone
from gateway.errors import ConfigError

CounterName = Annotated[str, Meta(max_length=127, description="<device>.<point>")]
Positive = Annotated[float, Meta(gt=0, le=1e12)]


class MeterSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<gateway>.<line>.meters.<asset>]`: what a meter of the line stands for.

    point: the line's energy counter. parent: the asset whose meter counts this one's energy too.
    load: whether its energy follows the units made, or the time. power: a power gauge of the same asset, whose starts
    are counted; running_w: above it the asset runs loaded.
    """

    point: CounterName
    parent: Name | None = None
    load: Literal["time", "units"] = "time"
    power: CounterName | None = None
    running_w: Positive | None = None


class VirtualSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<gateway>.<line>.virtual.<asset>]`: an asset without a meter: a sum and difference of other meters.

    plus, minus: energy counters of the line, which then count in this sum alone.
    """

    plus: tuple[CounterName, ...]
    minus: tuple[CounterName, ...] = ()
    load: Literal["time", "units"] = "time"


class AlertSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<gateway>.<line>.alerts]`: when a line is out of the ordinary.

    k, h: of the CUSUM, in standard deviations. limit_kg_per_unit: a fixed threshold, if any. hysteresis_pct: by how
    much it must be under the threshold again. dwell_min: for so long before it counts, and before it is over.
    learn_shifts: so many clean shifts make a baseline.
    """

    k: Positive = 0.5
    h: Positive = 5.0
    limit_kg_per_unit: Positive | None = None
    hysteresis_pct: Annotated[float, Meta(ge=0, le=50)] = 3.0
    dwell_min: Annotated[float, Meta(ge=0, le=1440)] = 3.0
    learn_shifts: Annotated[int, Meta(ge=1, le=100)] = 3


class LinePlan(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<gateway>.<line>]`: what its states mean, how its meters stand to each other, when to alert.

    states: by category, what its controller writes; PackML's StateCurrent without it. ideal_units_per_hour: the
    production rate to which OEE compares, of any product, or by product with "*" for all others.
    """

    states: dict[Literal["producing", "idle", "setup", "down", "standby"], tuple[str, ...]] = msgspec.field(
        default_factory=dict
    )
    ideal_units_per_hour: Positive | dict[str, Positive] | None = None
    meters: dict[str, MeterSection] = msgspec.field(default_factory=dict)
    virtual: dict[str, VirtualSection] = msgspec.field(default_factory=dict)
    alerts: AlertSection = AlertSection()


def check_lines(lines: Mapping[tuple[str, str], LinePlan], name: str) -> None:
    """Refuse meters of which a kWh would count twice, or never. Raises ConfigError."""
    for (gateway, line), plan in lines.items():
        where = f"{name}: lines.{gateway}.{line}"
        _check_places(plan, where)
        for asset, meter in plan.meters.items():
            if meter.parent is not None and meter.parent not in plan.meters:
                raise ConfigError(f"{where}.meters.{asset}.parent: got {meter.parent!r}, want an asset of its meters")
        for asset in plan.meters:
            _check_cycle(plan, asset, f"{where}.meters.{asset}.parent")


def _check_places(plan: LinePlan, where: str) -> None:
    """Refuse a point that stands in two places, and an asset that is both a meter and a sum."""
    places = [(meter.point, f"{where}.meters.{asset}.point") for asset, meter in plan.meters.items()]
    for asset, virtual in plan.virtual.items():
        if asset in plan.meters:
            raise ConfigError(f"{where}.virtual.{asset}: got a name that a meter has, want one of its own")
        if not virtual.plus:
            raise ConfigError(f"{where}.virtual.{asset}.plus: got [], want at least one counter")
        for key in ("plus", "minus"):
            places += [(point, f"{where}.virtual.{asset}.{key}") for point in getattr(virtual, key)]
    seen: dict[str, str] = {}
    for point, place in places:
        if point in seen:
            raise ConfigError(
                f"{place}: got {point!r}, which stands in {seen[point].removeprefix(where + '.')}, "
                "want each counter in one place, or it would count twice"
            )
        seen[point] = place


def _check_cycle(plan: LinePlan, asset: str, where: str) -> None:
    above, parent = {asset}, plan.meters[asset].parent
    while parent is not None:
        if parent in above:
            raise ConfigError(f"{where}: got {plan.meters[asset].parent!r}, want a meter that is not below this one")
        above.add(parent)
        parent = plan.meters[parent].parent


class ThermalSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[thermal.<name>]`: a zone of a building, and which points say how warm it is and what heats it.

    gateway: whose points these are. zone: the grid's, whose factor applies. indoor, outdoor: degrees Celsius.
    power: W; with cop, of a heat pump or a boiler: heat for each kWh that is paid for.
    """

    gateway: Text
    zone: Zone
    indoor: CounterName
    outdoor: CounterName
    power: CounterName
    cop: Positive = 1.0
