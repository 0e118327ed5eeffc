"""app/seal.py over real unix sockets: who is served, in which order, and what stops whom."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger

from gateway.app.channel import Channel, connect, listen
from gateway.app.load import template_text
from gateway.app.metrics import read_metrics
from gateway.app.seal import SealServer, run_seal
from gateway.codec.frames import MAX_FRAME, Message, pack_frame, unpack_leaves
from gateway.codec.pack import pack
from gateway.config import GatewayConfig, parse_gateway
from gateway.errors import ConfigError, LinkError, LogError
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.note import Signer
from tests.faulty_files import FaultyFiles
from tests.loops import on_both_loops
from tests.sealing import BOOT, ORIGIN, OTHER_BOOT, SCHEMA, SIGNER, T0_S, WITNESS, Body, Box, readings, root_of

PATIENCE_S = 10.0


@dataclass
class Peer:
    """The other end of one of the seal's sockets."""

    channel: Channel
    heard: list[Message] = field(default_factory=list)

    async def say(self, *messages: Message) -> None:
        """Send messages in one write."""
        await self.channel.send(*messages)

    async def hear(self, within_s: float = PATIENCE_S) -> Message:
        """Return the next message."""
        async with asyncio.timeout(within_s):
            while not self.heard:
                self.heard += await self.channel.receive()
        return self.heard.pop(0)

    async def hears_nothing(self, for_s: float = 0.2) -> bool:
        """Return whether no message comes for a while."""
        try:
            self.heard.insert(0, await self.hear(for_s))
        except TimeoutError:
            return True
        return False

    async def is_closed(self) -> bool:
        """Return whether the seal has closed the connection, whatever it said before."""
        with contextlib.suppress(LinkError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    self.heard += await self.channel.receive()
        return True


@dataclass
class Serving:
    """A seal at work. box: what is behind it."""

    box: Box
    server: SealServer
    folder: Path
    beating: "asyncio.Task[None]"
    said: CapturingLogger
    peers: list[Peer] = field(default_factory=list)

    async def peer(self, socket: str) -> Peer:
        """Connect."""
        made = Peer(await connect(self.folder / f"{socket}.sock"))
        self.peers.append(made)
        return made

    async def collect(self, boot: bytes = BOOT) -> Peer:
        """Connect as collect, up to the welcome."""
        peer = await self.peer("inlet")
        await peer.say(["hello", 1, boot])
        assert (await peer.hear())[0] == "welcome"
        return peer

    def events(self, name: str) -> int:
        """Return how often this was logged."""
        return sum(call.kwargs.get("event") == name for call in self.said.calls)


@asynccontextmanager
async def serving(
    folder: Path, *, box: Box | None = None, beat_s: float = 0.02, idle_s: float = 30.0, **options: Any
) -> AsyncIterator[Serving]:
    """Serve a sealer on sockets in folder."""
    box = box or Box.at(folder / "log", **options)
    said = CapturingLogger()
    log: Any = structlog.wrap_logger(said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
    server = SealServer(box.sealer, log, idle_s=idle_s)
    listeners = [
        await listen(folder / f"{name}.sock", serve, failed=server.failed)
        for name, serve in (("inlet", server.inlet), ("outlet", server.outlet))
    ]
    beating = asyncio.create_task(server.beat(beat_s))
    made = Serving(box, server, folder, beating, said)
    try:
        yield made
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        for peer in made.peers:
            peer.channel.close()
        for listener in listeners:
            listener.close()
        await asyncio.sleep(0.02)
        box.log.close()


def puts(first: int, *bodies: Body) -> list[Message]:
    """Return put messages, numbered from first on."""
    return [["put", number, kind, body] for number, (kind, body) in enumerate(bodies, first)]


async def until_signed(s: Serving, size: int) -> None:
    """Wait for a checkpoint of this size."""
    async with asyncio.timeout(PATIENCE_S):
        while s.box.sealer.signed < size:
            await asyncio.sleep(0.005)


# ---- collect


@on_both_loops
async def test_what_arrives_together_is_acknowledged_together(tmp_path: Path) -> None:
    """One group commit, one answer; and by then all of it is durable."""
    async with serving(tmp_path) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA, *(readings(number) for number in range(30))))
        assert await collect.hear() == ["ack", 31]
        assert s.box.log.durable == 33
        assert await collect.hears_nothing()


