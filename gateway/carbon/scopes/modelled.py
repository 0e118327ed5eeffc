"""Ghost load: what a load without a meter draws while nobody is there, as a model and marked as one.

kWh = standby power x leakage multiplier x hours outside of all shifts. Energy is the difference of one function of
time, rounded down to whole mWh at each end, so that parts sum exactly.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from gateway.config.plan import Plan
from gateway.config.plan.scopes import exact
from gateway.model import LineColumn, LineSchema

_W_NS_PER_MWH = 3_600_000_000
"""1 mWh is 3.6 J."""


class StaticAsset(NamedTuple):
    """A load without a meter. standby_w: as the plan says it. watts: with the leakage."""

    name: str
    standby_w: Decimal
    watts: Fraction

    @property
    def meter(self) -> str:
        """What stands where a meter's point would; no point has a colon."""
        return f"static:{self.name}"

    def energy_mwh(self, start_ns: int, end_ns: int) -> int:
        """Return what it draws from start to end."""
        return self.until(end_ns) - self.until(start_ns)

    def until(self, t_ns: int) -> int:
        """Return what it would have drawn from 1970 on, in whole mWh, rounded down."""
        return self.watts.numerator * t_ns // (self.watts.denominator * _W_NS_PER_MWH)


def static_assets(plan: Plan, gateway: str, schema: LineSchema) -> tuple[StaticAsset, ...]:
    """Return a line's loads that no meter counts."""
    return tuple(
        StaticAsset(name, standby_w, Fraction(standby_w) * Fraction(exact(one.leakage_multiplier)))
        for name, one in plan.static_assets.items()
        if one.line == f"{gateway}/{schema.name}" and one.covered_by is None
        for standby_w in (Decimal(repr(one.standby_w)),)
    )


def uncovered(plan: Plan, gateway: str, schema: LineSchema, columns: Sequence[LineColumn]) -> tuple[str, ...]:
    """Return the assets that are said to be covered by a counter that the line does not have."""
    points = {column.point for column in columns}
    return tuple(
        name
        for name, one in plan.static_assets.items()
        if one.line == f"{gateway}/{schema.name}" and one.covered_by is not None and one.covered_by not in points
    )
