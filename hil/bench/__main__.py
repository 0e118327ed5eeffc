"""`python -m hil.bench`: from register to receipt, what a point costs, each protocol, a day's figures, attestation."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import uvloop

from gateway.errors import GatewayError
from hil.bench.attest import ATTEST, measure_attest
from hil.bench.attest_fleet import FLEETS, measure_fleet
from hil.bench.carbon import CARBON, measure_carbon
from hil.bench.cases import CASES
from hil.bench.enrol import ENROL, measure_enrol
from hil.bench.measure import Figures, measure
from hil.bench.protocols import PROTOCOLS, measure_protocol
from hil.bench.report import judged, lines_of, machine, target_lines, versions

_ABOUT = {
    name: case.about for cases in (CASES, PROTOCOLS, CARBON, ATTEST, FLEETS, ENROL) for name, case in cases.items()
}
_SECONDS, _QUICK_SECONDS = 5.0, 1.0

_HELP = """\
example:
  make bench
  make bench ARGS="--case meters100 --case paced_60k --seconds 20"
  make bench ARGS=--json > bench.json

cases:
""" + "\n".join(f"  {name:16}{about}" for name, about in _ABOUT.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code: 0 also when a target is missed."""
    options = _options(arguments)
    seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    about = {"machine": machine(), "versions": versions(), "seconds": seconds}
    found: dict[str, Figures] = {}
    try:
        for name in options.case or _ABOUT:
            print(f"bench: {name}: {_ABOUT[name]}", file=sys.stderr, flush=True)
            found[name] = _measure(name, seconds)
            if not options.json:
                print("\n".join(lines_of(name, found[name])), end="\n\n", flush=True)
    except GatewayError as e:
        print(e, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({**about, "cases": found, "targets": judged(found)}))
    else:
        print("\n".join(target_lines(judged(found))))
        print("\nwith " + ", ".join(f"{name} {number}" for name, number in versions().items()))
    return 0


def _measure(name: str, seconds: float) -> Figures:
    if name in CARBON:
        return measure_carbon(CARBON[name], seconds=seconds)
    if name in ATTEST:
        return measure_attest(ATTEST[name], seconds=seconds)
    if name in ENROL:
        return measure_enrol(ENROL[name], seconds=seconds)
    if name in FLEETS:
        return uvloop.run(measure_fleet(FLEETS[name], seconds=seconds))
    return uvloop.run(
        measure(CASES[name], seconds=seconds) if name in CASES else measure_protocol(PROTOCOLS[name], seconds=seconds)
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hil.bench",
        description="Measure the way of a point from the register to the ledger's receipt, and each protocol's driver.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", action="append", choices=_ABOUT, help="run this one; may be given again (all)")
    parser.add_argument("--seconds", type=float, help=f"steady seconds to measure in each case ({_SECONDS:g})")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_SECONDS:g} s a case: whether it runs at all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
