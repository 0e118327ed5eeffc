"""What ends with a unit's identity: its certificates, in the lists of those authorities that are here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import TrustError
from provisioning.cli.unlocking import find_unlock

if TYPE_CHECKING:
    from provisioning.ca import Authority


class Ending:
    """Revokes in each authority for a role what it issued to a subject: a device's serial, a gateway's id.

    authorities: the folder of provision ca init. An authority that is elsewhere is not skipped in silence. With
    dry_run nothing is unlocked or revoked. Raises ConfigError, before anything is changed, for a wrong password.
    """

    def __init__(
        self, authorities: Path, subjects: Mapping[str, str], reason: str, unlock_file: Path | None, *, dry_run: bool
    ) -> None:
        self.lists: list[dict[str, Any]] = []
        self._reason, self._subjects, self._folder = reason, subjects, authorities
        self._is_dry = dry_run
        self._opened = {} if dry_run else _opened(authorities, subjects, unlock_file)

    def revoke(self, *, but: str | None = None) -> None:
        """Revoke, and make the lists. but: a role whose subject is another unit's by now."""
        for role, subject in self._subjects.items():
            if subject and role != but:
                self.lists.append({"role": role, "subject": subject} | self._ended(role, subject))

    def _ended(self, role: str, subject: str) -> dict[str, Any]:
        from provisioning.ca.folder import describe

        folder = self._folder / role
        if not folder.is_dir():
            reason = f" --reason {self._reason}"
            return {"certificates": [], "list": None, "do": f"provision ca revoke {role} --subject {subject}{reason}"}
        if self._is_dry:
            issued = describe(folder, subject=subject)["issued"]
            gone = [{"kind": one["kind"], "number": one["number"]} for one in issued if one["revoked"] is None]
        else:
            found = self._opened[role].revoke_subject(subject, self._reason)
            self._opened[role].crl()
            gone = [{"kind": str(one.kind), "number": one.number} for one in found]
        return {"certificates": gone, "list": str(folder / "crl.pem"), "do": None}

    def say(self) -> None:
        """Tell a person."""
        for one in self.lists:
            role, gone = one["role"], one["certificates"]
            if one["do"] is not None:
                click.echo(f"  {role}: not here. Do there: {one['do']}")
            elif self._is_dry:
                for certificate in gone:
                    click.echo(f"  {role}: would revoke {certificate['kind']} {certificate['number']}")
            else:
                click.echo(f"  {role}: {len(gone)} certificates of {one['subject']} revoked; the list: {one['list']}")

    def check(self) -> None:
        """Raise TrustError where a list is still to be made: until then peers believe these certificates."""
        lacking = [one["role"] for one in self.lists if one["do"] is not None]
        if lacking and not self._is_dry:
            raise TrustError(
                f"{self._folder}: got no authority for {' and '.join(lacking)} there; revoke where it is, as said above"
            )


def _opened(authorities: Path, subjects: Mapping[str, str], unlock_file: Path | None) -> "dict[str, Authority]":
    from provisioning.ca import Authority

    here = [role for role in subjects if (authorities / role).is_dir()]
    if not here:
        return {}
    unlock = find_unlock(unlock_file, f"the authorities in {authorities}")
    return {role: Authority.open(authorities / role, unlock=unlock) for role in here}
