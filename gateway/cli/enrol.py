"""`wattseal enrol`: the unit's side of the factory's enrolment."""

import sys
from pathlib import Path

import click

from gateway.errors import ConfigError

_SERIAL = Path("/sys/class/dmi/id/product_serial")


@click.command()
@click.option(
    "--identity",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/wattseal/identity"),
    show_default=True,
    help="The folder that takes what the factory gives.",
)
@click.option("--image", type=click.Path(path_type=Path, dir_okay=False), help="What runs: an image file or its slot.")
@click.option(
    "--serial-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_SERIAL,
    show_default=True,
    help="The hardware's serial. Where it has none, the unit takes the station's, once.",
)
@click.option("--tcti", default="device:/dev/tpmrm0", show_default=True, help="How to reach the TPM.")
@click.option("--once", is_flag=True, help="On a serial line: end when the unit is enrolled.")
def enrol(identity: Path, image: Path | None, serial_file: Path, tcti: str, *, once: bool) -> None:
    """Answer a factory's station on standard input and output, until it hangs up.

    A unit that is enrolled says so, and refuses all else; a factory reset makes it new.

    Example: wattseal enrol --image /dev/disk/by-partlabel/rootfs-a
    """
    from gateway.app.enrolment.enrolee import Enrolee
    from gateway.app.enrolment.identity import Identity
    from gateway.app.enrolment.lines import about, hardware_serial, serve
    from gateway.tpm import Tpm

    kept = Identity(identity)
    with kept.taken(), Tpm.open(tcti) as tpm:
        unit = Enrolee(tpm=tpm, identity=kept, image=image, serial=hardware_serial(serial_file), about=about())
        serve(unit.answer, sys.stdin.fileno(), sys.stdout.fileno(), is_done=lambda: once and kept.is_enrolled)
        if not kept.is_enrolled:
            raise ConfigError(f"{identity}: the station hung up before this unit was enrolled; it may begin again")


COMMANDS = (enrol,)
