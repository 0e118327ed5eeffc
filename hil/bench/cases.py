"""The loads that are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.app.load import template_text
from gateway.config import parse_template, points_of
from gateway.model import Point

AT_ONCE_S: Final = 0.001
"""The shortest period that a device may have: with it, a bus that is not done in time polls again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One load on the whole chain.

    about: what it is, for people. template: of every meter. period_s: of each meter's ticks.
    pipeline: requests under way at once on the connection that all meters share; 1: each meter has one of its own.
    stages: whether each stage is measured alone too, and the plain library beside it.
    timed: whether each row is followed from its source time to its receipt.
    """

    name: str
    about: str
    meters: int
    template: str
    period_s: float = AT_ONCE_S
    pipeline: int = 1
    stages: bool = True
    timed: bool = False

    @property
    def points(self) -> Sequence[Point]:
        """The points of one meter."""
        return points_of(parse_template(template_text(self.template), self.template))


_METER: Final = "wattseal-bench-60f32"

CASES: Final = {
    case.name: case
    for case in (
        Case(name="meters1", about="1 meter x 60 float32, every 1 ms", meters=1, template=_METER),
        Case(name="meters10", about="10 meters x 60 float32, every 1 ms", meters=10, template=_METER),
        Case(name="meters100", about="100 meters x 60 float32, without a pause", meters=100, template=_METER),
        Case(
            name="pipelined100",
            about="100 meters x 60 float32 behind one host, 16 requests at once",
            meters=100,
            template=_METER,
            pipeline=16,
        ),
        Case(
            name="registers1",
            about="100 meters x 1 register, without a pause",
            meters=100,
            template="wattseal-bench-1u16",
        ),
        Case(
            name="paced_60k",
            about="100 meters x 60 float32, 10 times a second",
            meters=100,
            template=_METER,
            period_s=0.1,
            stages=False,
        ),
        Case(
            name="paced_6k",
            about="100 meters x 60 float32, once a second",
            meters=100,
            template=_METER,
            period_s=1.0,
            stages=False,
            timed=True,
        ),
        Case(
            name="meters1000",
            about="1,000 meters x 10 registers, once a second",
            meters=1000,
            template="wattseal-bench-10u16",
            period_s=1.0,
            stages=False,
            timed=True,
        ),
    )
}
