"""Electricity Maps v3, as its documentation shows it."""

from typing import Any

from hil.plant.grid.answer import Answer, Request, World, as_json
from hil.plant.grid.values import grams, heard, instants, said

TOKEN = "emaps-test-token"
ZONES = {"DE": (47.3, 55.1, 5.9, 15.0), "FR": (42.3, 51.1, -4.8, 8.2), "US-CAL-CISO": (32.5, 42.0, -124.4, -114.1)}
"""Boxes in degrees: south, north, west, east. The first that holds a place has it."""
_CALLER = "FR"
_CLEANER = {"FR": 250}
"""So many g/kWh less than elsewhere."""
_HOUR_S = 3_600
_ESTIMATED_S = 6 * _HOUR_S
"""What is newer is estimated."""


class ElectricityMaps:
    """Knows three zones; a caller without one gets the zone of its address, unless it declines that."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        if request.path == "/v3/zones":
            return as_json({zone: {"zoneName": zone, "access": ["*"]} for zone in ZONES})
        if request.headers.get("auth-token") != TOKEN:
            return self.refusal(401)
        zone = _zone(request)
        if zone is None or not request.path.startswith("/v3/carbon-intensity/"):
            return _error(404, "No such zone or path")
        return _about(request.path.rpartition("/")[2], _CALLER if world.other else zone, request, world)

    def refusal(self, status: int) -> Answer:
        """Return how it refuses."""
        return as_json({"status": "error", "message": "Invalid auth-token" if status == 401 else "Error"}, status)


def _error(status: int, why: str) -> Answer:
    return as_json({"status": "error", "message": why}, status)


def _about(what: str, zone: str, request: Request, world: World) -> Answer:
    about = request.query.get("emissionFactorType", "lifecycle")
    head = {"zone": zone, "temporalGranularity": "hourly"}
    match what:
        case "latest":
            return as_json(_hour(zone, world.now_s // _HOUR_S * _HOUR_S, about, world))
        case "history":
            hours = instants(world.now_s - 86_400, world.now_s, _HOUR_S)
            return as_json({**head, "history": [_hour(zone, t_s, about, world) for t_s in hours]})
        case "past-range":
            start_s, end_s = heard(request.query["start"]), heard(request.query["end"])
            if end_s - start_s > 10 * 86_400:
                return _error(400, "The range must not exceed 10 days")
            return as_json(
                {**head, "data": [_hour(zone, t_s, about, world) for t_s in instants(start_s, end_s, _HOUR_S)]}
            )
        case "forecast":
            hours = instants(world.now_s, world.now_s + 86_400, _HOUR_S)
            values = {t_s: None if world.null else grams(t_s) + 7 for t_s in hours}
            points = [{"datetime": said(t_s), "carbonIntensity": value} for t_s, value in values.items()]
            return as_json({**head, "forecast": points, "updatedAt": said(world.now_s)})
    return _error(404, "Not found")


def _zone(request: Request) -> str | None:
    query = request.query
    if query.get("zone") in ZONES:
        return query["zone"]
    if "lat" in query and "lon" in query:
        latitude, longitude = float(query["lat"]), float(query["lon"])
        for zone, (south, north, west, east) in ZONES.items():
            if south <= latitude <= north and west <= longitude <= east:
                return zone
    return None if query.get("shouldUseFallbackCallerLookup") == "false" else _CALLER


def _hour(zone: str, t_s: int, about: str, world: World) -> dict[str, Any]:
    is_estimated = t_s > world.now_s - _ESTIMATED_S
    revision = 0 if is_estimated else world.revision
    return {
        "zone": zone,
        "carbonIntensity": None if world.null else grams(t_s, revision=revision - _CLEANER.get(zone, 0)),
        "datetime": said(t_s),
        "updatedAt": said(world.now_s - 600),
        "createdAt": said(t_s - 86_400),
        "emissionFactorType": about,
        "isEstimated": is_estimated,
        "estimationMethod": "TIME_SLICER_AVERAGE" if is_estimated else None,
    }
