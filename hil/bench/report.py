"""Figures as a table for people, beside what they should be."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from gateway.app.broker import find_mosquitto
from hil.bench.attest import attest_lines, fleet_lines
from hil.bench.carbon import carbon_lines
from hil.bench.enrol import enrol_lines

Figures = Mapping[str, Any]

_PACKAGES: Final = (
    "pymodbus",
    "asyncua",
    "bacpypes3",
    "aiomqtt",
    "paho-mqtt",
    "uvloop",
    "msgpack",
    "cryptography",
    "sqlalchemy",
    "polars",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure that is wanted. find: it, from the figures of its case. most: whether less is better."""

    case: str
    what: str
    want: float
    stretch: float
    most: bool
    find: Callable[[Figures], float]

    def judge(self, figures: Figures) -> dict[str, Any]:
        """Return what was wanted and what was found."""
        found = self.find(figures)
        met = found <= self.want if self.most else found >= self.want
        words = {"case": self.case, "what": self.what, "at": "most" if self.most else "least"}
        return {**words, "want": self.want, "stretch": self.stretch, "found": found, "met": met}


def _of(*path: str, scale: float = 1.0) -> Callable[[Figures], float]:
    """Return what finds the figure at a path."""

    def find(figures: Figures) -> float:
        found: Any = figures
        for key in path:
            found = found[key]
        return round(float(found) * scale, 4)

    return find


def _thousands_a_cpu_second(figures: Figures) -> float:
    return round(1e3 / float(figures["driver"]["cpu_s_per_million_points"]), 4)


TARGETS: Final = (
    Target(
        case="meters100",
        what="CPU s per million points, collect + seal + forward",
        want=1.0,
        stretch=0.3,
        most=True,
        find=_of("end_to_end", "cpu_s_per_million_points"),
    ),
    Target(
        case="meters100",
        what="million points a second, from register to ledger",
        want=1.0,
        stretch=3.0,
        most=False,
        find=_of("end_to_end", "points_per_s", scale=1e-6),
    ),
    Target(
        case="meters100",
        what="million points a second that a ledger takes",
        want=0.5,
        stretch=2.0,
        most=False,
        find=_of("stages", "ledger", "points_per_s", scale=1e-6),
    ),
    Target(
        case="paced_60k",
        what="cores, collect + seal + forward",
        want=0.08,
        stretch=0.04,
        most=True,
        find=_of("end_to_end", "cores"),
    ),
    Target(
        case="paced_60k",
        what="MB resident, collect + seal + forward",
        want=150.0,
        stretch=150.0,
        most=True,
        find=_of("end_to_end", "rss_mb"),
    ),
    Target(
        case="paced_6k",
        what="s from acquisition to receipt, p99",
        want=2.0,
        stretch=1.2,
        most=True,
        find=_of("end_to_end", "timing", "latency_p99_s"),
    ),
    Target(
        case="meters1000",
        what="ms of jitter, p99",
        want=50.0,
        stretch=50.0,
        most=True,
        find=_of("end_to_end", "timing", "jitter_p99_s", scale=1e3),
    ),
    Target(
        case="meters1000",
        what="ticks missed",
        want=0.0,
        stretch=0.0,
        most=True,
        find=_of("end_to_end", "missed_ticks"),
    ),
    Target(
        case="opcua1000",
        what="thousand notifications a CPU second of the driver",
        want=40.0,
        stretch=100.0,
        most=False,
        find=_thousands_a_cpu_second,
    ),
    Target(
        case="bacnet1000_rpm",
        what="thousand values a CPU second of the driver",
        want=4.0,
        stretch=40.0,
        most=False,
        find=_thousands_a_cpu_second,
    ),
    Target(
        case="carbon1000",
        what="CPU us per figure, of a day of 1,000 meters",
        want=8.0,
        stretch=4.0,
        most=True,
        find=lambda figures: float(figures["days"][-1]["cpu_us_per_figure"]),
    ),
    Target(
        case="attest-epoch",
        what="ms of one core an epoch leaf, nothing remembered",
        want=1.0,
        stretch=0.5,
        most=True,
        find=_of("cold", "p50_us", scale=1e-3),
    ),
    Target(
        case="attest-epoch",
        what="ms of one core an epoch leaf of a known device",
        want=1.0,
        stretch=0.2,
        most=True,
        find=_of("warm", "p99_us", scale=1e-3),
    ),
    Target(
        case="attest-fleet",
        what="gateways attested a second, by one verifier through a broker",
        want=33.4,  # 10,000 of them each 300 s
        stretch=1000.0,
        most=False,
        find=_of("gateways_per_s"),
    ),
)


