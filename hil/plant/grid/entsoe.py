"""ENTSO-E Transparency, actual generation per type, as its guide shows it."""

from datetime import UTC, datetime

from hil.plant.grid.answer import Answer, Request, World
from hil.plant.grid.values import grams, instants, said

TOKEN = "entsoe-test-token"
ZONES = ("10Y1001A1001A82H", "10YFR-RTE------C")
MIX = {"B01": 4_000, "B02": 9_000, "B04": 8_000, "B10": 500, "B14": 0, "B16": 12_000, "B17": 600, "B19": 15_000}
"""MW by kind, before the hour's swing of B04 (gas)."""
_QUARTER_S = 900
_XMLNS = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
_ACKNOWLEDGED = "urn:iec62325.351:tc57wg16:451-1:acknowledgementdocument:7:0"
_FORM = "%Y-%m-%dT%H:%MZ"


class Entsoe:
    """Two zones, in quarter hours."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        query = request.query
        if query.get("securityToken") != TOKEN:
            return self.refusal(401)
        if (query["documentType"], query["processType"]) != ("A75", "A16"):
            return _acknowledged(400, "The combination of parameters is not valid")
        start_s, end_s = _heard(query["periodStart"]), _heard(query["periodEnd"])
        end_s = min(end_s, world.now_s // _QUARTER_S * _QUARTER_S - 3_600)
        if query["in_Domain"] not in ZONES or end_s <= start_s or world.null:
            return _acknowledged(200, "No matching data found for Data item AGGREGATED_GENERATION_PER_TYPE")
        zone = ZONES[1] if world.other and query["in_Domain"] == ZONES[0] else query["in_Domain"]
        times = instants(start_s, end_s, _QUARTER_S)
        series = "".join(_series(number, kind, zone, times, world) for number, kind in enumerate(MIX, 1) if len(times))
        return _xml(200, _document(series, start_s, end_s))

    def refusal(self, status: int) -> Answer:
        """Return how it refuses."""
        return _acknowledged(status, "Authentication failed" if status == 401 else "Error")


def _series(number: int, kind: str, zone: str, times: range, world: World) -> str:
    points, before = [], None
    for position, t_s in enumerate(times, 1):
        power = MIX[kind] + (10 * (grams(t_s) - 300) + 100 * world.revision if kind == "B04" else 0)
        if power != before:  # curve type A03: what repeats is left out
            points.append(f"<Point><position>{position}</position><quantity>{power}</quantity></Point>")
        before = power
    interval = f"<start>{said(times[0], _FORM)}</start><end>{said(times[-1] + _QUARTER_S, _FORM)}</end>"
    return (
        f"<TimeSeries><mRID>{number}</mRID><businessType>A01</businessType><objectAggregation>A08</objectAggregation>"
        f'<inBiddingZone_Domain.mRID codingScheme="A01">{zone}</inBiddingZone_Domain.mRID>'
        "<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>A03</curveType>"
        f"<MktPSRType><psrType>{kind}</psrType></MktPSRType><Period><timeInterval>{interval}</timeInterval>"
        f"<resolution>PT15M</resolution>{''.join(points)}</Period></TimeSeries>"
    )


def _document(series: str, start_s: int, end_s: int) -> str:
    span = f"<start>{said(start_s, _FORM)}</start><end>{said(end_s, _FORM)}</end>"
    return (
        f'<GL_MarketDocument xmlns="{_XMLNS}"><mRID>replayed</mRID><revisionNumber>1</revisionNumber><type>A75</type>'
        "<process.processType>A16</process.processType>"
        f"<createdDateTime>{said(end_s, '%Y-%m-%dT%H:%M:%SZ')}</createdDateTime>"
        f"<time_Period.timeInterval>{span}</time_Period.timeInterval>{series}</GL_MarketDocument>"
    )


def _acknowledged(status: int, why: str) -> Answer:
    reason = f"<Reason><code>999</code><text>{why}</text></Reason>"
    return _xml(
        status,
        f'<Acknowledgement_MarketDocument xmlns="{_ACKNOWLEDGED}"><mRID>replayed</mRID>{reason}'
        "</Acknowledgement_MarketDocument>",
    )


def _xml(status: int, text: str) -> Answer:
    return Answer(status=status, body=f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), type="text/xml")


def _heard(text: str) -> int:
    return int(datetime.strptime(text, "%Y%m%d%H%M").replace(tzinfo=UTC).timestamp())
