"""The case `enrol`: units in software through the factory's station; what one costs, and which step costs it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import GatewayError
from provisioning.station.batch import run_batch, summary
from provisioning.station.simulate import simulated

_UNITS_PER_S: Final = 2
_LEAST: Final = 2


@dataclass(frozen=True, kw_only=True)
class EnrolCase:
    """Units that are enrolled, so many at once. about: what it is, for people."""

    name: str
    about: str
    jobs: int


ENROL: Final = {
    "enrol": EnrolCase(name="enrol", about="units with new TPMs (swtpm) through the station, two at once", jobs=2)
}


def measure_enrol(case: EnrolCase, *, seconds: float) -> dict[str, Any]:
    """Return a case's figures. seconds: says how many units. Raises GatewayError where one is not enrolled."""
    os.environ.setdefault("TSS2_LOG", "all+none")
    count = max(_LEAST, round(seconds * _UNITS_PER_S))
    with simulated(count, seed="bench") as run:
        begun_s, begun_cpu_s = time.monotonic(), time.process_time()
        found = run_batch(run.station, run.orders, jobs=case.jobs, told=lambda _, __: None, done=lambda _: None)
        total_s, cpu_s = time.monotonic() - begun_s, time.process_time() - begun_cpu_s
    for one in found:
        if not one.is_ok:
            raise GatewayError(f"{case.name}: {one.serial}: {one.step}: {one.why}")
    said = summary(found, total_s=total_s)
    steps = {name: round(statistics.median(one.steps[name] for one in found), 5) for name in found[0].steps}
    return {
        "about": case.about,
        "enrolled": count,
        "jobs": case.jobs,
        "total_s": said["total_s"],
        "per_unit_s": said["per_unit_s"],
        "units_per_hour": round(count / total_s * 3600),
        "station_cpu_s_per_unit": round(cpu_s / count, 4),
        "steps_median_s": steps,
    }


def enrol_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield a case as a table."""
    yield f"{name}: {figures['about']}"
    unit = figures["per_unit_s"]
    yield (
        f"  {figures['enrolled']} units in {figures['total_s']:.1f} s, {figures['units_per_hour']:,} an hour; "
        f"a unit: median {unit['median']:.3f} s, p95 {unit['p95']:.3f} s, CPU {figures['station_cpu_s_per_unit']:.3f} s"
    )
    yield "  " + ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in figures["steps_median_s"].items())
