"""A request as a replay server hears it, and what it answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """path: decoded, without the query. headers: names in lower case."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """status, body, and headers beside length and type."""

    status: int = 200
    body: bytes = b""
    type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class World:
    """What all providers answer from.

    now_s: the time there. revision: added to each value that is past. null: no value is known. other: answer about
    another place than was asked.
    """

    now_s: int
    revision: int = 0
    null: bool = False
    other: bool = False


class Provider(Protocol):
    """One provider's API, as a function of a request."""

    def answer(self, request: Request, world: World) -> Answer:
        """Return what it answers. Raises ValueError or KeyError for a request that it refuses as malformed."""
        ...

    def refusal(self, status: int) -> Answer:
        """Return how it refuses."""
        ...


def as_json(found: Any, status: int = 200) -> Answer:
    """Return an answer of JSON."""
    return Answer(status=status, body=json.dumps(found).encode())


def html(status: int, title: str) -> Answer:
    """Return a page, as a gateway before the API sends it."""
    page = f"<!DOCTYPE html><html><head><title>{status} {title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status=status, body=page.encode(), type="text/html; charset=utf-8")
