"""`wattseal scan sunspec`: which models a device has, as a device template."""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.codec.sunspec import Model


@click.command()
@click.argument("url")
@click.option("--unit", "unit_id", type=click.IntRange(0, 255), default=1, show_default=True, help="Its Modbus unit.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.01, 60), default=1.0, show_default=True, help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the models, for scripts.")
def sunspec(url: str, unit_id: int, timeout_s: float, *, as_json: bool) -> None:
    """Find a device's SunSpec models and print a device template of them. Only reads.

    \b
    Example: wattseal scan sunspec tcp://192.0.2.10:502
             wattseal scan sunspec tcp://192.0.2.10:502 --unit 126
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.drivers.sunspec import name_of, template_of

    models = asyncio.run(_scan(url, unit_id, timeout_s))
    if as_json:
        rows = [{"id": m.id, "address": m.address, "length": m.length, "name": name_of(m)} for m in models]
        click.echo(json.dumps({"url": url, "unit_id": unit_id, "models": rows}))
        return
    click.echo(template_of(models), nl=False)


async def _scan(url: str, unit_id: int, timeout_s: float) -> "Sequence[Model]":
    from gateway.drivers.modbus_bus import Bus
    from gateway.drivers.sunspec import scan_sunspec

    bus = Bus(url, timeout_s)
    try:
        return await scan_sunspec(bus, unit_id)
    finally:
        await bus.close()
