"""Commands that run until they are stopped: one a process, for systemd; and all of a gateway's."""

import contextlib
from pathlib import Path

import click

from gateway.app.entry import allow_open_files, run_until_stopped
from gateway.app.load import load_ledger
from gateway.app.source import Source, kept_source, store_applied
from gateway.errors import ConfigError

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


def _kept(file: Path) -> Source:
    """Return what the file says; where it is wrong, what was applied last."""
    return kept_source(file, say=lambda why: click.echo(why, err=True))


@click.command()
@_FILE
def run(file: Path) -> None:
    """Run a gateway: seal, forward and collect, each in its process.

    Example: wattseal run gateway.toml
    """
    from gateway.app.supervisor import run_gateway

    source = _kept(file)
    with contextlib.suppress(ConfigError):  # a folder that we may only read is no reason not to run
        store_applied(file, source.text)
    run_until_stopped(run_gateway(file))


@click.command()
@_FILE
def collect(file: Path) -> None:
    """Run the OT side alone: poll the meters, hand rows to the seal.

    Example: wattseal collect gateway.toml
    """
    from gateway.app.collect import run_collect

    run_until_stopped(run_collect(file))


@click.command()
@_FILE
def seal(file: Path) -> None:
    """Run the seal alone: the log and its key, no network.

    Example: wattseal seal gateway.toml
    """
    from gateway.app.isolation import drop_network
    from gateway.app.seal import run_seal

    config = _kept(file).config
    run_until_stopped(run_seal(config, isolated=drop_network()))


@click.command()
@_FILE
def forward(file: Path) -> None:
    """Run the DMZ side alone: publish sealed leaves, bring receipts back.

    Example: wattseal forward gateway.toml
    """
    from gateway.app.forward import run_forward

    run_until_stopped(run_forward(_kept(file).config))


@click.group()
def ledger() -> None:
    """The ledger: verify, keep, cosign, compute.

    Example: wattseal ledger run ledger.toml
    """


@ledger.command("run")
@_FILE
def ledger_run(file: Path) -> None:
    """Run the ledger until it is stopped.

    Example: wattseal ledger run ledger.toml
    """
    from gateway.app.ledger_serve import run_ledger

    allow_open_files()
    run_until_stopped(run_ledger(load_ledger(file)))


@ledger.command("rebuild")
@_FILE
def ledger_rebuild(file: Path) -> None:
    """Delete the projections and make them again from the logs. The ledger must not run.

    Example: wattseal ledger rebuild ledger.toml
    """
    from gateway.app.rebuild import rebuild

    allow_open_files()
    digest = rebuild(load_ledger(file), say=lambda text: click.echo(text, err=True))
    click.echo(f"rebuilt; sha256 of the tables: {digest}")


COMMANDS = (run, collect, seal, forward, ledger)
