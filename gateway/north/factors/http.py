"""GET over HTTPS, bounded in time and size; each way to fail is a condition of its own.

TLS as the library has it: certificates and names are checked, 1.2 at least. Redirects are refused: a token would go
along. Proxies are taken from the environment.
"""

import asyncio
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx2

from gateway.carbon.grid.answers import AnswerError
from gateway.errors import ConfigError

MOST_BYTES = 4 << 20
PATIENCE_S = 45.0
"""So long a whole answer may take, however steadily it drips."""

_READ_S = 20.0
_MOST_WAIT_S = 3_600.0
_BUSY_WAIT_S = 60.0
_STATUS = {
    400: ("refused", "the request was refused"),
    401: ("unauthorised", "the credentials were refused"),
    403: ("forbidden", "this account may not read this"),
    404: ("unknown", "no such region or path"),
    429: ("busy", "too many requests"),
    503: ("unavailable", "it is out of service"),
    504: ("gateway-timeout", "its gateway timed out"),
}


class Http:
    """One provider's API. name: of the provider, for messages. transport: a test's own; None: the network."""

    def __init__(
        self,
        base: str,
        *,
        name: str,
        transport: httpx2.AsyncBaseTransport | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._base, self._name, self._patience_s = base.rstrip("/"), name, patience_s
        tls = httpx2.create_ssl_context()
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._client = httpx2.AsyncClient(
                verify=tls,
                transport=transport,
                timeout=httpx2.Timeout(min(_READ_S, patience_s)),
                follow_redirects=False,
                headers={"User-Agent": "wattseal", "Accept-Encoding": "identity"},
            )
            httpx2.URL(self._base)
        except (httpx2.InvalidURL, ValueError, ImportError) as e:  # the latter two: a proxy of the environment's
            raise ConfigError(f"feeds: url: got {base}: {e}, want https://..., and a proxy over http") from e

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def get(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> bytes:
        """Return the body of a 200. login: user and password. Raises AnswerError."""
        where = f"{self._name}: GET {path or '/'}"
        request = self._client.build_request("GET", self._base + path, params=dict(params), headers=dict(headers or {}))
        auth = None if login is None else httpx2.BasicAuth(*login)
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._exchange(request, auth, where)
        except (httpx2.TimeoutException, TimeoutError) as e:
            raise AnswerError(f"{where}: no answer in time", what="timeout") from e
        except httpx2.RemoteProtocolError as e:
            raise AnswerError(f"{where}: the answer broke off, or was not HTTP", what="truncated") from e
        except httpx2.RequestError as e:
            # Its text names hosts and certificates, never a request's parameters.
            raise AnswerError(f"{where}: {str(e)[:120] or type(e).__name__}", what="unreachable") from e

    async def _exchange(self, request: httpx2.Request, auth: httpx2.Auth | None, where: str) -> bytes:
        response = await self._client.send(request, auth=auth, stream=True)
        try:
            if response.status_code != 200:
                raise _refusal(response, where)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise AnswerError(f"{where}: the answer is compressed, which was not asked for")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    raise AnswerError(f"{where}: the answer has more than {MOST_BYTES} bytes", what="too-large")
            return bytes(body)
        finally:
            await response.aclose()


def _refusal(response: httpx2.Response, where: str) -> AnswerError:
    """Return what a status says. The body is left alone: it is anyone's, from HTML to our own token."""
    status = response.status_code
    what, why = _STATUS.get(status, (f"status-{status}", "it failed"))
    if 300 <= status < 400:
        what, why = "redirect", "a redirect, which is not followed"
    wait_s = _wait_s(response) if status in {429, 503} else 0.0
    return AnswerError(f"{where}: {status}: {why}", what=what, wait_s=wait_s)


def _wait_s(response: httpx2.Response) -> float:
    """Return what Retry-After asks for: seconds, or a date, against the server's own clock."""
    said = response.headers.get("retry-after", "").strip()
    wait_s = _BUSY_WAIT_S
    if said.isascii() and said.isdigit() and len(said) < 10:
        wait_s = float(said)
    elif said:
        try:
            then = parsedate_to_datetime(said)
            wait_s = (then - parsedate_to_datetime(response.headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError):
            wait_s = _BUSY_WAIT_S
    return min(max(wait_s, 0.0), _MOST_WAIT_S)
