"""A unix socket that carries the messages of docs/wire.md, section 1."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from gateway.app.paths import reachable
from gateway.codec.frames import FrameReader, Message, pack_frame
from gateway.errors import ConfigError, LinkError, TrustError

_READ = 1024 * 1024


class Channel:
    """One connection. `receive` gives what has arrived, at least one message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = FrameReader()

    async def send(self, *messages: Message) -> None:
        """Send messages; waits while the peer does not read. Raises LinkError when it is gone."""
        if self._writer.is_closing():  # uvloop would raise a RuntimeError, which reads like a bug of ours
            raise LinkError("unix socket: the connection is closed")
        try:
            self._writer.write(b"".join(map(pack_frame, messages)))
            await self._writer.drain()
        except (ConnectionError, OSError) as e:
            raise LinkError(f"unix socket: {e}") from e

    async def receive(self) -> list[Message]:
        """Return the messages that have arrived, in order; waits for the first.

        Raises LinkError when the peer is gone, TrustError when it sends nonsense.
        """
        while True:
            try:
                arrived = await self._reader.read(_READ)
            except (ConnectionError, OSError) as e:
                raise LinkError(f"unix socket: {e}") from e
            if not arrived:
                raise LinkError("unix socket: the peer closed")
            if messages := self._frames.feed(arrived):
                return messages

    def close(self) -> None:
        """Close at once; what was not sent is lost."""
        self._writer.close()


async def connect(path: Path) -> Channel:
    """Return a channel to the socket at path. Raises LinkError when nobody listens there."""
    try:
        with reachable(path) as name:
            return Channel(*await asyncio.open_unix_connection(name, limit=2 * _READ))
    except OSError as e:
        raise LinkError(f"{path}: {e.strerror or e}") from e


async def listen(
    path: Path,
    serve: Callable[[Channel], Coroutine[Any, Any, None]],
    *,
    failed: "asyncio.Future[None]",
    mode: int = 0o600,
) -> asyncio.Server:
    """Serve each connection to a new socket at path, which only its owner (or group, by mode) may open.

    A peer that goes or talks nonsense ends its connection alone. Any other error goes to `failed`,
    which the process waits for: it must stop. Raises ConfigError when there is no listening at path.
    """

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        try:
            await serve(channel)
        except* (LinkError, TrustError, asyncio.CancelledError):
            pass  # Only a loop that ends cancels a connection; before Python 3.12, asyncio's streams complain of it.
        except* Exception as e:  # noqa: BLE001  the boundary of a connection: handed on, never swallowed
            if not failed.done():
                failed.set_exception(_alone(e))
        finally:
            channel.close()

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o777 & ~mode)
        try:
            with reachable(path) as name:
                return await asyncio.start_unix_server(on_connect, name, limit=2 * _READ)
        finally:
            os.umask(before)
    except OSError as e:
        raise ConfigError(f"{path}: cannot listen: {e.strerror or e}, want a path in a folder of ours") from e


def _alone(e: Exception) -> Exception:
    """Return the one error in groups of one: whoever waits for it decides by its class."""
    while isinstance(e, ExceptionGroup) and len(e.exceptions) == 1:
        e = e.exceptions[0]
    return e
