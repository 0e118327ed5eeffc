"""Commands for what figures rest on beside the meters: factors, carbon-plan."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger, read_text

if TYPE_CHECKING:
    from rich.text import Text

    from gateway.app.inforce import ZoneFactors

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_COLOURS = {
    "": "green",
    "factor_secondary": "yellow",
    "factor_last_good": "dark_orange",
    "factor_annual": "blue",
    "operator": "magenta",
    "no_factor": "red",
}
_NAMES = {
    "": "primary",
    "factor_secondary": "secondary",
    "factor_last_good": "last good",
    "factor_annual": "annual",
    "operator": "operator",
    "no_factor": "none",
}
_BARS = "▁▂▃▄▅▆▇█"
_SLOTS = 48
_DAYS = 7


def _instant(_: click.Context, __: click.Parameter, text: str | None) -> int:
    if text is None:
        return time.time_ns()
    try:
        then = datetime.fromisoformat(text)
    except ValueError as e:
        raise click.BadParameter(f"got {text!r}, want a date or time such as 2026-11-21 or 2026-11-21T06:00:00Z") from e
    return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000


@click.command()
@_FILE
@click.option("--zone", help="One grid zone; all that are known without it.")
@click.option("--at", "at_ns", callback=_instant, help="An instant, UTC; now without it.")
@_JSON
def factors(file: Path, zone: str | None, at_ns: int, *, as_json: bool) -> None:
    """Show which grid factor counts, which fallback it is, and a picture of the 24 hours before.

    \b
    Example: wattseal factors ledger.toml
             wattseal factors ledger.toml --zone DE --at 2026-11-21T06:00:00Z --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from rich.console import Console

    from gateway.app.inforce import read_factors, zone_row
    from gateway.carbon.exact import utc

    found = read_factors(load_ledger(file), zone=zone, at_ns=at_ns)
    if as_json:
        click.echo(json.dumps({"at": utc(at_ns), "zones": [zone_row(one) for one in found]}))
        return
    if not found:
        click.echo("no factor, and no line in a zone yet")
    console = Console(highlight=False, soft_wrap=True)
    for one in found:
        row = zone_row(one)
        console.print(_said(row, utc(at_ns // 1_000_000_000 * 1_000_000_000)), markup=False)
        console.print(_picture(one))


def _said(row: Mapping[str, Any], at: str) -> str:
    policy = row["policy"]
    rule = "no [grid] in the plan: the shortest window counts"
    if policy is not None:
        order = ", ".join(policy["order"]) or "any provider"
        rule = f"{order}; last good for {policy['last_good_h']:g} h; {policy['type']} alone"
    if row["g_per_kwh"] is None:
        return f"{row['zone']} at {at}: NO FACTOR ({rule})"
    until = row["window_to"] or "further notice"
    kinds = ", ".join(filter(None, (row["type"], row["granularity"], row["state"], row["method"])))
    return (
        f"{row['zone']} at {at}: {row['g_per_kwh']} g/kWh, {_NAMES[row['fallback']]}\n"
        f"  {row['provider']}: {kinds}\n"
        f"  window {row['window_from']} until {until}\n"
        f"  version {row['version']}, leaf {row['leaf']} of the ledger's log\n"
        f"  rule: {rule}"
    )


def _picture(found: "ZoneFactors") -> "Text":
    """Return the 24 hours before as bars: how high the factor, and by colour which one counted."""
    from rich.text import Text

    from gateway.app.inforce import slots

    day = slots(found.day, _SLOTS)
    known = [value for value, _ in day if value is not None]
    most = max(known, default=None)
    picture = Text("  24 h ")
    for value, fallback in day:
        bar = "·" if value is None or not most else _BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))]
        picture.append(bar, style=_COLOURS[fallback])
    if known:
        picture.append(f"  {float(min(known)):.4g} to {float(max(known)):.4g} g/kWh")
    picture.append("\n       ")
    for fallback in dict.fromkeys(fallback for _, fallback in day):
        share = sum(one == fallback for _, one in day) * 100 // len(day)
        picture.append(f"{_NAMES[fallback]} {share} %  ", style=_COLOURS[fallback])
    return picture


@click.command("carbon-plan")
@_FILE
@click.option("--from", "from_ns", callback=_instant, help="Show the shifts of the week from here on, UTC; now.")
@_JSON
def carbon_plan(file: Path, from_ns: int, *, as_json: bool) -> None:
    """Check a carbon.toml, and show its next week's shifts, lines, meters and instruments.

    \b
    Example: wattseal carbon-plan carbon.toml
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.inforce import plan_row
    from gateway.config.plan import parse_plan
    from gateway.errors import ConfigError

    try:
        row = plan_row(parse_plan(read_text(file), name=file.name), from_ns=from_ns, days=_DAYS)
    except ConfigError as e:
        raise ConfigError(str(e) if str(e).startswith(file.name) else f"{file.name}: {e}") from e
    click.echo(json.dumps({"file": str(file)} | row) if as_json else _planned(file, row))


def _planned(file: Path, row: Mapping[str, Any]) -> str:
    said = [
        f"{file}: OK: {row['site'] or 'a site'}, {row['timezone']}, valid from {row['valid_from'] or 'its sealing'}"
    ]
    for line, found in row["shifts"].items():
        said.append(f"shifts of {'all other lines' if line == '*' else line}: {'' if found else 'none'}".rstrip())
        said += [
            f"  {one['shift']:<24} {one['from']} to {one['to']}  {one['minutes'] // 60}:{one['minutes'] % 60:02} h"
            for one in found
        ]
    for line, one in row["lines"].items():
        said.append(f"line {line}: meters {', '.join(one['meters']) or 'none named'}")
        said += [f"  virtual: {', '.join(one['virtual'])}"] if one["virtual"] else []
    for zone, one in row["grid"].items():
        order = ", ".join(one["order"]) or "any provider"
        said.append(f"zone {zone}: {order}; last good for {one['last_good_h']:g} h; {one['type']} factors alone")
    said += [
        f"instrument {name}: {one['type']}, {one['volume_mwh']} MWh in {one['zone']}, {one['valid_from']} to "
        f"{one['valid_to']}"
        for name, one in row["instruments"].items()
    ]
    said += [f"{kind.replace('_', '-')}: {', '.join(row[kind])}" for kind in _KINDS if row[kind]]
    return "\n".join(said)


_KINDS = ("fuels", "static_assets", "thermal")

COMMANDS = (factors, carbon_plan)
