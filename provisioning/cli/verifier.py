"""`provision verifier`: the attestation service, and what it has found."""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gateway.app.entry import run_until_stopped
from provisioning.verifier.config import load_verifier
from provisioning.verifier.records import Record
from provisioning.verifier.store import Store

_WIDE = 200
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


class _RunByDefault(click.Group):
    """`provision verifier FILE` is `provision verifier run FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_file = args[0] not in self.commands and not args[0].startswith("-") and "." in args[0]
        return super().resolve_command(ctx, ["run", *args] if is_file else args)


@click.group(cls=_RunByDefault)
def verifier() -> None:
    """The attestation service: ask each gateway what state it is in, tell the ledger.

    Example: provision verifier run verifier.toml
    """


@verifier.command()
@_FILE
def run(file: Path) -> None:
    """Run the verifier until it is stopped.

    Example: provision verifier run verifier.toml
    """
    from provisioning.verifier.service import run_verifier

    run_until_stopped(run_verifier(file))


@verifier.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a gateway.")
def status(file: Path, *, as_json: bool) -> int:
    """Show each gateway's state, and when it was last found good. The verifier may run meanwhile, or not.

    Exit code 1 when a gateway is not TRUSTED.

    Example: provision verifier status verifier.toml
    """
    config = load_verifier(file)
    with closing(Store(config.database, new=False)) as store:
        records = [*store.read().values()]
    now_s = int(time.time())
    rows = [_row(record, now_s, config.verifier.result_s) for record in records]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        _print(rows)
    return int(any(row["state"] != "TRUSTED" for row in rows))


def _row(record: Record, now_s: int, result_s: int) -> dict[str, Any]:
    marks = dataclasses.asdict(record.marks) if record.marks else {}
    return {
        "gateway": record.gateway,
        "device": record.device,
        "state": record.shown(now_s, result_s=result_s).value,
        "reason": record.reason,
        "since": _time(record.since_s),
        "told": _time(record.told_s),
        "last_verified": _time(record.verified_s),
        **{name: marks.get(name) for name in ("epoch", "key", "log_size", "reset_count", "restart_count")},
        "ak": marks.get("device"),
    }


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("gateway", "device", "state", "since", "last verified", "epoch", "resets"):
        table.add_column(name, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for row in rows:
        texts = [row[key] for key in ("gateway", "device", "state", "since", "last_verified", "epoch", "reset_count")]
        table.add_row(*("never" if text is None else str(text) for text in texts), row["reason"])
    width = None if sys.stdout.isatty() else _WIDE  # what reads a file or a pipe cuts lines by itself
    Console(highlight=False, markup=False, width=width).print(table)


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMANDS: tuple[click.Command, ...] = (verifier,)
