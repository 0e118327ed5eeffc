"""A unit's life after the factory: owners, revocation, the end. Each command may be given again after a failure."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import TrustError
from provisioning.cli.ending import Ending
from provisioning.cli.registry import place_of, place_option
from provisioning.cli.revoking import REASONS
from provisioning.cli.unlocking import unlock_option

if TYPE_CHECKING:
    from provisioning.registrar import Registrar, Unit

_ca = click.option(
    "--ca",
    "authorities",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("ca"),
    show_default=True,
    envvar="WATTSEAL_CA",
    help="The folder of provision ca init: its devices and operation are used where they are there.",
)
_dry = click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
_json = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@click.command()
@click.argument("serial")
@click.option("--owner", required=True, help="Whose it is from now on.")
@click.option("--gateway", required=True, help="Its id there.")
@_json
@place_option
def onboard(serial: str, *, owner: str, gateway: str, as_json: bool, folder: Path) -> None:
    """Give an enrolled unit to its first owner.

    \b
    Example: provision onboard WS-0001 --owner "Acme Bottling" --gateway gw1
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca.profiles import check_gateway

    check_gateway(gateway)
    with _registrar(folder) as registrar:
        _tell(registrar.onboard(serial, owner, gateway), as_json=as_json)


@click.command()
@click.argument("serial")
@click.option("--owner", required=True, help="Whose it is from now on.")
@click.option("--gateway", help="Its id there; the old one without it.")
@_dry
@_json
@place_option
@_ca
@unlock_option
def transfer(
    serial: str,
    *,
    owner: str,
    gateway: str | None,
    dry_run: bool,
    as_json: bool,
    folder: Path,
    authorities: Path,
    unlock_file: Path | None,
) -> None:
    """Give a unit to another owner, and revoke the LDevIDs of the one before.

    \b
    Example: provision transfer WS-0001 --owner "Beta Foods" --gateway gw7 --dry-run
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca.profiles import check_gateway

    if gateway is not None:
        check_gateway(gateway)
    with _registrar(folder) as registrar:
        unit = registrar.unit(serial)
        if (unit.state, unit.owner) == ("onboarded", owner) and gateway in {None, unit.gateway}:
            _tell(unit, as_json=as_json)  # done before; what is there now is the new owner's
            return
        _check_free(registrar, unit, gateway or unit.gateway)
        subjects = {"operation": unit.gateway}
        ending = Ending(authorities, subjects, "affiliationChanged", unlock_file, dry_run=dry_run)
        # The certificates first: where that fails, the command can be given again, and still knows the old gateway.
        ending.revoke(but="operation" if _is_taken(registrar, unit, unit.gateway) else None)
        to = gateway or unit.gateway
        would = f"{serial}: would go from {unit.owner or 'nobody'} to {owner}, as {to}" if dry_run else ""
        _tell(unit if dry_run else registrar.transfer(serial, owner, gateway), ending, would=would, as_json=as_json)


@click.command()
@click.argument("serial")
@click.option("--reason", type=click.Choice(REASONS), required=True, help="Why, by RFC 5280.")
@_dry
@_json
@place_option
@_ca
@unlock_option
def revoke(serial: str, *, reason: str, **said: Any) -> None:
    """Say that a unit's identity is not to be believed any more: in the log, and in the lists of both authorities.

    \b
    Example: provision revoke WS-0001 --reason keyCompromise
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    _end(serial, reason, lambda own: own.revoke(serial, reason), **said)


@click.command()
@click.argument("serial")
@_dry
@_json
@place_option
@_ca
@unlock_option
def decommission(serial: str, **said: Any) -> None:
    """End a unit: its certificates are revoked, and its serial, EK and AK never enrol again.

    \b
    Example: provision decommission WS-0001 --dry-run
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    _end(serial, "cessationOfOperation", lambda own: own.decommission(serial), **said)


@click.command()
@click.option("--state", help="Only those in this state.")
@_json
@place_option
def units(*, state: str | None, as_json: bool, folder: Path) -> None:
    """List all units.

    \b
    Example: provision units --state onboarded --json
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    with _registrar(folder) as registrar:
        found = [unit for unit in registrar.units() if state in {None, unit.state}]
    if as_json:
        click.echo(json.dumps([_said(unit) for unit in found], indent=2))
        return
    for unit in found:
        click.echo(_line(unit))


