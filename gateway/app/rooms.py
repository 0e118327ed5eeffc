"""A room's model from the ledger's copy of its gateway's log, and what a set-point change would save."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.app.dual import reading
from gateway.app.inforce import read_factors
from gateway.app.load import read_text
from gateway.app.series import means, read_series
from gateway.app.standing.states import standings_of
from gateway.carbon.thermal import Fit, PoorFitError, Reading, fit
from gateway.config import LedgerConfig
from gateway.config.plan import ThermalSection, parse_plan
from gateway.errors import ConfigError
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.view import steadily, view

STEP_S = 900
HOLD_S = 3600
"""A value that was not told anew holds so long: report on change has heartbeats."""
HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room of the plan with its readings, means over STEP_S, without gaps. missing: steps without a mean."""

    name: str
    section: ThermalSection
    start_ns: int
    readings: tuple[Reading, ...]
    missing: int

    def fit(self) -> Fit:
        """Return its model. Raises PoorFitError."""
        return fit(self.readings, dt_h=STEP_S / 3600)


def read_room(config: LedgerConfig, name: str, *, start_ns: int | None = None, end_ns: int | None = None) -> Room:
    """Return a room of carbon.toml as the ledger knows it, of the last two weeks if nothing is said.

    The longest piece without a gap counts. Raises ConfigError where there is no such room, PoorFitError without data.
    """
    section = _section(config, name)
    end_ns = time.time_ns() if end_ns is None else end_ns
    start_ns = end_ns - 14 * 24 * HOUR_NS if start_ns is None else start_ns
    step_ns = STEP_S * 1_000_000_000
    start_ns -= start_ns % step_ns
    points = (section.indoor, section.outdoor, section.power)
    folder = RealFiles(config.ledger.state / "gateways" / section.gateway)
    schemas, counts = _judged(config, section.gateway)
    log = steadily(lambda: view(folder, origin=f"wattseal/{section.gateway}"))
    try:
        series = steadily(
            lambda: read_series(log, points, schemas=schemas, start_ns=start_ns, end_ns=end_ns, counts=counts)
        )
    finally:
        log.close()
    for point in points:
        if not series[point]:
            raise PoorFitError(f"thermal.{name}: got no value of {point} in that time, want its readings")
    steps = (end_ns - start_ns) // step_ns
    columns = [
        means(series[point], start_ns=start_ns, step_ns=step_ns, steps=steps, hold_ns=HOLD_S * 1_000_000_000)
        for point in points
    ]
    rows = list(zip(*columns, strict=True))
    first, last = _longest([None not in row for row in rows])
    readings = tuple(
        Reading(indoor, outdoor, power * section.cop / 1000)
        for indoor, outdoor, power in rows[first:last]
        if indoor is not None and outdoor is not None and power is not None
    )
    return Room(
        name=name,
        section=section,
        start_ns=start_ns + first * step_ns,
        readings=readings,
        missing=sum(None in row for row in rows),
    )


def _judged(config: LedgerConfig, gateway: str) -> tuple[list[int], Callable[[int], bool]]:
    """Return where a gateway's schemas stand, and whether figures may rest on a leaf: of those that were judged."""
    with reading(config) as connection:
        schemas = tables.point_schemas(connection, gateway)
        size = max((one.size for one in tables.gateways(connection) if one.gateway == gateway), default=0)
        standings = standings_of(config, connection)
    return schemas, lambda index: index < size and standings.is_affirmed(gateway, index)


def _longest(present: list[bool]) -> tuple[int, int]:
    """Return the longest run of what is present, [first, end)."""
    best, begun = (0, 0), 0
    for place, here in enumerate([*present, False]):
        if not here:
            best = max(best, (begun, place), key=lambda run: run[1] - run[0])
            begun = place + 1
    return best


def _section(config: LedgerConfig, name: str) -> ThermalSection:
    path = config.ledger.plan
    if path is None:
        raise ConfigError("ledger.toml: ledger.plan: got nothing, want carbon.toml with [thermal.<room>]")
    plan = parse_plan(read_text(path), name=path.name)
    if name not in plan.thermal:
        raise ConfigError(f"{path.name}: thermal: got {name!r}, want one of {', '.join(plan.thermal) or 'none yet'}")
    section = plan.thermal[name]
    if section.gateway not in config.gateways:
        raise ConfigError(
            f"{path.name}: thermal.{name}.gateway: got {section.gateway!r}, want one of {', '.join(config.gateways)}"
        )
    return section


def factor_now(config: LedgerConfig, zone: str) -> float | None:
    """Return the factor that counts in a zone now, in kg/kWh, chosen as for a figure; None where there is none."""
    (found,) = read_factors(config, zone=zone, at_ns=time.time_ns())
    return None if found.now.leaf is None else float(found.now.leaf.factor.g_per_kwh) / 1000
