"""Requests for certificates as they come from the broker: one after the other, beside the rounds."""

import asyncio
import secrets
import time

from structlog.typing import FilteringBoundLogger

from gateway.attest.evidence import NONCE_BYTES
from gateway.north.mqtt import Arrived, Link, enrol_topic, enrolling_of
from provisioning.verifier.issuing import Issuer

REQUESTS = 16
"""More than these that wait are dropped: whoever asked asks again."""


class Clerk:
    """Answers requests on one connection. issuer: None answers nobody."""

    def __init__(self, link: Link, issuer: Issuer | None, log: FilteringBoundLogger) -> None:
        self._link, self._issuer, self._log = link, issuer, log
        self._waiting: asyncio.Queue[Arrived] = asyncio.Queue(REQUESTS)

    async def open(self) -> None:
        """Begin to listen."""
        if self._issuer is not None:
            await self._link.subscribe(enrol_topic("+", "request"))

    def hear(self, arrived: Arrived) -> None:
        """Take a message that is no evidence."""
        if self._issuer is not None and not self._waiting.full():
            self._waiting.put_nowait(arrived)

    async def run(self) -> None:
        """Answer for ever; ends by LinkError."""
        while True:
            arrived = await self._waiting.get()
            gateway = enrolling_of(arrived.topic)
            if self._issuer is None or gateway is None:
                continue
            now_s, nonce = time.time(), secrets.token_bytes(NONCE_BYTES)
            # An authority's key may be in a token that takes its time.
            found = await asyncio.to_thread(self._issuer.hear, gateway, arrived.payload, now_s=now_s, nonce=nonce)
            if found is not None:
                reply, how = found
                self._log.info("verifier.certificate", gateway=gateway, how=how)
                await self._link.publish(enrol_topic(gateway, "reply"), reply)