@on_both_loops
async def test_a_hello_and_batches_may_come_in_one_write(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        collect = await s.peer("inlet")
        await collect.say(["hello", 1, BOOT], *puts(1, SCHEMA, readings(1)))
        assert [await collect.hear(), await collect.hear()] == [["welcome", 0], ["ack", 2]]


@on_both_loops
async def test_the_welcome_says_what_the_log_has(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        await (first := await s.collect()).say(*puts(1, SCHEMA, readings(1)))
        await first.hear()
        again = await s.peer("inlet")
        await again.say(["hello", 1, BOOT])
        assert await again.hear() == ["welcome", 2]
        await again.say(*puts(1, SCHEMA, readings(1), readings(2)))
        assert await again.hear() == ["ack", 3]
        assert s.box.sources() == [(BOOT, number) for number in (1, 2, 3)]


@on_both_loops
async def test_what_is_malformed_is_refused_alone(tmp_path: Path) -> None:
    """The answers come in one go: all up to a number are durable, and one of them never will be."""
    async with serving(tmp_path) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA, ("event", b""), readings(1)))
        assert await collect.hear() == ["ack", 3]
        assert (await collect.hear())[:2] == ["refused", 2]
        assert [number for _, number in s.box.sources()] == [1, 3]
        assert s.events("seal.refused") == 1


@on_both_loops
async def test_the_newest_collect_wins(tmp_path: Path) -> None:
    """A connection that half died may stand for long: who says hello last is served, the other is closed."""
    async with serving(tmp_path) as s:
        first = await s.collect()
        await first.say(*puts(1, SCHEMA))
        await first.hear()
        second = await s.collect(OTHER_BOOT)
        assert await first.is_closed()
        await second.say(*puts(1, SCHEMA))
        assert await second.hear() == ["ack", 1]
        assert s.box.sources() == [(BOOT, 1), (OTHER_BOOT, 1)]


@on_both_loops
async def test_what_the_old_collect_sent_last_is_not_taken_for_the_new_ones(tmp_path: Path) -> None:
    """Both arrive at once: its numbers must not be sealed under the other's boot."""
    async with serving(tmp_path) as s:
        for number in range(10):
            first, second = await s.collect(b"old %04d" % number), await s.peer("inlet")
            second.channel._writer.write(pack_frame(["hello", 1, b"new %04d" % number]))
            first.channel._writer.write(pack_frame(puts(7, SCHEMA)[0]))
            assert await second.hear() == ["welcome", 0]
            assert await first.is_closed()
        assert not [boot for boot, _ in s.box.sources() if boot.startswith(b"new")]


@pytest.mark.parametrize(
    "hello", [["hello", 2, BOOT], ["hello", 1, b"short"], ["hello", 1], ["put", 1, "event", b""], ["hello", 1, "text"]]
)
async def test_who_says_no_proper_hello_is_closed_and_displaces_nobody(tmp_path: Path, hello: Message) -> None:
    async with serving(tmp_path) as s:
        collect = await s.collect()
        stranger = await s.peer("inlet")
        await stranger.say(hello)
        assert await stranger.is_closed()
        assert [message[0] for message in stranger.heard] == ["error"]
        await collect.say(*puts(1, SCHEMA))
        assert await collect.hear() == ["ack", 1]


