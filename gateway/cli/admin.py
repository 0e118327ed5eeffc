"""Commands for whoever runs a plant: where it stands, and what its security officers decide."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import click

from gateway.cli.standings import LEDGER, quarantine, readmit
from gateway.config.feeds import LOCATING
from gateway.config.location import degrees


@click.group()
def admin() -> None:
    """Administer a ledger. Also as `ems-admin`."""


@admin.command("set-location")
@click.option("--lat", "latitude", required=True, metavar="DEGREES", help="Latitude, north positive.")
@click.option("--long", "--lon", "longitude", required=True, metavar="DEGREES", help="Longitude, east positive.")
@click.option("--provider", type=click.Choice(LOCATING), help="Ask this provider alone; without it each feed's.")
@LEDGER
@click.option("--dry-run", is_flag=True, help="Show the region, pin nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def set_location(
    latitude: str, longitude: str, provider: str | None, file: Path, *, dry_run: bool, as_json: bool
) -> None:
    """Pin the grid region of a place: its feeds then ask for this region and no other.

    \b
    Example: wattseal admin set-location --lat 52.52 --long 13.405
             ems-admin set-location --lat 37.77 --long -122.42 --provider watttime --dry-run
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.locate import locate, write
    from gateway.north.factors import Place

    place = Place(
        latitude=Decimal(degrees(latitude, 90, "--lat")), longitude=Decimal(degrees(longitude, 180, "--long"))
    )
    found = asyncio.run(locate(file, place, provider=provider))
    if not dry_run:
        write(found)
    location = found.location
    if as_json:
        regions = {
            name: {"provider": p.provider, "zone": p.region, "name": p.name} for name, p in location.regions.items()
        }
        said = {"latitude": location.latitude, "longitude": location.longitude, "feeds": regions}
        click.echo(json.dumps({**said, "skipped": list(found.skipped), "file": str(found.path), "pinned": not dry_run}))
        return
    click.echo(f"latitude {location.latitude}, longitude {location.longitude}")
    for name, pin in location.regions.items():
        label = "" if pin.name == pin.region else f" ({pin.name})"
        click.echo(f"  feeds.{name}: {pin.provider} zone {pin.region}{label}")
    for name in found.skipped:
        click.echo(f"  feeds.{name}: its provider knows no places; its region stays as ledger.toml says")
    click.echo("dry run: nothing is pinned" if dry_run else f"pinned in {found.path}; a running ledger takes it up")


for _command in (readmit, quarantine):
    admin.add_command(_command)


COMMANDS = (admin,)
