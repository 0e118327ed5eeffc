"""`python -m hil.plant replay CASE`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hil.replay.cases import CASES
from hil.replay.run import Outcome, replay, said

_HELP = """\
example:
  python -m hil.plant replay compressor --seed 1 --json

cases:
{cases}

The plant's registers go through the gateway's Modbus driver, its sealer, the ledger, figures, baselines and alerts;
only the clock and the wires are simulated. A case learns for a day of plant time, then runs one shift: the fault comes
after two hours and is repaired 45 minutes later.
"""


def main(given: Sequence[str]) -> int:
    """Run one case; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hil.plant replay",
        description="Run a case through the real pipeline, in plant time.",
        epilog=_HELP.format(cases="\n".join(f"  {name:12} {case.what}" for name, case in CASES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seed", type=int, default=1, help="of the noise (1)")
    parser.add_argument("--daily", action="store_true", help="let the grid's factor be another from hour to hour")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and database there: an empty folder")
    options = parser.parse_args(given)
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep: got {options.keep}, want an empty folder")
    with tempfile.TemporaryDirectory(prefix="replay-", dir=_fast_folder()) as folder:
        place = options.keep or Path(folder)
        case, seed, daily = CASES[options.case], options.seed, options.daily
        outcome = asyncio.run(replay(place, options.case, case, seed=seed, daily=daily, progress=_progress))
    print(_json(outcome) if options.json else "\n".join(said(outcome)))
    return 0


def _json(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), indent=1)


def _progress(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:4.0%}", end="" if share < 1 else "\n", file=sys.stderr, flush=True)


def _fast_folder() -> str | None:
    """Return a folder in memory, where there is one: the logs are synced at each step."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() else None
