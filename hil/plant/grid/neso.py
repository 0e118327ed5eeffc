"""NESO's Carbon Intensity API, as its documentation shows it."""

from typing import Any

from hil.plant.grid.answer import Answer, Request, World, as_json
from hil.plant.grid.values import grams, heard, instants, said

_HALF_HOUR_S = 1_800
_FORM = "%Y-%m-%dT%H:%MZ"
_AHEAD_S = 2 * 86_400


class Neso:
    """Great Britain and its regions; open to all."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers."""
        match request.path.strip("/").split("/"):
            case ["intensity", start, end]:
                return self._between(start, end, world) or as_json({"data": _halves(start, end, world, national=True)})
            case ["regional", "intensity", start, end, "regionid", number] if number.isdigit() and 0 < int(number) < 18:
                about = {
                    "regionid": int(number) + world.other,
                    "dnoregion": "UKPN South East",
                    "shortname": "South East",
                }
                found = {**about, "data": _halves(start, end, world, national=False)}
                return self._between(start, end, world) or as_json({"data": found})
        return self.refusal(404)

    def _between(self, start: str, end: str, world: World) -> Answer | None:  # noqa: ARG002 - one shape for all
        if not 0 <= heard(end) - heard(start) <= 14 * 86_400:
            said_why = {"code": "400 Bad Request", "message": "The maximum date range is 14 days"}
            return as_json({"error": said_why}, 400)
        return None

    def refusal(self, status: int) -> Answer:
        """Return how it refuses."""
        return as_json({"error": {"code": str(status), "message": "An error occurred"}}, status)


def _halves(start: str, end: str, world: World, *, national: bool) -> list[dict[str, Any]]:
    # The half hour that ends where the range starts comes along, as it does there.
    first_s = (heard(start) - 1) // _HALF_HOUR_S * _HALF_HOUR_S
    found = []
    for t_s in instants(first_s, min(heard(end), world.now_s + _AHEAD_S), _HALF_HOUR_S):
        intensity: dict[str, Any] = {"forecast": None if world.null else grams(t_s) + 3, "index": "moderate"}
        if national:
            is_known = t_s + _HALF_HOUR_S <= world.now_s and not world.null
            intensity["actual"] = grams(t_s, revision=world.revision) if is_known else None
        found.append({"from": said(t_s, _FORM), "to": said(t_s + _HALF_HOUR_S, _FORM), "intensity": intensity})
    return found
