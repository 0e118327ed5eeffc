"""Commands to a running plant: over a unix socket, and on a timetable."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

from hil.plant.factory import CommandError, Plant

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_ENTRY = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h):\s*(\S.*)")
_LINE_MOST = 4096


def parse_timetable(text: str) -> list[tuple[float, str]]:
    """Return (seconds since the start, command) for each entry of `12s:fault compressor-valve,2m:stop`.

    Raises CommandError.
    """
    entries = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ENTRY.fullmatch(item)
        if not match:
            raise CommandError(f"timetable: got {item!r}, want e.g. `12s:fault compressor-valve`")
        number, unit, command = match.groups()
        entries.append((float(number) * _UNITS_S[unit], command))
    return entries


class Control:
    """The control socket; an async context manager. Each line is a command, each answer one JSON line.

    stop: called by the command `stop`, which the plant itself does not know. opcua: does what follows the word
    `opcua`, soon; raises CommandError. bacnet: the same for the word `bacnet`.
    """

    def __init__(
        self,
        plant: Plant,
        path: Path,
        *,
        stop: Callable[[], None],
        opcua: Callable[[str], None] | None = None,
        bacnet: Callable[[str], None] | None = None,
    ) -> None:
        self._plant, self._path, self._stop, self._opcua, self._bacnet = plant, path, stop, opcua, bacnet
        self.clients: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Self:
        if self._path.is_socket():
            self._path.unlink()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Talk(self), str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for client in tuple(self.clients):
            client.close()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def answer(self, line: str) -> dict[str, object]:
        """Do one command and return what to say."""
        command = line.strip()
        if command == "stop":
            self._stop()
            return {"ok": True}
        try:
            if self._opcua is not None and command.startswith("opcua "):
                self._opcua(command.removeprefix("opcua "))
            elif self._bacnet is not None and command.startswith("bacnet "):
                self._bacnet(command.removeprefix("bacnet "))
            elif command != "state":
                self._plant.do(command)
        except CommandError as e:
            return {"ok": False, "error": str(e)}
        return {"ok": True, **self._plant.state()}


class _Talk(asyncio.Protocol):
    """One client of the control socket."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._control.clients.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface has it
        self._control.clients.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            answer = self._control.answer(line.decode(errors="replace"))
            self._transport.write(json.dumps(answer).encode() + b"\n")
        if len(self._rest) > _LINE_MOST:
            self._transport.close()
