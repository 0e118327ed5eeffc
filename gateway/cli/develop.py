"""Commands for development and demonstration: certificates and keys, a whole site."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gateway.app.snapshot import Snapshot


@click.command("dev-ca")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--gateway", "gateways", multiple=True, required=True, help="A gateway's id; may be given again.")
@click.option("--ledger", default="ledger", show_default=True, help="The ledger's name.")
@click.option(
    "--host", "hosts", multiple=True, default=("localhost", "127.0.0.1"), help="A name or address of the broker."
)
@click.option("--force", is_flag=True, help="Write over what is there.")
def dev_ca(folder: Path, gateways: tuple[str, ...], ledger: str, hosts: tuple[str, ...], *, force: bool) -> None:
    """Make a development authority, certificates and signing keys. Not for production.

    Example: wattseal dev-ca pki --gateway gw1 --gateway gw2
    """
    from gateway.north.pki import make_dev_ca

    for path in make_dev_ca(folder, gateways=gateways, ledger=ledger, hosts=hosts, force=force):
        click.echo(path)


@click.command("dev-agents")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--agent", "agents", multiple=True, required=True, help="An agent's id; may be given again.")
@click.option("--collect", default="collect", show_default=True, help="The common name of the gateway's certificate.")
@click.option(
    "--host", "hosts", multiple=True, default=("localhost", "127.0.0.1"), help="A name or address of the broker."
)
@click.option("--force", is_flag=True, help="Write over what is there.")
def dev_agents(folder: Path, agents: tuple[str, ...], collect: str, hosts: tuple[str, ...], *, force: bool) -> None:
    """Make a development authority for the OT side's broker, with certificates and keys for agents.

    Example: wattseal dev-agents agents --agent press-1
    """
    from gateway.north.pki import make_agents_ca

    for path in make_agents_ca(folder, agents=agents, collect=collect, hosts=hosts, force=force):
        click.echo(path)


@click.command()
@click.option("--seconds", type=click.FloatRange(min=5), help="Stop by itself; else Ctrl-C does.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Leave the results in this folder.")
@click.option("--fault-after", type=click.FloatRange(min=2), help="Seconds until the compressor's valve fails.")
@click.option("--story/--no-story", default=True, help="Then replay the fault in plant time: alert, cause, report.")
@click.option("--force", is_flag=True, help="Delete what an earlier demo left in the folder.")
def demo(seconds: float | None, out: Path | None, fault_after: float | None, *, story: bool, force: bool) -> None:
    """Run a simulated factory, a broker, a gateway and a ledger on this machine, live.

    \b
    Example: wattseal demo
             wattseal demo --seconds 30 --out demo-out
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    fault_after = fault_after or (max(4.0, seconds * 0.45) if seconds else 20.0)
    with tempfile.TemporaryDirectory(prefix="wattseal-demo-") as scratch:
        folder = Path(scratch).resolve() if out is None else _emptied(out, force=force)
        lasts = max(4.0, seconds * 0.27) if seconds else 20.0
        summary = _run(folder, seconds, fault_after, lasts)
        if story and summary["kg_co2e_per_unit_after"] is not None:
            summary |= _told(folder)
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps({key: said for key, said in summary.items() if key != "story"}, indent=2))
    if out is not None and (out / "export").exists():
        click.echo(f"\nLeft in {out}. Check the export:  wattseal verify {out}/export")
        if (out / "story").exists():
            click.echo(f"The story's shifts:  wattseal report {out}/story/ledger.toml")


def _emptied(out: Path, *, force: bool) -> Path:
    """Return the folder, new or emptied of an earlier demo. Raises ConfigError."""
    try:
        if out.exists() and any(out.iterdir()):
            if not force and not (out / "summary.json").is_file():
                raise ConfigError(f"{out}: got a folder with something else in it, want a new one, or --force")
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"{out}: {e.strerror}, want a folder that can be made anew") from e
    return out.resolve()


