"""Changing what collect does while it runs: a unix socket that only its owner may open, and messages of two words.

`["running"]` is answered `["running", sha256, text]`. `["read", device]` is answered with two bodies, `["row", schema,
readings]`: the device is polled once more, in collect's own connection. `["apply", sha256]` makes collect read its own
file again, of which that must be the hash; it is answered `["applied", sha256]`. Each may be answered
`["refused", why]`.
"""

import asyncio
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway.app.channel import Channel, connect, listen
from gateway.app.collector import Collector
from gateway.app.fleet import Fleet
from gateway.app.source import Source, read_source
from gateway.codec.bodies import readings_body, schema_body
from gateway.codec.checks import check_body, rows_of, to_schema
from gateway.codec.pack import unpack
from gateway.config.difference import WHATS
from gateway.errors import ConfigError, DeviceError, LinkError, TrustError
from gateway.model import Row, Schema

_ANSWER_S = 60.0
_READ_S = 20.0


class Control:
    """Serves `wattseal plan` and `wattseal apply`. source: what is in force. file: where it came from."""

    def __init__(
        self, fleet: Fleet, collector: Collector, source: Source, file: Path, log: FilteringBoundLogger
    ) -> None:
        self.source = source
        self._fleet, self._collector, self._file, self._log = fleet, collector, file, log
        self._turn = asyncio.Lock()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self, socket: Path) -> asyncio.Server:
        """Serve each connection. Raises ConfigError where there is no listening."""
        return await listen(socket, self._serve, failed=self._failed)

    async def watch(self) -> None:
        """Wait for a bug, and raise it."""
        await self._failed

    async def _serve(self, channel: Channel) -> None:
        for message in await channel.receive():
            match message:
                case ["running"]:
                    await channel.send(["running", self.source.sha256, self.source.text])
                case ["read", str(device)]:
                    await channel.send(await self._read(device))
                case ["apply", str(sha256)]:
                    await channel.send(await self._apply(sha256))
                case _:
                    await channel.send(["refused", "want running, read or apply"])

    async def _read(self, device: str) -> list[Any]:
        try:
            async with asyncio.timeout(_READ_S):
                row = await self._collector.read(device)
        except DeviceError as e:
            return ["refused", str(e)]
        except TimeoutError:
            return ["refused", f"{device}: no poll in {_READ_S:g} s"]
        return ["row", schema_body(row.schema), readings_body([row])]

    async def _apply(self, sha256: str) -> list[Any]:
        async with self._turn:
            try:
                source = self._reread(sha256)
                changes = (await self._fleet.apply(source.config)).changes
            except ConfigError as e:
                self._log.warning("config.refused", why=str(e))
                return ["refused", str(e)]
            if source.sha256 != self.source.sha256:
                about: dict[str, Any] = {"config": sha256, "before": self.source.sha256}
                about |= {what: sum(delta.what == what for delta in changes) for what in WHATS}
                self.source = source
                self._collector.applied(about)
                self._log.info("config.applied", **about)
            return ["applied", sha256]

    def _reread(self, sha256: str) -> Source:
        source = read_source(self._file)
        if source.sha256 != sha256:
            raise ConfigError(f"{self._file.name}: changed meanwhile: look at the plan again")
        return source


async def ask(socket: Path, *message: str) -> list[Any]:
    """Return what a running collect answers. Raises LinkError where none runs, TrustError for nonsense."""
    channel = await connect(socket)
    try:
        async with asyncio.timeout(_ANSWER_S):
            await channel.send([*message])
            answers = await channel.receive()
    except TimeoutError as e:
        raise LinkError(f"{socket}: no answer in {_ANSWER_S:g} s") from e
    finally:
        channel.close()
    answer = answers[0]
    if answer[0] not in {"running", "row", "applied", "refused"}:
        raise TrustError(f"{socket}: got {str(answer)[:80]}")
    return [*answer]


def running_text(answer: list[Any]) -> str:
    """Return the text that a running collect has in force. Raises TrustError."""
    match answer:
        case ["running", str(), str(text)]:
            return text
        case _:
            raise TrustError(f"control: got {str(answer)[:80]}, want running")


def row_of(answer: list[Any]) -> Row:
    """Return the row that a running collect has read. Raises DeviceError where it has none, TrustError for nonsense."""
    match answer:
        case ["row", bytes(schema_bytes), bytes(body)]:
            schema = to_schema(check_body("schema", unpack(schema_bytes)))
            if isinstance(schema, Schema):
                return next(rows_of(check_body("readings", unpack(body)), {schema.id: schema}))
        case ["refused", str(why)]:
            raise DeviceError(why)
    raise TrustError(f"control: got {str(answer)[:80]}, want a row")


def check_applied(answer: list[Any]) -> None:
    """Raise ConfigError where an apply was refused, TrustError for another answer."""
    match answer:
        case ["applied", str()]:
            return
        case ["refused", str(why)]:
            raise ConfigError(why)
        case _:
            raise TrustError(f"control: got {str(answer)[:80]}, want applied")
