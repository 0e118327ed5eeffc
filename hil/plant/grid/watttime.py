"""WattTime v3, as its documentation shows it."""

import base64
from typing import Any

from hil.plant.grid.answer import Answer, Request, World, as_json
from hil.plant.grid.values import grams, heard, instants, said

USER, PASSWORD = "plant", "watttime-test-password"
REGIONS = {"CAISO_NORTH": "California ISO Northern", "DE": "Germany"}
_PERIODS = {"co2_moer": 300, "co2_aoer": 3_600}
_TOKEN_S = 1_800


class WattTime:
    """Gives out tokens that end after half an hour; knows two regions."""

    def __init__(self) -> None:
        self.logins = 0
        self._tokens: dict[str, int] = {}

    def forget(self) -> None:
        """Refuse every token that was given out."""
        self._tokens.clear()

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        if request.path == "/login":
            return self._login(request, world)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not world.now_s - self._tokens.get(token, -_TOKEN_S) < _TOKEN_S:
            return self.refusal(401)
        if request.path == "/v3/region-from-loc":
            return _region(request)
        if request.query["region"] not in REGIONS or request.query["signal_type"] not in _PERIODS:
            return _error(404, "No such region or signal")
        return _points(request, world)

    def _login(self, request: Request, world: World) -> Answer:
        right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != right:
            return self.refusal(401)
        self.logins += 1
        token = f"watttime-token-{self.logins}"
        self._tokens[token] = world.now_s
        return as_json({"token": token})

    def refusal(self, status: int) -> Answer:
        """Return how it refuses."""
        return _error(status, "Credentials or plan do not allow this")


def _error(status: int, why: str) -> Answer:
    return as_json({"error": "Refused", "message": why}, status)


def _points(request: Request, world: World) -> Answer:
    query = request.query
    region, signal = query["region"], query["signal_type"]
    meta = _meta(region, signal, world)
    if request.path == "/v3/historical":
        start_s, end_s = heard(query["start"]), heard(query["end"])
        if end_s - start_s > 32 * 86_400:
            return _error(400, "At most 32 days")
        # The end is inclusive; nothing is known of the last minutes.
        times = instants(start_s, min(end_s + 1, world.now_s - 300), _PERIODS[signal])
        is_marked = query.get("include_imputed_marker") == "true"
        return as_json({"data": [_point(t_s, world, is_marked=is_marked) for t_s in times], "meta": meta})
    if request.path == "/v3/forecast" and signal == "co2_moer":
        end_s = world.now_s + 3_600 * int(query.get("horizon_hours", "24"))
        points = [{"point_time": _said(t_s), "value": _pounds(t_s)} for t_s in instants(world.now_s, end_s, 300)]
        return as_json({"data": points, "meta": {**meta, "generated_at": _said(world.now_s)}})
    return _error(404, "Not found")


def _region(request: Request) -> Answer:
    latitude, longitude = float(request.query["latitude"]), float(request.query["longitude"])
    for region, (south, north, west, east) in {
        "CAISO_NORTH": (35.8, 42.0, -124.5, -119.0),
        "DE": (47.3, 55.1, 5.9, 15.0),
    }.items():
        if south <= latitude <= north and west <= longitude <= east:
            found = {"region": region, "region_full_name": REGIONS[region]}
            return as_json({**found, "signal_type": request.query["signal_type"]})
    return _error(404, "Coordinates lie in no region")


def _meta(region: str, signal: str, world: World) -> dict[str, Any]:
    return {
        "data_point_period_seconds": _PERIODS[signal],
        "region": "DE" if world.other and region != "DE" else "CAISO_NORTH" if world.other else region,
        "warnings": [],
        "signal_type": signal,
        "model": {"type": "binned_regression", "date": "2026-03-01"},
        "units": "lbs_co2_per_mwh",
    }


def _point(t_s: int, world: World, *, is_marked: bool) -> dict[str, Any]:
    point: dict[str, Any] = {
        "point_time": _said(t_s),
        "value": None if world.null else _pounds(t_s, world.revision),
        "last_updated": _said(t_s + 600),
    }
    return {**point, "imputed_data_used": t_s > world.now_s - 3_600} if is_marked else point


def _pounds(t_s: int, revision: int = 0) -> float:
    return grams(t_s, revision=revision) * 2 + 0.5


def _said(t_s: int) -> str:
    return said(t_s, "%Y-%m-%dT%H:%M:%S+00:00")
