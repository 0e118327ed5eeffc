"""An agent at a machine of the plant: it signs frames and sends them through the broker, and can misbehave.

`python -m hil.plant.agent --help`
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from gateway.codec.agents import MAC_BYTES, AgentPoint, pack_frame
from gateway.errors import LinkError
from gateway.north.mqtt import Link
from gateway.north.tls import Endpoint
from hil.plant.devices import ROUNDING
from hil.plant.factory import Plant

FAULTS = ("replay", "duplicate", "forge", "no-clock", "silent")
"""What an agent, or whoever poses as one, may do wrong."""

_AGAIN_S = 0.5


class Agent:
    """An agent that meters one asset of the plant. Its frames are those of wattseal-plant-agent.toml.

    start_wh: what its register shows at the plant's start. faults: some of FAULTS; may be changed at any time.
    sent: messages that the broker has taken.
    """

    def __init__(
        self,
        plant: Plant,
        asset: str,
        *,
        agent: str,
        key: bytes,
        every_s: float = 1.0,
        start_wh: int = 250_000,
        faults: Collection[str] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        if unknown := set(faults) - set(FAULTS):
            raise ValueError(f"fault: got {min(unknown)!r}, want some of {', '.join(FAULTS)}")
        self.agent, self.faults, self.sent = agent, set(faults), 0
        self.topic = f"wattseal/v1/agents/{agent}/frames"
        self._plant, self._flow = plant, plant.assets[asset]
        self._key, self._every_s, self._start_wh, self._clock = key, every_s, start_wh, clock
        self.restart()

    def restart(self) -> None:
        """Start anew, as after a power cut."""
        self.boot, self.sequence = secrets.token_bytes(8), 0
        self._first: bytes | None = None
        self._began_ns = self._clock()

    def frame(self) -> bytes:
        """Return the next frame."""
        self.sequence += 1
        now_ns, t = self._clock(), self._plant.now()
        clock_set = "no-clock" not in self.faults
        power_w = self._flow.rate(t)
        return pack_frame(
            agent=self.agent,
            boot=self.boot,
            sequence=self.sequence,
            time_ms=(now_ns if clock_set else now_ns - self._began_ns) // 1_000_000,
            clock_set=clock_set,
            energy=self._start_wh + int(self._flow.total(t) + ROUNDING),
            points=[
                AgentPoint(0, 0, round(power_w * 10), -1),
                AgentPoint(1, 0, round(2500 + power_w / 200), -2),
            ],
            key=self._key,
        )

    def messages(self) -> list[bytes]:
        """Return what goes out at the next tick, faults and all."""
        if "silent" in self.faults:
            return []
        frame = self.frame()
        if "forge" in self.faults:
            frame = frame[:-MAC_BYTES] + secrets.token_bytes(MAC_BYTES)
        self._first = self._first or frame
        sent = [frame]
        if "duplicate" in self.faults:
            sent.append(frame)
        if "replay" in self.faults:
            sent.append(self._first)
        return sent

    async def run(self, endpoint: Endpoint) -> None:
        """Send at each tick until cancelled, over any number of connections."""
        while True:
            try:
                async with Link(endpoint, client_id=self.agent) as link:
                    while True:
                        for message in self.messages():
                            await link.publish(self.topic, message)
                            self.sent += 1
                        await asyncio.sleep(self._every_s - time.time() % self._every_s)
            except LinkError:
                await asyncio.sleep(_AGAIN_S)


def agent_endpoint(pki: Path, broker: str, agent: str) -> Endpoint:
    """Return where the agents' broker is, with the certificate that `wattseal dev-agents` made for this agent."""
    host, _, port = broker.rpartition(":")
    return Endpoint(host=host, port=int(port), ca=pki / "ca.pem", cert=pki / f"{agent}.pem", key=pki / f"{agent}.key")


def agent_key(pki: Path, agent: str) -> bytes:
    """Return the key of an agent's frames."""
    return bytes.fromhex((pki / "keys" / f"{agent}.key").read_text().strip())


@asynccontextmanager
async def running_agents(
    plant: Plant, wanted: Sequence[str], broker: str | None, pki: Path | None
) -> AsyncIterator[dict[str, Agent]]:
    """Run agents at a plant while the block runs; give them by their ids. wanted: `<id>=<asset>` each.

    Raises ValueError for what cannot be.
    """
    if broker is None or pki is None:
        raise ValueError("--agent: got no --agents-broker or no --agents-pki, want both")
    agents: dict[str, Agent] = {}
    for item in wanted:
        name, _, asset = item.partition("=")
        if asset not in plant.assets:
            raise ValueError(f"--agent: got {item!r}, want ID=ASSET with one of {', '.join(plant.assets)}")
        agents[name] = Agent(plant, asset, agent=name, key=agent_key(pki, name))
    tasks = [asyncio.create_task(a.run(agent_endpoint(pki, broker, name)), name=name) for name, a in agents.items()]
    try:
        yield agents
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one agent at a plant of its own, until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m hil.plant.agent", description="A simulated ESP32 agent.")
    parser.add_argument("--broker", required=True, metavar="HOST:PORT", help="the agents' broker")
    parser.add_argument("--pki", type=Path, required=True, help="the folder that `wattseal dev-agents` made")
    parser.add_argument("--agent", required=True, help="its id")
    parser.add_argument("--asset", default="press", choices=("compressor", "press", "hvac", "filler"))
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between frames (1)")
    parser.add_argument("--speed", type=float, default=1.0, help="plant seconds a second (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--fault", action="append", default=[], choices=FAULTS, help="may be given again")
    given = parser.parse_args(arguments)
    agent = Agent(
        Plant(seed=given.seed, speed=given.speed),
        given.asset,
        agent=given.agent,
        key=agent_key(given.pki, given.agent),
        every_s=given.every,
        faults=given.fault,
    )
    try:
        uvloop.run(agent.run(agent_endpoint(given.pki, given.broker, given.agent)))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
