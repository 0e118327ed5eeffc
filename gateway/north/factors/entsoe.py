"""ENTSO-E Transparency over HTTP: generation per type. Source: its RESTful API guide, 16.1.B&C."""

from collections.abc import Sequence
from importlib import resources

from gateway.carbon.grid import entsoe as answers
from gateway.carbon.grid.answers import AnswerError, Wanted, Window
from gateway.model import Factor
from gateway.north.factors.http import Http
from gateway.north.factors.source import Ask, Place, Region, Secret
from gateway.north.factors.windows import pieces, said

URL = "https://web-api.tp.entsoe.eu/api"
_RANGE_DAYS = 4
"""A year is what they take; quarter hours of twenty kinds stay below our bound on an answer."""


class Entsoe:
    """One bidding zone or control area, by its EIC code."""

    def __init__(self, ask: Ask, secret: Secret, *, http: Http | None = None) -> None:
        self._ask, self._secret = ask, secret
        self._http = http or Http(ask.base or URL, name=answers.NAME)
        tables = resources.files("gateway").joinpath("carbon", "tables", "generation-mix.toml")
        self._table = answers.parse_table(tables.read_text(encoding="utf-8"), ask.type)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def fetch(self, window: Window, now_ns: int) -> Sequence[Factor]:
        """Return the factors of a window, made from what was generated in it."""
        found: list[Factor] = []
        for piece in pieces(window, _RANGE_DAYS):
            asked = {
                "securityToken": self._secret.token,
                "documentType": "A75",
                "processType": "A16",
                "in_Domain": self._ask.region,
                "periodStart": said(piece.start_ns, "%Y%m%d%H%M"),
                "periodEnd": said(piece.end_ns, "%Y%m%d%H%M"),
            }
            wanted = Wanted(
                provider=answers.NAME,
                zone=self._ask.zone,
                region=self._ask.region,
                signal=self._ask.signal,
                type=self._ask.type,
                window=piece,
                now_ns=now_ns,
            )
            found += answers.parse_generation(await self._http.get("", asked), wanted, self._table)
        return found

    async def forecast(self, window: Window, now_ns: int) -> Sequence[Factor]:  # noqa: ARG002 - the seam's
        """Return nothing: no forecast of all kinds is published."""
        return []

    async def locate(self, place: Place) -> Region:
        """Raise: ENTSO-E knows EIC codes, not places."""
        raise AnswerError(
            f"{answers.NAME}: has no look-up of {place.latitude}, {place.longitude}: put region = the EIC code in "
            "ledger.toml",
            what="no-lookup",
        )
