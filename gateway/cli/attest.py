"""`wattseal attest`: what devices say of themselves, and what is held of them."""

import click

from gateway.cli.appraise import appraise, events, reference
from gateway.cli.standings import status


@click.group()
def attest() -> None:
    """Look at event logs, evidence and reference values."""


for _command in (events, reference, appraise, status):
    attest.add_command(_command)


COMMANDS = (attest,)
