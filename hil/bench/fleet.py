"""The devices of the case `attest-fleet`, and a ledger that hears what is found of them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.attest.ear import verify_result
from gateway.attest.evidence import Challenge, read_challenge
from gateway.north.mqtt import Link, evidence_topic, gateway_of, result_topic
from gateway.tlog.note import Verifier
from hil.plant.soft_tpm import SoftDevice

VERIFIER, LEDGER = "desk", "ledger"
_AT_ONCE: Final = 200
_ONE_IN: Final = 100
_ABOUT: Final = {"version": "bench", "tls": "file"}


@dataclass
class Fleet:
    """The devices, and what the ledger has heard of them. statuses: of the newest result, by gateway."""

    devices: Mapping[str, SoftDevice]
    keys: Mapping[str, str]
    verifier: Verifier
    statuses: dict[str, str] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def answer(self, gateway: str, note: bytes) -> bytes:
        """Return a gateway's evidence for a challenge."""
        challenge: Challenge = read_challenge(note, verifier=self.verifier, gateway=gateway)
        device = self.devices[gateway]
        device.clock_ms += 1
        return device.evidence(challenge, epoch=1, key=self.keys[gateway], log_size=100, about=_ABOUT)

    async def attest(self, link: Link) -> None:
        """Answer all challenges that come on this connection; many at a time, of all connections."""

        async def send(gateway: str, note: bytes) -> None:
            try:
                await link.publish(evidence_topic(gateway), self.answer(gateway, note))
            finally:
                self.room.release()

        async with asyncio.TaskGroup() as tasks:
            async for arrived in link:
                gateway = gateway_of(arrived.topic, "challenge")
                if gateway is not None:
                    await self.room.acquire()
                    tasks.create_task(send(gateway, arrived.payload))

    async def hear(self, link: Link) -> None:
        """Be the ledger: read each result; of one in a hundred, verify the signature."""
        await link.subscribe(result_topic("+"))
        ledger, issuer, number = f"wattseal-ledger/{LEDGER}", f"wattseal-verifier/{VERIFIER}", 0
        async for arrived in link:
            token, now_s = arrived.payload.decode(), int(time.time())
            if number % _ONE_IN == 0:
                verify_result(token, issuer=issuer, audience=ledger, verifier=self.verifier, now_s=now_s)
            said = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["submods"]["wattseal"]
            self.statuses[said["wattseal.gateway"]] = said["ear.status"]
            number += 1
            if len(self.statuses) == len(self.devices):
                self.done.set()
