"""Commands on what the ledger holds of its gateways: attest status, admin readmit, admin quarantine."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.app.load import load_ledger
from gateway.cli.audit import instant
from gateway.errors import ConfigError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
LEDGER = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("ledger.toml"),
    show_default=True,
    envvar="WATTSEAL_LEDGER",
    help="The ledger's configuration, or WATTSEAL_LEDGER.",
)
"""Of each command that takes the running ledger's configuration."""
_WIDE = 160


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_JSON
def status(file: Path, *, as_json: bool) -> None:
    """Show each gateway's state: TRUSTED, PENDING, STALE, UNREACHABLE, FAILED, or UNATTESTED; and what is quarantined.

    \b
    Example: wattseal attest status ledger.toml
             wattseal attest status ledger.toml --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from rich.console import Console
    from rich.table import Table

    from gateway.app.standing.states import list_states

    found = list_states(load_ledger(file))
    if as_json:
        click.echo(json.dumps({"gateways": found}))
        return
    table = Table()
    for name in ("gateway", "device", "state", "epoch", "last verified", "since", "from leaf", "quarantined", "reason"):
        table.add_column(name, justify="right" if name in {"epoch", "from leaf", "quarantined"} else "left")
    for one in found:
        numbers = [str(one[name]) for name in ("since_leaf", "quarantined")]
        times = [one["last_verified"] or "never", one["since"] or "-"]
        table.add_row(
            one["gateway"],
            one["device"] or "-",
            one["state"],
            str(one["epoch"]),
            *times,
            *numbers,
            one["reason"] or "-",
        )
    (Console() if sys.stdout.isatty() else Console(width=_WIDE)).print(table)


def _leaves(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    first, _, stop = value.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and len(value) < 40 and int(first) < int(stop)):
        raise ConfigError(f"--leaves: got {value[:40]!r}, want FIRST:STOP, the first leaf and the one after the last")
    return int(first), int(stop)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("gateway"),
    click.option("--leaves", callback=_leaves, metavar="FIRST:STOP", help="Leaves of its log; STOP is excluded."),
    click.option("--from", "start_ns", callback=instant, help="Instead: intervals that end after this, UTC."),
    click.option("--to", "end_ns", callback=instant, help="Intervals that end by then, UTC."),
    click.option("--reason", required=True, help="Why, in one line: it is sealed, and shown to auditors."),
    click.option(
        "--key",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Your private key; its verifier key stands in [attest] officers. Not needed for --dry-run.",
    ),
    LEDGER,
    click.option("--dry-run", is_flag=True, help="Show what it concerns, decide nothing."),
    _JSON,
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_with_options
def readmit(**said: Any) -> None:
    """Let figures rest on quarantined leaves of a gateway, by your signature. Undone by `quarantine`.

    \b
    Example: wattseal admin readmit gw1 --leaves 4100:4220 --reason "firmware approved late, ticket 4711" --dry-run
             wattseal admin readmit gw1 --from 2026-11-21T08:00:00Z --reason "ticket 4711" --key jane.key
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    _decide(admit=True, **said)


@click.command()
@_with_options
def quarantine(**said: Any) -> None:
    """Let no figure rest on leaves of a gateway, whatever its state was, by your signature. Undone by `readmit`.

    \b
    Example: wattseal admin quarantine gw1 --leaves 4100:4220 --reason "cabinet was open, ticket 4712" --key jane.key
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    _decide(admit=False, **said)


def _decide(
    *,
    admit: bool,
    gateway: str,
    leaves: tuple[int, int] | None,
    start_ns: int | None,
    end_ns: int | None,
    reason: str,
    key: Path | None,
    file: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    from gateway.app.standing.readmitting import Wanted, concern_of, decide
    from gateway.clock import WallClock

    if (leaves is None) == (start_ns is None and end_ns is None):
        raise ConfigError("leaves: want --leaves, or --from and --to, and not both")
    if key is None and not dry_run:
        raise ConfigError("--key: got none, want the private key of an officer; or --dry-run")
    config = load_ledger(file)
    concern = concern_of(config, Wanted(gateway=gateway, leaves=leaves, start_ns=start_ns, end_ns=end_ns))
    waits = None
    if key is not None and not dry_run:
        now = WallClock()
        waits = decide(config, concern, admit=admit, reason=reason, key=key, now_ns=lambda: now.read().t_ns)
    what = "readmit" if admit else "quarantine"
    if as_json:
        click.echo(json.dumps({**asdict(concern), "decision": what, "file": "" if waits is None else str(waits)}))
        return
    counted = f"{concern.energy_mwh // 1_000_000}.{concern.energy_mwh % 1_000_000:06d}"
    click.echo(
        f"{what} leaves {concern.first}:{concern.stop} of {gateway}: {concern.intervals} intervals of "
        f"{', '.join(concern.lines)}, {concern.quarantined} of them in quarantine; their counters counted {counted} kWh"
    )
    click.echo("dry run: nothing is decided" if waits is None else f"{waits}: waits for the ledger, which checks it")
