"""The `provision` command: what the factory and the attestation service run."""

import os
import sys
from collections.abc import Sequence

import click

from gateway.errors import ConfigError, GatewayError
from provisioning.cli import authority, lifecycle, registry, station, verifier

EXIT_FAILED = 1
EXIT_CONFIG = 2


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
    try:
        result = provision.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except click.ClickException as e:
        e.show()
        return EXIT_CONFIG
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ConfigError as e:
        sys.stderr.write(f"{e}\n")
        return EXIT_CONFIG
    except GatewayError as e:
        sys.stderr.write(f"{name}: {e}\n")
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run `provision`."""
    sys.exit(run(sys.argv[1:]))
