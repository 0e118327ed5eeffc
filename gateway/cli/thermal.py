"""Commands for a building's inertia: fit, predict."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.app.load import load_ledger
from gateway.cli.audit import instant
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.carbon.thermal import Fit

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_ROOM = click.argument("room")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_FROM = click.option("--from", "start_ns", callback=instant, help="First instant, UTC; two weeks before without it.")
_TO = click.option("--to", "end_ns", callback=instant, help="End, UTC; now without it.")


@click.group()
def thermal() -> None:
    """Learn how a room holds its heat, and what a set-point change would save.

    \b
    Example: wattseal thermal fit ledger.toml hall
             wattseal thermal predict ledger.toml hall --set-point 21 --to-set-point 20 --outdoor 0
    """  # noqa: D301 (click's mark for a block that is not wrapped)


@thermal.command("fit")
@_FILE
@_ROOM
@_FROM
@_TO
@_JSON
def fit_room(file: Path, room: str, start_ns: int | None, end_ns: int | None, *, as_json: bool) -> None:
    """Fit a room's model from sealed readings; refuse a poor fit and say what is missing.

    \b
    Example: wattseal thermal fit ledger.toml hall --from 2026-01-05 --to 2026-01-12
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.rooms import read_room

    model = read_room(load_ledger(file), room, start_ns=start_ns, end_ns=end_ns).fit()
    if as_json:
        click.echo(json.dumps({"room": room, **asdict(model), "tau_h": model.tau_h}))
        return
    click.echo("\n".join([f"{room}: fitted from {model.samples} readings over {model.hours:.0f} h", *_lines(model)]))


@thermal.command()
@_FILE
@_ROOM
@_FROM
@_TO
@click.option("--set-point", "from_c", type=float, required=True, help="The set-point now, degrees Celsius.")
@click.option("--to-set-point", "to_c", type=float, required=True, help="The one to be judged.")
@click.option("--outdoor", "outdoor_c", type=float, required=True, help="The weather, degrees Celsius.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="How long it holds.")
@click.option("--factor", "kg_per_kwh", type=float, help="kg CO2e per kWh; the zone's newest without it.")
@_JSON
def predict(
    file: Path,
    room: str,
    start_ns: int | None,
    end_ns: int | None,
    from_c: float,
    to_c: float,
    outdoor_c: float,
    hours: float,
    kg_per_kwh: float | None,
    *,
    as_json: bool,
) -> None:
    """Predict what a set-point change would save, before it is made. A decision's figure: it enters no report.

    \b
    Example: wattseal thermal predict ledger.toml hall --set-point 21 --to-set-point 20 --outdoor 0
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.rooms import factor_now, read_room
    from gateway.carbon.thermal import Change
    from gateway.carbon.thermal import predict as foretell

    config = load_ledger(file)
    found = read_room(config, room, start_ns=start_ns, end_ns=end_ns)
    known = factor_now(config, found.section.zone) if kg_per_kwh is None else kg_per_kwh
    if known is None:
        raise ConfigError(f"thermal.{room}.zone: no factor of {found.section.zone!r} is known, want --factor")
    change = Change(from_c=from_c, to_c=to_c, outdoor_c=outdoor_c, hours=hours, cop=found.section.cop, kg_per_kwh=known)
    model = found.fit()
    try:
        made = foretell(model, change)
    except ValueError as e:
        raise click.BadParameter(str(e)) from e
    if as_json:
        said = {"room": room, "change": asdict(change), "prediction": asdict(made), "fit": asdict(model)}
        click.echo(json.dumps(said))
        return
    verb = "saves" if made.saved_kg >= 0 else "costs"
    click.echo(
        f"{room}: {from_c:g} -> {to_c:g} C for {hours:g} h at {outdoor_c:g} C outdoors {verb} "
        f"{abs(made.saved_kwh):.1f} kWh, {abs(made.saved_kg):.1f} kg CO2e\n"
        f"  95 % interval: {made.low_kg:.1f} to {made.high_kg:.1f} kg, from how well the model is known\n"
        f"  it coasts for {made.coast_h:.2f} h ({made.deferred_kwh:.1f} kWh), then {made.kg_per_day:.1f} kg a day\n"
        + "\n".join(_lines(model))
    )


def _lines(model: "Fit") -> list[str]:
    known = f"R {model.r_k_per_kw:.3f} K/kW (+/- {2 * model.r_error:.1%})"
    known += f", C {model.c_kwh_per_k:.1f} kWh/K (+/- {2 * model.c_error:.1%}), time constant {model.tau_h:.1f} h"
    return [
        f"  {known}",
        f"  the free run is {model.rmse_k:.2f} K off and explains {model.explained:.1%}",
    ]


COMMANDS = (thermal,)
