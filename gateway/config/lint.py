"""What is wrong, or doubtful, in a Modbus device template. Pure.

An error is a template that reads something else than it says. A doubt is what a person should look at once. A note is
a property of the meter that nobody can mend, and that a figure inherits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from gateway.codec.planner import is_bits, width
from gateway.config import points_of
from gateway.config.lint_points import FLOATS, POINT_RULES, Level, fits, registers_of
from gateway.config.templates import ModbusTemplate
from gateway.errors import ConfigError
from gateway.model import Point, WireType

__all__ = ["OVERFLOW", "Finding", "Level", "lint", "overlaps", "span"]

OVERFLOW: Final = "Register Offset Overflow"

_OWN: Final = ("this project", "maker's manual", "data sheet")
# Numbers as maker's lists print them: table 4 is holding registers, 3 input registers, 1 discrete inputs.
_TABLES: Final = MappingProxyType({3: (40001, 49999), 4: (30001, 39999), 2: (10001, 19999)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the linter found.

    points: whom it concerns; none for the template. lines: where those stand in the file, where that is known.
    """

    level: Level
    rule: str
    text: str
    points: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()


def lint(template: ModbusTemplate, text: str = "") -> tuple[Finding, ...]:
    """Return what is wrong or doubtful, the worst first.

    text: the template's own, to name its lines.
    """
    found = [*_template(template), *_never(template), *_probe(template)]
    good = []
    for point in points_of(template):
        try:
            width(point)
        except ConfigError as e:
            found.append(Finding(level=Level.ERROR, rule="type", text=str(e), points=(point.name,)))
        else:
            good.append(point)
    found += _overlaps(good)
    found += _base(template, good)
    for name, entry in template.points.items():
        for rule in POINT_RULES:
            found += [
                Finding(level=problem.level, rule=problem.rule, text=f"points.{name}: {problem.text}", points=(name,))
                for problem in rule(name, entry, template)
            ]
    order = list(Level)
    return tuple(sorted((_placed(f, text) for f in found), key=lambda f: order.index(f.level)))


