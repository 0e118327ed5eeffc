"""`provision registrar`: the book of all units and its log."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provisioning.cli.files import FILE, FOLDER, read, write

if TYPE_CHECKING:
    from provisioning.registrar import Place

place_option = click.option(
    "--registrar",
    "folder",
    type=FOLDER,
    default=Path("registrar"),
    show_default=True,
    envvar="WATTSEAL_REGISTRAR",
    help="The registrar's folder.",
)


def place_of(folder: Path) -> "Place":
    """Return what a registrar's folder says. Raises ConfigError."""
    from provisioning.registrar import Place

    return Place.read(folder)


@click.group()
def registrar() -> None:
    """The book of all units: a database, and a signed log that it can be made from again."""


@registrar.command()
@place_option
@click.option("--name", required=True, help="The factory's name: its key is wattseal-factory/NAME.")
@click.option(
    "--database", default="registrar.sqlite", show_default=True, help="A file, or postgresql+psycopg://USER@HOST/NAME."
)
def init(folder: Path, *, name: str, database: str) -> None:
    """Make a registrar with a new factory key.

    \b
    Example: provision registrar init --registrar registrar --name acme
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.registrar import make_place

    place = make_place(folder, name=name, database=database)
    place.open().close()
    click.echo(f"{folder}: registrar of {place.signer.name}; give {folder / 'factory.vkey'} to who checks its records")


@registrar.command()
@place_option
@click.option("--since", type=FILE, help="An earlier checkpoint, from elsewhere: the log must go on from it.")
@click.option("--checkpoint", type=FILE, help="Write the newest checkpoint here, to be kept elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def verify(folder: Path, *, since: Path | None, checkpoint: Path | None, as_json: bool) -> None:
    """Check the log's every leaf and signature, the database against it, row by row, and what each unit's TPM signed.

    \b
    Example: provision registrar verify --since last-week.checkpoint --checkpoint today.checkpoint
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.registrar import verify as verify_

    place = place_of(folder)
    earlier = None if since is None else read(since)
    held = verify_(place.url, log=place.log, signer=place.signer, since=earlier)
    if checkpoint is not None:
        write(checkpoint, held.checkpoint)
    if as_json:
        said = {"units": held.units, "golden_quotes": held.quotes, "leaves": held.size, "log": place.signer.name}
        click.echo(json.dumps(said))
    else:
        what = f"{held.units} units, {held.quotes} with their golden quote, {held.size} leaves of {place.signer.name}"
        click.echo(f"{folder}: OK: {what}, and the database")


@registrar.command()
@place_option
def rebuild(folder: Path) -> None:
    """Make the database anew from the log.

    \b
    Example: provision registrar rebuild --registrar registrar
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.registrar import rebuild as rebuild_

    place = place_of(folder)
    click.echo(f"{folder}: rebuilt from {rebuild_(place.url, log=place.log, signer=place.signer)} leaves")


@registrar.command()
@click.argument("serial")
@place_option
@click.option("--out", type=FOLDER, required=True, help="A folder for the three files.")
def export(serial: str, *, folder: Path, out: Path) -> None:
    """Write a unit's birth record with the proof that it is in the factory's log.

    \b
    Example: provision registrar export WS-0001 --out WS-0001
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.registrar import export as export_

    own = place_of(folder).open()
    try:
        made = export_(own, serial)
    finally:
        own.close()
    for name, content in (("birth.note", made.birth), ("birth.leaf", made.leaf), ("birth.tlog-proof", made.proof)):
        write(out / name, content)
        click.echo(out / name)


@registrar.command()
@click.argument("exported", type=FOLDER)
@click.option("--key", type=FILE, required=True, help="The factory's verifier key: factory.vkey.")
def check(exported: Path, *, key: Path) -> None:
    """Check an exported birth record, offline, by the factory's key alone.

    \b
    Example: provision registrar check WS-0001 --key factory.vkey
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.keys import read_verifier
    from gateway.tlog.note import SignatureKind
    from provisioning.registrar import Exported, verify_exported

    verifier = read_verifier(key, "--key", kind=SignatureKind.NOTE)
    names = ("birth.note", "birth.leaf", "birth.tlog-proof")
    note, leaf, proof = (read(exported / name) for name in names)
    birth = verify_exported(Exported(birth=note, leaf=leaf, proof=proof), verifier=verifier)
    click.echo(f"{birth.serial}: OK: {birth.model}, order {birth.order}, in the log of {verifier.name}")


COMMANDS = (registrar,)
