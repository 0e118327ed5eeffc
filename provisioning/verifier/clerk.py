"""Requests for certificates as they come from the broker: one after the other, beside the rounds."""

import asyncio
import secrets
import time

from structlog.typing import FilteringBoundLogger

from gateway.attest.evidence import NONCE_BYTES
from gateway.north.mqtt import Arrived, Link, enrol_topic, enrolling_of
from provisioning.verifier.issuing import Issuer

REQUESTS = 64
"""Gateways whose requests wait, one each; what is more is dropped: whoever asked asks again."""
QUIET_S = 60.0
"""Between two log lines about one gateway that say the same, unless it got its certificate."""


class Clerk:
    """Answers requests on one connection. issuer: None answers nobody."""

    def __init__(self, link: Link, issuer: Issuer | None, log: FilteringBoundLogger) -> None:
        self._link, self._issuer, self._log = link, issuer, log
        self._waiting: dict[str, bytes] = {}  # the payload, by gateway
        self._stirred = asyncio.Event()
        self._said_s: dict[tuple[str, str], float] = {}

    async def open(self) -> None:
        """Begin to listen."""
        if self._issuer is not None:
            await self._link.subscribe(enrol_topic("+", "request"))

    def hear(self, arrived: Arrived) -> None:
        """Take a message that is no evidence."""
        gateway = enrolling_of(arrived.topic)
        if self._issuer is not None and gateway is not None and len(self._waiting) < REQUESTS:
            self._waiting.setdefault(gateway, arrived.payload)
            self._stirred.set()

    async def run(self) -> None:
        """Answer for ever; ends by LinkError."""
        while True:
            await self._stirred.wait()
            if self._issuer is None or not self._waiting:
                self._stirred.clear()
                continue
            gateway = next(iter(self._waiting))
            payload = self._waiting.pop(gateway)
            now_s, nonce = time.time(), secrets.token_bytes(NONCE_BYTES)
            # An authority's key may be in a token that takes its time.
            found = await asyncio.to_thread(self._issuer.hear, gateway, payload, now_s=now_s, nonce=nonce)
            if found is not None:
                reply, how = found
                self._say(gateway, how)
                await self._link.publish(enrol_topic(gateway, "reply"), reply)

    def _say(self, gateway: str, how: str) -> None:
        now_s, kind = time.monotonic(), how.partition(":")[0]
        if kind == "issued" or now_s - self._said_s.get((gateway, kind), -QUIET_S) >= QUIET_S:
            self._said_s[gateway, kind] = now_s
            self._log.info("verifier.certificate", gateway=gateway, how=how)