def _told(folder: Path) -> dict[str, Any]:
    """Tell the story in plant time, with the report of its shift; return what the summary says of it."""
    from gateway.app.reporting import ReportWish, make_report
    from gateway.app.story import run_story, told
    from gateway.cli.report import print_brief

    click.echo("replaying 32 h of the factory in plant time ...", err=True)
    story = asyncio.run(run_story(folder / "story"))
    click.echo("\n".join([*told(story), "The shift's report:"]), err=True)
    print_brief(make_report(load_ledger(folder / "story" / "ledger.toml"), ReportWish(shift=story["shift"])))
    return {"story": story}


def _run(folder: Path, seconds: float | None, fault_after_s: float, lasts_s: float) -> dict[str, Any]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    console.print(f"[bold]Wattseal demo[/] in {folder}  (Ctrl-C ends it)")
    if not console.is_terminal:
        return asyncio.run(_demo(folder, seconds, (fault_after_s, lasts_s), _now_and_then(console)))
    with Live(console=console, refresh_per_second=4) as live:
        return asyncio.run(_demo(folder, seconds, (fault_after_s, lasts_s), lambda now: live.update(_table(now))))


async def _demo(
    folder: Path, seconds: float | None, fault_s: tuple[float, float], show: Callable[["Snapshot"], None]
) -> dict[str, Any]:
    from gateway.app.demo import run_demo
    from gateway.app.handover import Wish, export_to
    from gateway.app.summary import line_sums, summarise

    after_s, lasts_s = fault_s
    site, metrics = await run_demo(
        folder, seconds=seconds, fault_after_s=after_s, lasts_s=lasts_s, show=show, look=line_sums
    )
    summary = summarise(site, metrics)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if summary["kg_co2e_per_unit_before"] is None and seconds is None:
        click.echo("ended before there was a figure: there is no export", err=True)
        return summary
    export_to(folder / "export", load_ledger(folder / "ledger.toml"), Wish())
    return summary


def _now_and_then(console: "Console") -> Callable[["Snapshot"], None]:
    """Return what prints every fifth second, for a terminal that is none."""
    last_s = [-5.0]

    def show(snapshot: "Snapshot") -> None:
        if snapshot.elapsed_s - last_s[0] >= 5:
            last_s[0] = snapshot.elapsed_s
            console.print(
                "  ".join(f"{name}: {value}" for name, value in _rows(snapshot)), soft_wrap=True, highlight=False
            )

    return show


def _rows(snapshot: "Snapshot") -> list[tuple[str, str]]:
    """Return what the demonstration shows, as names and values."""
    metrics, line = snapshot.metrics, snapshot.line
    size, receipted = metrics.get("wattseal_seal_checkpoint_size", 0), metrics.get("wattseal_seal_receipt_size", 0)
    per_unit = None if line is None else line.kg_per_unit_now
    return [
        ("time", f"{snapshot.elapsed_s:.0f} s"),
        ("readings/s", f"{snapshot.readings_per_s:.0f}"),
        ("told by OPC UA, BACnet", f"{metrics.get('wattseal_collect_changes_total', 0):,.0f} changes"),
        ("agent", f"{metrics.get('wattseal_collect_frames_total', 0):,.0f} signed frames"),
        ("sealed leaves", f"{metrics.get('wattseal_seal_log_size', 0):.0f}"),
        ("checkpoint", f"{size:.0f}"),
        ("receipt", f"{receipted:.0f}"),
        ("filling line", "-" if line is None else f"{line.energy_kwh:,.1f} kWh"),
        ("emitted", "-" if line is None else f"{line.co2e_kg * 1000:,.0f} g CO2e"),
        ("per unit", "-" if per_unit is None else f"{per_unit * 1000:,.0f} g CO2e"),
        ("compressor", "VALVE FAILED" if snapshot.faulty else "sound"),
    ]


def _table(snapshot: "Snapshot") -> "Table":
    from rich.table import Table

    table = Table(show_header=False, title="Wattseal: meters -> seal -> broker -> ledger")
    for name, value in _rows(snapshot):
        table.add_row(name, f"[bold red]{value}[/]" if value == "VALVE FAILED" else f"[bold]{value}[/]")
    return table


COMMANDS = (dev_ca, dev_agents, demo)
