"""Which catalogue model a device may be: what each template would read, and how plausible that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.codec.planner import Block, Limits, plan
from gateway.codec.plausible import Likely, finding
from gateway.codec.registers import Decoder
from gateway.errors import ConfigError
from gateway.model import Point, Value

# What a unit says of a model, in points: a float or a count within a few per cent of mains frequency is no chance.
_WEIGHTS: Final[Mapping[str, float]] = {"Hz": 4.0, "V": 3.0, "kV": 3.0}
_KNOWN: Final = 2.0
_SCANNED: Final = frozenset({"W", "kW", "MW", "Wh", "kWh", "MWh", "V", "kV", "Hz", "A"})
_MOST_POINTS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One template, as a scan needs it.

    mark: a register that tells the model, with the raw numbers it may hold, or what its text begins with.
    """

    template: str
    title: str
    verified: bool
    points: tuple[Point, ...]
    limits: Limits
    mark: Mark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A register that tells a model from others."""

    point: Point
    equals: frozenset[int] = frozenset()
    text: str = ""

    def matches(self, value: Value | None) -> bool:
        """Return whether this is what the model holds there."""
        if self.text:
            return isinstance(value, str) and value.startswith(self.text)
        return value in self.equals


class Reading(NamedTuple):
    """What one block of a model gave: bytes, or why not. refused: the device has no such registers."""

    block: Block
    reply: bytes | None
    fault: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well a template fits a device. score: the higher the better; below 0: it does not. reasons: one a point."""

    template: str
    title: str
    verified: bool
    score: float
    reasons: tuple[str, ...]


def blocks_of(model: Model) -> tuple[Block, ...]:
    """Return what to read for a model, its mark first; only points whose unit says something, and not all of many.

    Raises ConfigError where the template cannot be read.
    """
    known = [point for point in model.points if point.unit in _SCANNED][:_MOST_POINTS]
    scales = {point.scale_point for point in known} - {None}
    wanted = [point for point in model.points if point in known or point.name in scales]
    mark = (Block((model.mark.point,)),) if model.mark else ()
    return (*mark, *plan(wanted, model.limits))


def fit(model: Model, readings: Sequence[Reading]) -> Fit:
    """Return how well what was read fits a model. readings: of `blocks_of`, as far as they were asked for."""
    score = 0.0
    reasons: list[str] = []
    rest = list(readings)
    if model.mark is not None and rest:
        score, reason = _marked(model.mark, rest.pop(0))
        reasons.append(reason)
    for reading in rest:
        if reading.reply is None:
            score -= 6.0 if reading.refused else 1.0
            names = ", ".join(point.name for point in reading.block.points)
            reasons.append(f"{names}: {reading.fault}")
    points = [point for reading in rest for point in reading.block.points]
    if points:
        values, _ = Decoder(points, [reading.block for reading in rest]).decode([reading.reply for reading in rest])
        lost = {point.name for reading in rest if reading.reply is None for point in reading.block.points}
        for point, value in zip(points, values, strict=True):
            if point.unit in _SCANNED and point.name not in lost:
                points_of_it, reason = _judged(point, value)
                score += points_of_it
                reasons.append(reason)
    return Fit(
        template=model.template,
        title=model.title,
        verified=model.verified,
        score=round(score, 1),
        reasons=tuple(reasons),
    )


def ranked(fits: Sequence[Fit]) -> tuple[Fit, ...]:
    """Return those that fit, the best first; of two alike, the verified one."""
    return tuple(
        sorted(
            (each for each in fits if each.score > 0), key=lambda each: (-each.score, not each.verified, each.template)
        )
    )


def _marked(mark: Mark, reading: Reading) -> tuple[float, str]:
    where = f"FC {mark.point.function} {mark.point.address}"
    if reading.reply is None:
        return (-1.0 if reading.refused else 0.0), f"its own mark, {where}: {reading.fault}"
    try:
        values, _ = Decoder([mark.point], [reading.block]).decode([reading.reply])
    except ConfigError as e:
        return 0.0, f"its own mark, {where}: {e}"
    if mark.matches(values[0]):
        return 20.0, f"its own mark, {where}, is there: {values[0]}"
    return -8.0, f"its own mark, {where}, is not there: got {values[0]}"


def _judged(point: Point, value: Value | None) -> tuple[float, str]:
    """Return what one value says for or against, and that in words."""
    if value is None:
        return -0.5, f"{point.name}: not implemented, or no number"
    number = math.nan if isinstance(value, str) else float(value)
    found = finding(number, point.unit, point.kind)
    said = f"{point.name} {number:,.6g} {point.unit}: {found.likely}"
    if found.likely is Likely.YES:
        return _WEIGHTS.get(point.unit, _KNOWN), said
    return (0.0 if found.likely is Likely.EMPTY else -6.0), said