def judged(cases: Figures) -> list[dict[str, Any]]:
    """Return each target whose case was run."""
    return [target.judge(cases[target.case]) for target in TARGETS if target.case in cases]


def versions() -> dict[str, str]:
    """Return what was measured with."""
    said = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
    mosquitto = re.search(r"version (\S+)", said)
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "mosquitto": mosquitto[1] if mosquitto else "unknown",
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
    }


def machine() -> dict[str, Any]:
    """Return where, and what else was going on there."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


_OWN_TABLES: Final[Mapping[str, Callable[[str, Figures], Iterator[str]]]] = {
    "restated": carbon_lines,
    "warm": attest_lines,
    "gateways_per_s": fleet_lines,
    "enrolled": enrol_lines,
}
"""Of cases that do not count points, by a figure that only they have."""
_HEAD: Final = f"{'':16}{'points/s':>14}{'CPU us/point':>14}{'cores':>8}{'RSS MB':>9}"


def lines_of(name: str, figures: Figures) -> Iterator[str]:
    """Yield a case as a table."""
    own = next((lines for mark, lines in _OWN_TABLES.items() if mark in figures), _point_lines)
    yield from own(name, figures)


def _point_lines(name: str, figures: Figures) -> Iterator[str]:
    yield f"{name}: {figures['about']}"
    yield _HEAD
    if "driver" in figures:
        yield from _protocol_lines(figures)
        return
    if "plain_library" in figures:
        yield _line("pymodbus alone", figures["plain_library"])
    for stage in ("poll", "decode", "collect", "seal", "mqtts", "ledger"):
        if stage in figures["stages"]:
            yield _line(stage, figures["stages"][stage])
    chain = figures["end_to_end"]
    yield _line("end to end", chain)
    for process, used in sorted(chain["processes"].items()):
        yield _line(f"  {process}", used)
    ratio = figures.get("plain_library", {}).get("ratio_to_poll_and_decode")
    if ratio is not None:
        yield f"  pymodbus alone takes {ratio:.1f} times the CPU of poll and decode"
    troubles = {what: chain[what] for what in ("errors", "dropped_rows", "refused") if chain[what]}
    if troubles:
        yield f"  trouble: {troubles}"
    for what in ("latency", "jitter", "lag") if "timing" in chain else ():
        found = (chain["timing"][f"{what}_{share}_s"] * 1000 for share in ("p50", "p99", "worst"))
        yield "  {}: p50 {:.1f} ms, p99 {:.1f} ms, worst {:.1f} ms".format(what, *found)


def _protocol_lines(figures: Figures) -> Iterator[str]:
    library = figures["library"]
    names = {
        "plain_library": f"{library} alone",
        "plain_values_only": "  values only",
        "driver": "driver",
        "driver_encrypted": "  encrypted",
        "peer": "  peer of driver",
    }
    for key, name in names.items():
        if key in figures:
            yield _line(name, figures[key])
    yield f"  {library} alone takes {figures['plain_library']['ratio_to_driver']:.1f} times the CPU of the driver"


def _line(name: str, figures: Figures) -> str:
    rate, cpu, cores, rss = (figures[key] for key in ("points_per_s", "cpu_s_per_million_points", "cores", "rss_mb"))
    return f"{name:16}{rate:14,.0f}{cpu:14.3f}{cores:8.2f}{rss:9.1f}"


def target_lines(targets: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what was wanted beside what was found."""
    yield f"{'wanted':72}{'at':>8}{'':8}{'stretch':>9}{'found':>10}"
    for entry in targets:
        what = f"{entry['case']}: {entry['what']}"
        missed = "" if entry["met"] else "  MISSED"
        yield f"{what:72}{entry['at']:>8}{entry['want']:8g}{entry['stretch']:9g}{entry['found']:10.4g}{missed}"
