"""`wattseal scan`: what is there. One module a protocol; each imports its driver only when it runs."""

import click

from gateway.cli import scan_bacnet, scan_modbus, scan_sunspec


@click.group()
def scan() -> None:
    """Find devices in a plant's network, and look at what they hold. Only reads."""


scan.add_command(scan_bacnet.bacnet)
scan.add_command(scan_modbus.modbus)
scan.add_command(scan_sunspec.sunspec)

COMMANDS = (scan,)
