"""The seal process: no network, the log and its key; one socket for collect, one for forward."""

import asyncio
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from gateway.app.agentkeys import read_agent_keys
from gateway.app.channel import Channel, listen
from gateway.app.entry import settle
from gateway.app.keys import read_signer, read_verifier
from gateway.app.logs import start_logs
from gateway.app.metrics import serve_metrics
from gateway.app.sealer import Sealer
from gateway.app.trust.renewal import Renewal
from gateway.clock import ClockLimit
from gateway.codec.frames import MAX_LOG_MESSAGE, Message, pack_leaves
from gateway.config import GatewayConfig
from gateway.errors import GatewayError, TrustError
from gateway.store.files import RealFiles
from gateway.store.segments import Log, StoreFull
from gateway.tlog.note import SignatureKind

if TYPE_CHECKING:
    from gateway.app.attester import Respondent

IDLE_S = 10.0
"""A read that waits longer is answered `idle`."""
GROUP_S = 0.05
"""What comes so soon after a commit shares the next one: half of the seal's CPU would else go into fsync."""


class SealServer:
    """Serves one Sealer on two sockets. idle_s: how long a read waits for something new.

    respondent: answers challenges, where the device has a TPM. renew_s: how often the epoch key is made anew, None for
    never.
    """

    def __init__(
        self,
        sealer: Sealer,
        log: FilteringBoundLogger,
        *,
        idle_s: float = IDLE_S,
        respondent: "Respondent | None" = None,
        renew_s: float | None = None,
    ) -> None:
        self._sealer, self._log, self._idle_s, self._respondent = sealer, log, idle_s, respondent
        self._renewal = None if renew_s is None else Renewal(sealer, log, every_s=renew_s)
        self._grown = asyncio.Condition()
        self._collect: Channel | None = None
        self._stalled: int | None = None
        self._is_fooled = self._is_mute = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Take nothing more from collect: the log is about to be closed."""
        if self._collect is not None:
            self._collect.close()
            self._collect = None

    async def inlet(self, channel: Channel) -> None:
        """Serve collect: the newest connection that says hello counts, an older one is closed."""
        messages = await _receive(channel)
        match messages.pop(0):
            case ["hello", 1, bytes(boot)] if len(boot) == 8:
                if self._collect is not None:
                    self._collect.close()
                self._collect, self._stalled = channel, None
                await channel.send(["welcome", self._sealer.welcome(boot)])
            case _:
                await channel.send(["error", 'want ["hello", 1, boot]'])
                return
        while channel is self._collect:
            if messages:
                await self._puts(channel, messages)
                await asyncio.sleep(GROUP_S)
            messages = await _receive(channel)

    async def _puts(self, channel: Channel, messages: list[Message]) -> None:
        """Seal what has arrived in one group commit, then answer.

        After a `full`, whatever was already under way is passed over until collect sends that batch again:
        else the log would lose the order.
        """
        answers: list[Message] = []
        nonsense: Message | None = None
        taken: list[int] = []
        for message in messages:
            match message:
                case ["put", int(sequence), str(kind), bytes(body)]:
                    if self._stalled in {None, sequence} and not self._put(sequence, kind, body, taken, answers):
                        break
                case _:
                    nonsense = message
                    break
        try:
            self._sealer.commit()
        except StoreFull as e:
            answers = [answer for answer in answers if answer[0] == "refused"]
            turned_away = taken[0] if taken else self._stalled
            answers += [] if turned_away is None else [self._stall(turned_away, str(e))]
            taken = []
        if taken:
            answers.insert(0, ["ack", taken[-1]])
        if nonsense is not None:
            answers.append(["error", 'want ["put", seq, kind, body]'])
        if answers:
            await channel.send(*answers)
        if nonsense is not None:
            raise TrustError(f"inlet: got {str(nonsense)[:80]}")

    def _put(self, sequence: int, kind: str, body: bytes, taken: list[int], answers: list[Message]) -> bool:
        """Hand one batch to the sealer; return False when it has no room."""
        try:
            self._sealer.put(sequence, kind, body)
            taken.append(sequence)
        except TrustError as e:
            self._log.warning("seal.refused", sequence=sequence, kind=kind[:20], why=str(e))
            answers.append(["refused", sequence, str(e)])
        except StoreFull as e:
            answers.append(self._stall(sequence, str(e)))
            return False
        if self._stalled is not None:
            self._log.info("seal.room")
        self._stalled = None
        return True

    def _stall(self, sequence: int, why: str) -> Message:
        if self._stalled is None:
            self._log.error("seal.full", why=why)
        self._stalled = sequence
        return ["full", sequence]

    async def outlet(self, channel: Channel) -> None:
        """Serve forward: reads and receipts. A long poll does not hold up a receipt."""
        waiting: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                for message in await _receive(channel):
                    match message:
                        case ["hello", 1]:
                            await channel.send(["position", self._sealer.receipted, self._sealer.signed])
                        case ["read", int(first), int(most_bytes)] if first >= 0 and most_bytes > 0:
                            if waiting is not None:
                                waiting.cancel()
                            waiting = tasks.create_task(self._read(channel, first, most_bytes), name="seal.read")
                        case ["receipt", bytes(note)]:
                            await channel.send(self._receipt(note))
                        case ["key"] | ["challenge", bytes(), bytes(), "file" | "tpm" | "memory"]:
                            await channel.send(await self._vouch(message))
                        case _:
                            await channel.send(["error", "want hello, read, receipt, key or challenge"])
                            raise TrustError(f"outlet: got {str(message)[:80]}")

    async def _read(self, channel: Channel, first: int, most_bytes: int) -> None:
        try:
            async with asyncio.timeout(self._idle_s), self._grown:
                await self._grown.wait_for(lambda: self._sealer.signed > first)
        except TimeoutError:
            await channel.send(["idle"])
            return
        chunk = self._sealer.chunk(first, min(most_bytes, MAX_LOG_MESSAGE))
        announced = [chunk.epoch] if chunk.epoch else []
        await channel.send(["chunk", first, pack_leaves(chunk.leaves), chunk.checkpoint, *announced])

    def _receipt(self, note: bytes) -> Message:
        try:
            receipted = self._sealer.receive(note)
        except TrustError as e:
            if not self._is_fooled:
                self._log.warning("seal.receipt_refused", why=str(e))
            self._is_fooled = True
            return ["refused", 0, str(e)]
        self._is_fooled = False
        return ["receipted", receipted]

    async def _vouch(self, message: Message) -> Message:
        """Have the TPM make a client key, or answer a challenge. One that fails costs that alone: sealing goes on."""
        counts = self._sealer.counts
        try:
            if self._respondent is None:
                raise TrustError("this gateway has no [attest]")
            if message == ["key"]:
                return ["key", *await self._respondent.make_key()]
            _, note, bound, tls = message
            epoch, key = self._sealer.announced
            size = self._sealer.signed
            evidence = await self._respondent.respond(note, bound, tls, epoch=epoch, key=key, log_size=size)
        except GatewayError as e:
            counts.challenges_refused += 1
            if not self._is_mute:
                self._log.warning("seal.challenge_refused", why=str(e))
            self._is_mute = True
            return ["refused", 0, str(e)]
        counts.evidence += 1
        if self._is_mute:
            self._log.info("seal.challenge_answered")
        self._is_mute = False
        return ["evidence", evidence]

    async def beat(self, every_s: float) -> None:
        """Sign what is durable at every beat, tell the readers, keep the disk budget; until something fails."""
        while True:
            await asyncio.wait({self.failed}, timeout=every_s)
            if self.failed.done():
                self.failed.result()
            if done := self._sealer.tidy():
                self._log.warning("seal.dropped", what=done)
            is_renewed = self._renewal is not None and self._renewal.beat()
            if self._sealer.sign() or is_renewed:
                async with self._grown:
                    self._grown.notify_all()


async def _receive(channel: Channel) -> list[Message]:
    try:
        return await channel.receive()
    except TrustError as e:
        await channel.send(["error", str(e)])
        raise


async def run_seal(config: GatewayConfig, *, isolated: bool) -> None:
    """Run the seal until it is cancelled. Raises LogError when the log cannot be trusted.

    isolated: whether the process has given up its network (app/isolation.py), which must come before the loop.
    """
    log = start_logs("seal")
    if not isolated:
        log.warning(
            "seal.network", why="the kernel refused an empty network namespace; the service manager must give one"
        )
    section = config.seal
    signer = None if section.key is None else read_signer(section.key, "seal.key", name=config.origin)
    witness = read_verifier(section.witness, "seal.witness", kind=SignatureKind.COSIGNATURE)
    agent_keys = read_agent_keys(section.agents, "seal.agents")
    with ExitStack() as stack:
        attester = respondent = None
        if config.attest is not None:
            from gateway.app.attester import open_attester, respondent_of  # noqa: PLC0415 (3 MB that few need)

            attester = stack.enter_context(open_attester(config.attest, gateway=config.gateway.id))
            respondent = respondent_of(config, config.attest, attester)
        opened = stack.enter_context(closing(Log.open(RealFiles(config.log_folder), origin=config.origin)))
        sealer = Sealer(
            opened,
            signer=signer,
            binder=attester,
            witness=witness,
            clock_limit=ClockLimit(
                error_ns=round(section.clock_error_s * 1e9), holdover_ns=round(section.clock_holdover_h * 3600e9)
            ),
            budget_bytes=section.budget_mb << 20,
            keep_bytes=section.keep_mb << 20,
            drop_readings=section.full == "drop-readings",
            agent_keys=agent_keys,
        )
        sealer.counts.isolated = int(isolated)
        await _serve(config, sealer, respondent, log)


async def _serve(
    config: GatewayConfig, sealer: Sealer, respondent: "Respondent | None", log: FilteringBoundLogger
) -> None:
    renew_s = None if config.attest is None else config.attest.renew_h * 3600
    server = SealServer(sealer, log, respondent=respondent, renew_s=renew_s)
    listeners: list[asyncio.Server] = []
    try:
        for name, serve in (("inlet", server.inlet), ("outlet", server.outlet)):
            path = config.run_folder / f"{name}.sock"
            listeners.append(await listen(path, serve, failed=server.failed, mode=0o660))
        socket = config.run_folder / "seal.metrics.sock"
        listeners += await serve_metrics("seal", sealer.counts, socket=socket)
        settle()
        log.info("seal.ready", size=sealer.signed, receipted=sealer.receipted, isolated=bool(sealer.counts.isolated))
        await server.beat(config.seal.checkpoint_s)
    finally:
        server.close()
        for listener in listeners:
            listener.close()
