"""The one home of Litestar: what systems of the DMZ may ask and say over HTTPS (docs/context.md)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.types import Scope

from gateway.codec.mes import MAX_BYTES, MOST_FACTS, MOST_ID, MOST_VALUE, MessageError
from gateway.errors import TrustError
from gateway.model import What
from gateway.web.clerk import BusyError, Clerk, LineNow, Taken

BODY_S = 10.0
"""Within this a body has to be here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a message is not taken, field by field."""

    where: str
    got: str
    want: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request is not served."""

    status_code: int
    detail: str


def context_app(clerk: Clerk, *, say: Callable[[str], None]) -> Litestar:
    """Return the application. say: told of a request that failed through a mistake of ours."""

    def known(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        scheme, token = (connection.headers.get("authorization", "") + " ").split(" ", 1)
        try:
            connection.state.system = clerk.system_of(token.strip() if scheme.lower() == "bearer" else "")
        except TrustError as e:
            raise NotAuthorizedException(str(e), headers={"WWW-Authenticate": "Bearer"}) from e

    @post(
        "/v1/context",
        status_code=202,
        guards=[known],
        operation_class=_Telling,
        responses={
            400: ResponseSpec(Refusal, generate_examples=False, description="Nothing of the message is sealed"),
            **{status: ResponseSpec(Problem, generate_examples=False, description=why) for status, why in _WHY.items()},
        },
    )
    async def tell_context(request: Request[Any, Any, Any]) -> Taken:
        """Say what a line makes; once it is answered it is sealed."""
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.body()
        except TimeoutError as e:
            raise HTTPException(f"no whole body within {BODY_S:.0f} s", status_code=408) from e
        return await clerk.take(request.state.system, body)

    @get(
        "/v1/lines",
        guards=[known],
        sync_to_thread=False,
        responses={401: ResponseSpec(Problem, generate_examples=False, description=_WHY[401])},
    )
    def list_lines() -> list[LineNow]:
        """List the lines that can be spoken of, and what is in force there."""
        return clerk.lines()

    def failed(error: Exception, _: Scope) -> None:
        if not isinstance(error, HTTPException | MessageError | BusyError):
            say(f"{type(error).__name__}: {error}")

    return Litestar(
        [tell_context, list_lines],
        after_exception=[failed],
        exception_handlers={MessageError: _refused, BusyError: _busy},
        request_max_body_size=MAX_BYTES,
        logging_config=None,
        debug=False,
        openapi_config=OpenAPIConfig(
            title="Wattseal ledger",
            version="1",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
    )


_WHY = {
    401: "No token, or one of nobody",
    413: f"More than {MAX_BYTES} bytes",
    429: "Too much at once; Retry-After says when to send it again",
    503: "No room; Retry-After says when to send it again",
}


def _refused(_: Request[Any, Any, Any], error: MessageError) -> Response[Refusal]:
    return Response(Refusal(where=error.where, got=error.got, want=error.want), status_code=400)


def _busy(_: Request[Any, Any, Any], error: BusyError) -> Response[Problem]:
    status = 429 if error.crowded else 503
    return Response(
        Problem(status_code=status, detail=str(error)),
        status_code=status,
        headers={"Retry-After": str(error.retry_s)},
    )


_TEXT, _INT = Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.INTEGER)
_FACT = Schema(
    type=OpenAPIType.OBJECT,
    description="Either time or timestamp_ms.",
    required=["gateway", "line", "what", "value", "id"],
    properties={
        "gateway": _TEXT,
        "line": _TEXT,
        "what": Schema(type=OpenAPIType.STRING, enum=[str(what) for what in What]),
        "value": Schema(one_of=[Schema(type=OpenAPIType.STRING, max_length=MOST_VALUE), _INT]),
        "time": Schema(type=OpenAPIType.STRING, description="ISO 8601 with an offset"),
        "timestamp_ms": _INT,
        "id": Schema(type=OpenAPIType.STRING, min_length=1, max_length=MOST_ID),
    },
)


@dataclass
class _Telling(Operation):
    """Describes the body, which is read by codec/mes.py and not by the framework."""

    def __post_init__(self) -> None:
        several = Schema(type=OpenAPIType.ARRAY, items=_FACT, min_items=1, max_items=MOST_FACTS)
        media = OpenAPIMediaType(schema=Schema(one_of=[_FACT, several]))
        self.request_body = RequestBody(content={"application/json": media}, required=True)
