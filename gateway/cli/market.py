"""Commands for contractual instruments and for decisions: instruments, shift-load."""

import json
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.cli.audit import instant

if TYPE_CHECKING:
    from rich.table import Table

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_LABEL = "marginal: a decision's figure, in no report"
_KWH_PLACES = 6


@click.command()
@_FILE
@click.option("--year", type=click.IntRange(1990, 2100), help="The vintage; the newest interval's year without it.")
@_JSON
def instruments(file: Path, *, year: int | None, as_json: bool) -> int:
    """Show each instrument of a year: its volume, what is claimed and left, and which lines claim it.

    \b
    Example: wattseal instruments ledger.toml
             wattseal instruments ledger.toml --year 2026 --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from rich.console import Console

    from gateway.app.dual import list_instruments

    found = list_instruments(load_ledger(file), year=year, clock=time.time_ns)
    is_right = not any(one["over_claimed"] for one in found["instruments"])
    if as_json:
        click.echo(json.dumps(found))
        return 0 if is_right else 1
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if found["instruments"]:
        console.print(_table(found))
        console.print(f"{found['method']} matching of {found['matched']}, {found['state']}")
        sums = "claimed + left = volume, for each" if is_right else "MORE IS CLAIMED THAN THERE IS"
        console.print(f"a MWh is claimed once, over all lines: {sums}; the rest counts {found['residual']}")
    else:
        console.print(f"{file}: the plan has no instrument of {found['year']}")
    if found["of_other_years"]:
        console.print(f"of other years: {', '.join(found['of_other_years'])}")
    return 0 if is_right else 1


def _table(found: dict[str, Any]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Instruments of {found['year']}", title_justify="left")
    for name in ("instrument", "type", "zone", "valid", "g/kWh", "MWh", "claimed", "left", "by line"):
        table.add_column(name, justify="right" if name in {"g/kWh", "MWh", "claimed", "left"} else "left")
    for one in found["instruments"]:
        lines = "\n".join(f"{line} {mwh}" for line, mwh in one["lines"].items()) or "-"
        valid = f"{one['valid_from'][:10]} to {one['valid_to'][:10]}"
        about = (one["id"], one["type"], one["zone"], valid, one["g_per_kwh"])
        table.add_row(
            *map(escape, (*about, one["volume_mwh"], one["claimed_mwh"], one["left_mwh"], lines)),
            style="bold red" if one["over_claimed"] else "",
        )
    return table


def _energy_mwh(_: click.Context, __: click.Parameter, text: str) -> int:
    from gateway.carbon.exact import EXACT, scaled

    try:
        kwh = EXACT.create_decimal(text)
        energy_mwh = scaled(kwh, _KWH_PLACES) if kwh.is_finite() and abs(kwh) < Decimal("1e12") else 0
    except InvalidOperation:
        energy_mwh = 0
    if energy_mwh <= 0:
        raise click.BadParameter(f"got {text!r}, want kWh such as 100 or 0.5")
    return energy_mwh


@click.command("shift-load")
@_FILE
@click.option("--zone", required=True, help="The grid zone.")
@click.option("--kwh", "energy_mwh", required=True, callback=_energy_mwh, help="The energy that would be shifted.")
@click.option("--from", "now_ns", required=True, callback=instant, help="When it would be drawn, UTC.")
@click.option("--to", "then_ns", required=True, callback=instant, help="When it would be drawn instead, UTC.")
@_JSON
def shift_load(file: Path, *, zone: str, energy_mwh: int, now_ns: int, then_ns: int, as_json: bool) -> None:
    """Show what CO2e it changes to draw energy at another time, by marginal factors: for a decision, in no report.

    \b
    Example: wattseal shift-load ledger.toml --zone DE --kwh 100 --from 2026-11-21T18:00Z --to 2026-11-22T02:00Z
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app import dual
    from gateway.carbon.exact import shifted, text, utc

    found = dual.shift_load(load_ledger(file), zone=zone, energy_mwh=energy_mwh, now_ns=now_ns, then_ns=then_ns)
    row = {
        "method": found.method,
        "label": _LABEL,
        "zone": found.zone,
        "kwh": text(shifted(found.energy_mwh, -_KWH_PLACES)),
        "from": utc(now_ns),
        "to": utc(then_ns),
        "change_kg": text(shifted(found.change_g, -3)),
        "factors": [
            {
                "start": utc(one.start_ns),
                "end": utc(one.end_ns),
                "g_per_kwh": text(one.g_per_kwh),
                "state": str(one.state),
                "source": one.source,
                "version": one.version,
            }
            for one in (found.now, found.then)
        ],
    }
    if as_json:
        click.echo(json.dumps(row))
        return
    change = f"{shifted(found.change_g, -3):+f}"
    click.echo(f"{zone}: {row['kwh']} kWh at {row['to']} instead of {row['from']}: {change} kg CO2e ({_LABEL})")
    for one in (found.now, found.then):
        click.echo(
            f"  {utc(one.start_ns)} to {utc(one.end_ns)}: {text(one.g_per_kwh)} g/kWh, {one.state}, "
            f"of {one.source}, version {one.version[:12]}"
        )


COMMANDS = (instruments, shift_load)
