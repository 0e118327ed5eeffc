"""Between the verifier and the seal: challenges in, evidence out. Forward understands neither."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from gateway.app.channel import connect
from gateway.codec.frames import MAX_CHALLENGE, Message
from gateway.errors import LinkError, TrustError
from gateway.north.mqtt import Link, evidence_topic

ANSWER_S = 60.0
"""A TPM may take seconds, and is not asked by us alone."""
MOST_WAITING = 4


class QuestionCounts(Protocol):
    """What is counted on the way."""

    evidence: int
    challenges_refused: int


class Questions:
    """The challenges to one gateway, carried to its seal on a connection of their own: a slow TPM delays no receipt.

    tls: where forward has proven its client key to be; the evidence says so.
    """

    def __init__(self, gateway: str, counts: QuestionCounts, log: FilteringBoundLogger, *, tls: str) -> None:
        self._tls = tls
        self._gateway, self._counts, self._log = gateway, counts, log
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._is_mute = False

    def put(self, note: bytes) -> None:
        """Take a challenge from the broker; a flood is counted, and goes no further."""
        if len(note) > MAX_CHALLENGE or self._waiting.full():
            self._counts.challenges_refused += 1
        else:
            self._waiting.put_nowait(note)

    async def run(self, outlet: Path, link: Link) -> None:
        """Ask to be challenged, then answer; ends by LinkError alone. outlet: the seal's socket."""
        channel = await connect(outlet)
        with closing(channel):
            await link.publish(evidence_topic(self._gateway), b"")
            while True:
                note = await self._waiting.get()
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await channel.send(["challenge", note, b"", self._tls])
                        answer = await channel.receive()
                except TimeoutError as e:
                    raise LinkError(f"seal: no answer to a challenge within {ANSWER_S:g} s") from e
                except TrustError as e:
                    raise LinkError(f"seal: {e}") from e
                await self._pass_on(answer, link)

    async def _pass_on(self, answer: list[Message], link: Link) -> None:
        match answer:
            case [["evidence", bytes(evidence)]]:
                await link.publish(evidence_topic(self._gateway), evidence)
                self._counts.evidence += 1
                self._is_mute = False
            case [["refused", 0, str(why)]]:
                self._counts.challenges_refused += 1
                if not self._is_mute:
                    self._log.warning("forward.challenge_refused", why=why)
                self._is_mute = True
            case _:
                raise LinkError(f"seal: got {str(answer)[:80]}, want evidence")
