"""Commands that look and change nothing: check, read, status."""

import asyncio
import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.app.load import load_gateway, load_ledger
from gateway.config import GatewayConfig
from gateway.errors import ConfigError, DeviceError

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


@click.command()
@_FILE
@_JSON
def check(file: Path, *, as_json: bool) -> None:
    """Check a gateway.toml or ledger.toml; say where, what it got and what it wants.

    Example: wattseal check gateway.toml
    """
    from gateway.app.devices import open_devices

    if _is_ledger(file):
        ledger = load_ledger(file)
        found: dict[str, Any] = {"file": str(file), "ledger": ledger.ledger.name, "gateways": sorted(ledger.gateways)}
        _say(found, as_json=as_json, text=f"{file}: OK: ledger {ledger.ledger.name}, {len(ledger.gateways)} gateways")
        return
    config = load_gateway(file)
    try:
        open_devices(config)
    except ConfigError as e:
        raise ConfigError(f"{file.name}: {e}") from e
    devices = [_device(config, name) for name in config.devices]
    requests_per_s = sum(device["requests_per_s"] for device in devices)
    found = {"file": str(file), "gateway": config.gateway.id, "devices": devices, "lines": sorted(config.lines)}
    counts = f"{len(devices)} devices, {requests_per_s:g} requests/s, {len(config.lines)} lines"
    lines = [f"{file}: OK: gateway {config.gateway.id}, {counts}"]
    lines += [
        f"  {d['name']}: {d['title']}, {d['points']} points in {d['requests']} requests every {d['period_s']:g} s"
        + ("" if d["verified"] else " (its register map is UNVERIFIED: compare it with the maker's manual)")
        for d in devices
    ]
    _say(found, as_json=as_json, text="\n".join(lines))


def _is_ledger(file: Path) -> bool:
    try:
        return "ledger" in tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # load_gateway says what is wrong


def _device(config: GatewayConfig, name: str) -> dict[str, Any]:
    from gateway.app.devices.modbus import limits_of
    from gateway.codec.planner import plan
    from gateway.config import ModbusTemplate, points_of

    section = config.devices[name]
    template = config.templates[section.template]
    requests = 1
    if isinstance(template, ModbusTemplate):
        requests = len(plan(points_of(template), limits_of(template)))
    return {
        "name": name,
        "template": section.template,
        "title": template.title,
        "verified": template.verified,
        "points": len(template.points),
        "requests": requests,
        "period_s": config.period_s(name),
        "requests_per_s": requests / config.period_s(name),
    }


@click.command()
@_FILE
@click.argument("target")
@_JSON
def read(file: Path, target: str, *, as_json: bool) -> None:
    """Read a device, or one of its points, once; show the raw words too, or the device's own time.

    \b
    Example: wattseal read gateway.toml comp
             wattseal read gateway.toml comp.import_energy
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.look import look

    config = load_gateway(file)
    device, _, point = target.partition(".")
    if device not in config.devices:
        raise ConfigError(
            f"{target}: got device {device!r}, want one of {', '.join(config.devices) or 'none is set up'}"
        )
    values = asyncio.run(look(config, device, point))
    rows = [
        {
            "point": v.point,
            "value": v.value,
            "unit": v.unit,
            "quality": v.quality.name,
            "words": v.words,
            "status": v.status,
        }
        | ({"source_time": _time(v.source_time_ns)} if v.source_time_ns else {})
        for v in values
    ]
    width = max(len(value.point) for value in values)
    text = "\n".join(
        f"{row['point']:<{width}}  {row['value']!s:>18} {row['unit']:<5} {row['quality']:<9} {_came(row)}"
        + (f"  {row['status']}" if row["status"] else "")
        for row in rows
    )
    _say({"device": device, "points": rows}, as_json=as_json, text=text)
    if all(row["quality"] == "BAD" for row in rows):
        raise DeviceError(f"{target}: no good value: {rows[0]['status'] or 'no answer'}")


def _came(row: Mapping[str, Any]) -> str:
    """Return the words of a point, or its time where its protocol has no words."""
    return str(row["words"] or row.get("source_time", ""))


def _time(t_ns: int) -> str:
    """Return an instant as ISO 8601, UTC."""
    whole_s, rest_ns = divmod(t_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(whole_s, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


@click.command()
@_FILE
@_JSON
def status(file: Path, *, as_json: bool) -> int:
    """Show what the running processes count; exit 1 when one of them does not answer.

    Example: wattseal status gateway.toml
    """
    from gateway.app.metrics import read_metrics

    sockets: dict[str, Path]
    if _is_ledger(file):
        folder = load_ledger(file).ledger.state / "run"
        sockets = {"ledger": folder / "ledger.metrics.sock"}
    else:
        folder = load_gateway(file).run_folder
        sockets = {name: folder / f"{name}.metrics.sock" for name in ("collect", "seal", "forward")}

    async def ask(socket: Path) -> Mapping[str, float] | None:
        try:
            return await read_metrics(socket)
        except (OSError, ValueError, TimeoutError):
            return None  # ValueError: somebody else listens there

    async def ask_all() -> dict[str, Mapping[str, float] | None]:
        return {name: await ask(socket) for name, socket in sockets.items()}

    found = asyncio.run(ask_all())
    if as_json:
        click.echo(json.dumps({name: None if m is None else dict(m) for name, m in found.items()}))
    else:
        for name, metrics in found.items():
            click.echo(f"{name}: {'does not answer' if metrics is None else 'runs'}")
            for key, value in (metrics or {}).items():
                if not key.endswith("_created"):
                    click.echo(f"  {key.removeprefix(f'wattseal_{name}_'):<28} {value:,.10g}")
    return 1 if None in found.values() else 0


def _say(found: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    click.echo(json.dumps(found, default=str) if as_json else text)


COMMANDS = (check, read, status)