def overlaps(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """Yield pairs of points that share a register and cannot both be right, the lower address first.

    Bits share their register with other bits, and with the word that they are bits of. Raises ConfigError for a point
    that no device could hold.
    """
    ordered = sorted(points, key=lambda p: (p.function, p.address))
    for i, first in enumerate(ordered):
        stop = first.address + width(first)
        for second in ordered[i + 1 :]:
            if second.function != first.function or second.address >= stop:
                break
            if not (_is_flag(first) or _is_flag(second)) or (_is_flag(first) and first.bit == second.bit):
                yield first, second


def span(point: Point) -> str:
    """Return the addresses of a point in words."""
    last = point.address + width(point) - 1
    return f"{point.address}" if last == point.address else f"{point.address}..{last}"


def _is_flag(point: Point) -> bool:
    return point.bit is not None


def _placed(finding: Finding, text: str) -> Finding:
    lines = []
    for name in finding.points:
        head = re.search(rf"^[ \t]*\[ *points *\. *[\"']?{re.escape(name)}[\"']? *\]", text, re.MULTILINE)
        lines += [text.count("\n", 0, head.start()) + 1] if head else []
    return Finding(level=finding.level, rule=finding.rule, text=finding.text, points=finding.points, lines=tuple(lines))


def _overlaps(points: Sequence[Point]) -> Iterator[Finding]:
    for first, second in overlaps(points):
        yield Finding(
            level=Level.ERROR,
            rule="overlap",
            text=f"{OVERFLOW}: points.{first.name} (FC {first.function}, {first.type}, {span(first)}) and "
            f"points.{second.name} ({second.type}, {span(second)}) share registers, want each register in one point",
            points=(first.name, second.name),
        )


def _template(template: ModbusTemplate) -> Iterator[Finding]:
    own = any(mark in source for source in template.sources for mark in _OWN)
    if not template.sources:
        yield Finding(level=Level.ERROR, rule="sources", text="sources: got none, want at least one")
    if template.verified and not own and (template.votes < 2 or len(template.sources) < 2):
        yield Finding(
            level=Level.ERROR,
            rule="sources",
            text=f"verified: got true with {template.votes} votes of {len(template.sources)} sources, "
            "want two independent ones, the maker's manual, or verified = false",
        )
    if template.votes > len(template.sources):
        yield Finding(
            level=Level.ERROR,
            rule="sources",
            text=f"votes: got {template.votes} of {len(template.sources)} sources, want no more votes than sources",
        )


def _never(template: ModbusTemplate) -> Iterator[Finding]:
    for function, first, last in template.never:
        where = f"never: [{function}, {first}, {last}]"
        if function not in {1, 2, 3, 4} or not 0 <= first <= last <= 65_535:
            text = f"{where}: want a function 1..4, and a first address that is not past the last"
            yield Finding(level=Level.ERROR, rule="never", text=text)
            continue
        for name, entry in template.points.items():
            stop = entry.address + registers_of(entry)
            if (entry.function or template.function) == function and entry.address <= last and first < stop:
                text = f"{where} cuts points.{name} at {entry.address}, which could never be read"
                yield Finding(level=Level.ERROR, rule="never", text=text, points=(name,))


def _probe(template: ModbusTemplate) -> Iterator[Finding]:
    probe = template.probe
    if probe is None:
        return
    if bool(probe.equals) == bool(probe.text):
        yield Finding(level=Level.ERROR, rule="probe", text="probe: got neither or both, want either equals or text")
    if bool(probe.text) != (probe.type == WireType.STRING) or (probe.text and not probe.registers):
        yield Finding(level=Level.ERROR, rule="probe", text='probe: text goes with type = "string" and its registers')
    if probe.type in FLOATS or probe.type == WireType.BIT:
        yield Finding(
            level=Level.ERROR, rule="probe", text=f"probe.type: got {probe.type}, want a whole number or text"
        )
    elif bad := [number for number in probe.equals if not fits(number, probe.type)]:
        text = f"probe.equals: got {bad[0]}, want what a {probe.type} can hold"
        yield Finding(level=Level.ERROR, rule="probe", text=text)


def _base(template: ModbusTemplate, points: Sequence[Point]) -> Iterator[Finding]:
    """Find addresses that are the maker's numbers, or off by one."""
    said = {n: e.displayed for n, e in template.points.items() if e.displayed is not None}
    if template.base is None:
        if said:
            yield Finding(
                level=Level.ERROR, rule="base", text="base: got none, want what `displayed` counts from: 0, 1, 30001"
            )
            return
        yield from _looks_displayed(points)
        return
    off = {name: template.points[name].address + template.base - number for name, number in said.items()}
    if set(off.values()) in ({1}, {-1}) and len(off) > 1:
        yield Finding(
            level=Level.ERROR,
            rule="base",
            text=f"base: every address is off by {next(iter(off.values())):+d} against `displayed`: "
            f"got base = {template.base}, is the maker's list counted from another number?",
        )
        return
    for name, by in off.items():
        if by:
            text = f"points.{name}: got address {template.points[name].address} and displayed {said[name]}, "
            text += f"want a difference of base = {template.base}"
            yield Finding(level=Level.ERROR, rule="base", text=text, points=(name,))


def _looks_displayed(points: Sequence[Point]) -> Iterator[Finding]:
    for function, (low, high) in _TABLES.items():
        own = [p for p in points if p.function == function]
        if own and all(low <= p.address <= high for p in own):
            names = tuple(p.name for p in own)
            text = f"points.{names[0]}: got address {own[0].address} for FC {function}, which looks like a maker's "
            text += f"number: want PDU address {own[0].address - low}, or say base = 0 if it is none"
            yield Finding(level=Level.DOUBT, rule="base", text=text, points=names)
    wide = [p for p in points if width(p) > 1 and not is_bits(p.function)]
    if len(wide) > 1 and all(p.address % 2 for p in wide) and not any(_touch(wide)):
        text = "base: every address is odd, as when a list that counts from 1 is taken as it is: "
        text += "want the number less one, or say base = 0 (or 1) if that is right"
        yield Finding(level=Level.DOUBT, rule="base", text=text)


def _touch(points: Sequence[Point]) -> Iterator[bool]:
    """Yield for neighbours whether an odd width lies between them, so that odd addresses say nothing."""
    ordered = sorted(points, key=lambda p: (p.function, p.address))
    yield from ((b.address - a.address) % 2 == 1 for a, b in pairwise(ordered))
