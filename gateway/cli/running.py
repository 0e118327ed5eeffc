"""How each of our commands ends: with a code, and never with a traceback for what is ordinary."""

import os
import sys
from collections.abc import Sequence

import click

from gateway.errors import ConfigError, GatewayError

EXIT_FAILED = 1
EXIT_CONFIG = 2


def run_command(group: click.Group, arguments: Sequence[str], *, name: str) -> int:
    """Run a command; return its exit code: 0 done, 1 failed, 2 a file or an argument is wrong.

    name: of the program, as it was called.
    """
    try:
        result = group.main(args=list(arguments), prog_name=name, standalone_mode=False)
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
