"""What carbon.toml says of factors, instruments, fuels and unmetered loads."""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.plan.lines import CounterName
from gateway.config.plan.shifts import Date
from gateway.config.values import Section, Text

Exact = Annotated[str, Meta(pattern=r"^[0-9]{1,14}(\.[0-9]{1,14})?\Z", description='a number in quotes, such as "0.4"')]
LineRef = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,63}/[a-z0-9_-]{1,63}\Z", description="<gateway>/<line>")]


def exact(number: str) -> Decimal:
    """Return an Exact as a number."""
    return Decimal(number)


class GridSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[grid.<zone>]`: whose factors count, the first that has one; and for how long the last good one may stand in.

    order: providers; those that are not named never count. type: lifecycle or direct, of all of them.
    """

    order: tuple[Text, ...] = ()
    last_good_h: Annotated[float, Meta(ge=0, le=744)] = 6.0
    type: Literal["lifecycle", "direct"] | None = None


class InstrumentSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[instruments.<id>]`: a contractual instrument of the market-based method; a MWh of it is claimed once.

    vintage: the year in which its energy was made. zone: the market in which it holds. from, to: the to excluded.
    """

    type: Literal["certificate", "contract", "supplier"]
    volume_mwh: Exact
    factor_g_per_kwh: Exact = "0"
    vintage: Annotated[int, Meta(ge=1990, le=2100)]
    zone: Text
    valid_from: Date
    valid_to: Date


class MarketSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market]`: how instruments meet load, and what the rest counts.

    matching: two named methods. residual_g_per_kwh: the residual mix; without it the grid average, flagged.
    """

    matching: Literal["annual", "hourly"] = "annual"
    residual_g_per_kwh: Exact | None = None
    residual_source: Text = ""


class FuelSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fuels.<name>]`: a fuel meter, Scope 1.

    point: the line's fuel counter. fuel: as the factor's table names it. correction: of the volume to reference
    conditions. calorific_mj: MJ per unit of the meter. basis: of the calorific value; the factor's must be the same.
    """

    line: LineRef
    point: CounterName
    fuel: Text
    correction: Exact = "1"
    calorific_mj: Exact | None = None
    basis: Literal["gross", "net"]


class StaticAssetSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[static-assets.<name>]`: a load without a meter, as it is modelled while nobody is there.

    covered_by: `<device>.<point>` of a counter that counts it too: then nothing is modelled.
    """

    line: LineRef
    standby_w: Annotated[float, Meta(ge=0, le=1e9)]
    leakage_multiplier: Exact = "1"
    covered_by: CounterName | None = None
