"""`provision station` and `provision label`: the factory's side of enrolment."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from provisioning.station.batch import Enrols, Outcome
    from provisioning.station.order import Order
    from provisioning.station.settings import Settings
    from provisioning.station.simulate import Simulation

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="station.toml: docs/provisioning.md."
)
Told = Callable[[str, str], None]
Done = Callable[["Outcome"], None]


@click.command()
@_CONFIG
@click.argument("units", metavar="[SERIAL=ADDRESS]...", nargs=-1)
@click.option("--batch", type=click.Path(path_type=Path, dir_okay=False), help="A CSV file: serial, address ...")
@click.option("--simulate", type=click.IntRange(1, 100_000), metavar="N", help="So many units in software instead.")
@click.option("--seed", default="x", metavar="WORD", show_default=True, help="With --simulate: part of the serials.")
@click.option("--order", "work_order", metavar="NUMBER", help="The work order.")
@click.option("--operator", metavar="NAME", help="Who stands at the station.")
@click.option("--jobs", type=click.IntRange(1, 64), help="Units at once (station.toml's, or 2).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def station(
    config: Path | None,
    units: tuple[str, ...],
    batch: Path | None,
    simulate: int | None,
    seed: str,
    work_order: str | None,
    operator: str | None,
    jobs: int | None,
    *,
    as_json: bool,
) -> int:
    """Enrol units. Interrupted, it is simply run again: what is done is not done again.

    ADDRESS is local, ssh://user@host:port or serial:///dev/ttyUSB0?baud=115200; local when it is left out.

    \b
    Example: provision station --config station.toml WS-0001=ssh://root@192.0.2.7
             provision station --config station.toml --batch units.csv --order WO-17 --operator "A. Smith"
             provision station --simulate 20 --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    os.environ.setdefault("TSS2_LOG", "all+none")  # libtss2 would write a line for each refusal that we ask for
    if sum((bool(units), batch is not None, simulate is not None)) != 1:
        raise click.UsageError("want units, or --batch, or --simulate")
    if simulate is not None:
        if config is not None:
            raise click.UsageError("want --simulate without --config: no TPM in software gets a real certificate")
        with _ended_gently(), _simulation(simulate, seed=seed) as run:
            return _enrol(run.station, run.orders, count=simulate, jobs=jobs or 2, as_json=as_json)
    if config is None:
        raise click.UsageError("want --config station.toml")
    from provisioning.station.settings import load_station
    from provisioning.station.station import opened

    settings = load_station(config)
    orders = _orders(settings, units, batch, work_order=work_order, operator=operator)
    with _ended_gently(), opened(settings, environ=os.environ) as opened_station:
        return _enrol(
            opened_station, iter(orders), count=len(orders), jobs=jobs or settings.station.jobs, as_json=as_json
        )


@contextmanager
def _ended_gently() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C is taken: the units under way end, and nothing is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _simulation(count: int, *, seed: str) -> Iterator["Simulation"]:
    from provisioning.station.simulate import simulated

    if not seed.isalnum() or not seed.isascii() or len(seed) > 20:
        raise click.BadParameter(f"got {seed!r}, want up to 20 letters and digits", param_hint="--seed")
    with simulated(count, seed=seed) as run:
        yield run


def _orders(
    settings: "Settings", units: Sequence[str], batch: Path | None, *, work_order: str | None, operator: str | None
) -> "list[Order]":
    from provisioning.station.batch import COLUMNS, make_order, read_units, unique
    from provisioning.station.order import Order

    said = settings.station
    who = operator or said.operator
    if not who:
        raise ConfigError("station.operator: got nothing, want it in station.toml or --operator")
    default = Order(
        serial="",
        address="" if batch else "local",
        model=said.model,
        order=work_order or said.order or "",
        operator=who,
        image_sha256=said.image_sha256,
    )
    if batch is not None:
        return read_units(batch, default=default)
    orders = []
    for unit in units:
        serial, _, address = unit.partition("=")
        texts = {name: getattr(default, name) for name in COLUMNS} | {"serial": serial}
        orders.append(make_order(texts | ({"address": address} if address else {}), operator=who, where=unit))
    return unique(orders, "units")