NONSENSE: dict[str, bytes] = {
    "no msgpack": b"\0\0\0\1\xc1",
    "no array": b"\0\0\0\1\x01",
    "an empty frame": b"\0\0\0\0",
    "a frame that is too long": (MAX_FRAME + 1).to_bytes(4, "big"),
    "a name that is none": pack_frame([1, 2]),
    "an unknown name": pack_frame(["drop table"]),
    "a bool for a number": pack_frame(["put", True, "event", b""]),
    "a put without a body": pack_frame(["put", 1, "event"]),
    "a put with text for a body": pack_frame(["put", 1, "event", "text"]),
    "a read from before the start": pack_frame(["read", -1, 1000]),
    "a read of nothing": pack_frame(["read", 0, 0]),
    "a receipt that is text": pack_frame(["receipt", "text"]),
    "a deep nest": b"\0\0\1\0" + b"\x91" * 256,
    "trailing bytes": b"\0\0\0\2\x90\0",
}


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("socket", ["inlet", "outlet"])
async def test_nonsense_ends_one_connection_and_nothing_else(tmp_path: Path, socket: str, what: str) -> None:
    async with serving(tmp_path) as s:
        collect, forward = await s.collect(), await s.peer("outlet")
        await forward.say(["hello", 1])
        assert (await forward.hear())[0] == "position"
        stranger = await s.peer(socket)
        if socket == "outlet":
            await stranger.say(["hello", 1])
            await stranger.hear()
        stranger.channel._writer.write(NONSENSE[what])
        assert await stranger.is_closed()
        assert [message[0] for message in stranger.heard] == ["error"]
        await collect.say(*puts(1, SCHEMA))
        assert await collect.hear() == ["ack", 1]
        await forward.say(["read", 2, 1000])
        assert (await forward.hear())[:2] == ["chunk", 2]
        assert not s.server.failed.done()
        assert not s.beating.done()


@on_both_loops
async def test_what_came_before_nonsense_is_sealed_and_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA, readings(1)), ["put", 3], *puts(4, readings(4)))
        assert await collect.is_closed()
        assert [message[0] for message in collect.heard] == ["ack", "error"]
        assert [number for _, number in s.box.sources()] == [1, 2]


# ---- full


@on_both_loops
async def test_after_full_the_rest_is_passed_over_until_that_batch_comes_again(tmp_path: Path) -> None:
    """So the log keeps the order in which collect sent, and nothing in it is missing."""
    async with serving(tmp_path, height=2, budget_bytes=1000, keep_bytes=0, drop_readings=False) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA, *(readings(number, rows=3) for number in range(2, 9))))
        assert await collect.hear() == ["ack", 8]
        assert s.box.sealer.is_full
        await collect.say(*puts(9, readings(9), readings(10)))
        assert await collect.hear() == ["full", 9]
        await collect.say(*puts(11, readings(11), readings(12)))
        assert await collect.hears_nothing()
        await until_signed(s, 10)
        forward = await s.peer("outlet")
        await forward.say(["receipt", s.box.receipt()])
        assert await forward.hear() == ["receipted", 10]
        await collect.say(*puts(13, readings(13)))
        assert await collect.hears_nothing(), "a later batch must not overtake"
        await collect.say(*puts(9, *(readings(number) for number in range(9, 14))))
        assert await collect.hear() == ["ack", 13]
        numbers = [number for _, number in s.box.sources()]
        assert numbers == list(range(14 - len(numbers), 14))
        assert (s.events("seal.full"), s.events("seal.room")) == (1, 1)


@on_both_loops
async def test_a_new_connection_starts_without_the_old_ones_stall(tmp_path: Path) -> None:
    """What was dropped meanwhile, collect does not send again: it may start with a later number."""
    async with serving(tmp_path, height=2, budget_bytes=1000, keep_bytes=0, drop_readings=False) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA, *(readings(number, rows=3) for number in range(2, 9))))
        await collect.hear()
        await collect.say(*puts(9, readings(9)))
        assert await collect.hear() == ["full", 9]
        await until_signed(s, 10)
        s.box.sealer.receive(s.box.receipt())
        collect = await s.collect()
        await collect.say(*puts(11, readings(11)))
        assert await collect.hear() == ["ack", 11]


