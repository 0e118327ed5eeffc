"""`provision ca issue-client` and `issue-server`: certificates of the authority for operation, by hand."""

from pathlib import Path

import click

from provisioning.cli.files import FILE, FOLDER, read, write
from provisioning.cli.unlocking import find_unlock, unlock_option

_out = click.option("--out", type=FILE, required=True, help="Where the certificate and those above it go, in PEM.")


@click.command("issue-client")
@click.argument("folder", type=FOLDER)
@click.argument("request", type=FILE)
@click.option("--gateway", required=True, help="A gateway's id, or the ledger's or the verifier's name.")
@click.option("--hours", type=float, default=72.0, show_default=True, help="How long it lasts.")
@click.option("--enrol", is_flag=True, help="For enrol_GATEWAY, which may only ask the verifier for a certificate.")
@_out
@unlock_option
def issue_client(
    folder: Path, request: Path, *, gateway: str, hours: float, enrol: bool, out: Path, unlock_file: Path | None
) -> None:
    """Issue an LDevID: a client's certificate for the broker.

    \b
    Example: provision ca issue-client ca/operation gw1.csr --gateway gw1 --out gw1.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority

    authority = Authority.open(folder, unlock=find_unlock(unlock_file, f"the authority in {folder}"))
    made = authority.issue_ldevid(read(request), gateway=gateway, hours=hours, enrol=enrol)
    _write(out, (made, *authority.chain[:-1]))


@click.command("issue-server")
@click.argument("folder", type=FOLDER)
@click.argument("request", type=FILE)
@click.option("--host", "hosts", multiple=True, required=True, help="A name or address of the broker; may be repeated.")
@click.option("--days", type=int, default=90, show_default=True, help="How long it lasts.")
@_out
@unlock_option
def issue_server(
    folder: Path, request: Path, *, hosts: tuple[str, ...], days: int, out: Path, unlock_file: Path | None
) -> None:
    """Issue the broker's certificate.

    \b
    Example: provision ca issue-server ca/operation broker.csr --host broker.example --out broker.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority

    authority = Authority.open(folder, unlock=find_unlock(unlock_file, f"the authority in {folder}"))
    _write(out, (authority.issue_server(read(request), hosts=hosts, days=days), *authority.chain[:-1]))


def _write(out: Path, certificates: tuple[bytes, ...]) -> None:
    from provisioning.ca.folder import to_pem

    write(out, to_pem(certificates))
    click.echo(out)
