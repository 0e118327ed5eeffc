"""One Modbus/TCP connection, with any number of requests under way."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from gateway.drivers.modbus_line import Line
from gateway.drivers.modbus_pdu import Request, SilentError
from gateway.errors import DeviceError

# Modbus Messaging on TCP/IP V1.0b, 3.1.3: transaction, protocol (always 0), length of unit and PDU, unit.
_HEADER: Final = struct.Struct(">HHHB")
_LEAST: Final = 8
_MAX_LENGTH: Final = 254

# A request under way, its reply, until when, and how many replies to no request had come before it.
# A plain tuple, since one is made for each request.
_Asked = tuple[Request, "asyncio.Future[bytes]", float, int]


class TcpLine(Line):
    """Modbus/TCP: a reply is known by its transaction, whatever the order.

    Must be made inside the loop that it runs in.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._loop = asyncio.get_running_loop()
        self._transaction = 0
        self._asked: dict[int, _Asked] = {}
        self._unsent: list[bytes] = []
        self._others = 0
        self._rest = b""

    def ask(self, request: Request, fences: Sequence[Request]) -> asyncio.Future[bytes]:  # noqa: ARG002 - see Line
        """Ask; a reply with the transaction of no request under way is a late one and dropped."""
        transaction = self._transaction % 0xFFFF + 1
        while transaction in self._asked:
            transaction = transaction % 0xFFFF + 1
        self._transaction = transaction
        reply = self._loop.create_future()
        deadline = self._loop.time() + self._timeout_s
        self._asked[transaction] = (request, reply, deadline, self._others)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._expire)
        frame = transaction.to_bytes(2, "big") + request.tail
        if len(self._asked) == 1:
            self._transport.write(frame)
        else:
            # Others are under way, and more may follow in this turn of the loop: one system call for all of them.
            if not self._unsent:
                self._loop.call_soon(self._send)
            self._unsent.append(frame)
        return reply

    def _send(self) -> None:
        if not self.lost:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _expire(self) -> None:
        """End the requests that are past their deadlines: the oldest stands first.

        One timer outlives many requests, because making one for each costs as much as all else here.
        """
        self._watch = None
        now = self._loop.time()
        for transaction, (_, reply, deadline, others) in [*self._asked.items()]:
            if deadline > now:
                self._watch = self._loop.call_at(deadline, self._expire)
                return
            del self._asked[transaction]
            if not reply.done():
                self.misses += 1
                came = self._came(self._others - others)
                reply.set_exception(SilentError(f"no reply in {self._timeout_s:g} s{came}"))

    def _came(self, count: int) -> str:
        """Say what came that was no reply to the request, "" if nothing did."""
        others = f", {count} replies to other transactions" if count else ""
        return others + (f", but {self._rest[:16].hex(' ')}" if self._rest else "")

    def _fail(self, error: DeviceError) -> None:
        for _, reply, _, _ in self._asked.values():
            if not reply.done():
                reply.set_exception(error)
        self._asked.clear()

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames; called by the loop."""
        self.misses = 0
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        while end - at >= _LEAST:
            transaction, protocol, length, unit_id = _HEADER.unpack_from(buffer, at)
            if protocol or not 2 <= length <= _MAX_LENGTH:
                self._fail(DeviceError(f"not Modbus/TCP: {buffer[at : at + 8].hex(' ')}"))
                self._rest = b""
                self.lost = True
                self._transport.abort()
                return
            if end - at < 6 + length:
                break
            at += 6 + length
            asked = self._asked.pop(transaction, None)
            if asked is None:
                self._others += 1
                continue
            request, reply, _, _ = asked
            if not reply.done():
                try:
                    reply.set_result(request.payload(unit_id, buffer[at - length + 1 : at]))
                except DeviceError as e:
                    reply.set_exception(e)
        self._rest = buffer[at:]
        self.torn = at < end