@on_both_loops
async def test_a_disk_without_room_turns_the_whole_group_away(tmp_path: Path) -> None:
    """From its first batch on, in order; what was malformed is refused all the same."""
    files = FaultyFiles()
    box = Box(files=lambda: files, height=2)
    async with serving(tmp_path, box=box, beat_s=30) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA))
        await collect.hear()
        files.room = 0
        await collect.say(*puts(2, ("event", b""), readings(3), readings(4)))
        answers = [await collect.hear(), await collect.hear()]
        assert [answer[:2] for answer in answers] == [["refused", 2], ["full", 3]]
        files.room = None
        await collect.say(*puts(3, readings(3), readings(4)))
        assert await collect.hear() == ["ack", 4]
        assert [number for _, number in s.box.sources()] == [1, 3, 4]
        assert (s.events("seal.full"), s.events("seal.room")) == (1, 1)


# ---- forward


@on_both_loops
async def test_forward_learns_where_things_stand(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        s.box.sealer.receive(s.box.receipt(1))
        forward = await s.peer("outlet")
        await forward.say(["hello", 1])
        assert await forward.hear() == ["position", 1, 2]


@on_both_loops
async def test_a_chunk_holds_the_log_and_the_checkpoint_that_ends_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        collect, forward = await s.collect(), await s.peer("outlet")
        await collect.say(*puts(1, SCHEMA, readings(1)))
        await until_signed(s, 4)
        await forward.say(["read", 0, 1 << 20])
        name, first, leaves, note = await forward.hear()
        found = checkpoints.verify(note, origin=ORIGIN, verifier=SIGNER.verifier)
        assert (name, first, found.size, found.root) == ("chunk", 0, 4, root_of(unpack_leaves(leaves)))


@on_both_loops
async def test_a_read_is_answered_as_soon_as_there_is_something_new(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        collect, forward = await s.collect(), await s.peer("outlet")
        await forward.say(["read", 2, 1000])
        assert await forward.hears_nothing()
        await collect.say(*puts(1, SCHEMA))
        assert (await forward.hear())[:2] == ["chunk", 2]


@on_both_loops
async def test_a_read_that_waits_too_long_is_idle(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_s=0.1) as s:
        forward = await s.peer("outlet")
        for _ in range(2):
            await forward.say(["read", 2, 1000])
            assert await forward.hear() == ["idle"]
        await forward.say(["read", 2**60, 1000])
        assert await forward.hear() == ["idle"]


@on_both_loops
async def test_a_new_read_replaces_one_that_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        collect, forward = await s.collect(), await s.peer("outlet")
        await forward.say(["read", 2, 1000])
        await forward.say(["read", 3, 1000])
        await collect.say(*puts(1, SCHEMA, readings(1)))
        assert (await forward.hear())[:2] == ["chunk", 3]
        assert await forward.hears_nothing()


@on_both_loops
async def test_forward_reads_on_while_receipts_arrive(tmp_path: Path) -> None:
    """A waiting read holds up no receipt, and a receipt no read; all of the log gets through, in order."""
    async with serving(tmp_path) as s:
        collect, forward = await s.collect(), await s.peer("outlet")

        async def seal_on() -> None:
            for number in range(1, 40):
                await collect.say(*puts(number, readings(number) if number > 1 else SCHEMA))
                await collect.hear()
                await asyncio.sleep(0.01)

        sealing = asyncio.create_task(seal_on())
        size = receipted = 0
        async with asyncio.timeout(20):
            while size < 41 or receipted < 41:
                await forward.say(["read", size, 500])
                if s.box.sealer.signed > receipted:
                    await forward.say(["receipt", s.box.receipt()])
                match await forward.hear():
                    case ["chunk", first, leaves, _]:
                        size += len(leaves) if first == size else 0  # else the answer to an earlier read
                    case ["receipted", newest]:
                        assert newest >= receipted
                        receipted = newest
        await sealing
        assert s.box.sealer.receipted == size == 41


@on_both_loops
async def test_a_receipt_is_answered_while_a_read_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        forward = await s.peer("outlet")
        await forward.say(["read", 2, 1000], ["receipt", s.box.receipt()])
        assert await forward.hear() == ["receipted", 2]


@on_both_loops
async def test_false_receipts_are_refused_and_said_once(tmp_path: Path) -> None:
    far = Checkpoint(origin=ORIGIN, size=500, root=bytes(32))
    false = checkpoints.cosign(far, WITNESS.cosigner(), time_s=T0_S)
    async with serving(tmp_path) as s:
        forward = await s.peer("outlet")
        for note in (b"", b"nonsense", false, false):
            await forward.say(["receipt", note])
            assert (await forward.hear())[:2] == ["refused", 0]
        assert (s.box.sealer.receipted, s.events("seal.receipt_refused")) == (0, 1)
        await forward.say(["receipt", s.box.receipt()])
        assert await forward.hear() == ["receipted", 2]


@on_both_loops
async def test_a_greedy_read_gets_no_more_than_a_message_may_hold(tmp_path: Path) -> None:
    """Forward is of the DMZ: it must not make the seal read its whole log into memory."""
    box = Box.at(tmp_path / "log")
    box.sealer.welcome(BOOT)
    body = ("event", pack({"what": "x", "t": 1, "about": {"x": bytes(60_000)}}))
    box.put(*[body] * 80)
    async with serving(tmp_path, box=box) as s:
        await until_signed(s, 82)
        forward = await s.peer("outlet")
        await forward.say(["read", 0, 2**62])
        _, _, leaves, _ = await forward.hear()
        assert 10 < len(leaves) < 20


# ---- what stops it


@on_both_loops
async def test_a_dying_disk_stops_the_process(tmp_path: Path) -> None:
    """Also when it shows on a connection: nobody may go on over a log that is not to be trusted."""
    files = FaultyFiles()
    async with serving(tmp_path, box=Box(files=lambda: files, height=2), beat_s=30) as s:
        collect = await s.collect()
        files.faults = {files.changes + 2: "dying"}
        await collect.say(*puts(1, SCHEMA))
        assert await collect.is_closed()
        assert collect.heard == []
        with pytest.raises(LogError):
            async with asyncio.timeout(PATIENCE_S):
                await s.beating


@on_both_loops
async def test_a_leaf_that_went_missing_stops_the_process_when_forward_asks_for_it(tmp_path: Path) -> None:
    async with serving(tmp_path, height=2) as s:
        collect, forward = await s.collect(), await s.peer("outlet")
        await collect.say(*puts(1, SCHEMA, *(readings(number) for number in range(8))))
        await until_signed(s, 11)
        bundle = tmp_path / "log" / "tile" / "entries" / "000"
        bundle.write_bytes(bundle.read_bytes()[:-1])
        s.box.log._bundles._cache.clear()
        s.box.log._files.close()
        await forward.say(["read", 0, 1000])
        with pytest.raises(LogError, match="000"):
            async with asyncio.timeout(PATIENCE_S):
                await s.beating


@on_both_loops
async def test_a_beat_that_fails_stops_the_process(tmp_path: Path) -> None:
    """What was acknowledged before is durable all the same."""
    files = FaultyFiles()
    async with serving(tmp_path, box=Box(files=lambda: files, height=2), beat_s=0.3) as s:
        collect = await s.collect()
        await collect.say(*puts(1, SCHEMA))
        assert await collect.hear() == ["ack", 1]
        files.faults = {files.changes + 1: "dying"}
        with pytest.raises(LogError):
            async with asyncio.timeout(PATIENCE_S):
                await s.beating
        assert Box(files=lambda: files.crash("lost"), height=2).sources() == [(BOOT, 1)]


# ---- the whole process' inside

GATEWAY_TOML = """
[gateway]
id = "gw1"
state = "state"
[seal]
key = "gw1.key"
witness = "ledger.vkey"
checkpoint_s = 0.02
[forward]
broker = "127.0.0.1:1"
ca = "ca.pem"
cert = "gw1.pem"
key = "gw1.key"
"""


def configured(folder: Path, **changed: str) -> GatewayConfig:
    """Return a configuration whose keys stand in folder. changed: other contents of the key files."""
    files = {"gw1.key": SIGNER.to_text() + "\n", "ledger.vkey": WITNESS.cosigner().verifier.vkey + "\n"}
    for name, content in (files | {name.replace("_", "."): text for name, text in changed.items()}).items():
        if content:
            (folder / name).write_text(content)
    return parse_gateway(GATEWAY_TOML, name="gateway.toml", folder=folder, template_text=template_text)


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator["asyncio.Task[None]"]:
    """Run the seal in this loop."""
    task = asyncio.create_task(run_seal(config, isolated=True))
    async with asyncio.timeout(PATIENCE_S):
        while not task.done():
            with contextlib.suppress(OSError):
                await read_metrics(config.run_folder / "seal.metrics.sock")
                break
            await asyncio.sleep(0.01)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@on_both_loops
async def test_the_sockets_are_for_owner_and_group_and_the_log_for_its_owner(tmp_path: Path) -> None:
    config = configured(tmp_path)
    async with running(config):
        assert [mode(config.run_folder / f"{name}.sock") for name in ("inlet", "outlet")] == [0o660, 0o660]
        assert mode(config.log_folder) == mode(config.log_folder / "tile") == 0o700
        files = [path for path in config.log_folder.rglob("*") if path.is_file()]
        assert {mode(path) for path in files} == {0o600}
        assert len(files) >= 4
        found = await read_metrics(config.run_folder / "seal.metrics.sock")
        assert (found["wattseal_seal_checkpoint_size"], found["wattseal_seal_isolated"]) == (2, 1)


@on_both_loops
async def test_a_second_seal_on_the_same_log_does_not_start(tmp_path: Path) -> None:
    """And it does not take the first one's sockets away."""
    config = configured(tmp_path)
    async with running(config) as first:
        with pytest.raises(LogError, match="in use by process"):
            await run_seal(config, isolated=True)
        collect = Peer(await connect(config.run_folder / "inlet.sock"))
        await collect.say(["hello", 1, BOOT])
        assert await collect.hear() == ["welcome", 0]
        collect.channel.close()
        assert not first.done()


@on_both_loops
async def test_a_seal_that_is_stopped_gives_its_log_back(tmp_path: Path) -> None:
    config = configured(tmp_path)
    for _ in range(2):
        async with running(config) as task:
            assert not task.done()
    with contextlib.closing(Log.open(RealFiles(config.log_folder), origin=ORIGIN)) as log:
        assert log.size == log.signed == 4


PRIVATE = SIGNER.to_text()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"gw1_key": ""}, "seal.key: got .*gw1.key: No such file or directory, want a readable key file"),
        ({"ledger_vkey": ""}, "seal.witness: got .*ledger.vkey: No such file"),
        ({"gw1_key": "not a key"}, "seal.key: got .*gw1.key: not a private key"),
        ({"gw1_key": PRIVATE[:-2] + "=="}, "seal.key: got .*gw1.key: not a private key"),
        ({"gw1_key": SIGNER.verifier.vkey}, "seal.key: got .*gw1.key: not a private key"),
        (
            {"gw1_key": Signer.generate("wattseal/gw2").to_text()},
            "the key of wattseal/gw2, want the key of wattseal/gw1",
        ),
        ({"ledger_vkey": "not a key"}, "seal.witness: got .*, want a verifier key: <name>"),
        ({"ledger_vkey": PRIVATE}, "seal.witness: got .*, want a verifier key: <name>"),
        ({"ledger_vkey": WITNESS.verifier.vkey}, "a key of type 0x01, want one of type 0x04"),
    ],
)
async def test_a_wrong_key_file_is_one_line_that_quotes_no_key(
    tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    config = configured(tmp_path, **changed)
    with pytest.raises(ConfigError, match=told) as caught:
        await run_seal(config, isolated=True)
    assert "\n" not in str(caught.value)
    assert PRIVATE[-20:] not in str(caught.value)
    assert not config.log_folder.exists()
