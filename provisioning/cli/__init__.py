"""The `provision` command: what the factory and the attestation service run."""

import sys
from collections.abc import Sequence

import click

from gateway.cli.running import run_command
from provisioning.cli import authority, lifecycle, registry, station, verifier


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattseal", prog_name="provision")
def provision() -> None:
    """Give each gateway an identity, keep the book of them, and end it.

    \b
    Try it:      provision ca init device-ca --name "Example Devices"
    """  # noqa: D301 (click's mark for a block that is not wrapped)


for _module in (
    authority,
    registry,
    lifecycle,
    station,
    verifier,
):
    for _command in _module.COMMANDS:
        provision.add_command(_command)


def run(arguments: Sequence[str], *, name: str = "provision") -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 a file or an argument is wrong."""
    return run_command(provision, arguments, name=name)


def main() -> None:
    """Run `provision`."""
    sys.exit(run(sys.argv[1:]))