def _enrol(station_: "Enrols", orders: "Iterator[Order]", *, count: int, jobs: int, as_json: bool) -> int:
    """Run the batch and say how it went; return the exit code."""
    from provisioning.station.batch import run_batch, summary

    outcomes: list[Outcome] = []
    begun_s, is_whole = time.monotonic(), False
    try:
        with _progress(count, as_json=as_json) as (told, done):

            def keep(outcome: "Outcome") -> None:
                outcomes.append(outcome)
                done(outcome)

            run_batch(station_, orders, jobs=jobs, told=told, done=keep)
        is_whole = True
    finally:  # also of a batch that Ctrl-C or an error ends: what was done is done
        found = summary(outcomes, total_s=time.monotonic() - begun_s, is_interrupted=not is_whole)
        ending = [json.dumps(found)] if as_json else _ending(outcomes, found["total_s"], None if is_whole else count)
        click.echo("\n".join(ending))
    return 1 if found["failed"] else 0


@contextmanager
def _progress(count: int, *, as_json: bool) -> "Iterator[tuple[Told, Done]]":
    """Give what shows how far a batch is: a bar on a terminal, a line a unit otherwise, nothing with --json."""
    if as_json:
        yield (lambda _, __: None), (lambda _: None)
        return
    if not sys.stderr.isatty():
        ended = 0

        def line(outcome: "Outcome") -> None:
            nonlocal ended
            ended += 1
            click.echo(f"{ended}/{count} {_said(outcome)}", err=True)

        yield (lambda _, __: None), line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("enrolling", total=count)

        def show(serial: str, step: str) -> None:
            bar.update(task, description=f"{serial} {step}")

        def end(outcome: "Outcome") -> None:
            bar.advance(task)
            if not outcome.is_ok or outcome.ek_remarks or outcome.why:
                bar.console.print(_said(outcome), markup=False, highlight=False)

        yield show, end


def _said(outcome: "Outcome") -> str:
    if outcome.way is None:
        return f"{outcome.serial}: FAILED at {outcome.step}: {outcome.why}; {outcome.mend}"
    said = _WAYS[outcome.way].format(seconds=outcome.seconds, why=outcome.why)
    return f"{outcome.serial}: {said}{''.join(f'; {remark}' for remark in outcome.ek_remarks)}"


_WAYS = {
    "enrolled": "enrolled in {seconds:.2f} s",
    "again": "was enrolled before, and got what it lacked again",
    "renewed": "was enrolled before, and got its files again with a new IDevID; the old one is revoked",
    "already": "was enrolled before",
    "silent": "was enrolled before, and does not answer now ({why}): nothing is known of what it holds",
}


def _ending(outcomes: "Sequence[Outcome]", total_s: float, wanted: int | None) -> list[str]:
    """Return the closing lines. wanted: how many units were asked for, of a batch that was interrupted."""
    failed = [one for one in outcomes if not one.is_ok]
    many = len(outcomes) if wanted is None else wanted
    start = "" if wanted is None else "interrupted: "
    lines = [f"{start}{len(outcomes) - len(failed)} of {many} units are enrolled, in {total_s:.1f} s"]
    lines += [_said(one) for one in failed]
    if failed:
        lines.append("when that is mended, run the same command again: what is done is not done again")
    elif wanted is not None:
        lines.append("run the same command again: what is done is not done again")
    return lines


@click.command()
@_CONFIG
@click.argument("serial")
@click.option("--format", "kind", type=click.Choice(["svg", "pdf"]), help="station.toml's without it.")
def label(config: Path | None, serial: str, kind: str | None) -> None:
    """Write a unit's label anew, from the registrar: as when the first one was torn.

    Example: provision label --config station.toml WS-0001
    """
    from provisioning.station.settings import load_station
    from provisioning.station.station import label_again

    if config is None:
        raise click.UsageError("want --config station.toml")
    settings = load_station(config)
    click.echo(str(label_again(settings, serial, kind=kind or settings.label.format)))


COMMANDS = (station, label)