@click.command()
@click.argument("serial")
@_json
@place_option
def show(serial: str, *, as_json: bool, folder: Path) -> None:
    """Show what is known of a unit.

    \b
    Example: provision show WS-0001
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    with _registrar(folder) as registrar:
        unit = registrar.unit(serial)
    if as_json:
        click.echo(json.dumps(_said(unit), indent=2))
        return
    click.echo(_line(unit))
    click.echo(f"  order {unit.order}, operator {unit.operator}; leaves {', '.join(map(str, unit.leaves))}")
    for name, result in unit.steps.items():
        click.echo(f"  {name}: " + ", ".join(f"{key} {value[:40]}" for key, value in result.items()))
    for kind, sha256 in unit.certificates.items():
        click.echo(f"  certificate {kind}: {sha256}")


@contextmanager
def _registrar(folder: Path) -> "Iterator[Registrar]":
    registrar = place_of(folder).open()
    try:
        yield registrar
    finally:
        registrar.close()


def _end(
    serial: str,
    reason: str,
    change: "Callable[[Registrar], Unit]",
    *,
    folder: Path,
    authorities: Path,
    unlock_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Revoke or decommission: the log and the database first, then the lists."""
    with _registrar(folder) as registrar:
        unit = registrar.unit(serial)
        subjects = {"devices": serial, "operation": unit.gateway}
        ending = Ending(authorities, subjects, reason, unlock_file, dry_run=dry_run)
        ended = unit if dry_run else change(registrar)
        ending.revoke(but="operation" if _is_taken(registrar, unit, unit.gateway) else None)
    would = f"{serial}: is {unit.state}; would end ({reason})" if dry_run else ""
    _tell(ended, ending, would=would, as_json=as_json)


def _tell(unit: "Unit", ending: Ending | None = None, *, would: str = "", as_json: bool) -> None:
    """Say what a command did, or would do. Raises TrustError where there is something left to do elsewhere."""
    lists = [] if ending is None else ending.lists
    if as_json:
        click.echo(json.dumps({"unit": _said(unit), "dry_run": would != "", "lists": lists}, indent=2))
    else:
        click.echo(would or _line(unit))
        if ending is not None:
            ending.say()
    if ending is not None:
        ending.check()


def _check_free(registrar: "Registrar", unit: "Unit", gateway: str) -> None:
    """Refuse a transfer that the registrar would refuse, before anything is revoked for it."""
    if unit.state != "onboarded":
        raise TrustError(f"unit {unit.serial}: got it {unit.state}, want it onboarded")
    if _is_taken(registrar, unit, gateway):
        raise TrustError(f"unit {unit.serial}: another unit is {gateway}")


def _is_taken(registrar: "Registrar", unit: "Unit", gateway: str) -> bool:
    return any(
        one.gateway == gateway and one.serial != unit.serial and one.state == "onboarded" for one in registrar.units()
    )


def _line(unit: "Unit") -> str:
    whose = f", {unit.owner} as {unit.gateway}" if unit.owner else ""
    why = f" ({unit.reason})" if unit.reason else ""
    return f"{unit.serial}: {unit.state}{why}, {unit.model}{whose}"


def _said(unit: "Unit") -> dict[str, Any]:
    names = ("serial", "state", "model", "order", "operator", "ek", "ak", "owner", "gateway", "reason")
    said: dict[str, Any] = {name: getattr(unit, name) for name in names}
    return said | {
        "began_ns": unit.began_ns,
        "changed_ns": unit.changed_ns,
        "birth": unit.birth is not None,
        "steps": {name: dict(result) for name, result in unit.steps.items()},
        "certificates": dict(unit.certificates),
        "leaves": list(unit.leaves),
    }


COMMANDS = (onboard, transfer, revoke, decommission, units, show)
