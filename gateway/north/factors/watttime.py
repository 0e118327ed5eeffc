"""WattTime v3 over HTTP. Source: https://docs.watttime.org."""

from collections.abc import Sequence

from gateway.carbon.grid import watttime as answers
from gateway.carbon.grid.answers import AnswerError, S, Wanted, Window
from gateway.model import Factor
from gateway.north.factors.http import Http
from gateway.north.factors.source import Ask, Place, Region, Secret
from gateway.north.factors.windows import pieces, said

URL = "https://api.watttime.org"
_RANGE_DAYS = 7
"""`historical` takes 32 days; a week of 5 min stays well below our bound on an answer."""
_TOKEN_NS = 25 * 60 * S
"""A token is good for 30 min."""
_MOST_HORIZON_H = 72


class WattTime:
    """One region and signal. Logs in by itself: before a token ends, and once where one is refused."""

    def __init__(self, ask: Ask, secret: Secret, *, http: Http | None = None) -> None:
        self._ask, self._secret = ask, secret
        self._http = http or Http(ask.base or URL, name=answers.NAME)
        self._token, self._since_ns = "", 0

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def fetch(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the points of a window."""
        found: list[Factor] = []
        for piece in pieces(window, _RANGE_DAYS):
            # The end is inclusive there: the point at our end is left out again when the answer is read.
            asked = {"start": said(piece.start_ns), "end": said(piece.end_ns), "include_imputed_marker": "true"}
            body = await self._get("/v3/historical", {**self._about(), **asked}, now_ns)
            found += answers.parse_points(body, self._wanted(piece, now_ns), is_forecast=False)
        return found

    async def forecast(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the points that are forecast; none of the average signal, which has only a past."""
        if self._ask.signal == "average":
            return []
        hours = min(max(1, -(-(window.end_ns - now_ns) // (3_600 * S))), _MOST_HORIZON_H)
        body = await self._get("/v3/forecast", {**self._about(), "horizon_hours": str(hours)}, now_ns)
        return answers.parse_points(body, self._wanted(window, now_ns), is_forecast=True)

    async def locate(self, place: Place) -> Region:
        """Return the region of a place; one that WattTime does not cover is a 404."""
        asked = {
            "latitude": format(place.latitude, "f"),
            "longitude": format(place.longitude, "f"),
            "signal_type": answers.SIGNALS[self._ask.signal],
        }
        region, name = answers.parse_region(await self._get("/v3/region-from-loc", asked, self._since_ns))
        return Region(id=region, name=name)

    def _about(self) -> dict[str, str]:
        return {"region": self._ask.region, "signal_type": answers.SIGNALS[self._ask.signal]}

    async def _get(self, path: str, params: dict[str, str], now_ns: int) -> bytes:
        if not self._token or not 0 <= now_ns - self._since_ns < _TOKEN_NS:
            await self._login(now_ns)
        try:
            return await self._http.get(path, params, headers=self._bearer())
        except AnswerError as e:
            if e.what != "unauthorised":
                raise
        await self._login(now_ns)
        return await self._http.get(path, params, headers=self._bearer())

    async def _login(self, now_ns: int) -> None:
        self._token = ""
        body = await self._http.get("/login", {}, login=(self._secret.user, self._secret.token))
        self._token, self._since_ns = answers.parse_token(body), now_ns

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

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
