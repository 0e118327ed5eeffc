"""`provision ca revoke` and `crl`: certificates that are not to be believed any more, and who is told."""

import os
import signal
from pathlib import Path

import click

from gateway.errors import ConfigError
from provisioning.cli.files import FILE, FOLDER
from provisioning.cli.unlocking import find_unlock, unlock_option

REASONS = (
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
)
"""Those of RFC 5280 that a person may mean here; a root may also say cACompromise."""


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--certificate", "number", help="Its serial number, in hexadecimal.")
@click.option("--subject", help="All certificates of this device's serial or gateway.")
@click.option("--reason", type=click.Choice([*REASONS, "cACompromise"]), required=True, help="Why, by RFC 5280.")
@unlock_option
def revoke(folder: Path, *, number: str | None, subject: str | None, reason: str, unlock_file: Path | None) -> None:
    """Revoke certificates, and make the list anew. A unit as a whole: provision revoke.

    \b
    Example: provision ca revoke ca/operation --subject gw1 --reason keyCompromise
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority

    if (number is None) == (subject is None):
        raise click.UsageError("want --certificate or --subject")
    authority = Authority.open(folder, unlock=find_unlock(unlock_file, f"the authority in {folder}"))
    if number is not None:
        authority.revoke(number, reason)
        said = f"certificate {number}"
    else:
        said = f"{len(authority.revoke_subject(subject or '', reason))} certificates of {subject}"
    authority.crl()
    click.echo(f"{folder}: revoked {said}; the list: {folder / 'crl.pem'}")


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--days", type=click.IntRange(1, 3660), help="How long it lasts: 7 days, the root's 366.")
@click.option("--out", type=FILE, help="Write it here too, with the root's list.")
@click.option("--reload-pid", type=click.IntRange(2), help="Then send SIGHUP to this process: a Mosquitto.")
@unlock_option
def crl(folder: Path, *, days: int | None, out: Path | None, reload_pid: int | None, unlock_file: Path | None) -> None:
    """Make the list of revoked certificates anew. Once a day, by a timer: a broker with an old list refuses everybody.

    \b
    Example: provision ca crl ca/operation --out /etc/mosquitto/crl.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from provisioning.ca import Authority, trust_of
    from provisioning.ca.authority import write

    authority = Authority.open(folder, unlock=find_unlock(unlock_file, f"the authority in {folder}"))
    authority.crl(days=days)
    if out is not None:
        write(out, trust_of(folder)[1])
    number, _, _ = authority.newest_crl() or (0, 0, 0)
    click.echo(f"{out or folder / 'crl.pem'}: list {number}")
    if reload_pid is not None:
        try:
            os.kill(reload_pid, signal.SIGHUP)
        except OSError as e:
            raise ConfigError(f"--reload-pid: got {reload_pid}: {e.strerror}, want the broker's process") from e
