"""`wattseal keygen`: keys of those who sign notes."""

from pathlib import Path

import click


@click.command()
@click.argument("role", type=click.Choice(["verifier", "ledger", "officer"]))
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File of the private key.")
def keygen(role: str, name: str, out: Path) -> None:
    """Make the key of an attestation service, of a ledger, or of an officer who decides on quarantined leaves.

    The private key is its owner's alone (0600); what others need to check its signatures goes beside it, as .vkey.

    \b
    Example: wattseal keygen officer jane --out jane.key
             wattseal keygen verifier desk --out desk.key
             wattseal keygen ledger acme --out acme.key
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.keys import make_key

    private, *public = make_key(out, role, name)
    click.echo(f"{private}: keep it to yourself. For others: {', '.join(map(str, public))}")


COMMANDS = (keygen,)
