"""Commands that change what a gateway does while it runs: plan, apply."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.app.source import Source, applied_path, before_path, read_source, source_of, store_applied, write_whole
from gateway.config.difference import Delta, Difference, difference
from gateway.errors import ConfigError, LinkError

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@_FILE
@_JSON
def plan(file: Path, *, as_json: bool) -> None:
    """Show what `apply` would change, and change nothing.

    Example: wattseal plan gateway.toml
    """
    source = read_source(file)
    running = asyncio.run(_running(source, file))
    if running is None:
        _say({"running": False, "config": source.sha256}, as_json=as_json, text=f"{file}: OK; collect does not run")
        return
    found = difference(running.config, source.config)
    _say(_about(found, source), as_json=as_json, text="\n".join(_lines(file, found)))


@click.command()
@_FILE
@click.option("--undo", is_flag=True, help="Go back to what was applied before; the file is written anew.")
@_JSON
def apply(file: Path, *, undo: bool, as_json: bool) -> None:
    """Make a running gateway do what the file says; what does not differ misses no tick.

    A file that is wrong changes nothing.

    \b
    Example: wattseal apply gateway.toml
             wattseal apply gateway.toml --undo
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.control import ask, check_applied

    if undo:
        _undo(file)
    source = read_source(file)
    running = asyncio.run(_running(source, file))
    if running is None:
        raise LinkError(f"{file}: collect does not run, so there is nothing to change: start it with `wattseal run`")
    found = difference(running.config, source.config)
    socket = running.config.run_folder / "collect.control.sock"
    check_applied(asyncio.run(ask(socket, "apply", source.sha256)))
    store_applied(file, running.text)
    store_applied(file, source.text)
    _say(_about(found, source), as_json=as_json, text="\n".join([*_lines(file, found), f"applied: {source.sha256}"]))


async def _running(source: Source, file: Path) -> Source | None:
    """Return what is in force, None where collect does not run."""
    from gateway.app.control import ask, running_text

    try:
        text = running_text(await ask(source.config.run_folder / "collect.control.sock", "running"))
    except LinkError:
        return None
    return source_of(text, file)


def _undo(file: Path) -> None:
    before = before_path(file)
    if not before.exists():
        raise ConfigError(f"{before}: is not there: nothing was applied before {applied_path(file).name}")
    write_whole(file, read_source(before).text)


def _about(found: Difference, source: Source) -> dict[str, Any]:
    return {
        "running": True,
        "config": source.sha256,
        "changes": [_delta(delta) for delta in found.changes],
        "restart": [_delta(delta) for delta in found.restart],
    }


def _delta(delta: Delta) -> dict[str, Any]:
    keys = delta.keys if delta.what == "changed" else {}
    return {"name": delta.name, "what": delta.what, "keys": {key: list(pair) for key, pair in keys.items()}}


def _lines(file: Path, found: Difference) -> Iterator[str]:
    if not found:
        yield f"{file}: nothing differs from what runs"
    for delta in found.changes:
        yield f"{_SIGNS[delta.what]} {delta.name}"
        yield from _keys(delta)
    for delta in found.restart:
        yield f"! {delta.name}: wants a restart"
        yield from _keys(delta)


def _keys(delta: Delta) -> Iterator[str]:
    for key, (before, after) in delta.keys.items() if delta.what == "changed" else ():
        yield f"    {key}: {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    text = "(not set)" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _say(about: dict[str, Any], *, as_json: bool, text: str) -> None:
    click.echo(json.dumps(about, default=str) if as_json else text)


COMMANDS = (plan, apply)
