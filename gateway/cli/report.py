"""Commands for what a shift came to: report, statements."""

import json
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.cli.audit import instant

if TYPE_CHECKING:
    from rich.console import Console

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_WIDTH = 30
_WIDE = 160
"""Columns of what is no terminal."""
_SIDE_BY_SIDE = ("energy_kwh", "co2e_kg", "units_good", "kg_per_unit", "oee", "coverage_pct", "factor_state", "state")
_MARKET = ("market_co2e_kg", "market_method", "market_state", "market_matched")
_BY = ("line", "shift", "job", "product", "recipe", "day")


@click.command()
@_FILE
@click.option("--line", help="A line, as NAME or GATEWAY/NAME; all without it.")
@click.option("--by", type=click.Choice(_BY), default="shift", show_default=True, help="What a row is.")
@click.option("--from", "start_ns", callback=instant, help="First instant, UTC; the last 7 days without it.")
@click.option("--to", "end_ns", callback=instant, help="End, UTC, excluded; the newest interval without it.")
@click.option("--shift", help="One shift alone, as 2026-11-21/early; or a day without shifts, as 2026-11-21.")
@_JSON
def report(
    file: Path,
    *,
    line: str | None,
    by: str,
    start_ns: int | None,
    end_ns: int | None,
    shift: str | None,
    as_json: bool,
) -> None:
    """Show energy, CO2e, units and OEE of shifts, jobs, products or days; as closed and as restated.

    \b
    Example: wattseal report ledger.toml --line filling
             wattseal report ledger.toml --by product --from 2026-11-01 --to 2026-12-01
             wattseal report ledger.toml --shift 2026-11-21/early --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from rich.console import Console

    from gateway.app.reporting import ReportWish, make_report

    wish = ReportWish(by=by, line=line, start_ns=start_ns, end_ns=end_ns, shift=shift)
    found = make_report(load_ledger(file), wish)
    if as_json:
        click.echo(json.dumps(found))
        return
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    if not found["rows"]:
        console.print(f"{file}: no interval of that time yet")
        _print_quarantined(console, found["quarantined"])
        return
    _print_rows(console, found)
    for kind, title in (("state", "Energy by state"), ("asset", "Energy by asset")):
        _print_bars(console, found["rows"], kind, title)
    _print_restated(console, found["rows"], file)
    _print_quarantined(console, found["quarantined"])
    _print_alerts(console, found["alerts"])


def print_brief(found: Mapping[str, Any]) -> None:
    """Print a report's rows and alerts alone, to stderr."""
    from rich.console import Console

    console = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDE)
    _print_rows(console, found)
    _print_alerts(console, found["alerts"])


def _print_alerts(console: "Console", alerts: Sequence[Mapping[str, Any]]) -> None:
    for alert in alerts:
        console.print(f"\nAlert {alert['alert']}, {alert['line']}: {alert['cause']}", markup=False, soft_wrap=True)
        console.print(f"  since {alert['since']}: {alert['change']}", markup=False, soft_wrap=True)


def _print_rows(console: "Console", found: Mapping[str, Any]) -> None:
    from rich.table import Table

    by = found["by"]
    table = Table(title=f"{found['start']} to {found['end']}", title_justify="left")
    market = ("kg market-based",) if found["market"] else ()
    for name in dict.fromkeys(("line", by)):
        table.add_column(name)
    numbers = ("kWh", "kg CO2e", *market, "good", "scrap", "kg/unit", "change", "OEE", "coverage")
    for name in (*numbers, "factors", "state"):
        table.add_column(name, justify="left" if name in {"factors", "state"} else "right")
    for row in found["rows"]:
        figures = row["figures"]
        table.add_row(
            *(row[name] or "-" for name in dict.fromkeys(("line", by))),
            _rounded(figures["energy_kwh"], 1),
            _rounded(figures["co2e_kg"], 2),
            *(_rounded(figures["market_co2e_kg"], 2) for _ in market),
            figures["units_good"] or "-",
            figures["units_scrap"] or "-",
            _rounded(figures["kg_per_unit"], 4),
            "-" if row["change_pct"] is None else f"{Decimal(row['change_pct']):+.1f} %",
            "-" if not figures["oee"] else f"{Decimal(figures['oee']) * 100:.1f} %",
            f"{_rounded(figures['coverage_pct'], 1)} %",
            ", ".join(filter(None, (figures["factor_state"], figures["fallbacks"]))) or "-",
            row["state"] if len(row["versions"]) < 2 else f"{row['state']}, version {len(row['versions'])}",
        )
    console.print(table)
    _print_market(console, found)
    for name, title in (("modelled", "Modelled, no meter"), ("scope1", "Scope 1, fuels")):
        kwh = _sum(found["rows"], f"{name}_kwh")
        kg = _sum(found["rows"], f"{name}_co2e_kg")
        if kwh or kg:
            console.print(f"{title}, apart from these: {_rounded(str(kwh), 1)} kWh, {_rounded(str(kg), 2)} kg CO2e")


