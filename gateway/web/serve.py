"""The one home of uvicorn: an application over TLS 1.3, within a loop of ours, until cancelled."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gateway.errors import ConfigError

MOST_CONNECTIONS = 64
KEEP_ALIVE_S = HEAD_S = 5
GRACE_S = 2


class _Connection(H11Protocol):
    """Ends a connection on which no request begins: uvicorn itself would keep it for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, and look after it."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._look, None)

    def _look(self, before: RequestResponseCycle | None) -> None:
        """Close where nothing has begun since the last look, and nothing is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is before and (cycle is None or cycle.response_complete):
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_S, self._look, cycle)


class _Server(uvicorn.Server):
    """Leaves the signals to the process, which has its own way to end (app/entry.py)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_context(cert: Path, key: Path, where: str) -> ssl.SSLContext:
    """Return a context for TLS 1.3 alone. Raises ConfigError. where: the section that names the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{where}: got {cert}, {key}: no usable certificate with its key: {e}") from e
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # or OpenSSL would ask at the terminal, for ever


async def serve_https(app: Any, *, listen: str, context: ssl.SSLContext, where: str) -> None:
    """Serve an ASGI application at host:port until cancelled; requests under way get GRACE_S to end.

    Raises ConfigError where there is no listening. where: the section that names the address.
    """
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what a stranger sends is no news; what we do wrong comes out another way
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=lambda _config, _default: context,
    )
    with _bound(listen, where) as listening:
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="web.uvicorn")
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await asyncio.wait({serving})


def _bound(listen: str, where: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        return socket.create_server((host, int(port)), backlog=128)
    except OSError as e:
        raise ConfigError(f"{where}: got {listen}: {e.strerror or e}, want a free address of this host") from e
