"""`provision ca`: the certificate authorities of a factory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import TrustError
from provisioning.cli.files import FILE, FOLDER, read, write
from provisioning.cli.issuing import issue_client, issue_server
from provisioning.cli.revoking import crl, revoke
from provisioning.cli.unlocking import ROOT, find_unlock, unlock_option

if TYPE_CHECKING:
    from provisioning.ca import Authority, Unlock


@click.group("ca")
def ca() -> None:
    """Certificate authorities: a root, one for devices, one for operation."""


@ca.command()
@click.argument("folder", type=FOLDER)
@click.option("--name", required=True, help="The organisation in the certificates.")
@click.option("--root", "only_root", is_flag=True, help="Make a root alone: where it is kept offline.")
@click.option("--issuing", type=click.Choice(["devices", "operation"]), help="Make one issuing authority alone.")
@click.option("--signed-by", type=FOLDER, help="With --issuing: a root that is here signs at once.")
@click.option("--key", help="A PKCS#11 URI instead of a key file; {role} in it where several are made.")
@click.option("--curve", type=click.Choice(["p256", "p384"]), default="p256", show_default=True, help="Of the root.")
@click.option("--hw-type", help="The type of the devices: an object identifier in your own arc (IEEE 802.1AR).")
@click.option("--root-unlock", type=FILE, help=f"As --unlock, for the root's key; else {ROOT} is asked.")
@unlock_option
def init(
    folder: Path,
    *,
    name: str,
    only_root: bool,
    issuing: str | None,
    signed_by: Path | None,
    key: str | None,
    curve: str,
    hw_type: str | None,
    root_unlock: Path | None,
    unlock_file: Path | None,
) -> None:
    """Make the authorities of a small factory in one go, or a root or an issuing one alone.

    \b
    Example: provision ca init ca --name "Example Devices"
             provision ca init root --name "Example Devices" --root
             provision ca init devices --name "Example Devices" --issuing devices
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority, make_all, make_root, put_hw_type

    has_devices = not only_root and issuing != "operation"
    if hw_type is not None:
        _check_hw_type(hw_type, has_devices=has_devices)
    if (only_root and issuing) or (signed_by and not issuing):
        raise click.UsageError("want --root, or --issuing with or without --signed-by, or neither")
    if only_root:
        own = find_unlock(root_unlock or unlock_file, "the root", variable=ROOT, new=True)
        made = [make_root(folder, name=name, unlock=own, key=key, curve=curve)]
    elif issuing:
        root = None
        if signed_by is not None:
            root = Authority.open(signed_by, unlock=find_unlock(root_unlock, "the root", variable=ROOT))
        unlock = find_unlock(unlock_file, f"the authority for {issuing}", new=True)
        made = _make_issuing(folder, name, issuing, unlock=unlock, key=key, root=root)
    else:
        own = find_unlock(root_unlock, "the root", variable=ROOT, new=True)
        unlock = find_unlock(unlock_file, "the issuing authorities", new=True)
        made = make_all(folder, name=name, root_unlock=own, unlock=unlock, key=key, curve=curve)
    if hw_type is not None:
        put_hw_type(folder if issuing else folder / "devices", hw_type)
    elif has_devices:
        click.echo("Devices get a type in IANA's arc for examples: --hw-type names one of your own.", err=True)
    for authority in made:
        click.echo(f"{authority.folder}: {authority.about.role}, {authority.certificate.subject.rfc4514_string()}")
    if only_root or not issuing:
        click.echo(f"Keep {made[0].folder} offline: whoever has its key and password is the factory.", err=True)


def _check_hw_type(hw_type: str, *, has_devices: bool) -> None:
    from gateway.attest.names import check_hw_type

    if not has_devices:
        raise click.UsageError("--hw-type: want it where an authority for devices is made")
    try:
        check_hw_type(hw_type)
    except TrustError as e:
        raise click.UsageError(f"--hw-type: {e}") from e


def _make_issuing(
    folder: Path, name: str, issuing: str, *, unlock: "Unlock", key: str | None, root: "Authority | None"
) -> "list[Authority]":
    """Make one issuing authority; without a root here, only its key and its request."""
    from provisioning.ca import Role, accept, make_request, sign_request

    role = Role(issuing)
    request = make_request(folder, name=name, role=role, unlock=unlock, key=key)
    if root is None:
        click.echo(f"{request}: take it to the root: provision ca sign ROOT {request} --role {issuing}")
        return []
    return [accept(folder, sign_request(root, request.read_bytes(), name=name, role=role), unlock=unlock)]


@ca.command()
@click.argument("root", type=FOLDER)
@click.argument("request", type=FILE)
@click.option("--role", required=True, type=click.Choice(["devices", "operation"]), help="What it is to be for.")
@click.option("--name", help="The organisation in its certificate; the root's own without it.")
@click.option("--out", type=FILE, help="Where the answer goes; REQUEST.pem without it.")
@click.option("--root-unlock", type=FILE, help=f"The root's password or PIN; else {ROOT} is asked.")
def sign(root: Path, request: Path, *, role: str, name: str | None, out: Path | None, root_unlock: Path | None) -> None:
    """Let the root sign an issuing authority's request. Runs where the root is kept.

    \b
    Example: provision ca sign root devices/ca.csr --role devices --out devices.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority, Role, sign_request

    signer = Authority.open(root, unlock=find_unlock(root_unlock, "the root", variable=ROOT))
    answer = sign_request(signer, read(request), name=name or signer.about.name, role=Role(role))
    path = out or request.with_suffix(".pem")
    write(path, answer)
    click.echo(f"{path}: take it back: provision ca accept FOLDER {path}")


@ca.command("accept")
@click.argument("folder", type=FOLDER)
@click.argument("answer", type=FILE)
@unlock_option
def accept_(folder: Path, answer: Path, *, unlock_file: Path | None) -> None:
    """Take the root's answer into an issuing authority's folder; also a newer one, with a newer list of the root's.

    \b
    Example: provision ca accept devices devices.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import accept

    unlock = find_unlock(unlock_file, f"the authority in {folder}")
    authority = accept(folder, read(answer), unlock=unlock)
    click.echo(f"{folder}: {authority.about.role}, ready")


@ca.command()
@click.argument("folder", type=FOLDER)
@click.option("--subject", help="Only of this device, gateway or host.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def show(folder: Path, *, subject: str | None, as_json: bool) -> None:
    """Show an authority and what it has signed. Needs no password.

    \b
    Example: provision ca show ca/operation --subject gw1
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca.folder import describe

    said = describe(folder, subject=subject)
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"{folder}: {said['role']}, {said['subject']}, until {said['not_after']}")
    click.echo(f"  list {said['crl_number']}, next by {said['crl_next_update']}; {len(said['issued'])} certificates")
    for one in said["issued"]:
        gone = f", revoked {one['revoked']} ({one['reason']})" if one["revoked"] else ""
        click.echo(f"  {one['number']}  {one['kind']:9}  {one['subject']}  until {one['not_after']}{gone}")


for _command in (issue_client, issue_server, revoke, crl):
    ca.add_command(_command)

COMMANDS = (ca,)
