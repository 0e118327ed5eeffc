"""The same registers in all orders and types, side by side: what a probe shows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.codec.number import FLOATS, raw_of
from gateway.codec.planner import width
from gateway.codec.plausible import Likely, finding
from gateway.model import Kind, Order, Point, WireType

TYPES: Final = (
    WireType.U16,
    WireType.S16,
    WireType.U32,
    WireType.S32,
    WireType.F32,
    WireType.U64,
    WireType.S64,
    WireType.F64,
)
_BITS: Final = {WireType.U16: 16, WireType.S16: 16, WireType.U32: 32, WireType.S32: 32, WireType.F32: 32}
# How rare an order is, in bits: so many more must speak for it.
_USUAL: Final[Mapping[Order, float]] = {Order.ABCD: 0.0, Order.CDAB: -1.0, Order.DCBA: -3.5, Order.BADC: -4.0}
# So many bits are worth less than what a person has written.
_MUCH: Final = 4.0
# A gauge that changes by more than this share within a second is rather no gauge.
_JUMP: Final = 0.5
# A counter that grows by more than this share within a second is rather no counter.
_GROWTH: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to read some registers.

    values: one a reading, scale and offset applied. doubt: why this is rather not what they hold, "" for no doubt.
    score: the higher, the likelier; only to compare candidates of the same registers.
    """

    type: WireType
    order: Order
    values: tuple[float, ...]
    doubt: str
    score: float


def candidates(point: Point, replies: Sequence[bytes]) -> tuple[Candidate, ...]:
    """Return all types and orders that the registers have room for, in the order of a table.

    point: its unit, kind, scale, offset and sentinels; its type and order are not used.
    replies: the registers from its address on, once or more, all of one length. A byte swap that gives another type of
    one register the same number is shown all the same.
    """
    # At address 0, so that what would not fit behind the last register is left out by its length alone.
    base = replace(point, address=0, bit=None, registers=0)
    return tuple(
        _candidate(replace(base, type=kind, order=order), replies)
        for kind in TYPES
        for order in Order
        if 2 * width(replace(base, type=kind)) <= min(map(len, replies))
    )


def best(found: Sequence[Candidate], present: Candidate | None = None) -> Candidate | None:
    """Return the likeliest without a doubt; None where there is none, or all of them show zero.

    present: stays where it is plausible and nothing is much likelier.
    """
    good = [candidate for candidate in found if not candidate.doubt and any(candidate.values)]
    first = max(good, key=lambda candidate: candidate.score, default=None)
    stays = first is not None and present in good and present is not None and present.score > first.score - _MUCH
    return present if stays else first


def toml_of(point: Point) -> str:
    """Return the section of a template that reads a point so, with nothing in it that is the default."""
    lines = [f"[points.{point.name}]", f"function = {point.function}", f"address = {point.address}"]
    lines.append(f'type = "{point.type}"')
    if point.order is not Order.ABCD and point.type is not WireType.BIT:
        lines.append(f'order = "{point.order}"')
    if point.unit:
        lines.append(f'unit = "{point.unit}"')
    if point.scale != 1:
        lines.append(f'scale = "{point.scale}"')
    if point.offset:
        lines.append(f'offset = "{point.offset}"')
    if point.kind is Kind.COUNTER:
        lines.append('kind = "counter"')
    return "\n".join(lines)


def _candidate(point: Point, replies: Sequence[bytes]) -> Candidate:
    raws = [raw_of(point, reply[: 2 * width(point)]) for reply in replies]
    values = tuple(float(raw) * float(point.scale) + float(point.offset) for raw in raws)
    doubt = _doubt(point, raws, values)
    score = -1.0 if doubt else _score(point, values, raws[-1])
    return Candidate(type=point.type, order=point.order, values=values, doubt=doubt, score=score)


def _doubt(point: Point, raws: Sequence[float], values: Sequence[float]) -> str:
    """Return what speaks against this way to read the registers, "" for nothing."""
    if any(raw in point.sentinels or _is_absent(point.type, raw) for raw in raws):
        return "not implemented"
    for value in values:
        found = finding(value, point.unit, point.kind)
        if found.likely is Likely.NO:
            return found.reason
    first, last = values[0], values[-1]
    if point.kind is Kind.COUNTER and last < first:
        return "a counter that falls"
    if point.kind is Kind.COUNTER and last - first > _GROWTH * abs(first) + 1000:
        return "a counter that leaps"
    if abs(last - first) > _JUMP * max(abs(first), abs(last)):
        return "leaps within a second"
    return ""


def _is_absent(kind: WireType, raw: float) -> bool:
    """Return whether this is a pattern that most makers use for "not there": SunSpec's, and ABB's 0x7FFFFFFF."""
    if kind in FLOATS:
        return math.isnan(raw)
    bits = _BITS.get(kind, 64)
    if kind.startswith("u"):
        return raw == (1 << bits) - 1
    return raw in {-(1 << (bits - 1)), (1 << (bits - 1)) - 1}


def _score(point: Point, values: Sequence[float], raw: float) -> float:
    """Return how many bits speak against chance: how rarely noise gives a number like this, and a range that fits.

    A whole number is known by its leading zeros; of all floats, 1 in 14 (f32) and 1 in 114 (f64) is within 0.01..1e9,
    and meters are fond of floats.
    """
    score = 4.0 if finding(values[-1], point.unit, point.kind).likely is Likely.YES else 0.0
    if point.type in FLOATS:
        score += (10.0 if point.type is WireType.F64 else 5.0) if 1e-2 <= abs(raw) <= 1e9 else 0.0
    elif raw:
        zeros = 16 * width(point) - math.log2(abs(raw))
        # The zeros of a 64-bit number may just as well be the registers beside a shorter one.
        score += (min(zeros, 3.5) if width(point) > 2 else zeros) - (1.0 if raw < 0 or width(point) == 1 else 0.0)
    if values[0] != values[-1]:
        score += 0.5
    signed = point.type.startswith("s")
    score += 0.1 if signed is (point.kind is Kind.GAUGE) else 0.0
    return score - 0.3 * width(point) + _USUAL[point.order]
