"""`wattseal scan bacnet`: which BACnet devices there are, and what they hold."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_gateway
from gateway.config import GatewayConfig
from gateway.config.convert import convert
from gateway.config.sections import BacnetSection
from gateway.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from gateway.drivers.bacnet_scan import About, Found, Seen

_INSTANCE = click.IntRange(0, 4_194_302)
_READS_AT_ONCE = 8


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--address", help="Our address, with the bits of its network: 192.0.2.5/24, or 192.0.2.5/24:47809.")
@click.option("--bbmd", help="Register as a foreign device with the BBMD at host:port.")
@click.option("--ask", multiple=True, metavar="ADDRESS", help="Ask 192.0.2.9, 5:0x0a or 5:* alone; may be given again.")
@click.option("--low", type=_INSTANCE, help="Instances from this one.")
@click.option("--high", type=_INSTANCE, help="Instances up to this one.")
@click.option("--seconds", type=click.FloatRange(0.2, 120), default=3.0, show_default=True, help="Wait for answers.")
@click.option("--objects", is_flag=True, help="List the objects of each device, with name, unit and value.")
@click.option("--most", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Objects a device.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def bacnet(
    file: Path | None,
    address: str | None,
    bbmd: str | None,
    ask: tuple[str, ...],
    low: int | None,
    high: int | None,
    seconds: float,
    most: int,
    *,
    objects: bool,
    as_json: bool,
) -> None:
    """List the BACnet devices that answer Who-Is, and what they hold. Only reads; may run beside the gateway.

    FILE is a gateway.toml: its [bacnet] says where we stand, and its devices that do not answer are named.

    \b
    Example: wattseal scan bacnet gateway.toml
             wattseal scan bacnet --address 192.0.2.5/24 --low 1000 --high 1999
             wattseal scan bacnet --address 192.0.2.5/24 --ask 192.0.2.9 --objects
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    config = None if file is None else load_gateway(file)
    section = _section(config, address, bbmd)
    logging.getLogger("bacpypes3").setLevel(logging.CRITICAL)  # what others send wrongly is not for this terminal
    if low is not None and high is not None and low > high:
        raise ConfigError(f"--low: got {low}, want at most --high {high}")
    found = asyncio.run(_scan(section, config, ask, low, high, seconds, most if objects else 0))
    names = {} if config is None else _names(config)
    silent = [
        name
        for instance, name in names.items()
        if instance not in {one.instance for one, _ in found}
        and instance >= (low or 0)
        and (high is None or instance <= high)
    ]
    if as_json:
        rows = [_row(one, about, names, objects=objects) for one, about in found]
        click.echo(json.dumps({"devices": rows, "silent": silent}))
    else:
        for line in _lines(found, names):
            click.echo(line)
        for name in silent:
            click.echo(f"{name}: does not answer ({config and config.devices[name].url})")
    if not found:
        raise DeviceError(
            f"nobody answered at port {section.address.partition(':')[2] or 47808}: look at the network's bits, "
            "the port and the firewall; behind a router of IP networks give --bbmd"
        )


def _section(config: GatewayConfig | None, address: str | None, bbmd: str | None) -> BacnetSection:
    """Return where we stand. Raises ConfigError."""
    if config is not None and config.bacnet is not None:
        table: dict[str, Any] = {"address": config.bacnet.address, "instance": config.bacnet.instance}
        table |= {"bbmd": config.bacnet.bbmd, "ttl_s": config.bacnet.ttl_s}
    elif address is None:
        raise ConfigError("got no place of ours, want a FILE with [bacnet], or --address 192.0.2.5/24")
    else:
        table = {}
    table |= {key: given for key, given in (("address", address), ("bbmd", bbmd)) if given is not None}
    return convert(table, BacnetSection, "scan bacnet:")


async def _scan(
    section: BacnetSection,
    config: GatewayConfig | None,
    ask: Sequence[str],
    low: int | None,
    high: int | None,
    seconds: float,
    most: int,
) -> "list[tuple[Found, About]]":
    from gateway.drivers.bacnet_scan import Scanner

    at_once = asyncio.Semaphore(_READS_AT_ONCE)
    async with Scanner(section) as scanner:
        if not ask and config is not None:  # devices that cannot be found by their instance
            known = [device.bacnet.address for device in config.devices.values() if device.bacnet.address]
            ask = [*(["*"] if scanner.broadcasts else []), *known] if known else ()

        async def about(one: "Found") -> "tuple[Found, About]":
            async with at_once:
                return one, await scanner.about(one, objects=most > 0, most=most or 1)

        found = await scanner.who_is(low=low, high=high, ask=ask, seconds=seconds)
        return list(await asyncio.gather(*(about(one) for one in found)))


def _names(config: GatewayConfig) -> dict[int, str]:
    """Return the configured BACnet devices by instance."""
    return {
        int(device.url.removeprefix("bacnet:")): name
        for name, device in config.devices.items()
        if device.url.startswith("bacnet:")
    }


def _row(one: "Found", about: "About", names: Mapping[int, str], *, objects: bool) -> dict[str, Any]:
    row = {
        key: getattr(one, key) for key in ("instance", "address", "network", "vendor_id", "max_apdu", "segmentation")
    }
    row |= {"device": names.get(one.instance), "name": about.name, "vendor": about.vendor, "model": about.model}
    row |= {"problem": about.problem}
    return row | ({"total": about.total, "objects": [asdict(seen) for seen in about.objects]} if objects else {})


def _lines(found: "Sequence[tuple[Found, About]]", names: Mapping[int, str]) -> list[str]:
    if not found:
        return []
    lines = [f"{'instance':>8}  {'address':<21} {'net':>5}  {'vendor':<24} {'max APDU':>8}  {'segmentation':<20} name"]
    counts = Counter(one.instance for one, _ in found)
    for one, about in found:
        vendor = f"{about.vendor or '?'} ({one.vendor_id})"
        lines.append(
            f"{one.instance:>8}  {one.address:<21} {one.network or '':>5}  {vendor:<24} {one.max_apdu:>8}  "
            f"{one.segmentation:<20} {about.name}"
            + (f"  = {names[one.instance]}" if one.instance in names else "")
            + ("  DUPLICATE INSTANCE: give one of them another" if counts[one.instance] > 1 else "")
        )
        lines += [_object_line(seen) for seen in about.objects]
        if about.total > len(about.objects) > 0:
            lines.append(f"          {len(about.objects)} of {about.total} objects: see --most")
        if about.problem:
            lines.append(f"          cannot be read: {about.problem}")
    return lines


def _object_line(seen: "Seen") -> str:
    value = seen.status if seen.value is None else f"{seen.value:.7g}" if isinstance(seen.value, float) else seen.value
    return f"          {seen.object:<24} {value!s:>18} {seen.unit:<8} {seen.name}"
