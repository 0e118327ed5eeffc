"""What a process has used, as the kernel tells it; and what so many points took of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds since a process began, all threads, user and system; megabytes resident."""

    cpu_s: float
    rss_mb: float


def usage_of(pid: int | str) -> Usage:
    """Return what a process has used so far (proc(5)). Raises OSError when it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND,
        rss_mb=int(resident[1]) / 1024 if resident else 0.0,
    )


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Return the smallest value that so much of the values does not exceed."""
    return sorted_values[max(0, ceil(share * len(sorted_values)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What so many points took: seconds on the clock, and of a CPU; and the process' memory, in megabytes."""

    points: int
    seconds: float
    cpu_s: float
    rss_mb: float


class Watch:
    """A stop-watch for time and CPU time that can be held and let go on."""

    def __init__(self) -> None:
        self.seconds = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu_s += time.process_time() - self._began[1]

    def spent(self, points: int) -> Spent:
        """Return what the points took."""
        rss_mb = usage_of("self").rss_mb
        return Spent(points=points, seconds=self.seconds, cpu_s=self.cpu_s, rss_mb=rss_mb)
