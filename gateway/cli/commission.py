"""`wattseal commission`: does a meter's power agree with its energy register, and if not, why."""

import asyncio
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_gateway
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.app.commission import Meter, Taken
    from gateway.codec.commission import Judgement

_EVERY_S = 60.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("device")
@click.option("--minutes", type=click.FloatRange(0.05, 24 * 60), default=15.0, show_default=True, help="How long.")
@click.option(
    "--period", "period_s", type=click.FloatRange(0.05, 60), default=1.0, show_default=True, help="In seconds."
)
@click.option("--power", default="", help="The point of active power; found by its name without it.")
@click.option("--energy", default="", help="The point of the energy register; found by its name without it.")
@click.option("--from-log", is_flag=True, help="Take the last minutes from the gateway's own log instead of the meter.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def commission(
    file: Path,
    device: str,
    minutes: float,
    period_s: float,
    power: str,
    energy: str,
    *,
    from_log: bool,
    as_json: bool,
) -> int:
    """Hold a meter's power against its energy register over some minutes; exit 1 unless they agree within 2 %.

    If they do not, it says which of scale, order, sign, transformer ratio or tariff explains it. Ctrl-C judges what is
    there. The load must run meanwhile.

    \b
    Example: wattseal commission gateway.toml comp
             wattseal commission gateway.toml comp --minutes 30 --energy import_energy
             wattseal commission gateway.toml comp --from-log
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.commission import Taken, judgement_of, meter_of, pair_of
    from gateway.app.commission_log import taken_from_log

    config = load_gateway(file)
    if device not in config.devices:
        known = ", ".join(config.devices) or "none is set up"
        raise ConfigError(f"{device}: got device {device!r}, want one of {known}")
    pair = pair_of(config, device, power, energy)
    stopped = False
    if from_log:
        taken = taken_from_log(config, device, pair, minutes=minutes)
    else:
        taken = Taken(pair=pair)
        stopped = _run(meter_of(config, device, pair), taken, seconds=minutes * 60, period_s=period_s)
    judgement = judgement_of(taken, config.devices[device].rated_power_w)
    if as_json:
        click.echo(json.dumps(_fields(device, taken, judgement)))
    else:
        click.echo("\n".join(_lines(device, taken, judgement)))
    return 130 if stopped else int(judgement.verdict != "agree")


def _run(meter: "Meter", taken: "Taken", *, seconds: float, period_s: float) -> bool:
    """Measure, with live figures on standard error; return whether it was stopped before its end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from gateway.app.commission import measure
    from gateway.codec.integral import sums

    console = Console(stderr=True)
    said_s = 0.0
    columns = (
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=seconds)

        def show(elapsed_s: float) -> None:
            nonlocal said_s
            progress.update(bar, completed=min(elapsed_s, seconds), description=live())
            if not console.is_terminal and elapsed_s - said_s >= _EVERY_S:
                said_s = elapsed_s
                console.print(f"{elapsed_s:.0f} of {seconds:.0f} s: {live()}", soft_wrap=True, highlight=False)

        def live() -> str:
            if not taken.instants:
                return f"no reading yet: {taken.why}"
            total = sums(taken.instants)
            failed = f", {taken.failed} failed" if taken.failed else ""
            now_w = taken.instants[-1].power_w
            return f"{now_w:,.0f} W now; power {total.integral_wh:,.1f} Wh, register {total.counted_wh:,.1f} Wh{failed}"

        try:
            asyncio.run(measure(meter, taken, seconds=seconds, period_s=period_s, show=show))
        except KeyboardInterrupt:
            return True
    return False


def _fields(device: str, taken: "Taken", judgement: "Judgement") -> dict[str, Any]:
    from gateway.codec.commission import NOT_PROVEN

    fields = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(judgement).items()
    }
    points = {"power": taken.pair.power.name, "energy": taken.pair.energy.name}
    return {"device": device, **points, "failed": taken.failed, **fields, "not_proven": NOT_PROVEN}


def _lines(device: str, taken: "Taken", judgement: "Judgement") -> list[str]:
    from gateway.codec.commission import NOT_PROVEN

    verdict = {"agree": "OK", "disagree": "FAILED", "undecided": "UNDECIDED"}[judgement.verdict]
    failed = f", {taken.failed} failed, the last: {taken.why}" if taken.failed else ""
    lines = [
        f"{device}: {verdict}: {judgement.why}",
        f"  {judgement.seconds:,.0f} s, {judgement.readings} readings{failed}",
        f"  {taken.pair.power.name:<24} {judgement.mean_w:>16,.1f} W mean, {judgement.integral_wh:>16,.3f} Wh",
        f"  {taken.pair.energy.name:<24} {'':>16}         {judgement.counted_wh:>16,.3f} Wh",
        f"  the register moves in steps of {judgement.step_wh:,.3g} Wh",
    ]
    if judgement.ratio is not None:
        lines.append(f"  register to power: {judgement.ratio:.6g}")
    lines += [f"  {each.cause}: {each.text}" for each in judgement.explanations]
    return [*lines, f"  {NOT_PROVEN}"]


COMMANDS = (commission,)
