"""Commands for development and demonstration: certificates and keys, a whole site."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:


    from gateway.app.demo import Snapshot


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


@click.command()
@click.option("--seconds", type=click.FloatRange(min=5), help="Stop by itself; else Ctrl-C does.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Leave the results in this folder.")
@click.option("--fault-after", type=click.FloatRange(min=2), help="Seconds until the compressor's valve fails.")
@click.option("--force", is_flag=True, help="Delete what an earlier demo left in the folder.")
def demo(seconds: float | None, out: Path | None, fault_after: float | None, *, force: bool) -> None:
    """Run a simulated factory, a broker, a gateway and a ledger on this machine, live.

    \b
    Example: wattseal demo
             wattseal demo --seconds 30 --out demo-out
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    fault_after = fault_after or (max(4.0, seconds * 0.45) if seconds else 20.0)
    if out is not None and out.exists() and any(out.iterdir()):
        if not force and not (out / "summary.json").is_file():
            raise ConfigError(f"{out}: got a folder with something else in it, want a new one, or --force")
        shutil.rmtree(out)
    with tempfile.TemporaryDirectory(prefix="wattseal-demo-") as scratch:
        folder = (out or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        summary = _run(folder, seconds, fault_after)
    click.echo(json.dumps(summary, indent=2))
    if out is not None:
        click.echo(f"\nLeft in {out}. Check the export:  wattseal verify {out}/export")


def _run(folder: Path, seconds: float | None, fault_after_s: float) -> dict[str, float | int | str | None]:
    from rich.console import Console
    from rich.live import Live

    from gateway.app.demo import run_demo
    from gateway.app.summary import line_sums, summarise

    console = Console(stderr=True)
    console.print(f"[bold]Wattseal demo[/] in {folder}  (Ctrl-C ends it)")
    if not console.is_terminal:
        shown = [0]

        def tell(snapshot: "Snapshot") -> None:
            shown[0] += 1
            if shown[0] % 10 == 1:
                console.print(_line(snapshot))

        return asyncio.run(_guarded(folder, seconds, fault_after_s, tell))
    with Live(console=console, refresh_per_second=4) as live:
        return asyncio.run(_guarded(folder, seconds, fault_after_s, lambda snapshot: live.update(_table(snapshot))))


COMMANDS = (dev_ca, demo)
