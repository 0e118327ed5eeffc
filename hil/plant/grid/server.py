"""A small HTTP server on the loopback that answers as one provider does, or misbehaves as asked."""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hil.plant.grid.answer import Answer, Provider, Request, World, html
from hil.plant.grid.electricity_maps import ElectricityMaps
from hil.plant.grid.entsoe import Entsoe
from hil.plant.grid.neso import Neso
from hil.plant.grid.watttime import WattTime

PROVIDERS: Mapping[str, Callable[[], Provider]] = {
    "electricitymaps": ElectricityMaps,
    "watttime": WattTime,
    "neso": Neso,
    "entsoe": Entsoe,
}
PATHS = {"electricitymaps": "/v3", "watttime": "", "neso": "", "entsoe": "/api"}
"""What stands before the paths of each, in its base URL."""

FAULTS = {
    "401": "credentials refused",
    "403": "refused, as JSON",
    "403-html": "refused, as a page",
    "404": "not found",
    "429": "too many requests, Retry-After: 7",
    "429-date": "too many requests, Retry-After: a date",
    "500": "an error",
    "503": "out of service",
    "504": "a gateway's page: timed out",
    "null": "no value is known",
    "other-zone": "answers about another place",
    "revised": "past values are higher by 11",
    "truncated": "the answer breaks off",
    "slow": "answers after slow_s",
    "huge": "8 MiB of spaces",
    "redirect": "to another host",
    "not-json": "a page with status 200",
}
REVISION = 11
_REFUSALS = ("401", "403", "404", "500", "503")
_CANNED = {
    "403-html": html(403, "Forbidden"),
    "504": html(504, "Gateway Time-out"),
    "not-json": html(200, "Maintenance"),
    "redirect": Answer(status=302, headers={"Location": "http://192.0.2.1/elsewhere"}),
    "429": Answer(status=429, headers={"Retry-After": "7"}),
    "429-date": Answer(
        status=429,
        headers={"Date": "Sun, 22 Nov 2026 10:00:00 GMT", "Retry-After": "Sun, 22 Nov 2026 10:00:09 GMT"},
    ),
}
_HUGE = 8 << 20
_LINE = 16_384


class GridServer:
    """Serves on 127.0.0.1 within `async with`. faults: those on now. requests: what was heard, to look at.

    now_s: the time there; the wall clock without it.
    """

    def __init__(
        self,
        provider: str,
        *,
        port: int = 0,
        faults: tuple[str, ...] = (),
        now_s: Callable[[], int] | None = None,
        slow_s: float = 2.0,
    ) -> None:
        if provider not in PROVIDERS:
            raise ValueError(f"--provider: got {provider!r}, want one of {', '.join(PROVIDERS)}")
        self.faults: set[str] = set()
        self.fault(*faults)
        self.provider = PROVIDERS[provider]()
        self.requests: list[Request] = []
        self.revision = 0
        self._name, self._port, self._slow_s = provider, port, slow_s
        self._now_s = now_s or (lambda: int(time.time()))
        self._server: asyncio.Server | None = None

    def fault(self, *names: str) -> None:
        """Have just these faults from now on. Raises ValueError."""
        for name in names:
            if name not in FAULTS:
                raise ValueError(f"--fault: got {name!r}, want one of {', '.join(FAULTS)}")
        self.faults = set(names)

    @property
    def url(self) -> str:
        """The base URL, as a feed's url."""
        if self._server is None:
            raise ValueError("the server does not run")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{PATHS[self._name]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_LINE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            self.requests.append(request)
            if "slow" in self.faults:
                await asyncio.sleep(self._slow_s)
            await self._write(writer, self._answer(request))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # a caller that goes or talks nonsense loses its answer
        finally:
            writer.close()

    def _answer(self, request: Request) -> Answer:
        for name in sorted(self.faults):
            if name in _REFUSALS:
                return self.provider.refusal(int(name))
            if name in _CANNED:
                return _CANNED[name]
        if "huge" in self.faults:
            return Answer(body=b" " * _HUGE)
        revision = self.revision + (REVISION if "revised" in self.faults else 0)
        is_null, is_other = "null" in self.faults, "other-zone" in self.faults
        try:
            return self.provider.answer(
                request, World(now_s=self._now_s(), revision=revision, null=is_null, other=is_other)
            )
        except (ValueError, KeyError):
            return self.provider.refusal(400)

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        headers = {"Content-Type": answer.type, "Content-Length": str(len(answer.body)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **answer.headers}.items())
        body = answer.body[: len(answer.body) // 2] if "truncated" in self.faults else answer.body
        writer.write(f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{lines}\r\n".encode() + body)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    method, target, _ = (await reader.readline()).decode("ascii").split(" ")
    headers = {}
    while line := (await reader.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if method != "GET":
        raise ValueError(f"got {method}, want GET")
    parts = urlsplit(target)
    return Request(path=unquote(parts.path), query=dict(parse_qsl(parts.query)), headers=headers)
