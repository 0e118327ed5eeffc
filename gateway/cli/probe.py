"""`wattseal probe`: one point's registers in all orders and types, side by side."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_gateway
from gateway.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from gateway.app.probe import Probed
    from gateway.codec.candidates import Candidate

_WIDTH = 17


def _number(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError as e:
        raise click.BadParameter(f"got {text!r}, want a number such as 52 or 0x34") from e


@click.command()
@click.argument("source", metavar="FILE|URL")
@click.argument("target", metavar="[DEVICE.POINT]", required=False)
@click.option("--unit", "unit_id", type=click.IntRange(0, 255), default=1, show_default=True, help="With a URL.")
@click.option("--address", callback=_number, help="With a URL: PDU address, from 0; 0x34 and 52 are the same.")
@click.option("--function", type=click.Choice(["3", "4"]), default="3", show_default=True, help="With a URL.")
@click.option("--as-unit", default="", metavar="UNIT", help="With a URL: what it should measure: W, kWh, V, Hz ...")
@click.option("--counter", is_flag=True, help="With a URL: it should only grow.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.01, 60), default=1.0, show_default=True, help="Seconds."
)
@click.option(
    "--pause", "pause_s", type=click.FloatRange(0, 600), default=1.0, show_default=True, help="Seconds between."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def probe(
    source: str,
    target: str | None,
    unit_id: int,
    address: int | None,
    function: str,
    as_unit: str,
    timeout_s: float,
    pause_s: float,
    *,
    counter: bool,
    as_json: bool,
) -> None:
    """Read a Modbus point twice; show its registers in all four orders and all types. Only reads.

    FILE is a gateway.toml; a URL is tcp://host:port, rtu+tcp://host:port or serial:///dev/... with --address.

    \b
    Example: wattseal probe gateway.toml comp.active_power
             wattseal probe tcp://192.0.2.10:502 --unit 1 --function 4 --address 0x34 --as-unit W
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.probe import probe_address, probe_point
    from gateway.model import Kind

    if "://" in source:
        if address is None or target is not None:
            raise ConfigError(
                f"{source}: got {target or 'no address'}, want --address beside a URL, and no DEVICE.POINT"
            )
        reading = probe_address(
            source,
            unit_id=unit_id,
            function=int(function),
            address=address,
            unit=as_unit,
            kind=Kind.COUNTER if counter else Kind.GAUGE,
            timeout_s=timeout_s,
            pause_s=pause_s,
        )
        name = f"{source} unit {unit_id}"
    else:
        if target is None:
            raise ConfigError(f"{source}: got no point, want DEVICE.POINT, such as comp.active_power")
        config = load_gateway(Path(source))
        device, _, point = target.partition(".")
        if device not in config.devices:
            known = ", ".join(config.devices) or "none is set up"
            raise ConfigError(f"{target}: got device {device!r}, want one of {known}")
        reading = probe_point(config, device, point, pause_s=pause_s)
        name = target
    probed = asyncio.run(reading)
    click.echo(json.dumps(_fields(name, probed)) if as_json else "\n".join(_lines(name, probed)))
    if probed.likeliest is None and probed.present is not None and probed.present.doubt:
        raise DeviceError(f"{name}: no way to read it gives a plausible value")


def _fields(name: str, probed: "Probed") -> dict[str, Any]:
    from gateway.codec.candidates import toml_of

    def row(candidate: "Candidate | None") -> dict[str, Any] | None:
        if candidate is None:
            return None
        return {
            "type": candidate.type,
            "order": candidate.order,
            # JSON has no NaN and no infinity.
            "values": [value if abs(value) < float("inf") else None for value in candidate.values],
            "doubt": candidate.doubt,
        }

    likeliest = probed.likeliest
    point = probed.point
    return {
        "target": name,
        "unit_id": probed.unit_id,
        "function": point.function,
        "address": point.address,
        "words": [reply.hex(" ", 2) for reply in probed.replies],
        "refused": probed.refused,
        "unit": point.unit,
        "scale": str(point.scale),
        "present": row(probed.present),
        "likeliest": row(likeliest),
        "toml": toml_of(replace(point, type=likeliest.type, order=likeliest.order)) if likeliest else None,
        "candidates": [row(candidate) for candidate in probed.found],
    }


def _lines(name: str, probed: "Probed") -> list[str]:
    from gateway.codec.candidates import TYPES, toml_of
    from gateway.model import Order

    point, present, likeliest = probed.point, probed.present, probed.likeliest
    lines = [f"{name}: FC {point.function}, address {point.address} (0x{point.address:04X}), unit id {probed.unit_id}"]
    lines += [f"words: {' | '.join(reply.hex(' ', 2) for reply in probed.replies)}"]
    if probed.refused:
        lines.append(f"the device does not give {probed.refused}")
    lines.append("      " + "".join(f"{order:>{_WIDTH}}  " for order in Order))
    for kind in TYPES:
        row = {each.order: each for each in probed.found if each.type == kind}
        if row:
            lines.append(f"{kind:<6}" + "".join(_cell(row[order], likeliest, present) for order in Order).rstrip())
    lines.append("! implausible   < likeliest   * as it is set now")
    if present is not None:
        said = f"implausible: {present.doubt}" if present.doubt else "plausible"
        lines.append(f"as set, {present.type} {present.order}: {_then(present, point.unit)}: {said}")
    if point.scale_point is not None:
        lines.append(f"without its scale factor, {point.scale_point}")
    if likeliest is None:
        lines.append("nothing fits: is it the address (one more, one less), the function, the unit id?")
    elif likeliest == present:
        lines.append("no other way to read it is likelier")
    else:
        lines.append(f"likeliest, {likeliest.type} {likeliest.order}: {_then(likeliest, point.unit)}. In the template:")
        lines += [
            f"  {line}" for line in toml_of(replace(point, type=likeliest.type, order=likeliest.order)).splitlines()
        ]
    return lines


def _cell(candidate: "Candidate", likeliest: "Candidate | None", present: "Candidate | None") -> str:
    mark = ("!" if candidate.doubt else "<" if candidate == likeliest else " ") + ("*" if candidate == present else " ")
    return f"{candidate.values[-1]:>{_WIDTH},.7g}{mark}"


def _then(candidate: "Candidate", unit: str) -> str:
    return " then ".join(f"{value:,.9g}" for value in candidate.values) + (f" {unit}" if unit else "")


COMMANDS = (probe,)
