"""`[lines.<name>]` to a line's schema: its counters, and what says what it is making."""

from collections.abc import Mapping
from decimal import Context, Decimal, Inexact

from gateway.config.sections import GatewayConfig, IntervalSection, LineSection
from gateway.config.templates import PointSection
from gateway.errors import ConfigError
from gateway.model import ENERGY_UNITS, FUEL_UNITS, ContextColumn, Kind, LineColumn, LineSchema, Role, What


def line_of(key: str, section: LineSection, config: GatewayConfig, where: str) -> LineSchema:
    """Return the schema of a line. where: of its section, for messages. Raises ConfigError."""
    counts = ((role, getattr(section, role)) for role in (Role.COUNT_GOOD, Role.COUNT_TOTAL, Role.COUNT_SCRAP))
    roles = [(point, Role.ENERGY) for point in section.energy]
    roles += [(point, Role.FUEL) for point in section.fuel]
    roles += [(point, role) for role, point in counts if point is not None]
    names = [point for point, _ in roles]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: got {names}, want each point once, or it would count twice")
    told = [(what, point) for what in What if (point := getattr(section, what)) is not None]
    return LineSchema(
        name=key,
        site=config.gateway.site,
        zone=section.zone,
        period_s=config.interval.period_s,
        columns=tuple(_column(point, role, f"{where}.{role}", config) for point, role in roles),
        context=tuple(_context(point, what, f"{where}.{what}", config) for what, point in told),
    )


def check_shared(lines: Mapping[str, LineSection], where: str) -> None:
    """Refuse a meter that two lines book, each whole. Raises ConfigError."""
    booked: dict[str, str] = {}
    for name, line in lines.items():
        for point in (*line.energy, *line.fuel):
            if (other := booked.setdefault(point, name)) != name:
                raise ConfigError(
                    f"{where}.{name}: got {point!r}, which lines.{other} books already, want each meter in one line, "
                    "or it would count twice; what several lines share is a line of its own"
                )


_EXACT = Context(prec=60, traps=[Inexact])  # 20 digits of a modulus times 28 of a scale


def _column(point: str, role: Role, where: str, config: GatewayConfig) -> LineColumn:
    found = _point(point, config)
    if found is None or found.kind != Kind.COUNTER:
        raise ConfigError(f"{where}: got {point!r}, want <device>.<point> of a counter")
    if role == Role.ENERGY and found.unit not in ENERGY_UNITS:
        raise ConfigError(f"{where}: got {point!r} in {found.unit!r}, want one of {', '.join(ENERGY_UNITS)}")
    if role == Role.FUEL and found.unit not in FUEL_UNITS:
        raise ConfigError(f"{where}: got {point!r} in {found.unit!r}, want one of {', '.join(FUEL_UNITS)}")
    section = config.devices[point.partition(".")[0]]
    modulus = None if found.modulus is None else _EXACT.multiply(Decimal(found.modulus), Decimal(found.scale))
    return LineColumn(
        point=point,
        unit=found.unit,
        role=role,
        modulus=modulus,
        rated_power_w=section.rated_power_w if role == Role.ENERGY else None,
        meter_class=section.meter_class,
        serial=section.serial,
    )


def _context(point: str, what: What, where: str, config: GatewayConfig) -> ContextColumn:
    found = _point(point, config)
    if found is None:
        raise ConfigError(f"{where}: got {point!r}, want <device>.<point> of a number, bit or text")
    if found.kind == Kind.COUNTER:
        raise ConfigError(f"{where}: got {point!r}, which is a counter, want a point that says what the line is making")
    if Decimal(found.scale) != 1 or Decimal(found.offset) != 0 or getattr(found, "scale_point", None) is not None:
        raise ConfigError(f"{where}: got {point!r}, which is scaled, want a number as its controller writes it")
    return ContextColumn(point=point, what=what)


def _point(point: str, config: GatewayConfig) -> PointSection | None:
    """Return a point of a device's template, None where there is none."""
    device, _, name = point.partition(".")
    section = config.devices.get(device)
    return None if section is None else config.templates[section.template].points.get(name)


_WAITS_S = 10
"""So long after its time a boundary closes, at most: app/intervals.py."""


def check_interpolated(period_s: float, interval: IntervalSection, where: str) -> None:
    """Refuse a period whose next poll after a boundary may come when that is closed. Raises ConfigError."""
    most_s = min(interval.period_s * 4 / 5, _WAITS_S) * 4 / 5
    if period_s > most_s:
        raise ConfigError(
            f"{where}: got {period_s:g}, want at most {most_s:g} s to interpolate, or a period that divides "
            f"interval.period_s ({interval.period_s} s)"
        )
