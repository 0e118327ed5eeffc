"""Electricity Maps v3 over HTTP. Source: https://docs.electricitymaps.com."""

from collections.abc import Sequence

from gateway.carbon.grid import electricity_maps as answers
from gateway.carbon.grid.answers import Wanted, Window
from gateway.model import Factor
from gateway.north.factors.http import Http
from gateway.north.factors.source import Ask, Place, Region, Secret
from gateway.north.factors.windows import pieces, said

URL = "https://api.electricitymaps.com/v3"
_RANGE_DAYS = 10
"""`past-range` takes no more at hourly granularity."""

# Without this the API answers for the place of the caller's address where it knows no zone.
_NO_FALLBACK = {"shouldUseFallbackCallerLookup": "false"}


class ElectricityMaps:
    """One zone, pinned; an answer about another is refused."""

    def __init__(self, ask: Ask, secret: Secret, *, http: Http | None = None) -> None:
        self._ask = ask
        self._headers = {"auth-token": secret.token}
        self._http = http or Http(ask.base or URL, name=answers.NAME)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def fetch(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the hours of a window: one that ends now by `history` (a day) and `latest`, else by `past-range`."""
        if window.end_ns < now_ns:
            return await self._past(window, now_ns)
        wanted = self._wanted(window, now_ns)
        history = answers.parse_history(await self._get("history", self._zoned()), wanted, key="history")
        latest = answers.parse_latest(await self._get("latest", self._zoned()), wanted)
        return list({factor.start_ns: factor for factor in (*history, *latest)}.values())

    async def _past(self, window: Window, now_ns: int) -> list[Factor]:
        found: list[Factor] = []
        for piece in pieces(window, _RANGE_DAYS):
            asked = {**self._zoned(), "start": said(piece.start_ns), "end": said(piece.end_ns)}
            body = await self._get("past-range", asked)
            found += answers.parse_history(body, self._wanted(piece, now_ns), key="data")
        return found

    async def forecast(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the hours that are forecast."""
        return answers.parse_forecast(await self._get("forecast", self._zoned()), self._wanted(window, now_ns))

    async def locate(self, place: Place) -> Region:
        """Return the zone of a place; a place without one is a 404."""
        where = {"lat": format(place.latitude, "f"), "lon": format(place.longitude, "f"), **_NO_FALLBACK}
        zone = answers.parse_place(await self._get("latest", where))
        return Region(id=zone, name=zone)

    def _zoned(self) -> dict[str, str]:
        granularity = {"emissionFactorType": self._ask.type, "temporalGranularity": "hourly"}
        return {"zone": self._ask.region, **granularity, **_NO_FALLBACK}

    async def _get(self, what: str, params: dict[str, str]) -> bytes:
        return await self._http.get(f"/carbon-intensity/{what}", params, headers=self._headers)

    def _wanted(self, window: Window, now_ns: int) -> Wanted:
        return Wanted(
            provider=answers.NAME,
            zone=self._ask.zone,
            region=self._ask.region,
            signal=self._ask.signal,
            type=self._ask.type,
            window=window,
            now_ns=now_ns,
        )