def _print_market(console: "Console", found: Mapping[str, Any]) -> None:
    """Print by which method and instruments the market-based figures are; nothing where there are none."""
    from gateway.carbon.exact import text

    for year in found["market"]:
        first = f"; first {year['offset_id']}" if year["offset_id"] else ""
        console.print(
            f"Market-based, {year['method']} matching of {year['matched']} over all lines, {year['state']}: "
            f"the rest counts {year['residual']}{first}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    sums: dict[str, Decimal] = {}
    flags: set[str] = set()
    for row in found["rows"] if found["market"] else ():
        flags |= set(filter(None, row["figures"]["market_flags"].split(";")))
        for key, value in row["figures"].items():
            if key.startswith("market.") and key.endswith(".mwh"):
                name = key.removeprefix("market.").removesuffix(".mwh")
                sums[name] = sums.get(name, Decimal(0)) + Decimal(value)
    for name, mwh in sorted(sums.items()):
        console.print(f"  {name}: {text(mwh)} MWh claimed by these rows", markup=False, highlight=False, soft_wrap=True)
    if flags:
        console.print(f"  {', '.join(sorted(flags))}", markup=False, highlight=False, soft_wrap=True)


def _print_bars(console: "Console", rows: Sequence[Mapping[str, Any]], kind: str, title: str) -> None:
    """Print a bar a name: how much of the energy of all rows it took."""
    from rich.markup import escape

    sums: dict[str, Decimal] = {}
    for row in rows:
        for key, value in row["figures"].items():
            if key.startswith(f"{kind}.") and key.endswith(".kwh"):
                name = key.removeprefix(f"{kind}.").removesuffix(".kwh")
                sums[name] = sums.get(name, Decimal(0)) + Decimal(value)
    whole = sum((value for value in sums.values() if value > 0), Decimal(0))
    if not whole:
        return
    console.print(f"\n{title}")
    width = max(map(len, sums))
    for name, value in sorted(sums.items(), key=lambda one: -one[1]):
        share = max(Decimal(0), value / whole)
        bar = "█" * round(share * _WIDTH)
        kwh = _rounded(str(value), 1)
        console.print(
            f"  {escape(name):<{width}} {kwh:>12} kWh {share * 100:>5.1f} %  {bar}", highlight=False, soft_wrap=True
        )


def _print_restated(console: "Console", rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    from rich.table import Table

    for row in rows:
        if row["restated"] is None:
            continue
        table = Table(title=f"{row['line']} {row.get('shift') or row.get('day')}: restated", title_justify="left")
        for name in ("figure", "as closed", "restated"):
            table.add_column(name, justify="left" if name == "figure" else "right")
        for name in (*_SIDE_BY_SIDE, *_MARKET):
            if name in _MARKET and not (name in row["as_closed"] or name in row["restated"]):
                continue
            one, other = row["as_closed"].get(name, ""), row["restated"].get(name, "")
            table.add_row(name, one or "-", other or "-", style="bold" if one != other else "")
        console.print()
        console.print(table)
        for version in row["versions"][1:]:
            console.print(
                f"  version {version['version']}, leaf {version['leaf']}: {version['reason']}", soft_wrap=True
            )
        console.print(f"  All of it: wattseal explain {file} {row['record']}", highlight=False, soft_wrap=True)


def _print_quarantined(console: "Console", runs: Sequence[Mapping[str, Any]]) -> None:
    """Print which intervals no figure rests on, and why."""
    if runs:
        console.print(f"\n{sum(run['intervals'] for run in runs)} intervals are in quarantine: no figure rests on them")
    for run in runs:
        console.print(
            f"  {run['line']}: {run['intervals']} from {run['start']} to {run['end']}, leaves {run['first_leaf']} to "
            f"{run['last_leaf']}: {run['why']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@click.command()
@_FILE
@click.option("--record", help="One record alone, with what changed from version to version.")
@_JSON
def statements(file: Path, *, record: str | None, as_json: bool) -> None:
    """Show what was stated of closed shifts: every version, never changed, only superseded.

    \b
    Example: wattseal statements ledger.toml
             wattseal statements ledger.toml --record 0123456789abcdef0123456789abcdef
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.reporting import list_statements

    found = list_statements(load_ledger(file), record)
    if as_json:
        click.echo(json.dumps({"statements": found}))
        return
    if not found:
        click.echo(f"{file}: nothing is closed yet")
    for one in found:
        subject, figures = one["subject"], one["figures"]
        where = f"{subject.get('gateway', '')}/{subject.get('line', '')} {subject.get('shift', '')}"
        market = f"{figures['market_co2e_kg'] or '-'} kg market-based  " if "market_co2e_kg" in figures else ""
        click.echo(
            f"{one['record']}  {where}  version {one['version']}  {figures.get('energy_kwh', '-')} kWh  "
            f"{figures.get('co2e_kg') or '-'} kg  {market}{figures.get('state', '')}  {one['reason']}"
        )
        for name, (before, after) in one["changed"].items() if record is not None else ():
            click.echo(f"    {name}: {before or '-'} -> {after or '-'}")


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> Decimal:
    return sum((Decimal(row["figures"][name] or 0) for row in rows), Decimal(0))


def _rounded(value: str, places: int) -> str:
    """Return a figure rounded for the screen; the JSON has all of its digits."""
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,}" if value else "-"


COMMANDS = (report, statements)
