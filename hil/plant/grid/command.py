"""`python -m hil.plant grid`: one replay server as a process."""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Sequence

from hil.plant.grid.server import FAULTS, PROVIDERS, GridServer

_HELP = """\
example:
  python -m hil.plant grid --provider electricitymaps --port 0 --fault 429

Prints one line of JSON with its url when it listens. Credentials that it takes:
  electricitymaps  emaps-test-token        entsoe  entsoe-test-token
  watttime         plant:watttime-test-password

faults:
"""


def main(given: Sequence[str]) -> int:
    """Run until told to stop; return the exit code. Raises ValueError, OSError."""
    parser = argparse.ArgumentParser(
        prog="python -m hil.plant grid",
        description="A provider of grid factors, replayed.",
        epilog=_HELP + "\n".join(f"  {name:11} {what}" for name, what in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--provider", choices=tuple(PROVIDERS), required=True)
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0: any free one (0)")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help="misbehave; may be given again")
    parser.add_argument("--slow", type=float, default=2.0, metavar="S", help="of the fault `slow` (2)")
    asyncio.run(_run(parser.parse_args(given)))
    return 0


async def _run(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    given = GridServer(options.provider, port=options.port, faults=tuple(options.fault), slow_s=options.slow)
    async with given as server:
        about = {"provider": options.provider, "url": server.url, "faults": sorted(server.faults), "pid": os.getpid()}
        print(json.dumps(about), flush=True)
        await stopped.wait()
