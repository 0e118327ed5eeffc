"""What carbon.toml says of factors, instruments, fuels and unmetered loads."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.plan.lines import CounterName
from gateway.config.plan.shifts import Date, LineRef, ShiftSection
from gateway.config.values import Section, Text
from gateway.errors import ConfigError

Exact = Annotated[str, Meta(pattern=r"^[0-9]{1,14}(\.[0-9]{1,14})?\Z", description='a number in quotes, such as "0.4"')]


def exact(number: str) -> Decimal:
    """Return an Exact as a number."""
    return Decimal(number)


class GridSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[grid.<zone>]`: whose factors count, the first that has one; and for how long the last good one may stand in.

    order: providers; those that are not named never count; without it all do, as equals. type: of the factors that
    count; the others never do, so that no year mixes them.
    """

    order: tuple[Text, ...] = ()
    last_good_h: Annotated[float, Meta(ge=0, le=744)] = 6.0
    type: Literal["lifecycle", "direct"] = "lifecycle"


class InstrumentSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[instruments.<id>]`: a contractual instrument of the market-based method; a MWh of it is claimed once.

    vintage: the year in which its energy was made. zone: the market in which it holds. from, to: days in UTC, the to
    excluded. hourly_mwh: what it delivers in each hour of a day, from 00:00 UTC on, on each day of its validity; only
    with it can it be claimed by the hour.
    """

    type: Literal["certificate", "contract", "supplier"]
    volume_mwh: Exact
    factor_g_per_kwh: Exact = "0"
    vintage: Annotated[int, Meta(ge=1990, le=2100)]
    zone: Text
    valid_from: Date
    valid_to: Date
    hourly_mwh: tuple[Exact, ...] = ()


class ResidualSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market.residual.<zone>]`: a zone's residual mix, and who published it."""

    g_per_kwh: Exact
    source: Text = ""


class MarketSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market]`: how instruments meet load, and what the rest counts.

    matching: two named methods. residual: the residual mix by zone; without one the grid average counts, flagged.
    """

    matching: Literal["annual", "hourly"] = "annual"
    residual: Mapping[str, ResidualSection] = {}


class FuelSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fuels.<name>]`: a fuel meter, Scope 1.

    point: the line's fuel counter. fuel: as the factor's table names it. provider: whose factor counts; without it any.
    correction: of the volume to reference conditions. calorific_mj: MJ per unit of the meter; none where it counts kWh.
    basis: of the calorific value; the factor's must be the same.
    """

    line: LineRef
    point: CounterName
    fuel: Text
    provider: Text = ""
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


def check_scopes(
    *,
    fuels: Mapping[str, FuelSection],
    assets: Mapping[str, StaticAssetSection],
    instruments: Mapping[str, InstrumentSection],
    shifts: Mapping[str, ShiftSection],
    name: str,
) -> None:
    """Refuse a fuel that would count twice, a load without a shift to be outside of, and an instrument without days.

    Raises ConfigError.
    """
    seen: dict[tuple[str, str], str] = {}
    for key, fuel in fuels.items():
        other = seen.setdefault((fuel.line, fuel.point), key)
        if other != key:
            raise ConfigError(f"{name}: fuels.{key}.point: got {fuel.point!r}, as {other!r} has, want another")
    for key, asset in assets.items():
        if not any(not shift.lines or asset.line in shift.lines for shift in shifts.values()):
            raise ConfigError(
                f"{name}: static-assets.{key}.line: got {asset.line!r}, which has no shift, want [shifts.<name>] for "
                "it: the load is modelled for the hours outside of all shifts"
            )
    for key, one in instruments.items():
        where = f"{name}: instruments.{key}"
        if len(one.hourly_mwh) not in {0, 24}:
            raise ConfigError(f"{where}.hourly_mwh: got {len(one.hourly_mwh)} numbers, want 24, or none")
        for at in (one.valid_from, one.valid_to):
            if not _is_date(at):
                raise ConfigError(f"{where}: got {at!r}, want a date that there is")
        if one.valid_to <= one.valid_from:
            raise ConfigError(f"{where}.valid_to: got {one.valid_to!r}, want a day after {one.valid_from!r}")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).year >= 1971
    except ValueError:
        return False
