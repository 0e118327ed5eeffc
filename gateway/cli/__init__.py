"""The `wattseal` command. `ems-admin` and `ems-export` are thin aliases."""

import sys
from collections.abc import Sequence

import click

from gateway.cli import admin as administer
from gateway.cli import (
    alerts,
    apply,
    attest,
    audit,
    catalogue,
    commission,
    context,
    develop,
    enrol,
    explain,
    factors,
    importing,
    inspect,
    keys,
    market,
    opcua,
    probe,
    report,
    scan,
    serve,
    thermal,
    tpm,
)
from gateway.cli.running import run_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattseal", prog_name="wattseal")
def wattseal() -> None:
    """A gateway that a plant can trust with its carbon figure.

    \b
    Try it:      wattseal demo --seconds 30 --out demo-out
    Check it:    wattseal verify demo-out/export
    """  # noqa: D301 (click's mark for a block that is not wrapped)


for _module in (
    inspect,
    scan,
    probe,
    commission,
    apply,
    serve,
    audit,
    attest,
    alerts,
    report,
    market,
    explain,
    factors,
    administer,
    context,
    opcua,
    develop,
    catalogue,
    importing,
    thermal,
    keys,
    enrol,
    tpm,
):
    for _command in _module.COMMANDS:
        wattseal.add_command(_command)


def run(arguments: Sequence[str], *, name: str = "wattseal") -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 a file or an argument is wrong."""
    return run_command(wattseal, arguments, name=name)


def main() -> None:
    """Run `wattseal`."""
    sys.exit(run(sys.argv[1:]))


def admin() -> None:
    """Run `ems-admin`: `wattseal` under the name that our users' manuals give."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in administer.admin.commands and arguments[0] not in wattseal.commands:
        arguments = ["admin", *arguments]
    sys.exit(run(arguments, name="ems-admin"))


def export() -> None:
    """Run `ems-export`: `wattseal export`."""
    sys.exit(run(["export", *sys.argv[1:]], name="ems-export"))
