"""`wattseal scan modbus`: which unit ids answer, and which models they may be."""

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import DeviceError

if TYPE_CHECKING:
    from gateway.app.scan_modbus import Found
    from gateway.codec.modelfit import Fit, Model
    from gateway.codec.targets import Target

_SHOWN = 3


@click.command()
@click.argument("target")
@click.option("--units", help="Unit ids to ask: 1-247, or 1,3,10-20. With a URL, or instead of /UNITS.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.01, 60), default=0.5, show_default=True, help="Seconds."
)
@click.option(
    "--pause", "pause_s", type=click.FloatRange(0, 60), default=0.02, show_default=True, help="Between requests."
)
@click.option("--models/--no-models", default=True, help="Compare what answers with the catalogue.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def modbus(target: str, units: str | None, timeout_s: float, pause_s: float, *, models: bool, as_json: bool) -> int:
    """List the Modbus unit ids that answer at TARGET, and the models that they may be. Only reads, one at a time.

    TARGET is HOST[:PORT][/UNITS], NETWORK/BITS[:PORT]/UNITS, or a URL: tcp://host:port, rtu+tcp://host:port,
    serial:///dev/... Without UNITS, 1 to 247 are asked. Ctrl-C ends it and shows what was found.

    \b
    Example: wattseal scan modbus 192.0.2.10
             wattseal scan modbus 192.0.2.10:502/1-10
             wattseal scan modbus 192.0.2.0/28/1,2 --pause 0.1
             wattseal scan modbus "serial:///dev/ttyUSB0?baudrate=9600" --units 1-32
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.scan_modbus import Found, catalogue
    from gateway.codec.targets import parse_target

    asked = parse_target(target, units)
    found = Found()
    stopped = _run(asked, found, catalogue() if models else [], timeout_s=timeout_s, pause_s=pause_s)
    click.echo(json.dumps(_fields(asked, found, stopped=stopped)) if as_json else "\n".join(_lines(asked, found)))
    if stopped:
        click.echo("stopped: what follows was not asked", err=True)
        return 130
    if not found.units:
        why = next(iter(found.unreachable.values()), "nobody is there, or nobody can be reached through it")
        raise DeviceError(f"{target}: no unit id answered: {why}")
    return 0


def _run(target: "Target", found: "Found", models: "list[Model]", *, timeout_s: float, pause_s: float) -> bool:
    """Scan, with a bar where somebody looks; return whether it was stopped before its end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gateway.app.scan_modbus import scan

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("scanning", total=len(target.urls) * len(target.units))

        def tell(url: str, unit_id: int) -> None:
            done = target.urls.index(url) * len(target.units) + target.units.index(unit_id)
            progress.update(bar, completed=done, description=f"{url} unit {unit_id}: {len(found.units)} found")

        try:
            asyncio.run(scan(target, found, models=models, timeout_s=timeout_s, pause_s=pause_s, tell=tell))
        except KeyboardInterrupt:
            return True
    return False


def _fields(target: "Target", found: "Found", *, stopped: bool) -> dict[str, Any]:
    return {
        "urls": list(target.urls),
        "units": [asdict(unit) for unit in found.units],
        "asked": found.asked,
        "requests": found.requests,
        "unreachable": found.unreachable,
        "gateway_says_nobody": found.gateways,
        "stopped": stopped,
    }


def _lines(target: "Target", found: "Found") -> list[str]:
    lines = []
    for unit in found.units:
        lines.append(f"{unit.url} unit {unit.unit_id}: {unit.said}")
        if unit.fits is None:
            continue
        for fit in unit.fits[:_SHOWN]:
            lines += _fit(fit)
        if not unit.fits:
            lines.append("    no model of the catalogue fits: see `wattseal probe`")
        elif len(unit.fits) > _SHOWN:
            lines.append(f"    and {len(unit.fits) - _SHOWN} that fit less well")
    lines += [f"{url}: {why}" for url, why in found.unreachable.items()]
    lines += [
        f"{url}: a gateway answers for {count} unit ids that nobody is there" for url, count in found.gateways.items()
    ]
    hosts = f" at {len(target.urls)} hosts" if len(target.urls) > 1 else ""
    lines.append(f"{len(found.units)} of {found.asked} unit ids answer{hosts}; {found.requests} reads, nothing written")
    if any(unit.fits for unit in found.units):
        lines.append(
            "A model is a guess from what its registers hold: compare with the plate, then `wattseal commission`."
        )
    return lines


def _fit(fit: "Fit") -> list[str]:
    verified = "" if fit.verified else ", its register map is UNVERIFIED"
    return [
        f"    {fit.template} ({fit.title}){verified}: {fit.score:g}",
        *(f"        {reason}" for reason in fit.reasons),
    ]
