"""ENTSO-E Transparency: actual generation per type (A75) to factors.

Source: ENTSO-E Transparency Platform RESTful API guide, 16.1.B&C; EIC code lists (psrType). Power in MW, means over
windows of UTC. A factor is the mix's mean emission; imports are not counted, and `method` says so.
"""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from xml.etree import ElementTree as ET

from gateway.carbon.exact import ratio, times, total
from gateway.carbon.grid.answers import (
    AnswerError,
    S,
    Value,
    Wanted,
    boundary,
    factors_of,
    number,
    same_region,
    settled,
    word,
)
from gateway.model import Factor

NAME = "entsoe"
STORAGE = frozenset({"B10"})
"""Pumped storage gives back what was generated before: counting it again would count it twice."""

_PERIODS = {"PT15M": 900, "PT30M": 1_800, "PT60M": 3_600, "PT1H": 3_600}
_MOST_MW = 1_000_000
_MOST_POINTS = 50_000
"""In one answer: four days of quarter hours of all kinds are 10,000."""
_PLACES = 6

_Mix = dict[int, dict[str, Decimal]]
"""MW by kind, by the start of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixTable:
    """What a kWh of each kind emits, in g, and how much of the generation must be of these kinds, in percent."""

    g_per_kwh: dict[str, Decimal]
    least_known_percent: int
    method: str
    source: str


def parse_table(text: str, factor_type: str) -> MixTable:
    """Return the table of our own file for lifecycle or direct emissions."""
    found = tomllib.loads(text)
    part = found[factor_type]
    return MixTable(
        g_per_kwh={kind: Decimal(g) for kind, g in part["g_per_kwh"].items()},
        least_known_percent=found["least_known_percent"],
        method=part["method"],
        source=part["source"],
    )


def parse_generation(body: bytes, wanted: Wanted, table: MixTable) -> list[Factor]:
    """Return the factors of the windows for which each kind of the document has a value.

    A window with a kind still missing, or with too little generation of known kinds, has none. Raises AnswerError.
    """
    root = _root(body)
    if root.tag == "Acknowledgement_MarketDocument":
        return _acknowledged(root)
    if root.tag != "GL_MarketDocument" or _said(root, "type") != "A75":
        raise AnswerError(f"{NAME}: got a document {root.tag[:40]!r}, want GL_MarketDocument of type A75")
    mixes: dict[int, _Mix] = {}
    kinds: set[str] = set()
    left = _MOST_POINTS
    for series in root.iterfind("TimeSeries"):
        if series.find("outBiddingZone_Domain.mRID") is not None:
            continue  # what storage draws
        same_region(_said(series, "inBiddingZone_Domain.mRID"), wanted, f"{NAME}: inBiddingZone_Domain.mRID")
        if (unit := _said(series, "quantity_Measure_Unit.name")) != "MAW":
            raise AnswerError(f"{NAME}: quantity_Measure_Unit.name: got {unit!r:.40}, want 'MAW'")
        kind = word(_said(series, "MktPSRType/psrType"), f"{NAME}: psrType")
        if kind not in STORAGE:
            kinds.add(kind)
            for period in series.iterfind("Period"):
                left -= _take(period, kind, mixes, repeats=_said(series, "curveType") == "A03", most=left)
    if not mixes:
        return []
    period_s, mix = _finest(mixes)
    complete = [
        _value(start_ns, period_s, mix[start_ns], wanted, table)
        for start_ns in sorted(mix)
        if wanted.window.start_ns <= start_ns < wanted.window.end_ns and set(mix[start_ns]) == kinds
    ]
    return factors_of([value for value in complete if value is not None], wanted)


def _root(body: bytes) -> ET.Element:
    # Without a document type there are no entities: nothing can grow, and nothing outside can be named.
    if b"<!DOCTYPE" in body or b"\0" in body:
        raise AnswerError(f"{NAME}: got a document type or another encoding, want plain XML in UTF-8")
    try:
        root = ET.fromstring(body)  # noqa: S314 - bounded, and no entity can be declared
    except (ET.ParseError, ValueError, LookupError) as e:
        raise AnswerError(f"{NAME}: not XML: {str(e)[:80]}") from e
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # the namespace carries the version of the schema
    return root


def _acknowledged(root: ET.Element) -> list[Factor]:
    if (code := _said(root, "Reason/code")) == "999" and "no matching data" in _said(root, "Reason/text").lower():
        return []
    raise AnswerError(f"{NAME}: refused: code {code!r:.20}: {_said(root, 'Reason/text')!r:.120}", what="refused")


def _said(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _take(period: ET.Element, kind: str, mixes: dict[int, _Mix], *, repeats: bool, most: int) -> int:
    """Add one period's points; return how many there can be, most at most.

    repeats: a position that is left out has the value before it (curve type A03): so a few bytes can be many points.
    """
    where = f"{NAME}: {kind}"
    period_s = _PERIODS.get(_said(period, "resolution"))
    if period_s is None:
        raise AnswerError(f"{where}: resolution: got {_said(period, 'resolution')!r:.40}, want {', '.join(_PERIODS)}")
    start_ns = boundary(_said(period, "timeInterval/start"), period_s, f"{where}: start")
    end_ns = boundary(_said(period, "timeInterval/end"), period_s, f"{where}: end")
    count = (end_ns - start_ns) // (period_s * S)
    if not 0 < count <= most:
        raise AnswerError(f"{where}: timeInterval: got {count} points, want 1 to {most}, of {_MOST_POINTS} in all")
    points: dict[int, Decimal] = {}
    for point in period.iterfind("Point"):
        position = _said(point, "position")
        if not position.isdecimal() or len(position) > 6 or not 0 < int(position) <= count or int(position) in points:
            raise AnswerError(f"{where}: position: got {position!r:.40}, want each from 1 to {count} once")
        points[int(position)] = _megawatts(_said(point, "quantity"), where)
    mix, held = mixes.setdefault(period_s, {}), None
    for position_now in range(1, count + 1):
        held = points.get(position_now, held if repeats else None)
        if held is not None:
            at = mix.setdefault(start_ns + (position_now - 1) * period_s * S, {})
            at[kind] = total([at.get(kind, Decimal(0)), held])
    return count


def _megawatts(said: str, where: str) -> Decimal:
    """Return a power. A negative one, of a plant that draws more than it makes, generates nothing."""
    plain = said.removeprefix("-")
    if not plain.isascii() or len(plain) > 20 or not plain.replace(".", "", 1).isdigit():
        raise AnswerError(f"{where}: quantity: got {said!r:.40}, want a number")
    power = number(Decimal(plain), f"{where}: quantity", most=_MOST_MW)
    return Decimal(0) if said.startswith("-") else power


def _finest(mixes: dict[int, _Mix]) -> tuple[int, _Mix]:
    """Return the shortest period and all powers in it: a mean over an hour holds for each quarter of it."""
    period_s = min(mixes)
    mix: _Mix = {}
    for coarse_s, found in mixes.items():
        for start_ns, powers in found.items():
            for part_ns in range(start_ns, start_ns + coarse_s * S, period_s * S):
                at = mix.setdefault(part_ns, {})
                for kind, power in powers.items():
                    at[kind] = total([at.get(kind, Decimal(0)), power])
    return period_s, mix


def _value(start_ns: int, period_s: int, powers: dict[str, Decimal], wanted: Wanted, table: MixTable) -> Value | None:
    known = total(power for kind, power in powers.items() if kind in table.g_per_kwh)
    if known == 0 or times(known, 100) < times(total(powers.values()), table.least_known_percent):
        return None
    grams = total(times(power, table.g_per_kwh[kind]) for kind, power in powers.items() if kind in table.g_per_kwh)
    return Value(
        start_ns=start_ns,
        period_s=period_s,
        g_per_kwh=ratio(grams, known, _PLACES),
        state=settled(start_ns, wanted),
        method=table.method,
        source=f"ENTSO-E Transparency A75, {wanted.region}; {table.source}",
    )
