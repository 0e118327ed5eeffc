"""A station's questions to one unit, over any transport: bounded in time and in bytes, whatever the unit sends."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.codec import enrol_lines as lines
from gateway.errors import LinkError, TrustError

MOST_NOISE = 1024 * 1024
"""Bytes that a unit may send without an answer among them: a boot log fits, an endless stream does not."""


class Transport(Protocol):
    """Bytes to and from a unit. Every method raises LinkError when the unit is out of reach."""

    def send(self, content: bytes, *, until_s: float) -> None:
        """Send all of it, until a time of the monotonic clock."""

    def receive(self, *, until_s: float) -> bytes:
        """Return what came, at most 64 KiB; b"" when nothing did until then."""

    def close(self) -> None:
        """End what was started. Called once, also after an error."""


class Refused(TrustError):  # noqa: N818 - an answer, which a negative self-test hopes for
    """Raised when a unit refuses what it was asked; the text is its own."""


class Link:
    """Asks one unit. session: fresh, so that an answer to an earlier session is not taken for one of this."""

    def __init__(self, transport: Transport, *, session: str, timeout_s: float, tries: int = 3) -> None:
        self._transport = transport
        self._session = session
        self._timeout_s = timeout_s
        self._tries = tries
        self._count = 0
        self._rest = b""

    def ask(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        want: Mapping[str, lines.Field],
        *,
        patience: float = 1.0,
        tries: int | None = None,
    ) -> dict[str, Any]:
        """Return the unit's answer, its fields read as `want` has them.

        A question whose answer got lost is asked again under its id, which the unit does not do twice.
        patience: times the ordinary timeout. tries: the link's without it. Raises LinkError, Refused, and TrustError
        for an answer that is not one.
        """
        self._count += 1
        asked = f"{self._session}-{self._count}"
        line = lines.pack_line({"id": asked, "op": operation, "args": dict(arguments)})
        tries = tries or self._tries
        for _ in range(tries):
            until_s = time.monotonic() + self._timeout_s * patience
            self._transport.send(b"\n" + line, until_s=until_s)  # the newline ends what noise may have begun
            reply = self._reply(asked, until_s=until_s)
            if reply is not None:
                return _answer(reply, want, operation)
        waited = self._timeout_s * patience
        raise LinkError(f"{operation}: got no answer within {waited:g} s, {tries} times")

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _reply(self, asked: str, *, until_s: float) -> dict[str, Any] | None:
        """Return the reply to a question, None when none came in time."""
        heard = 0
        while time.monotonic() < until_s:
            *whole, self._rest = self._rest.split(b"\n")
            for place, line in enumerate(whole):
                said = _line(line)
                if said is not None and said["id"] == asked and "op" not in said:
                    self._rest = b"\n".join([*whole[place + 1 :], self._rest])
                    return said
            piece = self._transport.receive(until_s=until_s)
            heard += len(piece)
            self._rest += piece
            if heard > MOST_NOISE or len(self._rest) > 2 * lines.MAX_LINE:
                raise TrustError(f"got {heard} bytes without an answer among them, want one line")
        return None


def _line(line: bytes) -> dict[str, Any] | None:
    """Return a line's content, None for noise."""
    try:
        return lines.read_line(line.rstrip(b"\r"))
    except TrustError:
        return None


def _answer(reply: dict[str, Any], want: Mapping[str, lines.Field], operation: str) -> dict[str, Any]:
    if set(reply) == {"id", "refused"} and type(reply["refused"]) is str:
        why = "".join(c if c.isprintable() else "?" for c in reply["refused"][:400])
        raise Refused(f"the unit refuses: {why}")
    if set(reply) != {"id", "ok"}:
        raise TrustError(f"{operation}: the answer is neither ok nor refused")
    return lines.fields_of(reply["ok"], want, f"{operation}: the answer")
