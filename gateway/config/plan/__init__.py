"""carbon.toml, the plan: what the ledger needs to know of the plant beside its meters. Pure: text in, structs out.

It is sealed whole in the ledger's log, so that whoever checks a figure reads the same words.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from gateway.config.convert import convert, named, shown, toml
from gateway.config.plan.lines import AlertSection, LinePlan, ThermalSection, check_lines
from gateway.config.plan.scopes import (
    FuelSection,
    GridSection,
    InstrumentSection,
    MarketSection,
    ResidualSection,
    StaticAssetSection,
    check_scopes,
)
from gateway.config.plan.shifts import ExceptionSection, ShiftSection, SiteSection, check_shifts
from gateway.errors import ConfigError

__all__ = [
    "AlertSection",
    "ExceptionSection",
    "FuelSection",
    "GridSection",
    "InstrumentSection",
    "LinePlan",
    "MarketSection",
    "Plan",
    "ShiftSection",
    "SiteSection",
    "StaticAssetSection",
    "ThermalSection",
    "parse_plan",
]

_T = TypeVar("_T")

_NAMED: Mapping[str, type[msgspec.Struct]] = {
    "shifts": ShiftSection,
    "fuels": FuelSection,
    "instruments": InstrumentSection,
    "static-assets": StaticAssetSection,
    "thermal": ThermalSection,
}
_SECTIONS = {*_NAMED, "site", "grid", "market", "lines", "calendar", "valid_from"}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of carbon.toml.

    valid_from_ns: since when it holds; None: since it was read. lines: by gateway and line. grid: by zone.
    """

    site: SiteSection = SiteSection()
    valid_from_ns: int | None = None
    shifts: dict[str, ShiftSection] = msgspec.field(default_factory=dict)
    calendar: tuple[ExceptionSection, ...] = ()
    grid: dict[str, GridSection] = msgspec.field(default_factory=dict)
    market: MarketSection = MarketSection()
    instruments: dict[str, InstrumentSection] = msgspec.field(default_factory=dict)
    fuels: dict[str, FuelSection] = msgspec.field(default_factory=dict)
    static_assets: dict[str, StaticAssetSection] = msgspec.field(default_factory=dict)
    thermal: dict[str, ThermalSection] = msgspec.field(default_factory=dict)
    lines: dict[tuple[str, str], LinePlan] = msgspec.field(default_factory=dict)

    def line(self, gateway: str, line: str) -> LinePlan:
        """Return what it says of a line; the defaults where it says nothing."""
        return self.lines.get((gateway, line), _NO_LINE)


_NO_LINE = LinePlan()


def parse_plan(text: str, *, name: str) -> Plan:
    """Return the plan that a text says. name: the file's, for messages. Raises ConfigError."""
    found = toml(text, name)
    for key in found:
        if key not in _SECTIONS:
            raise ConfigError(f"{name}: {key}: got an unknown section, want one of {', '.join(sorted(_SECTIONS))}")
    parts: dict[str, Any] = {
        key.replace("-", "_"): named(found.get(key, {}), struct, f"{name}: {key}") for key, struct in _NAMED.items()
    }
    plan = Plan(
        site=convert(found.get("site", {}), SiteSection, f"{name}: site"),
        valid_from_ns=_instant(found.get("valid_from"), f"{name}: valid_from"),
        calendar=_calendar(found.get("calendar", []), f"{name}: calendar"),
        grid=_grid(found.get("grid", {}), f"{name}: grid"),
        market=_market(found.get("market", {}), f"{name}: market"),
        lines=_lines(found.get("lines", {}), f"{name}: lines"),
        **parts,
    )
    check_shifts(plan.shifts, plan.calendar, name)
    check_lines(plan.lines, name)
    check_scopes(
        fuels=plan.fuels, assets=plan.static_assets, instruments=plan.instruments, shifts=plan.shifts, name=name
    )
    return plan


def _instant(got: Any, where: str) -> int | None:
    if got is None:
        return None
    if not isinstance(got, datetime) or got.tzinfo is None:
        raise ConfigError(f"{where}: got {shown(str(got))}, want a date and time with Z, as 2026-01-01T00:00:00Z")
    try:
        t_ns = int(got.astimezone(UTC).timestamp()) * 1_000_000_000
    except OverflowError:  # the first or last day of the calendar, with an offset beyond it
        t_ns = -1
    if not 0 <= t_ns < 2**63:
        raise ConfigError(f"{where}: got {shown(str(got))}, want a time from 1970 to 2262")
    return t_ns


def _calendar(got: Any, where: str) -> tuple[ExceptionSection, ...]:
    if not isinstance(got, list):
        raise ConfigError(f"{where}: got {shown(got)}, want [[calendar]] tables")
    return tuple(convert(entry, ExceptionSection, f"{where}[{number}]") for number, entry in enumerate(got))


def _by_zone(got: Any, struct: type[_T], where: str, want: str) -> dict[str, _T]:
    if not isinstance(got, dict):
        raise ConfigError(f"{where}: got {shown(got)}, want {want}")
    for zone in got:
        if not 0 < len(zone) <= 60 or not zone.isprintable():
            raise ConfigError(f"{where}: got the zone {shown(zone)}, want printable text of at most 60 characters")
    return {zone: convert(table, struct, f"{where}.{zone}") for zone, table in got.items()}


def _grid(got: Any, where: str) -> dict[str, GridSection]:
    found = _by_zone(got, GridSection, where, "[grid.<zone>]")
    for zone, section in found.items():
        if len(set(section.order)) != len(section.order):
            raise ConfigError(f"{where}.{zone}.order: got {shown(section.order)}, want each provider once")
    return found


def _market(got: Any, where: str) -> MarketSection:
    if not isinstance(got, dict):
        raise ConfigError(f"{where}: got {shown(got)}, want a section [market]")
    want = '[market.residual.<zone>] with g_per_kwh = "...", and source if you like, for each zone'
    for key in ("residual_g_per_kwh", "residual_source"):
        if key in got:
            raise ConfigError(f"{where}.{key}: got {shown(got[key])}, one residual mix for all zones, want {want}")
    residual = _by_zone(got.get("residual", {}), ResidualSection, f"{where}.residual", want)
    section = convert({key: value for key, value in got.items() if key != "residual"}, MarketSection, where)
    return msgspec.structs.replace(section, residual=residual)


def _lines(got: Any, where: str) -> dict[tuple[str, str], LinePlan]:
    if not isinstance(got, dict) or not all(isinstance(lines, dict) for lines in got.values()):
        raise ConfigError(f"{where}: got {shown(got)}, want [lines.<gateway>.<line>]")
    return {
        (gateway, line): plan
        for gateway, lines in got.items()
        for line, plan in named(lines, LinePlan, f"{where}.{gateway}").items()
    }
