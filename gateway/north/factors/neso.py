"""NESO's Carbon Intensity API over HTTP. Source: https://carbon-intensity.github.io/api-definitions/."""

from collections.abc import Sequence

from gateway.carbon.grid import neso as answers
from gateway.carbon.grid.answers import AnswerError, Wanted, Window
from gateway.model import Factor
from gateway.north.factors.http import Http
from gateway.north.factors.source import Ask, Place, Region, Secret
from gateway.north.factors.windows import pieces, said

URL = "https://api.carbonintensity.org.uk"
_RANGE_DAYS = 13
"""14 days is the most that they take; what they return may begin half an hour early."""


class Neso:
    """Great Britain, or one of its 17 regions. Needs no credentials."""

    def __init__(self, ask: Ask, secret: Secret, *, http: Http | None = None) -> None:  # noqa: ARG002 - the seam's
        self._ask = ask
        self._http = http or Http(ask.base or URL, name=answers.NAME)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def fetch(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the half hours of a window."""
        found: list[Factor] = []
        for piece in pieces(window, _RANGE_DAYS):
            path = f"/intensity/{said(piece.start_ns)}/{said(piece.end_ns)}"
            if self._ask.region == answers.NATIONAL:
                body = await self._http.get(path, {})
                found += answers.parse_national(body, self._wanted(piece, now_ns))
            else:
                body = await self._http.get(f"/regional{path}/regionid/{self._ask.region}", {})
                found += answers.parse_regional(body, self._wanted(piece, now_ns))
        return found

    async def forecast(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the half hours that are forecast: the same request, about the future."""
        return [factor for factor in await self.fetch(window, now_ns) if factor.state == "forecast"]

    async def locate(self, place: Place) -> Region:
        """Raise: NESO knows postcodes, not places."""
        raise AnswerError(
            f"{answers.NAME}: has no look-up of {place.latitude}, {place.longitude}: put region = GB, or 1 to 17, in "
            "ledger.toml",
            what="no-lookup",
        )

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
